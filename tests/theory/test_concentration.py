import collections
import decimal
import itertools
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import theoryrl as trl
from theoryrl.theory import get, theorems, verify
from theoryrl.theory._exact import Collector, crossing_weights, l1_weights, moments, sum_weights
from theoryrl.theory.concentration import azuma_bound, bernstein_bound, hoeffding_bound, weissman_bound
from theoryrl.theory.pigeonhole import largest_sum, visit_sum, visits_bound

DOCS = Path(__file__).resolve().parents[2] / "docs" / "theory"
FAMILY = theorems("concentration")
CONTROLS = [(entry.key, control.name) for entry in FAMILY for control in entry.controls]


@pytest.fixture(scope="module")
def reports():
    return {entry.key: verify(entry, rng=0) for entry in FAMILY}


# ---- verdicts


@pytest.mark.parametrize("key", [entry.key for entry in FAMILY])
def test_every_entry_is_verified_and_not_by_vacuity(reports, key):
    report = reports[key]
    assert (report.verdict, report.as_expected) == ("verified", True), report.note
    assert 0.8 < report.tightness <= 1.0
    # The allowance is rounding, not slack.
    seen = report.observations
    assert (seen.allowance <= 1e-12 * np.maximum(seen.observed, seen.bound) + 1e-320).all()


@pytest.mark.parametrize("key, name", CONTROLS)
def test_every_control_is_refuted_clearly(reports, key, name):
    control = next(control for control in reports[key].controls if control.name == name)
    assert control.verdict == "refuted"
    seen = control.observations
    assert (seen.observed > 1.02 * seen.bound).any()


def test_other_seeds_and_more_runs_draw_other_laws():
    key = "concentration.hoeffding"
    first, again, other = (verify(key, rng=rng, runs=5).observations for rng in (1, 1, 2))
    np.testing.assert_array_equal(first.observed, again.observed)
    assert first.labels != other.labels
    assert verify(key, rng=1, runs=50).runs > first.runs


@pytest.mark.parametrize(
    "key, label, observed, bound",
    [
        ("concentration.hoeffding", "n=1, Bernoulli(1/2), t=0.5", 0.5, hoeffding_bound(1, 0.5)),
        ("concentration.hoeffding", "n=3, Bernoulli(1/3), t=0.6667", 1 / 27, hoeffding_bound(3, 2 / 3)),
        ("concentration.bernstein", "n=2, Bernoulli(1/10), t=0.4", 0.19, bernstein_bound(2, 0.4, 0.09)),
        ("concentration.weissman", "uniform on 3, n=1, t=1.333", 1.0, weissman_bound(1, 4 / 3, 3)),
        ("concentration.azuma", "simple, n=2, t=1", 0.5, azuma_bound(2, 1)),
        ("concentration.azuma", "skewed up, n=1, t=2", 1 / 3, azuma_bound(1, 2, 2)),
        ("pigeonhole.visits", "worst trajectory: X=1, T=3", 2 + 2**-0.5, visits_bound(1, 3)),
    ],
)
def test_instances_known_by_hand(reports, key, label, observed, bound):
    seen = reports[key].observations
    index = seen.labels.index(label)
    assert seen.observed[index] == pytest.approx(observed, rel=1e-14)
    assert seen.bound[index] == pytest.approx(bound, rel=1e-14)


def test_edges_are_on_the_grid(reports):
    labels = " ".join(reports["concentration.hoeffding"].observations.labels)
    for edge in ("n=1, Bernoulli(1/1000)", "n=40, Bernoulli(999/1000)", "n=10, Bernoulli(i/11)"):
        assert edge in labels


# ---- exact probabilities against enumeration


@pytest.mark.parametrize("laws", [[[1, 2], [3, 1]], [[1, 0, 2]] * 3, [[0, 1], [1, 1, 1], [5, 2]]])
def test_sums_by_enumeration(laws):
    expected = collections.Counter()
    for values in itertools.product(*(range(len(law)) for law in laws)):
        expected[sum(values)] += math.prod(law[value] for law, value in zip(laws, values, strict=True))
    weights = sum_weights(laws)
    assert {value: weight for value, weight in enumerate(weights) if weight} == {k: v for k, v in expected.items() if v}
    mean, variance = moments(laws, 2)
    total = sum(expected.values())
    assert mean == sum(Fraction(k * v, 2 * total) for k, v in expected.items())
    assert variance == sum(Fraction(k * k * v, 4 * total) for k, v in expected.items()) - mean**2


@pytest.mark.parametrize("weights, n", [([1, 1], 3), ([1, 2, 3], 4), ([0, 1, 4], 3), ([1, 1, 1, 1], 3), ([1, 9], 1)])
def test_l1_distances_by_enumeration(weights, n):
    b = sum(weights)
    expected = collections.Counter()
    for draws in itertools.product(range(len(weights)), repeat=n):
        distance = sum(abs(Fraction(draws.count(i), n) - Fraction(w, b)) for i, w in enumerate(weights))
        expected[distance] += math.prod(weights[i] for i in draws)
    masses, denominator = l1_weights(weights, n)
    assert {Fraction(d, denominator): mass for d, mass in masses.items()} == {d: m for d, m in expected.items() if m}


def best_crossing(laws, steps, level, position=0):
    """Chance to reach the level when every law may depend on the whole past, by recursion over histories."""
    if position >= level:
        return Fraction(1)
    if steps == 0:
        return Fraction(0)
    return max(
        sum(
            Fraction(w, sum(law.values())) * best_crossing(laws, steps - 1, level, position + j) for j, w in law.items()
        )
        for law in laws
    )


@pytest.mark.parametrize("laws", [({1: 1, -1: 1},), ({2: 1, -1: 2}, {0: 3}), ({0: 6}, {1: 3, -1: 3}, {1: 4, -2: 2})])
def test_crossings_by_recursion_over_histories(laws):
    table, b = crossing_weights(laws, 5), sum(laws[0].values())
    for steps in range(6):
        for level in range(1, len(table[steps])):
            assert Fraction(table[steps][level], b**steps) == best_crossing(laws, steps, level)


def test_the_reflection_principle():
    table = crossing_weights(({1: 1, -1: 1},), 30)
    for level in range(1, 31):
        ends = [math.comb(30, k) for k in range(31) if 2 * k - 30 >= level]
        above = [math.comb(30, k) for k in range(31) if 2 * k - 30 > level]
        assert table[30][level] == sum(ends) + sum(above)


@pytest.mark.parametrize("items, steps", [(1, 6), (2, 7), (3, 6), (4, 3)])
def test_the_largest_sum_is_that_of_the_worst_trajectory(items, steps):
    every = max(visit_sum(path) for path in itertools.product(range(items), repeat=steps))
    assert largest_sum(items, steps) == pytest.approx(every, rel=1e-14)


def test_frozen_counts():
    assert visit_sum([0] * 10, block=10) == 10.0
    assert visit_sum([0] * 10, block=5) == pytest.approx(5 + 5 / math.sqrt(5))
    assert visit_sum([0, 0, 0]) == pytest.approx(2 + 1 / math.sqrt(2))


# ---- the allowance


def test_the_allowance_covers_the_rounding():
    generator = np.random.default_rng(0)
    with decimal.localcontext(prec=60):
        for _ in range(500):
            a, b = (int(value) for value in generator.integers(1, 10**6, 2))
            probability, exponent = (
                Fraction(min(a, b), max(a, b)),
                -Fraction(a, b) * int(10 ** generator.uniform(-2, 3)),
            )
            factor = int(generator.integers(1, 100))
            collector = Collector()
            collector.add("x", probability, exponent, factor)
            true = factor * (decimal.Decimal(exponent.numerator) / exponent.denominator).exp()
            left = abs(
                decimal.Decimal(probability.numerator) / probability.denominator
                - decimal.Decimal(collector.observed[0])
            )
            right = abs(true - decimal.Decimal(collector.bound[0]))
            assert left + right <= decimal.Decimal(collector.allowance[0])


def test_an_exponent_of_minus_infinity_is_a_bound_of_zero():
    collector = Collector()
    collector.add("x", Fraction(0), -math.inf)
    assert collector.bound == [0.0]
    assert 0.0 < collector.allowance[0] < 1e-300


# ---- models


def model(rows, **keywords):
    rows = np.asarray(rows, dtype=float)
    return trl.FiniteHorizonMDP(rows, np.zeros(rows.shape[-3:-1]), horizon=3, name="mine", **keywords)


ROWS = [[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], [[0.2, 0.3, 0.5], [0.5, 0.2, 0.3]], [[0.0, 0.5, 0.5], [0.1, 0.8, 0.1]]]


def test_weissman_takes_the_distinct_random_rows_of_the_model():
    report = verify("concentration.weissman", model(ROWS))
    assert (report.verdict, report.model) == ("verified", "mine")
    rows = {re.match(r"row s=\d, a=\d", label).group() for label in report.observations.labels}
    assert rows == {"row s=0, a=0", "row s=1, a=0", "row s=2, a=1"}
    first = report.observations.labels.index("row s=0, a=0, n=1, t=1")
    assert report.observations.observed[first] == 1.0
    assert report.observations.bound[first] == pytest.approx(weissman_bound(1, 1.0, 2))


def test_weissman_reads_sparse_and_staged_models_alike_and_skips_forbidden_pairs():
    dense = verify("concentration.weissman", model(ROWS))
    sparse = verify("concentration.weissman", model(ROWS).to_sparse())
    np.testing.assert_array_equal(dense.observations.observed, sparse.observations.observed)
    staged = verify("concentration.weissman", model([ROWS] * 3))
    np.testing.assert_array_equal(dense.observations.observed, staged.observations.observed)
    mask = np.array([[True, True], [False, True], [True, False]])
    masked = verify("concentration.weissman", model(ROWS, action_mask=mask))
    assert {label[:12] for label in masked.observations.labels} == {"row s=0, a=0", "row s=1, a=1"}


def test_weissman_on_a_deterministic_model_says_that_it_used_its_own_laws():
    report = verify("concentration.weissman", model(np.eye(3)[:, np.newaxis, :]))
    assert (report.verdict, report.model) == ("verified", "built-in laws")


def test_weissman_on_wide_rows():
    wide = np.full((150, 1, 150), 1 / 150)
    assert verify("concentration.weissman", model(wide)).model == "built-in laws"
    wide = np.zeros((150, 1, 150))
    wide[:, 0, :90] = 1 / 90
    assert verify("concentration.weissman", model(wide)).model == "mine"


def test_pigeonhole_takes_its_number_of_pairs_from_the_model():
    report = verify("pigeonhole.visits", model(ROWS))
    assert "worst trajectory: X=6, T=6000" in report.observations.labels
    assert report.model == "mine"
    assert verify("pigeonhole.visits", model(ROWS).with_discount(0.9)).verdict == "verified"


# ---- documents


@pytest.mark.parametrize("entry", FAMILY, ids=lambda entry: entry.key)
def test_written_proofs_are_where_they_are_said_to_be(entry):
    page, anchor = entry.proof.anchor.split("#")
    assert entry.proof.level == "written"
    text = (DOCS.parents[1] / page).read_text()
    section = re.search(rf"^## {anchor}$(.*?)(^## |\Z)", text, re.MULTILINE | re.DOTALL | re.IGNORECASE).group(1)
    assert f"`{entry.key}`" in section
    assert "*Proof.*" in section


def test_the_code_on_the_page_about_verdicts_runs():
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "verdicts.md").read_text(), re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2
    assert names["report"].key == "mine.coin"


def test_levels_on_the_page_are_those_of_the_code():
    from theoryrl.theory import verdict

    text = (DOCS / "verdicts.md").read_text()
    assert (verdict.REFUTE_LEVEL, verdict.CONFIRM_LEVEL, verdict.SLOPE_LEVEL, verdict.SLOPE_SEEDS) == (
        1e-6,
        0.01,
        0.01,
        5,
    )
    for words in ("level $10^{-6}$", "level $0.01$", "$0.99$ (at least 5 seeds)"):
        assert words in text


def test_statements_are_latex_with_balanced_dollars():
    for entry in FAMILY:
        assert entry.statement.count("$") % 2 == 0
        assert get(entry.key) is entry
