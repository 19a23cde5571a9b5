"""Linear MDPs: transitions and rewards are linear in known features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theoryrl.envs._family import family
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.randomness import Rng, as_generator


@dataclass(frozen=True, eq=False)
class LinearMDP:
    """A linear MDP and its factors: P_h(s' | s, a) = <phi(s, a), mu_h(s')>, r_h(s, a) = <phi(s, a), theta_h>.

    Attributes
    ----------
    mdp : FiniteHorizonMDP
    features : (S, A, d)
        phi, every row a distribution over the d factors.
    measures : (d, S), or (H, d, S) if the factors change over time
        mu, every row a distribution over successors.
    weights : (d,) or (H, d)
        theta, in [0, 1].
    """

    mdp: FiniteHorizonMDP
    features: NDArray[np.float64]
    measures: NDArray[np.float64]
    weights: NDArray[np.float64]


@family
def linear_mdp(
    *,
    n_states: int = 20,
    n_actions: int = 4,
    dimension: int = 5,
    staged: bool = False,
    horizon: int = 10,
    rng: Rng = 0,
) -> LinearMDP:
    """A random linear MDP whose features are points of a simplex.

    P(. | s, a) = sum_i phi_i(s, a) mu_i and r(s, a) = <phi(s, a), theta>, with phi(s, a) and the measures mu_i uniform
    on their simplices and theta uniform on [0, 1]^d.

    Parameters
    ----------
    n_states, n_actions, dimension : int
        S, A and d, at least 1.
    staged : bool
        Measures and weights of their own for every layer (the features never change).
    horizon : int
        H, at least 1.
    rng : int, SeedSequence or Generator

    Returns
    -------
    LinearMDP
        The model with `features`, `measures` and `weights`.

    Notes
    -----
    Known constants: the transition matrix (S A, S) has rank at most d, and every action value of every policy is
    linear in the features.

    References
    ----------
    Jin, Yang, Wang and Jordan (2020), Provably efficient reinforcement learning with linear function approximation,
    Assumption A; features in the simplex as in their Example 2.2.
    """
    n_states, n_actions = require_int(n_states, 1, "n_states"), require_int(n_actions, 1, "n_actions")
    dimension, horizon = require_int(dimension, 1, "dimension"), require_int(horizon, 1, "horizon")
    generator = as_generator(rng)
    lead = (horizon,) if staged else ()
    features = generator.dirichlet(np.ones(dimension), size=(n_states, n_actions))
    measures = generator.dirichlet(np.ones(n_states), size=(*lead, dimension))
    weights = generator.random((*lead, dimension))
    transition = np.einsum("sad,...dt->...sat", features, measures)
    reward = np.einsum("sad,...d->...sa", features, weights)
    for table in (features, measures, weights):
        table.flags.writeable = False
    # Means are convex combinations of numbers in [0, 1]; rounding may leave it by one unit in the last place.
    mdp = FiniteHorizonMDP(transition, np.clip(reward, 0, 1), horizon=horizon)
    return LinearMDP(mdp, features, measures, weights)
