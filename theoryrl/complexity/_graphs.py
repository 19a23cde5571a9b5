"""Which states lead where, from the supports of the transitions alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP

Model = FiniteHorizonMDP | DiscountedMDP


def require_stationary(mdp: Model, what: str) -> None:
    """Raise unless the transitions are the same at every layer."""
    if mdp.staged_transition:
        raise ValueError(f"{what} needs transitions that do not change over time; these are time-varying")


def stationary_tables(mdp: Model) -> NDArray[np.float64]:
    """Transitions (S, A, S) of a stationary model, every allowed row divided by its sum, forbidden rows zero."""
    table = mdp.transition.to_dense() if mdp.is_sparse else mdp.transition
    table = np.where(mdp.action_mask[:, :, np.newaxis], table, 0.0)
    sums = table.sum(axis=-1, keepdims=True)
    return table / np.where(sums > 0, sums, 1.0)


def components(support: NDArray[np.bool_]) -> tuple[int, NDArray[np.int64]]:
    """Strongly connected components of the graph with adjacency `support` (S, S): number, and label of every state."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    number, labels = connected_components(csr_array(support), directed=True, connection="strong")
    return int(number), labels.astype(np.int64)


def closed_classes(support: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The recurrent classes of a chain: components that no edge leaves, as sorted arrays of states."""
    number, labels = components(support)
    source, target = np.nonzero(support)
    open_ones = np.unique(labels[source[labels[source] != labels[target]]])
    return [np.flatnonzero(labels == label) for label in range(number) if label not in open_ones]


def period(support: NDArray[np.bool_]) -> int:
    """The period of an irreducible chain: the greatest common divisor of the lengths of its cycles."""
    depth = np.full(len(support), -1)
    depth[0], frontier, level = 0, np.array([0]), 0
    while frontier.size:
        level += 1
        reached = np.asarray(support[frontier].any(axis=0) & (depth < 0))
        depth[reached] = level
        frontier = np.flatnonzero(reached)
    source, target = np.nonzero(support)
    return math.gcd(*(int(gap) for gap in np.unique(np.abs(depth[source] + 1 - depth[target]))))


def leading_into(support: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The support (S, A, S) with the next state first: what `surely_reaching` walks along."""
    return np.ascontiguousarray(np.moveaxis(support, -1, 0))


def surely_reaching(into: NDArray[np.bool_], target: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The states from which some policy reaches `target` with probability 1, and a policy that does.

    into (S, S, A): `leading_into` of where the transitions are positive; forbidden rows are empty. The set is the
    greatest W such that every state of W has an action that stays in W + {target} and leads closer to the target with
    positive probability. Every state is looked at once in a round, at most S rounds.
    """
    n_states = len(into)
    inside = np.ones(n_states, bool)
    policy = np.zeros(n_states, np.int64)
    staying = into.any(axis=0)
    while True:
        reached = np.zeros(n_states, bool)
        reached[target] = True
        frontier = np.array([target])
        while frontier.size:
            closer: NDArray[np.bool_] = np.asarray(into[frontier].any(axis=0) & staying)
            closer[reached] = False
            frontier = np.flatnonzero(closer.any(axis=-1))
            policy[frontier] = closer[frontier].argmax(axis=-1)
            reached[frontier] = True
        if (reached == inside).all():
            return inside, policy
        staying &= ~into[inside & ~reached].any(axis=0)
        inside = reached
