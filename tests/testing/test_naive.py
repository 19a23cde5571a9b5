"""The twins against enumeration: of all trajectories, and of all policies."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl import FiniteHorizonMDP
from theoryrl.testing import mdps, naive, policies

SMALL = mdps(max_states=2, max_actions=2, max_horizon=3)


def trajectories(mdp, policy):
    """Every trajectory ((s, a), ...) with its probability, straight from the definition."""
    dense = mdp.to_dense()
    policy = np.asarray(policy)
    for states in itertools.product(range(mdp.n_states), repeat=mdp.horizon):
        for actions in itertools.product(range(mdp.n_actions), repeat=mdp.horizon):
            weight = dense.initial[states[0]]
            for h, (s, a) in enumerate(zip(states, actions, strict=True)):
                deterministic = policy.dtype.kind == "i"
                layered = policy.ndim == (2 if deterministic else 3)
                rule = policy[h, s] if layered else policy[s]
                weight *= float(rule == a) if deterministic else rule[a]
                if weight == 0:
                    break
                if h + 1 < mdp.horizon:
                    kernel = dense.transition[h] if dense.staged_transition else dense.transition
                    weight *= kernel[s, a, states[h + 1]]
            if weight > 0:
                yield weight, list(zip(states, actions, strict=True))


@given(st.data())
def test_value_and_occupancy_by_all_trajectories(data):
    mdp = data.draw(SMALL)
    policy = data.draw(policies(mdp))
    total, counts = 0.0, np.zeros((mdp.horizon, mdp.n_states, mdp.n_actions))
    for weight, path in trajectories(mdp, policy):
        for h, (s, a) in enumerate(path):
            counts[h, s, a] += weight
            total += weight * (mdp.reward[h] if mdp.reward.ndim == 3 else mdp.reward)[s, a]
    value = naive.evaluate(mdp, policy)
    assert math.fsum(mdp.initial * value[0]) == pytest.approx(total, abs=1e-12)
    np.testing.assert_allclose(naive.occupancy(mdp, policy), counts, atol=1e-12)


@given(SMALL)
def test_the_optimal_value_is_the_best_of_all_policies(mdp):
    allowed = [np.flatnonzero(row) for row in mdp.action_mask]
    best = np.full(mdp.n_states, -np.inf)
    for actions in itertools.product(*(allowed * mdp.horizon)):
        best = np.maximum(best, naive.evaluate(mdp, np.reshape(actions, (mdp.horizon, -1)))[0])
    value, policy = naive.backward_induction(mdp)
    np.testing.assert_allclose(value[0], best, atol=1e-12)
    np.testing.assert_allclose(naive.evaluate(mdp, np.array(policy)), value, atol=1e-12)
    assert value[mdp.horizon] == [0.0] * mdp.n_states


def test_ties_go_to_the_lowest_allowed_action():
    mask = np.array([[False, True, True], [True, True, True]])
    mdp = FiniteHorizonMDP(np.full((2, 3, 2), 0.5), np.ones((2, 3)), horizon=2, action_mask=mask)
    assert naive.backward_induction(mdp) == ([[2.0, 2.0], [1.0, 1.0], [0.0, 0.0]], [[1, 0], [1, 0]])


def test_forbidden_actions_have_no_successor_and_no_value():
    transition = np.array([[[1.0], [math.nan]]])
    mask = np.array([[True, False]])
    mdp = FiniteHorizonMDP(transition, np.array([[0.5, 9.0]]), horizon=1, action_mask=mask)
    assert naive.rows(mdp) == [[[{0: 1.0}, {}]]]
    assert naive.evaluate_q(mdp, [[0.0], [2.0]]) == [[[2.5, -math.inf]]]
