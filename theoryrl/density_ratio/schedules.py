"""The schedules of GLOW: clipping levels gamma_t, penalties alpha_t, thresholds beta_t, and the best slope gamma.

gamma_t = gamma t,   n_t = K (t - 1),   L_W = log(4 H / delta) + log(number of tests),   L = L_W + log |F|

self_normalised   alpha_t = c / gamma_t,  beta_t = b^2 gamma_t L_W / (8 c n_t)
paper             alpha_t = 8 / gamma_t,  beta_t = 36 gamma_t log(6 |F| |W| T H / delta) / n_t
scale_free        no alpha: b sqrt((P + gamma_t^2 / n_t) (L_W + (1/2) log(1 + n_t P / gamma_t^2)) / (2 n_t)) against
                  the mean weighted residual, P the mean square of the clipped weight
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.density_ratio import _glow_kernels as kernels

SCHEDULES = {
    "self_normalised": kernels.SELF_NORMALISED,
    "paper": kernels.PAPER,
    "scale_free": kernels.SCALE_FREE,
}


def error_constants(c: float = 0.25, noise_width: float = 1.0) -> tuple[float, float]:
    """A = (e - 1) c + 2 (e - 2) and B = c + b^2 / (8 c) + 2 of the bound on what a member in the set can be wrong by.

    E_mean[w Delta f] <= (A / gamma_t) E_mean[w^2] + B gamma_t L / n_t, for clipped weights w.

    Parameters
    ----------
    c, noise_width : positive floats
        c of the schedule, and the width b of the noise of Q*.
    """
    return (math.e - 1) * c + 2 * (math.e - 2), c + noise_width**2 / (8 * c) + 2


def log_level(schedule: str, *, horizon: int, n_functions: int, delta: float, log_tests: ArrayLike) -> NDArray[Any]:
    """L_W = log(4 H / delta) + log_tests; of the paper log(6 |F| H / delta) + log_tests.

    Parameters
    ----------
    schedule : one of `SCHEDULES`
    horizon, n_functions : int
    delta : float in (0, 1)
    log_tests : float or (T,) array
        See `log_tests` and `log_tests_of_round`.
    """
    share = 6 * n_functions if schedule == "paper" else 4
    return np.asarray(math.log(share * horizon / delta) + np.asarray(log_tests, np.float64))


def require_coverability(coverability: ArrayLike, horizon: int) -> NDArray[np.float64]:
    """Coverability of every layer, (H,); one number stands for all layers.

    Raises
    ------
    ValueError
        A number below 1, NaN or infinite, or another number of layers.
    """
    table = np.asarray(coverability, np.float64)
    if table.shape not in ((), (horizon,)):
        raise ValueError(f"coverability must be one number or one for each of {horizon} layers, not {table.shape}")
    if not (np.all(table >= 1 - 1e-9) and np.all(table < math.inf)):
        raise ValueError(f"coverability must be finite and at least 1, not {coverability!r}")
    return np.broadcast_to(np.maximum(table, 1.0), (horizon,))


def best_slope(
    schedule: str,
    iterations: int,
    *,
    coverability: ArrayLike,
    horizon: int,
    log_level: float,
    n_functions: int,
    trajectories: int = 1,
    c: float = 0.25,
    noise_width: float = 1.0,
) -> float:
    """The slope gamma that the regret bounds ask for.

    sqrt(A K sum_h C_h H(T / C_h) / (B H T L)),   H(x) = digamma(1 + x) + 0.5772...,   L = L_W + log |F|;
    of the paper (Theorem 3.1): min(1, sqrt(K max_h C_h / (T log(6 |F| |W| H T / delta)))).

    Parameters
    ----------
    schedule : one of `SCHEDULES`
    iterations : int
        T.
    coverability : float or (H,) array
        C_h, or upper bounds.
    horizon, n_functions, trajectories : int
        H, |F| and K.
    log_level : float
        L_W of the schedule at T.
    c, noise_width : float
    """
    cover = require_coverability(coverability, horizon)
    if schedule == "paper":
        return min(1.0, math.sqrt(trajectories * cover.max() / (iterations * log_level)))
    from scipy.special import digamma

    first, second = error_constants(c, noise_width)
    potential = float((cover * (digamma(1 + iterations / cover) + np.euler_gamma)).sum())
    total = horizon * iterations * (log_level + math.log(n_functions))
    return math.sqrt(first * trajectories * potential / (second * total))
