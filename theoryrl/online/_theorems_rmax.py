"""Theorems about R-max: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.online._protocols import (
    BOUNDED,
    DELTA,
    INDEPENDENT,
    episodes_for,
    optimism_protocol,
    regret_protocol,
    unlucky_bandit,
    value_rounding,
)
from theoryrl.online.bounds.rmax import rmax_mistake_bound, rmax_regret_bound
from theoryrl.online.rmax import RMax
from theoryrl.online.run import run
from theoryrl.online.uniform import Uniform
from theoryrl.theory.theorem import Control, ProbabilityObservations, Progress, Proof, Theorem

HARMLESS = "no policy loses more than epsilon on this model: nothing could have failed"
VACUOUS = "fewer episodes than the bound allows mistakes: nothing could have failed"
# Losses of this many episodes are held at a time.
EPISODES_AT_ONCE = 2_000_000


def _sizes(model: FiniteHorizonMDP) -> dict[str, Any]:
    return {
        "n_states": model.n_states,
        "n_actions": model.n_actions,
        "horizon": model.horizon,
        "delta": DELTA,
        "reward_width": model.reward_range[1] - model.reward_range[0],
        "stationary": model.stationary,
    }


def accuracy_for(model: FiniteHorizonMDP, episodes: int) -> float:
    """The least epsilon, to 1%, whose mistake bound is at most half the episodes; H width where even that is more."""
    sizes = _sizes(model)
    width = sizes["reward_width"]
    if width == 0:
        return 1.0
    sizes["reward_width"] = 1.0  # in units of it, which must not underflow when it is squared
    high = float(model.horizon)
    low = high / 1e6
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        if rmax_mistake_bound(middle, **sizes) <= episodes / 2:
            high = middle
        else:
            low = middle
    return max(high * width, 5e-324)


def settings_for(model: FiniteHorizonMDP, episodes: int, visits: int | None = None) -> RMax:
    """R-max with the accuracy of `accuracy_for`."""
    return RMax(accuracy_for(model, episodes), DELTA, visits)


def regret_settings(model: FiniteHorizonMDP, episodes: int, visits: int | None = None) -> RMax:
    """R-max with the accuracy at which the regret bound after all episodes is least, on a grid of 1%."""
    top = model.horizon * (model.reward_range[1] - model.reward_range[0]) or 1.0
    grid = np.maximum(top * 1.01 ** -np.arange(700.0), 5e-324)
    bounds = [float(rmax_regret_bound(episodes, epsilon=float(e), **_sizes(model))) for e in grid]
    return RMax(float(grid[int(np.argmin(bounds))]), DELTA, visits)


def regret_bound_on(model: FiniteHorizonMDP, episodes: NDArray[np.int64], played: int | None) -> NDArray[np.float64]:
    """The regret bound for the accuracy of `regret_settings`, which depends on how many episodes are played."""
    epsilon = regret_settings(model, int(episodes[-1]) if played is None else played).epsilon
    return rmax_regret_bound(episodes, epsilon=epsilon, **_sizes(model))


def mistakes_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any = settings_for,
    episodes: int | None = None,
) -> ProbabilityObservations:
    """The number of episodes whose policy loses more than epsilon, exactly, against its bound.

    epsilon is that of `accuracy_for`, whatever the learner; a loss within rounding of epsilon is no mistake.
    """
    played = episodes or episodes_for(model, runs)
    settings = learner if hasattr(learner, "init") else learner(model, played)
    epsilon = accuracy_for(model, played)
    limit = epsilon + 2 * value_rounding(model) + 1e-300
    marks = range(1, played + 1)
    mistakes = np.empty(runs)
    at_once = max(1, EPISODES_AT_ONCE // played)
    streams = rng.spawn(-(-runs // at_once))
    for i, stream in enumerate(streams):
        block = slice(i * at_once, min((i + 1) * at_once, runs))
        result = run(settings, model, played, block.stop - block.start, stream, jobs=jobs, checkpoints=marks)
        # A NaN is a mistake.
        mistakes[block] = (~(result.episode_regret <= limit)).sum(axis=1)
        if progress is not None:
            progress(block.stop, runs, f"{type(settings).__name__} on {model.name or 'the model'}")
    bound = rmax_mistake_bound(epsilon, **_sizes(model))
    remark = VACUOUS if bound >= played else HARMLESS if _largest_loss(model) <= epsilon else ""
    return ProbabilityObservations(mistakes, bound, remark=remark)


def _largest_loss(model: FiniteHorizonMDP) -> float:
    """What the worst policy loses at the start."""
    worst = backward_induction(model.with_reward(-model.reward)).initial_value
    return backward_induction(model).initial_value + worst


_optimism = partial(optimism_protocol, learner=settings_for)
_mistakes = partial(mistakes_protocol, episodes=None)


def _regret(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any = regret_settings,
    episodes: int | None = None,
) -> ProbabilityObservations:
    """`regret_protocol` with the accuracy of `regret_settings` in learner and bound."""
    played = episodes or episodes_for(model, runs)
    return regret_protocol(
        model,
        rng=rng,
        runs=runs,
        jobs=jobs,
        progress=progress,
        learner=learner,
        bound=partial(regret_bound_on, played=played),
        episodes=played,
    )


_SETTING = (
    r"Let an MDP with $S$ states, $A$ actions, layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards "
    r"in $[0, w]$ after their lowest value is subtracted; $V^\pi_h(s)$ is the expected reward of $\pi$ from $s$ at "
    r"layer $h$ on, $V^*_h$ its maximum. For $\epsilon > 0$, $\delta \in (0, 1)$ let "
    r"$\ell = \log(3SAH/\delta)$ and $m = \lceil 9 H^2 (H+1)^2 (\sqrt{\ell} + \sqrt{\ell + S \log 2})^2 w^2 / "
    r"(32 \epsilon^2) \rceil$. R-max calls $(s, a)$ known once it has $m$ visits (at layer $h$, if rewards or "
    r"transitions depend on it), with $\hat r, \hat P$ from the first $m$. Before episode $k$ it computes $V_{k,H} = "
    r"0$, $Q_{k,h}(s, a) = \min\{(H - h) w, \hat r + \hat P V_{k,h+1}\}$ if $(s, a)$ is known and $(H - h) w$ if "
    r"not, $V_{k,h} = \max_a Q_{k,h}$, and plays $\pi_k$, greedy for $Q_k$. "
)
_ESCAPES = (
    r"with $W = m S A H$ under stationary dynamics, $m S A H (H+1)/2$ otherwise, $x = \sqrt{2 H \log(3/\delta) / W}$ "
    r"and $E = (x W + H \log(3/\delta)) / (1 - e^{-x})$"
)
_COMMON: dict[str, Any] = {
    "family": "online",
    "claim": "probability",
    "expected": "consistent",
    "assumptions": (BOUNDED, INDEPENDENT),
    "delta": DELTA,
    "accepts": "finite-horizon",
}

THEOREMS = (
    Theorem(
        key="rmax.optimism",
        title="R-max underestimates the optimal value by its allowance at most",
        statement=_SETTING + r"With probability at least $1 - \delta$, $V_{k,h}(s) + w \frac{(H-h)(H-h+1)}{2} "
        r"\sqrt{\ell / (2m)} \ge V^*_h(s)$ for all episodes $k$, layers $h$ and states $s$ at once.",
        source="Brafman, Tennenholtz 2002, Lemma 4 (average reward); derived here, docs/theory/rmax.md#optimism",
        protocol=_optimism,
        controls=(
            Control(
                "one visit",
                "A pair that is known after one visit may have been unlucky.",
                partial(_optimism, learner=partial(settings_for, visits=1), episodes=20_000),
                model=unlucky_bandit,
                runs=100,
            ),
        ),
        proof=Proof("written", "docs/theory/rmax.md#optimism"),
        default_runs=100,
        default_model=unlucky_bandit,
        **_COMMON,
    ),
    Theorem(
        key="rmax.mistakes",
        title="R-max plays a policy that is worse than epsilon only boundedly often",
        statement=_SETTING + r"With probability at least $1 - \delta$ the number of episodes $k = 1, 2, \dots$ with "
        r"$\mu(V^*_0 - V^{\pi_k}_0) > \epsilon$ is at most $3 w E / \epsilon$, " + _ESCAPES + ".",
        source="Brafman, Tennenholtz 2002; Kakade 2003, Chapter 8 (rate); derived here, docs/theory/rmax.md#mistakes",
        protocol=_mistakes,
        bound=rmax_mistake_bound,
        controls=(
            Control(
                "uniform learner",
                "A learner that does not learn makes mistakes for ever.",
                partial(_mistakes, learner=Uniform(), episodes=200_000),
                model=unlucky_bandit,
                runs=10,
            ),
            Control(
                "one visit",
                "Known after one visit: one run in four settles on the wrong arm for ever.",
                partial(_mistakes, learner=partial(settings_for, visits=1), episodes=25_000),
                model=unlucky_bandit,
                runs=300,
            ),
        ),
        proof=Proof("written", "docs/theory/rmax.md#mistakes"),
        default_runs=100,
        default_model=unlucky_bandit,
        **_COMMON,
    ),
    Theorem(
        key="rmax.regret",
        title="The regret of R-max, with every constant",
        statement=_SETTING + r"With probability at least $1 - \delta$, for all numbers of episodes $K$ at once, "
        r"$\sum_{k \le K} \mu(V^*_0 - V^{\pi_k}_0) \le \frac{2}{3} K \epsilon + w E$, " + _ESCAPES + r". The best "
        r"$\epsilon$ for a $K$ known in advance gives $K^{2/3}$, up to constants.",
        source="derived here, docs/theory/rmax.md#regret",
        protocol=_regret,
        bound=rmax_regret_bound,
        controls=(
            Control(
                "uniform learner",
                "A learner that does not learn has linear regret and must cross the bound.",
                partial(_regret, learner=Uniform(), episodes=150_000),
                model=unlucky_bandit,
                runs=10,
            ),
            Control(
                "one visit",
                "Known after one visit: one run in four settles on the wrong arm for ever.",
                partial(_regret, learner=partial(regret_settings, visits=1), episodes=30_000),
                model=unlucky_bandit,
                runs=300,
            ),
        ),
        proof=Proof("written", "docs/theory/rmax.md#regret"),
        default_runs=100,
        default_model=unlucky_bandit,
        **_COMMON,
    ),
)
