"""Minimax learners: squared residuals against a helper class (MSBO), mean residuals under a class of weights (MABO)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes.values import FiniteClass, ProductClass
from theoryrl.classes.weights import WeightClass
from theoryrl.mdp._checks import Sealed, sealed
from theoryrl.mdp.dataset import Dataset
from theoryrl.offline._data import Tables, n_trajectories, policy_table, require_data, start_of, tables
from theoryrl.offline.estimate import Estimate


@dataclass(frozen=True, eq=False, repr=False)
class Minimax(Sealed):
    """The member of a finite class with the least worst-case residual.

    Attributes
    ----------
    index : int
        The member; the lowest-numbered of equally good ones.
    q : (H, S, A) float64
    policy : (H, S) int64
        Its greedy policy.
    objective : (nF,) float64
        What was minimised, for every member; infinite where an infinite weight meets a residual.
    """

    index: int
    q: NDArray[np.float64]
    policy: NDArray[np.int64]
    objective: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"Minimax(index={self.index} of {self.objective.size}, objective={self.objective[self.index]:.6g})"


def msbo(
    data: Dataset, cls: FiniteClass, helper: ProductClass | FiniteClass, *, action_mask: ArrayLike | None = None
) -> Minimax:
    """Minimax squared Bellman optimisation: least squares minus what the best helper leaves.

    argmin_{f in F} sum_h max_{g in G_h} (1/n) sum [(f_h(s, a) - y)^2 - (g(s, a) - y)^2],  y = r + max_b f_{h+1}(s', b)

    The subtraction removes the variance of y, which plain minimisation of squared residuals would trade for bias.

    Parameters
    ----------
    data : Dataset
        Rows of a layer count for that layer; n is the number of trajectories.
    cls : FiniteClass
        F, of functions of all layers.
    helper : ProductClass or FiniteClass
        G_h are its layers; they should hold T_h f_{h+1} for every f in F.
    action_mask : (S, A) bool, optional

    Returns
    -------
    Minimax

    Notes
    -----
    Antos, Szepesvari and Munos (2008); Xie and Jiang (2020), MSBO. Guarantee: docs/theory/minimax.md.
    """
    _require(cls, FiniteClass, "cls", data)
    _require(helper, (ProductClass, FiniteClass), "helper", data)
    counts, n = tables(data), n_trajectories(data)
    state_values = cls.state_values(action_mask)
    objective = np.zeros(cls.size)
    for h in range(data.horizon):
        visits, sums = counts.visits[h], _sums(counts, h, state_values[:, h + 1])
        layer = helper.layers[h] if isinstance(helper, ProductClass) else helper.values[:, h]
        mine = cls.values[:, h]
        own = (visits * mine**2 - 2 * mine * sums).sum(axis=(1, 2))
        squares = (visits * layer**2).sum(axis=(1, 2))
        cross = _products(sums.reshape(cls.size, -1), layer.reshape(len(layer), -1))
        objective += (own - (squares - 2 * cross).min(axis=1)) / n
    return _chosen(cls, objective, action_mask)


def mabo(data: Dataset, cls: FiniteClass, weights: WeightClass, *, action_mask: ArrayLike | None = None) -> Minimax:
    """Minimax average Bellman optimisation: the least worst mean residual under a class of weights.

    argmin_{f in F} max_{w in W} |(1/n) sum_h sum w_h(s, a) (f_h(s, a) - r - max_{a'} f_{h+1}(s', a'))|

    Parameters
    ----------
    data : Dataset
        n is the number of trajectories.
    cls : FiniteClass
    weights : WeightClass
        W; should hold (d^pi_h / mu_h)_h for an optimal policy and for the greedy policy of every member. Infinite
        entries are taken at their word: data there make the objective infinite unless the mean residual is 0.
    action_mask : (S, A) bool, optional

    Returns
    -------
    Minimax

    Notes
    -----
    Xie and Jiang (2020), MABO, with one weight per layer. Guarantee: docs/theory/minimax.md.
    """
    _require(cls, FiniteClass, "cls", data)
    _require(weights, WeightClass, "weights", data)
    counts, n = tables(data), n_trajectories(data)
    state_values = cls.state_values(action_mask)
    residual = np.stack(
        [counts.visits[h] * cls.values[:, h] - _sums(counts, h, state_values[:, h + 1]) for h in range(data.horizon)],
        axis=1,
    ).reshape(cls.size, -1)
    table = weights.values.reshape(len(weights.values), -1)
    endless = np.isinf(table)
    means = _products(residual, np.where(endless, 0.0, table))
    met = (np.abs(residual) > 0).astype(float) @ endless.T.astype(float) > 0
    objective = np.where(met, math.inf, np.abs(means)).max(axis=1) / n
    return _chosen(cls, objective, action_mask)


def mwl(
    data: Dataset,
    target: Any,
    weights: WeightClass,
    values: FiniteClass,
    *,
    initial: ArrayLike | int | None = None,
) -> tuple[Estimate, int]:
    """Minimax weight learning: the weights whose flow is balanced best against a class of test functions.

    argmin_{w in W} max_{f in F} |(1/n) sum_h sum w_h(s, a) (f_h(s, a) - f_{h+1}(s', pi)) - E_start f_0(s, pi)|

    The estimate is (1/n) sum_h sum w_h r_h. If Q^pi is among the test functions its error on the population is at most
    the minimum; with every table as test function the solution is `marginalised_weights`.

    Parameters
    ----------
    data : Dataset
        n is the number of trajectories.
    target : policy
    weights : WeightClass
        Finite entries.
    values : FiniteClass
        The test functions.
    initial : (S,) distribution or state, optional
        Default: the frequencies of states at step 0.

    Returns
    -------
    estimate : Estimate
        Biased, without a standard error of its own. Refused if the chosen weights are infinite somewhere.
    index : int
        The chosen weights; the lowest-numbered of equally good ones.

    Notes
    -----
    Uehara, Huang and Jiang (2020), MWL, in finite horizon.
    """
    _require(weights, WeightClass, "weights", data)
    _require(values, FiniteClass, "values", data)
    pi, start, counts = policy_table(target, data, "target"), start_of(data, initial), tables(data)
    n = n_trajectories(data)
    under = np.zeros((values.size, data.horizon + 1, data.n_states))
    under[:, :-1] = (pi * values.values).sum(axis=-1)
    flows = np.stack(
        [
            counts.visits[h] * values.values[:, h] - np.einsum("sat,ft->fsa", counts.transitions[h], under[:, h + 1])
            for h in range(data.horizon)
        ],
        axis=1,
    ).reshape(values.size, -1)
    table = weights.values.reshape(len(weights.values), -1)
    usable: NDArray[np.bool_] = np.asarray(np.isfinite(table).all(axis=1))
    balance = _products(np.where(np.isfinite(table), table, 0.0), flows) / n - under[:, 0] @ start
    imbalance = np.where(usable, np.abs(balance).max(axis=1), math.inf)
    index = int(np.argmin(imbalance))
    method = "minimax weight learning"
    if not usable[index]:
        entries = np.argwhere(np.isinf(weights.values[index]))
        return Estimate.refused(method, False, n, tuple((int(h), int(s), int(a)) for h, s, a in entries)), index
    value = float((weights.values[index] * counts.reward_sums).sum()) / n
    return Estimate(value, math.nan, method, False, n), index


def _sums(counts: Tables, h: int, later: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of y over the rows of each pair, one per member: (nF, S, A)."""
    return counts.reward_sums[h] + np.einsum("sat,ft->fsa", counts.transitions[h], later)


def _products(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Left @ right.T with one order of summation for all entries: equal members get equal bits, so ties stay ties."""
    return cast(NDArray[np.float64], np.einsum("ix,jx->ij", left, right, optimize=False))


def _require(cls: Any, kinds: Any, name: str, data: Dataset) -> None:
    require_data(data)
    if not isinstance(cls, kinds):
        wanted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise TypeError(f"{name} must be a {wanted}, not a {type(cls).__name__}")
    cls.require_fits(data)


def _chosen(cls: FiniteClass, objective: NDArray[np.float64], action_mask: ArrayLike | None) -> Minimax:
    index = int(np.argmin(objective))
    policy = FiniteClass(cls.values[index : index + 1]).greedy(action_mask)[0]
    return Minimax(index, cls.values[index], sealed(policy), sealed(objective))
