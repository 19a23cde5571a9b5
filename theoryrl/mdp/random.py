"""Random models: rows from a Dirichlet distribution on a random support, mean rewards uniform on [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from theoryrl.mdp._checks import require_int, sealed
from theoryrl.mdp.model import REWARD_LAWS, FiniteHorizonMDP, RewardLaw
from theoryrl.mdp.randomness import Rng, as_generator
from theoryrl.mdp.transitions import SparseTransition


def random_mdp(
    n_states: int,
    n_actions: int,
    horizon: int,
    rng: Rng,
    *,
    branching: int | None = None,
    concentration: float = 1.0,
    staged: bool = False,
    sparse: bool = False,
    reward_law: RewardLaw = "deterministic",
) -> FiniteHorizonMDP:
    """A random model: every row Dirichlet(c, ..., c) on b successors drawn without replacement, rewards in [0, 1].

    Parameters
    ----------
    n_states, n_actions, horizon : int
        S, A, H, at least 1.
    rng : int, SeedSequence or Generator
    branching : int, optional
        b in 1..S, the number of possible successors of a pair; default S.
    concentration : float
        c > 0; 1 is uniform on the simplex, small values are nearly deterministic.
    staged : bool
        Transitions and rewards of their own for every layer.
    sparse : bool
        Store sparse rows; memory is then of order S * A * b, never S * A * S.
    reward_law : {"deterministic", "bernoulli", "uniform", "outcome"}
        Means (for "outcome" the reward of each successor) are uniform on [0, 1]; "uniform" noise is as wide as [0, 1]
        allows.

    Returns
    -------
    FiniteHorizonMDP
        The start is state 0.

    Raises
    ------
    ValueError
        A size below 1, a branching above S, a concentration that is not positive and finite, an unknown law.
    """
    n_states, n_actions = require_int(n_states, 1, "n_states"), require_int(n_actions, 1, "n_actions")
    horizon = require_int(horizon, 1, "horizon")
    branching = n_states if branching is None else require_int(branching, 1, "branching")
    if branching > n_states:
        raise ValueError(f"branching = {branching} exceeds the number of states, {n_states}")
    if not 0 < concentration < np.inf:
        raise ValueError(f"concentration must be positive and finite, not {concentration!r}")
    if reward_law not in REWARD_LAWS:
        raise ValueError(f"reward_law must be one of {', '.join(map(repr, REWARD_LAWS))}, not {reward_law!r}")
    generator = as_generator(rng)
    layers = horizon if staged else 1
    rows = layers * n_states * n_actions
    successors = _subsets(rows, n_states, branching, generator)
    weights = generator.dirichlet(np.full(branching, float(concentration)), size=rows)
    lead = (horizon,) if staged else ()
    settings: dict[str, Any] = {"horizon": horizon}
    if reward_law == "outcome":
        outcomes = generator.random((rows, branching))
        settings["outcome_reward"] = outcomes.reshape(-1)
    else:
        reward = generator.random((*lead, n_states, n_actions))
        settings |= {"reward": reward, "reward_law": reward_law}
        if reward_law == "uniform":
            settings["reward_noise"] = np.minimum(reward, 1 - reward)
    if sparse:
        pointer = np.arange(0, rows * branching + 1, branching)
        kernel: Any = SparseTransition(
            pointer, successors.reshape(-1).astype(np.uint32), weights.reshape(-1), n_states, n_actions, layers, staged
        )
    else:
        shape = (*lead, n_states, n_actions, n_states)
        kernel = sealed(_spread(weights, successors, n_states).reshape(shape))
        if reward_law == "outcome":
            settings["outcome_reward"] = _spread(outcomes, successors, n_states).reshape(shape)
    return FiniteHorizonMDP(kernel, **settings)


def _subsets(rows: int, n: int, k: int, rng: Generator) -> NDArray[np.int64]:
    """`rows` independent uniform k-subsets of 0..n-1, sorted: (rows, k)."""
    if k == n:
        return np.broadcast_to(np.arange(n), (rows, n))
    # Floyd's algorithm on all rows at once: memory rows * k, where shuffling would need rows * n.
    chosen = np.empty((rows, k), np.int64)
    for i, top in enumerate(range(n - k, n)):
        draw = rng.integers(0, top + 1, size=rows)
        taken = (chosen[:, :i] == draw[:, np.newaxis]).any(axis=1)
        chosen[:, i] = np.where(taken, top, draw)
    chosen.sort(axis=1)
    return chosen


def _spread(values: NDArray[np.float64], successors: NDArray[np.int64], n_states: int) -> NDArray[np.float64]:
    if successors.shape[1] == n_states:
        return values
    table = np.zeros((len(values), n_states))
    np.put_along_axis(table, successors, values, axis=1)
    return table
