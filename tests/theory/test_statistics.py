import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from theoryrl.theory.statistics import (
    clopper_pearson,
    holds,
    log_log_slope,
    log_wealth,
    runs_needed,
    runs_to_decide,
    tightness,
)


def binomial(n, p):
    """Exact probabilities of Binomial(n, p), p a Fraction."""
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


# ---- Clopper-Pearson


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("level", [0.01, 1e-6])
def test_clopper_pearson_misses_with_at_most_its_level(n, level):
    bounds = [clopper_pearson(k, n, level) for k in range(n + 1)]
    for p in [Fraction(i, 97) for i in range(98)] + [Fraction(1, 10**6), 1 - Fraction(1, 10**6)]:
        law = binomial(n, p)
        # At n = 1 the bounds are level and 1 - level themselves, known to one rounding.
        assert sum(law[k] for k in range(n + 1) if bounds[k][0] > p) <= level * (1 + 1e-12)
        assert sum(law[k] for k in range(n + 1) if bounds[k][1] < p) <= level * (1 + 1e-12)


@pytest.mark.parametrize("k, n", [(0, 5), (1, 5), (3, 17), (17, 17), (2, 60)])
def test_clopper_pearson_inverts_the_binomial_tails(k, n):
    level = 1e-3
    lower, upper = clopper_pearson(k, n, level)
    if k == 0:
        assert lower == 0.0
    else:
        assert float(sum(binomial(n, Fraction(lower))[k:])) == pytest.approx(level, rel=1e-9)
    if k == n:
        assert upper == 1.0
    else:
        assert float(sum(binomial(n, Fraction(upper))[: k + 1])) == pytest.approx(level, rel=1e-9)


@pytest.mark.parametrize("arguments", [(-1, 5, 0.1), (6, 5, 0.1), (0, 0, 0.1), (1, 5, 0.0), (1, 5, math.nan)])
def test_clopper_pearson_refuses_what_is_no_count_or_level(arguments):
    with pytest.raises(ValueError):
        clopper_pearson(*arguments)


# ---- the e-process


def direct_wealth(failures, delta):
    total = 0.0
    for j in range(8):
        q = delta + (1 - delta) * 2.0**-j
        bet = (q - delta) / (delta * (1 - delta))
        total += math.prod(1 + bet * (x - delta) for x in failures) / 8
    return total


def test_wealth_is_the_average_of_the_products_of_bets():
    for failures in itertools.product([0, 1], repeat=6):
        wealth = np.exp(log_wealth(failures, 0.07))
        expected = [direct_wealth(failures[: n + 1], 0.07) for n in range(6)]
        np.testing.assert_allclose(wealth, expected, rtol=1e-12)


@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_wealth_is_a_martingale_at_p_equal_to_delta_and_a_supermartingale_below(delta):
    for past in itertools.product([0, 1], repeat=5):
        now = math.exp(log_wealth(past, delta)[-1])
        after = [math.exp(log_wealth((*past, x), delta)[-1]) for x in (0, 1)]
        assert (1 - delta) * after[0] + delta * after[1] == pytest.approx(now, rel=1e-12)
        for p in (0.0, delta / 3):
            assert (1 - p) * after[0] + p * after[1] <= now * (1 + 1e-12)


def rejection_probability(p, steps, reject):
    """P(reject(n, k) at some n <= steps) for k ~ running count of Bernoulli(p): exact recursion over (n, k)."""
    alive, rejected = {0: 1.0}, 0.0
    for n in range(1, steps + 1):
        new = {}
        for k, mass in alive.items():
            for more, chance in ((0, 1 - p), (1, p)):
                new[k + more] = new.get(k + more, 0.0) + mass * chance
        rejected += sum(mass for k, mass in new.items() if reject(n, k))
        alive = {k: mass for k, mass in new.items() if not reject(n, k)}
    return rejected


def test_e_process_keeps_its_level_at_every_stopping_time_where_repeated_tests_do_not():
    delta, alpha, steps = 0.05, 0.02, 300
    # The wealth does not depend on the order of the failures.
    table = [log_wealth([1] * k + [0] * (steps - k), delta)[max(k, 1) - 1 :] for k in range(60)]

    def by_wealth(n, k):
        return k >= 60 or table[k][n - max(k, 1)] >= -math.log(alpha)

    false_alarms = rejection_probability(delta, steps, by_wealth)
    assert 0.001 < false_alarms <= alpha
    assert rejection_probability(delta / 2, steps, by_wealth) < false_alarms
    assert rejection_probability(4 * delta, steps, by_wealth) > 0.999
    assert rejection_probability(delta, steps, lambda n, k: clopper_pearson(k, n, alpha)[0] > delta) > alpha


def test_wealth_stays_finite_over_long_runs_of_either_kind():
    assert np.isfinite(log_wealth(np.ones(100_000, dtype=bool), 0.01)).all()
    assert np.isfinite(log_wealth(np.zeros(100_000, dtype=bool), 0.01)).all()


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, math.nan])
def test_wealth_needs_a_probability(delta):
    with pytest.raises(ValueError, match="delta"):
        log_wealth([True], delta)


@pytest.mark.parametrize("failures", [[2], [math.nan], "ab", [[1, 0]], [0.5, 1.0], 1])
def test_wealth_needs_outcomes(failures):
    with pytest.raises(ValueError, match="true or false"):
        log_wealth(failures, 0.1)


# ---- numbers of runs


@pytest.mark.parametrize(
    "delta, confidence, expected",
    [(0.05, 0.99, 90), (0.05, 0.999, 135), (0.05, 1 - 1e-6, 270), (0.01, 0.99, 459), (0.01, 0.999, 688)],
)
def test_runs_needed_without_failures(delta, confidence, expected):
    assert runs_needed(delta, confidence) == expected
    assert (1 - delta) ** expected <= 1 - confidence < (1 - delta) ** (expected - 1)


def test_runs_needed_with_failures_is_the_first_number_that_suffices():
    n = runs_needed(0.1, 0.95, failures=3)
    assert float(sum(binomial(n, Fraction(0.1))[:4])) <= 0.05 < float(sum(binomial(n - 1, Fraction(0.1))[:4]))
    assert runs_needed(1e-12) is None


def test_runs_to_decide_looks_both_ways():
    assert runs_to_decide(0, 10, 0.05, 0.01, 1e-6) == 90
    confirm = runs_to_decide(1, 50, 0.05, 0.01, 1e-6)
    assert clopper_pearson(math.ceil(confirm / 50), confirm, 0.01)[1] <= 0.05
    refute = runs_to_decide(6, 50, 0.05, 0.01, 1e-6)
    assert clopper_pearson(6 * refute // 50, refute, 1e-6)[0] > 0.05
    assert runs_to_decide(5, 100, 0.05, 0.01, 1e-6) is None


# ---- slopes


def test_slope_of_a_power_law_is_its_exponent():
    x = np.array([1.0, 2.0, 5.0, 10.0])
    slope = log_log_slope(x, np.outer(np.ones(6), 3.0 * x**0.5), rng=0)
    np.testing.assert_allclose(slope, 0.5, atol=1e-13)


def test_slope_agrees_with_polyfit_and_depends_on_seed_and_data_alone():
    generator = np.random.default_rng(1)
    x = np.array([10.0, 30.0, 100.0, 300.0])
    y = x**0.7 * generator.uniform(0.5, 1.5, size=(12, 4))
    slope = log_log_slope(x, y, rng=5)
    assert slope.estimate == pytest.approx(np.polyfit(np.log(x), np.log(y.mean(axis=0)), 1)[0], rel=1e-12)
    assert slope.lower < slope.estimate < slope.upper
    assert slope == log_log_slope(x, y, rng=5)
    assert slope != log_log_slope(x, y, rng=6)
    wide = log_log_slope(x, y, rng=5, level=0.001)
    assert wide.lower < slope.lower and slope.upper < wide.upper


def test_slope_interval_covers_about_as_often_as_it_says():
    generator = np.random.default_rng(2)
    x = np.array([1.0, 10.0, 100.0])
    hits = 0
    for trial in range(100):
        # One factor per seed and point, mean 1: the slope of the mean is 0.5.
        y = np.sqrt(x) * generator.gamma(20.0, 1 / 20.0, size=(30, 3))
        slope = log_log_slope(x, y, rng=trial, level=0.1, resamples=400)
        hits += slope.lower <= 0.5 <= slope.upper
    assert 78 <= hits <= 98


def test_resampling_keeps_rows_together():
    # Two kinds of runs, each an exact power law: only whole rows give slopes that stay between the exponents.
    x = np.array([1.0, 4.0, 16.0])
    y = np.stack([x**0.5] * 5 + [10 * x**0.5] * 5)
    slope = log_log_slope(x, y, rng=0)
    assert slope.upper - slope.lower < 1e-12


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e9])
def test_slope_names_what_has_no_logarithm(bad):
    y = np.ones((6, 3))
    y[2, 1] = bad
    with pytest.raises(ValueError, match=r"y\[2, 1\]|mean of y at x = 2"):
        log_log_slope(np.array([1.0, 2.0, 3.0]), y, rng=0)


@pytest.mark.parametrize(
    "changed",
    [
        {"x": [1.0]},
        {"x": [1.0, 1.0]},
        {"x": [0.0, 1.0]},
        {"x": [1.0, math.nan]},
        {"x": [1.0, 2.0, 3.0]},
        {"y": [1.0, 2.0]},
        {"rng": None},
        {"rng": -1},
        {"level": 0.0},
        {"level": math.nan},
        {"resamples": 0},
    ],
)
def test_slope_refuses_what_has_none(changed):
    given = {"x": [1.0, 2.0], "y": [[1.0, 2.0]], "rng": 0}
    assert log_log_slope(**given).estimate == pytest.approx(1.0)
    with pytest.raises(ValueError, match=next(iter(changed))):
        log_log_slope(**(given | changed))


# ---- exact inequalities


@pytest.mark.parametrize(
    "observed, bound, allowance, relation, expected",
    [
        (1.0, 1.0, 0.0, "<=", True),
        (1.0 + 2**-52, 1.0, 0.0, "<=", False),
        (1.0 + 2**-52, 1.0, 2**-52, "<=", True),
        (1.0 + 2**-51, 1.0, 2**-52, "<=", False),
        (-5.0, 1.0, 0.0, "<=", True),
        (-5.0, 1.0, 0.0, "==", False),
        (1.0, 1.0 + 2**-52, 2**-52, "==", True),
        (math.inf, math.inf, 0.0, "<=", True),
        (math.inf, math.inf, 0.0, "==", False),
        (math.inf, 1.0, 1.0, "<=", False),
        (1.0, math.inf, 0.0, "<=", True),
        (math.nan, 1.0, 0.0, "<=", False),
        (1.0, math.nan, 0.0, "<=", False),
        (0.0, 1.0, math.nan, "<=", False),
        (1.0, 1.0, math.nan, "==", False),
        (math.nan, math.nan, 1.0, "==", False),
    ],
)
def test_holds(observed, bound, allowance, relation, expected):
    result = holds(np.array([observed]), np.array([bound]), np.array([allowance]), relation)
    assert result.tolist() == [expected]


@pytest.mark.parametrize(
    "observed, bound, expected",
    [
        ([1.0, 3.0], [2.0, 4.0], 0.75),
        ([0.0, 1.0], [0.0, 4.0], 0.25),
        ([1.0, 1.0], [0.0, 4.0], math.inf),
        ([0.0], [0.0], math.nan),
        ([-3.0, 1.0], [-1.0, 2.0], 0.5),
        ([-3.0], [2.0], -1.5),
        ([1.0, 1.0], [math.inf, 2.0], 0.5),
        ([math.inf], [math.inf], math.nan),
        ([1.0, math.nan], [2.0, 2.0], math.nan),
        ([1.0, 1.0], [2.0, math.nan], math.nan),
        ([1.0], [5e-324], math.inf),
        ([-2.0, -8.0], [-1.0, -6.0], 0.75),
        ([-1.0], [-2.0], 2.0),
        ([0.0], [-1.0], math.inf),
        ([-math.inf, -2.0], [-1.0, -1.0], 0.5),
        ([-math.inf], [-math.inf], math.nan),
    ],
)
def test_tightness(observed, bound, expected):
    np.testing.assert_equal(tightness(np.array(observed), np.array(bound)), expected)
