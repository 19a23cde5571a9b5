"""Exact planning in finite-horizon models: optimal and given policies, moments of the return, occupancy, reachability.

Backups use the transition weights as stored. A row may be off 1 by rounding (up to 1e-9 is accepted); `certify` and the
allowance of `optimal_actions` count that defect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl._lazy import above
from theoryrl.mdp import _kernels_sweeps as sweeps
from theoryrl.mdp._checks import Sealed, entry, first, real
from theoryrl.mdp._kernels_rows import n_weights, rows_of
from theoryrl.mdp.batch import BatchPlan, backward_induction_batch, backward_induction_rewards
from theoryrl.mdp.evaluation import (
    Moments,
    empty_tables,
    evaluate,
    evaluate_q,
    finish,
    moments,
    occupancy,
    reachability,
)
from theoryrl.mdp.model import FiniteHorizonMDP, require_model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from theoryrl.mdp.certify import Certificate


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Sealed):
    """A solved model.

    Attributes
    ----------
    mdp : FiniteHorizonMDP
    value : (H+1, S)
        Expected reward from layer h on; row H is zero.
    q : (H, S, A)
        Action values; -inf where the action is forbidden. Where the table would be larger than the transitions it is
        made on first use, by one more sweep.
    policy : int64 (H, S), or float64 (H, S, A) of a soft plan
        The lowest-numbered allowed action among the maximisers of the computed `q`; of a soft plan, probabilities.
    temperature : float
        0 of an optimal plan; of a soft plan the weight of the entropy.
    """

    mdp: FiniteHorizonMDP
    value: NDArray[np.float64]
    q: NDArray[np.float64]
    policy: NDArray[Any]
    temperature: float = 0.0

    def __getattr__(self, name: str) -> Any:
        # Only called for what is missing: `q` of a plan that was too large to keep it during the sweep.
        if name != "q":
            raise AttributeError(f"Plan has no attribute {name!r}")
        mdp, (value, q) = self.mdp, empty_tables(self.mdp)
        scratch = value[0], np.empty(mdp.n_states, np.int64)
        sweeps.action_values_of(
            rows_of(mdp), mdp.staged_transition, mdp.reward_layers, mdp.action_mask, self.value, q, *scratch
        )
        q.flags.writeable = False
        object.__setattr__(self, "q", q)
        return q

    @property
    def initial_value(self) -> float:
        """Value at the initial distribution."""
        return float(self.mdp.initial @ self.value[0])

    def certify(self, mode: Literal["float", "exact"] = "float") -> Certificate:
        """A rigorous enclosure of the optimal value and of this policy's loss; see `theoryrl.certify`.

        Raises
        ------
        ValueError
            For a soft plan: the enclosure is one of the optimal value without entropy.
        """
        from theoryrl.mdp.certify import certify

        if self.temperature != 0:
            raise ValueError("a soft plan has no certificate; certify(mdp) encloses the optimal value")
        return certify(self.mdp, self, mode=mode)

    def to_frame(self) -> pd.DataFrame:
        """One row per layer and allowed pair: h, state, action, q, value of the state, probability of the action."""
        import pandas as pd

        mdp = self.mdp
        h, s, a = np.nonzero(np.broadcast_to(mdp.action_mask, self.q.shape))
        chosen = self.policy[h, s] == a if self.policy.ndim == 2 else self.policy[h, s, a]
        return pd.DataFrame(
            {
                "h": h,
                "state": s if mdp.state_labels is None else np.array(mdp.state_labels, object)[s],
                "action": a if mdp.action_labels is None else np.array(mdp.action_labels, object)[a],
                "q": self.q[h, s, a],
                "value": self.value[h, s],
                "probability": chosen.astype(np.float64),
            }
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw values and actions; returns the Axes."""
        return above("viz").plot_plan(self, ax)

    def __repr__(self) -> str:
        soft = f", temperature={self.temperature:g}" if self.temperature else ""
        return f"Plan(initial_value={self.initial_value:.6g}{soft}, mdp={self.mdp!r})"


def backward_induction(mdp: FiniteHorizonMDP) -> Plan:
    """Optimal values and a deterministic optimal policy.

    q_h(s, a) = r_h(s, a) + sum_t P_h(t | s, a) V_{h+1}(t),   V_h(s) = max_a q_h(s, a),   V_H = 0

    Ties go to the lowest-numbered allowed action among the maximisers of the computed q.

    Parameters
    ----------
    mdp : FiniteHorizonMDP

    Returns
    -------
    Plan
        value (H+1, S), q (H, S, A), policy int64 (H, S).

    Raises
    ------
    TypeError
        For anything but a FiniteHorizonMDP.
    ValueError
        If a value overflows; the entry is named.

    Notes
    -----
    Bellman (1957), Dynamic Programming; Puterman (1994), Theorem 4.3.2.
    """
    require_model(mdp, FiniteHorizonMDP)
    rows, horizon, pairs = rows_of(mdp), mdp.horizon, (mdp.n_states, mdp.n_actions)
    # Fresh memory costs more than the arithmetic of short rows: a large q is made only when someone asks for it.
    keep = horizon * mdp.n_states * mdp.n_actions <= n_weights(rows)
    value, policy = np.empty((horizon + 1, mdp.n_states)), np.empty((horizon, mdp.n_states), np.int64)
    q = np.empty((horizon, *pairs) if keep else (1, 1 if mdp.is_sparse else pairs[0], pairs[1]))
    sweeps.optimal(rows, mdp.staged_transition, mdp.reward_layers, mdp.action_mask, value, q, policy)
    finish(value, q, policy)
    if keep:
        return Plan(mdp, value, q, policy)
    plan = object.__new__(Plan)
    plan.__dict__.update(mdp=mdp, value=value, policy=policy)
    return plan


def soft_backward_induction(mdp: FiniteHorizonMDP, temperature: float) -> Plan:
    """Optimal values and policy when the entropy of the policy is paid for at rate `temperature`.

    V_h(s) = max_pi sum_a pi(a) (q_h(s, a) - T log pi(a)) = T log sum_a exp(q_h(s, a) / T),
    pi_h(a | s) = exp((q_h(s, a) - V_h(s)) / T);   V* <= V <= V* + T (H - h) log A

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    temperature : float
        T > 0, in units of reward.

    Returns
    -------
    Plan
        With `policy` as probabilities (H, S, A); forbidden actions have probability 0.

    Raises
    ------
    ValueError
        If the temperature is not positive and finite, or a value overflows.

    Notes
    -----
    Neu, Jonsson and Gomez (2017), A unified view of entropy-regularized Markov decision processes.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be positive and finite, not {temperature!r}")
    value, q = empty_tables(mdp)
    policy = np.empty(q.shape)
    rows, staged, mask = rows_of(mdp), mdp.staged_transition, mdp.action_mask
    sweeps.soft_optimal(rows, staged, mdp.reward_layers, mask, float(temperature), value, q, policy)
    finish(value, q, policy)
    return Plan(mdp, value, q, policy, float(temperature))


def greedy(q: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.int64]:
    """The lowest-numbered allowed maximiser of every row of action values.

    Parameters
    ----------
    q : (..., A)
        Action values; -inf marks a forbidden action.
    mask : (..., A) bool, optional
        Further forbidden actions, where False; broadcast against `q`.

    Returns
    -------
    int64 (...)

    Raises
    ------
    ValueError
        A NaN or +inf among the allowed values, or a row without an allowed action; the entry is named.
    """
    values = real(q, "q").astype(np.float64)
    if values.ndim == 0:
        raise ValueError("q is a number, not a table of action values")
    if mask is not None:
        allowed = np.asarray(mask)
        if allowed.dtype != bool:
            raise ValueError(f"mask must be boolean, not {allowed.dtype}")
        values = np.where(allowed, values, -np.inf)
    wrong = ~(values < np.inf)
    if wrong.any():
        raise ValueError(f"{entry('q', first(wrong))} is {values[first(wrong)]}")
    empty = np.asarray(~(values > -np.inf).any(axis=-1))
    if empty.any():
        raise ValueError(f"{entry('q', first(empty))} allows no action" if empty.ndim else "q allows no action")
    return values.argmax(axis=-1).astype(np.int64)


def optimal_actions(plan: Plan) -> NDArray[np.bool_]:
    """Every action that rounding does not rule out as optimal.

    (h, s, a) is kept when q_h(s, a) >= max_b q_h(s, b) - 2 E_h. Here E_h bounds |q_h - q*_h|, computed against exact
    values of the model with rows divided by their exact sums: with u = 2^-53, n the longest row,
    g = (n+6)u / (1-(n+6)u), d_h = max |row sum - 1| + g and m_h = (1 + d_h) max|V_{h+1}|,

    E_h = E_{h+1} + g m_h + m_h (1+g) d_h / (1-d_h) + u max|q_h|,   E_H = 0.

    So no optimal action is ever left out, and an action that is kept is worse than optimal by at most 4 E_h. The bound
    holds for every order of summation.

    Parameters
    ----------
    plan : Plan
        From `backward_induction`.

    Returns
    -------
    bool (H, S, A)

    Raises
    ------
    ValueError
        For a soft plan.
    TypeError
        For anything but a Plan.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"this needs the Plan of backward_induction, not a {type(plan).__name__}")
    if plan.temperature != 0:
        raise ValueError("a soft plan mixes all actions; optimal_actions takes the plan of backward_induction")
    allowance = np.empty(plan.mdp.horizon)
    error = 0.0
    lengths, defects = _row_lengths_and_defects(plan.mdp)
    unit = 2.0**-53
    for h in range(plan.mdp.horizon - 1, -1, -1):
        g = (lengths + 6) * unit / (1 - (lengths + 6) * unit)
        d = defects[h % len(defects)] + g
        m = (1 + d) * np.abs(plan.value[h + 1]).max()
        largest = np.abs(plan.q[h][plan.mdp.action_mask]).max()
        # The last factor and term cover the rounding of this very line and underflow.
        error = (error + g * m + m * (1 + g) * d / (1 - d) + unit * largest) * (1 + 2.0**-40) + 1e-300
        allowance[h] = 2 * error
    kept = (plan.q >= plan.value[:-1, :, np.newaxis] - allowance[:, np.newaxis, np.newaxis]) & plan.mdp.action_mask
    kept.flags.writeable = False
    return kept


def _row_lengths_and_defects(mdp: FiniteHorizonMDP) -> tuple[int, NDArray[np.float64]]:
    """Longest row, and per layer of the transitions the largest |row sum - 1| over allowed pairs."""
    if mdp.is_sparse:
        longest = int(np.diff(mdp.transition.indptr).max())
        sums = mdp.transition.row_sums().reshape(-1, mdp.n_states, mdp.n_actions)
    else:
        longest, sums = mdp.n_states, mdp.transition_layers.sum(axis=-1)
    return longest, np.where(mdp.action_mask, np.abs(sums - 1), 0.0).max(axis=(1, 2))


__all__ = [
    "BatchPlan",
    "Moments",
    "Plan",
    "backward_induction",
    "backward_induction_batch",
    "backward_induction_rewards",
    "evaluate",
    "evaluate_q",
    "greedy",
    "moments",
    "occupancy",
    "optimal_actions",
    "reachability",
    "soft_backward_induction",
]
