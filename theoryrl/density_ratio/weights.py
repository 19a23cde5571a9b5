"""Weights that GLOW tests with: ratios of occupancies against the history, ratios of pairs of policies, all weights.

A plain list of weights is a `theoryrl.classes.WeightClass`. The classes here know which weight belongs to which member
f of F: the ratio of its greedy policy. The analysis uses the constraint of f at that weight alone, so that f is tested
with one weight (per candidate model) instead of all; the level still counts every weight that could have been tested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes._shape import Shaped, first_entry
from theoryrl.classes.values import FiniteClass
from theoryrl.classes.weights import WeightClass, density_ratio
from theoryrl.density_ratio.bounds.counts import list_log_tests, mixture_log_tests
from theoryrl.density_ratio.problem import in_units, units_of
from theoryrl.mdp._checks import first, frozen, require_finite, require_int
from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.model import FiniteHorizonMDP

# How far an occupancy or a ratio may be from the true one by rounding.
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class OccupancyRatios(Shaped):
    """The ratios of every policy's occupancy against the policies played, in one or several candidate models.

    At round t, after the policies pi^(1..t-1), member f is tested in every model m with the mixture ratio

        w = d^f / ((1/t) (sum_{i < t} d^(i) + d^f)),   d^(i) and d^f occupancies in model m, 0 / 0 = 0.

    Parameters
    ----------
    masses : (nM, nP, H, S, A) array
        Occupancies of policy p in model m; finite, at least 0.
    row : (nF,) integers
        Which policy is greedy for member f.

    Raises
    ------
    ValueError
        Wrong shapes, a negative or infinite mass, a row that does not exist; the entry is named.
    """

    masses: NDArray[np.float64]
    row: NDArray[np.int64]

    def __post_init__(self) -> None:
        masses = frozen(self.masses, np.float64, "masses")
        if masses.ndim != 5 or 0 in masses.shape:
            raise ValueError(f"masses has shape {masses.shape}, not (nM, nP, H, S, A) with at least one of each")
        require_finite(masses, "masses")
        _require_weights(masses, "masses")
        object.__setattr__(self, "masses", masses)
        object.__setattr__(self, "row", _rows(self.row, masses.shape[1]))

    n_models = property(lambda self: self.masses.shape[0], doc="Number nM of candidate models.")
    n_policies = property(lambda self: self.masses.shape[1], doc="Number nP of distinct policies.")
    horizon = property(lambda self: self.masses.shape[2], doc="H.")
    n_states = property(lambda self: self.masses.shape[3], doc="S.")
    n_actions = property(lambda self: self.masses.shape[4], doc="A.")

    def __repr__(self) -> str:
        return f"OccupancyRatios(models={self.n_models}, policies={self.n_policies}, members={len(self.row)})"


@dataclass(frozen=True, eq=False, repr=False)
class RatioTable(Shaped):
    """Ratios d^i / d^j of pairs of policies, from which those against mixtures follow without enumerating them.

    At round t, after the policies p_1, ..., p_{t-1}, member f is tested with

        w = 1 / ((1/t) (sum_{i < t} values[p_i, p_f] + values[p_f, p_f])),   1 / 0 = infinity, 1 / infinity = 0.

    Parameters
    ----------
    values : (nP, nP, H, S, A) array
        values[i, j] = d^i / d^j; at least 0, infinity is allowed (and means that w is 0), NaN is not.
    row : (nF,) integers
        Which policy is greedy for member f.

    Raises
    ------
    ValueError
        Wrong shapes, a negative ratio or NaN, a row that does not exist; the entry is named.
    """

    values: NDArray[np.float64]
    row: NDArray[np.int64]

    def __post_init__(self) -> None:
        values = frozen(self.values, np.float64, "values")
        if values.ndim != 5 or 0 in values.shape or values.shape[0] != values.shape[1]:
            raise ValueError(f"values has shape {values.shape}, not (nP, nP, H, S, A) with at least one of each")
        _require_weights(values, "values")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "row", _rows(self.row, values.shape[0]))

    n_policies = property(lambda self: self.values.shape[0], doc="Number nP of policies.")
    horizon = property(lambda self: self.values.shape[2], doc="H.")
    n_states = property(lambda self: self.values.shape[3], doc="S.")
    n_actions = property(lambda self: self.values.shape[4], doc="A.")

    def __repr__(self) -> str:
        return f"RatioTable(policies={self.n_policies}, members={len(self.row)})"


@dataclass(frozen=True)
class FullWeights:
    """All weights w >= 0 at once; the largest of the tests has a closed form, and needs neither clipping nor a count.

    With G(x) the sum of the residuals of f at x, and N(x) visits, f is kept at layer h as long as

        sum_x max(G(x), 0)^2 / (N(x) + rho) <= (b^2 / 2) (log(H / delta) + (1/2) sum_x log(1 + N(x) / rho)),

    the test and the level of `mixture_test`.

    Parameters
    ----------
    prior : positive float
        rho, chosen before the data: the level is sharpest after about so many visits. Any value is valid.
    """

    prior: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.prior < math.inf:
            raise ValueError(f"prior must be positive and finite, not {self.prior!r}")


Weights = WeightClass | OccupancyRatios | RatioTable | FullWeights


def _require_weights(table: NDArray[np.float64], name: str) -> None:
    wrong = ~(table >= 0)
    if wrong.any():
        raise ValueError(f"{first_entry(wrong, name)} is {table[first(wrong)]}, not 0 or more")


def _rows(row: Any, n_policies: int) -> NDArray[np.int64]:
    rows = frozen(row, np.int64, "row")
    if rows.ndim != 1 or rows.size == 0:
        raise ValueError(f"row has shape {rows.shape}, not (nF,) with at least one member")
    wrong = ~((rows >= 0) & (rows < n_policies))
    if wrong.any():
        raise ValueError(f"{first_entry(wrong, 'row')} = {rows[first(wrong)]}, but there are {n_policies} policies")
    return rows


def greedy_occupancies(
    cls: FiniteClass, mdps: Sequence[FiniteHorizonMDP], total_reward: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Occupancies (nM, nP, H, S, A) of the distinct greedy policies of F, and which of them is that of f, (nF,).

    Policies that no model tells apart (they differ where none of them gets) count as one.
    """
    greedy = in_units(cls, mdps[0], units_of(mdps[0], total_reward)).greedy
    policies, of_member = np.unique(greedy, axis=0, return_inverse=True)
    masses = np.stack([np.stack([occupancy(mdp, policy) for policy in policies]) for mdp in mdps])
    flat = np.moveaxis(masses, 1, 0).reshape(len(policies), -1)
    _, place, of_policy = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    row = of_policy.ravel()[of_member.ravel()]
    # Numbered in the order of the members, not of the tables.
    _, first_member = np.unique(row, return_index=True)
    order = np.argsort(first_member)
    return np.ascontiguousarray(masses[:, place[order]]), np.argsort(order)[row]


def occupancy_ratios(
    cls: FiniteClass, mdps: FiniteHorizonMDP | Sequence[FiniteHorizonMDP], total_reward: float | None = None
) -> OccupancyRatios:
    """The mixture ratios of the greedy policies of F: in the true model, or in each of a class of candidate models.

    Parameters
    ----------
    cls : FiniteClass
    mdps : FiniteHorizonMDP, or a sequence of them
        One model: ratios known exactly. Several: the theorems need the true one to be among them.
    total_reward : float, optional
        As given to the learner (it decides the units in which greedy actions are compared).

    Returns
    -------
    OccupancyRatios
        Its policies are the distinct ones, in the order in which members have them.

    Raises
    ------
    ValueError
        No model, models of different sizes, or a class that does not fit.
    """
    models = [mdps] if isinstance(mdps, FiniteHorizonMDP) else list(mdps)
    if not models:
        raise ValueError("mdps is empty")
    for i, mdp in enumerate(models):
        try:
            cls.require_fits(mdp)
        except ValueError as error:
            raise ValueError(f"mdps[{i}]: {error}") from None
        if not np.array_equal(mdp.action_mask, models[0].action_mask):
            raise ValueError(f"mdps[{i}] allows other actions than mdps[0]")
    return OccupancyRatios(*greedy_occupancies(cls, models, total_reward))


def ratio_table(cls: FiniteClass, mdp: FiniteHorizonMDP, total_reward: float | None = None) -> RatioTable:
    """The ratios d^i / d^j of the greedy policies of F in `mdp`; 0 / 0 is 0 and x / 0 is infinity.

    Parameters
    ----------
    cls : FiniteClass
    mdp : FiniteHorizonMDP
    total_reward : float, optional
        As given to the learner.

    Returns
    -------
    RatioTable
    """
    masses, row = greedy_occupancies(cls, [mdp], total_reward)
    return RatioTable(density_ratio(masses[0][:, np.newaxis], masses[0][np.newaxis]), row)


def log_tests(weights: Weights, iterations: int) -> float:
    """The logarithm of the number of (t, w) that one layer can be tested with until round T.

    A list: nW T. Ratios against mixtures: nM nP C(T + nP - 1, nP), because the weights of round t are determined by the
    model, the policy and how often each policy was played in the t - 1 rounds before.

    Parameters
    ----------
    weights : WeightClass, OccupancyRatios or RatioTable
    iterations : int
        T, at least 1.

    Returns
    -------
    float
        `list_log_tests` or `mixture_log_tests`.
    """
    return float(_log_tests(weights, require_int(iterations, 1, "iterations"), anytime=False))


def log_tests_of_rounds(weights: Weights, iterations: int) -> NDArray[np.float64]:
    """The logarithm of pi^2 t^2 / 6 times the number of weights that round t can test with, (T,): for all T at once."""
    return _log_tests(weights, np.arange(1, require_int(iterations, 1, "iterations") + 1), anytime=True)


def _log_tests(weights: Weights, rounds: ArrayLike, anytime: bool) -> NDArray[np.float64]:
    if isinstance(weights, WeightClass):
        return list_log_tests(rounds, weights.size, anytime=anytime)
    if not isinstance(weights, OccupancyRatios | RatioTable):
        raise TypeError(f"the tests of a {type(weights).__name__} cannot be counted")
    models = weights.n_models if isinstance(weights, OccupancyRatios) else 1
    return mixture_log_tests(rounds, weights.n_policies, models, anytime=anytime)


def missing_ratio(
    weights: Weights,
    cls: FiniteClass,
    mdp: FiniteHorizonMDP,
    *,
    ceiling: float,
    total_reward: float | None = None,
) -> str | None:
    """Which density ratio of the greedy policies of F in `mdp` the weights lack; None if none is found missing.

    Ratios of policies are compared in full. Of a list the ratios against mixtures of two, 2 d^f / (d^g + d^f), are
    looked for, clipped at `ceiling` and where there is mass: that is necessary for the regret bound. All mixtures of T
    policies are too many to be looked for.

    Parameters
    ----------
    weights : WeightClass, OccupancyRatios, RatioTable or FullWeights
    cls : FiniteClass
    mdp : FiniteHorizonMDP
    ceiling : float
        gamma_2 = 2 gamma.
    total_reward : float, optional
    """
    if isinstance(weights, FullWeights):
        return None
    tables, row = greedy_occupancies(cls, [mdp], total_reward)
    true, mask = tables[0], mdp.action_mask
    if isinstance(weights, OccupancyRatios):
        return _missing_occupancy(weights, true[row], mask)
    member = [int(np.argmax(row == p)) for p in range(len(true))]
    for i, d in enumerate(true):
        for j, other in enumerate(true):
            matter = mask & (d + other > 0)
            if isinstance(weights, RatioTable):
                found = _missing_pair(weights, member[i], member[j], density_ratio(d, other), matter)
            else:
                want = np.minimum(density_ratio(2 * d, d + other), ceiling)
                found = _missing_mixture(weights, member[i], member[j], want, matter, ceiling)
            if found:
                return found
    return None


def _missing_occupancy(weights: OccupancyRatios, true: NDArray[np.float64], mask: NDArray[np.bool_]) -> str | None:
    gaps = np.abs(np.where(mask, weights.masses[:, weights.row] - true, 0.0))
    model = int(gaps.reshape(len(gaps), -1).max(axis=1).argmin())
    f, h, s, a = _worst(gaps[model])
    gap = gaps[model, f, h, s, a]
    if gap <= TOLERANCE:
        return None
    return (
        f"weights lack the occupancy of the greedy policy of member {f}: model {model}, the nearest one, is off by "
        f"{gap:.3g} at layer {h}, (s, a) = ({s}, {a})"
    )


def _missing_pair(
    weights: RatioTable, i: int, j: int, want: NDArray[np.float64], matter: NDArray[np.bool_]
) -> str | None:
    p, q = weights.row[i], weights.row[j]
    have = weights.values[p, q]
    with np.errstate(invalid="ignore"):
        gaps = np.abs(have - want) / np.maximum(1.0, np.where(np.isinf(want), 1.0, want))
    gaps = np.where(matter & (have != want), gaps, 0.0)
    h, s, a = _worst(gaps)
    if gaps[h, s, a] <= TOLERANCE:
        return None
    return (
        f"weights.values[{p}, {q}, {h}, {s}, {a}] is {have[h, s, a]:.6g}, but the ratio of the policy of member {i} "
        f"against that of member {j} is {want[h, s, a]:.6g}"
    )


def _missing_mixture(
    weights: WeightClass, i: int, j: int, want: NDArray[np.float64], matter: NDArray[np.bool_], ceiling: float
) -> str | None:
    gaps = np.where(matter, np.abs(np.minimum(weights.values, ceiling) - want), 0.0).max(axis=(2, 3))
    least = gaps.min(axis=0)
    h = int(least.argmax())
    if least[h] <= TOLERANCE * max(1.0, ceiling):
        return None
    return (
        f"weights lack a ratio at layer {h}: that of the policy of member {i} against the mean of it and of that of "
        f"member {j}, clipped at {ceiling:.6g}; weight {int(gaps[:, h].argmin())}, the nearest one, is off by "
        f"{least[h]:.6g}"
    )


def _worst(gaps: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(gaps.argmax()), gaps.shape))
