"""Kernels that build sampling tables and draw from them; what the tables hold is said in `sampling.Sampler`."""

from theoryrl._jit import kernel

# Measured: up to here a linear scan is as fast as an alias table or faster (and takes three quarters of the memory).
LINEAR_LIMIT = 16

BERNOULLI, UNIFORM, OUTCOME = 1, 2, 3  # positions in model.REWARD_LAWS

# In the drawing kernels every branch that touches an array or the generator ends in `return`: where branches join again,
# numba counts references to all of the sampler in every step, which made a step five times slower.


@kernel("strict")
def draw_entry(sampler, row, u):
    """The entry k of `row` that the uniform `u` in [0, 1) selects: `successors[k]` is drawn with its probability.

    A row of a forbidden pair is empty; the caller never asks for it (it would answer with another row's entry).
    """
    first = sampler.indptr[row]
    length = sampler.indptr[row + 1] - first
    if length > LINEAR_LIMIT:
        # u is a multiple of 2^-53, so u * length rounds to less than length.
        scaled = u * length
        column = int(scaled)
        if scaled - column < sampler.threshold[first + column]:
            return first + column
        return first + sampler.alias[first + column]
    k = first
    while u >= sampler.threshold[k]:  # the last threshold of a row is exactly 1
        k += 1
    return k


@kernel("strict")
def draw_uniform(rng):
    """One uniform in [0, 1), as a call that can stand in a branch."""
    return rng.random()


@kernel("strict")
def draw_reward(sampler, index, k, rng):
    """The reward of the pair at `index` (into `reward`) once entry `k` (into `successors`) was drawn."""
    if sampler.reward_law == OUTCOME:
        return sampler.outcome_reward[k]
    mean = sampler.reward[index]
    if sampler.reward_law == BERNOULLI:
        return 1.0 if draw_uniform(rng) < mean else 0.0
    if sampler.reward_law == UNIFORM:
        return mean + sampler.reward_noise[index] * (2.0 * draw_uniform(rng) - 1.0)
    return mean


@kernel("strict")
def draw_initial(sampler, rng):
    """An initial state; takes one uniform from `rng`."""
    return int(sampler.successors[draw_entry(sampler, sampler.indptr.size - 2, draw_uniform(rng))])


@kernel("strict")
def draw_step(sampler, h, s, a, rng):
    """`(reward, s_next)` of action `a` in state `s` at layer `h`; the pair must be allowed.

    Takes one uniform from `rng` for the successor and, under the Bernoulli and uniform laws, one more for the reward,
    whatever the state and action: learners that choose differently stay synchronised under common random numbers.
    """
    pair = s * sampler.n_actions + a
    k = draw_entry(sampler, h * sampler.transition_stride + pair, draw_uniform(rng))
    reward = draw_reward(sampler, h * sampler.reward_stride + pair, k, rng)
    return reward, int(sampler.successors[k])


@kernel("strict")
def count_dense(rows, allowed, indptr):
    """indptr[r + 1] = entries of `rows[:r + 1]` with positive weight in allowed rows (`allowed` repeats every layer)."""
    for r in range(rows.shape[0]):
        count = 0
        if allowed[r % allowed.size]:
            for column in range(rows.shape[1]):
                count += rows[r, column] > 0
        indptr[r + 1] = indptr[r] + count


@kernel("strict")
def pack_dense(rows, outcome, allowed, successors, weights, rewards):
    """The positive entries of the allowed rows, in order; `outcome` and `rewards` empty when there are no such rewards."""
    k = 0
    for r in range(rows.shape[0]):
        if allowed[r % allowed.size]:
            for column in range(rows.shape[1]):
                if rows[r, column] > 0:
                    successors[k] = column
                    weights[k] = rows[r, column]
                    if rewards.size:
                        rewards[k] = outcome[r, column]
                    k += 1


@kernel("strict")
def count_sparse(pointer, data, allowed, indptr):
    """As `count_dense`, of compressed rows."""
    for r in range(pointer.size - 1):
        count = 0
        if allowed[r % allowed.size]:
            for j in range(pointer[r], pointer[r + 1]):
                count += data[j] > 0
        indptr[r + 1] = indptr[r] + count


@kernel("strict")
def pack_sparse(pointer, indices, data, outcome, allowed, successors, weights, rewards):
    """As `pack_dense`, of compressed rows."""
    k = 0
    for r in range(pointer.size - 1):
        if allowed[r % allowed.size]:
            for j in range(pointer[r], pointer[r + 1]):
                if data[j] > 0:
                    successors[k] = indices[j]
                    weights[k] = data[j]
                    if rewards.size:
                        rewards[k] = outcome[j]
                    k += 1


@kernel("strict")
def prepare_rows(indptr, threshold, alias, stack):
    """Turn the weights in `threshold` into cumulative sums (short rows) or alias tables (long ones), in place.

    `stack` is workspace as long as the longest row.
    """
    for r in range(indptr.size - 1):
        first, last = indptr[r], indptr[r + 1]
        if last - first > LINEAR_LIMIT:
            alias_row(threshold, alias, first, last, stack)
            continue
        total = 0.0
        for k in range(first, last):
            total += threshold[k]
            threshold[k] = total
        for k in range(first, last):
            threshold[k] /= total


@kernel("strict")
def alias_row(threshold, alias, first, last, stack):
    """Walker's tables by Vose's method: column c keeps itself with probability threshold[c], else gives alias[c]."""
    length = last - first
    total = 0.0
    for k in range(first, last):
        total += threshold[k]
    # Columns below the mean pile up from the left of the stack, the others from the right.
    n_small, n_large = 0, 0
    for c in range(length):
        threshold[first + c] *= length / total
        alias[first + c] = c
        if threshold[first + c] < 1.0:
            stack[n_small] = c
            n_small += 1
        else:
            n_large += 1
            stack[length - n_large] = c
    while n_small > 0 and n_large > 0:
        n_small -= 1
        small, large = stack[n_small], stack[length - n_large]
        alias[first + small] = large
        threshold[first + large] -= 1.0 - threshold[first + small]
        if threshold[first + large] < 1.0:
            n_large -= 1
            stack[n_small] = large
            n_small += 1
    # What is left on either side differs from 1 by rounding only.
    while n_small > 0:
        n_small -= 1
        threshold[first + stack[n_small]] = 1.0
    while n_large > 0:
        threshold[first + stack[length - n_large]] = 1.0
        n_large -= 1
