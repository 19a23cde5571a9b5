"""The estimate of a policy's value from data: a number with its error, or a refusal that names what is missing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp._checks import Sealed, sealed
from theoryrl.offline._data import Uncovered, named


@dataclass(frozen=True, eq=False, repr=False)
class Estimate(Sealed):
    """An estimate of J(pi), the target policy's expected reward.

    Attributes
    ----------
    value : float
        In units of reward. Infinite if the data do not cover the target policy, or if no trajectory in them is possible
        under it: no number is offered then.
    standard_error : float
        Of `value`, estimated from the data; infinite if the data do not cover the target or there are too few of them.
        An estimator without one of its own reports NaN here, never 0.
    method : str
        What was computed.
    unbiased : bool
        Whether the expectation of `value` is J(pi) exactly, at every sample size.
    size : int
        Number of trajectories, or of rows for estimators that need no trajectories.
    uncovered : tuple of (h, s, a)
        Pairs that the target needs and the data cannot speak of; empty if it is covered.
    terms : (n,) float64
        What each trajectory contributes; `value` is their mean. Empty for estimators that are not such a mean.
    """

    value: float
    standard_error: float
    method: str
    unbiased: bool
    size: int
    uncovered: Uncovered = ()
    terms: NDArray[np.float64] = field(default_factory=lambda: sealed(np.empty(0)))

    @classmethod
    def refused(cls, method: str, unbiased: bool, size: int, uncovered: Uncovered) -> Self:
        """The estimate that there is none."""
        return cls(math.inf, math.inf, method, unbiased, size, uncovered)

    @classmethod
    def mean(cls, terms: NDArray[np.float64], method: str, unbiased: bool) -> Self:
        """The mean of independent terms, with its standard error; terms too large for floating point are refused."""
        n = terms.size
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(terms.sum()):
                finite = np.isfinite(terms)
                who = "the sum" if finite.all() else f"term {int(finite.argmin())} of {n}"
                raise ValueError(f"{method}: {who} is too large for floating point")
            error = float(terms.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        return cls(float(terms.mean()), error, method, unbiased, n, (), sealed(terms))

    @property
    def covered(self) -> bool:
        """Whether the data cover the target policy, so that `value` is a number."""
        return not self.uncovered

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval value -+ z standard_error that is asymptotically right with probability `level`.

        It is the whole line if the estimate is refused or its standard error infinite.

        Raises
        ------
        ValueError
            If `level` is not in (0, 1), or the estimator has no standard error.
        """
        from scipy.special import ndtri

        if not 0.0 < level < 1.0:
            raise ValueError(f"level is {level}, not in (0, 1)")
        if not self.covered or math.isinf(self.standard_error):
            return -math.inf, math.inf
        if math.isnan(self.standard_error):
            raise ValueError(f"{self.method} has no standard error of its own")
        half = float(ndtri(0.5 + level / 2)) * self.standard_error
        return self.value - half, self.value + half

    def __repr__(self) -> str:
        if not self.covered:
            return f"Estimate(refused by {self.method}: no data at {named(self.uncovered)})"
        bias = "unbiased" if self.unbiased else "biased"
        return f"Estimate({self.value:.6g} +- {self.standard_error:.2g}, {self.method}, {bias}, n={self.size})"
