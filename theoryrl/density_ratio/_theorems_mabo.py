"""Offline oracles are CC-bounded, on data of one policy and on data of policies chosen from the data before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.builders import complete_class, realizable_class
from theoryrl.classes.values import FiniteClass, ProductClass
from theoryrl.classes.weights import WeightClass, density_ratio, occupancies
from theoryrl.complexity.concentrability import clipped_concentrability
from theoryrl.density_ratio import _mabo_kernels as kernels
from theoryrl.density_ratio.mabo_cr import residuals
from theoryrl.density_ratio.oracle_constants import Constants
from theoryrl.density_ratio.oracles import FQI, MABOCR, MLE
from theoryrl.density_ratio.problem import Units, units_of
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import uniform_policy
from theoryrl.mdp.rounding import SAFE
from theoryrl.mdp.simulation import rollout
from theoryrl.offline._theorems_learners import others, small_model, swapped_arms, two_arms
from theoryrl.theory._dp_tools import at_start
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

DELTA = 0.05
ROWS = 400_000  # of one data set at most
BATCHES = 3  # of adaptive data: the behaviour policy, then two chosen ones
GAMMAS = np.geomspace(1e-5, 1.0, 61)
VACUOUS = "too few episodes for the bound to be less than what the worst policy loses: nothing could have failed"

Policies = Sequence[NDArray[Any]]


class Setup(NamedTuple):
    """An oracle in one or several versions, with what is promised of all of them at once."""

    learners: Sequence[Callable[[Dataset], NDArray[np.int64]]]
    constants: Constants
    gammas: NDArray[np.float64]  # every one of them gives a valid bound


# A setup for a model, the laws that the data can have, the policies that are played, and n.
Build = Callable[[FiniteHorizonMDP, NDArray[np.float64], NDArray[np.float64], int], Setup]


def cc_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    build: Build,
    episodes: int = 48_000,
    behaviour: Callable[[FiniteHorizonMDP], Any] = uniform_policy,
    played: Callable[[FiniteHorizonMDP], FiniteClass] | None = None,
    kinds: tuple[str, ...] = ("fixed", "adaptive"),
) -> ProbabilityObservations:
    """What the worst version of an oracle loses against its bound; kinds of data take turns over the runs.

    Adaptive data are three batches: the behaviour policy's, then twice those of the policy whose pairs have shown the
    largest sum of residuals of Q* so far, among the greedy policies of `played`. What has gone wrong is repeated.
    """
    base, units = behaviour(model), units_of(model)
    n = BATCHES * (min(episodes, ROWS // model.horizon) // BATCHES)
    policies = distinct((members_of if played is None else played)(model).greedy(model.action_mask))
    masses = occupancies(model, [base, *policies])
    optimal = backward_induction(model)
    truth = FiniteClass(np.where(model.action_mask, optimal.q, 0.0)[np.newaxis])
    setups = {kind: build(model, laws_of(kind, masses), masses[1:], n) for kind in kinds}
    best, radius = at_start(model)
    best_occupancy = occupancy(model, optimal.policy)
    most = (best - at_start(model, worst_policy(model))[0]) / units.scale
    lost, limit = np.empty(runs), np.empty(runs)
    for run, stream in enumerate(rng.spawn(runs)):
        kind = kinds[run % len(kinds)]
        if kind == "fixed":
            data, law = rollout(model, base, n, stream, jobs=1), masses[0]
        else:
            data, law = chosen_data(model, base, policies, masses, truth, units, n, stream)
        setup, worst = setups[kind], -1.0
        for learn in setup.learners:
            policy = learn(data)
            value, off = at_start(model, policy)
            bound = cc_bound(setup, best_occupancy, occupancy(model, policy), law, n)
            loss = max(0.0, best - value - (radius + off) * SAFE) / units.scale
            if loss / bound > worst:
                worst, lost[run], limit[run] = loss / bound, loss, bound
        if progress is not None:
            progress(run + 1, runs, "data sets")
    return ProbabilityObservations(lost, limit * SAFE, remark="" if (limit < most).all() else VACUOUS)


def cc_bound(setup: Setup, best: NDArray, returned: NDArray, law: NDArray, n: int) -> float:
    """sum_h (a / (gamma n)) (CC_h(pi*) + CC_h(pihat)) + b gamma, for the best of the gammas that are allowed."""
    a, b = setup.constants

    def at(gamma: float) -> float:
        clipped = [clipped_concentrability(d, law, gamma * n).sum() for d in (best, returned)]
        return a / (gamma * n) * float(sum(clipped)) + len(law) * b * gamma

    return min(at(float(gamma)) for gamma in setup.gammas)


def laws_of(kind: str, masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every mean law that data of a kind can have; `masses` are those of the behaviour and of the policies played."""
    if kind == "fixed":
        return masses[:1]
    pairs = combinations_with_replacement(range(1, len(masses)), BATCHES - 1)
    return np.stack([(masses[0] + masses[list(pair)].sum(axis=0)) / BATCHES for pair in pairs])


def chosen_data(
    model: FiniteHorizonMDP,
    base: Any,
    policies: Policies,
    masses: NDArray[np.float64],
    truth: FiniteClass,
    units: Units,
    n: int,
    stream: np.random.SeedSequence,
) -> tuple[Dataset, NDArray[np.float64]]:
    """Three batches of n / 3 trajectories, the later ones where the noise of Q* has been largest; and their law."""
    streams, law = stream.spawn(BATCHES), masses[0]
    data = rollout(model, base, n // BATCHES, streams[0], jobs=1)
    for batch in range(1, BATCHES):
        noise = residuals(data, truth, units=units, action_mask=model.action_mask).sums[..., 0]
        pick = int(np.argmax((masses[1:] * noise).sum(axis=(1, 2, 3))))
        fresh = rollout(model, policies[pick], n // BATCHES, streams[batch], jobs=1)
        data, law = Dataset.concatenate([data, fresh]), law + masses[1 + pick]
    return data, law / BATCHES


def distinct(policies: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The policies (n, H, S) without repetitions."""
    return list(np.unique(policies, axis=0))


def worst_policy(model: FiniteHorizonMDP) -> NDArray[np.int64]:
    """A policy of least value."""
    low, high = model.reward_range
    opposite = model.with_reward(-np.where(model.action_mask, model.reward, 0.0), reward_range=(-high, -low))
    return backward_induction(opposite).policy


def members_of(model: FiniteHorizonMDP) -> FiniteClass:
    """Q*; members that promise V* everywhere and choose badly in some states, and one that does so in all states.

    Random members where there are no bad choices.
    """
    try:
        found = realizable_class(model, 3, kind="bad-policy")
    except ValueError:
        return realizable_class(model, 4, kind="random")
    truth, allowed = found.values[0], model.action_mask
    best = np.where(allowed, truth, -np.inf).argmax(axis=-1)[..., np.newaxis]
    least = np.where(allowed, truth, np.inf).argmin(axis=-1)[..., np.newaxis]
    turned = truth.copy()
    np.put_along_axis(turned, best, np.take_along_axis(truth, least, axis=-1), axis=-1)
    np.put_along_axis(turned, least, np.take_along_axis(truth, best, axis=-1), axis=-1)
    return FiniteClass(np.concatenate([found.values, turned[np.newaxis]]))


# ---- oracles


def mabo_cr_setup(
    model: FiniteHorizonMDP,
    laws: NDArray[np.float64],
    masses: NDArray[np.float64],
    n: int,
    classes: Callable[[FiniteHorizonMDP], FiniteClass] = members_of,
    weighed: slice = slice(None),
    clipped: bool = True,
    gamma: float | None = None,
) -> Setup:
    """MABO.CR in both forms with the ratios of all greedy policies to all laws, ties to the worst policy.

    `weighed` says which policies have their ratios in W; without clipping only the levels of the penalty are kept.
    """
    cls, units = classes(model), units_of(model)
    own = occupancies(model, distinct(cls.greedy(model.action_mask)))
    own = own[np.argsort(-returns(model, own), kind="stable")][weighed]
    weights = WeightClass(density_ratio(own[np.newaxis], laws[:, np.newaxis]).reshape(-1, *laws.shape[1:]))
    values = returns(model, occupancies(model, list(cls.greedy(model.action_mask))))
    settings: dict[str, Any] = {
        "units": units,
        "action_mask": model.action_mask,
        "tie_order": np.argsort(values, kind="stable"),
    }
    # Rewards are scaled by the horizon, so that no residual is larger than 1.
    constants = MABOCR(cls, weights, gamma=1.0, residual=1.0).constants(DELTA)
    best, law = own[:1], laws[:1]
    if gamma is None:  # chosen before the data: for the worst policy under the first law
        bounds = [
            max(cc_bound(Setup((), constants, np.array([g])), best[0], d, law[0], n) for d in own) for g in GAMMAS
        ]
        gamma = float(GAMMAS[int(np.argmin(bounds))])

    def learn(data: Dataset, form: str) -> NDArray[np.int64]:
        if clipped:
            return MABOCR(cls, weights, gamma, form, **settings).choose(data).policy
        found, objective = residuals(data, cls, units=units, action_mask=model.action_mask), np.empty(cls.size)
        scratch = np.empty(cls.size), np.empty(cls.size)
        alpha = 0.25 / (gamma * n)
        kernels.mabo_objective(
            found.sums, found.visits, weights.values, n, np.inf, alpha, form == "max", objective, *scratch
        )
        index = kernels.least_member(objective, settings["tie_order"])
        return cls.greedy(model.action_mask)[index]

    return Setup([partial(learn, form=form) for form in ("max", "sum")], constants, np.array([gamma]))


def returns(model: FiniteHorizonMDP, masses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected total reward of every occupancy in (n, H, S, A)."""
    return np.asarray((masses * np.where(model.action_mask, model.reward_layers, 0.0)).sum(axis=(1, 2, 3)))


def fqi_setup(
    model: FiniteHorizonMDP,
    laws: NDArray[np.float64],
    masses: NDArray[np.float64],
    n: int,
    classes: Callable[[FiniteHorizonMDP], ProductClass] = lambda model: complete_class(model, 2, 0),
) -> Setup:
    """Fitted Q iteration in a complete class; total rewards from any step on are at most what is left of [0, 1]."""
    oracle = FQI(classes(model), noise_width=1.0, action_mask=model.action_mask)
    return Setup([lambda data: oracle.choose(data).policy], oracle.constants(DELTA), GAMMAS)


def mle_setup(
    model: FiniteHorizonMDP,
    laws: NDArray[np.float64],
    masses: NDArray[np.float64],
    n: int,
    models: Sequence[FiniteHorizonMDP] | None = None,
) -> Setup:
    """Maximum likelihood among the truth and models with other transitions."""
    oracle = MLE([model, *others(model, 4)] if models is None else models, noise_width=1.0)
    return Setup([lambda data: oracle.choose(data).policy], oracle.constants(DELTA), GAMMAS)


# ---- models and classes of controls


def wrong_arms(model: FiniteHorizonMDP) -> FiniteClass:
    """For `two_arms`: a single member that has the arms the wrong way round."""
    return FiniteClass(np.array([[[[0.75, 0.25]]]]))


def boast(model: FiniteHorizonMDP) -> FiniteClass:
    """For `two_arms`: the truth, and a member that promises too much of the worse arm alone."""
    return FiniteClass(np.array([[[[0.25, 0.75]]], [[[1.0, 0.75]]]]))


def rare() -> FiniteHorizonMDP:
    """One step; a common state with arms that pay 0.9 and 0.4, and one met a tenth of the time where both pay 0.5."""
    return FiniteHorizonMDP(
        np.tile(np.eye(2)[:, np.newaxis], (1, 2, 1)),
        np.array([[0.9, 0.4], [0.5, 0.5]]),
        horizon=1,
        initial=np.array([0.9, 0.1]),
        name="a common and a rare state",
    )


def rare_boast(model: FiniteHorizonMDP) -> FiniteClass:
    """For `rare`: the truth, and a member that plays the second arm everywhere and promises 0.95 of it."""
    return FiniteClass(np.array([[[[0.9, 0.4], [0.5, 0.5]]], [[[0.9, 0.95], [0.5, 0.51]]]]))


def hardly_tried(model: FiniteHorizonMDP) -> NDArray[np.float64]:
    """For `rare`: both arms of the common state, and the second one of the rare state once in four thousand times."""
    return np.array([[0.5, 0.5], [1 - 2.5e-4, 2.5e-4]])


COMMON: dict[str, Any] = {
    "family": "density-ratio",
    "claim": "probability",
    "expected": "consistent",
    "accepts": "finite-horizon",
    "delta": DELTA,
    "default_runs": 90,
    "default_model": small_model,
}
DATA = Assumption(
    "adaptive trajectories",
    "Each trajectory is drawn by a policy that may depend on those before it; the protocol draws them that way, in "
    "every other run from one policy throughout.",
)
REALIZABLE = Assumption("realizable", r"$Q^* \in F$; the protocol builds such a class from the model.")
RATIOS = Assumption(
    "density ratios",
    r"$d^\pi / \mu \in W$ for $\pi^*$ and every greedy policy of $F$, and every $\mu$ that the data can have; the "
    "protocol lists them all.",
)
SETTING = (
    r"In units in which total rewards lie in $[0, 1]$, let $n$ trajectories be drawn by policies that may depend "
    r"on the trajectories before, with mean occupancies $\mu_h$. With probability at least $1 - \delta$, "
)
RISK = (
    r"$J^* - J(\hat\pi) \le \sum_h \{ \frac{a}{\gamma n} (CC_h(\pi^*) + CC_h(\hat\pi)) + b \gamma \}$, where "
    r"$CC_h(\pi) = E_{d^\pi_h} \min\{d^\pi_h / \mu_h, \gamma n\}$, "
)

REWARDS = Assumption(
    "rewards",
    "Rewards do not depend on the successor.",
    lambda model: "outcome rewards fix the transitions of a list" if model.reward_law == "outcome" else None,
)

_mabo = partial(cc_protocol, build=mabo_cr_setup)

THEOREMS = (
    Theorem(
        key="mabo.cc-bounded",
        title="MABO.CR, in both forms, is bounded by clipped concentrability on data of any origin",
        statement=SETTING
        + r"the minimisers of MABO.CR in the layer-max and in the printed form, with $\alpha = c / (\gamma n)$, have "
        + RISK
        + r"$a = \max\{A, R\}$, $b = 2 B L$, $A = (e - 1) c + R (e - 2)$, $B = c + 1 / (8 c) + R$ and $L = \log(5 |F| "
        r"|W| H / \delta)$, if residuals lie in $[-R, 1]$; here $R = 1$.",
        source="Amortila et al. (2024), Theorem F.1; constants, and no factor H^2, derived here",
        protocol=_mabo,
        controls=(
            Control(
                "a class without Q*",
                "All members are wrong, so that the least residual is not small.",
                partial(
                    cc_protocol, build=partial(mabo_cr_setup, classes=wrong_arms), played=wrong_arms, episodes=9000
                ),
                model=two_arms,
                runs=20,
            ),
            Control(
                "a ratio is missing",
                "Without the ratio of a member's own policy nothing contradicts what it promises of it.",
                partial(
                    cc_protocol,
                    build=partial(mabo_cr_setup, classes=boast, weighed=slice(1)),
                    played=boast,
                    episodes=9000,
                ),
                model=two_arms,
                runs=20,
            ),
            Control(
                "no clipping",
                "A ratio that is large where there are few data pays a penalty that hides every other residual.",
                partial(
                    cc_protocol,
                    build=partial(mabo_cr_setup, classes=rare_boast, clipped=False, gamma=3e-4),
                    behaviour=hardly_tried,
                    played=rare_boast,
                    kinds=("fixed",),
                    episodes=200_001,
                ),
                model=rare,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/mabo_cr.md#cc-boundedness-of-mabo-cr"),
        assumptions=(DATA, REALIZABLE, RATIOS),
        **COMMON,
    ),
    Theorem(
        key="fqi.cc-bounded",
        title="Fitted Q iteration is bounded by clipped concentrability, for every level at once",
        statement=SETTING
        + r"fitted Q iteration in a class with $T_h f_{h+1} \in F_h$ has, for all $\gamma > 0$ at once, "
        + RISK
        + r"$a = 2$, $b = \kappa / 4$, $\kappa = \max_h \log(|F_h| |F_{h+1}| H / \delta) / (1 - e^{-1/2})$, if $r + "
        r"\max f_{h+1}$ lies in $[0, 1]$.",
        source="Amortila et al. (2024), Appendix F.3; constants derived here",
        protocol=partial(cc_protocol, build=fqi_setup),
        controls=(
            Control(
                "an incomplete class",
                "The class has the two arms the wrong way round.",
                partial(
                    cc_protocol,
                    build=partial(fqi_setup, classes=lambda model: ProductClass([wrong_arms(model).values[:, 0]])),
                    played=wrong_arms,
                    episodes=9000,
                ),
                model=two_arms,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/mabo_cr.md#fitted-q-iteration"),
        assumptions=(DATA, Assumption("complete", r"$T_h f_{h+1} \in F_h$; the protocol builds such a class.")),
        **COMMON,
    ),
    Theorem(
        key="mle.cc-bounded",
        title="Maximum likelihood is bounded by clipped concentrability, for every level at once",
        statement=SETTING
        + r"the plan of the most likely layers among $|M|$ models has, for all $\gamma > 0$ at once, "
        + RISK
        + r"$a = 2$, $b = \kappa / 4$, $\kappa = 2 \log(|M| H / \delta)$, if $r + V(s')$ lies in $[0, 1]$ for the "
        r"optimal values of all combinations of their layers.",
        source="Amortila et al. (2024), Appendix F.5; constants derived here",
        protocol=partial(cc_protocol, build=mle_setup),
        controls=(
            Control(
                "the truth is not listed",
                "The only model has the two arms the wrong way round.",
                partial(
                    cc_protocol,
                    build=lambda model, laws, masses, n: mle_setup(model, laws, masses, n, [swapped_arms()]),
                    played=wrong_arms,
                    episodes=9000,
                ),
                model=two_arms,
                runs=20,
            ),
        ),
        proof=Proof("written", "docs/theory/mabo_cr.md#maximum-likelihood"),
        assumptions=(DATA, Assumption("listed", "The model is in the list; the protocol puts it there."), REWARDS),
        **COMMON,
    ),
)
