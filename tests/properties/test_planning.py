"""Invariants of exact planning on drawn models of every kind: all storages, masks, ties, zero probabilities."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.mdp import planning
from theoryrl.mdp.model import FiniteHorizonMDP
from theoryrl.mdp.policy import stochastic_layers
from theoryrl.testing import mdps, naive, policies, rewards


def rounding(mdp, scale=1.0):
    """Twice the bound H (S + 8) u H max|r| on what two orders of summation make of one value (rows off 1 by S u)."""
    return 2 * (2 * mdp.n_states + 8) * 2.0**-53 * mdp.horizon**2 * max(1.0, np.abs(mdp.reward).max()) * scale


def close(left, right, mdp, scale=1.0):
    np.testing.assert_allclose(left, right, atol=rounding(mdp, scale), rtol=0)


def row(table, h):
    return table[h % len(table)]


@given(mdps(), st.data())
def test_every_function_agrees_with_its_twin(mdp, data):
    plan = planning.backward_induction(mdp)
    value, _ = naive.backward_induction(mdp)
    close(plan.value, value, mdp)
    policy = data.draw(policies(mdp))
    value = naive.evaluate(mdp, policy)
    close(planning.evaluate(mdp, policy), value, mdp)
    close(planning.evaluate_q(mdp, policy), naive.evaluate_q(mdp, value), mdp)
    close(planning.occupancy(mdp, policy), naive.occupancy(mdp, policy), mdp)


@given(mdps())
def test_a_plan_is_consistent_with_itself(mdp):
    plan = planning.backward_induction(mdp)
    allowed = np.broadcast_to(mdp.action_mask, plan.q.shape)
    assert np.array_equal(plan.value[:-1], plan.q.max(axis=-1))
    assert np.array_equal(plan.policy, plan.q.argmax(axis=-1))
    assert np.array_equal(plan.policy, planning.greedy(plan.q))
    assert np.take_along_axis(allowed, plan.policy[..., np.newaxis], axis=2).all()
    assert not plan.value[-1].any()
    close(plan.q, naive.evaluate_q(mdp, plan.value.tolist()), mdp)
    close(planning.evaluate(mdp, plan.policy), plan.value, mdp)
    kept = planning.optimal_actions(plan)
    assert not (kept & ~allowed).any()
    assert np.take_along_axis(kept, plan.policy[..., np.newaxis], axis=2).all()


@given(mdps(), st.data())
def test_no_policy_beats_the_plan(mdp, data):
    policy = data.draw(policies(mdp))
    optimum = planning.backward_induction(mdp).value
    assert (planning.evaluate(mdp, policy) <= optimum + rounding(mdp)).all()


@given(mdps(), st.data())
def test_occupancy_is_a_flow_and_prices_every_reward(mdp, data):
    policy = data.draw(policies(mdp))
    measure = planning.occupancy(mdp, policy)
    kernel = mdp.to_dense().transition_layers
    assert (measure >= 0).all()
    close(measure.sum(axis=(1, 2)), 1.0, mdp)
    close(measure[0].sum(axis=1), mdp.initial, mdp)
    for h in range(mdp.horizon - 1):
        rows = np.where(mdp.action_mask[..., np.newaxis], row(kernel, h), 0.0)
        close(np.einsum("sa,sat->t", measure[h], rows), measure[h + 1].sum(axis=1), mdp)
    choice = stochastic_layers(policy, mdp)
    close(measure, measure.sum(axis=2, keepdims=True) * choice, mdp)
    other = data.draw(rewards(mdp))
    value = planning.evaluate(mdp.with_reward(other), policy)[0]
    close((measure * other).sum(), mdp.initial @ value, mdp)


@given(mdps(), st.data())
def test_mixtures_weigh_their_parts(mdp, data):
    mixture = data.draw(policies(mdp, "mixture"))
    measure = planning.occupancy(mdp, mixture)
    close((measure * mdp.reward_layers).sum(), mdp.initial @ planning.evaluate(mdp, mixture)[0], mdp)
    found = planning.moments(mdp, mixture)
    close(found.value, planning.evaluate(mdp, mixture), mdp)


@given(mdps(), st.data())
def test_reachability_bounds_every_occupancy(mdp, data):
    reach = planning.reachability(mdp)
    policy = data.draw(policies(mdp))
    assert (planning.occupancy(mdp, policy).sum(axis=2) <= reach + rounding(mdp)).all()
    assert np.array_equal(reach[0], mdp.initial)
    assert (reach.sum(axis=1) >= 1 - rounding(mdp)).all()
    h, s = mdp.horizon - 1, data.draw(st.integers(0, mdp.n_states - 1))
    # Being in s at the last layer, as a reward: its optimal value is the probability.
    target = np.zeros((mdp.horizon, mdp.n_states, mdp.n_actions))
    target[h, s] = 1
    close(planning.backward_induction(mdp.with_reward(target)).initial_value, reach[h, s], mdp)


@given(mdps(), st.data())
def test_variance_is_what_the_second_moment_says(mdp, data):
    policy = data.draw(policies(mdp))
    found = planning.moments(mdp, policy)
    assert (found.variance >= 0).all()
    close(found.value, planning.evaluate(mdp, policy), mdp)
    dense = mdp.to_dense()
    kernel, choice = dense.transition_layers, stochastic_layers(policy, mdp)
    second = np.zeros(mdp.n_states)
    for h in reversed(range(mdp.horizon)):
        mean, mask = row(mdp.reward_layers, h), mdp.action_mask
        rows = np.where(mask[..., np.newaxis], row(kernel, h), 0.0)
        if mdp.reward_law == "outcome":
            gain = row(dense.outcome_reward.reshape(kernel.shape), h)
            own = np.zeros_like(mean)
        else:
            gain = np.broadcast_to(mean[..., np.newaxis], rows.shape)
            own = mean * (1 - mean) if mdp.reward_law == "bernoulli" else np.zeros_like(mean)
            if mdp.reward_law == "uniform":
                own = row(mdp.reward_noise.reshape(mdp.reward_layers.shape), h) ** 2 / 3
        # E[(r + G)^2] with r and G tied through the next state.
        squares = gain**2 + 2 * gain * found.value[h + 1] + second
        second = (row(choice, h) * ((rows * squares).sum(axis=-1) + own)).sum(axis=-1)
        close(found.second[h], second, mdp, 4 * mdp.horizon)


@given(mdps(), st.data())
def test_storage_does_not_matter(mdp, data):
    policy = data.draw(policies(mdp))
    dense, sparse = mdp.to_dense(), mdp.to_sparse()
    close(planning.backward_induction(dense).q, planning.backward_induction(sparse).q, mdp)
    close(planning.reachability(dense), planning.reachability(sparse), mdp)
    for function in (planning.evaluate, planning.evaluate_q, planning.occupancy):
        close(function(dense, policy), function(sparse, policy), mdp)
    close(planning.moments(dense, policy).variance, planning.moments(sparse, policy).variance, mdp, 4 * mdp.horizon)
    one = stochastic_layers(policy, mdp)
    every = np.ascontiguousarray(np.broadcast_to(one, (mdp.horizon, *one.shape[1:])))
    assert np.array_equal(planning.evaluate(mdp, every), planning.evaluate(mdp, one if len(one) > 1 else one[0]))


@given(mdps(), st.data())
def test_renaming_states_and_actions_renames_the_plan(mdp, data):
    states = np.array(data.draw(st.permutations(range(mdp.n_states))))
    actions = np.array(data.draw(st.permutations(range(mdp.n_actions))))
    dense = mdp.to_dense()
    # State i of the new model is state states[i] of the old one.
    renamed = FiniteHorizonMDP(
        dense.transition[..., states, :, :][..., actions, :][..., states],
        mdp.reward[..., states, :][..., actions],
        horizon=mdp.horizon,
        initial=mdp.initial[states],
        action_mask=mdp.action_mask[states][:, actions],
    )
    plan, other = planning.backward_induction(mdp), planning.backward_induction(renamed)
    close(other.q, plan.q[:, states][:, :, actions], mdp)
    close(planning.reachability(renamed), planning.reachability(mdp)[:, states], mdp)


@given(mdps(), st.data())
def test_batches_agree_with_single_solves(mdp, data):
    several = [data.draw(rewards(mdp, staged=False)) for _ in range(data.draw(st.integers(1, 5)))]
    batch = planning.backward_induction_rewards(mdp, np.array(several))
    for k, reward in enumerate(several):
        single = planning.backward_induction(mdp.with_reward(reward))
        close(batch.value[k], single.value, mdp)
        chosen = np.take_along_axis(single.q, batch.policy[k][..., np.newaxis], axis=2)[..., 0]
        close(chosen, single.value[:-1], mdp)


@given(mdps(masked=False, reward_laws=("deterministic",)), st.integers(1, 3))
def test_copies_of_one_model_get_one_plan(mdp, copies):
    rows, reward = mdp.to_dense().transition, mdp.reward
    batch = planning.backward_induction_batch(np.stack([rows] * copies), np.stack([reward] * copies), mdp.horizon)
    for b in range(copies):
        close(batch.value[b], planning.backward_induction(mdp).value, mdp)


@given(mdps(), st.floats(1e-3, 10))
def test_soft_value_lies_between_the_optimum_and_its_entropy(mdp, temperature):
    soft, plan = planning.soft_backward_induction(mdp, temperature), planning.backward_induction(mdp)
    left = np.arange(mdp.horizon, -1, -1)[:, np.newaxis]
    scale = 40 * max(1.0, temperature)
    assert (soft.value >= plan.value - rounding(mdp, scale)).all()
    assert (soft.value <= plan.value + temperature * left * np.log(mdp.n_actions) + rounding(mdp, scale)).all()
    close(soft.policy.sum(axis=-1), 1.0, mdp)
    assert not soft.policy[np.broadcast_to(~mdp.action_mask, soft.policy.shape)].any()
