"""Theorems about UCBVI's other forms: Bernstein bonus, doubled counts, the paper's own first bonus, real time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import U
from theoryrl.online._protocols import (
    BOUNDED,
    DELTA,
    INDEPENDENT,
    learner_rounding,
    most_successors,
    optimism_protocol,
    regret_protocol,
    small_river,
    unlucky_bandit,
)
from theoryrl.online._theorems_ucbvi import SETTING
from theoryrl.online.bounds.ucbvi import ucbvi_regret_bound, ucbvi_rtdp_regret_bound
from theoryrl.online.ucbvi import UCBVI
from theoryrl.online.ucbvi_rtdp import UCBVIRTDP
from theoryrl.online.uniform import Uniform
from theoryrl.theory.theorem import Control, Proof, Theorem


def on_model(bound: Callable[..., NDArray[np.float64]], **form: Any) -> Callable[..., NDArray[np.float64]]:
    """`bound` as a function of a model and numbers of episodes."""

    def evaluated(model: FiniteHorizonMDP, episodes: NDArray[np.int64]) -> NDArray[np.float64]:
        return bound(
            episodes,
            n_states=model.n_states,
            n_actions=model.n_actions,
            horizon=model.horizon,
            delta=DELTA,
            reward_width=model.reward_range[1] - model.reward_range[0],
            stationary=model.stationary,
            n_successors=most_successors(model),
            **form,
        )

    return evaluated


def bernstein_rounding(model: FiniteHorizonMDP, episodes: int) -> float:
    """Rounding of UCBVI's table of values with the Bernstein bonus, at most.

    Beyond what `learner_rounding` counts, the variance of n rewards in [0, 1], computed from their sums, errs by
    3 (n + 3) u, and its square root sqrt(4 var l / n) by sqrt(48 u l) at most, per layer. The variance of the value
    counts only where it is no smaller than 12 W^2 l / n, and errs there by less than what is counted for the bonus.
    """
    size = model.n_states * model.n_actions * model.horizon
    log = math.log(10 * size / DELTA) + 2 * math.log(episodes * model.horizon + 1.0)
    width = model.reward_range[1] - model.reward_range[0]
    return learner_rounding(model, episodes) + model.horizon * width * math.sqrt(48 * U * log)


def _paper(model: FiniteHorizonMDP, episodes: int, scale: float = 1.0) -> UCBVI:
    return UCBVI(DELTA, "azar-ch", scale, episodes=episodes)


_BF = UCBVI(DELTA, "bernstein")
_DOUBLING = UCBVI(DELTA, replan="doubling")
_RTDP = UCBVIRTDP(DELTA)
_HOEFFDING_BONUS = (
    r"The bonus is $b_h(n) = (u - l)(H - h)\sqrt{\ell_n / (2n)}$, $\ell_n = \log(6SAHn(n+1)/\delta)$, for a "
    r"$\delta \in (0, 1)$. "
)
_BERNSTEIN_BONUS = (
    r"In units of $u - l$, with $W = H - h - 1$ and $\ell_n = \log(10SAHn(n+1)/\delta)$ for a $\delta \in (0, 1)$, the "
    r"bonus is $b_h = \max\{\tfrac{10}{3}\sqrt{\mathrm{Var}_{\hat P}(V_{k,h+1})\ell_n/n}, \tfrac{35}{3}W\ell_n/n\} + "
    r"\min\{1, \sqrt{4\widehat{\mathrm{var}}(r)\ell_n/n} + 14\ell_n/(3n)\}$. "
)
_OPTIMISTIC = (
    r"With probability at least $1 - \delta$, $V_{k,h}(s) \ge V^*_h(s)$ for all episodes $k$, layers $h$ and states "
    r"$s$ at once."
)
_REGRET = (
    r"With probability at least $1 - \delta$, for all numbers of episodes $K$ at once, $\sum_{k \le K} \sum_s \mu(s) "
    r"\big(V^*_0(s) - V^{\pi_k}_0(s)\big)$ is at most "
)
_REAL_TIME = (
    r"It replans in real time: before episode $k$ only $Q_{k,h}(s_h, \cdot)$ is recomputed, from the last layer to the "
    r"first, at the states $s_h$ that the last episode visited; all else stays as it was. "
)


def controls_of_optimism(protocol: Callable, broken: Any) -> tuple[Control, ...]:
    """The control of a claim of optimism; `broken` has no bonus."""
    return (
        Control(
            "no bonus",
            "The plain empirical model underestimates V* as soon as it is unlucky.",
            partial(protocol, learner=broken, episodes=200),
            model=small_river,
            runs=20,
        ),
    )


def controls_of_regret(
    protocol: Callable, broken: Any, episodes: tuple[int, int], runs: int = 200
) -> tuple[Control, ...]:
    """The controls of a regret bound; `broken` has no bonus, `episodes` are what the two need to cross it."""
    return (
        Control(
            "uniform learner",
            "A learner that does not learn has linear regret and must cross the bound.",
            partial(protocol, learner=Uniform(), episodes=episodes[0]),
            model=unlucky_bandit,
            runs=10,
        ),
        Control(
            "no bonus",
            "Without optimism runs settle on the wrong arm for ever, far more of them than delta allows.",
            partial(protocol, learner=broken, episodes=episodes[1]),
            model=unlucky_bandit,
            runs=runs,
        ),
    )


def entry(
    key: str,
    title: str,
    statement: str,
    source: str,
    anchor: str,
    protocol: Callable,
    controls: tuple,
    bound: Any = None,
) -> Theorem:
    """A record with what all these theorems share."""
    return Theorem(
        key=key,
        family="online",
        title=title,
        statement=statement,
        source=source,
        claim="probability",
        protocol=protocol,
        bound=bound,
        controls=controls,
        proof=Proof("written", anchor),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    )


_bf_optimism = partial(optimism_protocol, learner=_BF, rounding=bernstein_rounding)
_bf_regret = partial(
    regret_protocol, learner=_BF, bound=on_model(ucbvi_regret_bound, bonus="bernstein"), episodes=50_000
)
_doubling_regret = partial(
    regret_protocol, learner=_DOUBLING, bound=on_model(ucbvi_regret_bound, replan="doubling"), episodes=50_000
)
_paper_optimism = partial(optimism_protocol, learner=_paper)
_rtdp_optimism = partial(optimism_protocol, learner=_RTDP)
_rtdp_regret = partial(regret_protocol, learner=_RTDP, bound=on_model(ucbvi_rtdp_regret_bound))

THEOREMS = (
    entry(
        "ucbvi-bf.optimism",
        "UCBVI with the Bernstein bonus never underestimates the optimal value",
        SETTING + _BERNSTEIN_BONUS + _OPTIMISTIC,
        "Azar, Osband, Munos 2017 (idea); constants derived here, docs/theory/ucbvi.md#bernstein",
        "docs/theory/ucbvi.md#bernstein",
        _bf_optimism,
        controls_of_optimism(_bf_optimism, UCBVI(DELTA, "bernstein", 0.0)),
    ),
    entry(
        "ucbvi-bf.regret",
        "The regret of UCBVI with the Bernstein bonus, with every constant",
        SETTING + _BERNSTEIN_BONUS + _REGRET + r"$(u - l)\,\min\{B_1, B_2\} + (u - l)\,\mathrm{noise}$, with $B_1$, "
        r"$B_2$ and noise as written out on the page of the proof. Under stationary dynamics the leading term of $B_2$ "
        r"is $(1 + 1/H)^{H-1} c(KH) \sqrt{\bar V_K SA(1 + \log^+\tfrac{K}{SA})}$, $c(n) = \sqrt{2\log(25SAHn(n+1)/"
        r"(3\delta))} + \tfrac{10}{3}\sqrt{\tfrac54 \ell_n}$, where $\bar V_K$ is $K(H-1)^2/4$ and terms of order "
        r"$\sqrt K$: by the law of total variance it is of order $\sqrt{HSAT}\log T$ in $T = KH$.",
        "Azar, Osband, Munos 2017, Theorem 2 (rate); derived here, docs/theory/ucbvi.md#bernstein-regret",
        "docs/theory/ucbvi.md#bernstein-regret",
        _bf_regret,
        controls_of_regret(_bf_regret, UCBVI(DELTA, "bernstein", 0.0), (400_000, 100_000)),
        ucbvi_regret_bound,
    ),
    entry(
        "ucbvi-doubling.regret",
        "Replanning only on doubled counts costs UCBVI a factor of about the root of two",
        SETTING + _HOEFFDING_BONUS + r"It replans only before episodes at whose start the visits of some pair are at "
        r"least twice what they were at the last plan. " + _REGRET + r"UCBVI's bound (`ucbvi.regret`) with "
        r"$\lceil (n+1)/2 \rceil$ in place of $n \ge 1$ in the terms of $F$.",
        "Jaksch, Ortner, Auer 2010 (doubling); derived here, docs/theory/ucbvi.md#doubling",
        "docs/theory/ucbvi.md#doubling",
        _doubling_regret,
        controls_of_regret(_doubling_regret, UCBVI(DELTA, scale=0.0, replan="doubling"), (200_000, 100_000)),
        ucbvi_regret_bound,
    ),
    entry(
        "ucbvi-ch.optimism",
        "The first bonus of Azar, Osband and Munos covers unknown rewards as well",
        SETTING + r"The bonus is $b_h(n) = (u - l)\,7HL\sqrt{1/n}$ with $L = \log(5SAT/\delta)$, $T = KH$, for a "
        r"$\delta \in (0, 1)$ and a number of episodes $K$ fixed beforehand. With probability at least $1 - \delta$, "
        r"$V_{k,h}(s) \ge V^*_h(s)$ for all $k \le K$, $h$ and $s$.",
        "Azar, Osband, Munos 2017, Algorithm 3; unknown rewards here, docs/theory/ucbvi.md#paper",
        "docs/theory/ucbvi.md#paper",
        _paper_optimism,
        controls_of_optimism(_paper_optimism, partial(_paper, scale=0.0)),
    ),
    entry(
        "ucbvi-rtdp.optimism",
        "UCBVI in real time never underestimates the optimal value",
        SETTING + _HOEFFDING_BONUS + _REAL_TIME + _OPTIMISTIC,
        "Efroni, Merlis, Ghavamzadeh, Mannor 2019 (idea); docs/theory/ucbvi_rtdp.md#rtdp-optimism",
        "docs/theory/ucbvi_rtdp.md#rtdp-optimism",
        _rtdp_optimism,
        controls_of_optimism(_rtdp_optimism, UCBVIRTDP(DELTA, scale=0.0)),
    ),
    entry(
        "ucbvi-rtdp.regret",
        "Planning in real time costs UCBVI a constant",
        SETTING + _HOEFFDING_BONUS + _REAL_TIME + _REGRET + r"UCBVI's bound (`ucbvi.regret`) and $(u - l)\big["
        r"S \min\{A, S\} \sum_{h \ge 1} w_h + SA \sum_h w_h\big]$, $w_h = (1 + 1/H)^h (H - h)$, the last sum under "
        r"stationary dynamics only.",
        "Efroni, Merlis, Ghavamzadeh, Mannor 2019 (idea); derived here, docs/theory/ucbvi_rtdp.md#rtdp-regret",
        "docs/theory/ucbvi_rtdp.md#rtdp-regret",
        _rtdp_regret,
        controls_of_regret(_rtdp_regret, UCBVIRTDP(DELTA, scale=0.0), (100_000, 50_000)),
        ucbvi_rtdp_regret_bound,
    ),
)
