"""How many episodes OLIVE needs, with every constant; the proof is in the documentation, page OLIVE."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from theoryrl.classes.values import FiniteClass
from theoryrl.online.olive import OLIVE
from theoryrl.online.verbs import Problem


def olive_episode_bound(
    epsilon: float,
    *,
    cls: FiniteClass,
    delta: float,
    rank: int | None = None,
    variant: Literal["q", "v"] = "q",
    reward_range: tuple[float, float] = (0.0, 1.0),
    action_mask: ArrayLike | None = None,
) -> int:
    """Episodes after which OLIVE has stopped with an epsilon-optimal policy, with probability at least 1 - delta.

    In units of the reward range, with w the length of the range of g_h(s, a) - r - V_g(s') over members g and m its
    largest absolute value, R the span of V_g(s) at layer 0, M the rank, phi = 5 epsilon / (48 H sqrt(M)):

        N = n_0 + T n_1 + (T - 1) n_2,   T = 1 + H floor(M log(M m / (2 phi)) / (log 3 - 1/2)),
        n_0 = 128 R^2 log(3 |F| / delta) / epsilon^2,   n_1 = 32 H^2 w^2 log(6 H T / delta) / epsilon^2,
        n_2 = w^2 log(6 |F| T / delta) / (2 phi^2)          (variant "q"),
        n_2 = log(6 |F| T / delta) (sqrt(2 A) m + sqrt(2 A m^2 + 4 (A + 1) m phi / 3))^2 / (4 phi^2)      ("v"),

    all three rounded up, A the largest number of allowed actions. Of order H^3 M^2 log(|F| / delta) w^2 / epsilon^2 up
    to logarithms, and A times that for variant "v".

    Parameters
    ----------
    epsilon : float
        In units of reward.
    cls, delta, rank, variant
        As in `OLIVE`; the class realizable.
    reward_range : (low, high)
    action_mask : bool (S, A), optional

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If a number is out of its range.
    """
    learner = OLIVE(cls, epsilon, delta, rank, variant)
    low, high = reward_range
    if not (np.isfinite([low, high]).all() and low <= high):
        raise ValueError(f"reward_range must be finite with low <= high, not {reward_range!r}")
    mask = np.ones((cls.n_states, cls.n_actions), bool) if action_mask is None else np.asarray(action_mask, bool)
    problem = Problem(cls.n_states, cls.n_actions, cls.horizon, low, high, False, mask)
    return learner.schedule(problem).episodes
