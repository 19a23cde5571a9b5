"""UCBVI (Azar, Osband, Munos 2017): optimistic value iteration on the empirical model, replanned before every episode.

    Q_h(s, a) = min{ Q_h^old(s, a), H - h, r^(s, a) + sum_s' P^(s' | s, a) V_{h+1}(s') + b_h(s, a) },   V_h = max_a Q_h

with Q_h = H - h where (s, a) was never seen. Everything inside is in units of the reward range: (r - low) / width.

Deviations from the paper, each of which keeps or sharpens the guarantee: rewards are estimated, not known; the value at
layer h is capped at the H - h steps to go, not at H; the bonuses hold at every sample size at once, so that the number
of episodes need not be known; the constants are those of the proof in the documentation (page UCBVI), not the paper's
7 H L.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.online.verbs import Problem, act, chance, observe, plan, upper_value

# Empirical Bernstein bonus: max(B1 sqrt(variance l / n), B2 (H - h - 1) l / n), monotone in the value as B1^2 <= B2.
BERNSTEIN_ROOT = 10.0 / 3.0
BERNSTEIN_LINEAR = 35.0 / 3.0

# What observe keeps up to date about a pair: its visits, mean reward, unit bonus of the value, the linear part of that
# bonus and the bonus of the reward (these two for Bernstein alone).
VISITS, REWARD, BONUS, LINEAR, NOISE = range(5)


class UCBVIState(NamedTuple):
    """Counts, lists of observed successors, and the current optimistic plan.

    The leading axis G of the counters is 1 when layers are pooled (stationary dynamics), H otherwise.
    """

    visits: NDArray[np.int64]  # (G, S, A)
    reward_sum: NDArray[np.float64]  # (G, S, A)
    reward_square_sum: NDArray[np.float64]  # (G, S, A)
    estimate: NDArray[np.float64]  # (G, S, A, 5), columns as named above; side by side, as plan needs them all at once
    slot: NDArray[np.int32]  # (G, S, A, S): place of s' in the list of successors of (s, a), -1 if never seen
    n_successors: NDArray[np.int64]  # (G, S, A)
    successor: NDArray[np.uint32]  # (G, S, A, S)
    successor_count: NDArray[np.float64]  # (G, S, A, S)
    q: NDArray[np.float64]  # (H, S, A)
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    reward_low: float
    reward_width: float
    log_constant: float  # the union over pairs, layers and events, over delta
    scale: float
    bernstein: bool


@dataclass(frozen=True)
class UCBVI:
    """Settings of UCBVI.

    Parameters
    ----------
    delta : float in (0, 1)
        The guarantee (optimism, regret) fails with at most this probability.
    bonus : {"hoeffding", "bernstein"}
        b_h = (H - h) sqrt(l_n / (2 n)) with l_n = log(6 S A H n (n + 1) / delta); or the empirical Bernstein form, see
        the documentation.
    scale : float
        Multiplies the bonus. Anything but 1 gives up the proof: `provable` is then False.
    """

    delta: float = 0.05
    bonus: Literal["hoeffding", "bernstein"] = "hoeffding"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), not {self.delta!r}")
        if self.bonus not in ("hoeffding", "bernstein"):
            raise ValueError(f"bonus must be 'hoeffding' or 'bernstein', not {self.bonus!r}")
        if not (self.scale >= 0 and math.isfinite(self.scale)):
            raise ValueError(f"scale must be finite and not negative, not {self.scale!r}")

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem."""
        return self.scale == 1.0

    def init(self, problem: Problem) -> UCBVIState:
        """A fresh state for one run; its size is G * S * A * S numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        groups = 1 if problem.stationary else horizon
        pairs = (groups, n_states, n_actions)
        steps_to_go = np.arange(horizon, -1.0, -1.0)
        q = np.where(problem.action_mask, steps_to_go[:-1, np.newaxis, np.newaxis], -np.inf)
        events = 3 if self.bonus == "hoeffding" else 5
        return UCBVIState(
            visits=np.zeros(pairs, np.int64),
            reward_sum=np.zeros(pairs),
            reward_square_sum=np.zeros(pairs),
            estimate=np.zeros((*pairs, 5)),
            slot=np.full((*pairs, n_states), -1, np.int32),
            n_successors=np.zeros(pairs, np.int64),
            successor=np.zeros((*pairs, n_states), np.uint32),
            successor_count=np.zeros((*pairs, n_states)),
            q=np.ascontiguousarray(q),
            value=np.repeat(steps_to_go[:, np.newaxis], n_states, axis=1),
            policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            log_constant=2.0 * events * n_states * n_actions * horizon / self.delta,
            scale=float(self.scale),
            bernstein=self.bonus == "bernstein",
        )


@plan.implement(UCBVIState)
def _(learner, episode):
    # Everything hot is a local name and a slice of its layer: reading it through the learner costs more than the sums.
    table, values, bernstein = learner.q, learner.value, learner.bernstein
    horizon, n_states, n_actions = table.shape
    staged = learner.visits.shape[0] > 1
    changed = False
    for h in range(horizon - 1, -1, -1):
        g = h if staged else 0
        estimate, successor, count = learner.estimate[g], learner.successor[g], learner.successor_count[g]
        q_here, value_here, value_next, policy = table[h], values[h], values[h + 1], learner.policy[h]
        steps = float(horizon - h)
        for s in range(n_states):
            best, best_action = -math.inf, 0
            for a in range(n_actions):
                q = q_here[s, a]  # -inf if a is forbidden, and then it is never visited
                n = estimate[s, a, VISITS]
                if n > 0.0:
                    mean, left, i = 0.0, n, 0
                    while left > 0.0:  # the counts of the successors add up to n
                        mean += count[s, a, i] * value_next[successor[s, a, i]]
                        left -= count[s, a, i]
                        i += 1
                    mean /= n
                    known = estimate[s, a, REWARD] + mean
                    if bernstein:
                        linear = estimate[s, a, LINEAR] * (steps - 1.0)
                        target = known + (estimate[s, a, NOISE] + linear)
                        if target < q:  # only then can the variance, which adds to the target if anything, matter
                            variance = 0.0
                            for j in range(i):
                                deviation = value_next[successor[s, a, j]] - mean
                                variance += count[s, a, j] * deviation * deviation
                            root = estimate[s, a, BONUS] * math.sqrt(variance / n)
                            target = known + (estimate[s, a, NOISE] + max(root, linear))
                    else:
                        target = known + estimate[s, a, BONUS] * steps
                    if target < q:
                        q = target
                    q_here[s, a] = q
                if q > best:
                    best, best_action = q, a
            value_here[s] = best
            if policy[s] != best_action:
                policy[s] = best_action
                changed = True
    return changed


@act.implement(UCBVIState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(UCBVIState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(UCBVIState)
def _(learner, h, s):
    return (learner.q.shape[0] - h) * learner.reward_low + learner.reward_width * learner.value[h, s]


@observe.implement(UCBVIState)
def _(learner, h, s, a, reward, s_next):
    g = h if learner.visits.shape[0] > 1 else 0
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    n = learner.visits[g, s, a] + 1
    learner.visits[g, s, a] = n
    learner.reward_sum[g, s, a] += unit
    learner.reward_square_sum[g, s, a] += unit * unit
    mean = learner.reward_sum[g, s, a] / n
    place = learner.slot[g, s, a, s_next]
    if place < 0:
        place = learner.n_successors[g, s, a]
        learner.n_successors[g, s, a] = place + 1
        learner.slot[g, s, a, s_next] = place
        learner.successor[g, s, a, place] = s_next
    learner.successor_count[g, s, a, place] += 1.0
    log = math.log(learner.log_constant * n * (n + 1.0))
    estimate = learner.estimate
    estimate[g, s, a, VISITS] = n
    estimate[g, s, a, REWARD] = mean
    if learner.bernstein:
        estimate[g, s, a, BONUS] = learner.scale * BERNSTEIN_ROOT * math.sqrt(log / n)
        estimate[g, s, a, LINEAR] = learner.scale * BERNSTEIN_LINEAR * log / n
        variance = max(learner.reward_square_sum[g, s, a] / n - mean * mean, 0.0)
        reward_bonus = math.sqrt(4.0 * variance * log / n) + 14.0 * log / (3.0 * n)
        estimate[g, s, a, NOISE] = learner.scale * min(1.0, reward_bonus)
    else:
        estimate[g, s, a, BONUS] = learner.scale * math.sqrt(log / (2.0 * n))
