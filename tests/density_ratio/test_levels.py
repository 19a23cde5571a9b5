"""Levels without alpha: the exact failure of the literal form, and the two repaired ones."""

from functools import lru_cache
from itertools import product
from math import ceil, inf, log, log2, nan, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl._jit import plain
from theoryrl.density_ratio import scale_free_threshold, schedules
from theoryrl.density_ratio._games import largest_chance, splits
from theoryrl.density_ratio._theorems_levels import (
    THEOREMS,
    Game,
    breaks_tabular,
    breaks_threshold,
    literal,
    scale_free,
    tabular,
)
from theoryrl.theory import verify
from theoryrl.theory.verdict import decide


def chance(draws, nominal, form="literal", means=(0.5,), weights=(1.0,)):
    return largest_chance(draws, means, breaks_threshold(Game(draws, means, weights), -log(nominal), form, 0.0))


# ---- the literal form


@pytest.mark.parametrize(("draws", "failure"), [(100, 0.11683923185912), (1000, 0.18952816028198)])
def test_the_literal_form_fails(draws, failure):
    """One cell that pays 0 or 1 evenly, left alone once its sum is large enough."""
    assert chance(draws, 0.1) == pytest.approx(failure, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("nominal", "failure"), [(0.1, 0.2305913145579), (0.01, 0.0288290404974)])
def test_the_literal_form_fails_more_with_more_draws(nominal, failure):
    assert chance(4000, nominal) == pytest.approx(failure, abs=1e-11)


@pytest.mark.slow
def test_the_mixture_in_the_same_game():
    assert chance(4000, 0.1, "mixture") == pytest.approx(0.0255340121245, abs=1e-12)


def test_the_failure_is_that_of_a_walk():
    """By counting the paths of +-1/2 steps that ever exceed sqrt(L N / 2), all 2^14 of them."""
    steps = np.array(list(product((-0.5, 0.5), repeat=14)))
    limit = np.sqrt(log(10) * np.arange(1, 15) / 2)
    assert (steps.cumsum(axis=1) > limit).any(axis=1).mean() == pytest.approx(chance(14, 0.1), abs=1e-15)


def test_for_one_weight_on_one_set_a_union_over_visits_is_enough():
    """L = log(n / delta) is exceeded with probability at most delta: for every N the N-th visit is a stopping time."""
    for draws, mean in ((50, 0.5), (200, 0.5), (200, 0.1), (200, 0.9)):
        for delta in (0.5, 0.1):
            assert chance(draws, delta / draws, means=(mean,)) <= delta
            assert chance(draws, delta / draws, means=(mean,), weights=(0.3,)) <= delta


def test_the_literal_form_does_not_see_the_size_of_the_weight():
    for weight in (0.01, 0.4):
        assert chance(60, 0.1, weights=(weight,)) == chance(60, 0.1)


# ---- the games


@pytest.mark.parametrize("form", ["literal", "mixture"])
def test_games_against_a_recursion(form):
    draws, means, weights, level = 9, (0.5, 0.3), (1.0, 0.3), log(4)

    @lru_cache(None)
    def best(state):
        visits, ones = np.array(state[:2]), np.array(state[2:])
        sums = visits * np.array(means) - ones
        moment = float((np.square(weights) * visits).sum()) / draws
        if np.dot(weights, sums) / draws > scale_free_threshold(moment, draws, level, ceiling=1.0, form=form):
            return 1.0
        if visits.sum() == draws:
            return 0.0
        options = []
        for i, mean in enumerate(means):
            after = list(state)
            after[i] += 1
            no = best(tuple(after))
            after[2 + i] += 1
            options.append((1 - mean) * no + mean * best(tuple(after)))
        return max(options)

    value = chance(draws, 0.25, form, means, weights)
    assert value == pytest.approx(best((0, 0, 0, 0)), abs=1e-14)
    assert 0 < value < 1


@pytest.mark.parametrize(("delta", "failure"), [(0.2, 0.0432), (0.1, 0.0132), (0.05, 0.0046)])
def test_the_level_over_all_weights_in_the_game_of_two_cells(delta, failure):
    crossed = breaks_tabular((0, 0), delta, 1.0, "")
    assert largest_chance(14, (0.5, 0.5), crossed) == pytest.approx(failure, abs=5e-5)


def test_a_player_who_may_choose_does_better_than_one_who_may_not():
    crossed = breaks_tabular((0, 0), 0.2, 1.0, "")
    alone = largest_chance(14, (0.5,), breaks_tabular((0,), 0.2, 1.0, ""))
    assert alone < largest_chance(14, (0.5, 0.5), crossed) <= 0.2


def test_splits():
    assert list(splits(3, 1)) == [(3,)]
    assert sorted(splits(2, 2)) == [(0, 2), (1, 1), (2, 0)]
    assert len(list(splits(5, 3))) == 21
    assert all(sum(split) == 5 for split in splits(5, 3))


# ---- the thresholds

moments = st.floats(0, 1)


@given(moments, st.integers(1, 10**6), st.floats(0.1, 50), st.floats(0.05, 20), st.floats(0.2, 3))
def test_the_grid_of_alphas_is_what_the_form_says(share, size, level, ceiling, width):
    """The best alpha of a grid of ratio 2 with G points gives no more than the closed form, the floor counted in."""
    moment = share * ceiling**2
    points = 1 + ceil(0.5 * log2(size))
    inflated = level + log(points)
    # The best alpha for a second moment x is b sqrt(L' / (8 n x)), and x lies between gamma^2 / n and gamma^2.
    grid = width * sqrt(inflated / (8 * size)) / ceiling * sqrt(2) * 2.0 ** np.arange(points)
    floored = max(moment, ceiling**2 / size)
    best = (grid * floored + width**2 * inflated / (8 * grid * size)).min()
    limit = scale_free_threshold(moment, size, level, ceiling=ceiling, noise_width=width, form="grid")
    assert best <= limit * (1 + 1e-9)
    assert (grid * moment + width**2 * inflated / (8 * grid * size)).min() <= limit * (1 + 1e-9)


@given(moments, st.integers(1, 10**6), st.floats(0.1, 50), st.floats(0.05, 20), st.floats(0.02, 5))
def test_the_mixture_implies_the_test_with_any_alpha(share, size, level, ceiling, c):
    """With alpha = c / gamma and L'' = L + log(1 + n) / 2, at most alpha P + c gamma / n + gamma L'' / (8 c n)."""
    moment = share * ceiling**2
    inflated = level + 0.5 * np.log1p(size)
    limit = scale_free_threshold(moment, size, level, ceiling=ceiling)
    assert limit <= (c / ceiling * moment + c * ceiling / size + ceiling * inflated / (8 * c * size)) * (1 + 1e-12)


@given(moments, st.integers(1, 10**6), st.floats(0.1, 50), st.floats(0.05, 20), st.floats(0.2, 3))
def test_the_learner_uses_the_mixture(share, size, level, ceiling, width):
    moment = share * ceiling**2
    mine = scale_free_threshold(moment, size, level, ceiling=ceiling, noise_width=width)
    theirs = plain(schedules.threshold)(schedules.SCALE_FREE, moment, size, ceiling, 0.0, level, width, 1.0)
    assert mine == pytest.approx(theirs, rel=1e-12)


def test_worked_thresholds():
    """n = 100: the grid has G = 1 + ceil(log2(10)) = 5 points."""
    settings = dict(ceiling=2.0, noise_width=1.5)
    grid = 1.5 * (sqrt(2) + 1 / sqrt(2)) / 2 * sqrt(0.3 * (2 + log(5)) / 200)
    assert scale_free_threshold(0.3, 100, 2.0, form="grid", **settings) == pytest.approx(grid, rel=1e-14)
    mixture = 1.5 * sqrt(0.34 * (2 + 0.5 * log(8.5)) / 200)
    assert scale_free_threshold(0.3, 100, 2.0, **settings) == pytest.approx(mixture, rel=1e-14)


def test_the_literal_form_is_the_best_alpha():
    """min over alpha of alpha P + b^2 L / (8 alpha n)."""
    alpha = np.geomspace(1e-3, 1e3, 20001)
    for moment, size, level, width in ((0.3, 50, 2.0, 1.0), (4.0, 7, 0.5, 2.0)):
        best = (alpha * moment + width**2 * level / (8 * alpha * size)).min()
        exact = scale_free_threshold(moment, size, level, ceiling=1.0, noise_width=width, form="literal")
        assert best == pytest.approx(exact, rel=1e-6)


def test_order_of_the_forms():
    """Both repairs are weaker than the literal form, and exceed it by the logarithm alone once nP is large."""
    literal, mixture, grid = (
        scale_free_threshold(np.array([0.0, 0.1, 1.0]), 400, 3.0, ceiling=1.0, form=form)
        for form in ("literal", "mixture", "grid")
    )
    assert literal[0] == 0 < mixture[0] < grid[0]
    assert (literal < mixture).all()
    assert (literal < grid).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(second_moment=nan), "second_moment is nan"),
        (dict(second_moment=-1.0), "second_moment must be at least 0"),
        (dict(size=0), "size must be positive"),
        (dict(log_level=inf), "log_level must be positive and finite"),
        (dict(ceiling=0.0), "ceiling must be positive"),
        (dict(noise_width=nan), "noise_width must be positive"),
        (dict(form="exact"), "form must be one of mixture, grid, literal"),
    ],
)
def test_bad_thresholds(settings, message):
    given = dict(second_moment=1.0, size=3, log_level=1.0, ceiling=1.0) | settings
    second_moment, size, log_level = given.pop("second_moment"), given.pop("size"), given.pop("log_level")
    with pytest.raises(ValueError, match=message):
        scale_free_threshold(second_moment, size, log_level, **given)


# ---- the registry


def test_the_registry_refutes_with_the_exact_chances():
    seen = literal(None, rng=np.random.SeedSequence(0), runs=1, jobs=1, progress=None)
    assert seen.observed[:2] == pytest.approx([0.11683923185912, 0.18952816028198], abs=1e-12)
    assert (seen.observed > seen.bound).all()


@pytest.mark.parametrize("protocol", [scale_free, tabular])
def test_what_is_observed_is_the_value_of_the_game(protocol):
    game = Game(10, (0.5, 0.3), (1.0, 0.5))
    seen = protocol(None, rng=np.random.SeedSequence(0), runs=0, jobs=1, progress=None, games=(game,))
    if protocol is scale_free:
        crossed = breaks_threshold(game, log(2), "mixture", 0.0)
    else:
        crossed = breaks_tabular((0, 0), 0.1, 1.0, "")
    assert seen.observed[0] == pytest.approx(largest_chance(10, game.means, crossed), rel=1e-12)
    assert seen.observed[0] > 0
    assert (seen.allowance < 1e-12).all()


@pytest.mark.parametrize("entry", THEOREMS, ids=lambda entry: entry.key)
def test_proofs_are_written(entry):
    page, anchor = entry.proof.anchor.split("#")
    text = (Path(__file__).resolve().parents[2] / page).read_text()
    section = text.split(f"({anchor})=\n", 1)[1].split("\n## ", 1)[0]
    assert f"`{entry.key}`" in section
    assert "*Proof" in section or "*Counterexample" in section


@pytest.mark.parametrize("entry", THEOREMS, ids=lambda entry: entry.key)
def test_theorems_come_out_as_expected(entry):
    report = verify(entry, rng=0)
    assert report.as_expected, report.note
    assert report.verdict == entry.expected
    assert all(control.verdict == "refuted" for control in report.controls)


@pytest.mark.slow
@pytest.mark.parametrize("entry", THEOREMS, ids=lambda entry: entry.key)
def test_controls_are_refuted_at_any_seed(entry):
    for seed in range(10):
        root = np.random.SeedSequence(1000 + seed)
        for control in entry.controls:
            runs = control.runs or entry.default_runs
            seen = control.protocol(None, rng=root, runs=runs, jobs=1, progress=None)
            assert decide(entry, seen, root).verdict == "refuted", f"{control.name}, seed {seed}"


def test_other_games_than_those_of_the_registry():
    games = (Game(30, (0.4, 0.7), (0.05, 1.0)), Game(120, (0.7,), (0.5,)))
    for protocol in (scale_free, tabular):
        seen = protocol(None, rng=np.random.SeedSequence(5), runs=3, jobs=1, progress=None, games=games)
        assert (seen.observed <= seen.bound).all()
        assert (seen.observed > 0).mean() > 0.5
