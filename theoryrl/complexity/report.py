"""Every measure of a model in one call; what would take too long says so instead of hanging."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.complexity._graphs import Model
from theoryrl.complexity.average import average_reward
from theoryrl.complexity.concentrability import concentrability
from theoryrl.complexity.coverability import coverability
from theoryrl.complexity.gaps import suboptimality_gaps
from theoryrl.complexity.hitting import hitting_times, is_communicating, minimal_hitting_times
from theoryrl.complexity.mixing import mixing_time
from theoryrl.complexity.ranks import occupancy_rank
from theoryrl.complexity.variance import variances
from theoryrl.mdp._checks import Sealed
from theoryrl.mdp.evaluation import occupancy, reachability
from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP, require_model
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import uniform_policy
from theoryrl.theory.report import json_safe

if TYPE_CHECKING:
    import pandas as pd

BUDGET = 2e10
EXACT, NOT_APPLICABLE, OVER_BUDGET, OUT_OF_RANGE = "exact", "not-applicable", "over-budget", "out-of-range"
# Rounds of policy iteration and of squaring that estimates of cost count with; the counts measured are 2 to 10.
ROUNDS = 10
# A multiplication inside a product, an inverse or a decomposition of dense matrices takes a tenth of one outside.
PRODUCT = 0.1


@dataclass(frozen=True, eq=False)
class Measure(Sealed):
    """One measure of a report.

    Attributes
    ----------
    key : str
    value : float or None
        None unless the status is `exact`; may be infinite.
    status : {"exact", "not-applicable", "over-budget", "out-of-range"}
        Out of range: floats cannot hold it, or what it is computed from; the note says what.
    per_layer : (H,) or None
    note : str
        Where the value is attained, or why there is none.
    definition, source : str
    cost : float
        Estimated multiplications; those within products and factorisations of dense matrices count a tenth.
    """

    key: str
    value: float | None
    status: str
    per_layer: NDArray[np.float64] | None
    note: str
    definition: str
    source: str
    cost: float


@dataclass(frozen=True, eq=False, repr=False)
class ComplexityReport(Sealed):
    """How hard a model is, by every measure of this room; `report["diameter"]` is one of them.

    Attributes
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
    measures : tuple of Measure
    budget : float
    """

    mdp: Model
    measures: tuple[Measure, ...]
    budget: float

    def __getitem__(self, key: str) -> Measure:
        for measure in self.measures:
            if measure.key == key:
                return measure
        raise KeyError(f"there is no measure {key!r}; there are {', '.join(m.key for m in self.measures)}")

    def to_dict(self) -> dict[str, Any]:
        """The report in types that JSON can hold; non-finite numbers are the strings "inf", "-inf" and "nan"."""
        mdp = self.mdp
        head: dict[str, Any] = {"model": mdp.name, "n_states": mdp.n_states, "n_actions": mdp.n_actions}
        head |= {"discount": mdp.discount} if isinstance(mdp, DiscountedMDP) else {"horizon": mdp.horizon}
        rows = [dict(measure.__dict__) for measure in self.measures]
        return json_safe(head | {"budget": self.budget, "measures": rows})

    def to_json(self) -> str:
        """`to_dict` as one JSON document."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_frame(self) -> pd.DataFrame:
        """One row per measure: key, value (NaN where there is none), status, note, definition, source, cost."""
        import pandas as pd

        columns = ("key", "value", "status", "note", "definition", "source", "cost")
        frame = pd.DataFrame([{name: getattr(measure, name) for name in columns} for measure in self.measures])
        return frame.astype({"value": float})

    def __repr__(self) -> str:
        parts = [f"{m.key}={m.value:.6g}" for m in self.measures if m.value is not None]
        missing = [m.key for m in self.measures if m.value is None]
        rest = f"; without {', '.join(missing)}" if missing else ""
        return f"ComplexityReport({', '.join(parts)}{rest})"


class _Found(NamedTuple):
    value: float
    note: str = ""
    per_layer: NDArray[np.float64] | None = None


class _Entry(NamedTuple):
    """How to obtain a measure: what it needs, what it costs, and the call."""

    key: str
    definition: str
    source: str
    needs: str  # "horizon", "stationary transitions" or "stationary"
    cost: Callable[[Any], float]
    find: Callable[[Any], _Found]


def complexity_report(mdp: Model, *, budget: float = BUDGET) -> ComplexityReport:
    """Every complexity measure of a known model that applies to it and is within budget.

    Parameters
    ----------
    mdp : FiniteHorizonMDP or DiscountedMDP
        Measures of the episode (coverability, gaps, variances, ...) need a horizon; diameter, times and bias need
        transitions that do not change over time. Those that do not apply say so.
    budget : float
        Multiplications that one measure may take, by the estimate in its `cost`; the default is about ten seconds of
        one core. A measure beyond it is left out with status `over-budget` and its estimate.

    Returns
    -------
    ComplexityReport

    Raises
    ------
    TypeError
        For anything but a model.
    ValueError
        If the budget is not positive.

    Notes
    -----
    Each measure carries its definition and source. Measures of a function class (Bellman rank, eluder dimensions)
    need the class: `bellman_rank`, `eluder_dimension`, `bellman_eluder`; `occupancy_rank` bounds the Bellman rank of
    all of them.
    """
    require_model(mdp)
    if not budget > 0:
        raise ValueError(f"budget must be positive, not {budget!r}")
    return ComplexityReport(mdp, tuple(_measured(mdp, float(budget))), float(budget))


def _measured(mdp: Model, budget: float) -> Iterator[Measure]:
    for entry in ENTRIES:
        reason, cost = _reason(mdp, entry.needs), 0.0
        status, found = NOT_APPLICABLE, None
        if not reason:
            cost = float(entry.cost(mdp))
            if cost <= budget:
                try:
                    with np.errstate(over="ignore", invalid="ignore"):
                        found = entry.find(mdp)
                    if math.isnan(found.value):
                        raise OverflowError("the numbers it is computed from overflow")
                    status = EXACT
                except (OverflowError, RuntimeError) as error:
                    status, reason, found = OUT_OF_RANGE, str(error), None
            else:
                status = OVER_BUDGET
                reason = f"about {cost:.1e} multiplications, over the budget of {budget:.1e}"
        yield Measure(
            entry.key,
            found.value if found else None,
            status,
            found.per_layer if found else None,
            found.note if found else reason,
            entry.definition,
            entry.source,
            cost,
        )


def _reason(mdp: Model, needs: str) -> str:
    """Why a measure does not apply; empty when it does."""
    if needs == "horizon":
        return "" if isinstance(mdp, FiniteHorizonMDP) else "needs a horizon"
    if mdp.staged_transition or (needs == "stationary" and not mdp.stationary):
        return "the model changes over time"
    return ""


# ---- estimates of cost, in multiplications


def _weights(mdp: Model) -> float:
    """Transition weights of one layer."""
    stored = mdp.transition.data.size / mdp.transition.n_layers if mdp.is_sparse else mdp.n_states**2 * mdp.n_actions
    return float(stored)


def _sweep_cost(mdp: Any) -> float:
    return mdp.horizon * _weights(mdp)


def _reach_cost(mdp: Any) -> float:
    blocks = mdp.horizon / 2 if mdp.staged_transition else 1
    return _sweep_cost(mdp) * mdp.n_states * max(1.0, blocks) * (1.0 if mdp.is_sparse else PRODUCT)


def _rank_cost(mdp: Any) -> float:
    return _reach_cost(mdp) + 4.0 * PRODUCT * mdp.horizon * mdp.n_states**3 * mdp.n_actions


def _cubic(share: float) -> Callable[[Any], float]:
    return lambda mdp: PRODUCT * share * mdp.n_states**3 + ROUNDS * mdp.n_states * mdp.n_states * mdp.n_actions


def _diameter_cost(mdp: Any) -> float:
    if not is_communicating(mdp):
        return _weights(mdp)
    return mdp.n_states * (ROUNDS / 2) * (mdp.n_states**3 / 3 + mdp.n_states**2 * mdp.n_actions)


# ---- the calls


def _coverability(mdp: Any) -> _Found:
    layers = coverability(mdp)
    return _Found(float(layers.max()), f"largest at h={int(layers.argmax())}", layers)


def _concentrability(mdp: Any) -> _Found:
    found = concentrability(mdp, _normalised(occupancy(mdp, uniform_policy(mdp))))
    return _Found(found.value, _named(found.worst), found.per_layer)


def _single_concentrability(mdp: Any) -> _Found:
    data = _normalised(occupancy(mdp, uniform_policy(mdp)))
    found = concentrability(mdp, data, backward_induction(mdp).policy)
    return _Found(found.value, _named(found.worst), found.per_layer)


def _normalised(flow: NDArray[np.float64]) -> NDArray[np.float64]:
    # Rows off 1 by up to 1e-9 add up over the layers.
    return flow / flow.sum(axis=(1, 2), keepdims=True)


def _named(place: tuple[int, ...]) -> str:
    return f"at (h, s, a) = {place}"


def _reachability(mdp: Any) -> _Found:
    best = reachability(mdp).max(axis=0)
    return _Found(float(best.min()), f"state {int(best.argmin())}; {int((best > 0).sum())} of {best.size} are reached")


def _occupancy_rank(mdp: Any) -> _Found:
    rank = occupancy_rank(mdp)
    return _Found(float(rank.value), f"tolerance {rank.tolerance.max():.1e}", rank.per_layer.astype(np.float64))


def _minimal_gap(mdp: Any) -> _Found:
    gaps = suboptimality_gaps(mdp)
    return _Found(gaps.minimal, "no suboptimal action is reached" if gaps.where is None else _named(gaps.where))


def _gap_complexity(mdp: Any) -> _Found:
    gaps = suboptimality_gaps(mdp)
    if math.isinf(gaps.gap_complexity):
        raise OverflowError("the sum of (H w)^2 / gap overflows")
    return _Found(gaps.gap_complexity, f"{gaps.n_suboptimal} triples with a gap; sum of 1/gap {gaps.inverse_sum:.6g}")


def _value_span(mdp: Any) -> _Found:
    span = variances(mdp).value_span
    return _Found(float(span.max()), f"largest at h={int(span.argmax())}", span)


def _environmental_norm(mdp: Any) -> _Found:
    found = variances(mdp)
    place = np.unravel_index(int(found.value.argmax()), found.value.shape)
    return _Found(found.environmental_norm, _named(tuple(int(i) for i in place)))


def _conditional_variance(mdp: Any) -> _Found:
    found = variances(mdp)
    return _Found(found.conditional_variance, _named(found.where))


def _diameter(mdp: Any) -> _Found:
    if not is_communicating(mdp):
        return _Found(math.inf, "not communicating")
    return _longest(minimal_hitting_times(mdp))


def _longest(times: NDArray[np.float64]) -> _Found:
    source, target = (int(i) for i in np.unravel_index(int(times.argmax()), times.shape))
    return _Found(float(times.max()), f"from state {source} to state {target}")


def _bias_span(mdp: Any) -> _Found:
    plan = average_reward(mdp)
    return _Found(plan.span, f"optimal gain from the start {float(mdp.initial @ plan.gain):.6g}")


ENTRIES = (
    _Entry(
        "coverability",
        "max_h inf_mu sup_pi max_{s,a} d_h^pi(s,a) / mu(s,a) = max_h sum_{s,a} max_pi d_h^pi(s,a), all policies",
        "Xie, Foster, Bai, Jiang, Kakade (2023)",
        "horizon",
        _reach_cost,
        _coverability,
    ),
    _Entry(
        "uniform_concentrability",
        "max_{h,s,a} max_pi d_h^pi(s,a) / d_h^u(s,a), u the uniform policy, all policies pi",
        "Chen, Jiang (2019)",
        "horizon",
        _reach_cost,
        _concentrability,
    ),
    _Entry(
        "optimal_policy_concentrability",
        "max_{h,s,a} d_h^{pi*}(s,a) / d_h^u(s,a), u the uniform policy, pi* of backward induction",
        "Rashidinejad, Zhu, Ma, Jiao, Russell (2021)",
        "horizon",
        _sweep_cost,
        _single_concentrability,
    ),
    _Entry(
        "reachability",
        "min_s max_h max_pi P(s_h = s)",
        "Du, Krishnamurthy, Jiang, Agarwal, Dudik, Langford (2019)",
        "horizon",
        _reach_cost,
        _reachability,
    ),
    _Entry(
        "occupancy_rank",
        "max_h dim span{d_h^pi over states : all pi}; bounds every Bellman rank (V-type)",
        "Jiang, Krishnamurthy, Agarwal, Langford, Schapire (2017)",
        "horizon",
        _rank_cost,
        _occupancy_rank,
    ),
    _Entry(
        "minimal_gap",
        "least positive V*_h(s) - Q*_h(s,a) at a pair that can be reached",
        "Simchowitz, Jamieson (2019)",
        "horizon",
        _reach_cost,
        _minimal_gap,
    ),
    _Entry(
        "gap_complexity",
        "sum over reachable (h,s,a) with positive gap of (H w)^2 / gap_h(s,a), w the width of the reward range",
        "Simchowitz, Jamieson (2019), up to powers of H",
        "horizon",
        _reach_cost,
        _gap_complexity,
    ),
    _Entry(
        "value_span",
        "max_h (max_s V*_h(s) - min_s V*_h(s))",
        "Bartlett, Tewari (2009), in its finite-horizon form",
        "horizon",
        _sweep_cost,
        _value_span,
    ),
    _Entry(
        "environmental_norm",
        "max_{h,s,a} (Var_{s' ~ P_h(.|s,a)} V*_{h+1}(s'))^(1/2)",
        "Maillard, Mann, Mannor (2014), in its finite-horizon form",
        "horizon",
        _sweep_cost,
        _environmental_norm,
    ),
    _Entry(
        "conditional_variance",
        "max_{h,s,a} (Var R_h(s,a) + Var_{s' ~ P_h(.|s,a)} V*_{h+1}(s'))",
        "Zanette, Brunskill (2019)",
        "horizon",
        _sweep_cost,
        _conditional_variance,
    ),
    _Entry(
        "return_variance",
        "Var(R_0 + ... + R_{H-1}) under pi* of backward induction, from the initial distribution",
        "Sobel (1982), in its finite-horizon form",
        "horizon",
        _sweep_cost,
        lambda mdp: _Found(variances(mdp).return_variance),
    ),
    _Entry(
        "diameter",
        "max_{s != t} min_pi E^pi[steps from s to t]",
        "Jaksch, Ortner, Auer (2010), Definition 1",
        "stationary transitions",
        _diameter_cost,
        _diameter,
    ),
    _Entry(
        "bias_span",
        "max b* - min b*, b* the bias of a bias-optimal policy under the average reward",
        "Bartlett, Tewari (2009)",
        "stationary",
        _cubic(3.0 * ROUNDS),
        _bias_span,
    ),
    _Entry(
        "uniform_hitting_time",
        "max_{s,t} E^u[steps from s to t], u the uniform policy",
        "Norris (1997), Theorem 1.3.5",
        "stationary transitions",
        lambda mdp: mdp.n_states**4 / 3,
        lambda mdp: _longest(hitting_times(mdp, uniform_policy(mdp))),
    ),
    _Entry(
        "uniform_mixing_time",
        "min{t : max_s TV(P_u^t(.|s), nu_u) <= 1/4}, u the uniform policy",
        "Levin, Peres (2017), section 4.5",
        "stationary transitions",
        _cubic(4.0 * ROUNDS),
        lambda mdp: _Found(mixing_time(mdp, uniform_policy(mdp))),
    ),
    _Entry(
        "optimal_mixing_time",
        "the same for a bias-optimal policy under the average reward",
        "Levin, Peres (2017), section 4.5",
        "stationary",
        _cubic(7.0 * ROUNDS),
        lambda mdp: _Found(mixing_time(mdp, average_reward(mdp).policy)),
    ),
)
