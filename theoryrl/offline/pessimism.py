"""VI-LCB: value iteration on the empirical model, less what the data cannot rule out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes._shape import mask_of
from theoryrl.classes.regression import target_sums
from theoryrl.mdp._checks import Sealed, sealed
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.planning import greedy
from theoryrl.offline._data import Tables, require_data, tables


@dataclass(frozen=True, eq=False, repr=False)
class Pessimistic(Sealed):
    """A policy with a lower bound on its value.

    Attributes
    ----------
    q : (H, S, A), value : (H+1, S) float64
        Lower bounds on the policy's action values and values, at every layer and state at once, with probability at
        least 1 - delta, if `provable`.
    policy : (H, S) int64
        Greedy for q.
    penalty : (H, S, A) float64
        What was subtracted; infinite without data.
    visits : (H, S, A) int64
        Rows that each pair's estimate rests on.
    delta : float
    provable : bool
        Whether the penalty is the theorem's.
    """

    q: NDArray[np.float64]
    value: NDArray[np.float64]
    policy: NDArray[np.int64]
    penalty: NDArray[np.float64]
    visits: NDArray[np.int64]
    delta: float
    provable: bool

    def __repr__(self) -> str:
        label = f"delta={self.delta}" if self.provable else "not provable"
        return f"Pessimistic((H, S, A) = {self.q.shape}, {label})"


def vi_lcb(
    data: Dataset,
    *,
    reward_range: tuple[float, float] = (0.0, 1.0),
    delta: float = 0.05,
    split: bool = True,
    scale: float = 1.0,
    action_mask: ArrayLike | None = None,
) -> Pessimistic:
    r"""Pessimistic value iteration with lower confidence bounds.

    Q_h = max((H - h) low, mean of (r + V_{h+1}(s')) - b_h),   V_h = max_a Q_h,   Q_h = (H - h) low without data

    Split, layer h uses only the trajectories whose number in order is h modulo H, so that V_{h+1} is independent of
    its rows, and b_h = (H - h) width sqrt(log(2 H S A / delta) / (2 N)). Otherwise every layer uses all trajectories,
    and b_h must hold for every V_{h+1} at once:
    b_h = width [sqrt(log(4 H S A / delta)) + (H - h - 1) sqrt(S log 2 + log(4 H S A / delta))] / sqrt(2 N).

    Parameters
    ----------
    data : Dataset
        Independent trajectories (the guarantee needs it), of one behaviour policy or several chosen in advance; they
        need not be complete, if whether a row is there does not depend on its own reward and successor.
    reward_range : (low, high)
        Range of sampled rewards.
    delta : float in (0, 1)
    split : bool
        Which of the two: splitting costs a factor H in data, not splitting a factor of about sqrt(S) in the penalty.
    scale : float
        Multiplies the penalty; anything but 1 gives up the proof (`provable` is False).
    action_mask : (S, A) bool, optional

    Returns
    -------
    Pessimistic

    Raises
    ------
    ValueError
        Settings out of range, or a reward outside `reward_range`; the row is named.

    Notes
    -----
    Rashidinejad et al. (2021), LCB; Xie et al. (2021), Algorithm 2 (splitting). Constants: docs/theory/vi_lcb.md.
    """
    require_data(data)
    if np.shape(reward_range) != (2,):
        raise ValueError(f"reward_range is {reward_range!r}, not (low, high)")
    low, high = (float(limit) for limit in reward_range)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"reward_range is ({low}, {high}), not finite with low <= high")
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta is {delta}, not in (0, 1)")
    if not (scale >= 0.0 and math.isfinite(scale)):
        raise ValueError(f"scale is {scale}, not finite and non-negative")
    counts = _split(data) if split else tables(data)
    outside = ~((data.reward >= low) & (data.reward <= high))
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"reward[{row}] = {data.reward[row]} is not in [{low}, {high}]")
    mask = mask_of(action_mask, data.n_states, data.n_actions)
    horizon, n_states, n_actions = counts.visits.shape
    q, value = np.empty(counts.visits.shape), np.zeros((horizon + 1, n_states))
    penalty, sums = np.empty_like(q), np.empty((n_states, n_actions))
    with np.errstate(divide="ignore"):
        per_root = 1.0 / np.sqrt(2.0 * counts.visits)
    for h in reversed(range(horizon)):
        visits, floor = counts.visits[h], (horizon - h) * low
        with np.errstate(invalid="ignore"):
            factor = scale * (high - low) * penalty_factor(h, horizon, n_states, n_actions, delta, split)
            penalty[h] = np.where(visits > 0, factor * per_root[h], np.inf)
        target_sums(counts.transitions[h], counts.reward_sums[h], value[h + 1], sums)
        lower = np.where(visits > 0, sums / np.maximum(visits, 1.0) - penalty[h], floor)
        q[h] = np.where(mask, np.maximum(lower, floor), -np.inf)
        value[h] = q[h].max(axis=1)
    return Pessimistic(
        sealed(q),
        sealed(value),
        sealed(greedy(q, mask)),
        sealed(penalty),
        sealed(counts.visits.astype(np.int64)),
        float(delta),
        scale == 1.0,
    )


def penalty_factor(h: int, horizon: int, n_states: int, n_actions: int, delta: float, split: bool) -> float:
    """b_h sqrt(2 N) in units of the width of the rewards."""
    pairs = horizon * n_states * n_actions
    if split:
        return (horizon - h) * math.sqrt(math.log(2 * pairs / delta))
    each = math.log(4 * pairs / delta)
    return math.sqrt(each) + (horizon - h - 1) * math.sqrt(n_states * math.log(2) + each)


def _split(data: Dataset) -> Tables:
    """Counts where layer h sees only the trajectories whose number in order is h modulo H."""
    _, order = np.unique(data.trajectory, return_inverse=True)
    kept = order % data.horizon == data.step
    if not kept.any():
        raise ValueError("no row is left after splitting: there are too few trajectories; split=False uses them all")
    columns = (column[kept] for column in data.columns.values())
    return tables(Dataset.of_checked(columns, data.n_states, data.n_actions, data.horizon))
