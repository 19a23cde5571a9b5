"""Passes over trajectories and over counts; arrays in, arrays out."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from theoryrl._jit import kernel


@kernel("strict")
def weighted_returns(state, action, reward, ratio, q, value, out):
    """out[i] = sum_h w_{h-1} v_h(s_h) + w_h (r_h - q_h(s_h, a_h)),   w_h = product of ratio_0 .. ratio_h."""
    for i in range(out.shape[0]):
        weight, total = 1.0, 0.0
        for h in range(state.shape[1]):
            s, a = state[i, h], action[i, h]
            total += weight * value[h, s]
            weight *= ratio[h, s, a]
            total += weight * (reward[i, h] - q[h, s, a])
            if weight == 0.0:
                break
        out[i] = total


@kernel("strict")
def last_weights(state, action, ratio, weight):
    """weight[i] = product over h of ratio_h(s_h, a_h)."""
    for i in range(weight.shape[0]):
        product = 1.0
        for h in range(state.shape[1]):
            product *= ratio[h, state[i, h], action[i, h]]
        weight[i] = product


@kernel("strict")
def running_weights(state, action, ratio, weight):
    """weight[i, h] = product of ratio_0 .. ratio_h along trajectory i."""
    for i in range(weight.shape[0]):
        product = 1.0
        for h in range(state.shape[1]):
            product *= ratio[h, state[i, h], action[i, h]]
            weight[i, h] = product


@kernel("strict")
def whole_in_order(trajectory, step, state, next_state, horizon):
    """Whether the rows are whole linked trajectories, one after the other, with numbers that grow."""
    n = step.shape[0]
    if n % horizon != 0:
        return False
    for first in range(0, n, horizon):
        if first > 0 and trajectory[first] <= trajectory[first - 1]:
            return False
        for h in range(horizon):
            row = first + h
            if step[row] != h or trajectory[row] != trajectory[first]:
                return False
            if h > 0 and state[row] != next_state[row - 1]:
                return False
    return True


@kernel("strict")
def first_impossible(state, action, behaviour):
    """The first i * H + h whose action has probability 0 under the behaviour policy; -1 if there is none."""
    for i in range(state.shape[0]):
        for h in range(state.shape[1]):
            if not behaviour[h, state[i, h], action[i, h]] > 0.0:
                return i * state.shape[1] + h
    return -1


@kernel("strict")
def influence_squares(step, state, action, reward, next_state, staged, share, q, later):
    """Sum over rows of (sum over the layers h it serves of share_h(s, a) (r + later_{h+1}(s') - q_h(s, a)))^2.

    A row serves its own layer, or without `staged` all.
    """
    total = 0.0
    for row in range(step.shape[0]):
        s, a, t = state[row], action[row], next_state[row]
        begin, end = (step[row], step[row] + 1) if staged else (0, q.shape[0])
        influence = 0.0
        for h in range(begin, end):
            influence += share[h, s, a] * (reward[row] + later[h + 1, t] - q[h, s, a])
        total += influence * influence
    return total


@kernel("strict")
def count_changes(trajectory):
    """Number of distinct values of a column that never falls, or -1 if it falls."""
    count = 1
    for row in range(1, trajectory.shape[0]):
        if trajectory[row] < trajectory[row - 1]:
            return -1
        if trajectory[row] != trajectory[row - 1]:
            count += 1
    return count
