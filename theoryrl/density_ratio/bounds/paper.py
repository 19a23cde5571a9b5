"""The bounds of Amortila, Foster, Jiang, Sekhari and Xie (2024) in the constants of the paper.

GLOW: the theorems print no constants; 81 and 720 are those its proof arrives at, with the potential in the form
C (1 + 4 log(1 + T)) that its steps give (it prints 5 C log T, which is 0 at T = 1). Hybrid: as printed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.density_ratio.bounds._setting import Setting, require_layers
from theoryrl.density_ratio.bounds.constants import require_positive
from theoryrl.density_ratio.bounds.counts import require_rounds

POTENTIAL, LEVEL = 81.0, 720.0


def paper_glow_regret_bound(
    iterations: ArrayLike, *, gamma: float | None = None, **settings: Any
) -> NDArray[np.float64]:
    """Theorem 3.1 with the constants of its proof, never more than T.

    1 + 2 sqrt(8 T L / K) + sum_h { (81 / gamma) C_h (1 + 4 log(1 + T)) + 720 gamma T L / K },
    L = log(6 |F| |W| H T / delta)

    Parameters
    ----------
    iterations : array
        T.
    gamma : float in (0, 1], optional
        Default that of the proof, min(1, sqrt(K max_h C_h / (T L))).
    **settings
        coverability, n_functions, delta, horizon, n_weights or n_policies or log_tests, trajectories, known_start,
        total_reward, as in `glow_regret_bound`.

    Returns
    -------
    ndarray of the shape of `iterations`

    Raises
    ------
    ValueError
        A number out of range, a shape that does not fit, or a count of weights that is missing or given twice.
    """
    setting, rounds = Setting(schedule="paper", **settings), require_rounds(iterations)
    if gamma is not None and not 0 < gamma <= 1:
        raise ValueError(f"gamma must lie in (0, 1], not {gamma!r}")
    level = setting.log_level(rounds) + math.log(1.5 * setting.n_functions)
    return _sum(setting, rounds, level, gamma, np.asarray(setting.trajectories, float))


def paper_pure_ratio_regret_bound(
    iterations: ArrayLike, *, n_weights: int, gamma: float | None = None, **settings: Any
) -> NDArray[np.float64]:
    """Theorem 3.2 with the constants of its proof: K = 2 T log(6 |F| |W| H T / delta), gamma = sqrt(C / T).

    1 + 2 sqrt(8 T L / K) + sum_h { (81 / gamma) C_h (1 + 4 log(1 + T)) + 720 gamma T L / K },
    L = log(6 |F| (2 |W|)^T H T / delta); never more than T

    Parameters
    ----------
    iterations : array
        T; T K episodes are played.
    n_weights : int
        |W| of the class of ratios of pairs.
    gamma : float in (0, 1], optional
    **settings
        coverability, n_functions, delta, horizon, known_start, total_reward.

    Returns
    -------
    ndarray of the shape of `iterations`

    Raises
    ------
    ValueError
        A number out of range, a shape that does not fit, or a count of weights that is missing or given twice.
    """
    setting, rounds = Setting(schedule="paper", n_weights=n_weights, **settings), require_rounds(iterations)
    if gamma is not None and not 0 < gamma <= 1:
        raise ValueError(f"gamma must lie in (0, 1], not {gamma!r}")
    single = setting.log_level(rounds) + math.log(1.5 * setting.n_functions)
    level = single - math.log(n_weights) + rounds * math.log(2 * n_weights)
    slope = np.minimum(1.0, np.sqrt(setting.coverability.max() / rounds)) if gamma is None else gamma
    return _sum(setting, rounds, level, slope, np.ceil(2 * rounds * single))


def _sum(
    setting: Setting, rounds: NDArray[np.float64], level: NDArray[np.float64], gamma: Any, trajectories: Any
) -> NDArray[np.float64]:
    cover = setting.coverability
    if gamma is None:
        gamma = np.minimum(1.0, np.sqrt(trajectories * cover.max() / (rounds * level)))
    potential = cover.sum() * (1 + 4 * np.log1p(rounds))
    start = 0.0 if setting.known_start else 2 * np.sqrt(8 * rounds * level / trajectories)
    main = POTENTIAL * potential / gamma + len(cover) * LEVEL * gamma * rounds * level / trajectories
    return np.asarray(setting.total_reward * np.fmin(rounds, 1 + start + main))


def paper_h2o_risk_bound(
    rounds: ArrayLike,
    *,
    coverability: ArrayLike,
    concentrability: float,
    a: float,
    b: float,
    gamma: float | None = None,
    horizon: int | None = None,
    total_reward: float = 1.0,
) -> NDArray[np.float64]:
    """Theorem 4.1 as printed, never more than 1.

    (H a / (gamma T)) (6 C_* log T + 4 C (gamma + 10 log T + 1)) + H b gamma

    Parameters
    ----------
    rounds : array
        T; at T = 1, where the printed bound is false, the trivial 1.
    coverability : float or (H,) array
        C is the largest.
    concentrability : float
        C_* of the offline data.
    a, b : float
        The oracle is CC-bounded with a / gamma and b gamma.
    gamma : float in (0, 1), optional
        Default the one in (0, 1) that makes the bound least.
    horizon : int, optional
    total_reward : float

    Returns
    -------
    ndarray of the shape of `rounds`

    Raises
    ------
    ValueError
        A number out of range, a shape that does not fit, or a count of weights that is missing or given twice.
    """
    count = require_rounds(rounds, "rounds")
    cover = require_layers(coverability, horizon, "coverability", 1.0)
    for name, value in (("concentrability", concentrability), ("a", a), ("b", b), ("total_reward", total_reward)):
        require_positive(name, value)
    if gamma is not None and not 0 < gamma < 1:
        raise ValueError(f"gamma must lie in (0, 1), not {gamma!r}")
    layers, top = len(cover), float(cover.max())
    logs = 6 * concentrability * np.log(count) + 4 * top * (10 * np.log(count) + 1)
    slope = np.fmin(np.sqrt(a * logs / (b * count)), 1 - 2.0**-53) if gamma is None else gamma
    bound = layers * a / count * (logs / slope + 4 * top) + layers * b * slope
    return np.asarray(total_reward * np.where(count > 1, np.fmin(1.0, bound), 1.0))
