import dataclasses
import itertools
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theoryrl.mdp import (
    FiniteHorizonMDP,
    backward_induction,
    evaluate,
    evaluate_discounted,
    exact_value,
    random_mdp,
)
from theoryrl.mdp.rounding import backup_radius, rounding_of
from theoryrl.theory import Control, ExactObservations, get, theorems, verify
from theoryrl.theory import _dp_discounted as discounted
from theoryrl.theory import _dp_linear as linear
from theoryrl.theory import _dp_tools as tools
from theoryrl.theory import dynamic_programming as finite

DOCS = Path(__file__).resolve().parents[2] / "docs" / "theory"
FAMILY = theorems("dp")
CONTROLS = [(entry.key, control.name) for entry in FAMILY for control in entry.controls]
ABOUT_MODELS = [entry for entry in FAMILY if entry.accepts != "none"]


@pytest.fixture(scope="module")
def reports():
    return {entry.key: verify(entry, rng=0, runs=2) for entry in FAMILY}


def alone(entry):
    """The entry without the cost of its controls, which do not depend on the model."""
    false = ExactObservations([1.0], [0.0])
    return dataclasses.replace(entry, controls=(Control("false", "1 <= 0", lambda model, **settings: false),))


# ---- verdicts


def test_the_family_is_complete():
    assert [entry.key for entry in FAMILY] == [
        "dp.optimality",
        "dp.performance-difference",
        "dp.simulation-lemma",
        "dp.lp-duality",
        "dp.contraction",
        "dp.greedy-loss",
        "dp.span-stop",
        "dp.span-stop-uncorrected",
    ]


@pytest.mark.parametrize("key", [entry.key for entry in FAMILY])
def test_every_entry_comes_out_as_expected_and_is_attained(reports, key):
    report = reports[key]
    assert report.as_expected, report.note
    if report.expected == "verified":
        assert 1 - 1e-6 <= report.tightness <= 1 + 1e-6
    else:
        assert report.tightness > 50


@pytest.mark.parametrize("key, name", CONTROLS)
def test_every_control_is_refuted_by_more_than_rounding(reports, key, name):
    control = next(control for control in reports[key].controls if control.name == name)
    seen = control.observations
    assert control.verdict == "refuted"
    excess = np.abs(seen.observed - seen.bound) if seen.relation == "==" else seen.observed - seen.bound
    assert (excess > 1e3 * seen.allowance + 1e-6 * np.abs(seen.bound)).any()


@pytest.mark.parametrize("key", [entry.key for entry in FAMILY if entry.key != "dp.lp-duality"])
def test_allowances_are_rounding_and_nothing_more(reports, key):
    seen = reports[key].observations
    # Values are at most 1000 (discount 0.99, rewards down to -9) and errors a few thousand roundings of them.
    assert seen.allowance.max() < 1e-8


@pytest.mark.parametrize(
    "mdp",
    [
        random_mdp(6, 3, 5, 0, staged=True).renamed("staged"),
        random_mdp(40, 3, 12, 1, branching=4, sparse=True, reward_law="outcome").renamed("outcomes"),
        random_mdp(5, 2, 7, 2).with_reward(np.full((5, 2), -3.0)).renamed("constant"),
        random_mdp(1, 1, 1, 3).renamed("one"),
        FiniteHorizonMDP(
            np.array([[[0.5, 0.5], [np.nan, np.nan]], [[0.5, 0.5], [0.25, 0.75]]]),
            np.array([[1e6, 0.0], [-1e6, 3.0]]),
            horizon=4,
            action_mask=np.array([[True, False], [True, True]]),
            name="masked",
        ),
        FiniteHorizonMDP(np.full((3, 2, 3), (1 + 9e-10) / 3), np.eye(3)[:, :2], horizon=9, name="rows off"),
    ],
    ids=lambda mdp: mdp.name,
)
def test_on_models_of_the_user(mdp):
    for entry in ABOUT_MODELS:
        report = verify(alone(entry), mdp, rng=1)
        assert report.as_expected, (entry.key, report.note)
        if mdp.stationary:
            assert report.verdict == "verified"
            with_discount = entry.accepts == "any"
            assert ("with discount 0.9" in report.model) == with_discount


def test_a_time_varying_model_has_no_discounted_theorem():
    report = verify("dp.contraction", random_mdp(3, 2, 4, 0, staged=True))
    assert report.verdict == "not-applicable"
    assert "time-varying" in report.note


def test_a_discounted_model_keeps_its_discount():
    mdp = random_mdp(4, 2, 1, 0).with_discount(0.7).renamed("mine")
    assert verify("dp.greedy-loss", mdp).model == "mine"
    assert verify("dp.optimality", mdp).verdict == "not-applicable"


def test_large_models_are_cut_for_the_linear_program(monkeypatch):
    monkeypatch.setattr(linear, "VARIABLES", 100)
    report = verify("dp.lp-duality", random_mdp(4, 2, 20, 0).renamed("wide"))
    assert (report.verdict, "horizon cut to 12" in report.model) == ("verified", True)
    assert verify("dp.lp-duality", random_mdp(17, 6, 2, 0)).verdict == "not-applicable"


def test_the_same_seed_gives_the_same_observations():
    for key in ("dp.performance-difference", "dp.greedy-loss"):
        entry = alone(get(key))
        first, second, other = (verify(entry, rng=seed, runs=1).observations.observed for seed in (5, 5, 6))
        assert np.array_equal(first, second)
        assert not np.array_equal(first, other)


# ---- the pieces, against independent arithmetic


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), index=st.integers(0, 4))
def test_simulation_bound_holds_in_exact_arithmetic(seed, index):
    """Returns and distances as fractions: no rounding, no allowance."""
    rng = np.random.default_rng(seed)
    mdp = random_mdp(3, 2, int(rng.integers(1, 6)), rng, staged=bool(rng.integers(2)))
    rows, rewards = finite.PERTURBATIONS[index]
    other, _ = finite._perturbed(mdp, rows, rewards, rng)
    policy = rng.integers(0, 2, size=(mdp.horizon, 3))
    e = max(
        sum(abs(p - q) for p, q in zip(normal(a), normal(b), strict=True)) / 2
        for a, b in zip(mdp.transition.reshape(-1, 3), other.transition.reshape(-1, 3), strict=True)
    )
    r, r_other = ([Fraction(x) for x in m.reward.ravel().tolist()] for m in (mdp, other))
    e_r = max(abs(a - b) for a, b in zip(r, r_other, strict=True))
    span = max(r + r_other) - min(r + r_other)
    bound = sum((1 - e) ** h * e_r + (1 - (1 - e) ** h) * span for h in range(mdp.horizon))
    classical = mdp.horizon * e_r + e * span * mdp.horizon * (mdp.horizon - 1) / 2
    gap = abs(Fraction(exact_value(mdp, policy)) - Fraction(exact_value(other, policy)))
    assert gap <= bound <= classical
    assert e <= Fraction(rows) + Fraction(1, 10**14)
    assert abs(float(bound) - finite.simulation_bound(mdp.horizon, float(e), float(e_r), float(span))) < 1e-12


def normal(row):
    weights = [Fraction(w) for w in row.tolist()]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize("horizon, rows, rewards", [(1, 0.5, 0.25), (6, 0.125, 0.0), (9, 0.25, 0.5), (5, 1.0, 1.0)])
def test_the_chain_attains_the_simulation_bound_exactly(horizon, rows, rewards):
    first, second = finite.tight_chain(horizon, rows, rewards)
    gap = Fraction(exact_value(first)) - Fraction(exact_value(second))
    e, e_r = Fraction(rows), Fraction(rewards)
    assert gap == sum((1 - e) ** h * e_r + (1 - (1 - e) ** h) for h in range(horizon))


def test_simulation_bound_with_a_reward_error_above_the_range():
    assert finite.simulation_bound(4, 0.25, 7.0, 2.0) == 8.0  # never more than H R
    assert finite.simulation_bound(3, 2.0, 0.0, 1.0) == 2.0  # a distance is at most 1


@pytest.mark.parametrize("discount", [0.5, 0.75, 0.875, 1 - 2.0**-7])
def test_the_tight_model_attains_the_greedy_loss(discount):
    mdp, value = discounted.tight_model(discount, 0.125)
    policy = np.argmax(tools.backup(mdp, 0, value), axis=1)
    loss = -evaluate_discounted(mdp, policy)[0]
    assert loss == pytest.approx(discounted.greedy_loss_bound(discount, 0.125), rel=1e-12)
    assert Fraction(exact_value(mdp)) == 0


def test_span_stopping_ends_where_it_says():
    mdp = random_mdp(8, 3, 1, 0).with_discount(0.95)
    value, before, low, high = discounted._span_iteration(mdp, 1e-3)
    assert (low, high) == ((value - before).min(), (value - before).max())
    assert high - low <= 1e-3 * 0.05 / 0.95 + 1e-15
    middle = value + 0.95 / 0.05 * (low + high) / 2
    best = np.max([evaluate_discounted(mdp, np.array(f)) for f in itertools.product(range(3), repeat=8)], axis=0)
    assert np.abs(middle - best).max() <= 0.5e-3 + 1e-10
    assert np.abs(value - best).max() > 1


def test_a_nan_is_the_worst_entry():
    seen = tools.Instances([])
    zero = tools.Enclosed(np.zeros((3, 2)), np.zeros((3, 2)))
    broken = tools.Enclosed(np.array([[0.0, 0.5], [np.nan, 0.0], [0.0, 0.0]]), np.zeros((3, 2)))
    finite._worst(seen, "V", broken, zero)
    assert np.isnan(seen.observations().observed).all()


def test_policies_of_tiny_models_are_all_of_them():
    mdp = random_mdp(2, 2, 2, 0)
    listed = [policy.tolist() for _, policy in tools.policies(mdp, np.random.default_rng(0), 3)]
    assert len({str(policy) for policy in listed}) == len(listed) == 16
    wide = random_mdp(6, 3, 4, 0)
    assert len(list(tools.policies(wide, np.random.default_rng(0), 3))) == 3


@given(seed=st.integers(0, 10**6))
def test_random_policies_are_exact_distributions(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((4, 5)) < 0.5
    mask[:, 0] = True
    mdp = FiniteHorizonMDP(np.full((4, 5, 4), 0.25), np.zeros((4, 5)), horizon=3, action_mask=mask)
    policy = tools.random_policy(mdp, rng, stochastic=True)
    assert (policy[:, ~mask] == 0).all()
    for row in policy.reshape(-1, 5):
        assert sum(Fraction(p) for p in row.tolist()) == 1
        assert min(row) >= 0
    assert np.isfinite(evaluate(mdp, tools.random_policy(mdp, rng, stochastic=False))).all()


def test_backup_radius_covers_the_rounding():
    rng = np.random.default_rng(0)
    for off in (0.0, 9e-10):
        mdp = random_mdp(30, 2, 1, rng)
        mdp = FiniteHorizonMDP(mdp.transition * (1 + off), mdp.reward - 0.5, horizon=1)
        value = rng.normal(size=30)
        q = tools.backup(mdp, 0, value)
        radius = Fraction(backup_radius(mdp, rounding_of(mdp), value))
        for s in range(30):
            for a in range(2):
                exact = Fraction(float(mdp.reward[s, a])) + sum(
                    p * Fraction(v) for p, v in zip(normal(mdp.transition[s, a]), value.tolist(), strict=True)
                )
                assert abs(Fraction(float(q[s, a])) - exact) <= radius


def test_a_solver_with_a_fault_would_be_refuted(monkeypatch):
    """A planner that forgets the last reward is found out by the entry itself, not only by its control."""
    real = backward_induction
    monkeypatch.setattr(finite, "backward_induction", lambda mdp: real(finite._without_last_reward(mdp)))
    assert verify(alone(get("dp.optimality")), rng=0, runs=1).verdict == "refuted"


def test_a_wrong_occupancy_would_be_refuted(monkeypatch):
    real = finite.occupancy
    monkeypatch.setattr(finite, "occupancy", lambda mdp, policy: np.roll(real(mdp, policy), 1, axis=0))
    assert verify(alone(get("dp.performance-difference")), rng=0, runs=1).verdict == "refuted"


# ---- documentation


@pytest.mark.parametrize("entry", FAMILY, ids=lambda entry: entry.key)
def test_proofs_are_written(entry):
    page, anchor = entry.proof.anchor.split("#")
    text = (DOCS.parents[1] / page).read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^##+ (.*)$", text, re.M)
    }
    assert anchor in headings
    assert f"`{entry.key}`" in text


def test_bounds_are_the_formulas():
    assert finite.simulation_bound(3, 0.5, 0.25, 1.0) == 0.25 + (0.125 + 0.5) + (0.0625 + 0.75)
    assert discounted.greedy_loss_bound(0.75, 0.5) == 3.0
