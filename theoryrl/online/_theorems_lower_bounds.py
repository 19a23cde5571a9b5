"""Lower bounds as theorems: honest learners stay above them on a hidden instance, one that is told it does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from theoryrl.envs.lower_bounds import hard_episodic, jao_copies
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.rounding import U
from theoryrl.online._protocols import value_rounding
from theoryrl.online.bounds.lower_bounds import (
    domingues_lower_bound,
    jao_hardest,
    jao_lower_bound,
    largest_tree,
)
from theoryrl.online.fixed_policy import FixedPolicy
from theoryrl.online.run import run
from theoryrl.online.ucbvi import UCBVI
from theoryrl.online.uniform import Uniform
from theoryrl.theory.theorem import Assumption, Control, MeanObservations, Progress, Proof, Theorem

# The gain of the hidden triple, and how many episodes are played per hidden triple (or action of a copy).
GAIN = 0.25
EPISODES_PER_CHOICE = 4
VACUOUS = "so few episodes or choices that the bound is 0: nothing could have failed"
HONEST = (UCBVI(), UCBVI(scale=0.05), Uniform())


def told(model: FiniteHorizonMDP) -> FixedPolicy:
    """A cheat: it is shown the hidden instance and plays its optimal policy."""
    return FixedPolicy(backward_induction(model).policy)


class Family:
    """Instances that differ in what is hidden, the bound on them and the most that one episode can lose."""

    def __init__(self, n_instances: int, build: Callable[[int], FiniteHorizonMDP], bound: float, most: float, k: int):
        self.n_instances, self.build, self.bound, self.most, self.episodes = n_instances, build, bound, most, k


def needles(model: FiniteHorizonMDP) -> Family:
    """`hard_episodic` with the largest tree that the sizes of `model` can hold, over all triples."""
    sizes = {"n_states": model.n_states, "n_actions": model.n_actions, "horizon": model.horizon}
    depth = largest_tree(**sizes)
    waiting = min(max(1, model.horizon // 3), model.horizon - depth - 1)
    leaves = model.n_actions ** (depth - 1)
    states = 3 + sum(model.n_actions**level for level in range(depth))
    triples = waiting * leaves * model.n_actions
    episodes = EPISODES_PER_CHOICE * triples

    def build(hidden: int) -> FiniteHorizonMDP:
        rest, action = divmod(hidden, model.n_actions)
        wait, leaf = divmod(rest, leaves)
        place = {"wait": wait, "leaf": leaf, "action": action}
        return hard_episodic(**(sizes | {"n_states": states}), epsilon=GAIN, waiting=waiting, **place)

    bound = float(domingues_lower_bound(episodes, **sizes, epsilon=GAIN))
    return Family(triples, build, bound, GAIN * (model.horizon - waiting - depth), episodes)


def copies(model: FiniteHorizonMDP) -> Family:
    """`jao_copies` with as many copies as the states of `model` allow, over all choices of hidden actions."""
    n_states, n_actions, horizon = model.n_states // 2 * 2, model.n_actions, model.horizon
    sizes = {"n_states": n_states, "n_actions": n_actions, "horizon": horizon}
    episodes = EPISODES_PER_CHOICE * n_states * n_actions
    _, delta, gain = jao_hardest(episodes, **sizes)
    bound = float(jao_lower_bound(episodes, **sizes, delta=delta, epsilon=gain))
    powers = (1 - 2 * delta - gain) ** np.arange(horizon - 1)

    def build(hidden: int) -> FiniteHorizonMDP:
        return jao_copies(**sizes, delta=delta, epsilon=gain, special=hidden)

    return Family(n_actions ** (n_states // 2), build, bound, gain * float(np.cumsum(powers).sum()), episodes)


def hidden_instance_protocol(
    model: FiniteHorizonMDP,
    *,
    rng: np.random.SeedSequence,
    runs: int,
    jobs: int | None,
    progress: Progress | None,
    family: Callable[[FiniteHorizonMDP], Family],
    learners: tuple[Any, ...] = HONEST,
) -> MeanObservations:
    """Exact regret of learners on instances hidden from them, each run with an instance and a learner of its own.

    A run draws its learner and its instance uniformly; a learner drawn by lot is a learner too, so the bound is about
    the mean of all runs. An entry of `learners` is settings, or a function of the instance (a cheat). The sizes of
    `model` are used and nothing else.
    """
    instances = family(model)
    draws, play = rng.spawn(2)
    choose = np.random.default_rng(draws)
    # Python's integers, 128 bits more than needed: the number of choices may be beyond 64 bits.
    words = range(instances.n_instances.bit_length() // 32 + 5)
    hidden = [sum(int(choose.integers(0, 2**32)) << (32 * i) for i in words) for _ in range(runs)]
    pairs = [(number % instances.n_instances, int(choose.integers(0, len(learners)))) for number in hidden]
    regret, names, allowance = np.empty(runs), "", 0.0
    places: dict[tuple[int, int], list[int]] = {}
    for i, pair in enumerate(pairs):
        places.setdefault(pair, []).append(i)
    done = 0
    for ((number, which), where), stream in zip(places.items(), play.spawn(len(places)), strict=True):
        instance, learner = instances.build(number), learners[which]
        settings = learner if hasattr(learner, "init") else learner(instance)
        k = instances.episodes
        regret[where] = run(settings, instance, k, len(where), stream, jobs=jobs, checkpoints=[k]).regret[:, -1]
        # K differences of two values and their sum in floats.
        allowance = max(allowance, k * (2 * value_rounding(instance) + (k + 2) * 2 * U * instance.horizon))
        names = names or instance.name
        done += len(where)
        if progress is not None:
            progress(done, runs, f"hidden instances of {instance.name}")
    most = instances.episodes * instances.most + allowance
    by_learner = {
        f"regret {i}": regret[[j for j, pair in enumerate(pairs) if pair[1] == i]] for i in range(len(learners))
    }
    return MeanObservations(
        regret,
        instances.bound,
        low=-allowance,
        high=most,
        relation=">=",
        allowance=allowance,
        models=(f"{instances.n_instances} instances like {names}",),
        series=by_learner,
        remark="" if instances.bound > 0 else VACUOUS,
    )


def _holds_a_tree(model: FiniteHorizonMDP) -> str | None:
    if largest_tree(model.n_states, model.n_actions, model.horizon) >= 1:
        return None
    sizes = f"S = {model.n_states}, A = {model.n_actions}, H = {model.horizon}"
    return f"a hard instance needs S >= 4, A >= 2 and H >= 3, and {sizes}"


def _holds_a_copy(model: FiniteHorizonMDP) -> str | None:
    if model.n_states >= 2 and model.n_actions >= 2 and model.horizon >= 2:
        return None
    sizes = f"S = {model.n_states}, A = {model.n_actions}, H = {model.horizon}"
    return f"a hard instance needs S >= 2, A >= 2 and H >= 2, and {sizes}"


_needles = partial(hidden_instance_protocol, family=needles)
_copies = partial(hidden_instance_protocol, family=copies)
_TOLD = "A learner that is told the hidden instance loses nothing: the bound is about those who are not."
_G = (
    r"$g(x) = \min\{\sqrt{x/2}, \sqrt{1 - e^{-x}}\}$ and "
    r"$\mathrm{kl}(p, q) = p \log\frac pq + (1-p) \log\frac{1-p}{1-q}$"
)

THEOREMS = (
    Theorem(
        key="lower-bound.hard-instance",
        family="online",
        title="No learner beats the minimax lower bound on a hidden hard instance",
        statement=r"Let one of $N = WLA$ triples (a number of waits below $W$, a leaf of an $A$-ary tree with "
        r"$L = A^{d-1}$ leaves, an action) be hidden uniformly at random in the model `hard_episodic` "
        r"with horizon $H$: an episode that takes it receives a reward of 1 in each of the last $P = H - W - d$ layers "
        r"with probability $1/2 + \epsilon$, any other with $1/2$. For every learner that is told $S, A, H$ alone, and "
        r"every $K$, the regret $R_K = \sum_{k \le K} (V^* - V^{\pi_k})$ has expectation, over triple and run, $E "
        r"R_K \ge \epsilon P \sum_{k=1}^K \max\{0, 1 - \frac1N - g\big((k-1)\,\mathrm{kl}(\tfrac12, \tfrac12 + "
        r"\epsilon) / N\big)\}$ with "
        + _G
        + r". For the best $\epsilon$ and $K \ge 8N$ this is at least $0.349 (1 - 1/N)^2 P \sqrt{NK}$, of order "
        r"$\sqrt{H^3 S A K}$.",
        source="Domingues, Menard, Kaufmann, Valko 2021, Theorem 9; constants derived here, "
        "docs/theory/lower_bounds.md#one-kernel-per-layer",
        claim="probability",
        protocol=_needles,
        bound=domingues_lower_bound,
        controls=(Control("told the instance", _TOLD, partial(_needles, learners=(told,)), runs=40),),
        proof=Proof("written", "docs/theory/lower_bounds.md#one-kernel-per-layer"),
        expected="consistent",
        assumptions=(Assumption("room for a tree", "The sizes hold a hard instance.", _holds_a_tree),),
        default_runs=120,
        default_model=hard_episodic,
        accepts="finite-horizon",
    ),
    Theorem(
        key="lower-bound.hidden-actions",
        family="online",
        title="No learner beats the lower bound for stationary dynamics on hidden actions",
        statement=r"Let the better action of each of $M$ copies of a two-state model (`jao_copies`) be hidden, "
        r"uniformly and independently: an episode starts in the poor state of a random copy, every action "
        r"changes the state with probability $d$, but the hidden one leaves the poor state with probability $d + e$; "
        r"the other state pays 1. With $q_h = (1 + (1-2d)^h)/2$, $n_h = \sum_{i<h} q_i$, "
        r"$w_h = \sum_{i \le H-h-2} (1 - 2d "
        r"- e)^i$, every learner has, in expectation over hidden actions and run, $E R_K \ge e \sum_{h} w_h "
        r"\sum_{k=1}^K \max\{0, q_h (1 - \frac1A) - g\big((n_H \frac{k-1}{M} + n_h)\,\mathrm{kl}(d, d + e) / "
        r"A\big)\}$ with " + _G + r". For the best $d, e$ this is of order $H \sqrt{SAK}$.",
        source="Jaksch, Ortner, Auer 2010, Theorem 5; constants derived here, "
        "docs/theory/lower_bounds.md#stationary-dynamics",
        claim="probability",
        protocol=_copies,
        bound=jao_lower_bound,
        controls=(Control("told the instance", _TOLD, partial(_copies, learners=(told,)), runs=200),),
        proof=Proof("written", "docs/theory/lower_bounds.md#stationary-dynamics"),
        expected="consistent",
        assumptions=(Assumption("room for a copy", "The sizes hold a hard instance.", _holds_a_copy),),
        default_runs=200,
        default_model=jao_copies,
        accepts="finite-horizon",
    ),
)
