"""Claims about expectations: the bets against hand-made wealth, verdicts on both sides, what is refused."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest

from theoryrl.theory import Control, MeanObservations, ProbabilityObservations, Proof, Theorem, Verdict, verify
from theoryrl.theory.statistics import log_wealth_of_mean
from theoryrl.theory.verdict import decide_mean


def test_wealth_by_hand():
    # Mean 1/2, values 0 then 1: factors 1 + 2^-j, then 1 - 2^-j.
    bets = [2.0**-j for j in range(12)]
    one = sum(1 + bet for bet in bets) / 12
    two = sum((1 + bet) * (1 - bet) for bet in bets) / 12
    assert np.exp(log_wealth_of_mean([0.0, 1.0], 0.5)) == pytest.approx([one, two], rel=1e-12)


def test_wealth_is_a_martingale_at_the_claimed_mean():
    # All 2^8 outcomes of eight coins with P(1) = 1/4: the expected wealth is 1.
    total = 0.0
    for code in range(256):
        flips = np.array([(code >> i) & 1 for i in range(8)], float)
        weight = 0.25 ** flips.sum() * 0.75 ** (8 - flips.sum())
        total += weight * math.exp(log_wealth_of_mean(flips, 0.25)[-1])
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    "values, mean", [([0.5], 1.0), ([0.5], -0.1), ([1.5], 0.5), ([math.nan], 0.5), ([0.5], math.nan)]
)
def test_wealth_refuses(values, mean):
    with pytest.raises(ValueError):
        log_wealth_of_mean(values, mean)


def test_verdicts_on_both_sides():
    values = np.random.default_rng(0).uniform(0.0, 10.0, size=400)  # mean 5
    claims = {("<=", 8.0): "consistent", ("<=", 3.0): "refuted", (">=", 2.0): "consistent", (">=", 7.0): "refuted"}
    for (relation, bound), verdict in claims.items():
        seen = MeanObservations(values, bound, 0.0, 10.0, relation)
        assert decide_mean(seen).verdict == verdict
    close = decide_mean(MeanObservations(values, values.mean(), 0.0, 10.0))
    assert close.verdict == Verdict.INCONCLUSIVE
    few = decide_mean(MeanObservations(values[:3], 6.0, 0.0, 10.0))
    assert few.verdict == Verdict.INCONCLUSIVE
    assert decide_mean(MeanObservations(values, 8.0, 0.0, 10.0)).tightness == values.mean() / 8.0
    assert decide_mean(MeanObservations(values, 2.0, 0.0, 10.0, ">=")).tightness == pytest.approx(2.0 / values.mean())


def test_a_true_claim_at_its_edge_is_not_refuted_and_a_false_one_not_called_consistent():
    rng = np.random.default_rng(1)
    for _ in range(200):
        values = (rng.random(300) < 0.3).astype(float)
        assert decide_mean(MeanObservations(values, 0.3, 0.0, 1.0)).verdict != Verdict.REFUTED
        assert decide_mean(MeanObservations(values, 0.3, 0.0, 1.0, ">=")).verdict != Verdict.REFUTED
    called = sum(
        decide_mean(MeanObservations((rng.random(300) < 0.3).astype(float), 0.3, 0.0, 1.0)).verdict == "consistent"
        for _ in range(1000)
    )
    assert called <= 25  # at most 0.01 each: P(Binomial(1000, 0.01) > 25) < 1e-4


def test_edges():
    assert decide_mean(MeanObservations([0.5, math.nan], 2.0, 0.0, 1.0)).verdict == Verdict.REFUTED
    assert decide_mean(MeanObservations([0.5], 1.0, 0.0, 1.0)).verdict == Verdict.CONSISTENT
    assert decide_mean(MeanObservations([0.5], 1.0, 0.0, 1.0, ">=")).verdict == Verdict.REFUTED
    assert decide_mean(MeanObservations([0.5], math.nan, 0.0, 1.0)).verdict == Verdict.REFUTED
    for broken in (
        dict(observed=[2.0]),
        dict(observed=[]),
        dict(low=1.0),
        dict(high=math.inf),
        dict(relation="<"),
        dict(allowance=-1.0),
        dict(allowance=math.nan),
    ):
        with pytest.raises(ValueError):
            MeanObservations(**(dict(observed=[0.5], bound=1.0, low=0.0, high=1.0) | broken))


def measure(model, *, rng, runs, jobs, progress, shift=0.0):
    values = np.random.default_rng(rng).random(runs)
    return MeanObservations(np.minimum(values + shift, 1.0), 0.6, 0.0, 1.0)


THEOREM = Theorem(
    key="mine.mean",
    family="mine",
    title="Mean of a uniform number",
    statement="$E U \\le 0.6$",
    source="elementary",
    claim="probability",
    protocol=measure,
    controls=(Control("shifted", "larger by 0.3", partial(measure, shift=0.3)),),
    proof=Proof("cited", "elementary"),
    expected="consistent",
    default_runs=600,
)


def test_a_theorem_about_an_expectation():
    report = verify(THEOREM, rng=0)
    assert report.verdict == "consistent" and report.as_expected
    assert list(report.to_frame().columns) == ["key", "part", "run", "observed", "bound"]


def test_kinds_do_not_mix():
    with pytest.raises(TypeError, match=r"mine\.mean claims probability, but its protocol returned MeanObservations"):
        verify(dataclasses.replace(THEOREM, delta=0.05))
    flips = lambda model, **_: ProbabilityObservations([0.0], 1.0)  # noqa: E731
    with pytest.raises(TypeError, match="claims an expectation, but its protocol returned ProbabilityObservations"):
        verify(dataclasses.replace(THEOREM, protocol=flips))


def test_figure():
    pytest.importorskip("matplotlib")
    from theoryrl.viz import plot_report

    ax = plot_report(verify(THEOREM, rng=0))
    assert "expectation" in ax.get_legend_handles_labels()[1][-1]
