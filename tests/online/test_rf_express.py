"""RF-Express against a slow twin, its error bound against exact errors, and planning for many rewards."""

from __future__ import annotations

import importlib.util
import math
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.online import RFUCRL, RFExpress, hard_rewards, identify
from theoryrl.online._theorems_identification import two_coins
from theoryrl.online.rf_express import express_target
from theoryrl.testing import mdps

_spec = importlib.util.spec_from_file_location("rf_ucrl_twin", Path(__file__).parent / "test_rf_ucrl.py")
assert _spec is not None and _spec.loader is not None
shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shared)


def twin(mdp, settings, data, starts):
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    G = 1 if mdp.stationary else H
    table = [[0.0] * S for _ in range(H + 1)]
    for h in reversed(range(H - 1)):
        for s in range(S):
            values = []
            for a in (a for a in range(A) if mdp.action_mask[s, a]):
                seen = data.get((0 if mdp.stationary else h, s, a), [])
                n = len(seen)
                if n == 0:
                    values.append(H - h - 1.0)
                    continue
                beta = math.log(3 * G * S * A / settings.delta) + math.log(comb(n + S - 1, S - 1))
                mean = sum(table[h + 1][t] for t in seen) / n
                width = settings.scale * (2 * H + 3) * (H - 1) * beta / n
                values.append(min(H - h - 1, width + (1 + 1 / H) * mean))
            table[h][s] = max(values)
    k = len(starts)
    if k == 0:
        return table, H - 1.0
    rate = (math.log(3 / settings.delta) + math.log(comb(k + S - 1, S - 1))) / k
    y = sum(table[0][s] for s in starts) / k
    extra = math.sqrt(4 * (H - 1) * y * rate) + (math.sqrt(16 / 3) + 1 / 3) * (H - 1) * rate
    return table, min(H - 1.0, y + settings.scale * extra)


@given(mdp=mdps(), seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.005]))
def test_twin(mdp, seed, scale):
    settings = RFExpress(3.0, 0.1, scale=scale)
    target = ((-math.sqrt(math.e) + math.sqrt(math.e + 6)) / 2) ** 2
    assert shared.compare_with_twin(settings, twin, target, mdp, seed) == 6 * mdp.horizon


@given(st.floats(1e-6, 1e3))
def test_target(epsilon):
    x = express_target(epsilon)
    assert 2 * (math.sqrt(math.e * x) + x) == pytest.approx(epsilon, rel=1e-12)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_the_bound_covers_every_policy_and_reward(mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    result = identify(RFExpress(1e-9, 1e-6), mdp, 40, rng=seed, keep_states=True)
    state, rng = result.states[0], np.random.default_rng(seed)
    for _ in range(5):
        scores = np.where(mdp.action_mask, rng.random((mdp.horizon, *mdp.action_mask.shape)), -1.0)
        error = shared.exact_error(mdp, result.models[0], scores.argmax(axis=2))
        assert (error <= np.sqrt(math.e * state.error[0]) + state.error[0] + 1e-9).all()


@pytest.mark.slow
def test_late_in_a_run_the_bound_is_neither_broken_nor_idle():
    mdp = trl.random_mdp(3, 2, 3, rng=4)
    result = identify(RFExpress(1e-9, 0.05), mdp, 30_000, rng=1, keep_states=True)
    state = result.states[0]
    assert state.error[0].max() < 0.5
    losses = result.plug_in_losses(hard_rewards(mdp, result.models[0], 3))
    assert 0 < losses.max() <= 2 * (math.sqrt(math.e * state.about_start[2]) + state.about_start[2])


def test_one_data_set_serves_every_reward():
    mdp = two_coins()
    result = identify(RFExpress(0.8), mdp, 100_000, seeds=2)
    assert result.stopped.all()
    rewards = np.concatenate([np.random.default_rng(0).random((200, 2, 3, 2)), hard_rewards(mdp, result.models[0])])
    losses = result.plug_in_losses(rewards)
    assert losses.shape == (2, len(rewards)) and (losses <= 0.8).all()


def test_it_beats_rf_ucrl_once_the_horizon_and_the_accuracy_are_large():
    # The order of the bounds, H^3 against H^4.
    from theoryrl.online.bounds import rf_express_sample_bound, rf_ucrl_sample_bound

    sizes = dict(n_states=2, n_actions=2, horizon=200, delta=0.05, stationary=False)
    assert rf_express_sample_bound(0.1, **sizes) < rf_ucrl_sample_bound(0.1, **sizes)
    small = dict(n_states=2, n_actions=2, horizon=3, delta=0.05)
    assert rf_express_sample_bound(1.0, **small) > rf_ucrl_sample_bound(1.0, **small)
    assert not RFExpress(scale=0.5).provable and RFUCRL().provable
