"""How far floats can be from the truth: bounds on the rounding of one backup."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl._jit import plain
from theoryrl.mdp._kernels_certify import mean_error
from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP

U = 2.0**-53
SAFE = 1.0 + 2.0**-30  # covers the roundings of a radius itself

Model = FiniteHorizonMDP | DiscountedMDP


class Rounding(NamedTuple):
    """Of the allowed rows: the most nonzeros, the largest |exact sum - 1|, the largest relative error of a mean."""

    length: int
    defect: float
    relative: float


def rounding_of(mdp: Model) -> Rounding:
    """Bounds that hold for every allowed row."""
    if mdp.is_sparse:
        counts, sums = np.diff(mdp.transition.indptr).astype(float), mdp.transition.row_sums()
    else:
        counts, sums = (
            np.count_nonzero(mdp.transition, axis=-1).astype(float).ravel(),
            mdp.transition.sum(axis=-1).ravel(),
        )
    allowed = np.resize(mdp.action_mask.ravel(), counts.size)
    counts, sums = counts[allowed], sums[allowed]
    defect = np.max(np.abs(sums - 1) + 2 * counts * U * sums)
    return Rounding(int(counts.max()), float(defect), float(plain(mean_error)(sums, counts).max()))


def gamma(n: float) -> float:
    """The relative error n u / (1 - n u) of n roundings."""
    return n * U / (1.0 - n * U)


def backup_radius(mdp: Model, rows: Rounding, value: NDArray[np.float64]) -> float:
    """How far a float backup of `value` can be from the exact one, in any state (Lemma 2 of docs/certify.md)."""
    size, reward = float(np.abs(value).max()), float(np.abs(mdp.reward).max())
    return size * rows.relative + 2 * U * (size * (1 + rows.defect) + reward) * SAFE + (rows.length + 8) * 2.0**-1074
