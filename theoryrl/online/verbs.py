"""The interaction protocol: a few verbs, written once per learner, run by compiled loops and by plain Python alike.

A learner's state is a NamedTuple of arrays. Each verb is a `functools.singledispatch` function for Python callers and a
`numba.extending.overload` for compiled callers, resolved on the NamedTuple's class, so that one driver serves every
learner and the same source gives the same numbers, bit for bit, in both worlds (no reassociation of sums in here).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

VISITED = 2  # an answer of `plan`
FRUGAL: set[type] = set()


def frugal(state: type) -> type:
    """Say of a state's class that its verbs allocate nothing, and call no kernel that returns an array.

    Then the driver need not count references to arrays, which is atomic and can cost more than what a verb computes.
    `rng.integers` allocates, unless a kernel of its own calls it. Numba refuses a verb that does; an array that a
    kernel returns would never be freed.
    """
    FRUGAL.add(state)
    return state


class Problem(NamedTuple):
    """All that a learner is told: sizes, range of rewards, allowed actions, whether the dynamics are stationary.

    Attributes
    ----------
    n_states, n_actions, horizon : int
    reward_low, reward_high : float
    stationary : bool
        Whether transitions and rewards are the same at every layer (an assumption of the problem class).
    action_mask : bool (S, A)
    """

    n_states: int
    n_actions: int
    horizon: int
    reward_low: float
    reward_high: float
    stationary: bool
    action_mask: NDArray[np.bool_]


def _verb(signature: Callable, optional: bool = False) -> Any:
    """A verb; one that is optional does what `signature` does for learners that do not implement it."""
    generic: Any = singledispatch(signature)
    otherwise = signature if optional else None
    table: dict[type, Callable] = {}

    @overload(generic, strict=False)
    def resolve(learner: Any, *args: Any) -> Any:
        return table.get(getattr(learner, "instance_class", type(None)), otherwise)

    def implement(state: type) -> Callable[[Callable], Callable]:
        def register(implementation: Callable) -> Callable:
            generic.register(state, implementation)
            table[state] = implementation
            return implementation

        return register

    generic.implement = implement
    return generic


@partial(_verb, optional=True)
def sample(learner: Any, rng: np.random.Generator) -> None:
    """Draw from the learner's own stream what the next plan needs; learners that plan without chance do nothing.

    Called before every `plan`.
    """


@_verb
def plan(learner: Any, episode: int) -> int:
    """Prepare for episode number `episode` (from 0); return whether the policy may differ from the last episode's.

    False, True, or `VISITED`: at the layers and states that the last episode went through, and nowhere else. The less
    is said to differ, the less the driver evaluates.
    """
    raise TypeError(f"{type(learner).__name__} does not implement plan")


@_verb
def act(learner: Any, h: int, s: int, rng: np.random.Generator) -> int:
    """The action at layer h in state s; `rng` is the learner's own stream."""
    raise TypeError(f"{type(learner).__name__} does not implement act")


@_verb
def observe(learner: Any, h: int, s: int, a: int, reward: float, s_next: int) -> None:
    """Take in one transition."""
    raise TypeError(f"{type(learner).__name__} does not implement observe")


@_verb
def chance(learner: Any, h: int, s: int, a: int) -> float:
    """The probability that `act` chooses a at layer h in state s, given the last plan: makes regret exact."""
    raise TypeError(f"{type(learner).__name__} does not implement chance")


@_verb
def upper_value(learner: Any, h: int, s: int) -> float:
    """The learner's upper estimate of V*_h(s), in units of reward; infinity for a learner that keeps none."""
    raise TypeError(f"{type(learner).__name__} does not implement upper_value")


@partial(_verb, optional=True)
def stopped(learner: Any) -> bool:
    """Whether what was seen so far is enough, as of the last plan; learners that play for regret never stop."""
    return False
