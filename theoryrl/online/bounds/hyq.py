"""Regret of Hy-Q with every constant (derived in docs/theory/hyq.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.online._settings import require_level

# 1 / (1 - e^{-1/2}): squared error of a least-squares fit.
FIT = 1.0 / (1.0 - math.exp(-0.5))


def hyq_regret_bound(
    episodes: ArrayLike,
    *,
    offline_episodes: int,
    log_sizes: Sequence[float] | NDArray[np.float64],
    concentrability: ArrayLike,
    coverability: ArrayLike,
    delta: float,
    reward_width: float = 1.0,
) -> NDArray[np.float64]:
    """Regret of Hy-Q over the first K episodes, for all K at once, with probability at least 1 - delta.

    sum_h K sqrt(C*_h kappa_h / n) + sqrt(K C_h (1 + 1/2 + ... + 1/K) (kappa_h + ((H - h) width)^2)),
    kappa_h = ((H - h) width)^2 log(|F_h| |F_{h+1}| H K (K + 1) / delta) / (1 - e^{-1/2}),   at most K H width

    Parameters
    ----------
    episodes : number or array of numbers K, at least 1
    offline_episodes : int
        Number n of independent offline trajectories.
    log_sizes : (H,)
        log |F_h| of a product class closed under the Bellman operator.
    concentrability : (H,)
        C*_h, at least E_{nu_h}[(d*_h / nu_h)^2] of one optimal policy and the law nu_h of the offline pairs.
    coverability : (H,)
        C_h, at least sum_{s, a} max_pi d^pi_h(s, a).
    delta : float in (0, 1)
    reward_width : float
        high - low.

    Returns
    -------
    ndarray
        One number per K.

    Raises
    ------
    ValueError
        A number out of range, or lists of different lengths.
    """
    sizes = np.asarray(log_sizes, float)
    horizon = len(sizes)
    offline_episodes = require_int(offline_episodes, 1, "offline_episodes")
    factors = {}
    for name, values in (("concentrability", concentrability), ("coverability", coverability)):
        factors[name] = np.asarray(values, float)
        if factors[name].shape != (horizon,) or not (factors[name] >= 0).all():
            raise ValueError(f"{name} must be {horizon} numbers of at least 0, one per layer")
    if not (sizes >= 0).all():
        raise ValueError("log_sizes must not be negative")
    require_level(delta)
    if not (reward_width >= 0.0 and math.isfinite(reward_width)):
        raise ValueError(f"reward_width is {reward_width}, not finite and non-negative")
    count = np.asarray(episodes, float)
    if not (count >= 1).all():
        raise ValueError("episodes must be at least 1")
    k = count[..., np.newaxis]
    left = np.arange(horizon, 0, -1.0) * reward_width
    union = sizes + np.append(sizes[1:], 0.0) + math.log(horizon / delta) + np.log(k) + np.log(k + 1)
    kappa = FIT * left**2 * union
    # The harmonic number is at most log K + 0.5772156650 + 1 / (2 K).
    harmonic = np.minimum(1.0 + np.log(k), np.log(k) + 0.5772156650 + 0.5 / k)
    offline = k * np.sqrt(factors["concentrability"] * kappa / offline_episodes)
    online = np.sqrt(k * factors["coverability"] * harmonic * (kappa + left**2))
    return np.asarray(np.minimum((offline + online).sum(axis=-1), count * horizon * reward_width))
