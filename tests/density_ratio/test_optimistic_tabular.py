"""Optimism over tables: the mixed-integer program, the most optimistic policy, the box, computed in other ways too."""

from itertools import product
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theoryrl import FiniteHorizonMDP, rollout
from theoryrl.classes import WeightClass
from theoryrl.classes.builders import optimal_values
from theoryrl.density_ratio import (
    Ellipsoid,
    TabularData,
    full_weight_test,
    glow_ellipsoid,
    mixture_ellipsoid,
    mixture_test,
    optimistic_box,
    optimistic_milp,
    optimistic_policy,
    tabular_data,
    units_of,
)
from theoryrl.density_ratio.full_weights import mean_residuals
from theoryrl.mdp.random import random_mdp


def random_data(rng, horizon, n_states, n_actions, *, unseen=0.0, masked=False, most=30, paid=1.0):
    """Counts, rewards and frequencies that need not come from any play."""
    shape = (horizon, n_states, n_actions)
    mask = np.ones((n_states, n_actions), bool)
    if masked:
        mask = rng.random((n_states, n_actions)) < 0.7
        mask[np.arange(n_states), rng.integers(0, n_actions, n_states)] = True
    visits = rng.integers(1, most, shape) * (rng.random(shape) >= unseen) * mask
    seen = visits > 0
    transition = rng.dirichlet(np.full(n_states, 0.5), shape) * seen[..., np.newaxis]
    reward = paid * rng.random(shape) / horizon * seen
    return TabularData(visits.astype(float), reward, transition, rng.dirichlet(np.ones(n_states)), mask)


def policies(data):
    horizon, n_states, n_actions = data.visits.shape
    for choice in product(range(n_actions), repeat=horizon * n_states):
        policy = np.reshape(choice, (horizon, n_states))
        if data.action_mask[np.arange(n_states), policy].all():
            yield policy


def objective(data, ellipsoid, policy, largest=1.0):
    """J^ + sum sqrt(B) ||d / sqrt(M)||, by following every state forward."""
    horizon, n_states, _ = data.visits.shape
    largest = np.broadcast_to(largest, horizon)
    state, total = np.array(data.initial), 0.0
    for h in range(horizon):
        after, square = np.zeros(n_states), 0.0
        for s in range(n_states):
            a = policy[h, s]
            if ellipsoid.precision[h, s, a] > 0:
                total += state[s] * data.reward[h, s, a]
                square += state[s] ** 2 / ellipsoid.precision[h, s, a]
                after += state[s] * data.transition[h, s, a]
            else:
                total += state[s] * largest[h]
        total += (ellipsoid.budget[h] * square) ** 0.5
        state = after
    return total


def start_value(data, values):
    return float(data.initial @ np.where(data.action_mask, values[0], -inf).max(axis=1))


def spent(data, ellipsoid, values):
    """sum_z M_z (m_z)_+^2 of every layer."""
    return (ellipsoid.precision * np.maximum(mean_residuals(values, data), 0) ** 2).sum(axis=(1, 2))


def one_hot(horizon, n_states, n_actions, size=1.0):
    pairs = n_states * n_actions
    single = np.eye(pairs).reshape(pairs, 1, n_states, n_actions)
    return WeightClass(size * np.repeat(single, horizon, axis=1))


# ---- the mixed-integer program


def worked():
    first = np.array([[(0.8, 0.2), (0.3, 0.7)], [(0.5, 0.5), (0.1, 0.9)]])
    visits = np.array([[[20, 10], [5, 5]], [[15, 5], [10, 10]]], float)
    reward = np.array([[[0.1, 0.2], [0, 0.3]], [[0.1, 0.2], [0.05, 0.15]]])
    return TabularData(visits, reward, np.stack([first, first]), np.array([0.5, 0.5]), np.ones((2, 2), bool))


def with_bonus(data, bonus, largest=1.0):
    """Value iteration in plain loops: min(largest, r + P V + bonus)."""
    horizon, n_states, n_actions = data.visits.shape
    later = np.zeros(n_states)
    for h in reversed(range(horizon)):
        now = np.full(n_states, -inf)
        for s, a in product(range(n_states), range(n_actions)):
            if data.action_mask[s, a]:
                q = data.reward[h, s, a] + data.transition[h, s, a] @ later + bonus[h, s, a]
                now[s] = max(now[s], min(q, largest))
        later = now
    return float(data.initial @ later)


def bonuses(data, alpha, beta, size=1.0):
    total = data.visits.sum(axis=(1, 2), keepdims=True)
    with np.errstate(divide="ignore"):
        return np.where(data.visits > 0, alpha * size + beta * total / (data.visits * size), inf)


def test_worked_optimum():
    data = worked()
    bonus = bonuses(data, 0.05, 0.01)
    expected = [[[0.07, 0.09], [0.13, 0.13]], [[0.0766666667, 0.13], [0.09, 0.09]]]
    assert bonus == pytest.approx(np.array(expected), abs=1e-10)
    assert with_bonus(data, bonus) == pytest.approx(0.618, abs=1e-12)
    result = optimistic_milp(data, one_hot(2, 2, 2), alpha=0.05, ceiling=1.0, level=0.01)
    assert result.value == pytest.approx(0.618, abs=1e-9)
    assert result.upper == pytest.approx(0.618, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_one_hot_weights_are_bonuses(seed):
    """With one weight per pair the program is value iteration with bonuses alpha w + beta n / (N w), capped at 1."""
    rng = np.random.default_rng(seed)
    data = random_data(rng, 3, 3, 2, unseen=0.15, masked=True, most=6)
    alpha, beta, size = 0.02, 0.01, 1.5
    result = optimistic_milp(data, one_hot(3, 3, 2, size), alpha=alpha, ceiling=2.0, level=beta)
    expected = with_bonus(data, bonuses(data, alpha, beta, size))
    assert result.value == pytest.approx(expected, abs=1e-6)
    assert result.upper == pytest.approx(expected, abs=1e-6)
    assert start_value(data, result.values) == pytest.approx(expected, abs=1e-6)


def grid_members(data, levels):
    """All tables on a grid, for one layer and few pairs."""
    horizon, n_states, n_actions = data.visits.shape
    return np.array(list(product(levels, repeat=horizon * n_states * n_actions))).reshape(-1, *data.visits.shape)


@pytest.mark.parametrize("seed", range(3))
def test_no_table_in_the_set_is_better(seed):
    """Against all feasible tables of a grid, and the optimum is feasible itself."""
    rng = np.random.default_rng(seed)
    data = random_data(rng, 2, 1, 2, most=10)
    weights = WeightClass(rng.exponential(1.0, (3, 2, 1, 2)))
    alpha, ceiling, beta = 0.1, 1.2, 0.02
    result = optimistic_milp(data, weights, alpha=alpha, ceiling=ceiling, level=beta)
    clipped = np.minimum(weights.values, ceiling)
    share = data.visits / data.visits.sum(axis=(1, 2), keepdims=True)

    def statistic(values):
        residual = mean_residuals(values, data)[..., np.newaxis, :, :, :]
        return (share * (clipped * residual - alpha * clipped**2)).sum(axis=(-2, -1)).max(axis=(-2, -1))

    assert statistic(result.values) <= beta + 1e-6
    assert start_value(data, result.values) == pytest.approx(result.value, abs=1e-6)
    members = grid_members(data, np.linspace(0, 1, 13))
    feasible = members[statistic(members) <= beta]
    assert 0 < len(feasible) < len(members)
    best = feasible[:, 0, 0].max(axis=-1).max()
    assert best <= result.upper + 1e-6
    assert best >= result.value - 1 / 12 - 1e-6  # the optimum is not far above the grid's


@pytest.mark.parametrize("seed", range(3))
def test_more_weights_do_not_help(seed):
    rng = np.random.default_rng(seed)
    data = random_data(rng, 2, 2, 2, masked=seed == 2, most=60)
    values = np.concatenate([rng.exponential(1.0, (2, 2, 2, 2)), one_hot(2, 2, 2).values])
    values[0, 0, 0, 0] = inf
    settings = dict(alpha=0.02, ceiling=2.0, level=0.001)
    solved = [optimistic_milp(data, WeightClass(values[:k]), **settings).value for k in (1, 3, 6)]
    assert (np.diff(solved) <= 1e-6).all()
    assert solved[-1] < solved[0] - 1e-4


def test_the_program_of_all_weights_is_below_that_of_some():
    """The set for all weights is contained in that of a list, so its optimum is no larger."""
    rng = np.random.default_rng(0)
    data = random_data(rng, 2, 2, 2, most=60)
    alpha, ceiling, beta = 0.5, 1.0, 0.02
    some = optimistic_milp(data, WeightClass(rng.random((6, 2, 2, 2))), alpha=alpha, ceiling=ceiling, level=beta)
    everything = optimistic_policy(data, glow_ellipsoid(data, alpha=alpha, ceiling=ceiling, level=beta))
    assert everything.limited_value <= some.upper + 1e-6


def test_limits_per_layer_and_layers_without_data():
    data = worked()
    nothing = TabularData(np.zeros((2, 2, 2)), *[np.zeros_like(x) for x in data[1:3]], *data[3:])
    settings = dict(alpha=0.05, ceiling=1.0, level=[0.01, 0.02])
    assert optimistic_milp(nothing, one_hot(2, 2, 2), **settings).value == pytest.approx(1.0, abs=1e-9)
    assert optimistic_milp(nothing, one_hot(2, 2, 2), **settings, largest=[0.7, 0.3]).value == pytest.approx(0.7)
    assert optimistic_milp(data, one_hot(2, 2, 2), **settings, largest=[0.4, 0.3]).value == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(alpha=-1.0, ceiling=1.0, level=0.0), "alpha and ceiling must be at least 0"),
        (dict(alpha=1.0, ceiling=inf, level=0.0), "alpha and ceiling must be at least 0"),
        (dict(alpha=1.0, ceiling=1.0, level=nan), "level is nan"),
        (dict(alpha=1.0, ceiling=1.0, level=[0.0, 0.0, 0.0]), r"level has shape \(3,\), not \(2,\)"),
        (dict(alpha=0.0, ceiling=1.0, level=-5.0), "no table of values passes"),
        (dict(alpha=1.0, ceiling=1.0, level=0.0, largest=-1.0), "largest must be at least 0"),
    ],
)
def test_bad_programs(settings, message):
    with pytest.raises(ValueError, match=message):
        optimistic_milp(worked(), one_hot(2, 2, 2), **settings)


def test_weights_of_another_size():
    with pytest.raises(ValueError, match="weights are for"):
        optimistic_milp(worked(), one_hot(1, 2, 2), alpha=1.0, ceiling=1.0, level=0.0)


# ---- the most optimistic policy

SMALL = [(1, 3, 3), (2, 2, 2), (2, 3, 2), (3, 2, 2), (4, 2, 2), (3, 1, 3)]


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("variant", range(4))
def test_the_search_finds_the_maximum_over_all_policies(shape, variant):
    rng = np.random.default_rng(100 * variant + sum(shape))
    data = random_data(rng, *shape, unseen=0.2 * (variant % 2), masked=variant >= 2)
    budget = rng.exponential(0.5, shape[0]) * (rng.random(shape[0]) < 0.8)
    ellipsoid = Ellipsoid(data.visits, budget)
    limit = 0.6 if variant == 3 else 1.0
    result = optimistic_policy(data, ellipsoid, largest=limit)
    best = max(objective(data, ellipsoid, policy, limit) for policy in policies(data))
    assert result.value == pytest.approx(best, abs=1e-9)
    assert best <= result.upper + 1e-12
    assert result.upper <= best + 1e-8
    assert objective(data, ellipsoid, result.policy, limit) == pytest.approx(result.value, abs=1e-12)
    assert data.action_mask[np.arange(shape[1]), result.policy].all()


@pytest.mark.parametrize("nodes", [1, 5, 40])
def test_a_search_that_is_cut_short_brackets_the_maximum(nodes):
    cut = 0
    for seed in range(4):
        data = random_data(np.random.default_rng(seed), 3, 3, 2)
        ellipsoid = Ellipsoid(data.visits, np.full(3, 1.0))
        full, short = optimistic_policy(data, ellipsoid), optimistic_policy(data, ellipsoid, node_limit=nodes)
        assert short.nodes <= nodes + 2
        assert short.value <= full.value + 1e-12 <= short.upper + 2e-12
        assert full.upper - full.value <= 1.001e-9
        cut += short.upper - short.value > 1e-6
    assert nodes > 1 or cut > 0


@pytest.mark.parametrize("seed", [3, 8, 10, 17])
def test_the_search_goes_beyond_the_first_local_maximum(seed):
    """Models where alternating from the root ends below the maximum by up to 0.12."""
    data = random_data(np.random.default_rng(seed), 3, 2, 2, most=8)
    ellipsoid = Ellipsoid(data.visits, np.ones(3))
    best = max(objective(data, ellipsoid, policy) for policy in policies(data))
    first, found = optimistic_policy(data, ellipsoid, node_limit=1), optimistic_policy(data, ellipsoid)
    assert first.value < best - 1e-3
    assert first.upper >= best
    assert found.value == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_a_pair_with_data_may_count_as_unknown(seed):
    """Precision 0 at a pair that was seen: it pays the largest value and ends the episode, whatever its data say."""
    rng = np.random.default_rng(seed)
    data = random_data(rng, 3, 2, 2)
    ellipsoid = Ellipsoid(data.visits * (rng.random(data.visits.shape) < 0.6), np.array([0.2, 0.3, 0.1]))
    limit = np.array([0.3, 0.25, 0.2])
    best = max(objective(data, ellipsoid, policy, limit) for policy in policies(data))
    assert optimistic_policy(data, ellipsoid, largest=limit).value == pytest.approx(best, abs=1e-9)


def cone_program(data, ellipsoid, policy, limit=None):
    """The best table of the ellipsoid for one policy, every entry a variable; nothing of the closed form is in it."""
    cvxpy = pytest.importorskip("cvxpy")
    horizon, n_states, n_actions = data.visits.shape
    f = [cvxpy.Variable((n_states, n_actions)) for _ in range(horizon)]
    own = [cvxpy.hstack([f[h][s, policy[h, s]] for s in range(n_states)]) for h in range(horizon)]
    later = [*own[1:], np.zeros(n_states)]
    constraints = []
    for h in range(horizon):
        rows = [
            [data.reward[h, s, a] + data.transition[h, s, a] @ later[h] for a in range(n_actions)]
            for s in range(n_states)
        ]
        excess = cvxpy.pos(f[h] - cvxpy.vstack([cvxpy.hstack(row) for row in rows]))
        used = cvxpy.sum(cvxpy.multiply(ellipsoid.precision[h], cvxpy.square(excess)))
        constraints += [used <= ellipsoid.budget[h], f[h] <= (1e3 if limit is None else limit[h])]
        constraints += [f[h][s, a] <= 1 for s, a in np.argwhere(data.visits[h] == 0)]
    return cvxpy.Problem(cvxpy.Maximize(data.initial @ own[0]), constraints).solve(solver=cvxpy.CLARABEL)


def test_for_each_policy_the_bonus_is_optimal():
    data = random_data(np.random.default_rng(4), 2, 2, 2, most=40, paid=0.5)
    ellipsoid = Ellipsoid(data.visits, np.array([0.2, 0.1]))
    values = []
    for policy in policies(data):
        values.append(cone_program(data, ellipsoid, policy))
        assert values[-1] == pytest.approx(objective(data, ellipsoid, policy), abs=1e-6)
    result = optimistic_policy(data, ellipsoid)
    assert result.value == pytest.approx(max(values), abs=1e-6)
    assert result.limited_value == pytest.approx(result.value, abs=1e-9)


@pytest.mark.parametrize(("shape", "seed"), [((2, 1, 3), 0), ((3, 1, 2), 1), ((3, 1, 2), 2), ((2, 2, 2), 3)])
def test_under_the_limit_the_optimum_is_bracketed(shape, seed):
    """Rewards so large that the limit is active; the optimum under it is the best of all cone programs."""
    rng = np.random.default_rng(seed)
    data = random_data(rng, *shape, most=25, paid=1.1, unseen=0.3 * (seed == 2))
    ellipsoid = Ellipsoid(data.visits, np.full(shape[0], 0.3))
    limit = np.ones(shape[0]) if seed == 2 else np.linspace(1.0, 0.5, shape[0])
    best = max(cone_program(data, ellipsoid, policy, limit) for policy in policies(data))
    result = optimistic_policy(data, ellipsoid, largest=limit)
    assert result.value > best + 1e-4  # the limit is active
    assert result.limited_value - 1e-6 <= best <= result.limited_upper + 1e-6
    assert result.limited_upper - result.limited_value <= (1e-8 if shape[1] == 1 else 0.1)
    assert start_value(data, result.values) == pytest.approx(result.limited_value, abs=1e-12)
    assert (result.values <= limit[:, np.newaxis, np.newaxis]).all()


@pytest.mark.parametrize("seed", [64, 80, 98])
def test_counting_pairs_as_unknown_improves_on_the_form_and_on_the_box(seed):
    data = random_data(np.random.default_rng(seed), 2, 2, 2, most=40)
    ellipsoid = Ellipsoid(data.visits, np.full(2, 0.3))
    result = optimistic_policy(data, ellipsoid)
    best = max(cone_program(data, ellipsoid, policy, np.ones(2)) for policy in policies(data))
    assert result.limited_value - 1e-6 <= best <= result.limited_upper + 1e-6
    assert result.limited_upper < min(result.upper, optimistic_box(data, ellipsoid).value) - 0.005


@pytest.mark.parametrize("seed", [2, 6, 9])
def test_where_the_bracket_stays_open_the_optimum_is_inside(seed):
    data = random_data(np.random.default_rng(seed), 2, 2, 2, most=25, paid=1.1)
    ellipsoid, limit = Ellipsoid(data.visits, np.full(2, 0.3)), np.array([1.0, 0.5])
    best = max(cone_program(data, ellipsoid, policy, limit) for policy in policies(data))
    result = optimistic_policy(data, ellipsoid, largest=limit)
    assert result.limited_value + 0.01 < best <= result.limited_upper + 1e-6


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.001, 0.3), st.booleans())
def test_the_table_attains_the_value_and_lies_in_the_set(seed, budget, masked):
    rng = np.random.default_rng(seed)
    data = random_data(rng, 3, 2, 2, unseen=0.1, masked=masked, most=60, paid=0.5)
    ellipsoid = Ellipsoid(data.visits, np.full(3, budget))
    result = optimistic_policy(data, ellipsoid)
    assert (spent(data, ellipsoid, result.values) <= budget * (1 + 1e-9)).all()
    assert start_value(data, result.values) == pytest.approx(result.limited_value, abs=1e-12)
    assert result.values.max() <= 1
    assert result.limited_value <= result.value + 1e-9
    # A limit out of the way: the form is attained exactly.
    free = optimistic_policy(data, ellipsoid, largest=[3000.0, 200.0, 10.0])
    assert free.limited_value == pytest.approx(free.value, rel=1e-9)
    assert (spent(data, ellipsoid, free.values) <= budget * (1 + 1e-9)).all()
    # No table in the set does better: try many on its boundary.
    for _ in range(10):
        direction = rng.exponential(1.0, data.visits.shape) * rng.integers(0, 2, data.visits.shape)
        size = np.sqrt((ellipsoid.precision * direction**2).sum(axis=(1, 2), keepdims=True))
        bonus = np.divide(direction * budget**0.5, size, out=np.zeros(direction.shape), where=size > 0)
        bonus[data.visits == 0] = inf
        with np.errstate(invalid="ignore"):
            assert with_bonus(data, bonus) <= result.limited_upper + 1e-9


def test_the_limit_can_be_active():
    """One pair, reward 0.9, a bonus of 0.5: the form says 1.4, a table below 1 says 1."""
    one = np.ones((1, 1, 1))
    data = TabularData(4 * one, 0.9 * one, np.ones((1, 1, 1, 1)), np.ones(1), np.ones((1, 1), bool))
    result = optimistic_policy(data, Ellipsoid(data.visits, np.ones(1)))
    assert result.value == pytest.approx(1.4)
    assert result.bonus[0, 0, 0] == pytest.approx(0.5)
    assert result.limited_value == result.limited_upper == 1.0


def test_nothing_known_and_nothing_to_spend():
    data = random_data(np.random.default_rng(1), 2, 2, 2)
    nothing = TabularData(np.zeros((2, 2, 2)), *[np.zeros_like(x) for x in data[1:3]], *data[3:])
    unknown = optimistic_policy(nothing, glow_ellipsoid(nothing, alpha=1.0, ceiling=1.0, level=1.0), largest=[0.8, 0.5])
    assert unknown.value == unknown.upper == unknown.limited_value == unknown.limited_upper == pytest.approx(0.8)
    assert unknown.policy.tolist() == [[0, 0], [0, 0]]
    certain = optimistic_policy(data, Ellipsoid(data.visits, np.zeros(2)))
    assert certain.value == pytest.approx(with_bonus(data, np.zeros((2, 2, 2)), inf), abs=1e-12)
    assert not certain.bonus.any()


@pytest.mark.parametrize(
    ("ellipsoid", "message"),
    [
        (Ellipsoid(np.ones((2, 2, 1)), np.ones(2)), "precision and budget have shapes"),
        (Ellipsoid(np.ones((2, 2, 2)), np.array([1.0, -1.0])), r"budget\[1\] is negative"),
        (Ellipsoid(np.full((2, 2, 2), nan), np.ones(2)), r"precision\[0, 0, 0\] is nan"),
    ],
)
def test_bad_ellipsoids(ellipsoid, message):
    for solve in (optimistic_policy, optimistic_box):
        with pytest.raises(ValueError, match=message):
            solve(worked(), ellipsoid)


def test_bad_search():
    data = random_data(np.random.default_rng(0), 2, 2, 2, unseen=0.9)
    with pytest.raises(ValueError, match="is positive, but the pair has no data"):
        optimistic_policy(data, Ellipsoid(np.ones((2, 2, 2)), np.ones(2)))
    ellipsoid = Ellipsoid(data.visits, np.ones(2))
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        optimistic_policy(data, ellipsoid, tolerance=nan)
    with pytest.raises(ValueError, match="node_limit must be at least 1"):
        optimistic_policy(data, ellipsoid, node_limit=0)


# ---- the box, and the sets


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 2.0))
def test_the_box_lies_above_the_whole_set(seed, budget):
    """Every table of the set, not only its best, lies below the box at every pair and layer."""
    rng = np.random.default_rng(seed)
    data = random_data(rng, 3, 2, 2, unseen=0.2, masked=True, paid=0.6)
    ellipsoid = Ellipsoid(data.visits, np.full(3, budget))
    box = optimistic_box(data, ellipsoid)
    assert box.value == box.upper == pytest.approx(start_value(data, box.values))
    assert box.value >= optimistic_policy(data, ellipsoid).limited_value - 1e-12
    for _ in range(20):
        values = np.where(data.action_mask, rng.random((3, 2, 2)), 0.0)
        if (spent(data, ellipsoid, values) <= ellipsoid.budget).all():
            assert (values <= box.values + 1e-12).all()


def test_the_box_is_value_iteration_with_bonuses():
    data = random_data(np.random.default_rng(3), 3, 3, 2, unseen=0.2, masked=True)
    budget = np.array([0.1, 0.4, 0.2])
    with np.errstate(divide="ignore"):
        bonus = np.sqrt(budget[:, None, None] / data.visits)
    box = optimistic_box(data, Ellipsoid(data.visits, budget), largest=0.9)
    assert box.value == pytest.approx(with_bonus(data, bonus, 0.9), abs=1e-12)
    greedy = np.where(data.action_mask, box.values, -inf).argmax(axis=-1)
    assert np.array_equal(greedy, box.policy)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.5, 5.0))
def test_the_ellipsoid_is_the_test_over_all_weights(seed, c):
    """f passes the test over all weights if and only if it lies in the ellipsoid, for c at least 1/2."""
    rng = np.random.default_rng(seed)
    data = random_data(rng, 2, 2, 2, unseen=0.2, masked=True)
    ceiling, level = 3.0, 0.02
    ellipsoid = glow_ellipsoid(data, alpha=c / ceiling, ceiling=ceiling, level=level)
    values = rng.random((40, 2, 2, 2)) * rng.random((40, 1, 1, 1))
    test = full_weight_test(values, data, alpha=c / ceiling, ceiling=ceiling, level=level)
    for f, passed in zip(values, test.passed, strict=True):
        ratio = spent(data, ellipsoid, f) / np.maximum(ellipsoid.budget, 1e-300)
        if (np.abs(ratio - 1) > 1e-9).all():
            assert passed == bool((ratio <= 1).all())


def test_clipped_weights_are_no_ellipsoid():
    with pytest.raises(ValueError, match=r"2 alpha gamma = 0\.98 is below 1"):
        glow_ellipsoid(worked(), alpha=0.49, ceiling=1.0, level=0.1)
    with pytest.raises(ValueError, match="alpha and ceiling must be positive"):
        glow_ellipsoid(worked(), alpha=nan, ceiling=1.0, level=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_optimism_on_played_data(seed):
    """If Q* is in the set, the search and the box are above J*, in a model with masks, layers and any start."""
    rng = np.random.default_rng(seed)
    base = random_mdp(3, 2, 3, rng, staged=True)
    mdp = FiniteHorizonMDP(
        base.transition,
        5 * base.reward - 2,
        horizon=3,
        initial=rng.dirichlet(np.ones(3)),
        action_mask=np.array([[True, True], [False, True], [True, True]]),
        reward_range=(-2.0, 3.0),
    )
    policy = mdp.action_mask / mdp.action_mask.sum(axis=1, keepdims=True)
    units = units_of(mdp)
    data = tabular_data(rollout(mdp, policy, 40, rng), units=units, action_mask=mdp.action_mask, initial=mdp.initial)
    to_go = np.arange(3, 0, -1)[:, None, None]
    truth = np.where(mdp.action_mask, (optimal_values(mdp) - to_go * units.low) / units.scale, 0.0)
    assert mixture_test(truth, data, delta=0.05).passed
    ellipsoid = mixture_ellipsoid(data, delta=0.05)
    best = start_value(data, truth)
    result = optimistic_policy(data, ellipsoid)
    assert result.value >= best
    box = optimistic_box(data, ellipsoid)
    assert (box.values >= truth - 1e-12).all()
    assert spent(data, ellipsoid, result.values) == pytest.approx(
        np.minimum(spent(data, ellipsoid, result.values), ellipsoid.budget), rel=1e-9
    )
