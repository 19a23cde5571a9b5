"""OLIVE (Jiang, Krishnamurthy, Agarwal, Langford, Schapire 2017): optimism, and elimination of inconsistent members.

    start:      n_start episodes of any policy: the mean of V_g(s_0) for every member g; then, until it stops,
    choose:     f = the surviving member with the largest mean;
    evaluate:   n_evaluate episodes of pi_f: for every layer the mean of f_h(s, a) - r - V_f(s');
                if they add up to at most 3 epsilon / 4, stop: pi_f is the answer and is played from then on;
    eliminate:  at the layer h with the largest mean, n_eliminate further episodes: drop every member g whose mean of
                w (g_h(s, a) - r - V_g(s')) over the transitions of layer h exceeds phi in absolute value.

`variant="v"` is the algorithm of 2017: the action at layer h is uniform among k allowed ones, and w = k 1{a = pi_g(s)}.
`variant="q"` plays pi_f throughout, with w = 1 (Jin, Liu, Miryoosefi 2021, section 5): fewer samples, another rank.

Everything inside is in units of the reward range: (g_h - (H - h) low) / width. Deviations from the paper: sizes and
thresholds are those of the proof in the documentation (page OLIVE), with explicit constants, and the start law may be
random. A bound on the Bellman rank is a setting; what follows if it is too small is a fault, not a wrong answer with
confidence.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import kernel
from theoryrl.classes.checks import realizability
from theoryrl.classes.values import FiniteClass
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online._golf_kernels import most_optimistic
from theoryrl.online._settings import require_level
from theoryrl.online.golf import in_units
from theoryrl.online.verbs import Problem, act, chance, observe, plan, upper_value

START, EVALUATE, ELIMINATE = range(3)  # phases
PHASE, DONE, LAYER, MEMBER, ELIMINATIONS, STATUS, EPISODE = range(7)  # entries of `clock`
RUNNING, STOPPED, EMPTY, TOO_MANY = range(4)  # values of STATUS
# log(3 / sqrt(e)): by how much the logarithm of a volume falls with each elimination.
VOLUME_LOSS = math.log(3.0) - 0.5
MOST_EPISODES = 2**62  # more do not fit the counters


class Schedule(NamedTuple):
    """Sizes and thresholds, in units of the reward range.

    Attributes
    ----------
    start, evaluate, eliminate : int
        Episodes of a phase.
    epsilon, threshold : float
        epsilon, and phi.
    eliminations : int
        The most that the rank allows.
    episodes : int
        After so many at the latest it has stopped: start + (eliminations + 1) evaluate + eliminations * eliminate.
    """

    start: int
    evaluate: int
    eliminate: int
    epsilon: float
    threshold: float
    eliminations: int
    episodes: int


class OLIVEState(NamedTuple):
    """A class in units of the reward range, who survives, and the phase."""

    values: NDArray[np.float64]  # (H, nF, S A)
    best: NDArray[np.float64]  # (H + 1, nF, S)
    greedy: NDArray[np.int64]  # (H, nF, S)
    allowed: NDArray[np.int64]  # (S, A) allowed actions first
    n_allowed: NDArray[np.int64]  # (S,)
    action_mask: NDArray[np.bool_]  # (S, A)
    sizes: NDArray[np.int64]  # (3,) episodes of each phase
    clock: NDArray[
        np.int64
    ]  # (7,) phase, episodes of it, layer, member, eliminations, status, episode of the last change
    alive: NDArray[np.bool_]  # (nF,)
    start_sum: NDArray[np.float64]  # (nF,)
    layer_sum: NDArray[np.float64]  # (H,) of the residuals of the member that is evaluated
    member_sum: NDArray[np.float64]  # (nF,) of the weighted residuals at the layer of the elimination
    least: NDArray[np.float64]  # (1,) smallest |mean| in the last elimination
    policy: NDArray[np.int64]  # (H, S)
    epsilon: float
    threshold: float
    most_eliminations: int
    reward_low: float
    reward_unit: float
    uniform: bool  # whether eliminations draw the action of their layer


@dataclass(frozen=True)
class OLIVE:
    """Settings of OLIVE.

    Parameters
    ----------
    cls : FiniteClass
        F, in units of reward; the guarantee needs Q* in it.
    epsilon : float
        How much the answer may lose against the best policy, in units of reward.
    delta : float in (0, 1)
        The guarantee fails with at most this probability.
    rank : int, optional
        M: a bound on the Bellman rank of every layer, that of the matrix of E_h(pi_f, g), f and g in F. Default what
        every model of this size obeys: the number of allowed pairs (variant "q") or of states ("v").
    variant : {"q", "v"}
    scale : float
        Multiplies the sizes of all phases. Anything but 1 gives up the proof: `provable` is then False.
    check : bool
        Whether `run` refuses a model for which the class is not realizable.
    """

    cls: FiniteClass
    epsilon: float
    delta: float = 0.05
    rank: int | None = None
    variant: Literal["q", "v"] = "q"
    scale: float = 1.0
    check: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.cls, FiniteClass):
            raise TypeError(f"cls must be a FiniteClass, not {type(self.cls).__name__}")
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError(f"epsilon must be positive and finite, not {self.epsilon!r}")
        require_level(self.delta)
        if self.rank is not None:
            require_int(self.rank, 1, "rank")
        if self.variant not in ("q", "v"):
            raise ValueError(f"variant must be 'q' or 'v', not {self.variant!r}")
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(f"scale must be finite and positive, not {self.scale!r}")

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem and the model is made to fit it."""
        return self.scale == 1.0 and self.check

    def require(self, mdp: FiniteHorizonMDP) -> None:
        """Refuse a model whose Q* is not in the class, unless `check` is False.

        Raises
        ------
        ValueError
            With the layer and the nearest member.
        """
        found = realizability(self.cls, mdp)
        if self.check and not found:
            raise ValueError(f"{found.message} (check=False runs all the same)")

    def schedule(self, problem: Problem) -> Schedule:
        """Sizes of the phases, thresholds and the most episodes before it stops, by the formulas of the page OLIVE."""
        values, best, _, _ = in_units(self.cls, problem)
        horizon, size, _ = values.shape
        mask = problem.action_mask
        unit = float(problem.reward_high - problem.reward_low)
        low, high = residual_range(values, best, mask, unit > 0)
        span, largest = max(high - low, 0.0), max(abs(low), abs(high))
        n_actions = int(mask.sum(axis=1).max())
        rank = self.rank or (int(mask.sum()) if self.variant == "q" else problem.n_states)
        epsilon = self.epsilon / (unit if unit > 0 else 1.0)
        threshold = 5 * epsilon / (48 * horizon * math.sqrt(rank))
        reach = rank * largest / (2 * threshold)
        per_layer = math.floor(rank * math.log(reach) / VOLUME_LOSS) if reach > 1 else 0
        rounds = horizon * per_layer + 1
        starts = 128 * _square(float(np.ptp(best[0])) / epsilon) * math.log(3 * size / self.delta)
        evaluate = 32 * _square(horizon * span / epsilon) * math.log(6 * horizon * rounds / self.delta)
        log = math.log(6 * size * rounds / self.delta)
        if self.variant == "q":
            eliminate = _square(span / threshold) * log / 2
        else:
            variance, bound = 2 * n_actions * largest**2, (n_actions + 1) * largest
            root = math.sqrt(variance) + math.sqrt(variance + 4 * bound * threshold / 3)
            eliminate = log * _square(root / (2 * threshold))
        sizes = [self.scale * each for each in (starts, evaluate, eliminate)]
        if not sizes[START] + rounds * (sizes[EVALUATE] + sizes[ELIMINATE]) <= MOST_EPISODES:
            raise ValueError(
                f"epsilon = {self.epsilon!r} with rank {rank} and scale {self.scale!r} may take more than 2^62 episodes"
            )
        n = [max(1, math.ceil(each)) for each in sizes]
        total = n[START] + rounds * n[EVALUATE] + (rounds - 1) * n[ELIMINATE]
        return Schedule(n[START], n[EVALUATE], n[ELIMINATE], epsilon, threshold, rounds - 1, total)

    def init(self, problem: Problem) -> OLIVEState:
        """A fresh state for one run."""
        self.cls.require_fits(problem)
        values, best, greedy, _ = in_units(self.cls, problem)
        plan_of = self.schedule(problem)
        horizon, size, _ = values.shape
        mask = np.ascontiguousarray(problem.action_mask)
        width = float(problem.reward_high - problem.reward_low)
        return OLIVEState(
            values=values,
            best=best,
            greedy=greedy,
            allowed=np.argsort(~mask, axis=1, kind="stable"),
            n_allowed=mask.sum(axis=1),
            action_mask=mask,
            sizes=np.array(plan_of[:3]),
            clock=np.zeros(7, np.int64),
            alive=np.ones(size, np.bool_),
            start_sum=np.zeros(size),
            layer_sum=np.zeros(horizon),
            member_sum=np.zeros(size),
            least=np.full(1, np.inf),
            policy=greedy[:, 0].copy(),
            epsilon=plan_of.epsilon,
            threshold=plan_of.threshold,
            most_eliminations=plan_of.eliminations,
            reward_low=float(problem.reward_low),
            reward_unit=width if width > 0 else 1.0,
            uniform=self.variant == "v",
        )

    def fault(self, state: OLIVEState) -> str | None:
        """What happened if no member is left, or if more eliminations were needed than the rank allows."""
        clock = state.clock
        if clock[STATUS] == EMPTY:
            return (
                f"no member is left before episode {clock[EPISODE]}: at layer {clock[LAYER]} the smallest |mean| of a "
                f"survivor is {state.least[0] * state.reward_unit:.6g}, above phi = "
                f"{state.threshold * state.reward_unit:.6g}; the class is not realizable, or this is the event of "
                "probability delta"
            )
        if clock[STATUS] == TOO_MANY:
            return (
                f"not stopped after {clock[ELIMINATIONS]} eliminations, as many as the rank allows, before episode "
                f"{clock[EPISODE]}: the Bellman rank is larger, or this is the event of probability delta"
            )
        return None


def _square(number: float) -> float:
    """number^2; infinite where the operator ** would raise an OverflowError."""
    return number * number


def residual_range(
    values: NDArray[np.float64], best: NDArray[np.float64], mask: NDArray[np.bool_], random_rewards: bool
) -> tuple[float, float]:
    """The smallest and largest g_h(s, a) - r - V_g(s') over members, layers, pairs, rewards and successors."""
    allowed = values[:, :, mask.reshape(-1)]
    low = allowed.min(axis=2) - best[1:].max(axis=2) - (1.0 if random_rewards else 0.0)
    high = allowed.max(axis=2) - best[1:].min(axis=2)
    return float(low.min()), float(high.max())


@kernel("strict")
def _evaluated(layer_sum, n, epsilon):
    """The layer with the largest mean residual, or -1 if the means add up to at most 3 epsilon / 4."""
    total, worst = 0.0, 0
    for h in range(layer_sum.shape[0]):
        total += layer_sum[h] / n
        if layer_sum[h] > layer_sum[worst]:
            worst = h
    return -1 if total <= 0.75 * epsilon else worst


@kernel("strict")
def _eliminate(alive, member_sum, n, threshold):
    """Drop every member whose mean residual exceeds the threshold; returns the smallest of the survivors before."""
    least = math.inf
    for g in range(alive.shape[0]):
        if alive[g]:
            mean = abs(member_sum[g] / n)
            least = min(least, mean)
            if not mean <= threshold:
                alive[g] = False
    return least


@kernel("strict")
def _uniform_action(allowed, n_allowed, rng):
    """One of the allowed actions, each with the same chance."""
    return allowed[rng.integers(0, n_allowed)]


@kernel("strict")
def _weighted_residuals(values, best, greedy, alive, x, s, a, unit, s_next, weight, member_sum):
    """Add weight (g(x) - r - V_g(s')) for the survivors that choose a, or for all if the weight is negative (= 1)."""
    for g in range(alive.shape[0]):
        if alive[g]:
            if weight < 0.0:
                member_sum[g] += values[g, x] - unit - best[g, s_next]
            elif greedy[g, s] == a:
                member_sum[g] += weight * (values[g, x] - unit - best[g, s_next])


@plan.implement(OLIVEState)
def _(learner, episode):
    clock, sizes = learner.clock, learner.sizes
    if clock[STATUS] != RUNNING or clock[DONE] < sizes[clock[PHASE]]:
        return False
    clock[EPISODE] = episode
    clock[DONE] = 0
    if clock[PHASE] == EVALUATE:
        layer = _evaluated(learner.layer_sum, float(sizes[EVALUATE]), learner.epsilon)
        if layer < 0:
            clock[STATUS] = STOPPED
            return False
        if clock[ELIMINATIONS] >= learner.most_eliminations:
            clock[STATUS] = TOO_MANY
            return False
        clock[PHASE], clock[LAYER] = ELIMINATE, layer
        learner.member_sum[:] = 0.0
        return learner.uniform
    if clock[PHASE] == ELIMINATE:
        learner.least[0] = _eliminate(learner.alive, learner.member_sum, float(sizes[ELIMINATE]), learner.threshold)
        clock[ELIMINATIONS] += 1
    f = most_optimistic(learner.alive, learner.alive.shape[0], learner.start_sum)
    if f < 0:
        clock[STATUS] = EMPTY
        clock[PHASE] = EVALUATE  # back to the last member's own policy
        return learner.uniform
    clock[PHASE], clock[MEMBER] = EVALUATE, f
    learner.layer_sum[:] = 0.0
    learner.policy[:] = learner.greedy[:, f]
    return True


@act.implement(OLIVEState)
def _(learner, h, s, rng):
    if learner.uniform and learner.clock[PHASE] == ELIMINATE and learner.clock[LAYER] == h:
        return _uniform_action(learner.allowed[s], learner.n_allowed[s], rng)
    return learner.policy[h, s]


@chance.implement(OLIVEState)
def _(learner, h, s, a):
    if learner.uniform and learner.clock[PHASE] == ELIMINATE and learner.clock[LAYER] == h:
        return 1.0 / learner.n_allowed[s] if learner.action_mask[s, a] else 0.0
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(OLIVEState)
def _(learner, h, s):
    """The largest value at (h, s) of a survivor; -inf if there is none."""
    top = -math.inf
    for g in range(learner.alive.shape[0]):
        if learner.alive[g]:
            top = max(top, learner.best[h, g, s])
    return (learner.policy.shape[0] - h) * learner.reward_low + learner.reward_unit * top


@observe.implement(OLIVEState)
def _(learner, h, s, a, reward, s_next):
    clock = learner.clock
    if clock[STATUS] == RUNNING:
        if h == 0:
            clock[DONE] += 1
        phase, x = clock[PHASE], s * learner.allowed.shape[1] + a
        unit = (reward - learner.reward_low) / learner.reward_unit
        if phase == START:
            if h == 0:
                for g in range(learner.alive.shape[0]):
                    learner.start_sum[g] += learner.best[0, g, s]
        elif phase == EVALUATE:
            f = clock[MEMBER]
            learner.layer_sum[h] += learner.values[h, f, x] - unit - learner.best[h + 1, f, s_next]
        elif h == clock[LAYER]:
            _weighted_residuals(
                learner.values[h],
                learner.best[h + 1],
                learner.greedy[h],
                learner.alive,
                x,
                s,
                a,
                unit,
                s_next,
                float(learner.n_allowed[s]) if learner.uniform else -1.0,
                learner.member_sum,
            )
