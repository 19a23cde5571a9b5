import dataclasses
import functools
import json
import math

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.theory import (
    Assumption,
    Control,
    ExactObservations,
    ProbabilityObservations,
    Proof,
    RateObservations,
    Theorem,
    json_safe,
    verify,
    verify_many,
)
from theoryrl.theory.report import rounded_up


def chance(model, *, rng, runs, jobs, progress, p=0.01, log=None):
    """Runs that fail with probability p."""
    if log is not None:
        log.append((getattr(model, "name", model), runs))
    failed = np.random.default_rng(rng).random(runs) < p
    if progress is not None:
        progress(runs // 2, runs, "half")
    return ProbabilityObservations(np.where(failed, 2.0, 0.5), 1.0)


def chain(name, n_states=2):
    transition = np.zeros((n_states, 1, n_states))
    transition[:, 0, -1] = 1.0
    return trl.FiniteHorizonMDP(transition, np.zeros((n_states, 1)), horizon=2, name=name)


THEOREM = Theorem(
    key="test.chance",
    family="test",
    title="t",
    statement="s",
    source="s",
    claim="probability",
    delta=0.05,
    protocol=chance,
    controls=(Control("often", "fails often", functools.partial(chance, p=0.5)),),
    proof=Proof("cited", "a"),
    expected="consistent",
    default_runs=400,
)


def with_model(**changes):
    """THEOREM on finite-horizon models with an even number of states."""
    even = Assumption(
        "even", "an even number of states", lambda m: None if m.n_states % 2 == 0 else f"S = {m.n_states}"
    )
    return dataclasses.replace(
        THEOREM, accepts="finite-horizon", assumptions=(even,), default_model=lambda: chain("default"), **changes
    )


def test_a_report_says_what_was_run():
    report = verify(THEOREM, rng=1)
    assert (report.verdict, report.as_expected, report.runs, report.model) == ("consistent", True, 400, "none")
    assert report.seed == 1
    assert report.controls[0].verdict == "refuted"
    assert report.tightness == (2.0 if report.observations.failures.any() else 0.5)


def test_a_control_that_is_not_refuted_is_an_error_of_the_theorem():
    tame = Control("tame", "breaks nothing", chance)
    report = verify(dataclasses.replace(THEOREM, controls=(*THEOREM.controls, tame)))
    assert report.verdict == "consistent"
    assert not report.as_expected
    assert "control not refuted: tame (consistent)" in report.note


def test_a_false_theorem_is_not_as_expected_unless_it_is_said_to_be_false():
    false = functools.partial(chance, p=0.4)
    report = verify(dataclasses.replace(THEOREM, protocol=false))
    assert (report.verdict, report.as_expected) == ("refuted", False)
    assert verify(dataclasses.replace(THEOREM, protocol=false, expected="refuted")).as_expected
    assert not verify(dataclasses.replace(THEOREM, expected="refuted")).as_expected


def test_too_few_runs_are_inconclusive_but_controls_keep_their_number():
    log = []
    control = Control("often", "fails often", functools.partial(chance, p=0.5, log=log))
    report = verify(dataclasses.replace(THEOREM, controls=(control,)), runs=5)
    assert (report.verdict, report.as_expected, report.runs) == ("inconclusive", False, 5)
    assert report.controls[0].verdict == "refuted"
    assert log == [(None, 400)]


def test_controls_never_run_on_the_users_model():
    log = []
    plain = Control("plain", "s", functools.partial(chance, p=0.5, log=log))
    tripwire = Control("tripwire", "s", functools.partial(chance, p=0.5, log=log), model=lambda: chain("wire"), runs=77)
    report = verify(with_model(controls=(plain, tripwire)), chain("mine"))
    assert report.model == "mine"
    assert log == [("default", 400), ("wire", 77)]
    assert [control.model for control in report.controls] == ["default", "wire"]


def test_an_assumption_that_fails_on_the_users_model_is_named_and_nothing_runs():
    log = []
    report = verify(with_model(protocol=functools.partial(chance, log=log)), chain("odd", 3))
    assert (report.verdict, report.as_expected, report.runs, report.controls) == ("not-applicable", True, 0, ())
    assert report.note == "assumption even fails: S = 3"
    assert log == []
    assert report.to_frame().empty


def test_an_assumption_that_fails_on_the_default_model_is_a_fault():
    broken = dataclasses.replace(with_model(), default_model=lambda: chain("odd", 3))
    report = verify(broken)
    assert (report.verdict, report.as_expected) == ("not-applicable", False)


def test_models_of_the_wrong_kind():
    discounted = chain("c").with_discount(0.9)
    report = verify(with_model(), discounted)
    assert (report.verdict, report.as_expected) == ("not-applicable", True)
    assert "finite-horizon" in report.note
    assert verify(dataclasses.replace(with_model(), accepts="any"), discounted).verdict == "consistent"
    with pytest.raises(TypeError, match="mdp is a list"):
        verify(THEOREM, [1])


def test_a_theorem_about_no_model_says_that_it_ignored_one():
    report = verify(THEOREM, chain("mine"))
    assert report.model == "none"
    assert "the one given was not used" in report.note


def test_observations_of_another_kind_are_refused():
    def wrong(model, *, rng, runs, jobs, progress):
        return ExactObservations([0.0], [1.0])

    with pytest.raises(TypeError, match=r"test\.chance claims probability, but its protocol returned ExactObs"):
        verify(dataclasses.replace(THEOREM, protocol=wrong))


@pytest.mark.parametrize("arguments", [dict(runs=0), dict(rng=-1), dict(rng=None)])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError):
        verify(THEOREM, **arguments)


# ---- seeds


def test_seeds_reproduce_whatever_else_is_verified():
    other = dataclasses.replace(THEOREM, key="test.other")
    alone = verify(THEOREM, rng=3)
    _, among = verify_many([other, THEOREM], rng=3)
    assert alone.to_dict() == among.to_dict()
    np.testing.assert_array_equal(alone.observations.failures, among.observations.failures)
    np.testing.assert_array_equal(alone.controls[0].observations.failures, among.controls[0].observations.failures)


def test_streams_differ_by_seed_key_and_part():
    same = dataclasses.replace(THEOREM, controls=(Control("same", "s", chance),))
    report = verify(dataclasses.replace(same, protocol=functools.partial(chance, p=0.5)), rng=3)
    twin = verify(dataclasses.replace(same, controls=(Control("x", "s", functools.partial(chance, p=0.5)),)), rng=3)
    half = functools.partial(chance, p=0.5)
    draws = [
        report.observations.failures,
        twin.controls[0].observations.failures,
        verify(dataclasses.replace(same, protocol=half), rng=4).observations.failures,
        verify(dataclasses.replace(same, protocol=half, key="test.other"), rng=3).observations.failures,
    ]
    for i in range(len(draws)):
        for j in range(i):
            assert (draws[i] != draws[j]).mean() > 0.3


def test_seed_sequences_and_generators_seed_too():
    sequence = np.random.SeedSequence(3)
    report = verify(THEOREM, rng=sequence)
    np.testing.assert_array_equal(report.observations.failures, verify(THEOREM, rng=3).observations.failures)
    assert "entropy=3" in report.seed
    first, second = (verify(THEOREM, rng=np.random.default_rng(5)).to_dict() for _ in range(2))
    assert first == second


# ---- progress


def test_progress_grows_to_its_total():
    seen = []
    verify_many([THEOREM, dataclasses.replace(THEOREM, key="test.other")], progress=lambda *step: seen.append(step))
    done = [step[0] for step in seen]
    assert done == sorted(done)
    assert done[-1] == 2
    assert {step[1] for step in seen} == {2}
    assert seen[0] == (0.25, 2, "test.chance: half")
    assert any("control often" in step[2] for step in seen)


# ---- documents and tables


def test_to_dict_is_json_and_has_the_agreed_fields():
    text = json.dumps(verify(THEOREM, rng=np.int64(1)).to_dict(), allow_nan=False)
    document = json.loads(text)
    assert list(document) == (
        "key family claim verdict expected as_expected tightness runs seed model proof controls seconds note".split()
    )
    assert document["controls"] == [{"name": "often", "verdict": "refuted", "model": "none"}]
    assert document["proof"] == "cited: a"
    assert document["seed"] == 1


def test_non_finite_numbers_are_strings():
    def nothing(model, *, rng, runs, jobs, progress):
        return ProbabilityObservations(np.zeros(runs), 0.0)

    document = verify(dataclasses.replace(THEOREM, protocol=nothing)).to_dict()
    assert document["tightness"] == "nan"
    value = json_safe(
        {"a": [math.inf, -math.inf, np.float64("nan"), np.int64(3), np.bool_(True)], "b": np.array([1.5])}
    )
    assert value == {"a": ["inf", "-inf", "nan", 3, True], "b": [1.5]}
    assert type(value["a"][3]) is int
    assert type(value["a"][4]) is bool
    with pytest.raises(TypeError, match="set has no JSON form"):
        json_safe({1, 2})


@pytest.mark.parametrize(
    "seconds, expected",
    [(0.0, 60), (1.01, 60), (60.0, 60), (60.01, 300), (61.0, 300), (301, 1200), (1201, 3600), (3601, 7200)],
)
def test_seconds_are_rounded_up(seconds, expected):
    assert rounded_up(seconds) == expected
    assert dataclasses.replace(verify(THEOREM), seconds=seconds).to_dict()["seconds"] == expected


def test_to_frame_has_a_row_per_run_and_part():
    frame = verify(THEOREM, runs=10).to_frame()
    assert frame.groupby("part").size().to_dict() == {"theorem": 10, "often": 400}
    assert frame["failed"].dtype == bool


def test_to_frame_of_a_rate_has_a_row_per_seed_and_point():
    def growth(model, *, rng, runs, jobs, progress, exponent=0.5):
        x = np.array([1.0, 2.0, 4.0])
        return RateObservations(x, np.outer(np.arange(1, runs + 1), x**exponent), predicted=0.5, tolerance=0.1)

    rate = dataclasses.replace(
        THEOREM,
        claim="rate",
        delta=None,
        protocol=growth,
        controls=(Control("linear", "s", functools.partial(growth, exponent=1.0)),),
        default_runs=6,
    )
    report = verify(rate)
    assert (report.verdict, report.as_expected, report.runs) == ("consistent", True, 6)
    frame = report.to_frame()
    row = frame[(frame.part == "theorem") & (frame.seed == 2) & (frame.x == 4.0)]
    assert row.y.tolist() == [6.0]
    assert len(frame) == 36
