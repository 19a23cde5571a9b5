"""What every class knows about its members: how many layers, states and actions they have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp._checks import Sealed, entry, first, frozen, require_finite


class Shaped(Sealed):
    """A class of functions of (h, s, a)."""

    horizon: int
    n_states: int
    n_actions: int

    def require_fits(self, model: Any) -> None:
        """Raise unless `model` (an MDP, or the problem that a learner is told) has the same H, S and A.

        Raises
        ------
        ValueError
            Both triples are named.
        """
        mine = self.horizon, self.n_states, self.n_actions
        theirs = model.horizon, model.n_states, model.n_actions
        if mine != theirs:
            raise ValueError(f"the class is for (H, S, A) = {mine}, the model has {theirs}")


def mask_of(action_mask: Any, n_states: int, n_actions: int) -> NDArray[np.bool_]:
    """The allowed pairs (S, A), all if none are given."""
    if action_mask is None:
        return np.ones((n_states, n_actions), bool)
    mask = np.asarray(action_mask)
    if mask.dtype != bool or mask.shape != (n_states, n_actions):
        raise ValueError(f"action_mask must be boolean ({n_states}, {n_actions}), not {mask.dtype} {mask.shape}")
    if not mask.any(axis=1).all():
        raise ValueError(f"action_mask allows no action in state {int(np.argmin(mask.any(axis=1)))}")
    return mask


def table(values: Any, axes: str, name: str) -> NDArray[np.float64]:
    """A finite read-only table whose axes are named by `axes`, none of them empty."""
    array = frozen(values, np.float64, name)
    if array.ndim != axes.count(",") + 1 or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}, not ({axes}) with at least one of each")
    require_finite(array, name)
    return array


def first_entry(wrong: NDArray[np.bool_], name: str) -> str:
    """`name[i, j, ...]` of the first true entry."""
    return entry(name, first(wrong))
