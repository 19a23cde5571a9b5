"""The strategies: what they cover, that everything they make is valid, and what they shrink to."""

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from theoryrl import DiscountedMDP, FiniteHorizonMDP, MixturePolicy
from theoryrl.mdp.policy import policy_layers
from theoryrl.testing import datasets, discounted_mdps, mdps, policies, rewards

QUICK = settings(max_examples=500, database=None)


def test_models_shrink_to_two_states():
    finite = find(mdps(), lambda _: True, settings=QUICK)
    discounted = find(discounted_mdps(), lambda _: True, settings=QUICK)
    assert finite.horizon == 1 and discounted.discount == 0
    for mdp in (finite, discounted):
        assert (mdp.n_states, mdp.n_actions, mdp.is_sparse, mdp.reward_law) == (2, 1, False, "deterministic")
        np.testing.assert_array_equal(mdp.transition, np.full((2, 1, 2), 0.5))
        np.testing.assert_array_equal(mdp.reward, np.zeros((2, 1)))
        np.testing.assert_array_equal(mdp.initial, [1, 0])


def test_a_failing_property_shrinks_to_a_small_model():
    mdp = find(mdps(), lambda m: m.horizon >= 2 and m.reward.max() > 0 and m.n_actions >= 2, settings=QUICK)
    assert (mdp.n_states, mdp.n_actions, mdp.horizon) == (2, 2, 2)
    assert mdp.stationary and not mdp.is_sparse and mdp.action_mask.all()
    assert np.count_nonzero(mdp.reward) == 1 and mdp.reward.max() == 1


KINDS = {
    "one state": lambda m: m.n_states == 1,
    "largest": lambda m: (m.n_states, m.n_actions, m.horizon) == (4, 3, 4),
    "staged transition, stationary reward": lambda m: m.staged_transition and m.reward.ndim == 2 and m.horizon > 1,
    "stationary transition, staged reward": lambda m: not m.staged_transition and m.reward.ndim == 3 and m.horizon > 1,
    "sparse": lambda m: m.is_sparse and not m.staged_transition,
    "sparse, staged": lambda m: m.is_sparse and m.staged_transition and m.horizon > 1,
    "sparse with explicit zeros": lambda m: m.is_sparse and m.action_mask.all() and (m.transition.data == 0).any(),
    "masked": lambda m: not m.action_mask.all(),
    "masked, sparse, staged": lambda m: not m.action_mask.all() and m.is_sparse and m.staged_transition,
    "nonsense in forbidden rows": lambda m: (m.to_dense().transition > 1).any(),
    "random start": lambda m: m.initial.max() < 1,
    "deterministic": lambda m: (
        m.n_states > 1 and m.action_mask.all() and (m.to_dense().transition.max(axis=-1) == 1).all()
    ),
    "tiny probability": lambda m: ((0 < m.to_dense().transition) & (m.to_dense().transition < 1e-11)).any(),
    "bernoulli": lambda m: m.reward_law == "bernoulli",
    "uniform": lambda m: m.reward_law == "uniform" and m.reward_noise.max() > 0,
    "outcome": lambda m: m.reward_law == "outcome",
    "outcome, sparse": lambda m: m.reward_law == "outcome" and m.is_sparse,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_occurs(kind):
    # Found, not shrunk: this is about what is generated.
    mdp = find(mdps(), KINDS[kind], settings=settings(max_examples=3000, database=None, phases=[Phase.generate]))
    assert KINDS[kind](mdp)


@given(mdps())
def test_models_stay_in_bounds(mdp):
    assert isinstance(mdp, FiniteHorizonMDP)
    assert mdp.n_states <= 4 and mdp.n_actions <= 3 and mdp.horizon <= 4
    assert mdp.reward_range == (0, 1)


@given(mdps(max_states=1, max_actions=1, max_horizon=1))
def test_sizes_can_be_one(mdp):
    assert (mdp.n_states, mdp.n_actions, mdp.horizon) == (1, 1, 1)


@given(mdps(staged=True, sparse=True, masked=True, reward_laws=("outcome", "uniform"), reward_bounds=(-3.0, 2.0)))
def test_kinds_can_be_asked_for(mdp):
    assert mdp.staged_transition and mdp.is_sparse and not mdp.action_mask.all()
    assert mdp.reward_law in ("outcome", "uniform")
    assert mdp.reward_range == (0, 1) or (mdp.reward_range[0] >= -3 and mdp.reward_range[1] <= 2)


@given(mdps(staged=False, sparse=False, masked=False, reward_bounds=(-3.0, 2.0)))
def test_kinds_can_be_excluded(mdp):
    assert mdp.stationary and not mdp.is_sparse and mdp.action_mask.all()
    assert mdp.reward_law != "bernoulli"


@given(discounted_mdps(max_discount=0.5))
def test_discounted_models(mdp):
    assert isinstance(mdp, DiscountedMDP)
    assert 0 <= mdp.discount <= 0.5


@given(st.data(), st.booleans())
def test_policies_are_valid(data, discounted):
    mdp = data.draw(discounted_mdps() if discounted else mdps())
    for kind, dtype in (("deterministic", "i"), ("stochastic", "f")):
        policy = data.draw(policies(mdp, kind))
        assert policy.dtype.kind == dtype
        assert len(policy_layers(policy, mdp)) in (1, getattr(mdp, "horizon", 1))
        assert policy_layers(data.draw(policies(mdp, kind, staged=False)), mdp).shape[0] == 1
    mixture = data.draw(policies(mdp, "mixture"))
    assert isinstance(mixture, MixturePolicy)
    assert all(policy_layers(part, mdp).ndim >= 2 for part in mixture.policies)


@given(st.data())
def test_layers_of_policies_and_rewards(data):
    mdp = data.draw(mdps())
    shape = (mdp.horizon, mdp.n_states)
    assert data.draw(policies(mdp, "deterministic", staged=True)).shape == shape
    assert data.draw(policies(mdp, "stochastic", staged=True)).shape == (*shape, mdp.n_actions)
    reward = data.draw(rewards(mdp, (-1.0, 4.0), staged=True))
    assert reward.shape == (*shape, mdp.n_actions) and reward.min() >= -1 and reward.max() <= 4
    assert mdp.with_reward(data.draw(rewards(mdp))).reward_range == (0, 1)


def test_policies_shrink_to_the_lowest_allowed_action_and_the_uniform_policy():
    mask = np.array([[False, True, True], [True, True, True]])
    mdp = FiniteHorizonMDP(np.full((2, 3, 2), 0.5), np.zeros((2, 3)), horizon=2, action_mask=mask)
    np.testing.assert_array_equal(find(policies(mdp), lambda _: True), [1, 0])
    uniform = find(policies(mdp, "stochastic"), lambda _: True)
    np.testing.assert_allclose(uniform, [[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    for state, action in ((0, 1), (0, 2), (1, 0), (1, 1), (1, 2)):
        assert find(policies(mdp, "deterministic"), lambda p, s=state, a=action: p[..., s].max() == a) is not None


def test_impossible_requests_are_named():
    mdp = find(discounted_mdps(), lambda _: True)
    with pytest.raises(ValueError, match="kind must be 'deterministic', 'stochastic' or 'mixture', not 'greedy'"):
        find(policies(mdp, "greedy"), lambda _: True)
    for strategy in (policies(mdp, staged=True), rewards(mdp, staged=True)):
        with pytest.raises(ValueError, match="a DiscountedMDP have no layer axis"):
            find(strategy, lambda _: True)


@given(st.data())
def test_datasets_are_possible(data):
    mdp = data.draw(mdps())
    columns = data.draw(datasets(mdp, 3)).columns
    dense = mdp.to_dense()
    at = columns["step"], columns["state"], columns["action"]
    kernel = np.broadcast_to(dense.transition, (mdp.horizon, *dense.transition.shape[-3:]))
    reward = np.broadcast_to(mdp.reward, (mdp.horizon, *mdp.reward.shape[-2:]))[at]
    assert mdp.action_mask[at[1:]].all()
    assert (kernel[(*at, columns["next_state"])] > 0).all()
    assert (mdp.initial[columns["state"][columns["step"] == 0]] > 0).all()
    np.testing.assert_array_equal(columns["step"], np.tile(np.arange(mdp.horizon), columns["trajectory"][-1] + 1))
    if mdp.reward_law == "deterministic":
        np.testing.assert_array_equal(columns["reward"], reward)
    elif mdp.reward_law == "bernoulli":
        assert np.isin(columns["reward"], (0, 1)).all()
        assert (columns["reward"][np.isin(reward, (0, 1))] == reward[np.isin(reward, (0, 1))]).all()
    elif mdp.reward_law == "uniform":
        noise = np.broadcast_to(mdp.reward_noise, (mdp.horizon, *mdp.reward_noise.shape[-2:]))[at]
        assert (np.abs(columns["reward"] - reward) <= noise + 1e-15).all()
    else:
        outcome = np.broadcast_to(dense.outcome_reward, kernel.shape)
        np.testing.assert_array_equal(columns["reward"], outcome[(*at, columns["next_state"])])


def test_datasets_shrink_to_one_episode():
    mdp = FiniteHorizonMDP(np.full((2, 2, 2), 0.5), np.full((2, 2), 0.5), horizon=2, reward_law="bernoulli")
    data = find(datasets(mdp), lambda _: True)
    assert [column.tolist() for column in data.columns.values()] == [[0, 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0]]
