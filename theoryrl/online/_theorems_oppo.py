"""Theorems about OPPO: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import evaluate
from theoryrl.mdp.rounding import U
from theoryrl.online._protocols import (
    BOUNDED,
    DELTA,
    INDEPENDENT,
    episodes_for,
    learner_rounding,
    regret_protocol,
    small_river,
    unlucky_bandit,
    value_rounding,
)
from theoryrl.online.bounds.oppo import oppo_regret_bound
from theoryrl.online.oppo import OPPO, OPPOState
from theoryrl.online.run import run
from theoryrl.theory.theorem import Control, ProbabilityObservations, Progress, Proof, Theorem

# Estimates are compared with the truth at this many numbers of episodes.
MOMENTS = 12


def settings(model: FiniteHorizonMDP, episodes: int, **changes: Any) -> OPPO:
    """OPPO tuned for the episodes it plays."""
    return OPPO(episodes, DELTA, **changes)


def bound_on(model: FiniteHorizonMDP, episodes: NDArray[np.int64]) -> NDArray[np.float64]:
    """OPPO's bound on this model at these numbers of episodes, tuned for the last of them."""
    return oppo_regret_bound(
        episodes,
        n_states=model.n_states,
        n_actions=model.n_actions,
        horizon=model.horizon,
        delta=DELTA,
        reward_width=model.reward_range[1] - model.reward_range[0],
        stationary=model.stationary,
        planned=int(episodes[-1]),
    )


def shortfall(model: FiniteHorizonMDP, state: OPPOState) -> float:
    """How far, at worst, Q_h falls below r + P V_{h+1} at an allowed pair, or V_h below V^pi_h; 0 if nowhere.

    In units of reward; NaN if anything is NaN.
    """
    low, width, horizon = state.reward_low, state.reward_width, model.horizon
    to_go = np.arange(horizon, -1, -1)[:, np.newaxis]
    value = to_go * low + width * state.value
    rows, reward = model.to_sparse().transition, model.reward_layers
    layers = rows.to_scipy() if rows.staged else [rows.to_scipy()]
    worst = [float((value - evaluate(model, state.policy)).min())]
    for h in range(horizon):
        target = reward[h % len(reward)] + (layers[h % len(layers)] @ value[h + 1]).reshape(model.action_mask.shape)
        margin = to_go[h] * low + width * state.q[h] - target
        worst.append(float(margin[model.action_mask].min()))
    least = float(np.min(worst))
    return 0.0 - least if not least >= 0 else 0.0


def optimism_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    episodes: int | None = None,
    **changes: Any,
) -> ProbabilityObservations:
    """`shortfall` at the worst of about MOMENTS episodes of each run, spread evenly on a logarithmic scale.

    The runs to each of these episodes have the same streams, hence the same beginning.
    """
    played = episodes or max(episodes_for(model, runs) // 10, 200)
    learner = settings(model, played, **changes)
    moments = np.unique(np.rint(np.geomspace(1, played, MOMENTS)).astype(np.int64))
    worst = np.zeros(runs)
    for moment in moments:
        states = run(learner, model, int(moment), runs, rng, jobs=jobs, keep_states=True, progress=progress).states
        worst = np.maximum(worst, [shortfall(model, state) for state in states])  # keeps a NaN
    # Beside UCBVI's roundings those of the mean over actions, in every layer.
    mean = U * model.horizon**2 * (2 * model.n_actions + 5) * (model.reward_range[1] - model.reward_range[0])
    return ProbabilityObservations(worst, value_rounding(model) + 2 * learner_rounding(model, played) + mean)


def sure_or_coin() -> FiniteHorizonMDP:
    """One step: a sure 0.2, or 1 with probability 0.4, which a greedy learner gives up after a few zeros."""
    transition = np.zeros((2, 2, 2))
    transition[:, 0, 0] = 1.0
    transition[:, 1] = 0.6, 0.4
    outcome = np.zeros((2, 2, 2))
    outcome[:, 0] = 0.2
    outcome[:, 1, 1] = 1.0
    return FiniteHorizonMDP(transition, outcome_reward=outcome, horizon=1, name="a sure 0.2 or a coin")


_regret = partial(regret_protocol, learner=settings, bound=bound_on)

_SETTING = (
    r"Let an MDP with $S$ states, $A$ actions, layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards "
    r"in $[l, u]$; $V^\pi_h(s)$ is the expected reward of $\pi$ from state $s$ at layer $h$ on, $V^*_h$ its maximum "
    r"over $\pi$. Before episode $k = 1, 2, \dots$ let $n$ be the visits of $(s, a)$ so far (pooled over layers if "
    r"rewards and transitions do not depend on the layer, else at layer $h$), $\hat r$ and $\hat P$ the mean reward "
    r"and the frequencies of the successors seen there. OPPO, tuned for $K_0$ episodes, plays $\pi_{k,h}(a | s) "
    r"\propto \exp(\eta \sum_{j < k} Q_{j,h}(s, a))$, $\eta = \sqrt{2 \log A / (H^2 K_0)}$, and evaluates it in units "
    r"of $u - l$, after subtracting $l$ from every reward: $V_{k,H} = 0$, $Q_{k,h}(s, a) = \min\{H - h, \hat r + "
    r"\hat P V_{k,h+1} + (H - h)\sqrt{(S \log 2 + \ell_n) / (2n)}\}$, which is $H - h$ while $n = 0$, $V_{k,h}(s) = "
    r"\sum_a \pi_{k,h}(a | s) Q_{k,h}(s, a)$, with $\ell_n = \log(4SAHn(n+1)/\delta)$ for a $\delta \in (0, 1)$. "
)
_SOURCE = "Cai, Yang, Jin, Wang 2020; Shani, Efroni, Rosenberg, Mannor 2020"

THEOREMS = (
    Theorem(
        key="oppo.optimism",
        family="online",
        title="OPPO never underestimates the policy it plays",
        statement=_SETTING
        + r"With probability at least $1 - \delta$, for all episodes $k$, layers $h$, states $s$ and "
        r"actions $a$ at once, $Q_{k,h}(s, a) \ge r_h(s, a) + P_h V_{k,h+1}(s, a)$; hence $V_{k,h}(s) \ge "
        r"V^{\pi_k}_h(s)$. (It need not exceed $V^*_h(s)$.)",
        source=f"{_SOURCE}; constants derived here, docs/theory/oppo.md#oppo-optimism",
        claim="probability",
        protocol=optimism_protocol,
        controls=(
            Control(
                "no bonus",
                "The plain empirical model undervalues some pair as soon as it is unlucky.",
                partial(optimism_protocol, scale=0.0, episodes=200),
                model=small_river,
                runs=20,
            ),
            Control(
                "a twentieth of the bonus",
                "Scaling the bonus by 0.05 gives the guarantee away.",
                partial(optimism_protocol, scale=0.05, episodes=1000),
                model=small_river,
                runs=50,
            ),
        ),
        proof=Proof("written", "docs/theory/oppo.md#oppo-optimism"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
    Theorem(
        key="oppo.regret",
        family="online",
        title="The regret of OPPO, with every constant",
        statement=_SETTING + r"With probability at least $1 - \delta$, for all numbers of episodes $K$ at once, "
        r"$\sum_{k \le K} \sum_s \mu(s) \big(V^*_0(s) - V^{\pi_k}_0(s)\big) \le (u - l)\Big[\tfrac{H \log A}{\eta} + "
        r"\tfrac{\eta K}{8} \sum_h (H-h)^2 + HSA\big(H - 1 + F(KH/(SA))\big) + \sqrt{K \sum_h (H-h)^2 \log\tfrac{2K(K+"
        r"1)}{\delta}}\Big]$ under stationary dynamics, where $F(N) = \sum_{n=0}^{N-1} \min\{1, 2\sqrt{(S\log 2 + "
        r"\ell_n)/(2n)}\}$, linear between integers, the term $n = 0$ being 1; with one count per layer the third term "
        r"is $\tfrac{H(H+1)}2 SA\, F(K/(SA))$. It is of order $\sqrt{S^2AH^3T\log T}$ in $T = KH$.",
        source=f"{_SOURCE}, Theorem 1 (rate); constants derived here, docs/theory/oppo.md#oppo-regret",
        claim="probability",
        protocol=_regret,
        bound=oppo_regret_bound,
        controls=(
            Control(
                "no ascent",
                "With eta = 0 the policy stays uniform: linear regret, which must cross the bound.",
                partial(_regret, learner=partial(settings, eta=0.0), episodes=100_000),
                model=unlucky_bandit,
                runs=10,
            ),
            Control(
                "greedy, no bonus",
                "A huge eta makes it policy iteration; without a bonus some runs settle on the wrong arm for ever.",
                partial(_regret, learner=partial(settings, eta=1e6, scale=0.0), episodes=50_000),
                model=sure_or_coin,
                runs=150,
            ),
        ),
        proof=Proof("written", "docs/theory/oppo.md#oppo-regret"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
)
