"""The entries of UCBVI's other forms: verdicts, other models, controls at seeds they were not written for."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.online._theorems_ucbvi_forms import THEOREMS
from theoryrl.theory import get, verify

KEYS = [theorem.key for theorem in THEOREMS]


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_verdict_and_controls(key):
    report = verify(key)
    assert report.verdict == "consistent" and report.as_expected
    assert report.controls and all(control.verdict == "refuted" for control in report.controls)
    assert "trivial" not in report.note


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_time_varying_model_with_losses(key):
    mdp = trl.random_mdp(3, 2, 4, rng=5, staged=True)
    mdp = mdp.with_reward(mdp.reward * -7.0, reward_range=(-7.0, 0.0))
    protocol = partial(get(key).protocol, episodes=300)
    seen = protocol(mdp, rng=np.random.SeedSequence(1), runs=10, jobs=None, progress=None)
    assert not seen.failures.any()


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("seed", range(10))
def test_controls_fail_at_any_seed(key, seed):
    for control in get(key).controls:
        seen = control.protocol(
            control.model(), rng=np.random.SeedSequence([seed, 7]), runs=20, jobs=None, progress=None
        )
        assert seen.failures.sum() >= 1
