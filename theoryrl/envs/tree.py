"""Binary tree: 2^d leaves, one of them with a reward."""

from __future__ import annotations

import numpy as np

from theoryrl.envs._family import family, require_real
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP


@family
def binary_tree(*, depth: int = 3, slip: float = 0.0, horizon: int = 3) -> FiniteHorizonMDP:
    """A full binary tree of depth d: down to the left or right, with the other branch at probability `slip`.

    States are in heap order (the root, the start, is 0; the children of i are 2 i + 1 and 2 i + 2). Entering the last
    leaf, down the right-hand side, pays 1. Leaves are absorbing.

    Parameters
    ----------
    depth : int
        d, at least 1; there are 2^(d+1) - 1 states.
    slip : float
        In [0, 1/2].
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: the optimal value is (1 - slip)^d if H >= d and 0 otherwise; the uniform policy has 2^-d.

    References
    ----------
    The tree in which S grows as 2^H: Krishnamurthy, Agarwal and Langford (2016), PAC reinforcement learning with rich
    observations.
    """
    depth = require_int(depth, 1, "depth")
    slip = require_real(slip, "slip", 0, 0.5)
    n_states = 2 ** (depth + 1) - 1
    inner = 2**depth - 1
    nodes = np.arange(inner)
    transition = np.zeros((n_states, 2, n_states))
    for action in (0, 1):
        transition[nodes, action, 2 * nodes + 1 + action] = 1 - slip
        transition[nodes, action, 2 * nodes + 2 - action] = slip
    leaves = np.arange(inner, n_states)
    transition[leaves, :, leaves] = 1.0
    outcome = np.zeros_like(transition)
    outcome[inner - 1, :, n_states - 1] = 1.0
    return FiniteHorizonMDP(transition, outcome_reward=outcome, horizon=horizon, action_labels=("left", "right"))
