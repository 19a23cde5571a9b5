"""Eluder dimensions of finite classes: exact by search within a budget, rigorous bounds beyond it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.complexity._eluder_search import RankBound, Search, low_rank_length, rounding_slack
from theoryrl.mdp._checks import entry, first, frozen, require_finite, require_int
from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import greedy

# The default budget: so many steps, and fewer where a step costs much.
BUDGET, WORK = 20_000, 4e8

# Residuals are compared to this many binary places of the largest value.
RESIDUAL_BITS = 40


@dataclass(frozen=True)
class EluderDimension:
    """Bounds on an eluder dimension, and a sequence that attains the lower one.

    Attributes
    ----------
    lower, upper : int
        The dimension lies between them.
    epsilon : float
        The scale that was asked for.
    sequence : tuple of int
        Numbers of `lower` points (columns, distributions); each is e'-independent of those before it.
    witnesses : tuple
        The function that shows it for each: its number, or the pair of numbers whose difference it is.
    threshold : float
        The sequence is independent for every e' from the largest norm on its predecessors up to this number, excluded;
        infinity for an empty sequence.
    nodes : int
        Steps that the search took.
    """

    lower: int
    upper: int
    epsilon: float
    sequence: tuple[int, ...]
    witnesses: tuple[Any, ...]
    threshold: float
    nodes: int

    @property
    def exact(self) -> bool:
        """Whether the two bounds agree."""
        return self.lower == self.upper

    @property
    def value(self) -> int:
        """The dimension.

        Raises
        ------
        ValueError
            If it is only known to lie between two numbers.
        """
        if not self.exact:
            raise ValueError(
                f"the dimension is between {self.lower} and {self.upper}; a larger budget than {self.nodes} may tell"
            )
        return self.lower


@dataclass(frozen=True)
class BellmanEluderDimension:
    """The eluder dimensions of the Bellman residuals of every layer; the dimension is their maximum.

    Attributes
    ----------
    layers : tuple of EluderDimension
    """

    layers: tuple[EluderDimension, ...]

    @property
    def lower(self) -> int:
        """Largest lower bound of a layer."""
        return max(layer.lower for layer in self.layers)

    @property
    def upper(self) -> int:
        """Largest upper bound of a layer."""
        return max(layer.upper for layer in self.layers)

    @property
    def exact(self) -> bool:
        """Whether the two bounds agree."""
        return self.lower == self.upper


def distributional_eluder(expectations: ArrayLike, epsilon: float, *, budget: int | None = None) -> EluderDimension:
    """Distributional eluder dimension of a finite class G on finitely many distributions D.

    dim_DE(G, D, e) is the largest n for which there are nu_1, ..., nu_n in D and e' >= e such that for every i some
    g in G has sqrt(sum_{k < i} (E_{nu_k} g)^2) <= e' and |E_{nu_i} g| > e'.

    Parameters
    ----------
    expectations : (nG, nD) array
        E_{nu_j} g for every function (row) and distribution (column), finite. With point masses: the functions' values.
    epsilon : float
        e >= 0.
    budget : int, optional
        The search takes at most so many steps (sets of distributions that it expands, intervals of thresholds that it
        divides), each of O(nG nD log nD). It is exact when it ends before. Default 20,000, and fewer for a table of
        more than 20,000 numbers: 4 10^8 / (nG nD).

    Returns
    -------
    EluderDimension
        `lower` comes with its sequence. Where the search ended early, `upper` is the least of the bounds by matching
        (at most nG and nD), by positions, and by rank, at the thresholds that were left.

    Raises
    ------
    ValueError
        A wrong shape, NaN or an infinity, a negative epsilon or budget.

    Notes
    -----
    Jin, Liu and Miryoosefi (2021), Bellman eluder dimension, Definition 7; proofs of the search and of the bounds:
    docs/theory/eluder.md. Sums of squares are taken in floats; what is too close for them is decided in rational
    arithmetic.
    """
    matrix = _matrix(expectations)
    epsilon = _scale(epsilon)
    budget = min(BUDGET, int(WORK // matrix.size)) if budget is None else require_int(budget, 0, "budget")
    # Rows and columns with the same absolute values count once: either spends the other.
    table, kept_rows = np.unique(np.abs(matrix), axis=0, return_index=True)
    table, kept_columns = np.unique(table, axis=1, return_index=True)
    table = np.ascontiguousarray(table)
    thresholds = np.unique(table)
    thresholds = thresholds[thresholds > epsilon]
    if not len(thresholds):
        return EluderDimension(0, 0, epsilon, (), (), math.inf, 0)
    search = Search(table, thresholds, rounding_slack(table), budget)
    found = search.run(RankBound(matrix[kept_rows][:, kept_columns]))
    return EluderDimension(
        len(found.sequence),
        found.upper,
        epsilon,
        tuple(int(kept_columns[j]) for j in found.sequence),
        tuple(int(kept_rows[g]) for g in found.witnesses),
        found.threshold,
        found.nodes,
    )


def eluder_dimension(values: Any, epsilon: float, *, budget: int | None = None) -> EluderDimension:
    """Eluder dimension of a finite class F on finitely many points.

    The largest n for which there are points x_1, ..., x_n and e' >= e such that for every i some f, f' in F have
    sqrt(sum_{k < i} (f - f')(x_k)^2) <= e' and |(f - f')(x_i)| > e'.

    Parameters
    ----------
    values : (nF, ...) array, or FiniteClass
        f(x); the axes after the first are taken together, in C order, as the number of the point.
    epsilon, budget
        As in `distributional_eluder`, which is given all nF (nF - 1) / 2 differences.

    Returns
    -------
    EluderDimension
        `witnesses` are pairs (f, f').

    Raises
    ------
    ValueError
        As in `distributional_eluder`.

    Notes
    -----
    Russo and Van Roy (2013), Eluder dimension and the sample complexity of optimistic exploration, Definitions 2 and 3.
    """
    table = frozen(getattr(values, "values", values), np.float64, "values")
    if table.ndim < 2 or 0 in table.shape:
        raise ValueError(f"values has shape {table.shape}, not (nF, points) with at least one of each")
    require_finite(table, "values")
    rows = table.reshape(len(table), -1)
    if len(rows) == 1:
        return EluderDimension(0, 0, _scale(epsilon), (), (), math.inf, 0)
    left, right = np.triu_indices(len(rows), 1)
    with np.errstate(over="ignore"):
        differences = rows[left] - rows[right]
    beyond = ~np.isfinite(differences).all(axis=1)
    if beyond.any():
        raise ValueError(f"values[{left[beyond][0]}] - values[{right[beyond][0]}] overflows")
    found = distributional_eluder(differences, epsilon, budget=budget)
    pairs = tuple((int(left[g]), int(right[g])) for g in found.witnesses)
    return EluderDimension(found.lower, found.upper, found.epsilon, found.sequence, pairs, found.threshold, found.nodes)


def bellman_eluder(
    mdp: FiniteHorizonMDP,
    values: Any,
    epsilon: float,
    *,
    distributions: Any = "points",
    budget: int | None = None,
) -> BellmanEluderDimension:
    """Bellman eluder dimension of a finite class: that of its residuals f_h - T_h f_{h+1}, layer by layer.

    dim_BE(F, D, e) = max_h dim_DE({f_h - T_h f_{h+1} : f in F}, D_h, e)

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    values : (nF, H, S, A) array, or H arrays (m_h, S, A), or FiniteClass, or ProductClass
        The class: a list, or the product of its layers (then every f_h meets every f_{h+1}).
    epsilon : float
        e > 0.
    distributions : "points", "greedy", or (nD, H, S, A) array
        D_h: the point masses at all allowed pairs; the occupancies of the greedy policies of a list; or given
        distributions.
    budget : int, optional
        Per layer; see `distributional_eluder`.

    Returns
    -------
    BellmanEluderDimension
        A sequence of points is in numbers s A + a; one of distributions in their numbers.

    Raises
    ------
    ValueError
        Wrong shapes, NaN, an epsilon that is not positive, occupancies of a product.

    Notes
    -----
    Residuals are rounded to multiples of 2^-40 times the size of the values: the dimension compares them with one
    another, and two that differ by the rounding of a backup alone must not count as different.

    Jin, Liu and Miryoosefi (2021), Bellman eluder dimension, Definition 8 (their Q-type), with D_F ("greedy") and
    D_Delta ("points") of their Section 3.
    """
    require_model(mdp, FiniteHorizonMDP)
    if not _scale(epsilon) > 0:
        raise ValueError("epsilon must be positive: residuals are only known up to rounding")
    values = getattr(values, "layers", getattr(values, "values", values))
    if not isinstance(values, (np.ndarray, Sequence)):
        raise TypeError(f"values must be an array, H arrays or a class of functions, not a {type(values).__name__}")
    listed = isinstance(values, np.ndarray) and values.ndim == 4
    layers: list[Any] = list(np.moveaxis(np.asarray(values), 1, 0)) if listed else list(cast(Sequence[Any], values))
    if len(layers) != mdp.horizon:
        raise ValueError(f"values has {len(layers)} layers, but the horizon is {mdp.horizon}")
    tables = [_layer(layer, h, mdp) for h, layer in enumerate(layers)]
    weights = _weights(distributions, np.stack(tables, axis=1) if listed else None, mdp)
    found = []
    for h, table in enumerate(tables):
        residual = _residuals(mdp, h, table, tables[h + 1] if h + 1 < mdp.horizon else None, listed)
        allowed = np.flatnonzero(mdp.action_mask.reshape(-1))
        flat = residual.reshape(len(residual), -1)[:, allowed]
        if weights is not None:
            found.append(distributional_eluder(flat @ weights[:, h].T[allowed], epsilon, budget=budget))
            continue
        part = distributional_eluder(flat, epsilon, budget=budget)
        points = tuple(int(allowed[j]) for j in part.sequence)
        found.append(
            EluderDimension(part.lower, part.upper, part.epsilon, points, part.witnesses, part.threshold, part.nodes)
        )
    return BellmanEluderDimension(tuple(found))


def eluder_rank_bound(rank: int, epsilon: float, norm: float) -> int:
    """A bound on the (distributional) eluder dimension of functions that are linear in `rank` features.

    The largest n with n log(1 + 1 / (1 + c)) <= r log(1 + n B^2 L^2 / (c r e^2)), the least over c = 2^0, ..., 2^-12,
    for g(nu) = <w_g, v_nu> with w, v in R^r, |w_g|_2 <= B and |v_nu|_2 <= L.

    Parameters
    ----------
    rank : int
        r >= 1.
    epsilon : float
        e > 0.
    norm : float
        B L >= 0; of differences of functions with |w| <= W, B is 2 W.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        A parameter out of range.

    Notes
    -----
    derived here: docs/theory/eluder.md#low-rank, after Russo and Van Roy (2013), Proposition 6.
    """
    rank = require_int(rank, 1, "rank")
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be positive and finite, not {epsilon!r}")
    if not 0 <= norm < math.inf:
        raise ValueError(f"norm must be at least 0 and finite, not {norm!r}")
    if norm <= epsilon:  # |g| never exceeds e
        return 0
    ratio, longest = math.log(norm) - math.log(epsilon), 1
    while low_rank_length(rank, ratio, longest) == longest:
        longest *= 2
    return low_rank_length(rank, ratio, longest)


def is_eluder_sequence(expectations: ArrayLike, sequence: Sequence[int], epsilon: float) -> bool:
    """Whether some e' >= e makes every entry of a sequence e'-independent of those before it; in rational arithmetic.

    Parameters
    ----------
    expectations : (nG, nD) array
    sequence : of column numbers; a column may occur more than once
    epsilon : float

    Raises
    ------
    ValueError
        A wrong shape, NaN or an infinity, a column number out of range.
    """
    matrix = _matrix(expectations)
    for i, j in enumerate(sequence):
        if not 0 <= require_int(j, 0, f"sequence[{i}]") < matrix.shape[1]:
            raise ValueError(f"sequence[{i}] = {j} is not a column (0 to {matrix.shape[1] - 1})")
    exact = [[Fraction(float(x)) ** 2 for x in row] for row in matrix]
    floor = Fraction(_scale(epsilon)) ** 2
    # For each position the intervals [norm^2, value^2) of e'^2 that some function allows.
    spans = [
        [(sum((row[k] for k in sequence[:i]), Fraction(0)), row[j]) for row in exact] for i, j in enumerate(sequence)
    ]
    ends = {floor} | {low for position in spans for low, _ in position if low > floor}
    return any(all(any(low <= e < high for low, high in position) for position in spans) for e in ends)


def _matrix(expectations: ArrayLike) -> NDArray[np.float64]:
    matrix = frozen(expectations, np.float64, "expectations")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"expectations has shape {matrix.shape}, not (nG, nD) with at least one of each")
    require_finite(matrix, "expectations")
    return matrix


def _scale(epsilon: float) -> float:
    if not (isinstance(epsilon, (int, float, np.number)) and 0 <= epsilon < math.inf):
        raise ValueError(f"epsilon must be at least 0 and finite, not {epsilon!r}")
    return float(epsilon)


def _layer(layer: Any, h: int, mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    table = frozen(layer, np.float64, f"values[{h}]")
    if table.ndim != 3 or len(table) == 0 or table.shape[1:] != (mdp.n_states, mdp.n_actions):
        raise ValueError(f"values[{h}] has shape {table.shape}, not (m, {mdp.n_states}, {mdp.n_actions})")
    require_finite(table, f"values[{h}]")
    return table


def _weights(distributions: Any, values: Any, mdp: FiniteHorizonMDP) -> NDArray[np.float64] | None:
    """(nD, H, S A), or None for point masses."""
    if isinstance(distributions, str) and distributions == "points":
        return None
    if isinstance(distributions, str):
        if distributions != "greedy":
            raise ValueError(f"distributions must be 'points', 'greedy' or an array, not {distributions!r}")
        if values is None:
            raise ValueError("the greedy policies of a product are too many to list; give their occupancies")
        table = np.stack([occupancy(mdp, policy) for policy in greedy(values, mdp.action_mask)])
    else:
        table = frozen(distributions, np.float64, "distributions")
        if table.ndim != 4 or len(table) == 0 or table.shape[1:] != (mdp.horizon, mdp.n_states, mdp.n_actions):
            wanted = f"(nD, {mdp.horizon}, {mdp.n_states}, {mdp.n_actions})"
            raise ValueError(f"distributions has shape {table.shape}, not {wanted}")
        require_finite(table, "distributions")
        off = (table < 0).any(axis=(2, 3)) | ~(np.abs(table.sum(axis=(2, 3)) - 1) <= 1e-9)
        if off.any():
            raise ValueError(f"{entry('distributions', first(off))} is not a distribution")
    return table.reshape(len(table), mdp.horizon, -1)


def _residuals(
    mdp: FiniteHorizonMDP, h: int, now: NDArray[np.float64], later: NDArray[np.float64] | None, listed: bool
) -> NDArray[np.float64]:
    """f_h - T_h f_{h+1}, (m, S, A), 0 at forbidden pairs: of every member of a list, of every pair of a product."""
    mask = mdp.action_mask
    values = np.zeros((1, mdp.n_states)) if later is None else np.where(mask, later, -np.inf).max(axis=-1)
    if mdp.is_sparse:
        rows = mdp.transition.to_scipy()
        kernel = rows[h] if isinstance(rows, list) else rows
    else:
        kernel = mdp.transition_layers[h % len(mdp.transition_layers)].reshape(-1, mdp.n_states)
    with np.errstate(invalid="ignore", over="ignore"):  # forbidden rows may hold anything
        images = np.asarray(kernel @ values.T).T.reshape(-1, *mask.shape)
    images = np.where(mask, images + mdp.reward_layers[h % len(mdp.reward_layers)], 0.0)
    if not listed:
        now, images = now[:, np.newaxis], images[np.newaxis]
    residual = np.where(mask, now - images, 0.0).reshape(-1, *mask.shape)
    # Far coarser than rounding, far finer than any residual that matters.
    largest = max(float(np.abs(now).max()), float(np.abs(images).max()))
    grid = 2.0 ** (math.frexp(largest)[1] - RESIDUAL_BITS)
    return np.rint(residual / grid) * grid if 0 < grid else residual
