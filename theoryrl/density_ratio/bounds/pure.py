"""GLOW with ratios of pairs of policies: mixtures are formed from W, and several episodes per iteration pay for it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.density_ratio.bounds._setting import Setting, least_rounds
from theoryrl.density_ratio.bounds.constants import require_positive
from theoryrl.density_ratio.bounds.counts import lift_log_tests
from theoryrl.density_ratio.bounds.glow import glow_regret_bound
from theoryrl.mdp._checks import require_int


class Plan(NamedTuple):
    """How to run GLOW: T iterations of K trajectories with slope gamma."""

    iterations: int
    trajectories: int
    gamma: float

    @property
    def episodes(self) -> int:
        """T K."""
        return self.iterations * self.trajectories


def pure_ratio_regret_bound(
    iterations: ArrayLike, *, n_weights: int, gamma: float | None = None, **settings: Any
) -> NDArray[np.float64]:
    """`glow_regret_bound` when W holds ratios d^pi / d^pi' of pairs and the weights 1 / mean(w_1, ..., w_t) are tested.

    L = log(4 H |F| / delta) + log C(|W| + T, |W|)

    Parameters
    ----------
    iterations : array
        T.
    n_weights : int
        |W|, of pairs.
    gamma : float, optional
    **settings
        The others of `glow_regret_bound`.

    Returns
    -------
    ndarray of the shape of `iterations`

    Raises
    ------
    ValueError
        A number out of range, a shape that does not fit, or a count of weights that is missing or given twice.

    Notes
    -----
    Theorem 3.2 of Amortila et al. (2024) with constants; proof: docs/theory/glow.md#glow-pure-ratios.
    """
    count = require_int(n_weights, 1, "n_weights")
    return glow_regret_bound(iterations, gamma=gamma, log_tests=lambda t: lift_log_tests(t, count), **settings)


def pure_ratio_plan(epsilon: float, *, n_weights: int, **settings: Any) -> Plan:
    """T, K and gamma with which a policy drawn from those of GLOW on pure ratios loses at most epsilon on average.

    K = ceil(L) for the self-normalised schedule, gamma = sqrt(kappa sum_h C_h H(T / C_h) / (H B T)), and T the least
    number with

        1 + 2 sqrt(2 T) 1{unknown start} + sum_h C_h H(T / C_h) + 2 sqrt(kappa B H T sum_h C_h H(T / C_h)) <= epsilon T.

    Parameters
    ----------
    epsilon : float
        In units of reward.
    n_weights : int
        |W|, of pairs.
    **settings
        Those of `glow_regret_bound` but `trajectories` and `log_tests`; no misspecification.

    Returns
    -------
    Plan
        T is of order H^2 C / epsilon^2 and K of order min{T log |W|, |W| log T} + log(|F| / delta).

    Raises
    ------
    ValueError
        epsilon is out of range.
    """
    require_positive("epsilon", epsilon)
    count = require_int(n_weights, 1, "n_weights")
    setting = Setting(log_tests=lambda t: lift_log_tests(t, count), **settings)
    if setting.trajectories != 1 or setting.misspecification:
        raise ValueError("trajectories are chosen here, and there is no room for misspecification")
    used, layers = setting.constants, len(setting.coverability)

    def per_round(falling: float, growing: float) -> float:
        share = float(setting.potential(np.float64(falling))) / falling
        start = 0.0 if setting.known_start else 2 * math.sqrt(2 / falling)
        return 1 / falling + start + share + 2 * math.sqrt(used.clipped * used.level * layers * share)

    rounds = least_rounds(per_round, epsilon / setting.total_reward)
    if rounds is None:
        raise ValueError(f"the bound is above {epsilon:g} T for every T up to 2^62")
    at = np.float64(rounds)
    slope = math.sqrt(used.clipped * float(setting.potential(at)) / (layers * used.level * rounds))
    return Plan(rounds, _trajectories(setting, at), slope)


def _trajectories(setting: Setting, rounds: np.float64) -> int:
    """The least K that pays for everything that multiplies gamma T / K and for the start."""
    layers, level = len(setting.coverability), setting.constants.level
    start = math.log(4 * setting.n_functions * float(rounds) / setting.delta)
    enough = max(start, float(setting.price(rounds)) / (layers * level))
    trajectories = math.ceil(enough)
    if setting.schedule == "scale_free":
        # L'' grows with K, by less than 1/2 log(1 + K T).
        while True:
            extra = setting.noise_width**2 / (8 * setting.constants.c) * 0.5
            more = extra * (math.log1p(trajectories * (float(rounds) - 1)) - math.log1p(float(rounds) - 1)) / level
            if enough + more <= trajectories:
                break
            trajectories = math.ceil(enough + more)
    return trajectories
