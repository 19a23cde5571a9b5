"""The schedules of GLOW: by hand, against a numerical minimum, and the scale-free level in an exact stopping game."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from theoryrl.classes import FiniteClass, WeightClass
from theoryrl.density_ratio import GLOW, OccupancyRatios, self_normalised_constants
from theoryrl.density_ratio.schedules import SCALE_FREE, threshold


def settings(**changes):
    """Two layers, three members, four weights."""
    cls = FiniteClass(np.full((3, 2, 1, 2), 0.5))
    weights = WeightClass(np.arange(4.0)[:, None, None, None] * np.ones((4, 2, 1, 2)))
    return GLOW(**dict(cls=cls, weights=weights, iterations=50, gamma=0.1, delta=0.2) | changes)


def test_levels_by_hand():
    ours = math.log(4 * 2 * 4 * 50 / 0.2)
    for width, trajectories in ((1.0, 1), (2.0, 3)):
        g = settings(c=0.3, noise_width=width, trajectories=trajectories)
        assert g.levels(11) == pytest.approx((1.1, 0.3 / 1.1, width**2 * 1.1 * ours / (8 * 0.3 * 10 * trajectories)))
        alpha, beta = g.levels(11)[1:]
        # What is needed of Hoeffding's lemma: 8 alpha beta n = b^2 L_W.
        assert 8 * alpha * beta * 10 * trajectories == pytest.approx(width**2 * ours)
    paper = math.log(6 * 3 * 4 * 50 * 2 / 0.2)
    assert settings(schedule="paper").levels(11) == pytest.approx((1.1, 8 / 1.1, 36 * 1.1 * paper / 10))
    free = settings(schedule="scale_free").levels(11)
    assert free == pytest.approx((1.1, 0.0, 1.1 * math.sqrt(ours / 2) / 10))
    assert settings(scale=0.5).levels(11)[2] == pytest.approx(0.5 * settings().levels(11)[2])
    assert settings(log_tests=1.0).log_levels() == pytest.approx([math.log(4 * 2 / 0.2) + 1.0])


def test_a_level_for_all_rounds_spends_no_more_than_its_share():
    one_policy = OccupancyRatios(np.full((2, 3, 2, 1, 2), 0.5), [0, 1, 2])
    for weights in (settings().weights, one_policy):
        g = settings(weights=weights, anytime=True, iterations=2000)
        logs = g.log_levels()
        assert logs.shape == (2000,) and (np.diff(logs) > 0).all()
        t = np.arange(1, 2001)
        tests = np.full(2000, 4.0) if isinstance(weights, WeightClass) else 2 * 3 * (t + 1) * t / 2
        # H (tests of round t) e^(-L_W(t)), added up: at most delta / 4, and nearly that.
        total = (2 * tests * np.exp(-logs)).sum()
        assert 0.9995 * 0.2 / 4 <= total <= 0.2 / 4
        fixed = dataclasses.replace(g, anytime=False).log_levels()
        assert fixed.shape == (1,) and logs[0] < fixed[0]


def test_slopes_of_the_settings():
    g = settings(gamma=None, coverability=2.0)
    log = float(g.log_levels()[0]) + math.log(3)
    # gamma* with H(50 / 2) = H(25), the 25th harmonic number.
    first, second = self_normalised_constants()
    harmonic = sum(1 / k for k in range(1, 26))
    expected = math.sqrt(first * 2 * 2.0 * harmonic / (second * 2 * 50 * log))
    assert g.slope() == pytest.approx(expected, rel=1e-12) and g.levels(7)[0] == g.slope() * 7
    assert dataclasses.replace(g, coverability=[2.0, 2.0]).slope() == g.slope()
    assert dataclasses.replace(g, trajectories=4).slope() == pytest.approx(2 * expected)
    assert dataclasses.replace(g, schedule="scale_free").slope() == pytest.approx(expected, rel=0.1)
    paper = dataclasses.replace(g, schedule="paper", coverability=[1.0, 2.0])
    assert paper.slope() == pytest.approx(math.sqrt(2 / (50 * math.log(6 * 3 * 4 * 2 * 50 / 0.2))))
    assert dataclasses.replace(paper, trajectories=10**6).slope() == 1.0
    assert settings(gamma=0.3, coverability=2.0).slope() == 0.3


def stopping_game(crosses, rounds):
    """P(a walk of +-1/2 steps ever crosses), where it is kept from then on; exact, over the positions."""
    law, out = {0: 1.0}, 0.0  # twice the position
    for n in range(1, rounds + 1):
        after: dict[int, float] = {}
        for place, p in law.items():
            for step in (-1, 1):
                after[place + step] = after.get(place + step, 0.0) + p / 2
        law = {}
        for place, p in after.items():
            if crosses(place / 2, n):
                out += p
            else:
                law[place] = p
    return out


def test_the_scale_free_level_holds_when_the_data_stop_where_they_please():
    # One pair, weight 1, noise +-1/2; it is visited until Q* violates its test, and never again.
    log, n, gamma_t = math.log(10), 400, 1.0

    def ours(total, visits):
        limit = threshold(SCALE_FREE, visits / n, n, gamma_t, 0.0, log, 1.0, 1.0)
        return total / n > limit

    def literal(total, visits):
        return total > math.sqrt(log * visits / 2)

    assert stopping_game(ours, n) <= 0.1 < stopping_game(literal, n)
    assert stopping_game(ours, n) > 1e-3  # the level is not vacuous
