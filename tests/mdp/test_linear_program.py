from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theoryrl.mdp import (
    FiniteHorizonMDP,
    MixturePolicy,
    backward_induction,
    certify,
    evaluate,
    exact_value,
    occupancy,
    occupancy_lp,
    random_mdp,
)
from theoryrl.mdp.linear_program import flow_matrix


@st.composite
def models(draw):
    s, a, h = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    mdp = random_mdp(s, a, h, rng, staged=draw(st.booleans()), branching=draw(st.integers(1, s)))
    mask = rng.random((s, a)) < 0.7
    mask[:, a - 1] = True
    transition = mdp.transition.copy()
    transition[..., ~mask, :] = np.nan
    reward = draw(st.sampled_from([1.0, 1e-9, 1e6])) * (mdp.reward - draw(st.sampled_from([0.0, 0.5])))
    model = FiniteHorizonMDP(transition, reward, horizon=h, action_mask=mask, initial=rng.dirichlet(np.ones(s)))
    return model.to_sparse() if draw(st.booleans()) else model


@settings(max_examples=40)
@given(models())
def test_without_constraints_it_is_backward_induction(mdp):
    solution = occupancy_lp(mdp)
    scale = mdp.horizon * np.abs(mdp.reward).max()
    best = Fraction(exact_value(mdp))
    assert solution.lower <= best <= solution.upper
    assert 0 <= solution.gap <= 1e-6 * scale
    assert abs(solution.value - float(best)) <= 1e-6 * scale
    assert solution.safe_policy is solution.policy
    start = mdp.initial / mdp.initial.sum()
    assert abs(float(start @ solution.dual_value[0]) - float(best)) <= 1e-6 * scale
    assert (solution.dual_value[-1] == 0).all()
    assert np.allclose(occupancy(mdp, solution.policy), solution.occupancy, atol=1e-7)
    assert (solution.occupancy[:, ~mdp.action_mask] == 0).all()
    assert np.allclose(solution.occupancy.sum(axis=(1, 2)), 1.0)


def test_unreached_states_are_greedy():
    mdp = random_mdp(8, 3, 5, 1, branching=2)
    solution, plan = occupancy_lp(mdp), backward_induction(mdp)
    unreached = solution.occupancy.sum(axis=2) == 0
    assert unreached.any()
    assert set(np.unique(solution.policy[unreached])) == {0.0, 1.0}
    # Where the dual is exact at the next layer, greedy for it is optimal.
    assert np.array_equal(np.argmax(solution.policy[-1], axis=1)[unreached[-1]], plan.policy[-1][unreached[-1]])


@settings(max_examples=30)
@given(models(), st.integers(0, 10**6), st.integers(1, 2))
def test_constraints_against_cvxpy(mdp, seed, count):
    cvxpy = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(seed)
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    costs = [rng.random(shape) for _ in range(count)]
    free, safe = occupancy_lp(mdp), backward_induction(mdp.with_reward(-sum(costs)))
    flow = occupancy(mdp, safe.policy)
    limits = [float((flow * c).sum()) * 0.6 + float((free.occupancy * c).sum()) * 0.4 for c in costs]
    solution = occupancy_lp(mdp, list(zip(costs, limits, strict=True)))
    d = cvxpy.Variable(int(np.prod(shape)), nonneg=True)
    right = np.zeros(mdp.horizon * mdp.n_states)
    right[: mdp.n_states] = mdp.initial
    dense, flat = mdp.to_dense(), np.zeros(shape)
    flat[:] = np.where(mdp.action_mask, dense.reward, 0.0)
    unit = np.abs(flat).max() or 1.0
    matrix = np.zeros((len(right), d.size))
    for h in range(mdp.horizon):
        for s in range(mdp.n_states):
            for a in range(mdp.n_actions):
                column = (h * mdp.n_states + s) * mdp.n_actions + a
                matrix[h * mdp.n_states + s, column] = 1.0
                if h + 1 < mdp.horizon and mdp.action_mask[s, a]:
                    row = dense.transition_layers[h % len(dense.transition_layers), s, a]
                    matrix[(h + 1) * mdp.n_states : (h + 2) * mdp.n_states, column] -= row
    forbidden = ~np.broadcast_to(mdp.action_mask, shape).ravel()
    conditions = [matrix @ d == right] + [c.ravel() @ d <= b for c, b in zip(costs, limits, strict=True)]
    conditions += [d[forbidden] == 0] if forbidden.any() else []
    problem = cvxpy.Problem(cvxpy.Maximize((flat / unit).ravel() @ d), conditions)
    problem.solve(solver=cvxpy.CLARABEL)
    assert abs(problem.value * unit - solution.value) <= 1e-5 * unit * mdp.horizon
    assert solution.lower - 1e-6 * unit * mdp.horizon <= solution.value <= solution.upper + 1e-6 * unit * mdp.horizon
    assert solution.lower <= solution.upper
    assert (solution.multipliers >= 0).all()
    # Complementary slackness, and budgets kept for certain by the safe policy.
    slack = np.array(limits) - solution.cost
    assert (np.abs(slack * solution.multipliers) <= 1e-5 * unit).all()
    if solution.safe_policy is not None:
        assert solution.gap <= 1e-5 * unit * mdp.horizon
        for c, b in zip(costs, limits, strict=True):
            assert exact_mean(mdp.with_reward(c), solution.safe_policy) <= Fraction(b)
        assert exact_mean(mdp, solution.safe_policy) >= Fraction(solution.lower)


def exact_mean(mdp, policy):
    """The value of a policy or mixture at the start, as a fraction."""
    if not isinstance(policy, MixturePolicy):
        return Fraction(exact_value(mdp, policy))
    weights = [Fraction(float(w)) for w in policy.weights]
    parts = [Fraction(exact_value(mdp, p)) for p in policy.policies]
    return sum(w * v for w, v in zip(weights, parts, strict=True)) / sum(weights)


def test_a_known_constrained_optimum():
    """One state, two actions: reward 1 costs 1, reward 0 is free; half of the steps may be paid for."""
    mdp = FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), horizon=4)
    solution = occupancy_lp(mdp, [([[0.0, 1.0]], 2.0)])
    assert solution.lower <= 2 <= solution.upper
    assert solution.gap < 1e-8
    assert solution.multipliers == pytest.approx([1.0])
    assert solution.cost == pytest.approx([2.0])


def test_a_budget_that_is_just_the_least_cost():
    mdp = FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), horizon=3)
    solution = occupancy_lp(mdp, [([[1 / 3, 1.0]], 1.0)])
    assert solution.value == pytest.approx(0.0, abs=1e-7)
    assert solution.upper >= 0
    assert solution.lower == -np.inf or solution.lower <= solution.upper


def test_infeasible_constraints_say_so():
    mdp = random_mdp(3, 2, 3, 0)
    with pytest.raises(ValueError, match="infeasible: no policy keeps every budget"):
        occupancy_lp(mdp, [(np.ones((3, 2)), 2.5)])


def test_bad_constraints():
    mdp = random_mdp(3, 2, 3, 0)
    with pytest.raises(ValueError, match=r"cost 1 has shape \(2, 3\)"):
        occupancy_lp(mdp, [(np.ones((3, 2)), 5.0), (np.ones((2, 3)), 5.0)])
    bad = np.ones((3, 2))
    bad[1, 1] = np.nan
    with pytest.raises(ValueError, match=r"cost 0\[1, 1\] is nan"):
        occupancy_lp(mdp, [(bad, 5.0)])
    with pytest.raises(ValueError, match="budget 0 is nan"):
        occupancy_lp(mdp, [(np.ones((3, 2)), np.nan)])
    with pytest.raises(ValueError, match="18 variables"):
        occupancy_lp(mdp, budget=17)


def test_flow_matrix_of_an_occupancy():
    mdp = random_mdp(5, 3, 4, 0, staged=True)
    policy = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 5))
    flow = flow_matrix(mdp) @ occupancy(mdp, policy).ravel()
    assert np.allclose(flow[:5], mdp.initial)
    assert np.allclose(flow[5:], 0)
    assert evaluate(mdp, policy)[0, 0] == pytest.approx(float((occupancy(mdp, policy) * mdp.reward).sum()))


def test_repaired_bounds_agree_with_the_certificate():
    mdp = random_mdp(30, 3, 15, 0, branching=4, sparse=True)
    solution, certificate = occupancy_lp(mdp), certify(mdp)
    assert solution.lower <= certificate.initial_upper
    assert solution.upper >= certificate.initial_lower
    assert solution.gap < 1e-6
