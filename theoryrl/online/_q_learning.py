# mypy: allow-untyped-defs, allow-untyped-calls
"""What the Q-learners share: their empty tables, and what an update makes of the one state it touched."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel
from theoryrl.online.verbs import Problem


def bonus_factor(horizon: int) -> float:
    """(H + 1) / sqrt(4 H + 2): a weighted mean of t numbers in [0, 1] deviates by this times sqrt(l / t).

    With probability 1 - exp(-l), for the weights of the learning rate (H + 1) / (H + t); see the documentation.
    """
    return (horizon + 1) / math.sqrt(4 * horizon + 2)


def most_to_come(problem: Problem) -> NDArray[np.float64]:
    """H - h for h = 0 .. H: what can still be collected, in units of the reward range."""
    return np.arange(problem.horizon, -1.0, -1.0)


def optimistic_tables(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Q = H - h at allowed pairs and -inf at others, V = H - h, and the lowest allowed action everywhere."""
    steps = most_to_come(problem)
    q = np.where(problem.action_mask, steps[:-1, np.newaxis, np.newaxis], -np.inf)
    value = np.repeat(steps[:, np.newaxis], problem.n_states, axis=1)
    return np.ascontiguousarray(q), value, np.tile(np.argmax(problem.action_mask, axis=1), (problem.horizon, 1))


@kernel("strict")
def settle(q_here, value_here, policy_here, s, cap):
    """V(s) = min{cap, max_a Q(s, a)} and the lowest maximiser; returns whether that is another action than before."""
    best, best_action = q_here[s, 0], 0
    for a in range(1, q_here.shape[1]):
        q = q_here[s, a]
        above = q > best
        best = q if above else best
        best_action = a if above else best_action
    value_here[s] = min(cap, best)
    changed = policy_here[s] != best_action
    policy_here[s] = best_action
    return changed
