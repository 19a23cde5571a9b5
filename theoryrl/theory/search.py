"""The first number from which on something is so."""

from __future__ import annotations

from collections.abc import Callable

#: No number of episodes or samples beyond this one is worth naming.
LARGEST = 2**62


def first_true(enough: Callable[[int], bool], start: int = 1, largest: int = LARGEST) -> int | None:
    """The first n >= start with enough(n), by doubling and bisection.

    Parameters
    ----------
    enough : function of an int
        Once true, true for all larger numbers. If it is not, what comes out is still a number n for which it is true
        and n - 1 (if that is not below `start`) one for which it is false.
    start : int, at least 1
    largest : int

    Returns
    -------
    int or None
        None if doubling passed `largest` before it found one.
    """
    low, high = start, start
    while not enough(high):
        low, high = high + 1, 2 * high
        if high > largest:
            return None
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return high
