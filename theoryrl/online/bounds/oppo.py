"""The regret bound of OPPO with every constant written out; the proof is in the documentation, page OPPO."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.online.bounds._common import checked, sum_over_visits


def oppo_regret_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    delta: float,
    reward_width: float = 1.0,
    stationary: bool = True,
    planned: int | None = None,
) -> NDArray[np.float64]:
    """Bound on the regret of OPPO that holds for every number of episodes K at once with probability 1 - delta.

    With phi(n) = 2 sqrt((S log 2 + l_n) / (2 n)), l_n = log(4 S A H n (n+1) / delta), F(N) = sum_{n<N} min(1, phi(n)),
    phi(0) = inf, and eta = sqrt(2 log A / (H^2 K_0)) the learning rate, tuned for K_0 episodes:

        Reg(K) <= H log A / eta + eta K H (H+1) (2H+1) / 48
                  + M + sqrt(K H (H+1) (2H+1) log(2 K (K+1) / delta) / 6),
        M = H S A (H - 1 + F(K H / (S A))) with counts pooled over layers (stationary dynamics),
        M = (H (H+1) / 2) S A F(K / (S A)) with one count per layer,

    times the width of the reward range, and never more than the trivial K H. Of order sqrt(S^2 A H^3 T log T), T = K H,
    as in Shani et al., Theorem 1.

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    n_states, n_actions, horizon : int
        S, A, H.
    delta : float in (0, 1)
    reward_width : float
        high - low of the reward range.
    stationary : bool
        Whether counts are pooled over layers.
    planned : int, optional
        K_0, the setting `episodes` of the learner; default K itself, for each entry of `episodes`.

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.

    References
    ----------
    Cai, Yang, Jin, Wang (2020), Provably efficient exploration in policy optimization; Shani, Efroni, Rosenberg, Mannor
    (2020), Optimistic policy optimization with bandit feedback, Theorem 1 (rate).
    """
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    tuned = counts if planned is None else checked(planned, n_states, n_actions, horizon, delta, reward_width)
    pairs, squares = n_states * n_actions, horizon * (horizon + 1) * (2 * horizon + 1) / 6

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        log = np.log(4 * pairs * horizon * n * (n + 1) / delta)
        return 2 * np.sqrt((n_states * math.log(2) + log) / (2 * n))

    # H log A / eta and eta K sum_h (H - h)^2 / 8, written so that A = 1 gives 0.
    root = math.sqrt(math.log(n_actions) / 2)
    ascent = root * (horizon**2 * np.sqrt(tuned) + counts * squares / (4 * horizon * np.sqrt(tuned)))
    if stationary:
        main = horizon * pairs * (horizon - 1 + sum_over_visits(counts * horizon / pairs, width))
    else:
        main = horizon * (horizon + 1) / 2 * pairs * sum_over_visits(counts / pairs, width)
    noise = np.sqrt(counts * squares * np.log(2 * counts * (counts + 1) / delta))
    return reward_width * np.minimum(counts * horizon, ascent + main + noise)
