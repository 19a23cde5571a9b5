"""Regret bound of LSVI-UCB with every constant written out; the proof is in the documentation, page LSVI-UCB."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theoryrl.mdp._checks import require_int
from theoryrl.online.bounds._common import checked


def lsvi_ucb_regret_bound(
    episodes: ArrayLike,
    *,
    n_states: int,
    dimension: int,
    horizon: int,
    delta: float,
    reward_width: float = 1.0,
    replan: Literal["always", "doubling"] = "always",
) -> NDArray[np.float64]:
    """Bound on the regret of LSVI-UCB on a linear MDP, for every number of episodes K at once, w.p. 1 - delta.

    With D = d log(1 + K / d), n_h = S for h < H - 1 and n_{H-1} = 0,
    beta_h = (H - h) (sqrt(2 n_h log 2 + 2 log(2 H / delta) + D) / 2 + sqrt(d)):

        Reg(K) <= sum_h min{K (H - h), 2 c beta_h sqrt(K D / log 2)}
                  + sqrt(K sum_h (H - h)^2 log(2 K (K + 1) / delta) / 2)

    times the width of the reward range, and never more than the trivial K H; c = 1, or sqrt(2) if the learner plans
    again only when a determinant has doubled. Of order H^2 sqrt(K d log K (S + d log K)): the S comes from a union over
    the corners of the cube of value functions, which takes the place of the paper's covering number d^2 log(...).

    Parameters
    ----------
    episodes : int or array of ints, at least 1
        K.
    n_states, dimension, horizon : int
        S, d, H.
    delta : float in (0, 1)
    reward_width : float
        high - low of the reward range.
    replan : {"always", "doubling"}

    Returns
    -------
    ndarray of the shape of `episodes`

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    counts = checked(episodes, n_states, 1, horizon, delta, reward_width)
    d = require_int(dimension, 1, "dimension")
    if replan not in ("always", "doubling"):
        raise ValueError(f"replan must be 'always' or 'doubling', not {replan!r}")
    stale = 1.0 if replan == "always" else math.sqrt(2.0)
    information = d * np.log1p(counts / d)
    main = np.zeros_like(counts)
    for h in range(horizon):
        values = n_states * math.log(2.0) if h < horizon - 1 else 0.0
        confidence = 2 * (values + math.log(2 * horizon / delta))
        beta = (horizon - h) * (np.sqrt(confidence + information) / 2 + math.sqrt(d))
        width = 2 * stale * beta * np.sqrt(counts * information / math.log(2.0))
        main = main + np.minimum(counts * (horizon - h), width)
    squares = float((np.arange(1.0, horizon + 1) ** 2).sum())
    noise = np.sqrt(counts * squares * np.log(2 * counts * (counts + 1) / delta) / 2)
    return reward_width * np.minimum(counts * horizon, main + noise)
