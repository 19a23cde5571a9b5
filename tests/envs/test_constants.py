"""The known constants of every family: what its docstring says, against exact planning."""

import numpy as np
import pytest

from theoryrl import backward_induction, envs, evaluate, evaluate_q, uniform_policy


def optimal(mdp):
    return mdp.initial @ backward_induction(mdp).value[0]


def uniform(mdp):
    return mdp.initial @ evaluate(mdp, uniform_policy(mdp))[0]


@pytest.mark.parametrize("n_states", [2, 3, 7])
@pytest.mark.parametrize("horizon", [1, 2, 5, 6, 7, 30])
def test_chain_without_slip(n_states, horizon):
    value = optimal(envs.chain(n_states=n_states, slip=0.0, horizon=horizon))
    assert value == pytest.approx(max(0.05 * horizon, 0.05 + horizon - n_states + 1), abs=1e-12)


def test_chain_slips_the_other_way():
    mdp = envs.chain(n_states=3, slip=0.1, horizon=2)
    expected = [[[0.9, 0.1, 0], [0.1, 0.9, 0]], [[0.9, 0, 0.1], [0.1, 0, 0.9]], [[0, 0.9, 0.1], [0, 0.1, 0.9]]]
    np.testing.assert_allclose(mdp.transition, expected, atol=1e-15)
    assert optimal(envs.chain(n_states=3, slip=1.0, horizon=9)) == optimal(envs.chain(n_states=3, slip=0.0, horizon=9))


@pytest.mark.parametrize("n_states", [2, 5])
@pytest.mark.parametrize("horizon", [1, 4, 5, 6, 20])
def test_strens_chain_without_slip(n_states, horizon):
    value = optimal(envs.strens_chain(n_states=n_states, slip=0.0, horizon=horizon))
    assert value == max(2 * horizon, 10 * (horizon - n_states + 1))


def test_strens_chain_pays_for_the_move_that_was_made():
    mdp = envs.strens_chain()
    np.testing.assert_allclose(mdp.reward[0], [0.2 * 2, 0.8 * 2])
    np.testing.assert_allclose(mdp.reward[4], [0.8 * 10 + 0.2 * 2, 0.2 * 10 + 0.8 * 2])


@pytest.mark.parametrize("n_states", [2, 3, 6])
def test_riverswim_gain(n_states):
    weights = 3.0 ** np.arange(n_states)
    weights[-1] = 3 / 7 * 3.0 ** (n_states - 2)
    gain = weights[-1] / weights.sum()
    value = backward_induction(envs.riverswim(n_states=n_states, horizon=3000)).value
    assert value[0, 0] - value[1, 0] == pytest.approx(gain, abs=1e-10)


def test_riverswim_is_the_model_of_the_paper():
    mdp = envs.riverswim()
    right = [
        [0.7, 0.3, 0, 0, 0, 0],
        [0.1, 0.6, 0.3, 0, 0, 0],
        [0, 0.1, 0.6, 0.3, 0, 0],
        [0, 0, 0.1, 0.6, 0.3, 0],
        [0, 0, 0, 0.1, 0.6, 0.3],
        [0, 0, 0, 0, 0.7, 0.3],
    ]
    np.testing.assert_array_equal(mdp.transition[:, 1], right)
    np.testing.assert_array_equal(mdp.transition[:, 0].argmax(axis=1), [0, 0, 1, 2, 3, 4])
    assert mdp.reward[0, 0] * 10000 == 5 and mdp.reward[5, 1] == 1 and mdp.reward.sum() == 1.0005


@pytest.mark.parametrize("length, horizon, value", [(1, 1, 1), (4, 4, 1), (4, 7, 1), (4, 3, 0)])
@pytest.mark.parametrize("n_observations", [1, 3])
def test_combination_lock(length, horizon, value, n_observations):
    mdp = envs.combination_lock(length=length, n_actions=2, n_observations=n_observations, horizon=horizon, rng=5)
    assert mdp.n_states == (length + 1) * n_observations
    assert optimal(mdp) == pytest.approx(value, abs=1e-12)
    assert uniform(mdp) == pytest.approx(value * 2.0**-length, abs=1e-12)


def test_the_code_of_the_lock_depends_on_the_seed_alone():
    def code(rng):
        mdp = envs.combination_lock(length=8, n_actions=5, rng=rng)
        return [int(np.flatnonzero(mdp.transition[i, :, i + 1])[0]) for i in range(7)]

    assert code(1) == code(1) != code(2)
    assert len(set(code(1))) > 1


@pytest.mark.parametrize("horizon", [1, 2, 10])
@pytest.mark.parametrize("cost", [0.0, 0.01, 1.5])
def test_deep_sea(horizon, cost):
    mdp = envs.deep_sea(cost=cost, horizon=horizon)
    assert mdp.n_states == horizon * (horizon + 1) // 2
    assert optimal(mdp) == pytest.approx(max(0, 1 - cost), abs=1e-12)
    free = envs.deep_sea(cost=0, horizon=horizon)
    assert uniform(free) == 2.0**-horizon


@pytest.mark.parametrize("depth, horizon", [(1, 1), (3, 3), (3, 2), (4, 9)])
@pytest.mark.parametrize("slip", [0.0, 0.25, 0.5])
def test_binary_tree(depth, horizon, slip):
    mdp = envs.binary_tree(depth=depth, slip=slip, horizon=horizon)
    assert optimal(mdp) == pytest.approx((horizon >= depth) * (1 - slip) ** depth, abs=1e-12)
    assert uniform(mdp) == pytest.approx((horizon >= depth) * 2.0**-depth, abs=1e-12)


@pytest.mark.parametrize("delta, epsilon", [(0.1, 0.05), (0.9, 0.1), (1.0, 0.0), (0.5, 0.0)])
@pytest.mark.parametrize("horizon", [1, 2, 50])
def test_jao_two_state(delta, epsilon, horizon):
    mdp = envs.jao_two_state(n_actions=3, delta=delta, epsilon=epsilon, special=2, horizon=horizon)
    p = delta + epsilon
    gain, x = p / (p + delta), 1 - p - delta
    assert optimal(mdp) == pytest.approx(gain * (horizon - (1 - x**horizon) / (1 - x)), abs=1e-12)
    if epsilon and horizon > 1:
        assert (backward_induction(mdp).policy[:-1, 0] == 2).all()


def test_jao_copies():
    mdp = envs.jao_copies(n_states=6, n_actions=3, delta=0.2, epsilon=0.1, special=1 + 3 * 2 + 9 * 0, horizon=7)
    one = envs.jao_two_state(n_actions=3, delta=0.2, epsilon=0.1, horizon=7)
    plan = backward_induction(mdp)
    assert plan.policy[0, ::2].tolist() == [1, 2, 0]
    assert optimal(mdp) == pytest.approx(optimal(one), abs=1e-12)
    assert mdp.initial.tolist() == pytest.approx([1 / 3, 0] * 3)


@pytest.mark.parametrize(
    "n_states, n_actions, depth", [(4, 2, 1), (6, 2, 2), (10, 2, 3), (4, 3, 1), (7, 3, 2), (16, 3, 3)]
)
def test_hard_episodic(n_states, n_actions, depth):
    horizon, waiting, epsilon = 3 * depth + 4, 3, 0.125
    sizes = dict(n_states=n_states, n_actions=n_actions, waiting=waiting, horizon=horizon)
    pays = horizon - waiting - depth
    for wait in range(waiting):
        for leaf in range(n_actions ** (depth - 1)):
            for action in range(n_actions):
                mdp = envs.hard_episodic(**sizes, epsilon=epsilon, wait=wait, leaf=leaf, action=action)
                assert optimal(mdp) == pytest.approx((0.5 + epsilon) * pays, abs=1e-12)
                # Whoever misses the triple, for one by another number of waits, has the value of a fair coin.
                plan = backward_induction(mdp)
                missing = plan.policy.copy()
                missing[wait + depth] = (action + 1) % n_actions
                assert mdp.initial @ evaluate(mdp, missing)[0] == pytest.approx(0.5 * pays, abs=1e-12)
    flat = envs.hard_episodic(**sizes, epsilon=0.0)
    assert optimal(flat) == pytest.approx(uniform(flat), abs=1e-12) == pytest.approx(0.5 * pays, abs=1e-12)


def test_hard_episodic_follows_the_special_path():
    mdp = envs.hard_episodic(n_states=6, waiting=3, wait=2, leaf=1, action=1, horizon=9)
    state, path = 0, []
    policy = backward_induction(mdp).policy
    for h in range(5):
        path.append((mdp.state_labels[state], int(policy[h, state])))
        state = int(mdp.transition[h, state, policy[h, state]].argmax())
    # Action 1 leaves the waiting state at layer W - 1 = 2 as any other would: action 0 is the lowest-numbered.
    assert path == [("wait", 0), ("wait", 0), ("wait", 0), ("node 0", 1), ("leaf 1", 1)]
    assert mdp.state_labels[state] == "good"


def test_inventory_is_the_textbook_example():
    plan = backward_induction(envs.inventory())
    np.testing.assert_array_equal(plan.value[0], np.array([67, 129, 194, 227]) / 16)
    np.testing.assert_array_equal(plan.value[1], [2, 6.25, 10, 10.5])
    np.testing.assert_array_equal(plan.value[2], [0, 5, 6, 5])
    np.testing.assert_array_equal(plan.policy, [[3, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])


def test_inventory_allows_what_fits():
    mdp = envs.inventory(capacity=2, demand=(1.0,))
    assert mdp.action_mask.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    np.testing.assert_array_equal(mdp.transition[mdp.action_mask].argmax(axis=1), [0, 1, 2, 1, 2, 2])


@pytest.mark.parametrize("n_states, horizon", [(2, 1), (2, 5), (5, 3), (5, 20)])
def test_machine_replacement(n_states, horizon):
    assert optimal(envs.machine_replacement(n_states=n_states, cost=0.0, horizon=horizon)) == pytest.approx(horizon)
    kept = envs.machine_replacement(n_states=n_states, wear=1.0, cost=float(horizon), horizon=horizon)
    assert optimal(kept) == pytest.approx(sum(max(0, 1 - h / (n_states - 1)) for h in range(horizon)), abs=1e-12)


@pytest.mark.parametrize("horizon", [1, 4, 9])
def test_queue_admission(horizon):
    free = envs.queue_admission(capacity=horizon, payment=2.0, holding=0.0, horizon=horizon)
    assert optimal(free) == pytest.approx(2.0 * 0.5 * horizon, abs=1e-12)
    dear = envs.queue_admission(capacity=3, payment=2.0, holding=2.0, horizon=horizon)
    assert optimal(dear) == pytest.approx(2.0 * 0.5, abs=1e-12)


def test_queue_admission_moves_by_arrivals_and_services():
    mdp = envs.queue_admission(capacity=2, arrival=0.5, service=0.25, payment=1, holding=0.1)
    np.testing.assert_allclose(mdp.transition[0], [[1, 0, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(mdp.transition[1], [[0.25, 0.75, 0], [0.125, 0.5, 0.375]])
    np.testing.assert_allclose(mdp.transition[2, 0], [0, 0.25, 0.75])
    assert mdp.action_mask.tolist() == [[True, True], [True, True], [True, False]]


@pytest.mark.parametrize("staged", [False, True])
def test_linear_mdp_is_linear_in_its_features(staged):
    linear = envs.linear_mdp(n_states=12, n_actions=3, dimension=4, staged=staged, horizon=3, rng=1)
    for kernel in linear.mdp.transition_layers:
        assert np.linalg.matrix_rank(kernel.reshape(-1, 12)) == 4
    q = evaluate_q(linear.mdp, uniform_policy(linear.mdp))
    features = linear.features.reshape(-1, 4)
    for layer in q:
        fit = features @ np.linalg.lstsq(features, layer.reshape(-1), rcond=None)[0]
        np.testing.assert_allclose(fit, layer.reshape(-1), atol=1e-12)
    expected = np.einsum("sad,dt->sat", linear.features, linear.measures[1] if staged else linear.measures)
    np.testing.assert_allclose(linear.mdp.transition_layers[1 if staged else 0], expected)


def test_garnet_has_its_branching():
    mdp = envs.garnet(n_states=30, n_actions=2, branching=4, rng=3)
    assert ((mdp.transition > 0).sum(axis=-1) == 4).all()
    assert envs.garnet(n_states=30, n_actions=2, branching=4, sparse=True, rng=3) == mdp.to_sparse()
    assert (envs.random_dense(n_states=5, rng=3).transition > 0).all()
