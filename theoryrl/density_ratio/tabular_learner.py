"""GLOW without lists: all tables of values and all weights, played online.

`h2o(TabularOptimism(...), mdp, None, T)` is the loop: round t takes the data of the t - 1 episodes before and plays the
greedy policy of the most optimistic table that no weight refutes (docs/theory/density_ratio_tabular.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.density_ratio.full_weights import AS_GIVEN, tabular_data
from theoryrl.density_ratio.optimistic_tabular import (
    OptimisticValues,
    mixture_ellipsoid,
    optimistic_box,
    optimistic_policy,
)
from theoryrl.density_ratio.problem import Units
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.planning import greedy

SOLVERS = ("search", "box")


@dataclass(frozen=True, eq=False)
class TabularOptimism:
    """The most optimistic table in `mixture_ellipsoid` with values up to 1, chosen from data, and its greedy policy.

    With probability at least 1 - delta, Q* is in the ellipsoid in all rounds, and then `upper` is at least J* in units,
    and `value` at least J* - (upper - value). No bound on the regret is claimed: the level gives optimism alone.

    Parameters
    ----------
    delta : float
        In (0, 1).
    units : Units
        Of the model that is played, `units_of(mdp)`.
    solver : {"search", "box"}
        The table of `optimistic_policy`, which is optimistic at the start, or that of `optimistic_box`, which is so in
        every state, takes models of any size, and has larger bonuses.
    initial : (S,) distribution or int, optional
        Where episodes start; by default the frequencies seen, and then optimism holds for these.
    action_mask : (S, A) bool, optional
    noise_width, prior : float
        As in `mixture_level`.
    tolerance, node_limit
        As in `optimistic_policy`.

    Raises
    ------
    ValueError
        Another solver.
    """

    delta: float = 0.05
    units: Units = AS_GIVEN
    solver: Literal["search", "box"] = "search"
    initial: ArrayLike | int | None = None
    action_mask: ArrayLike | None = None
    noise_width: float = 1.0
    prior: float = 1.0
    tolerance: float = 1e-6
    node_limit: int = 2000

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"solver must be 'search' or 'box', not {self.solver!r}")

    def choose(self, data: Dataset, law: NDArray[np.float64] | None = None) -> OptimisticValues:
        """The table and policy of the next episode, with bounds.

        Parameters
        ----------
        data : Dataset
            All episodes so far, in units of reward.
        law : ignored
            Weights need not be known.
        """
        seen = tabular_data(data, units=self.units, action_mask=self.action_mask, initial=self.initial)
        ellipsoid = mixture_ellipsoid(seen, delta=self.delta, noise_width=self.noise_width, prior=self.prior)
        if self.solver == "box":
            return optimistic_box(seen, ellipsoid)
        found = optimistic_policy(seen, ellipsoid, tolerance=self.tolerance, node_limit=self.node_limit)
        policy = greedy(found.values, seen.action_mask)
        return OptimisticValues(found.limited_value, found.limited_upper, found.values, policy)
