"""Random models: dense, and sparse ones in the manner of Garnet."""

from __future__ import annotations

from theoryrl.envs._family import family
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.randomness import Rng


@family
def garnet(
    *, n_states: int = 20, n_actions: int = 4, branching: int = 3, sparse: bool = False, horizon: int = 20, rng: Rng = 0
) -> FiniteHorizonMDP:
    """A random model in which every pair has b possible successors.

    Successors are drawn without replacement, their probabilities uniformly from the simplex, mean rewards uniformly
    from [0, 1].

    Parameters
    ----------
    n_states, n_actions : int
        S and A, at least 1.
    branching : int
        b, in 1..S.
    sparse : bool
        Store sparse rows.
    horizon : int
        H, at least 1.
    rng : int, SeedSequence or Generator

    References
    ----------
    Archibald, McKinnon and Thomas (1995), On the generation of Markov decision processes. Rewards there are normal;
    here they lie in [0, 1] as the theorems want them.
    """
    return random_mdp(n_states, n_actions, horizon, rng, branching=branching, sparse=sparse)


@family
def random_dense(
    *,
    n_states: int = 20,
    n_actions: int = 4,
    concentration: float = 1.0,
    staged: bool = False,
    horizon: int = 20,
    rng: Rng = 0,
) -> FiniteHorizonMDP:
    """A random model with full support: rows Dirichlet(c, ..., c), mean rewards uniform on [0, 1].

    Parameters
    ----------
    n_states, n_actions : int
        S and A, at least 1.
    concentration : float
        c > 0; small values make rows nearly deterministic.
    staged : bool
        Another kernel and reward in every layer.
    horizon : int
        H, at least 1.
    rng : int, SeedSequence or Generator

    References
    ----------
    The prior of posterior sampling: Strens (2000); Osband, Russo and Van Roy (2013).
    """
    return random_mdp(n_states, n_actions, horizon, rng, concentration=concentration, staged=staged)
