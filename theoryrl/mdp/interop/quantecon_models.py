"""quantecon's DiscreteDP, in product form and in the form of state-action pairs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP, require_model
from theoryrl.mdp.transitions import SparseTransition

Model = FiniteHorizonMDP | DiscountedMDP


def from_quantecon(ddp: Any, horizon: int | None = None) -> Model:
    """The model in a quantecon DiscreteDP of either form.

    r = R, P = Q, gamma = beta. Pairs with reward -inf and pairs that are missing are forbidden actions.

    With a horizon, the problem of H discounted stages: r_h = beta^h R, so that the value at layer h is beta^h times
    the one that quantecon's `backward_induction(ddp, H)` returns there, and at layer 0 the same.

    Parameters
    ----------
    ddp : quantecon.markov.DiscreteDP
        Anything with its attributes R, Q, beta, s_indices and a_indices will do.
    horizon : int, optional
        H; needed when beta = 1.

    Returns
    -------
    DiscountedMDP, or FiniteHorizonMDP with a horizon
        Sparse if Q is.

    Raises
    ------
    ValueError
        beta = 1 without a horizon; shapes and numbers that make no model.
    """
    if not hasattr(ddp, "beta"):
        raise TypeError(f"this needs a quantecon DiscreteDP, not a {type(ddp).__name__}")
    beta = float(ddp.beta)
    product = ddp.s_indices is None
    transition, reward, mask = _product_form(ddp) if product else _pair_form(ddp)
    if horizon is None:
        if not beta < 1:
            raise ValueError(f"beta = {beta:g} is no discount factor below 1; pass horizon=")
        return DiscountedMDP(transition, reward, discount=beta, action_mask=mask)
    if not 0 <= beta <= 1:
        raise ValueError(f"beta = {beta:g} is not in [0, 1]")
    if beta < 1:
        reward = beta ** np.arange(horizon)[:, np.newaxis, np.newaxis] * reward
    return FiniteHorizonMDP(transition, reward, horizon=horizon, action_mask=mask)


def to_quantecon(mdp: Model, form: Literal["product", "sa-pair"] = "product") -> Any:
    """A stationary model as a quantecon DiscreteDP with its mean rewards; beta is the discount, or 1 with a horizon.

    Parameters
    ----------
    mdp : DiscountedMDP or stationary FiniteHorizonMDP
    form : {"product", "sa-pair"}
        (S, A) tables in which forbidden actions have reward -inf and no transitions (Q is dense), or one row per
        allowed pair (Q is sparse if the model is).

    Raises
    ------
    ValueError
        For layers, which DiscreteDP does not have.
    """
    if form not in ("product", "sa-pair"):
        raise ValueError(f"form must be 'product' or 'sa-pair', not {form!r}")
    require_model(mdp)
    if not mdp.stationary:
        raise ValueError("a DiscreteDP is stationary; this model has layers")
    from quantecon.markov import DiscreteDP

    beta = mdp.discount if isinstance(mdp, DiscountedMDP) else 1.0
    if form == "product":
        allowed = mdp.action_mask
        transition = np.where(allowed[..., np.newaxis], mdp.to_dense().transition, 0.0)
        return DiscreteDP(np.where(allowed, mdp.reward, -np.inf), transition, beta)
    states, actions = np.nonzero(mdp.action_mask)
    rows: Any
    if mdp.is_sparse:
        rows = mdp.transition.to_scipy()[states * mdp.n_actions + actions]
    else:
        rows = mdp.transition[states, actions]
    return DiscreteDP(mdp.reward[states, actions], rows, beta, states, actions)


def _product_form(ddp: Any) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_]]:
    reward = np.asarray(ddp.R, np.float64)
    mask = ~np.isneginf(reward)
    return np.asarray(ddp.Q, np.float64), np.where(mask, reward, 0.0), mask


def _pair_form(ddp: Any) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_]]:
    states, actions = np.asarray(ddp.s_indices, np.int64), np.asarray(ddp.a_indices, np.int64)
    values = np.asarray(ddp.R, np.float64)
    n_pairs, n_states = ddp.Q.shape
    if not len(states) == len(actions) == len(values) == n_pairs:
        raise ValueError(f"{len(states)} states, {len(actions)} actions, {len(values)} rewards and {n_pairs} rows of Q")
    n_actions = int(actions.max()) + 1
    feasible = ~np.isneginf(values)
    reward, mask = np.zeros((n_states, n_actions)), np.zeros((n_states, n_actions), bool)
    reward[states[feasible], actions[feasible]] = values[feasible]
    mask[states[feasible], actions[feasible]] = True
    if not hasattr(ddp.Q, "tocsr"):
        transition = np.zeros((n_states, n_actions, n_states))
        transition[states, actions] = ddp.Q
        return transition, reward, mask
    entries = ddp.Q.tocoo()
    state: Any = states[entries.row]
    action: Any = actions[entries.row]
    rows = SparseTransition.from_entries(state, action, entries.col, entries.data, n_states, n_actions)
    return rows, reward, mask
