"""Linear classes: action values that are linear in known features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.classes._shape import Shaped
from theoryrl.mdp._checks import frozen, require_finite, require_int
from theoryrl.mdp.model import FiniteHorizonMDP, require_model


@dataclass(frozen=True, eq=False, repr=False)
class LinearClass(Shaped):
    """All f_h(s, a) = <phi_h(s, a), w_h> with any weights w_h in R^d.

    Parameters
    ----------
    features : (S, A, d), or (H, S, A, d) if they change over time
        phi, finite. Rows of forbidden pairs are never read by anything that is given the mask.
    horizon : int, optional
        H; needed where the features have no layer axis.

    Raises
    ------
    ValueError
        Wrong shape, NaN or an infinity, a horizon that is missing or contradicts the features.
    """

    features: NDArray[np.float64]
    horizon: int = 0

    def __post_init__(self) -> None:
        features = frozen(self.features, np.float64, "features")
        if features.ndim not in (3, 4) or 0 in features.shape:
            raise ValueError(f"features has shape {features.shape}, not (S, A, d) or (H, S, A, d)")
        require_finite(features, "features")
        horizon = self.horizon
        if features.ndim == 4 and horizon == 0:
            horizon = features.shape[0]
        if features.ndim == 3 and horizon == 0:
            raise ValueError("features has no layer axis, so the horizon must be given")
        if require_int(horizon, 1, "horizon") != horizon or (features.ndim == 4 and features.shape[0] != horizon):
            raise ValueError(f"features has {features.shape[0]} layers, but the horizon is {horizon}")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "horizon", horizon)

    n_states = property(lambda self: self.features.shape[-3], doc="S.")
    n_actions = property(lambda self: self.features.shape[-2], doc="A.")
    dimension = property(lambda self: self.features.shape[-1], doc="d.")

    def at(self, h: int) -> NDArray[np.float64]:
        """phi_h, shape (S, A, d)."""
        return self.features[h] if self.features.ndim == 4 else self.features

    def values(self, weights: ArrayLike) -> NDArray[np.float64]:
        """The member with the given weights (H, d), as a table (H, S, A)."""
        w = frozen(weights, np.float64, "weights")
        if w.shape != (self.horizon, self.dimension):
            raise ValueError(f"weights has shape {w.shape}, not ({self.horizon}, {self.dimension})")
        require_finite(w, "weights")
        return np.stack([self.at(h) @ w[h] for h in range(self.horizon)])

    def __repr__(self) -> str:
        return f"LinearClass(d={self.dimension}, H={self.horizon}, S={self.n_states}, A={self.n_actions})"


def linear_features(mdp: FiniteHorizonMDP) -> NDArray[np.float64]:
    """The fewest features in which a model is a linear MDP.

    P_h(s' | s, a) = <phi_h(s, a), mu_h(s')> and r_h(s, a) = <phi_h(s, a), theta_h>: phi_h is an orthonormal basis of
    the column space of the matrix [P_h | r_h / max |r_h|] with a row for every allowed pair, so |phi_h(s, a)|_2 <= 1.
    Singular values below 1e-10 of the largest count as zero.

    Parameters
    ----------
    mdp : FiniteHorizonMDP

    Returns
    -------
    ndarray, shape (S, A, d), or (H, S, A, d) of a time-varying model
        d is the rank (the largest over layers; a layer of smaller rank has features that are 0). Zero at forbidden
        pairs.

    Notes
    -----
    Jin, Yang, Wang and Jordan (2020), Provably efficient reinforcement learning with linear function approximation,
    Assumption A; their normalisation of mu and theta is not arranged for.
    """
    require_model(mdp, FiniteHorizonMDP)
    allowed = mdp.action_mask.reshape(-1)
    kernels = mdp.to_dense().transition_layers.reshape(-1, allowed.size, mdp.n_states)
    rewards = mdp.reward_layers.reshape(-1, allowed.size, 1)
    layers = 1 if mdp.stationary else mdp.horizon
    bases = []
    for h in range(layers):
        reward = rewards[h % len(rewards)][allowed]
        # Whatever the unit of reward is, it decides no more than the probabilities.
        reward = reward / (np.abs(reward).max() or 1.0)
        rows = np.concatenate([kernels[h % len(kernels)][allowed], reward], axis=1)
        left, strength, _ = np.linalg.svd(rows, full_matrices=False)
        bases.append(left[:, strength > 1e-10 * strength[0]])
    width = max(basis.shape[1] for basis in bases)
    features = np.zeros((layers, allowed.size, width))
    for h, basis in enumerate(bases):
        features[h, allowed, : basis.shape[1]] = basis
    features = features.reshape(layers, mdp.n_states, mdp.n_actions, width)
    features = features[0] if mdp.stationary else features
    features.flags.writeable = False
    return features
