"""Theorems about PSRL and RLSVI: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.rounding import U
from theoryrl.online._protocols import (
    BACKUPS,
    BOUNDED,
    INDEPENDENT,
    VACUOUS,
    episodes_for,
    small_river,
    unlucky_bandit,
    value_rounding,
)
from theoryrl.online.bounds.posterior import psrl_bayes_regret_bound, rlsvi_regret_bound
from theoryrl.online.psrl import PSRL, PSRLState
from theoryrl.online.rlsvi import RLSVI
from theoryrl.online.run import run
from theoryrl.online.uniform import Uniform
from theoryrl.online.verbs import sample
from theoryrl.theory.theorem import (
    Assumption,
    Control,
    MeanObservations,
    ProbabilityObservations,
    Progress,
    Proof,
    Theorem,
)

# Posterior draws beside the true model, and how often the true one may come first or last: 2 / 20 is what happens.
DRAWS = 19
RANK_DELTA = 0.2
# 1 - Phi(-1) (1 - 1 / k) for k >= 20 episodes, rounded up.
OPTIMISM_DELTA = 0.85
MOST_EPISODES = 400_000
_PLAIN_PSRL, _PLAIN_RLSVI = PSRL(), RLSVI()


def drawn_from_the_prior(sizes: FiniteHorizonMDP, rng: np.random.SeedSequence) -> FiniteHorizonMDP:
    """A model of the sizes of `sizes` from the prior of PSRL(): uniform rows and mean rewards, Bernoulli rewards."""
    return random_mdp(
        sizes.n_states, sizes.n_actions, sizes.horizon, rng, staged=not sizes.stationary, reward_law="bernoulli"
    )


def _prior_name(sizes: FiniteHorizonMDP) -> str:
    kind = "stationary" if sizes.stationary else "time-varying"
    return f"{kind} models drawn from the prior, S={sizes.n_states}, A={sizes.n_actions}, H={sizes.horizon}"


def _each(number: int, jobs: int | None, progress: Progress | None, text: str, task: Callable[[int], Any]) -> list[Any]:
    """`task(0), ..., task(number - 1)` on threads, in order."""
    results = []
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        for done, result in enumerate(pool.map(task, range(number)), 1):
            results.append(result)
            if progress is not None:
                progress(done, number, text)
    return results


def _mean_regret(
    regret: NDArray[np.float64], count: NDArray[np.int64], bound: NDArray[np.float64], width: float, rounding: float
) -> dict[str, Any]:
    """What both regret protocols report, of all checkpoints in the series and of the last one in the claim."""
    trivial = float(count[-1]) * width
    allowance = rounding * count[-1] + count[-1] * (count[-1] + 100) * 2 * U * width + 1e-300
    return {
        "observed": np.clip(regret[:, -1], 0.0, trivial),  # only rounding leads outside
        "bound": float(bound[-1]),
        "low": 0.0,
        "high": max(trivial, allowance),  # where rewards cannot differ only rounding is left
        "allowance": allowance,
        "series": {"episodes": count, "regret": regret, "bound": bound, "trivial": count * width},
        "remark": VACUOUS if (bound >= count * width).all() else "",
    }


def bayes_regret_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any = _PLAIN_PSRL,
    episodes: int | None = None,
    draw: Callable[[FiniteHorizonMDP, np.random.SeedSequence], FiniteHorizonMDP] = drawn_from_the_prior,
) -> MeanObservations:
    """Exact regret of `learner`, each run on a model of its own from the prior; of `model` only the sizes are used."""
    played = episodes or episodes_for(model, runs)
    children = rng.spawn(runs)

    def one(index: int) -> Any:
        prior, own = children[index].spawn(2)
        return run(learner, draw(model, prior), played, 1, own, jobs=1)

    results = _each(runs, jobs, progress, f"{type(learner).__name__} on models from the prior", one)
    count = results[0].checkpoints
    bound = psrl_bayes_regret_bound(
        count,
        n_states=model.n_states,
        n_actions=model.n_actions,
        horizon=model.horizon,
        stationary=model.stationary,
    )
    rounding = 2 * max(value_rounding(result.mdp) for result in results)
    regret = np.concatenate([result.regret for result in results])
    seen = _mean_regret(regret, count, bound, float(model.horizon), rounding)
    return MeanObservations(**seen, models=(_prior_name(model),))


def rank_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    distort: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    episodes: int = 20,
) -> ProbabilityObservations:
    """Where the true model stands among 19 posterior draws, by the distance of a row from what was seen of it.

    The row is that of the most visited pair; where there is one state alone, so that rows are sure, the mean reward of
    the pair. `distort` replaces the parameters of the posterior of the rows before the draws.
    """
    children = rng.spawn(runs)

    def one(index: int) -> int:
        prior, own, posterior = children[index].spawn(3)
        true = drawn_from_the_prior(model, prior)
        state: PSRLState = run(PSRL(), true, episodes, 1, own, jobs=1, keep_states=True).states[0]
        group, pair = np.unravel_index(int(np.argmax(state.visits)), state.visits.shape)
        of_rows = model.n_states > 1
        if of_rows:
            counted = state.successor_shape[group, pair]
            true_row = true.transition_layers[group].reshape(-1, model.n_states)[pair]
        else:
            counted = state.reward_shape[group, pair, :1]  # of successes
            true_row = true.reward_layers[group].reshape(-1)[pair]
        seen = (counted - 1.0) / state.visits[group, pair]
        if distort is not None:
            state.successor_shape[:] = distort(state.successor_shape)
        generator = np.random.default_rng(posterior)
        drawn = np.empty(DRAWS)
        for number in range(DRAWS):
            sample(state, generator)
            row = state.transition[group, :, pair] if of_rows else state.reward[group, pair]
            drawn[number] = np.abs(row - seen).sum()
        return int((drawn < np.abs(true_row - seen).sum()).sum())

    ranks = np.array(_each(runs, jobs, progress, "PSRL on models from the prior", one))
    return ProbabilityObservations(
        np.abs(ranks - DRAWS / 2), DRAWS / 2 - 1, models=(_prior_name(model),), series={"rank": ranks}
    )


def worst_case_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any = _PLAIN_RLSVI,
    episodes: int | None = None,
) -> MeanObservations:
    """Exact regret of `learner` on `model` against RLSVI's bound on its expectation."""
    per_episode = model.horizon * model.n_states * model.n_actions * 4
    played = episodes or int(np.clip(BACKUPS / (runs * per_episode), 200, MOST_EPISODES))
    result = run(learner, model, played, runs, rng, jobs=jobs, progress=progress)
    low, high = model.reward_range
    bound = rlsvi_regret_bound(
        result.checkpoints,
        n_states=model.n_states,
        n_actions=model.n_actions,
        horizon=model.horizon,
        reward_width=high - low,
        stationary=model.stationary,
    )
    width = model.horizon * (high - low)
    return MeanObservations(**_mean_regret(result.regret, result.checkpoints, bound, width, 2 * value_rounding(model)))


def chance_of_optimism_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any = _PLAIN_RLSVI,
    episodes: int = 100,
) -> ProbabilityObservations:
    """V*_0 against the learner's value in its last episode, at the likeliest initial state."""
    result = run(learner, model, episodes, runs, rng, jobs=jobs, progress=progress, keep_states=True)
    start = int(np.argmax(model.initial))
    low, high = model.reward_range
    values = np.array([state.value[0, start] for state in result.states])
    optimal = float(backward_induction(model).value[0, start])
    return ProbabilityObservations(
        np.full(runs, optimal), model.horizon * low + (high - low) * values + value_rounding(model)
    )


def sure_arms() -> FiniteHorizonMDP:
    """One state, one step, rewards without noise: 0.1 or 1. Who is content with a positive mean stays with 0.1."""
    return FiniteHorizonMDP(
        np.ones((1, 2, 1)), np.array([[0.1, 1.0]]), horizon=1, reward_range=(0.0, 1.0), name="bandit with two sure arms"
    )


def detour() -> FiniteHorizonMDP:
    """Two states, four steps: stay for 0.2 a step, or give up one reward and have 1 in every step after it."""
    return FiniteHorizonMDP(
        np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]),
        np.array([[0.2, 0.0], [1.0, 1.0]]),
        horizon=4,
        name="detour",
    )


def _all_allowed(model: FiniteHorizonMDP) -> str | None:
    return None if model.action_mask.all() else "some actions are forbidden, and the prior forbids none"


PRIOR = Assumption(
    "the model is drawn from the prior",
    "Rows of transitions uniform on the simplex, mean rewards uniform on [0, 1], all independent; rewards Bernoulli.",
    _all_allowed,
)

_PSRL = (
    r"Let a model $M$ with $S$ states, $A$ actions and layers $h = 0, \dots, H-1$ be drawn from the prior: rows "
    r"$P(\cdot \mid s, a)$ from the Dirichlet distribution with all parameters 1, mean rewards $r(s, a)$ uniform on "
    r"$[0, 1]$, all independent, the same at every layer if the dynamics are stationary ($G = 1$), else drawn for each "
    r"layer ($G = H$); rewards are 0 or 1. Before every episode $k = 1, 2, \dots$ PSRL draws a model $M_k$ from the "
    r"posterior given all that it has seen, and plays a policy $\pi_k$ that is optimal in $M_k$. "
)
_RLSVI = (
    r"Let an MDP with $S$ states, $A$ actions, layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards "
    r"in $[0, 1]$ (else subtract the lower end and divide by the width of the range). Before episode $k = 1, 2, \dots$ "
    r"let $n$ be the visits of $(s, a)$ so far (pooled over layers if the dynamics are stationary, else at layer $h$). "
    r"RLSVI draws $w_h(s, a) \sim N(0, \beta_{k,h}/(n + 1))$ independently, $\beta_{k,h} = HS(H-h)^2 "
    r"(1 + \frac12\log(2SAH^2k^2))$, computes $V_{k,H} = 0$, $Q_{k,h}(s, a) = \frac{1}{n+1}\sum(\text{reward} + "
    r"V_{k,h+1}(\text{successor})) + w_h(s, a)$ with the sum over the $n$ visits, $V_{k,h} = \max_a Q_{k,h}$, and "
    r"plays $\pi_k$, greedy for $Q_k$. "
)

THEOREMS = (
    Theorem(
        key="psrl.posterior-sampling",
        family="online",
        title="The model that PSRL draws and the true one are alike given what was seen",
        statement=_PSRL + r"Given the history before episode $k$, $M_k$ and $M$ have the same law. So, if 19 models "
        r"are drawn in place of one and $f$ is any function of model and history whose law has no atoms, $f(M)$ is the "
        r"smallest or the largest of the 20 values with probability exactly $1/10$, hence at most 0.2.",
        source="Osband, Russo, Van Roy 2013, Lemma 1 (posterior sampling)",
        claim="probability",
        protocol=rank_protocol,
        controls=(
            Control(
                "draws from the prior",
                "A learner that forgets what it saw draws rows far from the frequencies: the true one is the nearest.",
                partial(rank_protocol, distort=np.ones_like),
                model=small_river,
                runs=200,
            ),
            Control(
                "twenty times too sure",
                "Every visit counted twenty times: the draws hug the frequencies and the true row is the farthest.",
                partial(rank_protocol, distort=lambda shape: 20.0 * shape - 19.0),
                model=small_river,
                runs=200,
            ),
        ),
        proof=Proof("written", "docs/theory/posterior.md#posterior-sampling"),
        expected="consistent",
        assumptions=(PRIOR, INDEPENDENT),
        delta=RANK_DELTA,
        default_runs=400,
        default_model=small_river,
        accepts="finite-horizon",
    ),
    Theorem(
        key="psrl.bayes-regret",
        family="online",
        title="The expected regret of PSRL over its prior, with every constant",
        statement=_PSRL + r"For every initial distribution and every $K$, the expectation over the prior and the run "
        r"of $\sum_{k \le K} (V^*_0 - V^{\pi_k}_0)$ in $M$ is at most $HSA(H - 1 + F(KH/(SA))) + 2H$ under stationary "
        r"dynamics and $\frac{H(H+1)}{2} SA\, F(K/(SA)) + 2H$ with a posterior per layer, where "
        r"$F(N) = 1 + \sum_{n=1}^{N-1} \min\big\{1, \sqrt{2(S\log 2 + \log(2GSAK))/(n+1)}\big\}$, linear between "
        r"integers. "
        r"It is of order $HS\sqrt{AT\log T}$ in $T = KH$.",
        source="Osband, Russo, Van Roy 2013, Theorem 1 (rate); derived here, docs/theory/posterior.md#psrl-regret",
        claim="probability",
        protocol=bayes_regret_protocol,
        bound=psrl_bayes_regret_bound,
        controls=(
            Control(
                "uniform learner",
                "A learner that does not learn has linear regret on average over the prior.",
                partial(bayes_regret_protocol, learner=Uniform(), episodes=100_000),
                model=unlucky_bandit,
                runs=100,
            ),
            Control(
                "a prior that is not the model's",
                "PSRL that is sure of uniform transitions never finds out that a detour pays.",
                partial(
                    bayes_regret_protocol,
                    learner=PSRL(prior=1e12),
                    episodes=20_000,
                    draw=lambda sizes, rng: sizes,
                ),
                model=detour,
                runs=40,
            ),
        ),
        proof=Proof("written", "docs/theory/posterior.md#psrl-regret"),
        expected="consistent",
        assumptions=(PRIOR, INDEPENDENT),
        default_runs=40,
        default_model=small_river,
        accepts="finite-horizon",
    ),
    Theorem(
        key="rlsvi.optimism",
        family="online",
        title="RLSVI is optimistic at the start with a constant probability",
        statement=_RLSVI + r"For every state $s$ and every $k$, $V_{k,0}(s) \ge V^*_0(s)$ with probability at least "
        r"$\Phi(-1)(1 - \frac1k) \approx 0.159 (1 - \frac1k)$, $\Phi$ the normal distribution function: from $k = 20$ "
        r"on it fails with probability at most 0.85.",
        source="Russo 2019, Lemma 4; constants derived here, docs/theory/posterior.md#rlsvi-optimism",
        claim="probability",
        protocol=chance_of_optimism_protocol,
        controls=(
            Control(
                "no noise",
                "Without perturbations the regularised mean is below V* whatever happens.",
                partial(chance_of_optimism_protocol, learner=RLSVI(scale=0.0)),
                model=sure_arms,
                runs=200,
            ),
        ),
        proof=Proof("written", "docs/theory/posterior.md#rlsvi-optimism"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        delta=OPTIMISM_DELTA,
        default_runs=200,
        default_model=small_river,
        accepts="finite-horizon",
    ),
    Theorem(
        key="rlsvi.regret",
        family="online",
        title="The expected regret of RLSVI on any model, with every constant",
        statement=_RLSVI + r"For every $K$ the expectation of $\sum_{k \le K} \sum_s \mu(s)(V^*_0(s) - V^{\pi_k}_0(s))"
        r"$ is at most $GSA\,[2a\sqrt N + 2b(1 + \sqrt{2LN}) + B(1 + \log(1 + N))] + [G = 1]\,SA(H-1)(a + 2b + B) + "
        r"(1 + \log K)\big[H + 1 + \big(H + (1 + \tfrac1p)H^2\sqrt{HSc}\,(z + \tfrac1z)\big)/(2m)\big]$, where $G = 1$ "
        r"if visits are pooled and $H$ if not, $N = KH/(GSA)$, $m = SAH$, $p = \Phi(-1)$, $\ell = \log(2SAH^2K^2)$, "
        r"$c = 1 + \ell/2$, $z = \sqrt{2\log(2m^2K)}$, $L = S\log 2 + \ell$, $a = \sqrt{\ell/2} + "
        r"(1 + \tfrac1p) z H\sqrt{HSc}$, $B = z\sqrt{HSc}\,H(H-1)/2$, $b = \tfrac{H-1}{2} + B + \tfrac{B}{2p}$.",
        source="Russo 2019, Theorem 1 (rate); constants derived here, docs/theory/posterior.md#rlsvi-regret",
        claim="probability",
        protocol=worst_case_protocol,
        bound=rlsvi_regret_bound,
        controls=(
            Control(
                "no noise",
                "Without perturbations the first arm with a positive mean is played for ever.",
                partial(worst_case_protocol, learner=RLSVI(scale=0.0), episodes=600_000),
                model=sure_arms,
                runs=42,
            ),
        ),
        proof=Proof("written", "docs/theory/posterior.md#rlsvi-regret"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT),
        default_runs=12,
        default_model=unlucky_bandit,
        accepts="finite-horizon",
    ),
)
