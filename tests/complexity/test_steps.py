"""Gaps, one-step variances and ranks against hand-made numbers and plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.classes import FiniteClass
from theoryrl.complexity import bellman_rank, occupancy_rank, suboptimality_gaps, variances

seeds = st.integers(0, 2**32 - 1)


def masked(seed, staged=False, horizon=3, **kwargs):
    rng = np.random.default_rng(seed)
    mdp = trl.random_mdp(4, 3, horizon, rng, staged=staged, **kwargs)
    mask = rng.random((4, 3)) < 0.6
    mask[np.arange(4), rng.integers(0, 3, 4)] = True
    return trl.FiniteHorizonMDP(
        np.where(mask[:, :, np.newaxis], mdp.transition, np.nan), mdp.reward, horizon=horizon, action_mask=mask
    )


# ---- gaps


def test_gaps_by_hand():
    # State 0: action 0 pays 1, action 1 leads to state 1, which pays 0.25 or 0.75; state 2 is never reached.
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 1] = transition[2, :, 2] = 1.0
    reward = np.array([[1.0, 0.0], [0.25, 0.75], [0.0, 0.125]])
    gaps = suboptimality_gaps(trl.FiniteHorizonMDP(transition, reward, horizon=2))
    assert gaps.gap.tolist() == [[[0, 1.25], [0.5, 0], [0.125, 0]], [[0, 1.0], [0.5, 0], [0.125, 0]]]
    # Reached: (0, 0) at both layers, (1, 1).
    assert gaps.minimal == 0.5 and gaps.where == (1, 1, 0)
    assert (gaps.n_suboptimal, gaps.n_optimal) == (3, 3)
    assert gaps.inverse_sum == 1 / 1.25 + 1 + 2 and gaps.inverse_square_sum == 1 / 1.25**2 + 1 + 4
    assert gaps.gap_complexity == 4 * gaps.inverse_sum


def test_ties_and_masks():
    transition = np.full((2, 3, 2), 0.5)
    reward = np.array([[0.1 + 0.2, 0.3, 5.0], [0.0, 0.0, 0.0]])
    mask = np.array([[True, True, False], [True, True, True]])
    mdp = trl.FiniteHorizonMDP(transition, reward, horizon=3, action_mask=mask)
    gaps = suboptimality_gaps(mdp)
    assert gaps.n_suboptimal == 0 and gaps.minimal == np.inf and gaps.where is None and gaps.gap_complexity == 0
    assert (gaps.gap[:, 0, 2] == np.inf).all() and (gaps.gap[:, mask] == 0).all()
    assert gaps.n_optimal == 2 + 2 * 5


@given(seeds, st.booleans())
def test_gaps_decompose_regret(seed, staged):
    mdp = masked(seed, staged)
    gaps = suboptimality_gaps(mdp)
    policy = np.array(
        [[np.random.default_rng(seed + h).choice(np.flatnonzero(row)) for row in mdp.action_mask] for h in range(3)]
    )
    flow = trl.occupancy(mdp, policy)
    regret = trl.backward_induction(mdp).initial_value - mdp.initial @ trl.evaluate(mdp, policy)[0]
    assert (flow * np.where(np.isinf(gaps.gap), 0, gaps.gap)).sum() == pytest.approx(regret, abs=1e-12)
    assert suboptimality_gaps(mdp.to_sparse()).gap_complexity == pytest.approx(gaps.gap_complexity, rel=1e-9)


# ---- variances


def loops(mdp):
    """Var R and Var V* by their definitions."""
    plan = trl.backward_induction(mdp)
    noise, spread = np.zeros(plan.q.shape), np.zeros(plan.q.shape)
    for h, s, a in np.ndindex(plan.q.shape):
        if mdp.action_mask[s, a]:
            row = mdp.transition_layers[h % len(mdp.transition_layers)][s, a]
            ahead = plan.value[h + 1]
            spread[h, s, a] = row @ (ahead - row @ ahead) ** 2
            mean = mdp.reward_layers[h % len(mdp.reward_layers)][s, a]
            if mdp.reward_law == "bernoulli":
                noise[h, s, a] = mean * (1 - mean)
            elif mdp.reward_law == "uniform":
                noise[h, s, a] = mdp.reward_noise[..., s, a].flat[0] ** 2 / 3
            elif mdp.reward_law == "outcome":
                given_reward = mdp.outcome_reward[s, a] if mdp.outcome_reward.ndim == 3 else mdp.outcome_reward[h, s, a]
                noise[h, s, a] = row @ (given_reward - mean) ** 2
    return noise, spread


@given(seeds, st.booleans(), st.sampled_from(["deterministic", "bernoulli", "uniform", "outcome"]))
def test_variances_are_their_definitions(seed, staged, law):
    mdp = masked(seed, staged)
    if law == "outcome":
        table = np.nan_to_num(mdp.transition)
        mdp = trl.FiniteHorizonMDP(
            table,
            outcome_reward=np.random.default_rng(seed).random(table.shape),
            horizon=3,
            action_mask=mdp.action_mask,
        )
    elif law != "deterministic":
        mdp = mdp.with_reward(mdp.reward, reward_law=law, **({"reward_noise": 0.3} if law == "uniform" else {}))
    mdp = mdp.with_initial(np.random.default_rng(seed).dirichlet(np.ones(4)))
    noise, spread = loops(mdp)
    for model in (mdp, mdp.to_sparse()):
        found = variances(model)
        assert found.reward == pytest.approx(noise, abs=1e-14) and found.value == pytest.approx(spread, abs=1e-14)
        assert found.environmental_norm == pytest.approx(np.sqrt(spread.max()), abs=1e-12)
        assert found.conditional_variance == pytest.approx((noise + spread).max(), abs=1e-13)
        assert (noise + spread)[found.where] == pytest.approx(found.conditional_variance, abs=1e-13)
    plan = trl.backward_induction(mdp)
    assert found.value_span == pytest.approx(np.ptp(plan.value[:-1], axis=1), abs=1e-13)
    if law != "outcome":
        # The law of total variance: the variances met along the way, and that of the start.
        total = (trl.occupancy(mdp, plan.policy) * (noise + spread)).sum()
        start = mdp.initial @ (plan.value[0] - plan.initial_value) ** 2
        assert found.return_variance == pytest.approx(total + start, rel=1e-10)


def test_a_deterministic_model_has_no_variance():
    found = variances(trl.envs.make("combination_lock"))
    assert found.environmental_norm == found.conditional_variance == found.return_variance == 0
    assert found.value_span.max() == 1


# ---- ranks


def test_rank_of_a_low_rank_model():
    for dimension in (2, 4):
        mdp = trl.envs.make("linear_mdp", dimension=dimension)
        rank = occupancy_rank(mdp)
        assert rank.per_layer[0] == 1 and rank.value == dimension
        assert (rank.per_layer <= dimension).all()


@given(seeds, st.booleans())
def test_rank_of_all_policies_is_that_of_many(seed, staged):
    mdp = masked(seed, staged, branching=2)
    rng = np.random.default_rng(seed)
    weights = rng.random((60, 3, 4, 3)) ** 4 * mdp.action_mask
    policies = list(weights / weights.sum(axis=-1, keepdims=True))
    for of in ("states", "pairs"):
        everything = occupancy_rank(mdp, of=of)
        assert everything.per_layer.tolist() == occupancy_rank(mdp, policies, of=of).per_layer.tolist()
        assert occupancy_rank(mdp.to_sparse(), of=of).per_layer.tolist() == everything.per_layer.tolist()
    reached = (trl.reachability(mdp) > 0).sum(axis=1)
    assert (occupancy_rank(mdp).per_layer <= reached).all()
    assert occupancy_rank(mdp, policies[0]).per_layer.tolist() == [1, 1, 1]


@given(seeds)
def test_bellman_rank_is_the_rank_of_its_matrix(seed):
    mdp = masked(seed)
    rng = np.random.default_rng(seed)
    mix = rng.random((6, 2)) @ rng.random((2, 36))
    members = np.concatenate([mix.reshape(6, 3, 4, 3), trl.backward_induction(mdp).q[np.newaxis]])
    members = np.where(mdp.action_mask, members, 0.5)
    cls = FiniteClass(members)
    policies = cls.greedy(mdp.action_mask)
    values = cls.state_values(mdp.action_mask)
    transition = np.nan_to_num(mdp.transition)
    for kind in ("q", "v"):
        found = bellman_rank(mdp, cls, kind=kind)
        for h in range(3):
            matrix = np.zeros((7, 7))
            for i, j in np.ndindex(7, 7):
                flow = trl.occupancy(mdp, policies[i])[h]
                error = members[j, h] - mdp.reward - transition @ values[j, h + 1]
                if kind == "q":
                    matrix[i, j] = (flow * np.where(mdp.action_mask, error, 0)).sum()
                else:
                    matrix[i, j] = sum(flow[s].sum() * error[s, policies[j, h, s]] for s in range(4))
            sizes = np.linalg.svd(matrix, compute_uv=False)
            assert found.singular_values[h] == pytest.approx(sizes, abs=1e-12)
            assert found.per_layer[h] == (sizes > 1e-12).sum()
        assert bellman_rank(mdp.to_sparse(), members, kind=kind).per_layer.tolist() == found.per_layer.tolist()
    # V-type errors of any class factor through the state occupancies.
    assert (bellman_rank(mdp, cls, kind="v").per_layer <= occupancy_rank(mdp).per_layer).all()
    assert (bellman_rank(mdp, cls).per_layer <= occupancy_rank(mdp, of="pairs").per_layer).all()


def test_the_optimal_function_alone_has_rank_zero():
    mdp = trl.random_mdp(5, 3, 4, 0)
    rank = bellman_rank(mdp, trl.backward_induction(mdp).q[np.newaxis])
    assert rank.value == 0 and (rank.singular_values[0] <= rank.tolerance[0]).all()


def test_rank_arguments():
    mdp = trl.random_mdp(3, 2, 2, 0)
    with pytest.raises(ValueError, match=r"values has shape \(2, 3, 2\), not \(nF, 2, 3, 2\)"):
        bellman_rank(mdp, np.zeros((2, 3, 2)))
    with pytest.raises(ValueError, match=r"values\[0, 1, 0, 0\] is nan"):
        bellman_rank(mdp, np.where(np.arange(12).reshape(1, 2, 3, 2) == 6, np.nan, 0.0))
    with pytest.raises(ValueError, match="kind"):
        bellman_rank(mdp, np.zeros((1, 2, 3, 2)), kind="w")
    with pytest.raises(ValueError, match="of must be"):
        occupancy_rank(mdp, of="layers")
