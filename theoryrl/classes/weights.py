"""Classes of weights: density ratios of occupancies, and the conventions for 0/0 and x/0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes._shape import Shaped, first_entry
from theoryrl.mdp._checks import first, frozen, require_finite, require_int
from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.randomness import Rng, as_generator


@dataclass(frozen=True, eq=False, repr=False)
class WeightClass(Shaped):
    """A finite list W of weight functions w = (w_0, ..., w_{H-1}), each from (s, a) to [0, infinity].

    Parameters
    ----------
    values : (nW, H, S, A) array
        At least 0; infinity is allowed, NaN is not.

    Raises
    ------
    ValueError
        Wrong shape, an empty axis, a negative number or NaN; the entry is named.
    """

    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        values = frozen(self.values, np.float64, "values")
        if values.ndim != 4 or 0 in values.shape:
            raise ValueError(f"values has shape {values.shape}, not (nW, H, S, A) with at least one of each")
        wrong = ~(values >= 0)
        if wrong.any():
            raise ValueError(f"{first_entry(wrong, 'values')} is {values[first(wrong)]}, not a weight (0 or more)")
        object.__setattr__(self, "values", values)

    size = property(lambda self: self.values.shape[0], doc="Number nW of members.")
    horizon = property(lambda self: self.values.shape[1], doc="H.")
    n_states = property(lambda self: self.values.shape[2], doc="S.")
    n_actions = property(lambda self: self.values.shape[3], doc="A.")

    @property
    def log_size(self) -> float:
        """The logarithm of nW."""
        return math.log(self.size)

    def __repr__(self) -> str:
        return f"WeightClass(size={self.size}, H={self.horizon}, S={self.n_states}, A={self.n_actions})"


def clip_weights(weights: ArrayLike, ceiling: float) -> NDArray[np.float64]:
    """Clipped weights, sign(w) min(|w|, gamma); infinities become +-gamma.

    Parameters
    ----------
    weights : array
        May be signed; no NaN.
    ceiling : float
        gamma >= 0.

    Raises
    ------
    ValueError
        A NaN, or a negative ceiling.
    """
    if not ceiling >= 0:
        raise ValueError(f"ceiling must be at least 0, not {ceiling!r}")
    table = np.asarray(weights, np.float64)
    if np.isnan(table).any():
        raise ValueError(f"{first_entry(np.isnan(table), 'weights')} is nan")
    return np.clip(table, -ceiling, ceiling)


def density_ratio(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
    """The ratio d / mu of two tables of masses, with 0 / 0 = 0 and x / 0 = infinity for x > 0.

    Parameters
    ----------
    numerator, denominator : arrays that broadcast
        Finite and at least 0.

    Raises
    ------
    ValueError
        A negative number, NaN or an infinity; the entry is named.
    """
    over, under = _masses(numerator, "numerator"), _masses(denominator, "denominator")
    over, under = np.broadcast_arrays(over, under)
    ratio = np.where(over > 0, np.inf, 0.0)
    with np.errstate(over="ignore"):
        np.divide(over, under, out=ratio, where=under > 0)
    return ratio


def _masses(values: ArrayLike, name: str) -> NDArray[np.float64]:
    masses = frozen(values, np.float64, name)
    require_finite(masses, name)
    wrong = ~(masses >= 0)
    if wrong.any():
        raise ValueError(f"{first_entry(wrong, name)} is negative ({masses[first(wrong)]})")
    return masses


def occupancies(mdp: FiniteHorizonMDP, policies: Sequence[Any]) -> NDArray[np.float64]:
    """The occupancies of all policies, (n, H, S, A)."""
    given = list(policies)
    if not given:
        raise ValueError("policies is empty")
    tables = []
    for i, policy in enumerate(given):
        try:
            tables.append(occupancy(mdp, policy))
        except ValueError as error:
            raise ValueError(f"policies[{i}]: {error}") from None
    return np.stack(tables)


def ratio_class(
    mdp: FiniteHorizonMDP,
    policies: Sequence[Any],
    *,
    against: Any = "each",
    n_distractors: int = 0,
    rng: Rng = 0,
) -> WeightClass:
    """Density ratios of the occupancies of policies, with distractors after them.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policies : sequence of n policies
        pi_0, ..., pi_{n-1}, in any form that `occupancy` takes.
    against : "each", "mean", or an array (H, S, A) or (S, A)
        What the ratios are taken against. "each": all d^{pi_i} / d^{pi_j}, member i * n + j. "mean": all
        d^{pi_i} / mean_j d^{pi_j}, which are at most n. An array: all d^{pi_i} / mu for the given masses mu.
    n_distractors : int
        Further members whose entries are independent and log-normal (median 1, the log has unit variance).
    rng : int, SeedSequence or Generator
        For the distractors.

    Returns
    -------
    WeightClass
        0 / 0 is 0 and x / 0 is infinity.

    Raises
    ------
    ValueError
        No policies, a policy that does not fit, masses that are negative or of another shape.
    """
    masses = occupancies(mdp, policies)
    if isinstance(against, str):
        if against not in ("each", "mean"):
            raise ValueError(f"against must be 'each', 'mean' or an array of masses, not {against!r}")
        below = masses if against == "each" else masses.mean(axis=0, keepdims=True)
    else:
        below = _masses(against, "against")
        if below.shape not in (masses.shape[1:], masses.shape[2:]):
            raise ValueError(f"against has shape {below.shape}, not {masses.shape[1:]} or {masses.shape[2:]}")
        below = np.broadcast_to(below, masses.shape[1:])[np.newaxis]
    ratios = density_ratio(masses[:, np.newaxis], below[np.newaxis]).reshape(-1, *masses.shape[1:])
    n_distractors = require_int(n_distractors, 0, "n_distractors")
    noise = np.exp(as_generator(rng).standard_normal((n_distractors, *masses.shape[1:])))
    return WeightClass(np.concatenate([ratios, noise]))


def mixture_ratio_class(
    mdp: FiniteHorizonMDP, policies: Sequence[Any], rounds: int, *, limit: int = 100_000
) -> WeightClass:
    """All ratios d^{pi_i} / ((1/t) sum_{k <= t} d^{pi_{i_k}}) for t <= `rounds`, whatever the order of the mixture.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policies : sequence of n policies
    rounds : int
        T, at least 1: the longest mixture.
    limit : int
        The class has n (C(n + T, T) - 1) members; more than this many are refused.

    Returns
    -------
    WeightClass
        First all t = 1 mixtures, then t = 2 and so on; for each mixture the n policies in turn.

    Raises
    ------
    ValueError
        More than `limit` members, or a policy that does not fit.

    Notes
    -----
    Amortila, Foster, Jiang, Sekhari and Xie (2024), Harnessing density ratios for online reinforcement learning,
    Assumption 2.2'.
    """
    masses = occupancies(mdp, policies)
    rounds, n = require_int(rounds, 1, "rounds"), len(masses)
    _require_room(n * (math.comb(n + rounds, rounds) - 1), limit)
    mixtures = [
        masses[list(c)].mean(axis=0) for t in _sizes(rounds) for c in combinations_with_replacement(range(n), t)
    ]
    ratios = density_ratio(masses[np.newaxis], np.stack(mixtures)[:, np.newaxis])
    return WeightClass(ratios.reshape(-1, *masses.shape[1:]))


def mixture_lift(weights: WeightClass, rounds: int, *, limit: int = 100_000) -> WeightClass:
    """From ratios of single policies to ratios against mixtures: all 1 / ((1/t) sum_{k <= t} w_k) for t <= `rounds`.

    With w_k = d_k / d the lifted weight is d / mean_k d_k, where d > 0. 1 / 0 is infinity and 1 / infinity is 0.

    Parameters
    ----------
    weights : WeightClass
        W, with the ratios d_k / d as members.
    rounds : int
        T, at least 1.
    limit : int
        There are C(|W| + T, T) - 1 members; more than this many are refused.

    Returns
    -------
    WeightClass

    Raises
    ------
    ValueError
        More than `limit` members.

    Notes
    -----
    Amortila et al. (2024), proof of Theorem 3.2; they count (2 |W|)^T, ordered.
    """
    rounds = require_int(rounds, 1, "rounds")
    _require_room(math.comb(weights.size + rounds, rounds) - 1, limit)
    lifted = []
    for t in _sizes(rounds):
        for chosen in combinations_with_replacement(range(weights.size), t):
            mean = weights.values[list(chosen)].mean(axis=0)
            lifted.append(np.divide(1.0, mean, out=np.full(mean.shape, np.inf), where=mean > 0))
    return WeightClass(np.stack(lifted))


def _sizes(rounds: int) -> range:
    return range(1, rounds + 1)


def _require_room(count: int, limit: int) -> None:
    if count > limit:
        raise ValueError(f"the class has {count} members, more than limit={limit}")
