"""Suboptimality gaps: what the best play after a wrong action costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp._checks import Sealed
from theoryrl.mdp.evaluation import reachability
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import backward_induction, optimal_actions


@dataclass(frozen=True, eq=False, repr=False)
class Gaps(Sealed):
    """Suboptimality gaps of a model and what gap-dependent bounds are made of.

    Attributes
    ----------
    gap : (H, S, A)
        V*_h(s) - Q*_h(s, a); 0 where rounding cannot tell the action from an optimal one, inf where it is forbidden.
    minimal : float
        The least positive gap at a pair that can be reached; inf when there is none.
    where : (h, s, a) or None
        The first pair at which it is attained.
    n_suboptimal : int
        Reachable allowed triples (h, s, a) with a positive gap.
    n_optimal : int
        Reachable allowed triples without one.
    inverse_sum : float
        Sum of 1 / gap over the n_suboptimal triples.
    inverse_square_sum : float
        Sum of 1 / gap^2 over them.
    gap_complexity : float
        (H w)^2 inverse_sum, w the width of the reward range.
    """

    gap: NDArray[np.float64]
    minimal: float
    where: tuple[int, int, int] | None
    n_suboptimal: int
    n_optimal: int
    inverse_sum: float
    inverse_square_sum: float
    gap_complexity: float

    def __repr__(self) -> str:
        counts = f"n_suboptimal={self.n_suboptimal}, n_optimal={self.n_optimal}"
        return f"Gaps(minimal={self.minimal:.6g} at {self.where}, {counts}, gap_complexity={self.gap_complexity:.6g})"


def suboptimality_gaps(mdp: FiniteHorizonMDP) -> Gaps:
    """Gaps gap_h(s, a) = V*_h(s) - Q*_h(s, a), their least positive one, and their complexity.

    gap complexity = sum_{(h, s, a): gap > 0} (H w)^2 / gap_h(s, a)

    with w = high - low of the reward range. Pairs that no policy reaches cost no learner anything and are left out of
    the sums and of the minimum, but not of the table. A gap counts as zero exactly where `optimal_actions` keeps the
    action, that is within twice the proven rounding error of the computed action values.

    Parameters
    ----------
    mdp : FiniteHorizonMDP

    Returns
    -------
    Gaps

    Notes
    -----
    Simchowitz and Jamieson (2019), Non-asymptotic gap-dependent regret bounds for tabular MDPs, where regret grows like
    log(T) times such a sum. Powers of H differ between bounds, so the sums without them are given as well: 1 / gap for
    regret, 1 / gap^2 for identification. Cost: one backward induction and `reachability`.
    """
    require_model(mdp, FiniteHorizonMDP)
    plan = backward_induction(mdp)
    kept = optimal_actions(plan)
    allowed = np.broadcast_to(mdp.action_mask, plan.q.shape)
    gap = np.where(kept, 0.0, plan.value[:-1, :, np.newaxis] - plan.q)
    gap[~allowed] = np.inf
    gap.flags.writeable = False
    counted = allowed & (reachability(mdp) > 0)[:, :, np.newaxis]
    positive = counted & (gap > 0)
    sizes = gap[positive]
    minimal, where = np.inf, None
    if sizes.size:
        minimal = float(sizes.min())
        place: Any = np.argwhere(positive & (gap == minimal))[0]
        where = (int(place[0]), int(place[1]), int(place[2]))
    low, high = mdp.reward_range
    with np.errstate(over="ignore", divide="ignore"):  # beyond floats is inf
        inverse = float((1 / sizes).sum())
        inverse_square = float(((1 / sizes) ** 2).sum())
        complexity = float((np.square(mdp.horizon * (high - low)) / sizes).sum())
    return Gaps(
        gap=gap,
        minimal=minimal,
        where=where,
        n_suboptimal=int(sizes.size),
        n_optimal=int(counted.sum()) - int(sizes.size),
        inverse_sum=inverse,
        inverse_square_sum=inverse_square,
        gap_complexity=complexity,
    )
