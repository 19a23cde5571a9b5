"""H2O (Amortila et al. 2024): any offline algorithm made hybrid, by data that answer for its own policies.

    for t = 1, ..., T:
        pi^t = oracle(first t - 1 offline tuples of every layer, and the tuples of the t - 1 episodes so far)
        play pi^t for one episode; its tuples join the data
    return Unif(pi^1, ..., pi^T)

The data of round t have n = 2 (t - 1) tuples per layer, of mean law mu^t = (nu + (1 / (t - 1)) sum_{i < t} d^i) / 2:
they cover an optimal policy as well as the offline law nu does, and what the oracle chose before as well as it was
played. An oracle that fails only where its own policy or an optimal one is not covered therefore stops failing. The
bound and its proof are in docs/theory/hyglow.md; it holds for every sequence of policies, whoever chose them.

Deviations from the paper, which leaves it open: in the first round there are no data, the oracle is not asked and
`first` is played; rates of the oracle are in n = 2 (t - 1), the size of the data it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.complexity.concentrability import clipped_concentrability
from theoryrl.density_ratio.problem import TOLERANCE
from theoryrl.mdp._checks import frozen, require_int, sealed
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.evaluation import evaluate, occupancy
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import MixturePolicy, policy_layers
from theoryrl.mdp.randomness import Rng, streams
from theoryrl.mdp.sampling import Sampler, draw_initial, draw_step, sampler


@dataclass(frozen=True, eq=False)
class HybridRun:
    """What came out of a run of H2O.

    Attributes
    ----------
    policies : tuple of T policies
        Those played; where the oracle returned a mixture, the member that was drawn.
    choices : tuple of T
        What the oracle returned, None in the first round.
    regret : (T,)
        J* - J(pi^t) of every episode, exact, in units of reward.
    collected : (T,)
        Rewards received in every episode.
    data : Dataset
        The data after the last episode, in the order in which they came: offline tuple t of every layer, then episode
        t; the first 2 (t - 1) H rows are what the oracle was given in round t. (Without the last episode's partner
        from the offline data: T - 1 of them and T episodes.)
    mdp : FiniteHorizonMDP
    """

    policies: tuple[Any, ...] = field(repr=False)
    choices: tuple[Any, ...] = field(repr=False)
    regret: NDArray[np.float64]
    collected: NDArray[np.float64]
    data: Dataset
    mdp: FiniteHorizonMDP

    @property
    def risk(self) -> float:
        """J* minus the value of what is returned, Unif(pi^1, ..., pi^T)."""
        return float(self.regret.mean())

    @property
    def returned(self) -> MixturePolicy:
        """Unif(pi^1, ..., pi^T)."""
        return MixturePolicy(self.policies)


def h2o(
    oracle: Any,
    mdp: FiniteHorizonMDP,
    offline: Dataset | None,
    iterations: int,
    rng: Rng = 0,
    *,
    offline_law: ArrayLike | None = None,
    first: Any = None,
) -> HybridRun:
    """Run H2O with an offline oracle, in plain Python.

    Environment and learner have the streams of `theoryrl.online.run` with one seed, so that a compiled learner that
    does the same meets the same transitions.

    Parameters
    ----------
    oracle : callable, or object with `choose(data, law=None)`
        From a Dataset to a policy: an array, a MixturePolicy (a member is drawn for the episode), or anything with an
        attribute `policy` that is one of these, such as a `Choice` of the oracles of this package. A callable is
        given the data alone.
    mdp : FiniteHorizonMDP
    offline : Dataset or None
        At least T - 1 rows in every layer; taken in their order. None: no offline data, the oracle is given its own
        episodes alone, t - 1 tuples per layer (for oracles whose guarantee does not mention pi*).
    iterations : int
        T, at least 1.
    rng : int, SeedSequence or Generator
    offline_law : (H, S, A) distributions, optional
        nu. If given, `choose` is told the mean law mu^t of its data, which ratios of occupancies are taken against.
    first : policy, optional
        What is played in the first round; default the lowest-numbered allowed action everywhere.

    Returns
    -------
    HybridRun

    Raises
    ------
    ValueError
        Too few offline rows in a layer, sizes that do not fit, a law that is none, or a policy that does not fit the
        model: the round and the entry are named.
    TypeError
        An oracle that can be neither called nor asked to choose.

    Notes
    -----
    Amortila, Foster, Jiang, Sekhari and Xie (2024), Algorithm 2 and Theorem 4.1. Cost beside the oracle's: O(H S A)
    per round and policy for exact values.
    """
    require_model(mdp, FiniteHorizonMDP)
    ask = _asker(oracle)
    rounds = require_int(iterations, 1, "iterations")
    law = None if offline_law is None else require_law(offline_law, mdp)
    buffer = _Buffer(offline, rounds, mdp)
    ((environment, own),) = streams(rng, 1)
    tables, played = sampler(mdp), np.zeros((mdp.horizon, mdp.n_states, mdp.n_actions))
    best = float(mdp.initial @ backward_induction(mdp).value[0])
    policies, choices, regret, collected = [], [], np.empty(rounds), np.empty(rounds)
    for t in range(rounds):
        found = (np.argmax(mdp.action_mask, axis=1) if first is None else first) if t == 0 else None
        if t > 0:
            mean = played / t
            known = None if law is None else sealed(mean if offline is None else 0.5 * (law + mean))
            found = ask(buffer.seen(t), known)
        policy = _one_of(getattr(found, "policy", found), own)
        try:
            layers = policy_layers(policy, mdp)
        except ValueError as error:
            raise ValueError(f"round {t + 1}: {error}") from None
        policies.append(sealed(np.array(policy)))
        choices.append(None if t == 0 else found)
        regret[t] = best - float(mdp.initial @ evaluate(mdp, policy)[0])
        played += occupancy(mdp, policy)
        collected[t] = _episode(tables, layers, t, buffer, environment, own)
    return HybridRun(tuple(policies), tuple(choices), sealed(regret), sealed(collected), buffer.seen(rounds, True), mdp)


def offline_rows(offline: Dataset, count: int) -> NDArray[np.int64]:
    """Which rows are the first `count` of every layer, in their order, (count, H).

    Raises
    ------
    ValueError
        A layer that has fewer; it is named.
    """
    rows = np.empty((count, offline.horizon), np.int64)
    for h in range(offline.horizon):
        mine = np.flatnonzero(offline.step == h)
        if mine.size < count:
            raise ValueError(
                f"layer {h} has {mine.size} offline rows, fewer than the {count} that {count + 1} iterations take"
            )
        rows[:, h] = mine[:count]
    return rows


def require_law(law: ArrayLike, sizes: Any) -> NDArray[np.float64]:
    """A distribution over pairs for every layer, (H, S, A), read-only.

    Raises
    ------
    ValueError
        Another shape, a negative entry, or a layer that does not sum to 1.
    """
    table = frozen(law, np.float64, "offline_law")
    shape = (sizes.horizon, sizes.n_states, sizes.n_actions)
    if table.shape != shape:
        raise ValueError(f"offline_law has shape {table.shape}, not {shape}")
    require_distributions(table)
    return table


def require_distributions(table: NDArray[np.float64]) -> None:
    """Refuse tables (..., S, A) of which some layer is no distribution over pairs."""
    total = table.sum(axis=(-2, -1))
    wrong = ~((np.abs(total - 1) <= TOLERANCE) & (table >= 0).all(axis=(-2, -1)))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        name = ", ".join(str(i) for i in place)
        raise ValueError(
            f"offline_law[{name}] is no distribution: its entries sum to {total[place]:.9g}, the least is "
            f"{table[place].min():.3g}"
        )


def hybrid_coverage(
    occupancies: ArrayLike, best: ArrayLike, law: ArrayLike, gamma: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Clipped concentrability over n of an optimal policy and of the one played, in every round that has data.

    (1/n) CC_h(pi, mu^t, gamma n) = E_{d^pi}[ min{ d^pi / (n mu^t), gamma } ],   n mu^t = (t - 1) nu + sum_{i < t} d^i

    Parameters
    ----------
    occupancies : (T, H, S, A)
        d^1, ..., d^T of the policies played.
    best : (H, S, A)
        d* of an optimal policy.
    law : (H, S, A)
        nu.
    gamma : positive float

    Returns
    -------
    optimal, played : (T - 1, H)
        Of rounds t = 2, ..., T. Summed over rounds at most C*_h (1 + 1/2 + ... + 1/(T-1)), C*_h = E_{d*}[d* / nu], and
        (1 + gamma) (C_h H(T / C_h) - 1), C_h = sum_x max_t d^t_h(x), H(x) = digamma(1 + x) + 0.5772...

    Notes
    -----
    Proof: docs/theory/hyglow.md#the-data-answer-for-the-oracle.
    """
    flows = np.asarray(occupancies, np.float64)
    rounds = np.arange(1, len(flows))[:, np.newaxis, np.newaxis, np.newaxis]
    mass = rounds * np.asarray(law, np.float64) + np.cumsum(flows[:-1], axis=0)
    return clipped_concentrability(best, mass, gamma), clipped_concentrability(flows[1:], mass, gamma)


def _asker(oracle: Any) -> Callable[[Dataset, NDArray[np.float64] | None], Any]:
    choose = getattr(oracle, "choose", None)
    if callable(choose) and not isinstance(oracle, type):
        return lambda data, law: choose(data, law=law)
    if not callable(oracle) or isinstance(oracle, type):
        raise TypeError(f"oracle must be callable or have a method choose(data, law), not {oracle!r}")
    return lambda data, law: oracle(data)


def _one_of(policy: Any, own: np.random.Generator) -> Any:
    if not isinstance(policy, MixturePolicy):
        return policy
    return policy.policies[_draw(np.asarray(policy.weights), own)]


def _draw(weights: NDArray[np.float64], own: np.random.Generator) -> int:
    """An index with probability `weights`; one of probability 0 is never drawn."""
    steps = np.cumsum(weights)
    return int(np.searchsorted(steps, own.random() * steps[-1], side="right"))


class _Buffer:
    """Rows of the offline data and of the episodes, one after the other, read back without copying."""

    def __init__(self, offline: Dataset | None, rounds: int, mdp: FiniteHorizonMDP) -> None:
        self.sizes = mdp.n_states, mdp.n_actions, mdp.horizon
        self.hybrid, first = offline is not None, 0
        copies = 2 if self.hybrid else 1
        shape = (rounds, copies, mdp.horizon)
        self.columns = {name: np.zeros(shape, float if name == "reward" else np.int64) for name in Dataset.COLUMNS}
        if offline is not None:
            mine = (offline.n_states, offline.n_actions, offline.horizon)
            if mine != self.sizes:
                raise ValueError(f"offline data are for (S, A, H) = {mine}, the model for {self.sizes}")
            rows = offline_rows(offline, rounds - 1)
            for name, column in self.columns.items():
                column[:-1, 0] = getattr(offline, name)[rows]
            first = int(offline.trajectory.max(initial=-1)) + 1
        self.columns["trajectory"][:, -1] = first + np.arange(rounds)[:, np.newaxis]
        self.columns["step"][:, -1] = np.arange(mdp.horizon)

    def write(self, t: int, h: int, s: int, a: int, reward: float, s_next: int) -> None:
        for name, value in (("state", s), ("action", a), ("reward", reward), ("next_state", s_next)):
            self.columns[name][t, -1, h] = value

    def seen(self, t: int, last: bool = False) -> Dataset:
        """The data of round t + 1; with `last` those after the last round t, whose episode has no offline partner."""
        columns = []
        for column in self.columns.values():
            rows = column[:t].reshape(-1)
            if last and self.hybrid:
                rows = np.concatenate([column[: t - 1].reshape(-1), column[t - 1, 1]])
            columns.append(rows)
        return Dataset.of_checked(columns, *self.sizes)


def _episode(
    tables: Sampler,
    layers: NDArray,
    t: int,
    buffer: _Buffer,
    environment: np.random.Generator,
    own: np.random.Generator,
) -> float:
    total, s = 0.0, int(draw_initial(tables, environment))
    for h in range(buffer.sizes[2]):
        row = layers[h if len(layers) > 1 else 0][s]
        a = int(row) if row.ndim == 0 else _draw(row, own)
        reward, s_next = draw_step(tables, h, s, a, environment)
        buffer.write(t, h, s, a, reward, s_next)
        total += reward
        s = int(s_next)
    return total


__all__ = ["HybridRun", "h2o", "hybrid_coverage", "offline_rows"]
