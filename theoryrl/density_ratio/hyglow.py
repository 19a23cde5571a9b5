"""HyGLOW (Amortila et al. 2024): H2O with MABO.CR, exploration without optimism from offline data of one good policy.

    for t = 1, ..., T, from n = 2 (t - 1) tuples per layer, the first t - 1 offline ones and t - 1 online ones:
        f^t = argmin_{f in F} max_h max_{w in W_h} { |E_D[w' residual_h(f)]| - alpha E_D[w'^2] }      (form "max")
              argmin_{f in F} max_{w in W} sum_h   { |E_D[w' residual_h(f)]| - alpha E_D[w'^2] }      (form "sum")
              w' = min(w, gamma n),  alpha = c / (gamma n),  residual_h(f) = f_h(s, a) - r - max_a' f_{h+1}(s', a')
        play greedily for f^t
    return Unif(pi^1, ..., pi^T)

There is no bonus and no confidence set: what the members' own data and the offline data cannot tell apart may be
chosen, is then played, and so comes to be told apart. Everything inside is in units in which an episode's total reward
lies in [0, 1] (`problem.Units`).

Sums of residuals are kept per pair and member, so that an iteration costs O(H S A nF nW) at any t. The chosen members
are, to the bit, those of `h2o` with the oracle `MABOCR`, which sums the same rows in the same order.

Deviations from the paper: the layer-max form is the default, and c = 1/4 in the place of 8 (page HyGLOW, which has
explicit constants for both forms); the schedule is in n, the size of the data; before there are any data the first
member in `tie_order` is played. Exactly equal members: the first in `tie_order`.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, disable-error-code="no-redef"

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl._jit import kernel
from theoryrl.classes.checks import realizability
from theoryrl.classes.values import FiniteClass
from theoryrl.classes.weights import WeightClass, density_ratio
from theoryrl.density_ratio import _mabo_kernels as kernels
from theoryrl.density_ratio.bounds.hybrid import h2o_gamma
from theoryrl.density_ratio.h2o import offline_rows, require_distributions
from theoryrl.density_ratio.oracle_constants import mabo_cr_constants
from theoryrl.density_ratio.problem import TOLERANCE, in_units, require_total, units_of
from theoryrl.density_ratio.weights import OccupancyRatios, log_tests
from theoryrl.mdp._checks import Sealed, first, frozen, require_int
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.policy import MixturePolicy
from theoryrl.online._settings import require_level
from theoryrl.online.run import Run
from theoryrl.online.verbs import Problem, act, chance, frugal, observe, plan, upper_value

FORMS = ("max", "sum")


@frugal
class HyGLOWState(NamedTuple):
    """A class in units, its residuals over offline and online data, and the members chosen."""

    values: NDArray[np.float64]  # (H, S, A, nF)
    best: NDArray[np.float64]  # (H + 1, S, nF) largest allowed value; row H is zero
    greedy: NDArray[np.int64]  # (nF, H, S)
    order: NDArray[np.int64]  # (nF,) who comes first among equals
    weights: NDArray[np.float64]  # (nW, H, S, A) the list, or the ratios of this round
    masses: NDArray[np.float64]  # (nM, nP, H, S, A) occupancies; nM = 0 for a list
    row: NDArray[np.int64]  # (nF,) which policy is that of member f
    law: NDArray[np.float64]  # (nM, H, S, A) nu
    played: NDArray[np.float64]  # (nM, H, S, A) sum of the occupancies of the policies played
    offline: NDArray[np.int64]  # (T - 1, H, 3) state, action, next state
    offline_reward: NDArray[np.float64]  # (T - 1, H) in units
    visits: NDArray[np.float64]  # (H, S, A)
    sums: NDArray[np.float64]  # (H, S, A, nF) sums of residuals
    chosen: NDArray[np.int64]  # (T,) the member of every iteration, -1 if not yet
    objective: NDArray[np.float64]  # (nF,) of the last round
    means: NDArray[np.float64]  # (nF,)
    totals: NDArray[np.float64]  # (nF,)
    policy: NDArray[np.int64]  # (H, S)
    finished: NDArray[np.bool_]  # (1,) whether more than T iterations were asked for
    low: float
    unit: float
    gamma: float
    c: float
    layered: bool


@dataclass(frozen=True, eq=False)
class HyGLOW(Sealed):
    """Settings of HyGLOW.

    Parameters
    ----------
    offline : Dataset
        At least T - 1 rows in every layer, taken in their order; the risk bound needs them independent given their
        layer's law nu_h, which covers an optimal policy.
    cls : FiniteClass
        F, in units of reward. The risk bound needs Q* in it; no completeness.
    weights : WeightClass or OccupancyRatios
        W: for the bound it must hold d^pi / mu^t for the greedy policies pi of F, mu^t = (nu + mean_{i < t} d^i) / 2.
        `OccupancyRatios` computes all of these every round, from the occupancies and from `offline_law`.
    iterations : int
        T: how many episodes can be played.
    gamma : positive float, optional
        Slope of the clipping level gamma n. Default the one that minimises the risk bound, for which `concentrability`
        and `coverability` must be given.
    offline_law : (H, S, A) or (nM, H, S, A) distributions, optional
        nu, in every candidate model if they differ; needed with `OccupancyRatios`.
    delta : float in (0, 1)
        The risk bound fails with at most this probability; only the default of gamma reads it.
    c : positive float
        alpha gamma n.
    form : {"max", "sum"}
        Whether layers are tested one by one, or summed with weights that are joint over layers.
    noise_width : positive float
        b: given (s, a), r + V*(s') lies in an interval of this length, in units of the total reward. 1 is always true.
        Only the default of gamma reads it.
    total_reward : positive float, optional
        A bound on the sum of r - low over an episode; default H (high - low).
    concentrability : float at least 1, or (H,) of them, optional
        Upper bounds on E_{d*}[d* / nu]; only the default of gamma reads them.
    coverability : float at least 1, or (H,) of them, optional
        Upper bounds on sum_x max_f d^f_h(x); only the default of gamma reads them.
    tie_order : permutation of the members, optional
        Which of exactly equal members is chosen, first to last; default the lowest-numbered one.
    check : bool
        Whether `run` refuses a model on which what the theorem assumes of F, W and the rewards does not hold.
    """

    offline: Dataset
    cls: FiniteClass
    weights: WeightClass | OccupancyRatios
    iterations: int
    gamma: float | None = None
    offline_law: ArrayLike | None = None
    delta: float = 0.05
    c: float = 0.25
    form: Literal["max", "sum"] = "max"
    noise_width: float = 1.0
    total_reward: float | None = None
    concentrability: ArrayLike | None = None
    coverability: ArrayLike | None = None
    tie_order: ArrayLike | None = None
    check: bool = True

    def __post_init__(self) -> None:
        for name, kinds in (("offline", Dataset), ("cls", FiniteClass), ("weights", WeightClass | OccupancyRatios)):
            value = getattr(self, name)
            if not isinstance(value, kinds):
                wanted = getattr(kinds, "__name__", "WeightClass or an OccupancyRatios")
                raise TypeError(f"{name} must be a {wanted}, not a {type(value).__name__}")
        require_int(self.iterations, 1, "iterations")
        require_level(self.delta)
        if self.form not in FORMS:
            raise ValueError(f"form must be 'max' or 'sum', not {self.form!r}")
        for name in ("gamma", "c", "noise_width", "total_reward"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {value!r}")
        self.cls.require_fits(self.offline)
        self.weights.require_fits(self.cls)
        offline_rows(self.offline, self.iterations - 1)
        self._require_law()
        for name in ("concentrability", "coverability"):
            if getattr(self, name) is not None:
                _layers(getattr(self, name), name, self.cls.horizon)
            elif self.gamma is None:
                raise ValueError(f"gamma, or {name} for the default of gamma, must be given")
        if self.tie_order is not None:
            order = frozen(self.tie_order, np.int64, "tie_order")
            if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(self.cls.size)):
                raise ValueError(f"tie_order must be a permutation of the {self.cls.size} members")
            object.__setattr__(self, "tie_order", order)

    def _require_law(self) -> None:
        shape = (self.cls.horizon, self.cls.n_states, self.cls.n_actions)
        if isinstance(self.weights, OccupancyRatios):
            if len(self.weights.row) != self.cls.size:
                raise ValueError(f"weights have rows for {len(self.weights.row)} members, cls has {self.cls.size}")
            if self.offline_law is None:
                raise ValueError("offline_law must be given: OccupancyRatios are taken against it")
        if self.offline_law is not None:
            law = frozen(self.offline_law, np.float64, "offline_law")
            models = getattr(self.weights, "n_models", 1)
            if law.shape not in (shape, (models, *shape)):
                raise ValueError(f"offline_law has shape {law.shape}, not {shape} or {(models, *shape)}")
            require_distributions(law)
            object.__setattr__(self, "offline_law", law)

    @property
    def provable(self) -> bool:
        """Whether the model is made to fit the theorem, with constants that cover its noise."""
        return bool(self.check and self.noise_width >= 1.0)

    def slope(self) -> float:
        """The slope gamma: as given, or the one that minimises the risk bound (page HyGLOW).

        See `h2o_gamma`.
        """
        if self.gamma is not None:
            return float(self.gamma)
        horizon, rounds = self.cls.horizon, max(self.iterations, 2)
        a, b = mabo_cr_constants(
            horizon=horizon,
            n_functions=self.cls.size,
            log_tests=log_tests(self.weights, rounds),
            delta=self.delta,
            c=self.c,
            noise_width=self.noise_width,
        )
        star, cover = np.asarray(self.concentrability, float), np.asarray(self.coverability, float)
        return float(h2o_gamma(rounds, coverability=cover, concentrability=star, a=a, b=b, horizon=horizon))

    def require(self, mdp: FiniteHorizonMDP) -> None:
        """Refuse a model that is not as the theorem assumes, unless `check` is False.

        Of a list of weights only round 2 is looked at, and only if `offline_law` is given: later rounds have too many
        mixtures to try. Of `OccupancyRatios` one of the models must have the true occupancies.

        Raises
        ------
        ValueError
            Q* is not in F, an episode can collect more than the units allow, or a ratio is missing from W.
        """
        if not self.check:
            return
        hint = "(check=False runs all the same)"
        self.cls.require_fits(mdp)
        units = units_of(mdp, self.total_reward)
        require_total(mdp, units)
        found = realizability(self.cls, mdp)
        if not found:
            raise ValueError(f"{found.message} {hint}")
        greedy = in_units(self.cls, mdp, units).greedy
        policies, of_member = np.unique(greedy, axis=0, return_inverse=True)
        masses = np.stack([occupancy(mdp, policy) for policy in policies])
        if isinstance(self.weights, OccupancyRatios):
            gap = np.abs(self.weights.masses[:, self.weights.row] - masses[of_member.ravel()]).max(axis=(2, 3, 4))
            if not gap.max(axis=1).min() <= TOLERANCE:
                m = int(gap.max(axis=1).argmin())
                f = int(gap[m].argmax())
                raise ValueError(
                    f"no model of the weights has the occupancies of the greedy policies: model {m}, which comes "
                    f"closest, is off by {gap[m, f]:.6g} for member {f} {hint}"
                )
        elif self.offline_law is not None:
            law = np.asarray(self.offline_law).reshape(masses.shape[1:])
            first_of = np.unique(of_member.ravel(), return_index=True)[1]
            level = 2 * self.slope()
            held = np.minimum(self.weights.values, level)
            for j, played in enumerate(masses):
                for i, mine in enumerate(masses):
                    ratio = np.minimum(density_ratio(mine, 0.5 * (law + played)), level)
                    gap = np.abs(held - ratio).max(axis=(2, 3)).min(axis=0)
                    if not gap.max() <= TOLERANCE * max(1.0, level):
                        raise ValueError(
                            f"W lacks the ratio of member {first_of[i]} at layer {gap.argmax()} after member "
                            f"{first_of[j]} was played: the nearest clipped weight is off by {gap.max():.6g} {hint}"
                        )

    def init(self, problem: Problem) -> HyGLOWState:
        """A fresh state for one run, of size H S A (nF + nW) and T H."""
        self.cls.require_fits(problem)
        units = units_of(problem, self.total_reward)
        members = in_units(self.cls, problem, units)
        n, horizon, n_states, n_actions = members.values.shape
        shape = (horizon, n_states, n_actions)
        rows = offline_rows(self.offline, self.iterations - 1)
        columns = [getattr(self.offline, name)[rows] for name in ("state", "action", "next_state")]
        forbidden = ~problem.action_mask[columns[0], columns[1]]
        if forbidden.any():
            row = rows[first(forbidden)]
            raise ValueError(f"action[{row}] = {self.offline.action[row]} of the offline data is forbidden there")
        weights, masses = self.weights, np.zeros((0, 0, *shape))
        row, law = np.zeros(n, np.int64), np.zeros((0, *shape))
        if isinstance(weights, OccupancyRatios):
            masses, row = weights.masses.copy(), weights.row.copy()
            law = np.broadcast_to(np.asarray(self.offline_law), (weights.n_models, *shape)).copy()
            tested = np.zeros((weights.n_models * weights.n_policies, *shape))
        else:
            tested = weights.values.copy()
        order = np.arange(n) if self.tie_order is None else np.array(self.tie_order)
        return HyGLOWState(
            values=np.ascontiguousarray(np.moveaxis(members.values, 0, -1)),
            best=np.ascontiguousarray(np.moveaxis(members.best, 0, -1)),
            greedy=members.greedy,
            order=order,
            weights=tested,
            masses=masses,
            row=row,
            law=law,
            played=np.zeros(law.shape),
            offline=np.ascontiguousarray(np.stack(columns, axis=-1)),
            offline_reward=(self.offline.reward[rows] - units.low) / units.scale,
            visits=np.zeros(shape),
            sums=np.zeros((*shape, n)),
            chosen=np.full(self.iterations, -1),
            objective=np.zeros(n),
            means=np.zeros(n),
            totals=np.zeros(n),
            policy=members.greedy[order[0]].copy(),
            finished=np.zeros(1, np.bool_),
            low=units.low,
            unit=units.scale,
            gamma=self.slope(),
            c=float(self.c),
            layered=self.form == "max",
        )

    def fault(self, state: HyGLOWState) -> str | None:
        """What happened if more than T iterations were asked for."""
        if state.finished[0]:
            return f"the settings are for iterations={self.iterations}, no more"
        return None


def returned_policy(state: Any) -> MixturePolicy:
    """What HyGLOW or GLOW returns: Unif(pi^1, ..., pi^T) over the iterations played, equal policies taken together.

    Parameters
    ----------
    state : HyGLOWState or GLOWState
        A final state of a run with `keep_states=True`.

    Returns
    -------
    MixturePolicy

    Raises
    ------
    ValueError
        If nothing was played yet.
    """
    members = state.chosen[state.chosen >= 0]
    if members.size == 0:
        raise ValueError("no iteration was played yet")
    policies, counts = np.unique(state.greedy[members], axis=0, return_counts=True)
    return MixturePolicy(tuple(policies), counts / members.size)


def risk(result: Run) -> NDArray[np.float64]:
    """J* minus the value of Unif(pi^1, ..., pi^T), the policies of a run's episodes: regret / T, one entry per seed.

    Parameters
    ----------
    result : Run
        Up to its last checkpoint.

    Returns
    -------
    (seeds,) ndarray
        In units of reward.
    """
    return np.asarray(result.regret[:, -1] / result.checkpoints[-1])


def _layers(given: Any, name: str, horizon: int) -> NDArray[np.float64]:
    table = np.asarray(given, np.float64)
    if table.shape not in ((), (horizon,)):
        raise ValueError(f"{name} must be one number or one for each of {horizon} layers, not {table.shape}")
    if not (np.all(table >= 1 - TOLERANCE) and np.all(table < math.inf)):
        raise ValueError(f"{name} must be finite and at least 1, not {given!r}")
    return np.broadcast_to(np.maximum(table, 1.0), (horizon,))


@kernel("strict")
def hybrid_ratios(masses, law, played, rounds, weights):
    """weights[m nP + p] = masses[m, p] / ((law[m] + played[m] / rounds) / 2), with 0 / 0 = 0 and x / 0 = infinity."""
    for m in range(masses.shape[0]):
        for h in range(law.shape[1]):
            for s in range(law.shape[2]):
                for a in range(law.shape[3]):
                    under = 0.5 * (law[m, h, s, a] + played[m, h, s, a] / rounds)
                    for p in range(masses.shape[1]):
                        over, ratio = masses[m, p, h, s, a], 0.0
                        if over > 0.0:
                            ratio = over / under if under > 0.0 else math.inf
                        weights[m * masses.shape[1] + p, h, s, a] = ratio


@plan.implement(HyGLOWState)
def _(learner, episode):
    chosen, order, offline = learner.chosen, learner.order, learner.offline
    if episode >= chosen.shape[0]:
        learner.finished[0] = True
        return False
    member = order[0]
    if episode > 0:
        n = 2.0 * episode
        level = learner.gamma * n
        if learner.masses.shape[0] > 0:
            hybrid_ratios(learner.masses, learner.law, learner.played, float(episode), learner.weights)
        kernels.mabo_objective(
            learner.sums,
            learner.visits,
            learner.weights,
            n,
            level,
            learner.c / level,
            learner.layered,
            learner.objective,
            learner.means,
            learner.totals,
        )
        member = kernels.least_member(learner.objective, order)
    chosen[episode] = member
    for m in range(learner.masses.shape[0]):
        mine = learner.masses[m, learner.row[member]]
        for h in range(mine.shape[0]):
            for s in range(mine.shape[1]):
                for a in range(mine.shape[2]):
                    learner.played[m, h, s, a] += mine[h, s, a]
    # The offline tuples that go with this episode; the last one goes without.
    if episode < offline.shape[0]:
        for h in range(offline.shape[1]):
            s, a, s_next = offline[episode, h, 0], offline[episode, h, 1], offline[episode, h, 2]
            learner.visits[h, s, a] += 1.0
            kernels.add_residuals(
                learner.values, learner.best, h, s, a, learner.offline_reward[episode, h], s_next, learner.sums
            )
    changed = False
    greedy, policy = learner.greedy[member], learner.policy
    for h in range(policy.shape[0]):
        for s in range(policy.shape[1]):
            if policy[h, s] != greedy[h, s]:
                policy[h, s] = greedy[h, s]
                changed = True
    return changed


@act.implement(HyGLOWState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@chance.implement(HyGLOWState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(HyGLOWState)
def _(learner, h, s):
    return math.inf


@observe.implement(HyGLOWState)
def _(learner, h, s, a, reward, s_next):
    learner.visits[h, s, a] += 1.0
    kernels.add_residuals(
        learner.values, learner.best, h, s, a, (reward - learner.low) / learner.unit, s_next, learner.sums
    )


__all__ = ["HyGLOW", "HyGLOWState", "returned_policy", "risk"]
