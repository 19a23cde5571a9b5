"""Least squares of one layer from counts: what fitted Q learners, offline and hybrid, have in common."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from theoryrl._jit import kernel


@kernel("strict")
def target_sums(transitions, reward_sums, later, sums):
    """sums[s, a] = sum over the transitions from (s, a) of r + later[s'], from counts (S, A, S)."""
    n_states, n_actions = sums.shape
    for s in range(n_states):
        for a in range(n_actions):
            total = reward_sums[s, a]
            for t in range(n_states):
                total += transitions[s, a, t] * later[t]
            sums[s, a] = total


@kernel("strict")
def least_squares_member(members, visits, sums):
    """The member f of (m, S, A) with the least sum of (f(s, a) - y)^2; the lowest-numbered of equals.

    Up to a constant that sum is sum_{s, a} f (N f - 2 sum of y).
    """
    best, least = 0, 0.0
    for i in range(members.shape[0]):
        total = 0.0
        for s in range(members.shape[1]):
            for a in range(members.shape[2]):
                if visits[s, a] > 0.0:
                    total += members[i, s, a] * (visits[s, a] * members[i, s, a] - 2.0 * sums[s, a])
        if i == 0 or total < least:
            best, least = i, total
    return best
