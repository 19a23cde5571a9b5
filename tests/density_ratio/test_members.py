"""Values of members against plain sums over trajectories, and what the instances are said to be."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.classes import FiniteClass, realizable_class
from theoryrl.classes.checks import realizability
from theoryrl.complexity import coverability
from theoryrl.density_ratio import _instances as instances
from theoryrl.density_ratio.members import adversarial_order, member_values
from theoryrl.density_ratio.problem import largest_total
from theoryrl.mdp import FiniteHorizonMDP, backward_induction
from theoryrl.mdp.random import random_mdp


def by_paths(mdp: FiniteHorizonMDP, values: np.ndarray) -> tuple[float, np.ndarray]:
    """J of the greedy policy of one member and its Bellman errors per layer: a sum over all paths, one by one."""
    mask = mdp.action_mask
    policy = np.where(mask, values, -np.inf).argmax(axis=-1)
    best = np.concatenate([np.where(mask, values, -np.inf).max(axis=-1), np.zeros((1, mdp.n_states))])
    worth, errors = 0.0, np.zeros(mdp.horizon)
    for path in itertools.product(range(mdp.n_states), repeat=mdp.horizon):
        chance = mdp.initial[path[0]]
        for h in range(mdp.horizon - 1):
            row = mdp.transition_layers[h % len(mdp.transition_layers)][path[h], policy[h, path[h]]]
            chance *= row[path[h + 1]]
        for h, s in enumerate(path):
            a = policy[h, s]
            row = mdp.transition_layers[h % len(mdp.transition_layers)][s, a]
            mean = mdp.reward_layers[h % len(mdp.reward_layers)][s, a]
            worth += chance * mean
            errors[h] += chance * (values[h, s, a] - mean - row @ best[h + 1])
    return worth, errors


@pytest.mark.parametrize("staged", [False, True])
def test_member_values_are_sums_over_paths(staged):
    mask = np.array([[True, True], [False, True], [True, False]])
    base = random_mdp(3, 2, 3, 4, staged=staged)
    mdp = FiniteHorizonMDP(base.transition, base.reward, horizon=3, initial=[0.5, 0.3, 0.2], action_mask=mask)
    values = np.random.default_rng(0).random((5, 3, 3, 2)) * np.array([3, 2, 1])[:, None, None]
    found = member_values(mdp, FiniteClass(values))
    for f in range(5):
        worth, errors = by_paths(mdp, values[f])
        assert found.value[f] == pytest.approx(worth, abs=1e-13)
        assert found.bellman_errors[f] == pytest.approx(errors, abs=1e-13)
        start = np.where(mask, values[f, 0], -np.inf).max(axis=-1)
        assert found.optimistic[f] == pytest.approx(mdp.initial @ start, abs=1e-14)
    assert found.regret == pytest.approx(mdp.initial @ backward_induction(mdp).value[0] - found.value, abs=1e-13)


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_a_promise_is_the_return_plus_the_errors_on_the_way(seed, n_states, n_actions, horizon, staged):
    rng = np.random.default_rng(seed)
    mdp = random_mdp(n_states, n_actions, horizon, rng, staged=staged)
    mdp = mdp.with_initial(rng.dirichlet(np.ones(n_states)))
    to_go = np.arange(horizon, 0, -1.0)[:, None, None]
    cls = FiniteClass(rng.random((3, horizon, n_states, n_actions)) * to_go)
    found = member_values(mdp, cls)
    assert found.bellman_errors.sum(axis=1) == pytest.approx(found.optimistic - found.value, abs=1e-12)
    assert found.occupancies.sum(axis=(2, 3)) == pytest.approx(np.ones((3, horizon)), abs=1e-12)
    assert (found.regret >= -1e-12).all()


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(2, 4))
def test_no_weight_and_no_data_distribution_sees_an_error_of_the_truth(seed, n_actions, horizon):
    rng = np.random.default_rng(seed)
    mdp = random_mdp(4, n_actions, horizon, rng)
    plan = backward_induction(mdp)
    for h in range(horizon):
        data = rng.dirichlet(np.ones(4 * n_actions)).reshape(4, n_actions)
        weight = rng.exponential(size=(4, n_actions)) * 10
        residual = plan.q[h] - mdp.reward_layers[h % len(mdp.reward_layers)]
        residual = residual - mdp.transition_layers[h % len(mdp.transition_layers)] @ plan.value[h + 1]
        assert (data * weight * residual).sum() == pytest.approx(0.0, abs=1e-12)
    cls = FiniteClass(plan.q[np.newaxis])
    assert member_values(mdp, cls).bellman_errors == pytest.approx(np.zeros((1, horizon)), abs=1e-12)


def test_greedy_policies_are_those_of_the_learner_in_units():
    mdp = instances.bandit([0.2, 0.6, 0.6])
    cls = instances.arm_class([[0.2, 0.6, 0.6], [0.7, 0.7, 0.6], [0.1, 0.2, 0.3]])
    found = member_values(mdp, cls)
    assert found.value.tolist() == [0.6, 0.2, 0.6]
    assert found.occupancies[:, 0, 0].argmax(axis=1).tolist() == [1, 0, 2]
    assert adversarial_order(cls, mdp).tolist() == [1, 0, 2]


def test_what_no_total_reward_can_be_is_refused():
    with pytest.raises(ValueError, match=r"cls.values\[1, 0, 0, 1\] is 1.2, outside \[0, 1\]"):
        member_values(instances.bandit([0.1, 0.2]), instances.arm_class([[0.1, 0.2], [0.1, 1.2]]))


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_disjoint_paths_have_their_number_as_coverability(horizon):
    model, cls = instances.disjoint_paths(4, 0.1, horizon)
    assert realizability(cls, model)
    assert largest_total(model) == 1.0
    assert coverability(model, list(cls.greedy())) == pytest.approx(np.full(horizon, 4.0), abs=1e-12)
    found = member_values(model, cls, 1.0)
    assert found.regret == pytest.approx(np.array([0, 0.1, 0.1, 0.1]), abs=1e-12)
    assert found.optimistic == pytest.approx(np.array([0.5, 0.6, 0.6, 0.6]), abs=1e-12)
    # The error of a believer is 2 gap, at the last layer alone.
    wanted = np.zeros((4, horizon))
    wanted[1:, -1] = 0.2
    assert found.bellman_errors == pytest.approx(wanted, abs=1e-12)


def test_wrong_optimists_err_at_one_layer_and_lose_what_was_asked_for():
    model, cls = instances.slope_instance(8)
    found = member_values(model, cls, 1.0)
    assert realizability(cls, model) and largest_total(model) == 1.0
    assert ((found.regret[1:] >= 0.22) & (found.regret[1:] <= 0.33)).all()
    assert (found.optimistic[1:] > found.value[0]).all()
    assert ((np.abs(found.bellman_errors[1:]) > 1e-9).sum(axis=1) == 1).all()
    assert len(np.unique(cls.greedy().reshape(8, -1), axis=0)) == 3


def test_wrong_optimists_that_a_model_does_not_have_are_refused():
    model = instances.last_reward(3, 2, 2, 0)
    with pytest.raises(ValueError, match=r"0 of 400 candidates lose between 0.99 and 1.0, not 2"):
        instances.wrong_optimists(model, 2, gaps=(0.99, 1.0))


@pytest.mark.parametrize("horizon", [2, 4, 5])
def test_members_of_the_lock_have_no_error_along_the_optimal_policy(horizon):
    model, cls = instances.combination_lock(horizon)
    assert realizability(cls, model)
    found = member_values(model, cls, 1.0)
    assert found.value == pytest.approx(np.array([0.8, 0.1, *np.zeros(horizon - 1)]), abs=1e-12)
    assert found.optimistic == pytest.approx(np.array([0.8, *np.full(horizon, 0.95)]), abs=1e-12)
    path, best = found.occupancies[0], cls.state_values()
    for h in range(horizon):
        backup = model.reward_layers[h] + np.einsum("sat,ft->fsa", model.transition_layers[h], best[:, h + 1])
        assert (path[h] * np.abs(cls.values[:, h] - backup)).max() <= 1e-15
    assert adversarial_order(cls, model, 1.0)[-1] == 0


def test_two_arms_and_their_wrong_belief():
    model, cls = instances.two_arms(0.1)
    found = member_values(model, cls)
    assert found.regret == pytest.approx([0.0, 0.1]) and found.bellman_errors[:, 0] == pytest.approx([0.0, 0.2])
    assert realizable_class(model, 0).values == pytest.approx(cls.values[:1])
