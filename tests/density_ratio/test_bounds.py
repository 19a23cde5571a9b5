"""Bounds of GLOW and its relatives against formulas computed here, known numbers, and a numeric minimiser."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import comb, digamma

from theoryrl.density_ratio import (
    clipped_constant,
    glow_gamma,
    glow_iterations,
    glow_levels,
    glow_regret_bound,
    h2o_gamma,
    h2o_risk_bound,
    hyglow_iterations,
    hyglow_risk_bound,
    lift_log_tests,
    list_log_tests,
    log_tests,
    mabo_cr_constants,
    mixture_log_tests,
    paper_glow_regret_bound,
    paper_h2o_risk_bound,
    paper_pure_ratio_regret_bound,
    pure_ratio_plan,
    pure_ratio_regret_bound,
    self_normalised_constants,
    tuned_constants,
)
from theoryrl.density_ratio.bounds._setting import least_rounds

COVER = (2.0, 2.862943, 1.791999)
EIGHT = dict(coverability=COVER, n_functions=8, n_weights=8, delta=0.1)
KNOWN = dict(EIGHT, known_start=True)


def error_constants(c=0.25, b=1.0):
    """A and B by hand, with both exponents of the analysis 1 and residuals up to 2."""
    return (math.e - 1) * c + 2 * (math.e - 2), c + b**2 / (8 * c) + 2


def harmonic(x):
    return digamma(1 + x) + np.euler_gamma


def first(enough):
    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# ---- constants


def test_constants_are_those_of_the_closed_forms():
    a, b = self_normalised_constants()
    assert a == pytest.approx((math.e - 1) / 4 + 2 * (math.e - 2), abs=1e-14)
    assert a == pytest.approx(1.8661341140, abs=1e-10)
    assert b == 2.75
    assert 2 * math.sqrt(a * b) == pytest.approx(4.5307, abs=5e-5)
    assert 2 * math.sqrt((a + 0.25) * b) == pytest.approx(4.8246735904, abs=1e-10)
    assert self_normalised_constants(0.3, 2.0) == pytest.approx(error_constants(0.3, 2.0), rel=1e-15)
    narrow = self_normalised_constants(residual=1.0)
    assert narrow == pytest.approx(((math.e - 1) / 4 + math.e - 2, 1.75), abs=1e-14)


def test_best_c_at_exponents_one_and_best_of_all():
    def product(c, width=1.0):
        a, b = self_normalised_constants(c, width)
        return 2 * math.sqrt(clipped_constant(a) * b)

    best = minimize_scalar(product, bounds=(0.01, 2), method="bounded", options={"xatol": 1e-9})
    assert (best.x, best.fun) == (pytest.approx(0.1808, abs=1e-4), pytest.approx(4.4803, abs=5e-5))
    for width, c, value, exponent in ((1.0, 0.0782, 3.8316, 0.330), (2.0, 0.1337, 4.5967, 0.280)):
        found = tuned_constants(width)
        assert 2 * math.sqrt(found.clipped * found.level) == pytest.approx(value, abs=5e-5)
        assert found.c == pytest.approx(c, abs=1e-4)
        assert (found.sigma, found.tau) == (pytest.approx(exponent, abs=1e-3), pytest.approx(exponent, abs=1e-3))
        given_c = tuned_constants(width, 2.0, found.c)
        assert given_c.clipped * given_c.level == pytest.approx(found.clipped * found.level, rel=1e-9)


def test_exponents_tuned_at_a_given_c_are_no_worse_than_one():
    for c in (0.01, 0.25, 1.0, 8.0):
        found = tuned_constants(1.0, 2.0, c)
        a, b = self_normalised_constants(c)
        assert found.clipped * found.level <= clipped_constant(a) * b * (1 + 1e-12)
        assert self_normalised_constants(c, 1.0, 2.0, found.sigma, found.tau) == (found.moment, found.level)


@given(st.floats(0, 5), st.floats(0, 20))
def test_kappa_is_the_least_factor_that_pays_for_clipping(moment, u):
    paid = moment * min(u, 1.0) ** 2 + max(u - 1, 0.0)
    assert paid <= clipped_constant(moment) * u * u * (1 + 1e-12) + 1e-300
    worst = max(1.0, 2 * (1 - moment))
    attained = (moment * min(worst, 1.0) ** 2 + worst - 1) / worst**2
    assert attained == pytest.approx(clipped_constant(moment), rel=1e-12)


# ---- levels


def test_levels_of_a_worked_example():
    gamma = math.sqrt(2 / (1000 * math.log(60)))
    assert gamma == pytest.approx(0.0221015536, abs=1e-10)
    log = math.log(2 * 1000 / 0.1)
    top, alpha, beta = glow_levels(501, gamma=gamma, log_level=log)
    assert top == pytest.approx(11.0728783742, abs=1e-10)
    assert alpha == pytest.approx(0.0225776886, abs=1e-10)
    assert beta == pytest.approx(0.1096601131, abs=1e-10)
    # The fraction of its own count that the theorem gives to the test.
    assert math.log(4) + list_log_tests(1000, 2) - math.log(0.1) == pytest.approx(11.2897819136, abs=1e-10)


def test_there_is_no_level_without_data():
    top, alpha, beta = glow_levels([1, 2], gamma=0.5, log_level=3.0, trajectories=4, c=0.5, noise_width=2.0)
    np.testing.assert_allclose(top, [0.5, 1.0])
    np.testing.assert_allclose(alpha, [1.0, 0.5])
    assert beta[0] == math.inf
    assert beta[1] == pytest.approx(4 * 1.0 * 3.0 / (8 * 0.5 * 4))


# ---- counts


@pytest.mark.parametrize("n_policies", (1, 2, 5))
@pytest.mark.parametrize("rounds", (1, 2, 7, 50))
def test_counts_add_up_round_by_round(n_policies, rounds):
    per_round = [3 * n_policies * comb(t + n_policies - 2, t - 1, exact=True) for t in range(1, rounds + 1)]
    assert mixture_log_tests(rounds, n_policies, 3) == pytest.approx(math.log(sum(per_round)), abs=1e-11)
    alone = mixture_log_tests(rounds, n_policies, 3, anytime=True)
    assert alone == pytest.approx(math.log(per_round[-1] * math.pi**2 * rounds**2 / 6), abs=1e-11)
    lifted = sum(comb(n_policies + t - 1, t, exact=True) for t in range(1, rounds + 1))
    assert lift_log_tests(rounds, n_policies) == pytest.approx(math.log(lifted + 1), abs=1e-11)
    assert lift_log_tests(rounds, n_policies) <= min(
        rounds * math.log(2 * n_policies) + 1e-9, n_policies * math.log(rounds + 1) + 1e-9
    )


def test_many_policies_are_counted_as_few():
    few, many = mixture_log_tests(1e4, 4095), mixture_log_tests(1e4, 4096)
    assert 0 < many - few < 1.5
    assert many == pytest.approx(math.log(4096) + math.log(comb(10**4 + 4095, 4096, exact=True)), rel=1e-12)


def test_three_policies_for_three_thousand_rounds():
    assert math.log(4 * 3 / 0.1) + mixture_log_tests(3000, 3) == pytest.approx(28.114, abs=5e-4)


def test_the_learner_counts_the_same():
    from theoryrl.density_ratio.weights import OccupancyRatios, log_tests_of_rounds

    weights = OccupancyRatios(np.full((2, 3, 1, 1, 2), 0.5), np.array([0, 1, 2, 2]))
    for rounds in (1, 2, 100):
        assert mixture_log_tests(rounds, 3, 2) == pytest.approx(log_tests(weights, rounds), abs=1e-12)
        expected = log_tests_of_rounds(weights, rounds)[-1]
        assert mixture_log_tests(rounds, 3, 2, anytime=True) == pytest.approx(expected, abs=1e-12)


# ---- the regret of GLOW


def independent(rounds, gamma, cover, n_functions, n_tests, delta, k, a, b, start):
    log = math.log(4 * len(cover) * n_functions * n_tests / delta)
    total = 1.0
    for c in cover:
        total += (a / gamma + 1) * c * float(harmonic(rounds / c)) + b * gamma * rounds * log / k
    if start:
        total += 2 * math.sqrt(2 * rounds * math.log(4 * n_functions * rounds / delta) / k)
    return min(total, rounds)


@given(
    st.integers(1, 10**9),
    st.lists(st.floats(1, 50), min_size=1, max_size=4),
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.floats(1e-6, 0.9),
    st.integers(1, 50),
    st.floats(1e-6, 2.0),
    st.booleans(),
)
def test_bound_is_the_formula(rounds, cover, n_functions, n_weights, delta, k, gamma, known):
    found = glow_regret_bound(
        rounds,
        coverability=cover,
        n_functions=n_functions,
        n_weights=n_weights,
        delta=delta,
        trajectories=k,
        gamma=gamma,
        known_start=known,
    )
    a, b = error_constants()
    expected = independent(rounds, gamma, cover, n_functions, n_weights * rounds, delta, k, a, b, not known)
    assert found == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("known", (True, False))
def test_bound_is_the_formula_where_it_says_something(known):
    rounds, gamma, (a, b) = 10**9, 3e-5, error_constants()
    found = glow_regret_bound(rounds, gamma=gamma, trajectories=7, **dict(EIGHT, known_start=known))
    expected = independent(rounds, gamma, COVER, 8, 8 * rounds, 0.1, 7, a, b, not known)
    assert expected < 0.1 * rounds
    assert found == pytest.approx(expected, rel=1e-12)


@given(
    st.integers(2, 10**8),
    st.floats(1, 50),
    st.integers(1, 5),
    st.sampled_from(("self_normalised", "scale_free", "paper")),
    st.booleans(),
    st.integers(1, 9),
)
def test_gamma_is_the_numeric_minimiser(rounds, cover, horizon, schedule, tuned, k):
    settings = dict(
        coverability=cover,
        horizon=horizon,
        n_functions=7,
        n_weights=5,
        delta=0.1,
        schedule=schedule,
        tuned=tuned,
        trajectories=k,
    )
    best = float(glow_gamma(rounds, **settings))

    def bound(log):
        from theoryrl.density_ratio.bounds._setting import Setting

        at = Setting(**settings)
        return float(at.per_round(np.float64(rounds), np.float64(rounds), math.exp(log)))

    found = minimize_scalar(
        bound, bounds=(math.log(best) - 3, math.log(best) + 3), method="bounded", options={"xatol": 1e-10}
    )
    # A minimum is only as sharp as the square root of what its value is known to.
    assert math.log(best) == pytest.approx(found.x, abs=2e-6)
    assert bound(math.log(best)) <= found.fun * (1 + 1e-12)
    at_best = glow_regret_bound(rounds, gamma=best, **settings)
    assert glow_regret_bound(rounds, **settings) == pytest.approx(at_best, rel=1e-12)


def test_the_exact_minimiser_of_the_main_terms():
    rounds, (a, b) = 10**6, error_constants()
    log = math.log(4 * 8 * 8 * 3 * rounds / 0.1)
    potential = sum(c * float(harmonic(rounds / c)) for c in COVER)
    assert glow_gamma(rounds, **KNOWN) == pytest.approx(math.sqrt(a * potential / (b * 3 * rounds * log)), rel=1e-12)
    main = 1 + potential + 2 * math.sqrt(a * b * 3 * rounds * log * potential)
    assert glow_regret_bound(rounds, **KNOWN) == pytest.approx(main, rel=1e-12)


def test_scale_free_and_paper_levels_in_the_formula():
    rounds, k, gamma, c, b = 10**8, 3, 1e-4, 0.2, 1.5
    tests = math.log(4 * 3 * 8 * rounds / 0.1)
    level, potential = tests + math.log(8), sum(c * float(harmonic(rounds / c)) for c in COVER)
    settings = dict(EIGHT, trajectories=k, noise_width=b, gamma=gamma, known_start=True)
    a, _ = self_normalised_constants(c, b)
    mixed = tests + 0.5 * math.log(1 + k * (rounds - 1))
    price = (c + 2) * level + c + b * b / (8 * c) * mixed
    free = 1 + (a / gamma + 1) * potential + 3 * price * gamma * rounds / k
    assert free < 0.2 * rounds
    assert glow_regret_bound(rounds, schedule="scale_free", c=c, **settings) == pytest.approx(free, rel=1e-12)
    rounds = 10**10
    a, tests = 8 * (math.e - 1) + 2 * (math.e - 2), math.log(3 * 8 * rounds / 0.1)
    level, potential = tests + math.log(4 * 8), sum(c * float(harmonic(rounds / c)) for c in COVER)
    price = 10 * level + 36 * (tests + math.log(6 * 8))
    paper = 1 + (a / 1e-6 + 1) * potential + 3 * price * 1e-6 * rounds / k
    settings["gamma"] = 1e-6
    assert glow_regret_bound(rounds, schedule="paper", **settings) == pytest.approx(paper, rel=1e-12)
    assert paper < rounds


def test_misspecification_adds_what_the_theorem_says():
    rounds, xi = 10**7, 1e-4
    a, _ = error_constants()
    with_it = glow_regret_bound(rounds, misspecification=xi, **KNOWN)
    extra = 3 * xi * ((2 * a + 2) * rounds + float(harmonic(rounds)))
    assert with_it - glow_regret_bound(rounds, **KNOWN) == pytest.approx(extra, rel=1e-9)


def test_judged_early_with_the_levels_of_the_plan():
    planned, gamma = 10**7, float(glow_gamma(10**7, **KNOWN))
    a, b = error_constants()
    for rounds in (10**5, 10**6, planned):
        found = glow_regret_bound(rounds, planned=planned, **KNOWN)
        expected = independent(rounds, gamma, COVER, 8, 8 * planned, 0.1, 1, a, b, False)
        assert found == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="at most planned"):
        glow_regret_bound(planned + 1, planned=planned, **KNOWN)


def test_bound_moves_the_right_way():
    rounds = np.array([1e5, 1e6, 1e7])
    base = glow_regret_bound(rounds, **EIGHT)
    assert (base < rounds)[1:].all()
    assert (np.diff(base) > 0).all()
    assert (np.diff(base / rounds) < 0).all()
    for change in (
        dict(coverability=(2.0, 4.0, 1.791999)),
        dict(coverability=(*COVER, 1.0)),
        dict(n_functions=9),
        dict(n_weights=9),
        dict(delta=0.05),
        dict(noise_width=1.5),
        dict(misspecification=1e-3),
        dict(anytime=True),
        dict(gamma=1e-3),
        dict(total_reward=1.1),
    ):
        assert (glow_regret_bound(rounds, **dict(EIGHT, **change))[1:] > base[1:]).all(), change
    for change in (dict(known_start=True), dict(trajectories=2), dict(tuned=True), dict(residual=1.0)):
        assert (glow_regret_bound(rounds, **dict(EIGHT, **change))[1:] < base[1:]).all(), change
    assert glow_regret_bound(1, **EIGHT) == 1.0
    np.testing.assert_array_equal(glow_regret_bound([1, 2, 3], **dict(EIGHT, total_reward=2.5)), [2.5, 5.0, 7.5])


def test_nothing_out_of_range_gets_through():
    for wrong in (
        dict(coverability=(2.0, math.nan)),
        dict(coverability=0.5, horizon=2),
        dict(coverability=2.0),
        dict(coverability=(2.0, 2.0), horizon=3),
        dict(coverability=(2.0, math.inf)),
        dict(n_functions=0),
        dict(n_weights=0),
        dict(n_weights=None),
        dict(n_policies=3),
        dict(delta=0.0),
        dict(delta=1.0),
        dict(delta=math.nan),
        dict(trajectories=0),
        dict(c=0.0),
        dict(c=math.nan),
        dict(noise_width=math.inf),
        dict(residual=-1.0),
        dict(misspecification=-1e-9),
        dict(misspecification=math.nan),
        dict(total_reward=0.0),
        dict(schedule="best"),
        dict(gamma=0.0),
        dict(gamma=math.nan),
        dict(n_weights=None, log_tests=-1.0),
        dict(n_weights=None, log_tests=math.nan),
    ):
        with pytest.raises((ValueError, TypeError)):
            glow_regret_bound(100, **dict(EIGHT, **wrong))
    for rounds in (0, math.nan, math.inf, [10, 0]):
        with pytest.raises(ValueError, match="iterations"):
            glow_regret_bound(rounds, **EIGHT)
    for epsilon in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="epsilon"):
            glow_iterations(epsilon, **EIGHT)


# ---- numbers of iterations

# With the clip loss counted apart and C H_T; with clipping for nothing; with C H(T / C) too; at exponents 1/3 as well.
NEEDED = {
    0.4: (946060, 820936, 767443, 524289),
    0.2: (4480839, 3894045, 3667956, 2517350),
    0.1: (20905859, 18190579, 17237436, 11874314),
    0.05: (96331707, 83906893, 79898605, 55209203),
}


@pytest.mark.parametrize("epsilon", NEEDED)
def test_iterations_for_an_accuracy(epsilon):
    def needed(a, b, potential):
        def enough(rounds):
            log, total = math.log(4 * 64 * 3 * rounds / 0.1), sum(potential(rounds, c) for c in COVER)
            return 1 + total + 2 * math.sqrt(a * b * 3 * rounds * log * total) <= epsilon * rounds

        return first(enough)

    def old(rounds, c):
        return c * float(harmonic(rounds))

    def new(rounds, c):
        return c * float(harmonic(rounds / c))

    a, b = error_constants()
    rounded = self_normalised_constants(0.0782, 1.0, 2.0, 1 / 3, 1 / 3)
    computed = (
        needed(a + 0.25, b, old),
        needed(a, b, old),
        needed(a, b, new),
        needed(clipped_constant(rounded[0]), rounded[1], new),
    )
    assert computed == NEEDED[epsilon]
    assert glow_iterations(epsilon, **KNOWN) == NEEDED[epsilon][2]
    best = tuned_constants()
    tuned = glow_iterations(epsilon, **KNOWN, c=best.c, tuned=True)
    assert tuned == needed(best.clipped, best.level, new)
    assert 0.9999 * NEEDED[epsilon][3] < tuned < NEEDED[epsilon][3]


def test_iterations_grow_like_the_square_up_to_logarithms():
    found = [glow_iterations(e, **KNOWN) * e * e for e in (0.4, 0.2, 0.1, 0.05)]
    assert (np.diff(found) > 0).all()
    assert found[-1] < 1.7 * found[0]


@pytest.mark.parametrize("settings", (
    dict(n_weights=3), dict(n_policies=2), dict(n_weights=3, anytime=True), dict(n_weights=3, trajectories=40),
    dict(n_weights=3, schedule="scale_free", known_start=True), dict(n_weights=1, gamma=0.02, trajectories=9),
))  # fmt: skip
def test_no_smaller_number_of_iterations_will_do(settings):
    common = dict(coverability=(1.0, 1.5), n_functions=2, delta=0.2, **settings)
    for epsilon in (0.999, 0.9, 0.7):
        found = glow_iterations(epsilon, **common)
        rounds = np.arange(1, found + 1)
        enough = glow_regret_bound(rounds, **common) <= epsilon * rounds
        assert enough[-1] and not enough[:-1].any()


def test_the_search_does_not_trust_a_bound_that_turns_back():
    # Falling and growing parts with a window: only 400 .. 10000 are good enough, and doubling from 1 hops over nothing.
    found = least_rounds(lambda falling, growing: 400 / falling + growing / 10000, 1.0401)
    reference = next(t for t in range(1, 10**5) if 400 / t + t / 10000 <= 1.0401)
    assert found == reference
    assert least_rounds(lambda falling, growing: 400 / falling + growing / 100, 3.9) is None


def test_a_fixed_gamma_may_never_be_enough():
    with pytest.raises(ValueError, match="above 0.05"):
        glow_iterations(0.05, gamma=0.01, **EIGHT)


# ---- the paper's constants


def test_paper_constants_and_their_number_of_iterations():
    def at(rounds, settings):
        log = math.log(6 * 64 * 3 * rounds / 0.1)
        potential = sum(COVER) * (1 + 4 * math.log(1 + rounds))
        gamma = math.sqrt(81 * potential / (720 * 3 * rounds * log))
        return float(paper_glow_regret_bound(rounds, gamma=gamma, **settings)) / rounds

    found = first(lambda rounds: at(rounds, KNOWN) <= 0.1)
    assert 2.0e12 < found < 2.01e12
    assert at(10**14, EIGHT) > at(10**14, KNOWN)
    assert 2 * math.sqrt(405 * 720) == pytest.approx(1080.0)


def test_our_analysis_of_the_paper_schedule_beats_the_constants_of_its_proof():
    rounds = np.array([1e12, 1e14, 1e16])
    ours, theirs = glow_regret_bound(rounds, schedule="paper", **EIGHT), paper_glow_regret_bound(rounds, **EIGHT)
    assert (ours < theirs / 10).all()
    default = np.minimum(1, np.sqrt(max(COVER) / (rounds * np.log(6 * 64 * 3 * rounds / 0.1))))
    for t, gamma, bound in zip(rounds, default, theirs, strict=True):
        assert paper_glow_regret_bound(t, gamma=gamma, **EIGHT) == pytest.approx(bound, rel=1e-12)


def test_paper_bound_of_pure_ratios():
    rounds = 10**11
    single, levels = math.log(6 * 64 * 3 * rounds / 0.1), math.log(6 * 8 * 3 * rounds / 0.1) + rounds * math.log(16)
    k, gamma = math.ceil(2 * rounds * single), math.sqrt(max(COVER) / rounds)
    potential = sum(COVER) * (1 + 4 * math.log(1 + rounds))
    expected = 1 + 81 * potential / gamma + 3 * 720 * gamma * rounds * levels / k
    assert paper_pure_ratio_regret_bound(rounds, **KNOWN) == pytest.approx(expected, rel=1e-9)
    assert expected < rounds
    for bound in (paper_glow_regret_bound, paper_pure_ratio_regret_bound):
        with pytest.raises(ValueError, match="gamma"):
            bound(100, gamma=1.5, **EIGHT)


# ---- pure ratios


@pytest.mark.parametrize("schedule", ("self_normalised", "scale_free", "paper"))
@pytest.mark.parametrize("known", (True, False))
def test_a_plan_for_pure_ratios_reaches_its_accuracy(schedule, known):
    settings = dict(EIGHT, known_start=known, schedule=schedule)
    for epsilon in (0.3, 0.05):
        plan = pure_ratio_plan(epsilon, **settings)
        kept = dict(settings, trajectories=plan.trajectories, gamma=plan.gamma)
        assert pure_ratio_regret_bound(plan.iterations, **kept) <= epsilon * plan.iterations
        assert plan.episodes == plan.iterations * plan.trajectories


def test_a_plan_takes_as_many_trajectories_as_the_logarithm():
    plan = pure_ratio_plan(0.1, **KNOWN)
    level = math.log(4 * 3 * 8 / 0.1) + math.log(comb(plan.iterations + 8, 8, exact=True))
    assert plan.trajectories == math.ceil(level)
    # The mixtures of a large class cannot be enumerated; counting them as multisets saves trajectories.
    assert level < plan.iterations * math.log(16) / 100
    expected = glow_regret_bound(
        500, log_tests=float(lift_log_tests(500, 8)), **{k: KNOWN[k] for k in KNOWN if k != "n_weights"}
    )
    assert pure_ratio_regret_bound(500, **KNOWN) == pytest.approx(expected, rel=1e-12)


# ---- hybrid


def test_reduction_bound_is_the_formula():
    rounds, gamma, a, b, data = 1000, 1.5, 2.0, 0.01, (1.0, 2.5, 4.0)
    total = 1 / rounds + 3 * b * gamma
    for c, star in zip(COVER, data, strict=True):
        played = c * float(harmonic(rounds / c)) - 1
        total += a / (gamma * rounds) * (star * sum(1 / t for t in range(1, rounds)) + (1 + gamma) * played)
    settings = dict(coverability=COVER, concentrability=data, a=a, b=b)
    assert h2o_risk_bound(rounds, gamma=gamma, total_reward=4.0, **settings) == pytest.approx(4 * total, rel=1e-12)
    assert total < 1  # nothing was cut off
    rounds, b = 10**7, 3.0
    settings["b"] = b
    best = float(h2o_gamma(rounds, **settings))
    found = minimize_scalar(
        lambda log: float(h2o_risk_bound(rounds, gamma=math.exp(log), **settings)),
        bounds=(math.log(best) - 1, math.log(best) + 1),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert math.log(best) == pytest.approx(found.x, abs=1e-6)
    assert h2o_risk_bound(rounds, **settings) == pytest.approx(h2o_risk_bound(rounds, gamma=best, **settings))


def test_hybrid_bound_is_the_reduction_with_the_constants_of_the_oracle():
    rounds = 10**8
    one = mabo_cr_constants(horizon=3, n_functions=8, log_tests=math.log(8 * rounds), delta=0.1, c=0.3, noise_width=1.2)
    expected = h2o_risk_bound(rounds, coverability=COVER, concentrability=3.0, a=one.a, b=one.b)
    found = hyglow_risk_bound(rounds, concentrability=3.0, c=0.3, noise_width=1.2, **EIGHT)
    assert found == pytest.approx(expected, rel=1e-12)
    assert found < 0.2


@pytest.mark.parametrize("epsilon", (0.9, 0.3, 0.05))
def test_iterations_of_the_hybrid_learner_are_minimal(epsilon):
    found = hyglow_iterations(epsilon, concentrability=2.0, **EIGHT)
    before, at = hyglow_risk_bound([found - 1, found], concentrability=2.0, **EIGHT)
    assert at <= epsilon < before
    others = hyglow_risk_bound(np.unique(np.geomspace(1, found - 1, 3000).astype(int)), concentrability=2.0, **EIGHT)
    assert (others > epsilon).all()


def test_hybrid_bounds_move_the_right_way():
    settings = dict(coverability=COVER, concentrability=2.0, a=2.0, b=1.0)
    rounds = np.array([1e4, 1e5, 1e6])
    base = h2o_risk_bound(rounds, **settings)
    assert (np.diff(base) < 0).all() and (base < 1).all()
    for change in (dict(concentrability=3.0), dict(coverability=(3.0, 3.0, 3.0)), dict(a=3.0), dict(b=1.1)):
        assert (h2o_risk_bound(rounds, **dict(settings, **change)) > base).all()
    assert (base < paper_h2o_risk_bound(rounds, **settings)).all()
    assert h2o_risk_bound(1, **settings) == 1.0 == paper_h2o_risk_bound(1, **settings)
    for wrong in (dict(a=math.nan), dict(b=0.0), dict(concentrability=0.5), dict(concentrability=(1.0, 2.0))):
        with pytest.raises(ValueError, match=r"a|b|concentrability"):
            h2o_risk_bound(10, **dict(settings, **wrong))


def test_paper_reduction_bound_is_what_is_printed():
    settings = dict(coverability=COVER, concentrability=2.0, a=6.0, b=1.5)
    rounds, gamma, top = 10**9, 0.0008, max(COVER)
    printed = 3 * 6.0 / (gamma * rounds) * (12 * math.log(rounds) + 4 * top * (gamma + 10 * math.log(rounds) + 1))
    printed += 3 * 1.5 * gamma
    assert paper_h2o_risk_bound(rounds, gamma=gamma, **settings) == pytest.approx(printed, rel=1e-12)
    assert paper_h2o_risk_bound(rounds, **settings) <= printed


@given(st.integers(1, 10**12), st.floats(1, 1e4), st.floats(1, 1e4))
def test_risks_lie_between_nothing_and_everything(rounds, cover, data):
    settings = dict(coverability=cover, concentrability=data, a=2.0, b=30.0, horizon=2)
    for bound in (h2o_risk_bound, paper_h2o_risk_bound):
        assert 0 < float(bound(rounds, **settings)) <= 1


@pytest.mark.parametrize("rounds", [0, -3, math.nan, math.inf, [5, 0]])
def test_counts_of_tests_refuse_what_is_no_number_of_rounds(rounds):
    for count in (list_log_tests, mixture_log_tests, lift_log_tests):
        with pytest.raises(ValueError, match="iterations must be finite and at least 1"):
            count(rounds, 3)
