"""Combination lock: one action sequence out of A^n opens it."""

from __future__ import annotations

import numpy as np

from theoryrl.envs._family import family
from theoryrl.envs.block import block_mdp
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.randomness import Rng, as_seed_sequence


@family
def combination_lock(
    *, length: int = 5, n_actions: int = 3, n_observations: int = 1, horizon: int = 5, rng: Rng = 0
) -> FiniteHorizonMDP:
    """A deterministic lock of n digits: the right action leads on, any other into a dead end; the last digit pays 1.

    States 0..n-1 are the digits entered so far, state n is the end, dead or open. With more than one observation per
    state the model is the block MDP over the lock, each state showing one of `n_observations` symbols at random.

    Parameters
    ----------
    length : int
        n, the number of digits, at least 1.
    n_actions : int
        A, at least 1.
    n_observations : int
        Symbols per state, at least 1; 1 is the lock itself.
    horizon : int
        H, at least 1.
    rng : int, SeedSequence or Generator
        Draws the code and the emission probabilities.

    Notes
    -----
    Known constants: the optimal value is 1 if H >= n and 0 otherwise; the uniform policy opens the lock with
    probability A^-n.

    References
    ----------
    Kakade (2003), On the sample complexity of reinforcement learning; with emissions Du et al. (2019),
    Provably efficient RL with rich observations via latent state decoding.
    """
    length = require_int(length, 1, "length")
    n_actions = require_int(n_actions, 1, "n_actions")
    code_rng, emission_rng = as_seed_sequence(rng).spawn(2)
    code = np.random.default_rng(code_rng).integers(0, n_actions, size=length)
    transition = np.zeros((length + 1, n_actions, length + 1))
    transition[:, :, length] = 1.0
    digits = np.arange(length)
    transition[digits, code, length] = 0.0
    transition[digits, code, digits + 1] = 1.0
    reward = np.zeros((length + 1, n_actions))
    reward[length - 1, code[-1]] = 1.0
    lock = FiniteHorizonMDP(transition, reward, horizon=horizon)
    if require_int(n_observations, 1, "n_observations") == 1:
        return lock
    return block_mdp(lock, n_observations=n_observations, rng=emission_rng).mdp
