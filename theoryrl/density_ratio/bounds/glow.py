"""Bounds of GLOW by the self-normalised analysis, with every constant; proofs in docs/theory/glow.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.density_ratio.bounds._setting import Setting, least_rounds
from theoryrl.density_ratio.bounds.constants import require_positive
from theoryrl.density_ratio.bounds.counts import require_rounds
from theoryrl.mdp._checks import require_int


def glow_levels(
    t: ArrayLike,
    *,
    gamma: float,
    log_level: float,
    trajectories: int = 1,
    c: float = 0.25,
    noise_width: float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The self-normalised schedule at iterations t.

    gamma_t = gamma t,   alpha_t = c / gamma_t,   beta_t = b^2 gamma_t L_W / (8 c K (t - 1)),   beta_1 = infinity

    Parameters
    ----------
    t : array
        At least 1.
    gamma : float
    log_level : float
        L_W.
    trajectories : int
        K.
    c, noise_width : float

    Returns
    -------
    gamma_t, alpha_t, beta_t : ndarrays of the shape of `t`
    """
    rounds = require_rounds(t, "t")
    for name, value in (("gamma", gamma), ("log_level", log_level), ("c", c), ("noise_width", noise_width)):
        require_positive(name, value)
    size = require_int(trajectories, 1, "trajectories") * (rounds - 1)
    top = gamma * rounds
    level = np.divide(noise_width**2 * top * log_level, 8 * c * size, out=np.full(top.shape, np.inf), where=size > 0)
    return top, c / top, level


def glow_gamma(iterations: ArrayLike, **settings: Any) -> NDArray[np.float64]:
    """The slope gamma* that minimises `glow_regret_bound` at T iterations.

    gamma* = sqrt(kappa K sum_h C_h H(T / C_h) / (H B T L))

    Parameters
    ----------
    iterations : array
        T.
    **settings
        Those of `glow_regret_bound`.

    Returns
    -------
    ndarray of the shape of `iterations`
    """
    return Setting(**settings).slope(require_rounds(iterations))


def glow_regret_bound(
    iterations: ArrayLike, *, gamma: float | None = None, planned: int | None = None, **settings: Any
) -> NDArray[np.float64]:
    """Bound on sum_{t <= T} (J* - J(pi_t)) of GLOW, with probability at least 1 - delta.

    1 + 2 sqrt(2 T log(4 |F| T / delta) / K) + sum_h { (kappa / gamma + 1) C_h H(T / C_h) + B gamma T L / K }

    in units of the total reward, and never more than T; the second term is 0 for a known or single start state.
    L = log(4 H |F| / delta) + log(number of tests of a layer), A and B of `self_normalised_constants`, kappa of
    `clipped_constant`, H(x) the harmonic numbers continued. At gamma* the main term is
    2 sqrt(kappa B) sqrt(H T L sum_h C_h H(T / C_h) / K), with 2 sqrt(kappa B) = 4.53 at c = 1/4.

    Parameters
    ----------
    iterations : array
        T. Every iteration counts once, whatever K: the regret of all T K episodes is K times this.
    gamma : float, optional
        Slope of the clipping level; default gamma* of T.
    planned : int, optional
        The T >= `iterations` for which levels and gamma were set, if the run is judged earlier; default T itself.
    coverability : float or (H,) array
        C_h of the policies that can be played, or upper bounds.
    n_functions : int
        |F|.
    delta : float in (0, 1)
    horizon : int, optional
        H, if `coverability` is one number.
    n_weights, n_policies, log_tests
        One of: the size of a list of weights, tested at every round (log |W| T tests); the number nP of distinct
        policies whose ratios against what was played are tested (`mixture_log_tests`); or the logarithm of the number
        of (round, weight) pairs by which a layer can be tested, a number or a function of T.
    n_models : int
        Candidate models that ratios come from, with `n_policies`.
    trajectories : int
        K.
    schedule : {"self_normalised", "scale_free", "paper"}
        The last: the levels of the paper in the analysis of docs/theory/glow.md, where they cost 46 instead of 2.75.
    c : float
        Of the schedule. The scale-free test has none: any c may be given, and the bound holds for it. The paper's is 8.
    noise_width : float
        b.
    residual : float
        R, see `self_normalised_constants`.
    tuned : bool
        Whether the two exponents of the analysis are chosen to make kappa B small, instead of 1.
    known_start : bool
        Whether the start law is known to the learner, or a single state.
    anytime : bool
        Whether the levels hold for all T at once.
    misspecification : float
        xi: some weight of the class is this close to every clipped ratio, in sup_pi ||.||_{1, d^pi}; adds
        H xi ((2 A + 2) T + H_T).
    total_reward : float
        Units: the bound on an episode's total reward above the lowest.

    Returns
    -------
    ndarray of the shape of `iterations`

    Raises
    ------
    ValueError
        A number out of range, or no count of tests, or two.

    Notes
    -----
    Theorem SN of docs/theory/glow.md#glow-regret, for the algorithm of Amortila, Foster, Jiang, Sekhari and Xie (2024).
    """
    setting, rounds = Setting(**settings), require_rounds(iterations)
    if gamma is not None:
        require_positive("gamma", gamma)
    if planned is None:
        return setting.regret(rounds, rounds, gamma)
    until = require_int(planned, 1, "planned")
    if not (rounds <= until).all():
        raise ValueError(f"iterations must be at most planned = {until}")
    return setting.regret(rounds, np.full(rounds.shape, float(until)), gamma)


def glow_iterations(epsilon: float, *, gamma: float | None = None, **settings: Any) -> int:
    """The least number T of iterations at which `glow_regret_bound` is at most epsilon T.

    After T iterations a policy drawn uniformly from pi_1, ..., pi_T loses at most epsilon on average, with probability
    at least 1 - delta; T K episodes are played. That no smaller T will do is certified: ranges of T are ruled out by
    the bound with its falling terms at their right end and its growing ones at their left end.

    Parameters
    ----------
    epsilon : float
        In units of reward.
    gamma : float, optional
        A fixed slope; default gamma* of each T.
    **settings
        Those of `glow_regret_bound`.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        epsilon is not positive, or the bound stays above epsilon T for every T up to 2^62.
    """
    require_positive("epsilon", epsilon)
    if gamma is not None:
        require_positive("gamma", gamma)
    setting = Setting(**settings)
    target = epsilon / setting.total_reward

    def per_round(falling: float, growing: float) -> float:
        value = float(setting.per_round(np.float64(falling), np.float64(growing), gamma))
        return min(1.0, value) if not math.isnan(value) else math.inf

    found = least_rounds(per_round, target)
    if found is None:
        raise ValueError(f"the bound is above {epsilon:g} T for every T up to 2^62")
    return found
