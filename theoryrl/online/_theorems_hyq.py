"""The theorem about Hy-Q: fresh offline data in every run, then exact regret against the bound."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.builders import complete_class
from theoryrl.classes.values import ProductClass
from theoryrl.mdp.evaluation import occupancy, reachability
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import uniform_policy
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.rounding import U, gamma
from theoryrl.mdp.simulation import rollout
from theoryrl.online._protocols import BOUNDED, DELTA, INDEPENDENT, VACUOUS, value_rounding
from theoryrl.online.bounds.hyq import hyq_regret_bound
from theoryrl.online.hyq import HyQ
from theoryrl.online.run import run
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

OFFLINE, ONLINE = 100_000, 20_000
STEPS = 400_000  # offline rows, and online steps, of one run at most
WORK = 100_000_000  # multiplications of all plans of one run at most


def regret(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    cls: Callable[[FiniteHorizonMDP], ProductClass] = lambda model: complete_class(model, 2, rng=0),
    behaviour: Callable[[FiniteHorizonMDP], Any] = uniform_policy,
    claimed: Callable[[FiniteHorizonMDP], NDArray[np.float64]] | None = None,
) -> ProbabilityObservations:
    """Regret against the bound at the worst checkpoint of each run.

    A control brings its own class and behaviour policy, and claims a concentrability that its data do not have.
    """
    members, policy = cls(model), behaviour(model)
    offline = min(OFFLINE, STEPS // model.horizon)
    per_plan = model.n_states * model.n_actions * (model.n_states * model.horizon + sum(members.sizes))
    online = max(1, min(ONLINE, STEPS // model.horizon, WORK // per_plan))
    ratios = concentrability(model, policy) if claimed is None else claimed(model)
    cover = (reachability(model)[..., np.newaxis] * model.action_mask).sum(axis=(1, 2))
    seen, limits, vacuous = np.empty(runs), np.empty(runs), True
    for index, stream in enumerate(rng.spawn(runs)):
        before, after = stream.spawn(2)
        learner = HyQ(rollout(model, policy, offline, before, jobs=1), members, check=False)
        result = run(learner, model, online, 1, after, jobs=1)
        count = result.checkpoints
        bound = hyq_regret_bound(
            count,
            offline_episodes=offline,
            log_sizes=np.log(members.sizes),
            concentrability=ratios,
            coverability=cover,
            delta=DELTA,
            reward_width=model.reward_range[1] - model.reward_range[0],
        )
        trivial = count * float(model.horizon) * (model.reward_range[1] - model.reward_range[0])
        vacuous &= bool((bound >= trivial).all())
        largest = model.horizon * float(np.abs(model.reward).max())
        rounding = count * (2 * value_rounding(model) + (count + 2) * 2 * U * largest) + gamma(200) * bound
        allowed = bound + rounding + 1e-300
        # argmax stops at a NaN, and a NaN is a failure.
        worst = int(np.argmax(result.regret[0] / allowed))
        seen[index], limits[index] = result.regret[0, worst], allowed[worst]
        if progress is not None:
            progress(index + 1, runs, "runs")
    return ProbabilityObservations(seen, limits, remark=VACUOUS if vacuous else "")


def concentrability(model: FiniteHorizonMDP, policy: Any) -> NDArray[np.float64]:
    """E_nu[(d* / nu)^2] of the optimal policy with the lowest-numbered actions."""
    best, mine = occupancy(model, backward_induction(model).policy), occupancy(model, policy)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(best > 0, best * (best / mine), 0.0).sum(axis=(1, 2)))


def small_model() -> FiniteHorizonMDP:
    """Two states, two actions, two steps, Bernoulli rewards."""
    base = random_mdp(2, 2, 2, np.random.default_rng(3))
    return FiniteHorizonMDP(
        base.transition, base.reward, horizon=2, reward_law="bernoulli", name="random 2 x 2, two steps"
    )


def two_arms() -> FiniteHorizonMDP:
    """One state, two Bernoulli arms of means 1/4 and 3/4."""
    return FiniteHorizonMDP(
        np.ones((1, 2, 1)), np.array([[0.25, 0.75]]), horizon=1, reward_law="bernoulli", name="two arms"
    )


def two_opinions(model: FiniteHorizonMDP) -> ProductClass:
    """For `two_arms`: agreed on the first arm; one member thinks nothing of the second, the other knows it."""
    return ProductClass([np.array([[[0.25, 0.0]], [[0.25, 0.75]]])])


THEOREMS = (
    Theorem(
        key="hyq.regret",
        family="offline",
        title="Hy-Q: offline data that cover one good policy take the place of optimism",
        statement=(
            r"$n$ independent offline trajectories with pairs of law $\nu_h$, rewards in $[l, l + w]$, a finite "
            r"product class $F$ with values of layer $h$ in $[(H - h) l, (H - h)(l + w)]$ and $T_h F_{h+1} \subseteq "
            r"F_h$. With probability at least $1 - \delta$, for all "
            r"$K$ at once, the regret of Hy-Q over $K$ episodes is at most $\sum_h K \sqrt{C^*_h \kappa_h / n} + "
            r"\sqrt{K C_h H_K (\kappa_h + ((H - h) w)^2)}$, where $C^*_h = E_{\nu_h}[(d^*_h / \nu_h)^2]$ of an "
            r"optimal policy, $C_h = \sum_{s, a} \max_\pi d^\pi_h(s, a)$, $H_K = 1 + 1/2 + \dots + 1/K$, $\kappa_h "
            r"= ((H - h) w)^2 \log(|F_h| |F_{h+1}| H K (K + 1) / \delta) / (1 - e^{-1/2})$."
        ),
        source="Song et al. (2023), Theorem 1; coverability and constants derived here",
        claim="probability",
        protocol=regret,
        bound=hyq_regret_bound,
        controls=(
            Control(
                "offline data of another policy",
                "If nobody ever tried the better arm, and the class allows that it is worth nothing, Hy-Q never will.",
                partial(
                    regret,
                    cls=two_opinions,
                    behaviour=lambda model: np.zeros(1, np.int64),
                    claimed=lambda model: np.ones(1),
                ),
                model=two_arms,
                runs=10,
            ),
        ),
        proof=Proof("written", "docs/theory/hyq.md#regret"),
        expected="consistent",
        assumptions=(
            BOUNDED,
            INDEPENDENT,
            Assumption(
                "coverage", "The offline data cover an optimal policy; here they are those of the uniform policy."
            ),
        ),
        delta=DELTA,
        default_runs=100,
        default_model=small_model,
        accepts="finite-horizon",
    ),
)
