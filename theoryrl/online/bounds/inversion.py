"""From a regret bound to a number of episodes: how long until the average loss is provably small."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theoryrl.theory.search import first_true


def min_episodes(bound: Callable[..., ArrayLike], epsilon: float, /, **settings: Any) -> int:
    """A number of episodes K with bound(K) / K <= epsilon, the least one if bound(K) / K falls with K.

    By then the uniform mixture of the K policies played loses at most epsilon against the optimal one, with the
    probability with which the regret bound holds (online-to-batch; every policy of the mixture counts once).

    Parameters
    ----------
    bound : function of the number of episodes
        Such as `ucbvi_regret_bound`; `settings` are passed on to it.
    epsilon : float, positive, in units of reward
    **settings
        For example n_states, n_actions, horizon, delta.

    Returns
    -------
    int
        bound(K) / K <= epsilon holds at the number returned; K - 1 fails it (unless K = 1).

    Raises
    ------
    ValueError
        If epsilon is not positive, or is not met within 2^62 episodes.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be positive and finite, not {epsilon!r}")

    def met(episodes: int) -> bool:
        return bool(np.all(np.asarray(bound(episodes, **settings)) <= epsilon * episodes))

    found = first_true(met)
    if found is None:
        raise ValueError(f"{getattr(bound, '__name__', 'the bound')} is above {epsilon} K for all K up to 2^62")
    return found
