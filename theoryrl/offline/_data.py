"""What offline estimators read: policies for a data set, whole trajectories, tables per layer, uncovered pairs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import ROW_TOLERANCE, entry, first, frozen, real, require_distribution, require_finite
from theoryrl.mdp.dataset import Dataset
from theoryrl.offline import _kernels as kernels

# A pair (layer, state, action) that a policy needs and the data do not show.
Uncovered: TypeAlias = tuple[tuple[int, int, int], ...]


def require_data(data: Any) -> Dataset:
    """`data` if it is a data set with rows."""
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a Dataset, not a {type(data).__name__}")
    if len(data) == 0:
        raise ValueError("data has no rows")
    return data


def policy_table(policy: Any, data: Dataset, name: str) -> NDArray[np.float64]:
    """A validated Markov policy as probabilities (H, S, A), for the sizes of `data`; the entry at fault is named."""
    require_data(data)
    horizon, n_states, n_actions = data.horizon, data.n_states, data.n_actions
    table = real(policy, name)
    if table.dtype.kind in "iu" and table.shape in ((n_states,), (horizon, n_states)):
        wrong = (table < 0) | (table >= n_actions)
        if wrong.any():
            place = first(wrong)
            raise ValueError(f"{entry(name, place)} = {table[place]} is not an action (0 to {n_actions - 1})")
        table = (table[..., np.newaxis] == np.arange(n_actions)).astype(np.float64)
    elif table.shape in ((n_states, n_actions), (horizon, n_states, n_actions)):
        table = frozen(table, np.float64, name)
        wrong = ~(table >= 0)
        if wrong.any():
            raise ValueError(f"{entry(name, first(wrong))} is {table[first(wrong)]}, not a probability")
        sums = table.sum(axis=-1)
        off = ~(np.abs(sums - 1) <= ROW_TOLERANCE)
        if off.any():
            raise ValueError(f"{entry(name, first(off))} sums to {sums[first(off)]:.12g}, not 1")
    else:
        raise ValueError(
            f"{name} has shape {table.shape} and type {table.dtype}; it can be ({n_states},), ({horizon}, {n_states}) "
            f"actions or ({n_states}, {n_actions}), ({horizon}, {n_states}, {n_actions}) probabilities"
        )
    return np.ascontiguousarray(np.broadcast_to(table, (horizon, n_states, n_actions)))


def value_table(values: ArrayLike, data: Dataset, name: str, read: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A finite table (H, S, A) or (S, A) of the sizes of `data`, as (H, S, A); only what is `read` need be finite."""
    table = frozen(values, np.float64, name)
    shape = (data.horizon, data.n_states, data.n_actions)
    if table.shape not in (shape, shape[1:]):
        raise ValueError(f"{name} has shape {table.shape}, not {shape}")
    table = np.where(read, table, 0.0)
    require_finite(table, name)
    return table


def weight_table(weights: ArrayLike, data: Dataset, name: str) -> NDArray[np.float64]:
    """Weights (H, S, A) or (S, A), not negative, infinities allowed, as (H, S, A)."""
    table = frozen(weights, np.float64, name)
    shape = (data.horizon, data.n_states, data.n_actions)
    if table.shape not in (shape, shape[1:]):
        raise ValueError(f"{name} has shape {table.shape}, not {shape}")
    wrong = ~(table >= 0)
    if wrong.any():
        raise ValueError(f"{entry(name, first(wrong))} is {table[first(wrong)]}, not a weight")
    return np.ascontiguousarray(np.broadcast_to(table, shape))


class Episodes(NamedTuple):
    """Whole trajectories, each an array (n, H) in order of steps; `number` (n,) is what the data call them."""

    number: NDArray[np.int64]
    state: NDArray[np.int64]
    action: NDArray[np.int64]
    reward: NDArray[np.float64]


def episodes(data: Dataset) -> Episodes:
    """The trajectories of a data set.

    Raises
    ------
    ValueError
        If a trajectory does not have each step exactly once, or does not begin at a step where the one before ended;
        it is named.
    """
    require_data(data)
    horizon, rows = data.horizon, len(data)
    step, trajectory = data.step, data.trajectory
    state, action, reward, successor = data.state, data.action, data.reward, data.next_state
    in_order = kernels.whole_in_order(trajectory, step, state, successor, horizon)
    if not in_order:
        order = np.lexsort((step, trajectory))
        step, trajectory, state = step[order], trajectory[order], state[order]
        action, reward, successor = action[order], reward[order], successor[order]
        number, counts = np.unique(trajectory, return_counts=True)
        if (counts != horizon).any():
            bad = int(np.argmax(counts != horizon))
            raise ValueError(f"trajectory {number[bad]} has {counts[bad]} rows, not one for each of {horizon} steps")
        wanted = np.arange(rows) % horizon
        if not np.array_equal(step, wanted):
            bad = int(np.argmax(step != wanted))
            raise ValueError(f"trajectory {trajectory[bad]} has step {step[bad]} where step {wanted[bad]} should be")
    number = trajectory[::horizon]
    shape = (number.size, horizon)
    state, successor = state.reshape(shape), successor.reshape(shape)
    if not in_order and (state[:, 1:] != successor[:, :-1]).any():
        i, h = (int(k) for k in np.argwhere(state[:, 1:] != successor[:, :-1])[0])
        ends, begins = successor[i, h], state[i, h + 1]
        raise ValueError(f"trajectory {number[i]} ends step {h} in state {ends} and begins step {h + 1} in {begins}")
    return Episodes(number, state, action.reshape(shape), reward.reshape(shape))


class Tables(NamedTuple):
    """Counts per layer: visits (H, S, A), transitions (H, S, A, S), sums of rewards (H, S, A)."""

    visits: NDArray[np.float64]
    transitions: NDArray[np.float64]
    reward_sums: NDArray[np.float64]


def tables(data: Dataset, staged: bool = True) -> Tables:
    """Counts per layer; without `staged` every layer gets the counts of all layers together."""
    require_data(data)
    counts = data.counts(staged)

    def spread(table: NDArray) -> NDArray[np.float64]:
        full = table if staged else np.broadcast_to(table, (data.horizon, *table.shape))
        return np.ascontiguousarray(full, np.float64)

    return Tables(spread(counts.visits), spread(counts.transitions), spread(counts.reward_sums))


def n_trajectories(data: Dataset) -> int:
    """How many trajectories the rows are of."""
    count = kernels.count_changes(require_data(data).trajectory)
    return int(count) if count > 0 else int(np.unique(data.trajectory).size)


def start_of(data: Dataset, initial: ArrayLike | int | None) -> NDArray[np.float64]:
    """The start: a distribution, a state, or by default the frequencies of the states at step 0."""
    if initial is None:
        counts = np.bincount(data.state[data.step == 0], minlength=data.n_states)
        if not counts.any():
            raise ValueError("no row is at step 0: say what the initial distribution is")
        return cast(NDArray[np.float64], counts / counts.sum())
    given = np.asarray(initial)
    if given.ndim == 0 and given.dtype.kind in "iu":
        if not 0 <= given < data.n_states:
            raise ValueError(f"initial = {given} is not a state (0 to {data.n_states - 1})")
        return cast(NDArray[np.float64], (np.arange(data.n_states) == given).astype(np.float64))
    start = frozen(initial, np.float64, "initial")
    if start.shape != (data.n_states,):
        raise ValueError(f"initial has shape {start.shape}, not ({data.n_states},)")
    require_distribution(start, "initial")
    return start


class Flow(NamedTuple):
    """Occupancy (H, S, A) of a policy in the empirical model, and the pairs where it leaves the data."""

    occupancy: NDArray[np.float64]
    uncovered: Uncovered


def flow(counts: Tables, target: NDArray[np.float64], start: NDArray[np.float64]) -> Flow:
    """Solve the flow equations of the data for `target`; mass that meets a pair without data goes no further.

    d_0 = start pi_0,   d_{h+1}(s', a') = sum_{s, a} d_h(s, a) N_h(s, a, s') / N_h(s, a) pi_{h+1}(a' | s')
    """
    horizon = target.shape[0]
    occupancy = np.zeros(target.shape)
    state, uncovered = start, []
    for h in range(horizon):
        occupancy[h] = state[:, np.newaxis] * target[h]
        unseen = (counts.visits[h] == 0) & (occupancy[h] > 0)
        uncovered += [(h, int(s), int(a)) for s, a in np.argwhere(unseen)]
        share = np.where(unseen, 0.0, occupancy[h]) / np.maximum(counts.visits[h], 1.0)
        state = np.einsum("sa,sat->t", share, counts.transitions[h])
    return Flow(occupancy, tuple(uncovered))


def named(uncovered: Iterable[tuple[int, int, int]], limit: int = 3) -> str:
    """`(h, s, a) = (0, 3, 1), (2, 0, 0) and 5 more`."""
    entries = list(uncovered)
    text = ", ".join(str(place) for place in entries[:limit])
    return f"(h, s, a) = {text}" + (f" and {len(entries) - limit} more" if len(entries) > limit else "")
