# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-redef"
"""UCB-B: Q-learning with Bernstein bonuses (Jin, Allen-Zhu, Bubeck, Jordan 2018, Algorithm 2).

Q-learning as UCB-H, with a bonus that shrinks where the targets r + V_{h+1}(s') of a pair vary little. With beta_t the
bound on the weighted mean of the first t errors,

    beta_t = min{ (H - h) (H + 1) sqrt( l_t / ((4 H + 2) t) ),
                  sqrt( (H + 1)^2 l_t / ((H + 1/2) t) ) [ sqrt(t / (t - 1)) (sqrt(W_t) + sqrt(D_t / t))
                      + (H - h) sqrt(2 l_t / (t - 1)) ] + (H - h) (H + 1) l_t / (3 (H + t)) }    (t > 1: both)
    b_t    = (beta_t - (1 - alpha_t) beta_{t-1}) / alpha_t,    so that sum_i alpha_t^i b_i = beta_t,

W_t the empirical variance of the t targets, l_t = log(8 S A H t (t + 1) / delta), and D_t a bound, known in advance, on
what optimism itself adds to that variance; the documentation (page Q-learning) derives it and every constant. It is the
explicit form of the paper's c_1 (sqrt(H (W_t + H) i / t) + sqrt(H^7 S A) i / t) and c_2 sqrt(H^3 i / t); the paper's
beta_t is twice this one.

Deviations from the paper, beyond those of UCB-H: the variance is that of reward plus value, since rewards are random;
sqrt(D_t / t) is kept where the paper bounds it by sqrt(H) and a term of order 1 / t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.online._q_learning import bonus_factor, optimistic_tables, settle
from theoryrl.online._settings import require_level, require_scale
from theoryrl.online.verbs import VISITED, Problem, act, chance, frugal, observe, plan, upper_value


@frugal
class UCBBState(NamedTuple):
    """The table Q, what is greedy in it, and of every pair its visits and averages of its targets."""

    visits: NDArray[np.int64]  # (H, S, A)
    target_mean: NDArray[np.float64]  # (H, S, A)
    target_spread: NDArray[np.float64]  # (H, S, A) sum of squared deviations from the mean
    average: NDArray[np.float64]  # (H, S, A) sum over the visits of alpha_t^i times the target: Q without beta_t
    q: NDArray[np.float64]  # (H, S, A)
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    changed: NDArray[np.bool_]  # (1,) whether the policy is another than at the last plan
    drift: NDArray[np.float64]  # (H, 2) D_t = drift[h, 0] + drift[h, 1] sqrt(t l_t)
    factor: float  # (H + 1) / sqrt(4 H + 2)
    scale: float
    reward_low: float
    reward_width: float
    log_constant: float  # the union over pairs, layers and events, over delta


@dataclass(frozen=True)
class UCBB:
    """Settings of UCB-B.

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

    def init(self, problem: Problem) -> UCBBState:
        """A fresh state for one run; its size is 5 H S A numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        pairs = (horizon, n_states, n_actions)
        q, value, policy = optimistic_tables(problem)
        return UCBBState(
            visits=np.zeros(pairs, np.int64),
            target_mean=np.zeros(pairs),
            target_spread=np.zeros(pairs),
            average=np.zeros(pairs),
            q=q,
            value=value,
            policy=policy,
            changed=np.ones(1, np.bool_),
            drift=_drift(problem),
            factor=bonus_factor(horizon),
            scale=float(self.scale),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            log_constant=8.0 * n_states * n_actions * horizon / self.delta,
        )


def _drift(problem: Problem) -> NDArray[np.float64]:
    """The constants of D_t, (H - h - 1) times the bound on the sum of V - V* over the t successors of a pair.

    With e_j = (1 + 1/H)^(j - h - 1): (H - h - 1) S A sum_j (H - j) e_j and
    (H - h - 1) 4 (H + 1) / sqrt(4 H + 2) sqrt(S A) sum_j (H - j) sqrt(e_j), both over j = h + 1 .. H - 1.
    """
    horizon, pairs = problem.horizon, problem.n_states * problem.n_actions
    table = np.zeros((horizon, 2))
    for h in range(horizon):
        later = np.arange(h + 1, horizon)
        growth = (1 + 1 / horizon) ** (later - h - 1)
        table[h, 0] = (horizon - h - 1) * pairs * ((horizon - later) * growth).sum()
        root = ((horizon - later) * np.sqrt(growth)).sum()
        table[h, 1] = (horizon - h - 1) * 4 * bonus_factor(horizon) * math.sqrt(pairs) * root
    return table


@plan.implement(UCBBState)
def _(learner, episode):
    changed = learner.changed[0]
    learner.changed[0] = False
    return VISITED if changed else 0


@act.implement(UCBBState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(UCBBState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(UCBBState)
def _(learner, h, s):
    return (learner.q.shape[0] - h) * learner.reward_low + learner.reward_width * learner.value[h, s]


@observe.implement(UCBBState)
def _(learner, h, s, a, reward, s_next):
    q_here, value, horizon = learner.q[h], learner.value, learner.q.shape[0]
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    target = unit + value[h + 1, s_next]  # the successor's value is still that of before the episode
    t = learner.visits[h, s, a] + 1
    learner.visits[h, s, a] = t
    deviation = target - learner.target_mean[h, s, a]
    learner.target_mean[h, s, a] += deviation / t
    learner.target_spread[h, s, a] += deviation * (target - learner.target_mean[h, s, a])
    log, steps = math.log(learner.log_constant * t * (t + 1.0)), float(horizon - h)
    beta = steps * learner.factor * math.sqrt(log / t)
    if t > 1:
        drift = learner.drift[h, 0] + learner.drift[h, 1] * math.sqrt(t * log)
        deviations = math.sqrt(learner.target_spread[h, s, a] / (t - 1.0)) + math.sqrt(drift / (t - 1.0))
        root = 2.0 * learner.factor * math.sqrt(log / t) * (deviations + steps * math.sqrt(2.0 * log / (t - 1.0)))
        beta = min(beta, root + steps * (horizon + 1.0) * log / (3.0 * (horizon + t)))
    rate = (horizon + 1.0) / (horizon + t)
    average = (1.0 - rate) * learner.average[h, s, a] + rate * target
    learner.average[h, s, a] = average
    q_here[s, a] = average + learner.scale * beta  # the bonuses b_1 .. b_t, weighted, add up to beta_t
    learner.changed[0] |= settle(q_here, value[h], learner.policy[h], s, steps)
