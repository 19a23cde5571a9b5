"""The theorem on why ratios are clipped: without it no level is both valid and of use."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from theoryrl.density_ratio._protocols import total_of
from theoryrl.density_ratio._theorems_structure import class_of, slope_model
from theoryrl.density_ratio.glow import GLOW
from theoryrl.density_ratio.members import member_values
from theoryrl.density_ratio.weights import occupancy_ratios
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import U
from theoryrl.online._protocols import DELTA, value_rounding
from theoryrl.online.run import run
from theoryrl.theory.theorem import Assumption, Control, ExactObservations, Progress, Proof, Theorem

ITERATIONS = 2000
SCHEDULES = ("self_normalised", "scale_free", "paper")
# A visit in a hundred rounds or in a thousand, with penalties of 1/4 and less.
ROUNDS = (10, 100, 1000, 10_000)
PENALTIES = (0.05, 0.25, 0.5)
# More visits than that have no part in the smallest probability that is looked at.
MOST_VISITS = 60


def vacuous_slope(schedule: str, log_level: float, c: float = 0.25, noise_width: float = 1.0) -> float:
    """The least slope gamma from which on no member is refuted by a weight of one: beta_t >= 1 for every t.

    8 c / (b^2 L_W);   scale-free sqrt(2 / L_W) / b;   paper 1 / (36 L)

    Parameters
    ----------
    schedule : {"self_normalised", "scale_free", "paper"}
    log_level : float
        L_W of the schedule, or L = log(6 |F| |W| H T / delta) of the paper.
    c, noise_width : float
    """
    if schedule == "self_normalised":
        return 8 * c / (noise_width**2 * log_level)
    if schedule == "scale_free":
        return math.sqrt(2 / log_level) / noise_width
    return 1 / (36 * log_level)


def first_choice(model: FiniteHorizonMDP, gamma: float | None, schedule: str) -> GLOW:
    """GLOW on the class of `class_of`, with the start law known; no gamma: the one of `vacuous_slope`."""
    cls, total = class_of(model), total_of(model)

    def settings(slope: float) -> GLOW:
        return GLOW(
            cls,
            occupancy_ratios(cls, model, total),
            ITERATIONS,
            gamma=slope,
            delta=DELTA,
            schedule=schedule,  # type: ignore[arg-type]
            total_reward=total,
            initial=model.initial,
        )

    return settings(vacuous_slope(schedule, float(settings(1.0).log_levels()[-1])) if gamma is None else gamma)


def expelled(rounds: int, slope: float, c: float, level: float) -> float:
    """A lower bound, short of the last digits, on the probability that one weight expels Q* at round t = n + 1.

    In n rounds a policy gets to a state with probability 1/n each, where the reward is 0 or 1 with probability 1/2
    each and Q* = 1/2. The policy that is tested always gets there: w = t / (1 + 1) if it is played next. Sums over the
    number of visits and of rewards all cases in which the mean weighted residual of Q* exceeds c / gamma_t times the
    mean square of the clipped weight by more than `level`, gamma_t = slope t.
    """
    n, t = rounds, rounds + 1
    weight = min(t / 2, slope * t)
    chance, total = (1 - 1 / n) ** n, 0.0
    for visits in range(1, min(n, MOST_VISITS) + 1):
        chance *= (n - visits + 1) / visits / (n - 1)
        for rewards in range(visits + 1):
            mean = weight * (visits / 2 - rewards) / n
            if mean - c / (slope * t) * weight**2 * visits / n > level:
                total += chance * math.comb(visits, rewards) * 0.5**visits
    return total


def clipping_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    gamma: float | None = None,
    visit_slope: float = 1.0,
    schedules: tuple[str, ...] = SCHEDULES,
) -> ExactObservations:
    """Both horns: rounds and regret of GLOW with a member that a clipped test refutes; the chance of expelling Q*.

    `gamma` is for GLOW (default: the vacuous slope, and 1, which clips nothing) and `visit_slope` for the rare state.
    """
    cls, total = class_of(model), total_of(model)
    worth = member_values(model, cls, total)
    lines: list[tuple[str, float, float, float]] = []
    paths: NDArray[np.float64] | None = None
    for schedule in schedules:
        for slope in (gamma,) if gamma is not None else (None, 1.0):
            settings = first_choice(model, slope, schedule)
            result = run(settings, model, ITERATIONS, runs, rng, jobs=jobs, progress=progress, keep_states=True)
            exact = ITERATIONS * (2 * value_rounding(model) + 2 * U * (ITERATIONS + 2) * total)
            paths = result.regret
            for i, state in enumerate(result.states):
                first = int(state.chosen[0])
                name = f"{schedule}, gamma = {settings.slope():.3g}, run {i}"
                lines.append((f"rounds without the first choice, {name}", float((state.chosen != first).sum()), 0, 0))
                most = ITERATIONS * float(worth.regret[first])
                lines.append((f"T times the gap, regret, {name}", most, float(result.regret[i, -1]), exact))
    for rounds in ROUNDS:
        for c in PENALTIES:
            seen = expelled(rounds, visit_slope, c, (1 - c) / 4)
            name = f"1 / (2 e), chance of expelling Q*, n = {rounds}, c = {c}"
            lines.append((name, 1 / (2 * math.e), seen, 1e-12))
    labels, observed, bound, allowance = zip(*lines, strict=True)
    return ExactObservations(observed, bound, allowance, labels, series={} if paths is None else {"regret": paths})


THEOREMS = (
    Theorem(
        key="glow.clipping-needed",
        family="density-ratio",
        title="Without clipping no level is both valid and of use",
        statement=r"GLOW tests members with density ratios $w \le t$, clipped at $\gamma_t = \gamma t$; $\gamma = 1$ "
        r"clips nothing. (a) Let the start law be known, let every member be tested with its own ratio, and let $f^1$ "
        r"be the most optimistic one. If $\gamma \ge 8c/(b^2 L_W)$ (scale-free: $\sqrt{2/L_W}/b$; constants of the "
        r"paper: $1/(36 L)$), then $f^1$ is chosen in every round, whatever the model and the data, and the regret "
        r"after $T$ rounds is $T (J^* - J(\pi_{f^1}))$. $\gamma = 1$ is such a slope as soon as $L_W \ge 8c/b^2$ "
        r"($2/b^2$; $L \ge 1/36$). (b) For every $n \ge 2$ there are a model and a policy in it such that after $n$ "
        r"episodes of this policy the test of $Q^*$ with one ratio at round $t = n + 1$, $\gamma = 1$, $\alpha_t = "
        r"c/\gamma_t$, is above $(1-c)/4$ with probability at least $1/(2e)$. So without clipping every level that "
        r"keeps $Q^*$ with probability $1 - \delta > 1 - 1/(2e)$ is above $(1-c)/4$ for all $t$, and never refutes "
        r"members whose mean weighted residuals are smaller.",
        source="Amortila et al. 2024, section 3 (that unclipped ratios do not concentrate); both statements derived "
        "here, docs/theory/density_ratio_structure.md#structure-clipping",
        claim="exact",
        protocol=clipping_protocol,
        bound=vacuous_slope,
        controls=(
            Control(
                "clipped",
                "With gamma = 1/100 and the same count of tests, the first choice is refuted and given up.",
                partial(clipping_protocol, gamma=0.01, schedules=("self_normalised",)),
                runs=1,
            ),
            Control(
                "a rare state, clipped",
                "With gamma = 1/20 one visit in n rounds moves the test by no more than a fortieth.",
                partial(clipping_protocol, visit_slope=0.05, schedules=()),
                runs=1,
            ),
        ),
        proof=Proof("written", "docs/theory/density_ratio_structure.md#structure-clipping"),
        expected="verified",
        assumptions=(
            Assumption("known start", "The start law is given to the learner; the protocol gives it."),
            Assumption("total reward", r"$\sum_h r_h$ and all members lie in $[0, 1]$ after a change of units."),
        ),
        default_runs=3,
        default_model=slope_model,
        accepts="finite-horizon",
    ),
)
