"""The environment behind `to_gymnasium`; apart, because its class needs gymnasium when it is defined."""

from __future__ import annotations

import re
from functools import cached_property, partial
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from theoryrl.mdp.model import FiniteHorizonMDP


class ModelEnv(gymnasium.Env[Any, Any]):
    """Samples a FiniteHorizonMDP; see `theoryrl.mdp.to_gymnasium`."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, model: FiniteHorizonMDP, render_mode: str | None = None) -> None:
        self.model = model
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Discrete(model.n_states)
        self.action_space = gymnasium.spaces.Discrete(model.n_actions)
        self.initial_state_distrib = model.initial
        self._resting = resting_states(model)
        self._instead = model.action_mask.argmax(axis=1)
        self._start = np.cumsum(model.initial)
        self._state = self._layer = -1

    @cached_property
    def P(self) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
        """`P[s][a] = [(p, s', r, done), ...]`, for stationary models only."""
        if not self.model.stationary:
            raise AttributeError("a time-varying model has no table P; see the attribute model")
        return {s: {a: self._entries(s, a) for a in range(self.model.n_actions)} for s in range(self.model.n_states)}

    def _entries(self, state: int, action: int) -> list[tuple[float, int, float, bool]]:
        successors, weights, rewards = self._row(0, state, action)
        columns = zip(weights, successors, rewards, self._resting[successors], strict=True)
        return [(float(p), int(s), float(r), bool(done)) for p, s, r, done in columns if p > 0]

    def _row(self, layer: int, state: int, action: int) -> tuple[NDArray, NDArray, NDArray]:
        """Successors of a pair, their probabilities, and the mean reward with each."""
        model = self.model
        if not model.action_mask[state, action]:
            action = int(self._instead[state])
        outcome: Any = model.outcome_reward
        if model.is_sparse:
            rows = model.transition
            number = ((layer if rows.staged else 0) * model.n_states + state) * model.n_actions + action
            place: Any = slice(rows.indptr[number], rows.indptr[number + 1])
            successors, weights = rows.indices[place], rows.data[place]
        else:
            place = (layer, state, action) if model.staged_transition else (state, action)
            weights = model.transition[place]
            successors = np.arange(model.n_states)
        if outcome is not None:
            return successors, weights, outcome[place]
        mean = model.reward_layers[layer if model.reward.ndim == 3 else 0, state, action]
        return successors, weights, np.full(len(weights), mean)

    def _sampled(self, mean: float, action: int) -> float:
        model = self.model
        if model.reward_law == "bernoulli":
            return float(self.np_random.random() < mean)
        if model.reward_law == "uniform":
            noise = model.reward_noise
            place = (self._layer, self._state, action) if noise.ndim == 3 else (self._state, action)
            return float(mean + noise[place] * (2 * self.np_random.random() - 1))
        return float(mean)

    def _info(self, probability: float) -> dict[str, Any]:
        mask = self.model.action_mask[self._state].astype(np.int8)
        return {"h": self._layer, "prob": probability, "action_mask": mask}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Start an episode; a seed starts the stream of random numbers anew."""
        super().reset(seed=seed)
        self._state, self._layer = _draw(self._start, self.np_random), 0
        return self._state, self._info(float(self.model.initial[self._state]))

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """One transition of the model."""
        if not 0 <= self._layer < self.model.horizon:
            raise gymnasium.error.ResetNeeded("call reset() first: no episode is under way")
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not an action (0 to {self.model.n_actions - 1})")
        action = int(action) if self.model.action_mask[self._state, action] else int(self._instead[self._state])
        successors, weights, rewards = self._row(self._layer, self._state, action)
        which = _draw(np.cumsum(weights), self.np_random)
        reward = self._sampled(rewards[which], action)
        self._state, self._layer = int(successors[which]), self._layer + 1
        terminated, truncated = bool(self._resting[self._state]), self._layer == self.model.horizon
        return self._state, reward, terminated, truncated, self._info(float(weights[which]))


def environment(model: FiniteHorizonMDP) -> ModelEnv:
    """A ModelEnv with the specification by which gymnasium can make another one."""
    env = ModelEnv(model)
    title = re.sub(r"\W+", "-", model.name).strip("-") or "model"
    env.spec = EnvSpec(f"theoryrl/{title}-v0", entry_point=partial(ModelEnv, model), max_episode_steps=model.horizon)
    return env


def resting_states(model: Any) -> NDArray[np.bool_]:
    """(S,) bool: states that every allowed action keeps forever, with no reward on the way."""
    mask = model.action_mask
    if model.is_sparse:
        rows = model.transition
        row = np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))
        leaves = (rows.data > 0) & (rows.indices != row // model.n_actions % model.n_states)
        out = np.bincount(row[leaves], minlength=rows.n_rows).reshape(-1, *mask.shape) > 0
    else:
        positive = model.transition_layers > 0
        index = np.arange(model.n_states)
        positive[:, index, :, index] = False
        out = positive.any(axis=-1)
    # A state that cannot be left has one outcome, so its mean is its reward unless there is noise around it.
    pays = model.reward_layers != 0
    if model.reward_noise is not None:
        pays = pays | (model.reward_noise != 0)
    return ~((out.any(axis=0) | pays.any(axis=0)) & mask).any(axis=1)


def _draw(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Inverse CDF of weights over their sum; since `random()` < 1, the rounded product is below the sum too."""
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
