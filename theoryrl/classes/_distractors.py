from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from theoryrl.classes.backups import Backups
from theoryrl.classes.values import best
from theoryrl.mdp._checks import entry, first, frozen, require_finite
from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction, greedy
from theoryrl.mdp.policy import uniform_policy

# Strict inequalities that are promised of distractors hold with this margin, relative to the largest value.
MARGIN = 1e-9
ROUNDS = 50


class Frame(NamedTuple):
    """A solved model and the range of its distractors."""

    mdp: FiniteHorizonMDP
    backups: Backups
    q: NDArray[np.float64]  # (H, S, A), 0 at forbidden pairs
    value: NDArray[np.float64]  # (H + 1, S)
    floor: NDArray[np.float64]  # (H,)
    ceiling: NDArray[np.float64]  # (H,)
    margin: float


def frame_of(mdp: FiniteHorizonMDP, ceiling: Any) -> Frame:
    """What every distractor of a model starts from; `ceiling` is None, a number or (H,), and not below Q* (ValueError).

    Without a ceiling it is (H - h) high, in units of reward.
    """
    plan = backward_induction(mdp)
    left = np.arange(mdp.horizon, 0, -1.0)
    low, high = mdp.reward_range
    limit = left * high if ceiling is None else frozen(ceiling, np.float64, "ceiling")
    if limit.shape not in ((), (mdp.horizon,)):
        raise ValueError(f"ceiling has shape {limit.shape}, not () or ({mdp.horizon},)")
    require_finite(limit, "ceiling")
    limit = np.broadcast_to(limit, mdp.horizon)
    q = np.where(mdp.action_mask, plan.q, 0.0)
    margin = MARGIN * max(1.0, float(np.abs(q).max()))
    over = mdp.action_mask & (q > limit[:, np.newaxis, np.newaxis] + margin)
    if over.any():
        place = first(over)
        raise ValueError(f"{entry('Q*', place)} = {q[place]:.6g} is above the ceiling {limit[place[0]]:.6g}")
    return Frame(mdp, Backups(mdp), q, plan.value, left * low, limit, margin)


def make(frame: Frame, kind: str, count: int, rng: Generator) -> NDArray[np.float64]:
    """`count` distractors of a kind, (count, H, S, A)."""
    if kind not in PROPOSALS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, PROPOSALS))}, not {kind!r}")
    found: list[NDArray[np.float64]] = [np.empty((0, *frame.q.shape))]
    for _ in range(ROUNDS):
        missing = count - sum(map(len, found))
        if missing == 0:
            break
        found.append(PROPOSALS[kind](frame, 2 * missing, rng)[:missing])
    members = np.concatenate(found)
    if len(members) < count:
        raise ValueError(
            f"found {len(members)} of {count} {kind!r} distractors: this model (with this ceiling) has too few "
            "reachable states where an action is suboptimal and can be overvalued"
        )
    return members


def start(frame: Frame, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """E V_f(s_0) of members (m, H, S, A)."""
    return best(values[:, 0], frame.mdp.action_mask) @ frame.mdp.initial


def returns(frame: Frame, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """J of the greedy policies of members (m, H, S, A)."""
    mdp = frame.mdp
    policy = greedy(values, mdp.action_mask)
    state_values = np.zeros((len(values), mdp.n_states))
    for h in reversed(range(mdp.horizon)):
        images = frame.backups.apply(h, state_values)
        state_values = np.take_along_axis(images, policy[:, h, :, np.newaxis], axis=-1)[..., 0]
    return state_values @ mdp.initial


def _optimum(frame: Frame) -> float:
    return float(frame.mdp.initial @ frame.value[0])


def _below(frame: Frame, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which members stay within the ceiling."""
    excess = np.where(frame.mdp.action_mask, values - frame.ceiling[:, np.newaxis, np.newaxis], -np.inf)
    return excess.max(axis=(1, 2, 3)) <= frame.margin


def raisable(frame: Frame) -> NDArray[np.bool_]:
    """Pairs (h, s, a) that are allowed, reachable, suboptimal, and in a state where the ceiling leaves room."""
    mdp = frame.mdp
    reached = occupancy(mdp, uniform_policy(mdp)).sum(axis=-1, keepdims=True) > 0
    value = frame.value[:-1, :, np.newaxis]
    worse = mdp.action_mask & (frame.q < value - frame.margin)
    return reached & worse & (value < frame.ceiling[:, np.newaxis, np.newaxis] - frame.margin)


def _raise(frame: Frame, values: NDArray[np.float64], places: NDArray[np.int64], rng: Generator) -> None:
    """Member i gets a value between V* and the ceiling at `places[i]` = (h, s, a)."""
    h, s, a = places.T
    share = 1 - rng.random(len(places))  # in (0, 1]
    low = frame.value[h, s]
    values[np.arange(len(places)), h, s, a] = low + share * (frame.ceiling[h] - low)


def _consistent(frame: Frame, count: int, rng: Generator) -> NDArray[np.float64]:
    candidates = np.argwhere(raisable(frame))
    if not len(candidates):
        return np.empty((0, *frame.q.shape))
    places = candidates[rng.integers(0, len(candidates), count)]
    values = np.repeat(frame.q[np.newaxis], count, axis=0)
    _raise(frame, values, places, rng)
    for h in reversed(range(frame.mdp.horizon - 1)):
        above = np.flatnonzero(places[:, 0] > h)
        if len(above):
            values[above, h] = frame.backups.apply(h, best(values[above, h + 1], frame.mdp.action_mask))
    optimum = _optimum(frame)
    good = (start(frame, values) > optimum + frame.margin) & (returns(frame, values) < optimum - frame.margin)
    return values[good & _below(frame, values)]


def _optimistic(frame: Frame, count: int, rng: Generator) -> NDArray[np.float64]:
    room = np.maximum(frame.ceiling[:, np.newaxis, np.newaxis] - frame.q, 0.0)
    values = np.where(frame.mdp.action_mask, frame.q + rng.random((count, *frame.q.shape)) * room, 0.0)
    return values[start(frame, values) > _optimum(frame) + frame.margin]


def _bad_policy(frame: Frame, count: int, rng: Generator) -> NDArray[np.float64]:
    mask = frame.mdp.action_mask
    finest = np.where(mask, frame.q, -np.inf).argmax(axis=-1)[..., np.newaxis]
    worst = np.where(mask, frame.q, np.inf).argmin(axis=-1)[..., np.newaxis]
    swap = rng.random((count, *finest.shape)) < 0.5
    values = np.repeat(frame.q[np.newaxis], count, axis=0)
    for here, there in ((finest, worst), (worst, finest)):
        source = np.where(swap, np.take_along_axis(frame.q, there, -1), np.take_along_axis(frame.q, here, -1))
        np.put_along_axis(values, np.broadcast_to(here, source.shape), source, axis=-1)
    return values[returns(frame, values) < _optimum(frame) - frame.margin]


def _random(frame: Frame, count: int, rng: Generator) -> NDArray[np.float64]:
    return np.stack([uniform_layer(frame, h, count, rng) for h in range(frame.mdp.horizon)], axis=1)


PROPOSALS = {"consistent": _consistent, "optimistic": _optimistic, "bad-policy": _bad_policy, "random": _random}


def uniform_layer(frame: Frame, h: int, count: int, rng: Generator) -> NDArray[np.float64]:
    """Independent uniform values between the floor and the ceiling of layer h, (count, S, A)."""
    shape = count, frame.mdp.n_states, frame.mdp.n_actions
    low, high = min(frame.floor[h], frame.ceiling[h]), frame.ceiling[h]
    return np.where(frame.mdp.action_mask, low + (high - low) * rng.random(shape), 0.0)


def raised_layer(frame: Frame, h: int, count: int, rng: Generator) -> NDArray[np.float64]:
    """Q*_h with one raisable pair raised, (count, S, A); none where there is no such pair."""
    candidates = np.argwhere(raisable(frame)[h])
    count = count if len(candidates) else 0
    values = np.repeat(frame.q[np.newaxis], count, axis=0)
    if count:
        places = candidates[rng.integers(0, len(candidates), count)]
        _raise(frame, values, np.insert(places, 0, h, axis=1), rng)
    return values[:, h]
