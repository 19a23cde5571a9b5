"""UCBVI (Azar, Osband, Munos 2017): optimistic value iteration on the empirical model, replanned before every episode.

    Q_h(s, a) = min{ Q_h^old(s, a), H - h, r^(s, a) + sum_s' P^(s' | s, a) V_{h+1}(s') + b_h(s, a) },   V_h = max_a Q_h

with Q_h = H - h where (s, a) was never seen. Everything inside is in units of the reward range: (r - low) / width.

Deviations from the paper, each of which keeps or sharpens the guarantee: rewards are estimated, not known; the value at
layer h is capped at the H - h steps to go, not at H; our own bonuses hold at every sample size at once, so that the
number of episodes need not be known, with the constants of the proof in the documentation (page UCBVI). The paper's
bonuses are "azar-ch" and "azar-bf". The first is wide enough to cover unknown rewards as well, the second is not: it
has no term for them, and comes without a theorem here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.online._settings import require_level
from theoryrl.online._ucbvi_kernels import (
    AZAR_BF,
    BERNSTEIN,
    BITS,
    BONUS,
    FRESH,
    LINEAR,
    NOISE,
    REWARD,
    VISITS,
    refresh,
    settle,
    sweep,
)
from theoryrl.online.verbs import Problem, act, chance, frugal, observe, plan, upper_value

REPLAN = ("always", "doubling")


@frugal
class UCBVIState(NamedTuple):
    """Counts, lists of observed successors, and the current optimistic plan.

    The leading axis G of the counters is 1 when layers are pooled (stationary dynamics), H otherwise.
    """

    visits: NDArray[np.int64]  # (G, S, A)
    reward_sum: NDArray[np.float64]  # (G, S, A)
    reward_square_sum: NDArray[np.float64]  # (G, S, A)
    estimate: NDArray[np.float64]  # (G, S, A, 5) as of the last plan, columns as in _ucbvi_kernels
    slot: NDArray[np.int32]  # (G, S, A, S): place of s' in the list of successors of (s, a), -1 if never seen
    n_successors: NDArray[np.int64]  # (G, S, A)
    successor: NDArray[np.uint32]  # (G, S, A, S)
    successor_count: NDArray[np.float64]  # (G, S, A, S)
    reads: NDArray[np.int64]  # (G, S, A): which values a backup of the pair reads, and whether it is fresh; bits
    planned: NDArray[np.int64]  # (G, S, A) visits at the last plan
    due: NDArray[np.bool_]  # (1,): some count has doubled since the last plan
    arrivals: NDArray[np.float64]  # (H + 1, S) visits of states per layer; zero unless the bonus needs them
    q: NDArray[np.float64]  # (H, S, A)
    value: NDArray[np.float64]  # (H + 1, S)
    policy: NDArray[np.int64]  # (H, S)
    reward_low: float
    reward_width: float
    log_constant: float  # inside the logarithm: what is united over, divided by delta
    scale: float
    kind: int  # of bonus, as in _ucbvi_kernels
    doubling: bool
    everywhere: NDArray[np.int64]  # (H,) of -1
    thorough: bool  # back up every pair seen, whether its inputs differ or not
    most: NDArray[np.float64]  # 100^2 H^3 S^2 A L^2 and H^2, for the paper's second bonus


BONUSES = ("hoeffding", "bernstein", "azar-ch", "azar-bf")


@dataclass(frozen=True)
class UCBVI:
    """Settings of UCBVI.

    Parameters
    ----------
    delta : float in (0, 1)
        The guarantee (optimism, regret) fails with at most this probability.
    bonus : {"hoeffding", "bernstein", "azar-ch", "azar-bf"}
        b_h = (H - h) sqrt(l_n / (2 n)) with l_n = log(6 S A H n (n + 1) / delta); or the empirical Bernstein form, see
        the documentation. The last two are the paper's own, with L = ln(5 S A T / delta), T = H episodes:
        7 H L sqrt(1 / n), and sqrt(8 L Var / n) + 14 H L / (3 n) + sqrt(8 sum P^ min{100^2 H^3 S^2 A L^2 / N', H^2} /
        n), N' the visits of the successor at the next layer.
    scale : float
        Multiplies the bonus. Anything but 1 gives up the proof: `provable` is then False.
    replan : {"always", "doubling"}
        Before every episode, or only when the visits of some pair have doubled since the last plan.
    episodes : int, optional
        The paper's bonuses, and no others, need the number of episodes to be played.
    """

    delta: float = 0.05
    bonus: Literal["hoeffding", "bernstein", "azar-ch", "azar-bf"] = "hoeffding"
    scale: float = 1.0
    replan: Literal["always", "doubling"] = "always"
    episodes: int | None = None

    def __post_init__(self) -> None:
        check_settings(self.delta, self.bonus, self.scale, BONUSES)
        if self.replan not in REPLAN:
            raise ValueError(f"replan must be 'always' or 'doubling', not {self.replan!r}")
        if self.bonus.startswith("azar") == (self.episodes is None):
            raise ValueError(f"episodes must be given for the paper's bonuses and for no other, not {self.episodes!r}")
        if self.episodes is not None:
            require_int(self.episodes, 1, "episodes")

    @property
    def provable(self) -> bool:
        """Whether a theorem covers these settings; "azar-bf" has none here, as its bonus assumes known rewards."""
        return self.scale == 1.0 and self.bonus != "azar-bf"

    def init(self, problem: Problem) -> UCBVIState:
        """A fresh state for one run; its size is G * S * A * S numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        groups = 1 if problem.stationary else horizon
        pairs = (groups, n_states, n_actions)
        steps_to_go = np.arange(horizon, -1.0, -1.0)
        q = np.where(problem.action_mask, steps_to_go[:-1, np.newaxis, np.newaxis], -np.inf)
        if self.episodes is None:
            union = 2.0 * (3 if self.bonus == "hoeffding" else 5) * n_states * n_actions * horizon
        else:
            union = 5.0 * n_states * n_actions * horizon * self.episodes
        return UCBVIState(
            visits=np.zeros(pairs, np.int64),
            reward_sum=np.zeros(pairs),
            reward_square_sum=np.zeros(pairs),
            estimate=np.zeros((*pairs, 5)),
            slot=np.full((*pairs, n_states), -1, np.int32),
            n_successors=np.zeros(pairs, np.int64),
            successor=np.zeros((*pairs, n_states), np.uint32),
            successor_count=np.zeros((*pairs, n_states)),
            reads=np.zeros(pairs, np.int64),
            planned=np.zeros(pairs, np.int64),
            due=np.zeros(1, np.bool_),
            arrivals=np.zeros((horizon + 1, n_states)),
            q=np.ascontiguousarray(q),
            value=np.repeat(steps_to_go[:, np.newaxis], n_states, axis=1),
            policy=np.tile(np.argmax(problem.action_mask, axis=1), (horizon, 1)),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            log_constant=union / self.delta,
            scale=float(self.scale),
            kind=BONUSES.index(self.bonus),
            doubling=self.replan == "doubling",
            everywhere=np.full(horizon, -1),
            # With pooled counts most pairs read something that differs, and telling costs more than it saves.
            thorough=problem.stationary,
            most=np.array([1e4 * horizon**3 * n_states**2 * n_actions * math.log(union / self.delta) ** 2, horizon**2]),
        )


def check_settings(delta: float, bonus: str, scale: float, bonuses: tuple[str, ...]) -> None:
    """Raise ValueError if a setting is out of its range."""
    require_level(delta)
    if bonus not in bonuses:
        raise ValueError(f"bonus must be one of {', '.join(map(repr, bonuses))}, not {bonus!r}")
    if not (scale >= 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be finite and not negative, not {scale!r}")


@plan.implement(UCBVIState)
def _(learner, episode):
    if learner.doubling and not learner.due[0]:
        return False
    learner.due[0] = False
    # Everything hot is a local name and a slice of its layer: reading it through the learner costs more than the sums.
    table, values, bernstein = learner.q, learner.value, learner.kind == BERNSTEIN
    horizon, n_states, n_actions = table.shape
    groups, thorough = learner.visits.shape[0], learner.thorough
    refresh(
        learner.estimate,
        learner.reads,
        learner.planned,
        learner.visits,
        learner.reward_sum,
        learner.reward_square_sum,
        learner.kind,
        learner.log_constant,
        learner.scale,
        horizon,
    )
    if learner.kind == AZAR_BF:
        settle(learner.reads)
        return sweep(
            learner.everywhere,
            learner.estimate,
            learner.successor,
            learner.successor_count,
            learner.arrivals,
            table,
            values,
            learner.policy,
            AZAR_BF,
            learner.most,
        )
    changed = False
    moved = 0  # bits of the states whose value fell at the layer after
    for h in range(horizon - 1, -1, -1):
        g = h if groups > 1 else 0
        estimate, successor, count = learner.estimate[g], learner.successor[g], learner.successor_count[g]
        reads, policy = learner.reads[g], learner.policy[h]
        q_here, value_here, value_next = table[h], values[h], values[h + 1]
        steps = float(horizon - h)
        # A backup whose inputs stand as they were gives what Q is already: it is left out, and no bit of Q differs.
        stale = FRESH | moved
        moved = 0
        for s in range(n_states):
            best, best_action = -math.inf, 0
            for a in range(n_actions):
                q = q_here[s, a]  # -inf if a is forbidden, and then it reads nothing
                n = estimate[s, a, VISITS]
                if n > 0.0 and (thorough or reads[s, a] & stale):
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
                        target = known + (estimate[s, a, BONUS] * steps + estimate[s, a, NOISE])
                    if target < q:
                        q = target
                    q_here[s, a] = q
                if q > best:
                    best, best_action = q, a
            if not thorough and best < value_here[s]:
                moved |= 1 << (s & BITS)
            value_here[s] = best
            if policy[s] != best_action:
                policy[s] = best_action
                changed = True
    settle(learner.reads)
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
    place = learner.slot[g, s, a, s_next]
    if place < 0:
        place = learner.n_successors[g, s, a]
        learner.n_successors[g, s, a] = place + 1
        learner.slot[g, s, a, s_next] = place
        learner.successor[g, s, a, place] = s_next
    learner.successor_count[g, s, a, place] += 1.0
    learner.reads[g, s, a] |= FRESH | 1 << (s_next & BITS)
    if n >= 2 * learner.planned[g, s, a]:
        learner.due[0] = True
    if learner.kind == AZAR_BF:
        learner.arrivals[h + 1, s_next] += 1.0
