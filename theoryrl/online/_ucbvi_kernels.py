# mypy: allow-untyped-defs, allow-untyped-calls
"""Optimistic backups of one layer and the numbers they need about each pair: shared by UCBVI's forms."""

from __future__ import annotations

import math

from theoryrl._jit import kernel

# Empirical Bernstein bonus: max(B1 sqrt(variance l / n), B2 (H - h - 1) l / n), monotone in the value as B1^2 <= B2.
BERNSTEIN_ROOT = 10.0 / 3.0
BERNSTEIN_LINEAR = 35.0 / 3.0

HOEFFDING, BERNSTEIN, AZAR_CH, AZAR_BF = range(4)

# What is kept about a pair: its visits, mean reward, what multiplies the value's range or deviation in the bonus, what
# multiplies its other part, and what does not depend on the layer (the reward's bonus; all of it for AZAR_CH).
VISITS, REWARD, BONUS, LINEAR, NOISE = range(5)

# A pair's `reads`: bit s' & BITS for every successor seen, and FRESH if it was visited since its numbers were computed.
# Two states may share a bit: then a backup is repeated that changes nothing.
BITS = 31
FRESH = 1 << 32


@kernel("strict")
def measure(estimate, g, s, a, n, reward_sum, reward_square_sum, kind, log_constant, scale, horizon):
    """Write the numbers of a pair that was visited n >= 1 times into its row of `estimate` (G, S, A, 5)."""
    mean = reward_sum / n
    estimate[g, s, a, VISITS] = n
    estimate[g, s, a, REWARD] = mean
    if kind == HOEFFDING:
        log = math.log(log_constant * n * (n + 1.0))
        estimate[g, s, a, BONUS] = scale * math.sqrt(log / (2.0 * n))
    elif kind == BERNSTEIN:
        log = math.log(log_constant * n * (n + 1.0))
        estimate[g, s, a, BONUS] = scale * BERNSTEIN_ROOT * math.sqrt(log / n)
        estimate[g, s, a, LINEAR] = scale * BERNSTEIN_LINEAR * log / n
        variance = max(reward_square_sum / n - mean * mean, 0.0)
        reward_bonus = math.sqrt(4.0 * variance * log / n) + 14.0 * log / (3.0 * n)
        estimate[g, s, a, NOISE] = scale * min(1.0, reward_bonus)
    elif kind == AZAR_CH:
        estimate[g, s, a, NOISE] = scale * 7.0 * horizon * math.log(log_constant) * math.sqrt(1.0 / n)
    else:
        log = math.log(log_constant)
        estimate[g, s, a, BONUS] = scale * math.sqrt(8.0 * log / n)
        estimate[g, s, a, LINEAR] = scale * math.sqrt(8.0 / n)
        estimate[g, s, a, NOISE] = scale * 14.0 * horizon * log / (3.0 * n)


@kernel("strict")
def refresh(estimate, reads, planned, visits, reward_sum, reward_square_sum, kind, log_constant, scale, horizon):
    """Compute the numbers of every fresh pair; the arrays are (G, S, A), `estimate` (G, S, A, 5)."""
    for g in range(reads.shape[0]):
        for s in range(reads.shape[1]):
            for a in range(reads.shape[2]):
                if reads[g, s, a] & FRESH:
                    n = visits[g, s, a]
                    planned[g, s, a] = n
                    total, squares = reward_sum[g, s, a], reward_square_sum[g, s, a]
                    measure(estimate, g, s, a, n, total, squares, kind, log_constant, scale, horizon)


@kernel("strict")
def settle(reads):
    """No pair is fresh any more; `reads` is (G, S, A)."""
    for g in range(reads.shape[0]):
        for s in range(reads.shape[1]):
            for a in range(reads.shape[2]):
                reads[g, s, a] &= FRESH - 1


@kernel("strict")
def sweep(trail, estimate, successor, count, arrivals, table, values, policies, kind, most):
    """Back up in place, from the last layer to the first: Q <- min{Q, r^ + P^ V + b}, V <- max Q, policy <- argmax Q.

    At layer h the one state `trail[h]`, or every state if that is negative. `arrivals` (H + 1, S), visits of states
    per layer, and `most`, 100^2 H^3 S^2 A L^2 and H^2, are for AZAR_BF alone. Returns whether the policy differs.
    """
    horizon, n_states, n_actions = table.shape
    changed = False
    for h in range(horizon - 1, -1, -1):
        g = h if estimate.shape[0] > 1 else 0
        steps = float(horizon - h)
        first, last = 0, n_states
        if trail[h] >= 0:
            first, last = trail[h], trail[h] + 1
        for s in range(first, last):
            best, best_action = -math.inf, 0
            for a in range(n_actions):
                q = table[h, s, a]
                n = estimate[g, s, a, VISITS]
                if n > 0.0:
                    mean, left, i = 0.0, n, 0
                    while left > 0.0:
                        mean += count[g, s, a, i] * values[h + 1, successor[g, s, a, i]]
                        left -= count[g, s, a, i]
                        i += 1
                    mean /= n
                    known = estimate[g, s, a, REWARD] + mean
                    if kind in (BERNSTEIN, AZAR_BF):
                        variance, unsure = 0.0, 0.0
                        for j in range(i):
                            s_next = successor[g, s, a, j]
                            deviation = values[h + 1, s_next] - mean
                            variance += count[g, s, a, j] * deviation * deviation
                            if kind == AZAR_BF:
                                share = min(most[0] / max(arrivals[h + 1, s_next], 1.0), most[1])
                                unsure += count[g, s, a, j] * share
                        root = estimate[g, s, a, BONUS] * math.sqrt(variance / n)
                        if kind == BERNSTEIN:
                            root = max(root, estimate[g, s, a, LINEAR] * (steps - 1.0))
                        else:
                            root += estimate[g, s, a, LINEAR] * math.sqrt(unsure / n)
                        target = known + (estimate[g, s, a, NOISE] + root)
                    else:
                        target = known + (estimate[g, s, a, BONUS] * steps + estimate[g, s, a, NOISE])
                    if target < q:
                        q = target
                    table[h, s, a] = q
                if q > best:
                    best, best_action = q, a
            values[h, s] = best
            if policies[h, s] != best_action:
                policies[h, s] = best_action
                changed = True
    return changed
