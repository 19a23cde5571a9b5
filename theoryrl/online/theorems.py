"""Theorems about the online learners: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from theoryrl.mdp.certify import outcome_error
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import U, backup_radius, gamma, rounding_of
from theoryrl.online.bounds import SUMMED_VISITS, ucbvi_regret_bound
from theoryrl.online.run import Run, run
from theoryrl.online.ucbvi import UCBVI
from theoryrl.online.uniform import Uniform
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

DELTA = 0.05
VACUOUS = "so few episodes that the bound is still the trivial K H everywhere: nothing could have failed"
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
    """Exact regret of `learner` against UCBVI's bound at 60 checkpoints; a run counts at its worst one.

    Between checkpoints nothing is compared, so a crossing that closes again before the next one goes unseen. The bound
    includes what rounding can add: the trivial K H is attained by learners that know nothing yet.
    """
    played = episodes or episodes_for(model, runs)
    result = run(learner, model, played, runs, rng, jobs=jobs, progress=progress)
    bound, trivial = bounds_on(model, result)
    # K differences of two values, their sum in floats, and a bound that is itself a sum of SUMMED_VISITS terms at most.
    count, largest = result.checkpoints, model.horizon * float(np.abs(model.reward).max())
    rounding = count * (2 * value_rounding(model) + (count + 2) * 2 * U * largest) + gamma(SUMMED_VISITS + 100) * bound
    allowed = bound + rounding + 1e-300
    # argmax stops at a NaN, and a NaN is a failure.
    worst = np.argmax(result.regret / allowed, axis=1)
    return ProbabilityObservations(
        result.regret[np.arange(runs), worst],
        allowed[worst],
        series={"episodes": result.checkpoints, "regret": result.regret, "bound": bound, "trivial": trivial},
        remark=VACUOUS if (bound >= trivial).all() else "",
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
    return ProbabilityObservations(
        np.where(result.least_margin > 0, 0.0, 0.0 - result.least_margin),
        value_rounding(model) + learner_rounding(model, played),
        series={"episodes": result.checkpoints, "regret": result.regret},
    )


def value_rounding(mdp: FiniteHorizonMDP) -> float:
    """How far floats can be from the exact value, in any state and at the start, of V* or of any policy.

    Includes what rows and an initial distribution that are off 1 do, since the exact model has them divided by their
    sums. Each of the H backups adds Lemma 2 of docs/certify.md, and one rounding for the reward in the sum over
    successors and A + 3 for a mean over actions.
    """
    rows, reward = rounding_of(mdp), float(np.abs(mdp.reward).max())
    size = mdp.horizon * reward * (1 + rows.defect + (rows.length + mdp.n_actions + 8) * U) ** mdp.horizon
    means = float(np.broadcast_to(outcome_error(mdp), mdp.reward_layers.shape)[:, mdp.action_mask].max())
    step = backup_radius(mdp, rows, np.array([size])) + (mdp.n_actions + 5) * U * (size + reward) + means
    start = abs(float(mdp.initial.sum()) - 1) + 4 * mdp.n_states * U
    return (mdp.horizon * step + size * start) * (1 + 2.0**-30)


def learner_rounding(mdp: FiniteHorizonMDP, episodes: int) -> float:
    """How far UCBVI's table of values (Hoeffding bonus) can be from what its formulas give on the same data.

    In units of the reward range a backup errs by (S + 1) u H in the mean of the successors' values, (n + 4) u in the
    mean of n <= K H rewards, 20 u 2H in a bonus that matters (beyond 2H the cap H - h decides) and 9 u H in the sums.
    Minima and maxima add nothing. Returning to units of reward adds three more roundings of numbers up to H |limit|.
    """
    low, high = mdp.reward_range
    horizon, width = mdp.horizon, high - low
    backup = (mdp.n_states + 1) * horizon + episodes * horizon + 4 + 49 * horizon
    return U * horizon * (backup * width + 8 * horizon * max(abs(low), abs(high))) * (1 + 2.0**-30)


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
    r"Let an MDP with $S$ states, $A$ actions, layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards "
    r"in $[l, u]$; $V^\pi_h(s)$ is the expected reward of $\pi$ from state $s$ at layer $h$ on, $V^*_h$ its maximum "
    r"over $\pi$. Before episode $k = 1, 2, \dots$ let $n$ be the visits of $(s, a)$ so far (pooled over layers if "
    r"rewards and transitions do not depend on the layer, else at layer $h$), $\hat r$ and $\hat P$ the mean reward "
    r"and the frequencies of the successors seen there. UCBVI computes $V_{k,H} = 0$, $Q_{k,h}(s, a) = "
    r"\min\{Q_{k-1,h}(s, a), (H - h) u, \hat r + \hat P V_{k,h+1} + b_h(n)\}$, which is $(H - h) u$ while $n = 0$, "
    r"$V_{k,h} = \max_a Q_{k,h}$, and plays $\pi_k$, greedy for $Q_k$. The bonus is $b_h(n) = (u - l)(H - "
    r"h)\sqrt{\ell_n / (2n)}$, $\ell_n = \log(6SAHn(n+1)/\delta)$, for a $\delta \in (0, 1)$. "
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
                runs=100,
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
                "Without optimism three runs in ten settle on the wrong arm for ever.",
                partial(regret_protocol, learner=UCBVI(DELTA, scale=0.0), episodes=50_000),
                model=unlucky_bandit,
                runs=200,
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
