"""Discounted models: value, policy and modified policy iteration with MacQueen bounds; values of policies."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp import _kernels_discounted as kernels
from theoryrl.mdp._checks import Sealed, frozen, require_finite, require_int
from theoryrl.mdp._kernels_rows import rows_of
from theoryrl.mdp.model import DiscountedMDP, require_model

if TYPE_CHECKING:
    from theoryrl.mdp.certify import Certificate

Method = Literal["auto", "value-iteration", "policy-iteration", "modified-policy-iteration"]
METHODS = ("auto", "value-iteration", "policy-iteration", "modified-policy-iteration")
# Inner sweeps of modified policy iteration stop at this part of the last Bellman sweep's span, or at this many.
INNER_SPAN, INNER_SWEEPS = 0.1, 100
# Dense storage with fewer nonzeros than this part of a sample of its rows is solved in compressed rows.
SPARSE_BELOW, SAMPLED_ROWS = 0.125, 64
# Linear systems up to this many states go to LAPACK; beyond, policies are evaluated by sweeps.
DIRECT_STATES = 2000
# A LAPACK solution of S states costs about S / this many reads of an (S, S) matrix.
READS_PER_STATE = 0.1
# Sweeps of `evaluate_discounted` stop when their span is this part of the largest possible value.
ROUNDING = 1e-15


@dataclass(frozen=True, eq=False, repr=False)
class DiscountedPlan(Sealed):
    """A solved discounted model.

    Attributes
    ----------
    mdp : DiscountedMDP
    value : (S,)
        The middle of the bounds.
    q : (S, A)
        Action values with max_a q = value; -inf where the action is forbidden.
    policy : int64 (S,)
        Greedy: the lowest-numbered allowed action among the maximisers of the computed action values.
    lower, upper : (S,)
        MacQueen bounds of the last sweep, lower <= V^policy <= V* <= upper up to rounding (`certify` counts that too).
    iterations : int
        Bellman sweeps.
    method : str
        The method that finished; "auto" is resolved.
    converged : bool
        Whether the bounds, as computed, are within the tolerance of `value`; False when `max_iterations` came first or
        the tolerance is below what rounding allows.
    tolerance : float
    """

    mdp: DiscountedMDP
    value: NDArray[np.float64]
    q: NDArray[np.float64]
    policy: NDArray[np.int64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    iterations: int
    method: str
    converged: bool
    tolerance: float

    @property
    def initial_value(self) -> float:
        """The value at the initial distribution."""
        return float(self.mdp.initial @ self.value)

    def certify(self, mode: Literal["float", "exact"] = "float") -> Certificate:
        """Rigorous enclosure of V*, rounding included (see `certify`)."""
        from theoryrl.mdp.certify import certify

        return certify(self.mdp, self, mode)

    def __repr__(self) -> str:
        state = "" if self.converged else ", not converged"
        return f"DiscountedPlan({self.method}, iterations={self.iterations}, tolerance={self.tolerance:g}{state})"


def solve_discounted(
    mdp: DiscountedMDP, method: Method = "auto", tolerance: float = 1e-6, max_iterations: int = 100_000
) -> DiscountedPlan:
    """Optimal value and policy of a discounted model, with bounds.

    After a sweep T v of any of the methods, with a = min(T v - v), b = max(T v - v) and c = gamma / (1 - gamma),

        T v + c a  <=  V^f  <=  V*  <=  T v + c b,      f greedy for v;

    iteration stops when c (b - a) / 2 <= tolerance and returns the middle, so that |value - V*| <= tolerance and
    V* - V^policy <= 2 tolerance. On models that mix the span b - a falls far faster than gamma^n.

    Parameters
    ----------
    mdp : DiscountedMDP
    method : str
        "value-iteration"; "policy-iteration", whose linear systems are solved by LAPACK up to 2000 states and beyond
        that by sweeps to a tenth of the tolerance (no fill-in); "modified-policy-iteration", whose inner sweeps stop
        at a tenth of the last Bellman sweep's span or at 100; or "auto": no method is best everywhere, so it
        (1) compresses rows of a dense model that is mostly zeros, (2) runs modified policy iteration, and (3) where
        the states are at most 2000, changes to policy iteration from the current policy once the sweeps have cost
        as much as one solution of the linear system would.
    tolerance : float
        Positive.
    max_iterations : int
        Bellman sweeps.

    Returns
    -------
    DiscountedPlan
        With `converged=False` and a RuntimeWarning if `max_iterations` came first or rounding keeps the bounds apart;
        the bounds hold all the same.

    Raises
    ------
    ValueError
        Unknown method, a tolerance that is not positive, values that overflow.

    Source: MacQueen (1966); Puterman (1994), sections 6.3 to 6.6.
    """
    plan = solve_quietly(mdp, method, tolerance, max_iterations)
    if not plan.converged:
        half = 0.5 * float(np.max(plan.upper - plan.lower))
        text = (
            f"{plan.method} stopped after {plan.iterations} iterations at +-{half:.3g}, not certain to +-{tolerance:g}"
        )
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return plan


def solve_quietly(
    mdp: DiscountedMDP, method: Method = "auto", tolerance: float = 1e-6, max_iterations: int = 100_000
) -> DiscountedPlan:
    """`solve_discounted` without the warning, for callers that only need a good guess."""
    require_model(mdp, DiscountedMDP)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, not one of {', '.join(METHODS)}")
    if not 0.0 < tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}, not positive and finite")
    max_iterations = require_int(max_iterations, 1, "max_iterations")
    model = _compressed(mdp) if method == "auto" else mdp
    work = _Work(model)
    used = method
    if method == "policy-iteration":
        done = _policy_iteration(model, work, tolerance, max_iterations)
    else:
        inner = 0 if method == "value-iteration" else INNER_SWEEPS
        budget = math.inf
        if method == "auto":
            used = "modified-policy-iteration"
            if mdp.n_states <= DIRECT_STATES:
                budget = _direct_cost(model)
        done = work.modified(tolerance, max_iterations, inner, budget)
        if budget < math.inf and done < max_iterations and not work.within(tolerance):
            used = "policy-iteration"
            done += _policy_iteration(model, work, tolerance, max_iterations - done)
    return work.plan(mdp, used, tolerance, done)


def solve_to_rounding(mdp: DiscountedMDP) -> DiscountedPlan:
    """A solution as accurate as sweeps in floats can make it, for a certificate to start from."""
    least = 2.0**-50 * float(np.abs(mdp.reward).max()) / (1.0 - mdp.discount) ** 2
    return solve_quietly(mdp, tolerance=max(least, 1e-300), max_iterations=10_000)


class _Work:
    """The arrays of one run and the last sweep's bounds."""

    def __init__(self, mdp: DiscountedMDP) -> None:
        self.rows: Any = rows_of(mdp)  # type: ignore[arg-type]
        self.reward, self.mask, self.discount = mdp.reward, mdp.action_mask, mdp.discount
        self.value, self.new = np.zeros(mdp.n_states), np.zeros(mdp.n_states)
        self.q, self.policy = np.empty(mdp.reward.shape), np.zeros(mdp.n_states, np.int64)
        self.low, self.high = -math.inf, math.inf

    def improve(self) -> None:
        self.low, self.high = kernels.improve(
            self.rows, self.reward, self.mask, self.discount, self.value, self.q, self.new, self.policy
        )

    def modified(self, tolerance: float, most: int, inner: int, budget: float) -> int:
        done, self.low, self.high = kernels.modified(
            self.rows, self.reward, self.mask, self.discount, tolerance, most, inner, INNER_SPAN, budget,
            self.value, self.q, self.new, self.policy,
        )  # fmt: skip
        return done

    def within(self, tolerance: float) -> bool:
        return self.discount / (1.0 - self.discount) * 0.5 * (self.high - self.low) <= tolerance

    def plan(self, mdp: DiscountedMDP, method: str, tolerance: float, iterations: int) -> DiscountedPlan:
        ahead = self.discount / (1.0 - self.discount)
        with np.errstate(over="ignore", invalid="ignore"):
            lower, upper = self.new + ahead * self.low, self.new + ahead * self.high
        if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
            raise ValueError("the values overflow: rewards are too large for floats at this discount")
        shift = ahead * 0.5 * (self.low + self.high)
        value, q = self.new + shift, self.q + shift
        for array in (value, q, self.policy, lower, upper):
            array.flags.writeable = False
        # One rounding of the value per sweep is the least error that sweeps in floats can promise.
        least = 2.0**-53 * float(np.abs(value).max()) / (1.0 - self.discount)
        converged = self.within(tolerance) and least <= tolerance
        return DiscountedPlan(mdp, value, q, self.policy, lower, upper, iterations, method, converged, tolerance)


def _policy_iteration(mdp: DiscountedMDP, work: _Work, tolerance: float, most: int) -> int:
    """Improve, evaluate, repeat; returns the number of Bellman sweeps. The first policy is greedy for work.value."""
    best = math.inf
    for sweep in range(most):
        before = work.policy.copy()
        work.improve()
        span = work.high - work.low
        # A policy that stays, or a span that no longer falls: rounding is all that is left.
        settled = sweep > 0 and np.array_equal(before, work.policy) and span >= best
        if work.within(tolerance) or settled or sweep == most - 1 or not span < math.inf:
            return sweep + 1
        best = min(best, span)
        if mdp.n_states <= DIRECT_STATES:
            matrix, reward = _chain_of(mdp, work.policy)
            work.value[:] = np.linalg.solve(matrix, reward)
        else:
            goal = 0.2 * tolerance * (1.0 - mdp.discount) / max(mdp.discount, 1e-300)
            kernels.evaluate(work.rows, work.reward, work.discount, work.policy, goal, 10**6, work.value, work.new)
    return most


def _chain_of(mdp: DiscountedMDP, policy: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """I - gamma P_f as a dense matrix, and r_f."""
    states = np.arange(mdp.n_states)
    if mdp.is_sparse:
        rows = mdp.transition
        number = states * mdp.n_actions + policy
        begin, length = rows.indptr[number], rows.indptr[number + 1] - rows.indptr[number]
        entries = np.repeat(begin - np.cumsum(length) + length, length) + np.arange(length.sum())
        matrix = np.zeros((mdp.n_states, mdp.n_states))
        matrix[np.repeat(states, length), rows.indices[entries]] = -mdp.discount * rows.data[entries]
    else:
        matrix = -mdp.discount * mdp.transition[states, policy]
    matrix[states, states] += 1.0
    return matrix, mdp.reward[states, policy]


def _compressed(mdp: DiscountedMDP) -> DiscountedMDP:
    """The model in compressed rows, if it is dense and a sample of its rows is mostly zeros."""
    if mdp.is_sparse or mdp.n_states < 32:
        return mdp
    rows = mdp.transition.reshape(-1, mdp.n_states)
    sample = rows[:: max(1, len(rows) // SAMPLED_ROWS)]
    if np.count_nonzero(sample) >= SPARSE_BELOW * sample.size:
        return mdp
    return mdp.to_sparse()


def _direct_cost(mdp: DiscountedMDP) -> float:
    """What one LAPACK solution costs, in Bellman sweeps of this model."""
    stored = mdp.transition.data.size if mdp.is_sparse else mdp.transition.size
    return max(10.0, READS_PER_STATE * mdp.n_states**3 / stored)


def bellman(mdp: DiscountedMDP, value: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The Bellman operator applied to a value: action values and their maxima.

    q(s, a) = r(s, a) + gamma sum_t P(t | s, a) value(t), -inf where forbidden;   (T value)(s) = max_a q(s, a).

    Parameters
    ----------
    mdp : DiscountedMDP
    value : (S,) finite

    Returns
    -------
    q : (S, A)
    value : (S,)
    """
    require_model(mdp, DiscountedMDP)
    work = _Work(mdp)
    work.value = _value_of(mdp, value)
    work.improve()
    return work.q, work.new


def _value_of(mdp: DiscountedMDP, value: ArrayLike) -> NDArray[np.float64]:
    table = frozen(value, np.float64, "value")
    if table.shape != (mdp.n_states,):
        raise ValueError(f"value has shape {table.shape}, not ({mdp.n_states},)")
    require_finite(table, "value")
    return table


def evaluate_discounted(mdp: DiscountedMDP, policy: Any) -> NDArray[np.float64]:
    """Value of a stationary policy, the solution of V = r_pi + gamma P_pi V.

    Solved by LAPACK up to 2000 states; beyond that by sweeps until the MacQueen bounds are as close as rounding allows.

    Parameters
    ----------
    mdp : DiscountedMDP
    policy : (S,) actions or (S, A) probabilities

    Returns
    -------
    ndarray, shape (S,)

    Raises
    ------
    ValueError
        A bad policy; the entry is named. A value overflows.
    """
    require_model(mdp, DiscountedMDP)
    chain: Any = mdp.with_horizon(1).induced(policy).with_discount(mdp.discount)
    first = np.zeros(mdp.n_states, np.int64)
    if mdp.n_states <= DIRECT_STATES:
        solved = np.linalg.solve(*_chain_of(chain, first))
        require_finite(solved, "value")
        return cast(NDArray[np.float64], solved)
    value, other = np.zeros(mdp.n_states), np.empty(mdp.n_states)
    scale = float(np.abs(chain.reward).max()) / (1.0 - mdp.discount)
    most = 100 + math.ceil(math.log(ROUNDING) / math.log(max(mdp.discount, 0.01)))
    goal = ROUNDING * scale
    kernels.evaluate(rows_of(chain), chain.reward, mdp.discount, first, goal, most, value, other)
    require_finite(value, "value")
    return value
