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
    holds the successors of positive probability only, so that nothing else can ever be drawn; the row of a forbidden pair
    is empty and must not be asked for.

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


def sampler(mdp: Model) -> Sampler:
    """The sampling tables of a model: 12 bytes per positive probability, 16 if some row is long.

    Draw from them, in Python and in kernels alike, with `draw_initial(tables, rng)` and `draw_step(tables, h, s, a, rng)`.
    Short rows are scanned (inverse CDF: `s_next` is the first successor whose cumulative probability exceeds the uniform),
    long ones use an alias table (one uniform serves for column and coin; probabilities are exact to about n * 2^-52).
    """
    n_rows = (mdp.horizon if mdp.staged_transition else 1) * mdp.n_states * mdp.n_actions  # type: ignore[union-attr]
    allowed = mdp.action_mask.reshape(-1)
    indptr = np.zeros(n_rows + 2, np.int64)
    if mdp.is_sparse:
        rows = mdp.transition
        kernels.count_sparse(rows.indptr, rows.data, allowed, indptr)
    else:
        dense = mdp.transition.reshape(n_rows, mdp.n_states)
        kernels.count_dense(dense, allowed, indptr)
    start = np.flatnonzero(mdp.initial)
    end = int(indptr[n_rows])
    indptr[-1] = end + len(start)
    successors = np.empty(indptr[-1], np.uint32)
    threshold = np.empty(indptr[-1])
    outcome = np.empty(indptr[-1] if mdp.reward_law == "outcome" else 0)
    if mdp.is_sparse:
        given = np.empty(0) if mdp.outcome_reward is None else mdp.outcome_reward
        kernels.pack_sparse(_frozen(rows.indptr), rows.indices, rows.data, _frozen(given), allowed, successors, threshold, outcome)
    else:
        given = np.empty((0, 0)) if mdp.outcome_reward is None else mdp.outcome_reward.reshape(n_rows, mdp.n_states)
        kernels.pack_dense(dense, _frozen(given), allowed, successors, threshold, outcome)
    successors[end:], threshold[end:] = start, mdp.initial[start]
    outcome[end:] = 0.0
    longest = int(np.diff(indptr).max())
    alias = np.empty(len(successors) if longest > LINEAR_LIMIT else 0, np.uint32)
    kernels.prepare_rows(indptr, threshold, alias, np.empty(longest, np.int64))
    pairs = mdp.n_states * mdp.n_actions
    return Sampler(
        _frozen(indptr),
        _frozen(successors),
        _frozen(threshold),
        _frozen(alias),
        mdp.reward.reshape(-1),
        _frozen(np.empty(0) if mdp.reward_noise is None else mdp.reward_noise.reshape(-1)),
        _frozen(outcome),
        REWARD_LAWS.index(mdp.reward_law),
        pairs if mdp.staged_transition else 0,
        pairs if mdp.reward.ndim == 3 else 0,
        mdp.n_states,
        mdp.n_actions,
    )


def _frozen(array: NDArray) -> NDArray:
    array.flags.writeable = False
    return array


__all__ = ["LINEAR_LIMIT", "Sampler", "draw_entry", "draw_initial", "draw_step", "sampler"]
