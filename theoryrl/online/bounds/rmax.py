"""Visits, mistakes and regret of R-max with every constant written out; the proofs are on the page R-max."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.online.bounds._common import checked

# How the accuracy is shared: the model of known pairs may cost this part of it, the way to unknown ones the rest.
MODEL_SHARE = 2.0 / 3.0


def rmax_visits(
    epsilon: float, *, n_states: int, n_actions: int, horizon: int, delta: float, reward_width: float = 1.0
) -> int:
    """The number m of visits after which R-max calls a pair known.

    m = ceil(9 H^2 (H+1)^2 (sqrt(l) + sqrt(l + S log 2))^2 / (32 e^2)),   l = log(3 S A H / delta), e = epsilon / width

    Parameters
    ----------
    epsilon : float, positive, in units of reward
    n_states, n_actions, horizon : int
        S, A, H.
    delta : float in (0, 1)
    reward_width : float
        high - low of the reward range; 0 gives m = 1.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    checked(1, n_states, n_actions, horizon, delta, reward_width)
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be positive and finite, not {epsilon!r}")
    if reward_width == 0:
        return 1
    log = math.log(3 * n_states * n_actions * horizon / delta)
    roots = math.sqrt(log) + math.sqrt(log + n_states * math.log(2))
    root = horizon * (horizon + 1) * roots * reward_width / (MODEL_SHARE * epsilon)
    if not root * root < math.inf:
        raise ValueError(f"epsilon = {epsilon!r} is too small for rewards of width {reward_width!r}")
    return max(1, math.ceil(root * root / 8))


def rmax_allowance(layer: int, visits: int, *, n_states: int, n_actions: int, horizon: int, delta: float) -> float:
    """How far R-max's value at a layer may fall below V*, in units of the reward range.

    (H - h) (H - h + 1) / 2 sqrt(log(3 S A H / delta) / (2 m))
    """
    log = math.log(3 * n_states * n_actions * horizon / delta)
    return (horizon - layer) * (horizon - layer + 1) / 2 * math.sqrt(log / (2 * visits))


def rmax_mistake_bound(
    epsilon: float,
    *,
    n_states: int,
    n_actions: int,
    horizon: int,
    delta: float,
    reward_width: float = 1.0,
    stationary: bool = True,
) -> float:
    """Bound on the number of episodes, of however many, in which R-max plays a policy that loses more than epsilon.

    3 E / e with probability at least 1 - delta, where e = epsilon / width and, for m = `rmax_visits`,

        W = m S A H under stationary dynamics, m S A H (H+1) / 2 with one count per layer,
        E = (x W + H log(3 / delta)) / (1 - exp(-x)),   x = sqrt(2 H log(3 / delta) / W)

    Parameters
    ----------
    epsilon : float, positive, in units of reward
        The one that R-max was run with.
    n_states, n_actions, horizon, delta, reward_width
        As in `rmax_visits`.
    stationary : bool
        Whether counts are pooled over layers.

    Returns
    -------
    float
        0 where no policy can lose more than epsilon, because epsilon >= H width.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    sizes = dict(n_states=n_states, n_actions=n_actions, horizon=horizon, delta=delta, reward_width=reward_width)
    escapes = _escapes(epsilon, stationary=stationary, **sizes)
    if epsilon >= horizon * reward_width:
        return 0.0
    return escapes * reward_width / ((1 - MODEL_SHARE) * epsilon)


def rmax_regret_bound(
    episodes: ArrayLike,
    *,
    epsilon: float,
    n_states: int,
    n_actions: int,
    horizon: int,
    delta: float,
    reward_width: float = 1.0,
    stationary: bool = True,
) -> NDArray[np.float64]:
    """Bound on the regret of R-max that holds for every number of episodes K at once with probability 1 - delta.

    Reg(K) <= min(K H width, 2 K epsilon / 3 + width E) with E as in `rmax_mistake_bound`

    It is linear in K; the epsilon that suits a K known in advance is of order K^(-1/3) and gives K^(2/3).

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    epsilon, n_states, n_actions, horizon, delta, reward_width, stationary
        As in `rmax_mistake_bound`.

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    counts = checked(episodes, n_states, n_actions, horizon, delta, reward_width)
    sizes = dict(n_states=n_states, n_actions=n_actions, horizon=horizon, delta=delta, reward_width=reward_width)
    escapes = _escapes(epsilon, stationary=stationary, **sizes)
    return np.minimum(counts * horizon * reward_width, MODEL_SHARE * epsilon * counts + reward_width * escapes)


def _escapes(epsilon: float, *, stationary: bool, **sizes: float) -> float:
    """Sum over all episodes of the expected steps from the first unknown pair on, at most: E above."""
    visits = rmax_visits(epsilon, **sizes)  # type: ignore[arg-type]
    horizon, log = sizes["horizon"], math.log(3 / sizes["delta"])
    weight = visits * sizes["n_states"] * sizes["n_actions"] * horizon * (1 if stationary else (horizon + 1) / 2)
    rate = math.sqrt(2 * horizon * log / weight)
    return (rate * weight + horizon * log) / -math.expm1(-rate)
