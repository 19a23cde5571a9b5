"""The uniform learner: every allowed action with the same probability, for ever. What every learner must beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.online.verbs import Problem, act, chance, observe, plan, upper_value


class UniformState(NamedTuple):
    """allowed (S, A): the allowed actions of each state first; n_allowed (S,)."""

    allowed: NDArray[np.int64]
    n_allowed: NDArray[np.int64]
    action_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Uniform:
    """Choose uniformly among the allowed actions."""

    @property
    def provable(self) -> bool:
        """No theorem is claimed for it, so nothing is scaled away."""
        return True

    def init(self, problem: Problem) -> UniformState:
        """A fresh state for one run."""
        mask = np.ascontiguousarray(problem.action_mask)
        return UniformState(np.argsort(~mask, axis=1, kind="stable"), mask.sum(axis=1), mask)


@plan.implement(UniformState)
def _(learner, episode):
    return False


@act.implement(UniformState)
def _(learner, h, s, rng):
    return learner.allowed[s, rng.integers(0, learner.n_allowed[s])]


@observe.implement(UniformState)
def _(learner, h, s, a, reward, s_next):
    pass


@chance.implement(UniformState)
def _(learner, h, s, a):
    if learner.action_mask[s, a]:
        return 1.0 / learner.n_allowed[s]
    return 0.0


@upper_value.implement(UniformState)
def _(learner, h, s):
    return math.inf
