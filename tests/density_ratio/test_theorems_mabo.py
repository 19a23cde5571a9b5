"""Offline oracles are CC-bounded: theorems hold, what is broken is refuted at every seed."""

import re
from pathlib import Path

import numpy as np
import pytest

import theoryrl
from theoryrl.density_ratio._theorems_mabo import THEOREMS, cc_bound, cc_protocol, laws_of, mabo_cr_setup, members_of
from theoryrl.density_ratio.problem import units_of
from theoryrl.mdp.evaluation import evaluate, occupancy
from theoryrl.mdp.random import random_mdp

CONTROLS = [(theorem, control) for theorem in THEOREMS for control in theorem.controls]


def measured(protocol, model, seed, runs):
    return protocol(model, rng=np.random.SeedSequence(seed), runs=runs, jobs=1, progress=None)


@pytest.mark.slow
@pytest.mark.parametrize("theorem", THEOREMS, ids=lambda theorem: theorem.key)
def test_the_bound_holds_and_says_something(theorem):
    model = theorem.default_model()
    seen = measured(theorem.protocol, model, 1, 20)
    assert not seen.failures.any()
    assert seen.remark == ""
    # Members that lose more than the bound are there to be chosen.
    values = [model.initial @ evaluate(model, policy)[0] for policy in members_of(model).greedy()]
    assert (seen.bound < (max(values) - min(values)) / units_of(model).scale).all()


@pytest.mark.slow
@pytest.mark.parametrize(("theorem", "control"), CONTROLS, ids=lambda entry: getattr(entry, "name", None))
def test_what_is_broken_is_refuted_at_every_seed(theorem, control):
    for seed in range(10):
        seen = measured(control.protocol, control.model(), seed, control.runs)
        # At level 0.05, eleven failures of twenty have probability 1e-9.
        assert seen.failures.sum() >= 11
        assert (seen.bound < 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_other_models(seed):
    """More states, more actions, a mask, stages: nothing fails."""
    rng = np.random.default_rng(seed)
    model = random_mdp(3, 3, 3, rng, staged=bool(seed % 2))
    for theorem in THEOREMS:
        seen = measured(theorem.protocol, model, seed, 4)
        assert not seen.failures.any()


def test_laws_of_adaptive_data_are_all_mixtures():
    masses = np.arange(3.0)[:, np.newaxis, np.newaxis, np.newaxis] + np.zeros((3, 1, 1, 1))
    assert laws_of("fixed", masses).ravel().tolist() == [0.0]
    np.testing.assert_allclose(laws_of("adaptive", masses).ravel(), [2 / 3, 1.0, 4 / 3])


def test_the_bound_by_hand():
    """One state, two arms, uniform data: both ratios are 2, so that CC = 2 for clipping levels of at least 2."""
    model = random_mdp(1, 2, 1, np.random.default_rng(0))
    masses = np.stack([occupancy(model, policy) for policy in (np.full((1, 2), 0.5), np.array([0]), np.array([1]))])
    setup = mabo_cr_setup(model, masses[:1], masses[1:], 3000, gamma=0.01)
    a, b = setup.constants
    found = cc_bound(setup, masses[1], masses[2], masses[0], 3000)
    np.testing.assert_allclose(found, a / 30 * 4 + b * 0.01, rtol=1e-12)


def test_proofs_are_where_they_are_said_to_be():
    for theorem in THEOREMS:
        page, anchor = theorem.proof.anchor.split("#")
        text = (Path(theoryrl.__file__).parent.parent / page).read_text()
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        slugs = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert anchor in slugs | set(re.findall(r"^\((.*)\)=$", text, re.MULTILINE))
        assert f"`{theorem.key}`" in text


@pytest.mark.parametrize("runs", [2])
def test_both_kinds_of_data_take_turns(runs):
    """Without the compiler too, on few data."""
    model = random_mdp(2, 2, 2, np.random.default_rng(3))
    seen = measured(lambda *args, **kw: cc_protocol(*args, build=mabo_cr_setup, episodes=60, **kw), model, 0, runs)
    assert seen.bound[0] != seen.bound[1]
    assert seen.remark.startswith("too few episodes")
