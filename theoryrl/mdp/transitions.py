"""Transition probabilities in sparse rows, and the checks that dense and sparse storage share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import ROW_TOLERANCE, Sealed, entry, first, frozen, require_finite, require_int


@dataclass(frozen=True, eq=False)
class SparseTransition(Sealed):
    """Transition probabilities as compressed rows: row `(l * S + s) * A + a` holds the successors of (s, a) at layer l.

    Parameters
    ----------
    indptr : int64 (L * S * A + 1,)
        Where each row begins in `indices` and `data`.
    indices : uint32 (nnz,)
        Successor states, strictly increasing within a row.
    data : float64 (nnz,)
        Their probabilities.
    n_states, n_actions : int
    n_layers : int
        1 for a stationary kernel, H for one kernel per layer.
    staged : bool
        Whether there is a layer axis (a horizon of 1 can have one too).
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint32]
    data: NDArray[np.float64]
    n_states: int
    n_actions: int
    n_layers: int = 1
    staged: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "n_states", require_int(self.n_states, 1, "n_states"))
        put(self, "n_actions", require_int(self.n_actions, 1, "n_actions"))
        put(self, "n_layers", require_int(self.n_layers, 1, "n_layers"))
        if self.n_layers > 1 and not self.staged:
            raise ValueError(f"a stationary SparseTransition has one layer, not {self.n_layers}")
        put(self, "indptr", frozen(self.indptr, np.int64, "indptr"))
        wide = np.asarray(self.indices)
        if wide.size and (wide.min() < 0 or wide.max() >= self.n_states):
            place = first((wide < 0) | (wide >= self.n_states))
            raise ValueError(f"{entry('indices', place)} = {wide[place]} is not a state (0 to {self.n_states - 1})")
        put(self, "indices", frozen(self.indices, np.uint32, "indices"))
        put(self, "data", frozen(self.data, np.float64, "data"))
        if self.data.ndim != 1:
            raise ValueError(f"data has shape {self.data.shape}; it has one axis")
        rows = self.n_layers * self.n_states * self.n_actions
        if self.indptr.shape != (rows + 1,):
            raise ValueError(f"indptr has shape {self.indptr.shape}, not ({rows + 1},)")
        if self.indptr[0] != 0 or self.indptr[-1] != self.data.size or self.indices.shape != self.data.shape:
            sizes = f"{self.indices.size} indices and {self.data.size} data"
            raise ValueError(f"indptr runs from {self.indptr[0]} to {self.indptr[-1]} over {sizes}")
        steps = np.diff(self.indptr)
        if steps.size and steps.min() < 0:
            raise ValueError(f"{entry('indptr', first(np.append(False, steps < 0)))} decreases")
        if self.data.size > 1:
            unsorted = np.diff(self.indices.astype(np.int64)) <= 0
            inner = np.ones(self.data.size, bool)
            inner[self.indptr[:-1][steps > 0]] = False
            unsorted &= inner[1:]
            if unsorted.any():
                late = first(unsorted)[0] + 1
                row = int(np.searchsorted(self.indptr, late, side="right")) - 1
                raise ValueError(f"the successors of {self.row_name(row)} are not strictly increasing")

    def row_name(self, row: int) -> str:
        """`transition[l, s, a]` (or `transition[s, a]`) of a row number."""
        layer, state, action = np.unravel_index(row, (self.n_layers, self.n_states, self.n_actions))
        return entry("transition", [int(layer)] * self.staged + [int(state), int(action)])

    @property
    def n_rows(self) -> int:
        """L * S * A."""
        return self.n_layers * self.n_states * self.n_actions

    def row_sums(self) -> NDArray[np.float64]:
        """Total weight of every row, shape (L * S * A,)."""
        # reduceat needs non-empty rows: sum the non-empty ones only.
        sums = np.zeros(self.n_rows)
        filled = np.diff(self.indptr) > 0
        if filled.any():
            sums[filled] = np.add.reduceat(self.data, self.indptr[:-1][filled])
        return sums

    def to_dense(self) -> NDArray[np.float64]:
        """The same probabilities as a dense array, (S, A, S) or (H, S, A, S)."""
        dense = np.zeros((self.n_rows, self.n_states))
        dense[np.repeat(np.arange(self.n_rows), np.diff(self.indptr)), self.indices] = self.data
        shape = (self.n_states, self.n_actions, self.n_states)
        return dense.reshape((self.n_layers, *shape) if self.staged else shape)

    def to_scipy(self) -> Any:
        """A scipy CSR array of shape (S * A, S), or the list of H such when staged."""
        from scipy.sparse import csr_array

        rows = self.n_states * self.n_actions
        parts = []
        for layer in range(self.n_layers):
            pointer = self.indptr[layer * rows : (layer + 1) * rows + 1]
            block = slice(pointer[0], pointer[-1])
            parts.append(
                csr_array(
                    (self.data[block].copy(), self.indices[block].astype(np.int64), pointer - pointer[0]),
                    shape=(rows, self.n_states),
                )
            )
        return parts if self.staged else parts[0]

    @classmethod
    def from_scipy(cls, matrices: Any, n_states: int, n_actions: int) -> SparseTransition:
        """From one scipy sparse matrix of shape (S * A, S), or a sequence of H of them (row `s * A + a`)."""
        staged = isinstance(matrices, (list, tuple))
        parts = []
        for layer, matrix in enumerate(matrices if staged else [matrices]):
            name = f"transition[{layer}]" if staged else "transition"
            if not hasattr(matrix, "tocsr"):
                raise ValueError(f"{name} is a {type(matrix).__name__}, not a scipy sparse matrix")
            if tuple(matrix.shape) != (n_states * n_actions, n_states):
                raise ValueError(f"{name} has shape {tuple(matrix.shape)}, not ({n_states * n_actions}, {n_states})")
            part = matrix.tocsr(copy=True)
            part.sum_duplicates()
            parts.append(part)
        if not parts:
            raise ValueError("transition is an empty list")
        offsets = np.cumsum([0] + [part.nnz for part in parts])
        indptr = np.concatenate(
            [[0], *(np.asarray(part.indptr[1:], np.int64) + start for part, start in zip(parts, offsets, strict=False))]
        )
        return cls(
            indptr,
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.data for part in parts]),
            n_states,
            n_actions,
            len(parts),
            staged,
        )

    @classmethod
    def from_dense(cls, transition: NDArray[np.float64]) -> SparseTransition:
        """The non-zero entries of a dense (S, A, S) or (H, S, A, S) array."""
        staged = transition.ndim == 4
        n_states, n_actions = transition.shape[-3:-1]
        rows = transition.reshape(-1, n_states)
        row, column = np.nonzero(rows)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(rows)))])
        return cls(
            indptr,
            column.astype(np.uint32),
            rows[row, column],
            n_states,
            n_actions,
            transition.shape[0] if staged else 1,
            staged,
        )

    @classmethod
    def from_entries(
        cls,
        states: ArrayLike,
        actions: ArrayLike,
        successors: ArrayLike,
        probabilities: ArrayLike,
        n_states: int,
        n_actions: int,
        layers: ArrayLike | None = None,
        n_layers: int = 1,
    ) -> SparseTransition:
        """From entries `(s, a, s', p)`, and a layer each when staged; what is given twice adds up."""
        n_states, n_actions = require_int(n_states, 1, "n_states"), require_int(n_actions, 1, "n_actions")
        n_layers = require_int(n_layers, 1, "n_layers")
        given = {"states": states, "actions": actions, "successors": successors}
        lists = [frozen(values, np.int64, what) for what, values in given.items()]
        weights = frozen(probabilities, np.float64, "probabilities")
        layer = np.zeros(lists[0].shape, np.int64) if layers is None else frozen(layers, np.int64, "layers")
        for what, values in (*zip(given, lists, strict=True), ("probabilities", weights), ("layers", layer)):
            if values.ndim != 1 or values.shape != lists[0].shape:
                raise ValueError(f"{what} has shape {values.shape}; entries are lists as long as states")
        limits = {"state": n_states, "action": n_actions, "successor": n_states}
        for values, (what, limit) in zip(lists, limits.items(), strict=True):
            wrong = (values < 0) | (values >= limit)
            if wrong.any():
                raise ValueError(f"entry {first(wrong)[0]}: {what} {values[wrong][0]} is not in 0 to {limit - 1}")
        if layer.size and (layer.min() < 0 or layer.max() >= n_layers):
            raise ValueError(f"layers must lie in 0 to {n_layers - 1}")
        row = (layer * n_states + lists[0]) * n_actions + lists[1]
        keys, inverse = np.unique(row * n_states + lists[2], return_inverse=True)
        data = np.zeros(len(keys))
        np.add.at(data, inverse, weights)
        count = np.bincount(keys // n_states, minlength=n_layers * n_states * n_actions)
        indptr = np.concatenate([[0], np.cumsum(count)])
        return cls(indptr, keys % n_states, data, n_states, n_actions, n_layers, layers is not None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseTransition):
            return NotImplemented
        return (self.n_states, self.n_actions, self.n_layers, self.staged) == (
            other.n_states,
            other.n_actions,
            other.n_layers,
            other.staged,
        ) and all(np.array_equal(getattr(self, k), getattr(other, k)) for k in ("indptr", "indices", "data"))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        layers = f", n_layers={self.n_layers}" if self.staged else ""
        return f"SparseTransition(n_states={self.n_states}, n_actions={self.n_actions}{layers}, nnz={self.data.size})"


def check_dense(transition: NDArray[np.float64], mask: NDArray[np.bool_]) -> None:
    """Raise unless every allowed row of a dense (S, A, S) or (H, S, A, S) kernel is a distribution, to 1e-9."""
    # min and row sums read the array without a temporary of its size; the closer look happens only on failure.
    with np.errstate(invalid="ignore", over="ignore"):
        low, sums = transition.min(axis=-1), transition.sum(axis=-1)
    allowed = np.broadcast_to(mask, sums.shape)
    wrong = allowed & ~(np.isfinite(sums) & (low >= 0) & (np.abs(sums - 1) <= ROW_TOLERANCE))
    if not wrong.any():
        return
    index = first(wrong)
    row = transition[index]
    _row_error(row, np.arange(len(row)), index, float(sums[index]))


def check_sparse(transition: SparseTransition, mask: NDArray[np.bool_]) -> None:
    """Raise unless every allowed row of sparse rows is a distribution, to 1e-9; only stored entries are read."""
    with np.errstate(invalid="ignore", over="ignore"):
        sums = transition.row_sums()
    lead = (transition.n_layers,) if transition.staged else ()
    allowed = np.broadcast_to(mask, (*lead, *mask.shape)).reshape(-1)
    wrong = allowed & ~(np.isfinite(sums) & (np.abs(sums - 1) <= ROW_TOLERANCE))
    if transition.data.size and not transition.data.min() >= 0:
        bad = np.flatnonzero(~(transition.data >= 0))
        rows = np.searchsorted(transition.indptr, bad, side="right") - 1
        wrong[rows] |= allowed[rows]
    if not wrong.any():
        return
    number = int(np.argmax(wrong))
    block = slice(transition.indptr[number], transition.indptr[number + 1])
    index = np.unravel_index(number, (*lead, *mask.shape))
    _row_error(transition.data[block], transition.indices[block], tuple(int(i) for i in index), float(sums[number]))


def _row_error(row: NDArray, successors: NDArray, index: tuple[int, ...], total: float) -> None:
    if len(row) == 0:
        raise ValueError(f"{entry('transition', index)} has no successor")
    for successor, weight in zip(successors, row, strict=True):
        if not np.isfinite(weight):
            raise ValueError(f"{entry('transition', (*index, int(successor)))} is {weight}, not finite")
        if weight < 0:
            raise ValueError(f"{entry('transition', (*index, int(successor)))} is negative ({weight})")
    raise ValueError(f"{entry('transition', index)} sums to {total:.12g}, not 1")


__all__ = ["SparseTransition", "check_dense", "check_sparse", "require_finite"]
