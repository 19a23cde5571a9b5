"""The bounds against slow evaluations of their formulas, and their proofs' lemmas on random numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.online._ucbvi_kernels import BERNSTEIN_LINEAR, BERNSTEIN_ROOT
from theoryrl.online.bounds import (
    _common,
    min_episodes,
    ucbvi_regret_bound,
    ucbvi_regret_closed_form,
    ucbvi_rtdp_regret_bound,
)
from theoryrl.online.bounds import ucbvi as bounds_of_ucbvi

SIZES = {"n_states": 3, "n_actions": 2, "horizon": 4, "delta": 0.05}


def slow_bound(K, S, A, H, delta, stationary, G, bonus, replan="always", real_time=False, sharp_alone=False):
    """The page's formulas, term by term."""
    e = 3 if bonus == "hoeffding" else 25 / 3

    def phi(n):
        n = math.ceil((n + 1) / 2) if replan == "doubling" else n
        log = math.log((6 if bonus == "hoeffding" else 10) * S * A * H * n * (n + 1) / delta)
        tail = math.log(25 / 3 * S * A * H * n * (n + 1) / delta)
        transfer = math.log(e * S * S * A * H * n * (n + 1) / delta)
        if bonus == "hoeffding":
            first = 2 * math.sqrt(log / (2 * n))
        else:
            first = 5 / 3 * math.sqrt(log / n) + math.sqrt(tail / (2 * n)) + (35 * log + tail) / (3 * n)
        return first + G * (H / 2 + 1 / 3) * transfer / n

    def psi(n):
        n = math.ceil((n + 1) / 2) if replan == "doubling" else n
        log, tail = (math.log(c * S * A * H * n * (n + 1) / delta) for c in (10, 25 / 3))
        transfer = math.log(25 / 3 * S * S * A * H * n * (n + 1) / delta)
        terms = [tail / 3, 3 * H * tail / 2, 3 / 4 * (10 / 3) ** 2 * 1.25 * H * log, 35 / 3 * log]
        terms += [10 / 3 * math.sqrt(7 / 3 * G * transfer * log), G * (3 * H / 2 + 1 / 3) * transfer]
        return sum(terms) / n

    def rho(n):
        n = math.ceil((n + 1) / 2) if replan == "doubling" else n
        log, tail = (math.log(c * S * A * H * n * (n + 1) / delta) for c in (10, 25 / 3))
        return (min(1, math.sqrt(tail / (2 * n))) + min(1, math.sqrt(log / n) + 14 * log / (3 * n))) / 2

    def F(N, phi):
        whole = math.floor(N)
        terms = [1.0] + [min(1.0, phi(n)) for n in range(1, whole + 1)]
        return sum(terms[:whole]) + (N - whole) * terms[whole]

    w = [(1 + 1 / H) ** h * (H - h) for h in range(H)]

    def main(phi):
        if not stationary:
            return sum(w) * S * A * F(K / (S * A), phi)
        return H * S * A * (H - 1 + F(K * H / (S * A), phi)) + real_time * S * A * sum(w)

    noise = math.sqrt(K / 2 * sum(x * x for x in w) * math.log(e * K * (K + 1) / delta))
    noise += real_time * S * min(A, S) * sum(w[1:])
    if bonus == "hoeffding":
        return min(K * H, main(phi) + noise)
    late, growth = real_time * stationary, (1 + 1 / H) ** (H - 1)
    N, groups = (K * H, 1) if stationary else (K, H)
    mu, B, y = (H - 1) ** 2 / 4, sum((H - h - 1) ** 2 / 4 for h in range(H)), math.log(e * K * (K + 1) / delta)
    variance = K * mu + math.sqrt(2 * K * B * mu * y) + B * y / 3
    inverse = groups * S * A * (1 + late + max(0.0, math.log(N / (S * A * H))))
    c = math.sqrt(2 * math.log(25 / 3 * S * A * H * N * (N + 1) / delta))
    c += 10 / 3 * math.sqrt(1.25 * math.log(10 * S * A * H * N * (N + 1) / delta))
    sharp = growth * c * math.sqrt((2 if replan == "doubling" else 1) * variance * inverse) + main(psi)
    sharp += 2 * growth * (groups * S * A * F(N / (S * A), rho) + H * S * A * late)
    return sharp if sharp_alone else min(K * H, min(main(phi), sharp) + noise)


@pytest.mark.parametrize("stationary", [True, False])
@pytest.mark.parametrize("bonus", ["hoeffding", "bernstein"])
@pytest.mark.parametrize("K", [3, 20_000])
def test_formulas_of_doubled_counts_and_of_real_time(bonus, stationary, K):
    settings = {**SIZES, "stationary": stationary, "n_successors": 2, "bonus": bonus}
    late = ucbvi_regret_bound(K, **settings, replan="doubling")
    assert float(late) == pytest.approx(slow_bound(K, 3, 2, 4, 0.05, stationary, 2, bonus, "doubling"), rel=1e-10)
    real = ucbvi_rtdp_regret_bound(K, **settings)
    assert float(real) == pytest.approx(slow_bound(K, 3, 2, 4, 0.05, stationary, 2, bonus, real_time=True), rel=1e-10)
    assert ucbvi_regret_bound(K, **settings) <= min(late, real)


@pytest.mark.parametrize("stationary", [True, False])
@pytest.mark.parametrize("form", [("always", False), ("doubling", False), ("always", True)])
@pytest.mark.parametrize("K", [3, 20_000])
def test_formula_from_the_total_variance(stationary, form, K):
    sizes = bounds_of_ucbvi._Sizes(3, 2, 4, 0.05, stationary, 2, form[0] == "doubling", form[1])
    fast = bounds_of_ucbvi._from_total_variance(np.array(float(K)), sizes, np.log(25 / 3 * K * (K + 1) / 0.05))
    slow = slow_bound(K, 3, 2, 4, 0.05, stationary, 2, "bernstein", *form, sharp_alone=True)
    assert float(fast) == pytest.approx(slow, rel=1e-10)


def test_planning_late_costs_a_constant_or_a_root_of_two():
    episodes = np.array([10**6, 10**9])
    plain = ucbvi_regret_bound(episodes, **SIZES)
    assert np.diff(ucbvi_rtdp_regret_bound(episodes, **SIZES) - plain) == pytest.approx(0, abs=1)
    assert ucbvi_regret_bound(10**9, **SIZES, replan="doubling") <= 1.42 * plain[1]


def test_harmonic_tail_lies_above_the_sum(monkeypatch):
    for replan in ("always", "doubling"):
        sizes = bounds_of_ucbvi._Sizes(3, 2, 4, 0.05, True, 3, replan == "doubling", False)
        counts = np.array([50_000.0, 400_000.0])
        log = np.log(25 / 3 * counts * (counts + 1) / 0.05)
        whole = bounds_of_ucbvi._from_total_variance(counts, sizes, log)
        with monkeypatch.context() as patch:
            patch.setattr(_common, "SUMMED_VISITS", 2000)
            patch.setattr(bounds_of_ucbvi, "SUMMED_VISITS", 2000)
            cut = bounds_of_ucbvi._from_total_variance(counts, sizes, log)
        assert (cut >= whole).all() and (cut <= 3 * whole).all()


def test_total_variance_wins_once_horizon_and_episodes_are_many():
    large = {"n_states": 5, "n_actions": 2, "horizon": 200, "delta": 0.05, "n_successors": 3}
    sizes = bounds_of_ucbvi._Sizes(5, 2, 200, 0.05, True, 3, False, False)
    counts = np.array([1e6, 1e10])
    log = np.log(25 / 3 * counts * (counts + 1) / 0.05)
    sharp, crude = (
        bounds_of_ucbvi._from_total_variance(counts, sizes, log),
        bounds_of_ucbvi._from_worst_variance(counts, sizes),
    )
    assert sharp[1] < 0.8 * crude[1]
    assert ucbvi_regret_bound(1e10, **large, bonus="bernstein") < ucbvi_regret_bound(1e10, **large)


@pytest.mark.parametrize("bonus", ["hoeffding", "bernstein"])
@pytest.mark.parametrize("stationary", [True, False])
@pytest.mark.parametrize("K", [1, 7, 300, 20_000])
def test_formula(bonus, stationary, K):
    fast = ucbvi_regret_bound(K, **SIZES, stationary=stationary, n_successors=2, bonus=bonus)
    assert float(fast) == pytest.approx(slow_bound(K, 3, 2, 4, 0.05, stationary, 2, bonus), rel=1e-10)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 8), st.floats(1e-6, 0.5), st.integers(1, 10**5))
def test_closed_form_lies_above(S, A, H, delta, K):
    sharp = ucbvi_regret_bound(K, n_states=S, n_actions=A, horizon=H, delta=delta)
    simple = ucbvi_regret_closed_form(K, n_states=S, n_actions=A, horizon=H, delta=delta)
    assert sharp <= simple


def test_integral_past_the_summed_visits_lies_above_the_sum(monkeypatch):
    whole = ucbvi_regret_bound([50_000, 400_000], **SIZES)
    monkeypatch.setattr(_common, "SUMMED_VISITS", 500)
    cut = ucbvi_regret_bound([50_000, 400_000], **SIZES)
    assert (cut >= whole).all() and (cut <= 3 * whole).all()


def test_shape_scale_and_monotonicity():
    episodes = np.array([[1, 10], [100, 100_000]])
    bound = ucbvi_regret_bound(episodes, **SIZES)
    assert bound.shape == episodes.shape
    assert (np.diff(bound.ravel()) > 0).all()
    assert np.allclose(ucbvi_regret_bound(episodes, **SIZES, reward_width=3.0), 3 * bound, rtol=1e-14)
    assert (bound <= episodes * 4).all()
    # The rate: a hundred times the episodes cost less than forty times the regret once the square root rules.
    late = ucbvi_regret_bound([10**7, 10**9], **SIZES)
    assert late[1] < 40 * late[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": 0.0}, "delta"),
        ({"n_states": 0}, "n_states"),
        ({"reward_width": -1.0}, "reward_width"),
        ({"bonus": "other"}, "bonus"),
        ({"replan": "never"}, "replan"),
        ({"n_successors": 0}, "n_successors"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        ucbvi_regret_bound(10, **{**SIZES, **change})
    with pytest.raises(ValueError, match="episodes"):
        ucbvi_regret_bound(0, **SIZES)
    with pytest.raises(ValueError, match="episodes"):
        ucbvi_regret_bound(float("nan"), **SIZES)


@given(st.integers(0, 10**6))
def test_bernstein_bonus_is_monotone_in_the_value(seed):
    rng = np.random.default_rng(seed)
    size, top, n = int(rng.integers(2, 6)), float(rng.integers(1, 10)), int(rng.integers(2, 2000))
    p, log = rng.dirichlet(np.full(size, 0.3)), float(rng.uniform(1, 30))
    low = rng.uniform(0, top, size) * rng.integers(0, 2, size)
    high = low + rng.random(size) * rng.integers(0, 2, size) * (top - low)

    def upper(v):
        mean = p @ v
        root = BERNSTEIN_ROOT * math.sqrt(log / n * float(p @ (v - mean) ** 2))
        return mean + max(root, BERNSTEIN_LINEAR * top * log / n)

    assert upper(high) >= upper(low) - 1e-12 * top


def test_bernstein_constants_meet_what_the_proof_asks():
    assert BERNSTEIN_ROOT**2 <= BERNSTEIN_LINEAR
    assert 0.6 * BERNSTEIN_ROOT >= 2 - 1e-15 and 0.4 * BERNSTEIN_LINEAR >= 14 / 3 - 1e-15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": 2.0}, "delta"),
        ({"delta": np.nan}, "delta"),
        ({"n_states": np.nan}, "n_states"),
        ({"horizon": 0}, "horizon"),
        ({"reward_width": np.nan}, "reward_width"),
        ({"episodes": np.nan}, "episodes"),
        ({"episodes": [1, np.inf]}, "episodes"),
    ],
)
@pytest.mark.parametrize("bound", [ucbvi_regret_bound, ucbvi_regret_closed_form])
def test_no_bound_is_a_number_out_of_what_is_none(bound, change, message):
    with pytest.raises(ValueError, match=message):
        bound(**({"episodes": 10} | SIZES | change))


def test_min_episodes_is_the_least_number_that_suffices():
    settings = {"n_states": 3, "n_actions": 2, "horizon": 4, "delta": 0.05}
    for epsilon in (4.0, 1.0, 0.3):
        enough = min_episodes(ucbvi_regret_bound, epsilon, **settings)
        assert ucbvi_regret_bound(enough, **settings) <= epsilon * enough
        assert enough == 1 or ucbvi_regret_bound(enough - 1, **settings) > epsilon * (enough - 1)
    assert min_episodes(lambda episodes: 10 * episodes**0.5, 0.1) == 10_000


def test_min_episodes_refuses_what_no_number_meets():
    with pytest.raises(ValueError, match="epsilon must be positive"):
        min_episodes(ucbvi_regret_bound, 0.0, n_states=3, n_actions=2, horizon=4, delta=0.05)
    with pytest.raises(ValueError, match=r"above 0\.5 K"):
        min_episodes(lambda episodes: episodes, 0.5)
