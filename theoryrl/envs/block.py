"""Lifts of any model: rich observations of hidden states, and noise that the agent cannot influence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theoryrl.envs._family import family
from theoryrl.mdp._checks import require_int
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.randomness import Rng, as_generator
from theoryrl.mdp.transitions import SparseTransition


@dataclass(frozen=True, eq=False)
class LiftedMDP:
    """A model whose state x = s * K + k hides the state s of another one.

    Attributes
    ----------
    mdp : FiniteHorizonMDP
        The model over x, with S * K states.
    base : FiniteHorizonMDP
        The model over s.
    decoder : (S * K,) int
        The s of every x.
    weights : (S, K) or (K, K)
        Block MDP: probability that s shows symbol k. Exogenous noise: its transition matrix.
    """

    mdp: FiniteHorizonMDP
    base: FiniteHorizonMDP
    decoder: NDArray[np.int64]
    weights: NDArray[np.float64]


@family
def block_mdp(
    base: FiniteHorizonMDP | str = "combination_lock",
    *,
    n_observations: int = 3,
    horizon: int | None = None,
    rng: Rng = 0,
) -> LiftedMDP:
    """A block MDP: every state of `base` shows one of K symbols of its own, drawn afresh at every visit.

    P(x' | x, a) = P(s' | s, a) q(x' | s') with s = decoder[x], s' = decoder[x']; rewards are those of s. The emission
    probabilities q(. | s) are uniform on the simplex.

    Parameters
    ----------
    base : FiniteHorizonMDP or str
        The hidden model, or the name of a family (with its default parameters).
    n_observations : int
        K, at least 1.
    horizon : int, optional
        H; default that of `base`.
    rng : int, SeedSequence or Generator

    Returns
    -------
    LiftedMDP
        `mdp` with S * K states, `decoder`, `weights` (S, K) the emission probabilities.

    Notes
    -----
    Known constants: the optimal value is that of `base`.

    References
    ----------
    Du, Krishnamurthy, Jiang, Agarwal, Dudik and Langford (2019), Provably efficient RL with rich observations via
    latent state decoding.
    """
    base = _resolve(base, horizon)
    size = require_int(n_observations, 1, "n_observations")
    emission = as_generator(rng).dirichlet(np.ones(size), size=base.n_states)
    emission.flags.writeable = False
    return _lift(base, emission, emission[np.newaxis], base.initial[:, np.newaxis] * emission)


@family
def exogenous(
    base: FiniteHorizonMDP | str = "riverswim",
    *,
    n_noise: int = 3,
    horizon: int | None = None,
    rng: Rng = 0,
) -> LiftedMDP:
    """`base` with a Markov chain beside it that no action influences and no reward depends on.

    P((s', k') | (s, k), a) = P(s' | s, a) X(k' | k); the rows of X are uniform on the simplex and so is the first k.

    Parameters
    ----------
    base : FiniteHorizonMDP or str
        The model that matters, or the name of a family (with its default parameters).
    n_noise : int
        K, the number of states of the noise, at least 1.
    horizon : int, optional
        H; default that of `base`.
    rng : int, SeedSequence or Generator

    Returns
    -------
    LiftedMDP
        `mdp` with S * K states, `decoder`, `weights` (K, K) the noise's transition matrix.

    Notes
    -----
    Known constants: the optimal value is that of `base`.

    References
    ----------
    Dietterich, Trimponias and Chen (2018), Discovering and removing exogenous state variables and rewards for
    reinforcement learning; Efroni, Foster, Misra, Krishnamurthy and Langford (2022),
    Sample-efficient reinforcement learning in the presence of exogenous information.
    """
    base = _resolve(base, horizon)
    size = require_int(n_noise, 1, "n_noise")
    noise = as_generator(rng).dirichlet(np.ones(size), size=size)
    noise.flags.writeable = False
    return _lift(base, noise, noise[:, np.newaxis], np.repeat(base.initial[:, np.newaxis] / size, size, axis=1))


def _resolve(base: Any, horizon: int | None) -> FiniteHorizonMDP:
    if isinstance(base, str):
        from theoryrl.envs.registry import make

        base = make(base)
    if not isinstance(base, FiniteHorizonMDP):
        raise ValueError(f"base must be a FiniteHorizonMDP or the name of a family, not {type(base).__name__}")
    return base if horizon is None else base.with_horizon(horizon)


def _lift(base: FiniteHorizonMDP, weights: NDArray, kernel: NDArray, initial: NDArray) -> LiftedMDP:
    """The product whose second part moves from k to k' with probability kernel[k, s', k'] (broadcast), s' given."""
    n_states, n_actions, size = base.n_states, base.n_actions, initial.shape[1]
    source = base.to_sparse()
    rows: SparseTransition = source.transition
    kernel = np.broadcast_to(kernel, (size, n_states, size))
    # Row of (l, s * K + k, a) is the row of (l, s, a) with each successor s' spread over s' * K + k'.
    row = np.arange(rows.n_rows).reshape(-1, n_states, n_actions).repeat(size, axis=1).reshape(-1)
    now = np.tile(np.arange(size).repeat(n_actions), rows.n_layers * n_states)
    length = np.diff(rows.indptr)[row]
    start = np.concatenate([[0], np.cumsum(length)])
    stored = np.arange(start[-1]) + np.repeat(rows.indptr[:-1][row] - start[:-1], length)
    successor = rows.indices[stored].astype(np.int64)
    wide = SparseTransition(
        start * size,
        (successor[:, np.newaxis] * size + np.arange(size)).reshape(-1),
        (rows.data[stored, np.newaxis] * kernel[np.repeat(now, length), successor]).reshape(-1),
        n_states * size,
        n_actions,
        rows.n_layers,
        rows.staged,
    )
    reward: dict[str, Any]
    if base.reward_law == "outcome":
        reward = {"outcome_reward": source.outcome_reward[stored].repeat(size)}
    else:
        reward = {"reward": base.reward.repeat(size, axis=-2), "reward_law": base.reward_law}
        if base.reward_noise is not None:
            reward["reward_noise"] = base.reward_noise.repeat(size, axis=-2)
    labels = base.state_labels and [f"{label} [{k}]" for label in base.state_labels for k in range(size)]
    mdp = FiniteHorizonMDP(
        wide,
        horizon=base.horizon,
        initial=initial.reshape(-1),
        reward_range=base.reward_range,
        state_labels=labels,
        action_labels=base.action_labels,
        action_mask=base.action_mask.repeat(size, axis=0),
        **reward,
    )
    decoder = np.arange(n_states).repeat(size)
    decoder.flags.writeable = False
    return LiftedMDP(mdp if base.is_sparse else mdp.to_dense(), base, decoder, weights)
