"""Data sets of transitions: six columns, validated once, with counts and empirical models in one pass."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp import _kernels_sampling as kernels
from theoryrl.mdp._checks import Sealed, first, frozen, require_int, sealed
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.transitions import SparseTransition
from theoryrl.mdp.writing import write_whole

# Entries up to which an empirical model is stored dense (80 MB).
DENSE_LIMIT = 10**7
FORMAT = {"format": "theoryrl-dataset", "version": 1}
# What zipfile and numpy raise on damaged input, beside ValueError.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
)


@dataclass(frozen=True, eq=False)
class Counts(Sealed):
    """What a data set says about each pair, pooled over layers or per layer.

    Attributes
    ----------
    transitions : (S, A, S) or (H, S, A, S) int64
    visits : (S, A) or (H, S, A) int64
        Sums of `transitions` over the successor.
    reward_sums : (S, A) or (H, S, A) float64
    """

    transitions: NDArray[np.int64]
    visits: NDArray[np.int64]
    reward_sums: NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Sealed):
    """Transitions (trajectory, step, state, action, reward, next state), one row each, in read-only columns.

    Rows need not form whole trajectories nor come in order; but where one row follows another in the same trajectory at
    the next step, it must begin in the state where that one ended. Integers are int64 throughout: sums like
    `(s * A + a) * S + s'` of narrower columns overflow without a word.

    Parameters
    ----------
    trajectory : (n,) int
        Number of the trajectory, at least 0.
    step : (n,) int
        The layer h, 0 to H - 1.
    state, action : (n,) int
    reward : (n,) float
    next_state : (n,) int
    n_states, n_actions, horizon : int
        S, A, H.

    Raises
    ------
    ValueError
        Columns of different lengths, or an entry out of range: the first one is named, as in
        `action[17] = 4 is not in 0 to 3`.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("trajectory", "step", "state", "action", "reward", "next_state")
    SIZES: ClassVar[tuple[str, ...]] = ("n_states", "n_actions", "horizon")

    trajectory: NDArray[np.int64]
    step: NDArray[np.int64]
    state: NDArray[np.int64]
    action: NDArray[np.int64]
    reward: NDArray[np.float64]
    next_state: NDArray[np.int64]
    n_states: int
    n_actions: int
    horizon: int

    def __post_init__(self) -> None:
        for name in self.SIZES:
            object.__setattr__(self, name, require_int(getattr(self, name), 1, name))
        for name in self.COLUMNS:
            column = frozen(getattr(self, name), np.float64 if name == "reward" else np.int64, name)
            if column.ndim != 1:
                raise ValueError(f"{name} has shape {column.shape}; a column has one axis")
            if column.shape != np.shape(self.trajectory):
                raise ValueError(f"{name} has {column.size} rows, trajectory has {np.size(self.trajectory)}")
            object.__setattr__(self, name, column)
        row, place = kernels.first_fault(*self.columns.values(), self.n_states, self.n_actions, self.horizon)
        if row >= 0:
            raise ValueError(self._fault(row, place))

    def _fault(self, row: int, place: int) -> str:
        if place == 6:
            return (
                f"state[{row}] = {self.state[row]}, but the step before in trajectory {self.trajectory[row]} "
                f"ended in next_state[{row - 1}] = {self.next_state[row - 1]}"
            )
        name = self.COLUMNS[place]
        value = self.columns[name][row]
        if name == "reward":
            return f"reward[{row}] is {value}, not finite"
        if name == "trajectory":
            return f"trajectory[{row}] = {value} is negative"
        limit = {"step": self.horizon, "action": self.n_actions}.get(name, self.n_states)
        return f"{name}[{row}] = {value} is not in 0 to {limit - 1}"

    @classmethod
    def of_checked(cls, columns: Iterable[NDArray], n_states: int, n_actions: int, horizon: int) -> Self:
        """A data set around arrays that are right by construction; they are adopted and made read-only."""
        new = object.__new__(cls)
        sizes = zip(cls.SIZES, (n_states, n_actions, horizon), strict=True)
        new.__dict__.update(zip(cls.COLUMNS, columns, strict=True), **dict(sizes))
        for column in new.columns.values():
            column.flags.writeable = False
        return new

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, ArrayLike] | Any,
        *,
        n_states: int | None = None,
        n_actions: int | None = None,
        horizon: int | None = None,
    ) -> Self:
        """From named columns: a dict of arrays, or a pandas DataFrame.

        Parameters
        ----------
        columns : mapping from column name to (n,) array
            `state`, `action`, `reward` and `next_state`; without `trajectory` every row is a trajectory of its own,
            without `step` every row is at step 0. Other columns are left aside.
        n_states, n_actions, horizon : int, optional
            Default: the least that fits.
        """
        missing = [name for name in cls.COLUMNS[2:] if name not in columns]
        if missing:
            raise ValueError(f"there is no column {missing[0]!r} (needed are {', '.join(cls.COLUMNS[2:])})")
        given = {name: np.asarray(columns[name]) for name in cls.COLUMNS if name in columns}
        size = given["state"].size
        given = {"trajectory": np.arange(size), "step": np.zeros(size, np.int64)} | given

        def least(*names: str) -> int:
            return int(max((given[name].max() for name in names if given[name].size), default=0)) + 1

        return cls(
            **given,
            n_states=least("state", "next_state") if n_states is None else n_states,
            n_actions=least("action") if n_actions is None else n_actions,
            horizon=least("step") if horizon is None else horizon,
        )

    @classmethod
    def concatenate(cls, datasets: Iterable[Dataset]) -> Self:
        """One data set of several of the same sizes; trajectories are renumbered so that no two share a number."""
        parts = list(datasets)
        if not parts:
            raise ValueError("there is no data set to concatenate")
        for i, part in enumerate(parts):
            if not isinstance(part, Dataset):
                raise TypeError(f"datasets[{i}] is a {type(part).__name__}, not a Dataset")
        sizes = [tuple(getattr(part, name) for name in cls.SIZES) for part in parts]
        for i, size in enumerate(sizes):
            if size != sizes[0]:
                raise ValueError(f"datasets[{i}] has ({', '.join(cls.SIZES)}) = {size}, datasets[0] has {sizes[0]}")
        columns = [np.concatenate([part.columns[name] for part in parts]) for name in cls.COLUMNS]
        spans = [int(part.trajectory.max()) + 1 if len(part) else 0 for part in parts]
        columns[0] += np.repeat(np.cumsum([0, *spans[:-1]]), [len(part) for part in parts])
        return cls.of_checked(columns, *sizes[0])

    @property
    def columns(self) -> dict[str, NDArray]:
        """The six columns by name."""
        return {name: getattr(self, name) for name in self.COLUMNS}

    def __len__(self) -> int:
        return self.state.size

    def __eq__(self, other: object) -> bool:
        """Equality of sizes and of every entry."""
        if not isinstance(other, Dataset):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.SIZES) and all(
            np.array_equal(column, other.columns[name]) for name, column in self.columns.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={getattr(self, name)}" for name in self.SIZES)
        return f"Dataset({len(self)} rows, {sizes})"

    def to_frame(self) -> Any:
        """The columns as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.columns)

    def counts(self, staged: bool = False) -> Counts:
        """Visits, transitions and sums of rewards of every pair, in one pass; per layer if `staged`, else pooled."""
        shape = (self.horizon if staged else 1, self.n_states, self.n_actions)
        transitions, visits = np.zeros((*shape, self.n_states), np.int64), np.zeros(shape, np.int64)
        rewards = np.zeros(shape)
        kernels.count_steps(*list(self.columns.values())[1:], transitions, visits, rewards)
        tables = (transitions, visits, rewards)
        return Counts(*(sealed(table if staged else table[0]) for table in tables))

    def empirical_mdp(
        self,
        staged: bool = False,
        unseen: Literal["error", "uniform", "self-loop"] = "error",
        action_mask: ArrayLike | None = None,
        initial: ArrayLike | int | None = None,
    ) -> FiniteHorizonMDP:
        """The maximum-likelihood model: P(s' | s, a) = N(s, a, s') / N(s, a), r(s, a) = mean reward of the pair.

        Parameters
        ----------
        staged : bool
            One estimate per layer instead of one from all layers together.
        unseen : {"error", "uniform", "self-loop"}
            What becomes of an allowed pair without data: an error that names it, or reward 0 and a successor that is
            uniform over all states, or the state itself.
        action_mask : (S, A) bool, optional
            The allowed pairs, as in `FiniteHorizonMDP`.
        initial : optional
            As in `FiniteHorizonMDP`; default the frequencies of states at step 0.

        Returns
        -------
        FiniteHorizonMDP
            Dense up to 10^7 transition entries, sparse beyond.
        """
        if unseen not in ("error", "uniform", "self-loop"):
            raise ValueError(f"unseen must be 'error', 'uniform' or 'self-loop', not {unseen!r}")
        shape = (self.n_states, self.n_actions)
        mask = np.ones(shape, bool) if action_mask is None else np.asarray(action_mask, bool)
        if mask.shape != shape:
            raise ValueError(f"action_mask has shape {mask.shape}, not {shape}")
        if initial is None:
            starts = np.bincount(self.state[self.step == 0], minlength=self.n_states)
            if not starts.any():
                raise ValueError("no row is at step 0: say what the initial distribution is")
            initial = starts / starts.sum()
        pairs = mask.size * (self.horizon if staged else 1)
        estimate = self._dense_estimate if pairs * self.n_states <= DENSE_LIMIT else self._sparse_estimate
        transition, reward = estimate(staged, mask, unseen)
        return FiniteHorizonMDP(transition, reward, horizon=self.horizon, initial=initial, action_mask=mask)

    def _dense_estimate(self, staged: bool, mask: NDArray, unseen: str) -> tuple[NDArray, NDArray]:
        counts = self.counts(staged)
        visits = np.maximum(counts.visits, 1)
        transition = counts.transitions / visits[..., np.newaxis]
        pairs = _unseen(counts.visits, mask, unseen)
        if unseen == "uniform":
            transition[pairs] = 1 / self.n_states
        else:
            transition[(*pairs, pairs[-2])] = 1.0
        return transition, counts.reward_sums / visits

    def _sparse_estimate(self, staged: bool, mask: NDArray, unseen: str) -> tuple[SparseTransition, NDArray]:
        shape = (self.horizon, *mask.shape) if staged else mask.shape
        pair = self.state * self.n_actions + self.action + (self.step * mask.size if staged else 0)
        visits = np.bincount(pair, minlength=np.prod(shape))
        sums = np.bincount(pair, weights=self.reward, minlength=np.prod(shape))
        key, count = np.unique(pair * self.n_states + self.next_state, return_counts=True)
        weight = count / visits[key // self.n_states]
        empty = np.ravel_multi_index(pairs := _unseen(visits.reshape(shape), mask, unseen), shape)
        # Rows without data get one entry, or one per state.
        filled = np.arange(self.n_states) if unseen == "uniform" else pairs[-2][:, np.newaxis]
        filled = (empty[:, np.newaxis] * self.n_states + filled).reshape(-1)
        key = np.concatenate([key, filled])
        weight = np.concatenate([weight, np.full(filled.size, 1 / self.n_states if unseen == "uniform" else 1.0)])
        order = np.argsort(key)
        row, successor = np.divmod(key[order], self.n_states)
        indptr = np.concatenate([[0], np.bincount(row, minlength=visits.size).cumsum()])
        transition = SparseTransition(
            indptr, successor, weight[order], self.n_states, self.n_actions, self.horizon if staged else 1, staged
        )
        return transition, (sums / np.maximum(visits, 1)).reshape(shape)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` file; it appears under its name only when it is complete.

        Raises
        ------
        OSError
            When it cannot be written; whatever had that name before is still there.
        """
        header = json.dumps(FORMAT | {name: getattr(self, name) for name in self.SIZES})
        # On disk integers take as few bytes as hold the largest one.
        columns = {
            name: column if name == "reward" else column.astype(np.min_scalar_type(column.max(initial=0)))
            for name, column in self.columns.items()
        }
        text = np.frombuffer(header.encode(), np.uint8)
        write_whole(path, lambda file: np.savez(file, header=text, **columns))  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote; everything in it is validated again.

        Raises
        ------
        ValueError
            For files that are truncated, damaged or foreign: one line that names the file.
        FileNotFoundError
        """
        with open(path, "rb") as file:
            try:
                if not zipfile.is_zipfile(file):
                    raise ValueError("truncated, or not a data set (no .npz archive)")
                file.seek(0)
                with np.load(file, allow_pickle=False) as archive:
                    header = json.loads(archive["header"].tobytes()) if "header" in archive else {}
                    if not isinstance(header, dict) or FORMAT.items() - header.items():
                        raise ValueError(f"not a data set (no header with {FORMAT})")
                    columns = {name: archive[name] for name in cls.COLUMNS}
                return cls(**columns, **{name: header[name] for name in cls.SIZES})
            except (ValueError, *DAMAGE) as error:
                raise ValueError(f"{os.fspath(path)}: {' '.join(str(error).split())}") from None


def _unseen(visits: NDArray[np.int64], mask: NDArray[np.bool_], unseen: str) -> tuple[NDArray[np.int64], ...]:
    """Indices ([layers,] states, actions) of the allowed pairs without data; an error if there is to be none."""
    empty = (visits == 0) & mask
    if unseen == "error" and empty.any():
        names = "(h, s, a)" if visits.ndim == 3 else "(s, a)"
        raise ValueError(f"{names} = {first(empty)} was never seen; unseen='uniform' or 'self-loop' fills such pairs")
    return np.nonzero(empty)


__all__ = ["Counts", "Dataset"]
