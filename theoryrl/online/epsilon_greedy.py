# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-redef"
"""Q-learning that explores by chance: with probability epsilon any allowed action, else the greedy one.

In episode k = 1, 2, ... epsilon_k = epsilon / k^decay. After the t-th visit of (s, a) at layer h,

    Q_h(s, a) = (1 - alpha_t) Q_h(s, a) + alpha_t [ r + max_a' Q_{h+1}(s', a') ],    alpha_t = (H + 1) / (H + t)

from Q = 0 in units of the reward range, (r - low) / width: what was never tried looks worthless. This is Watkins (1989)
with the learning rate of Jin et al. (2018), so that it differs from UCB-H in its exploration alone. No regret bound
polynomial in H is possible: by the documentation (page Q-learning) a lock keeps it out for exponentially many episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel
from theoryrl.online._q_learning import settle
from theoryrl.online.verbs import VISITED, Problem, act, chance, observe, plan, upper_value


class EpsilonGreedyState(NamedTuple):
    """The table Q, what is greedy in it, and the allowed actions of each state first in `allowed`."""

    visits: NDArray[np.int64]  # (H, S, A)
    q: NDArray[np.float64]  # (H, S, A)
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    changed: NDArray[np.bool_]  # (1,) whether the greedy policy is another than at the last plan
    current: NDArray[np.float64]  # (1,) epsilon of this episode
    allowed: NDArray[np.int64]  # (S, A)
    n_allowed: NDArray[np.int64]  # (S,)
    action_mask: NDArray[np.bool_]  # (S, A)
    epsilon: float
    decay: float
    reward_low: float
    reward_width: float


@dataclass(frozen=True)
class EpsilonGreedy:
    """Settings of epsilon-greedy Q-learning.

    Parameters
    ----------
    epsilon : float in [0, 1]
        Probability of a uniform action in the first episode.
    decay : float, at least 0
        epsilon_k = epsilon / k^decay; 0 keeps it constant.
    """

    epsilon: float = 0.1
    decay: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon must lie in [0, 1], not {self.epsilon!r}")
        if not (self.decay >= 0 and math.isfinite(self.decay)):
            raise ValueError(f"decay must be finite and not negative, not {self.decay!r}")

    @property
    def provable(self) -> bool:
        """No upper bound is claimed for it, so nothing is scaled away."""
        return True

    def init(self, problem: Problem) -> EpsilonGreedyState:
        """A fresh state for one run; its size is 2 H S A numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        mask = np.ascontiguousarray(problem.action_mask)
        return EpsilonGreedyState(
            visits=np.zeros((horizon, n_states, n_actions), np.int64),
            q=np.array(np.broadcast_to(np.where(mask, 0.0, -np.inf), (horizon, n_states, n_actions))),
            value=np.zeros((horizon + 1, n_states)),
            policy=np.tile(np.argmax(mask, axis=1), (horizon, 1)),
            changed=np.ones(1, np.bool_),
            current=np.array([float(self.epsilon)]),
            allowed=np.argsort(~mask, axis=1, kind="stable"),
            n_allowed=mask.sum(axis=1),
            action_mask=mask,
            epsilon=float(self.epsilon),
            decay=float(self.decay),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
        )


@plan.implement(EpsilonGreedyState)
def _(learner, episode):
    epsilon = learner.epsilon / (episode + 1.0) ** learner.decay
    if epsilon != learner.current[0]:
        learner.current[0] = epsilon
        learner.changed[0] = False
        return True
    changed = learner.changed[0]
    learner.changed[0] = False
    return VISITED if changed else 0


@kernel("strict")
def _explores(epsilon, rng):
    """One uniform; whether it falls below epsilon."""
    return rng.random() < epsilon


@kernel("strict")
def _any_of(allowed_here, n_allowed, rng):
    """One of the first `n_allowed` entries, uniformly."""
    return allowed_here[rng.integers(0, n_allowed)]


@act.implement(EpsilonGreedyState)
def _(learner, h, s, rng):
    if _explores(learner.current[0], rng):
        return _any_of(learner.allowed[s], learner.n_allowed[s], rng)
    return learner.policy[h, s]


@chance.implement(EpsilonGreedyState)
def _(learner, h, s, a):
    if not learner.action_mask[s, a]:
        return 0.0
    uniform = learner.current[0] / learner.n_allowed[s]
    return 1.0 - learner.current[0] + uniform if learner.policy[h, s] == a else uniform


@upper_value.implement(EpsilonGreedyState)
def _(learner, h, s):
    return math.inf


@observe.implement(EpsilonGreedyState)
def _(learner, h, s, a, reward, s_next):
    q_here, value, horizon = learner.q[h], learner.value, learner.q.shape[0]
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    t = learner.visits[h, s, a] + 1
    learner.visits[h, s, a] = t
    rate = (horizon + 1.0) / (horizon + t)
    q_here[s, a] = (1.0 - rate) * q_here[s, a] + rate * (unit + value[h + 1, s_next])
    learner.changed[0] |= settle(q_here, value[h], learner.policy[h], s, float(horizon - h))
