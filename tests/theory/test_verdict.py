import math

import numpy as np
import pytest

from theoryrl.theory import Verdict
from theoryrl.theory.theorem import ExactObservations, ProbabilityObservations, RateObservations
from theoryrl.theory.verdict import decide_exact, decide_probability, decide_rate

SEEDS = np.random.SeedSequence(0)

# ---- exact


def test_exact_holds_and_reports_the_tightest_instance():
    decision = decide_exact(ExactObservations([1.0, 0.5], [2.0, 0.8]))
    assert decision.verdict == Verdict.VERIFIED
    assert decision.tightness == 0.625


def test_exact_names_the_worst_instance():
    decision = decide_exact(ExactObservations([1.0, 5.0, 3.0], 2.0, labels=("a", "b", "c")))
    assert decision.verdict == Verdict.REFUTED
    assert decision.tightness == 2.5
    assert "2 of 3 fail; worst is instance 1 (b): 5 <= 2 is false" in decision.note


def test_exact_allowance_decides_at_the_edge():
    observed = 1.0 + 2**-50
    assert decide_exact(ExactObservations([observed], [1.0], 2**-50)).verdict == Verdict.VERIFIED
    assert decide_exact(ExactObservations([observed], [1.0], 2**-51)).verdict == Verdict.REFUTED


@pytest.mark.parametrize("relation", ["<=", "=="])
@pytest.mark.parametrize(
    "observed, bound, allowance",
    [
        ([0.0, math.nan], [1.0, 1.0], 2.0),
        ([0.0, 0.0], [1.0, math.nan], 2.0),
        ([0.0, 0.0], [1.0, 1.0], [2.0, math.nan]),
        ([math.nan] * 2, [math.nan] * 2, 2.0),
    ],
)
def test_exact_nan_refutes(observed, bound, allowance, relation):
    decision = decide_exact(ExactObservations(observed, bound, allowance, relation=relation))
    assert decision.verdict == Verdict.REFUTED
    assert "nan" in decision.note or allowance == [2.0, math.nan]


def test_identity():
    held = decide_exact(ExactObservations([-1.0, 0.0], [-1.0, 1e-16], 1e-15, relation="=="))
    assert held[:2] == (Verdict.VERIFIED, 1.0)
    broken = decide_exact(ExactObservations([-1.0, 0.0], [-1.0, 1e-14], 1e-15, relation="=="))
    assert broken.verdict == Verdict.REFUTED
    assert math.isnan(broken.tightness)
    # Smaller than the other side is no excuse for an identity.
    assert decide_exact(ExactObservations([0.0], [1.0], relation="==")).verdict == Verdict.REFUTED


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([], []), "observed is empty"),
        (([[1.0]], [1.0]), "observed has shape"),
        (([1.0, 2.0], [1.0]), "bound has 1 entries, not 2"),
        (([1.0], [1.0], -1.0), r"allowance\[0\] is -1.0"),
        (([1.0], [1.0], math.inf), r"allowance\[0\] is inf"),
        (([1.0], [1.0], 0.0, ("a", "b")), "labels has 2"),
        (([1.0], [1.0], 0.0, (), "<"), "relation"),
    ],
)
def test_exact_observations_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExactObservations(*arguments)


def test_observations_are_read_only_copies():
    observed = np.array([1.0])
    seen = ExactObservations(observed, 2.0)
    observed[0] = 7.0
    assert seen.observed[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        seen.observed[0] = 0.0


# ---- probability


def outcomes(failures, runs):
    failed = np.zeros(runs, dtype=bool)
    failed[np.linspace(runs - 1, 0, failures, endpoint=False).astype(int)] = True
    return ProbabilityObservations(np.where(failed, 2.0, 0.5), 1.0)


@pytest.mark.parametrize(
    "failures, runs, verdict",
    [
        (0, 90, "consistent"),
        (0, 89, "inconclusive"),
        (5, 5, "refuted"),
        (3, 3, "inconclusive"),
        (5, 100, "inconclusive"),
        (20, 1000, "consistent"),
        (120, 1000, "refuted"),
    ],
)
def test_probability(failures, runs, verdict):
    assert decide_probability(outcomes(failures, runs), 0.05).verdict == verdict


def test_probability_says_how_many_runs_decide():
    assert "about 90 runs would decide" in decide_probability(outcomes(0, 20), 0.05).note
    assert "no number of runs" in decide_probability(outcomes(5, 100), 0.05).note


def test_an_early_burst_refutes_by_the_e_process_where_the_binomial_bound_would_not():
    late = np.zeros(400, dtype=bool)
    late[:8] = True
    decision = decide_probability(ProbabilityObservations(np.zeros(400), 1.0, late), 0.05)
    assert decision.verdict == "refuted"
    assert decide_probability(ProbabilityObservations(np.zeros(400), 1.0, late[::-1]), 0.05).verdict != "refuted"


@pytest.mark.parametrize("side", ["observed", "bound"])
def test_a_run_with_nan_is_a_failure_whatever_the_protocol_says(side):
    values = {"observed": np.zeros(100), "bound": np.ones(100)}
    values[side][:10] = math.nan
    for failures in (None, np.zeros(100, dtype=bool)):
        seen = ProbabilityObservations(**values, failures=failures)
        assert seen.failures.sum() == 10
        decision = decide_probability(seen, 0.05)
        assert decision.verdict == "refuted"
        assert math.isnan(decision.tightness)


def test_undecided_runs_speak_neither_for_a_claim_nor_against_it():
    def judged(failed, undecided, runs):
        order = np.arange(runs)
        seen = ProbabilityObservations(np.zeros(runs), 1.0, order < failed, undecided=order < failed + undecided)
        assert seen.undecided.sum() == undecided  # a run that failed is decided
        return decide_probability(seen, 0.05)

    assert judged(0, 0, 1000).verdict == "consistent"
    assert judged(0, 20, 1000).verdict == "consistent"  # as with 20 failures
    assert judged(0, 60, 1000).verdict == "inconclusive"
    assert judged(0, 1000, 1000).verdict == "inconclusive"
    assert "1000 of them undecided" in judged(0, 1000, 1000).note
    assert judged(10, 0, 10).verdict == judged(10, 900, 910).verdict == "refuted"
    with pytest.raises(ValueError, match="undecided is int64"):
        ProbabilityObservations([0.0], [1.0], undecided=np.array([1]))


def test_failures_are_boolean_and_one_per_run():
    with pytest.raises(ValueError, match="failures is int64"):
        ProbabilityObservations([0.0], [1.0], np.array([0]))
    with pytest.raises(ValueError, match="shape"):
        ProbabilityObservations([0.0], [1.0], np.array([True, False]))


# ---- rate

X = np.array([1.0, 2.0, 4.0, 8.0])


def rate(exponent, *, noise=0.0, upper=False, seeds=20, tolerance=0.05):
    factors = np.random.default_rng(3).uniform(1 - noise, 1 + noise, size=(seeds, X.size))
    return RateObservations(X, X**exponent * factors, predicted=0.5, tolerance=tolerance, upper=upper)


@pytest.mark.parametrize(
    "arguments, verdict",
    [
        (dict(exponent=0.5), "consistent"),
        (dict(exponent=0.7), "refuted"),
        (dict(exponent=0.3), "refuted"),
        (dict(exponent=0.3, upper=True), "consistent"),
        (dict(exponent=0.7, upper=True), "refuted"),
        (dict(exponent=0.55, noise=0.5), "inconclusive"),
        (dict(exponent=0.62, noise=0.5), "inconclusive"),
        (dict(exponent=0.5, seeds=4), "inconclusive"),
    ],
)
def test_rate(arguments, verdict):
    assert decide_rate(rate(**arguments), SEEDS).verdict == verdict


def test_rate_tightness_and_advice():
    assert decide_rate(rate(0.25, upper=True), SEEDS).tightness == pytest.approx(0.5)
    assert "seeds would decide" in decide_rate(rate(0.55, noise=0.5), SEEDS).note


@pytest.mark.parametrize("bad", [math.nan, math.inf, -100.0])
def test_rate_without_a_logarithm_is_never_consistent(bad):
    y = np.tile(X**0.5, (10, 1))
    y[4, 2] = bad
    decision = decide_rate(RateObservations(X, y, predicted=0.5, tolerance=10.0), SEEDS)
    assert decision.verdict == "inconclusive"
    assert math.isnan(decision.tightness)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x=[1.0]), "two or more"),
        (dict(x=[1.0, 1.0]), "increasing"),
        (dict(x=[0.0, 1.0]), "positive"),
        (dict(x=[1.0, math.nan]), "increasing"),
        (dict(y=np.ones((3, 3))), r"not \(seeds, 2\)"),
        (dict(y=np.ones((0, 2))), "seeds"),
        (dict(predicted=math.nan), "predicted"),
        (dict(tolerance=0.0), "tolerance"),
        (dict(tolerance=math.nan), "tolerance"),
    ],
)
def test_rate_observations_are_checked(change, message):
    arguments = dict(x=[1.0, 2.0], y=np.ones((3, 2)), predicted=0.5, tolerance=0.1) | change
    with pytest.raises(ValueError, match=message):
        RateObservations(**arguments)
