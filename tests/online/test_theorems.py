"""The registry entries: verdicts on models they were not written for, and controls that turn red."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.online import UCBVI, Uniform
from theoryrl.online.theorems import episodes_for, most_successors, optimism_protocol, regret_protocol, unlucky_bandit
from theoryrl.theory import get, verify


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ucbvi.optimism", "ucbvi.regret"])
def test_verdict_and_controls(key):
    report = verify(key)
    assert report.verdict == "consistent" and report.as_expected
    assert len(report.controls) == 2 and all(control.verdict == "refuted" for control in report.controls)
    assert report.tightness <= 1


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ucbvi.optimism", "ucbvi.regret"])
def test_time_varying_model_with_losses(key):
    mdp = trl.random_mdp(3, 2, 4, rng=5, staged=True)
    mdp = mdp.with_reward(mdp.reward * -7.0, reward_range=(-7.0, 0.0))
    protocol = partial(get(key).protocol, episodes=300)
    seen = protocol(mdp, rng=np.random.SeedSequence(1), runs=10, jobs=None, progress=None)
    assert not seen.failures.any()


def test_protocols_turn_red_when_the_learner_is_broken():
    seen = optimism_protocol(
        trl.envs.make("riverswim", n_states=3, horizon=4),
        rng=np.random.SeedSequence(0),
        runs=6,
        jobs=1,
        progress=None,
        learner=UCBVI(0.05, scale=0.0),
        episodes=100,
    )
    assert seen.failures.all()
    seen = regret_protocol(
        unlucky_bandit(),
        rng=np.random.SeedSequence(0),
        runs=2,
        jobs=1,
        progress=None,
        learner=Uniform(),
        episodes=60_000,
    )
    assert seen.failures.all()


def test_work_is_bounded():
    big = trl.random_mdp(30, 4, 50, rng=0)
    assert episodes_for(big, 100) >= 200
    assert episodes_for(big, 10**6) == 200
    assert episodes_for(unlucky_bandit(), 1) == 20_000


def test_most_successors():
    assert most_successors(trl.envs.make("riverswim", n_states=5, horizon=4)) == 3
    assert most_successors(unlucky_bandit()) == 1
