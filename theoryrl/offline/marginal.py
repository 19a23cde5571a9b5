"""Marginalised weights: one ratio per layer, state and action instead of one per trajectory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import sealed
from theoryrl.mdp.dataset import Dataset
from theoryrl.offline import _kernels as kernels
from theoryrl.offline._data import (
    Tables,
    Uncovered,
    episodes,
    flow,
    n_trajectories,
    policy_table,
    start_of,
    tables,
    weight_table,
)
from theoryrl.offline.estimate import Estimate


def marginalised_sampling(
    data: Dataset,
    target: Any,
    weights: ArrayLike | None = None,
    *,
    initial: ArrayLike | int | None = None,
    staged: bool = True,
) -> Estimate:
    """Value of `target` with one weight per layer, state and action: (1/n) sum_i sum_h w_h(s_h, a_h) r_h.

    With the true ratio w = d^pi / d^b the expectation is J(pi), and the variance grows only polynomially with H. By
    default the ratio is estimated (`marginalised_weights`); the estimate is then consistent, biased, and equal to the
    target's value in the empirical model. The behaviour policy need not be known.

    Parameters
    ----------
    data : Dataset
        With `weights` whole trajectories; without, any rows.
    target : policy
    weights : (H, S, A), optional
        Fixed ratios, infinite where the target goes and the behaviour cannot; the estimate is unbiased if they are the
        true ones and do not depend on the data.
    initial, staged
        As in `marginalised_weights`; used without `weights`.

    Returns
    -------
    Estimate
        Refused, with the pairs named, if the target reaches a pair without data. With estimated weights the standard
        error is, per layer, the square root of the estimated efficiency bound over n (trajectories); pooled rows count
        in all layers at once. It is infinite for a single trajectory.

    Notes
    -----
    Xie, Ma and Wang (2019), Towards optimal off-policy evaluation for reinforcement learning with marginalized
    importance sampling; Yin and Wang (2020) for the tabular form.
    """
    if weights is not None:
        rows = episodes(data)
        table = weight_table(weights, data, "weights")
        policy_table(target, data, "target")
        method = "marginalised importance sampling, given weights"
        missing = tuple((int(h), int(s), int(a)) for h, s, a in np.argwhere(np.isinf(table)))
        if missing:
            return Estimate.refused(method, True, rows.number.size, missing)
        step = np.arange(data.horizon)
        terms = (table[step, rows.state, rows.action] * rows.reward).sum(axis=1)
        return Estimate.mean(terms, method, True)
    pi, start, counts = policy_table(target, data, "target"), start_of(data, initial), tables(data, staged)
    method = "marginalised importance sampling"
    n = n_trajectories(data)
    solved = flow(counts, pi, start)
    if solved.uncovered:
        return Estimate.refused(method, False, n, solved.uncovered)
    mean = counts.reward_sums / np.maximum(counts.visits, 1.0)
    return Estimate(
        float((solved.occupancy * mean).sum()),
        plug_in_error(data, counts, pi, start, solved.occupancy, staged, initial is None),
        method,
        False,
        n,
    )


def plug_in_error(
    data: Dataset,
    counts: Tables,
    target: NDArray[np.float64],
    start: NDArray[np.float64],
    occupancy: NDArray[np.float64],
    staged: bool,
    drawn: bool,
) -> float:
    """Standard error of the empirical model's value, to first order (delta method) with the pairs' counts given.

    sqrt(Var_start(V_0) / n_0 + sum over rows of (sum_h d_h(s, a) / N_h(s, a) (r + V_{h+1}(s') - Q_h(s, a)))^2)

    The inner sum is over the layers that use the row: pooled rows move all layers at once. The first term only if the
    start is `drawn`: n_0 rows are at step 0. Infinite for a single trajectory.
    """
    if n_trajectories(data) == 1:
        return math.inf
    later, q = np.zeros((data.horizon + 1, data.n_states)), np.zeros(target.shape)
    visits = np.maximum(counts.visits, 1.0)
    for h in range(data.horizon - 1, -1, -1):
        q[h] = (counts.reward_sums[h] + counts.transitions[h] @ later[h + 1]) / visits[h]
        later[h] = (target[h] * q[h]).sum(axis=-1)
    rows = list(data.columns.values())[1:]
    total = float(kernels.influence_squares(*rows, staged, occupancy / visits, q, later))
    if drawn:
        spread = float(start @ (later[0] - start @ later[0]) ** 2)
        total += spread / int((data.step == 0).sum())
    return math.sqrt(total)


def marginalised_weights(
    data: Dataset, target: Any, *, initial: ArrayLike | int | None = None, staged: bool = True
) -> tuple[NDArray[np.float64], Uncovered]:
    """Ratios of the target's occupancy to the data's: w_h(s, a) = d_h(s, a) n_h / N_h(s, a), the tabular DICE solution.

    d solves the flow equations of the data, d_{h+1}(s') = sum_{s, a} d_h(s, a) P_h(s' | s, a) with P the empirical
    transitions; equivalently w is the only solution of the Bellman-flow moment conditions of minimax weight learning
    with every table as test function. n_h is the number of rows of layer h.

    Parameters
    ----------
    data : Dataset
    target : policy
    initial : (S,) distribution or state, optional
        Default: the frequencies of states at step 0.
    staged : bool
        Transitions estimated per layer; otherwise pooled (right for stationary models only).

    Returns
    -------
    weights : (H, S, A)
        0 where the target never goes, infinite where it goes and the layer has no data.
    uncovered : tuple of (h, s, a)
        Where the target meets a pair whose successors no row shows. What follows it is missing from the weights.

    Notes
    -----
    Uehara, Huang and Jiang (2020), Minimax weight and Q-function learning for off-policy evaluation; Nachum et al.
    (2019), DualDICE.
    """
    pi, start = policy_table(target, data, "target"), start_of(data, initial)
    solved = flow(tables(data, staged), pi, start)
    visits = tables(data).visits
    share = visits / np.maximum(visits.sum(axis=(1, 2), keepdims=True), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(solved.occupancy > 0, solved.occupancy / share, 0.0)
    return sealed(weights), solved.uncovered
