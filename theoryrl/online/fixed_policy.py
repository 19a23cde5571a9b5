# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-redef"
"""A learner that does not learn: it plays a given policy, e.g. one found by planning on the true model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp._checks import Sealed, sealed
from theoryrl.online.verbs import Problem, act, chance, observe, plan, upper_value


class FixedPolicyState(NamedTuple):
    """policy (H, S)."""

    policy: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FixedPolicy(Sealed):
    """Play a deterministic policy for ever.

    Parameters
    ----------
    policy : int (S,) or (H, S)
    """

    policy: Any

    def __post_init__(self) -> None:
        table = np.array(self.policy)
        if table.ndim not in (1, 2) or table.dtype.kind not in "iu":
            raise ValueError(f"policy must be integers of shape (S,) or (H, S), not {table.dtype} of {table.shape}")
        object.__setattr__(self, "policy", sealed(table.astype(np.int64)))

    @property
    def provable(self) -> bool:
        """No theorem is claimed for it, so nothing is scaled away."""
        return True

    def init(self, problem: Problem) -> FixedPolicyState:
        """A fresh state for one run.

        Raises
        ------
        ValueError
            If the policy does not fit the problem; the entry is named.
        """
        shape = (problem.horizon, problem.n_states)
        if self.policy.shape not in (shape[1:], shape):
            raise ValueError(f"policy has shape {self.policy.shape}, not {shape[1:]} or {shape}")
        table = np.array(np.broadcast_to(self.policy, shape))
        inside = (table >= 0) & (table < problem.n_actions)
        allowed = inside & problem.action_mask[np.arange(shape[1]), np.where(inside, table, 0)]
        if not allowed.all():
            h, s = (int(i) for i in np.argwhere(~allowed)[0])
            raise ValueError(f"policy[{h}, {s}] is {table[h, s]}, no allowed action")
        return FixedPolicyState(table)


@plan.implement(FixedPolicyState)
def _(learner, episode):
    return False


@act.implement(FixedPolicyState)
def _(learner, h, s, rng):
    return learner.policy[h, s]


@observe.implement(FixedPolicyState)
def _(learner, h, s, a, reward, s_next):
    pass


@chance.implement(FixedPolicyState)
def _(learner, h, s, a):
    return 1.0 if learner.policy[h, s] == a else 0.0


@upper_value.implement(FixedPolicyState)
def _(learner, h, s):
    return math.inf
