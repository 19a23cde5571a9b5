# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs, disable-error-code="no-redef"
"""RLSVI (Osband, Van Roy, Wen 2016), tabular, as analysed by Russo (2019): plan greedily on randomly perturbed rewards.

    Q_h(s, a) = (sum of rewards) / (n + 1) + w_h(s, a) + sum_s' n(s, a, s') / (n + 1) V_{h+1}(s'),   V_h = max_a Q_h,
    w_h(s, a) ~ N(0, beta_{k,h} / (n + 1)) independently over (h, s, a), anew before every episode k = 1, 2, ...

Everything is in units of the reward range: (r - low) / width. Without noise (`scale=0`) Q is the regularised empirical
mean alone. Nothing is clipped: values can be negative or exceed H.

Deviations from the paper: beta_{k,h} = H S (H - h)^2 (1 + log(2 S A H^2 k^2) / 2), whose every constant is derived in
the documentation (page Posterior sampling), where the paper has S H^3 log(2 H S A k) / 2 for every layer; and under
stationary dynamics the counts n are pooled over layers, the noise never.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel
from theoryrl.online._settings import require_scale
from theoryrl.online.verbs import Problem, act, chance, frugal, observe, plan, sample, upper_value


@frugal
class RLSVIState(NamedTuple):
    """Counts, lists of observed successors, the noise and the value table that it led to.

    The leading axis G of the counters is 1 when layers are pooled (stationary dynamics), H otherwise.
    """

    visits: NDArray[np.int64]  # (G, S, A)
    reward_sum: NDArray[np.float64]  # (G, S, A)
    slot: NDArray[np.int32]  # (G, S, A, S): place of s' in the list of successors of (s, a), -1 if never seen
    n_successors: NDArray[np.int64]  # (G, S, A)
    successor: NDArray[np.uint32]  # (G, S, A, S)
    successor_count: NDArray[np.float64]  # (G, S, A, S)
    deviation: NDArray[np.float64]  # (G, S, A): 1 / sqrt(n + 1)
    noise: NDArray[np.float64]  # (H, S, A) standard normal
    q: NDArray[np.float64]  # (H, S, A); -inf where the action is forbidden
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    action_mask: NDArray[np.bool_]  # (S, A)
    reward_low: float
    reward_width: float
    log_constant: float  # 2 S A H^2
    scale: float


@dataclass(frozen=True)
class RLSVI:
    """Settings of RLSVI.

    Parameters
    ----------
    scale : float
        Multiplies the standard deviation of the noise. Anything but 1 gives up the proof: `provable` is then False.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require_scale(self.scale)

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem."""
        return self.scale == 1.0

    def init(self, problem: Problem) -> RLSVIState:
        """A fresh state for one run; its size is G * S * A * S numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        groups = 1 if problem.stationary else horizon
        pairs = (groups, n_states, n_actions)
        table = (horizon, n_states, n_actions)
        return RLSVIState(
            visits=np.zeros(pairs, np.int64),
            reward_sum=np.zeros(pairs),
            slot=np.full((*pairs, n_states), -1, np.int32),
            n_successors=np.zeros(pairs, np.int64),
            successor=np.zeros((*pairs, n_states), np.uint32),
            successor_count=np.zeros((*pairs, n_states)),
            deviation=np.ones(pairs),
            noise=np.zeros(table),
            q=np.full(table, -np.inf),
            value=np.zeros((horizon + 1, n_states)),
            policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
            action_mask=np.array(problem.action_mask),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            log_constant=2.0 * n_states * n_actions * horizon**2,
            scale=float(self.scale),
        )


@kernel("strict")
def _draw(noise, rng):
    """Fill (H, S, A) with standard normals."""
    for h in range(noise.shape[0]):
        for s in range(noise.shape[1]):
            for a in range(noise.shape[2]):
                noise[h, s, a] = rng.standard_normal()


@sample.implement(RLSVIState)
def _(learner, rng):
    _draw(learner.noise, rng)


@plan.implement(RLSVIState)
def _(learner, episode):
    table, values, mask = learner.q, learner.value, learner.action_mask
    horizon, n_states, n_actions = table.shape
    staged = learner.visits.shape[0] > 1
    log = math.log(learner.log_constant * (episode + 1.0) * (episode + 1.0))
    root = learner.scale * math.sqrt(horizon * n_states * (1.0 + 0.5 * log))
    changed = False
    for h in range(horizon - 1, -1, -1):
        g = h if staged else 0
        visits, reward_sum, n_successors = learner.visits[g], learner.reward_sum[g], learner.n_successors[g]
        successor, count, deviation = learner.successor[g], learner.successor_count[g], learner.deviation[g]
        noise, q_here, value_here, value_next = learner.noise[h], table[h], values[h], values[h + 1]
        policy, spread = learner.policy[h], root * (horizon - h)
        for s in range(n_states):
            best, best_action = -math.inf, 0
            for a in range(n_actions):
                if mask[s, a]:
                    total = reward_sum[s, a]
                    for i in range(n_successors[s, a]):
                        total += count[s, a, i] * value_next[successor[s, a, i]]
                    q = total / (visits[s, a] + 1.0) + spread * deviation[s, a] * noise[s, a]
                    q_here[s, a] = q
                    above = q > best  # as likely as not, so the outcome is selected rather than branched on
                    best = q if above else best
                    best_action = a if above else best_action
            value_here[s] = best
            changed |= policy[s] != best_action
            policy[s] = best_action
    return changed


@act.implement(RLSVIState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(RLSVIState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(RLSVIState)
def _(learner, h, s):
    return math.inf


@observe.implement(RLSVIState)
def _(learner, h, s, a, reward, s_next):
    g = h if learner.visits.shape[0] > 1 else 0
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    learner.visits[g, s, a] += 1
    learner.deviation[g, s, a] = 1.0 / math.sqrt(learner.visits[g, s, a] + 1.0)
    learner.reward_sum[g, s, a] += unit
    place = learner.slot[g, s, a, s_next]
    if place < 0:
        place = learner.n_successors[g, s, a]
        learner.n_successors[g, s, a] = place + 1
        learner.slot[g, s, a, s_next] = place
        learner.successor[g, s, a, place] = s_next
    learner.successor_count[g, s, a, place] += 1.0
