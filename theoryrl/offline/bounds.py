"""Guarantees of the offline learners as numbers: every constant explicit, each derived in docs/theory/."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import frozen, require_distribution, require_finite, require_int
from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import backward_induction
from theoryrl.theory.search import first_true

# 1 / (1 - e^{-1/2}): squared error of a least-squares fit, see docs/theory/fqi.md.
FIT = 1.0 / (1.0 - math.exp(-0.5))

__all__ = [
    "min_episodes",
    "second_moment_ratio",
    "fit_error",
    "fqi_suboptimality_bound",
    "fqe_error_bound",
    "maximum_likelihood_bound",
    "msbo_suboptimality_bound",
    "mabo_suboptimality_bound",
    "vi_lcb_suboptimality_bound",
    "vi_lcb_model_bound",
]


def second_moment_ratio(mdp: FiniteHorizonMDP, policy: Any, mu: ArrayLike) -> NDArray[np.float64]:
    """C_h(pi) = E_{mu_h}[(d^pi_h / mu_h)^2] for every layer; infinite where mu_h does not cover the policy.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policy : policy
    mu : (H, S, A)
        One distribution per layer, e.g. the behaviour policy's occupancy.

    Returns
    -------
    ndarray, shape (H,)
        Between 1 and the largest ratio d / mu.
    """
    require_model(mdp, FiniteHorizonMDP)
    d = occupancy(mdp, policy)
    table = _distributions(mu, d.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(d > 0, d * (d / table), 0.0).sum(axis=(1, 2)))


def fit_error(
    log_sizes: Sequence[float] | NDArray[np.float64], horizon: int, delta: float, reward_width: float = 1.0
) -> NDArray[np.float64]:
    """kappa_h such that least squares from n trajectories has E_mu (f_h - T_h f_{h+1})^2 <= kappa_h / n in every layer.

    kappa_h = ((H - h) width)^2 log(|F_h| |F_{h+1}| H / delta) / (1 - e^{-1/2}),   with probability at least 1 - delta

    Parameters
    ----------
    log_sizes : (H,) numbers
        log |F_h|.
    horizon : int
    delta : float in (0, 1)
    reward_width : float
        high - low.

    Returns
    -------
    ndarray, shape (H,)
    """
    horizon, sizes = require_int(horizon, 1, "horizon"), np.asarray(log_sizes, float)
    if sizes.shape != (horizon,) or not (sizes >= 0).all():
        raise ValueError(f"log_sizes must be {horizon} numbers of at least 0, not {log_sizes!r}")
    _delta(delta)
    left = np.arange(horizon, 0, -1.0) * _width(reward_width)
    union = sizes + np.append(sizes[1:], 0.0) + math.log(horizon / delta)
    return np.asarray(FIT * left**2 * union)


def fqi_suboptimality_bound(
    episodes: ArrayLike,
    *,
    log_sizes: Sequence[float] | NDArray[np.float64],
    concentrability: ArrayLike,
    delta: float,
    reward_width: float = 1.0,
) -> NDArray[np.float64]:
    """J* - J(fitted Q iteration) from n independent trajectories, with probability at least 1 - delta.

    2 sum_h sqrt(C_h kappa_h / n),   at most H width

    Parameters
    ----------
    episodes : number or array of numbers n
    log_sizes : (H,)
        log |F_h| of a product class that is closed under the Bellman operator.
    concentrability : (H,)
        C_h, at least `second_moment_ratio` of an optimal policy and of every greedy policy of the class.
    delta : float in (0, 1)
    reward_width : float

    Returns
    -------
    ndarray
        One number per n.
    """
    factors = _layers(concentrability, len(log_sizes), "concentrability")
    kappa = fit_error(log_sizes, len(factors), delta, reward_width)
    return _capped(2.0 * float(np.sqrt(factors * kappa).sum()), episodes, len(factors), reward_width)


def fqe_error_bound(
    episodes: ArrayLike,
    *,
    log_sizes: Sequence[float] | NDArray[np.float64],
    concentrability: ArrayLike,
    delta: float,
    reward_width: float = 1.0,
) -> NDArray[np.float64]:
    """|J(pi) - fitted Q evaluation| from n independent trajectories and a known start, with probability >= 1 - delta.

    sum_h sqrt(C_h(pi) kappa_h / n),   at most H width

    Parameters are those of `fqi_suboptimality_bound`; the class is closed under the target's operator and C_h is the
    target's alone.
    """
    factors = _layers(concentrability, len(log_sizes), "concentrability")
    kappa = fit_error(log_sizes, len(factors), delta, reward_width)
    return _capped(float(np.sqrt(factors * kappa).sum()), episodes, len(factors), reward_width)


def maximum_likelihood_bound(
    episodes: ArrayLike, *, n_models: int, concentrability: ArrayLike, delta: float, reward_width: float = 1.0
) -> NDArray[np.float64]:
    """J* - J(plan of the most likely layers) from n independent trajectories, with probability at least 1 - delta.

    2 sum_h sqrt(C_h kappa_h / n),   kappa_h = 2 ((H - h) width)^2 log(|M| H / delta),   at most H width
    """
    factors = _layers(concentrability, np.size(concentrability), "concentrability")
    horizon = len(factors)
    _delta(delta)
    left = np.arange(horizon, 0, -1.0) * _width(reward_width)
    kappa = 2.0 * left**2 * math.log(require_int(n_models, 1, "n_models") * horizon / delta)
    return _capped(2.0 * float(np.sqrt(factors * kappa).sum()), episodes, horizon, reward_width)


def msbo_suboptimality_bound(
    episodes: ArrayLike,
    *,
    log_size: float,
    helper_log_sizes: Sequence[float] | NDArray[np.float64],
    concentrability: ArrayLike,
    delta: float,
    reward_width: float = 1.0,
) -> NDArray[np.float64]:
    """J* - J(MSBO) from n independent trajectories, with probability at least 1 - delta.

    2 sqrt(sum_h C_h) sqrt(kappa / n),
    kappa = sum_h ((H - h) width)^2 [log(2 |G_h| H / delta) + log(2 |F| H / delta)] / (1 - e^{-1/2}),   at most H width

    Parameters
    ----------
    episodes : number or array of numbers n
    log_size : float
        log |F|; F contains Q*.
    helper_log_sizes : (H,)
        log |G_h|; G_h contains T_h f_{h+1} for every f in F.
    concentrability : (H,)
        As in `fqi_suboptimality_bound`.
    delta : float in (0, 1)
    reward_width : float
    """
    helper = _layers(helper_log_sizes, np.size(helper_log_sizes), "helper_log_sizes")
    horizon = len(helper)
    factors = _layers(concentrability, horizon, "concentrability")
    _delta(delta)
    left = np.arange(horizon, 0, -1.0) * _width(reward_width)
    union = helper + _log_size(log_size, "log_size") + 2.0 * math.log(2.0 * horizon / delta)
    kappa = FIT * float((left**2 * union).sum())
    return _capped(2.0 * math.sqrt(float(factors.sum()) * kappa), episodes, horizon, reward_width)


def mabo_suboptimality_bound(
    episodes: ArrayLike,
    *,
    log_size: float,
    weights_log_size: float,
    largest_weights: ArrayLike,
    delta: float,
    reward_width: float = 1.0,
) -> NDArray[np.float64]:
    """J* - J(MABO) from n independent trajectories, with probability at least 1 - delta.

    4 sqrt(2) sum_h B_h (H - h) width sqrt(log(2 |F| |W| / delta) / n),   at most H width

    Parameters
    ----------
    episodes : number or array of numbers n
    log_size, weights_log_size : float
        log |F|, with Q* in F; log |W|, with the ratios of an optimal policy and of every greedy policy in W.
    largest_weights : (H,)
        B_h, the largest weight of each layer.
    delta : float in (0, 1)
    reward_width : float
    """
    largest = _layers(largest_weights, np.size(largest_weights), "largest_weights")
    horizon = len(largest)
    _delta(delta)
    left = np.arange(horizon, 0, -1.0) * _width(reward_width)
    sizes = _log_size(log_size, "log_size") + _log_size(weights_log_size, "weights_log_size")
    with np.errstate(invalid="ignore"):
        factor = 4.0 * math.sqrt(2.0 * (math.log(2.0 / delta) + sizes)) * float((largest * left).sum())
    return _capped(factor, episodes, horizon, reward_width)


def vi_lcb_suboptimality_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    concentrability: float,
    delta: float,
    reward_width: float = 1.0,
) -> NDArray[np.float64]:
    """J* - J(VI-LCB, split, with delta / 2) from n independent trajectories, with probability at least 1 - delta.

    sum_h (H - h) width sqrt(8 S C L / floor(n / H)),   L = log(4 H S A / delta),   at most H width

    Parameters
    ----------
    episodes : number or array of numbers n
    n_states, n_actions, horizon : int
    concentrability : float
        C, at least d_h(s, a) / mu_h(s, a) of one deterministic optimal policy, everywhere (single-policy).
    delta : float in (0, 1)
        The learner is to be given delta / 2.
    reward_width : float
    """
    n_states, n_actions = require_int(n_states, 1, "n_states"), require_int(n_actions, 1, "n_actions")
    horizon = require_int(horizon, 1, "horizon")
    if not concentrability >= 1.0:
        raise ValueError(f"concentrability is {concentrability}, below 1")
    _delta(delta)
    union = math.log(4 * horizon * n_states * n_actions / delta)
    steps = horizon * (horizon + 1) / 2
    factor = steps * _width(reward_width) * math.sqrt(8.0 * n_states * concentrability * union)
    return _capped(factor, np.floor(_counts(episodes) / horizon), horizon, reward_width)


def vi_lcb_model_bound(mdp: FiniteHorizonMDP, mu: ArrayLike, episodes: ArrayLike, delta: float) -> NDArray[np.float64]:
    """The same bound before anything is relaxed, for a known model and data distribution.

    sum_h sum_{s, a} d*_h min(1, sqrt(8 L / (m mu_h))) (H - h) width,   at most H width,
    m = floor(n / H),   L = log(4 H S A / delta)

    Parameters
    ----------
    mdp : FiniteHorizonMDP
        Its optimal policy with the lowest-numbered actions is the comparator.
    mu : (H, S, A)
        Distribution of the data's pairs in each layer.
    episodes : number or array of numbers n
    delta : float in (0, 1)
        The learner is to be given delta / 2.
    """
    require_model(mdp, FiniteHorizonMDP)
    _delta(delta)
    best = occupancy(mdp, backward_induction(mdp).policy)
    table = _distributions(mu, best.shape)
    union = math.log(4 * best.size / delta)
    width = mdp.reward_range[1] - mdp.reward_range[0]
    left = (np.arange(mdp.horizon, 0, -1.0) * width)[:, np.newaxis, np.newaxis]
    found = []
    for m in np.floor(np.atleast_1d(_counts(episodes)) / mdp.horizon):
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(best > 0, np.minimum(1.0, np.sqrt(8.0 * union / (m * table))), 0.0)
        found.append(min(float((best * left * share).sum()), mdp.horizon * width))
    return np.asarray(found).reshape(np.shape(episodes))


def min_episodes(bound: Callable[..., ArrayLike], epsilon: float, /, **settings: Any) -> int:
    """The least number of trajectories n with bound(n) <= epsilon.

    Parameters
    ----------
    bound : function of the number of trajectories
        One of this module; `settings` are passed on to it.
    epsilon : float, positive, in units of reward
    **settings
        For example log_sizes, concentrability, delta.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If epsilon is not positive, or is not met within 2^62 trajectories.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be positive and finite, not {epsilon!r}")

    def met(episodes: int) -> bool:
        return bool(np.all(np.asarray(bound(episodes, **settings)) <= epsilon))

    found = first_true(met)
    if found is None:
        raise ValueError(f"{getattr(bound, '__name__', 'the bound')} is above {epsilon} for all n up to 2^62")
    return found


def _capped(factor: float, episodes: ArrayLike, horizon: int, width: float) -> NDArray[np.float64]:
    """min(factor / sqrt(n), H width)."""
    n = _counts(episodes)
    if width == 0.0:  # constant rewards: nothing to lose, without data too
        return np.zeros_like(n)
    with np.errstate(divide="ignore"):
        return np.asarray(np.minimum(factor / np.sqrt(n), horizon * width))


def _counts(episodes: ArrayLike) -> NDArray[np.float64]:
    n = np.asarray(episodes, float)
    if not (n >= 0).all():
        raise ValueError("episodes must not be negative")
    return n


def _layers(values: ArrayLike, horizon: int, name: str) -> NDArray[np.float64]:
    table = np.asarray(values, float)
    if table.shape != (horizon,) or not (table >= 0).all():
        raise ValueError(f"{name} must be {horizon} numbers of at least 0, one per layer")
    return table


def _log_size(value: float, name: str) -> float:
    if not value >= 0:
        raise ValueError(f"{name} is {value}, not a number of at least 0")
    return float(value)


def _distributions(mu: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Mu as (H, S, A), a distribution in every layer."""
    table = frozen(mu, np.float64, "mu")
    if table.shape != shape:
        raise ValueError(f"mu has shape {table.shape}, not {shape}")
    require_finite(table, "mu")
    for h, layer in enumerate(table):
        require_distribution(layer, f"mu[{h}]")
    return table


def _delta(delta: float) -> None:
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta is {delta}, not in (0, 1)")


def _width(width: float) -> float:
    if not (width >= 0.0 and math.isfinite(width)):
        raise ValueError(f"reward_width is {width}, not finite and non-negative")
    return float(width)
