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
