"""Checks of classes against plain loops over members, layers and pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl import classes, random_mdp
from theoryrl.classes import FiniteClass, LinearClass, ProductClass, TabularClass, WeightClass
from theoryrl.envs import linear_mdp
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.policy import stochastic_layers
from theoryrl.testing import naive
from theoryrl.testing.strategies import mdps, policies


def image(mdp, h, member, choice=None):
    """T_h (or T^pi_h) of a table of layer h + 1 (None: the zero function), a dict over allowed pairs, by plain sums."""
    rows, reward, out = naive.rows(mdp), mdp.reward_layers, {}
    for s, a in np.argwhere(mdp.action_mask):
        total = float(reward[h % len(reward)][s, a])
        for t, p in rows[h][s][a].items():
            if member is None:
                continue
            allowed = [b for b in range(mdp.n_actions) if mdp.action_mask[t, b]]
            if choice is None:
                total += p * max(member[t, b] for b in allowed)
            else:
                total += p * sum(choice[(h + 1) % len(choice)][t, b] * member[t, b] for b in allowed)
        out[s, a] = total
    return out


def distance(wanted, member):
    return max(abs(value - member[pair]) for pair, value in wanted.items())


def violation(layers, into, mdp, choice=None):
    worst = 0.0
    for h in range(mdp.horizon):
        members = [None] if h == mdp.horizon - 1 else layers[h + 1]
        for member in members:
            wanted = image(mdp, h, member, choice)
            worst = max(worst, min(distance(wanted, g) for g in into[h]))
    return worst


def random_product(mdp, sizes, rng):
    return ProductClass([rng.random((m, mdp.n_states, mdp.n_actions)) for m in sizes])


@given(st.data())
def test_completeness_and_policy_closure_are_the_plain_maxima(data):
    mdp = data.draw(mdps(max_states=3, max_actions=2, max_horizon=3))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    cls = random_product(mdp, rng.integers(1, 4, mdp.horizon), rng)
    helper = random_product(mdp, rng.integers(1, 4, mdp.horizon), rng)
    policy = data.draw(policies(mdp))
    choice = stochastic_layers(policy, mdp)
    for into in (None, helper):
        target = (cls if into is None else into).layers
        assert classes.completeness(cls, mdp, into=into).violation == pytest.approx(
            violation(cls.layers, target, mdp), abs=1e-12
        )
        assert classes.policy_closure(cls, mdp, policy, into=into).violation == pytest.approx(
            violation(cls.layers, target, mdp, choice), abs=1e-12
        )
    listed = FiniteClass(rng.random((3, mdp.horizon, mdp.n_states, mdp.n_actions)))
    slices = [listed.values[:, h] for h in range(mdp.horizon)]
    assert classes.completeness(listed, mdp).violation == pytest.approx(violation(slices, slices, mdp), abs=1e-12)


@given(mdps(max_states=3, max_actions=3, max_horizon=3), st.integers(0, 9))
def test_realizability_is_the_plain_minimum(mdp, seed):
    rng = np.random.default_rng(seed)
    cls, q = random_product(mdp, [2] * mdp.horizon, rng), backward_induction(mdp).q
    pairs = np.argwhere(mdp.action_mask)

    def off(f, g):
        return max(abs(f[s, a] - g[s, a]) for s, a in pairs)

    by_layer = max(min(off(f, q[h]) for f in cls.layers[h]) for h in range(mdp.horizon))
    check = classes.realizability(cls, mdp)
    assert check.violation == pytest.approx(by_layer, abs=1e-12)
    listed = cls.to_finite()
    whole = min(max(off(f[h], q[h]) for h in range(mdp.horizon)) for f in listed.values)
    check = classes.realizability(listed, mdp)
    assert check.violation == pytest.approx(whole, abs=1e-12)
    s, a = check.pair
    found = abs(listed.values[check.member, check.layer, s, a] - q[check.layer, s, a])
    assert found == pytest.approx(check.violation, abs=1e-12)


def test_a_missing_image_is_named():
    mdp = random_mdp(3, 2, 3, 0)
    whole = classes.complete_class(mdp, 1, 0)
    assert classes.completeness(whole, mdp).violation <= 1e-12
    layers = list(whole.layers)
    layers[1] = np.delete(layers[1], 1, axis=0)  # the image of member 1 of layer 2
    check = classes.completeness(ProductClass(layers), mdp)
    assert not check
    assert (check.layer, check.member) == (1, 1)
    with pytest.raises(ValueError, match=r"fails by .* at layer 1, member 1, at \(s, a\)"):
        check.require()


@given(mdps(max_states=3, max_actions=2, max_horizon=3, reward_bounds=(-1.0, 2.0)))
def test_the_table_is_realizable_and_complete_exactly_when_it_covers_the_rewards(mdp):
    low, high = float(mdp.reward[..., mdp.action_mask].min()), float(mdp.reward[..., mdp.action_mask].max())
    shape = mdp.n_states, mdp.n_actions, mdp.horizon
    wide = TabularClass(*shape, low=low, high=high)
    assert classes.realizability(wide, mdp)
    assert classes.completeness(wide, mdp)
    narrow = TabularClass(*shape, low=low - 1, high=high - 0.25)
    check = classes.completeness(narrow, mdp)
    assert not check
    assert check.violation >= 0.25 - 1e-12


def test_linear_classes_of_linear_models_are_exact_and_others_are_refuted():
    linear = linear_mdp(n_states=6, n_actions=3, dimension=3, horizon=4, staged=True)
    cls = LinearClass(linear.features, 4)
    uniform = np.full((6, 3), 1 / 3)
    for check in (
        classes.realizability(cls, linear.mdp),
        classes.completeness(cls, linear.mdp),
        classes.policy_closure(cls, linear.mdp, uniform),
    ):
        assert check
        assert check.exact
        assert check.violation <= 1e-12
    cut = LinearClass(linear.features[..., :2], 4)
    assert not classes.realizability(cut, linear.mdp)
    assert not classes.completeness(cut, linear.mdp)
    assert not classes.policy_closure(cut, linear.mdp, uniform)
    # Every table is linear in one-hot features.
    onehot = LinearClass(np.eye(18).reshape(6, 3, 18), 4)
    assert classes.completeness(onehot, linear.mdp).exact


def test_a_linear_class_can_be_complete_where_the_model_is_not_linear():
    # One action per state: V is linear, and the constant rows below keep its images constant on {0, 1}.
    transition = np.array([[[0.5, 0.5, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    features = np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    mdp = FiniteHorizonMDP(transition, np.array([[1.0], [1.0], [0.0]]), horizon=3)
    check = classes.completeness(LinearClass(features, 3), mdp)
    assert check.holds
    assert not check.exact
    assert "where sampled" in check.message


def test_linear_features_are_as_few_as_the_rank():
    linear = linear_mdp(n_states=7, n_actions=2, dimension=3, horizon=3)
    features = classes.linear_features(linear.mdp)
    assert features.shape == (7, 2, 3)
    assert np.linalg.norm(features, axis=-1).max() <= 1 + 1e-12
    assert classes.completeness(LinearClass(features, 3), linear.mdp).exact


@given(mdps(max_states=4, max_actions=3, max_horizon=3))
def test_linear_features_make_any_model_linear(mdp):
    features = classes.linear_features(mdp)
    cls = LinearClass(features, mdp.horizon)
    check = classes.completeness(cls, mdp)
    assert check
    assert check.exact
    assert classes.realizability(cls, mdp)


def test_ratios_are_found_and_missed():
    mdp = random_mdp(3, 2, 3, 1)
    left, right = np.zeros(3, np.int64), np.ones(3, np.int64)
    cls = classes.ratio_class(mdp, [left, right])
    assert classes.ratio_realizability(cls, mdp, [left, right])
    short = WeightClass(np.delete(cls.values, 2, axis=0))
    check = classes.ratio_realizability(short, mdp, [left, right])
    assert not check
    assert check.member == 2
    assert check.violation == np.inf
    close = WeightClass(cls.values + 1e-3)
    assert classes.ratio_realizability(close, mdp, [left, right]).violation == pytest.approx(1e-3)


def test_other_sizes_and_kinds_are_refused():
    mdp = random_mdp(3, 2, 3, 0)
    cls = FiniteClass(np.zeros((1, 3, 3, 3)))
    with pytest.raises(ValueError, match=r"the class is for \(H, S, A\) = \(3, 3, 3\), the model has \(3, 3, 2\)"):
        classes.realizability(cls, mdp)
    with pytest.raises(TypeError, match="cannot check a int"):
        classes.realizability(3, mdp)
    with pytest.raises(TypeError, match="cannot all lie in a finite class"):
        classes.completeness(TabularClass(3, 2, 3), mdp, into=FiniteClass(np.zeros((1, 3, 3, 2))))
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        classes.realizability(FiniteClass(np.zeros((1, 3, 3, 2))), mdp, tolerance=float("nan"))


def test_policy_closure_takes_the_policy_of_the_next_layer():
    mdp = random_mdp(3, 2, 3, 7)
    rng = np.random.default_rng(0)
    cls = random_product(mdp, (2, 3, 2), rng)
    for policy in (rng.integers(0, 2, (3, 3)), rng.dirichlet(np.ones(2), (3, 3))):
        choice = stochastic_layers(policy, mdp)
        expected = violation(cls.layers, cls.layers, mdp, choice)
        assert classes.policy_closure(cls, mdp, policy).violation == pytest.approx(expected, abs=1e-12)
        assert abs(violation(cls.layers, cls.layers, mdp, np.roll(choice, 1, axis=0)) - expected) > 1e-3
