# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-redef"
"""UCB-H: Q-learning with Hoeffding bonuses (Jin, Allen-Zhu, Bubeck, Jordan 2018, Algorithm 1).

After the t-th visit of (s, a) at layer h, with reward r and successor s',

    Q_h(s, a) = (1 - alpha_t) Q_h(s, a) + alpha_t [ r + V_{h+1}(s') + b_{h,t} ],    alpha_t = (H + 1) / (H + t)
    V_h(s)    = min{ H - h, max_a Q_h(s, a) }
    b_{h,t}   = (H - h) (H + 1) sqrt( l_t / ((4 H + 2) t) ),    l_t = log(4 S A H t (t + 1) / delta)

and every episode is played with the action that is greedy for Q when its state is met. Everything inside is in units of
the reward range: (r - low) / width. The bonus is the paper's c sqrt(H^3 i / t) with c about 1/2, proved in the
documentation (page Q-learning), where the paper asks for some absolute c.

Deviations from the paper, each of which keeps or sharpens the guarantee: rewards are random and unknown; H - h, the
steps to go, stands for H in the start value, in the cap and once in the bonus; the logarithm grows with t, so that the
number of episodes need not be known. As in the paper there is one table per layer, also where the model is stationary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.online._q_learning import bonus_factor, most_to_come, optimistic_tables, settle
from theoryrl.online._settings import require_level, require_scale
from theoryrl.online.verbs import VISITED, Problem, act, chance, frugal, observe, plan, upper_value


@frugal
class UCBHState(NamedTuple):
    """The table Q, what is greedy in it, and how often each pair was visited."""

    visits: NDArray[np.int64]  # (H, S, A)
    q: NDArray[np.float64]  # (H, S, A)
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    changed: NDArray[np.bool_]  # (1,) whether the policy is another than at the last plan
    factor: NDArray[np.float64]  # (H,) the bonus over sqrt(l_t / t)
    reward_low: float
    reward_width: float
    log_constant: float  # the union over pairs, layers and events, over delta


@dataclass(frozen=True)
class UCBH:
    """Settings of UCB-H.

    Parameters
    ----------
    delta : float in (0, 1)
        The guarantee (optimism, regret) fails with at most this probability.
    scale : float
        Multiplies the bonus. Anything but 1 gives up the proof: `provable` is then False.
    """

    delta: float = 0.05
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_level(self.delta)
        require_scale(self.scale)

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem."""
        return self.scale == 1.0

    def init(self, problem: Problem) -> UCBHState:
        """A fresh state for one run; its size is 2 H S A numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        q, value, policy = optimistic_tables(problem)
        return UCBHState(
            visits=np.zeros((horizon, n_states, n_actions), np.int64),
            q=q,
            value=value,
            policy=policy,
            changed=np.ones(1, np.bool_),
            factor=self.scale * bonus_factor(horizon) * most_to_come(problem)[:-1],
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            log_constant=4.0 * n_states * n_actions * horizon / self.delta,
        )


@plan.implement(UCBHState)
def _(learner, episode):
    changed = learner.changed[0]
    learner.changed[0] = False
    return VISITED if changed else 0


@act.implement(UCBHState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(UCBHState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(UCBHState)
def _(learner, h, s):
    return (learner.q.shape[0] - h) * learner.reward_low + learner.reward_width * learner.value[h, s]


@observe.implement(UCBHState)
def _(learner, h, s, a, reward, s_next):
    q_here, value, horizon = learner.q[h], learner.value, learner.q.shape[0]
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    t = learner.visits[h, s, a] + 1
    learner.visits[h, s, a] = t
    rate = (horizon + 1.0) / (horizon + t)
    bonus = learner.factor[h] * math.sqrt(math.log(learner.log_constant * t * (t + 1.0)) / t)
    # The successor's value is still that of before the episode: a layer is updated before the one after it.
    q_here[s, a] = (1.0 - rate) * q_here[s, a] + rate * (unit + value[h + 1, s_next] + bonus)
    learner.changed[0] |= settle(q_here, value[h], learner.policy[h], s, float(horizon - h))
