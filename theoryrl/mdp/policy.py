"""Policies: arrays, episode-level mixtures, and history-dependent ones as Markov policies of an augmented model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import ROW_TOLERANCE, Sealed, entry, first, frozen, require_distribution, require_int
from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP, require_model
from theoryrl.mdp.transitions import SparseTransition

Model = FiniteHorizonMDP | DiscountedMDP


def policy_layers(policy: Any, mdp: Model) -> NDArray:
    """A validated policy with a layer axis, L in {1, H}: int64 (L, S) if deterministic, float64 (L, S, A) otherwise.

    Parameters
    ----------
    policy : (S,) or (H, S) integers, or (S, A) or (H, S, A) probabilities
        An array of integers is deterministic, an array of floats stochastic. Where the shape fits both readings the
        type of the array decides.

    Raises
    ------
    ValueError
        Wrong shape, an action out of range or forbidden, a row that is no distribution; the entry is named.
    """
    if isinstance(policy, MixturePolicy):
        raise ValueError("a MixturePolicy is not one Markov policy; evaluate, occupancy and rollout take it as it is")
    table = np.asarray(policy)
    n_states, n_actions = mdp.n_states, mdp.n_actions
    horizon = mdp.horizon if isinstance(mdp, FiniteHorizonMDP) else None
    if table.dtype.kind in "iu" and table.shape in ((n_states,), (horizon, n_states)):
        table = frozen(table, np.int64, "policy")
        wrong = (table < 0) | (table >= n_actions)
        if wrong.any():
            place = first(wrong)
            raise ValueError(f"{entry('policy', place)} = {table[place]} is not an action (0 to {n_actions - 1})")
        forbidden = ~np.take_along_axis(mdp.action_mask, np.atleast_2d(table).T, axis=1).T.reshape(table.shape)
        if forbidden.any():
            raise ValueError(f"{entry('policy', first(forbidden))} = {table[first(forbidden)]} is a forbidden action")
        return table[np.newaxis] if table.ndim == 1 else table
    if table.shape not in ((n_states, n_actions), (horizon, n_states, n_actions)):
        ways = f"({n_states},), ({n_states}, {n_actions})"
        ways += f", ({horizon}, {n_states}) or ({horizon}, {n_states}, {n_actions})" if horizon else ""
        ways += ", integer actions or probabilities"
        raise ValueError(f"policy has shape {table.shape} and type {table.dtype}; it can be {ways}")
    table = frozen(table, np.float64, "policy")
    with np.errstate(invalid="ignore"):
        wrong = ~(table >= 0)
        if wrong.any():
            raise ValueError(f"{entry('policy', first(wrong))} is {table[first(wrong)]}, not a probability")
        sums = table.sum(axis=-1)
        off = ~(np.abs(sums - 1) <= ROW_TOLERANCE)
    if off.any():
        raise ValueError(f"{entry('policy', first(off))} sums to {sums[first(off)]:.12g}, not 1")
    forbidden = (table > 0) & ~mdp.action_mask
    if forbidden.any():
        raise ValueError(f"{entry('policy', first(forbidden))} gives weight to a forbidden action")
    return table[np.newaxis] if table.ndim == 2 else table


def stochastic_layers(policy: Any, mdp: Model) -> NDArray[np.float64]:
    """A validated policy as probabilities (L, S, A), L in {1, H}."""
    table = policy_layers(policy, mdp)
    if table.ndim == 3:
        return table
    return cast(NDArray[np.float64], (table[..., np.newaxis] == np.arange(mdp.n_actions)).astype(np.float64))


def uniform_policy(mdp: Model) -> NDArray[np.float64]:
    """Equal probability for every allowed action, shape (S, A)."""
    require_model(mdp)
    return mdp.action_mask / mdp.action_mask.sum(axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class MixturePolicy(Sealed):
    """One of several policies, drawn once at the start of an episode.

    Parameters
    ----------
    policies : sequence of policies (arrays; see `policy_layers`)
        Copied. A mixture among them is taken apart: its policies enter with the products of the weights.
    weights : (K,) distribution, default uniform
    """

    policies: Sequence[Any]
    weights: ArrayLike | None = field(default=None)

    def __post_init__(self) -> None:
        policies = tuple(self.policies)
        if not policies:
            raise ValueError("a mixture needs at least one policy")
        weights = np.full(len(policies), 1 / len(policies)) if self.weights is None else self.weights
        weights = frozen(weights, np.float64, "weights")
        if weights.shape != (len(policies),):
            raise ValueError(f"weights has shape {weights.shape} for {len(policies)} policies")
        require_distribution(weights, "weights")
        parts: list[tuple[NDArray, float]] = []
        for k, (policy, weight) in enumerate(zip(policies, weights, strict=True)):
            if isinstance(policy, MixturePolicy):
                inner = zip(policy.policies, cast(NDArray, policy.weights), strict=True)
                parts += [(member, weight * share) for member, share in inner]
            else:
                parts.append((_owned(policy, f"policies[{k}]"), weight))
        object.__setattr__(self, "policies", tuple(member for member, _ in parts))
        object.__setattr__(self, "weights", frozen([weight for _, weight in parts], np.float64, "weights"))

    def __eq__(self, other: object) -> bool:
        """The same policies with the same weights, in the same order."""
        if not isinstance(other, MixturePolicy):
            return NotImplemented
        mine, theirs = (*self.policies, self.weights), (*other.policies, other.weights)
        return len(mine) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))

    __hash__ = None  # type: ignore[assignment]


def _owned(policy: Any, name: str) -> NDArray:
    try:
        kind = np.asarray(policy).dtype.kind
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {error}") from None
    return frozen(policy, np.int64 if kind in "iu" else np.float64, name)


@dataclass(frozen=True)
class AugmentedMDP:
    """A model whose states carry a memory: state `s` with memory `m` is number `m * S + s`.

    A Markov policy of `mdp` is a history-dependent policy of the original model.
    """

    mdp: FiniteHorizonMDP
    n_memory: int

    def state(self, s: int, memory: int) -> int:
        """Number of the pair (s, memory)."""
        return memory * (self.mdp.n_states // self.n_memory) + s

    def marginal(self, table: NDArray) -> NDArray:
        """Sum an array (H, n_memory * S, ...) over the memory: an occupancy of the original model."""
        n_states = self.mdp.n_states // self.n_memory
        return table.reshape(table.shape[0], self.n_memory, n_states, *table.shape[2:]).sum(axis=1)


def augment(
    mdp: FiniteHorizonMDP,
    n_memory: int,
    update: Callable[[int, int, int, int], int],
    initial_memory: int | Callable[[int], int] = 0,
) -> AugmentedMDP:
    """The model with a finite memory: after `(s, a, s')` in memory m the memory becomes `update(m, s, a, s')`.

    Histories are memories that forget nothing; any finite summary (the previous state, a counter, a set of visited
    states) makes the policies that depend on it Markov here, so that everything exact applies to them.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
    n_memory : int
        Number M of memory values; the model has M * S states, stored sparse.
    update : callable (m, s, a, s') -> m'
    initial_memory : int or callable s -> m

    Raises
    ------
    ValueError
        If `update` or `initial_memory` leaves 0..M-1; the arguments are named.
    """
    require_model(mdp, FiniteHorizonMDP)
    n_memory = require_int(n_memory, 1, "n_memory")
    source = mdp.to_sparse()
    rows: SparseTransition = source.transition
    n_states, n_actions = mdp.n_states, mdp.n_actions
    row = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
    layer, state, action = np.unravel_index(row, (rows.n_layers, n_states, n_actions))
    parts = []
    for memory in range(n_memory):
        moved = np.empty(len(row), np.int64)
        for i in range(len(row)):
            call = memory, int(state[i]), int(action[i]), int(rows.indices[i])
            moved[i] = _memory(update(*call), n_memory, f"update{call}")
        parts.append(moved)
    origin = np.concatenate([memory * n_states + state for memory in range(n_memory)])
    target = np.concatenate([moved * n_states + rows.indices for moved in parts])
    wide = SparseTransition.from_entries(
        origin,
        np.tile(action, n_memory),
        target,
        np.tile(rows.data, n_memory),
        n_memory * n_states,
        n_actions,
        np.tile(layer, n_memory) if rows.staged else None,
        rows.n_layers,
    )
    initial = np.zeros(n_memory * n_states)
    for s in range(n_states):
        given = initial_memory(s) if callable(initial_memory) else initial_memory
        memory = _memory(given, n_memory, f"initial_memory of state {s}")
        initial[memory * n_states + s] = mdp.initial[s]
    reward: dict[str, Any]
    if mdp.reward_law == "outcome":
        # A stored entry of the wide rows comes from exactly one of the source: bring the rewards into their order.
        order = np.lexsort((target, np.tile(action, n_memory), origin, np.tile(layer, n_memory)))
        reward = {"outcome_reward": np.tile(source.outcome_reward, n_memory)[order]}
    else:
        reward = {"reward": np.concatenate([mdp.reward] * n_memory, axis=-2), "reward_law": mdp.reward_law}
        if mdp.reward_noise is not None:
            reward["reward_noise"] = np.concatenate([mdp.reward_noise] * n_memory, axis=-2)
    wide_mdp = FiniteHorizonMDP(
        wide,
        horizon=mdp.horizon,
        initial=initial,
        action_mask=np.tile(mdp.action_mask, (n_memory, 1)),
        reward_range=mdp.reward_range,
        name=f"{mdp.name} with memory {n_memory}".strip(),
        **reward,
    )
    return AugmentedMDP(wide_mdp, n_memory)


def _memory(value: Any, n_memory: int, name: str) -> int:
    if not isinstance(value, (int, np.integer)) or not 0 <= value < n_memory:
        raise ValueError(f"{name} = {value!r} is not in 0 to {n_memory - 1}")
    return int(value)


def induced_chain(mdp: FiniteHorizonMDP, policy: Any) -> FiniteHorizonMDP:
    """The Markov chain of `mdp` under `policy`, as a model with a single action (see `FiniteHorizonMDP.induced`)."""
    choice = stochastic_layers(policy, mdp)
    # Rows of model and policy may each be off 1 by 1e-9; the product of two such rows must not be off by more.
    choice = choice / choice.sum(axis=-1, keepdims=True)
    reward = np.where(mdp.action_mask, mdp.reward_layers, 0.0)
    mean = np.einsum("lsa,lsa->ls", *np.broadcast_arrays(choice, reward))[..., np.newaxis]
    staged = mdp.staged_transition or len(choice) > 1
    common = {
        "horizon": mdp.horizon,
        "initial": mdp.initial,
        "reward_range": mdp.reward_range,
        "state_labels": mdp.state_labels,
        "name": f"{mdp.name} under a policy".strip(),
    }
    mean = mean if len(mean) > 1 else mean[0]
    if not mdp.is_sparse:
        kernel = np.where(mdp.action_mask[..., np.newaxis], mdp.transition_layers, 0.0)
        layers = mdp.horizon if staged else 1
        chain = np.empty((layers, mdp.n_states, 1, mdp.n_states))
        for h in range(layers):
            np.einsum("sa,sat->st", choice[h % len(choice)], kernel[h % len(kernel)], out=chain[h, :, 0])
        return FiniteHorizonMDP(chain if staged else chain[0], mean, **common)
    rows: SparseTransition = mdp.transition
    row = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
    layer, state, action = np.unravel_index(row, (rows.n_layers, mdp.n_states, mdp.n_actions))
    where, which = [], []
    for h in range(mdp.horizon if staged else 1):
        here = np.flatnonzero(layer == h) if rows.staged else np.arange(len(row))
        here = here[choice[h % len(choice)][state[here], action[here]] > 0]
        where.append(here)
        which.append(np.full(len(here), h))
    here, stage = np.concatenate(where), np.concatenate(which)
    weight = rows.data[here] * choice[stage % len(choice), state[here], action[here]]
    chain_rows = SparseTransition.from_entries(
        state[here],
        np.zeros_like(here),
        rows.indices[here],
        weight,
        mdp.n_states,
        1,
        stage if staged else None,
        len(where),
    )
    return FiniteHorizonMDP(chain_rows, mean, **common)
