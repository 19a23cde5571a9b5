# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-redef"
"""EULER (Zanette, Brunskill 2019): optimism from Bernstein's inequality, corrected by the distance of two estimates.

Backwards over layers, from V_H = L_H = 0, with n the visits of (s, a), l_n = log(20 S A H n (n + 1) / delta),

    b = sqrt(2 l_n / (n - 1)) (std_P^(V_{h+1}) + |V_{h+1} - L_{h+1}|_{2, P^}) + 7 (H - h - 1) l_n / (3 (n - 1))
    c = min{1, sqrt(2 var^(r) l_n / (n - 1)) + 7 l_n / (3 (n - 1))}
    Q_h(s, a) = min{Q_h(s, a), H - h, r^ + c + P^ V_{h+1} + b},    V_h = max_a Q_h, attained by a*
    L_h(s) = max{L_h(s), 0, r^(s, a*) - c + P^ L_{h+1} - b}

in units of the reward range, so that L_h <= V*_h <= V_h. Pairs seen less than twice keep Q = H - h and add nothing to
L. Deviations from the paper: constants are those of our own proof (page EULER), made of Maurer and Pontil's empirical
Bernstein inequality at every sample size at once; the minimum and maximum with the last episode's tables are taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.online.ucbvi import check_settings
from theoryrl.online.verbs import Problem, act, chance, frugal, observe, plan, upper_value


@frugal
class EULERState(NamedTuple):
    """Counts, lists of observed successors, and both estimates; G is 1 for pooled counts, H otherwise."""

    visits: NDArray[np.int64]  # (G, S, A)
    reward_sum: NDArray[np.float64]  # (G, S, A)
    reward_square_sum: NDArray[np.float64]  # (G, S, A)
    slot: NDArray[np.int32]  # (G, S, A, S): place of s' in the list of successors of (s, a), -1 if never seen
    n_successors: NDArray[np.int64]  # (G, S, A)
    successor: NDArray[np.uint32]  # (G, S, A, S)
    successor_count: NDArray[np.float64]  # (G, S, A, S)
    root: NDArray[np.float64]  # (G, S, A) sqrt(2 l / (n - 1)), 0 until n >= 2
    rest: NDArray[np.float64]  # (G, S, A) 7 l / (3 (n - 1))
    mean: NDArray[np.float64]  # (G, S, A) of rewards
    noise: NDArray[np.float64]  # (G, S, A) the bonus of the reward
    q: NDArray[np.float64]  # (H, S, A)
    value: NDArray[np.float64]  # (H + 1, S), at least V*
    lower: NDArray[np.float64]  # (H + 1, S), at most V*
    policy: NDArray[np.int64]  # (H, S)
    reward_low: float
    reward_width: float
    log_constant: float
    scale: float


@dataclass(frozen=True)
class EULER:
    """Settings of EULER.

    Parameters
    ----------
    delta : float in (0, 1)
        The guarantee (both estimates on their sides of V*, regret) fails with at most this probability.
    scale : float
        Multiplies both bonuses. Anything but 1 gives up the proof: `provable` is then False.
    """

    delta: float = 0.05
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self.delta, "bernstein", self.scale, ("bernstein",))

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem."""
        return self.scale == 1.0

    def init(self, problem: Problem) -> EULERState:
        """A fresh state for one run; its size is G * S * A * S numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        pairs = (1 if problem.stationary else horizon, n_states, n_actions)
        steps_to_go = np.arange(horizon, -1.0, -1.0)
        q = np.where(problem.action_mask, steps_to_go[:-1, np.newaxis, np.newaxis], -np.inf)
        return EULERState(
            visits=np.zeros(pairs, np.int64),
            reward_sum=np.zeros(pairs),
            reward_square_sum=np.zeros(pairs),
            slot=np.full((*pairs, n_states), -1, np.int32),
            n_successors=np.zeros(pairs, np.int64),
            successor=np.zeros((*pairs, n_states), np.uint32),
            successor_count=np.zeros((*pairs, n_states)),
            root=np.zeros(pairs),
            rest=np.zeros(pairs),
            mean=np.zeros(pairs),
            noise=np.zeros(pairs),
            q=np.ascontiguousarray(q),
            value=np.repeat(steps_to_go[:, np.newaxis], n_states, axis=1),
            lower=np.zeros((horizon + 1, n_states)),
            policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            log_constant=20.0 * n_states * n_actions * horizon / self.delta,
            scale=float(self.scale),
        )


@plan.implement(EULERState)
def _(learner, episode):
    horizon, n_states, n_actions = learner.q.shape
    staged = learner.visits.shape[0] > 1
    changed = False
    for h in range(horizon - 1, -1, -1):
        g = h if staged else 0
        visits, successor, count = learner.visits[g], learner.successor[g], learner.successor_count[g]
        root, rest, reward, noise = learner.root[g], learner.rest[g], learner.mean[g], learner.noise[g]
        q_here, policy = learner.q[h], learner.policy[h]
        upper_here, upper, lower_here, lower = (
            learner.value[h],
            learner.value[h + 1],
            learner.lower[h],
            learner.lower[h + 1],
        )
        steps = float(horizon - h)
        for s in range(n_states):
            best, best_action, worst = -math.inf, 0, 0.0
            for a in range(n_actions):
                q, least = q_here[s, a], 0.0  # -inf if a is forbidden, and then it is never visited
                n = float(visits[s, a])
                if n >= 2.0:
                    mean, low_mean, distance, left, i = 0.0, 0.0, 0.0, n, 0
                    while left > 0.0:  # the counts of the successors add up to n
                        c, s_next = count[s, a, i], successor[s, a, i]
                        gap = upper[s_next] - lower[s_next]
                        mean += c * upper[s_next]
                        low_mean += c * lower[s_next]
                        distance += c * gap * gap
                        left -= c
                        i += 1
                    mean /= n
                    variance = 0.0
                    for j in range(i):
                        deviation = upper[successor[s, a, j]] - mean
                        variance += count[s, a, j] * deviation * deviation
                    bonus = noise[s, a] + (
                        root[s, a] * (math.sqrt(variance / n) + math.sqrt(distance / n)) + rest[s, a] * (steps - 1.0)
                    )
                    q = min(q, reward[s, a] + mean + bonus)
                    q_here[s, a] = q
                    least = reward[s, a] + low_mean / n - bonus
                if q > best:
                    best, best_action, worst = q, a, least
            upper_here[s] = best
            lower_here[s] = max(lower_here[s], worst)
            if policy[s] != best_action:
                policy[s] = best_action
                changed = True
    return changed


@act.implement(EULERState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(EULERState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(EULERState)
def _(learner, h, s):
    return (learner.q.shape[0] - h) * learner.reward_low + learner.reward_width * learner.value[h, s]


@observe.implement(EULERState)
def _(learner, h, s, a, reward, s_next):
    g = h if learner.visits.shape[0] > 1 else 0
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    n = learner.visits[g, s, a] + 1
    learner.visits[g, s, a] = n
    learner.reward_sum[g, s, a] += unit
    learner.reward_square_sum[g, s, a] += unit * unit
    place = learner.slot[g, s, a, s_next]
    if place < 0:
        place = learner.n_successors[g, s, a]
        learner.n_successors[g, s, a] = place + 1
        learner.slot[g, s, a, s_next] = place
        learner.successor[g, s, a, place] = s_next
    learner.successor_count[g, s, a, place] += 1.0
    if n >= 2:
        log = math.log(learner.log_constant * n * (n + 1.0))
        mean = learner.reward_sum[g, s, a] / n
        variance = max(learner.reward_square_sum[g, s, a] / n - mean * mean, 0.0)
        root, rest = math.sqrt(2.0 * log / (n - 1.0)), 7.0 * log / (3.0 * (n - 1.0))
        learner.mean[g, s, a] = mean
        learner.root[g, s, a] = learner.scale * root
        learner.rest[g, s, a] = learner.scale * rest
        learner.noise[g, s, a] = learner.scale * min(1.0, root * math.sqrt(variance) + rest)
