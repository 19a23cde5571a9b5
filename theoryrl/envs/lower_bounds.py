"""Hard instances: the models in which lower bounds on regret are proved."""

from __future__ import annotations

import numpy as np

from theoryrl.envs._family import family, require_real
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP


@family
def jao_two_state(
    *, n_actions: int = 2, delta: float = 0.1, epsilon: float = 0.05, special: int = 0, horizon: int = 20
) -> FiniteHorizonMDP:
    """Two states that are left with probability delta whatever one does, but for one action that is better by epsilon.

    State 0 (the start) pays 0, state 1 pays 1. Every action leaves state 1 with probability delta and state 0 with
    probability delta, action `special` leaves state 0 with probability delta + epsilon.

    Parameters
    ----------
    n_actions : int
        A, at least 1.
    delta, epsilon : float
        delta in (0, 1], epsilon in [0, 1 - delta].
    special : int
        The better action, in 0..A-1.
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: with p = delta + epsilon, g = p / (p + delta) (the optimal gain) and x = 1 - p - delta, the optimal
    value is g (H - (1 - x^H) / (1 - x)).

    References
    ----------
    Jaksch, Ortner and Auer (2010), Near-optimal regret bounds for reinforcement learning, Theorem 5: one copy of the
    two-state model of its proof.
    """
    n_actions = require_int(n_actions, 1, "n_actions")
    delta = require_real(delta, "delta", 0, 1)
    if delta == 0:
        raise ValueError("delta must be positive")
    epsilon = require_real(epsilon, "epsilon", 0)
    if delta + epsilon > 1:
        raise ValueError(f"delta + epsilon = {delta + epsilon:g} is no probability")
    special = _index(special, n_actions, "special", "actions")
    leave = np.full((2, n_actions), delta)
    leave[0, special] += epsilon
    transition = np.stack([np.stack([1 - leave[0], leave[0]], -1), np.stack([leave[1], 1 - leave[1]], -1)])
    reward = np.array([[0.0], [1.0]]).repeat(n_actions, axis=1)
    return FiniteHorizonMDP(transition, reward, horizon=horizon)


@family
def jao_copies(
    *,
    n_states: int = 6,
    n_actions: int = 2,
    delta: float = 0.1,
    epsilon: float = 0.05,
    special: int = 0,
    horizon: int = 20,
) -> FiniteHorizonMDP:
    """S/2 copies of `jao_two_state`, each with a better action of its own; every episode starts in a random copy.

    Copy c has the states 2c, which pays 0, and 2c + 1, which pays 1; episodes start in one of the states 2c, each with
    probability 2/S. What is learnt in one copy says nothing about the others.

    Parameters
    ----------
    n_states : int
        S, even, at least 2.
    n_actions : int
        A, at least 1.
    delta, epsilon : float
        delta in (0, 1], epsilon in [0, 1 - delta].
    special : int
        In 0..A^(S/2)-1: its digit of weight A^c is the better action of copy c.
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: the optimal value is that of `jao_two_state`.

    References
    ----------
    Jaksch, Ortner and Auer (2010), Theorem 5, whose copies are joined by a tree; here the start chooses one.
    """
    n_states = require_int(n_states, 2, "n_states")
    if n_states % 2:
        raise ValueError(f"n_states must be even, not {n_states}")
    n_actions = require_int(n_actions, 1, "n_actions")
    copies = n_states // 2
    special = _index(special, n_actions**copies, "special", "choices of better actions")
    transition = np.zeros((n_states, n_actions, n_states))
    for copy in range(copies):
        special, action = divmod(special, n_actions)
        one = jao_two_state(n_actions=n_actions, delta=delta, epsilon=epsilon, special=action, horizon=horizon)
        pair = slice(2 * copy, 2 * copy + 2)
        transition[pair, :, pair] = one.transition
    reward = np.tile(one.reward, (copies, 1))
    initial = np.tile([1.0, 0.0], copies) / copies
    return FiniteHorizonMDP(transition, reward, horizon=horizon, initial=initial)


@family
def hard_episodic(
    *,
    n_states: int = 6,
    n_actions: int = 2,
    epsilon: float = 0.25,
    waiting: int | None = None,
    wait: int = 0,
    leaf: int = 0,
    action: int = 0,
    horizon: int = 9,
) -> FiniteHorizonMDP:
    """A needle in time and space: wait, walk down an A-ary tree, guess; one (stage, leaf, action) is better.

    State 0 is the waiting state: action 0 stays there, at most W - 1 times; every other action enters the root (states
    1..S-3 are the tree of d levels, in heap order). At a leaf every action leads to the good state S-2 or the bad
    state S-1 with probability 1/2 each, except after exactly `wait` waits at leaf number `leaf` under `action`: there
    the good state has probability 1/2 + epsilon. Both are absorbing; the good state pays 1 from layer W + d on, so
    that waiting costs nothing.

    Parameters
    ----------
    n_states : int
        S = 3 + (A^d - 1) / (A - 1) for some d >= 1.
    n_actions : int
        A, at least 2.
    epsilon : float
        In [0, 1/2].
    waiting : int, optional
        W in 1..H-d-1; default H // 3 as in Theorem 9, at least 1.
    wait : int
        In 0..W-1.
    leaf : int
        In 0..A^(d-1)-1.
    action : int
        In 0..A-1.
    horizon : int
        H, at least d + 2.

    Notes
    -----
    Known constants: the optimal value is (1/2 + epsilon) (H - W - d); a policy that misses the special triple has
    value (H - W - d) / 2.

    References
    ----------
    Domingues, Menard, Kaufmann and Valko (2021), Episodic reinforcement learning in finite MDPs: minimax lower bounds
    revisited, Section 3 and Figure 1 (their stage h is layer h - 1 here).
    """
    horizon = require_int(horizon, 1, "horizon")
    n_actions = require_int(n_actions, 2, "n_actions")
    n_states = require_int(n_states, 4, "n_states")
    depth, nodes = 1, 1
    while nodes < n_states - 3:
        nodes += n_actions**depth
        depth += 1
    if nodes != n_states - 3:
        below = nodes - n_actions ** (depth - 1)
        raise ValueError(
            f"n_states must be 3 + the size of a full {n_actions}-ary tree ({below + 3}, {nodes + 3}), not {n_states}"
        )
    n_leaves = n_actions ** (depth - 1)
    epsilon = require_real(epsilon, "epsilon", 0, 0.5)
    if horizon < depth + 2:
        raise ValueError(f"horizon must be at least {depth + 2} for a tree of {depth} levels, not {horizon}")
    waiting = min(max(1, horizon // 3), horizon - depth - 1) if waiting is None else require_int(waiting, 1, "waiting")
    if waiting > horizon - depth - 1:
        raise ValueError(f"waiting must be at most horizon - {depth + 1} = {horizon - depth - 1}, not {waiting}")
    wait = _index(wait, waiting, "wait", "waits")
    leaf = _index(leaf, n_leaves, "leaf", "leaves")
    action = _index(action, n_actions, "action", "actions")

    good, bad = n_states - 2, n_states - 1
    still = np.zeros((n_states, n_actions, n_states))
    still[0, :, 1] = 1.0
    inner = nodes - n_leaves
    for node in range(inner):
        for a in range(n_actions):
            still[1 + node, a, 2 + n_actions * node + a] = 1.0
    still[1 + inner : good, :, [good, bad]] = 0.5
    still[good, :, good] = still[bad, :, bad] = 1.0
    transition = np.repeat(still[np.newaxis], horizon, axis=0)
    transition[: waiting - 1, 0, 0] = np.arange(n_states) == 0
    transition[wait + depth, 1 + inner + leaf, action, [good, bad]] = 0.5 + epsilon, 0.5 - epsilon
    reward = np.zeros((horizon, n_states, n_actions))
    reward[waiting + depth :, good] = 1.0
    labels = [
        "wait",
        *(f"node {node}" for node in range(inner)),
        *(f"leaf {i}" for i in range(n_leaves)),
        "good",
        "bad",
    ]
    return FiniteHorizonMDP(transition, reward, horizon=horizon, state_labels=labels)


def _index(value: int, size: int, name: str, what: str) -> int:
    value = require_int(value, 0, name)
    if value >= size:
        raise ValueError(f"{name} = {value} is out of range: there are {size} {what}")
    return value
