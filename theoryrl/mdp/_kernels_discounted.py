"""Kernels of the discounted solvers, for either storage. Shapes: reward and mask (S, A), value and policy (S,)."""

import math

from theoryrl._jit import kernel
from theoryrl.mdp._kernels_rows import means, row_mean


@kernel("strict")
def improve(rows, reward, mask, discount, value, q, new, policy):
    """The Bellman operator: new = T value, policy greedy (lowest maximiser); returns min and max of T value - value.

    q[s, a] = reward[s, a] + discount sum_t P[s, a, t] value[t], -inf where forbidden.
    """
    n_states, n_actions = q.shape
    means(rows, 0, value, q.reshape(n_states * n_actions))
    low, high = math.inf, -math.inf
    for s in range(n_states):
        best, chosen = -math.inf, -1
        for a in range(n_actions):
            x = reward[s, a] + discount * q[s, a] if mask[s, a] else -math.inf
            q[s, a] = x
            if x > best:
                best, chosen = x, a
        new[s], policy[s] = best, chosen
        low, high = min(low, best - value[s]), max(high, best - value[s])
    return low, high


@kernel("strict")
def evaluate_sweep(rows, reward, discount, policy, value, new):
    """The operator of one policy: new = T_policy value; returns min and max of new - value."""
    n_actions = reward.shape[1]
    low, high = math.inf, -math.inf
    for s in range(value.shape[0]):
        a = policy[s]
        x = reward[s, a] + discount * row_mean(rows, 0, s * n_actions + a, value)
        new[s] = x
        low, high = min(low, x - value[s]), max(high, x - value[s])
    return low, high


@kernel("strict")
def evaluate(rows, reward, discount, policy, span, most, value, other):
    """Sweeps of one policy until max - min of the change is at most `span`, or `most` of them; returns how many.

    `value` then holds the last iterate moved to the middle of its MacQueen bounds (a shift moves no later span).
    """
    low, high = 0.0, 0.0
    for sweep in range(most):
        low, high = evaluate_sweep(rows, reward, discount, policy, value, other)
        for s in range(value.shape[0]):
            value[s] = other[s]
        if high - low <= span or sweep == most - 1:
            shift = discount / (1.0 - discount) * 0.5 * (low + high)
            for s in range(value.shape[0]):
                value[s] += shift
            return sweep + 1, low, high
    return 0, low, high


@kernel("strict")
def modified(rows, reward, mask, discount, tolerance, most, inner, factor, budget, value, q, new, policy):
    """Modified policy iteration: Bellman sweeps, each followed by up to `inner` sweeps of the greedy policy.

    The inner sweeps end when their span is `factor` of the Bellman sweep's. Ends when the MacQueen bounds are within
    `tolerance` of their middle, after `most` Bellman sweeps, or when the policy's rows read reach `budget` Bellman
    sweeps; returns (Bellman sweeps, min, max of the last change).
    """
    low, high, spent = -math.inf, math.inf, 0.0
    scale = 0.5 * discount / (1.0 - discount)
    for sweep in range(most):
        low, high = improve(rows, reward, mask, discount, value, q, new, policy)
        spent += 1.0
        # An infinite span is an overflow: the caller reports it.
        if scale * (high - low) <= tolerance or sweep == most - 1 or spent >= budget or not high - low < math.inf:
            return sweep + 1, low, high
        for s in range(value.shape[0]):
            value[s] = new[s]
        if inner > 0:
            done, _, _ = evaluate(rows, reward, discount, policy, factor * (high - low), inner, value, new)
            spent += done / reward.shape[1]
    return 0, low, high
