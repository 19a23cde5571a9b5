"""Expected hitting times of a policy, the least ones over policies, and the diameter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.complexity import _kernels as kernels
from theoryrl.complexity._graphs import (
    Model,
    components,
    leading_into,
    require_stationary,
    stationary_tables,
    surely_reaching,
)
from theoryrl.mdp.model import require_model
from theoryrl.mdp.policy import stochastic_layers

# An evaluation that lowers no time by more than this share has converged: its rounding is of that size.
PROGRESS = 1e-14


def hitting_times(mdp: Model, policy: Any) -> NDArray[np.float64]:
    """Expected number of steps in which a stationary policy first reaches state t from state s.

    T^pi(s, t) = E[min{n >= 0 : s_n = t} | s_0 = s];   T^pi(t, t) = 0

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        With stationary transitions; the horizon, the discount and the rewards play no part.
    policy : (S,) actions or (S, A) probabilities

    Returns
    -------
    ndarray, shape (S, S)
        Row s, column t; inf where t is missed with positive probability.

    Raises
    ------
    ValueError
        Time-varying transitions or policy.
    OverflowError
        A finite time of 1e250 steps or more.

    Notes
    -----
    Norris (1997), Markov Chains, Theorem 1.3.5. By elimination without subtractions: the relative error is of the
    order of S roundings for every entry, however large. Cost: S eliminations of S^3 / 3 multiplications.
    """
    chain = policy_chain(mdp, policy)
    into = leading_into(chain[:, np.newaxis, :] > 0)
    times = np.full(chain.shape, np.inf)
    for target in range(len(chain)):
        sure, _ = surely_reaching(into, target)
        _put_times(chain, sure, target, times[:, target])
        _require_range(times[:, target], sure, target)
    times.flags.writeable = False
    return times


def policy_chain(mdp: Model, policy: Any) -> NDArray[np.float64]:
    """The Markov chain (S, S) of a stationary policy in a stationary model; every row sums to 1 within rounding."""
    require_model(mdp)
    require_stationary(mdp, "a Markov chain")
    table = stochastic_layers(policy, mdp)
    if len(table) > 1:
        raise ValueError("policy changes over time; a Markov chain needs an action or probabilities per state")
    return np.einsum("sa,sat->st", table[0], stationary_tables(mdp))


def _put_times(chain: NDArray, sure: NDArray[np.bool_], target: int, times: NDArray) -> None:
    """times[s] = expected steps to `target` for the states that are sure to reach it; the rest is left as it is."""
    states = np.flatnonzero(sure & (np.arange(len(chain)) != target))
    inner = np.ascontiguousarray(chain[np.ix_(states, states)])
    leave, time = chain[states, target].copy(), np.ones(len(states))
    kernels.absorption_times(inner, leave, time)
    times[states], times[target] = time, 0.0


def _require_range(times: NDArray[np.float64], sure: NDArray[np.bool_], target: int) -> None:
    beyond = sure & (times >= kernels.MOST)
    if beyond.any():
        raise OverflowError(
            f"the expected time from state {int(beyond.argmax())} to state {target} is over {kernels.MOST:g} steps"
        )


def minimal_hitting_times(mdp: Model) -> NDArray[np.float64]:
    """Least expected number of steps in which any policy reaches state t from state s.

    T*(s, t) = min_pi T^pi(s, t);   T*(s, t) = 1 + min_a sum_{x != t} P(x | s, a) T*(x, t)   for s != t

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        With stationary transitions; the horizon, the discount and the rewards play no part.

    Returns
    -------
    ndarray, shape (S, S)
        Row s, column t; inf where no policy reaches t with probability 1.

    Raises
    ------
    ValueError
        Time-varying transitions.
    OverflowError
        A finite time of 1e250 steps or more.

    Notes
    -----
    A stochastic shortest path problem per target, solved by policy iteration from a policy that reaches the target
    surely: Bertsekas and Tsitsiklis (1991), An analysis of stochastic shortest path problems. Each policy is
    evaluated by elimination without subtractions. Cost: per target a few evaluations (S^3 / 3 multiplications) and
    backups (S^2 A).
    """
    require_model(mdp)
    require_stationary(mdp, "a hitting time")
    table = stationary_tables(mdp)
    into = leading_into(table > 0)
    times = np.full((mdp.n_states, mdp.n_states), np.inf)
    for target in range(mdp.n_states):
        sure, policy = surely_reaching(into, target)
        usable = mdp.action_mask & ~into[~sure].any(axis=0)
        _shortest(table, usable, sure, policy, target, times[:, target])
        _require_range(times[:, target], sure, target)
    times.flags.writeable = False
    return times


def _shortest(
    table: NDArray, usable: NDArray[np.bool_], sure: NDArray[np.bool_], policy: NDArray, target: int, best: NDArray
) -> None:
    """Policy iteration on the states `sure`; actions that may lead out of them are worth infinity and never used."""
    every = np.arange(len(table))
    _put_times(table[every, policy], sure, target, best)
    while True:
        # What an action changes, from differences: in 1 + sum P T* - T* the 1 would vanish next to large times.
        level = np.where(sure, best, 0.0)
        change = 1.0 + (table @ (level - level[:, np.newaxis])[:, :, np.newaxis])[..., 0]
        change = np.where(usable, change, np.inf)
        policy = np.where((change.min(axis=1) < 0) & sure, change.argmin(axis=1), policy)
        new = np.full_like(best, np.inf)
        _put_times(table[every, policy], sure, target, new)
        progress = new[sure] < best[sure] * (1 - PROGRESS)
        best[sure] = np.minimum(best[sure], new[sure])
        if not progress.any():
            return


def diameter(mdp: Model) -> float:
    """The diameter: the longest of the least expected times from one state to another.

    D = max_{s != t} min_pi T^pi(s, t)

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        With stationary transitions.

    Returns
    -------
    float
        inf unless every state can be reached from every other (the model is communicating); 0 for a single state.

    Raises
    ------
    ValueError
        Time-varying transitions.
    OverflowError
        A finite time of 1e250 steps or more.

    Notes
    -----
    Jaksch, Ortner and Auer (2010), Near-optimal regret bounds for reinforcement learning, Definition 1. Cost:
    `minimal_hitting_times`; a model that is not communicating costs one pass over the transitions.
    """
    require_model(mdp)
    require_stationary(mdp, "the diameter")
    if not is_communicating(mdp):
        return float("inf")
    return float(minimal_hitting_times(mdp).max())


def is_communicating(mdp: Model) -> bool:
    """Whether some policy leads from every state to every other with positive probability (stationary transitions).

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP

    Returns
    -------
    bool

    Notes
    -----
    Puterman (1994), section 8.3. Cost: one pass over the transitions.
    """
    require_model(mdp)
    require_stationary(mdp, "whether a model is communicating")
    if mdp.is_sparse:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        rows = mdp.transition
        number = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
        kept = (rows.data > 0) & mdp.action_mask.reshape(-1)[number]
        edges = (np.ones(int(kept.sum())), (number[kept] // mdp.n_actions, rows.indices[kept].astype(np.int64)))
        return bool(connected_components(csr_array(edges, shape=(mdp.n_states,) * 2), connection="strong")[0] == 1)
    support = np.asarray((stationary_tables(mdp) > 0).any(axis=1))
    return components(support)[0] == 1


__all__ = ["diameter", "hitting_times", "is_communicating", "minimal_hitting_times"]
