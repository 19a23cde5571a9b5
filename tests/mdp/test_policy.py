"""Policies: their forms, mixtures, induced chains, and history-dependent ones through a memory."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl import FiniteHorizonMDP, MixturePolicy, augment, evaluate, occupancy, random_mdp, uniform_policy
from theoryrl.mdp.policy import policy_layers, stochastic_layers
from theoryrl.testing import mdps, naive, policies

MASK = np.array([[True, True, False], [True, True, True]])


def toy(horizon=4, mask=MASK):
    return FiniteHorizonMDP(np.full((2, 3, 2), 0.5), np.zeros((2, 3)), horizon=horizon, action_mask=mask)


# ---- forms


@pytest.mark.parametrize(
    "policy, shape, kind",
    [
        ([0, 2], (1, 2), "i"),
        (np.array([1, 2], np.int8), (1, 2), "i"),
        (np.zeros((4, 2), int), (4, 2), "i"),
        (np.tile([0.5, 0.5, 0.0], (2, 1)), (1, 2, 3), "f"),
        (np.tile([1.0, 0.0, 0.0], (4, 2, 1)), (4, 2, 3), "f"),
        (np.array([[1, 0, 0], [0, 0, 1]]), (1, 2, 3), "f"),
    ],
)
def test_forms_of_a_policy(policy, shape, kind):
    layers = policy_layers(policy, toy())
    assert layers.shape == shape and layers.dtype.kind == kind and not layers.flags.writeable


def test_integers_choose_where_two_readings_fit():
    mdp = toy(horizon=3, mask=None)
    square = FiniteHorizonMDP(np.full((3, 3, 3), 1 / 3), np.zeros((3, 3)), horizon=3)
    assert policy_layers(np.eye(3, dtype=int), square).dtype == np.int64
    assert policy_layers(np.eye(3), square).dtype == np.float64
    assert policy_layers(np.zeros((3, 2), int), mdp).shape == (3, 2)


@pytest.mark.parametrize(
    "policy, message",
    [
        ([0, 3], "policy[1] = 3 is not an action (0 to 2)"),
        ([[0, 0], [0, -1], [0, 0], [0, 0]], "policy[1, 1] = -1 is not an action (0 to 2)"),
        ([2, 0], "policy[0] = 2 is a forbidden action"),
        ([[0, 0], [0, 0], [0, 2], [2, 0]], "policy[3, 0] = 2 is a forbidden action"),
        ([0, 0, 0], "policy has shape (3,)"),
        ([0.0, 1.0], "policy has shape (2,) and type float64; it can be (2,), (2, 3), (4, 2) or (4, 2, 3)"),
        (np.zeros((3, 2), int), "policy has shape (3, 2)"),
        ([[0.5, 0.4, 0.0], [1, 0, 0]], "policy[0] sums to 0.9, not 1"),
        ([[0.5, 0.5, 0.0], [1.5, -0.5, 0]], "policy[1, 1] is -0.5, not a probability"),
        ([[np.nan, 0.5, 0.5], [1, 0, 0]], "policy[0, 0] is nan, not a probability"),
        ([[np.inf, 0, 0], [1, 0, 0]], "policy[0] sums to inf, not 1"),
        ([[0.5, 0.0, 0.5], [1, 0, 0]], "policy[0, 2] gives weight to a forbidden action"),
        (np.tile([0.0, 0.0, 1.0], (4, 2, 1)), "policy[0, 0, 2] gives weight to a forbidden action"),
        (MixturePolicy([[0, 0]]), "a MixturePolicy is not one Markov policy"),
    ],
)
def test_bad_policies_are_named(policy, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        policy_layers(policy, toy())


def test_a_policy_without_layers_fits_a_discounted_model():
    mdp = toy().with_discount(0.5)
    assert policy_layers([0, 0], mdp).shape == (1, 2)
    with pytest.raises(ValueError, match=re.escape("it can be (2,), (2, 3), integer actions or probabilities")):
        policy_layers(np.zeros((4, 2), int), mdp)


def test_the_array_of_the_caller_is_left_alone():
    policy = np.array([0, 1])
    layers = policy_layers(policy, toy())
    policy[:] = 1
    assert layers.tolist() == [[0, 1]] and policy.flags.writeable


def test_uniform_policy_and_probabilities():
    np.testing.assert_array_equal(uniform_policy(toy()), [[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_array_equal(stochastic_layers([1, 2], toy()), [[[0, 1, 0], [0, 0, 1]]])
    assert stochastic_layers(np.zeros((4, 2), int), toy()).shape == (4, 2, 3)


# ---- mixtures


def test_mixtures():
    mixture = MixturePolicy([[0, 0], [1, 1]])
    assert mixture.weights.tolist() == [0.5, 0.5] and isinstance(mixture.policies, tuple)
    for arguments, message in [
        (([],), "a mixture needs at least one policy"),
        (([[0]], [0.5, 0.5]), "weights has shape (2,) for 1 policies"),
        (([[0], [0]], [0.5, 0.4]), "weights sums to 0.9, not 1"),
        (([[0], [0]], [1.5, -0.5]), "weights[1] is negative (-0.5)"),
        (([[0], [0]], [np.nan, 1]), "weights[0] is nan, not finite"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            MixturePolicy(*arguments)


@given(st.data())
def test_a_mixture_is_an_average(data):
    mdp = data.draw(mdps())
    mixture = data.draw(policies(mdp, "mixture"))
    for function, twin in ((evaluate, naive.evaluate), (occupancy, naive.occupancy)):
        parts = [np.array(twin(mdp, policy)) for policy in mixture.policies]
        expected = sum(w * part for w, part in zip(mixture.weights, parts, strict=True))
        np.testing.assert_allclose(function(mdp, mixture), expected, atol=1e-9)


# ---- induced chains


@given(st.data())
def test_the_induced_chain_has_the_same_law(data):
    mdp = data.draw(mdps(reward_bounds=(-1.0, 2.0)))
    policy = data.draw(policies(mdp))
    chain = mdp.induced(policy)
    assert (chain.n_actions, chain.horizon, chain.is_sparse) == (1, mdp.horizon, mdp.is_sparse)
    layered = policy.ndim == (2 if policy.dtype.kind == "i" else 3)
    if mdp.horizon > 1:
        assert chain.stationary == (mdp.stationary and not layered)
    only = np.zeros(mdp.n_states, int)
    np.testing.assert_allclose(naive.evaluate(chain, only), naive.evaluate(mdp, policy), atol=1e-9)
    visits = np.sum(naive.occupancy(mdp, policy), axis=2)
    np.testing.assert_allclose(np.array(naive.occupancy(chain, only))[:, :, 0], visits, atol=1e-9)


def test_the_induced_chain_refuses_a_bad_policy():
    with pytest.raises(ValueError, match="forbidden"):
        toy().induced([2, 0])


# ---- memories


def test_augment_keeps_value_and_occupancy_of_markov_policies():
    mdp = random_mdp(3, 2, 4, 0, staged=True, branching=2)
    wide = augment(mdp, 3, lambda m, s, a, t: (m + s + 2 * a + t) % 3)
    policy = np.random.default_rng(0).dirichlet(np.ones(2), size=(4, 3))
    lifted = np.tile(policy, (1, 3, 1))
    assert wide.mdp.n_states == 9 and wide.mdp.is_sparse and wide.state(2, 1) == 5
    np.testing.assert_allclose(wide.marginal(occupancy(wide.mdp, lifted)), occupancy(mdp, policy), atol=1e-12)
    np.testing.assert_allclose(evaluate(wide.mdp, lifted), np.tile(evaluate(mdp, policy), 3), atol=1e-12)


def test_a_policy_of_histories_by_all_trajectories():
    """Which action at the last step depends on the first state: the memory makes it Markov."""
    mdp = random_mdp(2, 2, 3, 1).with_initial([0.25, 0.75])
    wide = augment(mdp, 2, lambda m, s, a, t: m, initial_memory=lambda s: s)
    rule = np.zeros((3, 4), int)
    for memory, s in itertools.product(range(2), repeat=2):
        rule[2, wide.state(s, memory)] = memory
    total = 0.0
    for path in itertools.product(range(2), repeat=3):
        actions = (0, 0, path[0])
        weight = mdp.initial[path[0]]
        for h in range(2):
            weight *= mdp.transition[path[h], actions[h], path[h + 1]]
        total += weight * sum(mdp.reward[s, a] for s, a in zip(path, actions, strict=True))
    assert wide.mdp.initial @ evaluate(wide.mdp, rule)[0] == pytest.approx(total, abs=1e-12)


@given(st.data(), st.integers(1, 3))
def test_augment_takes_every_kind_of_model(data, n_memory):
    mdp = data.draw(mdps())
    wide = augment(mdp, n_memory, lambda m, s, a, t: (m + s + a + t) % n_memory, n_memory - 1).mdp
    assert (wide.reward_law, wide.reward_range, wide.horizon) == (mdp.reward_law, mdp.reward_range, mdp.horizon)
    assert (wide.staged_transition, wide.reward.ndim) == (mdp.staged_transition, mdp.reward.ndim)
    policy = data.draw(policies(mdp, "deterministic", staged=True))
    value = naive.evaluate(wide, np.tile(policy, (1, n_memory)))
    np.testing.assert_allclose(value, np.tile(naive.evaluate(mdp, policy), n_memory), atol=1e-9)
    if mdp.reward_law == "outcome":
        # Every successor, whatever the memory it comes with, pays what it paid before.
        old, new = mdp.to_dense().outcome_reward, wide.to_dense()
        n = mdp.n_states
        for index in zip(*np.nonzero((new.transition > 0) & wide.action_mask[:, :, np.newaxis]), strict=True):
            *lead, x, a, y = index
            assert new.outcome_reward[index] == old[(*lead, x % n, a, y % n)]


def test_augment_names_a_memory_out_of_range():
    mdp = toy()
    with pytest.raises(ValueError, match=re.escape("update(1, 0, 0, 0) = 2 is not in 0 to 1")):
        augment(mdp, 2, lambda m, s, a, t: m + 1 if m else 0)
    with pytest.raises(ValueError, match="initial_memory of state 1 = 2 is not in 0 to 1"):
        augment(mdp, 2, lambda m, s, a, t: 0, lambda s: 2 * s)
    with pytest.raises(ValueError, match="n_memory must be at least 1, not 0"):
        augment(mdp, 0, lambda m, s, a, t: 0)


def test_induced_accepts_rows_that_are_each_slightly_off():
    slack = 1 + 0.9e-9
    mdp = FiniteHorizonMDP(np.full((2, 2, 2), 0.5 * slack), np.zeros((2, 2)), horizon=2)
    chain = mdp.induced(np.full((2, 2), 0.5 * slack))
    assert np.allclose(chain.transition, 0.5, rtol=0, atol=1e-9)
