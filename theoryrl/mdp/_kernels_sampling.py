"""Kernels that build sampling tables and draw from them; what the tables hold is said in `sampling.Sampler`."""

import numpy as np

from theoryrl._jit import kernel

# Measured: up to here a linear scan is as fast as an alias table or faster (and takes three quarters of the memory).
LINEAR_LIMIT = 16

BERNOULLI, UNIFORM, OUTCOME = 1, 2, 3  # positions in model.REWARD_LAWS

# In the drawing kernels every branch that touches an array or the generator ends in `return`: where branches join
# again, numba counts references to all of the sampler in every step, which made a step five times slower.


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
def draw_from(tables, row, rng):
    """What a row draws (a successor, an action); takes one uniform from `rng`."""
    return int(tables.successors[draw_entry(tables, row, draw_uniform(rng))])


@kernel("strict")
def draw_initial(sampler, rng):
    """An initial state; takes one uniform from `rng`."""
    return draw_from(sampler, sampler.indptr.size - 2, rng)


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
def count_rows(pointer, data, allowed, indptr):
    """indptr[r + 1] = positive weights in rows 0..r, of the allowed ones (`allowed` repeats in every layer)."""
    for r in range(pointer.size - 1):
        count = 0
        if allowed[r % allowed.size]:
            for j in range(pointer[r], pointer[r + 1]):
                count += data[j] > 0
        indptr[r + 1] = indptr[r] + count


@kernel("strict")
def pack_rows(pointer, indices, data, outcome, allowed, successors, weights, rewards):
    """The positive weights of the allowed rows, in order, with their columns and their rewards.

    Dense rows have no `indices`: the column is the place in the row. No `rewards`, no `outcome`.
    """
    k = 0
    for r in range(pointer.size - 1):
        if allowed[r % allowed.size]:
            for j in range(pointer[r], pointer[r + 1]):
                if data[j] > 0:
                    successors[k] = indices[j] if indices.size else j - pointer[r]
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
    # What is left on either side differs from 1 by rounding only, and falls back to itself.


@kernel("strict")
def run_episodes(sampler, policy, horizon, environment, chooser, first, last, columns):
    """Episodes `first` to `last - 1`, one row of the columns per step: step h of episode e is row e * H + h."""
    trajectory, step, state, action, reward, next_state = columns
    for episode in range(first, last):
        member = draw_initial(policy, chooser)
        start, stride = policy.start[member], policy.stride[member]
        s = draw_initial(sampler, environment)
        for h in range(horizon):
            a = draw_from(policy, start + h * stride + s, chooser)
            r, s_next = draw_step(sampler, h, s, a, environment)
            row = episode * horizon + h
            trajectory[row], step[row] = episode, h
            state[row], action[row], reward[row], next_state[row] = s, a, r, s_next
            s = s_next


@kernel("strict")
def first_unplayable(mask, states, actions):
    """The first entry whose action is not an action, or forbidden in its state; -1 if there is none."""
    for i in range(actions.size):
        if not 0 <= actions[i] < mask.shape[1] or not mask[states[i], actions[i]]:
            return i
    return -1


@kernel("strict")
def reset_batch(sampler, rng, states):
    """One initial state per copy."""
    for i in range(states.size):
        states[i] = draw_initial(sampler, rng)


@kernel("strict")
def step_batch(sampler, h, actions, rng, states, rewards):
    """One step of every copy, `states` in place."""
    for i in range(states.size):
        rewards[i], states[i] = draw_step(sampler, h, states[i], actions[i], rng)


@kernel("strict")
def sample_pair(sampler, h, s, a, rng, successors, rewards):
    """Independent draws from one pair."""
    for i in range(successors.size):
        rewards[i], successors[i] = draw_step(sampler, h, s, a, rng)


@kernel("strict")
def draw_counts(pointer, data, allowed, n, rng, tail, counts):
    """Multinomial counts of `n` draws from every allowed row: each entry is binomial given those before it.

    `tail` is workspace as long as the longest row: tail[i] is the sum of the weights from the row's entry i on, so that
    the last positive entry has conditional probability exactly 1 and no entry of weight zero is ever counted.
    """
    for r in range(pointer.size - 1):
        if not allowed[r % allowed.size]:
            continue
        first, left, total = pointer[r], n, 0.0
        for j in range(pointer[r + 1] - 1, first - 1, -1):
            total += data[j]
            tail[j - first] = total
        for j in range(first, pointer[r + 1]):
            if data[j] > 0 and left > 0:
                counts[j] = rng.binomial(left, data[j] / tail[j - first])
                left -= counts[j]


@kernel("strict")
def add_mean_noise(n, rng, noise, reward):
    """Add to every entry of `reward` the mean of `n` uniform draws within plus or minus its entry of `noise`."""
    for i in range(reward.size):
        total = 0.0
        for _ in range(n):
            total += 2.0 * rng.random() - 1.0
        reward[i] += noise[i] * (total / n)


@kernel("strict")
def first_fault(trajectory, step, state, action, reward, next_state, n_states, n_actions, horizon):
    """`(row, column)` of the first entry out of range, columns numbered as the arguments; `(-1, -1)` if there is none.

    Column 6 stands for a step that does not begin where the step before it in the same trajectory ended.
    """
    for i in range(state.size):
        if trajectory[i] < 0:
            return i, 0
        if not 0 <= step[i] < horizon:
            return i, 1
        if not 0 <= state[i] < n_states:
            return i, 2
        if not 0 <= action[i] < n_actions:
            return i, 3
        if not np.isfinite(reward[i]):
            return i, 4
        if not 0 <= next_state[i] < n_states:
            return i, 5
        if i > 0 and trajectory[i] == trajectory[i - 1] and step[i] == step[i - 1] + 1:
            if state[i] != next_state[i - 1]:
                return i, 6
    return -1, -1


@kernel("strict")
def count_steps(step, state, action, reward, next_state, transitions, visits, reward_sums):
    """Add every row to tables with a layer axis (of length 1: layers are pooled)."""
    for i in range(state.size):
        h = step[i] if visits.shape[0] > 1 else 0
        visits[h, state[i], action[i]] += 1
        reward_sums[h, state[i], action[i]] += reward[i]
        transitions[h, state[i], action[i], next_state[i]] += 1
