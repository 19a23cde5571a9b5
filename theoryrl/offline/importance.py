"""Importance sampling and doubly robust estimates of a policy's value from trajectories of a known behaviour policy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.mdp.dataset import Dataset
from theoryrl.offline import _kernels as kernels
from theoryrl.offline._data import Episodes, Uncovered, episodes, policy_table, tables, value_table
from theoryrl.offline.estimate import Estimate


def importance_sampling(
    data: Dataset, target: Any, behaviour: Any, *, per_decision: bool = True, weighted: bool = False
) -> Estimate:
    """Value of `target` from trajectories of `behaviour`, reweighted by the ratio of their probabilities.

    With rho_h = pi_h(a_h | s_h) / b_h(a_h | s_h) and W_h = rho_0 ... rho_h, a trajectory contributes

    W_{H-1} sum_h r_h   (trajectory)   or   sum_h W_h r_h   (per decision).

    Both have expectation J(pi). Their variance can grow exponentially with H: `ope_variance` computes it on a known
    model. The weighted forms divide by the sum of the weights instead of n; they are consistent, stay within the range
    of returns, and are biased at every finite n.

    Parameters
    ----------
    data : Dataset
        Whole trajectories.
    target, behaviour : (S,) or (H, S) actions, (S, A) or (H, S, A) probabilities
        The policies pi and b; `behaviour` is the one that played.
    per_decision : bool
        A reward is weighted by the past of its own step only, not by the future.
    weighted : bool
        Self-normalised weights.

    Returns
    -------
    Estimate
        Refused, with the pairs named, if at a state in the data the target plays an action that the behaviour never
        plays: the expectation is not J(pi) then. The standard error of the weighted forms is the delta method's.

    Raises
    ------
    ValueError
        Incomplete trajectories, policies that do not fit, or an action in the data to which `behaviour` gives
        probability 0; the entry is named. Weights too large for floating point.

    Notes
    -----
    Precup, Sutton and Singh (2000), Eligibility traces for off-policy policy evaluation, section 2.
    """
    method = f"{'weighted ' if weighted else ''}{'per-decision' if per_decision else 'trajectory'} importance sampling"
    rows, ratio, uncovered = _prepared(data, target, behaviour)
    if uncovered:
        return Estimate.refused(method, not weighted, rows.number.size, uncovered)
    if weighted:
        return _self_normalised(rows, ratio, per_decision, method)
    terms = np.empty(rows.number.size)
    if per_decision:
        nothing = np.zeros(ratio.shape)
        kernels.weighted_returns(*rows[1:], ratio, nothing, nothing[..., 0], terms)
    else:
        kernels.last_weights(*rows[1:3], ratio, terms)
        with np.errstate(invalid="ignore", over="ignore"):
            terms *= rows.reward.sum(axis=1)
    return Estimate.mean(terms, method, True)


def _self_normalised(rows: Episodes, ratio: NDArray[np.float64], per_decision: bool, method: str) -> Estimate:
    n, horizon = rows.state.shape
    weight = np.empty((n, horizon))
    kernels.running_weights(*rows[1:3], ratio, weight)
    reward = rows.reward
    if not per_decision:
        weight, reward = weight[:, -1:], reward.sum(axis=1, keepdims=True)
    mass = weight.sum(axis=0)
    if not np.isfinite(mass).all():
        raise ValueError(f"{method}: the weights are too large for floating point")
    if not (mass > 0).all():
        # No trajectory is possible under the target: the ratio 0 / 0 is no estimate, and no pair can be blamed.
        return Estimate(math.inf, math.inf, f"{method} (every weight is 0)", False, n)
    share = weight / mass
    value = (share * reward).sum(axis=0)
    influence = (share * (reward - value)).sum(axis=1)
    # Where one trajectory has all the weight, nothing shows how it varies.
    alone = ((weight > 0).sum(axis=0) < 2).any()
    error = math.inf if alone else math.sqrt(float((influence**2).sum()))
    return Estimate(float(value.sum()), error, method, False, n)


def doubly_robust(
    data: Dataset, target: Any, behaviour: Any, q: ArrayLike | None = None, *, folds: int = 2
) -> Estimate:
    """Per-decision importance sampling with a table q of action values as control variate.

    A trajectory contributes sum_h W_{h-1} v_h(s_h) + W_h (r_h - q_h(s_h, a_h)), v_h(s) = sum_a pi_h(a | s) q_h(s, a).
    Its expectation is J(pi) for every q that does not depend on the trajectory; its variance is small where q is near
    the true action values of the target.

    Parameters
    ----------
    data : Dataset
        Whole trajectories.
    target, behaviour : policies
        As in `importance_sampling`.
    q : (H, S, A), optional
        A fixed table; what stands at pairs that neither policy plays is never read (-inf where actions are forbidden).
        By default it is fitted (tabular evaluation of the counts) on the other folds of the data, so that
        no trajectory meets a table that it helped to fit, and the estimate remains unbiased.
    folds : int
        At least 2 and at most the number of trajectories; used without `q`.

    Returns
    -------
    Estimate
        Refused as in `importance_sampling`. With fitted q the standard error takes the terms for independent; across
        folds they are so only asymptotically.

    Raises
    ------
    ValueError
        As `importance_sampling`; a q that is not finite or of another shape.

    Notes
    -----
    Jiang and Li (2016), Doubly robust off-policy value evaluation for reinforcement learning, equation 10.
    """
    rows, ratio, uncovered = _prepared(data, target, behaviour)
    method = "doubly robust" if q is not None else f"doubly robust, {folds} folds"
    n = rows.number.size
    if uncovered:
        return Estimate.refused(method, True, n, uncovered)
    table = policy_table(target, data, "target")
    terms = np.empty(n)
    if q is not None:
        values = value_table(q, data, "q", (table > 0) | (policy_table(behaviour, data, "behaviour") > 0))
        kernels.weighted_returns(*rows[1:], ratio, values, (table * values).sum(axis=-1), terms)
        return Estimate.mean(terms, method, True)
    folds = require_int(folds, 2, "folds")
    if folds > n:
        raise ValueError(f"folds = {folds} for {n} trajectories")
    for fold in range(folds):
        mine = np.arange(n) % folds == fold
        values = _fitted(data, table, rows, ~mine)
        part = np.empty(int(mine.sum()))
        here = [np.ascontiguousarray(column[mine]) for column in rows[1:]]
        kernels.weighted_returns(*here, ratio, values, (table * values).sum(axis=-1), part)
        terms[mine] = part
    return Estimate.mean(terms, method, True)


def _fitted(data: Dataset, target: NDArray, rows: Episodes, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Tabular action values of the target on some trajectories; 0 where they show nothing."""
    kept = np.isin(data.trajectory, rows.number[chosen])
    columns = (column[kept] for column in data.columns.values())
    counts = tables(Dataset.of_checked(columns, data.n_states, data.n_actions, data.horizon))
    values = np.zeros(target.shape)
    later = np.zeros(data.n_states)
    for h in range(data.horizon - 1, -1, -1):
        values[h] = (counts.reward_sums[h] + counts.transitions[h] @ later) / np.maximum(counts.visits[h], 1.0)
        later = (target[h] * values[h]).sum(axis=-1)
    return values


def _prepared(data: Dataset, target: Any, behaviour: Any) -> tuple[Episodes, NDArray[np.float64], Uncovered]:
    """Trajectories, ratios (H, S, A), and the pairs that the target plays at states in the data and b never does."""
    rows = episodes(data)
    pi, b = policy_table(target, data, "target"), policy_table(behaviour, data, "behaviour")
    impossible = kernels.first_impossible(rows.state, rows.action, b)
    if impossible >= 0:
        i, h = divmod(int(impossible), data.horizon)
        raise ValueError(
            f"trajectory {rows.number[i]} plays action {rows.action[i, h]} in state {rows.state[i, h]} at step {h}, "
            "to which behaviour gives probability 0"
        )
    with np.errstate(over="ignore"):
        ratio = np.divide(pi, b, out=np.zeros_like(pi), where=b > 0)
    missing = (b == 0) & (pi > 0)
    if not missing.any():
        return rows, ratio, ()
    # A state matters if a trajectory is there whose past is possible under the target.
    weight = np.empty(rows.state.shape)
    kernels.running_weights(*rows[1:3], ratio, weight)
    alive = np.column_stack([np.ones(len(weight), bool), weight[:, :-1] > 0])
    seen = np.zeros(pi.shape[:2], bool)
    step = np.broadcast_to(np.arange(data.horizon), rows.state.shape)
    seen[step[alive], rows.state[alive]] = True
    places = np.argwhere(missing & seen[..., np.newaxis])
    return rows, ratio, tuple((int(h), int(s), int(a)) for h, s, a in places)
