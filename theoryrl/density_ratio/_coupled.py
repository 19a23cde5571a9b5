"""A learner plays on a lift of a model whose hidden states and rewards are drawn exactly as in the model itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from theoryrl.envs.block import LiftedMDP
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online.verbs import Problem, act, observe, plan, sample


def unlifted(mdp: FiniteHorizonMDP) -> LiftedMDP:
    """The model as a lift of itself, with one symbol per state."""
    return LiftedMDP(mdp, mdp, np.arange(mdp.n_states), np.ones((mdp.n_states, 1)))


def play_hidden(
    learner: Any, lifted: LiftedMDP, episodes: int, stream: np.random.SeedSequence, noise: bool = False
) -> Any:
    """The learner's state after `episodes` episodes on `lifted.mdp`, a block MDP or (`noise`) one with exogenous noise.

    Hidden states and rewards come from one stream of uniforms, used as `run` uses it on `lifted.base`; symbols from a
    second one, the learner's own choices from a third. So the hidden trajectory depends on nothing but the first
    stream and the actions, whatever the number of symbols: an inverse-CDF coupling in which the symbols of a state
    share an interval. The observations have the law of `lifted.mdp`.
    """
    base, mdp = lifted.base, lifted.mdp
    environment, own, symbols = (np.random.Generator(np.random.PCG64(child)) for child in stream.spawn(3))
    tables, show = sampler(base), _symbols(lifted, noise, symbols)
    size = mdp.n_states // base.n_states
    low, high = mdp.reward_range
    state = learner.init(Problem(mdp.n_states, mdp.n_actions, mdp.horizon, low, high, mdp.stationary, mdp.action_mask))
    for episode in range(episodes):
        sample(state, own)
        plan(state, episode)
        s = draw_initial(tables, environment)
        symbol = show(s, -1)
        for h in range(mdp.horizon):
            x = s * size + symbol
            a = act(state, h, x, own)
            reward, s_next = draw_step(tables, h, s, a, environment)
            symbol = show(s_next, symbol)
            observe(state, h, x, a, reward, s_next * size + symbol)
            s = s_next
    return state


def _symbols(lifted: LiftedMDP, noise: bool, rng: np.random.Generator) -> Callable[[int, int], int]:
    """Draws the next symbol, given the hidden state that shows it and the symbol before (-1: there is none)."""
    size = lifted.weights.shape[1]
    # The last row is the law of the first symbol of noise.
    rows = np.vstack([lifted.weights, np.full(size, 1.0 / size)])
    thresholds = np.cumsum(rows, axis=1)
    thresholds /= thresholds[:, -1:]

    def show(s: int, symbol: int) -> int:
        return int(np.searchsorted(thresholds[symbol if noise else s], rng.random(), side="right"))

    return show
