"""Coverability and concentrability against enumeration, linear programs, worked numbers and their invariances."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.complexity import (
    clip_loss,
    clipped_concentrability,
    concentrability,
    coverability,
    coverability_lp,
    largest_occupancy,
    occupancy_rank,
    optimal_data,
)

seeds = st.integers(0, 2**32 - 1)


def three_states():
    """S = 3, A = 2, H = 3; reach and coverability are rationals."""
    transition = np.array(
        [
            [[0.7, 0.3, 0.0], [0.2, 0.5, 0.3]],
            [[0.0, 0.6, 0.4], [0.5, 0.5, 0.0]],
            [[0.1, 0.1, 0.8], [0.0, 0.9, 0.1]],
        ]
    )
    return trl.FiniteHorizonMDP(transition, np.zeros((3, 2)), horizon=3, initial=[0.6, 0.4, 0.0])


def lock():
    """A lock of two states: action 0 stays open, action 1 closes for good."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = 1.0
    transition[1, :, 1] = 1.0
    return trl.FiniteHorizonMDP(transition, np.zeros((2, 2)), horizon=4)


def latent(seed):
    """Three latent states, three layers of transitions for H = 4 (the fourth layer's is never used)."""
    rows = np.random.default_rng(seed).dirichlet(np.ones(3), (3, 3, 2))
    return trl.FiniteHorizonMDP(np.concatenate([rows, rows[:1]]), np.zeros((3, 2)), horizon=4)


def masked_random(rng, sizes=(3, 3, 3), staged=False, sparse=False):
    """A random model with forbidden actions whose rows hold NaN (dense) or arbitrary weights (sparse)."""
    n_states, n_actions, horizon = sizes
    mask = rng.random((n_states, n_actions)) < 0.6
    mask[np.arange(n_states), rng.integers(0, n_actions, n_states)] = True
    mdp = trl.random_mdp(n_states, n_actions, horizon, rng, staged=staged)
    transition = np.where(mask[:, :, None], mdp.transition, np.nan)
    dense = trl.FiniteHorizonMDP(
        transition, mdp.reward, horizon=horizon, initial=rng.dirichlet(np.ones(n_states)), action_mask=mask
    )
    if not sparse:
        return dense
    arbitrary = np.where(mask[:, :, None], mdp.transition, 7.0)
    return trl.FiniteHorizonMDP(
        trl.SparseTransition.from_dense(arbitrary),
        mdp.reward,
        horizon=horizon,
        initial=dense.initial,
        action_mask=mask,
    )


def every_policy(mdp):
    """All deterministic Markov policies."""
    allowed = [np.flatnonzero(row) for row in mdp.action_mask]
    for choice in itertools.product(*(allowed * mdp.horizon)):
        yield np.reshape(choice, (mdp.horizon, mdp.n_states))


def random_policies(mdp, rng, count):
    """Stochastic Markov policies that keep to the allowed actions."""
    weights = rng.random((count, mdp.horizon, mdp.n_states, mdp.n_actions)) * mdp.action_mask
    return list(weights / weights.sum(axis=-1, keepdims=True))


# ---- worked numbers


def test_three_states():
    mdp = three_states()
    exact = [2, 3, 3.676]
    assert coverability(mdp) == pytest.approx(exact, abs=5e-11)
    assert coverability_lp(mdp) == pytest.approx(exact, abs=1e-8)
    assert trl.reachability(mdp) == pytest.approx(
        np.array([[0.6, 0.4, 0], [0.62, 0.54, 0.34], [0.624, 0.69, 0.524]]), abs=5e-11
    )
    policies = list(every_policy(mdp))
    assert len(policies) == 512
    assert coverability(mdp, policies) == pytest.approx(exact, abs=5e-11)
    constant = [np.zeros(3, int), np.ones(3, int)]
    assert coverability(mdp, constant) == pytest.approx([2, 2, 2], abs=5e-11)


def test_lock_and_tree():
    assert coverability(lock()) == pytest.approx([2, 4, 4, 4], abs=0)
    assert coverability(trl.envs.make("binary_tree", depth=3, horizon=4)) == pytest.approx([2, 4, 8, 16], abs=0)


def test_latent_models_and_their_lifts():
    base = latent(1)
    expected = [2, 2.0134193406, 2.7362995977, 3.0925031414]
    assert coverability(base) == pytest.approx(expected, abs=5e-11)
    for n_observations in (2, 5, 20):
        lifted = trl.envs.block_mdp(base, n_observations=n_observations, rng=7).mdp
        assert coverability(lifted) == pytest.approx(expected, abs=5e-11)
    base = latent(3)
    expected = [2, 3.4548524860, 3.1100516478, 3.2381969450]
    assert coverability(base) == pytest.approx(expected, abs=5e-11)
    for n_noise in (1, 3, 7):
        assert coverability(trl.envs.exogenous(base, n_noise=n_noise).mdp) == pytest.approx(expected, abs=5e-11)


def test_clipping_worked():
    flow, data = np.array([[0.5, 0.3], [0.2, 0.0]]), np.array([[0.25, 0.6], [0.0, 0.15]])
    for gamma, clipped, lost in ((0.5, 0.5, 0.575), (1, 0.85, 0.45), (3, 1.75, 0.2), (100, 21.15, 0.2)):
        assert clipped_concentrability(flow, data, gamma) == pytest.approx(clipped, abs=5e-11)
        assert clip_loss(flow, data, gamma) == pytest.approx(lost, abs=5e-11)
    assert clipped_concentrability(flow, data, np.inf) == np.inf


def test_clip_losses_of_a_sequence():
    flows = np.array([[0.5, 0.5, 0], [0, 0.2, 0.8], [0.5, 0.5, 0], [0.1, 0.1, 0.8]])[:, np.newaxis]
    total = np.cumsum(flows, axis=0)
    for gamma, lost in ((0.1, 3.17), (0.25, 2.225), (0.5, 0.9)):
        assert clip_loss(flows, total, gamma).sum() == pytest.approx(lost, abs=5e-11)
    potential = [float((d[d > 0] ** 2 / c[d > 0]).sum()) for d, c in zip(flows, total, strict=True)]
    assert sum(potential) == pytest.approx(2.7322594073, abs=5e-11)


# ---- enumeration and linear programs


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_closed_form_is_the_enumeration_and_the_program(staged, sparse):
    rng = np.random.default_rng([staged, sparse])
    mdp = masked_random(rng, staged=staged, sparse=sparse)
    closed = coverability(mdp)
    assert closed == pytest.approx(coverability(mdp, list(every_policy(mdp))), rel=1e-13)
    assert closed == pytest.approx(coverability_lp(mdp), abs=1e-8)
    assert closed[0] == pytest.approx(mdp.action_mask.sum(axis=1) @ mdp.initial, rel=1e-13)


@given(seeds, st.booleans())
def test_finite_sets(seed, staged):
    rng = np.random.default_rng(seed)
    mdp = masked_random(rng, staged=staged)
    policies = [*random_policies(mdp, rng, 3), *itertools.islice(every_policy(mdp), 2)]
    closed = coverability(mdp, policies)
    assert closed == pytest.approx(coverability_lp(mdp, policies), abs=1e-9)
    tables = np.array([trl.occupancy(mdp, policy) for policy in policies])
    assert closed == pytest.approx(tables.max(axis=0).sum(axis=(1, 2)), rel=1e-14)
    # Between 1 and the sizes; one policy has 1; mixtures add nothing; a larger set has no less.
    assert (closed >= 1 - 1e-12).all() and (closed <= len(policies) + 1e-12).all()
    assert (closed <= coverability(mdp) + 1e-12).all()
    assert coverability(mdp, policies[0]) == pytest.approx(1, abs=1e-12)
    mixture = trl.MixturePolicy(policies, rng.dirichlet(np.ones(len(policies))))
    assert coverability(mdp, [*policies, mixture]) == pytest.approx(closed, rel=1e-13)
    assert (coverability(mdp, policies[:3]) <= closed).all()


def test_an_empty_set_and_a_foreign_policy_are_refused():
    mdp = three_states()
    with pytest.raises(ValueError, match="set of policies is empty"):
        coverability(mdp, [])
    with pytest.raises(ValueError, match=r"policy\[1\] = 2 is not an action"):
        coverability(mdp, [np.zeros(3, int), np.array([0, 2, 0])])
    with pytest.raises(TypeError, match="with_horizon"):
        coverability(mdp.with_discount(0.5))
    with pytest.raises(ValueError, match="nonzeros"):
        coverability_lp(trl.random_mdp(60, 3, 6, 0))


# ---- invariances


@given(seeds)
def test_storage_and_order_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    mdp = masked_random(rng, sizes=(4, 3, 4), sparse=True)
    assert coverability(mdp.to_dense()) == pytest.approx(coverability(mdp), rel=1e-13)
    staged = trl.FiniteHorizonMDP(
        np.broadcast_to(mdp.to_dense().transition, (4, 4, 3, 4)),
        mdp.reward,
        horizon=4,
        initial=mdp.initial,
        action_mask=mdp.action_mask,
    )
    assert coverability(staged) == pytest.approx(coverability(mdp), rel=1e-13)
    states, actions = rng.permutation(4), rng.permutation(3)
    table = mdp.to_dense().transition[states][:, actions][:, :, states]
    other = trl.FiniteHorizonMDP(
        table,
        np.zeros((4, 3)),
        horizon=4,
        initial=mdp.initial[states],
        action_mask=mdp.action_mask[states][:, actions],
    )
    assert coverability(other) == pytest.approx(coverability(mdp), rel=1e-13)
    assert largest_occupancy(other) == pytest.approx(largest_occupancy(mdp)[:, states][:, :, actions], rel=1e-13)


@pytest.mark.parametrize("starts", [1, 2, 9])
@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_few_and_many_initial_states(starts, horizon):
    rng = np.random.default_rng([starts, horizon])
    mdp = masked_random(rng, sizes=(9, 2, horizon), staged=True)
    mdp = mdp.with_initial(np.append(np.zeros(9 - starts), rng.dirichlet(np.ones(starts))))
    reach = trl.reachability(mdp)
    for h, s in np.ndindex(reach.shape):
        reward = np.zeros((horizon, 9, 2))
        reward[h, s] = 1.0
        assert reach[h, s] == pytest.approx(trl.backward_induction(mdp.with_reward(reward)).initial_value, rel=1e-13)


def test_no_action_that_is_forbidden_counts():
    mask = np.array([[True, False], [True, True]])
    transition = np.zeros((2, 2, 2))
    transition[0, 0] = 0.5, 0.5
    transition[0, 1] = np.nan
    transition[1, :, 1] = 1.0
    mdp = trl.FiniteHorizonMDP(transition, np.zeros((2, 2)), horizon=3, action_mask=mask)
    # reach: (1, 0), (1/2, 1/2), (1/4, 3/4); one action in state 0, two in state 1.
    assert coverability(mdp).tolist() == [1, 1.5, 1.75]


# ---- concentrability


@given(seeds)
def test_no_data_does_better_than_the_optimal_one(seed):
    rng = np.random.default_rng(seed)
    mdp = masked_random(rng)
    closed, best = coverability(mdp), optimal_data(mdp)
    assert best.sum(axis=(1, 2)) == pytest.approx(1, abs=1e-12)
    assert concentrability(mdp, best).per_layer == pytest.approx(closed, rel=1e-12)
    other = rng.dirichlet(np.ones(best[0].size), 3).reshape(best.shape)
    assert (concentrability(mdp, other).per_layer >= closed * (1 - 1e-12)).all()
    tables = np.array([trl.occupancy(mdp, policy) for policy in every_policy(mdp)])
    assert concentrability(mdp, other).per_layer == pytest.approx((tables / other).max(axis=(0, 2, 3)), rel=1e-12)


def test_uncovered_entries_are_named():
    mdp = three_states()
    data = optimal_data(mdp).copy()
    assert concentrability(mdp, data).uncovered == ()
    data[1] = 0.0
    data[1, 0] = 0.5
    found = concentrability(mdp, data)
    assert found.value == np.inf and found.per_layer.tolist()[1] == np.inf
    assert found.uncovered == ((1, 1, 0), (1, 1, 1), (1, 2, 0), (1, 2, 1))
    assert found.worst == (1, 1, 0) and "4 uncovered: (1, 1, 0)" in repr(found)
    assert np.isfinite(found.per_layer[[0, 2]]).all()
    # One policy needs its own pairs only.
    policy = np.zeros(3, int)
    own = trl.occupancy(mdp, policy)
    single = concentrability(mdp, own, policy)
    assert single.value == pytest.approx(1, abs=1e-12) and single.uncovered == ()


def test_the_same_data_at_every_layer():
    mdp = three_states()
    data = np.full((3, 2), 1 / 6)
    assert concentrability(mdp, data).per_layer == pytest.approx(6 * trl.reachability(mdp).max(axis=1), rel=1e-14)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((3, 2), 0.2), r"data sums to 1.2"),
        (np.full((3, 3, 2), [[[1 / 6]], [[1 / 6]], [[0.1]]]), r"data\[2\] sums to 0.6"),
        (np.array([[0.5, 0.5], [0.5, -0.5], [0, 0]]), r"data\[1, 1\] is negative"),
        (np.array([[0.5, np.nan], [0.5, 0], [0, 0]]), r"data\[0, 1\] is nan"),
        (np.full((2, 3), 1 / 6), r"data has shape \(2, 3\)"),
    ],
)
def test_what_is_no_distribution_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        concentrability(three_states(), data)


@given(seeds)
def test_clipping_inequalities(seed):
    rng = np.random.default_rng(seed)
    flow, data = rng.dirichlet(np.full(6, 0.5), 2).reshape(2, 3, 2)
    flow[rng.random(flow.shape) < 0.2] = 0.0
    data[rng.random(data.shape) < 0.2] = 0.0
    levels = np.sort(rng.exponential(2.0, 4))
    clipped = np.array([clipped_concentrability(flow, data, level) for level in levels])
    lost = np.array([clip_loss(flow, data, level) for level in levels])
    assert (np.diff(clipped) >= -1e-14).all() and (clipped <= levels * flow.sum() + 1e-14).all()
    assert (np.diff(lost) <= 1e-14).all()
    assert clip_loss(flow, data, 0.0) == pytest.approx(flow.sum(), rel=1e-14)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(flow > 0, flow / data, 0.0)
    beyond = np.array([flow[ratio > level].sum() for level in levels])
    assert (beyond <= clipped / levels + 1e-14).all() and (lost <= clipped / levels + 1e-14).all()
    second = np.array([(data * np.minimum(ratio, level) ** 2).sum() for level in levels])
    assert (second <= clipped + 1e-14).all()
    full = clipped_concentrability(flow, data, np.inf)
    assert full == (np.inf if (ratio == np.inf).any() else pytest.approx((data * ratio**2).sum(), rel=1e-12))
    assert (lost <= full / (4 * levels) + 1e-14).all()


def test_levels_and_measures_are_checked():
    flow = np.full((2, 2), 0.25)
    for gamma in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="gamma"):
            clipped_concentrability(flow, flow, gamma)
    for gamma in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="gamma"):
            clip_loss(flow, flow, gamma)
    with pytest.raises(ValueError, match=r"occupancy\[0, 1\] is negative"):
        clip_loss(np.array([[1.0, -1.0]]), flow, 1.0)
    with pytest.raises(ValueError, match="shapes"):
        clip_loss(np.full((3, 2), 0.1), np.full((2, 3), 0.1), 1.0)


def test_a_policy_of_a_set_is_named():
    mdp = trl.random_mdp(3, 2, 2, 0)
    good, bad = np.zeros(3, int), np.full(3, 7)
    for call in (coverability, coverability_lp, occupancy_rank):
        with pytest.raises(ValueError, match=r"policies\[1\]: policy\[0\] = 7 is not an action"):
            call(mdp, [good, bad])
        with pytest.raises(TypeError, match="policies must be a policy or a list of policies, not a int"):
            call(mdp, 3)
