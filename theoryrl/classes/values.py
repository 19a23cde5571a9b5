"""Classes of action-value functions: a finite list, a product of layers, the whole table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes._shape import Shaped, mask_of, table
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.planning import greedy


@dataclass(frozen=True, eq=False, repr=False)
class FiniteClass(Shaped):
    """A finite list F of action-value functions f = (f_0, ..., f_{H-1}), f_H = 0, in units of reward.

    A member is one function of all layers; which f_h goes with which f_{h+1} is part of the list. The class of all
    combinations of the layers is a `ProductClass`.

    Parameters
    ----------
    values : (nF, H, S, A) array
        Finite numbers. What stands at a forbidden pair is kept and never read by anything that is given the mask.

    Raises
    ------
    ValueError
        Wrong shape, an empty axis, NaN or an infinity; the entry is named.
    """

    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", table(self.values, "nF, H, S, A", "values"))

    size = property(lambda self: self.values.shape[0], doc="Number nF of members.")
    horizon = property(lambda self: self.values.shape[1], doc="H.")
    n_states = property(lambda self: self.values.shape[2], doc="S.")
    n_actions = property(lambda self: self.values.shape[3], doc="A.")

    @property
    def log_size(self) -> float:
        """The logarithm of nF."""
        return math.log(self.size)

    def greedy(self, action_mask: ArrayLike | None = None) -> NDArray[np.int64]:
        """The greedy policy of every member, (nF, H, S); ties go to the lowest-numbered allowed action."""
        return greedy(self.values, mask_of(action_mask, self.n_states, self.n_actions))

    def state_values(self, action_mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """V_f(h, s) = max over allowed a of f_h(s, a), shape (nF, H+1, S); row H is zero."""
        values = np.zeros((self.size, self.horizon + 1, self.n_states))
        values[:, :-1] = best(self.values, mask_of(action_mask, self.n_states, self.n_actions))
        return values

    def __repr__(self) -> str:
        return f"FiniteClass(size={self.size}, H={self.horizon}, S={self.n_states}, A={self.n_actions})"


@dataclass(frozen=True, eq=False, repr=False)
class ProductClass(Shaped):
    """All combinations F = F_0 x ... x F_{H-1} of finite layers, in units of reward.

    Parameters
    ----------
    layers : sequence of H arrays (m_h, S, A)
        The members of F_h; each layer may have a number of its own.

    Raises
    ------
    ValueError
        No layer, layers of different S or A, NaN or an infinity; the entry is named.
    """

    layers: Sequence[NDArray[np.float64]]

    def __post_init__(self) -> None:
        layers = tuple(table(layer, "m, S, A", f"layers[{h}]") for h, layer in enumerate(self.layers))
        if not layers:
            raise ValueError("layers is empty")
        for h, layer in enumerate(layers):
            if layer.shape[1:] != layers[0].shape[1:]:
                raise ValueError(f"layers[{h}] is for (S, A) = {layer.shape[1:]}, layers[0] for {layers[0].shape[1:]}")
        object.__setattr__(self, "layers", layers)

    horizon = property(lambda self: len(self.layers), doc="H.")
    n_states = property(lambda self: self.layers[0].shape[1], doc="S.")
    n_actions = property(lambda self: self.layers[0].shape[2], doc="A.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number m_h of members of every layer."""
        return tuple(len(layer) for layer in self.layers)

    @property
    def size(self) -> int:
        """Number of combinations, prod m_h."""
        return math.prod(self.sizes)

    @property
    def log_size(self) -> float:
        """The logarithm of the number of combinations, sum log m_h."""
        return math.fsum(math.log(m) for m in self.sizes)

    def member(self, index: Sequence[int]) -> NDArray[np.float64]:
        """The combination of member `index[h]` of every layer, (H, S, A)."""
        chosen = [require_int(i, 0, f"index[{h}]") for h, i in enumerate(index)]
        if len(chosen) != self.horizon:
            raise ValueError(f"index has {len(chosen)} entries for {self.horizon} layers")
        for h, i in enumerate(chosen):
            if i >= self.sizes[h]:
                raise ValueError(f"index[{h}] = {i}, but layer {h} has {self.sizes[h]} members")
        return np.stack([layer[i] for layer, i in zip(self.layers, chosen, strict=True)])

    def greedy(self, action_mask: ArrayLike | None = None) -> tuple[NDArray[np.int64], ...]:
        """Greedy actions of every member of every layer, (m_h, S) each; ties as in `FiniteClass.greedy`."""
        mask = mask_of(action_mask, self.n_states, self.n_actions)
        return tuple(greedy(layer, mask) for layer in self.layers)

    def state_values(self, action_mask: ArrayLike | None = None) -> tuple[NDArray[np.float64], ...]:
        """Largest f_h(s, a) over allowed a, of every member of every layer, (m_h, S) each."""
        mask = mask_of(action_mask, self.n_states, self.n_actions)
        return tuple(best(layer, mask) for layer in self.layers)

    def to_finite(self, limit: int = 100_000) -> FiniteClass:
        """The list of all combinations; the last layer's index runs fastest.

        Raises
        ------
        ValueError
            If there are more than `limit`.
        """
        if self.size > limit:
            raise ValueError(f"the product has {self.size} members, more than limit={limit}")
        grid = np.indices(self.sizes).reshape(self.horizon, -1)
        return FiniteClass(np.stack([layer[i] for layer, i in zip(self.layers, grid, strict=True)], axis=1))

    def __repr__(self) -> str:
        return f"ProductClass(sizes={self.sizes}, S={self.n_states}, A={self.n_actions})"


@dataclass(frozen=True)
class TabularClass(Shaped):
    """The whole table: every f with (H - h) low <= f_h(s, a) <= (H - h) high.

    With `low` and `high` the range of the rewards it contains Q* and is closed under every Bellman backup.

    Parameters
    ----------
    n_states, n_actions, horizon : int
    low, high : float
        Range of one reward, low <= high.

    Raises
    ------
    ValueError
        A size below 1, or limits that are no finite interval.
    """

    n_states: int
    n_actions: int
    horizon: int
    low: float = field(default=0.0, kw_only=True)
    high: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("n_states", "n_actions", "horizon"):
            object.__setattr__(self, name, require_int(getattr(self, name), 1, name))
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"low and high must be finite with low <= high, not {self.low!r} and {self.high!r}")

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Lowest and highest value of every layer, (H, 2)."""
        left = np.arange(self.horizon, 0, -1.0)
        return cast(NDArray[np.float64], left[:, np.newaxis] * np.array([self.low, self.high]))

    def log_covering_number(self, radius: float) -> float:
        """The logarithm of the least number of functions with one within `radius` of every member, in the sup norm.

        sum_h S A log(max(1, ceil((H - h) (high - low) / (2 radius))))

        Exact: along one coordinate that many balls are needed, since so many points lie more than 2 radius apart, and
        the combinations of such points need a ball each.

        Raises
        ------
        ValueError
            If the radius is not positive.
        """
        if not radius > 0:
            raise ValueError(f"radius must be positive, not {radius!r}")
        width = np.diff(self.bounds, axis=1)[:, 0]
        return float(self.n_states * self.n_actions * np.log(np.maximum(1.0, np.ceil(width / (2 * radius)))).sum())


def best(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The largest allowed entry along the last axis."""
    return cast(NDArray[Any], np.where(mask, values, -np.inf).max(axis=-1))
