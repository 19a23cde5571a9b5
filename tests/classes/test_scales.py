"""Checks of linear classes do not depend on the units of features and rewards."""

import numpy as np
import pytest

import theoryrl
from theoryrl.classes import (
    FiniteClass,
    LinearClass,
    completeness,
    linear_features,
    policy_closure,
    realizability,
)

SIZES = np.logspace(0, -25, 8)


def small(scale=1.0):
    mdp = theoryrl.random_mdp(4, 2, 3, 0)
    return mdp.with_reward(np.asarray(mdp.reward) * scale)


@pytest.mark.parametrize("size", [SIZES, SIZES[::-1], np.full(8, 1e-12), np.full(8, 1e12)])
def test_the_size_of_a_feature_does_not_matter(size):
    tables, mdp = LinearClass(np.eye(8).reshape(4, 2, 8) * size, 3), small()
    for check in (realizability(tables, mdp), completeness(tables, mdp), policy_closure(tables, mdp, np.zeros(4, int))):
        assert check, check.message
    assert completeness(tables, mdp).exact


def constant_and_reward(mdp, size):
    """Features in which rewards are linear and transitions are not."""
    return LinearClass(np.stack([np.ones((4, 2)), np.asarray(mdp.reward)], axis=-1) * size, mdp.horizon)


@pytest.mark.parametrize("size", [1.0, 1e-13])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_transitions_that_are_not_linear_are_noticed(scale, size):
    mdp = small(scale)
    members = constant_and_reward(small(), size)
    for check in (completeness(members, mdp), policy_closure(members, mdp, np.ones(4, int))):
        assert not check and check.violation > 1e-3 * max(1.0, scale)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_linear_features_hold_rewards_and_transitions_whatever_the_unit(scale):
    mdp = theoryrl.random_mdp(5, 3, 4, 1)
    features = linear_features(mdp.with_reward(np.asarray(mdp.reward) * scale))
    assert features.shape == linear_features(mdp).shape == (5, 3, 6)
    basis = features.reshape(15, 6)
    for wanted in (np.asarray(mdp.transition).reshape(15, 5), np.asarray(mdp.reward).reshape(15, 1)):
        np.testing.assert_allclose(basis @ (basis.T @ wanted), wanted, atol=1e-13)


def test_features_without_layers_ask_for_the_horizon():
    with pytest.raises(ValueError, match="features has no layer axis, so the horizon must be given"):
        LinearClass(np.zeros((4, 2, 3)))


def test_a_class_is_off_by_what_it_is_off():
    mdp = small()
    optimal = theoryrl.backward_induction(mdp).q
    assert not realizability(FiniteClass(optimal[np.newaxis] + 1e-8), mdp)
    assert not realizability(FiniteClass(optimal[np.newaxis] + 1e-9), mdp, tolerance=0.5e-9)
