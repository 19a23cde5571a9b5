"""Backups over dense rows: `rows.table` is (L, S * A, S), row `s * A + a` of layer l holds P_l(. | s, a)."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel

# Numbers (16 MB) up to which a table is taken to live in cache. There two rows at a time share the loads of `value`;
# from memory one row after the other streams up to twice as fast.
IN_CACHE = 2**21
# Columns of `means_many` that are worked on together: 32 of a thousand states each fit in the second-level cache.
COLUMNS = 64


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
    """out[row] = sum_t P[row, t] value[t]."""
    # Two functions, because the compiler does better on each of them than on one with both loops.
    if rows.table.size <= IN_CACHE:
        _paired(rows.table, layer, value, out)
    else:
        _streamed(rows.table, layer, value, out)


@kernel("any-order")
def _paired(table, layer, value, out):
    n_rows = out.shape[0]
    last = n_rows - n_rows % 2
    for row in range(0, last, 2):
        total, total_1 = 0.0, 0.0
        for t in range(value.shape[0]):
            v = value[t]
            total += table[layer, row, t] * v
            total_1 += table[layer, row + 1, t] * v
        out[row] = total
        out[row + 1] = total_1
    if last < n_rows:
        total = 0.0
        for t in range(value.shape[0]):
            total += table[layer, last, t] * value[t]
        out[last] = total


@kernel("any-order")
def _streamed(table, layer, value, out):
    for row in range(out.shape[0]):
        total = 0.0
        for t in range(value.shape[0]):
            total += table[layer, row, t] * value[t]
        out[row] = total


@kernel("any-order")
def backup(rows, layer, reward, mask, value_next, q, value, policy):
    """q[s, a] = reward[s, a] + sum_t P[s, a, t] value_next[t]; value and policy: its first maximum per state."""
    n_states, n_actions = q.shape
    means(rows, layer, value_next, q.reshape(n_states * n_actions))
    for s in range(n_states):
        # Selections, not branches: which action is better cannot be predicted.
        best, chosen = -math.inf, 0
        for a in range(n_actions):
            total = q[s, a] + reward[s, a] if mask[s, a] else -math.inf
            q[s, a] = total
            better = total > best
            best = total if better else best
            chosen = a if better else chosen
        value[s] = best
        policy[s] = chosen


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
    """out[row, k] = sum_t P[row, t] values[t, k], a matrix product in tiles of 6 rows by 4 columns.

    The 24 sums of a tile stay in registers; `values` is laid out by columns first, 64 of them at a time.
    """
    n_states, n_columns = values.shape
    columns = np.empty((COLUMNS, n_states))
    for begin in range(0, n_columns, COLUMNS):
        width = min(COLUMNS, n_columns - begin)
        for t in range(n_states):
            for k in range(width):
                columns[k, t] = values[t, begin + k]
        _tiles(rows.table, layer, columns, width, out[:, begin : begin + width])


@kernel("any-order")
def _tiles(table, layer, columns, width, out):
    n_rows, n_states = out.shape[0], columns.shape[1]
    tiled, wide = n_rows - n_rows % 6, width - width % 4
    for r in range(0, tiled, 6):
        for k in range(0, wide, 4):
            a0, a1, a2, a3, b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            c0, c1, c2, c3, d0, d1, d2, d3 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            e0, e1, e2, e3, f0, f1, f2, f3 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for t in range(n_states):
                v0, v1, v2, v3 = columns[k, t], columns[k + 1, t], columns[k + 2, t], columns[k + 3, t]
                p = table[layer, r, t]
                a0, a1, a2, a3 = a0 + p * v0, a1 + p * v1, a2 + p * v2, a3 + p * v3
                p = table[layer, r + 1, t]
                b0, b1, b2, b3 = b0 + p * v0, b1 + p * v1, b2 + p * v2, b3 + p * v3
                p = table[layer, r + 2, t]
                c0, c1, c2, c3 = c0 + p * v0, c1 + p * v1, c2 + p * v2, c3 + p * v3
                p = table[layer, r + 3, t]
                d0, d1, d2, d3 = d0 + p * v0, d1 + p * v1, d2 + p * v2, d3 + p * v3
                p = table[layer, r + 4, t]
                e0, e1, e2, e3 = e0 + p * v0, e1 + p * v1, e2 + p * v2, e3 + p * v3
                p = table[layer, r + 5, t]
                f0, f1, f2, f3 = f0 + p * v0, f1 + p * v1, f2 + p * v2, f3 + p * v3
            out[r, k], out[r, k + 1], out[r, k + 2], out[r, k + 3] = a0, a1, a2, a3
            out[r + 1, k], out[r + 1, k + 1], out[r + 1, k + 2], out[r + 1, k + 3] = b0, b1, b2, b3
            out[r + 2, k], out[r + 2, k + 1], out[r + 2, k + 2], out[r + 2, k + 3] = c0, c1, c2, c3
            out[r + 3, k], out[r + 3, k + 1], out[r + 3, k + 2], out[r + 3, k + 3] = d0, d1, d2, d3
            out[r + 4, k], out[r + 4, k + 1], out[r + 4, k + 2], out[r + 4, k + 3] = e0, e1, e2, e3
            out[r + 5, k], out[r + 5, k + 1], out[r + 5, k + 2], out[r + 5, k + 3] = f0, f1, f2, f3
    for r in range(n_rows):
        for k in range(wide if r < tiled else 0, width):
            total = 0.0
            for t in range(n_states):
                total += table[layer, r, t] * columns[k, t]
            out[r, k] = total
