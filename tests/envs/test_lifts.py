"""Block MDPs and exogenous noise keep everything that matters about the model below them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl import backward_induction, envs, occupancy, uniform_policy
from theoryrl.testing import mdps, policies

LIFTS = {
    "block": lambda base, size, rng: envs.block_mdp(base, n_observations=size, rng=rng),
    "exogenous": lambda base, size, rng: envs.exogenous(base, n_noise=size, rng=rng),
}


@pytest.mark.parametrize("lift", LIFTS.values(), ids=LIFTS)
@given(base=mdps(), size=st.integers(1, 3), rng=st.integers(0, 9))
def test_the_value_is_that_of_the_base(lift, base, size, rng):
    lifted = lift(base, size, rng)
    mdp = lifted.mdp
    assert mdp.n_states == base.n_states * size
    assert (mdp.is_sparse, mdp.reward_law, mdp.reward_range) == (base.is_sparse, base.reward_law, base.reward_range)
    value = backward_induction(base).value
    np.testing.assert_allclose(backward_induction(mdp).value, value[:, lifted.decoder], atol=1e-9)
    np.testing.assert_allclose(np.bincount(lifted.decoder, mdp.initial), base.initial, atol=1e-12)
    assert (mdp.action_mask == base.action_mask[lifted.decoder]).all()


@pytest.mark.parametrize("lift", LIFTS.values(), ids=LIFTS)
@given(data=st.data())
def test_policies_of_the_base_visit_the_same_states(lift, data):
    base = data.draw(mdps())
    policy = data.draw(policies(base, "stochastic"))
    lifted = lift(base, 2, 0)
    measure = occupancy(lifted.mdp, policy[..., lifted.decoder, :])
    marginal = np.zeros((base.horizon, base.n_states, base.n_actions))
    np.add.at(marginal, (slice(None), lifted.decoder), measure)
    np.testing.assert_allclose(marginal, occupancy(base, policy), atol=1e-9)


def test_block_transitions_by_the_formula():
    base = envs.random_dense(n_states=3, n_actions=2, staged=True, horizon=2, rng=0)
    lifted = envs.block_mdp(base, n_observations=4, rng=1)
    for h in range(2):
        for x in range(12):
            for a in range(2):
                for y in range(12):
                    expected = base.transition[h, x // 4, a, y // 4] * lifted.weights[y // 4, y % 4]
                    assert lifted.mdp.transition[h, x, a, y] == expected
    np.testing.assert_allclose(lifted.weights.sum(axis=1), 1)


def test_exogenous_transitions_by_the_formula():
    base = envs.riverswim(n_states=3)
    lifted = envs.exogenous(base, n_noise=2, rng=1)
    for x in range(6):
        for a in range(2):
            for y in range(6):
                expected = base.transition[x // 2, a, y // 2] * lifted.weights[x % 2, y % 2]
                assert lifted.mdp.transition[x, a, y] == expected


def test_noise_does_not_depend_on_the_policy():
    lifted = envs.exogenous("riverswim", n_noise=3, rng=2)
    noise = np.arange(lifted.mdp.n_states) % 3
    left = np.zeros(lifted.mdp.n_states, int)
    at = [
        [np.bincount(noise, d.sum(axis=-1)) for d in occupancy(lifted.mdp, p)]
        for p in (left, left + 1, uniform_policy(lifted.mdp))
    ]
    np.testing.assert_allclose(at[0], at[1], atol=1e-12)
    np.testing.assert_allclose(at[0], at[2], atol=1e-12)


def test_names_labels_and_horizons():
    labelled = envs.four_rooms(slip=0.0)
    lifted = envs.block_mdp(labelled, n_observations=2, horizon=7)
    assert lifted.mdp.state_labels[:3] == ("(1, 1) [0]", "(1, 1) [1]", "(1, 2) [0]")
    assert lifted.mdp.horizon == lifted.base.horizon == 7
    assert lifted.mdp.name == "block_mdp(base=four_rooms(slip=0.0, horizon=40), n_observations=2, horizon=7, rng=0)"
    with pytest.raises(ValueError, match="base must be a FiniteHorizonMDP or the name of a family, not int"):
        envs.exogenous(3)
    with pytest.raises(ValueError, match="did you mean 'riverswim'"):
        envs.exogenous("riverswimm")
