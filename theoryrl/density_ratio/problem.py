"""The setting of Amortila et al. (2024): the total reward of an episode lies in [0, 1], and so do all values.

A model whose rewards lie in [low, high] is brought there by r' = (r - low) / scale and, h counted from 0,
f'_h = (f_h - (H - h) low) / scale, where `scale` is an upper bound on the sum of the shifted rewards of an episode: by
default H (high - low), or less if the user knows better (`total_reward`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.classes.values import FiniteClass
from theoryrl.mdp._checks import first
from theoryrl.mdp.model import FiniteHorizonMDP, require_model

# How far out of [0, 1] a value, or above the scale a total reward, may be by rounding alone.
TOLERANCE = 1e-9


class Units(NamedTuple):
    """From units of reward to total rewards in [0, 1]: r' = (r - low) / scale."""

    low: float
    scale: float


def units_of(problem: Any, total_reward: float | None = None) -> Units:
    """The units in which an episode's total reward lies in [0, 1].

    Parameters
    ----------
    problem : Problem or FiniteHorizonMDP
        Where the range of one reward and the horizon are read.
    total_reward : positive float, optional
        A bound on sum_h (r_h - low) over an episode, whatever is played; default H (high - low).

    Returns
    -------
    Units

    Raises
    ------
    ValueError
        A bound that is not positive and finite.
    """
    low, high = problem.reward_range if isinstance(problem, FiniteHorizonMDP) else problem[3:5]
    if total_reward is not None and not 0 < total_reward < math.inf:
        raise ValueError(f"total_reward must be positive and finite, not {total_reward!r}")
    width = problem.horizon * float(high - low)
    return Units(float(low), float(total_reward) if total_reward is not None else width if width > 0 else 1.0)


def largest_total(mdp: FiniteHorizonMDP) -> float:
    """The largest sum of r_h - low that an episode can collect, over all that can be played and drawn.

    Parameters
    ----------
    mdp : FiniteHorizonMDP
        Its `reward_range` gives low.

    Returns
    -------
    float
        In units of reward.

    Raises
    ------
    TypeError
        Not a FiniteHorizonMDP.
    """
    require_model(mdp, FiniteHorizonMDP)
    low = mdp.reward_range[0]
    rows = mdp.to_sparse()
    transition, n_states, n_actions = rows.transition, mdp.n_states, mdp.n_actions
    best = np.zeros(n_states)
    for h in range(mdp.horizon - 1, -1, -1):
        first_row = h * n_states * n_actions if transition.staged else 0
        pointers = transition.indptr[first_row : first_row + n_states * n_actions + 1]
        entries = slice(pointers[0], pointers[-1])
        possible = transition.data[entries] > 0
        later = best[transition.indices[entries]]
        if rows.outcome_reward is None:
            top = _largest_rewards(mdp, h).ravel() - low
        else:
            later = later + rows.outcome_reward[entries] - low
            top = np.zeros(n_states * n_actions)
        later = np.append(np.where(possible, later, -np.inf), -np.inf)
        reach = np.maximum.reduceat(later, pointers[:-1] - pointers[0])
        reach[np.diff(pointers) == 0] = -np.inf
        total = (top + reach).reshape(n_states, n_actions)
        best = np.where(mdp.action_mask, total, -np.inf).max(axis=1)
    return float(best[mdp.initial > 0].max())


def _largest_rewards(mdp: FiniteHorizonMDP, h: int) -> NDArray[np.float64]:
    mean = mdp.reward_layers[h if len(mdp.reward_layers) > 1 else 0]
    if mdp.reward_law == "bernoulli":
        return np.where(mean > 0, 1.0, 0.0)
    if mdp.reward_law == "uniform":
        noise = np.asarray(mdp.reward_noise)
        return mean + (noise[h] if noise.ndim == 3 else noise)
    return mean


def require_total(mdp: FiniteHorizonMDP, units: Units) -> None:
    """Refuse a model on which an episode can collect more than the units allow.

    Raises
    ------
    ValueError
        With both numbers.
    """
    total = largest_total(mdp)
    if not total <= units.scale * (1 + TOLERANCE):
        raise ValueError(f"an episode can collect {total:.6g} above the lowest rewards, more than {units.scale:.6g}")


class Members(NamedTuple):
    """A finite class in units: what a learner reads of it."""

    values: NDArray[np.float64]  # (nF, H, S, A), 0 where forbidden
    best: NDArray[np.float64]  # (nF, H + 1, S) largest allowed value; row H is zero
    greedy: NDArray[np.int64]  # (nF, H, S), ties to the lowest-numbered allowed action


def in_units(cls: FiniteClass, problem: Any, units: Units) -> Members:
    """The members of F in units, f'_h = (f_h - (H - h) low) / scale.

    Raises
    ------
    ValueError
        A value outside [0, 1] by more than rounding at an allowed pair; the entry is named. (Values need not be
        clipped: a class that promises more than any total reward is a mistake.)
    """
    cls.require_fits(problem)
    mask = np.asarray(problem.action_mask, bool)
    n, horizon = cls.size, cls.horizon
    to_go = np.arange(horizon, 0, -1)[:, np.newaxis, np.newaxis]
    table = (cls.values - to_go * units.low) / units.scale
    wrong = mask & ~((table >= -TOLERANCE) & (table <= 1 + TOLERANCE))
    if wrong.any():
        f, h, s, a = first(wrong)
        raise ValueError(
            f"cls.values[{f}, {h}, {s}, {a}] is {cls.values[f, h, s, a]:.6g}, outside "
            f"[{to_go[h, 0, 0] * units.low:.6g}, {to_go[h, 0, 0] * units.low + units.scale:.6g}]"
        )
    table = np.where(mask, np.clip(table, 0.0, 1.0), 0.0)
    allowed = np.where(mask, table, -np.inf)
    best = np.zeros((n, horizon + 1, cls.n_states))
    best[:, :-1] = allowed.max(axis=-1)
    return Members(table, best, allowed.argmax(axis=-1))
