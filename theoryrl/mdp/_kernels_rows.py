"""One set of verbs for both storages, so that every sweep is written once: the type of `rows` picks the kernel.

Plain Python calls pick at run time, compiled ones (`overload`) at compile time.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba.extending import overload

from theoryrl.mdp import _kernels_dense as dense
from theoryrl.mdp import _kernels_sparse as sparse
from theoryrl.mdp._kernels_dense import Dense
from theoryrl.mdp._kernels_sparse import Sparse
from theoryrl.mdp.model import FiniteHorizonMDP


def rows_of(mdp: FiniteHorizonMDP) -> Dense | Sparse:
    """The transitions of a model as kernels take them; nothing is copied."""
    if mdp.is_sparse:
        rows = mdp.transition
        width = int(rows.indptr[1])
        alike = rows.data.size == width * rows.n_rows and bool((np.diff(rows.indptr) == width).all())
        return Sparse(rows.indptr, rows.indices, rows.data, mdp.n_states * mdp.n_actions, width if alike else 0)
    return Dense(mdp.transition_layers.reshape(-1, mdp.n_states * mdp.n_actions, mdp.n_states))


def n_weights(rows: Dense | Sparse) -> int:
    """How many transition weights are stored."""
    return rows.data.size if isinstance(rows, Sparse) else rows.table.size


def _storage(rows):
    return sparse if getattr(rows, "instance_class", type(rows)) is Sparse else dense


def row_mean(rows, layer, row, value):
    return _storage(rows).row_mean(rows, layer, row, value)


def means(rows, layer, value, out):
    _storage(rows).means(rows, layer, value, out)


def backup(rows, layer, reward, mask, value_next, q, value, policy):
    _storage(rows).backup(rows, layer, reward, mask, value_next, q, value, policy)


def row_spread(rows, outcome, layer, row, value, centre, carried):
    return _storage(rows).row_spread(rows, outcome, layer, row, value, centre, carried)


def push(rows, layer, row, weight, out):
    _storage(rows).push(rows, layer, row, weight, out)


def means_many(rows, layer, values, out):
    _storage(rows).means_many(rows, layer, values, out)


@overload(row_mean)
def _row_mean(rows, layer, row, value):
    chosen = _storage(rows).row_mean
    return lambda rows, layer, row, value: chosen(rows, layer, row, value)


@overload(means)
def _means(rows, layer, value, out):
    chosen = _storage(rows).means
    return lambda rows, layer, value, out: chosen(rows, layer, value, out)


@overload(backup)
def _backup(rows, layer, reward, mask, value_next, q, value, policy):
    chosen = _storage(rows).backup

    def compiled(rows, layer, reward, mask, value_next, q, value, policy):
        chosen(rows, layer, reward, mask, value_next, q, value, policy)

    return compiled


@overload(row_spread)
def _row_spread(rows, outcome, layer, row, value, centre, carried):
    chosen = _storage(rows).row_spread
    return lambda rows, outcome, layer, row, value, centre, carried: chosen(
        rows, outcome, layer, row, value, centre, carried
    )


@overload(push)
def _push(rows, layer, row, weight, out):
    chosen = _storage(rows).push
    return lambda rows, layer, row, weight, out: chosen(rows, layer, row, weight, out)


@overload(means_many)
def _means_many(rows, layer, values, out):
    chosen = _storage(rows).means_many
    return lambda rows, layer, values, out: chosen(rows, layer, values, out)
