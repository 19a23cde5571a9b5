# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs, disable-error-code="no-redef"
"""PSRL (Osband, Russo, Van Roy 2013): before every episode draw a model from the posterior and play its optimal policy.

    P(. | s, a) ~ Dirichlet(alpha + n(s, a, .)),   r(s, a) ~ Beta(1 + successes, 1 + failures),
    Q_h = r + P V_{h+1},   V_h = max_a Q_h

All rows are drawn anew before every episode, as the law of the algorithm asks: a row kept from the last episode would
depend on what it made the learner do. A successor never seen under the uniform prior costs one exponential, any other
number one gamma variate. Rewards in [0, 1] that are not 0 or 1 count as a success with probability equal to the reward
(Agrawal, Goyal 2012); the mean stays what it was, and 0 or 1 stay themselves.

The paper leaves the prior open; here it is a product over pairs (and layers unless the dynamics are stationary), which
`theoryrl.random_mdp(..., reward_law="bernoulli")` draws from when alpha = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel
from theoryrl.online.verbs import Problem, act, chance, observe, plan, sample, upper_value

# Below this concentration the gamma variates of unseen successors underflow too often.
LEAST_PRIOR = 0.01
# A smaller sum of gamma variates, whose reciprocal may overflow, counts as zero.
LEAST_SUM = 1e-300


class PSRLState(NamedTuple):
    """Posterior and the model drawn from it; pairs are numbered s * A + a.

    The leading axis G is 1 when layers are pooled (stationary dynamics), H otherwise.
    """

    visits: NDArray[np.int64]  # (G, S * A)
    successor_shape: NDArray[np.float64]  # (G, S * A, S) parameters of the Dirichlet distributions
    reward_shape: NDArray[np.float64]  # (G, S * A, 2) parameters of the Beta distributions: successes, failures
    transition: NDArray[np.float64]  # (G, S, S * A) the model drawn: probability of s' (first) under a pair (last)
    reward: NDArray[np.float64]  # (G, S * A) its mean rewards in [0, 1]; -inf where the action is forbidden
    row: NDArray[np.float64]  # (S,) room for one draw
    q: NDArray[np.float64]  # (H, S * A) optimal in the model drawn
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    coin: NDArray[np.float64]  # (1,) uniform, decides whether the next reward is a success
    reward_low: float
    reward_width: float


@dataclass(frozen=True)
class PSRL:
    """Settings of PSRL.

    Parameters
    ----------
    prior : float, at least 0.01
        alpha: the prior of every row of transitions is Dirichlet(alpha, ..., alpha); 1 is uniform. That of every mean
        reward, in units of the reward range, is uniform on [0, 1].
    """

    prior: float = 1.0

    def __post_init__(self) -> None:
        if not (self.prior >= LEAST_PRIOR and math.isfinite(self.prior)):
            raise ValueError(f"prior must be finite and at least {LEAST_PRIOR}, not {self.prior!r}")

    @property
    def provable(self) -> bool:
        """The theorem is about models drawn from the learner's own prior, whatever that is."""
        return True

    def init(self, problem: Problem) -> PSRLState:
        """A fresh state for one run; its size is 2 * G * S * A * S numbers."""
        n_states, horizon = problem.n_states, problem.horizon
        pairs = n_states * problem.n_actions
        groups = 1 if problem.stationary else horizon
        forbidden = ~np.asarray(problem.action_mask).reshape(-1)
        return PSRLState(
            visits=np.zeros((groups, pairs), np.int64),
            successor_shape=np.full((groups, pairs, n_states), float(self.prior)),
            reward_shape=np.ones((groups, pairs, 2)),
            transition=np.zeros((groups, n_states, pairs)),
            reward=np.tile(np.where(forbidden, -np.inf, 0.0), (groups, 1)),
            row=np.zeros(n_states),
            q=np.zeros((horizon, pairs)),
            value=np.zeros((horizon + 1, n_states)),
            policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
            coin=np.zeros(1),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
        )


@kernel("strict")
def draw_row(shape, row, rng):
    """Fill `row` with a draw from Dirichlet(shape)."""
    total = 0.0
    for i in range(shape.shape[0]):
        row[i] = rng.standard_exponential() if shape[i] == 1.0 else rng.standard_gamma(shape[i])
        total += row[i]
    if total >= LEAST_SUM:
        scale = 1.0 / total
        for i in range(shape.shape[0]):
            row[i] *= scale
    else:  # nothing was seen, so that all successors are alike: nearly all the mass is on one of them
        row[:] = 0.0
        row[rng.integers(0, shape.shape[0])] = 1.0


@kernel("strict")
def sweep(transition, reward, value_next, q):
    """Write q = reward + P value_next for all pairs; each sum is taken in the order of the successors.

    Pairs are the inner loop, which a compiler can then vectorise, and four successors share one pass over q.
    """
    for pair in range(q.shape[0]):
        q[pair] = reward[pair]
    n_states = value_next.shape[0]
    whole = n_states - n_states % 4
    for s in range(0, whole, 4):
        first, second, third, fourth = transition[s], transition[s + 1], transition[s + 2], transition[s + 3]
        u, v, w, x = value_next[s], value_next[s + 1], value_next[s + 2], value_next[s + 3]
        for pair in range(q.shape[0]):
            q[pair] = (((q[pair] + first[pair] * u) + second[pair] * v) + third[pair] * w) + fourth[pair] * x
    for s in range(whole, n_states):
        first, u = transition[s], value_next[s]
        for pair in range(q.shape[0]):
            q[pair] += first[pair] * u


@kernel("strict")
def best_actions(q, value, policy):
    """Write the maxima of each state's action values and the first actions that attain them; whether any changed."""
    n_states = value.shape[0]
    n_actions = q.shape[0] // n_states
    changed = False
    for s in range(n_states):
        best, best_action = -math.inf, 0
        for a in range(n_actions):
            if q[s * n_actions + a] > best:
                best, best_action = q[s * n_actions + a], a
        value[s] = best
        if policy[s] != best_action:
            policy[s] = best_action
            changed = True
    return changed


@sample.implement(PSRLState)
def _(learner, rng):
    row = learner.row
    for g in range(learner.reward.shape[0]):
        shape, odds = learner.successor_shape[g], learner.reward_shape[g]
        transition, reward = learner.transition[g], learner.reward[g]
        for pair in range(reward.shape[0]):
            if reward[pair] >= 0.0:
                draw_row(shape[pair], row, rng)
                for s_next in range(row.shape[0]):
                    transition[s_next, pair] = row[s_next]
                success = rng.standard_gamma(odds[pair, 0])
                reward[pair] = success / (success + rng.standard_gamma(odds[pair, 1]))


@plan.implement(PSRLState)
def _(learner, episode):
    q, value, policy = learner.q, learner.value, learner.policy
    staged = learner.reward.shape[0] > 1
    changed = False
    for h in range(q.shape[0] - 1, -1, -1):
        g = h if staged else 0
        sweep(learner.transition[g], learner.reward[g], value[h + 1], q[h])
        if best_actions(q[h], value[h], policy[h]):
            changed = True
    return changed


@act.implement(PSRLState)
def _(learner, h, s, rng):
    learner.coin[0] = rng.random()
    return learner.policy[h, s]


@chance.implement(PSRLState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(PSRLState)
def _(learner, h, s):
    return math.inf


@observe.implement(PSRLState)
def _(learner, h, s, a, reward, s_next):
    g = h if learner.reward.shape[0] > 1 else 0
    pair = s * (learner.reward.shape[1] // learner.value.shape[1]) + a
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    learner.visits[g, pair] += 1
    learner.successor_shape[g, pair, s_next] += 1.0
    learner.reward_shape[g, pair, 0 if learner.coin[0] < unit else 1] += 1.0
