"""Offline oracles: constants by hand, one protocol, what is refused, and why MABO has no constants."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theoryrl.classes import (
    FiniteClass,
    ProductClass,
    TabularClass,
    WeightClass,
    complete_class,
    density_ratio,
    realizable_class,
)
from theoryrl.complexity.concentrability import clip_loss, clipped_concentrability
from theoryrl.density_ratio import (
    FQI,
    MABO,
    MABOCR,
    MLE,
    OccupancyRatios,
    fqi_constants,
    likelihood_constants,
    mabo_cr,
    mabo_cr_constants,
    occupancy_ratios,
    ratios_to,
    second_moment_constants,
    single_layers,
    units_of,
)
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.evaluation import evaluate, occupancy
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.simulation import rollout
from theoryrl.offline.fitted import fqi
from theoryrl.offline.likelihood import maximum_likelihood
from theoryrl.offline.minimax import mabo

HORIZON, STATES, ACTIONS = 2, 3, 2


def model(seed=0):
    return random_mdp(STATES, ACTIONS, HORIZON, np.random.default_rng(seed))


def uniform_data(mdp, size=200, seed=1):
    return rollout(mdp, np.full((mdp.n_states, mdp.n_actions), 1 / mdp.n_actions), size, seed)


# ---- constants


def test_constants_by_hand():
    settings = {"horizon": 3, "n_functions": 8, "log_tests": math.log(8 * 100), "delta": 0.1}
    level = math.log(5 * 8 * 8 * 100 * 3 / 0.1)
    assert mabo_cr_constants(**settings).a == 2.0
    np.testing.assert_allclose(mabo_cr_constants(**settings).b, 5.5 * level, rtol=1e-12)
    # c = 1: A = (e - 1) + 2 (e - 2) = 3.1548, B = 3.125.
    large = mabo_cr_constants(**settings, c=1.0)
    np.testing.assert_allclose(large, (3 * math.e - 5, 6.25 * level), rtol=1e-12)
    wide = mabo_cr_constants(**settings, noise_width=2.0)
    np.testing.assert_allclose(wide.b, 2 * (0.25 + 2 + 2) * level, rtol=1e-12)
    small = mabo_cr_constants(**settings, residual=1.0)
    np.testing.assert_allclose(small, ((math.e - 1) / 4 + math.e - 2, 3.5 * level), rtol=1e-12)
    assert mabo_cr_constants(**settings, residual=1.0, c=0.1).a == 1.0
    paper = mabo_cr_constants(**settings, source="paper")
    np.testing.assert_allclose(paper, (40, 504 * math.log(24 * 8 * 800 * 9 / 0.1)), rtol=1e-12)


def test_constants_of_fits_by_hand():
    log_pairs = math.log(12)
    one = fqi_constants(horizon=3, log_pairs=log_pairs, delta=0.1, noise_width=1.0)
    np.testing.assert_allclose(one, (2, 2.5414940825 * math.log(12 * 30) / 4), rtol=1e-9)
    two = fqi_constants(horizon=3, log_pairs=log_pairs, delta=0.1)
    np.testing.assert_allclose(two.b * 4 / math.log(12 * 30), 8.5104139550, rtol=1e-9)
    paper = fqi_constants(horizon=3, log_pairs=log_pairs, delta=0.1, calls=7, source="paper")
    np.testing.assert_allclose(paper, (6, 1024 * math.log(2 * 12 * 3 * 7 / 0.1)), rtol=1e-12)
    np.testing.assert_allclose(
        likelihood_constants(horizon=3, n_models=4, delta=0.1), (2, 2 * math.log(120)), rtol=1e-12
    )
    narrow = likelihood_constants(horizon=3, n_models=4, delta=0.1, noise_width=1.0)
    np.testing.assert_allclose(narrow, (2, math.log(120) / 2), rtol=1e-12)
    paper = likelihood_constants(horizon=3, n_models=4, delta=0.1, calls=5, source="paper")
    np.testing.assert_allclose(paper, (6, 8 * math.log(600)), rtol=1e-12)


def test_the_exponents_of_the_page():
    """The page claims a product of 10.84 L at c = 0.3279, where A = 2."""
    a, b = mabo_cr_constants(horizon=1, n_functions=1, log_tests=0, delta=0.05, c=0.3279)
    np.testing.assert_allclose(a * b / math.log(100), 10.84, atol=5e-3)
    assert a == 2.0


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1), st.integers(1, 200), st.floats(0.01, 50))
def test_second_moments_bound_every_policy(seed, gamma, n, kappa):
    """E_d[x] <= (2 / (gamma n)) CC + kappa gamma / 8 whenever |x| <= 2 and E_mu[x^2] <= kappa / n."""
    rng = np.random.default_rng(seed)
    d, mu = rng.dirichlet(np.full(5, 0.4)), rng.dirichlet(np.full(5, 0.4)) * rng.choice([0.0, 1.0], 5, p=[0.2, 0.8])
    x = rng.uniform(-2, 2, 5)
    moment = mu @ x**2
    x = x * min(1.0, math.sqrt(kappa / n / moment)) if moment > 0 else x
    a, b = second_moment_constants(kappa)
    cc = float(clipped_concentrability(d[np.newaxis], mu[np.newaxis], gamma * n))
    assert d @ x <= a / (gamma * n) * cc + b / 2 * gamma + 1e-9


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 2))
@settings(max_examples=30)
def test_the_deterministic_half_of_the_proof(seed, level):
    """Whatever the residuals, the loss is at most what second moments, tails and weighted means of residuals say."""
    mdp = model(seed % 1000)
    cls = realizable_class(mdp, 1, kind="random", rng=seed)
    units = units_of(mdp)
    f = cls.values[1] / units.scale
    later = np.concatenate([f.max(axis=-1)[1:], np.zeros((1, STATES))])
    residual = f - mdp.reward / units.scale - np.einsum("sat,ht->hsa", mdp.transition, later)
    mu = occupancy(mdp, np.full((STATES, ACTIONS), 0.5)) * 1.0
    best, own = occupancy(mdp, backward_induction(mdp).policy), occupancy(mdp, cls.greedy()[1])
    total = 0.0
    for d, sign in ((best, -1), (own, 1)):
        v = np.minimum(density_ratio(d, mu), level)
        worst = 2 if sign < 0 else 1
        total += float((mu * v * sign * residual).sum() + worst * clip_loss(d, mu, level).sum())
    gap = evaluate(mdp, backward_induction(mdp).policy)[0] - evaluate(mdp, cls.greedy()[1])[0]
    assert mdp.initial @ gap / units.scale <= total + 1e-12


# ---- the protocol


def test_oracles_return_what_their_learners_do():
    mdp = model()
    data = uniform_data(mdp)
    cls = realizable_class(mdp, 3, kind="random")
    weights = WeightClass(np.random.default_rng(2).exponential(1.0, (4, HORIZON, STATES, ACTIONS)))
    units = units_of(mdp)
    for form in ("max", "sum"):
        chosen = MABOCR(cls, weights, 0.1, form, units=units).choose(data)
        found = mabo_cr(data, cls, weights, gamma=0.1, form=form, units=units)
        assert chosen.member == found.index
        np.testing.assert_array_equal(chosen.objective, found.objective)
        np.testing.assert_array_equal(chosen.policy, cls.greedy()[found.index])
    plain = MABO(cls, weights).choose(data)
    assert plain.member == mabo(data, cls, weights).index
    product = complete_class(mdp, 2, 0)
    np.testing.assert_array_equal(FQI(product).choose(data).policy, fqi(data, product).policy)
    listed = [mdp, model(5)]
    np.testing.assert_array_equal(MLE(listed).choose(data).policy, maximum_likelihood(data, listed).plan.policy)
    table = TabularClass(STATES, ACTIONS, HORIZON)
    np.testing.assert_array_equal(MABOCR(table, None, 0.1).choose(data).policy, fqi(data, table).policy)


def test_occupancies_are_taken_against_the_law():
    mdp, other = model(), model(3)
    data = uniform_data(mdp)
    cls, units = realizable_class(mdp, 3, kind="random"), units_of(mdp)
    law = occupancy(mdp, np.full((STATES, ACTIONS), 0.5))
    ratios = occupancy_ratios(cls, mdp)
    listed = WeightClass(np.stack([density_ratio(m, law) for m in ratios.masses[0]]))
    np.testing.assert_array_equal(ratios_to(ratios, law).values, listed.values)
    one = MABOCR(cls, ratios, 0.1, units=units).choose(data, law)
    two = MABOCR(cls, listed, 0.1, units=units).choose(data, law)
    np.testing.assert_array_equal(one.objective, two.objective)
    several = occupancy_ratios(cls, [mdp, other])
    laws = np.stack([law, occupancy(other, np.full((STATES, ACTIONS), 0.5))])
    values = ratios_to(several, laws).values
    assert values.shape[0] == 2 * several.n_policies
    np.testing.assert_array_equal(values[-1], density_ratio(several.masses[1, -1], laws[1]))
    with pytest.raises(ValueError, match="law is needed"):
        MABOCR(cls, ratios, 0.1, units=units).choose(data)
    with pytest.raises(ValueError, match=r"law has shape \(3, 2\), not \(2, 3, 2\)"):
        ratios_to(ratios, law[0])


def test_constants_of_oracles():
    mdp = model()
    cls = realizable_class(mdp, 3, kind="random")
    weights = WeightClass(np.ones((4, HORIZON, STATES, ACTIONS)))
    found = MABOCR(cls, weights, 0.1).constants(0.05, calls=10)
    assert found == mabo_cr_constants(horizon=2, n_functions=4, log_tests=math.log(4) + math.log(10), delta=0.05)
    # With p policies: p ways to choose one, and as many histories as there are multisets.
    masses = np.full((1, 3, HORIZON, STATES, ACTIONS), 1 / 6)
    played = MABOCR(cls, OccupancyRatios(masses, np.array([0, 1, 2, 0])), 0.1).constants(0.05, calls=5)
    expected = mabo_cr_constants(horizon=2, n_functions=4, log_tests=math.log(3 * math.comb(7, 3)), delta=0.05)
    np.testing.assert_allclose(played, expected, rtol=1e-12)
    layers = ProductClass([np.zeros((2, 3, 2)), np.zeros((5, 3, 2))])
    assert FQI(layers).constants(0.05) == fqi_constants(horizon=2, log_pairs=math.log(2) + math.log(5), delta=0.05)
    assert MLE([mdp, mdp]).constants(0.05) == likelihood_constants(horizon=2, n_models=2, delta=0.05)
    assert single_layers(weights).size == 12


def test_what_is_refused():
    mdp = model()
    cls = realizable_class(mdp, 1, kind="random")
    weights = WeightClass(np.ones((1, HORIZON, STATES, ACTIONS)))
    for gamma in (0, -0.1, np.inf, np.nan):
        with pytest.raises(ValueError, match="gamma must be positive and finite"):
            MABOCR(cls, weights, gamma)
    with pytest.raises(ValueError, match="form must be 'max' or 'sum'"):
        MABOCR(cls, weights, 0.1, "mean")
    with pytest.raises(TypeError, match="weights cannot be a ndarray"):
        MABOCR(cls, weights.values, 0.1)
    with pytest.raises(ValueError, match="tie_order must be a permutation"):
        MABOCR(cls, weights, 0.1, tie_order=[0, 0])
    with pytest.raises(ValueError, match="finite class and finitely many weights"):
        MABOCR(cls, None, 0.1).constants(0.05)
    with pytest.raises(ValueError, match="not CC-bounded"):
        MABO(cls, weights).constants(0.05)
    with pytest.raises(ValueError, match="finite class"):
        FQI(TabularClass(STATES, ACTIONS, HORIZON)).constants(0.05)
    for delta in (0, 1, np.nan):
        with pytest.raises(ValueError, match="delta is"):
            MABOCR(cls, weights, 0.1).constants(delta)
    with pytest.raises(ValueError, match="source must be"):
        MABOCR(cls, weights, 0.1).constants(0.05, source="folklore")
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        MABOCR(cls, weights, 0.1).constants(0.05, calls=0)
    with pytest.raises(ValueError, match="noise_width is 0.5, not finite and at least 1"):
        fqi_constants(horizon=1, log_pairs=0, delta=0.1, noise_width=0.5)
    with pytest.raises(ValueError, match=r"noise_width is 3, not in \(0, 2\]"):
        likelihood_constants(horizon=1, n_models=1, delta=0.1, noise_width=3)
    with pytest.raises(ValueError, match=r"residual is 0.5, not in \[1, 2\]"):
        mabo_cr_constants(horizon=1, n_functions=1, log_tests=0, delta=0.1, residual=0.5)
    for wrong in ({"c": 0}, {"noise_width": math.inf}):
        with pytest.raises(ValueError, match="must be positive and finite"):
            mabo_cr_constants(horizon=1, n_functions=1, log_tests=0, delta=0.1, **wrong)
    with pytest.raises(ValueError, match="log_tests is nan"):
        mabo_cr_constants(horizon=1, n_functions=1, log_tests=math.nan, delta=0.1)
    with pytest.raises(ValueError, match="kappa is -1"):
        second_moment_constants(-1)
    empty = Dataset.from_columns({n: [] for n in Dataset.COLUMNS}, n_states=STATES, n_actions=ACTIONS, horizon=HORIZON)
    for oracle in (MABOCR(cls, weights, 0.1), MABO(cls, weights), FQI(cls), MLE([mdp])):
        with pytest.raises(ValueError, match="data has no rows"):
            oracle.choose(empty)


def test_one_toss_misleads_mabo_and_not_mabo_cr():
    """The example of the page: a coin tossed once in n = 10,000 tries pays, and its ratio is q n / m."""
    q, delta, n = 0.3, 0.05, 10_000
    m = 4 * delta
    mu = np.array([[(1 - q) / 2, (1 - q) / 2], [q - m / n, m / n]])
    state = np.repeat([0, 0, 1, 1], [3500, 3500, 2999, 1])
    action = np.repeat([0, 1, 0, 1], [3500, 3500, 2999, 1])
    reward = np.repeat([0.9, 0.4, 0.5, 1.0], [3500, 3500, 2999, 1])
    rows = {"state": state, "action": action, "reward": reward, "next_state": state}
    data = Dataset.from_columns(rows, n_states=2, n_actions=2, horizon=1)
    cls = FiniteClass(np.array([[[[0.9, 0.4], [0.5, 0.5]]], [[[0.9, 0.95], [0.5, 1.0]]]]))
    own = np.array([[[1 - q, 0], [q, 0]], [[0, 1 - q], [0, q]]])[:, np.newaxis]
    weights = WeightClass(density_ratio(own, mu))
    plain = MABO(cls, weights).choose(data)
    assert plain.member == 1
    np.testing.assert_allclose(plain.objective, [q / (2 * m), 0.55 * (1 - q)], rtol=1e-9)
    clipped = MABOCR(cls, weights, n**-0.5).choose(data)
    assert clipped.member == 0
