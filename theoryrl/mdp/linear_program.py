"""The occupancy linear program and its dual, with constraints, and bounds that repair what solver tolerances leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp._checks import Sealed, frozen, require_finite, sealed
from theoryrl.mdp.certify import certify, float_residuals, initial_enclosure, outcome_error, outward, sums_of
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import MixturePolicy

ROUNDOFF = 2.0**-53


@dataclass(frozen=True, eq=False, repr=False)
class LinearProgramSolution(Sealed):
    """A solved occupancy program.

    Attributes
    ----------
    value : float
        The objective that the solver reports.
    occupancy : (H, S, A)
        The primal solution, negative rounding removed; forbidden pairs 0.
    dual_value : (H+1, S)
        Multipliers of the flow constraints: a value function of the reward r - sum_k multipliers[k] cost_k.
    multipliers : (K,)
        Multipliers of the budgets, non-negative.
    policy : (H, S, A)
        occupancy / its sum over actions; where that sum is 0 (the state is not reached) the lowest-numbered action that
        is greedy for `dual_value`.
    cost : (K,)
        Expected cost of the primal solution.
    gap : float
        upper - lower.
    lower, upper : float
        Rigorous bounds on the program's value. `lower` is attained: by `policy`, or by `safe_policy` when the budgets
        forbid `policy` itself. `lower` is -inf if no policy could be shown to keep every budget.
    safe_policy : array or MixturePolicy
        A policy that keeps every budget for certain and earns at least `lower`: `policy` itself if it does, else an
        episode-level mixture of it with the policy of least cost. None if `lower` is -inf.
    status : str
        What the solver says.
    """

    value: float
    occupancy: NDArray[np.float64]
    dual_value: NDArray[np.float64]
    multipliers: NDArray[np.float64]
    policy: NDArray[np.float64]
    cost: NDArray[np.float64]
    gap: float
    lower: float
    upper: float
    safe_policy: Any
    status: str

    def __repr__(self) -> str:
        return (
            f"LinearProgramSolution(value={self.value!r}, lower={self.lower!r}, upper={self.upper!r}, {self.status!r})"
        )


def occupancy_lp(
    mdp: FiniteHorizonMDP, constraints: Sequence[tuple[Any, float]] = (), *, budget: int = 1_000_000
) -> LinearProgramSolution:
    r"""Maximise the expected return over occupancy measures, within budgets on expected costs.

        max  sum_{h,s,a} d_h(s, a) r_h(s, a)   over  d >= 0
        s.t. sum_a d_0(s, a) = mu(s),   sum_a d_{h+1}(t, a) = sum_{s,a} d_h(s, a) P_h(t | s, a),
             sum_{h,s,a} d_h(s, a) c^k_h(s, a) <= b_k.

    Its dual is min mu . V_0 + b . lambda over V, lambda >= 0 with V_h >= r_h - lambda . c_h + P_h V_{h+1}. A solver
    meets both only within a tolerance, so the bounds are repaired: any policy's certified value is a lower bound, and
    for any lambda >= 0 and any table V shifted by its residuals (see `certify`) mu . V_0 + b . lambda is an upper one.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    constraints : sequence of (cost, b)
        Costs of shape (S, A) or (H, S, A), of any sign, and their budgets.
    budget : int
        The largest number of variables H * S * A that is attempted.

    Returns
    -------
    LinearProgramSolution

    Raises
    ------
    ValueError
        No policy meets the constraints; a cost is malformed (it is named); the program is larger than `budget`.

    Source: Puterman (1994), section 6.9; Altman (1999), chapter 3, for the constraints. Solved by HiGHS.
    """
    require_model(mdp, FiniteHorizonMDP)
    costs, limits = _costs(mdp, constraints)
    size = mdp.horizon * mdp.n_states * mdp.n_actions
    if size > budget:
        raise ValueError(f"the program has {size} variables, more than the {budget} allowed; shorten the horizon")
    reward = np.broadcast_to(mdp.reward_layers, _shape(mdp))
    # The solver's tolerances are absolute: bring rewards and costs to size 1.
    unit, units = _unit(reward), np.array([_unit(cost) for cost in costs])
    with np.errstate(over="ignore"):
        scaled = np.clip(limits / units, -1e300, 1e300)  # to the solver infinite either way
    solution, flow = _solve(mdp, reward / unit, costs / units[:, None, None, None], scaled)
    multipliers = np.maximum(0.0, -np.asarray(solution.ineqlin.marginals)) * unit / units if len(costs) else units
    dual = np.zeros((mdp.horizon + 1, mdp.n_states))
    dual[:-1] = -unit * np.asarray(solution.eqlin.marginals).reshape(mdp.horizon, mdp.n_states)
    policy = _policy(mdp, flow, dual, reward - np.einsum("k,khsa->hsa", multipliers, costs))
    upper = _upper(mdp, costs, limits, multipliers, dual)
    lower, safe = _lower(mdp, costs, limits, policy)
    for array in (flow, dual, multipliers, policy):
        array.flags.writeable = False
    return LinearProgramSolution(
        value=-float(solution.fun) * unit,
        occupancy=flow,
        dual_value=dual,
        multipliers=multipliers,
        policy=policy,
        cost=sealed(np.einsum("hsa,khsa->k", flow, costs)),
        gap=upper - lower,
        lower=lower,
        upper=upper,
        safe_policy=safe,
        status=str(solution.message),
    )


def _shape(mdp: FiniteHorizonMDP) -> tuple[int, int, int]:
    return mdp.horizon, mdp.n_states, mdp.n_actions


def _unit(table: NDArray) -> float:
    """The size of a table, 1 if it is all zero; not so small that dividing by it overflows."""
    size = float(np.abs(table).max())
    return max(size, 2.0**-1000) if size else 1.0


def _costs(mdp: FiniteHorizonMDP, constraints: Sequence[tuple[Any, float]]) -> tuple[NDArray, NDArray]:
    """All costs (K, H, S, A), 0 where an action is forbidden, and budgets (K,)."""
    costs, limits = np.zeros((len(constraints), *_shape(mdp))), np.zeros(len(constraints))
    for k, (cost, limit) in enumerate(constraints):
        table = frozen(cost, np.float64, f"cost {k}")
        if table.shape not in (_shape(mdp), _shape(mdp)[1:]):
            raise ValueError(f"cost {k} has shape {table.shape}, not {_shape(mdp)[1:]} or {_shape(mdp)}")
        table = np.where(mdp.action_mask, table, 0.0)
        require_finite(table, f"cost {k}")
        if not math.isfinite(limit):
            raise ValueError(f"budget {k} is {limit}, not finite")
        costs[k], limits[k] = table, limit
    return costs, limits


def _solve(mdp: FiniteHorizonMDP, reward: NDArray, costs: NDArray, limits: NDArray) -> tuple[Any, NDArray[np.float64]]:
    """HiGHS on the program of the allowed pairs, and its occupancy (H, S, A)."""
    solution = _program(mdp, -reward, costs, limits, slack=False)
    if solution.status == 2:
        raise ValueError("the constraints are infeasible: no policy keeps every budget")
    if solution.status != 0:
        raise ValueError(f"the linear program was not solved: {solution.message}")
    return solution, _spread(mdp, solution.x)


def _program(mdp: FiniteHorizonMDP, objective: NDArray, costs: NDArray, limits: NDArray, *, slack: bool) -> Any:
    """Minimise `objective` over occupancies within the budgets; with `slack`, maximise the least slack of a budget."""
    from scipy.optimize import linprog
    from scipy.sparse import csc_array, hstack

    pairs = _variables(mdp)
    right = np.zeros(mdp.horizon * mdp.n_states)
    right[: mdp.n_states] = mdp.initial / mdp.initial.sum()
    cost, within, flow = (
        objective.reshape(-1)[pairs],
        costs.reshape(len(costs), objective.size)[:, pairs],
        flow_matrix(mdp)[:, pairs],
    )
    bounds: list[tuple[float | None, None]] = [(0.0, None)] * len(pairs)
    if slack:
        cost, within = np.append(np.zeros(len(pairs)), -1.0), np.column_stack([within, np.ones(len(costs))])
        flow, bounds = hstack([flow, csc_array((len(right), 1))]), [*bounds, (None, None)]
    rows = {"A_ub": within, "b_ub": limits} if len(costs) else {}
    return linprog(cost, **rows, A_eq=flow, b_eq=right, bounds=bounds, method="highs")


def _variables(mdp: FiniteHorizonMDP) -> NDArray[np.int64]:
    """Numbers of the allowed (h, s, a) in C order."""
    return np.flatnonzero(np.broadcast_to(mdp.action_mask, _shape(mdp)))


def _spread(mdp: FiniteHorizonMDP, x: NDArray) -> NDArray[np.float64]:
    """A solution vector as an occupancy (H, S, A) without negative rounding."""
    pairs = _variables(mdp)
    flow = np.zeros(math.prod(_shape(mdp)))
    flow[pairs] = np.maximum(0.0, x[: len(pairs)])
    return flow.reshape(_shape(mdp))


def flow_matrix(mdp: FiniteHorizonMDP) -> Any:
    """Sparse matrix (H*S, H*S*A) of the flow constraints: what leaves (h, s) minus what arrives there.

    Rows of probabilities are divided by their sums; columns of forbidden pairs are left empty of arrivals.
    """
    from scipy.sparse import csc_array

    horizon, n_states, n_actions = _shape(mdp)
    size = n_states * n_actions
    sparse = mdp.to_sparse().transition
    row = np.repeat(np.arange(sparse.n_rows), np.diff(sparse.indptr))
    kept = mdp.action_mask.reshape(-1)[row % size] & (sparse.data != 0)
    row, successor, weight = row[kept], sparse.indices[kept].astype(np.int64), sparse.data[kept]
    sums = np.bincount(row, weight, minlength=sparse.n_rows)
    weight = weight / sums[row]
    columns, rows, data = (
        [np.arange(horizon * size)],
        [np.arange(horizon * size) // n_actions],
        [np.ones(horizon * size)],
    )
    for h in range(horizon - 1):
        here = slice(*np.searchsorted(row, [h * size, (h + 1) * size])) if sparse.staged else slice(None)
        columns.append(row[here] % size + h * size)
        rows.append(successor[here] + (h + 1) * n_states)
        data.append(-weight[here])
    entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return csc_array(entries, shape=(horizon * n_states, horizon * size))


def _policy(mdp: FiniteHorizonMDP, flow: NDArray, dual: NDArray, reward: NDArray) -> NDArray[np.float64]:
    """Conditional action frequencies; where a state is not reached, the first greedy action for the dual value."""
    total = flow.sum(axis=-1, keepdims=True)
    policy = np.zeros(_shape(mdp))
    matrices = mdp.transition.to_scipy() if mdp.is_sparse else mdp.transition_layers
    for h in range(mdp.horizon):
        matrix = matrices if mdp.is_sparse and not mdp.transition.staged else matrices[h % len(matrices)]
        q = np.where(mdp.action_mask, reward[h] + (matrix @ dual[h + 1]).reshape(reward[h].shape), -np.inf)
        policy[h, np.arange(mdp.n_states), np.argmax(q, axis=1)] = 1.0
    np.divide(flow, total, out=policy, where=total > 0)
    return cast(NDArray[np.float64], policy / policy.sum(axis=-1, keepdims=True))


def _upper(mdp: FiniteHorizonMDP, costs: NDArray, limits: NDArray, multipliers: NDArray, dual: NDArray) -> float:
    """The bound mu . V_0 + lambda . b for the dual table V shifted by its residuals, everything rounded up."""
    count = len(costs) + 2
    rounding = count * ROUNDOFF / (1 - count * ROUNDOFF)
    size = np.abs(mdp.reward_layers) + np.einsum("k,khsa->hsa", multipliers, np.abs(costs))
    reward = mdp.reward_layers - np.einsum("k,khsa->hsa", multipliers, costs)
    error = (outcome_error(mdp) + rounding * size) * (1 + 2.0**-40) + 2.0**-1060
    first = np.argmax(mdp.action_mask, axis=1)[np.newaxis]
    up, _ = float_residuals(
        mdp, dual, first, np.empty((1, 0, 1)), optimal=True, reward=reward, reward_error=np.ascontiguousarray(error)
    )
    table = outward(dual, sums_of(mdp, tuple(up.tolist()), dual, 1), 1)
    spent = float(multipliers @ limits)
    slack = rounding * float(multipliers @ np.abs(limits)) * (1 + 2.0**-40) + 2.0**-1060
    return math.nextafter(initial_enclosure(mdp, table, table)[1] + math.nextafter(spent + slack, math.inf), math.inf)


def _lower(mdp: FiniteHorizonMDP, costs: NDArray, limits: NDArray, policy: NDArray) -> tuple[float, Any]:
    """A certified return and the policy that attains it within every budget."""
    mine = certify(mdp, policy=policy).initial_lower
    over = np.array([_cost(mdp, cost, policy) for cost in costs]) - limits
    if not (over > 0).any():
        return mine, policy
    spare = _least_cost_policy(mdp, costs, limits)
    slack = limits - np.array([_cost(mdp, cost, spare) for cost in costs])
    if not (slack > 0).all():
        return -math.inf, None
    # (1 - w) over - w slack <= 0 with room for the roundings of these few operations.
    weight = float(np.max(over / (over + slack), initial=0.0, where=over > 0)) * (1 + 2.0**-40) + 2.0**-45
    if not weight < 1:
        return -math.inf, None
    other = certify(mdp, policy=spare).initial_lower
    mixed = (1 - weight) * mine + weight * other
    rounding = 8 * ROUNDOFF * (abs(mine) + abs(other))
    return math.nextafter(mixed - rounding, -math.inf), MixturePolicy([policy, spare], [1 - weight, weight])


def _cost(mdp: FiniteHorizonMDP, cost: NDArray, policy: NDArray) -> float:
    """A certified upper bound on the expected cost of a policy."""
    return certify(mdp.with_reward(cost), policy=policy).initial_upper


def _least_cost_policy(mdp: FiniteHorizonMDP, costs: NDArray, limits: NDArray) -> NDArray:
    """The policy with the most room under the budgets: of least cost, or by the program of the greatest least slack."""
    if len(costs) == 1:
        return backward_induction(mdp.with_reward(-costs[0])).policy
    solution = _program(mdp, np.zeros(_shape(mdp)), costs, limits, slack=True)
    return _policy(mdp, _spread(mdp, solution.x), np.zeros((mdp.horizon + 1, mdp.n_states)), -costs.sum(axis=0))
