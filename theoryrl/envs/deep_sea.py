"""Deep sea: a grid in which only one of 2^N dives finds the treasure."""

from __future__ import annotations

import numpy as np

from theoryrl.envs._family import family, require_real
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP


@family
def deep_sea(*, cost: float = 0.01, horizon: int = 10) -> FiniteHorizonMDP:
    """A dive through N rows, N = H: every step sinks one row, to the left or, at a price, to the right.

    Action 1 (right) costs `cost` / N; in the bottom right cell it also finds the treasure, worth 1. The N (N + 1) / 2
    cells on and below the diagonal are the states (the others cannot be reached), labelled `(row, col)`.

    Parameters
    ----------
    cost : float
        Price of N moves to the right, at least 0.
    horizon : int
        H, at least 1; also the size of the sea.

    Notes
    -----
    Known constants: the optimal value is max(0, 1 - cost), 0.99 by default; the uniform policy finds the treasure with
    probability 2^-H.

    References
    ----------
    Osband, Van Roy, Russo and Wen (2019), Deep exploration via randomized value functions: the deterministic version
    with costs.
    """
    size = require_int(horizon, 1, "horizon")
    cost = require_real(cost, "cost", 0)
    cells = [(row, column) for row in range(size) for column in range(row + 1)]
    number = {cell: s for s, cell in enumerate(cells)}
    transition = np.zeros((len(cells), 2, len(cells)))
    reward = np.zeros((len(cells), 2))
    for s, (row, column) in enumerate(cells):
        below = min(row + 1, size - 1)  # from the last row the episode ends: the successor is never seen
        transition[s, 0, number[below, max(column - 1, 0)]] = 1.0
        transition[s, 1, number[below, min(column + 1, size - 1)]] = 1.0
        reward[s, 1] = -cost / size
    reward[number[size - 1, size - 1], 1] += 1.0
    return FiniteHorizonMDP(
        transition,
        reward,
        horizon=size,
        state_labels=[f"({row}, {column})" for row, column in cells],
        action_labels=("left", "right"),
    )
