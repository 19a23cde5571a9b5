"""The dp.* entries on finite-horizon models (statements and proofs: docs/theory/dynamic_programming.md)."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import augment
from theoryrl.mdp.rounding import U, backup_radius, gamma, rounding_of
from theoryrl.mdp.transitions import SparseTransition
from theoryrl.theory import _dp_discounted as discounted
from theoryrl.theory import _dp_linear as linear
from theoryrl.theory._dp_tools import (
    FINITE,
    NOTATION,
    PAGE,
    Enclosed,
    Instances,
    at_start,
    backup,
    finite_models,
    names,
    policies,
    random_policy,
    value_of,
)
from theoryrl.theory.theorem import Control, ExactObservations, Progress, Proof, Theorem

# History-dependent policies are tried on models with at most this many transitions: augmenting takes Python calls.
AUGMENTED = 5000
# Perturbations of the simulation lemma: (distance of the rows, of the rewards over their range).
PERTURBATIONS = ((0.0, 0.1), (0.01, 0.0), (0.1, 0.02), (0.5, 0.3), (1.0, 1.0))


# ---- optimality


def optimality(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """V^pi <= V* in every state and layer for many policies, and V* <= V^f for the greedy f.

    Mutants: `layer` (f greedy for the action values of the next layer), `last-reward` (V* of the model whose last step
    pays nothing).
    """
    generator = np.random.default_rng(rng)
    models = finite_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        plan = backward_induction(_without_last_reward(mdp) if mutant == "last-reward" else mdp)
        best = Enclosed(plan.value, _induction_radius(mdp, plan.value))
        greedy = np.roll(plan.policy, -1, axis=0) if mutant == "layer" else plan.policy
        mine = value_of(mdp, greedy)
        _worst(instances, f"{mdp.name}: greedy attains", best, mine)
        for label, policy in policies(mdp, generator, 20):
            _worst(instances, f"{mdp.name}: {label}", value_of(mdp, policy), best)
        if _transitions(mdp) <= AUGMENTED:
            for index in range(3):
                _with_memory(instances, f"{mdp.name}: history-dependent policy {index}", mdp, best, generator)
    return instances.observations()


def _induction_radius(mdp: FiniteHorizonMDP, value: NDArray) -> NDArray[np.float64]:
    """How far backward induction in floats can be from V*: the rounding of every backup below, (H+1, S)."""
    rows = rounding_of(mdp)
    steps = [backup_radius(mdp, rows, later) for later in value[1:]]
    total = np.append(np.cumsum(steps[::-1])[::-1], 0.0) * (1 + mdp.horizon * 2 * U)
    return np.broadcast_to(total[:, np.newaxis], value.shape)


def _worst(instances: Instances, label: str, left: Any, right: Any) -> None:
    """The state and layer where left exceeds right the most, beyond what rounding explains."""
    radius = left.radius + right.radius
    excess = (left.mid - right.mid - radius)[:-1]  # after the last step both are 0
    telling = ~(excess <= 0) | (right.mid[:-1] != 0)  # 0 <= 0 holds too, but says little; a NaN says a lot
    if telling.any():
        excess = np.where(telling, excess, -np.inf)
    h, s = np.unravel_index(int(np.argmax(excess)), excess.shape)
    instances.add(f"{label}, h={h}, s={s}", left.mid[h, s], right.mid[h, s], radius[h, s])


def _with_memory(instances: Instances, label: str, mdp: FiniteHorizonMDP, best: Any, rng: np.random.Generator) -> None:
    """A policy that depends on a random three-valued summary of the whole history."""
    table = rng.integers(0, 3, size=(3, mdp.n_states, mdp.n_actions, mdp.n_states))
    wide = augment(mdp, 3, lambda m, s, a, t: int(table[m, s, a, t])).mdp
    value = value_of(wide, random_policy(wide, rng, stochastic=False))
    _worst(instances, label, value, Enclosed(np.tile(best.mid, 3), np.tile(best.radius, 3)))


def _without_last_reward(mdp: FiniteHorizonMDP) -> FiniteHorizonMDP:
    reward = np.array(np.broadcast_to(mdp.reward_layers, (mdp.horizon, mdp.n_states, mdp.n_actions)))
    reward[-1] = 0.0
    return mdp.with_reward(reward)


def _transitions(mdp: FiniteHorizonMDP) -> int:
    return int(mdp.transition.data.size if mdp.is_sparse else mdp.transition.size)


# ---- performance difference


def performance_difference(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """J(pi') - J(pi) against sum d^{pi'} A^pi. Mutant `occupancy`: d^pi on the right; `values`: A^{pi'}."""
    generator = np.random.default_rng(rng)
    models = finite_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        rows = rounding_of(mdp)
        for index in range(6):
            old, new = (random_policy(mdp, generator, stochastic=(index + k) % 3 == 1) for k in (0, 1))
            if index == 5:
                new = backward_induction(mdp).policy
            before, radius = at_start(mdp, old)
            after, other = at_start(mdp, new)
            flow = occupancy(mdp, old if mutant == "occupancy" else new)
            right, error = _advantage_sum(mdp, rows, flow, value_of(mdp, new if mutant == "values" else old))
            instances.add(f"{mdp.name}: pair {index}", after - before, right, radius + other + error)
    return instances.observations("==")


def _advantage_sum(mdp: FiniteHorizonMDP, rows: Any, flow: NDArray, value: Any) -> tuple[float, float]:
    """The sum of d (q - V) over all (h, s, a), and how far rounding can have moved it."""
    total = size = error = 0.0
    for h in range(mdp.horizon):
        advantage = np.where(mdp.action_mask, backup(mdp, h, value.mid[h + 1]) - value.mid[h][:, np.newaxis], 0.0)
        total += float((flow[h] * advantage).sum())
        size += float((flow[h] * np.abs(advantage)).sum())
        step = value.radius[h].max() + value.radius[h + 1].max() + backup_radius(mdp, rows, value.mid[h + 1])
        error += step + 2 * U * float(np.abs(value.mid[h]).max())
    # Occupancies are sums of products of non-negative numbers: their relative errors add up over the steps.
    start = abs(float(mdp.initial.sum()) - 1) + mdp.n_states * U
    steps = mdp.horizon * (rows.defect + (mdp.n_states * mdp.n_actions + 6) * U)
    relative = math.expm1(1.01 * (start + steps)) + gamma(flow.size + 4)
    return total, size * relative + error * (1 + relative)


# ---- simulation lemma


def simulation_bound(horizon: int, rows: float, rewards: float, span: float) -> float:
    """sum_h (1-e)^h e_r + (1 - (1-e)^h) R with e_r <= R."""
    kept = np.power(1.0 - min(rows, 1.0), np.arange(horizon))
    return float(np.sum(kept * min(rewards, span) + (1.0 - kept) * span))


def simulation_lemma(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    factor: float = 1.0,
) -> ExactObservations:
    """|J'(pi) - J(pi)| against `factor` times the bound, for perturbed models and the chains that attain it."""
    generator = np.random.default_rng(rng)
    models = finite_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        for rows, rewards in PERTURBATIONS:
            other, distance = _perturbed(mdp, rows, rewards, generator)
            label = f"{mdp.name}: e={rows:g}, e_r={rewards:g}R"
            for policy in (backward_induction(mdp).policy, random_policy(mdp, generator, stochastic=True)):
                _simulate(instances, label, mdp, other, policy, distance, factor)
    for horizon, rows, rewards in (
        (1, 0.5, 0.25),
        (5, 0.25, 0.0),
        (10, 0.125, 0.5),
        (30, 2.0**-10, 0.125),
        (4, 1.0, 1.0),
    ):
        if model is None:
            good, bad = tight_chain(horizon, rows, rewards)
            policy = np.zeros((horizon, 2), np.int64)
            _simulate(instances, f"chain: H={horizon}, e={rows:g}, e_r={rewards:g}", good, bad, policy, rows, factor)
    return instances.observations()


def _simulate(
    instances: Instances,
    label: str,
    mdp: FiniteHorizonMDP,
    other: FiniteHorizonMDP,
    policy: NDArray,
    rows: float,
    factor: float,
) -> None:
    left, radius = at_start(mdp, policy)
    right, error = at_start(other, policy)
    rewards = np.stack([m.reward_layers[:, mdp.action_mask] for m in (mdp, other)])
    gap, span = float(np.abs(rewards[0] - rewards[1]).max()), float(rewards.max() - rewards.min())
    bound = factor * simulation_bound(mdp.horizon, rows, gap, span)
    allowance = radius + error + gamma(8 * mdp.horizon) * mdp.horizon * (span + gap)
    instances.add(label, abs(left - right), bound, allowance)


def tight_chain(horizon: int, rows: float, rewards: float) -> tuple[FiniteHorizonMDP, FiniteHorizonMDP]:
    """Two chains on a good and a bad state that attain the bound with R = 1; all numbers dyadic."""
    stay, leave = np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), np.array([[[1 - rows, rows]], [[0.0, 1.0]]])
    first = FiniteHorizonMDP(stay, np.array([[1.0], [0.0]]), horizon=horizon)
    return first, FiniteHorizonMDP(leave, np.array([[1.0 - rewards], [0.0]]), horizon=horizon)


def _perturbed(
    mdp: FiniteHorizonMDP, rows: float, rewards: float, rng: np.random.Generator
) -> tuple[FiniteHorizonMDP, float]:
    """Another model: every row mixed with weight `rows` of a random state, rewards moved within their range.

    Also a bound on the total variation distance of the rows: `rows` and what rounding adds to it.
    """
    low, high = float(mdp.reward[..., mdp.action_mask].min()), float(mdp.reward[..., mdp.action_mask].max())
    moved = mdp.reward_layers + rewards * (high - low) * rng.choice([-1.0, 1.0], size=mdp.reward_layers.shape)
    reward = np.clip(moved, low, high).reshape(mdp.reward.shape)
    if mdp.is_sparse:
        old = mdp.transition
        number = np.repeat(np.arange(old.n_rows), np.diff(old.indptr))
        layer, state, action = np.unravel_index(
            np.append(number, np.arange(old.n_rows)), (old.n_layers, *mdp.reward.shape[-2:])
        )
        successor = np.append(old.indices, rng.integers(0, mdp.n_states, old.n_rows))
        data = np.append((1 - rows) * old.data, np.full(old.n_rows, rows))
        transition: Any = SparseTransition.from_entries(
            state, action, successor, data, mdp.n_states, mdp.n_actions, layer if old.staged else None, old.n_layers
        )
    else:
        transition = (1 - rows) * mdp.transition
        successor = rng.integers(0, mdp.n_states, (*transition.shape[:-1], 1))
        np.put_along_axis(transition, successor, np.take_along_axis(transition, successor, -1) + rows, axis=-1)
    common = {"horizon": mdp.horizon, "initial": mdp.initial, "action_mask": mdp.action_mask}
    other = FiniteHorizonMDP(transition, reward, **common)
    # Entries are off by 3 roundings, rows by their defects before they are normalised.
    return other, rows + 4 * U + 2 * (rounding_of(mdp).defect + rounding_of(other).defect)


# ---- entries

THEOREMS = (
    Theorem(
        key="dp.optimality",
        title="Backward induction dominates every policy, and the greedy policy attains it",
        statement=NOTATION
        + r" Let $V_H = 0$, $q_h(s, a) = r_h(s, a) + \sum_t P_h(t | s, a) V_{h+1}(t)$, $V_h(s) = \max_a q_h(s, a)$. "
        r"For "
        r"every policy $\pi$, history-dependent and stochastic ones included, $V^\pi_h \le V_h$ at every layer and "
        r"state, "
        r"and $V^f = V$ for $f_h(s) \in \arg\max_a q_h(s, a)$.",
        source="Puterman (1994), section 4.3",
        protocol=optimality,
        controls=(
            Control(
                "wrong layer",
                "Greedy for the action values of the next layer.",
                functools.partial(optimality, mutant="layer"),
            ),
            Control(
                "last reward", "The last step's reward is dropped.", functools.partial(optimality, mutant="last-reward")
            ),
        ),
        proof=Proof("written", f"{PAGE}#optimality"),
        **FINITE,
    ),
    Theorem(
        key="dp.performance-difference",
        title="The difference of two returns is the advantage summed over the new policy's occupancy",
        statement=NOTATION
        + r" For Markov policies $\pi$ let $d^\pi_h(s, a)$ be the probability that $\pi$, started from $\mu$, is in "
        r"$s$ and takes $a$ at layer $h$, $q^\pi_h(s, a) = r_h(s, a) + \sum_t P_h(t | s, a) V^\pi_{h+1}(t)$, "
        r"$A^\pi_h(s, a) = q^\pi_h(s, a) - V^\pi_h(s)$. For any two of them "
        r"$J(\pi') - J(\pi) = \sum_{h, s, a} d^{\pi'}_h(s, a) A^\pi_h(s, a)$.",
        source="Kakade and Langford (2002), Lemma 6.1, in its finite-horizon form",
        protocol=performance_difference,
        controls=(
            Control(
                "other occupancy",
                "The occupancy of the old policy on the right.",
                functools.partial(performance_difference, mutant="occupancy"),
            ),
            Control(
                "other advantage",
                "The advantage of the new policy on the right.",
                functools.partial(performance_difference, mutant="values"),
            ),
        ),
        proof=Proof("written", f"{PAGE}#performance-difference"),
        **FINITE,
    ),
    Theorem(
        key="dp.simulation-lemma",
        title="How far the returns of one policy in two models can be apart (tight)",
        statement=NOTATION + r" Let $M'$ differ in $P'$ and $r'$ only, with return $J'$, and for all $h, s, a$ let "
        r"$\frac12 \|P_h(\cdot|s,a) - P'_h(\cdot|s,a)\|_1 \le \epsilon \le 1$, "
        r"$|r_h(s,a) - r'_h(s,a)| \le \epsilon_r$, all these mean rewards in one interval of length $R$. For every "
        r"Markov policy "
        r"$|J'(\pi) - J(\pi)| \le \sum_{h=0}^{H-1} [(1 - \epsilon)^h \epsilon_r + (1 - (1 - \epsilon)^h) R]$, "
        r"which is at most $H \epsilon_r + \epsilon R H (H - 1) / 2$. No smaller bound depends on $H$, $\epsilon$, "
        r"$R$ and "
        r"$\epsilon_r \le R$ only.",
        source=f"derived here, {PAGE}#simulation-lemma; compare Kearns and Singh (2002), Lobel and Parr (2024)",
        protocol=simulation_lemma,
        controls=(
            Control(
                "half",
                "Half of the bound; false on the chains that attain it.",
                functools.partial(simulation_lemma, factor=0.5),
            ),
            Control("0.999", "0.999 of the bound.", functools.partial(simulation_lemma, factor=0.999)),
        ),
        bound=simulation_bound,
        proof=Proof("written", f"{PAGE}#simulation-lemma"),
        **FINITE,
    ),
    linear.DUALITY,
    *discounted.THEOREMS,
)
