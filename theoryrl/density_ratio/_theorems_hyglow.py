"""Theorems about HyGLOW: its risk, what offline data alone cannot say, and how many trajectories it needs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
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
from theoryrl.density_ratio._theorems_h2o import CONSTANTS, HYBRID, PAGE, SETTING, SOURCE
from theoryrl.density_ratio.bounds import (
    hyglow_iterations,
    hyglow_risk_bound,
    paper_h2o_risk_bound,
)
from theoryrl.density_ratio.hyglow import HyGLOW
from theoryrl.density_ratio.mabo_cr import mabo_cr
from theoryrl.density_ratio.members import adversarial_order, member_values
from theoryrl.density_ratio.oracle_constants import mabo_cr_constants
from theoryrl.density_ratio.oracles import ratios_to
from theoryrl.density_ratio.problem import units_of
from theoryrl.density_ratio.weights import log_tests, occupancy_ratios
from theoryrl.mdp.evaluation import evaluate, occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import MixturePolicy, uniform_policy
from theoryrl.mdp.rounding import gamma
from theoryrl.mdp.simulation import rollout
from theoryrl.online._protocols import BOUNDED, DELTA, INDEPENDENT, value_rounding
from theoryrl.online.run import run
from theoryrl.theory._dp_tools import Instances
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

# ---- hyglow.risk

LONGEST = 100_000
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
    """The risk of Unif(pi^1, ..., pi^T) with fresh offline data in every run, against the bound, in units of reward.

    Ties go to the worse policy.
    """
    cls, behaviour = setting.classes(model), setting.behaviour(model)
    weights, law = occupancy_ratios(cls, model), occupancy(model, behaviour)
    star = concentrability_of(model, law) if setting.claimed is None else setting.claimed(model)
    policies = [cls.greedy(model.action_mask)[f] for f in range(cls.size)]
    cover = coverability(model, policies) * (1 + 1e-9)
    per_round = model.horizon * model.n_states * model.n_actions * (cls.size + 2) * weights.n_policies
    played = rounds or int(np.clip(WORK / (runs * per_round), 200, LONGEST))
    settings: dict[str, Any] = dict(
        iterations=played,
        concentrability=np.maximum(star, 1.0),
        coverability=cover,
        delta=DELTA,
        tie_order=adversarial_order(cls, model),
    )
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
                    settings: dict[str, Any] = dict(gamma=slope, form=form, units=units_of(mdp, 1.0), tie_order=order)
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
    return RateObservations(np.array(HORIZONS, float), drawn, exponent, 0.5, upper=True, models=("combination locks",))


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
        ratios = dict(concentrability=1.0, coverability=np.full(horizon, 2.0))
        if printed:
            needed.append(_least(partial(_printed_risk, horizon), 0.1))
        else:
            needed.append(hyglow_iterations(0.1, n_functions=8, n_weights=8, delta=0.1, **ratios))
        if progress is not None:
            progress(len(needed), len(LAYERS), "horizons")
    table = np.tile(np.array(needed, float), (runs, 1))
    return RateObservations(np.array(LAYERS, float), table, 2.0, 0.5, upper=True, models=("the bound",))


def _printed_risk(horizon: int, rounds: float) -> float:
    """Theorem 4.1 with the constants of Theorem F.1, both as printed."""
    a, b = mabo_cr_constants(horizon=horizon, n_functions=8, log_tests=math.log(8), delta=0.1, source="paper")
    settings = dict(a=a, b=b, concentrability=1.0, coverability=np.full(horizon, 2.0))
    return float(paper_h2o_risk_bound(rounds, **settings))


def _least(bound: Callable[[float], float], epsilon: float) -> float:
    """The least T, to 1 part in 1000, at which a bound that falls reaches epsilon."""
    high = 2.0
    while not bound(high) <= epsilon:
        high *= 2
    low = high / 2
    while high > 1.001 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if bound(middle) <= epsilon else (middle, high)
    return high


# ---- the theorems

_RUN: dict[str, Any] = dict(family="density-ratio", accepts="finite-horizon")
_OWN: dict[str, Any] = dict(family="density-ratio", accepts="none")

THEOREMS = (
    Theorem(
        key="hyglow.risk",
        title="The risk of HyGLOW, with every constant",
        statement=SETTING
        + HYBRID
        + CONSTANTS
        + r"Let $F$ be a finite class with $Q^* \in F$ and values in $[0, 1]$, and let the oracle be MABO.CR in its "
        r"layer-max form with $\alpha = c / (\gamma n)$ and weights that hold $d^\pi / \mu^t$ for the greedy policies "
        r"$\pi$ of $F$; $N$ is the number of (round, weight) pairs per layer. For independent offline tuples, with "
        r"probability at least $1 - \delta$ the risk of $\mathrm{Unif}(\pi^1, \dots, \pi^T)$ is at most $\frac1T + "
        r"\frac{a}{\gamma T} \sum_h \{C^*_h H(T - 1) + (1 + \gamma) (C_h H(T / C_h) - 1)\} + H b \gamma$ with $a = "
        r"\max\{(e - 1) c + 2 (e - 2), 2\}$, $b = 2 (c + \frac{1}{8c} + 2) \log(5 |F| H N / \delta)$; here $\gamma$ is "
        r"the best one.",
        source=f"{SOURCE}, Corollary 4.1 (rate); constants and the order $H^2$ derived here, {PAGE}",
        claim="probability",
        protocol=hybrid_risk,
        bound=hyglow_risk_bound,
        controls=(
            Control(
                "offline data of the worse arm",
                "A member that thinks nothing of the better arm is never refuted by the worse one, and is played.",
                partial(
                    hybrid_risk,
                    setting=Hybrid(disdain, lambda model: np.ones(1, np.int64), _ones),
                ),
                model=far_arms,
                runs=10,
            ),
            Control(
                "not realizable",
                "Two members that are both wrong: the one that fits better plays the worse arm.",
                partial(hybrid_risk, setting=Hybrid(without_truth)),
                model=far_arms,
                runs=10,
            ),
        ),
        proof=Proof("written", f"{PAGE}#risk-of-hyglow"),
        expected="consistent",
        assumptions=(
            BOUNDED,
            INDEPENDENT,
            Assumption("realizable", r"$Q^* \in F$; the protocol builds such a class from the model."),
            Assumption(
                "density ratios",
                r"The true ratios $d^\pi / \mu^t$ are in W; the protocol computes them from the model.",
            ),
            Assumption(
                "coverage", "Half of the offline trajectories are those of an optimal policy, half of the uniform one."
            ),
        ),
        delta=DELTA,
        default_runs=100,
        default_model=far_arms,
        **_RUN,
    ),
    Theorem(
        key="hyglow.offline-fails",
        title="Offline data of the optimal policy alone say nothing about the others; one episode of each is enough",
        statement=r"Combination lock of length $H \ge 2$: one of two actions leads on, the last pays 0.8; the other "
        r"leads "
        r"to a dead end worth nothing, at layer 0 with 0.1 on the way. $F$ holds $Q^*$ and, for $k = 1, \dots, H$, a "
        r"member that believes that leaving at layer $k - 1$ is worth 0.95 and agrees with its own backups before. "
        r"From "
        r"any number of trajectories of $\pi^*$ (concentrability 1) the objective of MABO.CR is exactly 0 for all "
        r"members in both forms, so that ties may be broken for a policy of risk 0.8. HyGLOW in its layer-max form "
        r"with "
        r"$c = 1/4$, on the same data, with the same rule for ties, and for any $\gamma > 0$, plays every wrong member "
        r"at most once: its regret is at most $0.7 + 0.8 (H - 1)$ for all $T$, its risk at most $0.8 H / T$.",
        source=f"derived here, {PAGE}#what-offline-data-cannot-say",
        claim="exact",
        protocol=offline_fails,
        controls=(
            Control(
                "ties in favour of Q*",
                "With ties broken for Q*, offline data are enough.",
                partial(offline_fails, mutant="kind ties"),
            ),
            Control(
                "data of the uniform policy",
                "Data that try everything refute the wrong members.",
                partial(offline_fails, mutant="explored"),
            ),
            Control(
                "offline data alone",
                "If episodes do not join the data the first wrong member is played for ever.",
                partial(offline_fails, mutant="offline"),
            ),
        ),
        proof=Proof("written", f"{PAGE}#what-offline-data-cannot-say"),
        expected="verified",
        **_OWN,
    ),
    Theorem(
        key="hyglow.rate",
        title="False as printed: HyGLOW runs T of order H^4 iterations and needs a number of trajectories of order H^2",
        statement=r"Corollary 4.1 as printed, in what it says about $H$: with $T = \tilde\Theta(H^4 (C_{cov} + C_*) "
        r"\log(|F| |W| / \delta) / \epsilon^2)$ iterations HyGLOW returns an $\epsilon$-optimal policy, from $N = "
        r"\tilde O(H^2 (C_{cov} + C_*) \log(|F| |W| / \delta) / \epsilon^2)$ trajectories. Every iteration plays one "
        r"trajectory and takes one from the offline data, so $N \ge T$, and the two cannot both hold. Measured: the "
        r"number of trajectories in the learner's data after $T = 2 H^4$ iterations, everything but $H$ fixed; "
        r"claimed: "
        r"it grows like $H^2$. The printed $T$ is what the printed constants give; that $N$ of order $H^2$ is enough "
        r"is hyglow.sample-complexity.",
        source=f"{SOURCE}, Corollary 4.1; {PAGE}#how-many-trajectories",
        claim="rate",
        protocol=printed_rate,
        controls=(Control("H^3", "An exponent of 3 is as wrong.", partial(printed_rate, exponent=3.0)),),
        proof=Proof("written", f"{PAGE}#how-many-trajectories"),
        expected="refuted",
        default_runs=5,
        **_OWN,
    ),
    Theorem(
        key="hyglow.sample-complexity",
        title="HyGLOW in its layer-max form needs a number of trajectories of order H^2",
        statement=r"With $\max_h C^*_h$, $\max_h C_h$, $|F|$, $|W|$, $\delta$ and $\epsilon$ fixed, the least $T$ at "
        r"which "
        r"the bound of hyglow.risk is at most $\epsilon$ is of order $H^2$ up to logarithms; $2T - 1$ trajectories are "
        r"used. Measured: that $T$ for $H = 4, \dots, 64$.",
        source=f"derived here, {PAGE}#how-many-trajectories",
        claim="rate",
        protocol=layer_max_rate,
        bound=hyglow_iterations,
        controls=(
            Control(
                "printed constants",
                "With b = 56 H^2 log(24 |F| |W| H^2 / delta), as printed, the order is H^4.",
                partial(layer_max_rate, printed=True),
            ),
        ),
        proof=Proof("written", f"{PAGE}#how-many-trajectories"),
        expected="consistent",
        default_runs=5,
        **_OWN,
    ),
)
