"""Regret bounds of UCBVI with every constant written out; the proofs are in the documentation, page UCBVI."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.online._ucbvi_kernels import BERNSTEIN_LINEAR, BERNSTEIN_ROOT
from theoryrl.online.bounds._common import checked, sum_over_visits


def ucbvi_regret_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    delta: float,
    reward_width: float = 1.0,
    stationary: bool = True,
    n_successors: int | None = None,
    bonus: Literal["hoeffding", "bernstein"] = "hoeffding",
) -> NDArray[np.float64]:
    """Bound on the regret of UCBVI that holds for every number of episodes K at once with probability 1 - delta.

    With phi(n) = 2 sqrt(l_n / (2 n)) + G (H/2 + 1/3) i_n / n, l_n = log(6 S A H n (n+1) / delta),
    i_n = log(3 S^2 A H n (n+1) / delta), F(N) = sum_{n<N} min(1, phi(n)), w_h = (1 + 1/H)^h (H - h):

    stationary dynamics, counts pooled over layers:
        Reg(K) <= H S A (H - 1 + F(K H / (S A))) + sqrt(K sum_h w_h^2 log(3 K (K+1) / delta) / 2);
    one count per layer:
        Reg(K) <= sum_h w_h S A F(K / (S A))     + the same last term;

    both times the width of the reward range, and never more than the trivial K H. For the Bernstein bonus the
    logarithms have 10 and 5 in place of 6 and 3, and the first term of phi is (5/3 + sqrt(1/2)) sqrt(l_n / n) +
    (35/3) l_n / n: a bound from the worst variance H^2 / 4, not the sharp one.

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
    n_successors : int, optional
        G: the most successors a pair has; default S.
    bonus : {"hoeffding", "bernstein"}

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    successors = require_int(n_states if n_successors is None else n_successors, 1, "n_successors")
    pairs = n_states * n_actions
    events = _events(bonus)

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        log_value = np.log(2 * events * pairs * horizon * n * (n + 1) / delta)
        log_transfer = np.log(events * n_states * pairs * horizon * n * (n + 1) / delta)
        return _bonus_part(bonus, log_value, n) + successors * (horizon / 2 + 1 / 3) * log_transfer / n

    steps = np.arange(horizon)
    weights = (1 + 1 / horizon) ** steps * (horizon - steps)
    if stationary:
        main = horizon * pairs * (horizon - 1 + sum_over_visits(counts * horizon / pairs, width))
    else:
        main = weights.sum() * pairs * sum_over_visits(counts / pairs, width)
    noise = np.sqrt(counts * (weights**2).sum() * np.log(events * counts * (counts + 1) / delta) / 2)
    return reward_width * np.minimum(counts * horizon, main + noise)


def ucbvi_regret_closed_form(
    episodes: ArrayLike, *, n_states: int, n_actions: int, horizon: int, delta: float, reward_width: float = 1.0
) -> NDArray[np.float64]:
    """A formula above `ucbvi_regret_bound` (Hoeffding bonus, stationary dynamics), to read the rate from.

    With T = K H and L = log(6 S^2 A H (T+1)^2 / delta):

        Reg(K) <= H sqrt(8 S A T L) + H^2 S A + H S^2 A (H/2 + 1/3) L (1 + log(1 + T)) + H S A + sqrt(K H^3 L / 2)

    times the width of the reward range. Arguments as there.
    """
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    pairs, total = n_states * n_actions, counts * horizon
    log = np.log(6 * n_states * pairs * horizon * (total + 1) ** 2 / delta)
    leading = horizon * np.sqrt(8 * pairs * total * log)
    transfer = horizon * n_states * pairs * (horizon / 2 + 1 / 3) * log * (1 + np.log1p(total))
    noise = np.sqrt(counts * horizon**3 * log / 2)
    return reward_width * (leading + transfer + horizon * pairs * (horizon + 1) + noise)


def _events(bonus: str) -> int:
    if bonus not in ("hoeffding", "bernstein"):
        raise ValueError(f"bonus must be 'hoeffding' or 'bernstein', not {bonus!r}")
    return 3 if bonus == "hoeffding" else 5


def _bonus_part(bonus: str, log: NDArray[np.float64], n: NDArray[np.float64]) -> NDArray[np.float64]:
    if bonus == "hoeffding":
        return 2 * np.sqrt(log / (2 * n))
    return (BERNSTEIN_ROOT / 2) * np.sqrt(log / n) + BERNSTEIN_LINEAR * log / n + np.sqrt(log / (2 * n))
