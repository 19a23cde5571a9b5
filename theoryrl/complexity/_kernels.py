"""Conditional variances of a sweep, and eliminations without subtractions for Markov chains."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from theoryrl._jit import kernel
from theoryrl.mdp._kernels_rows import row_mean, row_spread

# Probabilities and times beyond these bounds are out of range, so that products of two numbers are within floats.
LEAST, MOST = 1e-250, 1e250
# Weights are divided by one that has grown beyond this.
HEAVY = 1e30


@kernel("strict")
def next_variance(rows, staged, mask, value, zero, nothing, out):
    """out[h, s, a] = Var(V_{h+1}(t)), t ~ P_h(. | s, a); `zero` (S,) is zero and `nothing` an empty outcome."""
    horizon, n_states, n_actions = out.shape
    for h in range(horizon):
        layer = h if staged else 0
        for s in range(n_states):
            for a in range(n_actions):
                out[h, s, a] = 0.0
                if mask[s, a]:
                    row = s * n_actions + a
                    centre = row_mean(rows, layer, row, value[h + 1])
                    out[h, s, a] = row_spread(rows, nothing, layer, row, value[h + 1], centre, zero)


@kernel("strict")
def outcome_variance(rows, mask, outcome, mean, zero, out):
    """out[l, s, a] = Var(outcome_l(s, a, t)), t ~ P_l(. | s, a), for every layer l that is stored."""
    n_layers, n_states, n_actions = out.shape
    for layer in range(n_layers):
        for s in range(n_states):
            for a in range(n_actions):
                out[layer, s, a] = 0.0
                if mask[s, a]:
                    row = s * n_actions + a
                    centre = mean[layer % mean.shape[0], s, a]
                    out[layer, s, a] = row_spread(rows, outcome, layer, row, zero, centre, zero)


@kernel("strict")
def absorption_times(inner, leave, time):
    """Expected number of steps until a chain leaves the states 0..n-1, from each of them; overwrites `inner`, `leave`.

    inner (n, n) holds the transition weights among them, leave (n,) the weight of leaving. One minus a diagonal entry
    is the sum of the rest of its row, so no subtraction occurs and every time has a small relative error however
    large it is (Grassmann, Taksar and Heyman 1985). `time` (n,) holds 1 on entry, or what every visit costs. The
    diagonal is not read. Returns whether floats sufficed; if not, times that are too large are `MOST`.
    """
    n = inner.shape[0]
    sufficed = True
    for k in range(n - 1, -1, -1):
        pivot = leave[k]
        for j in range(k):
            pivot += inner[k, j]
        if not pivot >= LEAST:
            pivot, sufficed = LEAST, False
        for i in range(k):
            if inner[i, k] > 0:
                factor = inner[i, k] / pivot
                for j in range(k):
                    inner[i, j] += factor * inner[k, j]
                leave[i] += factor * leave[k]
                time[i] += factor * time[k]
                if not abs(time[i]) <= MOST:
                    time[i], sufficed = MOST if time[i] > 0 else -MOST, False
        inner[k, k] = pivot
    for k in range(n):
        total = time[k]
        for j in range(k):
            total += inner[k, j] * time[j]
        time[k] = total / inner[k, k]
        if not abs(time[k]) <= MOST:
            time[k], sufficed = MOST if time[k] > 0 else -MOST, False
    return sufficed


@kernel("strict")
def stationary_weights(chain, weights):
    """The stationary distribution of an irreducible chain (n, n), without subtractions; overwrites `chain`.

    Returns whether floats sufficed.
    """
    n = chain.shape[0]
    for k in range(n - 1, 0, -1):
        pivot = 0.0
        for j in range(k):
            pivot += chain[k, j]
        if not pivot >= LEAST:
            return False
        for i in range(k):
            if chain[i, k] > 0:
                chain[i, k] /= pivot
                for j in range(k):
                    chain[i, j] += chain[i, k] * chain[k, j]
    weights[0] = 1.0
    total = 1.0
    for k in range(1, n):
        weights[k] = 0.0
        for i in range(k):
            weights[k] += weights[i] * chain[i, k]
        if weights[k] > HEAVY:
            heavy = weights[k]
            for i in range(k + 1):
                weights[i] /= heavy
            total /= heavy
        total += weights[k]
    for k in range(n):
        weights[k] /= total
    return True
