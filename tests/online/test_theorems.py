"""The registry entries: verdicts on models they were not written for, and controls that turn red."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.online import UCBVI, Uniform
from theoryrl.online._protocols import episodes_for, most_successors, unlucky_bandit, value_rounding
from theoryrl.theory import get, verify

optimism_protocol, regret_protocol = get("ucbvi.optimism").protocol, get("ucbvi.regret").protocol


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


def _measure(protocol, mdp, episodes):
    return protocol(mdp, rng=np.random.SeedSequence(0), runs=2, jobs=1, progress=None, episodes=episodes)


def test_regret_at_the_trivial_bound_is_no_failure_by_rounding():
    # Every first episode loses u - l in every step: K H (u - l) is attained, and 0.6 - 0.5 is below 0.1.
    mdp = FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.5, 0.6]]), horizon=6, reward_range=(0.5, 0.6))
    seen = _measure(regret_protocol, mdp, 20)
    assert (seen.observed > 6 * (0.6 - 0.5)).all() and not seen.failures.any()
    assert (seen.bound < 6 * (0.6 - 0.5) * (1 + 1e-9)).all()


def test_constant_rewards_outside_the_unit_interval():
    mdp = FiniteHorizonMDP(
        np.array([[[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]] * 3), np.full((3, 2), -1.1), horizon=7, name="width 0"
    )
    assert mdp.reward_range == (-1.1, -1.1)
    for protocol in (regret_protocol, optimism_protocol):
        seen = _measure(protocol, mdp, 300)
        assert not seen.failures.any() and (seen.bound < 1e-8).all()


def test_rows_off_one_are_no_failure_of_optimism():
    # V* of floats that are not normalised exceeds the cap H; V* of the model does not.
    mdp = FiniteHorizonMDP(np.full((2, 2, 2), 0.5 + 2e-10), np.ones((2, 2)), horizon=4)
    seen = _measure(optimism_protocol, mdp, 20)
    assert (seen.observed > 1e-9).all() and not seen.failures.any() and (seen.bound < 1e-7).all()


@pytest.mark.parametrize("law", ["mean", "outcome"])
def test_value_rounding_covers_the_exact_value(law):
    pytest.importorskip("flint")
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.dirichlet(np.ones(4), size=(4, 2)) * (1 + rng.uniform(-9e-10, 9e-10, size=(4, 2, 1)))
        reward = (
            {"reward": rng.normal(size=(4, 2))} if law == "mean" else {"outcome_reward": rng.normal(size=rows.shape)}
        )
        start = rng.dirichlet(np.ones(4)) * (1 + rng.uniform(-9e-10, 9e-10))
        mdp = FiniteHorizonMDP(rows, **reward, horizon=5, initial=start)
        computed = float(mdp.initial @ trl.backward_induction(mdp).value[0])
        assert abs(Fraction(trl.exact_value(mdp)) - Fraction(computed)) <= value_rounding(mdp) <= 1e-6


@pytest.mark.slow
def test_a_bound_that_says_nothing_says_so():
    lake = trl.from_gymnasium("FrozenLake-v1")
    report = verify(dataclasses.replace(get("ucbvi.regret"), controls=get("ucbvi.regret").controls[:1]), lake, runs=2)
    assert "trivial K H" in report.note
    river = trl.envs.make("riverswim", n_states=3, horizon=4)
    seen = regret_protocol(river, rng=np.random.SeedSequence(0), runs=1, jobs=1, progress=None, episodes=20_000)
    assert seen.remark == "" and seen.series["bound"][-1] < seen.series["trivial"][-1]


def test_work_is_bounded():
    big = trl.random_mdp(30, 4, 50, rng=0)
    assert episodes_for(big, 100) >= 200
    assert episodes_for(big, 10**6) == 200
    assert episodes_for(unlucky_bandit(), 1) == 20_000


def test_most_successors():
    assert most_successors(trl.envs.make("riverswim", n_states=5, horizon=4)) == 3
    assert most_successors(unlucky_bandit()) == 1
