"""Tables from which compiled loops draw rewards and successors: one representation for every kind of model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp import _kernels_sampling as kernels
from theoryrl.mdp._kernels_sampling import LINEAR_LIMIT, draw_entry, draw_initial, draw_step
from theoryrl.mdp.model import REWARD_LAWS
from theoryrl.mdp.policy import Model


class Sampler(NamedTuple):
    """What a model looks like to a sampling loop; all arrays are read-only, so that every model has this one type.

    Row `h * transition_stride + s * A + a` is the pair (s, a) at layer h, the last row the initial distribution. A row
    holds the successors of positive probability only, so that nothing else can ever be drawn; the row of a forbidden
    pair is empty and must not be asked for.

    Parameters
    ----------
    indptr : int64 (L * S * A + 2,)
        Where each row begins in the next three arrays.
    successors : uint32 (n,)
    threshold : float64 (n,)
        Rows of at most `LINEAR_LIMIT` successors: cumulative probabilities, divided by the row's sum, the last exactly
        1. Longer rows: with which probability a column of the alias table keeps itself.
    alias : uint32 (n,), or empty if no row is long
        Positions within the row that the alias table falls back to.
    reward, reward_noise : float64 (Lr * S * A,)
        Means and half-widths; the latter empty unless the law is uniform.
    outcome_reward : float64 (n,)
        Reward per successor; empty unless the law is outcome.
    reward_law : int
        Position in `model.REWARD_LAWS`.
    transition_stride, reward_stride : int
        S * A, or 0 for what does not change over time.
    n_states, n_actions : int
    """

    indptr: NDArray[np.int64]
    successors: NDArray[np.uint32]
    threshold: NDArray[np.float64]
    alias: NDArray[np.uint32]
    reward: NDArray[np.float64]
    reward_noise: NDArray[np.float64]
    outcome_reward: NDArray[np.float64]
    reward_law: int
    transition_stride: int
    reward_stride: int
    n_states: int
    n_actions: int


def transition_rows(mdp: Model) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float64]]:
    """Transitions as rows `(pointer, indices, data)`, whatever the storage; `indices` is empty for dense ones."""
    if mdp.is_sparse:
        return mdp.transition.indptr, mdp.transition.indices, mdp.transition.data
    pointer = np.arange(0, mdp.transition.size + 1, mdp.n_states)
    return read_only(pointer), read_only(np.empty(0, np.uint32)), mdp.transition.reshape(-1)


def row_tables(
    pointer: NDArray[np.int64],
    indices: NDArray[np.uint32],
    data: NDArray[np.float64],
    last: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    rewards: NDArray[np.float64] | None = None,
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """`(indptr, successors, threshold, alias, outcome_reward)` of rows as in `transition_rows`, and of one row `last`.

    `rewards` goes with `data`; `allowed`, repeated as needed, says which rows are not to be left empty.
    """
    indptr = np.zeros(len(pointer) + 1, np.int64)
    kernels.count_rows(pointer, data, allowed, indptr)
    start = np.flatnonzero(last)
    end = int(indptr[-2])
    size = end + len(start)
    indptr[-1] = size
    successors = np.empty(size, np.uint32)
    threshold = np.empty(size)
    outcome = np.zeros(0 if rewards is None else size)
    given = np.empty(0) if rewards is None else rewards
    kernels.pack_rows(pointer, indices, data, read_only(given), allowed, successors, threshold, outcome)
    successors[end:], threshold[end:] = start, last[start]
    longest = int(np.diff(indptr).max())
    alias = np.zeros(size if longest > LINEAR_LIMIT else 0, np.uint32)
    kernels.prepare_rows(indptr, threshold, alias, np.empty(longest, np.int64))
    return read_only(indptr), read_only(successors), read_only(threshold), read_only(alias), read_only(outcome)


def sampler(mdp: Model) -> Sampler:
    """The sampling tables of a model: 12 bytes per positive probability, 16 if some row is long.

    Draw from them, in Python and in kernels alike, with `draw_initial(tables, rng)` and
    `draw_step(tables, h, s, a, rng)`. Short rows are scanned (inverse CDF: `s_next` is the first successor whose
    cumulative probability exceeds the uniform); long ones use an alias table, where one uniform serves for column and
    coin, so that the probabilities of a row of n successors are exact to about n * 2^-52.
    """
    rewards = None if mdp.outcome_reward is None else mdp.outcome_reward.reshape(-1)
    indptr, successors, threshold, alias, outcome = row_tables(
        *transition_rows(mdp), mdp.initial, mdp.action_mask.reshape(-1), rewards
    )
    pairs = mdp.n_states * mdp.n_actions
    return Sampler(
        indptr,
        successors,
        threshold,
        alias,
        mdp.reward.reshape(-1),
        read_only(np.empty(0) if mdp.reward_noise is None else mdp.reward_noise.reshape(-1)),
        outcome,
        REWARD_LAWS.index(mdp.reward_law),
        pairs if mdp.staged_transition else 0,
        pairs if mdp.reward.ndim == 3 else 0,
        mdp.n_states,
        mdp.n_actions,
    )


def read_only(array: NDArray) -> NDArray:
    """The array itself, made read-only: numba takes that for part of its type."""
    array.flags.writeable = False
    return array


__all__ = [
    "LINEAR_LIMIT",
    "Sampler",
    "draw_entry",
    "draw_initial",
    "draw_step",
    "read_only",
    "row_tables",
    "sampler",
    "transition_rows",
]
