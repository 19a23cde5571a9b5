"""Rigorous enclosures of optimal values and of values of policies, from a claimed solution (see docs/certify.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import Sealed, frozen, require_finite, sealed
from theoryrl.mdp.exact import exact_residuals, exact_value, recheck, weighted_mean
from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP, require_model
from theoryrl.mdp.policy import policy_layers

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Certificate", "certify", "exact_value"]

Model = FiniteHorizonMDP | DiscountedMDP

SEMANTICS = (
    "the model whose rows are their weights divided by the exact sum of the weights (transitions, initial "
    "distribution, stochastic policies), every stored float standing for itself"
)


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(Sealed):
    """Bounds that hold without exception, whatever the claimed value and policy were worth.

    Attributes
    ----------
    lower, upper : (H+1, S) arrays, or (S,) for a discounted model
        Floats with lower <= V* <= upper in every state; of a fixed policy, lower <= V^pi <= upper.
    initial_lower, initial_upper : float
        The same for the value at the initial distribution.
    policy_gap : float or None
        At least V* - V^pi, in every state and layer, for the claimed policy; None for the enclosure of a fixed policy.
    error_per_stage : (H,) array, or (1,)
        The largest distance by which the claimed value can miss its own backup at each stage.
    mode : {"float", "exact"}
    exact : str or None
        The exact value at the initial distribution, "p/q" (mode "exact", where the numbers stay small enough).
    exact_lower, exact_upper : str or None
        The enclosure at the initial distribution as exact rationals (mode "exact").
    semantics : str
        Which model the bounds are about.
    note : str
        Why `exact` is None in mode "exact".
    value, policy : arrays
        What was claimed.
    mdp : FiniteHorizonMDP or DiscountedMDP
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    initial_lower: float
    initial_upper: float
    policy_gap: float | None
    error_per_stage: NDArray[np.float64]
    mode: str
    exact: str | None
    exact_lower: str | None
    exact_upper: str | None
    value: NDArray[np.float64]
    policy: NDArray
    mdp: Model
    stage_upper: tuple[Any, ...] = field(default=())
    stage_lower: tuple[Any, ...] = field(default=())
    note: str = ""
    semantics: str = SEMANTICS

    @property
    def width(self) -> float:
        """initial_upper - initial_lower."""
        return self.initial_upper - self.initial_lower

    def check(self) -> bool:
        """Check every claim again in Python's own integers and fractions, without numpy arithmetic or compiled code.

        Takes about a microsecond per transition weight and stage.

        Returns
        -------
        bool
            True.

        Raises
        ------
        ValueError
            If a bound does not follow; the entry is named.
        """
        recheck(self)
        return True

    def to_frame(self) -> pd.DataFrame:
        """One row per layer and state: `layer` (absent for a discounted model), `state`, `lower`, `upper`, `value`."""
        import pandas as pd

        axes = ("layer", "state")[2 - self.lower.ndim :]
        index = np.indices(self.lower.shape).reshape(self.lower.ndim, -1)
        table = dict(zip(axes, index, strict=True))
        return pd.DataFrame(table | {name: getattr(self, name).ravel() for name in ("lower", "upper", "value")})

    def __repr__(self) -> str:
        subject = "V*" if self.policy_gap is not None else "V^pi"
        exact = f", exact={self.exact}" if self.exact is not None and len(self.exact) < 40 else ""
        ends = f"[{self.initial_lower!r}, {self.initial_upper!r}]"
        return f"Certificate({subject} at the start in {ends}, mode={self.mode!r}{exact})"


def certify(
    mdp: Model,
    plan: Any = None,
    mode: Literal["float", "exact"] = "float",
    *,
    policy: ArrayLike | None = None,
    bit_budget: int = 100_000,
) -> Certificate:
    r"""Enclose V* between floats, or V^pi when a policy is given, with every rounding accounted for.

    Let v be the claimed value and f the claimed policy. If T_h v_{h+1} <= v_h + up_h in every state for all allowed
    actions, and T_h^f v_{h+1} >= v_h - down_h, then by induction from the last layer

        v_h - sum_{k >= h} down_k  <=  V^f_h  <=  V*_h  <=  v_h + sum_{k >= h} up_k,

    with up_H = max(-v_H) and down_H = max(v_H); for a discounted model the sums become up / (1 - gamma) and
    down / (1 - gamma). `float` mode bounds the residuals in one compiled pass. A row of n nonzero weights w with exact
    sum W satisfies, for any order of summation and with or without fused multiply-adds (u = 2^-53,
    g_n = n u / (1 - n u), |v| <= M),

        |fl(sum w v) - sum w v / W|  <=  M (g_n W + |W - 1|) + n 2^-1074,      |W - 1| <= |fl(W) - 1| + g_{n-1} W,

    and the additions of the reward, of the claimed value and of the bounds themselves are rounded outwards as well.
    `exact` mode computes the residuals as rationals. A wrong or suboptimal claim makes the bounds wide, never invalid.

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        Rewards of any sign and size. With rewards per outcome the mean is the exact one.
    plan : Plan, DiscountedPlan, or anything with `value` and `policy`, optional
        Default: solve the model first.
    mode : {"float", "exact"}
    policy : policy, optional
        Enclose its value instead of V* (see `policy_layers`); `plan` may then give a claimed value, default `evaluate`.
    bit_budget : int
        Mode "exact": the largest denominator, in bits, for which the exact value itself is computed.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError
        If the claimed value has a wrong shape or an entry that is not finite, or the policy is none of this model.
    ModuleNotFoundError
        Mode "exact" without python-flint.

    Source: derived here, docs/certify.md; Higham (2002), section 3.1, for the rounding of inner products.
    """
    if mode not in ("float", "exact"):
        raise ValueError(f"mode is {mode!r}, not 'float' or 'exact'")
    require_model(mdp)
    if plan is not None and not hasattr(plan, "value"):
        raise TypeError(f"plan is a {type(plan).__name__}, which has no value and policy")
    fixed = policy is not None
    value, policy, layers = _claim(mdp, plan, policy)
    actions, choice = split_policy(layers)
    note, exact = "", None
    if mode == "float":
        up, down = float_residuals(mdp, value, actions, choice, optimal=not fixed)
        stage_upper, stage_lower = tuple(up.tolist()), tuple(down.tolist())
    else:
        stage_upper, stage_lower = exact_residuals(mdp, value, actions, choice, optimal=not fixed)
        try:
            exact = exact_value(mdp, policy if fixed else None, bit_budget=bit_budget)
        except ValueError as error:
            note = str(error)
    above, below = sums_of(mdp, stage_upper, value, 1), sums_of(mdp, stage_lower, value, -1)
    lower, upper = outward(value, below, -1), outward(value, above, 1)
    if isinstance(mdp, FiniteHorizonMDP):
        lower[-1] = upper[-1] = 0.0  # nothing is earned after the last step
    ends: dict[str, Any] = _exact_ends(mdp, value, below[0], above[0]) if mode == "exact" else {}
    if not ends:
        ends = dict(zip(("initial_lower", "initial_upper"), initial_enclosure(mdp, lower, upper), strict=True))
    gaps = [_float_up(_add(b, a)) for a, b in zip(above, below, strict=True)]
    for array in (lower, upper):
        array.flags.writeable = False
    return Certificate(
        lower=lower,
        upper=upper,
        policy_gap=None if fixed else max(0.0, *gaps),
        error_per_stage=sealed(np.array([_float_up(max(a, b)) for a, b in zip(stage_upper, stage_lower, strict=True)])),
        mode=mode,
        exact=exact,
        **{"exact_lower": None, "exact_upper": None} | ends,
        value=value,
        policy=policy,
        mdp=mdp,
        stage_upper=stage_upper,
        stage_lower=stage_lower,
        note=note,
    )


def _claim(mdp: Model, plan: Any, policy: Any) -> tuple[NDArray[np.float64], NDArray, NDArray]:
    """The claimed value and policy, validated, and the policy with a layer axis; what is not given is computed here."""
    if plan is None and policy is None:
        plan = _solver(mdp)(mdp)
    claimed = plan.value if plan is not None else _evaluator(mdp)(mdp, policy)
    policy = plan.policy if policy is None else policy
    shape = (mdp.horizon + 1, mdp.n_states) if isinstance(mdp, FiniteHorizonMDP) else (mdp.n_states,)
    value = frozen(claimed, np.float64, "value")
    if value.shape != shape:
        raise ValueError(f"the claimed value has shape {value.shape}, not {shape}")
    require_finite(value, "value")
    layers = policy_layers(policy, mdp)
    return value, layers if np.ndim(policy) == layers.ndim else layers[0], layers


def _solver(mdp: Model) -> Any:
    if isinstance(mdp, FiniteHorizonMDP):
        from theoryrl.mdp.planning import backward_induction

        return backward_induction
    from theoryrl.mdp.discounted import solve_to_rounding

    return solve_to_rounding


def _evaluator(mdp: Model) -> Any:
    if isinstance(mdp, FiniteHorizonMDP):
        from theoryrl.mdp.evaluation import evaluate

        return evaluate
    from theoryrl.mdp.discounted import evaluate_discounted

    return evaluate_discounted


def split_policy(layers: NDArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The two forms kernels take: actions (L, S) with no probabilities, or probabilities (L, S, A)."""
    if layers.ndim == 2:
        return layers, np.empty((1, 0, 1))
    return np.zeros((1, layers.shape[1]), np.int64), layers


def float_residuals(
    mdp: Model,
    value: NDArray[np.float64],
    actions: NDArray[np.int64],
    choice: NDArray[np.float64],
    *,
    optimal: bool,
    reward: NDArray[np.float64] | None = None,
    reward_error: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds (H,) on the stages' residuals above and below; `reward` (L, S, A) is exact within `reward_error`."""
    from theoryrl.mdp._kernels_certify import residuals
    from theoryrl.mdp._kernels_rows import rows_of

    model: Any = mdp
    if isinstance(mdp, FiniteHorizonMDP):
        horizon, discount = mdp.horizon, 1.0
    else:
        horizon, discount, value = 1, mdp.discount, np.stack([value, value])
    up, down = np.empty(horizon), np.empty(horizon)
    given = mdp.reward_layers if reward is None else reward
    error = outcome_error(mdp) if reward_error is None else reward_error
    with np.errstate(all="ignore"):
        residuals(
            rows_of(model),
            mdp.staged_transition,
            *(_read_only(array) for array in (given, error, value, mdp.action_mask, actions, choice)),
            discount,
            optimal,
            up,
            down,
        )
    return up, down


def _read_only(array: NDArray) -> NDArray:
    """A read-only view: one type for the compiler, hence one compilation."""
    view = array.view()
    view.flags.writeable = False
    return view


def outcome_error(mdp: Model) -> NDArray[np.float64]:
    """Bound (L, S, A) on |stored mean reward - exact mean of outcome rewards|; 0 when rewards are given as means."""
    from theoryrl._jit import plain
    from theoryrl.mdp._kernels_certify import INFLATE, TINY, mean_error

    shape = (-1, mdp.n_states, mdp.n_actions)
    if mdp.outcome_reward is None:
        return np.zeros((1, *shape[1:]))
    with np.errstate(all="ignore"):
        if mdp.is_sparse:
            rows = mdp.transition
            counts, filled = np.diff(rows.indptr), np.diff(rows.indptr) > 0
            sums, size = rows.row_sums(), np.zeros(rows.n_rows)
            size[filled] = np.maximum.reduceat(np.abs(mdp.outcome_reward), rows.indptr[:-1][filled])
        else:
            counts = np.count_nonzero(mdp.transition, axis=-1)
            sums = mdp.transition.sum(axis=-1)
            size = np.max(np.abs(mdp.outcome_reward), axis=-1, initial=0.0, where=mdp.transition != 0)
        error = (size * plain(mean_error)(sums, counts.astype(float)) + (counts + 8.0) * TINY) * INFLATE
    return error.reshape(shape)


def sums_of(mdp: Model, stages: tuple[Any, ...], value: NDArray[np.float64], sign: int) -> list[Any]:
    """How far V may lie from the claimed value on one side (sign 1: above), at layers 0..H; floats are rounded up."""
    if isinstance(mdp, DiscountedMDP):
        (error,) = stages
        if isinstance(error, Fraction):
            return [error / (1 - Fraction(mdp.discount))]
        # Divide by the end of the enclosure of 1 - gamma that makes the quotient larger.
        rest = math.nextafter(1.0 - mdp.discount, -math.inf if error >= 0 else math.inf)
        return [math.nextafter(error / rest, math.inf)]
    last = float(np.max(-sign * value[-1]))
    sums: list[Any] = [Fraction(last) if isinstance(stages[0], Fraction) else last]
    for error in reversed(stages):
        sums.append(_add(error, sums[-1]))
    return sums[::-1]


def outward(value: NDArray[np.float64], errors: list[Any], sign: int) -> NDArray[np.float64]:
    """The value plus (sign 1) or minus (sign -1) the error of its layer, rounded away from the value."""
    column = np.array([_float_up(error) for error in errors])
    column = column[:, np.newaxis] if value.ndim == 2 else column
    with np.errstate(over="ignore"):
        moved = np.nextafter(value + sign * column, sign * math.inf)
    return np.where(column == 0.0, value, moved)


def initial_enclosure(mdp: Model, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> tuple[float, float]:
    """Bounds on the mean of a value within [lower, upper] under the initial distribution over its exact sum."""
    start = mdp.initial > 0
    low, high = (table[0] if table.ndim == 2 else table for table in (lower, upper))
    return -mean_above(mdp.initial[start], -low[start]), mean_above(mdp.initial[start], high[start])


def mean_above(weights: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """A float not below sum w v / sum w, for positive weights that sum to about 1 (Lemma 1 of docs/certify.md)."""
    from theoryrl._jit import plain
    from theoryrl.mdp._kernels_certify import INFLATE, TINY, mean_error

    size, count = float(np.max(np.abs(values))), float(values.size)
    if not np.isfinite(size):
        return math.inf
    error = (size * plain(mean_error)(float(weights.sum()), count) + (count + 8) * TINY) * INFLATE
    with np.errstate(over="ignore"):
        bound = math.nextafter(float(weights @ values) + error, math.inf)
    return bound if bound < math.inf else math.inf


def _exact_ends(mdp: Model, value: NDArray[np.float64], below: Fraction, above: Fraction) -> dict[str, Any]:
    mean = weighted_mean(mdp.initial, value[0] if value.ndim == 2 else value)
    low, high = mean - below, mean + above
    return {
        "initial_lower": -_float_up(-low),
        "initial_upper": _float_up(high),
        "exact_lower": str(low),
        "exact_upper": str(high),
    }


def _add(a: Any, b: Any) -> Any:
    """Add, exactly for fractions and rounded up for floats."""
    return math.nextafter(a + b, math.inf) if isinstance(a, float) else a + b


def _float_up(x: Any) -> float:
    """The least float not below a fraction; a float is left alone."""
    if isinstance(x, float):
        return x
    try:
        near = float(x)
    except OverflowError:
        return math.inf if x > 0 else float(np.finfo(float).min)
    return near if Fraction(near) >= x else math.nextafter(near, math.inf)
