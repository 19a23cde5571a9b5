"""Theorems about GOLF: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.builders import complete_class
from theoryrl.classes.values import FiniteClass, ProductClass
from theoryrl.complexity.coverability import coverability
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online._protocols import (
    BOUNDED,
    DELTA,
    INDEPENDENT,
    episodes_for,
    optimism_protocol,
    regret_protocol,
    small_river,
    unlucky_bandit,
)
from theoryrl.online.bounds.golf import golf_regret_bound
from theoryrl.online.golf import GOLF
from theoryrl.online.run import run
from theoryrl.online.uniform import Uniform
from theoryrl.online.verbs import Problem
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

DISTRACTORS = 2


def class_of(model: FiniteHorizonMDP) -> ProductClass:
    """A product class that is complete for the model, two random distractors added per layer; member 0 is Q*."""
    return complete_class(model, DISTRACTORS, rng=0)


def two_guesses(model: FiniteHorizonMDP) -> FiniteClass:
    """For `unlucky_bandit`: the truth, and a member that thinks little of the uncertain arm."""
    return FiniteClass(np.array([[[[0.25, 0.5]]], [[[0.25, 0.2]]]]))


def too_high(model: FiniteHorizonMDP) -> FiniteClass:
    """For `unlucky_bandit`: a member that stands where Q* should and errs by 0.2, and a better one."""
    return FiniteClass(np.array([[[[0.25, 0.7]]], [[[0.25, 0.45]]]]))


def detour() -> FiniteHorizonMDP:
    """Two steps: a sure end worth 0.3, or a second choice between 0.8 and 0.1; states start, choice, end."""
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 2] = transition[0, 1, 1] = 1.0
    transition[1:, :, 2] = 1.0
    reward = np.array([[0.3, 0.0], [0.8, 0.1], [0.0, 0.0]])
    return FiniteHorizonMDP(transition, reward, horizon=2, reward_law="bernoulli", name="detour")


def never_removed(model: FiniteHorizonMDP) -> FiniteClass:
    """For `detour`: Q* and a member that errs where no member of the class can tell.

    Its first layer promises a millionth more than Q* for the detour, its second plays the bad choice there: the backup
    of its second layer (0.1) is not in the class, and both first layers fit the data equally badly.
    """
    truth = np.array([[[0.3, 0.8], [0.8, 0.1], [0, 0]], [[0.3, 0.0], [0.8, 0.1], [0, 0]]])
    false = np.array([[[0.3, 0.8 + 1e-6], [0.8, 0.1], [0, 0]], [[0.3, 0.0], [0.0, 0.1], [0, 0]]])
    return FiniteClass(np.stack([truth, false]))


@dataclass(frozen=True)
class Unstopped:
    """A learner whose faults and requirements `run` does not see: an empty set leaves it with its last policy.

    The theorems hold with probability 1 - delta, and what happens otherwise must be seen, not raised.
    """

    settings: GOLF

    @property
    def provable(self) -> bool:
        """As the learner says."""
        return self.settings.provable

    def init(self, problem: Problem) -> Any:
        """As the learner does."""
        return self.settings.init(problem)


Classes = Callable[[FiniteHorizonMDP], FiniteClass | ProductClass]


def learner_for(
    model: FiniteHorizonMDP, episodes: int, classes: Classes = class_of, scale: float = 1.0, **settings: Any
) -> Unstopped:
    """GOLF with the class that `classes` gives the model."""
    return Unstopped(GOLF(classes(model), DELTA, scale=scale, **settings))


def bound_on(model: FiniteHorizonMDP, episodes: NDArray[np.int64], classes: Classes = class_of) -> NDArray[np.float64]:
    """The regret bound on this model with that class and the model's coverability, by a hair more than it comes out."""
    return golf_regret_bound(
        episodes,
        cls=classes(model),
        delta=DELTA,
        reward_range=model.reward_range,
        coverability=coverability(model) * (1 + 1e-9),
        single_start=int((model.initial > 0).sum()) == 1,
        action_mask=model.action_mask,
    )


def confidence_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    classes: Classes = class_of,
    scale: float = 1.0,
    episodes: int | None = None,
) -> ProbabilityObservations:
    """The largest excess of member 0 of every layer over the level, over all episodes and layers; above 1 it fails.

    All columns are tested before every episode. A set found empty ends the tests, and counts as a failure.
    """
    played = episodes or episodes_for(model, runs)
    learner = learner_for(model, played, classes, scale, test="full")
    result = run(learner, model, played, runs, rng, jobs=jobs, progress=progress, keep_states=True)
    worst = []
    for state in result.states:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(state.peak[:, 0, 0] > 0, state.peak[:, 0, 0] / state.level, 0.0)
        worst.append(np.inf if state.empty[0] >= 0 else float(ratio.max()))
    return ProbabilityObservations(np.array(worst), 1.0)


# All columns are tested, so that what is looked at is the set of the statement and not the larger one of lazy tests.
_optimism = partial(optimism_protocol, learner=partial(learner_for, test="full"))
_regret = partial(regret_protocol, learner=learner_for, bound=bound_on)

REALIZABLE = Assumption("realizable", r"$Q^*_h \in F_h$ for all $h$; the protocol builds such a class from the model.")
COMPLETE = Assumption(
    "complete", r"$T_h f_{h+1} \in F_h$ for all $f_{h+1} \in F_{h+1}$; the protocol builds such a class from the model."
)

_SETTING = (
    r"Let an MDP with layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards in $[l, u]$, and let $F "
    r"= F_0 \times \dots \times F_{H-1}$ be a finite product class of functions of $(s, a)$, $V_f(s) = \max_a f(s, "
    r"a)$, $F_H = \{0\}$; $(T_h f)(s, a)$ is the mean of $r + V_f(s')$ at layer $h$ and $Q^*_h = T_h Q^*_{h+1}$, "
    r"$V^*_h = V_{Q^*_h}$. With $L_h(g, f)$ the sum of $(g(s, a) - r - V_f(s'))^2$ over the transitions $(s, a, r, "
    r"s')$ of layer $h$ in the episodes before $t$, the confidence set $F^t$ holds the $f$ with $L_h(f_h, f_{h+1}) - "
    r"\min_{g \in F_h} L_h(g, f_{h+1}) \le \beta_h$ for all $h$, and held them in all earlier episodes; $\beta_h = "
    r"\tfrac12 b_h^2 \log(3 \sum_h |F_h| / \delta)$, where $r + V_f(s')$ lies in an interval of length $b_h$ for all "
    r"$f \in F_{h+1}$, and $\delta \in (0, 1)$. "
)

THEOREMS = (
    Theorem(
        key="golf.confidence-set",
        family="online",
        title="The optimal value stays in GOLF's confidence set",
        statement=_SETTING
        + r"If $Q^* \in F$, then with probability at least $1 - \delta$, $Q^* \in F^t$ for all $t$ at "
        r"once, whatever policies are played.",
        source="Jin, Liu, Miryoosefi 2021, Lemma 40 (rate); level derived here, docs/theory/golf.md#golf-confidence",
        claim="probability",
        protocol=confidence_protocol,
        controls=(
            Control(
                "a fiftieth of the level",
                "A level below the noise expels Q* after a few unlucky rewards.",
                partial(confidence_protocol, classes=two_guesses, scale=0.02, episodes=200),
                model=unlucky_bandit,
                runs=200,
            ),
            Control(
                "not realizable",
                "A member that stands where Q* should and is 0.2 off is expelled, as it should be.",
                partial(confidence_protocol, classes=too_high, episodes=2000),
                model=unlucky_bandit,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/golf.md#golf-confidence"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT, REALIZABLE),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
    Theorem(
        key="golf.optimism",
        family="online",
        title="GOLF's confidence set bounds the optimal value from above",
        statement=_SETTING
        + r"If $Q^* \in F$, then with probability at least $1 - \delta$, for all $t$, $h$ and $s$ at "
        r"once, $V^*_h(s) \le \max_{f \in F^t} V_{f_h}(s)$.",
        source="Jin, Liu, Miryoosefi 2021, section 4; constants derived here, docs/theory/golf.md#golf-optimism",
        claim="probability",
        protocol=_optimism,
        controls=(
            Control(
                "a fiftieth of the level",
                "Once Q* is expelled, the member that is left thinks too little of the better arm.",
                partial(
                    _optimism, learner=partial(learner_for, classes=two_guesses, scale=0.02, test="full"), episodes=200
                ),
                model=unlucky_bandit,
                runs=200,
            ),
            Control(
                "not realizable",
                "A class without Q* ends up with a member below it.",
                partial(_optimism, learner=partial(learner_for, classes=too_high, test="full"), episodes=2000),
                model=unlucky_bandit,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/golf.md#golf-optimism"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT, REALIZABLE),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
    Theorem(
        key="golf.regret",
        family="online",
        title="The regret of GOLF under coverability, with every constant",
        statement=_SETTING
        + r"GOLF plays $\pi_t$, greedy for the $f^t \in F^t$ with the largest mean of $V_{f_0}$ over the "
        r"start states of the episodes before. If $Q^* \in F$ and $T_h f \in F_h$ for all $f \in F_{h+1}$, then with "
        r"probability at least $1 - \delta$, for all $K$ at once, in units of $u - l$, $\sum_{t \le K} \mu(V^*_0 - "
        r"V^{\pi_t}_0) \le \sum_h \min\{K D_h, \sqrt{K (E_h + D_h^2) \min\{K, C_h (1 + \log^+(K / C_h))\}}\} + "
        r"R\,G(K)$, where $|f_h - T_h f_{h+1}| \le D_h$, $E_h = (\beta_h + \max(b_h, D_h)^2 \log(3P/\delta)) / (1 - "
        r"e^{-1/2})$, $P = \sum_h |F_h| |F_{h+1}|$, $C_h$ is the coverability of layer $h$ (at most $SA$), $R$ the "
        r"span of $V_{f_0}$ over $F_0$, and $G(K) = 1 + \sum_{n=1}^{K-1} \min\{1, 2 \sqrt{\log(3 |F_0| n (n+1) / "
        r"\delta) / (2n)}\}$, or $G = 1$ for a single start state.",
        source="Jin, Liu, Miryoosefi 2021 (algorithm); Xie et al. 2023, Theorem 1 (rate); constants derived here, "
        "docs/theory/golf.md#golf-regret",
        claim="probability",
        protocol=_regret,
        bound=golf_regret_bound,
        controls=(
            Control(
                "not complete",
                "Q* is in the class, but a false member errs where no member can tell, and is never removed.",
                partial(
                    _regret,
                    learner=partial(learner_for, classes=never_removed),
                    bound=partial(bound_on, classes=never_removed),
                    episodes=20_000,
                ),
                model=detour,
                runs=10,
            ),
            Control(
                "level 0",
                "One unlucky reward in three expels Q*, and the member that is left never tries the better arm again.",
                partial(
                    _regret,
                    learner=partial(learner_for, classes=two_guesses, scale=0.0),
                    bound=partial(bound_on, classes=two_guesses),
                    episodes=20_000,
                ),
                model=unlucky_bandit,
                runs=200,
            ),
            Control(
                "uniform learner",
                "A learner that does not learn has linear regret and must cross the bound.",
                partial(_regret, learner=Uniform(), bound=partial(bound_on, classes=two_guesses), episodes=200_000),
                model=unlucky_bandit,
                runs=10,
            ),
        ),
        proof=Proof("written", "docs/theory/golf.md#golf-regret"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT, REALIZABLE, COMPLETE),
        delta=DELTA,
        default_runs=100,
        default_model=small_river,
        accepts="finite-horizon",
    ),
)
