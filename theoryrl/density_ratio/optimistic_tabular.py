r"""Optimism over the whole table of values, F = [0, 1]^(H S A): what GLOW maximises when F is not a list.

Three programs, proved in docs/theory/density_ratio_tabular.md:

- a finite class of weights: a mixed-integer linear program, `optimistic_milp`;
- all weights: max over policies of J^(pi) + sum_h sqrt(B_h) ||d^_h / sqrt(M_h)||_2 in the empirical model, which
  maximises a convex function over occupancies, `optimistic_policy` (branch and bound with a certified gap);
- its relaxation to one interval per pair, value iteration with bonuses sqrt(B_h / M_z), `optimistic_box`.

All numbers are in the units of `problem.py`; `tabular_data` makes the data.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes.weights import WeightClass, clip_weights
from theoryrl.density_ratio._policy_search import Ellipsoid, Search, limited_iteration, under_limit, widths
from theoryrl.density_ratio.full_weights import TabularData, mixture_level, mixture_precision
from theoryrl.mdp._checks import entry, first, frozen, require_finite, require_int


class OptimisticValues(NamedTuple):
    """A solved program over tables of values.

    Attributes
    ----------
    value : float
        sum_s mu(s) max_a f_0(s, a) of the table that was found.
    upper : float
        No table in the set has more; equal to `value` up to rounding if solved to the end.
    values : (H, S, A)
        f in units; 0 at forbidden pairs.
    policy : int64 (H, S)
        Greedy for f, ties to the lowest-numbered allowed action.
    """

    value: float
    upper: float
    values: NDArray[np.float64]
    policy: NDArray[np.int64]


class OptimisticPolicy(NamedTuple):
    """The best pair of a policy and a bonus that the data allow.

    Attributes
    ----------
    value : float
        J^(pi) + sum_h sqrt(B_h) ||d^_h / sqrt(M_h)||_2 of `policy`: the largest mu . V^f_0 in the ellipsoid if values
        of known pairs are not limited.
    upper : float
        No policy has more; `value` is optimal within upper - value.
    policy : int64 (H, S)
    bonus : (H, S, A)
        e*_z = sqrt(B_h) (d^_z / M_z) / ||d^_h / sqrt(M_h)||_2.
    limited_value, limited_upper : float
        The largest mu . V^f_0 over the f of the ellipsoid with f_h <= largest_h at every pair lies between these. They
        agree with `value` where the limit is not active, and may differ by some hundredths where it is.
    values : (H, S, A)
        A member f of the ellipsoid below the limit with mu . V^f_0 = limited_value; 0 at forbidden pairs.
    nodes : int
        Nodes of all searches.
    """

    value: float
    upper: float
    policy: NDArray[np.int64]
    bonus: NDArray[np.float64]
    limited_value: float
    limited_upper: float
    values: NDArray[np.float64]
    nodes: int


def glow_ellipsoid(data: TabularData, *, alpha: float, ceiling: float, level: ArrayLike) -> Ellipsoid:
    """GLOW's confidence set for the class of all weights: sum_z N_z (m_z)_+^2 <= 4 alpha beta_h n_h.

    Parameters
    ----------
    data : TabularData
    alpha, ceiling : float
        alpha_t and gamma_t with 2 alpha gamma >= 1, so that no weight is clipped for f in [0, 1].
    level : float or (H,)
        beta_t >= 0.

    Returns
    -------
    Ellipsoid

    Raises
    ------
    ValueError
        Parameters for which clipping is active, so that the set is no ellipsoid, or out of range.
    """
    if not (0 < alpha < math.inf and ceiling > 0):
        raise ValueError(f"alpha and ceiling must be positive, not {alpha!r} and {ceiling!r}")
    if not 2 * alpha * ceiling >= 1 - 1e-12:
        raise ValueError(
            f"2 alpha gamma = {2 * alpha * ceiling:.6g} is below 1: weights are clipped, the set is larger"
        )
    levels = _per_layer(level, len(data.visits), "level")
    return Ellipsoid(data.visits, 4 * alpha * levels * data.visits.sum(axis=(1, 2)))


def mixture_ellipsoid(data: TabularData, *, delta: float, noise_width: float = 1.0, prior: float = 1.0) -> Ellipsoid:
    """The set of `mixture_test`, which holds Q* at all times with probability 1 - delta.

    Parameters
    ----------
    data : TabularData
    delta, noise_width, prior
        As in `mixture_level`.

    Returns
    -------
    Ellipsoid

    Raises
    ------
    ValueError
        As `mixture_level`.
    """
    level = mixture_level(data.visits, delta=delta, noise_width=noise_width, prior=prior)
    return Ellipsoid(mixture_precision(data.visits, prior), level)


def optimistic_box(data: TabularData, ellipsoid: Ellipsoid, *, largest: ArrayLike = 1.0) -> OptimisticValues:
    """Value iteration with one bonus per pair, U_h(z) = min(largest_h, rbar_z + Phat_z max U_{h+1} + sqrt(B_h / M_z)).

    Every f in the ellipsoid with f_h <= largest_h lies below U at every pair and layer; so Q* does whenever it is in
    the set.

    Parameters
    ----------
    data : TabularData
    ellipsoid : Ellipsoid
    largest : float or (H,)
        What no value exceeds, in units; it is the value of a pair with M_z = 0.

    Returns
    -------
    OptimisticValues
        `value` and `upper` are both mu . max U_0.
    """
    _checked(data, ellipsoid)
    caps = _per_layer(largest, len(data.visits), "largest")
    value, values, policy = limited_iteration(data, ellipsoid.precision > 0, caps, widths(ellipsoid))
    return OptimisticValues(value, value, values, policy)


def optimistic_milp(
    data: TabularData,
    weights: WeightClass,
    *,
    alpha: float,
    ceiling: float,
    level: ArrayLike,
    largest: ArrayLike = 1.0,
    time_limit: float | None = None,
) -> OptimisticValues:
    r"""The largest mu . V^f_0 over all f in [0, 1]^(H S A) that pass GLOW's test with a finite class of weights.

        max  sum_s mu(s) V_0(s)   over  0 <= f_h, V_h <= 1,  y binary with sum_a y_h(s, a) = 1
        s.t. V_h(s) <= f_h(s, a) + 1 - y_h(s, a),
             E[w (f_h - rbar - Phat V_{h+1})] <= beta_h + alpha E[w^2]   for all w in W_h, clipped

    with E[x] = sum_z N_z x_z / n. V below max_a f_h is allowed, which changes nothing: weights are not negative, so a
    larger V only relaxes the rows.

    Parameters
    ----------
    data : TabularData
    weights : WeightClass
        W; entries of forbidden pairs are not read.
    alpha, ceiling : float
        alpha_t >= 0 and gamma_t >= 0, finite.
    level : float or (H,)
        beta_t.
    largest : float or (H,)
        What values may reach instead of 1, per layer.
    time_limit : float, optional
        Seconds for the solver; if it ends before, `upper` says what is left.

    Returns
    -------
    OptimisticValues
        `values` is feasible up to the solver's tolerance (1e-6 in units).

    Raises
    ------
    ValueError
        Parameters out of range, a class of other sizes, or no feasible table (possible only if beta < 0).
    RuntimeError
        The solver ended without a table.

    Notes
    -----
    Solved by HiGHS: H S A binaries and H |W| rows. Amortila et al. (2024), Algorithm 1, line 4, for the program.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    shape = data.visits.shape
    mine = weights.horizon, weights.n_states, weights.n_actions
    if mine != shape:
        raise ValueError(f"weights are for (H, S, A) = {mine}, the data for {shape}")
    if not 0 <= alpha < math.inf or not 0 <= ceiling < math.inf:
        raise ValueError(f"alpha and ceiling must be at least 0 and finite, not {alpha!r} and {ceiling!r}")
    levels = _per_layer(level, shape[0], "level", lowest=-math.inf)
    caps = _per_layer(largest, shape[0], "largest")
    program = _Program(data, caps)
    rows, right = program.tests(clip_weights(weights.values, ceiling), alpha, levels)
    options = {"mip_rel_gap": 1e-9} | ({} if time_limit is None else {"time_limit": time_limit})
    solution = milp(
        -program.objective(),
        integrality=program.integrality(),
        bounds=Bounds(0.0, program.upper_bounds()),
        constraints=[
            LinearConstraint(rows, ub=right),
            LinearConstraint(*program.choices()),
            LinearConstraint(program.one_action(), lb=1.0, ub=1.0),
        ],
        options=options,
    )
    if solution.status == 2:
        raise ValueError("no table of values passes the test: a level is too far below 0")
    if solution.x is None:
        raise RuntimeError(f"the solver found no table: {solution.message}")
    values = program.values(solution.x)
    allowed = np.where(data.action_mask, values, -np.inf)
    bound = solution.mip_dual_bound if solution.mip_dual_bound is not None else solution.fun
    return OptimisticValues(float(-solution.fun), float(max(-bound, -solution.fun)), values, allowed.argmax(axis=-1))


class _Program:
    """Columns f, V, y of the mixed-integer program, in this order; f and y for allowed pairs only."""

    def __init__(self, data: TabularData, caps: NDArray[np.float64]) -> None:
        self.data, self.caps = data, caps
        self.shape = data.visits.shape
        self.pairs = np.flatnonzero(np.broadcast_to(data.action_mask, self.shape))
        self.n_pairs, self.n_states = len(self.pairs), self.shape[0] * self.shape[1]
        self.state = self.pairs // self.shape[2]
        self.cap = caps[self.pairs // (self.shape[1] * self.shape[2])]

    def objective(self) -> NDArray[np.float64]:
        out = np.zeros(2 * self.n_pairs + self.n_states)
        out[self.n_pairs : self.n_pairs + self.shape[1]] = self.data.initial
        return out

    def integrality(self) -> NDArray[np.float64]:
        return np.r_[np.zeros(self.n_pairs + self.n_states), np.ones(self.n_pairs)]

    def upper_bounds(self) -> NDArray[np.float64]:
        return np.r_[self.cap, np.repeat(self.caps, self.shape[1]), np.ones(self.n_pairs)]

    def tests(self, clipped: NDArray, alpha: float, levels: NDArray) -> tuple[NDArray, NDArray]:
        """One row per layer with data and weight."""
        data, rows, right = self.data, [], []
        for h, visits in enumerate(data.visits):
            n = visits.sum()
            if not n > 0:
                continue
            share = visits / n
            for w in clipped[:, h]:
                table, later = np.zeros(self.shape), np.zeros((self.shape[0], self.shape[1]))
                table[h] = share * w
                if h + 1 < self.shape[0]:
                    later[h + 1] = -np.einsum("sa,sat->t", share * w, data.transition[h])
                rows.append(np.r_[table.ravel()[self.pairs], later.ravel(), np.zeros(self.n_pairs)])
                right.append(levels[h] + alpha * (share * w**2).sum() + (share * w * data.reward[h]).sum())
        return np.reshape(rows, (len(rows), 2 * self.n_pairs + self.n_states)), np.array(right)

    def choices(self) -> tuple[Any, Any, Any]:
        """V_h(s) - f_h(s, a) + cap_h y_h(s, a) <= cap_h."""
        from scipy.sparse import coo_array

        k = np.arange(self.n_pairs)
        column = np.r_[self.n_pairs + self.state, k, self.n_pairs + self.n_states + k]
        data = np.r_[np.ones(self.n_pairs), -np.ones(self.n_pairs), self.cap]
        matrix = coo_array((data, (np.tile(k, 3), column)), shape=(self.n_pairs, 2 * self.n_pairs + self.n_states))
        return matrix.tocsc(), -np.inf, self.cap

    def one_action(self) -> Any:
        from scipy.sparse import coo_array

        k = np.arange(self.n_pairs)
        shape = (self.n_states, 2 * self.n_pairs + self.n_states)
        return coo_array((np.ones(self.n_pairs), (self.state, self.n_pairs + self.n_states + k)), shape=shape).tocsc()

    def values(self, x: NDArray) -> NDArray[np.float64]:
        table = np.zeros(math.prod(self.shape))
        table[self.pairs] = np.clip(x[: self.n_pairs], 0.0, self.cap)
        return table.reshape(self.shape)


def optimistic_policy(
    data: TabularData,
    ellipsoid: Ellipsoid,
    *,
    largest: ArrayLike = 1.0,
    tolerance: float = 1e-9,
    node_limit: int = 10_000,
) -> OptimisticPolicy:
    r"""The most optimistic policy for an ellipsoid of values, by branch and bound.

        max over pi of  J^(pi) + sum_h sqrt(B_h) ||d^_h / sqrt(M_h)||_2

    J^ and d^ are return and occupancy in the empirical model, where a pair with M_z = 0 pays largest_h and ends the
    episode. The objective is convex in the occupancy, so that some deterministic policy maximises it, and finding it is
    no linear program. A node of the search restricts the actions at some states. Its upper bound is the smaller of two:
    bonuses sqrt(B_h / M_z), and, since d_z <= u_z (the largest reach within the node) and x <= (l + x^2 / l) / 2,

        ||d_h / sqrt(M_h)||_2 <= l_h / 2 + sum_z u_z d_z / (2 l_h M_z)   for any l_h > 0,

    which is linear in d and tight once the actions are fixed. Lower bounds come from alternating between the best bonus
    for a policy and the best policy for a bonus, which never decreases the objective. The search is exact for millions
    of policies and often far beyond; where it stops early, the gap is known.

    For the values that GLOW allows, f_h <= largest_h at every pair, this is an upper bound, and so is the same with any
    set of known pairs counted as unknown. Pairs at which the table exceeds the limit are added to that set until none
    does; the best of these bounds and the best table found under the limit are reported beside it.

    Parameters
    ----------
    data : TabularData
    ellipsoid : Ellipsoid
    largest : float or (H,)
        What no value exceeds, in units; it is the value of a pair of which nothing is known.
    tolerance : float
        The gap at which a search ends.
    node_limit : int
        The most nodes that are opened; all bounds are true wherever the search ends.

    Returns
    -------
    OptimisticPolicy

    Raises
    ------
    ValueError
        An ellipsoid of other sizes, a negative entry, or a known pair without data; the entry is named.
    """
    _checked(data, ellipsoid)
    caps = _per_layer(largest, len(data.visits), "largest")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, not {tolerance!r}")
    limit = require_int(node_limit, 1, "node_limit")
    search = Search(data, ellipsoid, caps)
    nodes = search.run(tolerance, limit)
    bonus = search.bonus(search.occupancy(search.policy))
    bracket = under_limit(data, ellipsoid, caps, search, tolerance, limit - nodes)
    return OptimisticPolicy(
        search.value,
        max(search.upper, search.value),
        search.policy,
        bonus,
        bracket.value,
        bracket.upper,
        bracket.values,
        nodes + bracket.nodes,
    )


def _checked(data: TabularData, ellipsoid: Ellipsoid) -> None:
    shape = data.visits.shape
    if ellipsoid.precision.shape != shape or ellipsoid.budget.shape != shape[:1]:
        sizes = f"{ellipsoid.precision.shape} and {ellipsoid.budget.shape}"
        raise ValueError(f"precision and budget have shapes {sizes}, not {shape} and {shape[:1]}")
    for name, table in ellipsoid._asdict().items():
        require_finite(table, name)
        if not table.min() >= 0:
            raise ValueError(f"{entry(name, first(table < 0))} is negative ({table[first(table < 0)]})")
    wrong = (ellipsoid.precision > 0) & ~(data.visits > 0)
    if wrong.any():
        raise ValueError(f"{entry('precision', first(wrong))} is positive, but the pair has no data")


def _per_layer(values: ArrayLike, horizon: int, name: str, lowest: float = 0.0) -> NDArray[np.float64]:
    given = frozen(values, np.float64, name)
    if given.shape not in ((), (horizon,)):
        raise ValueError(f"{name} has shape {given.shape}, not ({horizon},)")
    require_finite(given, name)
    if not given.min() >= lowest:
        raise ValueError(f"{name} must be at least {lowest:g}, not {given.min()}")
    return np.broadcast_to(given, (horizon,))
