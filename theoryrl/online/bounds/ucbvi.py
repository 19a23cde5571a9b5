"""Regret bounds of UCBVI with every constant written out; the proofs are in the documentation, page UCBVI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.online._ucbvi_kernels import BERNSTEIN_LINEAR, BERNSTEIN_ROOT
from theoryrl.online.bounds._common import SUMMED_VISITS, checked, sum_over_visits

Width: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
# P^ <= (1 + SPREAD) P + (1 / (2 SPREAD) + 1/3) i / n: how much of the variance is lost to that.
SPREAD = 0.25


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
    replan: Literal["always", "doubling"] = "always",
) -> NDArray[np.float64]:
    """Bound on the regret of UCBVI that holds for every number of episodes K at once with probability 1 - delta.

    With phi(n) = 2 sqrt(l_n / (2 n)) + G (H/2 + 1/3) i_n / n, l_n = log(6 S A H n (n+1) / delta),
    i_n = log(3 S^2 A H n (n+1) / delta), F(N) = sum_{n<N} min(1, phi(n)), w_h = (1 + 1/H)^h (H - h):

    stationary dynamics, counts pooled over layers:
        Reg(K) <= H S A (H - 1 + F(K H / (S A))) + sqrt(K sum_h w_h^2 log(3 K (K+1) / delta) / 2);
    one count per layer:
        Reg(K) <= sum_h w_h S A F(K / (S A))     + the same last term;

    both times the width of the reward range, and never more than the trivial K H. For the Bernstein bonus it is the
    smaller of such a bound, from the worst variance H^2 / 4, and one whose leading term is of order
    H sqrt(S A K log^2), from the law of total variance; both hold on the same event and are written out in the
    documentation (page UCBVI). If plans are made on doubled counts, phi is taken at ceil((n + 1) / 2).

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
    replan : {"always", "doubling"}

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    if replan not in ("always", "doubling"):
        raise ValueError(f"replan must be 'always' or 'doubling', not {replan!r}")
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    successors = require_int(n_states if n_successors is None else n_successors, 1, "n_successors")
    sizes = _Sizes(n_states, n_actions, horizon, delta, stationary, successors, replan == "doubling", False)
    return reward_width * np.minimum(counts * horizon, _bound(counts, sizes, bonus))


def ucbvi_rtdp_regret_bound(
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
    """Bound on the regret of UCBVI in real time, for every number of episodes at once with probability 1 - delta.

    That of UCBVI, and what planning late costs, which does not grow with K: with w_h as there,

        S min(A, S) sum_{h >= 1} w_h, and with pooled counts S A sum_h w_h besides,

    times the width of the reward range (page UCBVI in real time; with the Bernstein bonus slightly more, see there).
    Parameters, result and errors as in `ucbvi_regret_bound`.
    """
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    successors = require_int(n_states if n_successors is None else n_successors, 1, "n_successors")
    sizes = _Sizes(n_states, n_actions, horizon, delta, stationary, successors, False, True)
    return reward_width * np.minimum(counts * horizon, _bound(counts, sizes, bonus))


class _Sizes(NamedTuple):
    """S, A, H, delta, whether counts are pooled, G, and whether plans are made on doubled counts or in real time."""

    states: int
    actions: int
    horizon: int
    delta: float
    pooled: bool
    successors: int
    doubling: bool
    real_time: bool

    @property
    def weights(self) -> NDArray[np.float64]:
        """w_h."""
        steps = np.arange(float(self.horizon))
        return np.power(1 + 1 / self.horizon, steps) * (self.horizon - steps)

    def log(self, factor: float, n: NDArray[np.float64]) -> NDArray[np.float64]:
        """log(factor S A H n (n + 1) / delta)."""
        inside = factor * self.states * self.actions * self.horizon * n * (n + 1) / self.delta
        return np.log(inside)

    def total(self, counts: NDArray[np.float64], width: Width, harmonic: bool = False) -> NDArray[np.float64]:
        """The sum of w_h min{1, width} over the visits of `counts` episodes; n width(n) may not fall if `harmonic`."""
        pairs, weights = self.states * self.actions, self.weights

        def late(n: NDArray[np.float64]) -> NDArray[np.float64]:
            return width(np.ceil((n + 1) / 2)) if self.doubling else width(n)

        def summed(visits: NDArray[np.float64]) -> NDArray[np.float64]:
            if not harmonic:
                return sum_over_visits(visits, late)
            # From m on, width(n) <= (N width(N)) / n; on doubled counts width is taken at half of n or more.
            m, largest = float(SUMMED_VISITS), np.maximum(visits, SUMMED_VISITS)
            tail = (2 if self.doubling else 1) * largest * width(largest) * (1 / m + np.log(largest / m))
            return sum_over_visits(np.minimum(visits, m), late) + np.where(visits > m, tail, 0.0)

        if not self.pooled:
            return weights.sum() * pairs * summed(counts / pairs)
        lag = self.horizon - 1 + summed(counts * self.horizon / pairs)
        return self.horizon * pairs * lag + (pairs * weights.sum() if self.real_time else 0.0)


def _bound(counts: NDArray[np.float64], sizes: _Sizes, bonus: str) -> NDArray[np.float64]:
    if bonus not in ("hoeffding", "bernstein"):
        raise ValueError(f"bonus must be 'hoeffding' or 'bernstein', not {bonus!r}")
    weights, transfer = sizes.weights, sizes.successors * (sizes.horizon / 2 + 1 / 3)
    noise_log = np.log((3 if bonus == "hoeffding" else 25 / 3) * counts * (counts + 1) / sizes.delta)
    noise = np.sqrt(counts * (weights**2).sum() * noise_log / 2)
    if sizes.real_time:
        noise = noise + sizes.states * min(sizes.actions, sizes.states) * weights[1:].sum()
    if bonus == "bernstein":
        return np.minimum(_from_worst_variance(counts, sizes), _from_total_variance(counts, sizes, noise_log)) + noise

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        return 2 * np.sqrt(sizes.log(6, n) / (2 * n)) + transfer * sizes.log(3 * sizes.states, n) / n

    return sizes.total(counts, width) + noise


def _from_worst_variance(counts: NDArray[np.float64], sizes: _Sizes) -> NDArray[np.float64]:
    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        log, tail, transfer = sizes.log(10, n), sizes.log(25 / 3, n), sizes.log(25 / 3 * sizes.states, n)
        root = (BERNSTEIN_ROOT / 2) * np.sqrt(log / n) + np.sqrt(tail / (2 * n))
        rest = BERNSTEIN_LINEAR * log + tail / 3 + sizes.successors * (sizes.horizon / 2 + 1 / 3) * transfer
        return root + rest / n

    return sizes.total(counts, width)


def _from_total_variance(
    counts: NDArray[np.float64], sizes: _Sizes, noise_log: NDArray[np.float64]
) -> NDArray[np.float64]:
    horizon, pairs, successors = sizes.horizon, sizes.states * sizes.actions, sizes.successors
    slack = 1 + SPREAD
    # What one visit costs beyond its variance, over H - h.
    power = 3 * BERNSTEIN_ROOT**2 * slack * horizon / 4 + BERNSTEIN_LINEAR

    def width(n: NDArray[np.float64]) -> NDArray[np.float64]:
        log, tail, transfer = sizes.log(10, n), sizes.log(25 / 3, n), sizes.log(25 / 3 * sizes.states, n)
        cross = BERNSTEIN_ROOT * np.sqrt((1 / (2 * SPREAD) + 1 / 3) * successors * transfer * log)
        rest = (1.5 * horizon + 1 / 3) * (tail + successors * transfer) + power * log + cross
        return rest / n

    def reward(n: NDArray[np.float64]) -> NDArray[np.float64]:
        m = np.ceil((n + 1) / 2) if sizes.doubling else n
        log, tail = sizes.log(10, m), sizes.log(25 / 3, m)
        return (np.minimum(1, np.sqrt(tail / (2 * m))) + np.minimum(1, np.sqrt(log / m) + 14 * log / (3 * m))) / 2

    most = counts * horizon if sizes.pooled else counts  # visits of a pair
    groups = 1 if sizes.pooled else horizon
    late = 1.0 if sizes.real_time and sizes.pooled else 0.0
    growth = (1 + 1 / horizon) ** (horizon - 1)
    rewards = 2 * growth * groups * pairs * sum_over_visits(most / pairs, reward) + 2 * growth * horizon * pairs * late
    mean, largest = (horizon - 1) ** 2 / 4, (horizon - 1) * horizon * (2 * horizon - 1) / 24
    variance = counts * mean + np.sqrt(2 * counts * largest * mean * noise_log) + largest * noise_log / 3
    inverse = groups * pairs * (1 + late + np.log(np.maximum(most / (pairs * horizon), 1)))
    root = np.sqrt(2 * sizes.log(25 / 3, most)) + BERNSTEIN_ROOT * np.sqrt(slack * sizes.log(10, most))
    leading = growth * root * np.sqrt(variance * inverse * (2 if sizes.doubling else 1))
    return leading + rewards + sizes.total(counts, width, harmonic=True)


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
