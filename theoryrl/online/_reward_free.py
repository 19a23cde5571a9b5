# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-redef"
"""What RF-UCRL and RF-Express share: they play greedily for a bound on the error of the empirical model.

    E_h(s, a) = min{H - h - 1, c_h w_n(s, a) + q sum_s' P^(s' | s, a) max_b E_{h+1}(s', b)},   E_{H-1} = 0

with the width w_n, the layer's factor c_h and the growth q of each; H - h - 1 where (s, a) was never seen.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.online._counting import ERROR, bound_over_starts, count_start, count_step, empirical_transition
from theoryrl.online.verbs import Problem, act, chance, observe, plan, stopped, upper_value


class RewardFreeState(NamedTuple):
    """Counts and the bound on the error of what the empirical model says of any policy under any reward."""

    visits: NDArray[np.int64]  # (G, S, A), G = 1 when layers are pooled, else H
    histograms: NDArray[np.float64]  # (G, S, A) log C(n + S - 1, S - 1)
    width: NDArray[np.float64]  # (G, S, A)
    slot: NDArray[np.int32]  # (G, S, A, S)
    n_successors: NDArray[np.int64]  # (G, S, A)
    successor: NDArray[np.uint32]  # (G, S, A, S)
    successor_count: NDArray[np.float64]  # (G, S, A, S)
    starts: NDArray[np.float64]  # (S,)
    about_start: NDArray[np.float64]  # (3,)
    error: NDArray[np.float64]  # (H, S) max over actions
    policy: NDArray[np.int64]  # (H, S)
    action_mask: NDArray[np.bool_]
    factor: NDArray[np.float64]  # (H,)
    growth: float
    root: bool  # whether the width is a root of beta_n / n, or that itself times `weight`
    weight: float
    pair_constant: float  # log(3 G S A / delta)
    start_constant: float  # log(3 / delta)
    target: float  # stop when the bound at the start is at most this
    scale: float


def reward_free_state(
    problem: Problem,
    delta: float,
    *,
    factor: NDArray[np.float64],
    growth: float,
    root: bool,
    weight: float,
    target: float,
    scale: float,
) -> RewardFreeState:
    """A fresh state; its size is G * S * A * S numbers."""
    n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
    groups = 1 if problem.stationary else horizon
    pairs = (groups, n_states, n_actions)
    return RewardFreeState(
        visits=np.zeros(pairs, np.int64),
        histograms=np.zeros(pairs),
        width=np.zeros(pairs),
        slot=np.full((*pairs, n_states), -1, np.int32),
        n_successors=np.zeros(pairs, np.int64),
        successor=np.zeros((*pairs, n_states), np.uint32),
        successor_count=np.zeros((*pairs, n_states)),
        starts=np.zeros(n_states),
        about_start=np.array([0.0, 0.0, np.inf]),
        error=np.zeros((horizon, n_states)),
        policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
        action_mask=np.ascontiguousarray(problem.action_mask),
        factor=np.ascontiguousarray(factor),
        growth=float(growth),
        root=bool(root),
        weight=float(weight),
        pair_constant=math.log(3.0 * groups * n_states * n_actions / delta),
        start_constant=math.log(3.0 / delta),
        target=float(target),
        scale=float(scale),
    )


def empirical_model(state: Any) -> NDArray[np.float64]:
    """Frequencies of the successors, (S, A, S) if layers are pooled, else (H, S, A, S)."""
    table = empirical_transition(state.visits, state.n_successors, state.successor, state.successor_count)
    return table[0] if len(table) == 1 else table


@plan.implement(RewardFreeState)
def _(learner, episode):
    errors, mask, growth = learner.error, learner.action_mask, learner.growth
    horizon, n_states = learner.policy.shape
    n_actions = mask.shape[1]
    staged = learner.visits.shape[0] > 1
    changed = False
    for h in range(horizon - 2, -1, -1):  # what follows the last reward is of no interest
        g = h if staged else 0
        visits, width = learner.visits[g], learner.width[g]
        successor, count = learner.successor[g], learner.successor_count[g]
        error_next, policy, factor, most = errors[h + 1], learner.policy[h], learner.factor[h], horizon - h - 1.0
        for s in range(n_states):
            best, best_action = -math.inf, 0
            for a in range(n_actions):
                if not mask[s, a]:
                    continue
                error, n = most, float(visits[s, a])
                if n > 0.0:
                    mean, left, i = 0.0, n, 0
                    while left > 0.0:  # the counts of the successors add up to n
                        mean += count[s, a, i] * error_next[successor[s, a, i]]
                        left -= count[s, a, i]
                        i += 1
                    error = min(most, factor * width[s, a] + growth * (mean / n))
                if error > best:
                    best, best_action = error, a
            errors[h, s] = best
            if policy[s] != best_action:
                policy[s] = best_action
                changed = True
    learner.about_start[ERROR] = bound_over_starts(
        learner.starts, learner.about_start, errors[0], horizon - 1.0, learner.start_constant, learner.scale
    )
    return changed


@stopped.implement(RewardFreeState)
def _(learner):
    return learner.about_start[ERROR] <= learner.target


@act.implement(RewardFreeState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(RewardFreeState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(RewardFreeState)
def _(learner, h, s):
    return math.inf


@observe.implement(RewardFreeState)
def _(learner, h, s, a, reward, s_next):
    g = h if learner.visits.shape[0] > 1 else 0
    if h == 0:
        count_start(learner.starts, learner.about_start, s)
    n = count_step(
        learner.visits,
        learner.slot,
        learner.n_successors,
        learner.successor,
        learner.successor_count,
        learner.histograms,
        g,
        s,
        a,
        s_next,
    )
    rate = (learner.pair_constant + learner.histograms[g, s, a]) / n
    learner.width[g, s, a] = learner.scale * (math.sqrt(rate / 2.0) if learner.root else learner.weight * rate)
