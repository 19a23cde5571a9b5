"""Invariants of offline estimates and learners on drawn models, policies and data: expectations by enumeration."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from theoryrl.mdp import Dataset, FiniteHorizonMDP, evaluate, occupancy
from theoryrl.mdp.policy import stochastic_layers
from theoryrl.offline import (
    doubly_robust,
    fqe,
    fqi,
    importance_sampling,
    lstdq,
    marginalised_sampling,
    marginalised_weights,
    ope_variance,
    vi_lcb,
)
from theoryrl.offline._enumeration import enumerate_trajectories, n_trajectories
from theoryrl.testing import datasets, mdps, policies

SMALL = dict(max_states=3, max_actions=2, max_horizon=3)
MODELS = st.one_of(mdps(**SMALL), mdps(**SMALL, reward_bounds=(-2.0, 1.0)))


def table(policy, mdp):
    """A policy as probabilities (H, S, A)."""
    shape = mdp.horizon, mdp.n_states, mdp.n_actions
    return np.ascontiguousarray(np.broadcast_to(stochastic_layers(policy, mdp), shape))


def uniform(mdp):
    allowed = mdp.action_mask / mdp.action_mask.sum(axis=1, keepdims=True)
    return np.broadcast_to(allowed, (mdp.horizon, *allowed.shape))


def size(mdp):
    """Of a return, and of the weights of uniform play."""
    return mdp.horizon * max(1.0, *(abs(limit) for limit in mdp.reward_range)) * mdp.n_actions**mdp.horizon


@given(MODELS, st.data())
def test_expectations_and_variances_by_enumeration(mdp, data):
    behaviour, target = uniform(mdp), table(data.draw(policies(mdp)), mdp)
    assume(n_trajectories(mdp, behaviour) <= 2000)
    every = enumerate_trajectories(mdp, behaviour)
    value = float(mdp.initial @ evaluate(mdp, target)[0])
    q = np.random.default_rng(0).normal(size=target.shape)
    q[:, ~mdp.action_mask] = -np.inf
    mine, theirs = occupancy(mdp, target), occupancy(mdp, behaviour)
    ratio = np.divide(mine, theirs, out=np.zeros_like(mine), where=theirs > 0)
    found = {
        "trajectory": importance_sampling(every.data, target, behaviour, per_decision=False),
        "per-decision": importance_sampling(every.data, target, behaviour),
        "doubly-robust": doubly_robust(every.data, target, behaviour, q),
        "marginalised": marginalised_sampling(every.data, target, ratio),
    }
    for method, estimate in found.items():
        assert estimate.covered and estimate.unbiased
        assert every.probability @ estimate.terms == pytest.approx(value, abs=1e-12 * size(mdp))
        spread = every.probability @ (estimate.terms - value) ** 2
        control = q if method == "doubly-robust" else None
        wanted = ope_variance(mdp, target, behaviour, method, control)
        assert wanted == pytest.approx(spread, abs=1e-11 * size(mdp) ** 2)


def estimates(data, target, behaviour):
    """Every estimate and learned table that treats states alike, by name: value, error and what is uncovered."""
    found = {
        f"importance {per_decision} {weighted}": importance_sampling(
            data, target, behaviour, per_decision=per_decision, weighted=weighted
        )
        for per_decision in (True, False)
        for weighted in (True, False)
    }
    found["marginalised"] = marginalised_sampling(data, target)
    found["pooled"] = marginalised_sampling(data, target, staged=False)
    found["fitted"] = fqe(data, target).estimate
    pairs = data.n_states * data.n_actions
    one_hot = np.eye(pairs).reshape(data.n_states, data.n_actions, pairs)
    found["linear"] = lstdq(data, target, one_hot).estimate
    return found


def alike(left, right):
    assert left.uncovered == right.uncovered
    np.testing.assert_allclose(left.value, right.value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(left.standard_error, right.standard_error, rtol=1e-6, atol=1e-6)


def drawn(data, mdp):
    """Data of the model, uniform behaviour, and a target: any, or half of it uniform (covering more)."""
    target = table(data.draw(policies(mdp)), mdp)
    target = data.draw(st.sampled_from([target, (target + uniform(mdp)) / 2]))
    return data.draw(datasets(mdp)), target, uniform(mdp)


@given(MODELS, st.data())
def test_order_of_rows_and_numbers_of_trajectories_are_irrelevant(mdp, data):
    rows, target, behaviour = drawn(data, mdp)
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    columns = [column[order] for column in rows.columns.values()]
    columns[0] = 5 * columns[0] + 3
    # A view with strides: what is not contiguous is copied, not misread.
    columns = [np.repeat(column, 2)[::2] for column in columns]
    moved = Dataset(*columns, rows.n_states, rows.n_actions, rows.horizon)
    before, after = estimates(rows, target, behaviour), estimates(moved, target, behaviour)
    for name, estimate in before.items():
        alike(after[name], estimate)
    np.testing.assert_allclose(fqi(moved).q, fqi(rows).q, rtol=1e-12, atol=1e-12)
    limits = float(rows.reward.min()), float(rows.reward.max())
    lower = [vi_lcb(part, reward_range=limits, split=False).q for part in (rows, moved)]
    np.testing.assert_allclose(*lower, rtol=1e-12, atol=1e-12)


@given(MODELS, st.data())
def test_names_of_states_and_actions_are_irrelevant(mdp, data):
    rows, target, behaviour = drawn(data, mdp)
    states = np.array(data.draw(st.permutations(range(mdp.n_states))))
    actions = np.array(data.draw(st.permutations(range(mdp.n_actions))))
    columns = [rows.trajectory, rows.step, states[rows.state], actions[rows.action], rows.reward]
    moved = Dataset(*columns, states[rows.next_state], rows.n_states, rows.n_actions, rows.horizon)

    def renamed(values):
        found = np.empty_like(values)
        found[:, states[:, np.newaxis], actions] = values
        return found

    before, after = estimates(rows, target, behaviour), estimates(moved, renamed(target), renamed(behaviour))
    for name, estimate in before.items():
        names = tuple(sorted((h, int(states[s]), int(actions[a])) for h, s, a in estimate.uncovered))
        assert after[name].uncovered == names
        np.testing.assert_allclose(after[name].value, estimate.value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fqi(moved).q, renamed(fqi(rows).q), rtol=1e-12, atol=1e-12)
    weights, moved_weights = (
        marginalised_weights(part, policy)[0] for part, policy in ((rows, target), (moved, renamed(target)))
    )
    np.testing.assert_allclose(moved_weights, renamed(weights), rtol=1e-12, atol=1e-12)


@given(MODELS, st.data())
def test_uncovered_pairs_are_named_and_nothing_else_is(mdp, data):
    rows, target, _ = drawn(data, mdp)
    # Plain walk through the rows: which states the target meets by transitions that the data show.
    shown = {(int(h), int(s), int(a)) for h, s, a in zip(rows.step, rows.state, rows.action, strict=True)}
    met, missing = {int(s) for s in rows.state[rows.step == 0]}, []
    for h in range(mdp.horizon):
        played = [(h, s, int(a)) for s in sorted(met) for a in np.flatnonzero(target[h, s] > 0)]
        missing += [pair for pair in played if pair not in shown]
        kept = [(h, int(s), int(a)) in played for s, a in zip(rows.state, rows.action, strict=True)]
        met = {int(s) for s in rows.next_state[(rows.step == h) & kept]}
    for estimate in (marginalised_sampling(rows, target), fqe(rows, target).estimate):
        assert list(estimate.uncovered) == missing
        assert np.isinf(estimate.value) == bool(missing) and estimate.covered == (not missing)
        assert not np.isnan(estimate.standard_error)
        if missing:
            assert estimate.interval() == (-np.inf, np.inf)
            assert str(missing[0]) in repr(estimate)
    if not missing:
        model = FiniteHorizonMDP(*empirical(rows), horizon=mdp.horizon)
        starts = np.bincount(rows.state[rows.step == 0], minlength=mdp.n_states)
        value = starts / starts.sum() @ evaluate(model, target)[0]
        assert fqe(rows, target).estimate.value == pytest.approx(value, abs=1e-11 * size(mdp))


def empirical(rows):
    """Frequencies and means of every pair, row by row; a pair without rows stays where it is, for nothing."""
    shape = rows.horizon, rows.n_states, rows.n_actions
    count, paid = np.zeros((*shape, rows.n_states)), np.zeros(shape)
    for h, s, a, r, t in zip(*list(rows.columns.values())[1:], strict=True):
        count[h, s, a, t] += 1
        paid[h, s, a] += r
    visits = count.sum(axis=-1)
    for h, s, a in np.argwhere(visits == 0):
        count[h, s, a, s] = 1
    return count / np.maximum(visits, 1)[..., np.newaxis], paid / np.maximum(visits, 1)


@given(MODELS, st.data())
def test_an_action_that_behaviour_never_plays_is_named(mdp, data):
    rows, target, behaviour = drawn(data, mdp)
    place = data.draw(st.integers(0, len(rows) - 1))
    h, s, a = (int(column[place]) for column in (rows.step, rows.state, rows.action))
    assume(mdp.action_mask[s].sum() > 1)
    wrong = behaviour.copy()
    wrong[h, s, a] = 0.0
    wrong[h, s] /= wrong[h, s].sum()
    text = f"plays action {a} in state {s} at step {h}, to which behaviour gives probability 0"
    for estimator in (importance_sampling, doubly_robust):
        with pytest.raises(ValueError, match=text):
            estimator(rows, target, wrong)


@given(MODELS, st.data())
def test_rewards_shift_and_scale(mdp, data):
    rows, target, behaviour = drawn(data, mdp)
    columns = list(rows.columns.values())
    moved = Dataset(*columns[:4], 3.0 - 2.0 * rows.reward, columns[5], rows.n_states, rows.n_actions, rows.horizon)
    for name, estimate in estimates(rows, target, behaviour).items():
        if name.startswith("importance") and name.endswith("False"):
            continue  # the weights do not sum to n: no shift without self-normalisation
        if np.isfinite(estimate.value):
            wanted = 3.0 * rows.horizon - 2.0 * estimate.value
            other = estimates(moved, target, behaviour)[name]
            assert other.value == pytest.approx(wanted, rel=1e-9, abs=1e-9 * size(mdp))
            np.testing.assert_allclose(other.standard_error, 2 * estimate.standard_error, atol=1e-6 * size(mdp))
