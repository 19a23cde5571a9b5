"""Risk of the reduction from hybrid to offline learning, and of HyGLOW; proofs in docs/theory/hyglow.md."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.density_ratio.bounds._setting import Setting, least_rounds, require_layers
from theoryrl.density_ratio.bounds.constants import require_positive, self_normalised_constants
from theoryrl.density_ratio.bounds.counts import require_rounds
from theoryrl.density_ratio.potential import harmonic


@dataclass(frozen=True)
class _Layers:
    """C_h and C_{*,h}, and the sums over layers that the bound is made of."""

    cover: NDArray[np.float64]
    data: NDArray[np.float64]

    def played(self, falling: Any, growing: Any) -> NDArray[np.float64]:
        """sum_h (C_h H(T / C_h) - 1) / T, with T = `falling` where that makes it fall and `growing` elsewhere."""
        ends = np.asarray(falling, np.float64)[..., np.newaxis]
        table = self.cover * harmonic(ends / self.cover) / ends - 1 / np.asarray(growing, np.float64)[..., np.newaxis]
        return np.asarray(np.maximum(table, 0.0).sum(axis=-1))

    def optimal(self, falling: Any, growing: Any) -> NDArray[np.float64]:
        """sum_h C_{*,h} H_{T-1} / T, likewise."""
        share = harmonic(falling) / falling - 1 / np.square(growing)
        return np.asarray(self.data.sum() * np.maximum(share, 0.0))

    def risk(self, falling: Any, growing: Any, a: float, b: Any, gamma: float | None) -> NDArray[np.float64]:
        played, both = self.played(falling, growing), self.played(falling, growing) + self.optimal(falling, growing)
        price = len(self.cover) * b
        main = 2 * np.sqrt(a * both * price) if gamma is None else a * both / gamma + price * gamma
        return np.asarray(1 / np.asarray(falling) + a * played + main)


def _layers(coverability: ArrayLike, concentrability: ArrayLike, horizon: int | None) -> _Layers:
    if horizon is None and np.ndim(coverability) == 0 and np.ndim(concentrability) == 1:
        horizon = np.size(concentrability)
    cover = require_layers(coverability, horizon, "coverability", 1.0)
    data = require_layers(concentrability, len(cover), "concentrability", 1.0)
    return _Layers(cover, data)


def h2o_risk_bound(
    rounds: ArrayLike,
    *,
    coverability: ArrayLike,
    concentrability: ArrayLike,
    a: float,
    b: float,
    gamma: float | None = None,
    horizon: int | None = None,
    total_reward: float = 1.0,
) -> NDArray[np.float64]:
    """Bound on J* minus the mean return of the policies pi_1, ..., pi_T of the reduction, never more than 1.

    1/T + (a / (gamma T)) sum_h [C_{*,h} H_{T-1} + (1 + gamma) (C_h H(T / C_h) - 1)] + H b gamma

    Parameters
    ----------
    rounds : array
        T, oracle calls; T episodes and T - 1 offline tuples per layer are used.
    coverability : float or (H,) array
        C_h of the policies that the oracle can return, or upper bounds.
    concentrability : float or (H,) array
        C_{*,h} = max d*_h / nu_h of the offline data, or E_{d*}[d*_h / nu_h].
    a, b : float
        On n tuples of mean law mu the oracle's policy has, at the slope gamma, risk at most
        sum_h [(a / (gamma n)) (CC_h(pi*, mu, gamma n) + CC_h(pi, mu, gamma n)) + b gamma], for all calls at once.
    gamma : float, optional
        Default the one that makes the bound least, which is right for oracles that do not depend on it.
    horizon : int, optional
        H, if no argument has one entry per layer.
    total_reward : float
        Units.

    Returns
    -------
    ndarray of the shape of `rounds`

    Raises
    ------
    ValueError
        A number out of range.
    """
    count, layers = require_rounds(rounds, "rounds"), _layers(coverability, concentrability, horizon)
    for name, value in (("a", a), ("b", b), ("total_reward", total_reward)):
        require_positive(name, value)
    if gamma is not None:
        require_positive("gamma", gamma)
    return np.asarray(total_reward * np.fmin(1.0, layers.risk(count, count, a, b, gamma)))


def h2o_gamma(
    rounds: ArrayLike,
    *,
    coverability: ArrayLike,
    concentrability: ArrayLike,
    a: float,
    b: float,
    horizon: int | None = None,
) -> NDArray[np.float64]:
    """The slope that minimises `h2o_risk_bound`: sqrt(a sum_h [C_{*,h} H_{T-1} + C_h H(T / C_h) - 1] / (T H b)).

    It is 0 at T = 1, where there are no data.

    Parameters
    ----------
    rounds, coverability, concentrability, a, b, horizon
        As in `h2o_risk_bound`.

    Returns
    -------
    ndarray of the shape of `rounds`

    Raises
    ------
    ValueError
        As `h2o_risk_bound`.

    Notes
    -----
    docs/theory/hyglow.md#the-reduction.
    """
    count, layers = require_rounds(rounds, "rounds"), _layers(coverability, concentrability, horizon)
    for name, value in (("a", a), ("b", b)):
        require_positive(name, value)
    both = layers.played(count, count) + layers.optimal(count, count)
    return np.asarray(np.sqrt(a * both / (len(layers.cover) * b)))


def hyglow_risk_bound(
    rounds: ArrayLike, *, concentrability: ArrayLike, gamma: float | None = None, **settings: Any
) -> NDArray[np.float64]:
    """Bound on the risk of HyGLOW = the reduction with MABO.CR, with probability at least 1 - delta; never more than 1.

    `h2o_risk_bound` with a = max(A, 2), b = 2 B L, L = log(5 |F| H / delta) + log(number of (call, weight) pairs)

    Parameters
    ----------
    rounds : array
        T.
    concentrability : float or (H,) array
        C_{*,h}.
    gamma : float, optional
        Default the best one.
    **settings
        coverability, n_functions, delta, horizon, n_weights or n_policies or log_tests, n_models, c, noise_width,
        residual, total_reward, as in `glow_regret_bound`.

    Returns
    -------
    ndarray of the shape of `rounds`

    Raises
    ------
    ValueError
        A number out of range, a shape that does not fit, or a count of weights that is missing or given twice.

    Notes
    -----
    Corollary 4.1 of Amortila, Foster, Jiang, Sekhari and Xie (2024) with constants; proof:
    docs/theory/hyglow.md#risk-of-hyglow.
    """
    setting, count = Setting(**settings), require_rounds(rounds, "rounds")
    if gamma is not None:
        require_positive("gamma", gamma)
    layers = _layers(setting.coverability, concentrability, None)
    a, b = _mabo(setting, count)
    return np.asarray(setting.total_reward * np.fmin(1.0, layers.risk(count, count, a, b, gamma)))


def hyglow_iterations(
    epsilon: float, *, concentrability: ArrayLike, gamma: float | None = None, **settings: Any
) -> int:
    """The least T with `hyglow_risk_bound`(T) <= epsilon, certified as in `glow_iterations`.

    Parameters
    ----------
    epsilon : float
        In units of reward.
    concentrability, gamma, **settings
        As in `hyglow_risk_bound`.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        A number out of range, or no T up to 2^62 will do.
    """
    require_positive("epsilon", epsilon)
    if gamma is not None:
        require_positive("gamma", gamma)
    setting = Setting(**settings)
    layers = _layers(setting.coverability, concentrability, None)

    def per_round(falling: float, growing: float) -> float:
        a, b = _mabo(setting, np.float64(growing))
        value = float(layers.risk(np.float64(falling), np.float64(growing), a, b, gamma))
        return min(1.0, value) if not math.isnan(value) else math.inf

    found = least_rounds(per_round, epsilon / setting.total_reward)
    if found is None:
        raise ValueError(f"the bound is above {epsilon:g} for every T up to 2^62")
    return found


def _mabo(setting: Setting, rounds: Any) -> tuple[float, Any]:
    """(a, b) of MABO.CR for all calls of T rounds; five kinds of events instead of four."""
    moment, level = self_normalised_constants(setting.c, setting.noise_width, setting.residual)
    logs = setting.log_level(rounds) + math.log(1.25 * setting.n_functions)
    return max(moment, 2.0), 2 * level * logs
