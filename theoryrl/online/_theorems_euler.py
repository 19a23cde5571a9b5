"""Theorems about EULER: both estimates on their sides of V*, and the regret."""

from __future__ import annotations

from functools import partial

import numpy as np

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.online._protocols import (
    DELTA,
    episodes_for,
    regret_protocol,
    value_rounding,
)
from theoryrl.online._theorems_ucbvi import SETTING
from theoryrl.online._theorems_ucbvi_forms import (
    bernstein_rounding,
    controls_of_optimism,
    controls_of_regret,
    entry,
    on_model,
)
from theoryrl.online.bounds.euler import euler_regret_bound
from theoryrl.online.euler import EULER
from theoryrl.online.run import run
from theoryrl.theory.theorem import ProbabilityObservations, Progress


def both_sides(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: EULER,
    episodes: int | None = None,
) -> ProbabilityObservations:
    """How far V falls below V*, or L rises above it, at worst over all episodes, layers and states of each run.

    L never falls from one episode to the next, so that its last table is its worst.
    """
    played = episodes or episodes_for(model, runs)
    result = run(learner, model, played, runs, rng, jobs=jobs, watch=True, keep_states=True, progress=progress)
    low, high = model.reward_range
    steps_to_go = np.arange(model.horizon, -1, -1)[:, np.newaxis]
    lower = np.stack([state.lower for state in result.states]) * (high - low) + steps_to_go * low
    above = (lower - backward_induction(model).value).max(axis=(1, 2))
    below = np.where(result.least_margin > 0, 0.0, 0.0 - result.least_margin)
    return ProbabilityObservations(
        np.maximum(np.maximum(above, 0.0), below),
        value_rounding(model) + bernstein_rounding(model, played),
        series={"episodes": result.checkpoints, "regret": result.regret},
    )


_STATEMENT = SETTING.replace("UCBVI computes", "EULER computes") + (
    r"EULER keeps two tables, $L \le V$. In units of $u - l$, with $W = H - h - 1$, $\ell_n = "
    r"\log(20SAHn(n+1)/\delta)$ for a $\delta \in (0, 1)$ and $n \ge 2$ its bonus is the sum of $b = "
    r"\sqrt{2\ell_n/(n-1)}\,(\mathrm{std}_{\hat P}(V_{k,h+1}) + \|V_{k,h+1} - L_{k,h+1}\|_{2,\hat P}) + "
    r"7W\ell_n/(3(n-1))$ and $c = \min\{1, \sqrt{2\ell_n\widehat{\mathrm{var}}(r)/(n-1)} + 7\ell_n/(3(n-1))\}$, and "
    r"$L_{k,h}(s) = \max\{L_{k-1,h}(s), 0, \hat r + \hat PL_{k,h+1} - b - c\}$ at the greedy action; pairs with "
    r"$n \le 1$ keep $Q = (H - h)u$. "
)
_optimism = partial(both_sides, learner=EULER(DELTA))
_regret = partial(regret_protocol, learner=EULER(DELTA), bound=on_model(euler_regret_bound), episodes=50_000)

THEOREMS = (
    entry(
        "euler.optimism",
        "The two estimates of EULER enclose the optimal value",
        _STATEMENT + r"With probability at least $1 - \delta$, $L_{k,h}(s) \le V^*_h(s) \le V_{k,h}(s)$ for all "
        r"episodes $k$, layers $h$ and states $s$ at once.",
        "Zanette, Brunskill 2019 (idea); constants derived here, docs/theory/euler.md#euler-optimism",
        "docs/theory/euler.md#euler-optimism",
        _optimism,
        controls_of_optimism(_optimism, EULER(DELTA, 0.0)),
    ),
    entry(
        "euler.regret",
        "The regret of EULER, with every constant, from the worst variances",
        _STATEMENT
        + r"With probability at least $1 - \delta$, for all numbers of episodes $K$ at once, $\sum_{k \le K} "
        r"\sum_s \mu(s) \big(V^*_0(s) - V^{\pi_k}_0(s)\big)$ is at most UCBVI's bound (`ucbvi.regret`) with $5$ in "
        r"place of $3$ in the logarithms other than $\ell_n$, and $4\sqrt{\ell_n/(2(n-1))} + 14\ell_n/(3(n-1)) + "
        r"G(H/2 + 1/3)\iota_n/n$ as the terms of $F$ from $n = 2$ on, those of $n = 0, 1$ being 1.",
        "Zanette, Brunskill 2019 (algorithm); crude form derived here, docs/theory/euler.md#euler-regret",
        "docs/theory/euler.md#euler-regret",
        _regret,
        controls_of_regret(_regret, EULER(DELTA, 0.0), (300_000, 40_000), runs=700),
        euler_regret_bound,
    ),
)
