"""RiverSwim: swimming against the current for a distant reward."""

from __future__ import annotations

import numpy as np

from theoryrl.envs._family import family
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP


@family
def riverswim(*, n_states: int = 6, horizon: int = 20) -> FiniteHorizonMDP:
    """A river of S states: swimming left always succeeds, swimming right mostly fails.

    Action 0 (left) moves left surely and pays 0.0005 in state 0. Action 1 (right) moves right with probability 0.3 and,
    between the banks, left with probability 0.1; in the last state it stays with probability 0.3, falls back with
    probability 0.7 and pays 1. Start: state 0.

    Parameters
    ----------
    n_states : int
        S, at least 2.
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: the optimal long-run gain is that of always swimming right, p_{S-1} of the stationary distribution
    p_0 : p_1 : ... : p_{S-2} : p_{S-1} = 1 : 3 : ... : 3^(S-2) : (3/7) 3^(S-2).

    References
    ----------
    Strehl and Littman (2008), An analysis of model-based interval estimation for Markov decision processes: their
    rewards 5 and 10000 divided by 10000 and paid for the action. They start in state 1 or 2; state 0 is the start in
    later papers (Osband, Russo and Van Roy 2013).
    """
    n_states = require_int(n_states, 2, "n_states")
    last = n_states - 1
    transition = np.zeros((n_states, 2, n_states))
    transition[np.arange(n_states), 0, np.maximum(np.arange(n_states) - 1, 0)] = 1.0
    transition[0, 1, [0, 1]] = 0.7, 0.3
    for s in range(1, last):
        transition[s, 1, [s - 1, s, s + 1]] = 0.1, 0.6, 0.3
    transition[last, 1, [last - 1, last]] = 0.7, 0.3
    reward = np.zeros((n_states, 2))
    reward[0, 0] = 0.0005
    reward[last, 1] = 1.0
    return FiniteHorizonMDP(transition, reward, horizon=horizon, action_labels=("left", "right"))
