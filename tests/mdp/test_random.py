"""Random models: supports, ranges, repeatability, and the law of the supports."""

import itertools

import numpy as np
import pytest

from theoryrl import random_mdp

LAWS = ["deterministic", "bernoulli", "uniform", "outcome"]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("branching", [1, 3, 5, None])
def test_storage_does_not_change_the_model(law, staged, branching):
    settings = dict(branching=branching, staged=staged, reward_law=law)
    dense, rows = random_mdp(5, 2, 3, 7, **settings), random_mdp(5, 2, 3, 7, sparse=True, **settings)
    assert not dense.is_sparse and rows.is_sparse
    assert dense.to_sparse().transition == rows.transition
    np.testing.assert_allclose(dense.reward, rows.reward, atol=1e-15)
    assert dense.staged_transition == staged and dense.reward_law == law and dense.reward_range == (0, 1)
    assert ((dense.transition > 0).sum(axis=-1) == (branching or 5)).all()
    assert dense == random_mdp(5, 2, 3, 7, **settings) != random_mdp(5, 2, 3, 8, **settings)


def test_every_support_is_as_likely():
    mdp = random_mdp(4, 5000, 1, 0, branching=2)
    supports = mdp.transition.reshape(-1, 4) > 0
    counts = np.array([(supports[:, i] & supports[:, j]).sum() for i, j in itertools.combinations(range(4), 2)])
    expected = 20000 / 6
    # Six classes: a chi-square statistic with 5 degrees of freedom exceeds 20.5 with probability 0.001.
    assert counts.sum() == 20000
    assert ((counts - expected) ** 2 / expected).sum() < 20.5


def test_concentration_decides_between_uniform_and_deterministic_rows():
    rows = [random_mdp(6, 50, 1, 0, concentration=c).transition.max(axis=-1).mean() for c in (1e-3, 1.0, 1e3)]
    assert rows[0] > 0.95 > rows[1] > 0.3 > rows[2]


def test_large_sparse_models_stay_small():
    mdp = random_mdp(20_000, 2, 5, 0, branching=3, sparse=True)
    assert mdp.transition.data.size == 120_000
    assert (np.diff(mdp.transition.indptr) == 3).all()


@pytest.mark.parametrize(
    "sizes, settings, message",
    [
        ((0, 1, 1), {}, "n_states must be at least 1, not 0"),
        ((1, 0, 1), {}, "n_actions must be at least 1, not 0"),
        ((1, 1, 0), {}, "horizon must be at least 1, not 0"),
        ((3, 1, 1), dict(branching=4), "branching = 4 exceeds the number of states, 3"),
        ((3, 1, 1), dict(branching=0), "branching must be at least 1, not 0"),
        ((3, 1, 1), dict(concentration=float("nan")), "concentration must be positive and finite, not nan"),
        ((3, 1, 1), dict(reward_law="gauss"), "reward_law must be one of 'deterministic', .*, not 'gauss'"),
    ],
)
def test_bad_sizes_are_named(sizes, settings, message):
    with pytest.raises(ValueError, match=message):
        random_mdp(*sizes, 0, **settings)
