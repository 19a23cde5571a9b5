import itertools
import math

import numpy as np
import pytest

from theoryrl.mdp import Dataset, FiniteHorizonMDP, evaluate, evaluate_q, occupancy, random_mdp, rollout
from theoryrl.offline import (
    Estimate,
    doubly_robust,
    importance_sampling,
    marginalised_sampling,
    marginalised_weights,
)
from theoryrl.offline._enumeration import enumerate_trajectories, n_trajectories

RNG = np.random.default_rng(7)
MDP = random_mdp(3, 2, 3, RNG, staged=True).with_initial(np.array([0.5, 0.25, 0.25]))
TARGET = RNG.dirichlet(np.ones(2), (3, 3))
BEHAVIOUR = RNG.dirichlet(3 * np.ones(2), (3, 3))
DATA = rollout(MDP, BEHAVIOUR, 40, rng=1)


def by_hand(data, target, behaviour, kind, q=None):
    """Contribution of every trajectory, straight from the definitions."""
    found = []
    for i in np.unique(data.trajectory):
        rows = [r for r in range(len(data)) if data.trajectory[r] == i]
        rows.sort(key=lambda r: data.step[r])
        ratios = [
            target[data.step[r], data.state[r], data.action[r]] / behaviour[data.step[r], data.state[r], data.action[r]]
            for r in rows
        ]
        rewards = [data.reward[r] for r in rows]
        if kind == "trajectory":
            found.append(math.prod(ratios) * sum(rewards))
        elif kind == "per-decision":
            found.append(sum(math.prod(ratios[: h + 1]) * rewards[h] for h in range(len(rows))))
        else:  # Jiang and Li's backward form, not the forward one of the kernel
            total = 0.0
            for h in reversed(range(len(rows))):
                s, a = data.state[rows[h]], data.action[rows[h]]
                v = sum(target[h, s, b] * q[h, s, b] for b in range(q.shape[2]))
                total = v + ratios[h] * (rewards[h] + total - q[h, s, a])
            found.append(total)
    return np.array(found)


@pytest.mark.parametrize("kind", ["trajectory", "per-decision"])
def test_importance_sampling_is_its_definition(kind):
    estimate = importance_sampling(DATA, TARGET, BEHAVIOUR, per_decision=kind == "per-decision")
    wanted = by_hand(DATA, TARGET, BEHAVIOUR, kind)
    np.testing.assert_allclose(estimate.terms, wanted, rtol=1e-12)
    assert estimate.value == pytest.approx(wanted.mean(), rel=1e-12)
    assert estimate.standard_error == pytest.approx(wanted.std(ddof=1) / math.sqrt(40), rel=1e-12)
    assert estimate.unbiased and estimate.covered and estimate.size == 40


def test_doubly_robust_is_the_backward_recursion():
    q = np.random.default_rng(0).standard_normal((3, 3, 2))
    estimate = doubly_robust(DATA, TARGET, BEHAVIOUR, q)
    np.testing.assert_allclose(estimate.terms, by_hand(DATA, TARGET, BEHAVIOUR, "dr", q), rtol=1e-11)


def test_doubly_robust_with_true_values_and_sure_outcomes_has_no_noise():
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 1] = transition[0, 1, 0] = transition[1, 0, 0] = transition[1, 1, 1] = 1.0
    mdp = FiniteHorizonMDP(transition, np.array([[1.0, 2.0], [3.0, 4.0]]), horizon=4)
    target = np.full((2, 2), 0.5)
    data = rollout(mdp, np.array([[0.75, 0.25], [0.5, 0.5]]), 20, rng=0)
    estimate = doubly_robust(data, target, np.array([[0.75, 0.25], [0.5, 0.5]]), evaluate_q(mdp, target))
    np.testing.assert_allclose(estimate.terms, evaluate(mdp, target)[0, 0], rtol=1e-13)


def test_cross_fitted_doubly_robust_uses_the_other_fold_only():
    base = doubly_robust(DATA, TARGET, BEHAVIOUR)
    reward = DATA.reward.copy()
    reward[DATA.trajectory == 4] += 10.0  # fold 0: its own terms move by its weights alone
    moved = Dataset.of_checked([*list(DATA.columns.values())[:4], reward, DATA.next_state], 3, 2, 3)
    changed = doubly_robust(moved, TARGET, BEHAVIOUR)
    same = np.flatnonzero(changed.terms == base.terms)
    others_of_fold_0 = [i for i in range(0, 40, 2) if i != 4]
    assert set(others_of_fold_0) <= set(same)
    steps = [
        np.prod(
            [
                TARGET[h, DATA.state[12 + h], DATA.action[12 + h]]
                / BEHAVIOUR[h, DATA.state[12 + h], DATA.action[12 + h]]
                for h in range(k + 1)
            ]
        )
        for k in range(3)
    ]
    assert changed.terms[4] - base.terms[4] == pytest.approx(10 * sum(steps), rel=1e-9)
    assert not np.array_equal(changed.terms[1::2], base.terms[1::2])


@pytest.mark.parametrize("per_decision", [True, False])
def test_weighted_is_the_ratio_of_sums(per_decision):
    estimate = importance_sampling(DATA, TARGET, BEHAVIOUR, per_decision=per_decision, weighted=True)
    state, action, reward = (c.reshape(40, 3) for c in (DATA.state, DATA.action, DATA.reward))
    weight = np.cumprod(TARGET[np.arange(3), state, action] / BEHAVIOUR[np.arange(3), state, action], axis=1)
    if per_decision:
        wanted = sum(np.average(reward[:, h], weights=weight[:, h]) for h in range(3))
    else:
        wanted = np.average(reward.sum(axis=1), weights=weight[:, -1])
    assert estimate.value == pytest.approx(wanted, rel=1e-12)
    assert not estimate.unbiased
    assert reward.min() * 3 <= estimate.value <= reward.max() * 3


def test_on_policy_all_forms_are_the_mean_return():
    returns = DATA.reward.reshape(40, 3).sum(axis=1)
    for per_decision, weighted in itertools.product([True, False], repeat=2):
        estimate = importance_sampling(DATA, BEHAVIOUR, BEHAVIOUR, per_decision=per_decision, weighted=weighted)
        assert estimate.value == pytest.approx(returns.mean(), rel=1e-12)


def test_rows_in_any_order_and_numbering():
    order = np.random.default_rng(3).permutation(len(DATA))
    columns = [column[order] for column in DATA.columns.values()]
    columns[0] = 7 * columns[0] + 2
    # Where rows of one trajectory happen to stand in order, they still fit: the data set is checked on construction.
    shuffled = Dataset(*columns, n_states=3, n_actions=2, horizon=3)
    a, b = importance_sampling(shuffled, TARGET, BEHAVIOUR), importance_sampling(DATA, TARGET, BEHAVIOUR)
    np.testing.assert_array_equal(a.terms, b.terms)
    assert doubly_robust(shuffled, TARGET, BEHAVIOUR).value == doubly_robust(DATA, TARGET, BEHAVIOUR).value


# ---- marginalised


def test_marginalised_estimate_is_the_value_in_the_empirical_model():
    data = rollout(MDP, BEHAVIOUR, 400, rng=5)
    model = data.empirical_mdp(staged=True)
    value = float(model.initial @ evaluate(model, TARGET)[0])
    assert marginalised_sampling(data, TARGET).value == pytest.approx(value, rel=1e-12)
    weights, uncovered = marginalised_weights(data, TARGET)
    assert uncovered == ()
    by_weights = marginalised_sampling(data, TARGET, weights)
    assert by_weights.value == pytest.approx(value, rel=1e-12)


def test_weights_solve_the_flow_equations_of_the_data():
    data = rollout(MDP, BEHAVIOUR, 400, rng=5)
    weights, _ = marginalised_weights(data, TARGET)
    w = weights[data.step, data.state, data.action]
    for h, t in itertools.product(range(1, 3), range(3)):
        inflow = w[(data.step == h - 1) & (data.next_state == t)].sum()
        outflow = w[(data.step == h) & (data.state == t)].sum()
        assert inflow == pytest.approx(outflow, rel=1e-12)
    for h in range(3):
        assert w[data.step == h].sum() == pytest.approx(400, rel=1e-12)


def test_weights_converge_to_the_ratio_of_occupancies():
    data = rollout(MDP, BEHAVIOUR, 200_000, rng=5)
    ratio = occupancy(MDP, TARGET) / occupancy(MDP, BEHAVIOUR)
    np.testing.assert_allclose(marginalised_weights(data, TARGET)[0], ratio, rtol=0.05)


def test_pooled_counts_need_fewer_data():
    mdp = random_mdp(3, 2, 3, np.random.default_rng(2))
    data = rollout(mdp, BEHAVIOUR, 6, rng=5)
    assert not marginalised_sampling(data, TARGET).covered
    assert marginalised_sampling(data, TARGET, staged=False).covered


# ---- refusals


def test_uncovered_targets_are_refused_by_name():
    behaviour = np.zeros(3, np.int64)
    data = rollout(MDP, behaviour, 30, rng=0)
    for estimate in (
        importance_sampling(data, TARGET, behaviour),
        importance_sampling(data, TARGET, behaviour, weighted=True),
        doubly_robust(data, TARGET, behaviour),
        marginalised_sampling(data, TARGET),
    ):
        assert estimate.value == math.inf and estimate.standard_error == math.inf
        assert (0, 0, 1) in estimate.uncovered
        assert all(a == 1 for _, _, a in estimate.uncovered)
        assert estimate.interval() == (-math.inf, math.inf)
        assert "refused" in repr(estimate) and "(0, 0, 1)" in repr(estimate)


def test_what_the_target_never_meets_need_not_be_covered():
    behaviour = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    target = np.array([0, 1, 1])
    assert importance_sampling(rollout(MDP, behaviour, 30, rng=0), target, behaviour).covered
    # State 2 follows only the action that the target does not play.
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[0, 1, 2] = transition[1, :, 1] = transition[2, :, 2] = 1.0
    mdp = FiniteHorizonMDP(transition, np.ones((3, 2)), horizon=2)
    behaviour = np.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    target = np.array([0, 1, 1])
    data = rollout(mdp, behaviour, 40, rng=0)
    assert (data.state == 2).any()
    assert importance_sampling(data, target, behaviour).covered
    assert importance_sampling(data, np.array([1, 1, 1]), behaviour).uncovered == ((1, 2, 1),)


def test_infinite_weights_are_refused():
    weights = np.ones((3, 3, 2))
    weights[1, 2, 0] = math.inf
    estimate = marginalised_sampling(DATA, TARGET, weights)
    assert estimate.value == math.inf and estimate.uncovered == ((1, 2, 0),)
    weights[1, 2, 0] = math.nan
    with pytest.raises(ValueError, match=r"weights\[1, 2, 0\] is nan"):
        marginalised_sampling(DATA, TARGET, weights)


def test_all_weights_zero_is_no_estimate():
    data = rollout(MDP, np.zeros(3, np.int64), 5, rng=0)
    behaviour = np.array([[0.5, 0.5]] * 3)
    estimate = importance_sampling(data, np.ones(3, np.int64), behaviour, weighted=True)
    assert estimate.value == math.inf and "every weight is 0" in estimate.method


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(target=np.ones((3, 2))), r"target\[0\] sums to 2, not 1"),
        (dict(target=np.array([0, 2, 0])), r"target\[1\] = 2 is not an action"),
        (
            dict(behaviour=np.zeros(3, np.int64)),
            r"trajectory \d+ plays action 1 in state \d at step \d, to which behav",
        ),
        (dict(target=np.zeros(4, np.int64)), r"target has shape \(4,\)"),
    ],
)
def test_policies_that_do_not_fit_are_named(change, message):
    given = dict(target=TARGET, behaviour=BEHAVIOUR) | change
    with pytest.raises(ValueError, match=message):
        importance_sampling(DATA, **given)


def test_incomplete_trajectories_are_named():
    columns = [column[:-1] for column in DATA.columns.values()]
    broken = Dataset(*columns, n_states=3, n_actions=2, horizon=3)
    with pytest.raises(ValueError, match="trajectory 39 has 2 rows, not one for each of 3 steps"):
        importance_sampling(broken, TARGET, BEHAVIOUR)
    columns = [column.copy() for column in DATA.columns.values()]
    columns[1][5] = 1
    columns[2][5] = columns[5][4]
    with pytest.raises(ValueError, match="trajectory 1 has step 1 where step 2 should be"):
        importance_sampling(Dataset(*columns, n_states=3, n_actions=2, horizon=3), TARGET, BEHAVIOUR)
    with pytest.raises(TypeError, match="data must be a Dataset, not a list"):
        importance_sampling([], TARGET, BEHAVIOUR)
    with pytest.raises(ValueError, match="q has shape"):
        doubly_robust(DATA, TARGET, BEHAVIOUR, np.zeros((2, 3, 2)))
    with pytest.raises(ValueError, match="folds = 41 for 40 trajectories"):
        doubly_robust(DATA, TARGET, BEHAVIOUR, folds=41)


def test_intervals():
    estimate = Estimate(1.0, 0.5, "test", True, 10)
    low, high = estimate.interval(0.95)
    assert (low, high) == (pytest.approx(1 - 0.5 * 1.959963984540054), pytest.approx(1 + 0.5 * 1.959963984540054))
    with pytest.raises(ValueError, match="level is 1"):
        estimate.interval(1)
    with pytest.raises(ValueError, match="no standard error"):
        Estimate(1.0, math.nan, "test", True, 10).interval()


# ---- the list of all trajectories


def test_enumeration_is_complete():
    listed = enumerate_trajectories(MDP, BEHAVIOUR)
    assert len(listed.probability) == n_trajectories(MDP, BEHAVIOUR) == 3 * (2 * 3) ** 3
    assert math.fsum(listed.probability) == pytest.approx(1, abs=1e-13)
    seen = listed.data.state.reshape(-1, 3)
    for h, s in itertools.product(range(3), range(3)):
        assert listed.probability[seen[:, h] == s].sum() == pytest.approx(
            occupancy(MDP, BEHAVIOUR)[h, s].sum(), rel=1e-12
        )
    with pytest.raises(ValueError, match="to enumerate"):
        enumerate_trajectories(random_mdp(6, 4, 6, 0), np.full((6, 4), 0.25))


# ---- what no estimate may hide


def test_weights_too_large_for_floating_point_are_refused():
    data = Dataset([0, 0, 1, 1], [0, 1] * 2, [0] * 4, [0, 0, 1, 1], [0.0, 1, 1, 1], [0] * 4, 1, 2, 2)
    target, behaviour = np.array([[1.0, 0.0]]), np.array([[1e-310, 1 - 1e-310]])
    for per_decision in (True, False):
        with pytest.raises(ValueError, match="term 0 of 2 is too large for floating point"):
            importance_sampling(data, target, behaviour, per_decision=per_decision)
        with pytest.raises(ValueError, match="the weights are too large for floating point"):
            importance_sampling(data, target, behaviour, per_decision=per_decision, weighted=True)
    with pytest.raises(ValueError, match="term 0 of 2 is too large"):
        doubly_robust(data, target, behaviour)
    with pytest.raises(ValueError, match="the sum is too large"):
        marginalised_sampling(data, target, np.full((2, 1, 2), 7e307))


def test_one_trajectory_shows_no_spread():
    data = Dataset([0, 0, 1, 1], [0, 1] * 2, [0] * 4, [0, 0, 0, 1], [1.0] * 4, [0] * 4, 1, 2, 2)
    target, behaviour = np.array([[1.0, 0.0]]), np.full((1, 2), 0.5)
    estimate = importance_sampling(data, target, behaviour, weighted=True)
    assert estimate.value == 2.0 and estimate.standard_error == math.inf
    assert estimate.interval() == (-math.inf, math.inf)
    one = Dataset(*[column[:2] for column in data.columns.values()], 1, 2, 2)
    assert marginalised_sampling(one, target).standard_error == math.inf


def test_no_possible_trajectory_has_the_whole_line_for_interval():
    data = Dataset([0, 0], [0, 1], [0, 0], [1, 1], [1.0, 1.0], [0, 0], 1, 2, 2)
    estimate = importance_sampling(data, np.array([0]), np.full((1, 2), 0.5), weighted=True)
    assert estimate.interval() == (-math.inf, math.inf)


def test_values_where_actions_are_forbidden_are_not_read():
    mask = np.array([[True, False], [True, True], [True, True]])
    mdp = FiniteHorizonMDP(MDP.transition, MDP.reward, horizon=3, action_mask=mask)
    behaviour = mask / mask.sum(axis=1, keepdims=True)
    target = np.where(mask, [0.25, 0.75], 0.0)
    target /= target.sum(axis=1, keepdims=True)
    q = evaluate_q(mdp, target)
    assert np.isneginf(q).any()
    data = rollout(mdp, behaviour, 20, rng=0)
    wanted = doubly_robust(data, target, behaviour, np.where(mask, q, 5.0))
    np.testing.assert_array_equal(doubly_robust(data, target, behaviour, q).terms, wanted.terms)
    q = np.where(mask, q, 0.0)
    q[1, 2, 1] = np.nan
    with pytest.raises(ValueError, match=r"q\[1, 2, 1\] is nan, not finite"):
        doubly_robust(data, target, behaviour, q)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_standard_error_knows_that_reward_and_successor_go_together(sign):
    transition = np.array([[[0, 0.5, 0.5]], [[0, 1, 0]], [[0, 0, 1]]], float)
    outcome = np.zeros((3, 1, 3))
    outcome[2, 0, 2], outcome[0, 0, 2] = 1.0, sign
    mdp = FiniteHorizonMDP(transition, outcome_reward=outcome, horizon=4)
    data, only = rollout(mdp, np.zeros(3, int), 300, rng=1), np.zeros(3, int)
    # V(s') is 3 where the reward is sign: the return is 0 or 3 + sign.
    p = data.counts(staged=True).transitions[0, 0, 0, 2] / 300
    wanted = (3 + sign) * math.sqrt(p * (1 - p) / 300)
    assert marginalised_sampling(data, only).standard_error == pytest.approx(wanted, rel=1e-12)


def test_standard_error_of_pooled_rows_moves_all_layers_at_once():
    mdp = FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=10, reward_law="bernoulli")
    data, only = rollout(mdp, np.array([0]), 50, rng=1), np.array([0])
    p = data.reward.mean()
    pooled = marginalised_sampling(data, only, staged=False)
    assert pooled.value == pytest.approx(10 * p, rel=1e-12)
    assert pooled.standard_error == pytest.approx(10 * math.sqrt(p * (1 - p) / 500), rel=1e-12)


def test_standard_error_of_the_start_counts_the_rows_at_step_0():
    state = [0, 1, 0, 1] + [1] * 96
    step = [0] * 4 + [1] * 96
    rewards = [0.0, 1.0, 0.0, 1.0] + [0.0] * 96
    data = Dataset(np.arange(100), step, state, [0] * 100, rewards, [1] * 100, 2, 1, 2)
    assert marginalised_sampling(data, np.array([0, 0])).standard_error == pytest.approx(0.5 / math.sqrt(4), rel=1e-12)


@pytest.mark.parametrize("data", [None, [1, 2]])
def test_what_is_no_data_set(data):
    for estimator in (marginalised_sampling, marginalised_weights):
        with pytest.raises(TypeError, match="data must be a Dataset"):
            estimator(data, TARGET)
    with pytest.raises(TypeError, match="data must be a Dataset"):
        importance_sampling(data, TARGET, BEHAVIOUR)
    with pytest.raises(ValueError, match="target is not a rectangular array"):
        importance_sampling(DATA, [[1], [1, 0]], BEHAVIOUR)
