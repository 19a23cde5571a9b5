"""Theorems about LSVI-UCB: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from theoryrl.envs.linear import LinearMDP, linear_mdp
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online._protocols import (
    BOUNDED,
    DELTA,
    INDEPENDENT,
    optimism_protocol,
    regret_protocol,
    unlucky_bandit,
)
from theoryrl.online.bounds.lsvi_ucb import lsvi_ucb_regret_bound
from theoryrl.online.lsvi_ucb import LSVIUCB
from theoryrl.online.uniform import Uniform
from theoryrl.theory.theorem import Assumption, Control, Proof, Theorem


@cache
def small_linear() -> LinearMDP:
    """Three states, two actions, two steps, features of dimension two: small enough for the bound to say something."""
    return linear_mdp(n_states=3, n_actions=2, dimension=2, horizon=2, rng=0)


def small_linear_model() -> FiniteHorizonMDP:
    """The model of `small_linear`."""
    return small_linear().mdp


def features_of(model: FiniteHorizonMDP) -> NDArray[np.float64]:
    """The features of `small_linear` for its model, one-hot features (in which all models are linear) for others."""
    if model == small_linear().mdp:
        return small_linear().features
    pairs = model.n_states * model.n_actions
    return np.eye(pairs).reshape(model.n_states, model.n_actions, pairs)


def learner_for(model: FiniteHorizonMDP, episodes: int, scale: float = 1.0) -> LSVIUCB:
    """LSVI-UCB with the features that `features_of` finds."""
    return LSVIUCB(features_of(model), DELTA, scale=scale)


def blind_learner(model: FiniteHorizonMDP, episodes: int) -> LSVIUCB:
    """LSVI-UCB whose single feature is 1 everywhere: no model with two different rewards is linear in it."""
    return LSVIUCB(np.ones((model.n_states, model.n_actions, 1)), DELTA, check=False)


def bound_on(model: FiniteHorizonMDP, episodes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The bound on this model with the features of `features_of`."""
    return lsvi_ucb_regret_bound(
        episodes,
        n_states=model.n_states,
        dimension=features_of(model).shape[2],
        horizon=model.horizon,
        delta=DELTA,
        reward_width=model.reward_range[1] - model.reward_range[0],
    )


_optimism = partial(optimism_protocol, learner=learner_for)
_regret = partial(regret_protocol, learner=learner_for, bound=bound_on)

LINEAR = Assumption(
    "linear MDP",
    r"$P_h(s' | x) = \langle \phi(x), \mu_h(s') \rangle$ and $r_h(x) = \langle \phi(x), \theta_h \rangle$ for known "
    r"$\phi$; checked before anything is played. Models other than the default one are given one-hot features.",
)

_SETTING = (
    r"Let an MDP with $S$ states, actions $a$, layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards "
    r"in $[l, u]$; in units of $u - l$ after subtracting $l$, so that they lie in $[0, 1]$, let its mean rewards be "
    r"$\langle \phi(s,a), \theta_h \rangle$ and its transitions $\langle \phi(s,a), \mu_h(s') \rangle$ with known "
    r"$\phi(s, a) \in \mathbb{R}^d$, $|\phi| \le 1$, $|\theta_h| \le \sqrt d$ and $|\sum_{s'} \mu_h(s') V(s')| \le "
    r"\sqrt d$ whenever $0 \le V \le 1$. $V^\pi_h(s)$ is the expected reward of $\pi$ from $s$ at layer $h$ on, "
    r"$V^*_h$ its maximum over $\pi$. Before episode $k = 1, 2, \dots$, with sums over the transitions "
    r"$(s, a, r, s')$ seen at layer $h$, "
    r"$\Lambda_h = I + \sum \phi \phi^\top$ and $w_h = \Lambda_h^{-1} \sum \phi (r + V_{k,h+1}(s'))$, "
    r"LSVI-UCB sets $Q_{k,h} = \min\{H - h, \max\{0, \langle \phi, w_h \rangle + \beta_h |\phi|_{\Lambda_h^{-1}}\}\}$, "
    r"$V_{k,h} = \max_a Q_{k,h}$, $V_{k,H} = 0$, and plays $\pi_k$, greedy for $Q_k$, where $\beta_h = (H - h) \big("
    r"\tfrac12 \sqrt{2 n_h \log 2 + 2 \log(2H/\delta) + \log\det\Lambda_h} + \sqrt d \big)$, $n_h = S$ for $h < H - 1$ "
    r"and $n_{H-1} = 0$, for a $\delta \in (0, 1)$. "
)

THEOREMS = (
    Theorem(
        key="lsvi-ucb.optimism",
        family="online",
        title="LSVI-UCB never underestimates the optimal value of a linear MDP",
        statement=_SETTING
        + r"With probability at least $1 - \delta$, $l (H - h) + (u - l) V_{k,h}(s) \ge V^*_h(s)$ for "
        r"all episodes $k$, layers $h$ and states $s$ at once.",
        source="Jin, Yang, Wang, Jordan 2020, Lemma B.5; constants derived here, docs/theory/lsvi_ucb.md#lsvi-optimism",
        claim="probability",
        protocol=_optimism,
        controls=(
            Control(
                "no bonus",
                "Ridge regression alone underestimates V* from the first episode on.",
                partial(_optimism, learner=partial(learner_for, scale=0.0), episodes=100),
                model=small_linear_model,
                runs=20,
            ),
            Control(
                "not linear",
                "With one feature for two arms the average reward is taken for that of the better arm.",
                partial(_optimism, learner=blind_learner, episodes=3000),
                model=unlucky_bandit,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/lsvi_ucb.md#lsvi-optimism"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT, LINEAR),
        delta=DELTA,
        default_runs=100,
        default_model=small_linear_model,
        accepts="finite-horizon",
    ),
    Theorem(
        key="lsvi-ucb.regret",
        family="online",
        title="The regret of LSVI-UCB, with every constant",
        statement=_SETTING + r"With probability at least $1 - \delta$, for all numbers of episodes $K$ at once, with "
        r"$D = d \log(1 + K/d)$ and $\bar\beta_h$ as $\beta_h$ with $D$ in place of $\log\det\Lambda_h$, "
        r"$$\sum_{k \le K} \sum_s \mu(s) \big(V^*_0(s) - V^{\pi_k}_0(s)\big) \le (u - l) \Big[ \sum_h \min\Big\{K (H - "
        r"h), 2 \bar\beta_h \sqrt{K D / \log 2}\Big\} + \sqrt{\tfrac K2 \sum_h (H - h)^2 \log\tfrac{2K(K+1)}{\delta}} "
        r"\Big].$$",
        source="Jin, Yang, Wang, Jordan 2020, Theorem 3.1 (rate); constants derived here, "
        "docs/theory/lsvi_ucb.md#lsvi-regret",
        claim="probability",
        protocol=_regret,
        bound=lsvi_ucb_regret_bound,
        controls=(
            Control(
                "uniform learner",
                "A learner that does not learn has linear regret and must cross the bound.",
                partial(_regret, learner=Uniform(), episodes=400_000),
                model=unlucky_bandit,
                runs=6,
            ),
            Control(
                "no bonus",
                "Without optimism the first arm tried is the only one ever tried.",
                partial(_regret, learner=partial(learner_for, scale=0.0), episodes=100_000),
                model=unlucky_bandit,
                runs=10,
            ),
        ),
        proof=Proof("written", "docs/theory/lsvi_ucb.md#lsvi-regret"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT, LINEAR),
        delta=DELTA,
        default_runs=100,
        default_model=small_linear_model,
        accepts="finite-horizon",
    ),
)
