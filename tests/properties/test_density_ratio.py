"""Invariants that the proofs about density ratios rest on, on drawn models, policies, classes and data."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from theoryrl.classes import clip_weights, density_ratio
from theoryrl.complexity import clip_loss, clipped_concentrability, coverability, coverability_lp, largest_occupancy
from theoryrl.mdp import FiniteHorizonMDP, MixturePolicy, occupancy, reachability
from theoryrl.testing import mdps, policies

MODELS = mdps(max_states=3, max_actions=3, max_horizon=3)
LEVELS = st.sampled_from((1e-6, 0.05, 0.25, 1.0, 3.0, 1e6)) | st.floats(1e-6, 50.0)
WEIGHTS = hnp.arrays(np.float64, (2, 3), elements=st.sampled_from((0.0, 1.0, np.inf)) | st.floats(0, 1e9))


@st.composite
def masses(draw, rounds=6, cells=4):
    """A sequence of distributions, some of them repeated or with pairs they never meet: (T, cells, 1)."""
    raw = draw(hnp.arrays(np.float64, (draw(st.integers(1, rounds)), cells), elements=st.integers(0, 4)))
    raw[raw.sum(axis=1) == 0, 0] = 1
    return (raw / raw.sum(axis=1, keepdims=True))[:, :, np.newaxis]


def deterministic(mdp):
    """Every deterministic Markov policy, (H, S) each."""
    allowed = [np.flatnonzero(row) for row in mdp.action_mask] * mdp.horizon
    for actions in itertools.product(*allowed):
        yield np.array(actions, np.int64).reshape(mdp.horizon, mdp.n_states)


@given(MODELS)
def test_coverability_of_all_policies_lies_between_one_and_the_number_of_pairs(mdp):
    found = coverability(mdp)
    count = mdp.action_mask.sum(axis=1)
    assert found[0] == pytest.approx(mdp.initial @ count, abs=1e-12)
    assert (found >= 1 - 1e-12).all()
    assert (found <= (reachability(mdp) > 0) @ count + 1e-12).all()


@given(MODELS, st.data())
def test_coverability_of_a_set_is_what_brute_force_and_a_linear_program_say(mdp, data):
    chosen = data.draw(st.lists(policies(mdp), min_size=1, max_size=4))
    tables = np.stack([occupancy(mdp, policy) for policy in chosen])
    found = coverability(mdp, chosen)
    brute = [sum(max(tables[:, h, s, a]) for s in range(mdp.n_states) for a in range(mdp.n_actions)) for h in
             range(mdp.horizon)]  # fmt: skip
    np.testing.assert_allclose(found, brute, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found, coverability_lp(mdp, chosen), rtol=0, atol=1e-8)
    assert (found >= 1 - 1e-12).all() and (found <= len(chosen) + 1e-12).all()


@given(mdps(max_states=3, max_actions=2, max_horizon=3))
def test_largest_masses_are_those_of_the_best_deterministic_policy(mdp):
    every = np.stack([occupancy(mdp, policy) for policy in deterministic(mdp)])
    np.testing.assert_allclose(largest_occupancy(mdp), every.max(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(reachability(mdp), every.sum(axis=3).max(axis=0), rtol=0, atol=1e-12)


@given(MODELS, st.data())
def test_mixtures_add_nothing_and_more_policies_never_less(mdp, data):
    chosen = data.draw(st.lists(policies(mdp), min_size=1, max_size=3))
    weights = np.arange(1.0, len(chosen) + 1) / np.arange(1.0, len(chosen) + 1).sum()
    found = coverability(mdp, chosen)
    np.testing.assert_allclose(coverability(mdp, [*chosen, MixturePolicy(chosen, weights)]), found, rtol=0, atol=1e-12)
    assert (coverability(mdp, [*chosen, data.draw(policies(mdp))]) >= found - 1e-12).all()
    assert (found <= coverability(mdp) + 1e-12).all()
    np.testing.assert_allclose(coverability(mdp, chosen[:1]), 1.0, rtol=0, atol=1e-12)


PLAIN = mdps(max_states=3, max_actions=3, max_horizon=3, sparse=False, reward_laws=("deterministic", "bernoulli"))


def relabelled(mdp, states, actions):
    """The same model, its state i being what was states[i] before, its action j what was actions[j]."""
    return FiniteHorizonMDP(
        mdp.transition[..., states, :, :][..., actions, :][..., states],
        mdp.reward[..., states, :][..., actions],
        horizon=mdp.horizon,
        initial=mdp.initial[states],
        reward_law=mdp.reward_law,
        reward_range=mdp.reward_range,
        action_mask=mdp.action_mask[np.ix_(states, actions)],
    )


@given(PLAIN, st.data())
def test_other_labels_permute_the_masses_and_leave_coverability(mdp, data):
    states = data.draw(st.permutations(range(mdp.n_states)))
    actions = data.draw(st.permutations(range(mdp.n_actions)))
    other = relabelled(mdp, states, actions)
    expected = largest_occupancy(mdp)[:, states][:, :, actions]
    np.testing.assert_allclose(largest_occupancy(other), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(coverability(other), coverability(mdp), rtol=0, atol=1e-12)


@given(MODELS, st.data())
def test_masses_sum_to_one_and_flow(mdp, data):
    found = occupancy(mdp, data.draw(policies(mdp)))
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[0].sum(axis=1), mdp.initial, rtol=0, atol=1e-12)
    layers = mdp.to_dense().transition_layers
    for h in range(mdp.horizon - 1):
        row = np.where(mdp.action_mask[:, :, np.newaxis], layers[h if len(layers) > 1 else 0], 0.0)
        np.testing.assert_allclose(found[h + 1].sum(axis=1), np.einsum("sa,sat->t", found[h], row), rtol=0, atol=1e-12)


@given(WEIGHTS, WEIGHTS, LEVELS, LEVELS)
def test_clipping(weights, others, level, other_level):
    low, high = sorted((level, other_level))
    clipped = clip_weights(weights, low)
    assert (clipped <= low).all() and (clipped == np.minimum(weights, low)).all()
    np.testing.assert_array_equal(clip_weights(clipped, low), clipped)
    assert (clipped <= clip_weights(weights, high)).all()
    assert (clip_weights(np.minimum(weights, others), low) <= clipped).all()
    finite = np.isfinite(weights) & np.isfinite(others)
    moved = np.abs(clipped - clip_weights(others, low))[finite]
    assert (moved <= np.abs(weights[finite] - others[finite])).all()
    np.testing.assert_array_equal(clip_weights(np.full(3, np.inf), low), low)
    np.testing.assert_array_equal(clip_weights(-weights, low), -clipped)


@given(masses(), LEVELS, LEVELS)
def test_loss_of_clipping(sequence, level, other_level):
    mine, total = sequence[-1], sequence.sum(axis=0)
    low, high = sorted((level, other_level))
    loss = clip_loss(mine, total, low)
    ratio = density_ratio(mine, total)
    assert clip_loss(mine, total, 0.0) == pytest.approx(1.0, abs=1e-12)
    assert clip_loss(mine, total, high) <= loss + 1e-15
    assert loss <= (mine * ratio).sum() / (4 * low) + 1e-12
    n = len(sequence)
    assert loss <= clipped_concentrability(mine, total / n, low * n) / (low * n) + 1e-12
    # The identity itself: what a clipped ratio leaves out.
    weight = density_ratio(mine, total / n)
    kept = np.divide(clip_weights(weight, low * n), weight, out=np.ones_like(weight), where=weight > 0)
    assert loss == pytest.approx(float((mine * (1 - kept)).sum()), abs=1e-12)


@given(masses(), masses(rounds=1), LEVELS, LEVELS)
def test_clipped_concentrability(sequence, target, level, other_level):
    mine, mu = target[0], sequence.mean(axis=0)
    low, high = sorted((level, other_level))
    weight = density_ratio(mine, mu)
    found = clipped_concentrability(mine, mu, low)
    assert mine[weight > low].sum() <= found / low + 1e-12
    assert (mu * clip_weights(weight, low) ** 2).sum() <= found + 1e-12
    assert found <= clipped_concentrability(mine, mu, high) + 1e-12
    assert found <= low * (1 + 1e-12)
    if (mu[mine > 0] > 0).all():
        # A clipping level above every ratio leaves the second moment of the ratio.
        second = (mu * weight**2).sum()
        assert clipped_concentrability(mine, mu, np.inf) == pytest.approx(second, rel=1e-12)


@given(masses(rounds=8), LEVELS)
def test_cumulative_clipped_ratios_stay_below_the_potential(sequence, level):
    before = np.cumsum(sequence, axis=0) - sequence
    after = np.cumsum(sequence, axis=0)
    x = density_ratio(sequence, np.maximum(before, 0.0))
    clipped = clip_weights(x, level)
    share = np.where(np.isfinite(x), x / (1 + np.where(np.isfinite(x), x, 0.0)), 1.0)
    assert (clipped <= (1 + level) * share * (1 + 1e-12)).all()
    potential = (sequence * density_ratio(sequence, after)).sum()
    assert (sequence * clipped).sum() <= (1 + level) * potential + 1e-12
    assert potential >= 1 - 1e-12
