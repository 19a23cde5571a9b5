"""Theorems about UCBVI: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online._protocols import (
    BOUNDED,
    DELTA,
    INDEPENDENT,
    most_successors,
    optimism_protocol,
    regret_protocol,
    small_river,
    unlucky_bandit,
)
from theoryrl.online.bounds.ucbvi import ucbvi_regret_bound
from theoryrl.online.ucbvi import UCBVI
from theoryrl.online.uniform import Uniform
from theoryrl.theory.theorem import Control, Proof, Theorem


def bound_on(model: FiniteHorizonMDP, episodes: NDArray[np.int64]) -> NDArray[np.float64]:
    """UCBVI's bound (Hoeffding bonus) on this model at these numbers of episodes."""
    return ucbvi_regret_bound(
        episodes,
        n_states=model.n_states,
        n_actions=model.n_actions,
        horizon=model.horizon,
        delta=DELTA,
        reward_width=model.reward_range[1] - model.reward_range[0],
        stationary=model.stationary,
        n_successors=most_successors(model),
    )


_optimism = partial(optimism_protocol, learner=UCBVI(DELTA))
_regret = partial(regret_protocol, learner=UCBVI(DELTA), bound=bound_on)

SETTING = (
    r"Let an MDP with $S$ states, $A$ actions, layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards "
    r"in $[l, u]$; $V^\pi_h(s)$ is the expected reward of $\pi$ from state $s$ at layer $h$ on, $V^*_h$ its maximum "
    r"over $\pi$. Before episode $k = 1, 2, \dots$ let $n$ be the visits of $(s, a)$ so far (pooled over layers if "
    r"rewards and transitions do not depend on the layer, else at layer $h$), $\hat r$ and $\hat P$ the mean reward "
    r"and the frequencies of the successors seen there. UCBVI computes $V_{k,H} = 0$, $Q_{k,h}(s, a) = "
    r"\min\{Q_{k-1,h}(s, a), (H - h) u, \hat r + \hat P V_{k,h+1} + b_h(n)\}$, which is $(H - h) u$ while $n = 0$, "
    r"$V_{k,h} = \max_a Q_{k,h}$, and plays $\pi_k$, greedy for $Q_k$. "
)
_SETTING = SETTING + (
    r"The bonus is $b_h(n) = (u - l)(H - h)\sqrt{\ell_n / (2n)}$, $\ell_n = \log(6SAHn(n+1)/\delta)$, for a "
    r"$\delta \in (0, 1)$. "
)

THEOREMS = (
    Theorem(
        key="ucbvi.optimism",
        family="online",
        title="UCBVI never underestimates the optimal value",
        statement=_SETTING + r"With probability at least $1 - \delta$, $V_{k,h}(s) \ge V^*_h(s)$ for all "
        r"episodes $k$, layers $h$ and states $s$ at once.",
        source="Azar, Osband, Munos 2017, Lemma 18; constants derived here, docs/theory/ucbvi.md#optimism",
        claim="probability",
        protocol=_optimism,
        controls=(
            Control(
                "no bonus",
                "The plain empirical model underestimates V* as soon as it is unlucky.",
                partial(_optimism, learner=UCBVI(DELTA, scale=0.0), episodes=200),
                model=small_river,
                runs=20,
            ),
            Control(
                "a tenth of the bonus",
                "Scaling the bonus by 0.1, a habit of experiments, gives the guarantee away.",
                partial(_optimism, learner=UCBVI(DELTA, scale=0.1), episodes=1000),
                model=small_river,
                runs=100,
            ),
        ),
        proof=Proof("written", "docs/theory/ucbvi.md#optimism"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
    Theorem(
        key="ucbvi.regret",
        family="online",
        title="The regret of UCBVI, with every constant",
        statement=_SETTING + r"With probability at least $1 - \delta$, for all numbers of episodes $K$ at once, "
        r"$\sum_{k \le K} \sum_s \mu(s) \big(V^*_0(s) - V^{\pi_k}_0(s)\big) \le (u - l) \Big[ H S A "
        r"\big(H - 1 + F(KH/(SA))\big) + \sqrt{\tfrac{K}{2} \sum_h w_h^2 \log\tfrac{3K(K+1)}{\delta}} \Big]$ under "
        r"stationary dynamics, where "
        r"$F(N) = \sum_{n=0}^{N-1} \min\{1, 2\sqrt{\ell_n / (2n)} + G(H/2 + 1/3)\iota_n / n\}$, linear between "
        r"integers, the term $n = 0$ being 1, "
        r"$\iota_n = \log(3S^2AHn(n+1)/\delta)$, $w_h = (1 + 1/H)^h (H - h)$ and $G$ is the largest number of "
        r"successors of a pair; with one count per layer the first term is $\sum_h w_h\, SA\, F(K/(SA))$. It is of "
        r"order $H\sqrt{SAT \log T}$ in $T = KH$.",
        source="Azar, Osband, Munos 2017, Theorem 1 (rate); constants derived here, docs/theory/ucbvi.md#regret",
        claim="probability",
        protocol=_regret,
        bound=ucbvi_regret_bound,
        controls=(
            Control(
                "uniform learner",
                "A learner that does not learn has linear regret and must cross the bound.",
                partial(_regret, learner=Uniform(), episodes=100_000),
                model=unlucky_bandit,
                runs=10,
            ),
            Control(
                "no bonus",
                "Without optimism three runs in ten settle on the wrong arm for ever.",
                partial(_regret, learner=UCBVI(DELTA, scale=0.0), episodes=50_000),
                model=unlucky_bandit,
                runs=200,
            ),
        ),
        proof=Proof("written", "docs/theory/ucbvi.md#regret"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
)
