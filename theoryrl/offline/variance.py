"""Exact variances of off-policy estimates on a known model, by one backward sweep each."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import frozen, require_finite
from theoryrl.mdp.evaluation import moments, occupancy
from theoryrl.mdp.model import FiniteHorizonMDP, require_model
from theoryrl.mdp.policy import stochastic_layers

METHODS = ("trajectory", "per-decision", "doubly-robust", "marginalised")


class Layer(NamedTuple):
    """One layer of a model: P (S, A, S), reward per successor (S, A, S), variance of the reward beyond that (S, A)."""

    transition: NDArray[np.float64]
    reward: NDArray[np.float64]
    noise: NDArray[np.float64]


def layers_of(mdp: FiniteHorizonMDP) -> list[Layer]:
    """Dense layers with rows of forbidden pairs zeroed."""
    dense = mdp.to_dense()
    mask = mdp.action_mask
    found = []
    for h in range(mdp.horizon):
        transition = dense.transition_layers[h % len(dense.transition_layers)]
        transition = np.where(mask[..., np.newaxis], transition, 0.0)
        mean = np.where(mask, dense.reward_layers[h % len(dense.reward_layers)], 0.0)
        if dense.outcome_reward is not None:
            outcome = dense.outcome_reward
            reward = np.where(mask[..., np.newaxis], outcome if outcome.ndim == 3 else outcome[h], 0.0)
        else:
            reward = np.broadcast_to(mean[..., np.newaxis], transition.shape)
        noise = np.zeros_like(mean)
        if mdp.reward_law == "bernoulli":
            noise = mean * (1 - mean)
        elif mdp.reward_law == "uniform":
            spread = np.asarray(mdp.reward_noise)
            noise = np.where(mask, (spread if spread.ndim == 2 else spread[h]) ** 2 / 3, 0.0)
        found.append(Layer(transition, reward, noise))
    return found


def ope_variance(
    mdp: FiniteHorizonMDP,
    target: Any,
    behaviour: Any,
    method: Literal["trajectory", "per-decision", "doubly-robust", "marginalised"] = "per-decision",
    q: ArrayLike | None = None,
) -> float:
    r"""Variance of what one trajectory contributes to an off-policy estimate, exact on a known model.

    With Q, V the target's values, rho = pi / b and X_h(s) the part of the doubly robust term from layer h on,

    Var X_h(s) = sum_a b (rho (Q - q) - V + v)^2 + sum_a b rho^2 [Var(r + V_{h+1}(s') | s, a) + E Var X_{h+1}(s')]

    and Var = Var_start(V_0) + E_start Var X_0. Per-decision importance sampling is q = 0. Of the trajectory form the
    second moment follows from E[W^2 G^2], E[W^2 G] and E[W^2] of the rest of an episode, all by the same sweep under
    the weights pi^2 / b. The marginalised form with the true ratios w = d^pi / d^b is the return of b in the model with
    rewards w r.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
        Its reward law counts: Bernoulli, uniform and outcome rewards add their own variance.
    target, behaviour : (S,) or (H, S) actions, (S, A) or (H, S, A) probabilities
    method : {"trajectory", "per-decision", "doubly-robust", "marginalised"}
    q : (H, S, A), optional
        The control variate, for `"doubly-robust"` only and needed there.

    Returns
    -------
    float
        An estimate from n trajectories has this variance divided by n. Infinite if the behaviour cannot produce what
        the target does.

    Raises
    ------
    ValueError
        An unknown method, a q that is missing, superfluous or of another shape, policies that do not fit.

    Notes
    -----
    Jiang and Li (2016), Theorem 1, with random rewards; Precup et al. (2000). Derived in docs/theory/ope.md.
    """
    require_model(mdp, FiniteHorizonMDP)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, not one of {', '.join(METHODS)}")
    if (q is not None) != (method == "doubly-robust"):
        raise ValueError(f"q goes with method 'doubly-robust', and only with it; method is {method!r}")
    pi, b = full(target, mdp), full(behaviour, mdp)
    if method == "marginalised":
        return _marginalised(mdp, pi, b)
    if ((pi > 0) & (b == 0) & (_reached(mdp, pi) > 0)[..., np.newaxis]).any():
        return math.inf
    if method == "trajectory":
        return _trajectory(mdp, pi, b)
    control = np.zeros(pi.shape) if q is None else frozen(q, np.float64, "q")
    if control.shape != pi.shape:
        raise ValueError(f"q has shape {control.shape}, not {pi.shape}")
    control = np.where((pi > 0) | (b > 0), control, 0.0)
    require_finite(control, "q")
    return _doubly_robust(mdp, pi, b, control)


def efficiency_bound(mdp: FiniteHorizonMDP, target: Any, behaviour: Any) -> float:
    r"""The least asymptotic variance (times n) of any regular estimate of J(pi) that knows the model to be Markov.

    Var_start(V_0) + sum_h E_{d^b_h}[(d^pi_h / d^b_h)^2 Var(r + V_{h+1}(s') | s, a)]

    Attained by the value in the empirical model, by tabular fitted evaluation and by marginalised importance sampling
    with estimated ratios (they are one and the same).

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    target, behaviour : policies

    Returns
    -------
    float
        Infinite if the behaviour never reaches a pair that the target reaches.

    Notes
    -----
    Jiang and Li (2016), Theorem 3 (directed acyclic graphs); Kallus and Uehara (2020).
    """
    require_model(mdp, FiniteHorizonMDP)
    pi, b = full(target, mdp), full(behaviour, mdp)
    mine, theirs = occupancy(mdp, pi), occupancy(mdp, b)
    if ((mine > 0) & (theirs == 0)).any():
        return math.inf
    later, total = np.zeros(mdp.n_states), 0.0
    for h, layer in reversed(list(enumerate(layers_of(mdp)))):
        q, spread = _step(layer, later)
        weight = np.divide(mine[h] ** 2, theirs[h], out=np.zeros_like(q), where=theirs[h] > 0)
        total += float((weight * spread).sum())
        later = (pi[h] * q).sum(axis=-1)
    mean = float(mdp.initial @ later)
    return total + float(mdp.initial @ (later - mean) ** 2)


def full(policy: Any, mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    """A validated policy as probabilities (H, S, A)."""
    table = stochastic_layers(policy, mdp)
    return np.ascontiguousarray(np.broadcast_to(table, (mdp.horizon, mdp.n_states, mdp.n_actions)))


def _reached(mdp: FiniteHorizonMDP, pi: NDArray[np.float64]) -> NDArray[np.float64]:
    return occupancy(mdp, pi).sum(axis=-1)


def _step(layer: Layer, later: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Q(s, a) = E[r + later(s')] and Var(r + later(s') | s, a)."""
    outcome = layer.reward + later
    q = (layer.transition * outcome).sum(axis=-1)
    return q, layer.noise + (layer.transition * (outcome - q[..., np.newaxis]) ** 2).sum(axis=-1)


def _ratio(pi: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(pi, b, out=np.zeros_like(pi), where=b > 0)


def _doubly_robust(mdp: FiniteHorizonMDP, pi: NDArray, b: NDArray, control: NDArray[np.float64]) -> float:
    later, spread = np.zeros(mdp.n_states), np.zeros(mdp.n_states)
    rho = _ratio(pi, b)
    for h, layer in reversed(list(enumerate(layers_of(mdp)))):
        q, own = _step(layer, later)
        value, fitted = (pi[h] * q).sum(axis=-1), (pi[h] * control[h]).sum(axis=-1)
        gap = np.where(pi[h] > 0, rho[h] * (q - control[h]), 0.0) - (value - fitted)[:, np.newaxis]
        own = own + layer.transition @ spread
        spread = (b[h] * (gap**2 + rho[h] ** 2 * own)).sum(axis=-1)
        later = value
    mean = float(mdp.initial @ later)
    return float(mdp.initial @ (spread + (later - mean) ** 2))


def _trajectory(mdp: FiniteHorizonMDP, pi: NDArray, b: NDArray) -> float:
    value = 0.0
    zero, one, two = np.ones(mdp.n_states), np.zeros(mdp.n_states), np.zeros(mdp.n_states)
    later = np.zeros(mdp.n_states)
    weight = _ratio(pi**2, b)
    for h, layer in reversed(list(enumerate(layers_of(mdp)))):
        q, _ = _step(layer, later)
        later = (pi[h] * q).sum(axis=-1)
        p, r = layer.transition, layer.reward
        square = r**2 + layer.noise[..., np.newaxis]
        new_two = (p * (square * zero + 2 * r * one + two)).sum(axis=-1)
        new_one = (p * (r * zero + one)).sum(axis=-1)
        zero = (weight[h] * (p @ zero)).sum(axis=-1)
        one, two = (weight[h] * new_one).sum(axis=-1), (weight[h] * new_two).sum(axis=-1)
    value = float(mdp.initial @ later)
    # The difference of two nearly equal squares can fall below 0 by rounding.
    return max(float(mdp.initial @ two) - value**2, 0.0)


def _marginalised(mdp: FiniteHorizonMDP, pi: NDArray, b: NDArray) -> float:
    mine, theirs = occupancy(mdp, pi), occupancy(mdp, b)
    if ((mine > 0) & (theirs == 0)).any():
        return math.inf
    weight = np.divide(mine, theirs, out=np.zeros_like(mine), where=theirs > 0)
    settings: dict[str, Any] = {"horizon": mdp.horizon, "initial": mdp.initial, "action_mask": mdp.action_mask}
    if mdp.outcome_reward is not None:
        dense = mdp.to_dense()
        paid = weight[..., np.newaxis] * dense.outcome_reward
        shape = (mdp.horizon, *dense.transition_layers.shape[1:])
        rows = np.ascontiguousarray(np.broadcast_to(dense.transition_layers, shape))
        return _start_variance(FiniteHorizonMDP(rows, outcome_reward=paid, **settings), b)
    layers = layers_of(mdp)
    mean = np.stack([layer.reward[..., 0] if layer.reward.ndim == 3 else layer.reward for layer in layers])
    noise = np.stack([layer.noise for layer in layers])
    # A uniform reward of half-width sqrt(3 v) has the variance v that is wanted, whatever the law was.
    half = weight * np.sqrt(3 * noise)
    paid_model = FiniteHorizonMDP(mdp.transition, weight * mean, reward_law="uniform", reward_noise=half, **settings)
    return _start_variance(paid_model, b)


def _start_variance(mdp: FiniteHorizonMDP, policy: NDArray[np.float64]) -> float:
    found = moments(mdp, policy)
    mean = float(mdp.initial @ found.value[0])
    return float(mdp.initial @ (found.variance[0] + (found.value[0] - mean) ** 2))
