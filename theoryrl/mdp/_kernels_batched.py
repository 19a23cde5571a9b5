"""Many problems at once: K rewards (or targets) on one kernel, with k the last and fastest axis; B tiny models."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import math

from theoryrl._jit import kernel
from theoryrl.mdp._kernels_dense import Dense
from theoryrl.mdp._kernels_rows import means_many
from theoryrl.mdp._kernels_sweeps import optimal


@kernel("strict")
def maximise_many(q, mask, value):
    """value[s, k] = max over allowed a of q[s, a, k]."""
    n_states, n_actions, n_columns = q.shape
    for s in range(n_states):
        for k in range(n_columns):
            value[s, k] = -math.inf
        for a in range(n_actions):
            if mask[s, a]:
                for k in range(n_columns):
                    value[s, k] = max(value[s, k], q[s, a, k])


@kernel("strict")
def optimal_many(rows, staged, reward, mask, value, policy, q):
    """Backward induction for K rewards (Lr, S, A, K): value (H+1, S, K), policy (H, S, K); `q` (S, A, K) is scratch."""
    horizon, n_states, n_columns = policy.shape
    n_actions = q.shape[1]
    value[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        means_many(rows, h if staged else 0, value[h + 1], q.reshape(n_states * n_actions, n_columns))
        layer = h % reward.shape[0]
        for s in range(n_states):
            for k in range(n_columns):
                value[h, s, k] = -math.inf
                policy[h, s, k] = 0
            for a in range(n_actions):
                if mask[s, a]:
                    for k in range(n_columns):
                        total = q[s, a, k] + reward[layer, s, a, k]
                        if total > value[h, s, k]:
                            value[h, s, k] = total
                            policy[h, s, k] = a


@kernel("strict")
def reach_step(rows, layer, mask, value_next, q, value):
    """value[s, k] = max_a sum_t P[s, a, t] value_next[t, k] for the targets k."""
    n_states, n_actions, n_columns = q.shape
    means_many(rows, layer, value_next, q.reshape(n_states * n_actions, n_columns))
    maximise_many(q, mask, value)


@kernel("strict")
def optimal_each(tables, rewards, mask, staged, value, q, policy):
    """Backward induction for each of B models: tables (B, L, S * A, S), rewards (B, Lr, S, A), scratch q (H, S, A)."""
    for b in range(tables.shape[0]):
        optimal(Dense(tables[b]), staged, rewards[b], mask, value[b], q, policy[b])


@kernel("strict")
def first_bad_row(table, tolerance):
    """Number of the first row (N, S) that is negative somewhere or not within `tolerance` of 1; else -1."""
    for row in range(table.shape[0]):
        total = 0.0
        negative = False
        for t in range(table.shape[1]):
            negative |= table[row, t] < 0
            total += table[row, t]
        if negative or not abs(total - 1) <= tolerance:
            return row
    return -1
