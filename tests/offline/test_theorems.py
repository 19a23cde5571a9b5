import numpy as np
import pytest

from theoryrl.mdp import random_mdp
from theoryrl.theory import get, theorems, verify
from theoryrl.theory.verdict import decide

FAMILY = theorems("offline")
EXACT = [entry for entry in FAMILY if entry.claim == "exact"]


# A hundred runs of a learner take minutes without the compiler.
@pytest.mark.parametrize(
    "key", [pytest.param(entry.key, marks=[pytest.mark.slow] * (entry.claim != "exact")) for entry in FAMILY]
)
def test_theorems_come_out_as_expected(key):
    report = verify(key, rng=0)
    assert report.as_expected, report.note
    assert report.verdict == get(key).expected
    assert all(control.verdict == "refuted" for control in report.controls)


@pytest.mark.slow
@pytest.mark.parametrize("key, name", [(entry.key, control.name) for entry in FAMILY for control in entry.controls])
def test_controls_are_refuted_at_any_seed(key, name):
    entry = get(key)
    control = next(control for control in entry.controls if control.name == name)
    build = control.model or entry.default_model
    for seed in range(10):
        root = np.random.SeedSequence(1000 + seed)
        model = build() if build else None
        seen = control.protocol(model, rng=root, runs=control.runs or entry.default_runs, jobs=1, progress=None)
        assert decide(entry, seen, root).verdict == "refuted", f"seed {seed}"


@pytest.mark.parametrize("entry", EXACT, ids=lambda entry: entry.key)
def test_exact_theorems_on_a_model_of_the_user(entry):
    model = random_mdp(3, 2, 3, np.random.default_rng(11), staged=True)
    report = verify(entry, model, rng=3)
    assert report.verdict == "verified", report.note


def test_too_many_trajectories_are_not_listed():
    report = verify("ope.unbiased", random_mdp(6, 4, 6, np.random.default_rng(0)))
    assert report.verdict == "not-applicable"
    assert "trajectories are more than" in report.note
