"""Backups over compressed rows: row `(l * S + s) * A + a` holds the successors of (s, a) at layer l.

Positions are unsigned: a signed one is tested for wrapping around at every access, a third of the time of a sweep.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel

ONE = np.uint64(1)


class Sparse(NamedTuple):
    indptr: NDArray[np.int64]
    indices: NDArray[np.uint32]
    data: NDArray[np.float64]
    n_rows: int  # S * A, the rows of one layer
    width: int  # entries of every row where all rows are alike, else 0: saves `backup` reading `indptr`


@kernel("any-order")
def row_mean(rows, layer, row, value):
    """sum_t P[row, t] value[t]."""
    number = layer * rows.n_rows + row
    i, end = np.uint64(rows.indptr[number]), np.uint64(rows.indptr[number + 1])
    total = 0.0
    while i < end:
        total += rows.data[i] * value[rows.indices[i]]
        i += ONE
    return total


@kernel("any-order")
def means(rows, layer, value, out):
    """out[row] = sum_t P[row, t] value[t]."""
    first = layer * rows.n_rows
    i = np.uint64(rows.indptr[first])
    for row in range(out.shape[0]):
        end = np.uint64(rows.indptr[first + row + 1])
        total = 0.0
        while i < end:
            total += rows.data[i] * value[rows.indices[i]]
            i += ONE
        out[row] = total


@kernel("any-order")
def backup(rows, layer, reward, mask, value_next, q, value, policy):
    """q[s, a] = reward[s, a] + sum_t P[s, a, t] value_next[t]; value and policy: its first maximum per state.

    A `q` of shape (1, A) is overwritten by every state.
    """
    first = layer * rows.n_rows
    i, width = np.uint64(rows.indptr[first]), np.uint64(rows.width)
    for s in range(value.shape[0]):
        best, chosen = -math.inf, 0
        kept = s if q.shape[0] > 1 else 0
        for a in range(q.shape[1]):
            if rows.width > 0:
                end = i + width
            else:
                end = np.uint64(rows.indptr[first + s * q.shape[1] + a + 1])
            total = reward[s, a]
            while i < end:
                total += rows.data[i] * value_next[rows.indices[i]]
                i += ONE
            total = total if mask[s, a] else -math.inf
            q[kept, a] = total
            better = total > best
            best = total if better else best
            chosen = a if better else chosen
        value[s] = best
        policy[s] = chosen


@kernel("any-order")
def row_spread(rows, outcome, layer, row, value, centre, carried):
    """sum_t P[row, t] ((outcome[row, t] + value[t] - centre)^2 + carried[t]); an empty `outcome` counts as zero."""
    number = layer * rows.n_rows + row
    total = 0.0
    for i in range(rows.indptr[number], rows.indptr[number + 1]):
        t = rows.indices[i]
        gap = value[t] - centre
        if outcome.size > 0:
            gap += outcome[i]
        total += rows.data[i] * (gap * gap + carried[t])
    return total


@kernel("any-order")
def push(rows, layer, row, weight, out):
    """out[t] += weight P[row, t]."""
    number = layer * rows.n_rows + row
    i, end = np.uint64(rows.indptr[number]), np.uint64(rows.indptr[number + 1])
    while i < end:
        out[rows.indices[i]] += weight * rows.data[i]
        i += ONE


@kernel("any-order")
def means_many(rows, layer, values, out):
    """out[row, k] = sum_t P[row, t] values[t, k]."""
    first = layer * rows.n_rows
    for row in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[row, k] = 0.0
        for i in range(rows.indptr[first + row], rows.indptr[first + row + 1]):
            weight, t = rows.data[i], rows.indices[i]
            for k in range(out.shape[1]):
                out[row, k] += weight * values[t, k]
