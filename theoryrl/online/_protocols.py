"""What theorems about online learners measure: optimism and regret, with the rounding of both accounted for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.certify import outcome_error
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import U, backup_radius, gamma, rounding_of
from theoryrl.online.bounds._common import SUMMED_VISITS
from theoryrl.online.run import run
from theoryrl.theory.theorem import Assumption, ProbabilityObservations, Progress

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
    learner: Any,
    bound: Callable[[FiniteHorizonMDP, NDArray[np.int64]], NDArray[np.float64]],
    episodes: int | None = None,
) -> ProbabilityObservations:
    """Exact regret of `learner` against `bound(model, checkpoints)`; a run counts at its worst checkpoint.

    `learner` holds settings, or is a function of (model, episodes) that returns them. Between its checkpoints nothing
    is compared, so a crossing that closes again before the next one goes unseen. The bound includes what rounding can
    add: the trivial K H is attained by learners that know nothing yet.
    """
    played = episodes or episodes_for(model, runs)
    settings = learner if hasattr(learner, "init") else learner(model, played)
    result = run(settings, model, played, runs, rng, jobs=jobs, progress=progress)
    count = result.checkpoints
    trivial = count * float(model.horizon) * (model.reward_range[1] - model.reward_range[0])
    limit = np.minimum(bound(model, count), trivial)
    # K differences of two values, their sum in floats, and a bound that is itself a sum of SUMMED_VISITS terms at most.
    largest = model.horizon * float(np.abs(model.reward).max())
    rounding = count * (2 * value_rounding(model) + (count + 2) * 2 * U * largest) + gamma(SUMMED_VISITS + 100) * limit
    allowed = limit + rounding + 1e-300
    # argmax stops at a NaN, and a NaN is a failure.
    worst = np.argmax(result.regret / allowed, axis=1)
    return ProbabilityObservations(
        result.regret[np.arange(runs), worst],
        allowed[worst],
        series={"episodes": count, "regret": result.regret, "bound": limit, "trivial": trivial},
        remark=VACUOUS if (limit >= trivial).all() else "",
    )


def optimism_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    learner: Any,
    episodes: int | None = None,
    rounding: Callable[[FiniteHorizonMDP, int], float] | None = None,
) -> ProbabilityObservations:
    """How far V falls below V* at worst, over all episodes, layers and states of each run; more than rounding fails.

    `learner` as in `regret_protocol`; `rounding` of its table of values, by default `learner_rounding`.
    """
    played = episodes or episodes_for(model, runs)
    settings = learner if hasattr(learner, "init") else learner(model, played)
    result = run(settings, model, played, runs, rng, jobs=jobs, watch=True, progress=progress)
    return ProbabilityObservations(
        np.where(result.least_margin > 0, 0.0, 0.0 - result.least_margin),
        value_rounding(model) + (rounding or learner_rounding)(model, played),
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
    """How far the table of values of UCBVI (Hoeffding bonus) or UCRL2 can be from its formulas on the same data.

    Of GOLF it covers the return to units of reward, all that its values go through; of LSVI-UCB the same and the caps:
    what its regression loses is paid for by the proof's own slack (docs/theory/lsvi_ucb.md, "Rounding").

    In units of the reward range a backup errs by (S + 1) u H in the mean of the successors' values (S u H more where
    UCRL2 takes mass away from them, a difference of S terms at most), (n + 4) u in the
    mean of n <= K H rewards, 20 u 2H in a bonus that matters (beyond 2H the cap H - h decides) and 9 u H in the sums.
    Minima and maxima add nothing. Returning to units of reward adds three more roundings of numbers up to H |limit|.
    """
    low, high = mdp.reward_range
    horizon, width = mdp.horizon, high - low
    backup = (2 * mdp.n_states + 1) * horizon + episodes * horizon + 4 + 49 * horizon
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


INDEPENDENT = Assumption(
    "fresh samples", "Rewards and successors are drawn independently given state, action and layer."
)
BOUNDED = Assumption("bounded rewards", "Sampled rewards lie in the declared range [low, high].")
