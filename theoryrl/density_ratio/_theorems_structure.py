"""Theorems on what GLOW does not depend on: the number of observations of a hidden state, and completeness of F."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.builders import decoder_lift, optimal_values
from theoryrl.classes.checks import completeness
from theoryrl.classes.values import FiniteClass
from theoryrl.density_ratio import _protocols as protocols
from theoryrl.density_ratio._coupled import play_hidden, unlifted
from theoryrl.density_ratio._instances import slope_instance
from theoryrl.density_ratio._protocols import played, total_of
from theoryrl.density_ratio.glow import GLOW, GLOWState
from theoryrl.density_ratio.members import member_values
from theoryrl.density_ratio.weights import occupancy_ratios
from theoryrl.envs.block import LiftedMDP, block_mdp, exogenous
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import U
from theoryrl.online._protocols import DELTA, INDEPENDENT, value_rounding
from theoryrl.online.golf import GOLF
from theoryrl.online.run import run
from theoryrl.online.ucbvi import UCBVI
from theoryrl.theory.theorem import Assumption, Control, ExactObservations, Progress, Proof, Theorem

ITERATIONS = 300
GAMMA = 0.03
DISTRACTORS = 3
# A choice that this relative change of beta_t would alter may be rounding's.
DECIDED = 2.0**-20
# The largest table of occupancies of a lift.
ENTRIES = 20_000_000


def class_of(model: FiniteHorizonMDP) -> FiniteClass:
    """Q* and members that promise more and are wrong, as far as the model has some."""
    known, cls = slope_instance()
    return cls if model == known else protocols.class_of(model, DISTRACTORS)


def slope_model() -> FiniteHorizonMDP:
    """The model of `slope_instance`."""
    return slope_instance()[0]


def chosen_by(state: GLOWState) -> NDArray[np.int64]:
    """The member whose policy was played in every iteration: an empty set leaves the last one."""
    place = np.maximum.accumulate(np.where(state.chosen >= 0, np.arange(len(state.chosen)), 0))
    return np.asarray(state.chosen[place])


def lifts_of(model: FiniteHorizonMDP) -> list[tuple[str, LiftedMDP, bool]]:
    """Block MDPs and exogenous noise on top of the model: what is said of it, the lift, and whether it is noise."""
    many = 16 if _fits(model, 16) else 2
    return [
        ("2 observations per state", block_mdp(model, n_observations=2, rng=1), False),
        (f"{many} observations per state", block_mdp(model, n_observations=many, rng=2), False),
        ("exogenous noise of 3 states", exogenous(model, n_noise=3, rng=3), True),
    ]


def _fits(model: FiniteHorizonMDP, size: int) -> bool:
    entries = (DISTRACTORS + 1) * model.horizon * model.n_states * model.n_actions * size
    return entries <= ENTRIES and (model.is_sparse or (model.n_states * size) ** 2 * model.n_actions <= ENTRIES)


def _too_large(model: FiniteHorizonMDP) -> str | None:
    return None if _fits(model, 3) else "its lifts are too large to be played on step by step"


def reads_symbols(cls: FiniteClass, size: int) -> FiniteClass:
    """The wrong members, right wherever the symbol is not 0: no function of the hidden state."""
    values = np.array(cls.values)
    seen = np.arange(cls.n_states) % size > 0
    values[1:, :, seen] = values[0][np.newaxis][:, :, seen]
    return FiniteClass(values)


def _settings(cls: FiniteClass, model: FiniteHorizonMDP, total: float, scale: float = 1.0) -> GLOW:
    return GLOW(
        cls,
        occupancy_ratios(cls, model, total),
        ITERATIONS,
        gamma=GAMMA,
        delta=DELTA,
        log_tests=math.log(cls.size),
        total_reward=total,
        scale=scale,
        check=False,
    )


def hidden_state_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
) -> ExactObservations:
    """GLOW on a model and on lifts of it, hidden trajectories coupled: choices that differ, and both regrets.

    Choices that a change of beta_t by a millionth would alter, and all after them, are left out: sums over a block are
    rounded otherwise than sums of a state. The ratios of a lift are computed from the lift.
    """
    cls, total = class_of(model), total_of(model)
    regret = member_values(model, cls, total).regret
    lifts = []
    for name, lifted, noise in lifts_of(model):
        wide = decoder_lift(cls, lifted.decoder)
        if mutant == "symbols":
            wide = reads_symbols(wide, lifted.weights.shape[1])
        theirs = member_values(lifted.mdp, wide, total).regret
        exact = 2 * (value_rounding(model) + value_rounding(lifted.mdp))
        lifts.append((name, lifted, noise, _settings(wide, lifted.mdp, total), theirs, exact))
    base, observed, bound, allowance, labels = unlifted(model), [], [], [], []
    paths = []
    for i, stream in enumerate(rng.spawn(runs)):
        mine = [
            chosen_by(play_hidden(_settings(cls, model, total, scale), base, ITERATIONS, _again(stream)))
            for scale in (1 - DECIDED, 1.0, 1 + DECIDED)
        ]
        unsure = np.flatnonzero((mine[0] != mine[2]) | (mine[0] != mine[1]))
        until = int(unsure[0]) if unsure.size else ITERATIONS
        sure = mine[1][:until]
        paths.append(np.cumsum(regret[mine[1]]))
        fresh = np.random.SeedSequence(stream.entropy, spawn_key=(*stream.spawn_key, 1))
        for name, lifted, noise, settings, theirs, exact in lifts:
            source = fresh if mutant == "uncoupled" else _again(stream)
            other = chosen_by(play_hidden(settings, lifted, ITERATIONS, source, noise))[:until]
            observed += [float((other != sure).sum()), math.fsum(theirs[other])]
            bound += [0.0, math.fsum(regret[sure])]
            allowance += [0.0, until * exact + U * until * (1.0 + abs(bound[-1]))]
            labels += [f"choices that differ, run {i}, {name}", f"regret, run {i}, {name}"]
        if progress is not None:
            progress(i + 1, runs, "coupled runs")
    return ExactObservations(
        observed,
        bound,
        allowance,
        tuple(labels),
        relation="==",
        series={"episodes": np.arange(1, ITERATIONS + 1), "regret": np.array(paths)},
    )


def _again(stream: np.random.SeedSequence) -> np.random.SeedSequence:
    """The same stream, from which nothing has been spawned yet."""
    return np.random.SeedSequence(stream.entropy, spawn_key=stream.spawn_key, pool_size=stream.pool_size)


def tabular_protocol(
    model: FiniteHorizonMDP, *, rng: np.random.SeedSequence, runs: int, jobs: int | None, progress: Progress | None
) -> ExactObservations:
    """The same of UCBVI, which learns every observation anew."""
    lifted = block_mdp(model, n_observations=4, rng=1).mdp
    seen = [
        run(UCBVI(DELTA), mdp, 4 * ITERATIONS, runs, _again(rng), jobs=jobs, progress=progress).regret[:, -1]
        for mdp in (model, lifted)
    ]
    exact = 4 * ITERATIONS * 2 * (value_rounding(model) + value_rounding(lifted))
    labels = tuple(f"regret of UCBVI, run {i}" for i in range(runs))
    return ExactObservations(seen[1], seen[0], exact, labels, relation="==")


class Detour(NamedTuple):
    """A sure end worth `safe`, or a choice between `good` and `bad`; a member promises `excess` more for the detour."""

    safe: float = 0.3
    good: float = 0.8
    bad: float = 0.1
    excess: float = 1e-6

    def model(self) -> FiniteHorizonMDP:
        """Two steps with Bernoulli rewards; states start, choice, end."""
        transition = np.zeros((3, 2, 3))
        transition[0, 0, 2] = transition[0, 1, 1] = 1.0
        transition[1:, :, 2] = 1.0
        reward = np.array([[self.safe, 0.0], [self.good, self.bad], [0.0, 0.0]])
        return FiniteHorizonMDP(transition, reward, horizon=2, reward_law="bernoulli", name="detour")

    def members(self) -> FiniteClass:
        """Q*, and a member that takes the bad choice and believes that the detour is worth more than the good one."""
        truth = optimal_values(self.model())
        false = truth.copy()
        false[0, 0, 1] += self.excess
        false[1, 1, 0] = 0.0
        return FiniteClass(np.stack([truth, false]))


def random_detour(rng: np.random.Generator) -> Detour:
    """Means at least a half apart, and an excess between a millionth and a ten-thousandth of one."""
    bad, good = rng.uniform(0.0, 0.25), rng.uniform(0.75, 0.99)
    return Detour(rng.uniform(bad, good), good, bad, 1e-6 * 10 ** rng.uniform(0, 2) * 0.1)


def last_round(settings: GLOW, error: float) -> int:
    """The last round at which a weight of one everywhere keeps a member that errs by `error` for certain.

    min(1, gamma_t) error - alpha_t min(1, gamma_t)^2 <= beta_t, which fails from some round on if it ever does.
    """
    for t in range(2, settings.iterations + 1):
        level, alpha, beta = settings.levels(t)
        weight = min(1.0, level)
        if weight * error - alpha * weight**2 > beta + 1e-9:
            return t - 1
    return settings.iterations


def completeness_protocol(
    model: None,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    mutant: str = "",
    iterations: int = 4000,
) -> ExactObservations:
    """GOLF and GLOW on detours: how far F is from complete, GOLF's regret, and GLOW's rounds with the wrong member."""
    observed, bound, allowance, labels = [], [], [], []
    streams = rng.spawn(runs)
    for i, stream in enumerate(streams):
        draw, play = stream.spawn(2)
        case = Detour() if i == 0 else random_detour(np.random.default_rng(draw))
        mdp, cls, gap = case.model(), case.members(), case.good - case.bad
        golf_class = cls
        if mutant == "complete":
            # The image of the wrong member, f_1(start, detour) = bad, becomes the first layer of one more member.
            image = np.array(cls.values[1])
            image[0, 0, 1] = case.bad
            golf_class = FiniteClass(np.concatenate([cls.values, image[np.newaxis]]))
        golf = run(GOLF(golf_class, DELTA, check=False), mdp, iterations, 1, play, jobs=1, checkpoints=[iterations])
        settings = GLOW(
            cls,
            occupancy_ratios(cls, mdp, 1.0),
            iterations,
            coverability=(1.0, 2.0),
            delta=DELTA,
            schedule="paper" if mutant == "paper" else "self_normalised",
            total_reward=1.0,
            initial=mdp.initial,
        )
        fair = GLOW(settings.cls, settings.weights, iterations, coverability=(1.0, 2.0), delta=DELTA)
        seen = played(settings, mdp, 1, play, jobs=1)
        wrong = float((seen.member[0, : seen.emptied[0]] == 1).sum())
        exact = iterations * (2 * value_rounding(mdp) + 2 * U * (iterations + 2))
        # Each line says that the first number is at most the second.
        lines = (
            ("T - 1 times the gap, GOLF's regret", (iterations - 1) * gap, golf.regret[0, 0], exact),
            ("the gap, distance of F from complete", gap, completeness(cls, mdp).violation, 8 * U),
            ("GLOW's rounds with the wrong member", wrong, float(last_round(fair, gap + case.excess)), 0.0),
        )
        for name, left, right, slack in lines:
            observed.append(left)
            bound.append(right)
            allowance.append(slack)
            labels.append(f"{name}, instance {i}")
        if progress is not None:
            progress(i + 1, runs, "detours")
    return ExactObservations(observed, bound, allowance, tuple(labels), models=("detours",))


COUPLED = Assumption(
    "coupled sampling",
    "The lift and the model draw hidden states and rewards from the same uniforms; the protocol does.",
)
DECODED = Assumption("classes of the hidden state", "Members read the hidden state only; the protocol lifts them.")
SIZE = Assumption("size", "Lifts of the model fit in memory.", _too_large)

THEOREMS = (
    Theorem(
        key="glow.state-independence",
        family="density-ratio",
        title="GLOW does not notice how many observations a hidden state has",
        statement=r"Let $M$ be an MDP with states $s$ and let $\tilde M$ have states $x$ with a decoder $\phi$: "
        r"either a block MDP, $\tilde P(x'|x,a) = P(\phi(x')|\phi(x),a)\,q(x'|\phi(x'))$, or the product of $M$ "
        r"with a Markov chain that no action influences; rewards are those of $\phi(x)$. Lift every member, $\tilde "
        r"f_h(x,a) = f_h(\phi(x),a)$, and test each with its own density ratio in $\tilde M$. If both learners see "
        r"the same hidden states and rewards as long as they act alike, GLOW chooses the same member in every round "
        r"on $\tilde M$ as on $M$, and has the same regret, whatever the number of $x$. In particular the law of "
        r"its regret is that on $M$.",
        source="Amortila et al. 2024, Example C.2 (sample complexity); the coupling derived here, "
        "docs/theory/density_ratio_structure.md#structure-hidden-states",
        claim="exact",
        protocol=hidden_state_protocol,
        controls=(
            Control(
                "members that read the symbol",
                "A class that is wrong at one observation of a state and right at the others learns at another pace.",
                partial(hidden_state_protocol, mutant="symbols"),
                runs=2,
            ),
            Control(
                "samples of its own",
                "With other uniforms the laws agree, not the choices.",
                partial(hidden_state_protocol, mutant="uncoupled"),
                runs=6,
            ),
            Control(
                "a learner of tables",
                "UCBVI counts every observation anew, and its regret grows with them.",
                tabular_protocol,
                runs=4,
            ),
        ),
        proof=Proof("written", "docs/theory/density_ratio_structure.md#structure-hidden-states"),
        expected="verified",
        assumptions=(COUPLED, DECODED, SIZE),
        default_runs=4,
        default_model=slope_model,
        accepts="finite-horizon",
    ),
    Theorem(
        key="glow.no-completeness",
        family="density-ratio",
        title="Without completeness GOLF can keep a wrong member for ever, and GLOW does not",
        statement=r"Let $0 \le b < s < g \le 1$, $g - b > c$ and $0 < \varepsilon \le 1 - g$. From the start one "
        r"action ends with a Bernoulli reward of mean $s$, the other, a detour, leads without reward to a choice "
        r"between means $g$ and $b$. $F = \{Q^*, f\}$, where $f$ differs from $Q^*$ in $f_0(\text{detour}) = g + "
        r"\varepsilon$ and $f_1(g) = 0$. Then $F$ is at least $g - b$ away from complete, and whatever is sampled: "
        r"GOLF plays $f$ in every episode from the second to the $T$-th, $T \le \beta_0 / (2 \varepsilon (g - b) + "
        r"\varepsilon^2)$, with regret at least $(T - 1)(g - b)$; GLOW with own ratios and known start chooses $f$ "
        r"in no round from the first one $t$ on with $w (g + \varepsilon - b) - \alpha_t w^2 > \beta_t$, $w = "
        r"\min(1, \gamma_t)$.",
        source="Amortila et al. 2024, section 3.2 and appendix B (that completeness is not needed); instance and "
        "rounds derived here, docs/theory/density_ratio_structure.md#structure-completeness",
        claim="exact",
        protocol=completeness_protocol,
        controls=(
            Control(
                "a complete class",
                "With the backup of the wrong member in the class, GOLF removes it too.",
                partial(completeness_protocol, mutant="complete"),
                runs=1,
            ),
            Control(
                "the paper's constants",
                "With 36 gamma_t L instead of gamma_t L / 2 the set still holds everything after so few rounds.",
                partial(completeness_protocol, mutant="paper"),
                runs=1,
            ),
        ),
        proof=Proof("written", "docs/theory/density_ratio_structure.md#structure-completeness"),
        expected="verified",
        assumptions=(INDEPENDENT,),
        default_runs=12,
    ),
)
