"""What theorems about GLOW measure: which members it played, what they cost, and whether Q* was ever expelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.builders import optimal_values, realizable_class
from theoryrl.classes.values import FiniteClass
from theoryrl.complexity.coverability import coverability
from theoryrl.density_ratio.glow import GLOW
from theoryrl.density_ratio.members import member_values
from theoryrl.density_ratio.problem import in_units, largest_total, units_of
from theoryrl.density_ratio.weights import Weights, occupancy_ratios
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.rounding import gamma
from theoryrl.online._protocols import value_rounding
from theoryrl.online.run import run
from theoryrl.online.verbs import Problem
from theoryrl.theory.theorem import Progress

WRONG = 2
# Layers of episodes that one verification may play on up to so many pairs, and its number of rounds.
WORK, PAIRS = 5e6, 8
ROUNDS = (200, 100_000)
# By how much coverability may be off by rounding.
ROOM = 1 + 1e-9


@dataclass(frozen=True)
class Unstopped:
    """A learner whose faults and requirements `run` does not see: an empty set leaves it with its last policy.

    The theorems hold with probability 1 - delta, and what happens otherwise must be seen, not raised.
    """

    settings: GLOW

    @property
    def provable(self) -> bool:
        """As the learner says."""
        return self.settings.provable

    def init(self, problem: Problem) -> Any:
        """As the learner does."""
        return self.settings.init(problem)


class Setting(NamedTuple):
    """What GLOW is given on a model; member 0 stands where Q* should."""

    cls: FiniteClass
    weights: Weights
    total_reward: float
    coverability: NDArray[np.float64]  # (H,) of the greedy policies of the class


def total_of(mdp: FiniteHorizonMDP) -> float:
    """A bound on the shifted rewards of an episode, and on Q* where no episode gets: that has to fit into units too."""
    to_go = np.arange(mdp.horizon, 0, -1)[:, np.newaxis, np.newaxis] * mdp.reward_range[0]
    promised = float((optimal_values(mdp) - to_go)[:, mdp.action_mask].max())
    total = max(largest_total(mdp), promised)
    return total if total > 0 else 1.0


def class_of(mdp: FiniteHorizonMDP, n_wrong: int = WRONG) -> FiniteClass:
    """Q* and members that promise more and err at one layer; where there are none, random ones instead."""
    ceiling = np.arange(mdp.horizon, 0, -1) * mdp.reward_range[0] + total_of(mdp)
    try:
        return realizable_class(mdp, n_wrong, kind="consistent", ceiling=ceiling, rng=0)
    except ValueError:
        return realizable_class(mdp, n_wrong, kind="random", ceiling=ceiling, rng=0)


def true_ratios(mdp: FiniteHorizonMDP, cls: FiniteClass, total_reward: float) -> Weights:
    """The ratios of the greedy policies of the class, in the model itself."""
    return occupancy_ratios(cls, mdp, total_reward)


def setting_of(
    mdp: FiniteHorizonMDP,
    classes: Callable[[FiniteHorizonMDP], FiniteClass] = class_of,
    weights: Callable[[FiniteHorizonMDP, FiniteClass, float], Weights] = true_ratios,
) -> Setting:
    """A class, weights for it, and the coverability of its greedy policies on this model."""
    cls, total = classes(mdp), total_of(mdp)
    policies = np.unique(in_units(cls, mdp, units_of(mdp, total)).greedy, axis=0)
    return Setting(cls, weights(mdp, cls, total), total, coverability(mdp, list(policies)) * ROOM)


def rounds_for(mdp: FiniteHorizonMDP, runs: int) -> int:
    """How many rounds a verification plays: what the work allows, between 200 and 100,000, to two digits."""
    per_round = runs * mdp.horizon * max(1.0, mdp.n_states * mdp.n_actions / PAIRS)
    allowed = float(np.clip(WORK / per_round, *ROUNDS))
    digit = 10 ** (int(np.log10(allowed)) - 1)
    return int(allowed // digit * digit)


def single_start(mdp: FiniteHorizonMDP) -> bool:
    """Whether every episode starts in the same state: then the start law need not be known."""
    return int((mdp.initial > 0).sum()) == 1


class Played(NamedTuple):
    """Which members GLOW chose in every run.

    Attributes
    ----------
    member : (runs, T)
        Whose policy was played; after the set was found empty, that of the last one chosen.
    emptied : (runs,)
        The iteration at which the set was found empty, or T.
    expelled : (runs, nF)
        The iteration at which a member first failed a test, or T.
    """

    member: NDArray[np.int64]
    emptied: NDArray[np.int64]
    expelled: NDArray[np.int64]


def played(
    settings: GLOW,
    model: FiniteHorizonMDP,
    runs: int,
    rng: np.random.SeedSequence,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Played:
    """Let GLOW play all its iterations, `runs` times, and read what it chose from its final states."""
    rounds = int(settings.iterations)
    result = run(
        Unstopped(settings),
        model,
        rounds * int(settings.trajectories),
        runs,
        rng,
        jobs=jobs,
        checkpoints=[rounds],
        progress=progress,
        keep_states=True,
    )
    chosen = np.stack([state.chosen for state in result.states])
    last = np.maximum.accumulate(np.where(chosen >= 0, np.arange(rounds), 0), axis=1)
    emptied = np.array([state.empty[0] for state in result.states])
    expelled = np.stack([state.first_out for state in result.states])
    return Played(
        np.take_along_axis(chosen, last, axis=1),
        np.where(emptied < 0, rounds, emptied),
        np.where(expelled < 0, rounds, expelled),
    )


class Sums(NamedTuple):
    """What the rounds so far have cost, in units of reward; (runs, C) and (runs, C, H) at C checkpoints."""

    regret: NDArray[np.float64]
    errors: NDArray[np.float64]


def sums_of(seen: Played, model: FiniteHorizonMDP, setting: Setting, checkpoints: NDArray[np.int64]) -> Sums:
    """Cumulative regret, and cumulative Bellman errors of the members chosen along their own policies."""
    known = member_values(model, setting.cls, setting.total_reward)
    picked = checkpoints - 1
    regret = np.stack([np.cumsum(known.regret[row])[picked] for row in seen.member])
    errors = np.stack([np.cumsum(known.bellman_errors[row], axis=0)[picked] for row in seen.member])
    return Sums(regret, errors)


def sum_rounding(model: FiniteHorizonMDP, total_reward: float, checkpoints: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far those sums can be from the exact ones: that of one term, k times, and of k additions.

    A term is a difference of two values, or a mean residual: its occupancy is off by a relative
    gamma(H (S A + 4) + 2) (docs/theory/complexity.md), the residual by S + 4 roundings, the sum over pairs by S A.
    """
    pairs = model.n_states * model.n_actions
    size = 2 * total_reward + model.horizon * float(np.abs(model.reward_range).max())
    term = 2 * value_rounding(model) + size * gamma(model.horizon * (pairs + 4) + 2 * pairs + model.n_states + 10)
    count = checkpoints.astype(float)
    return np.asarray(count * (term + size * np.array([gamma(int(k)) for k in checkpoints])))
