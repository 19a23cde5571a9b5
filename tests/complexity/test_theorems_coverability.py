"""The coverability theorems come out as expected at any seed and on models of the user's; their controls never hold."""

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.complexity._theorems_coverability import THEOREMS, harmonic, potential_bound

KEYS = [theorem.key for theorem in THEOREMS]


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_as_expected_at_any_seed(key):
    for seed in range(10):
        report = trl.verify(key, rng=seed, runs=1)
        assert report.verdict == "verified", report.note
        assert [control.verdict for control in report.controls] == ["refuted"] * len(report.controls)
        # The bounds are attained on some instance.
        assert report.tightness == pytest.approx(1, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["riverswim", "binary_tree", "garnet"])
def test_models_of_the_library(key, name):
    report = trl.verify(key, trl.envs.make(name))
    assert report.verdict == "verified" and report.as_expected


def test_a_lift_that_is_too_large_is_not_built():
    report = trl.verify("coverability.block-lift", trl.envs.make("riverswim", n_states=300))
    assert report.verdict == "not-applicable" and "300 states are too many" in report.note


def test_harmonic_numbers():
    for n in range(6):
        assert harmonic(n) == pytest.approx(sum(1 / k for k in range(1, n + 1)), abs=1e-14)
    k = np.arange(1, 200_000)
    assert harmonic(2.5) == pytest.approx((2.5 / (k * (k + 2.5))).sum(), abs=2e-5)


def test_disjoint_point_masses_attain_the_potential():
    # Three of them in turn, four times each: every one contributes 1 + 1/2 + 1/3 + 1/4.
    tables = np.eye(3)[np.arange(12) % 3]
    total = np.cumsum(tables, axis=0)
    value = (tables[tables > 0] ** 2 / total[tables > 0]).sum()
    assert value == pytest.approx(potential_bound(3.0, 12), rel=1e-14) == pytest.approx(3 * 25 / 12, rel=1e-14)
