"""Sweeps over the layers of one model, for either storage.

Shapes: reward (Lr, S, A), policy (Lp, S, A) or (Lp, S), value (H+1, S), q (H, S, A); an axis Lr or Lp of length 1
stands for every layer. `rows` has H layers if `staged`, else one.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import math

from theoryrl._jit import kernel
from theoryrl.mdp._kernels_rows import backup, means, push, row_mean, row_spread


@kernel("strict")
def action_values(rows, layer, reward, mask, value_next, q):
    """q[s, a] = reward[s, a] + sum_t P[s, a, t] value_next[t], and -inf where (s, a) is forbidden."""
    n_states, n_actions = q.shape
    means(rows, layer, value_next, q.reshape(n_states * n_actions))
    for s in range(n_states):
        for a in range(n_actions):
            q[s, a] = q[s, a] + reward[s, a] if mask[s, a] else -math.inf


@kernel("strict")
def optimal(rows, staged, reward, mask, value, q, policy):
    """Backward induction: q_h = r_h + P_h V_{h+1}, V_h = max_a q_h; scratch `q`: (1, S, A), sparse (1, 1, A)."""
    horizon = policy.shape[0]
    value[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        backup(
            rows,
            h if staged else 0,
            reward[h % reward.shape[0]],
            mask,
            value[h + 1],
            q[h % q.shape[0]],
            value[h],
            policy[h],
        )


@kernel("strict")
def action_values_of(rows, staged, reward, mask, value, q, best, chosen):
    """q_h = r_h + P_h V_{h+1} for a given V, bit for bit as in `optimal`; `best` and `chosen` (S,) are scratch."""
    for h in range(q.shape[0]):
        backup(rows, h if staged else 0, reward[h % reward.shape[0]], mask, value[h + 1], q[h], best, chosen)


@kernel("strict")
def soft_optimal(rows, staged, reward, mask, temperature, value, q, policy):
    """V_h(s) = T log sum_a exp(q_h(s, a) / T), policy_h(a | s) = exp((q_h(s, a) - V_h(s)) / T)."""
    horizon, n_states, n_actions = q.shape
    value[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        action_values(rows, h if staged else 0, reward[h % reward.shape[0]], mask, value[h + 1], q[h])
        for s in range(n_states):
            best = -math.inf
            for a in range(n_actions):
                best = max(best, q[h, s, a])
            # The largest exponent is 0, so nothing overflows and the sum is at least 1.
            total = 0.0
            for a in range(n_actions):
                policy[h, s, a] = math.exp((q[h, s, a] - best) / temperature)
                total += policy[h, s, a]
            for a in range(n_actions):
                policy[h, s, a] /= total
            value[h, s] = best + temperature * math.log(total)


@kernel("strict")
def evaluate_actions(rows, staged, reward, policy, value):
    """V_h(s) = r_h(s, a) + sum_t P_h(t | s, a) V_{h+1}(t) for a = policy_h(s); reads the chosen rows only."""
    horizon, n_states, n_actions = value.shape[0] - 1, value.shape[1], reward.shape[2]
    value[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        layer, ahead = h if staged else 0, value[h + 1]
        choice, gain = policy[h % policy.shape[0]], reward[h % reward.shape[0]]
        for s in range(n_states):
            a = choice[s]
            value[h, s] = gain[s, a] + row_mean(rows, layer, s * n_actions + a, ahead)


@kernel("strict")
def evaluate_weights(rows, staged, reward, policy, value):
    """V_h(s) = sum_a policy_h(a | s) (r_h(s, a) + sum_t P_h(t | s, a) V_{h+1}(t)); actions of weight 0 are not read."""
    horizon, n_states, n_actions = value.shape[0] - 1, value.shape[1], reward.shape[2]
    value[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        layer, ahead = h if staged else 0, value[h + 1]
        choice, gain = policy[h % policy.shape[0]], reward[h % reward.shape[0]]
        for s in range(n_states):
            total = 0.0
            for a in range(n_actions):
                if choice[s, a] > 0:
                    total += choice[s, a] * (gain[s, a] + row_mean(rows, layer, s * n_actions + a, ahead))
            value[h, s] = total


@kernel("strict")
def evaluate_all(rows, staged, reward, mask, policy, value, q):
    """q_h = r_h + P_h V_{h+1} for every allowed action, V_h(s) = sum_a policy_h(a | s) q_h(s, a)."""
    horizon, n_states, n_actions = q.shape
    value[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        action_values(rows, h if staged else 0, reward[h % reward.shape[0]], mask, value[h + 1], q[h])
        choice = policy[h % policy.shape[0]]
        for s in range(n_states):
            total = 0.0
            for a in range(n_actions):
                if choice[s, a] > 0:
                    total += choice[s, a] * q[h, s, a]
            value[h, s] = total


@kernel("strict")
def moments(rows, staged, reward, noise, outcome, policy, value, variance, future):
    """Value and variance of the return, by the law of total variance, all terms non-negative; `future` (A,) is scratch.

    W_h(s) = sum_a pi_h(a | s) [(q_h(s, a) - V_h(s))^2 + noise_h(s, a)
             + sum_t P_h(t | s, a) ((x_t - E x)^2 + W_{h+1}(t))],   x_t = outcome_h(s, a, t) + V_{h+1}(t)
    """
    horizon, n_states, n_actions = value.shape[0] - 1, value.shape[1], reward.shape[2]
    value[horizon] = 0.0
    variance[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        layer, ahead, carried = h if staged else 0, value[h + 1], variance[h + 1]
        choice, gain, own = policy[h % policy.shape[0]], reward[h % reward.shape[0]], noise[h % noise.shape[0]]
        for s in range(n_states):
            mean = 0.0
            for a in range(n_actions):
                if choice[s, a] > 0:
                    future[a] = row_mean(rows, layer, s * n_actions + a, ahead)
                    mean += choice[s, a] * (gain[s, a] + future[a])
            total = 0.0
            for a in range(n_actions):
                if choice[s, a] > 0:
                    q = gain[s, a] + future[a]
                    # Without outcomes x_t is V_{h+1}(t) alone, so its mean leaves the reward out.
                    centre = q if outcome.size > 0 else future[a]
                    spread = row_spread(rows, outcome, layer, s * n_actions + a, ahead, centre, carried)
                    total += choice[s, a] * ((q - mean) ** 2 + own[s, a] + spread)
            value[h, s] = mean
            variance[h, s] = total


@kernel("strict")
def occupancy(rows, staged, policy, state, pair):
    """pair_h(s, a) = d_h(s) pi_h(a | s), d_{h+1}(t) = sum_{s, a} pair_h(s, a) P_h(t | s, a); `state[0]` is given."""
    horizon, n_states, n_actions = pair.shape
    for h in range(horizon):
        choice, here = policy[h % policy.shape[0]], state[h]
        for s in range(n_states):
            for a in range(n_actions):
                pair[h, s, a] = here[s] * choice[s, a]
        if h + 1 < horizon:
            ahead = state[h + 1]
            ahead[:] = 0.0
            for s in range(n_states):
                for a in range(n_actions):
                    if pair[h, s, a] > 0:
                        push(rows, h if staged else 0, s * n_actions + a, pair[h, s, a], ahead)
