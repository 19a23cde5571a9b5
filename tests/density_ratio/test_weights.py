"""Weights that know whose they are: counts by enumeration, mixtures from pairs, what is missing and what is refused."""

from __future__ import annotations

import copy
import math
import pickle
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.classes import FiniteClass, WeightClass, density_ratio, mixture_ratio_class, realizable_class
from theoryrl.density_ratio import FullWeights, OccupancyRatios, RatioTable, log_tests, occupancy_ratios, ratio_table
from theoryrl.density_ratio import _glow_kernels as kernels
from theoryrl.density_ratio.weights import log_tests_of_rounds, missing_ratio
from theoryrl.mdp import FiniteHorizonMDP, occupancy, random_mdp
from theoryrl.testing import mdps

SEEDS = st.integers(0, 10_000)


@pytest.mark.parametrize(("models", "policies", "rounds"), [(1, 1, 5), (2, 3, 4), (3, 2, 6)])
def test_counts_are_those_of_all_histories(models, policies, rounds):
    weights = OccupancyRatios(np.ones((models, policies, 1, 1, 1)), [0])
    by_round = [
        {
            (m, p, tuple(np.bincount(h, minlength=policies)) if h else (0,) * policies)
            for m in range(models)
            for p in range(policies)
            for h in product(range(policies), repeat=t - 1)
        }
        for t in range(1, rounds + 1)
    ]
    assert math.exp(log_tests(weights, rounds)) == pytest.approx(sum(map(len, by_round)))
    shares = math.pi**2 * np.arange(1, rounds + 1) ** 2 / 6
    assert np.allclose(np.exp(log_tests_of_rounds(weights, rounds)) / shares, [len(each) for each in by_round])
    if models == 1:
        table = RatioTable(np.ones((policies, policies, 1, 1, 1)), [0])
        assert log_tests(table, rounds) == log_tests(weights, rounds)


def test_counts_of_lists_and_a_worked_number():
    weights = WeightClass(np.ones((5, 1, 1, 1)))
    assert log_tests(weights, 7) == pytest.approx(math.log(35))
    assert np.exp(log_tests_of_rounds(weights, 3)) == pytest.approx(5 * math.pi**2 / 6 * np.array([1, 4, 9]))
    three = OccupancyRatios(np.ones((1, 3, 3, 1, 1)), [0])
    assert math.log(4 * 3 / 0.1) + log_tests(three, 3000) == pytest.approx(28.114, abs=5e-4)
    with pytest.raises(TypeError, match="tests of a FullWeights cannot be counted"):
        log_tests(FullWeights(), 3)
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        log_tests(three, 0)


@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=SEEDS)
def test_every_member_has_the_occupancy_of_its_greedy_policy(mdp, seed):
    cls = realizable_class(mdp, 6, kind="random", rng=seed)
    weights = occupancy_ratios(cls, mdp)
    for f, policy in enumerate(cls.greedy(mdp.action_mask)):
        assert np.array_equal(weights.masses[0, weights.row[f]], occupancy(mdp, policy))
    assert len(np.unique(weights.masses[0], axis=0)) == weights.n_policies == weights.row.max() + 1
    _, first = np.unique(weights.row, return_index=True)
    assert (np.diff(first) > 0).all()  # numbered as the members come
    assert missing_ratio(weights, cls, mdp, ceiling=1.0) is None
    assert missing_ratio(ratio_table(cls, mdp), cls, mdp, ceiling=1.0) is None
    assert missing_ratio(FullWeights(), cls, mdp, ceiling=math.inf) is None
    policies = [cls.greedy(mdp.action_mask)[f] for f in first]
    for ceiling in (0.5, 3.0):
        assert missing_ratio(mixture_ratio_class(mdp, policies, 2), cls, mdp, ceiling=ceiling) is None


def test_policies_that_no_model_tells_apart_are_one():
    mdp = FiniteHorizonMDP(np.tile(np.eye(2)[:, None], (1, 2, 1)), np.full((2, 2), 0.5), horizon=1, initial=0)
    values = np.array([[[1.0, 0], [1, 0]], [[1, 0], [0, 1]], [[0, 1], [1, 0]]])[:, None]
    cls = FiniteClass(values)
    assert occupancy_ratios(cls, mdp).row.tolist() == [0, 0, 1]
    other = mdp.with_initial([0.5, 0.5])
    assert occupancy_ratios(cls, [mdp, other]).row.tolist() == [0, 1, 2]
    assert occupancy_ratios(cls, [mdp, other]).masses.shape == (2, 3, 1, 2, 2)


@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=SEEDS)
def test_mixtures_follow_from_pairs_of_policies(mdp, seed):
    cls = realizable_class(mdp, 5, kind="random", rng=seed)
    weights, table = occupancy_ratios(cls, mdp), ratio_table(cls, mdp)
    rng = np.random.default_rng(seed)
    history = rng.integers(weights.n_policies, size=int(rng.integers(1, 9)))
    played = np.bincount(history, minlength=weights.n_policies)
    t, pairs = float(len(history) + 1), mdp.n_states * mdp.n_actions
    everywhere = np.arange(pairs)
    for h, own in np.ndindex(mdp.horizon, weights.n_policies):
        masses = weights.masses[0, :, h].reshape(-1, pairs)
        mixture, direct, lifted = np.zeros(pairs), np.zeros((pairs, 1)), np.zeros((pairs, 1))
        kernels.add_mixture(masses, played, mixture)
        kernels.mixture_ratios(masses[own], mixture, t, everywhere, pairs, direct)
        ratios = np.ascontiguousarray(table.values[:, own, h].reshape(-1, pairs))
        kernels.lifted_ratios(ratios, played, own, t, everywhere, pairs, lifted)
        mean = np.mean([*masses[history], masses[own]], axis=0)
        expected = density_ratio(masses[own], mean)
        assert np.allclose(direct[:, 0], expected, rtol=1e-12, atol=0)
        here = mean > 0  # elsewhere there are no data
        assert np.allclose(lifted[here, 0], expected[here], rtol=1e-9, atol=1e-12)
        assert (expected <= t * (1 + 1e-12)).all()


def test_what_is_missing_is_named():
    mdp = random_mdp(3, 2, 2, rng=4)
    cls = realizable_class(mdp, 3, kind="random", rng=1)
    weights, other = occupancy_ratios(cls, mdp), random_mdp(3, 2, 2, rng=5)
    elsewhere = occupancy_ratios(cls, [other])
    assert "occupancy of the greedy policy of member" in missing_ratio(elsewhere, cls, mdp, ceiling=1.0)
    assert missing_ratio(occupancy_ratios(cls, [other, mdp]), cls, mdp, ceiling=1.0) is None
    wrong_row = OccupancyRatios(weights.masses, np.roll(weights.row, 1))
    assert "model 0, the nearest one" in missing_ratio(wrong_row, cls, mdp, ceiling=1.0)
    table = ratio_table(cls, mdp)
    values = table.values.copy()
    values[np.isinf(values)] = 1e9
    if np.isinf(table.values).any():
        assert "is 1e+09, but the ratio" in missing_ratio(RatioTable(values, table.row), cls, mdp, ceiling=1.0)
    ones = WeightClass(np.ones((2, 2, 3, 2)))
    assert "clipped at 0.5" in missing_ratio(ones, cls, mdp, ceiling=0.5)
    # A ceiling of next to nothing hides all differences but those of zeros.
    assert missing_ratio(ones, cls, mdp, ceiling=1e-10) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OccupancyRatios(np.ones((1, 1, 1, 1)), [0]), r"masses has shape \(1, 1, 1, 1\)"),
        (lambda: OccupancyRatios(np.full((1, 1, 1, 1, 2), -1.0), [0]), r"masses\[0, 0, 0, 0, 0\] is -1"),
        (lambda: OccupancyRatios(np.full((1, 1, 1, 1, 2), math.inf), [0]), r"masses\[0, 0, 0, 0, 0\] is inf"),
        (lambda: OccupancyRatios(np.full((1, 1, 1, 1, 2), math.nan), [0]), r"masses\[0, 0, 0, 0, 0\] is nan"),
        (lambda: OccupancyRatios(np.ones((1, 2, 1, 1, 1)), [0, 2]), r"row\[1\] = 2, but there are 2 policies"),
        (lambda: OccupancyRatios(np.ones((1, 2, 1, 1, 1)), [-1]), r"row\[0\] = -1"),
        (lambda: OccupancyRatios(np.ones((1, 2, 1, 1, 1)), [0.5]), r"row\[0\] = 0.5 is not an integer"),
        (lambda: OccupancyRatios(np.ones((1, 2, 1, 1, 1)), []), r"row has shape \(0,\)"),
        (lambda: RatioTable(np.ones((1, 2, 1, 1, 1)), [0]), r"values has shape \(1, 2, 1, 1, 1\)"),
        (lambda: RatioTable(np.full((1, 1, 1, 1, 1), math.nan), [0]), r"values\[0, 0, 0, 0, 0\] is nan"),
        (lambda: RatioTable(np.full((1, 1, 1, 1, 1), -0.5), [0]), r"values\[0, 0, 0, 0, 0\] is -0.5"),
        (lambda: FullWeights(0.0), "prior must be positive"),
        (lambda: FullWeights(math.nan), "prior must be positive"),
        (lambda: occupancy_ratios(FiniteClass(np.zeros((1, 1, 1, 1))), []), "mdps is empty"),
        (
            lambda: occupancy_ratios(FiniteClass(np.zeros((1, 2, 3, 2))), [random_mdp(n, 2, 2, rng=0) for n in (3, 2)]),
            r"mdps\[1\]: the class is for",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_other_actions_are_refused():
    mdp = random_mdp(3, 2, 2, rng=0)
    mask = np.ones((3, 2), bool)
    mask[1, 0] = False
    masked = FiniteHorizonMDP(mdp.transition, mdp.reward, horizon=2, action_mask=mask)
    with pytest.raises(ValueError, match=r"mdps\[1\] allows other actions than mdps\[0\]"):
        occupancy_ratios(FiniteClass(np.zeros((1, 2, 3, 2))), [mdp, masked])


def test_weights_stay_read_only_and_say_what_they_are():
    mdp = random_mdp(3, 2, 2, rng=4)
    cls = realizable_class(mdp, 3, kind="random", rng=1)
    for weights in (occupancy_ratios(cls, mdp), ratio_table(cls, mdp)):
        for twin in (weights, copy.deepcopy(weights), pickle.loads(pickle.dumps(weights))):
            assert not any(array.flags.writeable for array in vars(twin).values())
        assert f"policies={weights.n_policies}, members=4" in repr(weights)
