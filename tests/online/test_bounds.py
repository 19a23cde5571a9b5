"""The bounds against slow evaluations of their formulas, and their proofs' lemmas on random numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.online._ucbvi_kernels import BERNSTEIN_LINEAR, BERNSTEIN_ROOT
from theoryrl.online.bounds import _common, min_episodes, ucbvi_regret_bound, ucbvi_regret_closed_form

SIZES = {"n_states": 3, "n_actions": 2, "horizon": 4, "delta": 0.05}


def slow_bound(K, S, A, H, delta, stationary, G, bonus):
    """The docstring's formula, term by term."""
    e = 3 if bonus == "hoeffding" else 5

    def phi(n):
        log = math.log(2 * e * S * A * H * n * (n + 1) / delta)
        transfer = math.log(e * S * S * A * H * n * (n + 1) / delta)
        if bonus == "hoeffding":
            first = 2 * math.sqrt(log / (2 * n))
        else:
            first = (5 / 3 + math.sqrt(1 / 2)) * math.sqrt(log / n) + 35 / 3 * log / n
        return first + G * (H / 2 + 1 / 3) * transfer / n

    def F(N):
        whole = math.floor(N)
        terms = [1.0] + [min(1.0, phi(n)) for n in range(1, whole + 1)]
        return sum(terms[:whole]) + (N - whole) * terms[whole]

    w = [(1 + 1 / H) ** h * (H - h) for h in range(H)]
    main = H * S * A * (H - 1 + F(K * H / (S * A))) if stationary else sum(w) * S * A * F(K / (S * A))
    noise = math.sqrt(K / 2 * sum(x * x for x in w) * math.log(e * K * (K + 1) / delta))
    return min(K * H, main + noise)


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
