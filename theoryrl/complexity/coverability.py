"""Coverability: how small the concentrability of the best data distribution can be, by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.evaluation import occupancy, reachability
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.policy import MixturePolicy

# Nonzeros of the linear program of one layer; beyond it the solver takes minutes and gigabytes.
LP_LIMIT = 2_000_000


def largest_occupancy(mdp: FiniteHorizonMDP, policies: Any = None) -> NDArray[np.float64]:
    """Largest probability with which a policy of the set is in state s and takes action a at layer h.

    sup_{pi in Pi} d_h^pi(s, a);   over all policies it is max_pi P(s_h = s) for every allowed a

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policies : list or tuple of policies, or one policy, optional
        Arrays as in `occupancy`, or MixturePolicy; an array is one policy. Default: all policies, history-dependent
        and stochastic ones included.

    Returns
    -------
    ndarray, shape (H, S, A)
        0 where the action is forbidden.

    Raises
    ------
    ValueError
        An empty set, or a policy that is none of this model: its entry is named.

    Notes
    -----
    A probability of (s_h, a_h) is largest under a deterministic Markov policy that plays to reach s and then takes a,
    so the history does not help. Cost: that of `reachability`, H steps of an S x S A x S product (sparse: of S rows
    of nnz) for stationary transitions, of H / 2 times that for time-varying ones; for a set, one occupancy per
    policy.
    """
    require_model(mdp, FiniteHorizonMDP)
    if policies is None:
        largest = reachability(mdp)[:, :, np.newaxis] * mdp.action_mask
    else:
        largest = np.zeros((mdp.horizon, mdp.n_states, mdp.n_actions))
        for table in occupancies(mdp, policies):
            np.maximum(largest, table, out=largest)
    largest.flags.writeable = False
    return largest


def occupancies(mdp: FiniteHorizonMDP, policies: Any) -> Iterator[NDArray[np.float64]]:
    """The occupancy of every policy of a set; one array or mixture is a set of one."""
    if isinstance(policies, (np.ndarray, MixturePolicy)):
        yield occupancy(mdp, policies)
        return
    if not isinstance(policies, Iterable):
        raise TypeError(f"policies must be a policy or a list of policies, not a {type(policies).__name__}")
    members = list(policies)
    if not members:
        raise ValueError("the set of policies is empty")
    for i, policy in enumerate(members):
        try:
            yield occupancy(mdp, policy)
        except ValueError as error:
            raise ValueError(f"policies[{i}]: {error}") from None


def coverability(mdp: FiniteHorizonMDP, policies: Any = None) -> NDArray[np.float64]:
    """Coverability of every layer: the least concentrability that any data distribution can have.

    C_cov,h(Pi) = inf_mu sup_{pi in Pi} max_{s, a} d_h^pi(s, a) / mu(s, a) = sum_{s, a} sup_{pi in Pi} d_h^pi(s, a)

    Over all policies this is sum_s A(s) rho_h(s), with A(s) the number of allowed actions and rho_h(s) the largest
    probability of s_h = s. The coverability of the model is the largest entry.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policies : list or tuple of policies, or one policy, optional
        Default: all policies. See `largest_occupancy`.

    Returns
    -------
    ndarray, shape (H,)
        Between 1 and the number of policies, and at most the number of allowed pairs that can be reached.

    Notes
    -----
    Xie, Foster, Bai, Jiang and Kakade (2023), The role of coverage in online reinforcement learning, where the closed
    form is called cumulative reachability (proof: docs/theory/complexity.md). Cost: `largest_occupancy`.
    """
    total = largest_occupancy(mdp, policies).sum(axis=(1, 2))
    total.flags.writeable = False
    return total


def optimal_data(mdp: FiniteHorizonMDP, policies: Any = None) -> NDArray[np.float64]:
    """The data distribution with the least concentrability: mu_h(s, a) = sup_pi d_h^pi(s, a) / C_cov,h.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policies : list or tuple of policies, or one policy, optional
        Default: all policies.

    Returns
    -------
    ndarray, shape (H, S, A)
        Every layer sums to 1.

    Notes
    -----
    Xie, Foster, Bai, Jiang and Kakade (2023), as `coverability`. Cost: `largest_occupancy`.
    """
    largest = largest_occupancy(mdp, policies)
    data = largest / largest.sum(axis=(1, 2), keepdims=True)
    data.flags.writeable = False
    return data


def coverability_lp(mdp: FiniteHorizonMDP, policies: Any = None) -> NDArray[np.float64]:
    """Coverability as a linear program (HiGHS), independent of the closed form: a cross-check for small models.

    For a finite set: min sum_z nu(z) subject to nu >= d_h^pi for every pi (nu = C mu). For all policies the
    constraint nu(z) >= max_pi d_h^pi(z) of z = (s, a) is written out by the dual of the linear program of reaching z:
    functions V^z with V_h^z >= 1{s}, V_k^z(x) >= sum_t P_k(t | x, b) V_{k+1}^z(t) for every allowed b, and nu(z) >=
    <mu_0, V_0^z>.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policies : list or tuple of policies, or one policy, optional
        Default: all policies.

    Returns
    -------
    ndarray, shape (H,)
        To the accuracy of the solver, about 1e-9.

    Raises
    ------
    ValueError
        If a layer's program would have more than two million nonzeros; the size is named.
    RuntimeError
        If the solver fails.

    Notes
    -----
    Cost at layer h, all policies: S A h S variables and S A h nnz(P) nonzeros.
    """
    require_model(mdp, FiniteHorizonMDP)
    if policies is None:
        return np.array([_reach_program(mdp, h) for h in range(mdp.horizon)])
    tables = np.array(list(occupancies(mdp, policies)))
    return np.array([_set_program(tables[:, h].reshape(len(tables), -1)) for h in range(mdp.horizon)])


def _set_program(tables: NDArray[np.float64]) -> float:
    """Min sum nu with nu >= every row of `tables`."""
    from scipy.sparse import eye_array, vstack

    n = tables.shape[1]
    return _solve(np.ones(n), vstack([-eye_array(n)] * len(tables)).tocsr(), -tables.reshape(-1))


def _reach_program(mdp: FiniteHorizonMDP, layer: int) -> float:
    """The program of one layer; block z holds V_0^z, ..., V_layer^z."""
    from scipy.sparse import block_diag, csr_array, vstack

    states = np.nonzero(mdp.action_mask)[0]
    allowed = np.flatnonzero(mdp.action_mask)
    matrices = mdp.to_sparse().transition.to_scipy()
    steps = [(matrices[k] if isinstance(matrices, list) else matrices)[allowed] for k in range(layer)]
    nonzeros = len(states) * (sum(step.nnz + len(allowed) for step in steps) + mdp.n_states)
    if nonzeros > LP_LIMIT:
        raise ValueError(
            f"the linear program of layer {layer} has {nonzeros:.3g} nonzeros, more than {LP_LIMIT:.3g}; "
            "coverability(mdp) needs none"
        )
    n, width = mdp.n_states, (layer + 1) * mdp.n_states
    rows = []
    here = csr_array((np.ones(len(allowed)), (np.arange(len(allowed)), states)), shape=(len(allowed), n))
    for k, step in enumerate(steps):
        # sum_t P V_{k+1}(t) - V_k(x) <= 0
        left = csr_array((len(allowed), k * n))
        right = csr_array((len(allowed), width - (k + 2) * n))
        rows.append(_beside([left, -here, step, right]))
    block = vstack(rows).tocsr() if rows else csr_array((0, width))
    matrix = block_diag([block] * len(states)).tocsr()
    # V_layer >= 1{s} enters as a lower bound, everything else is at least 0.
    lower = np.zeros((len(states), width))
    lower[np.arange(len(states)), layer * n + states] = 1.0
    cost = np.zeros((len(states), width))
    cost[:, :n] = mdp.initial
    return _solve(cost.reshape(-1), matrix, np.zeros(matrix.shape[0]), lower.reshape(-1))


def _beside(parts: list[Any]) -> Any:
    from scipy.sparse import hstack

    return hstack([part for part in parts if part.shape[1]])


def _solve(cost: NDArray, matrix: Any, limit: NDArray, lower: NDArray | float = 0.0) -> float:
    from scipy.optimize import linprog

    bounds = np.column_stack([np.broadcast_to(lower, cost.shape), np.full(cost.shape, np.inf)])
    given = {"A_ub": matrix, "b_ub": limit} if matrix.shape[0] else {}
    result = linprog(cost, bounds=bounds, method="highs", **given)
    if result.status != 0:
        raise RuntimeError(f"HiGHS: {result.message}")
    return float(result.fun)
