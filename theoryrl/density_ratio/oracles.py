"""Offline oracles under one protocol: data in, a policy out, and the constants with which it is CC-bounded.

An oracle has two methods, `choose(data, law=None)` and `constants(delta, calls=1, source="ours")`. What is guaranteed
of its policy, on data of n tuples per layer with mean law mu, drawn by policies that may depend on earlier data, is

    J* - J(pihat) <= sum_h { (a / (gamma n)) (CC_h(pi*, mu, gamma n) + CC_h(pihat, mu, gamma n)) + b gamma }

in units in which total rewards lie in [0, 1], with probability at least 1 - delta for all of `calls` calls together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes.values import FiniteClass, ProductClass, TabularClass
from theoryrl.classes.weights import WeightClass, density_ratio
from theoryrl.density_ratio.mabo_cr import AS_GIVEN, mabo_cr, order_of, require_settings
from theoryrl.density_ratio.oracle_constants import (
    Constants,
    fqi_constants,
    likelihood_constants,
    mabo_cr_constants,
)
from theoryrl.density_ratio.problem import Units
from theoryrl.density_ratio.weights import OccupancyRatios, log_tests
from theoryrl.mdp._checks import frozen
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.offline.fitted import fqi
from theoryrl.offline.likelihood import maximum_likelihood
from theoryrl.offline.minimax import mabo


class Choice(NamedTuple):
    """What an oracle returns.

    Attributes
    ----------
    policy : (H, S) int64
    member : int
        Which member of a list of functions it is greedy for; -1 where there is no such list.
    objective : ndarray
        What was minimised, one number per member; empty where nothing is listed.
    """

    policy: NDArray[np.int64]
    member: int
    objective: NDArray[np.float64]


class Oracle(Protocol):
    """What H2O needs of an offline learner."""

    def choose(self, data: Dataset, law: NDArray[np.float64] | None = None) -> Choice:
        """The policy learned from `data`; `law` (H, S, A) is their mean law, for oracles whose weights depend on it."""
        ...

    def constants(self, delta: float, calls: int = 1, source: str = "ours") -> Constants:
        """The pair (a, b)."""
        ...


@dataclass(frozen=True, eq=False)
class MABOCR:
    """MABO.CR as an oracle.

    Parameters
    ----------
    cls : FiniteClass or TabularClass
        F, in units of reward; contains Q*.
    weights : WeightClass, OccupancyRatios or None
        A list; or the occupancies of policies, whose ratios to the law of the data are taken at each call; or all
        weights. The guarantee needs d^pi / mu for pi* and for every greedy policy of F.
    gamma : float
        Clipping level per tuple.
    form, c, units, action_mask, tie_order
        As in `mabo_cr`.
    noise_width, residual : float
        As in `mabo_cr_constants`.
    """

    cls: FiniteClass | TabularClass
    weights: WeightClass | OccupancyRatios | None
    gamma: float
    form: str = "max"
    c: float = 0.25
    noise_width: float = 1.0
    residual: float = 2.0
    units: Units = AS_GIVEN
    action_mask: ArrayLike | None = None
    tie_order: ArrayLike | None = None

    def __post_init__(self) -> None:
        require_settings(self.gamma, self.form, self.c)
        if not isinstance(self.weights, WeightClass | OccupancyRatios | None):
            raise TypeError(f"weights cannot be a {type(self.weights).__name__}")
        if isinstance(self.cls, FiniteClass):
            order_of(self.tie_order, self.cls.size)

    def choose(self, data: Dataset, law: NDArray[np.float64] | None = None) -> Choice:
        """The greedy policy of the minimiser.

        Parameters
        ----------
        data : Dataset
        law : (H, S, A), or (nM, H, S, A) for occupancies of several models, optional
            Mean law of the data; needed if the weights are occupancies.

        Raises
        ------
        ValueError
            No law where one is needed; what `mabo_cr` refuses.
        """
        weights = self.weights
        if isinstance(weights, OccupancyRatios):
            if law is None:
                raise ValueError("law is needed: the weights are the ratios of occupancies to the law of the data")
            weights = ratios_to(weights, law)
        found = mabo_cr(
            data,
            self.cls,
            weights,
            gamma=self.gamma,
            form=self.form,
            c=self.c,
            units=self.units,
            action_mask=self.action_mask,
            tie_order=self.tie_order,
        )
        return Choice(found.policy, found.index, found.objective)

    def constants(self, delta: float, calls: int = 1, source: str = "ours") -> Constants:
        """The pair (a, b) of `mabo_cr_constants`.

        Parameters
        ----------
        delta : float
        calls : int
            T. Occupancies are counted as H2O meets them: call t is made on t - 1 trajectories of their policies, and as
            many with a law of their own that is fixed.
        source : {"ours", "paper"}
            The paper's are those of the printed form with the one-layer copies and c = 8.

        Raises
        ------
        ValueError
            For the whole table or all weights, which cannot be counted.
        """
        if not isinstance(self.cls, FiniteClass) or self.weights is None:
            raise ValueError("constants need a finite class and finitely many weights")
        return mabo_cr_constants(
            horizon=self.cls.horizon,
            n_functions=self.cls.size,
            log_tests=log_tests(self.weights, calls),
            delta=delta,
            c=self.c,
            noise_width=self.noise_width,
            residual=self.residual,
            source=source,
        )


def ratios_to(weights: OccupancyRatios, law: ArrayLike) -> WeightClass:
    """The ratios of all occupancies to the law of the data, 0 / 0 = 0, x / 0 = infinity: nM nP weights.

    Parameters
    ----------
    weights : OccupancyRatios
    law : (H, S, A), or (nM, H, S, A)
        The law under each model, the same for all if there is one.

    Returns
    -------
    WeightClass

    Raises
    ------
    ValueError
        A law of another shape, or with a negative number or NaN.
    """
    mu, masses = frozen(law, np.float64, "law"), weights.masses
    shape = masses.shape[2:]
    if mu.shape not in (shape, (len(masses), *shape)):
        raise ValueError(f"law has shape {mu.shape}, not {shape} or {(len(masses), *shape)}")
    mu = np.broadcast_to(mu, (len(masses), *shape))
    return WeightClass(density_ratio(masses, mu[:, np.newaxis]).reshape(-1, *shape))


@dataclass(frozen=True, eq=False)
class MABO:
    """MABO, neither clipped nor regularised: no constants, since without bounded ratios it has no guarantee.

    Parameters
    ----------
    cls : FiniteClass
    weights : WeightClass
    action_mask : (S, A) bool, optional
    """

    cls: FiniteClass
    weights: WeightClass
    action_mask: ArrayLike | None = None

    def choose(self, data: Dataset, law: NDArray[np.float64] | None = None) -> Choice:
        """The greedy policy of the minimiser; `law` is not read."""
        found = mabo(data, self.cls, self.weights, action_mask=self.action_mask)
        return Choice(found.policy, found.index, found.objective)

    def constants(self, delta: float, calls: int = 1, source: str = "ours") -> Constants:
        """There are none: one tuple at a pair of small mass outweighs all others (docs/theory/mabo_cr.md).

        Raises
        ------
        ValueError
        """
        raise ValueError("MABO is not CC-bounded: its weights are neither clipped nor penalised")


@dataclass(frozen=True, eq=False)
class FQI:
    """Fitted Q iteration as an oracle; CC-bounded for every gamma at once if the class is complete.

    Parameters
    ----------
    cls : ProductClass, FiniteClass, or TabularClass
        F in units of reward, T_h f_{h+1} in F_h for every f; of a list every layer counts by itself.
    noise_width : float
        As in `fqi_constants`.
    action_mask : (S, A) bool, optional
    """

    cls: ProductClass | FiniteClass | TabularClass
    noise_width: float = 2.0
    action_mask: ArrayLike | None = None

    def choose(self, data: Dataset, law: NDArray[np.float64] | None = None) -> Choice:
        """The greedy policy of the fitted values; `law` is not read."""
        return Choice(fqi(data, self.cls, action_mask=self.action_mask).policy, -1, np.zeros(0))

    def constants(self, delta: float, calls: int = 1, source: str = "ours") -> Constants:
        """The pair (a, b) of `fqi_constants`.

        Raises
        ------
        ValueError
            For the whole table, which cannot be counted.
        """
        if isinstance(self.cls, TabularClass):
            raise ValueError("constants need a finite class")
        horizon = self.cls.horizon
        sizes = self.cls.sizes if isinstance(self.cls, ProductClass) else (self.cls.size,) * horizon
        pairs = max(math.log(m) + math.log(k) for m, k in zip(sizes, (*sizes[1:], 1), strict=True))
        return fqi_constants(
            horizon=horizon,
            log_pairs=math.log(max(sizes)) if source == "paper" else pairs,
            delta=delta,
            noise_width=self.noise_width,
            calls=calls,
            source=source,
        )


@dataclass(frozen=True, eq=False)
class MLE:
    """The plan of the most likely layers of a list of models; CC-bounded for every gamma if the truth is listed.

    Parameters
    ----------
    models : sequence of FiniteHorizonMDP
    noise_width : float
        As in `likelihood_constants`.
    """

    models: Sequence[FiniteHorizonMDP]
    noise_width: float = 2.0

    def choose(self, data: Dataset, law: NDArray[np.float64] | None = None) -> Choice:
        """The optimal policy of the most likely layers; `law` is not read."""
        return Choice(maximum_likelihood(data, self.models).plan.policy, -1, np.zeros(0))

    def constants(self, delta: float, calls: int = 1, source: str = "ours") -> Constants:
        """The pair (a, b) of `likelihood_constants`."""
        return likelihood_constants(
            horizon=self.models[0].horizon,
            n_models=len(self.models),
            delta=delta,
            noise_width=self.noise_width,
            calls=calls,
            source=source,
        )
