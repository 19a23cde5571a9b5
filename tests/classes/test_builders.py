"""What is stated of every builder's members, recomputed by independent means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl import classes, evaluate, random_mdp
from theoryrl.classes import FiniteClass, LinearClass
from theoryrl.envs import block_mdp, exogenous, linear_mdp, riverswim
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.planning import backward_induction, greedy
from theoryrl.testing import finite_classes, mdps, product_classes, weight_classes

KINDS = ("consistent", "optimistic", "bad-policy", "random")


def residuals(mdp, f):
    """f_h - T_h f_{h+1}, (H, S, A), 0 at forbidden pairs, by sums over the dense rows."""
    out = np.zeros_like(f)
    dense = mdp.to_dense()
    for h in range(mdp.horizon):
        value = np.zeros(mdp.n_states)
        if h + 1 < mdp.horizon:
            value = np.where(mdp.action_mask, f[h + 1], -np.inf).max(axis=1)
        kernel = dense.transition_layers[h % len(dense.transition_layers)]
        kernel = np.where(mdp.action_mask[..., None], kernel, 0.0)
        image = mdp.reward_layers[h % len(mdp.reward_layers)] + (kernel * value).sum(axis=-1)
        out[h] = np.where(mdp.action_mask, f[h] - image, 0.0)
    return out


def start_value(mdp, f):
    return float(mdp.initial @ np.where(mdp.action_mask, f[0], -np.inf).max(axis=1))


def loss(mdp, f):
    best = float(mdp.initial @ backward_induction(mdp).value[0])
    return best - float(mdp.initial @ evaluate(mdp, greedy(f, mdp.action_mask))[0])


def built(mdp, kind, **settings):
    """The class, or None for a model where the kind is refused."""
    try:
        return classes.realizable_class(mdp, 3, kind=kind, **settings)
    except ValueError as error:
        if "distractors: this model (with this ceiling) has too few" in str(error):
            return None
        raise


@given(mdps(max_states=4, max_actions=3, max_horizon=4, reward_bounds=(-1.0, 2.0)), st.sampled_from(KINDS))
def test_distractors_are_what_is_stated(mdp, kind):
    cls = built(mdp, kind)
    if cls is None:
        return
    q = np.where(mdp.action_mask, backward_induction(mdp).q, 0.0)
    low, high = mdp.reward_range
    left = np.arange(mdp.horizon, 0, -1.0)[:, None, None]
    assert np.array_equal(cls.values[0], q)
    optimum = start_value(mdp, q)
    for f in cls.values[1:]:
        assert (f[:, ~mdp.action_mask] == 0).all()
        allowed = f[:, mdp.action_mask]
        assert (allowed <= (left * high)[..., 0] + 1e-7).all()
        assert (allowed >= (left * low)[..., 0] - 1e-7).all()
        if kind in ("consistent", "optimistic"):
            assert (f >= q - 1e-9).all()
            assert start_value(mdp, f) > optimum
        if kind in ("consistent", "bad-policy"):
            assert loss(mdp, f) > 0
        if kind == "consistent":
            off = np.abs(residuals(mdp, f)) > 1e-9
            assert off.sum() == 1
        if kind == "bad-policy":
            value = np.where(mdp.action_mask, f, -np.inf).max(axis=-1)
            assert np.array_equal(value, np.where(mdp.action_mask, q, -np.inf).max(axis=-1))


def test_every_kind_is_found_on_riverswim():
    mdp = riverswim(n_states=4, horizon=5)
    for kind in KINDS:
        cls = classes.realizable_class(mdp, 6, kind=kind, rng=3)
        assert cls.size == 7
        assert classes.realizability(cls, mdp)
    # With their images Q* or themselves, these two kinds are complete as well; the other two are not.
    for kind in KINDS:
        complete = bool(classes.completeness(classes.realizable_class(mdp, 6, kind=kind, rng=3), mdp))
        assert complete == (kind in ("consistent", "bad-policy"))


def test_a_kind_that_the_model_does_not_allow_is_refused():
    chain = FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=2)
    for kind in ("consistent", "bad-policy"):
        with pytest.raises(ValueError, match=f"found 0 of 2 '{kind}' distractors"):
            classes.realizable_class(chain, 2, kind=kind)
    with pytest.raises(ValueError, match="kind must be one of 'consistent'"):
        classes.realizable_class(chain, 2, kind="worst")
    with pytest.raises(ValueError, match=r"Q\*\[0, 0, 0\] = 1 is above the ceiling 0.9"):
        classes.realizable_class(chain, 2, ceiling=0.9)


def test_a_ceiling_keeps_members_below_it():
    mdp = riverswim(n_states=4, horizon=4)
    mdp = mdp.with_reward(mdp.reward / 4)
    for kind in ("consistent", "optimistic"):
        cls = classes.realizable_class(mdp, 5, kind=kind, ceiling=1.0)
        assert cls.values.max() <= 1 + 1e-8


@given(mdps(max_states=3, max_actions=3, max_horizon=4), st.sampled_from(("random", "consistent")), st.integers(0, 2))
def test_complete_classes_are_closed_with_q_star_first(mdp, kind, n):
    cls = classes.complete_class(mdp, n, 0, kind=kind)
    assert classes.completeness(cls, mdp)
    q = np.where(mdp.action_mask, backward_induction(mdp).q, 0.0)
    assert np.allclose(cls.member([0] * mdp.horizon), q, atol=1e-12)
    if kind == "random":
        assert cls.sizes == tuple(1 + n * (mdp.horizon - h) for h in range(mdp.horizon))


def test_sizes_of_the_worked_class():
    cls = classes.complete_class(random_mdp(3, 2, 3, 0), 8)
    assert cls.sizes == (25, 17, 9)


def test_chains_of_raised_values_have_one_residual():
    mdp = random_mdp(3, 2, 3, 0)
    cls = classes.complete_class(mdp, 1, 0, kind="consistent")
    # Layer 2: Q*, raised; layer 1: their images, raised; layer 0: images of those three, raised.
    chain = cls.member([1, 1, 1])
    assert (np.abs(residuals(mdp, chain)) > 1e-9).sum(axis=(1, 2)).tolist() == [0, 0, 1]
    assert (np.abs(residuals(mdp, cls.member([2, 2, 0]))) > 1e-9).sum(axis=(1, 2)).tolist() == [0, 1, 0]


def test_model_classes_hold_each_q_star():
    models = [random_mdp(3, 2, 2, seed) for seed in range(3)]
    cls = classes.model_class(models)
    for i, mdp in enumerate(models):
        check = classes.realizability(cls, mdp)
        assert check
        assert np.array_equal(cls.values[i], backward_induction(mdp).q)
    with pytest.raises(ValueError, match=r"mdps\[1\] has \(H, S, A\) = \(3, 3, 2\), mdps\[0\] has \(2, 3, 2\)"):
        classes.model_class([models[0], random_mdp(3, 2, 3, 0)])
    with pytest.raises(ValueError, match="mdps is empty"):
        classes.model_class([])


@pytest.mark.parametrize("lift", [block_mdp, exogenous])
def test_lifts_keep_realizability_completeness_and_ratios(lift):
    mdp = random_mdp(3, 2, 3, 5)
    wide = lift(mdp)
    cls = classes.complete_class(mdp, 1)
    assert classes.completeness(classes.decoder_lift(cls, wide.decoder), wide.mdp)
    assert classes.realizability(classes.decoder_lift(classes.realizable_class(mdp, 2), wide.decoder), wide.mdp)
    linear = LinearClass(classes.linear_features(mdp), 3)
    assert classes.realizability(classes.decoder_lift(linear, wide.decoder), wide.mdp)
    policies = [np.zeros(3, np.int64), np.array([0, 1, 1])]
    ratios = classes.decoder_lift(classes.ratio_class(mdp, policies), wide.decoder)
    assert classes.ratio_realizability(ratios, wide.mdp, [policy[wide.decoder] for policy in policies])
    # A decoder that mixes up two states breaks it.
    wrong = np.where(wide.decoder == 0, 1, np.where(wide.decoder == 1, 0, wide.decoder))
    assert not classes.completeness(classes.decoder_lift(cls, wrong), wide.mdp)


def test_wrong_decoders_are_refused():
    cls = FiniteClass(np.zeros((1, 1, 2, 2)))
    with pytest.raises(ValueError, match=r"decoder\[1\] = 2 is not a state \(0 to 1\)"):
        classes.decoder_lift(cls, [0, 2])
    with pytest.raises(TypeError, match="cannot lift a list"):
        classes.decoder_lift([cls], [0])


def test_mixture_ratios_and_their_lift_agree_where_the_numerator_is_positive():
    mdp = random_mdp(3, 2, 2, 2)
    policies = [np.zeros(3, np.int64), np.ones(3, np.int64), np.array([1, 0, 1])]
    uniform = np.full((3, 2), 0.5)
    masses = np.stack([classes.ratio_class(mdp, [p], against=np.ones((3, 2))).values[0] for p in policies])
    direct = classes.mixture_ratio_class(mdp, policies, 2)
    assert direct.size == 3 * (3 + 6)
    mixtures = [masses[[i]].mean(axis=0) for i in range(3)]
    mixtures += [masses[[i, j]].mean(axis=0) for i in range(3) for j in range(i, 3)]
    k = 0
    for mixture in mixtures:
        for mass in masses:
            expected = np.where(mixture > 0, mass / np.where(mixture > 0, mixture, 1), np.where(mass > 0, np.inf, 0))
            assert np.allclose(direct.values[k], expected, atol=1e-13)
            k += 1
    # Of a policy that plays everything: d_k / d in W, so d / mean is in the lift.
    top = classes.ratio_class(mdp, [uniform], against=np.ones((3, 2))).values[0]
    pure = classes.WeightClass(np.where(top > 0, masses / np.where(top > 0, top, 1), 0.0))
    lifted = classes.mixture_lift(pure, 2)
    assert lifted.size == 9
    for weight, mixture in zip(lifted.values, mixtures, strict=True):
        there = (top > 0) & (mixture > 0)
        assert np.allclose(weight[there], (top / np.where(there, mixture, 1))[there])
        assert (weight[(top > 0) & (mixture == 0)] == np.inf).all()
    with pytest.raises(ValueError, match="27 members, more than limit=26"):
        classes.mixture_ratio_class(mdp, policies, 2, limit=26)


def test_ratio_classes_are_numbered_as_stated():
    mdp = random_mdp(3, 2, 2, 2)
    policies = [np.zeros(3, np.int64), np.full((3, 2), 0.5)]
    ones = np.ones((2, 3, 2))
    masses = classes.ratio_class(mdp, policies, against=ones).values
    each = classes.ratio_class(mdp, policies).values
    assert np.allclose(
        each[1], np.divide(masses[0], masses[1], out=np.zeros((2, 3, 2)), where=masses[0] > 0)
    )  # i = 0, j = 1
    assert np.isinf(each[2]).any()  # i = 1, j = 0: the second policy plays what the first never does
    mean = classes.ratio_class(mdp, policies, against="mean", n_distractors=2)
    assert mean.size == 4
    assert mean.values[:2].max() <= 2 + 1e-12
    assert (mean.values[2:] > 0).all()
    with pytest.raises(ValueError, match=r"policies\[1\]: policy\[0\] = 7"):
        classes.ratio_class(mdp, [policies[0], np.full(3, 7)])
    with pytest.raises(ValueError, match="against must be"):
        classes.ratio_class(mdp, policies, against="all")


def test_the_linear_family_is_realizable_and_complete_without_work():
    linear = linear_mdp(n_states=5, n_actions=2, dimension=2, horizon=3)
    cls = LinearClass(linear.features, linear.mdp.horizon)
    assert classes.realizability(cls, linear.mdp)
    assert classes.completeness(cls, linear.mdp)


@given(st.data())
def test_the_closure_is_closed_and_smallest(data):
    mdp = data.draw(mdps(max_states=3, max_actions=2, max_horizon=3))
    cls = data.draw(product_classes(mdp))
    closed = classes.bellman_closure(cls, mdp)
    assert classes.completeness(closed, mdp)
    assert classes.realizability(closed, mdp)
    for h, (before, after) in enumerate(zip(cls.layers, closed.layers, strict=True)):
        assert np.array_equal(after[: len(before)], before)
        # Each member that was added is an image, and missing without it.
        for k in range(len(before), len(after)):
            layers = list(closed.layers)
            layers[h] = np.delete(after, k, axis=0)
            check = classes.completeness(classes.ProductClass(layers), mdp, tolerance=0.0)
            assert check.violation > 0
    again = classes.bellman_closure(closed, mdp)
    assert again.sizes == closed.sizes


@given(st.data())
def test_strategies_give_what_they_say(data):
    mdp = data.draw(mdps(max_states=3, max_actions=2, max_horizon=3, reward_bounds=(-1.0, 2.0)))
    low, high = mdp.reward_range
    cls = data.draw(finite_classes(mdp, realizable=True))
    assert classes.realizability(cls, mdp)
    left = np.arange(mdp.horizon, 0, -1.0)[:, None, None]
    product = data.draw(product_classes(mdp))
    for h, layer in enumerate(product.layers):
        assert ((layer >= left[h] * low) & (layer <= left[h] * high)).all()
    data.draw(weight_classes(mdp)).require_fits(mdp)


def test_the_class_on_which_golf_fails():
    """Two layers: at s0, 0.3 for stopping or on to u, where the arms pay 0.8 and 0.1."""
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 2] = transition[0, 1, 1] = transition[1, :, 2] = transition[2, :, 2] = 1
    reward = np.array([[0.3, 0.0], [0.8, 0.1], [0.0, 0.0]])
    mdp = FiniteHorizonMDP(transition, reward, horizon=2, reward_law="bernoulli")
    optimal = backward_induction(mdp).q
    assert optimal[0, 0].tolist() == [0.3, 0.8]
    bad = optimal.copy()
    bad[0, 0, 1] += 1e-6
    bad[1, 1] = [0.0, 0.1]
    cls = FiniteClass(np.stack([optimal, bad]))
    assert classes.realizability(cls, mdp)
    assert loss(mdp, bad) == pytest.approx(0.7)
    # T f_bad is 0.1 for going on, and no member says so: the nearest is 0.7 away.
    check = classes.completeness(cls, mdp)
    assert not check
    assert check.violation == pytest.approx(0.7)
    assert (check.layer, check.member, check.pair) == (0, 1, (0, 1))
    # The closure is the remedy.
    assert classes.completeness(
        classes.bellman_closure(classes.ProductClass(list(cls.values.swapaxes(0, 1))), mdp), mdp
    )


def test_consistent_distractors_err_at_several_layers():
    mdp = random_mdp(4, 3, 4, 1)
    cls = classes.realizable_class(mdp, 20, kind="consistent")
    layers = {int(np.argwhere(np.abs(residuals(mdp, f)) > 1e-9)[0, 0]) for f in cls.values[1:]}
    assert len(layers) >= 3
