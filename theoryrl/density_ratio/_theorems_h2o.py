"""The theorem about H2O: what its data guarantee of any sequence of policies, and so of any offline oracle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.density_ratio._instances import bandit
from theoryrl.density_ratio.bounds import (
    h2o_risk_bound,
)
from theoryrl.density_ratio.h2o import h2o, hybrid_coverage
from theoryrl.density_ratio.potential import potential_bound
from theoryrl.density_ratio.problem import units_of
from theoryrl.mdp.evaluation import evaluate, occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import MixturePolicy
from theoryrl.mdp.rounding import gamma, rounding_of
from theoryrl.mdp.simulation import rollout
from theoryrl.online._protocols import value_rounding
from theoryrl.theory._dp_tools import Instances, finite_models, names, random_policy
from theoryrl.theory.theorem import (
    Control,
    ExactObservations,
    Progress,
    Proof,
    Theorem,
)

PAGE = "docs/theory/hyglow.md"
SOURCE = "Amortila, Foster, Jiang, Sekhari, Xie (2024)"


# ---- h2o.reduction

POOL, ROUNDS = 8, 60  # policies that sequences are made of, and their length
ADVERSARY, LEAST = 2.0, 1e-9  # a of the oracles that are measured, and what is added to their b, which may be 0


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
        played = np.where(
            law[np.newaxis] > 0,
            np.minimum(flows[1:] / (steps[..., np.newaxis, np.newaxis] * np.where(law > 0, law, 1.0)), slope),
            slope,
        )
        played = (played * flows[1:]).sum(axis=(2, 3))
    else:
        optimal, played = hybrid_coverage(flows, star, law, 1e9 if mutant == "unclipped" else slope)
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
            rounds,
            a=ADVERSARY,
            b=b + LEAST,
            gamma=slope,
            concentrability=np.maximum(ratio, 1.0),
            coverability=np.maximum(cover, 1.0),
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
        yield "the worse arm", [np.zeros((1, 1), np.int64)] + [np.ones((1, 1), np.int64)] * 399
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


# ---- the theorems

SETTING = (
    r"$M$ is a finite-horizon MDP with layers $h = 0, \dots, H - 1$ in which an episode's total reward lies in $[0, "
    r"1]$, "
    r"$J(\pi)$ the expected total, $\pi^*$ optimal, $d^\pi_h(s, a)$ the probability that $\pi$ is in $s$ and takes $a$ "
    r"at layer $h$, $CC_h(\pi, \mu, g) = E_{d^\pi_h}[\min\{d^\pi_h / \mu_h, g\}]$. "
)
HYBRID = (
    r"H2O plays $\pi^1, \dots, \pi^T$, where $\pi^t$ is what an offline oracle returns on $n = 2 (t - 1)$ tuples per "
    r"layer: the first $t - 1$ offline ones, of law $\nu_h$, and those of the episodes $i < t$; their mean law is "
    r"$\mu^t "
    r"= \frac12 (\nu + \frac{1}{t-1} \sum_{i < t} d^{\pi^i})$. "
)
CONSTANTS = (
    r"$C^*_h = E_{d^{\pi^*}_h}[d^{\pi^*}_h / \nu_h]$, $C_h = \sum_{s, a} \max_t d^{\pi^t}_h(s, a)$, $H(x) = \sum_{k "
    r"\ge "
    r"1} x / (k (k + x))$ (the harmonic numbers). "
)

THEOREMS = (
    Theorem(
        key="h2o.reduction",
        title="Any offline algorithm that fails only where data do not cover it becomes a hybrid one with small risk",
        statement=SETTING
        + HYBRID
        + CONSTANTS
        + r"For every $\gamma > 0$ and every sequence of policies, whoever chose them, $\sum_{t=2}^T \frac1n "
        r"CC_h(\pi^*, "
        r"\mu^t, \gamma n) \le C^*_h H(T - 1)$ and $\sum_{t=2}^T \frac1n CC_h(\pi^t, \mu^t, \gamma n) \le (1 + \gamma) "
        r"(C_h H(T / C_h) - 1)$. Hence if in every round $J(\pi^*) - J(\pi^t) \le \sum_h \{\frac{a}{\gamma n} "
        r"(CC_h(\pi^*, \mu^t, \gamma n) + CC_h(\pi^t, \mu^t, \gamma n)) + b \gamma\}$, then the risk of "
        r"$\mathrm{Unif}(\pi^1, \dots, \pi^T)$ is at most $\frac1T + \frac{a}{\gamma T} \sum_h \{C^*_h H(T - 1) + (1 + "
        r"\gamma) (C_h H(T / C_h) - 1)\} + H b \gamma$.",
        source=f"{SOURCE}, Theorem 4.1 (rate); this form and constants derived here, {PAGE}",
        claim="exact",
        protocol=reduction,
        bound=h2o_risk_bound,
        controls=(
            Control(
                "offline data alone",
                "If episodes do not join the data, a policy that these do not cover may be returned for ever.",
                partial(reduction, mutant="offline"),
            ),
            Control(
                "no clipping",
                "Without clipping one round in which a policy is new costs without limit.",
                partial(reduction, mutant="unclipped"),
            ),
            Control(
                "offline data of another policy",
                "Data without the optimal policy are charged as if they covered it.",
                partial(reduction, mutant="wrong data"),
            ),
        ),
        proof=Proof("written", f"{PAGE}#the-reduction"),
        expected="verified",
        default_runs=1,
        family="density-ratio",
        accepts="finite-horizon",
    ),
)
