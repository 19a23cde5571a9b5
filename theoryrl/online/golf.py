"""GOLF (Jin, Liu, Miryoosefi 2021): global optimism over the members of a class whose squared loss is nearly least.

    L_h(g, f') = sum over the transitions (s, a, r, s') of layer h of (g(s, a) - r - max_a' f'(s', a'))^2,
    excess_h(f) = L_h(f_h, f_{h+1}) - min_{g in F_h} L_h(g, f_{h+1}),   F^t = { f : excess_h(f) <= beta_h for all h },
    f^t = argmax_{f in F^t} of the mean of max_a f_0(s_0, a) over the start states s_0 seen;   play greedily for f^t.

On a `FiniteClass` members are tested one by one. On a `ProductClass` a test couples two neighbouring layers, so that
F^t is the set of paths of a layered graph: reachability from the last layer, then backtracking, ties to the lowest
number. Everything inside is in units of the reward range: (f_h - (H - h) low) / width.

What a test needs are the counts of a layer's pairs and, for every f_{h+1}, the sums of its targets at each pair: one
addition per member and transition. A test of one column (all g against one f_{h+1}) costs O(m_h S A), whatever the
number of episodes, and only the columns of the candidate are tested: O(sum_h m_h S A) an episode, plus as much for
each candidate that fails, which happens once per pair of members at most.

Deviations from the paper, each of which keeps the guarantee: what once failed stays out (F^t is intersected with its
predecessors, as far as they were tested), which is why a test of the candidate suffices; the start law is unknown, and
optimism is at the start states seen; beta_h is explicit and holds for all t at once (page GOLF). With `test="full"` all
columns are tested before every episode. An empty set is a fault, never a fallback.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.checks import completeness, realizability
from theoryrl.classes.values import FiniteClass, ProductClass
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import U
from theoryrl.online._golf_kernels import backtrack, losses_of_column, most_optimistic, raise_peaks, reach
from theoryrl.online._settings import require_level, require_scale
from theoryrl.online.verbs import Problem, act, chance, observe, plan, upper_value

# Failures that the level of the tests, the energy of residuals and the start law may each have a share of.
EVENTS = 3


class GOLFState(NamedTuple):
    """A class in units of the reward range, its sums over the data, and the candidate; m is the largest m_h.

    A pair is numbered x = s A + a. Column j of layer h belongs to member j of layer h + 1; of a list, to member j.
    """

    values: NDArray[np.float64]  # (H, m, S A)
    best: NDArray[np.float64]  # (H + 1, m, S) largest allowed value; row H is zero
    greedy: NDArray[np.int64]  # (H, m, S)
    sizes: NDArray[np.int64]  # (H + 1,) m_h, and 1 for the zero function
    columns: NDArray[np.int64]  # (H,)
    level: NDArray[np.float64]  # (H,) beta_h
    visits: NDArray[np.float64]  # (H, S A)
    target_sum: NDArray[np.float64]  # (H, m, S A) sum of r + V_j(s') over the visits of x
    visited: NDArray[np.int64]  # (H, S A) in the order of their first visits
    n_visited: NDArray[np.int64]  # (H,)
    start_sum: NDArray[np.float64]  # (m,) sum of V_i over the start states seen
    peak: NDArray[
        np.float64
    ]  # (H, m, m) for a product, (H, 1, m) for a list: largest excess so far of (column, member)
    alive: NDArray[np.bool_]  # (H + 1, m)
    path: NDArray[np.int64]  # (H,) the candidate
    policy: NDArray[np.int64]  # (H, S)
    losses: NDArray[np.float64]  # (m,)
    empty: NDArray[np.int64]  # (1,) -1, or the episode before which the set was found empty
    rounding: NDArray[np.float64]  # (2,) largest |value - target|, error of one difference before its own rounding
    n_actions: int
    reward_low: float
    reward_unit: float
    product: bool
    full: bool


@dataclass(frozen=True)
class GOLF:
    """Settings of GOLF.

    Parameters
    ----------
    cls : FiniteClass or ProductClass
        F, in units of reward. The confidence set needs Q* in it (realizability), the regret bound also T_h f_{h+1} in
        F_h for all f (completeness).
    delta : float in (0, 1)
        The guarantees (Q* stays in the set, regret) fail with at most this probability.
    test : {"lazy", "full"}
        Which columns are tested before an episode: those of the candidate, until one passes, or all.
    scale : float
        Multiplies beta_h. Anything but 1 gives up the proof: `provable` is then False.
    check : bool
        Whether `run` refuses a model for which the class is not realizable and complete.
    """

    cls: FiniteClass | ProductClass
    delta: float = 0.05
    test: Literal["lazy", "full"] = "lazy"
    scale: float = 1.0
    check: bool = True

    def __post_init__(self) -> None:
        require_enumerated(self.cls)
        require_level(self.delta)
        if self.test not in ("lazy", "full"):
            raise ValueError(f"test must be 'lazy' or 'full', not {self.test!r}")
        require_scale(self.scale)

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem and the model is made to fit it."""
        return self.scale == 1.0 and self.check

    def require(self, mdp: FiniteHorizonMDP) -> None:
        """Refuse a model whose Q* or whose Bellman images are not in the class, unless `check` is False.

        Raises
        ------
        ValueError
            With the layer and the member at fault.
        """
        if self.check:
            for found in (realizability(self.cls, mdp), completeness(self.cls, mdp)):
                if not found:
                    raise ValueError(f"{found.message} (check=False runs all the same)")

    def init(self, problem: Problem) -> GOLFState:
        """A fresh state for one run, of size H m S A, and H m^2 for a product."""
        self.cls.require_fits(problem)
        values, best, greedy, sizes = in_units(self.cls, problem)
        horizon, size, pairs = values.shape
        product = isinstance(self.cls, ProductClass)
        noise = noise_widths(best, sizes, problem)
        unit = _unit(problem)
        alive = np.zeros((horizon + 1, size), np.bool_)
        for h, n in enumerate(sizes):
            alive[h, :n] = True
        return GOLFState(
            values=values,
            best=best,
            greedy=greedy,
            sizes=sizes,
            columns=sizes[1:].copy() if product else np.full(horizon, size),
            level=self.scale * noise**2 / 2 * math.log(EVENTS * sizes[:-1].sum() / self.delta),
            visits=np.zeros((horizon, pairs)),
            target_sum=np.zeros((horizon, size, pairs)),
            visited=np.zeros((horizon, pairs), np.int64),
            n_visited=np.zeros(horizon, np.int64),
            start_sum=np.zeros(size),
            peak=np.zeros((horizon, size if product else 1, size)),
            alive=alive,
            path=np.zeros(horizon, np.int64),
            policy=greedy[:, 0].copy(),
            losses=np.zeros(size),
            empty=np.full(1, -1),
            rounding=np.array(rounding_sizes(self.cls, values, best, problem)),
            n_actions=problem.n_actions,
            reward_low=float(problem.reward_low),
            reward_unit=unit,
            product=product,
            full=self.test == "full",
        )

    def fault(self, state: GOLFState) -> str | None:
        """What happened if the confidence set of `state` is empty: the layer, and the smallest excess there."""
        if state.empty[0] < 0:
            return None
        scale = state.reward_unit**2
        if state.product:
            h = int(np.flatnonzero(~state.alive.any(axis=1))[-1])
            least = float(state.peak[h][state.alive[h + 1], : state.sizes[h]].min())
            who = "every member"
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where(state.peak[:, 0] <= state.level[:, None], 0.0, state.peak[:, 0] / state.level[:, None])
            i = int(ratio.max(axis=0).argmin())
            h = int(ratio[:, i].argmax())
            least, who = float(state.peak[h, 0, i]), f"even member {i}, which comes closest,"
        return (
            f"the confidence set is empty before episode {state.empty[0]}: at layer {h} {who} exceeds the level "
            f"{state.level[h] * scale:.6g}, the smallest excess being {least * scale:.6g}; the class is not "
            "realizable, or this is the event of probability delta"
        )


def require_enumerated(cls: Any) -> None:
    """Refuse what is no class of finitely many members."""
    if not isinstance(cls, FiniteClass | ProductClass):
        raise TypeError(f"cls must be a FiniteClass or a ProductClass, not {type(cls).__name__}")


def layers_of(cls: FiniteClass | ProductClass) -> list[NDArray[np.float64]]:
    """The members of every layer, (m_h, S, A) each."""
    if isinstance(cls, ProductClass):
        return list(cls.layers)
    return [cls.values[:, h] for h in range(cls.horizon)]


def _unit(problem: Problem) -> float:
    width = float(problem.reward_high - problem.reward_low)
    return width if width > 0 else 1.0


def in_units(
    cls: FiniteClass | ProductClass, problem: Problem
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Values (H, m, S A) in units of the reward range, 0 where forbidden, state values, greedy policies and sizes."""
    layers, mask = layers_of(cls), problem.action_mask
    horizon, n_states, n_actions = len(layers), problem.n_states, problem.n_actions
    sizes = np.array([*(len(layer) for layer in layers), 1])
    values = np.zeros((horizon, sizes.max(), n_states, n_actions))
    best = np.zeros((horizon + 1, sizes.max(), n_states))
    greedy = np.zeros((horizon, sizes.max(), n_states), np.int64)
    for h, layer in enumerate(layers):
        table = (layer - (horizon - h) * problem.reward_low) / _unit(problem)
        values[h, : sizes[h]] = np.where(mask, table, 0.0)
        allowed = np.where(mask, table, -np.inf)
        best[h, : sizes[h]] = allowed.max(axis=-1)
        greedy[h, : sizes[h]] = allowed.argmax(axis=-1)
    return values.reshape(horizon, -1, n_states * n_actions), best, greedy, sizes


def noise_widths(best: NDArray[np.float64], sizes: NDArray[np.int64], problem: Problem) -> NDArray[np.float64]:
    """b_h: the length of an interval that holds r + V(s') for every member V of layer h + 1, (H,)."""
    reward = 1.0 if problem.reward_high > problem.reward_low else 0.0
    spans = [float(np.ptp(best[h + 1, : sizes[h + 1]])) for h in range(len(sizes) - 2)]
    return reward + np.array([*spans, 0.0])


def rounding_sizes(
    cls: FiniteClass | ProductClass, values: NDArray[np.float64], best: NDArray[np.float64], problem: Problem
) -> tuple[float, float]:
    """B, the largest |g| + |r + V_f| in units, and e, how far the change of units can have moved a member."""
    raw = max(float(np.abs(layer).max()) for layer in layers_of(cls)) + len(values) * abs(problem.reward_low)
    return float(np.abs(values).max() + np.abs(best).max()) + 1.0, 8 * U * raw / _unit(problem)


@plan.implement(GOLFState)
def _(learner, episode):
    if learner.empty[0] >= 0:
        return False
    peak, level, sizes, path, product = learner.peak, learner.level, learner.sizes, learner.path, learner.product
    horizon = level.shape[0]
    largest, offset = learner.rounding[0], learner.rounding[1]
    while True:
        if not learner.full:
            first = most_optimistic(learner.alive[0], sizes[0], learner.start_sum)
            if first < 0:
                learner.empty[0] = episode
                return False
            backtrack(first, peak, level, sizes, learner.alive, product, path)
        passed, crossed = True, False
        for h in range(horizon):
            n, seen = 0.0, learner.n_visited[h]
            for place in range(seen):
                n += learner.visits[h, learner.visited[h, place]]
            # What rounding can add to a difference of two losses (docs, page GOLF).
            slack = n * (
                4.0 * largest * ((n + 2.0) * U * largest + offset) + 2.0 * (seen + 3.0) * U * largest * largest
            )
            begin, end = 0, learner.columns[h]
            if not learner.full:
                begin = path[h] if not product else (path[h + 1] if h + 1 < horizon else 0)
                end = begin + 1
            for j in range(begin, end):
                least = losses_of_column(
                    learner.values[h],
                    sizes[h],
                    learner.target_sum[h, j],
                    learner.visits[h],
                    learner.visited[h],
                    seen,
                    learner.losses,
                )
                if product:
                    fell = raise_peaks(learner.losses, least, slack, 0, sizes[h], level[h], peak[h, j])
                else:
                    fell = raise_peaks(learner.losses, least, slack, j, j + 1, level[h], peak[h, 0])
                crossed = crossed or fell
            if not learner.full:
                column = begin if product else 0
                if not peak[h, column, path[h]] <= level[h]:
                    passed = False
        # The column of a candidate that passes can still cost other members their last continuation.
        if crossed:
            reach(peak, level, sizes, product, learner.alive)
        if learner.full:
            first = most_optimistic(learner.alive[0], sizes[0], learner.start_sum)
            if first < 0:
                learner.empty[0] = episode
                return False
            backtrack(first, peak, level, sizes, learner.alive, product, path)
        if passed:
            break
    changed = False
    policy = learner.policy
    for h in range(horizon):
        chosen = learner.greedy[h, path[h]]
        for s in range(policy.shape[1]):
            if policy[h, s] != chosen[s]:
                policy[h, s] = chosen[s]
                changed = True
    return changed


@act.implement(GOLFState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(GOLFState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(GOLFState)
def _(learner, h, s):
    """The largest value at (h, s) of a member that is still in the set; -inf if it is empty."""
    if learner.empty[0] >= 0:
        return -math.inf
    top = -math.inf
    for i in range(learner.sizes[h]):
        if learner.alive[h, i]:
            top = max(top, learner.best[h, i, s])
    return (learner.policy.shape[0] - h) * learner.reward_low + learner.reward_unit * top


@observe.implement(GOLFState)
def _(learner, h, s, a, reward, s_next):
    if learner.empty[0] < 0:
        x = s * learner.n_actions + a
        if learner.visits[h, x] == 0.0:
            learner.visited[h, learner.n_visited[h]] = x
            learner.n_visited[h] += 1
        learner.visits[h, x] += 1.0
        unit = (reward - learner.reward_low) / learner.reward_unit
        target_sum, best = learner.target_sum[h], learner.best[h + 1]
        for j in range(learner.columns[h]):
            target_sum[j, x] += unit + best[j, s_next]
        if h == 0:
            for i in range(learner.sizes[0]):
                learner.start_sum[i] += learner.best[0, i, s]
