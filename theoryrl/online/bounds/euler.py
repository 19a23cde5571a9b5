"""Regret bound of EULER with every constant written out; the proof is in the documentation, page EULER."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.online.bounds._common import checked, sum_over_visits


def euler_regret_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    delta: float,
    reward_width: float = 1.0,
    stationary: bool = True,
    n_successors: int | None = None,
) -> NDArray[np.float64]:
    """Bound on the regret of EULER that holds for every number of episodes K at once with probability 1 - delta.

    That of UCBVI (`ucbvi_regret_bound`) with l_n = log(20 S A H n (n+1) / delta), 5 in place of 3 in the other
    logarithms, phi(1) = 1 and for n >= 2

        phi(n) = 4 sqrt(l_n / (2 (n - 1))) + 14 l_n / (3 (n - 1)) + G (H/2 + 1/3) i_n / n:

    from the worst variances, of order H sqrt(S A T log T), not the paper's problem-dependent rate. Parameters, result
    and errors as there.
    """
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    successors = require_int(n_states if n_successors is None else n_successors, 1, "n_successors")
    pairs, steps = n_states * n_actions, np.arange(horizon)
    weights = (1 + 1 / horizon) ** steps * (horizon - steps)

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        log = np.log(20 * pairs * horizon * n * (n + 1) / delta)
        transfer = np.log(5 * n_states * pairs * horizon * n * (n + 1) / delta)
        fewer = np.maximum(n - 1, 1)  # at n = 1 this is above 1 already
        return (
            4 * np.sqrt(log / (2 * fewer)) + 14 * log / (3 * fewer) + successors * (horizon / 2 + 1 / 3) * transfer / n
        )

    if stationary:
        main = horizon * pairs * (horizon - 1 + sum_over_visits(counts * horizon / pairs, width))
    else:
        main = weights.sum() * pairs * sum_over_visits(counts / pairs, width)
    noise = np.sqrt(counts * (weights**2).sum() * np.log(5 * counts * (counts + 1) / delta) / 2)
    return reward_width * np.minimum(counts * horizon, main + noise)
