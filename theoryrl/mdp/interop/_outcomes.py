"""Outcome tables of tabular formats, entry by entry, as the arrays of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.transitions import SparseTransition

# Up to this many entries a dense table is small enough whatever it holds; above, it must be well filled.
DENSE_ENTRIES = 4096
DENSE_SHARE = 0.25


def storage(
    rows: Sequence[tuple[int, int, int, float, float]], n_states: int, n_actions: int
) -> tuple[Any, NDArray[np.float64]]:
    """Transitions and rewards per successor from rows `(s, a, s', p, r)` with distinct `(s, a, s')`.

    Dense if small or well filled, else sparse.
    """
    states, actions, successors = (np.array([row[k] for row in rows], np.int64) for k in range(3))
    probabilities, rewards = (np.array([row[k] for row in rows], np.float64) for k in (3, 4))
    entries = n_states * n_actions * n_states
    if entries <= DENSE_ENTRIES or len(rows) >= DENSE_SHARE * entries:
        transition = np.zeros((n_states, n_actions, n_states))
        outcome = np.zeros_like(transition)
        transition[states, actions, successors] = probabilities
        outcome[states, actions, successors] = rewards
        return transition, outcome
    stored = SparseTransition.from_entries(states, actions, successors, probabilities, n_states, n_actions)  # type: ignore[arg-type]
    return stored, rewards[np.lexsort((successors, actions, states))]
