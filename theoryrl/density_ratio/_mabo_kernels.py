"""The objective of MABO.CR from sums of residuals; the offline function and the hybrid learner share these kernels.

The members come last, so that the innermost loops run over independent sums: they vectorise without a change of order.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from theoryrl._jit import kernel


@kernel("strict")
def add_residuals(values, best, h, s, a, reward, s_next, sums):
    """One tuple: sums[h, s, a, f] += f_h(s, a) - r - max_b f_{h+1}(s', b) for every member f.

    `values` (H, S, A, nF) and `best` (H + 1, S, nF), whose last row is 0.
    """
    for f in range(sums.shape[3]):
        sums[h, s, a, f] += values[h, s, a, f] - reward - best[h + 1, s_next, f]


@kernel("strict")
def sum_residuals(step, state, action, reward, next_state, scale, values, best, sums, visits):
    """All rows in their order; rewards are divided by `scale` before."""
    for i in range(step.shape[0]):
        h, s, a = step[i], state[i], action[i]
        visits[h, s, a] += 1.0
        add_residuals(values, best, h, s, a, reward[i] / scale, next_state[i], sums)


@kernel("strict")
def mabo_objective(sums, visits, weights, n, level, alpha, layered, objective, means, totals):
    """objective[f] = max over w in W of what MABO.CR minimises, from n tuples per layer.

    With v = min(w, level) the layer's statistic is |E_D[v residual_f]| - alpha E_D[v^2]. `layered`: its largest over
    layers and weights; otherwise the largest over w of its sum over layers. `weights` (nW, H, S, A) may be infinite;
    `means` and `totals` (nF,) are scratch.
    """
    size = objective.shape[0]
    for w in range(weights.shape[0]):
        for f in range(size):
            totals[f] = 0.0
        for h in range(visits.shape[0]):
            penalty = 0.0
            for f in range(size):
                means[f] = 0.0
            for s in range(visits.shape[1]):
                for a in range(visits.shape[2]):
                    if visits[h, s, a] > 0.0 and weights[w, h, s, a] > 0.0:
                        clipped = min(weights[w, h, s, a], level)
                        penalty += clipped * clipped * visits[h, s, a]
                        for f in range(size):
                            means[f] += clipped * sums[h, s, a, f]
            cost = alpha * penalty / n
            for f in range(size):
                value = abs(means[f]) / n - cost
                if not layered:
                    totals[f] += value
                elif (w == 0 and h == 0) or value > objective[f]:
                    objective[f] = value
        if not layered:
            for f in range(size):
                if w == 0 or totals[f] > objective[f]:
                    objective[f] = totals[f]


@kernel("strict")
def full_objective(sums, visits, n, level, alpha, layered, objective):
    """The same when W is every weight function of both signs: the supremum separates over pairs.

    sup_{|w| <= level} w m - alpha w^2 = m^2 / (4 alpha) if |m| <= 2 alpha level, else level |m| - alpha level^2,
    m = sums / visits, and a layer is their mean over the tuples.
    """
    for f in range(objective.shape[0]):
        found = 0.0
        for h in range(visits.shape[0]):
            layer = 0.0
            for s in range(visits.shape[1]):
                for a in range(visits.shape[2]):
                    if visits[h, s, a] > 0.0:
                        mean = abs(sums[h, s, a, f]) / visits[h, s, a]
                        if mean <= 2.0 * alpha * level:
                            layer += visits[h, s, a] * (mean * mean / (4.0 * alpha))
                        else:
                            layer += visits[h, s, a] * level * (mean - alpha * level)
            if not layered:
                found += layer / n
            elif layer / n > found:
                found = layer / n
        objective[f] = found


@kernel("strict")
def least_member(objective, order):
    """The member of least objective; of exactly equal ones the first in `order`."""
    chosen = order[0]
    for place in range(1, order.shape[0]):
        if objective[order[place]] < objective[chosen]:
            chosen = order[place]
    return chosen
