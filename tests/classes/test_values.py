"""The classes as arrays: shapes, errors, greedy policies, products, weights and their conventions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.classes import (
    FiniteClass,
    LinearClass,
    ProductClass,
    TabularClass,
    WeightClass,
    clip_weights,
    density_ratio,
)


def test_tables_are_read_only_and_sized():
    values = np.arange(24.0).reshape(2, 2, 3, 2)
    cls = FiniteClass(values)
    assert (cls.size, cls.horizon, cls.n_states, cls.n_actions) == (2, 2, 3, 2)
    assert cls.log_size == math.log(2)
    values[0, 0, 0, 0] = 9
    assert cls.values[0, 0, 0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        cls.values[0, 0, 0, 0] = 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FiniteClass(np.zeros((2, 3, 2))), r"values has shape \(2, 3, 2\), not \(nF, H, S, A\)"),
        (lambda: FiniteClass(np.zeros((0, 1, 3, 2))), "at least one of each"),
        (lambda: FiniteClass(np.where(np.arange(6).reshape(1, 1, 3, 2) == 3, np.nan, 0)), r"values\[0, 0, 1, 1\]"),
        (lambda: ProductClass([]), "layers is empty"),
        (lambda: ProductClass([np.zeros((1, 2, 2)), np.zeros((1, 2, 3))]), r"layers\[1\] is for"),
        (lambda: ProductClass([np.zeros((1, 2, 2))]).member([1]), r"index\[0\] = 1, but layer 0 has 1 members"),
        (lambda: ProductClass([np.zeros((1, 2, 2))]).member([]), "index has 0 entries for 1 layers"),
        (lambda: ProductClass([np.zeros((9, 1, 1))] * 9).to_finite(), "387420489 members, more than limit=100000"),
        (lambda: WeightClass(-np.ones((1, 1, 1, 1))), r"values\[0, 0, 0, 0\] is -1.0, not a weight"),
        (lambda: WeightClass(np.full((1, 1, 1, 1), np.nan)), "not a weight"),
        (lambda: TabularClass(2, 2, 2, low=1, high=0), "low <= high"),
        (lambda: TabularClass(2, 2, 0), "horizon must be at least 1"),
        (lambda: TabularClass(2, 2, 2).log_covering_number(0.0), "radius must be positive"),
        (lambda: LinearClass(np.zeros((2, 2, 1)), -1), "horizon must be at least 1, not -1"),
        (lambda: LinearClass(np.zeros((3, 2, 2, 1)), 2), "features has 3 layers, but the horizon is 2"),
        (lambda: LinearClass(np.zeros((2, 2, 1)), 3).values(np.zeros((3, 2))), "weights has shape"),
        (lambda: density_ratio([1.0, -1.0], [1.0, 1.0]), r"numerator\[1\] is negative"),
        (lambda: clip_weights([np.nan], 1.0), "nan"),
        (lambda: clip_weights([1.0], float("nan")), "ceiling must be at least 0"),
        (lambda: FiniteClass(np.zeros((1, 1, 2, 2))).greedy(np.zeros((2, 2), bool)), "allows no action in state 0"),
    ],
)
def test_what_is_wrong_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_greedy_and_state_values_respect_the_mask_and_break_ties_low():
    cls = FiniteClass(np.array([[[[1.0, 3.0, 3.0], [5.0, 2.0, 4.0]]]]))
    mask = np.array([[True, True, True], [False, True, True]])
    assert cls.greedy().tolist() == [[[1, 0]]]
    assert cls.greedy(mask).tolist() == [[[1, 2]]]
    assert cls.state_values(mask).tolist() == [[[3.0, 4.0], [0.0, 0.0]]]
    layers = ProductClass([cls.values[:, 0]])
    assert layers.greedy(mask)[0].tolist() == [[1, 2]]
    assert layers.state_values(mask)[0].tolist() == [[3.0, 4.0]]


def test_a_product_is_every_combination():
    rng = np.random.default_rng(0)
    cls = ProductClass([rng.random((m, 2, 2)) for m in (2, 3, 1)])
    assert cls.sizes == (2, 3, 1)
    assert cls.size == 6
    assert cls.log_size == pytest.approx(math.log(6))
    every = cls.to_finite()
    for k, index in enumerate(itertools.product(range(2), range(3), range(1))):
        assert np.array_equal(every.values[k], cls.member(index))


def test_covering_number_of_the_table_by_brute_force():
    # One pair, two layers: [0, 2] and [0, 1] by intervals of length 0.6 take 4 and 2.
    assert TabularClass(1, 1, 2).log_covering_number(0.3) == pytest.approx(math.log(4 * 2))
    assert TabularClass(2, 3, 2).log_covering_number(0.3) == pytest.approx(6 * math.log(8))
    assert TabularClass(2, 3, 2).log_covering_number(5.0) == 0
    assert TabularClass(1, 1, 1, low=2, high=2).log_covering_number(0.1) == 0
    assert TabularClass(1, 1, 3, low=-1, high=2).bounds.tolist() == [[-3, 6], [-2, 4], [-1, 2]]


def test_ratios_keep_their_conventions():
    ratio = density_ratio([0.0, 0.0, 2.0, 1.0], [0.0, 1.0, 0.0, 4.0])
    assert ratio.tolist() == [0.0, 0.0, np.inf, 0.25]
    assert density_ratio([1.0], [5e-324]).tolist() == [np.inf]
    assert clip_weights([np.inf, -np.inf, 0.5, -3.0], 2.0).tolist() == [2.0, -2.0, 0.5, -2.0]


def test_linear_members_are_tables():
    features = np.arange(12.0).reshape(3, 2, 2)
    cls = LinearClass(features, 2)
    values = cls.values([[1.0, 0.0], [0.0, 2.0]])
    assert values[0].tolist() == features[..., 0].tolist()
    assert values[1].tolist() == (2 * features[..., 1]).tolist()


extended = st.floats(0, 10) | st.just(np.inf)


@given(
    st.lists(extended, min_size=1, max_size=4),
    st.lists(extended, min_size=4, max_size=4),
    st.floats(0, 5),
    st.floats(0, 5),
)
def test_clipping_is_idempotent_monotone_and_a_contraction(first, second, low, high):
    low, high = min(low, high), max(low, high)
    w, v = np.array(first), np.array(second[: len(first)])
    assert np.array_equal(clip_weights(clip_weights(w, high), high), clip_weights(w, high))
    assert (clip_weights(w, low) <= clip_weights(w, high)).all()
    assert (clip_weights(np.minimum(w, v), high) <= clip_weights(w, high)).all()
    assert np.array_equal(clip_weights(-w, high), -clip_weights(w, high))
    finite = np.isfinite(w) & np.isfinite(v)
    w_cut, v_cut = clip_weights(w, high)[finite], clip_weights(v, high)[finite]
    assert (np.abs(w_cut - v_cut) <= np.abs(w[finite] - v[finite])).all()
    assert (clip_weights(w, high)[np.isinf(w)] == high).all()
