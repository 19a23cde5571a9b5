"""MABO.CR: worked numbers, a twin that loops over tuples, closed forms, ties, and what is refused."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl import FiniteHorizonMDP
from theoryrl.classes import FiniteClass, TabularClass, WeightClass, density_ratio, realizable_class
from theoryrl.complexity.concentrability import clip_loss, clipped_concentrability
from theoryrl.density_ratio import Units, mabo_cr, residuals, single_layers, units_of
from theoryrl.density_ratio.mabo_cr import objective_of
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.evaluation import occupancy
from theoryrl.mdp.planning import backward_induction
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.simulation import rollout

seeds = st.integers(0, 2**32 - 1)


def bandit(online):
    """Two hundred pulls of arm 0 whose rewards sum to 120, then `online` pulls of arm 1 that pay 0.3 each."""
    n = 200 + online
    return Dataset.from_columns(
        {
            "state": np.zeros(n, int),
            "action": np.repeat([0, 1], [200, online]),
            "reward": np.repeat([1.0, 0.0, 0.3], [120, 80, online]),
            "next_state": np.zeros(n, int),
        },
        n_states=1,
        n_actions=2,
    )


def point_weights(online):
    """One over the share of each arm, on that arm; and nothing."""
    shares = np.array([200, online]) / (200 + online)
    return WeightClass(np.stack([*density_ratio(np.eye(2), shares), np.zeros(2)])[:, np.newaxis, np.newaxis])


ARMS = FiniteClass(np.array([[0.6, 0.3], [0.6, 1.0], [0.5, 0.3]])[:, np.newaxis, np.newaxis])


def drawn(seed, size=12, n_functions=3, n_weights=4, shape=(2, 3, 2)):
    """A data set, a class and weights, all at random; some weights are 0, some infinite."""
    rng = np.random.default_rng(seed)
    horizon, n_states, n_actions = shape
    mdp = random_mdp(n_states, n_actions, horizon, rng)
    data = rollout(mdp, np.full((n_states, n_actions), 1 / n_actions), size, rng)
    cls = FiniteClass(rng.uniform(0, 1, (n_functions, *shape)))
    kind = rng.integers(0, 4, (n_weights, *shape))
    values = np.select([kind == 0, kind == 1], [0.0, np.inf], rng.exponential(2.0, kind.shape))
    return data, cls, WeightClass(values)


def by_tuples(data, cls, weights, gamma, c, form):
    """The objective from its formula, tuple by tuple."""
    n = len(data) // data.horizon
    best = np.concatenate([cls.values.max(axis=-1), np.zeros((cls.size, 1, data.n_states))], axis=1)
    found = np.zeros((cls.size, weights.size, data.horizon))
    for f, w, h in product(range(cls.size), range(weights.size), range(data.horizon)):
        mean = penalty = 0.0
        for i in np.flatnonzero(data.step == h):
            s, a = data.state[i], data.action[i]
            clipped = min(weights.values[w, h, s, a], gamma * n)
            mean += clipped * (cls.values[f, h, s, a] - data.reward[i] - best[f, h + 1, data.next_state[i]]) / n
            penalty += clipped**2 / n
        found[f, w, h] = abs(mean) - c / (gamma * n) * penalty
    return found.max(axis=(1, 2)) if form == "max" else found.sum(axis=2).max(axis=1)


@pytest.mark.parametrize("form", ["max", "sum"])
@pytest.mark.parametrize(
    ("online", "objective"),
    [(0, (0, 0, 0.075)), (1, (0, 0.0225, 0.075)), (20, (0, 0.45, 0.075)), (100, (0, 0.65, 0.075))],
)
def test_a_bandit_in_numbers(online, objective, form):
    found = mabo_cr(bandit(online), ARMS, point_weights(online), gamma=0.05, form=form)
    np.testing.assert_allclose(found.objective, objective, rtol=0, atol=5e-11)
    assert found.index == 0
    # With the paper's penalty nothing is told apart from these data.
    strict = mabo_cr(bandit(online), ARMS, point_weights(online), gamma=0.05, c=8, form=form)
    np.testing.assert_allclose(strict.objective, 0, rtol=0, atol=5e-11)


def test_clipped_concentrability_in_numbers():
    d, mu = np.array([[0.5, 0.3, 0.2, 0]]), np.array([[0.25, 0.6, 0, 0.15]])
    levels = 0.5, 1.0, 3.0, 100.0
    np.testing.assert_allclose(
        [clipped_concentrability(d, mu, g) for g in levels], [0.5, 0.85, 1.75, 21.15], rtol=1e-10
    )
    squares = [(np.minimum(density_ratio(d, mu), g) ** 2 * mu).sum() for g in levels]
    np.testing.assert_allclose(squares, [0.2125, 0.4, 1.15, 1.15], rtol=1e-10)
    np.testing.assert_allclose([clip_loss(d, mu, g) for g in levels], [0.575, 0.45, 0.2, 0.2], rtol=1e-10)


@given(seeds, st.sampled_from(["max", "sum"]), st.floats(0.01, 2), st.floats(0.05, 8))
def test_the_objective_is_that_of_a_loop_over_tuples(seed, form, gamma, c):
    data, cls, weights = drawn(seed)
    found = mabo_cr(data, cls, weights, gamma=gamma, c=c, form=form)
    slow = by_tuples(data, cls, weights, gamma, c, form)
    np.testing.assert_allclose(found.objective, slow, rtol=1e-9, atol=1e-9 * max(1, gamma * 12))
    assert found.objective[found.index] == found.objective.min()


@given(seeds, st.sampled_from(["max", "sum"]))
def test_the_order_of_the_data_does_not_matter(seed, form):
    data, cls, weights = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(data) // data.horizon)
    rows = (order[:, np.newaxis] * data.horizon + np.arange(data.horizon)).ravel()
    shuffled = Dataset.from_columns(
        {name: column[rows] for name, column in data.columns.items()}, n_states=3, n_actions=2, horizon=2
    )
    one, two = (mabo_cr(d, cls, weights, gamma=0.3, form=form).objective for d in (data, shuffled))
    np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)


@given(seeds, st.floats(0.01, 2))
def test_the_two_forms(seed, gamma):
    data, cls, weights = drawn(seed)

    def objective(members, form):
        return mabo_cr(data, cls, members, gamma=gamma, form=form).objective

    nothing = WeightClass(np.concatenate([weights.values, np.zeros((1, *weights.values.shape[1:]))]))
    assert (objective(nothing, "sum") >= 0).all()
    assert (objective(nothing, "max") >= 0).all()
    # One-layer copies make the printed form the larger of the two.
    both = np.maximum(objective(weights, "sum"), objective(weights, "max"))
    augmented = single_layers(nothing)
    np.testing.assert_allclose(objective(augmented, "sum"), np.maximum(both, 0), rtol=1e-12, atol=1e-12)
    # A product over layers that contains 0: the sum of the layers' maxima, at least the largest of them.
    layers = [[np.zeros((3, 2)), *weights.values[:, h]] for h in range(2)]
    whole = WeightClass(np.array([np.stack(pair) for pair in product(*layers)]).reshape(-1, 2, 3, 2))
    assert (objective(whole, "sum") >= objective(whole, "max") - 1e-12).all()


def test_one_layer_copies():
    _, _, weights = drawn(0, n_weights=2, shape=(3, 3, 2))
    copies = single_layers(weights).values
    assert copies.shape == (8, 3, 3, 2)
    np.testing.assert_array_equal(copies[:2], weights.values)
    for h, w in product(range(3), range(2)):
        copy = copies[2 + 2 * h + w]
        np.testing.assert_array_equal(copy[h], weights.values[w, h])
        assert not np.delete(copy, h, axis=0).any()


@given(seeds, st.floats(0.05, 1))
def test_all_weights_layer_by_layer(seed, gamma):
    """The sum form adds the layers up, the max form takes the largest."""
    data, cls, _ = drawn(seed)
    found = residuals(data, cls)
    layers = [
        objective_of(found._replace(sums=found.sums[h : h + 1], visits=found.visits[h : h + 1]), None, gamma)
        for h in range(2)
    ]
    np.testing.assert_allclose(objective_of(found, None, gamma, "sum"), sum(layers), rtol=1e-12)
    np.testing.assert_array_equal(objective_of(found, None, gamma, "max"), np.maximum(*layers))


@given(seeds, st.floats(0.05, 1), st.floats(0.1, 3))
def test_all_weights_at_once(seed, gamma, c):
    """The closed form is the largest over a grid of weights of both signs, layer by layer."""
    data, cls, _ = drawn(seed, size=6, shape=(1, 2, 2))
    n, level = 6, gamma * 6
    found = residuals(data, cls)
    full = objective_of(found, None, gamma, "sum", c)
    grid = np.linspace(-level, level, 4001)
    for f in range(cls.size):
        total = 0.0
        for s, a in product(range(2), range(2)):
            m, visits = found.sums[0, s, a, f], found.visits[0, s, a]
            total += (grid * m - c / level * grid**2 * visits).max() / n
        np.testing.assert_allclose(full[f], total, rtol=1e-5, atol=1e-6)
        assert full[f] >= total - 1e-12


@given(seeds, st.sampled_from(["max", "sum"]), st.booleans())
def test_certainty_equivalence_minimises_over_the_full_table(seed, form, everything):
    """No function beats the optimal values of the empirical model, whatever the weights."""
    data, cls, weights = drawn(seed, size=30)
    weights = None if everything else weights
    found = mabo_cr(data, TabularClass(3, 2, 2), weights, gamma=0.3, form=form)
    counts = data.counts(staged=True)
    later = np.zeros(3)
    for h in (1, 0):
        with np.errstate(invalid="ignore"):
            q = (counts.reward_sums[h] + counts.transitions[h] @ later) / counts.visits[h]
        q = np.where(counts.visits[h] > 0, q, 0.0)
        np.testing.assert_allclose(found.q[h], q, rtol=1e-12, atol=1e-12)
        later = q.max(axis=1)
    others = mabo_cr(data, cls, weights, gamma=0.3, form=form).objective
    assert (others >= found.objective[0] - 1e-12).all()
    if everything:
        assert abs(found.objective[0]) < 1e-25


@given(seeds)
def test_a_member_without_residuals_wins(seed):
    """Rewards and transitions without noise: Q* has no residual, so that its objective is the least there is."""
    rng = np.random.default_rng(seed)
    transition = np.eye(3)[rng.integers(0, 3, (2, 3, 2))]
    mdp = FiniteHorizonMDP(transition, rng.integers(0, 5, (2, 3, 2)) / 8, horizon=2)
    cls = realizable_class(mdp, 3, rng=seed, kind="random")
    data = rollout(mdp, np.full((3, 2), 0.5), 20, rng)
    _, _, weights = drawn(seed)
    units = units_of(mdp)
    for form in ("max", "sum"):
        objective = mabo_cr(data, cls, weights, gamma=0.2, form=form, units=units).objective
        assert objective[0] <= objective.min() + 1e-12


@given(seeds, st.floats(-3, 3), st.floats(0.1, 10))
def test_units_of_reward_do_not_matter(seed, low, width):
    """An affine change of all rewards, with the class changed alike, leaves the objective where it was."""
    data, cls, weights = drawn(seed)
    rows = {**data.columns, "reward": low + width * data.reward}
    moved = Dataset.from_columns(rows, n_states=3, n_actions=2, horizon=2)
    to_go = np.array([2.0, 1.0])[:, np.newaxis, np.newaxis]
    other = FiniteClass(to_go * low + width * cls.values)
    one = mabo_cr(data, cls, weights, gamma=0.3).objective
    two = mabo_cr(moved, other, weights, gamma=0.3, units=Units(low, width)).objective
    np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-9)


def test_forbidden_actions_are_not_read():
    data, cls, weights = drawn(1)
    mask = np.array([[True, True], [True, False], [True, True]])
    kept = np.repeat(~((data.state == 1) & (data.action == 1)).reshape(-1, 2).any(axis=1), 2)
    rows = Dataset.from_columns(
        {name: column[kept] for name, column in data.columns.items()}, n_states=3, n_actions=2, horizon=2
    )
    loud = cls.values.copy()
    loud[:, :, 1, 1] = 1e9
    one = mabo_cr(rows, cls, weights, gamma=0.3, action_mask=mask)
    two = mabo_cr(rows, FiniteClass(loud), weights, gamma=0.3, action_mask=mask)
    np.testing.assert_array_equal(one.objective, two.objective)
    assert (one.policy[:, 1] == 0).all()


def test_ties_go_to_the_first_in_the_order():
    twice = FiniteClass(np.concatenate([ARMS.values, ARMS.values]))
    data, weights = bandit(0), point_weights(0)
    assert mabo_cr(data, twice, weights, gamma=0.05).index == 0
    assert mabo_cr(data, twice, weights, gamma=0.05, tie_order=[5, 4, 3, 2, 1, 0]).index == 4
    assert mabo_cr(data, twice, weights, gamma=0.05, tie_order=[2, 3, 0, 1, 4, 5]).index == 3


def refuse(message, data=None, cls=ARMS, weights=None, error=ValueError, **settings):
    with pytest.raises(error, match=message):
        mabo_cr(bandit(3) if data is None else data, cls, weights, **({"gamma": 0.05} | settings))


def test_what_is_refused():
    for gamma in (0, -1, np.inf, np.nan):
        refuse("gamma must be positive and finite", gamma=gamma)
    for c in (0, -1, np.inf, np.nan):
        refuse("c must be positive and finite", c=c)
    refuse("form must be 'max' or 'sum', not 'mean'", form="mean")
    refuse(
        "data has no rows",
        data=Dataset.from_columns({n: [] for n in Dataset.COLUMNS}, n_states=1, n_actions=2, horizon=1),
    )
    refuse("must be a WeightClass, not a ndarray", weights=np.ones((1, 1, 1, 2)), error=TypeError)
    with pytest.raises(ValueError, match=r"values\[0, 0, 0, 1\] is -1.0, not a weight"):
        WeightClass(np.array([[[[1.0, -1.0]]]]))
    refuse("must be a FiniteClass or a TabularClass", cls=ARMS.values, error=TypeError)
    refuse(r"the class is for \(H, S, A\)", weights=WeightClass(np.ones((1, 1, 1, 3))))
    refuse(r"cls.values\[0, 0, 0, 1\] is 1.5, outside \[0, 1\]", cls=FiniteClass(np.array([[[[0.5, 1.5]]]])))
    refuse("tie_order must be a permutation of 0, ..., 2", tie_order=[0, 1, 1])
    refuse("tie_order must be a permutation", tie_order=[[0, 1, 2]])
    refuse("no members to order", cls=TabularClass(1, 2, 1), tie_order=[0])
    data, cls, weights = drawn(0)
    part = Dataset.from_columns({n: c[1:] for n, c in data.columns.items()}, n_states=3, n_actions=2, horizon=2)
    refuse("layer 1 has 12 rows, layer 0 has 11: every layer needs as many", part, cls, weights)


# ---- inequalities of the analysis


@given(seeds, st.floats(0.05, 20))
def test_moments_and_tails_of_clipped_ratios(seed, level):
    """P^pi[w > level] <= CC / level and E_mu[v^2] <= CC <= level; CC grows with the level up to the second moment."""
    rng = np.random.default_rng(seed)
    d = rng.dirichlet(np.full(6, 0.5)) * 1.0
    mu = rng.dirichlet(np.full(6, 0.5)) * rng.choice([0.0, 1.0], 6, p=[0.2, 0.8])
    w = density_ratio(d, mu)
    cc = float(clipped_concentrability(d[np.newaxis], mu[np.newaxis], level))
    assert d[w > level].sum() <= cc / level + 1e-12
    assert (mu * np.minimum(w, level) ** 2).sum() <= cc + 1e-12
    assert cc <= level * d.sum() + 1e-12
    assert cc <= float(clipped_concentrability(d[np.newaxis], mu[np.newaxis], 2 * level)) + 1e-12
    if (mu[d > 0] > 0).all():
        whole = float(clipped_concentrability(d[np.newaxis], mu[np.newaxis], 1e300))
        np.testing.assert_allclose(whole, (d[d > 0] * w[d > 0]).sum(), rtol=1e-9)


@given(seeds, st.floats(0.05, 20), st.sampled_from([1, 2]))
def test_change_of_measure(seed, level, least):
    """E_d[x] <= E_mu[x v] + (sup x) sum (d - level mu)_+, for x <= 1 and for -x <= 2; with 0 / 0 = 0."""
    rng = np.random.default_rng(seed)
    d, mu = rng.dirichlet(np.full(5, 0.5)), rng.dirichlet(np.full(5, 0.5)) * rng.choice([0.0, 1.0], 5, p=[0.2, 0.8])
    x = rng.uniform(-2, least, 5)
    v = np.minimum(density_ratio(d, mu), level)
    assert d @ x <= (mu * v) @ x + least * np.maximum(d - level * mu, 0).sum() + 1e-12


@given(seeds, st.floats(0.05, 20), st.floats(0.1, 5), st.floats(0.1, 3))
def test_second_moment_and_clip_loss_together(seed, level, first, second):
    """first E_mu[v^2] / level + second sum (d - level mu)_+ <= max(first, second) CC / level."""
    rng = np.random.default_rng(seed)
    d, mu = rng.dirichlet(np.full(5, 0.5)), rng.dirichlet(np.full(5, 0.5)) * rng.choice([0.0, 1.0], 5, p=[0.2, 0.8])
    v = np.minimum(density_ratio(d, mu), level)
    left = first * (mu * v**2).sum() / level + second * np.maximum(d - level * mu, 0).sum()
    right = max(first, second) * float(clipped_concentrability(d[np.newaxis], mu[np.newaxis], level)) / level
    assert left <= right * (1 + 1e-12) + 1e-12


def test_the_population_objective_of_the_truth_is_what_noise_leaves():
    """On many data the objective of Q* is small, and that of a wrong member is its weighted residual."""
    mdp = random_mdp(2, 2, 2, np.random.default_rng(3))
    plan = backward_induction(mdp)
    wrong = plan.q.copy()
    wrong[0] = np.where(np.arange(2) == plan.policy[0][:, np.newaxis], wrong[0], plan.value[0][:, np.newaxis] + 0.2)
    cls = FiniteClass(np.stack([wrong, plan.q]))
    policy = np.full((2, 2), 0.5)
    mu = occupancy(mdp, policy)
    weights = WeightClass(np.stack([density_ratio(occupancy(mdp, p), mu) for p in cls.greedy()]))
    data = rollout(mdp, policy, 50_000, 1)
    found = mabo_cr(data, cls, weights, gamma=0.01, units=units_of(mdp))
    d = occupancy(mdp, cls.greedy()[0])
    error = (d[0] * (wrong[0] - plan.q[0])).sum() / 2
    assert found.index == 1
    assert abs(found.objective[0] - error) < 0.01
    assert found.objective[1] < 0.01


# ---- the three inequalities of the proof against an adversary who chooses what is sampled, by exact enumeration


def chance_of_crossing(options, level, rounds):
    """The largest probability, over adaptive choices among `options`, that the total ends above `level`.

    An option is a list of (probability, increment).
    """
    known = {}

    def value(left, total):
        key = left, round(total, 9)
        if key not in known:
            if left == 0:
                known[key] = float(total > level)
            else:
                known[key] = max(sum(p * value(left - 1, total + x) for p, x in option) for option in options)
        return known[key]

    return value(rounds, 0.0)


SKIP = [(1.0, 0.0)]


@pytest.mark.parametrize("union", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("c", [0.1, 0.25, 1.0])
def test_the_noise_of_the_truth_against_an_adversary(c, union):
    """n (E_D[v xi] - alpha E_D[v^2] - beta) > 0 has probability at most e^-L, whatever is sampled next; g = 4."""
    level, alpha = 4.0, c / 4.0
    options = [SKIP]
    for v in (0.5, 2.0, level):
        for p in (0.5, 0.9):  # a coin that pays 1 with probability p, of width 1
            options.append([(p, -v * (1 - p) - alpha * v**2), (1 - p, v * p - alpha * v**2)])
    chance = chance_of_crossing(options, level / (8 * c) * union, 7)
    assert 0 <= chance <= np.exp(-union)
    assert union > 2 or chance > 0


@pytest.mark.parametrize("union", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_residuals_against_an_adversary(sign, union):
    """Means of residuals in {-2, 1} differ from their expectations by 2 (e - 2) E[v^2] / g + 2 g L / n at most."""
    options = [SKIP]
    for v in (0.5, 1.0):
        for p in (0.05, 0.3, 0.8):  # of -2
            cost = 2 * (np.e - 2) * v**2
            options.append([(q, sign * v * (x - (1 - 3 * p)) - cost) for q, x in ((p, -2), (1 - p, 1))])
    assert chance_of_crossing(options, 2 * union, 7) <= np.exp(-union)


@pytest.mark.parametrize("union", [0.5, 1.0, 2.0, 4.0])
def test_second_moments_against_an_adversary(union):
    """E_D[v^2] <= (e - 1) E_mu[v^2] + g^2 L / n."""
    options = [SKIP]
    for y in (0.3, 1.0):
        for p in (0.01, 0.2, 0.6):
            options.append([(p, y - (np.e - 1) * p * y), (1 - p, -(np.e - 1) * p * y)])
    chance = chance_of_crossing(options, union, 8)
    assert chance <= np.exp(-union)
    assert union > 2 or chance > 0
