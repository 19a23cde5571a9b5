"""GLOW (Amortila, Foster, Jiang, Sekhari, Xie 2024): global optimism over the members that no clipped weight refutes.

    for t = 1, ..., T:
        F^t = { f in F : for every layer h and w in W_h,
                         mean over the n = K (t - 1) tuples (s, a, r, s') of layer h of
                         w'(s, a) (f_h(s, a) - r - max_a' f_{h+1}(s', a')) - alpha_t w'(s, a)^2  <=  beta_t },
              w' = min(w, gamma_t),  gamma_t = gamma t;      F^1 = F: there are no data yet
        f^t = argmax_{f in F^t} E max_a f_0(s_0, a),  over the start law, or the start states seen if it is not known
        play greedily for f^t, K times; each trajectory adds a tuple to every layer

`levels` in `schedules` gives (gamma_t, alpha_t, beta_t). Everything inside is in units in which an episode's total
reward lies in [0, 1] (`problem.Units`).

A test needs the counts N(x) of the pairs of a layer and the sums of residuals G_f(x): mean_x w'(x) G_f(x) / n and
mean_x w'(x)^2 N(x) / n. A tuple adds one number to G of every member, so that an iteration costs the same at any t:
O(H nF nW SA) at most, of which only visited pairs and the candidates until one passes are paid for.

Where the weights know whose they are (`OccupancyRatios`, `RatioTable`), a member is tested with the ratio of its own
greedy policy against the policies played so far and itself. That is all that the analysis asks.

Deviations from the paper, each of which keeps the guarantee: the default schedule is self-normalised (page GLOW), which
has explicit constants and no |F| in beta; candidates are tested in the order of optimism until one passes
(`test="lazy"`; the choice is that of `test="full"`); a test subtracts what rounding can have added. An empty set is a
fault, never a fallback; until it is noticed the last policy is played.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, disable-error-code="no-redef"

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes.checks import realizability
from theoryrl.classes.values import FiniteClass
from theoryrl.classes.weights import WeightClass
from theoryrl.density_ratio import _glow_kernels as kernels
from theoryrl.density_ratio._glow_settings import WEIGHTS, require_settings
from theoryrl.density_ratio.bounds._setting import require_layers
from theoryrl.density_ratio.bounds.glow import glow_gamma
from theoryrl.density_ratio.problem import Units, in_units, require_total, units_of
from theoryrl.density_ratio.schedules import SCHEDULES, levels, paper_slope, threshold
from theoryrl.density_ratio.weights import (
    FullWeights,
    OccupancyRatios,
    RatioTable,
    Weights,
    log_tests,
    log_tests_of_rounds,
    missing_ratio,
)
from theoryrl.mdp._checks import Sealed, frozen, require_int
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import U
from theoryrl.online.verbs import Problem, act, chance, frugal, observe, plan, upper_value

# How a member is tested, in the order of `WEIGHTS`.
LIST, MIXTURES, TABLE, FULL = 0, 1, 2, 3


@frugal
class GLOWState(NamedTuple):
    """A class in units, its residuals over the data, and the candidate; a pair is numbered x = s A + a, X = S A.

    nV is the number of weights that a member is tested with: nW of a list, nM of models, 1.
    """

    values: NDArray[np.float64]  # (H, X, nF)
    best: NDArray[np.float64]  # (H + 1, S, nF) largest allowed value; row H is zero
    greedy: NDArray[np.int64]  # (nF, H, S)
    weights: NDArray[np.float64]  # (H, X, nV) of a list, else room for those of one test, (1, X, nV)
    masses: NDArray[np.float64]  # (H, nP, X nM) occupancies; pair x in model m is at x nM + m
    mixture: NDArray[np.float64]  # (H, X nM) sum of the occupancies of the policies played so far
    ratios: NDArray[np.float64]  # (H, nP, nP, X) of j, i: d^i / d^j
    row: NDArray[np.int64]  # (nF,) which policy is that of member f
    played: NDArray[np.int64]  # (nP,) how often each policy was chosen
    visits: NDArray[np.float64]  # (H, X) N
    residual: NDArray[np.float64]  # (H, X, nF) G: sum of f(x) - r - V_f(s') over the visits of x
    visited: NDArray[np.int64]  # (H, X) in the order of their first visits
    n_visited: NDArray[np.int64]  # (H,)
    start: NDArray[np.float64]  # (nF,) E V_f(s_0), or the sum over the start states seen
    rank: NDArray[np.int64]  # (nF,) order of preference among equals
    status: NDArray[np.int64]  # (nF,) in this iteration: 0 not tested, 1 passed, -1 failed
    excess: NDArray[np.float64]  # (nF, H) largest test minus its threshold when last tested
    mean: NDArray[np.float64]  # (nV,)
    penalty: NDArray[np.float64]  # (H, nV)
    chosen: NDArray[np.int64]  # (T,) the member of every iteration, -1 if not yet
    first_out: NDArray[np.int64]  # (nF,) the iteration at which a member first failed a test, -1 if never
    last_in: NDArray[np.int64]  # (nF,) the iteration at which it last passed, -1 if never
    policy: NDArray[np.int64]  # (H, S)
    empty: NDArray[np.int64]  # (1,) -1, or the iteration at which the set was found empty
    finished: NDArray[np.bool_]  # (1,) whether more than T iterations were asked for
    log_level: NDArray[np.float64]  # (T,) or (1,)
    n_actions: int
    trajectories: int
    low: float
    unit: float
    gamma: float
    c: float
    width: float
    scale: float
    prior: float
    size: float  # largest |f - r - V|
    offset: float  # what the change of units can add to one residual
    schedule: int
    kind: int
    full: bool
    nested: bool
    known_start: bool


@dataclass(frozen=True, eq=False)
class GLOW(Sealed):
    """Settings of GLOW.

    Parameters
    ----------
    cls : FiniteClass
        F, in units of reward. The guarantees need Q* in it; no completeness.
    weights : WeightClass, OccupancyRatios, RatioTable or FullWeights
        W. Optimism holds for any weights; the regret bound needs the density ratios of the greedy policies of F against
        the mixtures of those played. `FullWeights` gives optimism alone, whatever the schedule.
    iterations : int
        T: how many policies are chosen; at most T K episodes can be played.
    gamma : positive float, optional
        Slope of the clipping level gamma_t = gamma t; default the one that minimises the regret bound, for which
        `coverability` must be given. With schedule "paper" at most 1.
    delta : float in (0, 1)
        The guarantees fail with at most this probability.
    trajectories : int
        K, episodes per iteration.
    schedule : {"self_normalised", "paper", "scale_free"}
        See `theoryrl.density_ratio.schedules`.
    c : positive float
        alpha_t gamma_t of the self-normalised schedule.
    noise_width : positive float
        b: given (s, a), r + V*(s') lies in an interval of this length, in units of the total reward. 1 is always true.
    total_reward : positive float, optional
        A bound on the sum of r - low over an episode; default H (high - low).
    initial : (S,) distribution, optional
        The start law, if known: optimism is then at it, not at the start states seen.
    coverability : float at least 1, or (H,) of them, optional
        Upper bounds on C_h = sum_x max_f d^f_h(x); only the default of gamma reads them.
    nested : bool
        Whether what once failed stays out.
    test : {"lazy", "full"}
        Whether candidates are tested until one passes, or all members in every iteration.
    anytime : bool
        Whether the level holds for all T at once (pi^2 t^2 / 6 in the place of T).
    log_tests : float, optional
        Another logarithm of the number of tests of a layer than `theoryrl.density_ratio.log_tests`. Gives up the proof.
    tie_order : permutation of the members, optional
        Which of equally optimistic members is preferred, first to last; default the lowest-numbered one.
    scale : float
        Multiplies beta_t, or the scale-free threshold. Anything but 1 gives up the proof.
    check : bool
        Whether `run` refuses a model on which what the theorems assume of F, W and the rewards does not hold.
    """

    cls: FiniteClass
    weights: Weights
    iterations: int
    gamma: float | None = None
    delta: float = 0.05
    trajectories: int = 1
    schedule: Literal["self_normalised", "paper", "scale_free"] = "self_normalised"
    c: float = 0.25
    noise_width: float = 1.0
    total_reward: float | None = None
    initial: ArrayLike | None = None
    coverability: ArrayLike | None = None
    nested: bool = False
    test: Literal["lazy", "full"] = "lazy"
    anytime: bool = False
    log_tests: float | None = None
    tie_order: ArrayLike | None = None
    scale: float = 1.0
    check: bool = True

    def __post_init__(self) -> None:
        require_settings(self)
        for name, dtype in (("initial", np.float64), ("tie_order", np.int64), ("coverability", np.float64)):
            if np.ndim(getattr(self, name)) > 0:
                object.__setattr__(self, name, frozen(getattr(self, name), dtype, name))

    @property
    def provable(self) -> bool:
        """Whether the constants are those of a theorem and the model is made to fit it."""
        untouched = self.scale == 1.0 and self.log_tests is None and self.noise_width >= 1.0
        return bool(untouched and self.check)

    def slope(self) -> float:
        """The slope gamma: as given, or the best one for `coverability`; infinite for `FullWeights` (no clipping)."""
        if isinstance(self.weights, FullWeights):
            return math.inf
        if self.gamma is not None:
            return float(self.gamma)
        assert self.coverability is not None  # one of the two is
        if self.schedule == "paper":
            cover = require_layers(self.coverability, self.cls.horizon, "coverability", 1.0)
            return paper_slope(self.iterations, cover.max(), self.log_levels()[-1], self.trajectories)
        best = glow_gamma(
            self.iterations,
            coverability=self.coverability,
            n_functions=self.cls.size,
            delta=self.delta,
            horizon=self.cls.horizon,
            log_tests=self._log_tests()[-1],
            trajectories=self.trajectories,
            schedule=self.schedule,
            c=self.c,
            noise_width=self.noise_width,
        )
        return float(best)

    def log_levels(self) -> NDArray[np.float64]:
        """L_W of the schedule: one number for all rounds, (1,); of every round if `anytime`, (T,)."""
        horizon, delta = self.cls.horizon, self.delta
        if isinstance(self.weights, FullWeights):
            return np.array([math.log(horizon / delta)])
        share = 6 * self.cls.size if self.schedule == "paper" else 4
        return math.log(share * horizon / delta) + self._log_tests()

    def _log_tests(self) -> NDArray[np.float64]:
        if self.log_tests is not None:
            return np.array([float(self.log_tests)])
        if self.anytime:
            return log_tests_of_rounds(self.weights, self.iterations)
        return np.array([log_tests(self.weights, self.iterations)])

    def levels(self, t: int) -> tuple[float, float, float]:
        """(gamma_t, alpha_t, beta_t) of round t = 1, 2, ..., T; beta_1 is infinite, because there are no data.

        Of the scale-free schedule alpha_t is 0 and beta_t the threshold at weights that vanish on the data.

        Raises
        ------
        ValueError
            A round that does not exist, or `FullWeights`, which have none of the three.
        """
        t = require_int(t, 1, "t")
        if t > self.iterations:
            raise ValueError(f"t must be at most {self.iterations} iterations, not {t}")
        if isinstance(self.weights, FullWeights):
            raise ValueError("FullWeights have no clipping level")
        logs, n = self.log_levels(), float(self.trajectories * (t - 1))
        schedule, log = SCHEDULES[self.schedule], float(logs[t - 1 if len(logs) > 1 else 0])
        if n == 0:
            alpha = levels(schedule, t, 1.0, self.slope(), self.c, self.noise_width, log)[1]
            return self.slope(), float(alpha), math.inf
        ceiling, alpha, beta = levels(schedule, t, n, self.slope(), self.c, self.noise_width, log)
        limit = threshold(schedule, 0.0, n, ceiling, alpha, beta, self.noise_width, self.scale)
        return float(ceiling), float(alpha), float(limit)

    def require(self, mdp: FiniteHorizonMDP) -> None:
        """Refuse a model that is not as the theorems assume, unless `check` is False.

        Raises
        ------
        ValueError
            Q* is not in F, an episode can collect more than the units allow, the start law is another one, or W is
            found to lack a density ratio (`missing_ratio`).
        """
        if not self.check:
            return
        hint = "(check=False runs all the same)"
        self.cls.require_fits(mdp)
        require_total(mdp, units_of(mdp, self.total_reward))
        found = realizability(self.cls, mdp)
        if not found:
            raise ValueError(f"{found.message} {hint}")
        if self.initial is not None and not np.allclose(self.initial, mdp.initial, rtol=0, atol=1e-9):
            raise ValueError(f"initial is not the start law of the model {hint}")
        lacking = missing_ratio(self.weights, self.cls, mdp, ceiling=2 * self.slope(), total_reward=self.total_reward)
        if lacking and self.iterations > 1:
            raise ValueError(f"{lacking} {hint}")

    def init(self, problem: Problem) -> GLOWState:
        """A fresh state for one run, of size H S A (nF + nV), and H S A nP nM or H S A nP^2 for ratios of policies."""
        units = units_of(problem, self.total_reward)
        members = in_units(self.cls, problem, units)
        n, horizon, n_states, n_actions = members.values.shape
        pairs, weights = n_states * n_actions, self.weights
        masses, ratios = np.zeros((horizon, 0, 0)), np.zeros((horizon, 0, 0, pairs))
        row, tested = np.zeros(n, np.int64), np.zeros((1, pairs, 1))
        if isinstance(weights, WeightClass):
            tested = _last(weights.values.reshape(-1, horizon, pairs))
        elif isinstance(weights, OccupancyRatios):
            table = weights.masses.reshape(weights.n_models, -1, horizon, pairs)
            masses = table.transpose(2, 1, 3, 0).reshape(horizon, weights.n_policies, -1).copy()
            row, tested = weights.row.copy(), np.zeros((1, pairs, weights.n_models))
        elif isinstance(weights, RatioTable):
            table = weights.values.reshape(weights.n_policies, -1, horizon, pairs)
            row, ratios = weights.row.copy(), table.transpose(2, 1, 0, 3).copy(order="C")
        size, offset = _rounding(self.cls, problem, units)
        start = np.zeros(n)
        if self.initial is not None:
            start = np.array([math.fsum(np.asarray(self.initial) * v) for v in members.best[:, 0]])
        rank = np.arange(n) if self.tie_order is None else np.argsort(np.asarray(self.tie_order))
        return GLOWState(
            values=_last(members.values.reshape(n, horizon, pairs)),
            best=_last(members.best),
            greedy=members.greedy,
            weights=tested,
            masses=masses,
            mixture=np.zeros((horizon, masses.shape[-1])),
            ratios=ratios,
            row=row,
            played=np.zeros(int(row.max()) + 1 if not hasattr(weights, "n_policies") else weights.n_policies, np.int64),
            visits=np.zeros((horizon, pairs)),
            residual=np.zeros((horizon, pairs, n)),
            visited=np.zeros((horizon, pairs), np.int64),
            n_visited=np.zeros(horizon, np.int64),
            start=start,
            rank=rank,
            status=np.zeros(n, np.int64),
            excess=np.full((n, horizon), -math.inf),
            mean=np.zeros(tested.shape[-1]),
            penalty=np.zeros((horizon, tested.shape[-1])),
            chosen=np.full(self.iterations, -1),
            first_out=np.full(n, -1),
            last_in=np.full(n, -1),
            policy=members.greedy[0].copy(),
            empty=np.full(1, -1),
            finished=np.zeros(1, np.bool_),
            log_level=self.log_levels(),
            n_actions=n_actions,
            trajectories=int(self.trajectories),
            low=units.low,
            unit=units.scale,
            gamma=self.slope(),
            c=float(self.c),
            width=float(self.noise_width),
            scale=float(self.scale),
            prior=float(getattr(weights, "prior", 1.0)),
            size=size,
            offset=offset,
            schedule=SCHEDULES[self.schedule],
            kind=next(kind for kind, each in enumerate(WEIGHTS) if isinstance(weights, each)),
            full=self.test == "full",
            nested=bool(self.nested),
            known_start=self.initial is not None,
        )

    def fault(self, state: GLOWState) -> str | None:
        """What happened if the confidence set of `state` is empty, or more than T iterations were asked for."""
        if state.finished[0]:
            return f"the settings are for iterations={self.iterations} of {self.trajectories} episodes each, no more"
        if state.empty[0] < 0:
            return None
        worst = state.excess.max(axis=1)
        f = int(worst.argmin())
        h = int(state.excess[f].argmax())
        return (
            f"the confidence set is empty before iteration {state.empty[0]}: even member {f}, which comes closest, "
            f"exceeds its threshold at layer {h} by {worst[f] * state.unit:.6g}; Q* is not in the class, or this is "
            "the event of probability delta"
        )


def _last(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first axis moved to the end, so that what is done to every member runs along memory."""
    return np.moveaxis(table, 0, -1).copy(order="C")


def _rounding(cls: FiniteClass, problem: Problem, units: Units) -> tuple[float, float]:
    """The largest |f - r - V_f'| in units, and how far the change of units can have moved one."""
    reward = float(problem.reward_high - problem.reward_low) / units.scale
    raw = float(np.abs(cls.values).max()) + cls.horizon * abs(units.low)
    return 1.0 + max(reward, 1.0), 16 * U * (raw / units.scale + reward)


@plan.implement(GLOWState)
def _(learner, episode):
    if learner.empty[0] >= 0 or learner.finished[0] or episode % learner.trajectories != 0:
        return False
    iteration = episode // learner.trajectories
    if iteration >= learner.chosen.shape[0]:
        learner.finished[0] = True
        return False
    horizon, t, n = learner.n_visited.shape[0], float(iteration + 1), float(episode)
    kind, schedule, width, scale = learner.kind, learner.schedule, learner.width, learner.scale
    size, offset, full, status = learner.size, learner.offset, learner.full, learner.status
    log_level = learner.log_level[iteration if learner.log_level.shape[0] > 1 else 0]
    ceiling, alpha, beta = math.inf, 0.0, 0.0
    if iteration > 0:
        if kind != FULL:
            ceiling, alpha, beta = levels(schedule, t, n, learner.gamma, learner.c, width, log_level)
        for h in range(horizon):
            visits, visited, seen = learner.visits[h], learner.visited[h], learner.n_visited[h]
            if kind == LIST:
                kernels.second_moments(learner.weights[h], ceiling, visits, visited, seen, n, learner.penalty[h])
            elif kind == MIXTURES:
                kernels.add_mixture(learner.masses[h], learner.played, learner.mixture[h])
        for f in range(status.shape[0]):
            if not (learner.nested and status[f] < 0):
                status[f] = 0
    member = -1
    while True:
        f = kernels.most_optimistic(status, learner.start, learner.rank)
        if f < 0:
            break
        if iteration == 0:
            member = f
            break
        passed = True
        for h in range(horizon):
            visits, visited, seen = learner.visits[h], learner.visited[h], learner.n_visited[h]
            residual, mean, penalty = learner.residual[h], learner.mean, learner.penalty[h]
            if kind == FULL:
                excess = kernels.full_excess(
                    residual, f, visits, visited, seen, n, learner.prior, width, log_level, scale, size, offset
                )
            else:
                weights = learner.weights[h if kind == LIST else 0]
                if kind != LIST:
                    own = learner.row[f]
                    if kind == MIXTURES:
                        kernels.mixture_ratios(learner.masses[h, own], learner.mixture[h], t, visited, seen, weights)
                    else:
                        kernels.lifted_ratios(learner.ratios[h, own], learner.played, own, t, visited, seen, weights)
                    kernels.second_moments(weights, ceiling, visits, visited, seen, n, penalty)
                kernels.weighted_residuals(weights, ceiling, residual, f, visited, seen, n, mean)
                excess = kernels.largest_excess(
                    schedule, mean, penalty, n, seen, ceiling, alpha, beta, width, scale, size, offset
                )
            learner.excess[f, h] = excess
            if not excess <= 0.0:
                passed = False
                if not full:
                    break
        if passed:
            status[f] = 1
            learner.last_in[f] = iteration
            if member < 0:
                member = f
            if not full:
                break
        else:
            status[f] = -1
            if learner.first_out[f] < 0:
                learner.first_out[f] = iteration
    if member < 0:
        learner.empty[0] = iteration
        return False
    learner.chosen[iteration] = member
    learner.played[learner.row[member]] += 1
    changed = False
    greedy, policy = learner.greedy[member], learner.policy
    for h in range(horizon):
        for s in range(policy.shape[1]):
            if policy[h, s] != greedy[h, s]:
                policy[h, s] = greedy[h, s]
                changed = True
    return changed


@act.implement(GLOWState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(GLOWState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(GLOWState)
def _(learner, h, s):
    """The largest value at (h, s) of a member that did not fail in this iteration; -inf if the set is empty."""
    if learner.empty[0] >= 0:
        return -math.inf
    top = -math.inf
    for f in range(learner.status.shape[0]):
        if learner.status[f] >= 0:
            top = max(top, learner.best[h, s, f])
    return (learner.policy.shape[0] - h) * learner.low + learner.unit * top


@observe.implement(GLOWState)
def _(learner, h, s, a, reward, s_next):
    if learner.empty[0] < 0 and not learner.finished[0]:
        x = s * learner.n_actions + a
        if learner.visits[h, x] == 0.0:
            learner.visited[h, learner.n_visited[h]] = x
            learner.n_visited[h] += 1
        learner.visits[h, x] += 1.0
        unit = (reward - learner.low) / learner.unit
        residual, values, later = learner.residual[h, x], learner.values[h, x], learner.best[h + 1, s_next]
        for f in range(residual.shape[0]):
            residual[f] += values[f] - unit - later[f]
        if h == 0 and not learner.known_start:
            start, first = learner.start, learner.best[0, s]
            for f in range(start.shape[0]):
                start[f] += first[f]
