from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**22


class Gap(NamedTuple):
    """A distance and where it is attained."""

    distance: float
    layer: int
    member: int | None
    pair: tuple[int, int] | None


def widest(gaps: Iterable[Gap]) -> Gap:
    """The largest of the gaps; the first among equals."""
    return max(gaps, key=lambda gap: gap.distance)


def nearest(
    targets: NDArray[np.float64], members: NDArray[np.float64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest member of every target and its sup-norm distance over allowed pairs; tables (m, L, S, A)."""
    from scipy.spatial.distance import cdist

    rows, columns = targets[:, :, mask].reshape(len(targets), -1), members[:, :, mask].reshape(len(members), -1)
    index, spread = np.empty(len(rows), np.int64), np.empty(len(rows))
    step = max(1, BLOCK // len(columns))
    finite = np.isfinite(columns).all() and np.isfinite(rows).all()
    for begin in range(0, len(rows), step):
        block = slice(begin, begin + step)
        distance = cdist(rows[block], columns, "chebyshev") if finite else _with_infinities(rows[block], columns)
        index[block] = distance.argmin(axis=1)
        spread[block] = distance.min(axis=1)
    return index, spread


def _with_infinities(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sup-norm distances where infinity is at distance 0 from infinity and infinitely far from any number."""
    distance = np.empty((len(rows), len(columns)))
    for i, row in enumerate(rows):
        with np.errstate(invalid="ignore"):
            off = np.abs(columns - row)
        distance[i] = np.where(columns == row, 0.0, off).max(axis=1)
    return distance
