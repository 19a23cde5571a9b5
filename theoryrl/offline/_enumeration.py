"""Every trajectory of a small model with its probability: expectations of estimators without sampling."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.offline.variance import full, layers_of

# Trajectories up to which a model is enumerated.
ENUMERATED = 200_000


class Trajectories(NamedTuple):
    """All trajectories of positive probability under a behaviour policy, one of each, and their probabilities."""

    data: Dataset
    probability: NDArray[np.float64]


def n_trajectories(mdp: FiniteHorizonMDP, behaviour: Any = None) -> float:
    """How many trajectories `enumerate_trajectories` would list; without a policy, all of positive probability."""
    count = np.ones(mdp.n_states)
    for h, layer in reversed(list(enumerate(layers_of(mdp)))):
        played = mdp.action_mask if behaviour is None else full(behaviour, mdp)[h] > 0
        branches = np.where(layer.noise > 0, 2, 1)[..., np.newaxis] * (layer.transition > 0)
        count = (played * (branches @ count)).sum(axis=-1)
    return float(((mdp.initial > 0) * count).sum())


def enumerate_trajectories(mdp: FiniteHorizonMDP, behaviour: Any) -> Trajectories:
    """Every trajectory of positive probability.

    A random reward takes two values: those of a Bernoulli reward, or mean -+ deviation, which has the mean and the
    variance of a uniform one (estimates are linear in every reward, so that their first two moments need no more).

    Raises
    ------
    ValueError
        If there are more than `ENUMERATED` of them.
    """
    number = n_trajectories(mdp, behaviour)
    if number > ENUMERATED:
        raise ValueError(f"{number:.3g} trajectories are more than {ENUMERATED} to enumerate")
    b, horizon = full(behaviour, mdp), mdp.horizon
    last = np.flatnonzero(mdp.initial > 0)
    probability = mdp.initial[last]
    columns: list[list[NDArray]] = []  # per layer: state, action, reward, next state, one entry per partial trajectory
    for h, layer in enumerate(layers_of(mdp)):
        support = (b[h][..., np.newaxis] > 0) & (layer.transition > 0)
        path, action, successor = np.nonzero(support[last])
        state = last[path]
        chance = probability[path] * b[h, state, action] * layer.transition[state, action, successor]
        mean, noise = layer.reward[state, action, successor], layer.noise[state, action]
        low, high = mean - np.sqrt(noise), mean + np.sqrt(noise)
        share = np.full(len(state), 0.5)
        if mdp.reward_law == "bernoulli":
            low, high, share = np.zeros_like(mean), np.ones_like(mean), mean
        twice = np.flatnonzero(noise > 0)
        pick = np.concatenate([np.arange(len(state)), twice])
        chance = np.concatenate([np.where(noise > 0, chance * (1 - share), chance), (chance * share)[twice]])
        reward = np.concatenate([np.where(noise > 0, low, mean), high[twice]])
        columns = [[column[path[pick]] for column in step] for step in columns]
        columns.append([state[pick], action[pick], reward, successor[pick]])
        last, probability = successor[pick], chance
    n = len(probability)
    state, action, reward, successor = (np.stack([step[k] for step in columns], axis=1).reshape(-1) for k in range(4))
    trajectory, layer_of = np.repeat(np.arange(n), horizon), np.tile(np.arange(horizon), n)
    sizes = mdp.n_states, mdp.n_actions, horizon
    return Trajectories(Dataset(trajectory, layer_of, state, action, reward, successor, *sizes), probability)
