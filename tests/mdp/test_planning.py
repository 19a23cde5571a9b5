"""Exact planning against enumeration, rational arithmetic, plain-Python twins and closed forms."""

import copy
import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

from theoryrl.mdp import evaluation, planning
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.policy import MixturePolicy, uniform_policy
from theoryrl.mdp.random import random_mdp
from theoryrl.mdp.transitions import SparseTransition
from theoryrl.testing import naive

LAWS = ("deterministic", "bernoulli", "uniform", "outcome")


def rounding(mdp, scale=1.0):
    """Twice the bound H (S + 8) u H max|r| on what two orders of summation make of one value (rows off 1 by S u)."""
    return 2 * (2 * mdp.n_states + 8) * 2.0**-53 * mdp.horizon**2 * max(1.0, np.abs(mdp.reward).max()) * scale


def both_storages(mdp):
    return mdp.to_dense(), mdp.to_sparse()


def deterministic_policies(mdp):
    """Every deterministic time-varying policy of a small model, int (H, S)."""
    choices = [np.flatnonzero(mdp.action_mask[s]).tolist() for s in range(mdp.n_states)]
    for actions in itertools.product(*(choices * mdp.horizon)):
        yield np.array(actions).reshape(mdp.horizon, mdp.n_states)


def dyadic_mdp(seed, staged, masked=False):
    """Probabilities and rewards in eighths: every sum and product of three layers is exact in float64, in any order."""
    rng = np.random.default_rng(seed)
    shape = (3, 3, 2) if staged else (3, 2)
    transition = rng.multinomial(8, [1 / 3] * 3, size=shape) / 8
    mask = np.array([[True, True], [False, True], [True, True]]) if masked else None
    initial = np.array([2, 1, 1]) / 4
    return FiniteHorizonMDP(
        transition, rng.integers(0, 9, shape) / 8, horizon=3, initial=initial, action_mask=mask, reward_law="bernoulli"
    )


def exact(mdp, policy=None):
    """Rational value (H+1, S) and q (H, S, A): optimal, or of a stochastic policy (H, S, A); -inf where forbidden."""
    kernel, reward = mdp.to_dense().transition_layers, mdp.reward_layers
    value = [[Fraction(0)] * mdp.n_states]
    q = []
    for h in reversed(range(mdp.horizon)):
        rows, gain = kernel[h % len(kernel)], reward[h % len(reward)]
        table = [
            [
                Fraction(gain[s, a])
                + sum(Fraction(p) * v for p, v in zip(rows[s, a], value[0], strict=True)) / total(rows[s, a])
                if mdp.action_mask[s, a]
                else -math.inf
                for a in range(mdp.n_actions)
            ]
            for s in range(mdp.n_states)
        ]
        q.insert(0, table)
        if policy is None:
            value.insert(0, [max(row) for row in table])
        else:
            weights = [[Fraction(w) for w in row] for row in policy[h]]
            value.insert(
                0, [sum(w * x for w, x in zip(*pair, strict=True) if w) for pair in zip(weights, table, strict=True)]
            )
    return value, q


def total(row):
    return sum(Fraction(p) for p in row)


def paths(mdp, policy):
    """Every trajectory as (probability, rewards): the law of the return, one Bernoulli or outcome reward at a time."""
    dense = mdp.to_dense()
    kernel, outcome = dense.transition_layers, dense.outcome_reward
    if outcome is not None:
        outcome = outcome.reshape(kernel.shape)

    def walk(h, s):
        if h == mdp.horizon:
            yield 1.0, 0.0, 0.0
            return
        mean = mdp.reward_layers[h % len(mdp.reward_layers)]
        for a in np.flatnonzero(policy[h, s]):
            for t in np.flatnonzero(kernel[h % len(kernel), s, a]):
                weight = policy[h, s, a] * kernel[h % len(kernel), s, a, t]
                atoms = {mean[s, a]: 1.0}
                if mdp.reward_law == "bernoulli":
                    atoms = {0.0: 1 - mean[s, a], 1.0: mean[s, a]}
                elif mdp.reward_law == "outcome":
                    atoms = {outcome[h % len(kernel), s, a, t]: 1.0}
                spread = 0.0
                if mdp.reward_law == "uniform":
                    noise = mdp.reward_noise.reshape(mdp.reward_layers.shape)
                    spread = noise[h % len(noise), s, a] ** 2 / 3
                for later, ahead, noise_ahead in walk(h + 1, t):
                    for reward, chance in atoms.items():
                        yield weight * later * chance, reward + ahead, spread + noise_ahead

    return walk


# ---- backward induction


@pytest.mark.parametrize("n_states, horizon", [(2, 2), (2, 3), (3, 2), (3, 3)])
@pytest.mark.parametrize("staged", [False, True])
def test_no_deterministic_policy_is_better(n_states, horizon, staged):
    mdp = random_mdp(n_states, 2, horizon, n_states + 10 * horizon, staged=staged)
    best = np.full(n_states, -np.inf)
    for policy in deterministic_policies(mdp):
        best = np.maximum(best, naive.evaluate(mdp, policy)[0])
    for stored in both_storages(mdp):
        plan = planning.backward_induction(stored)
        np.testing.assert_allclose(plan.value[0], best, atol=rounding(mdp), rtol=0)
        np.testing.assert_allclose(naive.evaluate(mdp, plan.policy)[0], best, atol=rounding(mdp), rtol=0)


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_dyadic_models_are_solved_exactly(seed, staged, masked):
    mdp = dyadic_mdp(seed, staged, masked)
    value, q = exact(mdp)
    policy = np.array([[row.index(max(row)) for row in layer] for layer in q])
    choice = np.where(mdp.action_mask.all(axis=1, keepdims=True), [[0.25, 0.75]], [[0.0, 1.0]])[np.newaxis].repeat(
        3, axis=0
    )
    of_policy, q_of_policy = exact(mdp, choice)
    for stored in both_storages(mdp):
        plan = planning.backward_induction(stored)
        assert np.array_equal(plan.value, np.array(value, float))
        assert np.array_equal(plan.q, np.array(q, float))
        assert np.array_equal(plan.policy, policy)
        assert plan.initial_value == float(sum(Fraction(m) * v for m, v in zip(mdp.initial, value[0], strict=True)))
        assert np.array_equal(planning.evaluate(stored, policy), np.array(value, float))
        assert np.array_equal(planning.evaluate(stored, choice), np.array(of_policy, float))
        assert np.array_equal(planning.evaluate_q(stored, choice), np.array(q_of_policy, float))
        measure = planning.occupancy(stored, choice)
        assert np.array_equal(measure, np.array(naive.occupancy(mdp, choice)))
        assert np.array_equal(measure.sum(axis=(1, 2)), np.ones(3))
        assert (measure * mdp.reward_layers).sum() == mdp.initial @ np.array(of_policy[0], float)


def test_ties_go_to_the_lowest_allowed_action():
    rows = np.full((3, 4, 3), 1 / 3)
    mask = np.array([[True] * 4, [False, True, True, True], [False, False, True, True]])
    for stored in both_storages(FiniteHorizonMDP(rows, np.ones((3, 4)), horizon=2, action_mask=mask)):
        plan = planning.backward_induction(stored)
        assert plan.policy.tolist() == [[0, 1, 2]] * 2
        assert np.array_equal(planning.optimal_actions(plan), np.broadcast_to(mask, (2, 3, 4)))
        assert np.array_equal(plan.q == -np.inf, np.broadcast_to(~mask, (2, 3, 4)))
        many = planning.backward_induction_rewards(stored, np.ones((5, 3, 4)))
        assert np.array_equal(many.policy, np.broadcast_to(plan.policy, (5, 2, 3)))
    every = planning.backward_induction_batch(np.stack([rows, rows]), np.ones((2, 3, 4)), 2)
    assert not every.policy.any()


def test_rows_of_forbidden_pairs_are_never_read():
    rng = np.random.default_rng(3)
    rows = rng.dirichlet(np.ones(3), size=(3, 2))
    mask = np.array([[True, False], [True, True], [True, True]])
    reward = rng.random((3, 2))
    clean = FiniteHorizonMDP(rows, reward, horizon=4, action_mask=mask)
    spoilt_rows, spoilt_reward = rows.copy(), reward.copy()
    spoilt_rows[0, 1] = [np.nan, 7, -1]
    spoilt_reward[0, 1] = np.nan
    spoilt = FiniteHorizonMDP(spoilt_rows, spoilt_reward, horizon=4, action_mask=mask)
    choice = uniform_policy(clean)
    for function in (
        lambda m: planning.backward_induction(m).q,
        lambda m: planning.soft_backward_induction(m, 0.3).policy,
        lambda m: planning.evaluate_q(m, choice),
        lambda m: planning.moments(m, choice).variance,
        lambda m: planning.occupancy(m, choice),
        lambda m: planning.backward_induction_rewards(m, np.stack([spoilt_reward, reward])).value,
        lambda m: planning.optimal_actions(planning.backward_induction(m)),
    ):
        assert np.array_equal(function(spoilt), function(clean))
    assert np.array_equal(planning.reachability(spoilt), planning.reachability(clean))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 2), (4, 1, 3), (7, 3, 1), (5, 5, 6)])
@pytest.mark.parametrize("staged", [False, True])
def test_twins_agree_at_awkward_sizes(sizes, staged):
    mdp = random_mdp(*sizes, 5, staged=staged, branching=max(1, sizes[0] // 2), concentration=0.3)
    value, policy = naive.backward_induction(mdp)
    for stored in both_storages(mdp):
        plan = planning.backward_induction(stored)
        np.testing.assert_allclose(plan.value, value, atol=rounding(mdp), rtol=0)
        np.testing.assert_allclose(planning.evaluate(stored, np.array(policy)), value, atol=rounding(mdp), rtol=0)
        np.testing.assert_allclose(
            planning.evaluate(stored, uniform_policy(mdp)),
            naive.evaluate(mdp, uniform_policy(mdp)),
            atol=rounding(mdp),
            rtol=0,
        )


@pytest.mark.slow
def test_tables_beyond_the_cache_agree_with_a_matrix_product():
    # More than 2**21 numbers: rows are taken one at a time instead of in pairs.
    mdp = random_mdp(1031, 2, 3, 7)
    value = np.zeros(1031)
    for _ in range(3):
        value = (mdp.reward + mdp.transition @ value).max(axis=1)
    np.testing.assert_allclose(planning.backward_induction(mdp).value[0], value, atol=rounding(mdp), rtol=0)


def test_a_value_that_overflows_is_refused():
    mdp = FiniteHorizonMDP(np.ones((1, 1, 1)), np.full((1, 1), 1e308), horizon=3)
    for solve in (planning.backward_induction, lambda m: planning.evaluate(m, np.zeros(1, int))):
        # As plain Python the kernel's own overflow would warn first.
        with np.errstate(over="ignore"), pytest.raises(ValueError, match=r"value\[0, 0\] is inf, not finite"):
            solve(mdp)


def test_only_finite_horizon_models_are_taken():
    discounted = random_mdp(2, 2, 2, 0).with_discount(0.9)
    for function in (planning.backward_induction, planning.reachability):
        with pytest.raises(TypeError, match="needs a FiniteHorizonMDP, not a DiscountedMDP"):
            function(discounted)


# ---- the result


def test_plan_tabulates_itself():
    mdp = FiniteHorizonMDP(
        np.full((2, 2, 2), 0.5),
        [[1.0, 0.0], [0.0, 2.0]],
        horizon=2,
        action_mask=[[True, False], [True, True]],
        state_labels=["left", "right"],
        action_labels=["stay", "go"],
    )
    plan = planning.backward_induction(mdp)
    frame = plan.to_frame()
    assert frame.columns.tolist() == ["h", "state", "action", "q", "value", "probability"]
    assert frame[frame.h == 0].to_numpy().tolist() == [
        [0, "left", "stay", 2.5, 2.5, 1.0],
        [0, "right", "stay", 1.5, 3.5, 0.0],
        [0, "right", "go", 3.5, 3.5, 1.0],
    ]
    assert plan.initial_value == 2.5
    assert repr(plan).startswith("Plan(initial_value=2.5, mdp=FiniteHorizonMDP(")
    soft = planning.soft_backward_induction(mdp, 1.0)
    assert soft.to_frame().groupby(["h", "state"]).probability.sum().to_numpy() == pytest.approx(1)
    assert "temperature=1" in repr(soft)
    with pytest.raises(ValueError, match="soft plan"):
        soft.certify()
    with pytest.raises(ValueError, match="soft plan"):
        planning.optimal_actions(soft)


def test_a_large_q_is_made_on_first_use():
    mdp = random_mdp(6, 3, 20, 1, branching=1, sparse=True)
    plan = planning.backward_induction(mdp)
    assert "q" not in vars(plan)
    assert np.array_equal(plan.q.max(axis=2), plan.value[:-1])
    assert plan.q is plan.q
    assert not plan.q.flags.writeable
    assert np.array_equal(copy.deepcopy(planning.backward_induction(mdp)).q, plan.q)
    assert "q" in vars(planning.backward_induction(mdp.to_dense().with_horizon(2)))
    with pytest.raises(AttributeError, match="no attribute 'Q'"):
        _ = plan.Q


def test_results_are_read_only():
    mdp = random_mdp(3, 2, 3, 0)
    plan, found = planning.backward_induction(mdp), planning.moments(mdp, uniform_policy(mdp))
    many = planning.backward_induction_rewards(mdp, mdp.reward[np.newaxis])
    arrays = [plan.value, plan.q, plan.policy, found.value, found.second, found.variance, many.value, many.policy]
    arrays += [planning.evaluate(mdp, plan.policy), planning.evaluate_q(mdp, plan.policy), planning.reachability(mdp)]
    mixture = MixturePolicy([plan.policy, uniform_policy(mdp)])
    arrays += [planning.occupancy(mdp, mixture), planning.evaluate(mdp, mixture), planning.optimal_actions(plan)]
    assert [array.flags.writeable for array in arrays] == [False] * len(arrays)


# ---- given policies


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("staged", [False, True])
def test_moments_against_every_trajectory(law, staged):
    mdp = random_mdp(3, 2, 3, 11, staged=staged, reward_law=law)
    rng = np.random.default_rng(1)
    policy = rng.dirichlet(np.ones(2), size=(3, 3))
    policy[1, 2] = [1, 0]
    walk = paths(mdp, policy)
    for stored in both_storages(mdp):
        found = planning.moments(stored, policy)
        for h in range(4):
            for s in range(3):
                probability, gain, noise = np.array(list(walk(h, s))).T
                mean = probability @ gain
                assert probability.sum() == pytest.approx(1, abs=1e-14)
                assert found.value[h, s] == pytest.approx(mean, abs=rounding(mdp))
                assert found.second[h, s] == pytest.approx(probability @ (gain**2 + noise), abs=rounding(mdp, 12))
                assert found.variance[h, s] == pytest.approx(
                    probability @ ((gain - mean) ** 2 + noise), abs=rounding(mdp, 12)
                )
        np.testing.assert_allclose(found.value, planning.evaluate(stored, policy), atol=rounding(mdp), rtol=0)


def test_variance_keeps_its_digits():
    # A fair coin of 1 on top of a certain 2**30: E[X^2] - E[X]^2 would be lost in rounding at 2**60.
    large = 2.0**30
    rows = np.array([[[0.0, 0.5, 0.5]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    mdp = FiniteHorizonMDP(rows, [[large], [0.0], [1.0]], horizon=2, reward_range=(0, large))
    found = planning.moments(mdp, np.zeros(3, int))
    assert found.variance[0].tolist() == [0.25, 0.0, 0.0]
    assert found.value[0, 0] == large + 0.5
    still = planning.moments(FiniteHorizonMDP(np.ones((1, 2, 1)), [[0.1, 0.7]], horizon=9), np.ones(1, int))
    assert still.variance.tolist() == [[0.0]] * 10


@pytest.mark.parametrize("law", LAWS)
def test_mixtures_are_drawn_once(law):
    mdp = random_mdp(3, 2, 3, 2, reward_law=law)
    parts = [np.zeros(3, int), np.ones((3, 3), int), uniform_policy(mdp)]
    mixture = MixturePolicy(parts, [0.5, 0.25, 0.25])
    values = [planning.evaluate(mdp, part) for part in parts]
    mean = 0.5 * values[0] + 0.25 * values[1] + 0.25 * values[2]
    np.testing.assert_allclose(planning.evaluate(mdp, mixture), mean, atol=rounding(mdp), rtol=0)
    measure = planning.occupancy(mdp, mixture)
    assert (measure * mdp.reward).sum() == pytest.approx(mean[0, 0], abs=rounding(mdp))
    found = planning.moments(mdp, mixture)
    second = sum(w * planning.moments(mdp, part).second for w, part in zip(mixture.weights, parts, strict=True))
    np.testing.assert_allclose(found.second, second, atol=rounding(mdp, 12), rtol=0)
    with pytest.raises(ValueError, match="not one Markov policy"):
        planning.evaluate_q(mdp, mixture)


def test_a_forbidden_action_of_a_policy_is_named():
    mdp = FiniteHorizonMDP(
        np.full((2, 2, 2), 0.5), np.ones((2, 2)), horizon=2, action_mask=[[True, True], [True, False]]
    )
    for function in (planning.evaluate, planning.evaluate_q, planning.occupancy, planning.moments):
        with pytest.raises(ValueError, match=r"policy\[1\] = 1 is a forbidden action"):
            function(mdp, np.array([0, 1]))


# ---- reachability


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("block", [1, 10**6])
def test_reachability_is_the_maximum_over_policies(staged, block, monkeypatch):
    monkeypatch.setattr(evaluation, "REACHABILITY_BLOCK", block)
    mdp = random_mdp(3, 2, 3, 4, staged=staged, branching=2).with_initial([0.5, 0.5, 0.0])
    best = np.zeros((3, 3))
    for policy in deterministic_policies(mdp):
        best = np.maximum(best, np.sum(naive.occupancy(mdp, policy), axis=2))
    for stored in both_storages(mdp):
        np.testing.assert_allclose(planning.reachability(stored), best, atol=rounding(mdp), rtol=0)


def test_reachability_on_a_chain():
    # Right with probability 3/4, else stay; left is certain: state h is reached at layer h with probability (3/4)^h.
    n, horizon = 4, 4
    rows = np.zeros((n, 2, n))
    for s in range(n):
        rows[s, 0, max(s - 1, 0)] = 1
        rows[s, 1, min(s + 1, n - 1)] += 0.75
        rows[s, 1, s] += 0.25
    reach = planning.reachability(FiniteHorizonMDP(rows, np.zeros((n, 2)), horizon=horizon))
    assert np.diag(reach).tolist() == [0.75**h for h in range(horizon)]
    assert reach[:, 0].tolist() == [1.0] * horizon
    assert not reach[np.triu_indices(n, 1)].any()


# ---- many problems at once


@pytest.mark.parametrize("n_rewards", [1, 3, 4, 7, 70])
@pytest.mark.parametrize("staged_rewards", [False, True])
def test_many_rewards_against_single_sweeps(n_rewards, staged_rewards):
    # 5 states with 3 actions and 70 rewards leave remainders in every direction of the tiles.
    mdp = random_mdp(5, 3, 3, 8, staged=n_rewards == 7)
    rewards = np.random.default_rng(n_rewards).random((n_rewards, *((3,) if staged_rewards else ()), 5, 3))
    for stored in both_storages(mdp):
        plan = planning.backward_induction_rewards(stored, rewards)
        for k in range(n_rewards):
            value, policy = naive.backward_induction(mdp.with_reward(rewards[k]))
            np.testing.assert_allclose(plan.value[k], value, atol=rounding(mdp), rtol=0)
            assert np.array_equal(plan.policy[k], policy)


@pytest.mark.parametrize("staged, staged_reward", [(False, False), (False, True), (True, False), (True, True)])
def test_many_models_against_single_solves(staged, staged_reward):
    rng = np.random.default_rng(4)
    rows = rng.dirichlet(np.ones(4), size=(6, *((3,) if staged else ()), 4, 2))
    rewards = rng.random((6, *((3,) if staged_reward else ()), 4, 2))
    plan = planning.backward_induction_batch(rows, rewards, 3)
    for b in range(6):
        mdp = FiniteHorizonMDP(rows[b], rewards[b], horizon=3)
        value, policy = naive.backward_induction(mdp)
        np.testing.assert_allclose(plan.value[b], value, atol=rounding(mdp), rtol=0)
        assert np.array_equal(plan.policy[b], policy)


def test_batches_name_the_entry_at_fault():
    rows, rewards = np.full((2, 2, 2, 2), 0.5), np.zeros((2, 2, 2))
    solve = planning.backward_induction_batch
    for bad in (0.4, np.nan, np.inf, -0.5):
        broken = rows.copy()
        broken[1, 0, 1, 0] = bad
        with pytest.raises(ValueError, match=r"transition\[1, 0, 1\] is no distribution"):
            solve(broken, rewards, 2)
    broken = rows.copy()
    broken[1, 0, 1] = [1.5, -0.5]
    with pytest.raises(ValueError, match=r"transition\[1, 0, 1\] is no distribution"):
        solve(broken, rewards, 2)
    with pytest.raises(ValueError, match=r"reward\[0, 1, 1\] is nan"):
        solve(rows, np.where(np.arange(8).reshape(2, 2, 2) == 3, np.nan, rewards), 2)
    with pytest.raises(ValueError, match=r"transition has shape \(2, 2, 2\)"):
        solve(rows[0], rewards, 2)
    with pytest.raises(ValueError, match="transition has 3 layers, but the horizon is 2"):
        solve(np.full((2, 3, 2, 2, 2), 0.5), rewards, 2)
    with pytest.raises(ValueError, match=r"reward has shape \(2, 2\)"):
        solve(rows, rewards[0], 2)
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        solve(rows, rewards, 0)
    mdp = random_mdp(2, 2, 2, 0)
    with pytest.raises(ValueError, match=r"rewards has shape \(2, 2\), not \(K, 2, 2\) or \(K, 2, 2, 2\)"):
        planning.backward_induction_rewards(mdp, mdp.reward)
    with pytest.raises(ValueError, match=r"rewards\[1, 0, 0\] is inf"):
        planning.backward_induction_rewards(mdp, [mdp.reward, [[np.inf, 0], [0, 0]]])


# ---- greedy and all optimal actions


def test_greedy_takes_the_first_allowed_maximum():
    assert planning.greedy([[1.0, 3.0, 3.0], [-np.inf, -np.inf, -5.0]]).tolist() == [1, 2]
    assert planning.greedy([[1.0, 3.0, 3.0]], [[True, False, True]]).tolist() == [2]
    assert planning.greedy(np.zeros((2, 3, 4))).shape == (2, 3)
    with pytest.raises(ValueError, match=r"q\[0, 1\] is nan"):
        planning.greedy([[0.0, np.nan]])
    with pytest.raises(ValueError, match=r"q\[1\] allows no action"):
        planning.greedy([[0.0, 1.0], [-np.inf, -np.inf]])
    with pytest.raises(ValueError, match="q allows no action"):
        planning.greedy([0.0, 1.0], [False, False])


def test_optimal_actions_see_ties_that_rounding_breaks():
    # All successors are worth the same, so all actions tie exactly; the sums of 200 different weights do not.
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(200), size=(200, 4))
    reward = np.full((200, 4), 0.1)
    reward[:, 3] -= 1e-9
    plan = planning.backward_induction(FiniteHorizonMDP(rows, reward, horizon=6))
    assert len(np.unique(plan.policy[0])) > 1
    kept = planning.optimal_actions(plan)
    assert kept[..., :3].all()
    assert not kept[..., 3].any()


@pytest.mark.parametrize("defect", [0.0, 9e-10])
def test_optimal_actions_contain_those_of_exact_arithmetic(defect):
    rng = np.random.default_rng(5)
    base = rng.dirichlet(np.ones(4), size=4)
    rows = np.repeat(base[:, np.newaxis], 3, axis=1)
    rows[:, 1] *= 1 + defect
    reward = np.repeat(rng.random((4, 1)), 3, axis=1)
    reward[:, 2] = np.nextafter(reward[:, 2], 0)
    mdp = FiniteHorizonMDP(rows, reward, horizon=3)
    _, q = exact(mdp)
    best = np.array([[[x == max(row) for x in row] for row in layer] for layer in q])
    for stored in both_storages(mdp):
        kept = planning.optimal_actions(planning.backward_induction(stored))
        assert kept[best].all()


# ---- soft planning


@pytest.mark.parametrize("temperature", [1e-3, 0.2, 5.0])
def test_soft_value_is_reward_plus_entropy_of_its_own_policy(temperature):
    mdp = random_mdp(4, 3, 3, 6)
    plan = planning.soft_backward_induction(mdp, temperature)
    bonus = -np.log(np.where(plan.policy > 0, plan.policy, 1.0))
    paid = mdp.with_reward(mdp.reward + temperature * bonus)
    value = planning.evaluate(paid, plan.policy / plan.policy.sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(plan.value, value, atol=rounding(mdp, 40), rtol=0)
    optimum = planning.backward_induction(mdp).value
    allowance = temperature * np.arange(3, -1, -1)[:, np.newaxis] * np.log(3) + rounding(mdp)
    assert (plan.value >= optimum - rounding(mdp)).all()
    assert (plan.value <= optimum + allowance).all()


def test_soft_plan_closed_form_and_limits():
    mdp = FiniteHorizonMDP(np.ones((1, 3, 1)), [[0.0, 1.0, 2.0]], horizon=1, reward_range=(0, 2))
    weights = np.exp([0.0, 1.0, 2.0])
    plan = planning.soft_backward_induction(mdp, 1.0)
    assert plan.value[0, 0] == pytest.approx(np.log(weights.sum()), abs=1e-15)
    assert plan.policy[0, 0] == pytest.approx(weights / weights.sum(), abs=1e-15)
    cold = planning.soft_backward_induction(mdp, 1e-6)
    assert cold.value[0, 0] == 2.0
    assert cold.policy[0, 0].tolist() == [0, 0, 1]
    hot = planning.soft_backward_induction(mdp, 1e9)
    assert hot.policy[0, 0] == pytest.approx(1 / 3, abs=1e-8)
    huge = planning.soft_backward_induction(mdp.with_reward([[0.0, 1e300, -1e300]]), 1e-3)
    assert huge.policy[0, 0].tolist() == [0, 1, 0]
    for bad in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="temperature must be positive and finite"):
            planning.soft_backward_induction(mdp, bad)


def test_explicit_zeros_and_a_horizon_of_one_with_a_layer_axis():
    rows = SparseTransition([0, 2, 4], [0, 1, 0, 1], [1.0, 0.0, 0.5, 0.5], 2, 1, 1, staged=True)
    mdp = FiniteHorizonMDP(rows, [[[1.0], [0.25]]], horizon=1)
    assert planning.backward_induction(mdp).value.tolist() == [[1.0, 0.25], [0.0, 0.0]]
    assert planning.occupancy(mdp, np.zeros(2, int)).tolist() == [[[1.0], [0.0]]]
    assert planning.reachability(mdp).tolist() == [[1.0, 0.0]]


def test_results_stay_read_only_through_pickle_and_deepcopy():
    mdp = random_mdp(3, 2, 4, rng=0)
    plan = planning.backward_induction(mdp)
    many = planning.backward_induction_rewards(mdp, np.zeros((2, 3, 2)))
    for result in (plan, many, planning.moments(mdp, plan.policy)):
        for again in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
            assert not again.value.flags.writeable
            assert np.array_equal(again.value, result.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: planning.greedy(5.0), ValueError, "q is a number"),
        (lambda: planning.greedy(["a", "b"]), ValueError, "q must hold numbers"),
        (lambda: planning.greedy([1.0, 2.0], [1, 0]), ValueError, "mask must be boolean"),
        (lambda: planning.greedy(np.array([1j, 2])), ValueError, "q must hold numbers"),
        (
            lambda: planning.backward_induction_batch(np.ones((1, 1, 1, 1), complex), np.zeros((1, 1, 1)), 2),
            ValueError,
            "transition must hold numbers",
        ),
        (
            lambda: planning.backward_induction_batch(np.ones((1, 1, 1, 1)), np.full((1, 1, 1), "x"), 2),
            ValueError,
            "reward must hold numbers",
        ),
        (lambda: planning.optimal_actions(random_mdp(2, 2, 2, rng=0)), TypeError, "Plan of backward_induction"),
        (
            lambda: planning.evaluate(random_mdp(2, 2, 2, rng=0).with_discount(0.9), [0, 0]),
            TypeError,
            "FiniteHorizonMDP",
        ),
    ],
)
def test_what_is_no_table_or_no_plan_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
