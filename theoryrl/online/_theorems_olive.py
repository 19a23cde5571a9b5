"""Theorems about OLIVE: what is run, what is measured, which broken variants must be refuted."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import numpy as np

from theoryrl.classes.builders import realizable_class
from theoryrl.classes.values import FiniteClass
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.sampling import sampler
from theoryrl.online._protocols import BOUNDED, DELTA, INDEPENDENT, unlucky_bandit, value_rounding
from theoryrl.online.bounds.olive import olive_episode_bound
from theoryrl.online.driver import judge, play, tally
from theoryrl.online.olive import OLIVE, RUNNING, STATUS, STOPPED
from theoryrl.online.verbs import Problem
from theoryrl.theory.theorem import Assumption, Control, ProbabilityObservations, Progress, Proof, Theorem

# epsilon is chosen so that a run is over after so many episodes at the latest; most stop far earlier.
EPISODES = 1_000_000
# Most episodes between two looks at whether a run has stopped; the first look is after as many as FIRST.
FIRST, CHUNK = 100, 20_000


def class_of(model: FiniteHorizonMDP) -> FiniteClass:
    """Q* and three more: for the bandit optimistic, pessimistic and both wrong, for other models random ones."""
    if model == unlucky_bandit():
        return FiniteClass(np.array([[0.25, 0.5], [0.6, 0.5], [0.25, 0.2], [0.2, 0.55]]).reshape(4, 1, 1, 2))
    return realizable_class(model, 3, kind="random", rng=0)


def truth_and_doubt(model: FiniteHorizonMDP) -> FiniteClass:
    """For `unlucky_bandit`: the truth, and a member that thinks little of the uncertain arm."""
    return FiniteClass(np.array([[0.25, 0.5], [0.25, 0.2]]).reshape(2, 1, 1, 2))


def without_truth(model: FiniteHorizonMDP) -> FiniteClass:
    """For `unlucky_bandit`: the same without the truth."""
    return FiniteClass(np.array([[0.6, 0.5], [0.25, 0.2]]).reshape(2, 1, 1, 2))


def epsilon_for(model: FiniteHorizonMDP, learner: Callable[[float], OLIVE], problem: Problem) -> float:
    """The largest possible loss times the last power of 0.8 that keeps the run within EPISODES (at most 1).

    Where rewards cannot differ nothing can be lost, and any number will do.
    """
    largest = model.horizon * (model.reward_range[1] - model.reward_range[0])
    if largest == 0:
        return float(model.horizon)
    for power in count():
        if learner(largest * 0.8 ** (power + 1)).schedule(problem).episodes > EPISODES:
            return float(largest * 0.8**power)
    raise AssertionError("the number of episodes grows without bound")


def pac_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    variant: str = "q",
    classes: Callable[[FiniteHorizonMDP], FiniteClass] = class_of,
    scale: float = 1.0,
) -> ProbabilityObservations:
    """The exact loss of the answer against epsilon; a run that has not stopped in time has lost without end."""
    low, high = model.reward_range
    problem = Problem(model.n_states, model.n_actions, model.horizon, low, high, model.stationary, model.action_mask)

    def settings(epsilon: float) -> OLIVE:
        return OLIVE(classes(model), epsilon, DELTA, variant=variant)  # type: ignore[arg-type]

    epsilon = epsilon_for(model, settings, problem)
    limit = settings(epsilon).schedule(problem).episodes
    learner = OLIVE(classes(model), epsilon, DELTA, variant=variant, scale=scale)  # type: ignore[arg-type]
    truth, tables, none = judge(model), sampler(model), np.zeros(0, np.int64)

    def one(stream: np.random.SeedSequence) -> tuple[float, int]:
        environment, own = (np.random.Generator(np.random.PCG64(child)) for child in stream.spawn(2))
        state, record = learner.init(problem), tally(0, truth)
        played, step = 0, FIRST
        while played < limit and state.clock[STATUS] == RUNNING:
            last, step = min(played + step, limit), min(2 * step, CHUNK)
            play(state, truth, tables, record, none, played, last, False, environment, own)
            played = last
        if state.clock[STATUS] == RUNNING:  # the last phase may have ended with the last episode
            play(state, truth, tables, record, none, played, played + 1, False, environment, own)
        return float(record.running[1]) if state.clock[STATUS] == STOPPED else np.inf, int(state.clock[-1])

    losses, lengths = [], []
    with ThreadPoolExecutor(min(runs, jobs or os.cpu_count() or 1)) as pool:
        for done, (loss, length) in enumerate(pool.map(one, rng.spawn(runs)), 1):
            losses.append(loss)
            lengths.append(length)
            if progress is not None:
                progress(done, runs, f"OLIVE on {model.name or 'the model'}")
    largest = model.horizon * (model.reward_range[1] - model.reward_range[0])
    remark = "epsilon is as large as the largest loss: only stopping is checked" if epsilon >= largest else ""
    return ProbabilityObservations(
        np.array(losses),
        epsilon + 2 * value_rounding(model),
        series={"episodes": np.array(lengths), "limit": np.array([limit])},
        remark=remark,
    )


REALIZABLE = Assumption("realizable", r"$Q^* \in F$; the protocol builds such a class from the model.")
RANK = Assumption(
    "Bellman rank",
    r"The matrix $\mathcal E_h(\pi_f, g)$, $f, g \in F$, has rank at most $M$ at every layer; the protocol takes the "
    r"number of allowed pairs, or of states, which every model obeys.",
)

_SETTING = (
    r"Let an MDP with layers $h = 0, \dots, H-1$ and initial distribution $\mu$ have rewards in $[0, 1]$ (in units of "
    r"their range) and let $F$ be a finite list of action-value functions $g = (g_0, \dots, g_{H-1})$, $V_g = \max_a "
    r"g$, $\pi_g$ greedy for $g$, that contains $Q^*$. OLIVE chooses the surviving $f$ with the largest mean of "
    r"$V_f(s_0)$ over $n_0$ episodes, estimates for every layer the mean of $f_h(s, a) - r - V_f(s')$ under $\pi_f$ "
    r"in $n_1$ episodes, stops with the answer $\pi_f$ if they add up to at most $\tfrac34 \epsilon$, and else drops, "
    r"with $n_2$ episodes at the layer $h$ with the largest mean, every $g$ whose estimate of $\mathcal E_h(\pi_f, "
    r"g)$ exceeds $\phi = 5 \epsilon / (48 H \sqrt M)$ in absolute value. "
)
_CLAIM = (
    r"With probability at least $1 - \delta$ it stops after at most $T - 1$ eliminations, $T = 1 + H \lfloor M \log(M "
    r"m / (2 \phi)) / (\log 3 - \tfrac12) \rfloor$, hence within $n_0 + T n_1 + (T - 1) n_2$ episodes, and $\mu(V^*_0 "
    r"- V^{\pi_f}_0) \le \epsilon$, where $|g_h(s, a) - r - V_g(s')| \le m$, $w$ is the length of the range of that "
    r"number, $R$ the span of $V_{g_0}$, $n_0 \ge 128 R^2 \log(3|F|/\delta) / \epsilon^2$, $n_1 \ge 32 H^2 w^2 "
    r"\log(6HT/\delta) / \epsilon^2$ and "
)


def _theorem(key: str, variant: str, title: str, statement: str, source: str) -> Theorem:
    protocol = partial(pac_protocol, variant=variant)
    return Theorem(
        key=key,
        family="online",
        title=title,
        statement=_SETTING + statement,
        source=source,
        claim="probability",
        protocol=protocol,
        bound=olive_episode_bound,
        controls=(
            Control(
                "a millionth of the episodes",
                "With one episode to a phase the truth is dropped for an unlucky reward.",
                partial(protocol, classes=truth_and_doubt, scale=1e-6),
                model=unlucky_bandit,
                runs=500,
            ),
            Control(
                "not realizable",
                "Without Q* in the class the search ends with a consistent member that knows only the sure arm.",
                partial(protocol, classes=without_truth),
                model=unlucky_bandit,
                runs=10,
            ),
        ),
        proof=Proof("written", "docs/theory/olive.md#olive-pac"),
        expected="consistent",
        assumptions=(BOUNDED, INDEPENDENT, REALIZABLE, RANK),
        delta=DELTA,
        default_runs=100,
        default_model=unlucky_bandit,
        accepts="finite-horizon",
    )


THEOREMS = (
    _theorem(
        "olive.pac",
        "q",
        "OLIVE finds a near-optimal policy in as many episodes as the Bellman rank asks for",
        r"Here $\mathcal E_h(\pi, g) = E_\pi[g_h(s_h, a_h) - r_h - V_g(s_{h+1})]$. "
        + _CLAIM
        + r"$n_2 \ge w^2 \log(6|F|T/\delta) / (2\phi^2)$.",
        "Jiang et al. 2017, Theorem 1, and Jin, Liu, Miryoosefi 2021, section 5 (rates); constants derived here, "
        "docs/theory/olive.md#olive-pac",
    ),
    _theorem(
        "olive.pac-v",
        "v",
        "OLIVE with importance weights, as published in 2017",
        r"Here $\mathcal E_h(\pi, g)$ is the mean of $g_h(s_h, a) - r_h - V_g(s_{h+1})$ when $\pi$ leads to $s_h$ and "
        r"$a = \pi_g(s_h)$; it is estimated with uniform actions at layer $h$ and the weight $k 1\{a = \pi_g(s_h)\}$, "
        r"$k \le A$ "
        r"the number of allowed actions. " + _CLAIM + r"$n_2 \ge \log(6|F|T/\delta) (\sqrt{2A} m + "
        r"\sqrt{2Am^2 + 4(A+1)m\phi/3})^2 / (4\phi^2)$.",
        "Jiang et al. 2017, Theorem 1 (rate); constants derived here, docs/theory/olive.md#olive-pac",
    ),
)
