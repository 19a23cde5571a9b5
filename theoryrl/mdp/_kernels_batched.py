"""Many problems at once: K rewards (or targets) on one kernel, with k the last and fastest axis; B tiny models."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import math

import numpy as np

from theoryrl._jit import kernel
from theoryrl.mdp._kernels_rows import means_many


@kernel("strict")
def optimal_many(rows, staged, reward, mask, value, policy):
    """Backward induction for K rewards (Lr, S, A, K): value (K, H+1, S), policy (K, H, S)."""
    n_columns, horizon, n_states = policy.shape
    n_actions = reward.shape[2]
    q = np.empty((n_states, n_actions, n_columns))
    best = np.zeros((n_states, n_columns))
    chosen = np.empty((n_states, n_columns), np.int64)
    value[:, horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        means_many(rows, h if staged else 0, best, q.reshape(n_states * n_actions, n_columns))
        _maximise(q, reward[h % reward.shape[0]], mask, best, chosen)
        for k in range(n_columns):
            for s in range(n_states):
                value[k, h, s] = best[s, k]
                policy[k, h, s] = chosen[s, k]


@kernel("strict")
def _maximise(q, reward, mask, best, chosen):
    """best[s, k] = max_a q[s, a, k] + reward[s, a, k] over allowed actions; chosen: the first that attains it."""
    for s in range(q.shape[0]):
        for k in range(q.shape[2]):
            best[s, k] = -math.inf
            chosen[s, k] = 0
        for a in range(q.shape[1]):
            if mask[s, a]:
                for k in range(q.shape[2]):
                    total = q[s, a, k] + reward[s, a, k]
                    better = total > best[s, k]
                    best[s, k] = total if better else best[s, k]
                    chosen[s, k] = a if better else chosen[s, k]


@kernel("strict")
def reach_step(rows, layer, mask, value_next, q, value):
    """value[s, k] = max_a sum_t P[s, a, t] value_next[t, k] for the targets k."""
    n_states, n_actions, n_columns = q.shape
    means_many(rows, layer, value_next, q.reshape(n_states * n_actions, n_columns))
    for s in range(n_states):
        value[s] = 0.0
        for a in range(n_actions):
            if mask[s, a]:
                for k in range(n_columns):
                    value[s, k] = max(value[s, k], q[s, a, k])


@kernel("any-order")
def optimal_each(tables, rewards, value, policy):
    """Backward induction for each of B models: tables (B, L, S, A, S), rewards (B, Lr, S, A), value (B, H+1, S).

    One loop nest without slices: making a view costs as much here as a row.
    """
    n_models, horizon, n_states = policy.shape
    n_actions = rewards.shape[3]
    for b in range(n_models):
        for s in range(n_states):
            value[b, horizon, s] = 0.0
        for h in range(horizon - 1, -1, -1):
            layer = h if tables.shape[1] > 1 else 0
            reward_layer = h if rewards.shape[1] > 1 else 0
            for s in range(n_states):
                best, chosen = -math.inf, 0
                for a in range(n_actions):
                    total = 0.0
                    for t in range(n_states):
                        total += tables[b, layer, s, a, t] * value[b, h + 1, t]
                    total += rewards[b, reward_layer, s, a]
                    better = total > best
                    best = total if better else best
                    chosen = a if better else chosen
                value[b, h, s] = best
                policy[b, h, s] = chosen


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
