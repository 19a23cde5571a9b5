"""Theorems about the online learners: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online.bounds import ucbvi_regret_bound
from theoryrl.online.run import Run, run
from theoryrl.online.ucbvi import UCBVI
from theoryrl.online.uniform import Uniform
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

DELTA = 0.05
# Work that one verification may cost, in backups of a single successor; sets the number of episodes.
BACKUPS = 1e10
EPISODES = (200, 20_000)


def episodes_for(mdp: FiniteHorizonMDP, runs: int) -> int:
    """How many episodes a verification plays: what the work allows, between 200 and 20,000, to two digits."""
    rows = mdp.to_sparse().transition
    per_episode = mdp.horizon * (rows.data.size / rows.n_layers + mdp.n_states * mdp.n_actions)
    allowed = float(np.clip(BACKUPS / (runs * per_episode), *EPISODES))
    digit = 10 ** (int(np.log10(allowed)) - 1)
    return int(allowed // digit * digit)


def most_successors(mdp: FiniteHorizonMDP) -> int:
    """The largest number of states that one allowed pair can lead to."""
    rows = mdp.to_sparse().transition
    positive = np.add.reduceat(np.append(rows.data > 0, False).astype(np.int64), rows.indptr[:-1])
    positive[np.diff(rows.indptr) == 0] = 0
    return int(positive.reshape(-1, mdp.n_states * mdp.n_actions)[:, mdp.action_mask.reshape(-1)].max())


def regret_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any = UCBVI(DELTA),
    episodes: int | None = None,
) -> ProbabilityObservations:
    """Exact regret of `learner` against UCBVI's bound at 60 checkpoints; a run counts at its worst one."""
    played = episodes or episodes_for(model, runs)
    result = run(learner, model, played, runs, rng, jobs=jobs, progress=progress)
    bound, trivial = bounds_on(model, result)
    ratio = result.regret / bound
    # argmax stops at a NaN, and a NaN is a failure.
    worst = np.argmax(ratio, axis=1)
    return ProbabilityObservations(
        result.regret[np.arange(runs), worst],
        bound[worst],
        series={"episodes": result.checkpoints, "regret": result.regret, "bound": bound, "trivial": trivial},
    )


def bounds_on(model: FiniteHorizonMDP, result: Run) -> tuple[np.ndarray, np.ndarray]:
    """UCBVI's bound on this model at the checkpoints of a run, and the trivial one, K H times the reward width."""
    width = model.reward_range[1] - model.reward_range[0]
    bonus = result.learner.bonus if isinstance(result.learner, UCBVI) else "hoeffding"
    bound = ucbvi_regret_bound(
        result.checkpoints,
        n_states=model.n_states,
        n_actions=model.n_actions,
        horizon=model.horizon,
        delta=DELTA,
        reward_width=width,
        stationary=model.stationary,
        n_successors=most_successors(model),
        bonus=bonus,
    )
    return bound, result.checkpoints * float(model.horizon) * width


def optimism_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any = UCBVI(DELTA),
    episodes: int | None = None,
) -> ProbabilityObservations:
    """How far V falls below V* at worst, over all episodes, layers and states of each run; more than rounding fails."""
    played = episodes or episodes_for(model, runs)
    result = run(learner, model, played, runs, rng, jobs=jobs, watch=True, progress=progress)
    scale = model.horizon * max(abs(limit) for limit in model.reward_range)
    # Each of the H backups of either side errs by at most (S + 8) units of rounding of the largest value.
    allowance = 2 * model.horizon * (model.n_states + 8) * np.finfo(float).eps * scale
    return ProbabilityObservations(
        np.where(result.least_margin > 0, 0.0, -result.least_margin),
        allowance,
        series={"episodes": result.checkpoints, "regret": result.regret},
    )


def small_river() -> FiniteHorizonMDP:
    """RiverSwim with three states and four steps: small enough for the regret bound to say something."""
    from theoryrl.envs import make

    return make("riverswim", n_states=3, horizon=4)


def unlucky_bandit() -> FiniteHorizonMDP:
    """One state, one step: a sure 0.25, or uniform on [0, 1], which a learner without bonus may never try again."""
    return FiniteHorizonMDP(
        np.ones((1, 2, 1)),
        np.array([[0.25, 0.5]]),
        horizon=1,
        reward_law="uniform",
        reward_noise=np.array([[0.0, 0.5]]),
        name="bandit with one sure arm",
    )


_INDEPENDENT = Assumption(
    "fresh samples", "Rewards and successors are drawn independently given state, action and layer."
)
_BOUNDED = Assumption("bounded rewards", "Sampled rewards lie in the declared range [low, high].")
_SETTING = (
    r"Let an MDP with $S$ states, $A$ actions and horizon $H$ have rewards in $[l, u]$, and let UCBVI run on it with "
    r"confidence $\delta$ and the bonus $b_h(n) = (u - l)(H - h)\sqrt{\ell_n / (2n)}$, "
    r"$\ell_n = \log(6SAHn(n+1)/\delta)$, $n$ the visits of the pair so far (pooled over layers when the dynamics are "
    r"stationary, per layer otherwise), $h = 0, \dots, H-1$. "
)

THEOREMS = (
    Theorem(
        key="ucbvi.optimism",
        family="online",
        title="UCBVI never underestimates the optimal value",
        statement=_SETTING
        + r"With probability at least $1 - \delta$, in every episode $k$, layer $h$ and state $s$ at once, its value "
        r"$V_{k,h}(s)$ is at least $V^*_h(s)$.",
        source="Azar, Osband, Munos 2017, Lemma 18; constants derived here, docs/theory/ucbvi.md#optimism",
        claim="probability",
        protocol=optimism_protocol,
        controls=(
            Control(
                "no bonus",
                "The plain empirical model underestimates V* as soon as it is unlucky.",
                partial(optimism_protocol, learner=UCBVI(DELTA, scale=0.0), episodes=200),
                model=small_river,
                runs=20,
            ),
            Control(
                "a tenth of the bonus",
                "Scaling the bonus by 0.1, a habit of experiments, gives the guarantee away.",
                partial(optimism_protocol, learner=UCBVI(DELTA, scale=0.1), episodes=1000),
                model=small_river,
                runs=60,
            ),
        ),
        proof=Proof("written", "docs/theory/ucbvi.md#optimism"),
        expected="consistent",
        assumptions=(_BOUNDED, _INDEPENDENT),
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
        r"$\sum_{k \le K} \big(V^*_0 - V^{\pi_k}_0\big) \le (u - l) \Big[ H S A \big(H - 1 + F(KH/(SA))\big) + "
        r"\sqrt{\tfrac{K}{2} \sum_h w_h^2 \log\tfrac{3K(K+1)}{\delta}} \Big]$ under stationary dynamics, where "
        r"$F(N) = \sum_{n < N} \min\{1, 2\sqrt{\ell_n / (2n)} + G(H/2 + 1/3)\iota_n / n\}$, "
        r"$\iota_n = \log(3S^2AHn(n+1)/\delta)$, $w_h = (1 + 1/H)^h (H - h)$ and $G$ is the largest number of "
        r"successors of a pair; with one count per layer the first term is $\sum_h w_h\, SA\, F(K/(SA))$. It is of "
        r"order $H\sqrt{SAT \log T}$ in $T = KH$.",
        source="Azar, Osband, Munos 2017, Theorem 1 (rate); constants derived here, docs/theory/ucbvi.md#regret",
        claim="probability",
        protocol=regret_protocol,
        bound=ucbvi_regret_bound,
        controls=(
            Control(
                "uniform learner",
                "A learner that does not learn has linear regret and must cross the bound.",
                partial(regret_protocol, learner=Uniform(), episodes=100_000),
                model=unlucky_bandit,
                runs=10,
            ),
            Control(
                "no bonus",
                "Without optimism a quarter of the runs settle on the wrong arm for ever.",
                partial(regret_protocol, learner=UCBVI(DELTA, scale=0.0), episodes=50_000),
                model=unlucky_bandit,
                runs=100,
            ),
        ),
        proof=Proof("written", "docs/theory/ucbvi.md#regret"),
        expected="consistent",
        assumptions=(_BOUNDED, _INDEPENDENT),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
)
