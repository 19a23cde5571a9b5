# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="no-redef"
"""UCBVI that plans in real time: one backup per layer and state visited, in place of one for every layer and state.

The policy of episode k is greedy for the stored Q. After the episode, backwards along the states that it visited, for
all actions a,

    Q_h(s_h, a) <- min{ Q_h(s_h, a), r^(s_h, a) + sum_s' P^(s' | s_h, a) V_{h+1}(s') + b_h(s_h, a) },   V_h = max_a Q_h

with the bonuses of UCBVI. The idea is that of UCRL2-GP and EULER-GP (Efroni, Merlis, Ghavamzadeh, Mannor 2019).
Deviations: they back a state up on arrival and act on the result; here it is backed up after the episode, with the
episode's data and the values of its next state just lowered, so that the policy is fixed before the episode and its
regret exact. The bonus is UCBVI's, not their confidence set of models. The proof for this form is in the documentation
(page UCBVI in real time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.online._ucbvi_kernels import measure, sweep
from theoryrl.online.ucbvi import UCBVI, UCBVIState, check_settings
from theoryrl.online.verbs import VISITED, Problem, act, chance, frugal, observe, plan, upper_value


@frugal
class UCBVIRTDPState(NamedTuple):
    """The counts and tables of UCBVI, and where the last episode went."""

    core: UCBVIState
    trail: NDArray[np.int64]  # (H,) states visited


@dataclass(frozen=True)
class UCBVIRTDP:
    """Settings of UCBVI in real time.

    Parameters
    ----------
    delta, bonus, scale
        As in `UCBVI`; the bonus is "hoeffding" or "bernstein".
    """

    delta: float = 0.05
    bonus: Literal["hoeffding", "bernstein"] = "hoeffding"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self.delta, self.bonus, self.scale, ("hoeffding", "bernstein"))

    @property
    def provable(self) -> bool:
        """Whether the constants are those of the theorem."""
        return self.scale == 1.0

    def init(self, problem: Problem) -> UCBVIRTDPState:
        """A fresh state for one run."""
        core = UCBVI(self.delta, self.bonus, self.scale).init(problem)
        return UCBVIRTDPState(core, np.zeros(problem.horizon, np.int64))


@plan.implement(UCBVIRTDPState)
def _(learner, episode):
    if episode == 0:
        return 0
    core = learner.core
    changed = sweep(
        learner.trail,
        core.estimate,
        core.successor,
        core.successor_count,
        core.arrivals,
        core.q,
        core.value,
        core.policy,
        core.kind,
        core.most,
    )
    return VISITED if changed else 0


@act.implement(UCBVIRTDPState)
def _(learner, h, s, rng):
    return learner.core.policy[h, s]


@chance.implement(UCBVIRTDPState)
def _(learner, h, s, a):
    return 1.0 if learner.core.policy[h, s] == a else 0.0


@upper_value.implement(UCBVIRTDPState)
def _(learner, h, s):
    core = learner.core
    return (core.q.shape[0] - h) * core.reward_low + core.reward_width * core.value[h, s]


@observe.implement(UCBVIRTDPState)
def _(learner, h, s, a, reward, s_next):
    core = learner.core
    learner.trail[h] = s
    observe(core, h, s, a, reward, s_next)
    g = h if core.visits.shape[0] > 1 else 0
    total, squares = core.reward_sum[g, s, a], core.reward_square_sum[g, s, a]
    n, horizon = core.visits[g, s, a], core.q.shape[0]
    measure(core.estimate, g, s, a, n, total, squares, core.kind, core.log_constant, core.scale, horizon)
