"""Regret bound of GOLF with every constant written out; the proof is in the documentation, page GOLF."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes.values import FiniteClass, ProductClass
from theoryrl.mdp.rounding import U
from theoryrl.online.bounds._common import checked, sum_over_visits
from theoryrl.online.golf import EVENTS, in_units, noise_widths, require_enumerated, rounding_sizes
from theoryrl.online.verbs import Problem

CHORD = 1 - math.exp(-0.5)


def golf_regret_bound(
    episodes: ArrayLike,
    *,
    cls: FiniteClass | ProductClass,
    delta: float,
    reward_range: tuple[float, float] = (0.0, 1.0),
    coverability: ArrayLike | None = None,
    single_start: bool = False,
    action_mask: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Bound on the regret of GOLF on a realizable and complete class, for every number of episodes K, w.p. 1 - delta.

    In units of the reward range, with m_h = |F_h|, b_h the length of an interval that holds r + V(s') for all V of
    layer h + 1, D_h a bound on |f_h - T_h f_{h+1}|, R the span of the values V_f(s) of layer 0, P the number of pairs
    (f_h, f_{h+1}) that are tested, c = 1 - exp(-1/2), beta_h = b_h^2 log(3 sum_h m_h / delta) / 2:

        Reg(K) <= sum_h min{ K D_h, sqrt(K (E_h + D_h^2) min{K, C_h (1 + log+(K / C_h))}) } + R G(K),
        E_h = (beta_h + max(b_h, D_h)^2 log(3 P / delta)) / c,
        G(K) = sum_{n<K} min{1, 2 sqrt(log(3 m_0 n (n+1) / delta) / (2 n))}, the term n = 0 being 1,

    times the width of the reward range, and never more than the trivial K H; G = 1 for a single start state. To beta_h
    comes what the test allows for rounding.

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    cls : FiniteClass or ProductClass
        Realizable and complete; this is not checked here.
    delta : float in (0, 1)
    reward_range : (low, high)
    coverability : float or (H,) array, optional
        C_h: coverability of layer h over the policies that GOLF can play, or any upper bound; default the number of
        allowed pairs.
    single_start : bool
        Whether all episodes start in one state.
    action_mask : bool (S, A), optional

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    require_enumerated(cls)
    low, high = reward_range
    counts = checked(episodes, cls.n_states, cls.n_actions, cls.horizon, delta, high - low)
    mask = np.ones((cls.n_states, cls.n_actions), bool) if action_mask is None else np.asarray(action_mask, bool)
    cover = np.broadcast_to(np.asarray(mask.sum() if coverability is None else coverability, float), (cls.horizon,))
    if not ((cover >= 1 - 1e-9) & (cover < np.inf)).all():
        raise ValueError("coverability must be finite and at least 1")
    problem = Problem(cls.n_states, cls.n_actions, cls.horizon, low, high, False, mask)
    values, best, _, sizes = in_units(cls, problem)
    noise, residual = noise_widths(best, sizes, problem), residual_widths(values, best, sizes, mask, high > low)
    if isinstance(cls, ProductClass):
        pairs = int((sizes[:-1] * sizes[1:]).sum())
    else:
        pairs = cls.horizon * cls.size
    level = noise**2 / 2 * math.log(EVENTS * sizes[:-1].sum() / delta)
    # What a test subtracts, once more for the error of the computed difference itself.
    largest, offset = rounding_sizes(cls, values, best, problem)
    losses = 2 * largest * ((counts + 2) * U * largest + offset) + (mask.sum() + 3) * U * largest**2
    rounding = 4 * counts * losses
    main = np.zeros_like(counts)
    for h in range(cls.horizon):
        wide = max(noise[h], residual[h])
        energy = (level[h] + rounding + wide**2 * math.log(EVENTS * pairs / delta)) / CHORD
        c = max(float(cover[h]), 1.0)
        potential = np.minimum(counts, c * (1 + np.log(np.maximum(counts / c, 1.0))))
        main = main + np.minimum(counts * residual[h], np.sqrt(counts * (energy + residual[h] ** 2) * potential))
    span = float(np.ptp(best[0, : sizes[0]]))

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        return 2 * np.sqrt(np.log(EVENTS * sizes[0] * n * (n + 1) / delta) / (2 * n))

    start = span * (np.ones_like(counts) if single_start else sum_over_visits(counts, width))
    unit = high - low if high > low else 1.0
    return np.minimum((high - low) * counts * cls.horizon, unit * (main + start))


def residual_widths(
    values: NDArray[np.float64],
    best: NDArray[np.float64],
    sizes: NDArray[np.int64],
    mask: NDArray[np.bool_],
    random_rewards: bool,
) -> NDArray[np.float64]:
    """D_h: a bound on |f_h - T_h f_{h+1}| over the class and all rewards in the unit interval, (H,)."""
    allowed = mask.reshape(-1)
    widths = []
    for h, n in enumerate(sizes[:-1]):
        after = best[h + 1, : sizes[h + 1]]
        top, bottom = float(values[h, :n][:, allowed].max()), float(values[h, :n][:, allowed].min())
        most = float(after.max()) + (1.0 if random_rewards else 0.0)
        widths.append(max(top - float(after.min()), most - bottom, 0.0))
    return np.array(widths)
