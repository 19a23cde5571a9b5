"""Regret bound of UCRL2 for a finite horizon, every constant written out; the proof is in the documentation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.online.bounds._common import checked, sum_over_visits


def ucrl2_regret_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    delta: float,
    reward_width: float = 1.0,
    stationary: bool = True,
) -> NDArray[np.float64]:
    """Bound on the regret of UCRL2 that holds for every number of episodes K at once with probability 1 - delta.

    With G = 1 under stationary dynamics, else H, d(n) = sqrt(2 (S log 2 + log(3 G S A n (n+1) / delta)) / n),
    F(N) = 1 + sum_{n=1}^{N-1} min(1, d((n + 1) / 2)), linear between integers:

    stationary dynamics, counts pooled over layers:
        Reg(K) <= H S A (H - 1 + F(K H / (S A))) + sqrt(K sum_h (H - h)^2 log(3 K (K+1) / delta) / 2);
    one count per layer:
        Reg(K) <= sum_h (H - h) S A F(K / (S A)) + the same last term;

    both times the width of the reward range, and never more than the trivial K H. The order is H S sqrt(A T log T) in
    T = K H, as in the paper with H for the diameter.

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

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.

    Source: after Jaksch, Ortner, Auer (2010), Theorem 2; derived in docs/theory/ucrl2.md#ucrl2-regret.
    """
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    pairs = n_states * n_actions
    over_delta = pairs * (1 if stationary else horizon) / delta

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        known = (n + 1) / 2  # at least so many visits were in the plan
        log = np.log(3 * over_delta * known * (known + 1))
        return np.sqrt(2 * (n_states * np.log(2) + log) / known)

    steps = np.arange(horizon, 0.0, -1.0)
    if stationary:
        main = horizon * pairs * (horizon - 1 + sum_over_visits(counts * horizon / pairs, width))
    else:
        main = steps.sum() * pairs * sum_over_visits(counts / pairs, width)
    noise = np.sqrt(counts * (steps**2).sum() * np.log(3 * counts * (counts + 1) / delta) / 2)
    return reward_width * np.minimum(counts * horizon, main + noise)
