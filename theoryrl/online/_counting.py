# mypy: allow-untyped-defs, allow-untyped-calls
"""What learners that identify something count: visits, lists of observed successors, starts, and their thresholds."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel

# What is said about the start: [episodes, log of the number of histograms, bound on the mean of the table over starts].
EPISODES, HISTOGRAMS, ERROR = range(3)
# |(p - q) f| <= sqrt(4 a Var_p f) + TRANSFER a b for f in [0, b] when KL(p, q) <= a.
TRANSFER = math.sqrt(16.0 / 3.0) + 1.0 / 3.0


@kernel("strict")
def count_step(visits, slot, n_successors, successor, successor_count, histograms, g, s, a, s_next):
    """Take in one transition; return the visits of the pair.

    histograms[g, s, a] becomes log C(n + S - 1, S - 1), the logarithm of the number of ways to see n successors.
    """
    n = visits[g, s, a] + 1
    visits[g, s, a] = n
    histograms[g, s, a] += math.log((n + successor.shape[3] - 1.0) / n)
    place = slot[g, s, a, s_next]
    if place < 0:
        place = n_successors[g, s, a]
        n_successors[g, s, a] = place + 1
        slot[g, s, a, s_next] = place
        successor[g, s, a, place] = s_next
    successor_count[g, s, a, place] += 1.0
    return n


@kernel("strict")
def count_start(starts, about_start, s):
    """Take in the first state of an episode."""
    starts[s] += 1.0
    k = about_start[EPISODES] + 1.0
    about_start[EPISODES] = k
    about_start[HISTOGRAMS] += math.log((k + starts.shape[0] - 1.0) / k)


@kernel("strict")
def bound_over_starts(starts, about_start, table, most, log_constant, scale):
    """Upper bound on the mean over the initial distribution of `table` (S,), which lies in [0, most]."""
    k = about_start[EPISODES]
    if k == 0.0:
        return most
    mean = 0.0
    for s in range(starts.shape[0]):
        mean += starts[s] * table[s]
    mean /= k
    rate = (log_constant + about_start[HISTOGRAMS]) / k
    return min(most, mean + scale * (math.sqrt(4.0 * most * mean * rate) + TRANSFER * most * rate))


def empirical_transition(
    visits: NDArray, n_successors: NDArray, successor: NDArray, successor_count: NDArray
) -> NDArray[np.float64]:
    """Frequencies of the successors (G, S, A, S), uniform where nothing was seen."""
    n_states = successor.shape[3]
    frequency = np.zeros(successor.shape)
    listed = np.arange(n_states) < n_successors[..., np.newaxis]
    g, s, a, _ = np.nonzero(listed)
    frequency[g, s, a, successor[listed]] = successor_count[listed]
    frequency[visits == 0] = 1.0
    return frequency / frequency.sum(axis=3, keepdims=True)
