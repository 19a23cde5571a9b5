"""Theorems about off-policy estimates, checked by listing every trajectory (docs/theory/ope.md)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.evaluation import evaluate, evaluate_q, occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.rounding import gamma, rounding_of
from theoryrl.offline import _kernels as kernels
from theoryrl.offline._data import episodes
from theoryrl.offline._enumeration import ENUMERATED, Trajectories, enumerate_trajectories, n_trajectories
from theoryrl.offline.importance import doubly_robust, importance_sampling
from theoryrl.offline.marginal import marginalised_sampling
from theoryrl.offline.variance import METHODS, efficiency_bound, layers_of, ope_variance
from theoryrl.theory._dp_tools import Instances, at_start, random_policy
from theoryrl.theory.theorem import Assumption, Control, ExactObservations, Progress, Proof, Theorem

PAGE = "docs/theory/ope.md"
NOTATION = (
    r"Trajectories $s_0, a_0, r_0, \dots, s_{H-1}, a_{H-1}, r_{H-1}$ of a finite-horizon MDP are played by a behaviour "
    r"policy $b$ with $b_h(a \mid s) > 0$ wherever the target has $\pi_h(a \mid s) > 0$; "
    r"$\rho_h = \pi_h(a_h \mid s_h) / b_h(a_h \mid s_h)$, $W_h = \rho_0 \cdots \rho_h$, $W_{-1} = 1$; $q$ is any fixed "
    r"table, $v_h(s) = \sum_a \pi_h(a \mid s) q_h(s, a)$; $w_h = d^\pi_h / d^b_h$ is the ratio of occupancies, "
    r"$J(\pi)$ the target's value. "
)


class Case(NamedTuple):
    """A small model with two policies and a table, and every trajectory of the behaviour policy."""

    mdp: FiniteHorizonMDP
    target: NDArray[np.float64]
    behaviour: NDArray[np.float64]
    q: NDArray[np.float64]
    listed: Trajectories

    def ratio(self) -> NDArray[np.float64]:
        """d^pi / d^b, 0 where neither goes."""
        mine, theirs = occupancy(self.mdp, self.target), occupancy(self.mdp, self.behaviour)
        return np.divide(mine, theirs, out=np.zeros_like(mine), where=theirs > 0)

    def terms(self, method: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the library's estimator makes of every trajectory."""
        data, policies = self.listed.data, (self.target, self.behaviour)
        if method == "marginalised":
            return marginalised_sampling(data, self.target, weights).terms
        if method == "doubly-robust":
            return doubly_robust(data, *policies, self.q).terms
        return importance_sampling(data, *policies, per_decision=method == "per-decision").terms

    def size(self, method: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same with every number replaced by its absolute value, and rewards by the largest there is."""
        rows = episodes(self.listed.data)
        reward = np.full(rows.reward.shape, largest_reward(self.mdp))
        if method == "marginalised":
            return (weights[np.arange(self.mdp.horizon), rows.state, rows.action] * reward).sum(axis=1)
        ratio = np.divide(self.target, self.behaviour, out=np.zeros_like(self.target), where=self.behaviour > 0)
        out = np.empty(len(reward))
        if method == "trajectory":
            kernels.last_weights(rows.state, rows.action, ratio, out)
            return out * reward.sum(axis=1)
        q = np.abs(self.q) if method == "doubly-robust" else np.zeros_like(self.q)
        kernels.weighted_returns(rows.state, rows.action, reward, ratio, -q, (self.target * q).sum(axis=-1), out)
        return out


def largest_reward(mdp: FiniteHorizonMDP) -> float:
    """The largest |r| + deviation of any allowed pair."""
    sizes = [np.abs(layer.reward).max() + np.sqrt(layer.noise).max() for layer in layers_of(mdp)]
    return float(max(sizes))


def small_models(rng: np.random.Generator, runs: int) -> list[FiniteHorizonMDP]:
    """Two states, two actions, three steps; each law of the rewards, stationary and staged, random starts."""
    found = []
    for index in range(runs):
        base = random_mdp(2, 2, 3, rng, staged=index % 2 == 1)
        common: dict[str, Any] = {"horizon": 3, "initial": rng.dirichlet(np.ones(2))}
        law = ("deterministic", "bernoulli", "uniform", "outcome")[index % 4]
        if law == "outcome":
            model = FiniteHorizonMDP(base.transition, outcome_reward=rng.random(base.transition.shape), **common)
        else:
            noise = rng.random(base.reward.shape) if law == "uniform" else None
            common |= {"reward_law": law, "reward_noise": noise}
            model = FiniteHorizonMDP(base.transition, base.reward, **common)
        found.append(model.renamed(f"{law} {index}"))
    return found


def cases(model: FiniteHorizonMDP | None, rng: np.random.SeedSequence, runs: int) -> list[Case]:
    """One case for each model; of a model that is given, `runs` pairs of policies."""
    generator = np.random.default_rng(rng)
    models = small_models(generator, runs) if model is None else [model] * min(runs, 4)
    found = []
    for mdp in models:
        shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
        weights = (0.2 + generator.random(shape)) * mdp.action_mask
        behaviour = weights / weights.sum(axis=-1, keepdims=True)
        target = random_policy(mdp, generator, stochastic=True)
        scale = largest_reward(mdp) * mdp.horizon
        q = np.where(mdp.action_mask, scale * (2 * generator.random(shape) - 1), 0.0)
        found.append(Case(mdp, target, behaviour, q, enumerate_trajectories(mdp, behaviour)))
    return found


def relative_error(case: Case) -> float:
    """How far probability and estimate of one trajectory can be off together, relative to sizes.

    A probability is a product of at most 4H + 1 numbers, each row of the model may be off 1 by its defect; a term of an
    estimate goes through at most H + 1 products, 3H additions and the A + 1 operations of v.
    """
    mdp, steps = case.mdp, case.mdp.horizon
    start = abs(float(mdp.initial.sum()) - 1)
    return gamma(10 * steps + 2 * mdp.n_actions + 20) + 2 * steps * rounding_of(mdp).defect + 2 * start


def unbiased(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """E[estimate] = J(pi) over all trajectories, for each estimator.

    Mutants: `layer` (ratios of occupancies shifted by one layer), `uncovered` (a behaviour that never plays an action
    of the target, not told to the estimator).
    """
    given = cases(model, rng, runs)
    instances = Instances(_names(given, model))
    for case in given:
        value, radius = at_start(case.mdp, case.target)
        weights = case.ratio()
        if mutant == "layer":
            weights = np.roll(weights, 1, axis=0)
        p = case.listed.probability
        if mutant == "uncovered":
            p = np.where(_plays(case.listed.data, 0), p, 0.0)
        for method in METHODS:
            terms, size = case.terms(method, weights), case.size(method, weights)
            error = (relative_error(case) + gamma(len(p))) * float(p @ size)
            if method == "marginalised":  # the ratios are quotients of two occupancies
                error += 2 * _occupancy_error(case.mdp) * float(p @ size)
            instances.add(f"{case.mdp.name}: {method}", float(p @ terms), value, 2 * error + radius)
    return instances.observations("==")


def _plays(data: Dataset, action: int) -> NDArray[np.bool_]:
    """Which trajectories begin with an action."""
    return episodes(data).action[:, 0] == action


def _occupancy_error(mdp: FiniteHorizonMDP) -> float:
    """Relative error of an occupancy: H forward steps, each a sum over S A nonnegative products."""
    rows = rounding_of(mdp)
    return gamma(mdp.horizon * (mdp.n_states * mdp.n_actions + mdp.n_actions + 6)) + mdp.horizon * rows.defect


def weighted_pairs(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
) -> ExactObservations:
    """E of the self-normalised estimate from two trajectories, over all pairs: not J(pi)."""
    mdp = biased_bandit()
    target, behaviour = np.array([[0.25, 0.75]]), np.array([[0.75, 0.25]])
    listed = enumerate_trajectories(mdp, behaviour)
    instances = Instances([mdp.name])
    mean = 0.0
    rows = episodes(listed.data)
    for i, p in enumerate(listed.probability):
        for j, p_other in enumerate(listed.probability):
            nothing = np.zeros(2, np.int64)
            pair = np.arange(2), nothing, nothing, rows.action[[i, j], 0], rows.reward[[i, j], 0], nothing
            data = Dataset(*pair, 1, 2, 1)
            mean += p * p_other * importance_sampling(data, target, behaviour, weighted=True).value
    value, radius = at_start(mdp, target)
    instances.add("two trajectories, self-normalised", mean, value, 1e-12 + radius)
    return instances.observations("==")


def biased_bandit() -> FiniteHorizonMDP:
    """One state, two arms that pay 0 and 1."""
    return FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), horizon=1, name="two sure arms")


def variance(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """Variance over all trajectories = what `ope_variance` finds by a backward sweep.

    Mutants: `past` (the per-decision formula for the trajectory form), `means` (rewards taken for their means).
    """
    given = cases(model, rng, runs)
    instances = Instances(_names(given, model))
    for case in given:
        value, radius = at_start(case.mdp, case.target)
        weights, p = case.ratio(), case.listed.probability
        known = case.mdp.with_reward(case.mdp.reward) if mutant == "means" else case.mdp
        for method in METHODS:
            terms, size = case.terms(method, weights), case.size(method, weights)
            error = relative_error(case) + gamma(len(p)) + (method == "marginalised") * 2 * _occupancy_error(case.mdp)
            square = float(p @ (size + abs(value)) ** 2)
            claimed: Any = "per-decision" if mutant == "past" and method == "trajectory" else method
            found = ope_variance(
                known, case.target, case.behaviour, claimed, case.q if claimed == "doubly-robust" else None
            )
            seen = float(p @ (terms - value) ** 2)
            allowance = (8 * error + _sweep_error(case.mdp)) * square + 4 * radius * (abs(value) + float(p @ size))
            instances.add(f"{case.mdp.name}: {method}", seen, found, allowance)
    return instances.observations("==")


def _sweep_error(mdp: FiniteHorizonMDP) -> float:
    """Rounding of the variance sweep, relative to E[(size + |J|)^2] (docs/theory/ope.md, "Rounding")."""
    layers = mdp.horizon * (mdp.n_states + mdp.n_actions + 20)
    return 16 * mdp.horizon * (gamma(layers) + mdp.horizon * rounding_of(mdp).defect)


def efficiency(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """The efficiency bound against the doubly robust variance with several control variates.

    Mutant: `swapped` (target and behaviour exchanged in the bound).
    """
    given = cases(model, rng, runs)
    instances = Instances(_names(given, model))
    for case in given:
        policies = (case.behaviour, case.target) if mutant == "swapped" else (case.target, case.behaviour)
        bound = efficiency_bound(case.mdp, *policies)
        if mutant and not np.isfinite(bound):
            continue  # the target leaves out an action that the behaviour plays: too easy
        truth = np.where(case.mdp.action_mask, evaluate_q(case.mdp, case.target), 0.0)
        for name, q in (("q = 0", 0 * case.q), ("q random", case.q), ("q true", truth)):
            found = ope_variance(case.mdp, case.target, case.behaviour, "doubly-robust", q)
            scale = float(np.abs(evaluate(case.mdp, case.target)).max() + np.abs(q).max()) + largest_reward(case.mdp)
            worst = float(np.max(case.target / np.where(case.behaviour > 0, case.behaviour, 1.0))) ** case.mdp.horizon
            allowance = 4 * (_sweep_error(case.mdp) + _occupancy_error(case.mdp)) * (max(worst, 1.0) * scale) ** 2
            instances.add(f"{case.mdp.name}: {name}", bound, found, allowance)
    return instances.observations()


def _names(given: list[Case], model: Any) -> tuple[str, ...]:
    if model is None:
        return (f"{len(given)} random models",)
    return (model.name or repr(model),)


def _few(mdp: FiniteHorizonMDP) -> str | None:
    number = n_trajectories(mdp)
    return None if number <= ENUMERATED else f"{number:.3g} trajectories are more than {ENUMERATED} to list"


FEW = Assumption("few trajectories", f"At most {ENUMERATED} trajectories have positive probability.", _few)
COMMON: dict[str, Any] = {
    "family": "offline",
    "claim": "exact",
    "expected": "verified",
    "accepts": "finite-horizon",
    "assumptions": (FEW,),
    "default_runs": 8,
}

THEOREMS = (
    Theorem(
        key="ope.unbiased",
        title="Importance sampling, doubly robust and marginalised estimates are unbiased",
        statement=NOTATION
        + r"Then $W_{H-1} \sum_h r_h$, $\sum_h W_h r_h$, $\sum_h W_{h-1} v_h(s_h) + W_h (r_h - q_h(s_h, a_h))$ and "
        r"$\sum_h w_h(s_h, a_h) r_h$ all have expectation $J(\pi)$.",
        source="Precup, Sutton and Singh (2000); Jiang and Li (2016), Theorem 1; Xie, Ma and Wang (2019)",
        protocol=unbiased,
        controls=(
            Control(
                "self-normalised",
                "Dividing by the sum of the weights makes the estimate from two trajectories biased.",
                weighted_pairs,
            ),
            Control(
                "ratios of another layer",
                "The ratio of occupancies must be that of the reward's own layer.",
                partial(unbiased, mutant="layer"),
            ),
            Control(
                "uncovered",
                "If the behaviour never plays an action of the target the expectation misses its share.",
                partial(unbiased, mutant="uncovered"),
            ),
        ),
        proof=Proof("written", f"{PAGE}#unbiased"),
        **COMMON,
    ),
    Theorem(
        key="ope.variance",
        title="Exact variances of off-policy estimates by one backward sweep",
        statement=NOTATION
        + r"The variance of what one trajectory contributes to each of the four estimates is the number that the "
        r"recursion of `ope_variance` computes. For the doubly robust one, with $X_h$ its part from layer $h$ on and "
        r"$Q, V$ the target's values, $\mathrm{Var}\, X_h(s) = \sum_a b\, (\rho (Q - q) - V + v)^2 + \sum_a b\, \rho^2 "
        r"[\mathrm{Var}(r + V_{h+1}(s') \mid s, a) + E\, \mathrm{Var}\, X_{h+1}(s')]$.",
        source="Jiang and Li (2016), Theorem 1, with random rewards; the trajectory form is derived here",
        protocol=variance,
        bound=ope_variance,
        controls=(
            Control(
                "variance of another form",
                "Weighting a reward by the future of its step as well has another variance.",
                partial(variance, mutant="past"),
            ),
            Control(
                "rewards as means",
                "The noise of the rewards counts, multiplied by the squared weights.",
                partial(variance, mutant="means"),
            ),
        ),
        proof=Proof("written", f"{PAGE}#variance"),
        **COMMON,
    ),
    Theorem(
        key="ope.efficiency",
        title="No control variate takes the doubly robust variance below the efficiency bound",
        statement=NOTATION
        + r"For every table $q$ the doubly robust variance is at least $\mathrm{Var}(V_0(s_0)) + \sum_h "
        r"E_{d^b_h}[w_h^2 \mathrm{Var}(r_h + V_{h+1}(s_{h+1}) \mid s_h, a_h)]$.",
        source="Jiang and Li (2016), Theorem 3; Kallus and Uehara (2020); the inequality for every q is derived here",
        protocol=efficiency,
        bound=efficiency_bound,
        controls=(
            Control(
                "policies exchanged",
                "The bound belongs to the ratio of target to behaviour, not the other way round.",
                partial(efficiency, mutant="swapped"),
                runs=40,
            ),
        ),
        proof=Proof("written", f"{PAGE}#efficiency"),
        **COMMON,
    ),
)
