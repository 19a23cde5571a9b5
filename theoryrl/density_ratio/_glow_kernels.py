"""The tests of GLOW: clipped weights against sums of residuals, and what rounding can do to them."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

from theoryrl._jit import kernel
from theoryrl.density_ratio.schedules import threshold

U = 2.0**-53


@kernel("strict")
def second_moments(weights, ceiling, count, visited, n_visited, n, penalty):
    """penalty[j] = (1/n) sum_x N(x) min(w_j(x), gamma_t)^2, weights as (x, j)."""
    for j in range(penalty.shape[0]):
        penalty[j] = 0.0
    for place in range(n_visited):
        x = visited[place]
        visits = count[x]
        for j in range(penalty.shape[0]):
            w = weights[x, j]
            w = w if w < ceiling else ceiling
            penalty[j] += w * w * visits
    for j in range(penalty.shape[0]):
        penalty[j] /= n


@kernel("strict")
def weighted_residuals(weights, ceiling, residual, f, visited, n_visited, n, mean):
    """mean[j] = (1/n) sum_x min(w_j(x), gamma_t) G_f(x), with G as (x, f)."""
    for j in range(mean.shape[0]):
        mean[j] = 0.0
    for place in range(n_visited):
        x = visited[place]
        g = residual[x, f]
        for j in range(mean.shape[0]):
            w = weights[x, j]
            w = w if w < ceiling else ceiling
            mean[j] += w * g
    for j in range(mean.shape[0]):
        mean[j] /= n


@kernel("strict")
def largest_excess(schedule, mean, penalty, n, n_visited, ceiling, alpha, beta, width, scale, size, offset):
    """max_j of mean[j] minus its threshold, minus what rounding can add to the difference (docs, page GLOW)."""
    worst = -math.inf
    for j in range(mean.shape[0]):
        limit = threshold(schedule, penalty[j], n, ceiling, alpha, beta, width, scale)
        slack = math.sqrt(penalty[j]) * (size * (n + 2.0 * n_visited + 12.0) * U + offset)
        slack += (limit + alpha * penalty[j]) * (n_visited + 16.0) * U
        excess = mean[j] - limit - 2.0 * slack
        if not excess <= worst:
            worst = excess
    return worst


@kernel("strict")
def full_excess(residual, f, count, visited, n_visited, n, rho, width, log_level, scale, size, offset):
    """The largest test over all weights w >= 0, minus its level and what rounding can add to the difference."""
    total, spread = 0.0, 0.0
    for place in range(n_visited):
        x = visited[place]
        g = residual[x, f]
        if g > 0.0:
            total += g * g / (count[x] + rho)
        spread += math.log(1.0 + count[x] / rho)
    level = scale * (0.5 * width * width) * (log_level + 0.5 * spread)
    slack = 2.0 * size * n * (size * (n + 2.0) * U + offset) + (n_visited + 16.0) * U * (total + level)
    return total - level - 2.0 * slack


@kernel("strict")
def add_mixture(masses, played, mixture):
    """The sum over p of played[p] masses[p], in the order of p: a function of how often each policy was played."""
    for x in range(mixture.shape[0]):
        mixture[x] = 0.0
    for p in range(played.shape[0]):
        if played[p] > 0:
            times, mass = float(played[p]), masses[p]
            for x in range(mixture.shape[0]):
                mixture[x] += times * mass[x]


@kernel("strict")
def mixture_ratios(masses, mixture, t, visited, n_visited, weights):
    """weights[x, m] = t d(x) / (D(x) + d(x)), d the policy's masses in model m and D those of the t - 1 rounds.

    Entry (x, m) of `masses` and `mixture` is at x nM + m.
    """
    for place in range(n_visited):
        x = visited[place]
        first = x * weights.shape[1]
        for m in range(weights.shape[1]):
            d = masses[first + m]
            total = mixture[first + m] + d
            weights[x, m] = t * d / total if d > 0.0 else 0.0


@kernel("strict")
def lifted_ratios(ratios, played, own, t, visited, n_visited, weights):
    """weights[x, 0] = t / (sum_p played[p] ratios[p, x] + ratios[own, x]), ratios d^p / d^own; 1 / 0 is infinity."""
    for place in range(n_visited):
        x = visited[place]
        total = ratios[own, x]
        for p in range(played.shape[0]):
            if played[p] > 0:
                total += float(played[p]) * ratios[p, x]
        weights[x, 0] = t / total if total > 0.0 else math.inf


@kernel("strict")
def most_optimistic(status, start, rank):
    """The member not yet tested (status 0) with the largest start value, ties by rank; -1 if there is none."""
    best = -1
    for f in range(status.shape[0]):
        if status[f] == 0 and (
            best < 0 or start[f] > start[best] or (start[f] == start[best] and rank[f] < rank[best])
        ):
            best = f
    return best
