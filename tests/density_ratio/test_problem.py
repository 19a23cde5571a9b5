"""The setting: units in which the total reward of an episode lies in [0, 1]."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings

from theoryrl import FiniteHorizonMDP
from theoryrl.classes import FiniteClass
from theoryrl.density_ratio import largest_total, units_of
from theoryrl.density_ratio.problem import in_units, require_total
from theoryrl.testing import mdps


def total_by_paths(mdp):
    """The same by walking through everything that can happen."""
    dense, low = mdp.to_dense(), mdp.reward_range[0]
    best = -np.inf
    for start in np.flatnonzero(mdp.initial > 0):
        for actions in product(range(mdp.n_actions), repeat=mdp.horizon):
            for states in product(range(mdp.n_states), repeat=mdp.horizon):
                total, s = 0.0, start
                for h, (a, following) in enumerate(zip(actions, states, strict=True)):
                    chances = dense.transition_layers[h if len(dense.transition_layers) > 1 else 0]
                    mean = dense.reward_layers[h if len(dense.reward_layers) > 1 else 0][s, a]
                    if not mdp.action_mask[s, a] or not chances[s, a, following] > 0:
                        break
                    if mdp.outcome_reward is not None:
                        table = dense.outcome_reward
                        reward = (table[h] if table.ndim == 4 else table)[s, a, following]
                    elif mdp.reward_law == "bernoulli":
                        reward = float(mean > 0)
                    elif mdp.reward_law == "uniform":
                        noise = mdp.reward_noise
                        reward = mean + (noise[h] if noise.ndim == 3 else noise)[s, a]
                    else:
                        reward = mean
                    total, s = total + reward - low, following
                else:
                    best = max(best, total)
    return best


@settings(max_examples=25)
@given(mdps(max_states=3, max_actions=2, max_horizon=3))
def test_largest_total_is_the_largest_over_all_paths(mdp):
    assert largest_total(mdp) == pytest.approx(total_by_paths(mdp), abs=1e-9)
    require_total(mdp, units_of(mdp))


def test_units_of_a_model_and_a_bound_that_is_too_small():
    mdp = FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[-1.0, 3.0]]), horizon=2)
    assert units_of(mdp) == (-1.0, 8.0)
    assert units_of(mdp, 9) == (-1.0, 9.0)
    with pytest.raises(ValueError, match="can collect 8"):
        require_total(mdp, units_of(mdp, 7.9))
    with pytest.raises(ValueError, match="total_reward must be positive"):
        units_of(mdp, 0.0)
    with pytest.raises(ValueError, match="total_reward must be positive"):
        units_of(mdp, float("nan"))


def test_members_are_shifted_scaled_and_masked():
    mdp = FiniteHorizonMDP(
        np.ones((1, 2, 1)),
        np.array([[-1.0, 3.0]]),
        horizon=2,
        action_mask=np.array([[True, False]]),
        reward_range=(-1.0, 3.0),
    )
    cls = FiniteClass(np.array([[[[-2.0, 9.0]], [[1.0, 9.0]]]]))
    members = in_units(cls, mdp, units_of(mdp))
    assert members.values.tolist() == [[[[0.0, 0.0]], [[0.25, 0.0]]]]
    assert members.best.tolist() == [[[0.0], [0.25], [0.0]]]
    assert members.greedy.tolist() == [[[0], [0]]]
    with pytest.raises(ValueError, match=r"cls.values\[0, 1, 0, 0\] is 7.5, outside \[-1, 7\]"):
        in_units(FiniteClass(np.array([[[[-2.0, 9.0]], [[7.5, 9.0]]]])), mdp, units_of(mdp))


def test_the_largest_total_is_that_of_a_model():
    with pytest.raises(TypeError, match="FiniteHorizonMDP"):
        largest_total(np.ones((1, 1, 1)))
