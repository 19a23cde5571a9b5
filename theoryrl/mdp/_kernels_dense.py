"""Backups over dense rows: `rows.table` is (L, S * A, S), row `s * A + a` of layer l holds P_l(. | s, a)."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel


class Dense(NamedTuple):
    table: NDArray[np.float64]


@kernel("any-order")
def row_mean(rows, layer, row, value):
    """sum_t P[row, t] value[t]."""
    total = 0.0
    for t in range(value.shape[0]):
        total += rows.table[layer, row, t] * value[t]
    return total


@kernel("any-order")
def means(rows, layer, value, out):
    """out[row] = sum_t P[row, t] value[t]; four rows at a time share the loads of `value`."""
    table = rows.table
    n_rows, n_states = out.shape[0], value.shape[0]
    blocked = n_rows - n_rows % 4
    for row in range(0, blocked, 4):
        total_0, total_1, total_2, total_3 = 0.0, 0.0, 0.0, 0.0
        for t in range(n_states):
            v = value[t]
            total_0 += table[layer, row, t] * v
            total_1 += table[layer, row + 1, t] * v
            total_2 += table[layer, row + 2, t] * v
            total_3 += table[layer, row + 3, t] * v
        out[row], out[row + 1], out[row + 2], out[row + 3] = total_0, total_1, total_2, total_3
    for row in range(blocked, n_rows):
        total = 0.0
        for t in range(n_states):
            total += table[layer, row, t] * value[t]
        out[row] = total


@kernel("any-order")
def row_spread(rows, outcome, layer, row, value, centre, carried):
    """sum_t P[row, t] ((outcome[row, t] + value[t] - centre)^2 + carried[t]); an empty `outcome` counts as zero."""
    total = 0.0
    if outcome.size == 0:
        for t in range(value.shape[0]):
            gap = value[t] - centre
            total += rows.table[layer, row, t] * (gap * gap + carried[t])
    else:
        for t in range(value.shape[0]):
            gap = outcome[layer, row, t] + value[t] - centre
            total += rows.table[layer, row, t] * (gap * gap + carried[t])
    return total


@kernel("any-order")
def push(rows, layer, row, weight, out):
    """out[t] += weight P[row, t]."""
    for t in range(out.shape[0]):
        out[t] += weight * rows.table[layer, row, t]


@kernel("any-order")
def means_many(rows, layer, values, out):
    """out[row, k] = sum_t P[row, t] values[t, k], a matrix product."""
    np.dot(rows.table[layer], values, out)
