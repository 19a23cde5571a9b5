"""dp.lp-duality: the occupancy program and its dual (statement and proof: docs/theory/dynamic_programming.md)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from theoryrl.mdp.linear_program import flow_matrix, occupancy_lp
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.theory._dp_tools import FINITE, NOTATION, PAGE, Instances, at_start, backup, finite_models, names
from theoryrl.theory.theorem import Assumption, Control, ExactObservations, Progress, Proof, Theorem

# Variables of a linear program; HiGHS's feasibility tolerance, absolute at rewards of size 1.
VARIABLES = 20_000
SOLVER = 1e-7


def lp_duality(
    model: FiniteHorizonMDP | None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """The occupancy program against J*, from both sides, and complementary slackness.

    Mutants: `start` and `flow` keep only the total mass of the first and the second layer's constraints.
    """
    generator = np.random.default_rng(rng)
    models = [_cut(mdp) for mdp in finite_models(model, generator, runs)]
    instances = Instances(names(models, model))
    for mdp in models:
        best, radius = at_start(mdp)
        unit = float(np.abs(mdp.reward).max()) or 1.0
        if mutant:
            value, error = _loose_program(mdp, 0 if mutant == "start" else 1)
            instances.add(f"{mdp.name}: primal <= J*", value, best, radius + error * unit)
            continue
        solution = occupancy_lp(mdp)
        tolerance = 2 * SOLVER * mdp.horizon * unit
        instances.add(f"{mdp.name}: policy of the primal <= J*", solution.lower, best, radius)
        instances.add(f"{mdp.name}: J* <= repaired dual", best, solution.upper, radius)
        instances.add(f"{mdp.name}: J* <= policy of the primal", best, solution.lower, radius + tolerance)
        instances.add(f"{mdp.name}: repaired dual <= J*", solution.upper, best, radius + tolerance)
        for h in range(mdp.horizon):
            slack = solution.dual_value[h][:, np.newaxis] - backup(mdp, h, solution.dual_value[h + 1])
            product = solution.occupancy[h] * np.where(mdp.action_mask, np.abs(slack), 0.0)
            instances.add(f"{mdp.name}: complementary slackness, h={h}", product.sum(), tolerance, 0.0)
    return instances.observations()


def _loose_program(mdp: FiniteHorizonMDP, layer: int) -> tuple[float, float]:
    """The value of the primal with one layer's flow constraints added up, and its tolerance in units of the reward."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, eye_array

    unit = float(np.abs(mdp.reward).max()) or 1.0
    pairs = np.flatnonzero(np.broadcast_to(mdp.action_mask, (mdp.horizon, *mdp.action_mask.shape)))
    keep, size = eye_array(mdp.horizon * mdp.n_states, format="lil"), mdp.n_states
    begin = layer * size
    keep[begin] = csr_array(
        (np.ones(size), (np.zeros(size, int), np.arange(begin, begin + size))), shape=(1, keep.shape[1])
    )
    rows = np.delete(np.arange(keep.shape[0]), np.arange(begin + 1, begin + size))
    right = np.zeros(mdp.horizon * size)
    right[:size] = mdp.initial / mdp.initial.sum()
    merged = keep.tocsr()[rows]
    reward = np.broadcast_to(mdp.reward_layers, (mdp.horizon, *mdp.action_mask.shape)).reshape(-1)[pairs]
    solution = linprog(-reward / unit, A_eq=merged @ flow_matrix(mdp)[:, pairs], b_eq=merged @ right, method="highs")
    return -float(solution.fun) * unit, 2 * SOLVER * mdp.horizon * mdp.n_states


def _cut(mdp: FiniteHorizonMDP) -> FiniteHorizonMDP:
    """The model with a horizon at which the program has at most VARIABLES variables; its name says so."""
    most = max(1, VARIABLES // (mdp.n_states * mdp.n_actions))
    if mdp.horizon <= most:
        return mdp
    return mdp.with_horizon(most).renamed(f"{mdp.name or repr(mdp)}, horizon cut to {most} for the linear program")


def _small_enough(mdp: Any) -> str | None:
    size = mdp.n_states * mdp.n_actions
    return None if size <= VARIABLES else f"one layer has {size} variables, the program is limited to {VARIABLES}"


DUALITY = Theorem(
    key="dp.lp-duality",
    title="The occupancy program and its dual have the value J*",
    statement=NOTATION
    + r" The maximum of $\sum d_h(s, a) r_h(s, a)$ over $d \ge 0$ with $\sum_a d_0(s, a) = \mu(s)$ and "
    r"$\sum_a d_{h+1}(t, a) = \sum_{s, a} d_h(s, a) P_h(t | s, a)$, the minimum of $\sum_s \mu(s) V_0(s)$ over $V$ "
    r"with $V_h(s) \ge r_h(s, a) + \sum_t P_h(t | s, a) V_{h+1}(t)$, $V_H = 0$, and $\max_\pi J(\pi)$ are equal; "
    r"for "
    r"optimal $d$ and $V$, $d_h(s, a) > 0$ only where the inequality is an equality.",
    source="d'Epenoux (1963); Puterman (1994), section 6.9, in the discounted form",
    protocol=lp_duality,
    controls=(
        Control(
            "no start", "Only the mass of the initial distribution.", functools.partial(lp_duality, mutant="start")
        ),
        Control(
            "no flow",
            "Only the mass that flows into the second layer.",
            functools.partial(lp_duality, mutant="flow"),
        ),
    ),
    assumptions=(Assumption("size", f"One layer has at most {VARIABLES} pairs (S, A).", _small_enough),),
    proof=Proof("written", f"{PAGE}#linear-programming-duality"),
    **FINITE,
)
