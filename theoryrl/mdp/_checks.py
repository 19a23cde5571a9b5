"""Validation that names the entry at fault; used once, on construction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROW_TOLERANCE = 1e-9
CACHE_LINE = 64


def real(array: Any, name: str) -> NDArray:
    """`array` as a numpy array of real numbers, whatever their type; not copied if it is one."""
    try:
        given = np.asarray(array)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {error}") from None
    if given.dtype == object or given.dtype.kind in "USmMVc":
        raise ValueError(f"{name} must hold numbers, not {given.dtype}")
    return given


def frozen(array: Any, dtype: Any, name: str) -> NDArray:
    """`array` as a read-only C-contiguous array of `dtype`; adopted without a copy when it is exactly that already."""
    given = real(array, name)
    if np.issubdtype(dtype, np.integer) and given.dtype.kind == "f":
        wrong = ~(np.isfinite(given) & (given == np.floor(given)))
        if wrong.any():
            raise ValueError(f"{entry(name, first(wrong))} = {given[first(wrong)]} is not an integer")
    if np.issubdtype(dtype, np.integer) and not np.can_cast(given.dtype, dtype):
        limits = np.iinfo(dtype)
        # The largest int64 is 2^63 as a float, which is one too many.
        wrong = (given < limits.min) | (given >= limits.max if given.dtype.kind == "f" else given > limits.max)
        if wrong.any():
            raise ValueError(f"{entry(name, first(wrong))} = {given[first(wrong)]} does not fit into {np.dtype(dtype)}")
    if given.dtype == dtype and given.flags.c_contiguous and not _can_change(given):
        return given
    copy = _aligned(given.shape, np.dtype(dtype))
    copy[...] = given
    return sealed(copy)


class Sealed:
    """Arrays in the fields are read-only; pickle and deepcopy forget that, so their way in seals them again."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for value in state.values():
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, np.ndarray):
                    sealed(item)
        self.__dict__.update(state)


def sealed(array: NDArray) -> NDArray:
    """`array`, read-only together with every array whose memory it shows."""
    piece: Any = array
    while isinstance(piece, np.ndarray):
        piece.flags.writeable = False
        piece = piece.base
    return array


def _can_change(array: NDArray) -> bool:
    # A read-only view of an array that its owner can still write to is no promise.
    piece: Any = array
    while isinstance(piece, np.ndarray):
        if piece.flags.writeable:
            return True
        piece = piece.base
    return False


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
    """An empty array that begins on a cache line: rows of vectors are read a fifth faster from there."""
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size].view(dtype).reshape(shape)


def first(mask: NDArray) -> tuple[int, ...]:
    """Index of the first true entry, in C order."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def entry(name: str, index: Sequence[int]) -> str:
    """`name[i, j, ...]`."""
    return f"{name}[{', '.join(str(i) for i in index)}]" if len(index) else name


def require_finite(array: NDArray, name: str) -> None:
    """Raise, naming the first entry that is NaN or infinite."""
    # A sum of finite numbers can overflow, so an infinite sum only asks for the closer look.
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(array.sum())
    if not np.isfinite(total):
        wrong = ~np.isfinite(array)
        if wrong.any():
            raise ValueError(f"{entry(name, first(wrong))} is {array[first(wrong)]}, not finite")


def require_distribution(weights: NDArray, name: str) -> None:
    """Raise unless `weights` is one probability vector, to 1e-9."""
    require_finite(weights, name)
    if not weights.min() >= 0:
        index = first(weights < 0)
        raise ValueError(f"{entry(name, index)} is negative ({weights[index]})")
    total = float(weights.sum())
    if not abs(total - 1) <= ROW_TOLERANCE:
        raise ValueError(f"{name} sums to {total:.12g}, not 1")


def require_labels(labels: Sequence[Any] | None, size: int, name: str) -> tuple[str, ...] | None:
    """Labels as a tuple of distinct strings of the right length."""
    if labels is None:
        return None
    labels = tuple(str(label) for label in labels)
    if len(labels) != size:
        raise ValueError(f"{name} has {len(labels)} labels for {size} entries")
    if len(set(labels)) != size:
        repeated = next(label for i, label in enumerate(labels) if label in labels[:i])
        raise ValueError(f"{name} repeats the label {repeated!r}")
    return labels


def require_int(value: Any, low: int, name: str) -> int:
    """An integer at least `low` (a bool or a fraction is refused)."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name} must be an integer at least {low}, not {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, not {value}")
    return int(value)
