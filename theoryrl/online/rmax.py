# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs, disable-error-code="no-redef"
"""R-max (Brafman, Tennenholtz 2002) for episodes of H steps: what is not known well is taken to be paradise.

A pair is known after m visits. Planning uses the empirical model of the known pairs, from their first m samples, and
for the unknown ones the most that could still be collected:

    Q_h(s, a) = min{ H - h, r^(s, a) + sum_s' P^(s' | s, a) V_{h+1}(s') } if (s, a) is known, else H - h

in units of the reward range, (r - low) / width; V_h = max_a Q_h. The plan changes when a pair becomes known, between
episodes.

Deviations from the paper, which treats stochastic games and the average reward: episodes of fixed length, as in Kakade
(2003); rewards are estimated, not known; m is that of the proof in the documentation (page R-max). Under time-varying
dynamics a pair is known layer by layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.online._settings import require_level
from theoryrl.online.bounds.rmax import rmax_allowance, rmax_visits
from theoryrl.online.verbs import Problem, act, chance, observe, plan, upper_value

NEVER = 2**62  # visits, more than any run makes, that still fit a counter


class RMaxState(NamedTuple):
    """Counts of the first m samples of every pair, and the current plan.

    The leading axis G of the counters is 1 when layers are pooled (stationary dynamics), H otherwise.
    """

    visits: NDArray[np.int64]  # (G, S, A), at most m
    reward_sum: NDArray[np.float64]  # (G, S, A)
    successor_count: NDArray[np.float64]  # (G, S, A, S)
    stale: NDArray[np.bool_]  # (1,): a pair has become known since the last plan
    q: NDArray[np.float64]  # (H, S, A)
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    allowance: NDArray[np.float64]  # (H,)
    known_after: int
    reward_low: float
    reward_width: float


@dataclass(frozen=True)
class RMax:
    """Settings of R-max.

    Parameters
    ----------
    epsilon : float, positive, in units of reward
        The accuracy: all but boundedly many episodes are played by a policy that loses at most epsilon.
    delta : float in (0, 1)
        The guarantee fails with at most this probability.
    visits : int, optional
        m, after how many visits a pair is known; default `rmax_visits`. Any number of one's own gives up the proof:
        `provable` is then False.
    """

    epsilon: float
    delta: float = 0.05
    visits: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon must be positive and finite, not {self.epsilon!r}")
        require_level(self.delta)
        if self.visits is not None:
            require_int(self.visits, 1, "visits")

    @property
    def provable(self) -> bool:
        """Whether the number of visits is that of the theorem."""
        return self.visits is None

    def init(self, problem: Problem) -> RMaxState:
        """A fresh state for one run; its size is G * S * A * S numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        pairs = (1 if problem.stationary else horizon, n_states, n_actions)
        width = float(problem.reward_high - problem.reward_low)
        sizes = dict(n_states=n_states, n_actions=n_actions, horizon=horizon)
        proven = rmax_visits(self.epsilon, delta=self.delta, reward_width=width, **sizes)
        allowance = [rmax_allowance(h, proven, delta=self.delta, **sizes) for h in range(horizon)]
        steps_to_go = np.arange(horizon, -1.0, -1.0)
        q = np.where(problem.action_mask, steps_to_go[:-1, np.newaxis, np.newaxis], -np.inf)
        return RMaxState(
            visits=np.zeros(pairs, np.int64),
            reward_sum=np.zeros(pairs),
            successor_count=np.zeros((*pairs, n_states)),
            stale=np.zeros(1, np.bool_),
            q=np.ascontiguousarray(q),
            value=np.repeat(steps_to_go[:, np.newaxis], n_states, axis=1),
            policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
            allowance=np.array(allowance),
            known_after=min(proven if self.visits is None else int(self.visits), NEVER),
            reward_low=float(problem.reward_low),
            reward_width=width,
        )


@plan.implement(RMaxState)
def _(learner, episode):
    if not learner.stale[0]:
        return False
    learner.stale[0] = False
    horizon, n_states, n_actions = learner.q.shape
    staged, enough = learner.visits.shape[0] > 1, learner.known_after
    changed = False
    for h in range(horizon - 1, -1, -1):
        g = h if staged else 0
        visits, reward, count = learner.visits[g], learner.reward_sum[g], learner.successor_count[g]
        q_here, value_here, value_next, policy = learner.q[h], learner.value[h], learner.value[h + 1], learner.policy[h]
        for s in range(n_states):
            best, best_action = -math.inf, 0
            for a in range(n_actions):
                if visits[s, a] >= enough:  # never of a forbidden action
                    total = reward[s, a]
                    for t in range(n_states):
                        if count[s, a, t] > 0.0:
                            total += count[s, a, t] * value_next[t]
                    q_here[s, a] = min(float(horizon - h), total / enough)
                if q_here[s, a] > best:
                    best, best_action = q_here[s, a], a
            value_here[s] = best
            if policy[s] != best_action:
                policy[s] = best_action
                changed = True
    return changed


@act.implement(RMaxState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(RMaxState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(RMaxState)
def _(learner, h, s):
    horizon = learner.q.shape[0]
    if h == horizon:
        return 0.0
    unit = min(float(horizon - h), learner.value[h, s] + learner.allowance[h])
    return (horizon - h) * learner.reward_low + learner.reward_width * unit


@observe.implement(RMaxState)
def _(learner, h, s, a, reward, s_next):
    g = h if learner.visits.shape[0] > 1 else 0
    n = learner.visits[g, s, a]
    if n < learner.known_after:
        learner.visits[g, s, a] = n + 1
        unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
        learner.reward_sum[g, s, a] += unit
        learner.successor_count[g, s, a, s_next] += 1.0
        if n + 1 == learner.known_after:
            learner.stale[0] = True
