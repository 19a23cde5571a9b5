"""Eluder dimensions against plain enumeration in rational arithmetic, closed forms, and their certificates."""

import itertools
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from theoryrl import backward_induction, evaluate, occupancy, random_mdp, theorems, verify
from theoryrl.classes import complete_class
from theoryrl.complexity import (
    bellman_eluder,
    distributional_eluder,
    eluder_dimension,
    eluder_rank_bound,
    is_eluder_sequence,
)
from theoryrl.complexity._eluder_search import RankBound, Search, matching, positions, rounding_slack
from theoryrl.complexity._theorems_eluder import longest_sequence, tabular
from theoryrl.envs import linear_mdp
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.testing import naive
from theoryrl.testing.strategies import mdps


def plain_dimension(matrix, epsilon):
    """The definition: every sequence (points may repeat), every e' where some comparison changes, in rationals."""
    rows = [[Fraction(float(x)) ** 2 for x in row] for row in np.atleast_2d(matrix)]
    columns = range(len(rows[0]))
    floor = Fraction(float(epsilon)) ** 2
    # e'^2 just below a value v of |g|^2 is the least strict bound: sum < v, and v itself reached.
    best = 0
    for level in {value for row in rows for value in row if value > floor}:

        def longest(sums, depth, level=level):
            top = depth
            for j in columns:
                if any(total < level <= row[j] for total, row in zip(sums, rows, strict=True)):
                    top = max(top, longest([total + row[j] for total, row in zip(sums, rows, strict=True)], depth + 1))
            return top

        best = max(best, longest([Fraction(0)] * len(rows), 0))
    return best


small = st.sampled_from((0.0, 0.25, 0.5, 0.75, 1.0, -1.0, 3.0)) | st.floats(-2, 2, allow_nan=False)
matrices = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=small)
)


@given(matrices, st.sampled_from((0.0, 0.2, 0.5, 1.0)))
def test_search_is_the_definition(matrix, epsilon):
    found = distributional_eluder(matrix, epsilon)
    truth = plain_dimension(matrix, epsilon)
    assert found.lower <= truth <= found.upper
    assert found.exact
    assert found.value == truth


@given(matrices, st.sampled_from((0.0, 0.3)), st.integers(0, 2))
def test_bounds_hold_when_the_budget_ends(matrix, epsilon, budget):
    found = distributional_eluder(matrix, epsilon, budget=budget)
    assert found.lower <= plain_dimension(matrix, epsilon) <= found.upper
    assert found.nodes <= budget


@given(matrices, st.sampled_from((0.0, 0.3)))
def test_the_sequence_is_a_certificate(matrix, epsilon):
    found = distributional_eluder(matrix, epsilon)
    assert len(found.sequence) == len(found.witnesses) == found.lower
    assert is_eluder_sequence(matrix, found.sequence, epsilon)
    squares = [[Fraction(float(x)) ** 2 for x in row] for row in matrix]
    for i, (j, g) in enumerate(zip(found.sequence, found.witnesses, strict=True)):
        assert sum(squares[g][k] for k in found.sequence[:i]) < Fraction(found.threshold) ** 2 <= squares[g][j]
        assert found.threshold > epsilon


@given(matrices, st.sampled_from((0.0, 0.3)), st.lists(st.integers(0, 3), max_size=4))
def test_certificates_of_sequences_are_the_definition(matrix, epsilon, sequence):
    sequence = [j % matrix.shape[1] for j in sequence]
    rows = [[Fraction(float(x)) ** 2 for x in row] for row in matrix]
    levels = {Fraction(epsilon) ** 2}
    for row in rows:
        levels |= {sum((row[k] for k in sequence[:i]), Fraction(0)) for i in range(len(sequence))}

    def independent(i, level):
        return any(sum(row[k] for k in sequence[:i]) <= level < row[sequence[i]] for row in rows)

    expected = any(
        all(independent(i, level) for i in range(len(sequence))) for level in levels if level >= Fraction(epsilon) ** 2
    )
    assert is_eluder_sequence(matrix, sequence, epsilon) == expected
    if len(set(sequence)) < len(sequence):
        assert not is_eluder_sequence(matrix, sequence, epsilon)


@given(matrices)
def test_invariances(matrix):
    reference = distributional_eluder(matrix, 0.2).value
    generator = np.random.default_rng(0)
    shuffled = matrix[generator.permutation(len(matrix))][:, generator.permutation(matrix.shape[1])]
    assert distributional_eluder(shuffled, 0.2).value == reference
    signs = generator.choice([-1.0, 1.0], size=matrix.shape)
    assert distributional_eluder(matrix * signs, 0.2).value == reference
    doubled = np.vstack([matrix, -matrix])
    assert distributional_eluder(np.hstack([doubled, doubled]), 0.2).value == reference
    assert distributional_eluder(matrix * 2.0**300, 0.2 * 2.0**300).value == reference
    assert distributional_eluder(matrix, 0.5).value <= reference
    if len(matrix) > 1:
        assert distributional_eluder(matrix[1:], 0.2).value <= reference


def test_closed_forms():
    n = 12
    assert distributional_eluder(np.eye(n), 0.0).value == n
    assert distributional_eluder(np.eye(n), 1.0).value == 0  # |g| > e' is strict
    assert distributional_eluder(np.ones((n, n)), 0.5).value == 1
    # Rank one, as long as you like: w_i v_k = 2^(k - i) needs 1/4 + 1/16 + ... < 1.
    steps = np.arange(n)
    powers = 2.0 ** (steps[np.newaxis] - steps[:, np.newaxis])
    assert distributional_eluder(powers, 0.5).value == n
    # A factor below sqrt(2) lets the sums grow past the threshold.
    slow = 1.3 ** (steps[np.newaxis] - steps[:, np.newaxis]).astype(float)
    assert distributional_eluder(slow, 0.999).value < n


def test_ties_are_decided_in_rationals():
    # 0.6^2 + 0.8^2 in floats is not the real number that the floats stand for.
    matrix = np.array([[0.6, 0.8, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    assert rounding_slack(matrix) > 0
    assert distributional_eluder(matrix, 0.9).value == plain_dimension(matrix, 0.9)
    # One unit in the last place less, and the sum is below 1.
    below = matrix.copy()
    below[0, 0] = np.nextafter(0.6, 0)
    assert [plain_at(m, 1.0) for m in (matrix, below)] == [2, 3]
    assert distributional_eluder(below, 0.9).value == 3
    grid = np.array([[3.0, 4.0, 5.0], [0.0, 5.0, 5.0], [5.0, 0.0, 5.0]])
    assert rounding_slack(grid) == 0
    assert distributional_eluder(grid, 4.5).value == plain_dimension(grid, 4.5) == 2


@given(hnp.arrays(np.float64, (4, 3), elements=small), st.sampled_from((0.0, 0.4)))
def test_russo_van_roy_is_the_dimension_of_all_differences(values, epsilon):
    found = eluder_dimension(values.reshape(4, 3, 1), epsilon)
    differences = [f - g for f, g in itertools.product(values, values)]
    assert found.value == plain_dimension(np.array(differences), epsilon)
    for i, (j, (f, g)) in enumerate(zip(found.sequence, found.witnesses, strict=True)):
        delta = np.abs(values[f] - values[g])
        assert delta[j] >= found.threshold
        before = sum((Fraction(float(delta[k])) ** 2 for k in found.sequence[:i]), Fraction(0))
        assert before < Fraction(found.threshold) ** 2


def test_one_function_has_no_differences():
    assert eluder_dimension(np.ones((1, 3)), 0.0).value == 0


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_rank_bound_is_above_the_dimension_and_may_beat_the_sizes(rank):
    generator = np.random.default_rng(rank)
    left, right = generator.standard_normal((60, rank)), generator.standard_normal((rank, 60))
    matrix = left @ right
    norm = np.linalg.norm(left, axis=1).max() * np.linalg.norm(right, axis=0).max()
    found = distributional_eluder(matrix, 1.0, budget=200)
    assert found.lower <= found.upper <= min(60, eluder_rank_bound(rank, 1.0, norm))
    assert RankBound(matrix)(1.0) <= eluder_rank_bound(rank, 1.0, norm)
    if rank == 1:
        assert found.upper < matching(np.abs(matrix) > 1.0)


def test_the_rank_bound_is_nearly_attained_in_one_dimension():
    for ratio in (1.5, 2.0):
        n = 40
        epsilon = 1.0
        norm = ratio**n  # w in [ratio^-n, 1], v in [1, ratio^n]
        bound = eluder_rank_bound(1, epsilon, norm)
        assert n <= bound <= 1.1 * n * math.log(ratio**2) / math.log(2) + 20


def test_rank_bound_edges():
    assert eluder_rank_bound(3, 1.0, 1.0) == 0
    assert eluder_rank_bound(1, 1.0, 1.01) >= 1
    assert eluder_rank_bound(2, 1e-200, 1e200) > 1000
    assert eluder_rank_bound(5, 0.1, 1.0) <= eluder_rank_bound(5, 0.01, 1.0) <= eluder_rank_bound(6, 0.01, 1.0)


def residual_tables(mdp, layers, listed):
    """f_h - T_h f_{h+1} over allowed pairs, by plain sums; one matrix per layer."""
    rows, reward, out = naive.rows(mdp), mdp.reward_layers, []
    pairs = [tuple(pair) for pair in np.argwhere(mdp.action_mask)]
    for h in range(mdp.horizon):
        later = [None] if h + 1 == mdp.horizon else layers[h + 1]
        if listed and h + 1 < mdp.horizon:
            combined = list(zip(layers[h], later, strict=True))
        else:
            combined = list(itertools.product(layers[h], later))
        table = []
        for f, g in combined:
            line = []
            for s, a in pairs:
                total = float(reward[h % len(reward)][s, a])
                for t, p in rows[h][s][a].items():
                    if g is not None:
                        total += p * max(g[t, b] for b in range(mdp.n_actions) if mdp.action_mask[t, b])
                line.append(f[s, a] - total)
            table.append(line)
        out.append(np.array(table))
    return out


def test_residuals_that_differ_by_rounding_alone_count_as_equal():
    # Residuals (0.2, 0.2) and (0.5, 0.5). In floats 0.3 - 0.1 < 0.2, and a threshold would fit between.
    mdp = FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.1, 0.0]]), horizon=1)
    members = np.array([[[[0.3, 0.2]]], [[[0.6, 0.5]]]])
    assert 0.3 - 0.1 < 0.2
    assert bellman_eluder(mdp, members, 0.1).layers[0].value == 1
    scaled = mdp.with_reward(np.array([[0.1e9, 0.0]]), reward_range=(0.0, 1e9))
    assert bellman_eluder(scaled, 1e9 * members, 0.1).layers[0].value == 1


@given(mdps(max_states=2, max_actions=2, max_horizon=3), st.integers(0, 9))
def test_bellman_eluder_is_the_dimension_of_plain_residuals(mdp, seed):
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 5, (3, mdp.horizon, mdp.n_states, mdp.n_actions)) / 4
    layers = list(np.moveaxis(values, 1, 0))
    for given_values, listed in ((values, True), (layers, False)):
        found = bellman_eluder(mdp, given_values, 0.1)
        tables = residual_tables(mdp, layers, listed)
        assert [layer.value for layer in found.layers] == [plain_dimension(np.round(t, 12), 0.1) for t in tables]
        assert found.exact
        assert found.lower == found.upper == max(layer.value for layer in found.layers)
        allowed = {s * mdp.n_actions + a for s, a in np.argwhere(mdp.action_mask)}
        assert all(set(layer.sequence) <= allowed for layer in found.layers)


def test_bellman_eluder_of_roll_ins():
    mdp = random_mdp(3, 2, 3, 4)
    generator = np.random.default_rng(1)
    values = generator.random((4, 3, 3, 2))
    masses = np.stack([occupancy(mdp, policy) for policy in values.argmax(axis=-1)])
    found = bellman_eluder(mdp, values, 0.05, distributions="greedy")
    given_masses = bellman_eluder(mdp, values, 0.05, distributions=masses)
    tables = residual_tables(mdp, list(np.moveaxis(values, 1, 0)), True)
    for h, table in enumerate(tables):
        expectations = table @ masses[:, h].reshape(4, -1).T
        assert found.layers[h].value == given_masses.layers[h].value == plain_dimension(expectations, 0.05)
    # Performance difference: the residuals of f under its own policy sum to V_f - J.
    start = values[:, 0].max(axis=-1) @ mdp.initial
    values_of_policies = np.array([evaluate(mdp, policy)[0] @ mdp.initial for policy in values.argmax(axis=-1)])
    total = sum(np.diag(table @ masses[:, h].reshape(4, -1).T) for h, table in enumerate(tables))
    assert np.allclose(start - values_of_policies, total)


def test_the_optimal_values_alone_have_dimension_zero():
    mdp = random_mdp(4, 3, 4, 0)
    assert bellman_eluder(mdp, backward_induction(mdp).q[np.newaxis], 1e-9).upper == 0


def test_a_linear_class_has_a_dimension_far_below_its_table():
    linear = linear_mdp(n_states=30, n_actions=3, dimension=3, horizon=2)
    weights = np.random.default_rng(0).uniform(-1, 1, (12, 2, 3))
    values = np.einsum("sad,fhd->fhsa", linear.features, weights)
    found = bellman_eluder(linear.mdp, values, 0.3, budget=300)
    assert 3 <= found.lower <= found.upper <= 12


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: distributional_eluder(np.zeros(3), 0.1), r"expectations has shape \(3,\)"),
        (lambda: distributional_eluder([[np.nan]], 0.1), r"expectations\[0, 0\] is nan"),
        (lambda: distributional_eluder([[1.0]], -0.1), "epsilon must be at least 0"),
        (lambda: distributional_eluder([[1.0]], float("nan")), "epsilon must be at least 0"),
        (lambda: distributional_eluder([[1.0]], 0.1, budget=-1), "budget must be at least 0"),
        (lambda: eluder_dimension(np.zeros(3), 0.1), r"values has shape \(3,\)"),
        (lambda: eluder_rank_bound(2, 0.0, 1.0), "epsilon must be positive"),
        (lambda: eluder_rank_bound(2, 1.0, float("nan")), "norm must be at least 0"),
        (lambda: is_eluder_sequence([[1.0]], [1], 0.0), r"sequence\[0\] = 1 is not a column"),
        (lambda: bellman_eluder(random_mdp(2, 2, 2, 0), np.zeros((1, 2, 2, 2)), 0.0), "epsilon must be positive"),
        (lambda: bellman_eluder(random_mdp(2, 2, 2, 0), np.zeros((1, 3, 2, 2)), 0.1), "values has 3 layers"),
        (lambda: bellman_eluder(random_mdp(2, 2, 2, 0), np.zeros((1, 2, 3, 2)), 0.1), r"values\[0\] has shape"),
        (
            lambda: bellman_eluder(random_mdp(2, 2, 1, 0), [np.zeros((1, 2, 2))], 0.1, distributions="greedy"),
            "greedy policies of a product are too many",
        ),
        (
            lambda: bellman_eluder(
                random_mdp(2, 2, 1, 0), np.zeros((1, 1, 2, 2)), 0.1, distributions=np.ones((1, 1, 2, 2))
            ),
            r"distributions\[0, 0\] is not a distribution",
        ),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_dimension_that_is_not_known_is_refused():
    generator = np.random.default_rng(0)
    found = distributional_eluder(generator.standard_normal((40, 40)), 1.0, budget=3)
    assert not found.exact
    with pytest.raises(ValueError, match=r"the dimension is between \d+ and \d+"):
        _ = found.value


def plain_at(table, threshold):
    """The longest sequence at one threshold, by trying every column next, in rationals."""
    rows = [[Fraction(float(x)) ** 2 for x in row] for row in table]
    level = Fraction(float(threshold)) ** 2

    def longest(sums, depth):
        top = depth
        for j in range(len(rows[0])):
            if any(total < level <= row[j] for total, row in zip(sums, rows, strict=True)):
                top = max(top, longest([total + row[j] for total, row in zip(sums, rows, strict=True)], depth + 1))
        return top

    return longest([Fraction(0)] * len(rows), 0)


@pytest.mark.parametrize("seed", range(4))
def test_bounds_and_search_alone_at_every_threshold(seed):
    """Without the greedy start, which would hide a bound that is too low."""
    table = np.abs(np.random.default_rng(seed).standard_normal((7, 5)))
    thresholds = np.unique(table)
    truth = [plain_at(table, t) for t in thresholds]
    caps = RankBound(table)
    fresh = Search(table, thresholds, rounding_slack(table), 10**6)
    for k, length in enumerate(truth):
        assert fresh._bound(k, k, caps, math.inf) >= length
        assert fresh._bound(max(0, k - 3), min(k + 3, len(truth) - 1), caps, math.inf) >= length
        alone = Search(table, thresholds, rounding_slack(table), 10**6)
        assert alone._exhaust(alone.level(k), 99)
        assert alone.best == length
    # Somewhere the bound by positions is what counts.
    assert any(fresh._bound(k, k, caps, math.inf) == length for k, length in enumerate(truth))


@given(st.lists(st.integers(1, 6), max_size=6))
def test_positions_are_an_assignment(last):
    def possible(n):
        return any(
            all(last[g] >= position for position, g in enumerate(chosen, 1))
            for chosen in itertools.permutations(range(len(last)), n)
        )

    assert positions(np.array(last, np.int64)) == max(n for n in range(len(last) + 1) if possible(n))


# ---- the registry


@pytest.mark.parametrize("key", ["eluder.tabular", "eluder.low-rank"])
def test_theorems_come_out_as_expected_at_any_seed(key):
    for seed in range(10 if key == "eluder.tabular" else 3):
        report = verify(key, rng=seed)
        assert report.as_expected, report.note
        assert report.tightness >= (1.0 if key == "eluder.tabular" else 0.4)


@given(mdps(max_states=3, max_actions=2, max_horizon=3))
def test_the_tabular_theorem_holds_on_any_model(mdp):
    observations = tabular(mdp, rng=np.random.SeedSequence(0), runs=3, jobs=None, progress=None)
    assert (observations.observed <= observations.bound).all()
    assert observations.observed[0] == observations.bound[0]


@given(hnp.arrays(np.float64, (3, 3), elements=st.integers(-3, 3).map(float)), st.integers(0, 2))
def test_the_search_of_the_theorem_is_the_definition(table, epsilon):
    assert longest_sequence(table, epsilon) == plain_dimension(table, epsilon)
    assert longest_sequence(table, epsilon, "weak") >= longest_sequence(table, epsilon)


def test_a_forgetful_search_never_ends():
    assert longest_sequence(np.eye(3), 0.5, "forgetful") == 2 * 3 + 2
    assert longest_sequence(np.eye(3), 0.5, "weak") == 2 * 3


def test_proofs_are_where_the_entries_say():
    page = (Path(__file__).resolve().parents[2] / "docs" / "theory" / "eluder.md").read_text()
    headings = {re.sub(r"[^a-z]+", "-", line[3:].lower()) for line in page.splitlines() if line.startswith("## ")}
    for theorem in theorems("complexity"):
        if theorem.key.startswith("eluder."):
            assert theorem.proof.anchor.split("#")[1] in headings
            assert f"`{theorem.key}`" in page


@pytest.mark.slow
def test_search_is_exact_on_larger_tables():
    """Against a search without bounds, thresholds by bisection or orders: all sets of columns, in integers."""
    generator = np.random.default_rng(0)
    for _ in range(6):
        table = generator.integers(-9, 10, (14, 8)).astype(float)
        found = distributional_eluder(table, 2.0, budget=100_000)
        assert found.exact
        assert found.nodes > 0
        assert found.value == longest_sequence(table, 2.0)


def test_classes_are_taken_as_they_are():
    mdp = random_mdp(3, 2, 2, 0)
    product = complete_class(mdp, 2, 0)
    listed = product.to_finite()
    assert bellman_eluder(mdp, product, 0.1) == bellman_eluder(mdp, product.layers, 0.1)
    assert bellman_eluder(mdp, listed, 0.1) == bellman_eluder(mdp, listed.values, 0.1)
    assert eluder_dimension(listed, 0.1) == eluder_dimension(listed.values, 0.1)
    with pytest.raises(TypeError, match="values must be an array, H arrays or a class of functions, not a int"):
        bellman_eluder(mdp, 3, 0.1)


def test_differences_that_overflow_are_named():
    with pytest.raises(ValueError, match=r"values\[0\] - values\[1\] overflows"):
        eluder_dimension(np.array([[1.7e308, 1.0], [-1.7e308, 0.0]]), 0.1)


@pytest.mark.parametrize(
    ("table", "sequence", "message"),
    [
        (np.ones(3), [0], r"expectations has shape \(3,\), not \(nG, nD\)"),
        ([[np.nan]], [0], r"expectations\[0, 0\] is nan, not finite"),
        ([[np.inf]], [0], r"expectations\[0, 0\] is inf, not finite"),
        ([[1.0]], [0.5], r"sequence\[0\] must be an integer"),
    ],
)
def test_a_sequence_is_checked_on_a_proper_table_only(table, sequence, message):
    with pytest.raises(ValueError, match=message):
        is_eluder_sequence(table, sequence, 0.1)
