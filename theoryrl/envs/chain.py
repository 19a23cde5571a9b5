"""Chains: the reward is at the far end, and every slip sets back."""

from __future__ import annotations

import numpy as np

from theoryrl.envs._family import family, require_real
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP


@family
def chain(*, n_states: int = 20, slip: float = 0.1, horizon: int = 20) -> FiniteHorizonMDP:
    """A walk on a line of S states: left or right, with the opposite move at probability `slip`.

    Action 0 moves left, action 1 right; moves off either end stay. State 0, the start, pays 0.05, the last state 1, the
    others nothing.

    Parameters
    ----------
    n_states : int
        S, at least 2.
    slip : float
        Probability of moving the other way, in [0, 1].
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: without slip the optimal value is max(0.05 H, 0.05 + H - S + 1).

    References
    ----------
    The walk on which tabular libraries time UCBVI (S = 20, A = 2); end rewards and slip as in rlberry's Chain.
    """
    n_states = require_int(n_states, 2, "n_states")
    slip = require_real(slip, "slip", 0, 1)
    states = np.arange(n_states)
    ends = np.maximum(states - 1, 0), np.minimum(states + 1, n_states - 1)
    transition = np.zeros((n_states, 2, n_states))
    for action in (0, 1):
        transition[states, action, ends[action]] += 1 - slip
        transition[states, action, ends[1 - action]] += slip
    reward = np.zeros((n_states, 2))
    reward[0] = 0.05
    reward[-1] = 1.0
    return FiniteHorizonMDP(transition, reward, horizon=horizon, action_labels=("left", "right"))


@family
def strens_chain(*, n_states: int = 5, slip: float = 0.2, horizon: int = 20) -> FiniteHorizonMDP:
    """The chain of Bayesian reinforcement learning: advance for a late reward of 10, or return at once for 2.

    Action 0 advances (and stays at the end, where it pays 10), action 1 returns to state 0 and pays 2; with
    probability `slip` the other action is carried out. Rewards belong to the move that was made.

    Parameters
    ----------
    n_states : int
        S, at least 2.
    slip : float
        In [0, 1].
    horizon : int
        H, at least 1.

    Notes
    -----
    Known constants: without slip the optimal value is max(2 H, 10 (H - S + 1)).

    References
    ----------
    Strens (2000), A Bayesian framework for reinforcement learning, after the chain of Dearden, Friedman and Russell
    (1998), Bayesian Q-learning.
    """
    n_states = require_int(n_states, 2, "n_states")
    slip = require_real(slip, "slip", 0, 1)
    states = np.arange(n_states)
    further = np.minimum(states + 1, n_states - 1)
    transition = np.zeros((n_states, 2, n_states))
    outcome = np.zeros((n_states, 2, n_states))
    for action, advance in ((0, 1 - slip), (1, slip)):
        transition[states, action, further] += advance
        transition[states, action, 0] += 1 - advance
    outcome[:, :, 0] = 2.0
    outcome[-1, :, -1] = 10.0
    return FiniteHorizonMDP(
        transition,
        outcome_reward=outcome,
        horizon=horizon,
        reward_range=(0.0, 10.0),
        action_labels=("advance", "return"),
    )
