"""Theorems about UCRL2: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online._protocols import (
    BOUNDED,
    DELTA,
    INDEPENDENT,
    optimism_protocol,
    regret_protocol,
    small_river,
    unlucky_bandit,
)
from theoryrl.online.bounds.ucrl2 import ucrl2_regret_bound
from theoryrl.online.ucrl2 import UCRL2
from theoryrl.online.uniform import Uniform
from theoryrl.theory.theorem import Control, Proof, Theorem


def bound_on(model: FiniteHorizonMDP, episodes: NDArray[np.int64]) -> NDArray[np.float64]:
    """UCRL2's bound on this model at these numbers of episodes."""
    return ucrl2_regret_bound(
        episodes,
        n_states=model.n_states,
        n_actions=model.n_actions,
        horizon=model.horizon,
        delta=DELTA,
        reward_width=model.reward_range[1] - model.reward_range[0],
        stationary=model.stationary,
    )


_optimism = partial(optimism_protocol, learner=UCRL2(DELTA))
_regret = partial(regret_protocol, learner=UCRL2(DELTA), bound=bound_on)

_SETTING = (
    r"Let an MDP with $S$ states, $A$ actions, layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards "
    r"in $[l, u]$; $V^\pi_h(s)$ is the expected reward of $\pi$ from state $s$ at layer $h$ on, $V^*_h$ its maximum "
    r"over $\pi$. $G = 1$ and visits are pooled over layers if rewards and transitions do not depend on the layer, "
    r"else $G = H$ and they are counted per layer. UCRL2 plans before the first episode and again after every episode "
    r"by whose end some pair $(s, a)$ has been visited since the last plan at least $\max\{1, n\}$ times, $n$ its "
    r"visits before that plan. With $\hat r$ and $\hat P$ the mean reward and the frequencies of the successors, a "
    r"$\delta \in (0, 1)$ and $L = \log(GSAn(n+1)/\delta)$ it computes $V_H = 0$, $Q_h(s, a) = "
    r"\min\{u, \hat r + (u - l)\sqrt{(\log 6 + L)/(2n)}\} + \max_p p V_{h+1}$ over the distributions $p$ with "
    r"$\|p - \hat P\|_1 \le \sqrt{2(S\log 2 + \log 3 + L)/n}$ (any reward and any $p$ while $n = 0$), "
    r"$V_h = \max_a Q_h$, and plays the greedy policy until the next plan. "
)

THEOREMS = (
    Theorem(
        key="ucrl2.optimism",
        family="online",
        title="UCRL2 never underestimates the optimal value",
        statement=_SETTING + r"With probability at least $1 - \delta$, $V_h(s) \ge V^*_h(s)$ for all plans, layers $h$ "
        r"and states $s$ at once.",
        source="Jaksch, Ortner, Auer 2010, Section 3.1 and Lemma 17; derived here, docs/theory/ucrl2.md#ucrl2-optimism",
        claim="probability",
        protocol=_optimism,
        controls=(
            Control(
                "no radius",
                "The plain empirical model underestimates V* as soon as it is unlucky.",
                partial(_optimism, learner=UCRL2(DELTA, scale=0.0), episodes=200),
                model=small_river,
                runs=20,
            ),
            Control(
                "a twentieth of the radius",
                "Scaling both radii by 0.05 gives the guarantee away.",
                partial(_optimism, learner=UCRL2(DELTA, scale=0.05), episodes=2000),
                model=small_river,
                runs=100,
            ),
        ),
        proof=Proof("written", "docs/theory/ucrl2.md#ucrl2-optimism"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
    Theorem(
        key="ucrl2.regret",
        family="online",
        title="The regret of UCRL2 for a finite horizon, with every constant",
        statement=_SETTING + r"With probability at least $1 - \delta$, for all numbers of episodes $K$ at once, "
        r"$\sum_{k \le K} \sum_s \mu(s) \big(V^*_0(s) - V^{\pi_k}_0(s)\big) \le (u - l) \Big[ H S A "
        r"\big(H - 1 + F(KH/(SA))\big) + \sqrt{\tfrac{K}{2} \sum_h (H-h)^2 \log\tfrac{3K(K+1)}{\delta}} \Big]$ under "
        r"stationary dynamics, where $F(N) = 1 + \sum_{i=1}^{N-1} \min\{1, d((i+1)/2)\}$, linear between integers, and "
        r"$d(n)$ is the radius of $\hat P$ above; with one count per layer the first term is "
        r"$\sum_h (H - h)\, SA\, F(K/(SA))$. It is of "
        r"order $HS\sqrt{AT \log T}$ in $T = KH$.",
        source="Jaksch, Ortner, Auer 2010, Theorem 2 (rate, H for the diameter); derived here, "
        "docs/theory/ucrl2.md#ucrl2-regret",
        claim="probability",
        protocol=_regret,
        bound=ucrl2_regret_bound,
        controls=(
            Control(
                "uniform learner",
                "A learner that does not learn has linear regret and must cross the bound.",
                partial(_regret, learner=Uniform(), episodes=400_000),
                model=unlucky_bandit,
                runs=10,
            ),
            Control(
                "no radius",
                "Without optimism a quarter of the runs settle on the wrong arm for ever.",
                partial(_regret, learner=UCRL2(DELTA, scale=0.0), episodes=100_000),
                model=unlucky_bandit,
                runs=200,
            ),
        ),
        proof=Proof("written", "docs/theory/ucrl2.md#ucrl2-regret"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
)
