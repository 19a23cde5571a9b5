"""The test over all weights: closed form against a solver and the definition, the mixture level against enumeration."""

from functools import lru_cache
from itertools import product
from math import exp, inf, log, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theoryrl import FiniteHorizonMDP, rollout
from theoryrl._jit import plain
from theoryrl.classes.builders import optimal_values
from theoryrl.density_ratio import _glow_kernels as kernels
from theoryrl.density_ratio import full_weight_test, mixture_level, mixture_test, tabular_data, units_of
from theoryrl.density_ratio.full_weights import best_gain, best_weights, mean_residuals, mixture_precision
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.random import random_mdp
from theoryrl.testing import mdps

# Six tuples (s, a, r, s') of layer 0, and the values of two layers.
ROWS = np.array([(0, 0, 0, 0), (0, 1, 0.2, 1), (0, 0, 0.1, 1), (1, 1, 0, 0), (0, 1, 0.3, 1), (1, 0, 0, 1)])
VALUES = np.array([[[0.6, 0.7], [0.3, 0.5]], [[0.4, 0.1], [0.2, 0.5]]])


def six_tuples(horizon=2):
    state, action, reward, successor = ROWS.T
    step = np.zeros(6, np.int64)
    return Dataset(np.arange(6), step, state, action, reward, successor, 2, 2, horizon)


def played(mdp, episodes, rng, **settings):
    """Data of the uniform policy on a model."""
    policy = mdp.action_mask / mdp.action_mask.sum(axis=1, keepdims=True)
    data = rollout(mdp, policy, episodes, rng)
    return data, tabular_data(data, units=units_of(mdp), action_mask=mdp.action_mask, **settings)


# ---- worked numbers


@pytest.mark.parametrize(
    ("c", "statistic", "largest"), [(8, 0.0002734375, 0.0109375), (0.25, 0.00875, 0.35), (0.1, 0.021875, 0.875)]
)
def test_worked_supremum(c, statistic, largest):
    result = full_weight_test(VALUES, tabular_data(six_tuples()), alpha=c / 1.75, ceiling=1.75)
    assert result.statistic[0] == pytest.approx(statistic, abs=1e-12)
    assert result.weight[0] == pytest.approx(np.array([[largest, 0], [0, largest]]), abs=1e-12)
    assert result.statistic[1] == 0  # no data
    assert not result.weight[1].any()


def test_worked_residuals():
    data = tabular_data(six_tuples())
    sums = data.visits * mean_residuals(VALUES, data)
    assert sums[0] == pytest.approx(np.array([[0.2, -0.1], [-0.2, 0.1]]), abs=1e-12)


# ---- the closed form


def test_the_supremum_is_that_of_a_quadratic_program():
    cvxpy = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(0)
    for case in range(12):
        m, visits = rng.uniform(-2, 1, 5), rng.integers(0, 6, 5)
        alpha, ceiling = rng.uniform(0.02, 0.6), rng.uniform(0.2, 3)
        signed = case % 2 == 1
        w = cvxpy.Variable(5)
        gain = cvxpy.sum(cvxpy.multiply(visits, cvxpy.multiply(m, w) - alpha * cvxpy.square(w)))
        lowest = -ceiling if signed else 0
        problem = cvxpy.Problem(cvxpy.Maximize(gain), [w >= lowest, w <= ceiling])
        value = problem.solve(solver=cvxpy.CLARABEL)
        assert visits @ best_gain(m, alpha, ceiling, signed=signed) == pytest.approx(value, abs=1e-6)
        seen = visits > 0
        assert best_weights(m, alpha, ceiling, signed=signed)[seen] == pytest.approx(w.value[seen], abs=1e-4)


numbers = st.floats(-2, 1)
positive = st.floats(1e-3, 1e3)


@given(numbers, positive, positive, st.booleans())
def test_no_weight_gains_more_than_the_best(m, alpha, ceiling, signed):
    """Invariant: the closed form is a maximum, attained by the weight that is returned."""
    gain = float(best_gain(m, alpha, ceiling, signed=signed))
    best = float(best_weights(m, alpha, ceiling, signed=signed))
    size = max(1.0, gain, alpha * ceiling**2)
    assert (0 <= best <= ceiling) or (signed and abs(best) <= ceiling)
    assert best * m - alpha * best**2 == pytest.approx(gain, abs=1e-12 * size)
    for share in np.linspace(0, 1, 41):
        assert share * ceiling * (abs(m) if signed else m) - alpha * (share * ceiling) ** 2 <= gain + 1e-12 * size


@given(st.floats(-2, 2), st.floats(0.01, 5), st.floats(0.01, 2))
def test_star_hull(numerator, second_moment, alpha):
    """max over 0 <= lambda <= 1 of lambda N - alpha lambda^2 P is the gain of a single weight with ceiling 1."""
    gain = float(best_gain(numerator, alpha * second_moment, 1.0))
    if numerator <= 0:
        assert gain == 0
    elif numerator <= 2 * alpha * second_moment:
        assert gain == pytest.approx(numerator**2 / (4 * alpha * second_moment), rel=1e-12)
    else:
        assert gain == pytest.approx(numerator - alpha * second_moment, rel=1e-12)
    grid = np.linspace(0, 1, 201)
    assert (grid * numerator - alpha * grid**2 * second_moment).max() <= gain + 1e-12


@given(numbers, st.floats(0.01, 100), st.floats(0.5, 20))
def test_clipping_is_inactive_from_a_half_on(m, ceiling, c):
    """With alpha = c / gamma and residuals at most 1 no weight is clipped if c >= 1/2; signed weights need c >= 1."""
    gain = best_gain(m, c / ceiling, ceiling)
    assert gain == pytest.approx(max(m, 0.0) ** 2 * ceiling / (4 * c), rel=1e-9, abs=1e-300)
    assert best_gain(m, 2 * c / ceiling, ceiling, signed=True) == pytest.approx(m**2 * ceiling / (8 * c), rel=1e-9)


def test_clipping_is_active_below_a_half():
    assert best_gain(1.0, 0.49 / 3, 3.0) < 3 / (4 * 0.49) * (1 - 1e-5)
    assert best_gain(-2.0, 0.99 / 3, 3.0, signed=True) < 4 * 3 / (4 * 0.99) * (1 - 1e-5)


def test_extremes():
    assert best_gain(0.5, 0.0, 2.0) == 1.0
    assert best_weights(0.5, 0.0, 2.0) == 2.0
    assert best_weights(-0.5, 0.0, 2.0) == 0.0
    assert best_weights(-0.5, 0.0, 2.0, signed=True) == -2.0
    assert best_gain(0.5, 0.25, inf) == 0.25
    assert best_weights(0.5, 0.25, inf) == 1.0
    assert best_gain(np.array([0.0, 1.0]), 0.25, 0.0).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(alpha=-1.0, ceiling=1.0), "alpha must be at least 0"),
        (dict(alpha=nan, ceiling=1.0), "alpha must be at least 0"),
        (dict(alpha=1.0, ceiling=nan), "ceiling must be at least 0"),
        (dict(alpha=0.0, ceiling=inf), "supremum over weights is infinite"),
        (dict(alpha=1.0, ceiling=1.0, level=nan), "level is nan"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        full_weight_test(VALUES, tabular_data(six_tuples()), **settings)


def test_residuals_of_negative_values_and_of_pairs_without_data():
    """The best action is the best allowed one, also where its value is negative; what was not seen has residual 0."""
    mask = np.array([[True, True], [True, False]])
    rows = [0, 1, 2, 4, 5]  # those of the allowed actions; (1, 0) is seen once, with reward 0 and successor 1
    columns = [column[rows] for column in six_tuples().columns.values()]
    data = tabular_data(Dataset(*columns, 2, 2, 2), action_mask=mask)
    values = np.array([[[0.6, 0.7], [0.3, nan]], [[0.4, 0.1], [-0.2, nan]]])
    residual = mean_residuals(values, data)
    assert residual[0, 1, 0] == pytest.approx(0.3 + 0.2, abs=1e-15)
    assert residual[0, 1, 1] == 0
    assert not residual[1].any()


def test_bad_values():
    data = tabular_data(six_tuples())
    with pytest.raises(ValueError, match=r"values has shape \(2, 2\), not \(..., 2, 2, 2\)"):
        mean_residuals(VALUES[0], data)
    wrong = VALUES.copy()
    wrong[1, 0, 1] = nan
    with pytest.raises(ValueError, match=r"values\[1, 0, 1\] is nan"):
        mean_residuals(wrong, data)


def test_a_forbidden_action_is_named():
    mask = np.array([[True, True], [True, False]])
    with pytest.raises(ValueError, match=r"action\[3\] = 1 is forbidden in state 1"):
        tabular_data(six_tuples(), action_mask=mask)


# ---- against the data row by row


@settings(max_examples=25)
@given(mdps(max_states=3, max_actions=3, max_horizon=3), st.integers(0, 10**6))
def test_the_statistic_is_that_of_the_definition(mdp, seed):
    """At the weight that is returned the sum over rows is the statistic, and no other weight's is larger."""
    rng = np.random.default_rng(seed)
    data, seen = played(mdp, 8, rng)
    units = units_of(mdp)
    values = rng.random((mdp.horizon, mdp.n_states, mdp.n_actions))
    alpha, ceiling = 0.1, 2.0
    result = full_weight_test(values, seen, alpha=alpha, ceiling=ceiling)
    best = np.where(mdp.action_mask, values, -inf).max(axis=-1)
    for h in range(mdp.horizon):
        others = rng.uniform(0, ceiling, (5, mdp.n_states, mdp.n_actions))
        sums, count = np.zeros(6), 0
        for step, s, a, r, t in list(zip(*list(data.columns.values())[1:], strict=True)):
            if step == h:
                later = best[h + 1, t] if h + 1 < mdp.horizon else 0.0
                residual = values[h, s, a] - (r - units.low) / units.scale - later
                w = np.append(others[:, s, a], result.weight[h, s, a])
                sums += w * residual - alpha * w**2
                count += 1
        assert sums[-1] / count == pytest.approx(result.statistic[h], abs=1e-12)
        assert (sums[:-1] / count <= result.statistic[h] + 1e-12).all()


def test_many_values_at_once_and_forbidden_entries_unread():
    mdp = random_mdp(3, 2, 2, np.random.default_rng(3), staged=True)
    mdp = FiniteHorizonMDP(
        mdp.transition, mdp.reward, horizon=2, action_mask=np.array([[True, True], [True, False], [False, True]])
    )
    _, seen = played(mdp, 12, 1)
    values = np.random.default_rng(0).random((4, 2, 3, 2))
    values[:, ~np.broadcast_to(mdp.action_mask, (2, 3, 2))] = nan
    together = full_weight_test(values, seen, alpha=0.2, ceiling=1.0, level=0.05)
    for f, one in enumerate(values):
        alone = full_weight_test(one, seen, alpha=0.2, ceiling=1.0, level=0.05)
        assert np.array_equal(alone.statistic, together.statistic[f])
        assert alone.passed == together.passed[f] == bool((alone.statistic <= 0.05).all())
    assert together.passed.any() or not together.passed.all()


def test_exact_model_data_keep_the_optimal_values():
    """In a deterministic model Q* has residual 0, so that its statistic is 0 whatever alpha and gamma are."""
    rng = np.random.default_rng(0)
    transition = np.zeros((3, 2, 3))
    transition[np.arange(3)[:, None], np.arange(2), rng.integers(0, 3, (3, 2))] = 1.0
    mdp = FiniteHorizonMDP(transition, rng.random((3, 2)), horizon=4)
    _, seen = played(mdp, 20, 0)
    values = optimal_values(mdp) / units_of(mdp).scale
    for alpha in (0.0, 0.3):
        result = full_weight_test(values, seen, alpha=alpha, ceiling=5.0, level=1e-12)
        assert result.passed
        assert result.statistic == pytest.approx(0, abs=1e-12)


def test_certainty_equivalence_minimises_the_signed_test():
    """The objective of MABO.CR with all weights is 0 at the optimal values of the empirical model."""
    mdp = random_mdp(3, 2, 3, np.random.default_rng(5), staged=True)
    data, seen = played(mdp, 200, 0)
    empirical = data.empirical_mdp(staged=True, unseen="self-loop")
    values = optimal_values(empirical) / units_of(mdp).scale
    exact = full_weight_test(values, seen, alpha=0.2, ceiling=3.0, signed=True)
    assert exact.statistic == pytest.approx(0, abs=1e-20)
    other = full_weight_test(values + 0.01, seen, alpha=0.2, ceiling=3.0, signed=True)
    assert other.statistic[-1] == pytest.approx(0.01**2 / (4 * 0.2), rel=1e-9)


def test_layers_may_share_their_data():
    mdp = random_mdp(2, 2, 3, np.random.default_rng(2))
    data, own = played(mdp, 10, 0)
    _, shared = played(mdp, 10, 0, staged=False)
    assert np.array_equal(shared.visits[0], own.visits.sum(axis=0))
    assert np.array_equal(shared.visits[0], shared.visits[2])
    rewards = np.bincount(data.state * 2 + data.action, data.reward, 4).reshape(2, 2)
    assert shared.reward[1] * np.maximum(shared.visits[1], 1) == pytest.approx(rewards / units_of(mdp).scale, abs=1e-12)


# ---- the mixture level


def crossing(steps, delta, prior, means, one_sided=False):
    """The largest chance that the level is ever exceeded when the pair of each draw may be chosen, by recursion.

    Pair i is a Bernoulli(means[i]) reward at the last layer, so the noise of Q* is means[i] - reward. H = 1.
    """

    def exceeded(history):
        visits = np.array([len(rewards) for rewards in history], float)
        mean = np.array([np.mean(r) if r else 0.0 for r in history])
        residual = np.where(visits > 0, np.array(means) - mean, 0.0)
        level = mixture_level(visits[None, None], delta=delta, prior=prior)[0]
        if one_sided:
            residual = np.maximum(residual, 0)
        return (mixture_precision(visits[None, None], prior)[0, 0] * residual**2).sum() > level

    @lru_cache(None)
    def chance(state):
        if exceeded([[1] * ones + [0] * (n - ones) for n, ones in state]):
            return 1.0
        if sum(n for n, _ in state) == steps:
            return 0.0
        options = []
        for i, (n, ones) in enumerate(state):
            after = [tuple((n + 1, ones + r) if j == i else state[j] for j in range(len(state))) for r in (0, 1)]
            options.append((1 - means[i]) * chance(after[0]) + means[i] * chance(after[1]))
        return max(options)

    return chance(tuple((0, 0) for _ in means))


@pytest.mark.parametrize(("delta", "chance"), [(0.2, 0.0432), (0.1, 0.0132), (0.05, 0.0046)])
def test_the_mixture_level_in_the_sampling_game(delta, chance):
    """Two pairs, 14 draws, the player picks the pair of each draw and may stop: the exact failure probability."""
    assert crossing(14, delta, 1.0, (0.5, 0.5)) == pytest.approx(chance, abs=5e-5)


@pytest.mark.parametrize("prior", [0.3, 1.0, 10.0])
@pytest.mark.parametrize("means", [(0.5,), (0.1, 0.9), (0.3, 0.5)])
def test_the_mixture_level_is_valid_for_any_law_and_prior(means, prior):
    for delta in (0.5, 0.1):
        two_sided = crossing(9, delta, prior, means)
        assert crossing(9, delta, prior, means, one_sided=True) <= two_sided <= delta


def test_a_level_without_the_logarithm_of_counts_is_not_valid(monkeypatch):
    """The game notices when the price of the mixture is left out."""
    assert crossing(14, 0.5, 1.0, (0.5,)) <= 0.5
    monkeypatch.setitem(globals(), "mixture_level", lambda visits, *, delta, prior: np.array([0.5 * log(1 / delta)]))
    assert crossing(14, 0.5, 1.0, (0.5,)) > 0.5


def test_the_mixture_is_an_average_of_exponentials():
    """E exp(theta S - theta^2 b^2 N / 8) over theta ~ N(0, 4 / (b^2 rho)), in closed form and by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    for visits, total, width, prior in ((7, 1.5, 1.0, 1.0), (3, -0.8, 2.0, 0.5), (20, 4.0, 1.0, 6.0)):
        theta = nodes * 2 / (width * prior**0.5)
        mean = weights @ np.exp(theta * total - theta**2 * width**2 * visits / 8) / weights.sum()
        closed = (1 + visits / prior) ** -0.5 * exp(2 * total**2 / (width**2 * (visits + prior)))
        assert mean == pytest.approx(closed, rel=1e-9)
        table = np.array([[[float(visits)]]])
        statistic = mixture_precision(table, prior)[0, 0, 0] * (total / visits) ** 2
        level = mixture_level(table, delta=0.1, noise_width=width, prior=prior)[0]
        # The statistic exceeds its level exactly where the average exceeds 1 / delta.
        assert (statistic > level) == (mean > 10)
        assert statistic - level == pytest.approx(width**2 / 2 * (log(mean) - log(10)), rel=1e-9)


@pytest.mark.parametrize("weigh", [lambda reward: 1.0, lambda reward: 0.3 if reward else 2.0])
def test_the_supermartingale_by_enumeration(weigh):
    """E exp(lambda sum w xi - lambda^2 b^2 sum w^2 / 8) <= 1, pairs and weights chosen on the way."""
    means = (0.3, 0.8)
    for strength in (-3.0, 0.5, 4.0):
        total = 0.0
        for rewards in product((0, 1), repeat=8):
            chance, exponent, last = 1.0, 0.0, 0
            for i, reward in enumerate(rewards):
                arm = (last + i // 3) % 2  # depends on what was seen
                w = weigh(last)
                chance *= means[arm] if reward else 1 - means[arm]
                exponent += strength * w * (means[arm] - reward) - strength**2 * w**2 / 8
                last = reward
            total += chance * exp(exponent)
        assert total <= 1 + 1e-12


def test_the_level_of_a_fixed_weight_by_enumeration():
    """Q* breaks the test of a given weight and round with probability at most delta', by enumeration.

    Two arms; the second is left for good after a bad start, the situation in which counts and noise are dependent.
    """
    means, weight, alpha, n = (0.4, 0.6), (0.5, 1.5), 0.2, 12
    for budget in (0.5, 0.1, 0.02):
        beta = log(1 / budget) / (8 * alpha * n)
        broken = 0.0
        for rewards in product((0, 1), repeat=n):
            chance, statistic, seen = 1.0, 0.0, []
            for reward in rewards:
                arm = 1 if sum(seen) >= 0.5 * len(seen) else 0
                seen += [reward] if arm else []
                chance *= means[arm] if reward else 1 - means[arm]
                statistic += weight[arm] * (means[arm] - reward) - alpha * weight[arm] ** 2
            broken += chance * (statistic / n > beta)
        assert broken <= budget


def test_the_mixture_test_counts_what_it_says():
    mdp = random_mdp(3, 2, 2, np.random.default_rng(1))
    _, seen = played(mdp, 30, 0)
    values = np.stack([optimal_values(mdp) / 2, np.ones((2, 3, 2))])
    result = mixture_test(values, seen, delta=0.1, prior=2.0)
    for f in range(2):
        for h in range(2):
            later = values[f, h + 1].max(axis=1) if h == 0 else np.zeros(3)
            total, level = 0.0, log(2 / 0.1)
            for s in range(3):
                for a in range(2):
                    n = seen.visits[h, s, a]
                    m = values[f, h, s, a] - seen.reward[h, s, a] - seen.transition[h, s, a] @ later if n else 0.0
                    total += n**2 / (n + 2) * max(m, 0) ** 2
                    level += 0.5 * log(1 + n / 2)
            assert result.statistic[f, h] == pytest.approx(total, rel=1e-12)
            assert result.level[h] == pytest.approx(level / 2, rel=1e-12)
    assert result.passed.tolist() == [True, False]


def test_the_learner_uses_the_mixture_test():
    """What GLOW computes for all weights is statistic minus level, up to what it subtracts for rounding."""
    mdp = random_mdp(3, 2, 2, np.random.default_rng(1), staged=True)
    _, seen = played(mdp, 25, 0)
    values = np.random.default_rng(0).random((4, 2, 3, 2))
    test = mixture_test(values, seen, delta=0.2, noise_width=1.5, prior=3.0)
    residual = mean_residuals(values, seen) * seen.visits
    for f in range(4):
        for h in range(2):
            count = seen.visits[h].ravel()
            visited = np.flatnonzero(count)
            sums = residual[:, h].reshape(4, -1).T.copy()
            settings = (count.sum(), 3.0, 1.5, log(2 / 0.2), 1.0, 0.0, 0.0)
            excess = plain(kernels.full_excess)(sums, f, count, visited, len(visited), *settings)
            assert excess == pytest.approx(test.statistic[f, h] - test.level[h], abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(delta=1.0), "delta must lie in"),
        (dict(delta=nan), "delta must lie in"),
        (dict(delta=0.1, prior=0.0), "prior must be positive"),
        (dict(delta=0.1, noise_width=nan), "noise_width must be positive"),
    ],
)
def test_bad_levels(settings, message):
    with pytest.raises(ValueError, match=message):
        mixture_level(np.ones((1, 1, 1)), **settings)


def test_bad_counts():
    with pytest.raises(ValueError, match=r"visits\[0, 0, 1\] is negative"):
        mixture_level(np.array([[[0.0, -1.0]]]), delta=0.1)
    with pytest.raises(ValueError, match=r"visits has shape \(1, 1\)"):
        mixture_level(np.ones((1, 1)), delta=0.1)


def test_the_walk_of_the_game_by_counting():
    """The recursion of the game against a sum over all 2^6 paths of one pair."""
    delta, steps = 0.5, 6
    paths = 0
    for path in product((-1, 1), repeat=steps):
        sums = np.cumsum(path) / 2
        counts = np.arange(1, steps + 1)
        paths += bool((sums**2 / (counts + 1) > 0.5 * (log(1 / delta) + 0.5 * np.log1p(counts))).any())
    assert paths / 2**steps == pytest.approx(crossing(steps, delta, 1.0, (0.5,)), abs=1e-15)
