import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.mdp import (
    DiscountedMDP,
    FiniteHorizonMDP,
    bellman,
    certify,
    discounted,
    evaluate_discounted,
    random_mdp,
    solve_discounted,
)

METHODS = ("auto", "value-iteration", "policy-iteration", "modified-policy-iteration")


@st.composite
def models(draw):
    s, a = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    mdp = random_mdp(s, a, 1, rng, branching=draw(st.integers(1, s)))
    mask = rng.random((s, a)) < 0.7
    mask[:, a - 1] = True
    reward = np.round(rng.normal(size=(s, a)), draw(st.integers(0, 3)))  # few digits: ties
    transition = mdp.transition.copy()
    transition[~mask] = np.nan
    discount = draw(st.sampled_from([0.0, 0.5, 0.9, 0.99]))
    model = DiscountedMDP(transition, reward, discount=discount, action_mask=mask)
    return model.to_sparse() if draw(st.booleans()) else model


def linear_value(mdp, choice):
    """(I - gamma P)^-1 r of a stochastic policy (S, A), from the definition."""
    dense = mdp.to_dense()
    kernel = np.where(mdp.action_mask[..., None], dense.transition, 0.0)
    chain = np.einsum("sa,sat->st", choice, kernel)
    return np.linalg.solve(np.eye(mdp.n_states) - mdp.discount * chain, (choice * mdp.reward).sum(axis=1))


def best_by_enumeration(mdp):
    choices = [np.flatnonzero(row) for row in mdp.action_mask]
    return np.max([linear_value(mdp, np.eye(mdp.n_actions)[list(f)]) for f in itertools.product(*choices)], axis=0)


def river(n_states):
    """A chain on which the span falls no faster than the discount."""
    transition = np.zeros((n_states, 2, n_states))
    for s in range(n_states):
        transition[s, 0, max(s - 1, 0)] = 1.0
        up = min(s + 1, n_states - 1)
        for t, p in ((up, 0.35), (s, 0.6), (max(s - 1, 0), 0.05)):
            transition[s, 1, t] += p
    reward = np.zeros((n_states, 2))
    reward[0, 0], reward[-1, 1] = 0.005, 1.0
    return DiscountedMDP(transition, reward, discount=0.99)


@pytest.mark.parametrize("method", METHODS)
@given(mdp=models(), tolerance=st.sampled_from([1e-1, 1e-4, 1e-8]))
def test_against_enumeration(method, mdp, tolerance):
    truth = best_by_enumeration(mdp)
    plan = solve_discounted(mdp, method, tolerance)
    slack = 1e-11  # the linear systems of the oracle, condition number up to 200
    assert plan.converged
    assert np.abs(plan.value - truth).max() <= tolerance + slack
    assert (plan.lower <= truth + slack).all() and (truth <= plan.upper + slack).all()
    assert (plan.upper - plan.lower <= 2 * tolerance + slack).all()
    own = linear_value(mdp, np.eye(mdp.n_actions)[plan.policy])
    assert (plan.lower <= own + slack).all()
    assert mdp.action_mask[np.arange(mdp.n_states), plan.policy].all()
    assert np.array_equal(np.isneginf(plan.q), ~mdp.action_mask)
    assert np.allclose(plan.q.max(axis=1), plan.value, rtol=0, atol=1e-12 * (1 + np.abs(truth).max()))
    assert np.array_equal(plan.policy, np.argmax(plan.q, axis=1))


@pytest.mark.parametrize("method", METHODS)
def test_slow_chain(method):
    mdp = river(60)
    plan = solve_discounted(mdp, method)
    certificate = plan.certify()
    assert plan.converged
    assert certificate.upper.max() - plan.value.max() < 3e-6
    assert certificate.policy_gap < 4e-6


def test_large_sparse_models_need_no_fill_in():
    mdp = random_mdp(2500, 2, 1, 0, branching=3, sparse=True).with_discount(0.95)
    assert mdp.n_states > discounted.DIRECT_STATES
    plans = [solve_discounted(mdp, method, 1e-8) for method in METHODS]
    for plan in plans:
        assert plan.converged
        assert np.abs(plan.value - plans[0].value).max() <= 2e-8
    value = evaluate_discounted(mdp, plans[0].policy)
    certificate = certify(mdp, policy=plans[0].policy)
    assert (certificate.upper - certificate.lower).max() < 1e-9
    assert (certificate.lower <= value + 1e-9).all()


def test_auto_changes_to_policy_iteration_when_sweeps_get_dear(monkeypatch):
    monkeypatch.setattr(discounted, "SPARSE_BELOW", 0.0)
    monkeypatch.setattr(discounted, "READS_PER_STATE", 1e-9)
    mdp = river(60)
    assert solve_discounted(mdp, tolerance=1e-9).method == "policy-iteration"
    monkeypatch.setattr(discounted, "READS_PER_STATE", 1e9)
    assert solve_discounted(mdp, tolerance=1e-9).method == "modified-policy-iteration"


@pytest.mark.parametrize("method", METHODS)
def test_the_limit_of_iterations_is_never_silent(method):
    mdp = river(30)
    with pytest.warns(RuntimeWarning, match="stopped after 2 iterations"):
        plan = solve_discounted(mdp, method, max_iterations=2)
    assert not plan.converged
    assert plan.iterations == 2
    truth = solve_discounted(mdp, tolerance=1e-9).value
    assert (plan.lower <= truth).all() and (truth <= plan.upper).all()


@pytest.mark.parametrize("method", METHODS)
def test_tolerances_below_rounding_end_and_say_so(method):
    with pytest.warns(RuntimeWarning, match="stopped"):
        plan = solve_discounted(river(30), method, 1e-300, max_iterations=4000)
    assert not plan.converged
    assert np.abs(plan.value - solve_discounted(river(30), tolerance=1e-9).value).max() < 2e-9


@given(mdp=models(), seed=st.integers(0, 10**6))
def test_evaluation_and_operator(mdp, seed):
    rng = np.random.default_rng(seed)
    choice = rng.random((mdp.n_states, mdp.n_actions)) * mdp.action_mask
    choice /= choice.sum(axis=1, keepdims=True)
    assert np.allclose(evaluate_discounted(mdp, choice), linear_value(mdp, choice), rtol=0, atol=1e-10)
    actions = np.argmax(choice, axis=1)
    assert np.allclose(
        evaluate_discounted(mdp, actions), linear_value(mdp, np.eye(mdp.n_actions)[actions]), rtol=0, atol=1e-10
    )
    value = rng.normal(size=mdp.n_states)
    q, new = bellman(mdp, value)
    dense = mdp.to_dense()
    for s in range(mdp.n_states):
        for a in range(mdp.n_actions):
            if mdp.action_mask[s, a]:
                assert abs(q[s, a] - (mdp.reward[s, a] + mdp.discount * dense.transition[s, a] @ value)) < 1e-12
            else:
                assert q[s, a] == -np.inf
        assert new[s] == q[s].max()


def test_ties_go_to_the_lowest_action():
    mdp = DiscountedMDP(np.full((2, 3, 2), 0.5), np.ones((2, 3)), discount=0.9)
    for method in METHODS:
        assert solve_discounted(mdp, method).policy.tolist() == [0, 0]


def test_bad_arguments():
    mdp = random_mdp(3, 2, 1, 0).with_discount(0.9)
    with pytest.raises(ValueError, match="method is 'newton'"):
        solve_discounted(mdp, "newton")
    for tolerance in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="tolerance"):
            solve_discounted(mdp, tolerance=tolerance)
    with pytest.raises(ValueError, match="max_iterations"):
        solve_discounted(mdp, max_iterations=0)
    with pytest.raises(ValueError, match=r"value has shape \(2,\)"):
        bellman(mdp, np.zeros(2))
    with pytest.raises(ValueError, match=r"value\[1\] is nan"):
        bellman(mdp, [0.0, np.nan, 0.0])
    with pytest.raises(ValueError, match=r"policy\[2\] = 5"):
        evaluate_discounted(mdp, np.array([0, 1, 5]))


def test_overflow_is_an_error():
    huge = DiscountedMDP(np.ones((1, 1, 1)), np.array([[1e308]]), discount=0.99)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in METHODS:
            with pytest.raises(ValueError, match="overflow"):
                solve_discounted(FiniteHorizonMDP.with_discount(huge.with_horizon(1), 0.99), method)
