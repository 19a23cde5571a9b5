"""Hy-Q (Song et al. 2023): fitted Q iteration on offline and online data together, without any bonus.

    f_h = argmin_{g in F_h} sum over all transitions (s, a, r, s') of layer h, offline ones and those of past episodes,
          of (g(s, a) - r - max_a' f_{h+1}(s', a'))^2,   backwards from f_H = 0;   play greedily for f.

Offline data that cover one optimal policy take the place of optimism: where the greedy policy goes wrong it collects
the data that say so. Only counts are kept: a plan costs O(H S A (S + m)), m members a layer, whatever the number of
transitions.

Deviations from the paper: every transition counts the same (the paper's weighting of the two data sets is a parameter);
the class is a finite product, layer by layer, and the lowest-numbered of equally good members is taken; ties between
actions go to the lowest-numbered allowed one. The first episode is planned on the offline data alone.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.checks import completeness
from theoryrl.classes.regression import least_squares_member, target_sums
from theoryrl.classes.values import ProductClass
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online.verbs import Problem, act, chance, observe, plan, upper_value

# How far out of range a value may be by rounding alone.
RANGE_TOLERANCE = 1e-9


class HyQState(NamedTuple):
    """All transitions so far as counts, the class as one stack, and the members chosen."""

    members: NDArray[np.float64]  # (M, S, A) of all layers, one layer after the other
    first: NDArray[np.int64]  # (H + 1,) where the members of each layer begin
    best: NDArray[np.float64]  # (M + 1, S) largest allowed value of each member; the last row is zero
    greedy: NDArray[np.int64]  # (M, S)
    visits: NDArray[np.float64]  # (H, S, A)
    transitions: NDArray[np.float64]  # (H, S, A, S)
    reward_sums: NDArray[np.float64]  # (H, S, A)
    chosen: NDArray[np.int64]  # (H + 1,) rows of `members`; the last one stands for f_H = 0
    sums: NDArray[np.float64]  # (S, A)


@dataclass(frozen=True, eq=False)
class HyQ:
    """Settings of Hy-Q.

    Parameters
    ----------
    offline : Dataset
        Transitions collected before, of the same sizes; the regret bound needs independent trajectories that cover an
        optimal policy.
    cls : ProductClass
        F, in units of reward. The regret bound needs T_h f_{h+1} in F_h for all f (completeness), and values of layer
        h within (H - h) times the range of rewards.
    check : bool
        Whether `run` refuses a model for which the class is not that.
    """

    offline: Dataset
    cls: ProductClass
    check: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.offline, Dataset):
            raise TypeError(f"offline must be a Dataset, not a {type(self.offline).__name__}")
        if not isinstance(self.cls, ProductClass):
            raise TypeError(f"cls must be a ProductClass, not a {type(self.cls).__name__}")
        self.cls.require_fits(self.offline)

    @property
    def provable(self) -> bool:
        """Whether the model is made to fit the theorem; there is no constant to tune."""
        return self.check

    def require(self, mdp: FiniteHorizonMDP) -> None:
        """Refuse a model for which the class is not complete or has values out of range, unless `check` is False.

        Raises
        ------
        ValueError
            With the layer and the member at fault: an image that is not in the class, or a value of layer h outside
            (H - h) times the range of rewards.
        """
        if not self.check:
            return
        found = completeness(self.cls, mdp)
        if not found:
            raise ValueError(f"{found.message} (check=False runs all the same)")
        for h, layer in enumerate(self.cls.layers):
            low, high = ((mdp.horizon - h) * limit for limit in mdp.reward_range)
            slack = RANGE_TOLERANCE * max(1.0, abs(low), abs(high))
            outside = ~((layer >= low - slack) & (layer <= high + slack)) & mdp.action_mask
            if outside.any():
                i, s, a = np.argwhere(outside)[0]
                raise ValueError(
                    f"layer {h}, member {i} has the value {layer[i, s, a]:.6g} at state {s}, action {a}, not in "
                    f"[{low:.6g}, {high:.6g}] (check=False runs all the same)"
                )

    def init(self, problem: Problem) -> HyQState:
        """A fresh state for one run, with the offline data counted."""
        self.cls.require_fits(problem)
        counts = self.offline.counts(staged=True)
        mask = np.ascontiguousarray(problem.action_mask)
        first = np.concatenate([[0], np.cumsum(self.cls.sizes)])
        best = np.concatenate([*self.cls.state_values(mask), np.zeros((1, problem.n_states))])
        return HyQState(
            members=np.concatenate(self.cls.layers),
            first=first,
            best=best,
            greedy=np.concatenate(self.cls.greedy(mask)),
            visits=counts.visits.astype(np.float64),
            transitions=counts.transitions.astype(np.float64),
            reward_sums=counts.reward_sums.copy(),
            chosen=np.append(first[:-1], first[-1]),
            sums=np.zeros((problem.n_states, problem.n_actions)),
        )


@plan.implement(HyQState)
def _(learner, episode):
    first, chosen, sums = learner.first, learner.chosen, learner.sums
    changed = False
    for h in range(chosen.shape[0] - 2, -1, -1):
        later = learner.best[chosen[h + 1]]
        target_sums(learner.transitions[h], learner.reward_sums[h], later, sums)
        index = first[h] + least_squares_member(learner.members[first[h] : first[h + 1]], learner.visits[h], sums)
        if index != chosen[h]:
            chosen[h] = index
            changed = True
    return changed or episode == 0


@act.implement(HyQState)
def _(learner, h, s, rng):
    return learner.greedy[learner.chosen[h], s]


@observe.implement(HyQState)
def _(learner, h, s, a, reward, s_next):
    learner.visits[h, s, a] += 1.0
    learner.transitions[h, s, a, s_next] += 1.0
    learner.reward_sums[h, s, a] += reward


@chance.implement(HyQState)
def _(learner, h, s, a):
    if learner.greedy[learner.chosen[h], s] == a:
        return 1.0
    return 0.0


@upper_value.implement(HyQState)
def _(learner, h, s):
    return math.inf
