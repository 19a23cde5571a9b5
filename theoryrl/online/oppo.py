# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-redef"
"""OPPO: optimistic proximal policy optimisation, tabular (Cai, Yang, Jin, Wang 2020; Shani, Efroni et al. 2020).

Before episode k the policy takes a mirror ascent step (not before the first) and is evaluated, optimistically, on the
empirical model:

    pi_h(a | s) proportional to pi_h(a | s) exp(eta Q_h(s, a)),    eta = sqrt(2 log A / (H^2 K))
    Q_h(s, a) = min{ H - h, r^(s, a) + sum_s' P^(s' | s, a) V_{h+1}(s') + b_h(s, a) }
    V_h(s)    = sum_a pi_h(a | s) Q_h(s, a)
    b_h(s, a) = (H - h) sqrt( (S log 2 + l_n) / (2 n) ),    l_n = log(4 S A H n (n + 1) / delta)

with Q_h = H - h where (s, a) was never seen, starting from the uniform policy. Everything inside is in units of the
reward range: (r - low) / width. Rewards are random with a fixed law, the stochastic setting of Shani et al., Section 5
(with costs there, hence the opposite signs).

Deviations from the papers, each of which keeps or sharpens the guarantee: one bonus for reward and transition together,
with the constants of the proof in the documentation (page OPPO); it holds at every sample size at once; the cap at
layer h is H - h; where the model is stationary all layers share their counts. K enters the learning rate alone: a run
may be shorter or longer, and the bound says what that costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel
from theoryrl.mdp._checks import require_int
from theoryrl.online._q_learning import optimistic_tables
from theoryrl.online._settings import require_level, require_scale
from theoryrl.online.verbs import Problem, act, chance, frugal, observe, plan, upper_value


@frugal
class OPPOState(NamedTuple):
    """Counts, lists of observed successors, the policy, and its optimistic evaluation.

    The leading axis G of the counters is 1 when layers are pooled (stationary dynamics), H otherwise.
    """

    visits: NDArray[np.int64]  # (G, S, A)
    reward_sum: NDArray[np.float64]  # (G, S, A)
    reward: NDArray[np.float64]  # (G, S, A) the mean
    bonus: NDArray[np.float64]  # (G, S, A) b_h / (H - h)
    slot: NDArray[np.int32]  # (G, S, A, S): place of s' in the list of successors of (s, a), -1 if never seen
    n_successors: NDArray[np.int64]  # (G, S, A)
    successor: NDArray[np.uint32]  # (G, S, A, S)
    successor_count: NDArray[np.float64]  # (G, S, A, S)
    preference: NDArray[np.float64]  # (H, S, A) sum over episodes of eta (Q - max_a Q): the policy is its softmax
    policy: NDArray[np.float64]  # (H, S, A)
    q: NDArray[np.float64]  # (H, S, A)
    value: NDArray[np.float64]  # (H + 1, S)
    eta: float
    reward_low: float
    reward_width: float
    log_constant: float  # the union over pairs, layers and events, over delta
    log_values: float  # S log 2: the union over the vertices of the cube of values
    scale: float


@dataclass(frozen=True)
class OPPO:
    """Settings of OPPO.

    Parameters
    ----------
    episodes : int, at least 1
        K, the number of episodes that the learning rate is tuned for.
    delta : float in (0, 1)
        The guarantee (optimism, regret) fails with at most this probability.
    scale : float
        Multiplies the bonus. Anything but 1 gives up the proof: `provable` is then False.
    eta : float, at least 0, optional
        Learning rate; default sqrt(2 log A / (H^2 K)). Any other has another bound: `provable` is then False.
    """

    episodes: int
    delta: float = 0.05
    scale: float = 1.0
    eta: float | None = None

    def __post_init__(self) -> None:
        require_int(self.episodes, 1, "episodes")
        require_level(self.delta)
        require_scale(self.scale)
        if self.eta is not None and not (self.eta >= 0 and math.isfinite(self.eta)):
            raise ValueError(f"eta must be finite and not negative, not {self.eta!r}")

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem."""
        return self.scale == 1.0 and self.eta is None

    def init(self, problem: Problem) -> OPPOState:
        """A fresh state for one run; its size is G * S * A * S numbers."""
        n_states, n_actions, horizon = problem.n_states, problem.n_actions, problem.horizon
        pairs = (1 if problem.stationary else horizon, n_states, n_actions)
        q, value, _ = optimistic_tables(problem)
        uniform = problem.action_mask / problem.action_mask.sum(axis=1, keepdims=True)
        return OPPOState(
            visits=np.zeros(pairs, np.int64),
            reward_sum=np.zeros(pairs),
            reward=np.zeros(pairs),
            bonus=np.zeros(pairs),
            slot=np.full((*pairs, n_states), -1, np.int32),
            n_successors=np.zeros(pairs, np.int64),
            successor=np.zeros((*pairs, n_states), np.uint32),
            successor_count=np.zeros((*pairs, n_states)),
            preference=np.where(np.isfinite(q), 0.0, -np.inf),
            policy=np.array(np.broadcast_to(uniform, q.shape)),
            q=q,
            value=value,
            eta=learning_rate(self.episodes, n_actions, horizon) if self.eta is None else float(self.eta),
            reward_low=float(problem.reward_low),
            reward_width=float(problem.reward_high - problem.reward_low),
            log_constant=4.0 * n_states * n_actions * horizon / self.delta,
            log_values=n_states * math.log(2.0),
            scale=float(self.scale),
        )


def learning_rate(episodes: float, n_actions: int, horizon: int) -> float:
    """The papers' step sqrt(2 log A / (H^2 K)), for rewards in [0, 1]."""
    return math.sqrt(2.0 * math.log(n_actions) / (horizon**2 * episodes))


@kernel("strict")
def _improve(preference, policy, q, eta):
    """One mirror ascent step in one state, (A,) each; returns whether the policy may be another one."""
    n_actions = q.shape[0]
    best, worst = -math.inf, math.inf
    for a in range(n_actions):
        if q[a] > best:
            best = q[a]
        if -math.inf < q[a] < worst:
            worst = q[a]
    if best == worst or eta == 0.0:  # then nothing would be added: so it is everywhere before the first episode
        return False
    top = -math.inf
    for a in range(n_actions):
        if q[a] > -math.inf:
            preference[a] += eta * (q[a] - best)
            top = max(top, preference[a])
    total = 0.0
    for a in range(n_actions):
        policy[a] = math.exp(preference[a] - top)  # 0 where forbidden
        total += policy[a]
    for a in range(n_actions):
        policy[a] /= total
    return True


@plan.implement(OPPOState)
def _(learner, episode):
    # Everything hot is a local name and a slice of its layer: reading it through the learner costs more than the sums.
    table, values, eta = learner.q, learner.value, learner.eta
    horizon, n_states, n_actions = table.shape
    staged = learner.visits.shape[0] > 1
    changed = False
    for h in range(horizon - 1, -1, -1):
        g = h if staged else 0
        visits, reward, bonus = learner.visits[g], learner.reward[g], learner.bonus[g]
        successor, count = learner.successor[g], learner.successor_count[g]
        q_here, value_here, value_next = table[h], values[h], values[h + 1]
        preference, policy = learner.preference[h], learner.policy[h]
        steps = float(horizon - h)
        for s in range(n_states):
            if _improve(preference[s], policy[s], q_here[s], eta):  # by the last Q; no step before the first episode
                changed = True
            total = 0.0
            for a in range(n_actions):
                n = visits[s, a]
                if n > 0:
                    mean, left, i = 0.0, float(n), 0
                    while left > 0.0:  # the counts of the successors add up to n
                        mean += count[s, a, i] * value_next[successor[s, a, i]]
                        left -= count[s, a, i]
                        i += 1
                    q_here[s, a] = min(steps, reward[s, a] + mean / n + steps * bonus[s, a])
                if policy[s, a] > 0.0:
                    total += policy[s, a] * q_here[s, a]
            value_here[s] = min(steps, total)  # a mean of numbers up to H - h, in floats too
    return changed


@kernel("strict")
def _draw(policy, rng):
    """An action from the probabilities (A,); takes one uniform."""
    u, a, last = rng.random(), 0, 0
    while a < policy.shape[0]:
        if policy[a] > 0.0:
            last = a
            u -= policy[a]
            if u < 0.0:
                return a
        a += 1
    return last  # the probabilities add up to 1 but for rounding


@act.implement(OPPOState)
def _(learner, h, s, rng):
    return _draw(learner.policy[h, s], rng)


@chance.implement(OPPOState)
def _(learner, h, s, a):
    return learner.policy[h, s, a]


@upper_value.implement(OPPOState)
def _(learner, h, s):
    return math.inf  # its estimate lies above the value of its policy, not above V*


@observe.implement(OPPOState)
def _(learner, h, s, a, reward, s_next):
    g = h if learner.visits.shape[0] > 1 else 0
    unit = (reward - learner.reward_low) / learner.reward_width if learner.reward_width > 0 else 0.0
    n = learner.visits[g, s, a] + 1
    learner.visits[g, s, a] = n
    learner.reward_sum[g, s, a] += unit
    learner.reward[g, s, a] = learner.reward_sum[g, s, a] / n
    place = learner.slot[g, s, a, s_next]
    if place < 0:
        place = learner.n_successors[g, s, a]
        learner.n_successors[g, s, a] = place + 1
        learner.slot[g, s, a, s_next] = place
        learner.successor[g, s, a, place] = s_next
    learner.successor_count[g, s, a, place] += 1.0
    log = math.log(learner.log_constant * n * (n + 1.0))
    learner.bonus[g, s, a] = learner.scale * math.sqrt((learner.log_values + log) / (2.0 * n))
