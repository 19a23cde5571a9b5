"""MABO.CR: minimax Bellman residuals under clipped and regularised density ratios, from offline data of any origin."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes._shape import mask_of
from theoryrl.classes.values import FiniteClass, TabularClass
from theoryrl.classes.weights import WeightClass
from theoryrl.density_ratio import _mabo_kernels as kernels
from theoryrl.density_ratio.problem import Units, in_units
from theoryrl.mdp._checks import frozen, sealed
from theoryrl.mdp.dataset import Dataset
from theoryrl.offline._data import require_data
from theoryrl.offline.fitted import fqi
from theoryrl.offline.minimax import Minimax

FORMS = ("max", "sum")
# Rewards and values whose totals lie in [0, 1] already.
AS_GIVEN = Units(0.0, 1.0)


class Residuals(NamedTuple):
    """What MABO.CR needs to know of a data set.

    Attributes
    ----------
    sums : (H, S, A, nF)
        Sums of f_h(s, a) - r - max_b f_{h+1}(s', b) over the tuples at (h, s, a), in units, for every member f.
    visits : (H, S, A)
        Numbers of tuples.
    size : int
        n, the number of tuples per layer.
    """

    sums: NDArray[np.float64]
    visits: NDArray[np.float64]
    size: int


def mabo_cr(
    data: Dataset,
    cls: FiniteClass | TabularClass,
    weights: WeightClass | None = None,
    *,
    gamma: float,
    form: str = "max",
    c: float = 0.25,
    units: Units = AS_GIVEN,
    action_mask: ArrayLike | None = None,
    tie_order: ArrayLike | None = None,
) -> Minimax:
    """Minimax average Bellman optimisation with clipping and regularisation.

    max: argmin_{f in F} max_h max_{w in W_h}  { |E_D[v_h residual_h(f)]| - alpha E_D[v_h^2] }
    sum: argmin_{f in F} max_{w in W} sum_h    { |E_D[v_h residual_h(f)]| - alpha E_D[v_h^2] }

    with v = min(w, gamma n), alpha = c / (gamma n), residual_h(f) = f_h(s, a) - r - max_b f_{h+1}(s', b), and E_D the
    mean over the n tuples of a layer.

    Parameters
    ----------
    data : Dataset
        As many rows in every layer, from any policies, which may have been chosen from earlier rows.
    cls : FiniteClass or TabularClass
        F, in units of reward. For the full table the certainty-equivalent solution is returned, a minimiser whatever W
        and form; pairs without data have the least value of the class there.
    weights : WeightClass, optional
        W: should hold d^pi / mu for an optimal policy and for the greedy policy of every member, mu the mean law of the
        data. -w need not be listed, and infinity is allowed. Default: every weight function of both signs.
    gamma : float
        Clipping level per tuple, positive and finite.
    form : {"max", "sum"}
        "sum" is the printed form, whose weights (w_0, ..., w_{H-1}) are joint over layers; `single_layers` adds the
        one-layer copies of its analysis. "max" tests layer by layer.
    c : float
        Strength of the penalty, positive; 8 in the paper.
    units : Units
        What brings total rewards to [0, 1]; see `units_of`. Default: they are.
    action_mask : (S, A) bool, optional
    tie_order : permutation of the members, optional
        Of exactly equal members the first in this order is returned. Default: the lowest-numbered.

    Returns
    -------
    Minimax

    Raises
    ------
    ValueError
        No data, layers with different numbers of rows, a gamma, c or form out of range, values that are not in [0, 1]
        in units, sizes that do not fit.

    Notes
    -----
    Amortila, Foster, Jiang, Sekhari and Xie (2024), Appendix F.1 (MABO.CR); the layer-max form and all constants are
    derived in docs/theory/mabo_cr.md. Cost: O(n nF + nW nF H S A).
    """
    require_settings(gamma, form, c)
    mask = _mask(data, cls, weights, action_mask)
    if isinstance(cls, TabularClass):
        if tie_order is not None:
            raise ValueError("the full table has no members to order")
        found = fqi(data, cls, action_mask=mask)
        objective = _objective(data, FiniteClass(found.q[np.newaxis]), weights, gamma, form, c, units, mask, False)
        return Minimax(0, found.q, found.policy, sealed(objective))
    order = order_of(tie_order, cls.size)
    objective = _objective(data, cls, weights, gamma, form, c, units, mask, True)
    index = int(kernels.least_member(objective, order))
    policy = FiniteClass(cls.values[index : index + 1]).greedy(mask)[0]
    return Minimax(index, cls.values[index], sealed(policy), sealed(objective))


def residuals(
    data: Dataset, cls: FiniteClass, *, units: Units = AS_GIVEN, action_mask: ArrayLike | None = None
) -> Residuals:
    """Sums of residuals of every member, row by row in the order of the data.

    Parameters
    ----------
    data : Dataset
    cls : FiniteClass
    units : Units
    action_mask : (S, A) bool, optional
        What the maximum over the successor's actions runs over.

    Returns
    -------
    Residuals

    Raises
    ------
    ValueError
        No data, or layers with different numbers of rows; values that are not in [0, 1] in units.
    """
    mask = _mask(data, cls, None, action_mask)
    return _residuals(data, cls, units, mask, True)


def single_layers(weights: WeightClass) -> WeightClass:
    """W together with its one-layer copies: w^(h) is w at layer h and 0 elsewhere.

    Parameters
    ----------
    weights : WeightClass
        nW members.

    Returns
    -------
    WeightClass
        (H + 1) nW members: those of W, then the copies of layer 0, of layer 1, and so on.
    """
    values, horizon = weights.values, weights.horizon
    kept = np.eye(horizon, dtype=bool)[:, np.newaxis, :, np.newaxis, np.newaxis]
    copies = np.where(kept, values[np.newaxis], 0.0).reshape(-1, *values.shape[1:])
    return WeightClass(np.concatenate([values, copies]))


def require_settings(gamma: float, form: str, c: float) -> None:
    """Refuse a clipping level, a form or a penalty that is out of range."""
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be positive and finite, not {gamma!r}")
    if not 0 < c < math.inf:
        raise ValueError(f"c must be positive and finite, not {c!r}")
    if form not in FORMS:
        raise ValueError(f"form must be 'max' or 'sum', not {form!r}")


def order_of(tie_order: ArrayLike | None, size: int) -> NDArray[np.int64]:
    """A permutation of the members, by default their order in the list.

    Raises
    ------
    ValueError
        What is given is no permutation of 0, ..., nF - 1.
    """
    if tie_order is None:
        return np.arange(size)
    order = frozen(tie_order, np.int64, "tie_order")
    if not np.array_equal(np.sort(order.ravel()), np.arange(size)) or order.ndim != 1:
        raise ValueError(f"tie_order must be a permutation of 0, ..., {size - 1}")
    return order


class _Sizes(NamedTuple):
    horizon: int
    n_states: int
    n_actions: int
    action_mask: NDArray[np.bool_]


def _mask(data: Any, cls: Any, weights: Any, action_mask: ArrayLike | None) -> NDArray[np.bool_]:
    require_data(data)
    if not isinstance(cls, FiniteClass | TabularClass):
        raise TypeError(f"cls must be a FiniteClass or a TabularClass, not a {type(cls).__name__}")
    cls.require_fits(data)
    if weights is not None:
        if not isinstance(weights, WeightClass):
            raise TypeError(f"weights must be a WeightClass, not a {type(weights).__name__}")
        weights.require_fits(data)
    return mask_of(action_mask, data.n_states, data.n_actions)


def _residuals(data: Dataset, cls: FiniteClass, units: Units, mask: NDArray[np.bool_], check: bool) -> Residuals:
    rows = np.bincount(data.step, minlength=data.horizon)
    if (rows != rows[0]).any():
        h = int(np.argmax(rows != rows[0]))
        raise ValueError(f"layer {h} has {rows[h]} rows, layer 0 has {rows[0]}: every layer needs as many")
    if check:
        members = in_units(cls, _Sizes(data.horizon, data.n_states, data.n_actions, mask), units)
        values, best = members.values, members.best
    else:
        to_go = np.arange(data.horizon, -1, -1) * units.low
        values = (np.where(mask, cls.values, 0.0) - to_go[:-1, np.newaxis, np.newaxis]) / units.scale
        best = (cls.state_values(mask) - to_go[:, np.newaxis]) / units.scale
    shape = (data.horizon, data.n_states, data.n_actions)
    sums, visits = np.zeros((*shape, cls.size)), np.zeros(shape)
    kernels.sum_residuals(
        data.step,
        data.state,
        data.action,
        data.reward - units.low,
        data.next_state,
        units.scale,
        np.ascontiguousarray(np.moveaxis(values, 0, -1)),
        np.ascontiguousarray(np.moveaxis(best, 0, -1)),
        sums,
        visits,
    )
    return Residuals(sums, visits, int(rows[0]))


def _objective(
    data: Dataset,
    cls: FiniteClass,
    weights: WeightClass | None,
    gamma: float,
    form: str,
    c: float,
    units: Units,
    mask: NDArray[np.bool_],
    check: bool,
) -> NDArray[np.float64]:
    return objective_of(
        _residuals(data, cls, units, mask, check), None if weights is None else weights.values, gamma, form, c
    )


def objective_of(
    found: Residuals, weights: NDArray[np.float64] | None, gamma: float, form: str = "max", c: float = 0.25
) -> NDArray[np.float64]:
    """What MABO.CR minimises, (nF,), from sums of residuals; `weights` (nW, H, S, A), or None for all of them."""
    size, level = found.sums.shape[-1], gamma * found.size
    objective = np.empty(size)
    if weights is None:
        kernels.full_objective(found.sums, found.visits, found.size, level, c / level, form == "max", objective)
        return objective
    kernels.mabo_objective(
        found.sums,
        found.visits,
        np.ascontiguousarray(weights),
        found.size,
        level,
        c / level,
        form == "max",
        objective,
        np.empty(size),
        np.empty(size),
    )
    return objective
