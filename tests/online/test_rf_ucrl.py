"""RF-UCRL against a slow twin, and its error bound against exact errors of the empirical model."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import RFUCRL, Problem, hard_rewards, identify, run
from theoryrl.online.verbs import act, observe, plan, stopped
from theoryrl.testing import mdps


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def twin(mdp, settings, data, starts):
    """Table of errors, maxima over actions, and the bound at the start, by the page's formulas."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    G = 1 if mdp.stationary else H
    table = [[0.0] * S for _ in range(H + 1)]
    for h in reversed(range(H)):
        W = H - h - 1
        for s in range(S):
            values = []
            for a in (a for a in range(A) if mdp.action_mask[s, a]):
                seen = data.get((0 if mdp.stationary else h, s, a), [])
                n = len(seen)
                if n == 0:
                    values.append(float(W))
                    continue
                beta = math.log(3 * G * S * A / settings.delta) + math.log(comb(n + S - 1, S - 1))
                mean = sum(table[h + 1][t] for t in seen) / n
                values.append(min(W, settings.scale * W * math.sqrt(beta / (2 * n)) + mean))
            table[h][s] = max(values)
    k = len(starts)
    if k == 0:
        return table, H - 1.0
    rate = (math.log(3 / settings.delta) + math.log(comb(k + S - 1, S - 1))) / k
    y = sum(table[0][s] for s in starts) / k
    extra = math.sqrt(4 * (H - 1) * y * rate) + (math.sqrt(16 / 3) + 1 / 3) * (H - 1) * rate
    return table, min(H - 1.0, y + settings.scale * extra)


def compare_with_twin(settings, slow, target, mdp, seed):
    """Play six episodes, compare every plan with the twin's; returns the number of steps seen."""
    state, tables, rng = settings.init(problem_of(mdp)), sampler(mdp), np.random.default_rng(seed)
    data: dict = {}
    starts = []
    for episode in range(6):
        before = state.policy.copy()
        changed = plan(state, episode)
        assert changed == (not np.array_equal(before, state.policy))
        table, error = slow(mdp, settings, data, starts)
        assert np.allclose(state.error, table[:-1], rtol=0, atol=1e-9)
        assert state.about_start[2] == pytest.approx(error, abs=1e-9)
        assert stopped(state) == (state.about_start[2] <= target)
        s = draw_initial(tables, rng)
        starts.append(s)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            assert mdp.action_mask[s, a]
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            data.setdefault((0 if mdp.stationary else h, s, a), []).append(t)
            s = t
    return int(state.visits.sum())


@given(mdp=mdps(), seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.05]))
def test_twin(mdp, seed, scale):
    assert compare_with_twin(RFUCRL(0.5, 0.1, scale=scale), twin, 0.25, mdp, seed) == 6 * mdp.horizon


def exact_error(mdp, model, policy):
    """Largest error of the empirical value of `policy` at each start, over rewards in [0, 1]."""
    wrong = trl.FiniteHorizonMDP(
        model, np.zeros((mdp.n_states, mdp.n_actions)), horizon=mdp.horizon, action_mask=mdp.action_mask
    )
    errors = []
    for s in range(mdp.n_states):
        one, two = (trl.occupancy(each.with_initial(s), policy) for each in (mdp, wrong))
        errors.append(np.maximum(one - two, 0).sum())
    return np.array(errors)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_the_bound_covers_every_policy_and_reward(mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    result = identify(RFUCRL(1e-9, 1e-6), mdp, 40, rng=seed, keep_states=True)
    state, model = result.states[0], result.models[0]
    rng = np.random.default_rng(seed)
    for _ in range(5):
        scores = np.where(mdp.action_mask, rng.random((mdp.horizon, *mdp.action_mask.shape)), -1.0)
        error = exact_error(mdp, model, scores.argmax(axis=2))
        assert (error <= state.error[0] + 1e-9).all()
        assert float(mdp.initial @ error) <= state.about_start[2] + 1e-9
    if mdp.horizon > 1:
        losses = result.plug_in_losses(hard_rewards(mdp, model, seed, starts=6, rounds=2))
        assert (losses <= 2 * state.about_start[2] + 1e-9).all()


def test_one_layer_needs_no_exploration():
    mdp = trl.random_mdp(3, 2, 1, rng=0)
    result = identify(RFUCRL(1e-3), mdp, 5)
    assert result.stopped[0] and result.episodes[0] == 0
    assert np.abs(result.plug_in_losses(np.random.default_rng(0).random((4, 3, 2)))).max() < 1e-12


def test_rewards_are_not_looked_at():
    mdp = trl.random_mdp(3, 2, 4, rng=1)
    other = mdp.with_reward(np.zeros((3, 2)), reward_range=(-5.0, 7.0))
    one, two = (identify(RFUCRL(0.3), each, 300, rng=2, keep_states=True) for each in (mdp, other))
    assert np.array_equal(one.states[0].visits, two.states[0].visits)
    assert run(RFUCRL(0.3), mdp, 20).least_margin.shape == (1,)
