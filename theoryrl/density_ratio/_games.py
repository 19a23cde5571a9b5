"""Sampling games, solved exactly: how likely can a player make Q* break a level by choosing where to look next?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.rounding import gamma

# crossed(visits (cells,), sums (cells, ...)) -> bool (...): whether the level is broken by these sums of noise.
Crossed = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]


def splits(total: int, cells: int) -> Iterator[tuple[int, ...]]:
    """All ways to spread `total` draws over the cells."""
    for bars in combinations(range(total + cells - 1), cells - 1):
        ends = (-1, *bars, total + cells - 1)
        yield tuple(after - before - 1 for before, after in pairwise(ends))


def largest_chance(draws: int, means: Sequence[float], crossed: Crossed) -> float:
    """The largest probability that the level is broken after some draw, over all rules for choosing the next cell.

    Cell i pays 1 with probability means[i], else 0; the noise of a draw is means[i] - reward. A player may stop, so
    what matters is whether the level is ever broken: whoever has broken it leaves the cells alone until the test.

    Backwards over the number of draws: V(visits, ones) = 1 where broken, else the largest mean of V over the next draw.
    Every step is a sum of two products of nonnegative numbers, so that the relative error is at most gamma(4 draws).
    """
    cells = len(means)
    after: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for total in range(draws, -1, -1):
        now: dict[tuple[int, ...], NDArray[np.float64]] = {}
        for visits in splits(total, cells):
            ones = np.indices([n + 1 for n in visits])
            counts = np.array(visits, np.float64)
            column = (cells, *[1] * cells)
            sums = counts.reshape(column) * np.reshape(means, column) - ones
            value = np.zeros(sums.shape[1:])
            for i in range(cells if total < draws else 0):
                later = after[(*visits[:i], visits[i] + 1, *visits[i + 1 :])]
                before, behind = [slice(None)] * cells, [slice(None)] * cells
                before[i], behind[i] = slice(0, -1), slice(1, None)
                step = (1 - means[i]) * later[tuple(before)] + means[i] * later[tuple(behind)]
                value = np.maximum(value, step)
            now[visits] = np.where(crossed(counts, sums), 1.0, value)
        after = now
    return float(after[(0,) * cells].flat[0])


def rounding(draws: int) -> float:
    """The relative error of `largest_chance`."""
    return gamma(4 * draws + 4)
