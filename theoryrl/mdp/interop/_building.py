"""From the tables of other formats to models: storage and criterion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP
from theoryrl.mdp.transitions import SparseTransition

Model = FiniteHorizonMDP | DiscountedMDP

# Up to this many entries a dense table is small enough whatever it holds; above, it must be well filled.
DENSE_ENTRIES = 4096
DENSE_SHARE = 0.25


def storage(
    rows: Sequence[tuple[int, int, int, float, float]], n_states: int, n_actions: int
) -> tuple[Any, NDArray[np.float64]]:
    """Transitions and rewards per successor from rows `(s, a, s', p, r)` with distinct `(s, a, s')`.

    Dense if small or well filled, else sparse.
    """
    columns: Any = [np.array([row[k] for row in rows], np.int64) for k in range(3)]
    states, actions, successors = columns
    probabilities: Any = np.array([row[3] for row in rows], np.float64)
    rewards = np.array([row[4] for row in rows], np.float64)
    entries = n_states * n_actions * n_states
    if entries <= DENSE_ENTRIES or len(rows) >= DENSE_SHARE * entries:
        transition = np.zeros((n_states, n_actions, n_states))
        outcome = np.zeros_like(transition)
        transition[states, actions, successors] = probabilities
        outcome[states, actions, successors] = rewards
        return transition, outcome
    stored = SparseTransition.from_entries(states, actions, successors, probabilities, n_states, n_actions)
    return stored, rewards[np.lexsort((successors, actions, states))]


def model(transition: Any, horizon: int | None, discount: float | None, source: str, **settings: Any) -> Model:
    """The finite-horizon or the discounted model, whichever criterion is given."""
    if (horizon is None) == (discount is None):
        raise ValueError(f"{source} no criterion of their own: pass either horizon= or discount=")
    if horizon is not None:
        return FiniteHorizonMDP(transition, horizon=horizon, **settings)
    return DiscountedMDP(transition, discount=discount, **settings)  # type: ignore[arg-type]
