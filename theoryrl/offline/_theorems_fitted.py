"""Theorems about fitted action values (docs/theory/fqi.md)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction, greedy
from theoryrl.mdp.policy import uniform_policy
from theoryrl.mdp.rounding import U, backup_radius, gamma, rounding_of
from theoryrl.theory._dp_tools import Instances, at_start, backup, finite_models, names
from theoryrl.theory.theorem import Control, ExactObservations, Progress, Proof, Theorem

PAGE = "docs/theory/fqi.md"


def tables(mdp: FiniteHorizonMDP, rng: np.random.Generator) -> list[tuple[str, NDArray[np.float64]]]:
    """Action values f that are wrong in different ways, finite everywhere.

    `bump` is Q* with one suboptimal action overrated at the start; `swap` moves that action and the best one towards
    each other until they have just passed, which makes the inequality nearly an identity.
    """
    mask = mdp.action_mask
    plan = backward_induction(mdp)
    q = np.where(mask, plan.q, 0.0)
    scale = float(np.abs(q).max()) + 1.0
    found = [
        ("noise", np.where(mask, q + 0.3 * scale * rng.standard_normal(q.shape), 0.0)),
        ("random", np.where(mask, scale * rng.standard_normal(q.shape), 0.0)),
    ]
    start = int(np.argmax(mdp.initial))
    gaps = np.where(mask[start], plan.value[0, start] - q[0, start], 0.0)
    worse = int(np.argmax(gaps))
    if gaps[worse] > 1e-6 * scale:
        best = int(plan.policy[0, start])
        bump, swap = q.copy(), q.copy()
        bump[0, start, worse] = plan.value[0, start] + 0.01 * gaps[worse]
        middle = 0.5 * (q[0, start, best] + q[0, start, worse])
        swap[0, start, [best, worse]] = middle - 0.001 * gaps[worse], middle + 0.001 * gaps[worse]
        found += [("bump", bump), ("swap", swap)]
    return found


def residuals(mdp: FiniteHorizonMDP, f: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """f_h - T_h f_{h+1} at allowed pairs (0 elsewhere), and how far rounding can have moved an entry."""
    mask, rows = mdp.action_mask, rounding_of(mdp)
    found, worst = np.zeros(f.shape), 0.0
    for h in range(mdp.horizon):
        later = np.where(mask, f[h + 1], -np.inf).max(axis=-1) if h + 1 < mdp.horizon else np.zeros(mdp.n_states)
        found[h] = np.where(mask, f[h] - np.where(mask, backup(mdp, h, later), 0.0), 0.0)
        worst = max(worst, backup_radius(mdp, rows, later) + 4 * U * float(np.abs(found[h]).max() + np.abs(f[h]).max()))
    return found, worst


def error_propagation(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """J* - J(pi_f) against the residuals of f, under both policies, and through a distribution mu.

    Mutants: `optimal` (residuals under pi* only), `shrunk` (nine tenths of the bound).
    """
    generator = np.random.default_rng(rng)
    models = finite_models(model, generator, runs)
    instances = Instances(names(models, model))
    for mdp in models:
        best, best_radius = at_start(mdp)
        plan = backward_induction(mdp)
        mu, optimal = occupancy(mdp, uniform_policy(mdp)), occupancy(mdp, plan.policy)
        rows = rounding_of(mdp)
        relative = gamma(mdp.horizon * (mdp.n_states + 2) * (mdp.n_actions + 6)) + mdp.horizon * rows.defect
        for name, f in tables(mdp, generator):
            policy = greedy(f, mdp.action_mask)
            mine = occupancy(mdp, policy)
            value, radius = at_start(mdp, policy)
            delta, off = residuals(mdp, f)
            per_policy = [float((d * np.abs(delta)).sum()) for d in (optimal, mine)]
            bound = per_policy[0] if mutant == "optimal" else sum(per_policy) * (0.9 if mutant == "shrunk" else 1.0)
            slack = best_radius + radius + 2 * mdp.horizon * off * (1 + relative)
            instances.add(f"{mdp.name}: {name}", best - value, bound, slack + relative * bound)
            if not mutant:
                through, factors = _through(mu, (optimal, mine), delta)
                allowance = best_radius + radius + off * factors * (1 + 4 * relative) + 4 * relative * through
                instances.add(f"{mdp.name}: {name}, through mu", best - value, through, allowance)
    return instances.observations()


def _through(mu: NDArray, policies: tuple[NDArray, ...], delta: NDArray[np.float64]) -> tuple[float, float]:
    """sum_h sum_pi sqrt(E_mu[(d^pi / mu)^2]) sqrt(E_mu[delta_h^2]), and the sum of the first factors."""
    ratios = [np.divide(d**2, mu, out=np.zeros_like(mu), where=mu > 0).sum(axis=(1, 2)) for d in policies]
    size = np.sqrt((mu * delta**2).sum(axis=(1, 2)))
    factors = np.sqrt(ratios)
    return float((factors * size).sum()), float(factors.sum())


COMMON: dict[str, Any] = {"family": "offline", "accepts": "finite-horizon"}

THEOREMS = (
    Theorem(
        key="fqi.error-propagation",
        title="What Bellman residuals cost the greedy policy",
        statement=(
            r"$M$ is a finite-horizon MDP with layers $h = 0, \dots, H - 1$, $T_h$ its optimality operator, $f = (f_0, "
            r"\dots, f_{H-1})$ any table of action values, $f_H = 0$, $\Delta_h = f_h - T_h f_{h+1}$, $\pi_f$ its "
            r"greedy policy, $\pi^*$ an optimal one, $d^\pi_h$ the occupancy of $\pi$. Then $J(\pi^*) - J(\pi_f) \le "
            r"\sum_h E_{d^{\pi^*}_h} |\Delta_h| + E_{d^{\pi_f}_h} |\Delta_h| \le \sum_h (\sqrt{C_h(\pi^*)} + "
            r"\sqrt{C_h(\pi_f)}) \lVert \Delta_h \rVert_{2, \mu_h}$ for every distribution $\mu_h$ that covers both "
            r"policies, $C_h(\pi) = E_{\mu_h}[(d^\pi_h / \mu_h)^2]$."
        ),
        source="Munos (2003); Chen and Jiang (2019), Lemma 13, in finite horizon; constants derived here",
        claim="exact",
        protocol=error_propagation,
        controls=(
            Control(
                "residuals under the optimal policy only",
                "An overrated action that the optimal policy never plays goes unseen.",
                partial(error_propagation, mutant="optimal"),
            ),
            Control(
                "nine tenths",
                "The constant 1 cannot be improved: two actions that swap places attain it.",
                partial(error_propagation, mutant="shrunk"),
            ),
        ),
        proof=Proof("written", f"{PAGE}#error-propagation"),
        expected="verified",
        default_runs=4,
        **COMMON,
    ),
)
