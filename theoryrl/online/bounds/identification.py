"""How many episodes identification takes at most, with every constant; proofs on the page Identification."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from theoryrl.online.bounds._common import checked
from theoryrl.online.rf_express import express_target
from theoryrl.theory.search import LARGEST, first_true

# Sums over visits are exact for this many terms, then in blocks that grow by this factor, each at its largest term.
EXACT_VISITS = 100_000
GROWTH = 1.005


def bpi_ucbvi_sample_bound(
    epsilon: float,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    delta: float,
    reward_width: float = 1.0,
    stationary: bool = True,
) -> int:
    """BPI-UCBVI stops within this many episodes, with a policy that loses at most epsilon, with probability 1 - delta.

    With W = H - 1, q = (1 + 1/H)(1 + 3/H), l_n, beta_n as in `BPIUCBVI`, b_k = log(5/delta) + log C(k+S-1, S-1),

        phi(n) = sqrt(2 l_n / n) + 2 W sqrt(2 l_n / n) + W (4 H l_n + (H + 9) beta_n) / n
                 + (1 + 3/H) W (H/2 + 1/3) beta_n / n,
        F(N) = sum_{n<N} min{1, phi(n) / H},  M(K) = H sum_h q^h S A F(K / (S A))
                 or, with counts pooled over layers, H q^(H-1) S A (H - 1 + F(K H / (S A))),

    it is the least K >= 8 (or 1 if epsilon >= H: then it stops at once) with

        (K - 1) epsilon >= 2 e / (e - 1) (M(K) + sum_h q^h (H - h) log(5/delta)) + 7.5 H b_K (1 + log K).

    Parameters
    ----------
    epsilon : float, positive, in units of reward
    n_states, n_actions, horizon : int
        S, A, H.
    delta : float in (0, 1)
    reward_width : float
        high - low of the reward range.
    stationary : bool
        Whether counts are pooled over layers.

    Returns
    -------
    int
        From the worst variance (H^4 S A / epsilon^2), not the sharp order of the paper (H^3 S A / epsilon^2).

    Raises
    ------
    ValueError
        If a number is out of its range, or the bound is beyond 2^62.
    """
    _check(epsilon, n_states, n_actions, horizon, delta, reward_width)
    if reward_width * horizon <= epsilon:
        return 1
    below = horizon - 1.0
    constant = math.log(10 * n_states * n_actions * horizon / delta)

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        log = constant + np.log(n * (n + 1))
        rate, full = log / n, (log + log_histograms(n, n_states)) / n
        noise = np.sqrt(2 * rate) + 2 * below * np.sqrt(2 * rate)
        transfer = (1 + 3 / horizon) * below * (horizon / 2 + 1 / 3) * full
        return noise + below * (4 * horizon * rate + (horizon + 9) * full) + transfer

    caps = np.arange(horizon, 0.0, -1.0)
    growth = (1 + 1 / horizon) * (1 + 3 / horizon)
    return _stopping_bound(
        epsilon / reward_width, width, caps, growth, n_states, n_actions, horizon, 5 / delta, stationary
    )


def rf_ucrl_sample_bound(
    epsilon: float, *, n_states: int, n_actions: int, horizon: int, delta: float, stationary: bool = True
) -> int:
    """RF-UCRL stops within this many episodes, and plug-in planning loses at most epsilon, with probability 1 - delta.

    As `bpi_ucbvi_sample_bound` with epsilon / 2 for epsilon, H - 1 for H outside sums, sums over h <= H - 2 with caps
    H - h - 1, q = 1 + 1/H, 3 for 5 in logarithms and

        phi(n) = W sqrt(beta_n / (2 n)) + W (H/2 + 1/3) beta_n / n,  beta_n = log(3 G S A / delta) + log C(n+S-1, S-1).

    Parameters
    ----------
    epsilon : float, positive, for rewards in [0, 1]
    n_states, n_actions, horizon : int
        S, A, H.
    delta : float in (0, 1)
    stationary : bool
        Whether counts are pooled over layers (G = 1, else H).

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If a number is out of its range, or the bound is beyond 2^62.
    """
    below, rate = _reward_free(epsilon, n_states, n_actions, horizon, delta, stationary)
    if below <= epsilon / 2:
        return 1

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        return below * (np.sqrt(rate(n) / 2) + (horizon / 2 + 1 / 3) * rate(n))

    caps, growth = np.arange(below, 0.0, -1.0), 1 + 1 / horizon
    return _stopping_bound(epsilon / 2, width, caps, growth, n_states, n_actions, horizon, 3 / delta, stationary)


def rf_express_sample_bound(
    epsilon: float, *, n_states: int, n_actions: int, horizon: int, delta: float, stationary: bool = True
) -> int:
    """RF-Express stops within this many episodes, and plug-in planning loses at most epsilon, with chance 1 - delta.

    As `rf_ucrl_sample_bound` with the x of 2 (sqrt(e x) + x) = epsilon for epsilon / 2, q = (1 + 1/H)^2 and

        phi(n) = ((2 H + 3)(H - 1) + (1 + 1/H) W (H/2 + 1/3)) beta_n / n,

    of order H^3 S A (log(1/delta) + S) / epsilon^2 up to logarithms. Parameters, returns and raises as there.
    """
    below, rate = _reward_free(epsilon, n_states, n_actions, horizon, delta, stationary)
    target = express_target(epsilon)
    if below <= target:
        return 1
    factor = (2 * horizon + 3) * below + (1 + 1 / horizon) * below * (horizon / 2 + 1 / 3)
    caps, growth = np.arange(below, 0.0, -1.0), (1 + 1 / horizon) ** 2
    return _stopping_bound(
        target, lambda n: factor * rate(n), caps, growth, n_states, n_actions, horizon, 3 / delta, stationary
    )


def log_histograms(n: NDArray[np.float64], n_states: int) -> NDArray[np.float64]:
    """Logarithm of C(n + S - 1, S - 1), the number of histograms of n draws of S values."""
    from scipy.special import betaln

    # 1 / ((n + S) B(n + 1, S)): differences of log-gammas would cancel for large n.
    return np.maximum(-np.log(n + n_states) - betaln(n + 1.0, float(n_states)), 0.0)


def _check(epsilon: float, n_states: int, n_actions: int, horizon: int, delta: float, reward_width: float) -> None:
    checked(1, n_states, n_actions, horizon, delta, reward_width)
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be positive and finite, not {epsilon!r}")


def _reward_free(
    epsilon: float, n_states: int, n_actions: int, horizon: int, delta: float, stationary: bool
) -> tuple[float, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """H - 1 and beta_n / n."""
    _check(epsilon, n_states, n_actions, horizon, delta, 1.0)
    constant = math.log(3 * (1 if stationary else horizon) * n_states * n_actions / delta)
    return horizon - 1.0, lambda n: (constant + log_histograms(n, n_states)) / n


def _stopping_bound(
    target: float,
    width: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    caps: NDArray[np.float64],
    growth: float,
    n_states: int,
    n_actions: int,
    horizon: int,
    events: float,
    stationary: bool,
) -> int:
    """The least K >= 8 that meets the inequality of `bpi_ucbvi_sample_bound` with this target, width, q and caps.

    `caps` are the most that the table can be at each layer where it is not 0, `events` is 5 / delta there.
    """
    cap, pairs = float(caps[0]), n_states * n_actions
    visits = max(1.0, horizon / pairs)  # of a pair per episode, on average and at most
    ends, sums = _sums_of_widths(lambda n: np.minimum(1.0, width(n) / cap), 2.0 * LARGEST * visits)
    weights = growth ** np.arange(len(caps))
    most = float(weights @ caps)

    def met(k: int) -> bool:
        if stationary:
            visited = float(np.interp(k * horizon / pairs, ends, sums))
            main = cap * weights[-1] * pairs * (horizon - 1 + visited)
        else:
            main = cap * float(weights.sum()) * pairs * float(np.interp(k / pairs, ends, sums))
        summed = 2 * math.e / (math.e - 1) * (main + most * math.log(events))
        start = math.log(events) + float(log_histograms(np.array(float(k)), n_states))
        return (k - 1) * target >= summed + 7.5 * cap * start * (1 + math.log(k))

    found = first_true(met, 8)
    if found is None:
        raise ValueError("the bound is beyond 2^62 episodes")
    return found


def _sums_of_widths(
    width: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    most: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends N, up to `most`, and bounds on 1 + sum_{n=1}^{N-1} width(n) of a width that falls; linear between also."""
    ends = list(np.arange(EXACT_VISITS + 1.0))
    while ends[-1] < most:
        ends.append(float(math.ceil(ends[-1] * GROWTH)))
    marks = np.array(ends)
    terms = np.concatenate([[1.0], width(marks[1:-1])])
    return marks, np.concatenate([[0.0], np.cumsum(np.diff(marks) * terms)])
