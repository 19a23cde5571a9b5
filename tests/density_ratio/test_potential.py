"""The potential and clip losses: worked numbers, the lemmas behind Theorem SN as properties, and the two entries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from theoryrl import verify
from theoryrl.classes import density_ratio
from theoryrl.complexity import clip_loss, clipped_concentrability
from theoryrl.density_ratio import (
    clip_losses,
    clipped_constant,
    clipped_moments,
    harmonic,
    potential,
    potential_bound,
)

FOUR = np.array([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8], [0.5, 0.5, 0.0], [0.1, 0.1, 0.8]]).reshape(4, 1, 3, 1)
SLOPES = st.sampled_from((1e-3, 0.05, 0.25, 0.5, 1.0, 3.0)) | st.floats(1e-4, 4.0)


@st.composite
def sequences(draw, layers=1):
    """Distributions d_1, ..., d_T, with zeros and repetitions: (T, layers, cells, 1)."""
    shape = draw(st.integers(1, 7)), layers, draw(st.integers(1, 4))
    raw = draw(hnp.arrays(np.float64, shape, elements=st.integers(0, 5)))
    raw[raw.sum(axis=-1) == 0, 0] = 1
    return (raw / raw.sum(axis=-1, keepdims=True))[..., np.newaxis]


# ---- worked numbers


def test_the_potential_of_four_distributions():
    added = potential(FOUR)[:, 0]
    np.testing.assert_allclose(added, [1, 0.8571428571, 0.4583333333, 0.4167832168], rtol=0, atol=1e-10)
    assert added.sum() == pytest.approx(2.7322594073, abs=1e-10)
    peak = FOUR.max(axis=0).sum()
    assert peak == pytest.approx(1.8, abs=1e-14)
    assert peak * harmonic(4) == pytest.approx(3.75, abs=1e-12)
    assert added.sum() < potential_bound(4, peak) < 3.75
    # The forms of the source: C (1 + 4 log(1 + T)) and 5 C log T.
    assert peak * (1 + 4 * math.log(5)) == pytest.approx(13.3879529695, abs=1e-10)
    assert 5 * peak * math.log(4) == pytest.approx(12.4766492501, abs=1e-10)


def test_what_clipping_loses_of_four_distributions():
    total = potential(FOUR).sum()
    for slope, lost, bound in ((0.1, 3.17, 6.8306485182), (0.25, 2.225, 2.7322594073), (0.5, 0.9, 1.3661297036)):
        assert clip_losses(FOUR, slope).sum() == pytest.approx(lost, abs=1e-12)
        assert total / (4 * slope) == pytest.approx(bound, abs=1e-9)


def test_harmonic_numbers_and_between_them():
    exact = np.cumsum(1 / np.arange(1, 50))
    np.testing.assert_allclose(harmonic(np.arange(1, 50)), exact, rtol=1e-14)
    assert harmonic(0.0) == pytest.approx(0.0, abs=1e-15)
    k = np.arange(1, 2_000_000)
    for x in (0.3, 1.7, 12.25):
        # The tail of the series beyond n is x / n up to (x / n)^2.
        assert harmonic(x) == pytest.approx((x / (k * (k + x))).sum() + x / 2e6, abs=1e-9)
    x = np.linspace(0, 30, 301)
    values = harmonic(x)
    assert (np.diff(values) > 0).all() and (np.diff(values, 2) < 1e-15).all()


def test_point_masses_in_turn_attain_the_bound():
    for points, times in ((1, 6), (3, 4), (8, 2)):
        tables = np.tile(np.eye(points), (times, 1))[:, np.newaxis, :, np.newaxis]
        assert potential(tables).sum() == pytest.approx(points * harmonic(times), rel=1e-14)
        assert potential_bound(points * times, points) == pytest.approx(points * harmonic(times), rel=1e-14)


def test_wrong_tables_are_named():
    for call in (potential, lambda tables: clip_losses(tables, 0.5), lambda tables: clipped_moments(tables, 0.5)):
        with pytest.raises(ValueError, match=r"\(T, H, S, A\)"):
            call(FOUR[0])
        with pytest.raises(ValueError, match=r"occupancies\[1, 0, 2, 0\] is negative"):
            call(np.where(np.arange(12).reshape(FOUR.shape) == 5, -1e-9, FOUR))
        with pytest.raises(ValueError, match="nan"):
            call(np.where(np.arange(12).reshape(FOUR.shape) == 5, np.nan, FOUR))
    for slope in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="gamma"):
            clip_losses(FOUR, slope)
    for x in (-0.1, math.nan):
        with pytest.raises(ValueError, match="x must"):
            harmonic(x)
    for cover in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="coverability"):
            potential_bound(10, cover)


# ---- the lemmas


@given(sequences(layers=2))
def test_the_chain_of_bounds_on_the_potential(tables):
    added, rounds = potential(tables), len(tables)
    np.testing.assert_allclose(added[0], 1.0, rtol=1e-12)
    assert ((added > 0) & (added <= 1 + 1e-12)).all()
    for h in range(2):
        peak, sums = tables[:, h].max(axis=0), tables[:, h].sum(axis=0)
        seen = peak > 0
        cells = float(potential_bound(sums[seen], peak[seen]).sum())
        played = float(potential_bound(rounds, peak.sum()))
        chain = [added[:, h].sum(), cells, played, peak.sum() * float(harmonic(rounds))]
        assert (np.diff(chain) >= -1e-11).all()
        assert played <= float(potential_bound(rounds, 1.5 * peak.sum())) + 1e-11
    same = np.repeat(tables[:1], rounds, axis=0)
    np.testing.assert_allclose(potential(same).sum(axis=0), harmonic(rounds), rtol=1e-12)


@given(sequences(), SLOPES, st.floats(0, 3))
def test_the_second_moment_pays_for_clipping(tables, slope, moment):
    added, lost, second = (
        f[:, 0] for f in (potential(tables), clip_losses(tables, slope), clipped_moments(tables, slope))
    )
    assert (lost <= added / (4 * slope) + 1e-12).all()
    both = moment / slope * second + lost
    assert (both <= clipped_constant(moment) / slope * added * (1 + 1e-12) + 1e-12).all()
    steeper = clip_losses(tables, 1.5 * slope)[:, 0]
    assert (steeper <= lost + 1e-15).all() and (lost <= 1 + 1e-12).all()
    np.testing.assert_allclose(clip_losses(tables, 0.0), 1.0, rtol=1e-12)


@given(sequences(), SLOPES)
def test_losses_and_moments_are_those_of_the_ratios(tables, slope):
    for t in range(1, len(tables) + 1):
        d, mean = tables[t - 1, 0], tables[:t, 0].mean(axis=0)
        ratio = density_ratio(d, mean)
        clipped = np.minimum(ratio, slope * t)
        lost = float((d * (1 - np.divide(clipped, ratio, out=np.ones(d.shape), where=d > 0))).sum())
        assert clip_losses(tables, slope)[t - 1, 0] == pytest.approx(lost, abs=1e-12)
        assert clip_losses(tables, slope)[t - 1, 0] == pytest.approx(float(clip_loss(d, mean, slope * t)), abs=1e-12)
        second = float((mean * clipped**2).sum()) / t
        assert clipped_moments(tables, slope)[t - 1, 0] == pytest.approx(second, abs=1e-12)
        assert second <= float(clipped_concentrability(d, mean, slope * t)) / t + 1e-12
        # A mixture of the ratios of pairs, inverted, is the ratio to the mixture.
        where = d > 0
        with np.errstate(divide="ignore"):
            lifted = 1 / np.mean([density_ratio(tables[s, 0], d)[where] for s in range(t)], axis=0)
        np.testing.assert_allclose(lifted, ratio[where], rtol=1e-12)


@given(sequences(), SLOPES, st.integers(0, 10**6))
def test_change_of_measure_with_clipped_ratios(tables, slope, seed):
    rng = np.random.default_rng(seed)
    for t in range(2, len(tables) + 1):
        d, mean = tables[t - 1, 0], tables[:t, 0].mean(axis=0)
        error = rng.uniform(-2, 1, d.shape)
        clipped = np.minimum(density_ratio(d, mean), slope * t)
        right = float((mean * error * clipped).sum()) + float(clip_loss(d, mean, slope * t))
        assert float((d * error).sum()) <= right + 1e-12


@given(st.floats(0, 1e9) | st.just(math.inf), st.floats(1e-6, 50))
def test_the_smaller_of_ratio_and_level(x, gamma):
    share = 1.0 if x == math.inf else x / (1 + x)
    assert min(x, gamma) <= (1 + gamma) * share * (1 + 1e-12)


# ---- the entries


@pytest.mark.slow
@pytest.mark.parametrize("seed", (0, 1))
@pytest.mark.parametrize("key", ("glow.potential", "glow.clip-loss"))
def test_entries_hold_and_their_controls_do_not(key, seed):
    report = verify(key, rng=seed, runs=1)
    assert report.as_expected, report.note
    assert 0.999 < report.tightness < 1 + 1e-9
    assert [control.verdict for control in report.controls] == ["refuted"] * 3


@pytest.mark.slow
def test_entries_on_a_model_of_the_user():
    from theoryrl.density_ratio._instances import last_reward

    for key in ("glow.potential", "glow.clip-loss"):
        report = verify(key, last_reward(4, 3, 3, 5))
        assert report.as_expected, report.note
