"""Theorems about H2O and HyGLOW: the reduction for every sequence, the risk, what offline data cannot do, the rate."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.builders import optimal_values
from theoryrl.classes.values import FiniteClass
from theoryrl.complexity.coverability import coverability
from theoryrl.density_ratio._instances import arm_class, bandit, combination_lock
from theoryrl.density_ratio.bounds import h2o_risk_bound, hyglow_iterations, hyglow_risk_bound
from theoryrl.density_ratio.h2o import h2o, hybrid_coverage
from theoryrl.density_ratio.hyglow import HyGLOW
from theoryrl.density_ratio.mabo_cr import mabo_cr
from theoryrl.density_ratio.members import adversarial_order, member_values
from theoryrl.density_ratio.oracles import ratios_to
from theoryrl.density_ratio.potential import potential_bound
from theoryrl.density_ratio.problem import units_of
from theoryrl.density_ratio.weights import log_tests, occupancy_ratios
from theoryrl.mdp.evaluation import evaluate, occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import MixturePolicy, uniform_policy
from theoryrl.mdp.rounding import SAFE, U, gamma, rounding_of
from theoryrl.mdp.simulation import rollout
from theoryrl.online._protocols import BOUNDED, DELTA, INDEPENDENT, value_rounding
from theoryrl.online.run import run
from theoryrl.theory._dp_tools import Instances, finite_models, names, random_policy
from theoryrl.theory.theorem import (
    Assumption,
    Control,
    ExactObservations,
    ProbabilityObservations,
    Progress,
    Proof,
    RateObservations,
    Theorem,
)

PAGE = "docs/theory/hyglow.md"
FAMILY = "density-ratio"
SOURCE = "Amortila, Foster, Jiang, Sekhari, Xie (2024)"


# ---- h2o.reduction

POOL, ROUNDS = 8, 60  # policies that sequences are made of, and their length
ADVERSARY = 2.0  # a of the oracles that are measured


def reduction(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """The two sums of clipped concentrability per layer, and the risk, for sequences of all kinds.

    Mutants, on a bandit whose worse arm is played for ever: `offline` (the data of the played policy are left out),
    `unclipped` (no clipping), `wrong data` (offline data without the better arm).
    """
    generator = np.random.default_rng(rng)
    if mutant:
        models = [bandit([0.75, 0.25])]
    else:
        models = finite_models(model, generator, runs)
    instances = Instances(names(models, model) if not mutant else ("bandit",))
    for count, mdp in enumerate(models):
        best = backward_induction(mdp).policy
        star, slack = occupancy(mdp, best), _flow_rounding(mdp)
        for law_name, law in _offline_laws(mdp, star, generator, mutant):
            slope = 1.0 if mutant else float(np.exp(generator.uniform(np.log(0.02), np.log(3.0))))
            for name, policies in _sequences(mdp, best, law, slope, generator, mutant):
                label = f"{mdp.name}: {law_name}, {name}, gamma={slope:.3g}"
                _check_sequence(instances, label, mdp, policies, star, law, slope, slack, mutant)
        if progress is not None:
            progress(count + 1, len(models), "models")
    return instances.observations()


def _check_sequence(
    instances: Instances,
    label: str,
    mdp: FiniteHorizonMDP,
    policies: list[NDArray],
    star: NDArray[np.float64],
    law: NDArray[np.float64],
    slope: float,
    slack: float,
    mutant: str,
) -> None:
    flows = np.stack([occupancy(mdp, policy) for policy in policies])
    rounds, horizon = len(flows), mdp.horizon
    if mutant == "offline":
        # n = 2 (t - 1) tuples of nu alone.
        steps = 2 * np.arange(1, rounds)[:, np.newaxis]
        optimal = slope * np.ones((rounds - 1, horizon)) * np.minimum(1.0, 1.0 / (slope * steps))
        played = np.where(law[np.newaxis] > 0, np.minimum(flows[1:] / (steps[..., np.newaxis, np.newaxis] * np.where(
            law > 0, law, 1.0)), slope), slope)
        played = (played * flows[1:]).sum(axis=(2, 3))
    else:
        optimal, played = hybrid_coverage(flows, star, law, math.inf if mutant == "unclipped" else slope)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(star > 0, star * (star / law), 0.0).sum(axis=(1, 2))
    ratio = np.ones(horizon) if mutant == "wrong data" else ratio
    harmonic = math.fsum(1 / k for k in range(1, rounds))
    cover = flows.max(axis=0).sum(axis=(1, 2))
    potential = potential_bound(rounds, cover)
    limits = ratio * harmonic, (1 + slope) * (potential - 1)
    for h in range(horizon):
        error = slack * float(limits[0][h] + limits[1][h] + 2 * (1 + slope))
        instances.add(f"{label}, h={h}, optimal policy", optimal[:, h].sum(), limits[0][h], error)
        instances.add(f"{label}, h={h}, policies played", played[:, h].sum(), limits[1][h], error)
    # The least b for which every answer of the oracle was within its bound, in units of the total reward.
    units = units_of(mdp)
    top = float(mdp.initial @ backward_induction(mdp).value[0])
    regret = (top - np.array([float(mdp.initial @ evaluate(mdp, policy)[0]) for policy in policies])) / units.scale
    spent = ADVERSARY / slope * (optimal + played).sum(axis=1)
    if np.isfinite(spent).all():
        b = max(0.0, float((regret[1:] - spent).max())) / (horizon * slope)
        bound = h2o_risk_bound(
            rounds, a=ADVERSARY, b=b, gamma=slope, concentrability=np.maximum(ratio, 1.0), coverability=cover
        )
        error = 4 * value_rounding(mdp) / units.scale + slack * (float(bound) + 2 / slope * horizon)
        instances.add(f"{label}, risk", float(regret.mean()), float(bound), error)


def _flow_rounding(mdp: FiniteHorizonMDP) -> float:
    """Relative error of the sums over rounds (page HyGLOW, "Rounding")."""
    pairs = mdp.n_states * mdp.n_actions
    flow = gamma(mdp.horizon * (pairs + 4) + 2) + mdp.horizon * rounding_of(mdp).defect
    return (3 * flow + gamma(pairs + ROUNDS + 64)) * 2


def _offline_laws(
    mdp: FiniteHorizonMDP, star: NDArray[np.float64], rng: np.random.Generator, mutant: str
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    if mutant:
        yield "one arm", occupancy(mdp, np.full(1, 1 if mutant == "wrong data" else 0))
        return
    yield "data of the optimal policy", star
    share = float(rng.uniform(0.05, 0.95))
    yield "mixed data", share * star + (1 - share) * occupancy(mdp, random_policy(mdp, rng, stochastic=True))


def _sequences(
    mdp: FiniteHorizonMDP,
    best: NDArray,
    law: NDArray[np.float64],
    slope: float,
    rng: np.random.Generator,
    mutant: str,
) -> Iterator[tuple[str, list[NDArray]]]:
    if mutant:
        yield "the worse arm", [np.full((1, 1), 1)] * 400
        return
    pool = [random_policy(mdp, rng, stochastic=index % 4 == 3) for index in range(POOL)]
    yield "one policy", [pool[0]] * ROUNDS
    yield "in turn", [pool[t % POOL] for t in range(ROUNDS)]
    yield "at random", [pool[i] for i in rng.integers(0, POOL, ROUNDS)]
    yield "the least covered of them", _least_covered(mdp, pool, law, slope)
    mixture = MixturePolicy((*pool[:3], best))
    data = rollout(mdp, best, ROUNDS, rng, jobs=1)
    yield "a randomised oracle", list(h2o(lambda _: mixture, mdp, data, ROUNDS, rng, first=pool[1]).policies)
    yield "an oracle that reads its data", list(h2o(_fickle(pool), mdp, data, ROUNDS, rng, first=pool[1]).policies)


def _least_covered(mdp: FiniteHorizonMDP, pool: list[NDArray], law: NDArray, slope: float) -> list[NDArray]:
    """In every round the policy of the pool whose clipped concentrability is largest."""
    flows = np.stack([occupancy(mdp, policy) for policy in pool])
    mass, chosen = np.zeros(law.shape), []
    for t in range(ROUNDS):
        under = t * law + mass
        ratio = np.divide(flows, under, out=np.full(flows.shape, np.inf), where=under > 0)
        worth = np.where(flows > 0, flows * np.minimum(ratio, slope), 0.0).sum(axis=(1, 2, 3))
        chosen.append(int(worth.argmax()))
        mass = mass + flows[chosen[-1]]
    return [pool[i] for i in chosen]


def _fickle(pool: list[NDArray]) -> Callable[[Any], NDArray]:
    """A deterministic function of the data that nobody would want: which policy depends on what was seen last."""
    return lambda data: pool[int(data.state[-1] + 3 * data.action[-1] + 5 * data.next_state[-2]) % len(pool)]


# ---- hyglow.risk

LONGEST = 200_000
WORK = 2e10  # multiplications of all rounds of all runs at most


def class_of(model: FiniteHorizonMDP) -> FiniteClass:
    """Q*, and for every layer a member that thinks the worst action of that layer the best of all."""
    optimal = optimal_values(model)
    units = units_of(model)
    values = np.repeat(optimal[np.newaxis], model.horizon + 1, axis=0)
    for h in range(model.horizon):
        table = np.where(model.action_mask, optimal[h], np.inf)
        worst = table.argmin(axis=1)
        values[h + 1, h, np.arange(model.n_states), worst] = (model.horizon - h) * units.low + units.scale
    return FiniteClass(values)


def half_optimal(model: FiniteHorizonMDP) -> MixturePolicy:
    """Every other trajectory of an optimal policy, the others of the uniform one."""
    return MixturePolicy((backward_induction(model).policy, uniform_policy(model)))


def concentrability_of(model: FiniteHorizonMDP, law: NDArray[np.float64]) -> NDArray[np.float64]:
    """E_{d*}[d* / nu] of the optimal policy with the lowest-numbered actions."""
    star = occupancy(model, backward_induction(model).policy)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(star > 0, star * (star / law), 0.0).sum(axis=(1, 2)))


@dataclass(frozen=True)
class Hybrid:
    """A class, the policy that collected the offline data, and what is said of their concentrability."""

    classes: Callable[[FiniteHorizonMDP], FiniteClass] = class_of
    behaviour: Callable[[FiniteHorizonMDP], Any] = half_optimal
    claimed: Callable[[FiniteHorizonMDP], NDArray[np.float64]] | None = None


def hybrid_risk(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    setting: Hybrid = Hybrid(),
    rounds: int | None = None,
) -> ProbabilityObservations:
    """The risk of Unif(pi^1, ..., pi^T) with fresh offline data in every run, against the bound, in units of reward."""
    cls, behaviour = setting.classes(model), setting.behaviour(model)
    weights, law = occupancy_ratios(cls, model), occupancy(model, behaviour)
    star = concentrability_of(model, law) if setting.claimed is None else setting.claimed(model)
    policies = [cls.greedy(model.action_mask)[f] for f in range(cls.size)]
    cover = coverability(model, policies) * (1 + 1e-9)
    per_round = model.horizon * model.n_states * model.n_actions * (cls.size + 2) * weights.n_policies
    played = rounds or int(np.clip(WORK / (runs * per_round), 200, LONGEST))
    settings = dict(iterations=played, concentrability=np.maximum(star, 1.0), coverability=cover, delta=DELTA)
    units = units_of(model)
    bound = float(
        hyglow_risk_bound(
            played,
            n_functions=cls.size,
            log_tests=log_tests(weights, played),
            delta=DELTA,
            concentrability=settings["concentrability"],
            coverability=cover,
            total_reward=units.scale,
        )
    )

    def one(stream: np.random.SeedSequence) -> float:
        before, after = stream.spawn(2)
        offline = rollout(model, behaviour, max(played - 1, 1), before, jobs=1)
        learner = HyGLOW(offline, cls, weights, offline_law=law, check=False, **settings)
        result = run(learner, model, played, 1, after, jobs=1, checkpoints=[played])
        if progress is not None:
            done.append(1)
            progress(len(done), runs, "runs")
        return float(result.regret[0, 0] / played)

    done: list[int] = []
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        seen = list(pool.map(one, rng.spawn(runs)))
    allowed = bound + 2 * value_rounding(model) + gamma(played + 100) * (bound + units.scale) + 1e-300
    most = float(member_values(model, cls).regret.max())
    remark = f"no policy of the class loses more than {most:.3g}: nothing could have failed" if bound >= most else ""
    return ProbabilityObservations(np.array(seen), allowed, remark=remark)


def far_arms() -> FiniteHorizonMDP:
    """Two Bernoulli arms of means 0.95 and 0.05."""
    return bandit([0.95, 0.05])


def hopes(model: FiniteHorizonMDP) -> FiniteClass:
    """For `far_arms`: Q*, and a member that expects the worse arm to be sure."""
    return arm_class([[0.95, 0.05], [0.95, 1.0]])


def disdain(model: FiniteHorizonMDP) -> FiniteClass:
    """For `far_arms`: a member that thinks nothing of the better arm and knows the worse one, and Q*."""
    return arm_class([[0.0, 0.05], [0.95, 0.05]])


def without_truth(model: FiniteHorizonMDP) -> FiniteClass:
    """For `far_arms`: two members that prefer the worse arm."""
    return arm_class([[0.0, 0.1], [0.2, 0.3]])


def _ones(model: FiniteHorizonMDP) -> NDArray[np.float64]:
    return np.ones(model.horizon)


# ---- hyglow.offline-fails

SLOPES, SIZES, BATCHES, EPISODES = (0.01, 0.05, 0.3, 2.0), (2, 3, 4, 6), (1, 10, 400), 200


def offline_fails(
    model: None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """Combination locks: objectives and risk from offline data alone, then the regret of HyGLOW on the same data.

    Mutants: `kind ties` (ties go to Q*), `explored` (data of the uniform policy), `offline` (no episode joins the
    data).
    """
    instances = Instances(tuple(f"combination lock, H={horizon}" for horizon in SIZES))
    for horizon, stream in zip(SIZES, rng.spawn(len(SIZES)), strict=True):
        mdp, cls = combination_lock(horizon)
        best = backward_induction(mdp).policy
        lost = member_values(mdp, cls, 1.0).regret
        order = np.arange(cls.size) if mutant == "kind ties" else adversarial_order(cls, mdp, 1.0)
        behaviour = uniform_policy(mdp) if mutant == "explored" else best
        law, ratios = occupancy(mdp, behaviour), occupancy_ratios(cls, mdp, 1.0)
        offline, error = rollout(mdp, behaviour, EPISODES + max(BATCHES), stream, jobs=1), 4 * value_rounding(mdp)
        for slope in SLOPES:
            for batch in BATCHES:
                first = _head(offline, batch)
                for form in ("max", "sum"):
                    settings = dict(gamma=slope, form=form, units=units_of(mdp, 1.0), tie_order=order)
                    found = mabo_cr(first, cls, ratios_to(ratios, law), **settings)
                    label = f"H={horizon}, gamma={slope}, {form}, {batch} trajectories"
                    instances.add(f"{label}: objective", float(np.abs(found.objective).max()), 0.0, 0.0)
                    risk = float(mdp.initial @ (backward_induction(mdp).value[0] - evaluate(mdp, found.policy)[0]))
                    instances.add(f"{label}: risk at least .8", -risk, -0.8, error)
            learner = HyGLOW(
                offline, cls, ratios, EPISODES, gamma=slope, offline_law=law, total_reward=1.0, tie_order=order
            )
            result = run(learner, mdp, EPISODES, 1, stream, jobs=1, keep_states=True)
            chosen, total = result.states[0].chosen, float(result.regret[0, -1])
            if mutant == "offline":
                chosen, total = np.full(EPISODES, order[0]), EPISODES * float(lost[order[0]])
            label = f"H={horizon}, gamma={slope}, HyGLOW"
            often = np.bincount(chosen, minlength=cls.size)[lost > 0]
            instances.add(f"{label}: plays of a wrong member", float(often.max()), 1.0, 0.0)
            instances.add(f"{label}: regret", total, float(lost.sum()), EPISODES * error)
    return instances.observations()


def _head(offline: Any, trajectories: int) -> Any:
    """The first trajectories of a data set."""
    keep = offline.trajectory < trajectories
    columns = [column[keep] for column in offline.columns.values()]
    return type(offline)(*columns, offline.n_states, offline.n_actions, offline.horizon)


# ---- hyglow.rate, hyglow.sample-complexity

HORIZONS, SCALE = (2, 3, 4, 6, 8), 2.0
LAYERS = (4, 8, 16, 32, 64)


def printed_rate(
    model: None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    exponent: float = 2.0,
) -> RateObservations:
    """How many trajectories HyGLOW has drawn when it has run for T = 2 H^4 iterations, all but H the same.

    Counted from the learner's own data: those it played, and those it took from the offline data.
    """
    drawn = np.empty((runs, len(HORIZONS)))
    for column, horizon in enumerate(HORIZONS):
        mdp, cls = combination_lock(horizon)
        members = FiniteClass(cls.values[:3])
        policy = backward_induction(mdp).policy
        rounds = int(SCALE * horizon**4)
        learner = HyGLOW(
            rollout(mdp, policy, rounds, rng, jobs=1),
            members,
            occupancy_ratios(members, mdp, 1.0),
            iterations=rounds,
            gamma=0.05,
            offline_law=occupancy(mdp, policy),
            total_reward=1.0,
        )
        result = run(learner, mdp, rounds, runs, rng, jobs=jobs, keep_states=True, checkpoints=[rounds])
        drawn[:, column] = [state.visits[0].sum() for state in result.states]
        if progress is not None:
            progress(column + 1, len(HORIZONS), "horizons")
    return RateObservations(
        np.array(HORIZONS, float), drawn, exponent, 0.5, upper=True, models=("combination locks",)
    )


def layer_max_rate(
    model: None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    printed: bool = False,
) -> RateObservations:
    """Iterations that the risk bound asks for at risk 0.1, all but H the same; `printed`: with b = 56 H^2 L, a = 40."""
    needed = []
    for horizon in LAYERS:
        settings = dict(
            n_functions=8, log_tests=math.log(8), delta=0.1, concentrability=np.ones(horizon),
            coverability=np.full(horizon, 2.0),
        )
        needed.append(hyglow_iterations(0.1, source="paper" if printed else "ours", **settings))
        if progress is not None:
            progress(len(needed), len(LAYERS), "horizons")
    table = np.tile(np.array(needed, float), (runs, 1))
    return RateObservations(np.array(LAYERS, float), table, 2.0, 0.5, upper=True, models=("the bound",))
