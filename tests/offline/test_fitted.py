import math

import numpy as np
import pytest

from theoryrl.classes import FiniteClass, LinearClass, ProductClass, TabularClass, complete_class
from theoryrl.mdp import (
    Dataset,
    FiniteHorizonMDP,
    backward_induction,
    evaluate,
    evaluate_q,
    random_mdp,
    rollout,
    uniform_policy,
)
from theoryrl.offline import fqe, fqi, lstdq, marginalised_sampling, vi_lcb

RNG = np.random.default_rng(5)
MDP = random_mdp(3, 2, 3, RNG, staged=True).with_initial(np.array([0.5, 0.25, 0.25]))
DATA = rollout(MDP, uniform_policy(MDP), 300, rng=2)
TARGET = RNG.dirichlet(np.ones(2), (3, 3))
ONE_HOT = LinearClass(np.eye(6).reshape(3, 2, 6), 3)


def fit_by_hand(data, members, value):
    """Backward least squares by looping over rows and members."""
    chosen, later = [], np.zeros(data.n_states)
    for h in reversed(range(data.horizon)):
        rows = np.flatnonzero(data.step == h)
        losses = [
            math.fsum(
                (f[data.state[i], data.action[i]] - data.reward[i] - later[data.next_state[i]]) ** 2 for i in rows
            )
            for f in members[h]
        ]
        chosen.insert(0, int(np.argmin(losses)))
        later = value(h, members[h][chosen[0]])
    return chosen


def test_fqi_minimises_the_squares_of_the_rows():
    for seed in range(5):
        cls = complete_class(MDP, 4, seed)
        wanted = fit_by_hand(DATA, cls.layers, lambda h, f: f.max(axis=1))
        found = fqi(DATA, cls)
        assert found.members.tolist() == wanted
        np.testing.assert_array_equal(found.q, cls.member(wanted))
        np.testing.assert_array_equal(found.policy, found.q.argmax(axis=-1))


def test_fqi_of_a_list_takes_each_layer_by_itself():
    values = RNG.random((6, 3, 3, 2))
    found = fqi(DATA, FiniteClass(values))
    assert found.members.tolist() == fqi(DATA, ProductClass(values.swapaxes(0, 1))).members.tolist()


def test_fqe_minimises_the_squares_of_the_rows():
    cls = ProductClass(RNG.random((3, 7, 3, 2)))
    wanted = fit_by_hand(DATA, cls.layers, lambda h, f: (TARGET[h] * f).sum(axis=1))
    found = fqe(DATA, TARGET, cls, initial=MDP.initial)
    np.testing.assert_array_equal(found.q, cls.member(wanted))
    assert found.estimate.value == pytest.approx(MDP.initial @ (TARGET[0] * found.q[0]).sum(axis=1), rel=1e-14)


def test_whole_table_plans_in_the_empirical_model():
    model = DATA.empirical_mdp(staged=True)
    plan = backward_induction(model)
    for cls in (None, TabularClass(3, 2, 3), ONE_HOT):
        found = fqi(DATA, cls)
        np.testing.assert_allclose(found.q, plan.q, rtol=1e-10)
        np.testing.assert_array_equal(found.policy, plan.policy)
        assert found.covered


def test_every_tabular_evaluation_is_the_value_in_the_empirical_model():
    model = DATA.empirical_mdp(staged=True)
    value = float(model.initial @ evaluate(model, TARGET)[0])
    assert marginalised_sampling(DATA, TARGET).value == pytest.approx(value, rel=1e-12)
    for cls in (None, TabularClass(3, 2, 3), ONE_HOT):
        found = fqe(DATA, TARGET, cls)
        np.testing.assert_allclose(found.q, evaluate_q(model, TARGET), rtol=1e-10)
        assert found.estimate.value == pytest.approx(value, rel=1e-11)
    assert fqe(DATA, TARGET).estimate.standard_error > 0


def test_lstdq_solves_its_moment_equations():
    phi, psi = RNG.random((3, 3, 2, 4)), RNG.random((3, 3, 2, 4))
    found = lstdq(DATA, TARGET, phi, instruments=psi)
    under = np.zeros((4, 3))
    under[:3] = (TARGET * found.q).sum(axis=-1)
    for h in range(3):
        rows = DATA.step == h
        s, a = DATA.state[rows], DATA.action[rows]
        error = found.q[h, s, a] - DATA.reward[rows] - under[h + 1, DATA.next_state[rows]]
        np.testing.assert_allclose(psi[h, s, a].T @ error, 0, atol=1e-9)
    assert lstdq(DATA, TARGET, phi).q == pytest.approx(fqe(DATA, TARGET, LinearClass(phi, 3)).q)


def test_linear_evaluation_is_exact_where_the_model_is_linear():
    # One state, five actions whose rewards are linear in one feature; two of them suffice.
    feature = np.arange(5.0).reshape(1, 5, 1)
    mdp = FiniteHorizonMDP(np.ones((1, 5, 1)), feature[..., 0] / 4, horizon=1)
    data = rollout(mdp, np.array([[0.5, 0.5, 0, 0, 0]]), 50, rng=0)
    estimate = lstdq(data, np.array([4]), feature).estimate
    assert estimate.covered and estimate.value == pytest.approx(1, rel=1e-12)
    wide = np.concatenate([feature, feature == 4], axis=2)
    assert lstdq(data, np.array([4]), wide).estimate.uncovered == ((0, 0, 4),)
    assert lstdq(data, np.array([3]), wide).estimate.value == pytest.approx(0.75, rel=1e-12)


def test_pooled_rows():
    mdp = random_mdp(3, 2, 3, np.random.default_rng(1))
    data = rollout(mdp, uniform_policy(mdp), 200, rng=0)
    plan = backward_induction(data.empirical_mdp())
    np.testing.assert_allclose(fqi(data, staged=False).q, plan.q, rtol=1e-10)


def test_uncovered_targets_are_refused():
    data = rollout(MDP, np.zeros(3, np.int64), 40, rng=0)
    for cls in (None, TabularClass(3, 2, 3), complete_class(MDP, 1, 0), ONE_HOT):
        estimate = fqe(data, TARGET, cls).estimate
        assert estimate.value == math.inf and (0, 0, 1) in estimate.uncovered
    assert fqe(data, np.zeros(3, np.int64)).estimate.covered
    found = fqi(data, FiniteClass(np.stack([np.ones((3, 3, 2)) * [0.0, 1.0]])))
    assert not found.covered and (0, 0, 1) in found.uncovered and "no data at" in repr(found)


def test_masked_actions_are_never_used():
    mask = np.array([[True, False], [True, True], [False, True]])
    mdp = FiniteHorizonMDP(MDP.transition, MDP.reward, horizon=3, action_mask=mask, initial=MDP.initial)
    data = rollout(mdp, uniform_policy(mdp), 400, rng=0)
    model = data.empirical_mdp(staged=True, action_mask=mask)
    found = fqi(data, action_mask=mask)
    np.testing.assert_array_equal(found.policy, backward_induction(model).policy)
    values = np.where(mask, backward_induction(mdp).q, 9.0)  # tempting, and forbidden
    assert (np.take_along_axis(mask, fqi(data, FiniteClass(values[np.newaxis]), action_mask=mask).policy.T, 1)).all()


def test_table_range_and_unseen_entries():
    mdp = FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.5, 2.0]]), horizon=2)
    data = rollout(mdp, np.array([0]), 5, rng=0)
    found = fqi(data, TabularClass(1, 2, 2, low=0.25, high=0.4))
    np.testing.assert_allclose(found.q, [[[0.8, 0.5]], [[0.4, 0.25]]])
    np.testing.assert_allclose(fqi(data).q, [[[1.0, 0.0]], [[0.5, 0.0]]])


def test_bad_calls():
    with pytest.raises(ValueError, match="the class is for"):
        fqi(DATA, TabularClass(3, 2, 4))
    with pytest.raises(TypeError, match="cls must be a class of action values, not a ndarray"):
        fqi(DATA, np.zeros((1, 3, 3, 2)))
    with pytest.raises(ValueError, match=r"action_mask must be boolean \(3, 2\)"):
        fqi(DATA, action_mask=np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="action_mask allows no action in state 1"):
        fqi(DATA, action_mask=np.array([[True, True], [False, False], [True, True]]))
    with pytest.raises(ValueError, match="instruments have dimension 2, features 6"):
        lstdq(DATA, TARGET, ONE_HOT, instruments=np.ones((3, 2, 2)))


def test_rows_without_a_start():
    later = DATA.step > 0
    data = Dataset(*[column[later] for column in DATA.columns.values()], 3, 2, 3)
    with pytest.raises(ValueError, match="no row is at step 0: say what the initial distribution is"):
        fqi(data)
    found = fqi(data, initial=2)
    assert found.uncovered == ((0, 2, int(found.policy[0, 2])),)
    np.testing.assert_array_equal(found.q[1:], fqi(DATA).q[1:])


def test_what_is_no_data_set():
    for learner in (
        fqi,
        lambda data: fqe(data, np.zeros(3, int)),
        lambda data: lstdq(data, np.zeros(3, int), np.ones((3, 2, 1))),
        vi_lcb,
    ):
        with pytest.raises(TypeError, match="data must be a Dataset, not a list"):
            learner([1, 2])
    with pytest.raises(ValueError, match="action_mask must be boolean"):
        fqi(DATA, action_mask=np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match=r"reward_range is \(0, 1, 2\), not \(low, high\)"):
        vi_lcb(DATA, reward_range=(0, 1, 2))
