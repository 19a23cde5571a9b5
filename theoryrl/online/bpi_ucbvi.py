# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-redef"
"""BPI-UCBVI (Menard, Domingues, Jonsson, Kaufmann, Leurent, Valko 2021): stop, and name a nearly optimal policy.

With x = P^(V+ - V-), b = rho_n + sqrt(8 Var(V+) l_n / n) + W (2 H l_n + 3 beta_n) / n + x / H and W = H - h - 1:

    Q+_h = min{H - h, r^ + P^ V+_{h+1} + b},   Q-_h = max{0, r^ + P^ V-_{h+1} - b},   V+- = max_a Q+-_h,
    G_h  = min{H - h, 2 rho_n + 2 sqrt(8 Var(V+) l_n / n) + W (4 H l_n + (H + 9) beta_n) / n + (1 + 3/H) P^ G_{h+1}},

G_{h+1}(s') that of the action played, greedy for Q+. It plays the greedy policy until the bound on its loss at the
start is at most epsilon, and recommends it. Everything inside is in units of the reward range.

    l_n = log(10 S A H n (n+1) / delta),  beta_n = l_n + log C(n+S-1, S-1),  rho_n = sqrt(l_n / (2 n))

Deviations from the paper, each covered by the proof in the documentation (page Identification): rewards are estimated,
not known; the initial distribution is arbitrary and unknown (the mean of G_0 over it is bounded from the
frequencies of k episodes); thresholds count histograms exactly where the paper bounds their number; smaller constants
(8 for 9, W (2 H l + 3 beta) for 14 H^2 beta); the cap at layer h is H - h; counts are pooled over
layers if the dynamics are stationary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.online._counting import ERROR, bound_over_starts, count_start, count_step
from theoryrl.online._settings import require_level
from theoryrl.online.verbs import Problem, act, chance, observe, plan, stopped, upper_value

# What observe keeps up to date about a pair: visits, mean reward, rho_n, sqrt(8 l_n / n) and the terms in W of Q and G.
VISITS, REWARD, NOISE, ROOT, LINEAR, LINEAR_GAP = range(6)


class BPIUCBVIState(NamedTuple):
    """Counts, bounds on the optimal value and on the loss of the current policy.

    The leading axis G of the counters is 1 when layers are pooled (stationary dynamics), H otherwise.
    """

    visits: NDArray[np.int64]  # (G, S, A)
    reward_sum: NDArray[np.float64]  # (G, S, A)
    histograms: NDArray[np.float64]  # (G, S, A) log C(n + S - 1, S - 1)
    estimate: NDArray[np.float64]  # (G, S, A, 6), columns as named above
    slot: NDArray[np.int32]  # (G, S, A, S)
    n_successors: NDArray[np.int64]  # (G, S, A)
    successor: NDArray[np.uint32]  # (G, S, A, S)
    successor_count: NDArray[np.float64]  # (G, S, A, S)
    starts: NDArray[np.float64]  # (S,)
    about_start: NDArray[np.float64]  # (3,)
    upper: NDArray[np.float64]  # (H + 1, S)
    lower: NDArray[np.float64]  # (H + 1, S)
    gap: NDArray[np.float64]  # (H + 1, S) of the action played
    policy: NDArray[np.int64]  # (H, S)
    action_mask: NDArray[np.bool_]
    reward_low: float
    reward_width: float
    pair_constant: float  # 10 S A H / delta
    start_constant: float  # log(5 / delta)
    epsilon: float
    scale: float


@dataclass(frozen=True)
class BPIUCBVI:
    """Settings of BPI-UCBVI.

    Parameters
    ----------
    epsilon : float, positive, in units of reward
        How much the recommended policy may lose at the initial distribution.
    delta : float in (0, 1)
        The recommendation is worse, or comes later than the bound says, with at most this probability.
    scale : float
        Multiplies every width. Anything but 1 gives up the proof: `provable` is then False.
    """

    epsilon: float = 0.1
    delta: float = 0.05
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_identification(self.epsilon, self.delta, self.scale)

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem."""
        return self.scale == 1.0

    def init(self, problem: Problem) -> BPIUCBVIState:
        """A fresh state for one run; its size is G * S * A * S numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        pairs = (1 if problem.stationary else horizon, n_states, n_actions)
        steps_to_go = np.repeat(np.arange(horizon, -1.0, -1.0)[:, np.newaxis], n_states, axis=1)
        return BPIUCBVIState(
            visits=np.zeros(pairs, np.int64),
            reward_sum=np.zeros(pairs),
            histograms=np.zeros(pairs),
            estimate=np.zeros((*pairs, 6)),
            slot=np.full((*pairs, n_states), -1, np.int32),
            n_successors=np.zeros(pairs, np.int64),
            successor=np.zeros((*pairs, n_states), np.uint32),
            successor_count=np.zeros((*pairs, n_states)),
            starts=np.zeros(n_states),
            about_start=np.array([0.0, 0.0, np.inf]),
            upper=steps_to_go.copy(),
            lower=np.zeros((horizon + 1, n_states)),
            gap=steps_to_go.copy(),
            policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
            action_mask=np.ascontiguousarray(problem.action_mask),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            pair_constant=10.0 * n_states * n_actions * horizon / self.delta,
            start_constant=math.log(5.0 / self.delta),
            epsilon=float(self.epsilon),
            scale=float(self.scale),
        )

    def recommend(self, state: Any) -> NDArray[np.int64]:
        """The policy (H, S) that the learner stands for now."""
        return np.array(state.policy)


def check_identification(epsilon: float, delta: float, scale: float) -> None:
    """Refuse settings out of range.

    Raises
    ------
    ValueError
        The setting is named.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be positive and finite, not {epsilon!r}")
    require_level(delta)
    if not (scale >= 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be finite and not negative, not {scale!r}")


@plan.implement(BPIUCBVIState)
def _(learner, episode):
    uppers, lowers, gaps, mask = learner.upper, learner.lower, learner.gap, learner.action_mask
    horizon, n_states = learner.policy.shape
    n_actions = mask.shape[1]
    staged = learner.visits.shape[0] > 1
    changed = False
    for h in range(horizon - 1, -1, -1):
        g = h if staged else 0
        estimate, successor, count = learner.estimate[g], learner.successor[g], learner.successor_count[g]
        upper_next, lower_next, gap_next, policy = uppers[h + 1], lowers[h + 1], gaps[h + 1], learner.policy[h]
        steps = float(horizon - h)
        for s in range(n_states):
            best, best_action, best_lower, best_root = -math.inf, 0, 0.0, 0.0
            for a in range(n_actions):
                if not mask[s, a]:
                    continue
                upper, lower, root = steps, 0.0, 0.0
                n = estimate[s, a, VISITS]
                if n > 0.0:
                    mean, mean_low, square, left, i = 0.0, 0.0, 0.0, n, 0
                    while left > 0.0:  # the counts of the successors add up to n
                        mean += count[s, a, i] * upper_next[successor[s, a, i]]
                        mean_low += count[s, a, i] * lower_next[successor[s, a, i]]
                        left -= count[s, a, i]
                        i += 1
                    mean /= n
                    mean_low /= n
                    for j in range(i):
                        deviation = upper_next[successor[s, a, j]] - mean
                        square += count[s, a, j] * deviation * deviation
                    root = estimate[s, a, ROOT] * math.sqrt(square / n)
                    bonus = estimate[s, a, NOISE] + root + estimate[s, a, LINEAR] * (steps - 1.0)
                    bonus += (mean - mean_low) / horizon
                    upper = min(steps, estimate[s, a, REWARD] + mean + bonus)
                    lower = max(0.0, estimate[s, a, REWARD] + mean_low - bonus)
                if upper > best:
                    best, best_action, best_root = upper, a, root
                best_lower = max(best_lower, lower)
            a, loss = best_action, steps
            n = estimate[s, a, VISITS]
            if n > 0.0:
                mean, left, i = 0.0, n, 0
                while left > 0.0:
                    mean += count[s, a, i] * gap_next[successor[s, a, i]]
                    left -= count[s, a, i]
                    i += 1
                width = 2.0 * (estimate[s, a, NOISE] + best_root) + estimate[s, a, LINEAR_GAP] * (steps - 1.0)
                loss = min(steps, width + (1.0 + 3.0 / horizon) * (mean / n))
            uppers[h, s], lowers[h, s], gaps[h, s] = best, best_lower, loss
            if policy[s] != a:
                policy[s] = a
                changed = True
    learner.about_start[ERROR] = bound_over_starts(
        learner.starts, learner.about_start, gaps[0], float(horizon), learner.start_constant, learner.scale
    )
    return changed


@stopped.implement(BPIUCBVIState)
def _(learner):
    return learner.about_start[ERROR] * learner.reward_width <= learner.epsilon


@act.implement(BPIUCBVIState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(BPIUCBVIState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(BPIUCBVIState)
def _(learner, h, s):
    return (learner.policy.shape[0] - h) * learner.reward_low + learner.reward_width * learner.upper[h, s]


@observe.implement(BPIUCBVIState)
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
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    learner.reward_sum[g, s, a] += unit
    horizon = float(learner.policy.shape[0])
    log = math.log(learner.pair_constant * n * (n + 1.0))
    rate, full_rate = log / n, (log + learner.histograms[g, s, a]) / n
    estimate = learner.estimate
    estimate[g, s, a, VISITS] = n
    estimate[g, s, a, REWARD] = learner.reward_sum[g, s, a] / n
    estimate[g, s, a, NOISE] = learner.scale * math.sqrt(rate / 2.0)
    estimate[g, s, a, ROOT] = learner.scale * math.sqrt(8.0 * rate)
    estimate[g, s, a, LINEAR] = learner.scale * (2.0 * horizon * rate + 3.0 * full_rate)
    estimate[g, s, a, LINEAR_GAP] = learner.scale * (4.0 * horizon * rate + (horizon + 9.0) * full_rate)
