import math

import numpy as np
import pytest

from theoryrl.classes import FiniteClass, ProductClass, WeightClass, bellman_images, realizable_class
from theoryrl.mdp import Dataset, FiniteHorizonMDP, evaluate_q, random_mdp, rollout, uniform_policy
from theoryrl.offline import mabo, marginalised_sampling, marginalised_weights, msbo, mwl

RNG = np.random.default_rng(9)
MDP = random_mdp(3, 2, 2, RNG, staged=True)
DATA = rollout(MDP, uniform_policy(MDP), 60, rng=2)
CLASS = realizable_class(MDP, 5, kind="random")
TARGET = RNG.dirichlet(np.ones(2), (2, 3))


def residuals(data, f):
    """f_h - r - max f_{h+1} of every row."""
    later = np.concatenate([f[1:].max(axis=-1), np.zeros((1, data.n_states))])
    return f[data.step, data.state, data.action] - data.reward - later[data.step, data.next_state]


def test_msbo_is_its_definition():
    helper = ProductClass(RNG.random((2, 8, 3, 2)))
    found = msbo(DATA, CLASS, helper)
    later = CLASS.state_values()
    for i, f in enumerate(CLASS.values):
        total = 0.0
        for h in range(2):
            rows = DATA.step == h
            own = (residuals(DATA, f)[rows] ** 2).sum()
            y = DATA.reward[rows] + later[i, h + 1, DATA.next_state[rows]]
            best = min(((g[DATA.state[rows], DATA.action[rows]] - y) ** 2).sum() for g in helper.layers[h])
            total += (own - best) / 60
        assert found.objective[i] == pytest.approx(total, rel=1e-9, abs=1e-12)
    assert found.index == int(np.argmin(found.objective))
    np.testing.assert_array_equal(found.policy, CLASS.values[found.index].argmax(axis=-1))


def test_msbo_against_a_quadratic_programme():
    # Helpers in the convex hull of a list: the inner maximum is a concave QP; at its vertices it is what msbo takes.
    cvxpy = pytest.importorskip("cvxpy")
    f = CLASS.values[1]
    table = np.arange(6.0).reshape(3, 2)
    rows = DATA.step == 0
    y = DATA.reward[rows] + f[1].max(axis=-1)[DATA.next_state[rows]]
    # All tables as helpers: the QP's solution is the mean of y per pair; put it into a finite helper class.
    g = cvxpy.Variable(6)
    index = (DATA.state[rows] * 2 + DATA.action[rows]).astype(int)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(g[index] - y)))
    problem.solve()
    layers = [np.stack([g.value.reshape(3, 2), table]), f[1][np.newaxis]]
    found = msbo(DATA, FiniteClass(f[np.newaxis]), ProductClass(layers))
    own = (residuals(DATA, f)[rows] ** 2).sum()
    assert found.objective[0] == pytest.approx((own - problem.value) / 60, rel=1e-6)


def test_mabo_is_its_definition():
    weights = WeightClass(RNG.random((7, 2, 3, 2)))
    found = mabo(DATA, CLASS, weights)
    for i, f in enumerate(CLASS.values):
        each = [abs((w[DATA.step, DATA.state, DATA.action] * residuals(DATA, f)).sum()) / 60 for w in weights.values]
        assert found.objective[i] == pytest.approx(max(each), rel=1e-10)


def test_mabo_with_a_box_of_weights_against_a_linear_programme():
    # Over the box 0 <= w <= 1 the maximum of |linear| sits at a corner; all corners of one layer as a class.
    cvxpy = pytest.importorskip("cvxpy")
    mdp = FiniteHorizonMDP(np.ones((1, 3, 1)), np.array([[0.2, 0.5, 0.9]]), horizon=1, reward_law="bernoulli")
    data = rollout(mdp, uniform_policy(mdp), 40, rng=0)
    f = np.array([[[0.6, 0.1, 0.8]]])
    corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T.reshape(-1, 1, 1, 3)
    found = mabo(data, FiniteClass(f[np.newaxis]), WeightClass(corners))
    w = cvxpy.Variable(3)
    sums = np.array([residuals(data, f)[data.action == a].sum() for a in range(3)]) / 40
    values = [cvxpy.Problem(cvxpy.Maximize(sign * sums @ w), [w >= 0, w <= 1]).solve() for sign in (1, -1)]
    assert found.objective[0] == pytest.approx(max(values), abs=1e-6)


def test_worked_bandit():
    # 200 pulls of arm 0 with sum 120, no pull of arm 1: what f says of arm 1 cannot matter to any learner.
    reward = np.repeat([1.0, 0.0], [120, 80])
    zero = np.zeros(200, np.int64)
    data = Dataset(np.arange(200), zero, zero, zero, reward, zero, n_states=1, n_actions=2, horizon=1)
    cls = FiniteClass(np.array([[0.6, 0.3], [0.6, 1.0], [0.5, 0.3]]).reshape(3, 1, 1, 2))
    ratios = WeightClass(np.array([[1.0, 0.0], [0.0, math.inf], [0.0, 0.0]]).reshape(3, 1, 1, 2))
    np.testing.assert_allclose(mabo(data, cls, ratios).objective, [0, 0, 0.1], atol=1e-15)
    both = Dataset(
        np.arange(201),
        np.zeros(201),
        np.zeros(201),
        np.append(zero, 1),
        np.append(reward, 0.3),
        np.zeros(201),
        n_states=1,
        n_actions=2,
        horizon=1,
    )
    # One pull of arm 1 meets the infinite weight: 0.7 times infinity.
    assert mabo(both, cls, ratios).objective[1] == math.inf
    assert mabo(both, cls, ratios).index == 0
    means = msbo(data, cls, ProductClass([cls.values[:, 0]])).objective
    np.testing.assert_allclose(means, [0, 0, 0.01], atol=1e-12)


def test_learners_find_the_truth():
    data = rollout(MDP, uniform_policy(MDP), 20_000, rng=3)
    helper = ProductClass([bellman_images(MDP, h, CLASS.state_values()[:, h + 1]) for h in range(2)])
    assert msbo(data, CLASS, helper).index == 0
    assert mabo(data, CLASS, WeightClass(np.eye(12).reshape(12, 2, 3, 2) * 12)).index == 0


def test_weight_learning_with_the_solution_in_the_class():
    data = rollout(MDP, uniform_policy(MDP), 400, rng=3)
    solution, _ = marginalised_weights(data, TARGET)
    wrong = RNG.random((4, 2, 3, 2))
    tests = FiniteClass(np.concatenate([np.eye(12).reshape(12, 2, 3, 2), evaluate_q(MDP, TARGET)[np.newaxis]]))
    estimate, index = mwl(data, TARGET, WeightClass(np.concatenate([wrong, solution[np.newaxis]])), tests)
    assert index == 4
    assert estimate.value == pytest.approx(marginalised_sampling(data, TARGET).value, rel=1e-12)
    assert math.isnan(estimate.standard_error) and not estimate.unbiased


def test_infinite_weights_are_refused():
    weights = np.full((1, 2, 3, 2), 1.0)
    weights[0, 1, 2, 0] = math.inf
    estimate, _ = mwl(DATA, TARGET, WeightClass(weights), FiniteClass(evaluate_q(MDP, TARGET)[np.newaxis]))
    assert estimate.value == math.inf and estimate.uncovered == ((1, 2, 0),)


def test_bad_calls():
    with pytest.raises(TypeError, match="helper must be a ProductClass or FiniteClass, not a ndarray"):
        msbo(DATA, CLASS, CLASS.values)
    with pytest.raises(TypeError, match="weights must be a WeightClass, not a FiniteClass"):
        mabo(DATA, CLASS, CLASS)
    with pytest.raises(ValueError, match="the class is for"):
        msbo(DATA, FiniteClass(np.zeros((1, 3, 3, 2))), ProductClass(np.zeros((2, 1, 3, 2))))


@pytest.mark.parametrize("n_states", [19, 24, 29, 31])
def test_equal_members_tie_whatever_their_place(n_states):
    # Products of matrices treat rows at the edge of a block in another order: the last bits of equal rows differ.
    rng = np.random.default_rng(n_states)
    for copies in range(2, 8):
        shape = 2, n_states, int(rng.integers(1, 4))
        mdp = random_mdp(*shape[1:], 2, rng)
        data, play = rollout(mdp, uniform_policy(mdp), 50, rng=1), uniform_policy(mdp)
        several = rng.random((3, *shape))
        cls = FiniteClass(np.concatenate([several] * copies))
        weights = WeightClass(rng.random((5, *shape)))
        for found in (msbo(data, cls, cls), mabo(data, cls, weights)):
            np.testing.assert_array_equal(found.objective, np.tile(found.objective[:3], copies))
            assert found.index < 3
        assert mwl(data, play, WeightClass(np.concatenate([weights.values] * copies)), FiniteClass(several))[1] < 5
