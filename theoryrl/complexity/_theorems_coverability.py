from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.complexity.coverability import coverability, largest_occupancy
from theoryrl.mdp.evaluation import occupancy, reachability
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import MixturePolicy, uniform_policy
from theoryrl.mdp.rounding import gamma, rounding_of
from theoryrl.theory._dp_tools import Instances, finite_models, names, policies, random_policy
from theoryrl.theory.theorem import Assumption, Control, ExactObservations, Progress, Proof, Theorem

PAGE = "docs/theory/complexity.md"
# Layers and states of a model that are tried one by one; lifts of more than this many states are not built.
LAYERS, STATES, LIFTED = 4, 24, 400
ROUNDS = 24  # length of the sequences of the potential

FAMILY: dict[str, Any] = {
    "family": "complexity",
    "claim": "exact",
    "expected": "verified",
    "accepts": "finite-horizon",
    "default_runs": 3,
}
NOTATION = (
    r"$M$ is a finite-horizon MDP with layers $h = 0, \dots, H - 1$ and initial law $\mu_0$, $A(s)$ the number of "
    r"actions allowed in $s$, $d^\pi_h(s, a)$ the probability that policy $\pi$ is in $s$ and takes $a$ at layer $h$, "
    r"$\Pi$ a set of policies and $C_h(\Pi) = \inf_\mu \sup_{\pi \in \Pi} \max_{s, a} d^\pi_h(s, a) / \mu(s, a)$ over "
    r"distributions $\mu$ ($0/0 = 0$)."
)


class Relative(NamedTuple):
    """How far computed tables can be off, relative to themselves: all are sums of products of non-negative numbers."""

    reach: float
    flow: float
    total: float  # of a sum over pairs on top of either


def relative_errors(mdp: FiniteHorizonMDP) -> Relative:
    """A step of reach adds n products, one of occupancy S A products of three factors (docs/theory/complexity.md)."""
    pairs, steps = mdp.n_states * mdp.n_actions, mdp.horizon
    length = rounding_of(mdp).length
    return Relative(gamma(steps * (length + 1) + mdp.n_states + 2), gamma(steps * (pairs + 4) + 2), gamma(pairs + 8))


def some_layers(mdp: FiniteHorizonMDP, rng: np.random.Generator) -> list[int]:
    """The last layer and up to three others."""
    others = rng.permutation(mdp.horizon - 1)[: LAYERS - 1]
    return [*sorted(int(h) for h in others), mdp.horizon - 1]


def towards(mdp: FiniteHorizonMDP, layer: int, state: int) -> NDArray[np.int64]:
    """A policy that is in `state` at `layer` as often as possible, found by planning for that reward."""
    reward = np.zeros((mdp.horizon, mdp.n_states, mdp.n_actions))
    reward[layer, state] = 1.0
    return backward_induction(mdp.with_reward(reward)).policy


def is_small(mdp: FiniteHorizonMDP) -> str | None:
    """Assumption of the check of lifts, which makes them dense."""
    if 2 * mdp.n_states <= LIFTED:
        return None
    return f"{mdp.n_states} states are too many: lifts of more than {LIFTED} states are not built"


# ---- cumulative reachability


def cumulative_reachability(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """No data does better than the sum of suprema, its normalisation attains it; for all policies it is sum A rho.

    Mutants: `uniform` (uniform data in place of the normalised suprema), `states` (sum rho, without the number of
    actions), `one-policy` (the occupancy of the uniform policy in place of the suprema).
    """
    generator = np.random.default_rng(rng)
    models = finite_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        error = relative_errors(mdp)
        slack = 2 * (error.reach + error.flow + 2 * error.total)
        members = [occupancy(mdp, policy) for _, policy in policies(mdp, generator, 12)]
        reach = reachability(mdp)
        suprema = reach[:, :, np.newaxis] * mdp.action_mask
        if mutant == "one-policy":
            suprema = occupancy(mdp, uniform_policy(mdp))
        for h in some_layers(mdp, generator):
            closed = float(reach[h].sum() if mutant == "states" else suprema[h].sum())
            label = f"{mdp.name}: h={h}"
            chosen = generator.permutation(mdp.n_states)[:STATES]
            aimed = [occupancy(mdp, towards(mdp, h, int(s)))[h].sum(axis=-1)[s] for s in chosen]
            # The suprema are attained, by planning, hence so is the coefficient of the best data.
            instances.add(
                f"{label}, attained", reach[h, chosen].sum(), sum(aimed), slack * float(reach[h, chosen].sum())
            )
            every = np.max([member[h] for member in members], axis=0)
            instances.add(f"{label}, policies tried", every.sum(), closed, slack * (every.sum() + closed))
            for kind, data in _data(mdp, generator, members[0][h]):
                worst = _worst(np.maximum(every, _placed(mdp, h, chosen, aimed)), data)
                if len(chosen) == mdp.n_states and np.isfinite(worst):
                    instances.add(f"{label}, {kind} is no better", closed, worst, slack * (closed + worst))
            best = np.full(suprema[h].shape, 1.0 / mdp.action_mask.sum()) if mutant == "uniform" else None
            best = suprema[h] / suprema[h].sum() if best is None else best
            found = _worst(np.maximum(every, _placed(mdp, h, chosen, aimed)), best)
            if np.isfinite(found):
                instances.add(f"{label}, the best data", found, closed, slack * (found + closed))
        _finite_set(instances, mdp, members, generator, slack)
    return instances.observations()


def _placed(mdp: FiniteHorizonMDP, h: int, chosen: NDArray, aimed: list[float]) -> NDArray[np.float64]:
    """The occupancies that policies towards `chosen` have there, with any allowed action."""
    table = np.zeros((mdp.n_states, mdp.n_actions))
    table[chosen] = np.asarray(aimed)[:, np.newaxis]
    return table * mdp.action_mask


def _worst(flow: NDArray[np.float64], data: NDArray[np.float64]) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(flow > 0, flow / data, 0.0).max())


def _data(
    mdp: FiniteHorizonMDP, rng: np.random.Generator, flow: NDArray[np.float64]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    uniform = mdp.action_mask / mdp.action_mask.sum()
    yield "uniform data", uniform
    yield "data of a policy, half uniform", 0.5 * uniform + 0.5 * flow / flow.sum()
    weights = rng.dirichlet(np.ones(int(mdp.action_mask.sum())))
    random = np.zeros(mdp.action_mask.shape)
    random[mdp.action_mask] = weights
    yield "random data", random


def _finite_set(
    instances: Instances, mdp: FiniteHorizonMDP, members: list[NDArray], rng: np.random.Generator, slack: float
) -> None:
    """The same for a handful of policies, in the library's own words; mixtures add nothing."""
    few = [random_policy(mdp, rng, stochastic=k % 2 == 1) for k in range(3)]
    closed = coverability(mdp, few)
    flows = np.array([occupancy(mdp, policy) for policy in few])
    mixed = coverability(mdp, [*few, MixturePolicy(few, [0.5, 0.25, 0.25])])
    h = int(rng.integers(mdp.horizon))
    best = flows[:, h].max(axis=0) / closed[h]
    found = _worst(flows[:, h].max(axis=0), best)
    instances.add(f"{mdp.name}: h={h}, three policies", found, closed[h], slack * closed[h])
    instances.add(f"{mdp.name}: h={h}, three policies and a mixture", mixed[h], closed[h], slack * closed[h])
    # Weak duality: weights over the policies at every pair bound the coefficient of any data from below.
    weights = rng.dirichlet(np.ones(3), flows[0, h].shape)
    dual = float((np.moveaxis(weights, -1, 0) * flows[:, h]).sum())
    instances.add(f"{mdp.name}: h={h}, dual weights", dual, closed[h], slack * closed[h])


# ---- lifts


def block_lift(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """Coverability of all policies before and after a lift, layer by layer.

    Mutants: `controlled` (the symbol or the noise depends on the action), `fixed-data` (concentrability of uniform data
    in place of coverability).
    """
    generator = np.random.default_rng(rng)
    models = finite_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        size = max(2, min(5, LIFTED // mdp.n_states))
        before = _measure(mdp, mutant)
        for kind in ("block", "exogenous"):
            lifted = _lift(mdp, size, kind, generator, controlled=mutant == "controlled")
            after = _measure(lifted, mutant)
            one, two = relative_errors(mdp), relative_errors(lifted)
            # Rows of the lift are rounded products whose second factor sums to 1 up to (size) roundings.
            slack = one.reach + two.reach + one.total + two.total + gamma(mdp.horizon * (size + 6))
            for h in range(mdp.horizon):
                label = f"{mdp.name}: {kind}, {size} symbols, h={h}"
                instances.add(label, after[h], before[h], 2 * slack * (after[h] + before[h]))
    return instances.observations("==")


def _measure(mdp: FiniteHorizonMDP, mutant: str) -> NDArray[np.float64]:
    if mutant == "fixed-data":
        return np.asarray(largest_occupancy(mdp).max(axis=(1, 2)) * mdp.action_mask.sum())
    return coverability(mdp)


def _lift(
    mdp: FiniteHorizonMDP, size: int, kind: str, rng: np.random.Generator, *, controlled: bool
) -> FiniteHorizonMDP:
    """State (s, k), an emission k ~ q(. | s') or a noise chain k' ~ X(. | k); `controlled`: one law per action."""
    n_states, n_actions = mdp.n_states, mdp.n_actions
    base = np.where(mdp.action_mask[:, :, np.newaxis], mdp.to_dense().transition_layers, 0.0)
    laws = rng.dirichlet(np.ones(size), (n_actions, n_states if kind == "block" else size))
    if not controlled:
        laws = np.broadcast_to(laws[:1], laws.shape)
    spread = "lsat,atj->lsatj" if kind == "block" else "lsat,akj->lskatj"
    wide = np.einsum(spread, base, laws)
    if kind == "block":
        wide = np.broadcast_to(wide[:, :, np.newaxis], (len(base), n_states, size, *wide.shape[2:]))
        start = mdp.initial[:, np.newaxis] * laws[0]
    else:
        # The start may even correlate state and noise.
        start = mdp.initial[:, np.newaxis] * rng.dirichlet(np.ones(size), n_states)
    table = wide.reshape(len(base), n_states * size, n_actions, n_states * size)
    return FiniteHorizonMDP(
        table if mdp.staged_transition else table[0],
        np.zeros((n_states * size, n_actions)),
        horizon=mdp.horizon,
        initial=start.reshape(-1),
        action_mask=mdp.action_mask.repeat(size, axis=0),
    )


# ---- bounds


def bounds(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """1 <= C_h(Pi) <= min(|Pi|, C_h(all)) <= reachable allowed pairs, monotone; C_0(all) = sum mu A.

    Mutants: `states` (reachable states in place of pairs), `single` (1 in place of |Pi| = 2, for policies that differ
    wherever they can).
    """
    generator = np.random.default_rng(rng)
    models = finite_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        rows, error = rounding_of(mdp), relative_errors(mdp)
        # The occupancies of a layer sum to 1 up to the defects of the rows above it.
        slack = 2 * (error.reach + error.flow + error.total)
        loss = abs(float(mdp.initial.sum()) - 1) + 1.01 * mdp.horizon * rows.defect + mdp.n_states * 2.0**-52
        few = [random_policy(mdp, generator, stochastic=k == 2) for k in range(3)]
        all_policies, some, fewer = coverability(mdp), coverability(mdp, few), coverability(mdp, few[:2])
        reached = reachability(mdp) > 0
        counts = reached.sum(axis=1) if mutant == "states" else (reached * mdp.action_mask.sum(axis=1)).sum(axis=1)
        largest = 1 if mutant == "single" else len(few)
        start = float((mdp.initial * mdp.action_mask.sum(axis=1)).sum())
        instances.add(f"{mdp.name}: first layer", all_policies[0], start, slack * start)
        instances.add(f"{mdp.name}: first layer, reversed", start, all_policies[0], slack * start)
        if mutant == "single":
            some = _spread_out(mdp)
        for h in range(mdp.horizon):
            label, room = f"{mdp.name}: h={h}", slack * all_policies[h]
            instances.add(f"{label}, at least 1", 1.0, some[h], slack + loss)
            instances.add(f"{label}, number of policies", some[h], largest, (slack + loss) * len(few))
            if mutant != "single":
                instances.add(f"{label}, monotone", fewer[h], some[h], room)
                instances.add(f"{label}, subset of all", some[h], all_policies[h], room)
            # Every reach is at most 1, up to the loss.
            instances.add(f"{label}, reachable pairs", all_policies[h], counts[h], room + loss * counts[h])
    return instances.observations()


def _spread_out(mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    """Coverability of two policies that take the first and the last allowed action of every state."""
    last = mdp.n_actions - 1 - mdp.action_mask[:, ::-1].argmax(axis=1)
    return coverability(mdp, [mdp.action_mask.argmax(axis=1), last])


# ---- potential


def harmonic(x: float) -> float:
    """sum_k x / (k (k + x)): the harmonic numbers, continued to real x >= 0."""
    from scipy.special import digamma

    return float(digamma(1.0 + x) + np.euler_gamma)


def potential_bound(coefficient: float, rounds: int) -> float:
    """C H(T / C), at most C H_T."""
    return coefficient * harmonic(rounds / coefficient)


def potential(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    factor: float = 1.0,
    mutant: str = "",
) -> ExactObservations:
    """sum_t E_{d_t}[d_t / (d_1 + ... + d_t)] against `factor` times C H(T / C), for several sequences of policies.

    Mutant `no-log`: C alone on the right.
    """
    generator = np.random.default_rng(rng)
    models = finite_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        error, rows = relative_errors(mdp), rounding_of(mdp)
        loss = abs(float(mdp.initial.sum()) - 1) + 1.01 * mdp.horizon * rows.defect + mdp.n_states * 2.0**-52
        slack = 4 * (error.flow + error.total + gamma(ROUNDS + 20)) + 2 * loss
        h = int(generator.integers(mdp.horizon))
        for label, sequence in _sequences(mdp, generator):
            flows = {id(policy): occupancy(mdp, policy)[h] for policy in sequence}
            tables = np.array([flows[id(policy)] for policy in sequence])
            total = np.cumsum(tables, axis=0)
            with np.errstate(divide="ignore", invalid="ignore"):
                observed = float(np.where(tables > 0, tables * tables / total, 0.0).sum())
            coefficient = float(tables.max(axis=0).sum())
            right = coefficient if mutant == "no-log" else factor * potential_bound(coefficient, len(sequence))
            # The digamma function is good to a few units in the last place of its largest term.
            allowance = slack * (observed + right) + 32 * 2.0**-53 * coefficient * (3 + harmonic(len(sequence)))
            instances.add(f"{mdp.name}: h={h}, {label}", observed, right, allowance)
    return instances.observations()


def _sequences(mdp: FiniteHorizonMDP, rng: np.random.Generator) -> Iterator[tuple[str, list[Any]]]:
    few = [random_policy(mdp, rng, stochastic=k % 2 == 1) for k in range(6)]
    yield "one policy", [few[0]] * ROUNDS
    yield "in turns", [few[t % len(few)] for t in range(ROUNDS)]
    yield "in blocks", [few[t * len(few) // ROUNDS] for t in range(ROUNDS)]
    yield "at random", [few[k] for k in rng.integers(0, len(few), ROUNDS)]


# ---- entries

THEOREMS = (
    Theorem(
        key="coverability.cumulative-reachability",
        title="Coverability is the sum of the largest occupancies, and the normalised ones are the best data",
        statement=NOTATION + r" Then $C_h(\Pi) = \sum_{s, a} \sup_{\pi \in \Pi} d^\pi_h(s, a)$, attained by "
        r"$\mu \propto \sup_\pi d^\pi_h$. For $\Pi$ all policies, history-dependent ones included, "
        r"$C_h = \sum_s A(s) \rho_h(s)$ with $\rho_h(s) = \max_\pi P^\pi(s_h = s) = \langle \mu_0, U_0 \rangle$, "
        r"$U_h = 1\{s\}$, $U_j(x) = \max_a \sum_t P_j(t | x, a) U_{j+1}(t)$.",
        source=f"Xie, Foster, Bai, Jiang and Kakade (2023), cumulative reachability; {PAGE}#cumulative-reachability",
        protocol=cumulative_reachability,
        controls=(
            Control(
                "uniform data",
                "Uniform data are said to attain the infimum.",
                functools.partial(cumulative_reachability, mutant="uniform"),
            ),
            Control(
                "states",
                "The reaches are summed without the number of actions.",
                functools.partial(cumulative_reachability, mutant="states"),
            ),
            Control(
                "one policy",
                "The occupancy of the uniform policy in place of the suprema.",
                functools.partial(cumulative_reachability, mutant="one-policy"),
            ),
        ),
        proof=Proof("written", f"{PAGE}#cumulative-reachability"),
        **FAMILY,
    ),
    Theorem(
        key="coverability.block-lift",
        title="Rich observations and exogenous noise leave the coverability of all policies as it is",
        statement=NOTATION
        + r" Let $\Pi$ be all policies. Let $\bar M$ have states $(s, k)$ with (block) $\bar P_h(s', k' | s, k, a) = "
        r"P_h(s' | s, a) q(k' | s')$, or (exogenous) $\bar P_h(s', k' | s, k, a) = P_h(s' | s, a) X(k' | k)$, and any "
        r"initial law with marginal $\mu_0$ that in the block case is $\mu_0(s) q(k | s)$. Then $C_h(\bar M) = C_h(M)$ "
        r"for every $h$ and every number of values of $k$.",
        source=f"derived here, {PAGE}#lifts; an inequality for block MDPs in Amortila et al. (2024)",
        protocol=block_lift,
        assumptions=(Assumption("small", f"At most {LIFTED // 2} states, so that the lifts can be built.", is_small),),
        controls=(
            Control(
                "controlled",
                "The symbol or the noise depends on the action as well.",
                functools.partial(block_lift, mutant="controlled"),
            ),
            Control(
                "fixed data",
                "The concentrability of uniform data in place of coverability.",
                functools.partial(block_lift, mutant="fixed-data"),
            ),
        ),
        proof=Proof("written", f"{PAGE}#lifts"),
        **FAMILY,
    ),
    Theorem(
        key="coverability.bounds",
        title="Coverability lies between 1 and the number of policies, and below the number of reachable pairs",
        statement=NOTATION
        + r" Then $1 \le C_h(\Pi) \le |\Pi|$; $\Pi \subseteq \Pi'$ implies $C_h(\Pi) \le C_h(\Pi')$; over all policies "
        r"$C_h \le \sum_{s : \rho_h(s) > 0} A(s)$ and $C_0 = \sum_s \mu_0(s) A(s)$.",
        source=f"derived here, {PAGE}#bounds",
        protocol=bounds,
        controls=(
            Control(
                "states",
                "The number of reachable states in place of pairs.",
                functools.partial(bounds, mutant="states"),
            ),
            Control(
                "single",
                "One, for two policies that differ wherever they can.",
                functools.partial(bounds, mutant="single"),
            ),
        ),
        proof=Proof("written", f"{PAGE}#bounds"),
        **FAMILY,
    ),
    Theorem(
        key="coverability.potential",
        title="The potential of any sequence of policies is at most C H(T / C)",
        statement=NOTATION
        + r" For $\pi_1, \dots, \pi_T \in \Pi$ and $d_t = d^{\pi_t}_h$ let $\tilde d_{t+1} = d_1 + \dots + d_t$. Then "
        r"$\sum_{t=1}^T E_{d_t}[d_t / \tilde d_{t+1}] \le C \, \mathcal H(T / C) \le C H_T$ for $C = C_h(\Pi)$, with "
        r"$\mathcal H(x) = \sum_{k \ge 1} x / (k (k + x))$, the harmonic numbers continued to real $x$. The first "
        r"bound is attained by $C$ disjoint point masses in turn when $C$ divides $T$, the second by one policy.",
        source=f"derived here, {PAGE}#potential; with other constants in Xie et al. (2023)",
        protocol=potential,
        controls=(
            Control("0.999", "0.999 of the bound.", functools.partial(potential, factor=0.999)),
            Control("no log", "C alone on the right.", functools.partial(potential, mutant="no-log")),
        ),
        bound=potential_bound,
        proof=Proof("written", f"{PAGE}#potential"),
        **FAMILY,
    ),
)
