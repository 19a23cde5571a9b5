"""Theorems about GLOW: optimism, Bellman errors along its policies, regret and the number of iterations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.values import FiniteClass
from theoryrl.classes.weights import WeightClass
from theoryrl.density_ratio._instances import arm_class, bandit, disjoint_paths, last_reward
from theoryrl.density_ratio._protocols import (
    Played,
    Setting,
    Unstopped,
    class_of,
    played,
    rounds_for,
    setting_of,
    single_start,
    sum_rounding,
    sums_of,
    true_ratios,
)
from theoryrl.density_ratio.bounds.constants import tuned_constants
from theoryrl.density_ratio.bounds.glow import glow_gamma, glow_iterations, glow_regret_bound
from theoryrl.density_ratio.glow import GLOW
from theoryrl.density_ratio.members import adversarial_order
from theoryrl.density_ratio.potential import potential_bound
from theoryrl.density_ratio.weights import Weights, log_tests
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import gamma
from theoryrl.online._protocols import BOUNDED, INDEPENDENT
from theoryrl.online.run import run
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

PAGE = "docs/theory/glow.md"
# Of the theorems whose bound needs many rounds to say something: few runs decide at a large delta.
DELTA, RUNS = 0.2, 24
# Optimism is cheap to watch: three learners, each with the share delta / 4 of its own delta, .05 together.
OPTIMISM_DELTA, OPTIMISM_RUNS, OPTIMISM_ROUNDS = 0.05, 100, 500
N_LIST = 8
EVERYTHING = 1e6
# On two arms, of which one loses .8, enough for the bound to fall below that.
CONTROL_ROUNDS = 20_000
VACUOUS = "so few rounds that the bound is still the trivial one everywhere: nothing could have failed"


def two_paths() -> FiniteHorizonMDP:
    """Two steps, two paths worth .9 and nothing: small enough for the bounds to say something."""
    return disjoint_paths(2, 0.9, best=0.9)[0]


def two_arms() -> FiniteHorizonMDP:
    """Two Bernoulli arms, .9 and .1."""
    return bandit([0.9, 0.1])


def small_random() -> FiniteHorizonMDP:
    """Three states, two actions, two layers, drawn at random."""
    return last_reward(3, 2, 2, rng=0)


def too_modest(model: FiniteHorizonMDP) -> FiniteClass:
    """For `two_arms`: two members that know the worse arm, or think less of it, and nothing of the better one."""
    return arm_class([[0.0, 0.1], [0.0, 0.05]])


def too_high(model: FiniteHorizonMDP) -> FiniteClass:
    """For `two_arms`: a member that stands where Q* should and overrates the worse arm, and the truth."""
    return arm_class([[0.9, 1.0], [0.9, 0.1]])


def some_weights(model: FiniteHorizonMDP, cls: FiniteClass, total_reward: float) -> WeightClass:
    """A list of weights that have nothing to do with the model: exponential ones, some infinite, and all ones."""
    rng = np.random.default_rng(0)
    shape = (N_LIST, model.horizon, model.n_states, model.n_actions)
    table = rng.exponential(size=shape) * 10.0 ** rng.integers(-1, 3, shape)
    table[rng.random(shape) < 0.1] = np.inf
    table[0] = 1.0
    return WeightClass(table)


def no_weights(model: FiniteHorizonMDP, cls: FiniteClass, total_reward: float) -> WeightClass:
    """A list of the weight 0 alone, which no member can fail."""
    return WeightClass(np.zeros((1, model.horizon, model.n_states, model.n_actions)))


@dataclass(frozen=True)
class Case:
    """What is run: a class, weights, and what is done to the level; all from the model."""

    classes: Callable[[FiniteHorizonMDP], FiniteClass] = class_of
    weights: Callable[[FiniteHorizonMDP, FiniteClass, float], Weights] = true_ratios
    scale: float = 1.0
    delta: float = DELTA

    def setting(self, model: FiniteHorizonMDP) -> Setting:
        """Class and weights on a model."""
        return setting_of(model, self.classes, self.weights)

    def bound_settings(self, model: FiniteHorizonMDP, setting: Setting) -> dict[str, Any]:
        """What `glow_regret_bound` asks for, at the c for which its constant is smallest."""
        tests = partial(_log_tests, setting.weights)
        return {
            "coverability": setting.coverability,
            "n_functions": setting.cls.size,
            "delta": self.delta,
            "log_tests": tests,
            "tuned": True,
            "c": tuned_constants().c,
            "known_start": single_start(model),
            "total_reward": setting.total_reward,
        }

    def learner(self, model: FiniteHorizonMDP, setting: Setting, rounds: int, **changes: Any) -> GLOW:
        """GLOW at the c and the slope that make the regret bound smallest, its ties broken as an adversary would."""
        given = self.bound_settings(model, setting)
        return GLOW(
            setting.cls,
            setting.weights,
            iterations=rounds,
            delta=self.delta,
            total_reward=setting.total_reward,
            scale=self.scale,
            tie_order=adversarial_order(setting.cls, model, setting.total_reward),
            c=given["c"],
            **{"gamma": float(glow_gamma(rounds, **given)), **changes},
        )


def _log_tests(weights: Weights, rounds: Any) -> Any:
    return np.vectorize(lambda t: log_tests(weights, int(t)), otypes=[float])(rounds)


def checkpoints_of(rounds: int) -> NDArray[np.int64]:
    """About sixty rounds, evenly spread on a logarithmic scale, the last among them."""
    return np.unique(np.rint(np.geomspace(1, rounds, 60)).astype(np.int64))


WATCHED = Case(delta=OPTIMISM_DELTA * 4 / 3)
VARIANTS = (("self_normalised", true_ratios), ("self_normalised", some_weights), ("scale_free", some_weights))


def optimism_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    case: Case = WATCHED,
    iterations: int | None = None,
) -> ProbabilityObservations:
    """The share of rounds from the first on at which member 0 failed a test; more than none is a failure.

    Three learners, each of which tests all members in every round: with the ratios of the greedy policies, with a list
    of weights that have nothing to do with the model, and with the same list and the scale-free test. The worst counts.
    """
    rounds = iterations or min(OPTIMISM_ROUNDS, rounds_for(model, runs))
    lost = np.zeros(runs)
    for (schedule, weights), stream in zip(VARIANTS, rng.spawn(len(VARIANTS)), strict=True):
        setting = setting_of(model, case.classes, weights)
        learner = case.learner(model, setting, rounds, schedule=schedule, test="full")
        seen = played(learner, model, runs, stream, jobs, progress)
        lost = np.maximum(lost, share_lost(seen, rounds))
    return ProbabilityObservations(lost, 0.0)


def share_lost(seen: Played, rounds: int) -> NDArray[np.float64]:
    """The share of rounds from the first on at which member 0 was not in the set; of an empty set it is no member."""
    return np.asarray(1 - np.minimum(seen.expelled[:, 0], seen.emptied) / rounds)


def bellman_error_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    case: Case = Case(),
    iterations: int | None = None,
) -> ProbabilityObservations:
    """Cumulative Bellman errors of the members played, along their own policies, against the bound of every layer.

    A run also fails if Q* leaves the set (or the set is empty), or if the regret exceeds the sum of the errors.
    """
    setting, rounds = case.setting(model), iterations or rounds_for(model, runs)
    learner = case.learner(model, setting, rounds, test="full", initial=model.initial)
    seen = played(learner, model, runs, rng, jobs, progress)
    marks = checkpoints_of(rounds)
    sums = sums_of(seen, model, setting, marks)
    rounding = sum_rounding(model, setting.total_reward, marks)
    limit, trivial = layer_bound(setting, learner, marks)
    allowed = limit + rounding[:, np.newaxis]
    # argmax stops at a NaN, and a NaN is a failure.
    ratio = (sums.errors / allowed).reshape(runs, -1)
    worst = np.argmax(ratio, axis=1)
    kept = share_lost(seen, rounds) <= 0
    covered = (sums.regret <= sums.errors.sum(axis=-1) + (1 + model.horizon) * rounding).all(axis=1)
    observed, bound = sums.errors.reshape(runs, -1)[np.arange(runs), worst], allowed.reshape(-1)[worst]
    return ProbabilityObservations(
        observed,
        bound,
        failures=~(observed <= bound) | ~kept | ~covered,
        series={"episodes": marks, "regret": sums.regret, "bound": limit.sum(axis=-1), "trivial": trivial},
        remark=_says(limit.max(axis=-1), trivial, "an error of 1 in every round"),
    )


def _says(limit: NDArray[Any], trivial: NDArray[Any], what: str) -> str:
    """How the bound compares with what is true without a theorem, at the last round."""
    if (limit >= trivial).all():
        return VACUOUS
    return f"at the last round the bound is {limit[-1] / trivial[-1]:.2f} of {what}"


def layer_bound(
    setting: Setting, learner: GLOW, rounds: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(kappa / gamma + 1) C_h H(k / C_h) + B gamma k L after k rounds, (C, H), and k, both in units of reward."""
    used, count, slope = tuned_constants(c=learner.c), rounds.astype(float), learner.slope()
    cls = setting.cls
    level = math.log(4 * cls.horizon * cls.size / learner.delta) + float(log_tests(setting.weights, learner.iterations))
    potential = potential_bound(count[:, np.newaxis], setting.coverability)
    bound = (used.clipped / slope + 1) * potential + used.level * slope * level * count[:, np.newaxis]
    return setting.total_reward * np.minimum(bound, count[:, np.newaxis]), setting.total_reward * count


def regret_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    case: Case = Case(),
    iterations: int | None = None,
) -> ProbabilityObservations:
    """Exact regret against the bound at about sixty rounds; a run counts at its worst."""
    setting, rounds = case.setting(model), iterations or rounds_for(model, runs)
    learner = case.learner(model, setting, rounds)
    result = run(Unstopped(learner), model, rounds, runs, rng, jobs=jobs, progress=progress)
    count = result.checkpoints
    limit = glow_regret_bound(count, gamma=learner.slope(), planned=rounds, **case.bound_settings(model, setting))
    trivial = count * setting.total_reward
    allowed = limit * (1 + gamma(1000)) + sum_rounding(model, setting.total_reward, count)
    worst = np.argmax(result.regret / allowed, axis=1)
    return ProbabilityObservations(
        result.regret[np.arange(runs), worst],
        allowed[worst],
        series={"episodes": count, "regret": result.regret, "bound": limit, "trivial": trivial},
        remark=_says(limit, trivial, "the trivial one"),
    )


def risk_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    case: Case = Case(),
    iterations: int | None = None,
) -> ProbabilityObservations:
    """The loss of a policy drawn from those of T(epsilon) rounds, against epsilon.

    Epsilon is what the bound promises for as many rounds as a verification can play, rounded up to two digits.
    """
    setting, affordable = case.setting(model), iterations or rounds_for(model, runs)
    given, total = case.bound_settings(model, setting), setting.total_reward
    share = math.ceil(100 * float(glow_regret_bound(affordable, **given)) / (affordable * total)) / 100
    epsilon = min(1.0, share) * total
    rounds = glow_iterations(epsilon, **given)
    learner = case.learner(model, setting, rounds)
    result = run(Unstopped(learner), model, rounds, runs, rng, jobs=jobs, progress=progress, checkpoints=[rounds])
    risk = result.regret[:, -1] / rounds
    allowance = sum_rounding(model, total, np.array([rounds]))[0] / rounds
    return ProbabilityObservations(
        risk,
        epsilon + allowance,
        remark=f"epsilon = {epsilon:.4g}, T = {rounds}" + (f": {VACUOUS}" if epsilon >= total else ""),
    )


REALIZABLE = Assumption("realizable", r"$Q^* \in F$; the protocol builds such a class from the model.")
RATIOS = Assumption(
    "mixture ratios",
    r"$d^\pi_h / d^{\pi_{1:t}}_h \in W_h$ for the greedy policies of $F$; the protocol computes them from the model.",
)
TOTAL = Assumption(
    "bounded total reward",
    "An episode collects at most R above the lowest rewards; the protocol computes R from the model.",
)

_SETTING = (
    r"Let an MDP with layers $h = 0, \dots, H-1$ have episodes whose total reward lies in $[0, 1]$ (in units of $R$, "
    r"above the lowest rewards), $F$ a finite class of $f = (f_0, \dots, f_{H-1})$ with values in $[0, 1]$, $f_H = 0$, "
    r"$V_f(s) = \max_a f(s, a)$, $\pi_f$ greedy for $f$, $d^f_h$ its occupancy, and $\Delta_h f = f_h - T_h f_{h+1}$ "
    r"the Bellman residual. $W_h$ is a set of weights $w(s, a) \ge 0$; at round $t$ they are clipped, $\check w = "
    r"\min(w, \gamma t)$. With $n = t - 1$ earlier episodes and $\hat E$ the mean over their transitions, $F^t$ holds "
    r"the $f$ with $\hat E[\check w (f_h(s, a) - r - V_{f_{h+1}}(s'))] \le \alpha_t \hat E[\check w^2] + \beta_t$ for "
    r"all $h$ and $w \in W_h$, where $\alpha_t = c / (\gamma t)$, $\beta_t = \gamma t L_W / (8 c n)$, $L_W = \log(4 H "
    r"N_T / \delta)$, and $N_T$ counts the pairs $(t, w)$ by which a layer can be tested in $T$ rounds; $F^1 = F$. (If "
    r"$W$ is the class of ratios of occupancies, $f$ is tested with that of its own policy alone, against the mean of "
    r"the $t - 1$ played and itself.) "
)
_GLOW = (
    r"GLOW plays $\pi_t$, greedy for the $f^t \in F^t$ with the largest mean of $V_{f_0}$ at the start. $L = L_W + "
    r"\log |F|$; $A = c (e^\sigma - 1)/\sigma + 2 (e^\tau - 1 - \tau)/\tau$ and $B = c/\sigma + 1/(8c) + 2/\tau$ for "
    r"any $\sigma, \tau > 0$; $\kappa = A$ if $A \ge \frac12$, else $1 / (4 (1 - A))$; $C_h = \sum_{s,a} \max_{f \in "
    r"F} d^f_h(s, a)$ is the coverability, and $H(x)$ the harmonic numbers continued to real $x$. If $Q^* \in F$ and "
    r"$W_h$ contains $d^f_h / \frac1t \sum_{i \le t} d^{f^i}_h$ for all $f, f^1, \dots, f^t \in F$ and $t \le T$, "
)


def _controls(protocol: Callable[..., ProbabilityObservations]) -> tuple[Control, ...]:
    """The same protocol with a level that nothing exceeds, without the ratios, and without Q*."""
    return (
        Control(
            "a million times the level",
            "What nothing exceeds keeps the most optimistic member, which is wrong, for ever.",
            partial(protocol, case=Case(scale=EVERYTHING), iterations=CONTROL_ROUNDS),
            model=two_arms,
            runs=12,
        ),
        Control(
            "no ratios",
            "The weight 0 alone refutes nothing, and the most optimistic member stays for ever.",
            partial(protocol, case=Case(weights=no_weights), iterations=CONTROL_ROUNDS),
            model=two_arms,
            runs=12,
        ),
        Control(
            "not realizable",
            "A class that thinks nothing of the better arm never tries it, and is right about the other.",
            partial(protocol, case=Case(classes=too_modest), iterations=CONTROL_ROUNDS),
            model=two_arms,
            runs=12,
        ),
    )


THEOREMS = (
    Theorem(
        key="glow.optimism",
        family="density-ratio",
        title="No clipped weight refutes the optimal value",
        statement=_SETTING
        + r"If $Q^* \in F$, then with probability at least $1 - \delta/4$, $Q^* \in F^t$ for all $t \le T$ at once, "
        r"whatever $W$ is and whatever policies are played; so also if the threshold is, at any $\hat E[\check w^2] = "
        r"P$, $\sqrt{(P + \gamma^2 t^2 / n)(L_W + \frac12 \log(1 + n P / (\gamma t)^2)) / (2 n)}$ instead. (Checked: "
        r"three learners with $\delta = 1/15$ each, all of which keep $Q^*$ with probability at least $0.95$.)",
        source="Amortila et al. 2024, Lemma E.1 (rate); levels derived here, docs/theory/glow.md#glow-optimism",
        claim="probability",
        protocol=optimism_protocol,
        controls=(
            Control(
                "a hundredth of the level",
                "A level below the noise expels Q* after a few unlucky rewards.",
                partial(
                    optimism_protocol,
                    case=Case(scale=0.01, delta=WATCHED.delta),
                    iterations=OPTIMISM_ROUNDS,
                ),
                model=small_random,
                runs=30,
            ),
            Control(
                "not realizable",
                "A member that stands where Q* should and overrates an arm is expelled, as it should be.",
                partial(
                    optimism_protocol,
                    case=Case(classes=too_high, delta=WATCHED.delta),
                    iterations=OPTIMISM_ROUNDS,
                ),
                model=two_arms,
                runs=12,
            ),
        ),
        proof=Proof("written", f"{PAGE}#glow-optimism"),
        expected="consistent",
        assumptions=(BOUNDED, TOTAL, INDEPENDENT, REALIZABLE),
        delta=OPTIMISM_DELTA,
        default_runs=OPTIMISM_RUNS,
        default_model=small_random,
        accepts="finite-horizon",
    ),
    Theorem(
        key="glow.bellman-error",
        family="density-ratio",
        title="The Bellman errors of the members GLOW plays add up to little in every layer",
        statement=_SETTING
        + _GLOW
        + r"then with probability at least $1 - \delta$, for all $k \le T$ and all $h$ at once, $\sum_{t \le k} "
        r"E_{d^{f^t}_h}[\Delta_h f^t] \le (\kappa / \gamma + 1)\, C_h H(k / C_h) + B \gamma k L$; and if the start law "
        r"is known, $\sum_{t \le k} (J^* - J(\pi_t)) \le \sum_h \sum_{t \le k} E_{d^{f^t}_h}[\Delta_h f^t]$.",
        source="Amortila et al. 2024, Lemma E.2 and section E.3 (rate); constants derived here, "
        "docs/theory/glow.md#glow-bellman-error",
        claim="probability",
        protocol=bellman_error_protocol,
        controls=_controls(bellman_error_protocol),
        proof=Proof("written", f"{PAGE}#glow-bellman-error"),
        expected="consistent",
        assumptions=(BOUNDED, TOTAL, INDEPENDENT, REALIZABLE, RATIOS),
        delta=DELTA,
        default_runs=RUNS,
        default_model=two_paths,
        accepts="finite-horizon",
    ),
    Theorem(
        key="glow.regret",
        family="density-ratio",
        title="The regret of GLOW, with every constant",
        statement=_SETTING
        + _GLOW
        + r"then with probability at least $1 - \delta$, for all $k \le T$ at once, $\sum_{t \le k} (J^* - J(\pi_t)) "
        r"\le 1 + 2 \sqrt{2 k \log(4 |F| T / \delta)} + \sum_h \{(\kappa / \gamma + 1)\, C_h H(k / C_h) + B \gamma k "
        r"L\}$, without the root if the start law is known or a single state. At the best $c$, $\sigma$, $\tau$ and "
        r"$\gamma$ the last sum is $3.84 \sqrt{H T L \sum_h C_h H(T / C_h)} + \sum_h C_h H(T / C_h)$ for $k = T$.",
        source="Amortila et al. 2024, Theorem 3.1 (rate); constants derived here, docs/theory/glow.md#glow-regret",
        claim="probability",
        protocol=regret_protocol,
        bound=glow_regret_bound,
        controls=_controls(regret_protocol),
        proof=Proof("written", f"{PAGE}#glow-regret"),
        expected="consistent",
        assumptions=(BOUNDED, TOTAL, INDEPENDENT, REALIZABLE, RATIOS),
        delta=DELTA,
        default_runs=RUNS,
        default_model=two_paths,
        accepts="finite-horizon",
    ),
    Theorem(
        key="glow.sample-complexity",
        family="density-ratio",
        title="How many iterations make a policy of GLOW good enough",
        statement=_SETTING
        + _GLOW
        + r"then after $T(\epsilon)$ rounds, the least $T$ for which the bound of `glow.regret` at its best $\gamma$ "
        r"is at most $\epsilon T$, a policy drawn uniformly from $\pi_1, \dots, \pi_T$ loses at most $\epsilon$ in "
        r"expectation over the draw, with probability at least $1 - \delta$. $T(\epsilon)$ is of order $\epsilon^{-2} "
        r"H \sum_h C_h$ times logarithms.",
        source="Amortila et al. 2024, Theorem 3.1 (rate); constants derived here, "
        "docs/theory/glow.md#glow-sample-complexity",
        claim="probability",
        protocol=risk_protocol,
        bound=glow_iterations,
        controls=_controls(risk_protocol),
        proof=Proof("written", f"{PAGE}#glow-sample-complexity"),
        expected="consistent",
        assumptions=(BOUNDED, TOTAL, INDEPENDENT, REALIZABLE, RATIOS),
        delta=DELTA,
        default_runs=RUNS,
        default_model=two_arms,
        accepts="finite-horizon",
    ),
)
