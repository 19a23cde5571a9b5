"""The confidence set of GOLF: losses of all members against one target, reachability in the layered graph."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from theoryrl._jit import kernel


@kernel("strict")
def losses_of_column(values, size, target_sum, count, visited, n_visited, losses):
    """Loss of member k against one target y: losses[k] = sum_x n(x) (f_k(x) - y(x) / n(x))^2; returns the least.

    The same for all k up to a constant is the squared loss over the raw transitions. `visited` lists the pairs with
    n > 0 in the order of their first visits, in which the sum is taken.
    """
    least = 0.0
    for k in range(size):
        total = 0.0
        for place in range(n_visited):
            x = visited[place]
            gap = values[k, x] - target_sum[x] / count[x]
            total += count[x] * gap * gap
        losses[k] = total
        if k == 0 or total < least:
            least = total
    return least


@kernel("strict")
def raise_peaks(losses, least, slack, first, last, level, peak):
    """peak[k] = max(peak[k], losses[k] - least - slack) for first <= k < last; returns whether one passed the level."""
    crossed = False
    for k in range(first, last):
        excess = losses[k] - least - slack
        if excess > peak[k]:
            if peak[k] <= level < excess:
                crossed = True
            peak[k] = excess
    return crossed


@kernel("strict")
def reach(peak, level, sizes, product, alive):
    """Mark the members that a tuple of the confidence set can hold.

    Product: alive[h, i] if some path i = i_h, ..., i_{H-1} keeps peak[h, i_{h+1}, i_h] <= level[h] all the way. List:
    alive[h, i], the same at all layers, if member i keeps all of its own tests.
    """
    horizon = level.shape[0]
    if product:
        alive[horizon, 0] = True
        for h in range(horizon - 1, -1, -1):
            for i in range(sizes[h]):
                found = False
                for j in range(sizes[h + 1]):
                    if alive[h + 1, j] and peak[h, j, i] <= level[h]:
                        found = True
                        break
                alive[h, i] = found
    else:
        for i in range(sizes[0]):
            kept = True
            for h in range(horizon):
                if not peak[h, 0, i] <= level[h]:
                    kept = False
            for h in range(horizon):
                alive[h, i] = kept


@kernel("strict")
def most_optimistic(alive_first, size, start_sum):
    """The lowest-numbered living member of layer 0 with the largest sum of values at the start states; -1 if none."""
    best = -1
    for i in range(size):
        if alive_first[i] and (best < 0 or start_sum[i] > start_sum[best]):
            best = i
    return best


@kernel("strict")
def backtrack(first, peak, level, sizes, alive, product, path):
    """Write the tuple that starts with member `first`: at each layer the lowest-numbered continuation."""
    horizon = level.shape[0]
    path[0] = first
    for h in range(horizon - 1):
        path[h + 1] = first
        if product:
            for j in range(sizes[h + 1]):
                if alive[h + 1, j] and peak[h, j, path[h]] <= level[h]:
                    path[h + 1] = j
                    break
