"""What a policy does: its value, the moments of its return, its occupancy; and what any policy can reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp import _kernels_batched as batched
from theoryrl.mdp import _kernels_sweeps as sweeps
from theoryrl.mdp._checks import Sealed, require_finite
from theoryrl.mdp._kernels_rows import rows_of
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.policy import MixturePolicy, policy_layers, stochastic_layers

# Targets of `reachability` are worked off in blocks whose values fill at most this many numbers (64 MB).
REACHABILITY_BLOCK = 2**23
# The first step is done state by state when at most one state in this many is an initial one.
SPARSE_START = 8


@dataclass(frozen=True, eq=False)
class Moments(Sealed):
    """Moments of the return from layer h on, each (H+1, S): `value` (mean), `second` (of the square), `variance`."""

    value: NDArray[np.float64]
    second: NDArray[np.float64]
    variance: NDArray[np.float64]


def evaluate(mdp: FiniteHorizonMDP, policy: Any) -> NDArray[np.float64]:
    """Value of a policy at every layer and state.

    V_h(s) = sum_a pi_h(a | s) (r_h(s, a) + sum_t P_h(t | s, a) V_{h+1}(t)),   V_H = 0

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policy : (S,) or (H, S) actions, (S, A) or (H, S, A) probabilities, or MixturePolicy

    Returns
    -------
    ndarray, shape (H+1, S)
        Of a mixture with weights w_k: sum_k w_k V^{pi_k}. Row 0 is the mixture's value; row h > 0 is the mean return
        when the policy is drawn at layer h, not the mixture's own continuation (which depends on the past).

    Raises
    ------
    ValueError
        Wrong shape, a forbidden action, a row that is no distribution: the entry is named. A value overflows.
    """
    require_model(mdp, FiniteHorizonMDP)
    if isinstance(policy, MixturePolicy):
        mean = _weighted(policy, [evaluate(mdp, part) for part in policy.policies])
        finish(mean)
        return mean
    table = policy_layers(policy, mdp)
    value = np.empty((mdp.horizon + 1, mdp.n_states))
    sweep = sweeps.evaluate_actions if table.ndim == 2 else sweeps.evaluate_weights
    sweep(rows_of(mdp), mdp.staged_transition, mdp.reward_layers, table, value)
    finish(value)
    return value


def evaluate_q(mdp: FiniteHorizonMDP, policy: Any) -> NDArray[np.float64]:
    """Action values of a policy: q_h(s, a) = r_h(s, a) + sum_t P_h(t | s, a) V_{h+1}(t) with V the policy's value.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policy : (S,) or (H, S) actions, or (S, A) or (H, S, A) probabilities

    Returns
    -------
    ndarray, shape (H, S, A)
        -inf where the action is forbidden.

    Raises
    ------
    ValueError
        As `evaluate`; also for a MixturePolicy, whose value after (h, s, a) depends on the past.
    """
    value, q = empty_tables(mdp)
    table = _choice(policy, mdp)
    rows, staged, mask = rows_of(mdp), mdp.staged_transition, mdp.action_mask
    sweeps.evaluate_all(rows, staged, mdp.reward_layers, mask, table, value, q)
    finish(value, q)
    return q


def moments(mdp: FiniteHorizonMDP, policy: Any) -> Moments:
    """Mean, second moment and variance of the return R_h + ... + R_{H-1} under a policy and the model's reward law.

    The variance follows the law of total variance, so it never loses digits to E[X^2] - E[X]^2:

    W_h(s) = sum_a pi_h(a | s) [(q_h(s, a) - V_h(s))^2 + Var(R_h + V_{h+1}(s') | s, a) + sum_t P_h(t | s, a) W_{h+1}(t)]

    The reward is independent of the next state given (s, a), with variance 0 (deterministic), r (1 - r) (Bernoulli) or
    noise^2 / 3 (uniform), except under the outcome law, where it is a function of the next state.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policy : (S,) or (H, S) actions, (S, A) or (H, S, A) probabilities, or MixturePolicy

    Returns
    -------
    Moments
        Of a mixture: of the return when the policy is drawn at layer h, as in `evaluate`; row 0 is the mixture's own.

    Raises
    ------
    ValueError
        As `evaluate`.

    Notes
    -----
    Sobel (1982), The variance of discounted Markov decision processes, in its finite-horizon form.
    """
    require_model(mdp, FiniteHorizonMDP)
    if isinstance(policy, MixturePolicy):
        parts = [moments(mdp, part) for part in policy.policies]
        value = _weighted(policy, [part.value for part in parts])
        variance = _weighted(policy, [part.variance + (part.value - value) ** 2 for part in parts])
    else:
        table = _choice(policy, mdp)
        value = np.empty((mdp.horizon + 1, mdp.n_states))
        variance = np.empty_like(value)
        rows, staged = rows_of(mdp), mdp.staged_transition
        scratch = np.empty(mdp.n_actions)
        sweeps.moments(rows, staged, mdp.reward_layers, _noise(mdp), _outcome(mdp), table, value, variance, scratch)
    second = variance + value * value
    finish(value, variance, second)
    return Moments(value, second, variance)


def occupancy(mdp: FiniteHorizonMDP, policy: Any) -> NDArray[np.float64]:
    """Probability of every state and action at every layer under a policy.

    d_h(s, a) = P(s_h = s, a_h = a);   d_{h+1}(t) = sum_{s, a} d_h(s, a) P_h(t | s, a);   <d, r> = value of the policy

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    policy : (S,) or (H, S) actions, (S, A) or (H, S, A) probabilities, or MixturePolicy

    Returns
    -------
    ndarray, shape (H, S, A)
        Non-negative; every layer sums to 1. Of a mixture: the weighted sum, which is its own occupancy.

    Raises
    ------
    ValueError
        As `evaluate`.

    Notes
    -----
    Puterman (1994), section 6.9, in its finite-horizon form.
    """
    require_model(mdp, FiniteHorizonMDP)
    if isinstance(policy, MixturePolicy):
        pair = _weighted(policy, [occupancy(mdp, part) for part in policy.policies])
    else:
        table = _choice(policy, mdp)
        state = np.empty((mdp.horizon, mdp.n_states))
        state[0] = mdp.initial
        pair = np.empty((mdp.horizon, mdp.n_states, mdp.n_actions))
        sweeps.occupancy(rows_of(mdp), mdp.staged_transition, table, state, pair)
    pair.flags.writeable = False
    return pair


def reachability(mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    """Largest probability with which any policy is in state s at layer h.

    rho_h(s) = max_pi P(s_h = s) = sum_x mu(x) U_0(x),  U_h = 1{s},  U_j(x) = max_a sum_t P_j(t | x, a) U_{j+1}(t)

    All targets are swept at once, each layer of the transitions read once per block of targets: S targets for a
    stationary kernel, S more at every layer for a time-varying one.

    Parameters
    ----------
    mdp : FiniteHorizonMDP

    Returns
    -------
    ndarray, shape (H, S)
        Row 0 is the initial distribution.
    """
    require_model(mdp, FiniteHorizonMDP)
    reach = np.empty((mdp.horizon, mdp.n_states))
    reach[0] = mdp.initial
    per_target = mdp.n_states * (mdp.n_actions + 2) * (mdp.horizon if mdp.staged_transition else 1)
    width = max(1, min(mdp.n_states, REACHABILITY_BLOCK // per_target))
    block = _reach_staged if mdp.staged_transition else _reach_stationary
    for begin in range(0, mdp.n_states, width):
        targets = np.arange(begin, min(begin + width, mdp.n_states))
        reach[1:, targets] = block(mdp, targets)
    reach.flags.writeable = False
    return reach


def _reach_stationary(mdp: FiniteHorizonMDP, targets: NDArray[np.int64]) -> NDArray[np.float64]:
    rows, n_targets = rows_of(mdp), len(targets)
    ahead = np.zeros((mdp.n_states, n_targets))
    ahead[targets, np.arange(n_targets)] = 1.0
    value, q = np.empty_like(ahead), np.empty((mdp.n_states, mdp.n_actions, n_targets))
    reach = np.empty((mdp.horizon - 1, n_targets))
    for h in range(mdp.horizon - 1):
        batched.reach_step(rows, 0, mdp.action_mask, ahead, q, value)
        reach[h] = mdp.initial @ value
        ahead, value = value, ahead
    return reach


def _reach_staged(mdp: FiniteHorizonMDP, targets: NDArray[np.int64]) -> NDArray[np.float64]:
    # Columns are (layer, target) with the latest layer first: those of layer h join when the sweep has come down to h.
    rows, n_targets, n_states, steps = rows_of(mdp), len(targets), mdp.n_states, mdp.horizon - 1
    start = np.flatnonzero(mdp.initial)
    # Room for the widest step, taken once: fresh memory costs as much as the products.
    room = [np.empty(n_states * steps * n_targets * size) for size in (1, 1, mdp.n_actions)]
    value = room[0][:0].reshape(n_states, 0)
    for h in range(steps - 1, -1, -1):
        width = value.shape[1]
        if h == 0 and width and not mdp.is_sparse and SPARSE_START * len(start) <= n_states:
            # The widest step is wanted at the few initial states only.
            return _first_step(mdp, start, value, targets).reshape(steps, n_targets)[::-1]
        ahead, q = (
            flat[: n_states * size * (width + n_targets)].reshape(n_states, -1, width + n_targets)
            for flat, size in zip(room[1:], (1, mdp.n_actions), strict=True)
        )
        ahead = ahead[:, 0]
        ahead[:, :width], ahead[:, width:] = value, 0.0
        ahead[targets, width + np.arange(n_targets)] = 1.0
        value = room[0][: ahead.size].reshape(ahead.shape)
        batched.reach_step(rows, h, mdp.action_mask, ahead, q, value)
    return (mdp.initial @ value).reshape(steps, n_targets)[::-1]


def _first_step(
    mdp: FiniteHorizonMDP, start: NDArray[np.int64], value: NDArray[np.float64], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    total = np.zeros(value.shape[1] + len(targets))
    for s in start:
        table = mdp.transition_layers[0][s, mdp.action_mask[s]]
        total += mdp.initial[s] * np.append((table @ value).max(axis=0), table[:, targets].max(axis=0))
    return total


def empty_tables(mdp: FiniteHorizonMDP) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Room for value (H+1, S) and q (H, S, A) of a checked model."""
    require_model(mdp, FiniteHorizonMDP)
    return np.empty((mdp.horizon + 1, mdp.n_states)), np.empty((mdp.horizon, mdp.n_states, mdp.n_actions))


def finish(value: NDArray[np.float64], *others: NDArray) -> None:
    """Refuse a value that overflowed; make the results read-only."""
    # An overflow anywhere shows in the value: as infinity, or as the NaN of 0 * infinity.
    require_finite(value, "value")
    for array in (value, *others):
        array.flags.writeable = False


def _noise(mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    """Variance of the reward given (s, a), (L, S, A), as far as it does not depend on the next state."""
    reward = mdp.reward_layers
    if mdp.reward_law == "bernoulli":
        return reward * (1 - reward)
    if mdp.reward_law == "uniform":
        return (mdp.reward_noise**2 / 3).reshape(reward.shape)
    return np.zeros((1, *reward.shape[1:]))


def _outcome(mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    """Reward per successor as the rows are stored; empty when the reward does not depend on the successor."""
    if mdp.outcome_reward is None:
        empty = np.empty(0 if mdp.is_sparse else (0, 0, 0))
        empty.flags.writeable = False
        return empty
    if mdp.is_sparse:
        return mdp.outcome_reward
    return mdp.outcome_reward.reshape(-1, mdp.n_states * mdp.n_actions, mdp.n_states)


def _choice(policy: Any, mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    """A validated policy as probabilities (L, S, A); always read-only, so that kernels compile for one type."""
    table = stochastic_layers(policy, mdp)
    table.flags.writeable = False
    return table


def _weighted(mixture: MixturePolicy, tables: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """sum_k w_k tables[k]."""
    return np.tensordot(np.asarray(mixture.weights, np.float64), np.array(tables), axes=1)
