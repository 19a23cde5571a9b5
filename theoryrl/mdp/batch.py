"""Many planning problems at once: one model under many rewards, or many tiny models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp import _kernels_batched as batched
from theoryrl.mdp._checks import ROW_TOLERANCE, Sealed, entry, frozen, real, require_finite, require_int
from theoryrl.mdp._kernels_rows import rows_of
from theoryrl.mdp.evaluation import finish
from theoryrl.mdp.model import FiniteHorizonMDP, require_model


@dataclass(frozen=True, eq=False)
class BatchPlan(Sealed):
    """Many solved problems: `value` (K, H+1, S) and `policy` int64 (K, H, S), read as in `Plan`."""

    value: NDArray[np.float64]
    policy: NDArray[np.int64]


def backward_induction_rewards(mdp: FiniteHorizonMDP, rewards: ArrayLike) -> BatchPlan:
    """Optimal plans of one model under K reward functions, in one sweep that reads the transitions once.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
        Gives transitions, horizon and allowed actions; its own reward is not used.
    rewards : (K, S, A) or (K, H, S, A)

    Returns
    -------
    BatchPlan
        value (K, H+1, S), policy int64 (K, H, S); the same as K calls of `backward_induction` up to the order of
        summation.

    Raises
    ------
    ValueError
        Wrong shape, or a number that is not finite; the entry is named. A value overflows.
    """
    require_model(mdp, FiniteHorizonMDP)
    table = frozen(rewards, np.float64, "rewards")
    pairs = (mdp.n_states, mdp.n_actions)
    if table.ndim not in (3, 4) or table.shape[1:] not in (pairs, (mdp.horizon, *pairs)):
        sizes = f"{pairs[0]}, {pairs[1]}"
        raise ValueError(f"rewards has shape {table.shape}, not (K, {sizes}) or (K, {mdp.horizon}, {sizes})")
    table = np.where(mdp.action_mask, table, 0.0)
    require_finite(table, "rewards")
    layers = table if table.ndim == 4 else table[:, np.newaxis]
    last = np.ascontiguousarray(np.moveaxis(layers, 0, -1))
    n_rewards = len(table)
    value = np.empty((n_rewards, mdp.horizon + 1, mdp.n_states))
    policy = np.empty((n_rewards, mdp.horizon, mdp.n_states), np.int64)
    batched.optimal_many(rows_of(mdp), mdp.staged_transition, last, mdp.action_mask, value, policy)
    finish(value, policy)
    return BatchPlan(value, policy)


def backward_induction_batch(transition: ArrayLike, reward: ArrayLike, horizon: int) -> BatchPlan:
    """Optimal plans of B models of one size, in one compiled loop: for many tiny models.

    Parameters
    ----------
    transition : (B, S, A, S) or (B, H, S, A, S)
    reward : (B, S, A) or (B, H, S, A)
        Mean rewards.
    horizon : int
        H, at least 1.

    Returns
    -------
    BatchPlan
        value (B, H+1, S), policy int64 (B, H, S); what `backward_induction` gives for each model, up to the order of
        summation.

    Raises
    ------
    ValueError
        Wrong shape, a row that is no distribution (to 1e-9), a reward that is not finite; the entry is named.
    """
    horizon = require_int(horizon, 1, "horizon")
    tables = np.ascontiguousarray(real(transition, "transition"), np.float64)
    means = np.ascontiguousarray(real(reward, "reward"), np.float64)
    if tables.ndim not in (4, 5) or tables.shape[-3] != tables.shape[-1] or 0 in tables.shape:
        raise ValueError(f"transition has shape {tables.shape}, not (B, S, A, S) or (B, {horizon}, S, A, S)")
    n_models, (n_states, n_actions) = len(tables), tables.shape[-3:-1]
    staged = tables.ndim == 5
    if staged and tables.shape[1] != horizon:
        raise ValueError(f"transition has {tables.shape[1]} layers, but the horizon is {horizon}")
    pairs = (n_states, n_actions)
    if means.shape not in ((n_models, *pairs), (n_models, horizon, *pairs)):
        raise ValueError(f"reward has shape {means.shape}, not {(n_models, *pairs)} or {(n_models, horizon, *pairs)}")
    require_finite(means, "reward")
    bad = batched.first_bad_row(tables.reshape(-1, n_states), ROW_TOLERANCE)
    if bad >= 0:
        index = np.unravel_index(bad, tables.shape[:-1])
        raise ValueError(f"{entry('transition', [int(i) for i in index])} is no distribution: {tables[index]}")
    value = np.empty((n_models, horizon + 1, n_states))
    policy = np.empty((n_models, horizon, n_states), np.int64)
    layers = tables.reshape(n_models, -1, *pairs, n_states)
    means = means.reshape(n_models, -1, *pairs)
    # Kernels compile for one type, whether the caller's arrays are writable or not; the reshaped views are ours.
    layers.flags.writeable = means.flags.writeable = False
    batched.optimal_each(layers, means, value, policy)
    finish(value, policy)
    return BatchPlan(value, policy)
