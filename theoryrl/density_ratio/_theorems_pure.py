"""Theorems about GLOW when W holds ratios of pairs of policies only, or ratios that are a little wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from theoryrl.classes.values import FiniteClass
from theoryrl.classes.weights import density_ratio
from theoryrl.complexity.coverability import coverability
from theoryrl.density_ratio._instances import two_arms
from theoryrl.density_ratio._protocols import ROOM, class_of, played, single_start, sum_rounding, total_of
from theoryrl.density_ratio.bounds import glow_regret_bound, self_normalised_constants
from theoryrl.density_ratio.glow import GLOW
from theoryrl.density_ratio.members import member_values
from theoryrl.density_ratio.weights import OccupancyRatios, RatioTable, greedy_occupancies, ratio_table
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online._protocols import BOUNDED, DELTA, INDEPENDENT, VACUOUS, episodes_for
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

TRAJECTORIES = 400
ROUNDS = 200
GAP = 0.45
C = 0.25
# The share of a policy's occupancy that wrong ratios give to the mean policy.
WRONG_SHARE = 0.03

Classes = Callable[[FiniteHorizonMDP], FiniteClass]
Ratios = Callable[[FiniteClass, FiniteHorizonMDP, float], OccupancyRatios | RatioTable]


def arms() -> FiniteHorizonMDP:
    """Two Bernoulli arms, the worse one so much worse that a bound for a few hundred rounds says something."""
    return two_arms(GAP)[0]


def members_of(model: FiniteHorizonMDP) -> FiniteClass:
    """Of `arms`: the truth, and a member that prefers the worse arm. Else as in the other theorems."""
    known, cls = two_arms(GAP)
    return cls if model == known else class_of(model)


def without_truth(model: FiniteHorizonMDP) -> FiniteClass:
    """The wrong members alone."""
    return FiniteClass(members_of(model).values[1:])


def no_ratios(cls: FiniteClass, model: FiniteHorizonMDP, total: float) -> RatioTable:
    """Weights that vanish everywhere, in the place of ratios."""
    table = ratio_table(cls, model, total)
    return RatioTable(np.full(table.values.shape, np.inf), table.row)


def wrong_ratios(
    cls: FiniteClass, model: FiniteHorizonMDP, total: float, share: float = WRONG_SHARE
) -> OccupancyRatios:
    """Ratios from occupancies of which a share is moved to their mean over the policies."""
    masses, row = greedy_occupancies(cls, [model], total)
    return OccupancyRatios((1 - share) * masses + share * masses.mean(axis=1, keepdims=True), row)


def vanishing(cls: FiniteClass, model: FiniteHorizonMDP, total: float) -> OccupancyRatios:
    """Ratios from occupancies that are 0: with them nothing is ever refuted."""
    masses, row = greedy_occupancies(cls, [model], total)
    return OccupancyRatios(np.zeros_like(masses), row)


def distance(
    cls: FiniteClass, model: FiniteHorizonMDP, total: float, weights: OccupancyRatios, members: np.ndarray, slope: float
) -> float:
    """sum_t sum_h (1/t) sum_{i < t} E_{d^(i)_h} |w' - w|: clipped ratios of the members played, given and true."""
    true, row = greedy_occupancies(cls, [model], total)
    t = np.arange(1.0, len(members) + 1)[:, np.newaxis, np.newaxis, np.newaxis]
    clipped = []
    for masses in (true[0], weights.masses[0]):
        own = masses[row[members]]
        clipped.append(np.minimum(density_ratio(t * own, np.cumsum(own, axis=0)), slope * t))
    played_before = np.cumsum(true[0][row[members]], axis=0)[:-1]
    return float((played_before / t[1:] * np.abs(clipped[0] - clipped[1])[1:]).sum())


def risk_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    classes: Classes = members_of,
    ratios: Ratios = ratio_table,
    misspecified: bool = False,
) -> ProbabilityObservations:
    """The mean over all rounds of J* - J(pi_t), exact, against the bound on it; K episodes a round.

    `misspecified` adds the price of the distance between the ratios and the true ones, which is computed.
    """
    cls, total = classes(model), total_of(model)
    weights = ratios(cls, model, total)
    most = min(ROUNDS, max(10, 4 * episodes_for(model, runs) // TRAJECTORIES))
    cover = coverability(model, list(np.unique(cls.greedy(model.action_mask), axis=0))) * ROOM
    settings = GLOW(
        cls,
        weights,
        most,
        delta=DELTA,
        trajectories=TRAJECTORIES,
        total_reward=total,
        coverability=cover,
        c=C,
        check=False,
    )
    seen = played(settings, model, runs, rng, jobs=jobs, progress=progress)
    worth = member_values(model, cls, total)
    regret = worth.regret[seen.member].sum(axis=1)
    bound = glow_regret_bound(
        most,
        gamma=settings.slope(),
        coverability=cover,
        n_functions=cls.size,
        delta=DELTA,
        n_policies=weights.n_policies,
        trajectories=TRAJECTORIES,
        c=C,
        known_start=single_start(model),
        total_reward=total,
    )
    limit = np.full(runs, float(bound))
    if misspecified and isinstance(weights, OccupancyRatios):
        extra = [distance(cls, model, total, weights, row, settings.slope()) for row in seen.member]
        price = 2 * self_normalised_constants(C)[0] + 2
        limit = np.minimum(limit + total * price * np.array(extra), most * total)
    exact = float(sum_rounding(model, total, np.array([most]))[0]) * (1 + 1e-9)
    return ProbabilityObservations(
        regret / most,
        (limit + exact) / most,
        series={"rounds": np.array([most])},
        remark=VACUOUS if (limit >= most * total * (1 - 1e-12)).all() else "",
    )


_SETTING = (
    r"Run GLOW for $T$ rounds of $K$ episodes with the self-normalised levels $\alpha_t = c / \gamma_t$, $\beta_t = "
    r"b^2 \gamma_t L_W / (8 c K (t-1))$, $\gamma_t = \gamma t$, on a finite class $F$ whose greedy policies $\Pi_F$ "
    r"number $n_P$, every total reward and member in $[0, 1]$. $L_W = \log\frac{4 H n_P}{\delta}\binom{T + n_P - "
    r"1}{n_P}$ and $L = L_W + \log |F|$; $C_h$ is the coverability of $\Pi_F$ at layer $h$, $H(x)$ the harmonic "
    r"numbers continued, $A = (e-1) c + 2 (e-2)$, $B = c + b^2/(8c) + 2$. "
)

REALIZABLE = Assumption("realizable", r"$Q^* \in F$; the protocol builds such a class from the model.")
RATIOS = Assumption(
    "ratios of pairs", r"$d^\pi_h / d^{\pi'}_h \in W_h$ for all $\pi, \pi' \in \Pi_F$; the protocol computes them."
)

THEOREMS = (
    Theorem(
        key="glow.pure-ratios",
        family="density-ratio",
        title="Ratios of pairs of policies are enough for GLOW to learn a good policy",
        statement=_SETTING
        + r"Test $f$ at round $t$ with $w = 1 / (\frac1t \sum_{i \le t} d^{(i)} / d^{\pi_f})$, $d^{(t)} = "
        r"d^{\pi_f}$, made of ratios $d^\pi / d^{\pi'}$ of pairs. If $Q^* \in F$ and $W$ holds these ratios, then "
        r"with probability at least $1 - \delta$ a policy drawn uniformly from $\pi_1, \dots, \pi_T$ loses on "
        r"average at most $\frac1T \{1 + 2 \sqrt{2 T \log(4 |F| T / \delta) / K} + \sum_h [(A / \gamma + 1) C_h H(T "
        r"/ C_h) + B \gamma T L / K]\}$; the square root is absent for a single start state.",
        source="Amortila et al. 2024, Theorem 3.2 (rate epsilon^-4); constants and the rate epsilon^-2 |W| log T "
        "derived here, docs/theory/density_ratio_structure.md#structure-pairs",
        claim="probability",
        protocol=risk_protocol,
        bound=glow_regret_bound,
        controls=(
            Control(
                "not realizable",
                "Of a class without Q* the wrong member is played to the end.",
                partial(risk_protocol, classes=without_truth),
                model=arms,
                runs=10,
            ),
            Control(
                "no ratios",
                "With weights that vanish nothing is refuted, and the wrong member is played to the end.",
                partial(risk_protocol, ratios=no_ratios),
                model=arms,
                runs=10,
            ),
        ),
        proof=Proof("written", "docs/theory/density_ratio_structure.md#structure-pairs"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT, REALIZABLE, RATIOS),
        delta=DELTA,
        default_runs=100,
        default_model=arms,
        accepts="finite-horizon",
    ),
    Theorem(
        key="glow.misspecification",
        family="density-ratio",
        title="Wrong ratios cost GLOW what they are wrong by, in every round and layer",
        statement=_SETTING
        + r"Test $f$ at round $t$ with any weight $w'$ that is determined by $\pi_f$ and by how often each policy "
        r"was played, and let $\xi_{t,h} = \frac1t \sum_{i < t} \mathbb E_{d^{(i)}_h} |\min(w, \gamma_t) - \min(w', "
        r"\gamma_t)|$ (at most the largest such mean over $\Pi_F$), where $w$ is the true ratio of $f^t$, $d^{(t)}$ "
        r"over $\frac1t \sum_{i \le t} d^{(i)}$. If $Q^* \in F$, then with probability at least $1 - \delta$, "
        r"$\sum_{t \le T} (J^* - J(\pi_t)) \le 1 + 2 \sqrt{2 T \log(4 |F| T / \delta) / K} + \sum_h [(A / \gamma + "
        r"1) C_h H(T / C_h) + B \gamma T L / K] + (2 A + 2) \sum_{t, h} \xi_{t,h}$; the square root is absent for a "
        r"single start state.",
        source="Amortila et al. 2024, Theorem 3.1' (order H T epsilon); constant derived here, "
        "docs/theory/density_ratio_structure.md#structure-wrong-ratios",
        claim="probability",
        protocol=partial(risk_protocol, ratios=wrong_ratios, misspecified=True),
        bound=glow_regret_bound,
        controls=(
            Control(
                "the price left out",
                "With occupancies of 0 nothing is refuted, and the bound for true ratios is crossed.",
                partial(risk_protocol, ratios=vanishing),
                model=arms,
                runs=10,
            ),
            Control(
                "not realizable",
                "Of a class without Q* the wrong member is played to the end.",
                partial(risk_protocol, ratios=wrong_ratios, classes=without_truth, misspecified=True),
                model=arms,
                runs=10,
            ),
        ),
        proof=Proof("written", "docs/theory/density_ratio_structure.md#structure-wrong-ratios"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT, REALIZABLE),
        delta=DELTA,
        default_runs=100,
        default_model=arms,
        accepts="finite-horizon",
    ),
)
