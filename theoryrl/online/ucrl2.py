# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs, disable-error-code="no-redef"
"""UCRL2 (Jaksch, Ortner, Auer 2010) for a finite horizon: plan in the most favourable plausible model, once per phase.

    Q_h(s, a) = min{1, r^(s, a) + b(n)} + max{ p V_{h+1} : p a distribution, |p - P^(. | s, a)|_1 <= d(n) },
    b(n) = sqrt(log(6 G S A n (n+1) / delta) / (2 n)),   d(n) = sqrt(2 (S log 2 + log(3 G S A n (n+1) / delta)) / n),

V_h = max_a Q_h, and any p with reward 1 where (s, a) was never seen. Everything inside is in units of the reward range.
A phase (the paper's episode) ends with the first episode by whose end some pair was visited in the phase as often as
in all phases before it, at least once; the plan and the counts in it stand still within a phase.

Deviations from the paper: extended value iteration is H backups from V_H = 0, so that nothing is left to converge; a
phase ends at the end of an episode, not in its middle; the confidence sets hold at every sample size at once, with the
constants of the proof in the documentation (page UCRL2), below the paper's 7/2 and 14; under time-varying dynamics
there is one count per layer (G = H, else G = 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel
from theoryrl.online._settings import require_level, require_scale
from theoryrl.online.verbs import Problem, act, chance, observe, plan, upper_value


class UCRL2State(NamedTuple):
    """Counts and the plan of the current phase.

    The leading axis G of the counters is 1 when layers are pooled (stationary dynamics), H otherwise.
    """

    visits: NDArray[np.int64]  # (G, S, A)
    reward_sum: NDArray[np.float64]  # (G, S, A)
    successor_count: NDArray[np.float64]  # (G, S, A, S)
    phase_visits: NDArray[np.int64]  # (G, S, A) visits before the current phase
    phases: NDArray[np.int64]  # (2,) phases so far; whether the current one is over
    q: NDArray[np.float64]  # (H, S, A); -inf where the action is forbidden
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    action_mask: NDArray[np.bool_]  # (S, A)
    reward_low: float
    reward_width: float
    pairs_over_delta: float  # G S A / delta
    scale: float


@dataclass(frozen=True)
class UCRL2:
    """Settings of UCRL2.

    Parameters
    ----------
    delta : float in (0, 1)
        The guarantee (optimism, regret) fails with at most this probability.
    scale : float
        Multiplies both radii. Anything but 1 gives up the proof: `provable` is then False.
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

    def init(self, problem: Problem) -> UCRL2State:
        """A fresh state for one run; its size is G * S * A * S numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        groups = 1 if problem.stationary else horizon
        pairs = (groups, n_states, n_actions)
        return UCRL2State(
            visits=np.zeros(pairs, np.int64),
            reward_sum=np.zeros(pairs),
            successor_count=np.zeros((*pairs, n_states)),
            phase_visits=np.zeros(pairs, np.int64),
            phases=np.array([0, 1]),
            q=np.full((horizon, n_states, n_actions), -np.inf),
            value=np.zeros((horizon + 1, n_states)),
            policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
            action_mask=np.array(problem.action_mask),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            pairs_over_delta=groups * n_states * n_actions / self.delta,
            scale=float(self.scale),
        )


@kernel("strict")
def best_expectation(count, n, radius, value, order):
    """max{p v : |p - count / n|_1 <= radius}, p a distribution; `order` lists the states from best to worst.

    Half the radius is moved to the best state, away from the worst ones that have any mass. Nothing is written.
    """
    best = order[0]
    moved = min(0.5 * radius, 1.0 - count[best] / n)
    total = moved * value[best]
    left = moved
    for i in range(order.shape[0] - 1, -1, -1):
        s = order[i]
        mass = count[s] / n
        if s != best:
            taken = min(mass, left)
            left -= taken
            mass -= taken
        total += mass * value[s]
    return total


@plan.implement(UCRL2State)
def _(learner, episode):
    if learner.phases[1] == 0:
        return False
    learner.phases[0] += 1
    learner.phases[1] = 0
    learner.phase_visits[:] = learner.visits
    table, values, mask, scale = learner.q, learner.value, learner.action_mask, learner.scale
    horizon, n_states, n_actions = table.shape
    staged = learner.visits.shape[0] > 1
    changed = False
    for h in range(horizon - 1, -1, -1):
        g = h if staged else 0
        visits, reward_sum, count = learner.visits[g], learner.reward_sum[g], learner.successor_count[g]
        q_here, value_here, value_next, policy = table[h], values[h], values[h + 1], learner.policy[h]
        order = np.argsort(-value_next, kind="mergesort")  # stable, compiled or not
        for s in range(n_states):
            best, best_action = -math.inf, 0
            for a in range(n_actions):
                if mask[s, a]:
                    n = float(visits[s, a])
                    q = 1.0 + value_next[order[0]]
                    if n > 0.0:
                        log = math.log(3.0 * learner.pairs_over_delta * n * (n + 1.0))
                        bonus = scale * math.sqrt((log + math.log(2.0)) / (2.0 * n))
                        radius = scale * math.sqrt(2.0 * (n_states * math.log(2.0) + log) / n)
                        reward = min(1.0, reward_sum[s, a] / n + bonus)
                        q = reward + best_expectation(count[s, a], n, radius, value_next, order)
                    q_here[s, a] = q
                    if q > best:
                        best, best_action = q, a
            value_here[s] = best
            if policy[s] != best_action:
                policy[s] = best_action
                changed = True
    return changed


@act.implement(UCRL2State)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(UCRL2State)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(UCRL2State)
def _(learner, h, s):
    return (learner.q.shape[0] - h) * learner.reward_low + learner.reward_width * learner.value[h, s]


@observe.implement(UCRL2State)
def _(learner, h, s, a, reward, s_next):
    g = h if learner.visits.shape[0] > 1 else 0
    learner.visits[g, s, a] += 1
    learner.reward_sum[g, s, a] += (
        (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    )
    learner.successor_count[g, s, a, s_next] += 1.0
    before = learner.phase_visits[g, s, a]
    if learner.visits[g, s, a] - before >= max(1, before):
        learner.phases[1] = 1
