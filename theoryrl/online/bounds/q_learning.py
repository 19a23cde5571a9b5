"""Bounds on the regret of Q-learning, above and below; the proofs are in the documentation, page Q-learning."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.online._q_learning import bonus_factor
from theoryrl.online.bounds._common import checked, sum_over_visits
from theoryrl.theory.search import LARGEST, first_true


def ucb_h_regret_bound(
    episodes: ArrayLike, *, n_states: int, n_actions: int, horizon: int, delta: float, reward_width: float = 1.0
) -> NDArray[np.float64]:
    """Bound on the regret of UCB-H that holds for every number of episodes K at once with probability 1 - delta.

    With phi(n) = (1 + (2H + 2) / (2H + 1)) (H + 1) sqrt(l_n / ((4H + 2) n)), l_n = log(4 S A H n (n+1) / delta),
    F(N) = sum_{n<N} min(1, phi(n)), phi(0) = inf, and w_h = (1 + 1/H)^h (H - h):

        Reg(K) <= sum_h w_h S A F(K / (S A)) + sqrt(K c log(2 K (K+1) / delta) / 2),
        c = H^2 + sum_h ((1 + 1/H)^h (H - h - 1))^2,

    times the width of the reward range, and never more than the trivial K H. Of order sqrt(H^4 S A T log T), T = K H,
    as in Theorem 1 of the paper.

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    n_states, n_actions, horizon : int
        S, A, H.
    delta : float in (0, 1)
    reward_width : float
        high - low of the reward range.

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.

    References
    ----------
    Jin, Allen-Zhu, Bubeck, Jordan (2018), Is Q-learning provably efficient?, Theorem 1 (rate).
    """
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    mixing = 1 + (2 * horizon + 2) / (2 * horizon + 1)
    return reward_width * _bound(counts, n_states * n_actions, horizon, delta, mixing, events=2)


def ucb_b_regret_bound(
    episodes: ArrayLike, *, n_states: int, n_actions: int, horizon: int, delta: float, reward_width: float = 1.0
) -> NDArray[np.float64]:
    """Bound on the regret of UCB-B that holds for every number of episodes K at once with probability 1 - delta.

    As `ucb_h_regret_bound` with phi(n) = 2 (H + 1) sqrt(l_n / ((4H + 2) n)) and l_n = log(8 S A H n (n+1) / delta): a
    bound from the worst variance, which the Bernstein bonus never exceeds, not the sharp one of the paper's Theorem 2.
    Arguments as there.
    """
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    return reward_width * _bound(counts, n_states * n_actions, horizon, delta, 2.0, events=4)


def _bound(
    counts: NDArray[np.float64], pairs: int, horizon: int, delta: float, times: float, events: int
) -> NDArray[np.float64]:
    """In units of the reward range; a visit costs min(1, `times` the deviation at its count) of the steps to go."""

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        log = np.log(2 * events * pairs * horizon * n * (n + 1) / delta)
        return times * bonus_factor(horizon) * np.sqrt(log / n)

    steps = np.arange(horizon)
    growth = (1 + 1 / horizon) ** steps
    main = (growth * (horizon - steps)).sum() * pairs * sum_over_visits(counts / pairs, width)
    squares = horizon**2 + ((growth * (horizon - steps - 1)) ** 2).sum()
    noise = np.sqrt(counts * squares * np.log(2 * counts * (counts + 1) / delta) / 2)
    return np.minimum(counts * horizon, main + noise)


def epsilon_greedy_lock_regret(
    episodes: ArrayLike, *, length: int, n_actions: int, epsilon: float, delta: float, decay: float = 0.0
) -> NDArray[np.float64]:
    """What epsilon-greedy Q-learning loses, at least, on a lock, for every K at once with probability 1 - delta.

    The lock has `length` digits and A actions, pays 1 when opened and nothing before, and no digit of its code is the
    action that ties go to. With p = (epsilon / A)^length and Z(m) = sum over k <= m of k^(-q) (or the integral bound
    1 + int_1^m x^(-q) dx), q = decay * length:

        Reg(K) >= K' - p Z(K'),    K' = min{K, K_delta},

    K_delta the largest K with p Z(K - 1) <= delta. With constant epsilon K_delta = 1 + delta (A / epsilon)^length, down
    to an integer; if q > 1 and p q / (q - 1) <= delta it is infinite, and regret is linear for ever.

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    length, n_actions : int
    epsilon : float in [0, 1]
    delta : float in (0, 1)
    decay : float, at least 0
        epsilon_k = epsilon / k^decay.

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    counts = checked(episodes, 1, n_actions, length, delta, 1.0)
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon must lie in [0, 1], not {epsilon!r}")
    if not (decay >= 0 and math.isfinite(decay)):
        raise ValueError(f"decay must be finite and not negative, not {decay!r}")
    chance, power = (epsilon / n_actions) ** length, decay * length
    counts = np.minimum(counts, _locked_out(chance, power, delta))
    return counts - chance * _power_sum(counts, power)


def _power_sum(count: ArrayLike, power: float) -> NDArray[np.float64]:
    """1 + int_1^m x^(-power) dx >= sum over k = 1 .. m of k^(-power), with equality for power 0; 0 for m = 0."""
    m = np.maximum(np.asarray(count, float), 1.0)
    grown = np.log(m) if power == 1 else (m ** (1 - power) - 1) / (1 - power)
    return np.where(np.asarray(count) >= 1, 1 + grown, 0.0)


def _locked_out(chance: float, power: float, delta: float) -> int:
    """The largest K, up to 2^62, with chance * Z(K - 1) <= delta."""
    beyond = first_true(lambda k: chance * float(_power_sum(k - 1, power)) > delta)
    return (LARGEST + 1 if beyond is None else beyond) - 1
