import math

import numpy as np
import pytest

from theoryrl.mdp import FiniteHorizonMDP, evaluate_q, random_mdp, rollout
from theoryrl.offline import efficiency_bound, importance_sampling, ope_variance
from theoryrl.offline.variance import METHODS


def bandit(**law):
    return FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.25, 0.5]]), horizon=1, **law)


def test_bandit_closed_forms():
    # Target plays arm 1, behaviour with probability 1/4: the term is 4 r there, else 0.
    target, behaviour = np.array([1]), np.array([[0.75, 0.25]])
    assert ope_variance(bandit(), target, behaviour) == pytest.approx(0.25 * 4 - 0.25, rel=1e-14)
    noisy = bandit(reward_law="bernoulli")
    assert ope_variance(noisy, target, behaviour) == pytest.approx(0.25 * 16 * 0.5 - 0.25, rel=1e-14)
    assert efficiency_bound(noisy, target, behaviour) == pytest.approx(4 * 0.25, rel=1e-14)
    # pi^2 / b times the variance of each arm: 1/3 * 3/16 + 1 * 1/4.
    assert efficiency_bound(noisy, np.array([[0.5, 0.5]]), behaviour) == pytest.approx(0.3125, rel=1e-14)
    exact = np.array([[[0.25, 0.5]]])
    assert ope_variance(noisy, target, behaviour, "doubly-robust", exact) == pytest.approx(4 * 0.25, rel=1e-14)


def test_curse_of_horizon_closed_form():
    # One state, rewards 1 at the last step only: W is a product of H factors 2 or 0, so Var = 2^H - 1.
    for horizon in (1, 3, 10):
        reward = np.zeros((horizon, 1, 2))
        reward[-1] = 1.0
        mdp = FiniteHorizonMDP(np.ones((1, 2, 1)), reward, horizon=horizon)
        for method in ("trajectory", "per-decision"):
            found = ope_variance(mdp, np.array([0]), np.array([[0.5, 0.5]]), method)
            assert found == pytest.approx(2.0**horizon - 1, rel=1e-13)
        assert ope_variance(mdp, np.array([0]), np.array([[0.5, 0.5]]), "marginalised") == pytest.approx(1, rel=1e-13)


def test_variance_predicts_the_spread_of_estimates():
    rng = np.random.default_rng(0)
    mdp = random_mdp(3, 2, 4, rng)
    target, behaviour = rng.dirichlet([2, 2], (4, 3)), rng.dirichlet([4, 4], (4, 3))
    terms = importance_sampling(rollout(mdp, behaviour, 200_000, rng=1), target, behaviour).terms
    assert terms.var() == pytest.approx(ope_variance(mdp, target, behaviour), rel=0.05)


def test_sparse_and_masked_models():
    rng = np.random.default_rng(1)
    sparse = random_mdp(5, 3, 4, rng, branching=2, sparse=True)
    target, behaviour = rng.dirichlet([1, 1, 1], (4, 5)), rng.dirichlet([3, 3, 3], (4, 5))
    for method in METHODS:
        q = rng.random((4, 5, 3)) if method == "doubly-robust" else None
        a = ope_variance(sparse, target, behaviour, method, q)
        assert a == pytest.approx(ope_variance(sparse.to_dense(), target, behaviour, method, q), rel=1e-12)
    mask = np.ones((5, 3), bool)
    mask[:, 2] = False
    masked = FiniteHorizonMDP(sparse.transition, sparse.reward, horizon=4, action_mask=mask)
    two = FiniteHorizonMDP(sparse.to_dense().transition[:, :2], sparse.reward[:, :2], horizon=4)
    target, behaviour = rng.dirichlet([1, 1], (4, 5)), rng.dirichlet([3, 3], (4, 5))
    wide = [np.concatenate([p, np.zeros((4, 5, 1))], axis=-1) for p in (target, behaviour)]
    for method in ("trajectory", "per-decision", "marginalised"):
        narrow = ope_variance(two, target, behaviour, method)
        assert ope_variance(masked, *wide, method) == pytest.approx(narrow, rel=1e-12)
    assert efficiency_bound(masked, *wide) == pytest.approx(efficiency_bound(two, target, behaviour), rel=1e-12)


def test_without_coverage_the_variance_is_infinite():
    mdp = random_mdp(3, 2, 3, np.random.default_rng(0))
    target, behaviour = np.full((3, 2), 0.5), np.zeros(3, np.int64)
    for method in ("trajectory", "per-decision", "marginalised"):
        assert ope_variance(mdp, target, behaviour, method) == math.inf
    assert efficiency_bound(mdp, target, behaviour) == math.inf
    assert ope_variance(mdp, behaviour, target) < math.inf


def test_bad_calls():
    mdp = random_mdp(3, 2, 3, np.random.default_rng(0))
    policy = np.zeros(3, np.int64)
    with pytest.raises(ValueError, match="method is 'mis'"):
        ope_variance(mdp, policy, policy, "mis")
    with pytest.raises(ValueError, match="q goes with method 'doubly-robust'"):
        ope_variance(mdp, policy, policy, "trajectory", evaluate_q(mdp, policy))
    with pytest.raises(ValueError, match="q goes with method"):
        ope_variance(mdp, policy, policy, "doubly-robust")
    with pytest.raises(ValueError, match="q has shape"):
        ope_variance(mdp, policy, policy, "doubly-robust", np.zeros((3, 2)))


def test_forbidden_actions_and_numbers_that_are_none():
    mask = np.array([[True, False], [True, True]])
    mdp = FiniteHorizonMDP(np.full((2, 2, 2), 0.5), np.array([[1.0, 7.0], [2.0, 3.0]]), horizon=2, action_mask=mask)
    target, behaviour = np.array([[1, 0], [0.25, 0.75]]), np.array([[1, 0], [0.5, 0.5]])
    q = evaluate_q(mdp, target)
    assert np.isneginf(q).any()
    wanted = ope_variance(mdp, target, behaviour, "doubly-robust", np.where(mask, q, 0.0))
    assert ope_variance(mdp, target, behaviour, "doubly-robust", q) == wanted > 0
    q = np.where(mask, q, 0.0)
    q[1, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"q\[1, 1, 0\] is nan, not finite"):
        ope_variance(mdp, target, behaviour, "doubly-robust", q)


def test_a_variance_is_never_negative():
    for horizon in (5, 30):
        mdp = FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[1e6 + 0.1]]), horizon=horizon)
        assert ope_variance(mdp, np.array([0]), np.array([0]), "trajectory") >= 0
