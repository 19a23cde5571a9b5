"""Bounds on the expected regret of PSRL and RLSVI, every constant written out; the proofs are in the documentation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.online.bounds._common import checked, sum_over_visits

# Phi(-1), the probability with which RLSVI is optimistic.
OPTIMISM = 0.5 * math.erfc(1 / math.sqrt(2))
# Bounds on expectations have no failure probability; `checked` wants one.
NO_DELTA = 0.5


def psrl_bayes_regret_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    reward_width: float = 1.0,
    stationary: bool = True,
) -> NDArray[np.float64]:
    """Bound on the expected regret of PSRL in K episodes, over its prior and the run.

    With G = 1 under stationary dynamics, else H, phi(n) = sqrt(2 (S log 2 + log(2 G S A K)) / (n + 1)),
    F(N) = 1 + sum_{n=1}^{N-1} min(1, phi(n)), linear between integers:

    stationary dynamics, posteriors pooled over layers:   E Reg(K) <= H S A (H - 1 + F(K H / (S A))) + 2 H;
    one posterior per layer:                              E Reg(K) <= sum_h (H - h) S A F(K / (S A)) + 2 H;

    both times the width of the reward range, and never more than the trivial K H. Holds for every Dirichlet(alpha, ...,
    alpha) prior with alpha > 0, as long as the model is drawn from it. The order is H S sqrt(A T log T), T = K H.

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    n_states, n_actions, horizon : int
        S, A, H.
    reward_width : float
        high - low of the reward range.
    stationary : bool
        Whether posteriors are pooled over layers.

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.

    Source: after Osband, Russo, Van Roy (2013), Theorem 1; derived in docs/theory/posterior.md#psrl-regret.
    """
    counts = checked(episodes, n_states, n_actions, horizon, NO_DELTA, reward_width)
    pairs = n_states * n_actions
    groups = 1 if stationary else horizon
    visits = counts * horizon / (pairs * groups)
    main = np.empty_like(counts)
    for index, total in np.ndenumerate(counts):  # phi depends on K

        def width(n: NDArray[np.float64], total: float = total) -> NDArray[np.float64]:
            return np.sqrt(2 * (n_states * math.log(2) + math.log(2 * groups * pairs * total)) / (n + 1))

        main[index] = sum_over_visits(np.array([visits[index]]), width)[0]
    if stationary:
        main = horizon * pairs * (horizon - 1 + main)
    else:
        main = horizon * (horizon + 1) / 2 * pairs * main
    return reward_width * np.minimum(counts * horizon, main + 2 * horizon)


def rlsvi_regret_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    reward_width: float = 1.0,
    stationary: bool = True,
) -> NDArray[np.float64]:
    """Bound on the expected regret of RLSVI in K episodes on any model: the worst case, not an average over models.

    With m = S A H, l = log(2 S A H^2 K^2), c = 1 + l / 2, z = sqrt(2 log(2 m^2 K)), p = Phi(-1), L = S log 2 + l,

        a = sqrt(l / 2) + (1 + 1/p) z H sqrt(H S c),   B = z sqrt(H S c) H (H - 1) / 2,
        b = (H - 1) / 2 + B + B / (2 p),

    G = 1 under stationary dynamics, else H, and N = K H / (G S A):

        E Reg(K) <= G S A [2 a sqrt(N) + 2 b (1 + sqrt(2 L N)) + B (1 + log(1 + N))] + [G = 1] S A (H - 1) (a + 2 b + B)
                    + (1 + log K) [H + 1 + (H + (1 + 1/p) H^2 sqrt(H S c) (z + 1/z)) / (2 m)],

    times the width of the reward range, and never more than the trivial K H. In T = K H the order is
    H^(5/2) S^(3/2) sqrt(A T) up to logarithms with pooled counts, H^3 S^(3/2) sqrt(A T) with one per layer, and the
    constants are large too: it says something for bandits after some 200,000 episodes, and hardly ever beyond.

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    n_states, n_actions, horizon : int
        S, A, H.
    reward_width : float
        high - low of the reward range.
    stationary : bool
        Whether counts are pooled over layers.

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.

    Source: after Russo (2019), Theorem 1; derived in docs/theory/posterior.md#rlsvi-regret.
    """
    counts = checked(episodes, n_states, n_actions, horizon, NO_DELTA, reward_width)
    pairs = n_states * n_actions
    log = np.log(2 * pairs * horizon**2 * counts**2)
    largest = np.sqrt(horizon * n_states * (1 + log / 2))  # times H - h: deviation of the noise of an unvisited pair
    z = np.sqrt(2 * np.log(2 * (pairs * horizon) ** 2 * counts))
    twice = 1 + 1 / OPTIMISM
    root = np.sqrt(log / 2) + twice * z * horizon * largest
    value = z * largest * horizon * (horizon - 1) / 2
    row = (horizon - 1) / 2 + value * (1 + 1 / (2 * OPTIMISM))
    groups = 1 if stationary else horizon
    visits = counts * horizon / (groups * pairs)
    rows = 2 * row * (1 + np.sqrt(2 * (n_states * math.log(2) + log) * visits))
    main = groups * pairs * (2 * root * np.sqrt(visits) + rows + value * (1 + np.log1p(visits)))
    if stationary:
        main = main + pairs * (horizon - 1) * (root + 2 * row + value)
    unlikely = horizon + twice * horizon**2 * largest * (z + 1 / z)
    rest = (1 + np.log(counts)) * (horizon + 1 + unlikely / (2 * pairs * horizon))
    return reward_width * np.minimum(counts * horizon, main + rest)
