"""What bounds share: numbers in their ranges, and sums of a confidence width over the visits of a pair."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.online._settings import require_level

# Beyond this many visits of a pair the sum over visits is bounded by an integral.
SUMMED_VISITS = 1_000_000


def checked(
    episodes: ArrayLike, n_states: int, n_actions: int, horizon: int, delta: float, reward_width: float
) -> NDArray[np.float64]:
    """`episodes` as floats, once everything is in its range."""
    counts = np.asarray(episodes, float)
    if not ((counts >= 1) & (counts < np.inf)).all():
        raise ValueError("episodes must be finite and at least 1")
    for value, name in ((n_states, "n_states"), (n_actions, "n_actions"), (horizon, "horizon")):
        require_int(value, 1, name)
    require_level(delta)
    if not (reward_width >= 0 and math.isfinite(reward_width)):
        raise ValueError(f"reward_width must be finite and not negative, not {reward_width!r}")
    return counts


def sum_over_visits(
    visits: NDArray[np.float64], width: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """F(N) = sum over n = 0 .. N-1 of min(1, width(n)), linear between integers; an upper bound past SUMMED_VISITS."""
    top = int(min(math.ceil(float(visits.max())), SUMMED_VISITS))
    terms = np.concatenate([[1.0], np.minimum(1.0, width(np.arange(1.0, max(top, 1))))])
    table = np.concatenate([[0.0], np.cumsum(terms)])
    inside = np.interp(np.minimum(visits, top), np.arange(len(table)), table)
    beyond = visits > SUMMED_VISITS
    if not beyond.any():
        return inside
    # width(n) <= c sqrt(1/n) with c = width(m) sqrt(m) scaled by the growth of the logarithm, log(N) / log(m) at most.
    m = float(SUMMED_VISITS)
    largest = np.maximum(visits, m)
    growth = np.log(largest + 1) / np.log(m)
    tail = float(width(np.array([m]))[0]) * growth * 2 * np.sqrt(m) * (np.sqrt(largest) - np.sqrt(m - 1))
    return inside + np.where(beyond, tail, 0.0)
