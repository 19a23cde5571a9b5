"""Rollouts, batches and the generative model. Each statistical test has a false-alarm level of at most 1e-6."""

import math

import numpy as np
import pytest
from scipy import stats

from theoryrl.mdp import (
    BatchSimulator,
    DiscountedMDP,
    FiniteHorizonMDP,
    GenerativeModel,
    MixturePolicy,
    evaluate,
    occupancy,
    rollout,
    simulation,
    uniform_policy,
)
from theoryrl.mdp.randomness import streams
from theoryrl.mdp.sampling import sampler

LEVEL = 1e-6


def model(n_states=4, n_actions=3, horizon=5, staged=False, seed=0, **settings):
    rng = np.random.default_rng(seed)
    lead = (horizon,) if staged else ()
    transition = rng.dirichlet(np.full(n_states, 0.5), (*lead, n_states, n_actions))
    transition[..., 0] = 0.0
    transition /= transition.sum(axis=-1, keepdims=True)
    settings.setdefault("initial", np.full(n_states, 1 / n_states))
    settings.setdefault("reward", rng.random((*lead, n_states, n_actions)))
    return FiniteHorizonMDP(transition, horizon=horizon, **settings)


def masked():
    mask = np.ones((4, 3), bool)
    mask[2, 0] = mask[1, 1] = False
    mdp = model()
    transition = mdp.transition.copy()
    transition[~mask] = np.nan
    return FiniteHorizonMDP(transition, mdp.reward, horizon=5, initial=mdp.initial, action_mask=mask)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(simulation, "BLOCK_STEPS", 40)


# ---- rollouts


@pytest.mark.parametrize(
    "policy", [np.array([0, 1, 2, 1]), np.full((5, 4, 3), 1 / 3), MixturePolicy([[0] * 4, [1] * 4])]
)
def test_rollouts_are_the_same_for_any_number_of_workers(policy, small_blocks):
    mdp = model(reward_law="bernoulli")
    one = rollout(mdp, policy, 100, rng=3, jobs=1)
    assert len({tuple(row) for row in one.state.reshape(100, 5)}) > 20
    for jobs in (2, 5, None):
        assert rollout(mdp, policy, 100, rng=3, jobs=jobs) == one
    assert rollout(mdp, policy, 100, rng=4) != one
    assert rollout(mdp, policy, 100, rng=np.random.SeedSequence(3)) == one


def test_more_episodes_begin_with_the_same_ones(small_blocks):
    mdp = model(staged=True)
    long, short = (rollout(mdp, uniform_policy(mdp), n, rng=1) for n in (57, 21))
    for name, column in short.columns.items():
        assert np.array_equal(column, long.columns[name][: len(short)])


def test_compiled_and_plain_rollouts_agree_to_the_bit(plain, monkeypatch, small_blocks):
    cases = [
        (model(reward_law="uniform", reward_noise=0.1), np.array([0, 1, 2, 1])),
        (model(30, staged=True), np.full((30, 3), 1 / 3)),
        (masked().to_sparse(), MixturePolicy([[1, 0, 1, 0], np.full((5, 4, 3), [[0, 0, 1]] * 4)], [0.3, 0.7])),
    ]
    compiled = [rollout(mdp, policy, 30, rng=2) for mdp, policy in cases]
    monkeypatch.setattr(simulation, "kernels", plain)
    assert [rollout(mdp, policy, 30, rng=2) for mdp, policy in cases] == compiled


def test_rows_are_whole_episodes_in_order():
    mdp = model()
    data = rollout(mdp, uniform_policy(mdp), 7, rng=0)
    assert (data.n_states, data.n_actions, data.horizon) == (4, 3, 5)
    assert np.array_equal(data.trajectory, np.repeat(np.arange(7), 5))
    assert np.array_equal(data.step, np.tile(np.arange(5), 7))
    assert np.array_equal(data.next_state.reshape(7, 5)[:, :-1], data.state.reshape(7, 5)[:, 1:])
    assert np.array_equal(data.reward, mdp.reward[data.state, data.action])
    assert not any(column.flags.writeable for column in data.columns.values())


def test_a_deterministic_model_is_followed_exactly():
    transition = np.zeros((2, 3, 2, 3))
    for h in range(2):
        for s in range(3):
            for a in range(2):
                transition[h, s, a, (s + a + h) % 3] = 1
    reward = np.arange(12.0).reshape(2, 3, 2)
    mdp = FiniteHorizonMDP(transition, reward, horizon=2, initial=2)
    data = rollout(mdp, np.array([[0, 0, 1], [1, 0, 0]]), 3)
    assert data.state.tolist() == [2, 0] * 3
    assert data.action.tolist() == [1, 1] * 3
    assert data.reward.tolist() == [5.0, 7.0] * 3
    assert data.next_state.tolist() == [0, 2] * 3


def test_actions_follow_a_stochastic_policy():
    mdp = model(n_actions=3, horizon=2)
    policy = np.array([[[0, 1, 0]] * 4, [[0.25, 0, 0.75]] * 4], float)
    data = rollout(mdp, policy, 20_000, rng=5)
    assert (data.action[data.step == 0] == 1).all()
    later = data.action[data.step == 1]
    assert set(later) == {0, 2}
    assert stats.binomtest(int((later == 0).sum()), 20_000, 0.25).pvalue > LEVEL


def test_many_actions_follow_their_probabilities():
    policy = np.full((2, 40), 1 / 39)
    policy[:, 7] = 0.0
    data = rollout(FiniteHorizonMDP(np.full((2, 40, 2), 0.5), np.zeros((2, 40)), horizon=1), policy, 39_000, rng=1)
    found = np.bincount(data.action, minlength=40)
    assert found[7] == 0
    assert stats.chisquare(np.delete(found, 7)).pvalue > LEVEL


def test_forbidden_actions_are_never_taken():
    mdp = masked()
    data = rollout(mdp, uniform_policy(mdp), 500)
    assert mdp.action_mask[data.state, data.action].all()


def test_states_follow_the_occupancy_measure():
    mdp = model(staged=True)
    policy = np.random.default_rng(2).dirichlet(np.ones(3), (5, 4))
    data = rollout(mdp, policy, 20_000, rng=6)
    expected = 20_000 * occupancy(mdp, policy)
    for h in (1, 4):
        found = data.counts(staged=True).visits[h].reshape(-1)
        possible = expected[h].reshape(-1) > 0
        assert not found[~possible].any()
        assert expected[h].reshape(-1)[possible].min() > 30
        assert stats.chisquare(found[possible], expected[h].reshape(-1)[possible]).pvalue > LEVEL


@pytest.mark.parametrize("law", ["deterministic", "bernoulli"])
def test_mean_return_is_the_value(law):
    mdp = model(reward_law=law)
    data = rollout(mdp, uniform_policy(mdp), 20_000, rng=7)
    returns = data.reward.reshape(-1, 5).sum(axis=1)
    value = mdp.initial @ evaluate(mdp, uniform_policy(mdp))[0]
    assert abs(returns.mean() - value) <= 5 * math.sqrt(math.log(2 / LEVEL) / 40_000)


def test_a_mixture_draws_one_policy_per_episode():
    mdp = model(n_actions=3)
    staged = np.full((5, 4), 1)
    data = rollout(mdp, MixturePolicy([[0] * 4, [2] * 4, staged], [0.3, 0.0, 0.7]), 5000, rng=8)
    played = data.action.reshape(5000, 5)
    assert (played == played[:, :1]).all()
    assert set(played[:, 0]) == {0, 1}
    assert stats.binomtest(int((played[:, 0] == 0).sum()), 5000, 0.3).pvalue > LEVEL


def test_policies_meet_the_same_environment_stream(small_blocks):
    rows = np.random.default_rng(0).dirichlet(np.ones(4), 4)
    mdp = FiniteHorizonMDP(
        np.repeat(rows[:, np.newaxis], 3, axis=1), np.full((4, 3), 0.5), horizon=5, reward_law="bernoulli"
    )
    policies = [np.zeros(4, int), uniform_policy(mdp), MixturePolicy([[1] * 4, uniform_policy(mdp)])]
    first, *others = (rollout(mdp, policy, 40, rng=9) for policy in policies)
    for other in others:
        assert not np.array_equal(first.action, other.action)
        assert np.array_equal(first.next_state, other.next_state)
        assert np.array_equal(first.reward, other.reward)


def test_the_environment_stream_of_a_block_serves_the_environment_alone(plain, small_blocks):
    mdp = model(reward_law="bernoulli")
    data = rollout(mdp, uniform_policy(mdp), 20, rng=9)
    tables, blocks = sampler(mdp), streams(9, 3)
    for episode in range(20):
        environment, _ = blocks[episode // 8]
        rows = data.trajectory == episode
        s = plain.draw_initial(tables, environment)
        assert s == data.state[rows][0]
        for h, a in enumerate(data.action[rows]):
            r, s = plain.draw_step(tables, h, s, a, environment)
            assert (r, s) == (data.reward[rows][h], data.next_state[rows][h])


def test_rollout_says_what_is_wrong():
    mdp = model()
    with pytest.raises(ValueError, match="episodes must be at least 1, not 0"):
        rollout(mdp, [0] * 4, 0)
    with pytest.raises(ValueError, match="jobs must be at least 1"):
        rollout(mdp, [0] * 4, 1, jobs=0)
    with pytest.raises(ValueError, match=r"^policy\[2\] = 3 is not an action"):
        rollout(mdp, [0, 0, 3, 0], 1)
    with pytest.raises(ValueError, match=r"^policies\[1\]: policy\[2\] = 3 is not an action"):
        rollout(mdp, MixturePolicy([[0] * 4, [0, 0, 3, 0]]), 1)
    with pytest.raises(ValueError, match="is a forbidden action"):
        rollout(masked(), [0] * 4, 1)
    with pytest.raises(ValueError, match=r"with_horizon\(H\)"):
        rollout(mdp.with_discount(0.9), [0] * 4, 1)
    with pytest.raises(ValueError, match="rng must be"):
        rollout(mdp, [0] * 4, 1, rng=None)


# ---- batches


def test_a_batch_takes_its_steps_from_one_stream(plain):
    mdp = model(30, staged=True, reward_law="bernoulli")
    batch, rng = BatchSimulator(mdp, 6, rng=3), np.random.default_rng(np.random.PCG64(3))
    states = [plain.draw_initial(batch._sampler, rng) for _ in range(6)]
    assert batch.states.tolist() == states
    for h in range(5):
        actions = (np.arange(6) + h) % 3
        steps = [plain.draw_step(batch._sampler, h, s, a, rng) for s, a in zip(states, actions, strict=True)]
        states = [s for _, s in steps]
        found = batch.step(actions)
        assert found[0].tolist() == states
        assert found[1].tolist() == [r for r, _ in steps]
        assert found[2] is (h == 4)
    with pytest.raises(ValueError, match=r"over after 5 steps: call reset\(\)"):
        batch.step(actions)
    assert batch.reset().tolist() == [plain.draw_initial(batch._sampler, rng) for _ in range(6)]
    assert batch.step_number == 0


def test_bad_actions_are_named_and_draw_nothing():
    batch = BatchSimulator(masked().with_initial(2), 4)
    twin = BatchSimulator(masked().with_initial(2), 4)
    cases = [
        ([1, 1, 3, 7], r"actions\[2\] = 3 is not an action \(0 to 2\)"),
        ([1, -1, 1, 1], r"actions\[1\] = -1 is not an action"),
        ([1, 1, 1, 0], r"actions\[3\] = 0 is forbidden in state 2"),
        ([1, 1, 1], r"actions has shape \(3,\), not \(4,\)"),
        ([1, 1, 0.5, 1], r"actions\[2\] = 0.5 is not an integer"),
    ]
    for actions, message in cases:
        with pytest.raises(ValueError, match=message):
            batch.step(actions)
    assert np.array_equal(batch.step([1] * 4)[0], twin.step([1] * 4)[0])


def test_states_are_copies():
    batch = BatchSimulator(model(), 3)
    batch.states[:] = 99
    batch.reset()[:] = 99
    batch.step([0, 0, 0])[0][:] = 99
    assert batch.states.max() < 4


def test_a_discounted_batch_has_no_end():
    batch = BatchSimulator(model().with_discount(0.9), 2)
    assert not any(batch.step([0, 1])[2] for _ in range(50))


# ---- generative model


def test_samples_come_from_the_pair():
    transition = np.zeros((2, 4, 3, 4))
    transition[0, ..., 1] = transition[1, ..., 2] = 1
    generator = GenerativeModel(FiniteHorizonMDP(transition, np.arange(12.0).reshape(4, 3), horizon=2))
    for h in range(2):
        successors, rewards = generator.sample(2, 1, 5, h=h)
        assert successors.tolist() == [h + 1] * 5
        assert rewards.tolist() == [7.0] * 5


def test_the_generative_model_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"s = 4 is not a state \(0 to 3\)"):
        GenerativeModel(model()).sample(4, 0, 1)
    with pytest.raises(ValueError, match=r"a = 3 is not an action"):
        GenerativeModel(model()).sample(0, 3, 1)
    with pytest.raises(ValueError, match="a = 1 is forbidden in state 1"):
        GenerativeModel(masked()).sample(1, 1, 1)
    with pytest.raises(ValueError, match="which layer h"):
        GenerativeModel(model(staged=True)).sample(0, 0, 1)
    with pytest.raises(ValueError, match=r"h = 5 is not a layer \(0 to 4\)"):
        GenerativeModel(model(staged=True)).sample(0, 0, 1, h=5)
    with pytest.raises(ValueError, match="n must be at least 1"):
        GenerativeModel(model()).counts(0)


@pytest.mark.parametrize("staged", [False, True])
def test_counts_are_multinomial(staged):
    mdp = model(n_states=8, staged=staged, horizon=2)
    counts = GenerativeModel(mdp, rng=1).counts(2000)
    assert counts.shape == mdp.transition.shape
    assert (counts.sum(axis=-1) == 2000).all()
    assert not counts[mdp.transition == 0].any()
    # Bonferroni over the entries of the table, each exactly binomial.
    p_values = [stats.binomtest(int(n), 2000, p).pvalue for n, p in zip(counts.flat, mdp.transition.flat, strict=True)]
    assert min(p_values) > LEVEL / counts.size


def test_counts_of_a_row_depend_on_each_other_as_they_must():
    row = np.array([0.2, 0.5, 0.3])
    mdp = FiniteHorizonMDP(np.tile(row, (3, 3000, 1)), np.zeros((3, 3000)), horizon=1)
    counts = GenerativeModel(mdp, rng=6).counts(2).reshape(-1, 3)
    patterns, found = np.unique(counts, axis=0, return_counts=True)
    assert len(patterns) == 6
    assert stats.chisquare(found, 9000 * stats.multinomial.pmf(patterns, 2, row)).pvalue > LEVEL


def test_counts_of_dense_and_sparse_models_are_the_same():
    mdp = masked()
    dense, sparse = (GenerativeModel(m, rng=2).counts(50) for m in (mdp, mdp.to_sparse()))
    assert not dense[~mdp.action_mask].any()
    assert np.array_equal(dense[mdp.transition != 0], sparse)


def test_counts_of_plain_python_are_the_same(plain, monkeypatch):
    compiled = GenerativeModel(model(), rng=3).counts(1000)
    monkeypatch.setattr(simulation, "kernels", plain)
    assert np.array_equal(GenerativeModel(model(), rng=3).counts(1000), compiled)


def test_rows_that_are_off_by_rounding_are_counted_whole():
    rows = np.array([[[0.3, 0.7 - 9e-10, 0.0]], [[1 + 9e-10, 0.0, 0.0]], [[1e-300, 1.0, 0.0]]])
    counts = GenerativeModel(FiniteHorizonMDP(rows, np.zeros((3, 1)), horizon=1)).counts(10**6)
    assert (counts.sum(axis=-1) == 10**6).all()
    assert not counts[..., 2].any()


@pytest.mark.parametrize("law", ["deterministic", "bernoulli", "uniform", "outcome"])
def test_the_empirical_model_estimates(law):
    mdp = model(horizon=3)
    settings = {"bernoulli": {"reward_law": law}, "uniform": {"reward_law": law, "reward_noise": 0.5}}.get(law, {})
    reward = mdp.reward
    if law == "outcome":
        settings, reward = {"outcome_reward": np.random.default_rng(1).random((4, 3, 4))}, None
    mdp = mdp.with_reward(reward, **settings)
    for source in (mdp, mdp.to_sparse()):
        estimate = GenerativeModel(source, rng=4).empirical_mdp(5000)
        assert estimate.is_sparse == source.is_sparse
        assert (estimate.horizon, estimate.reward_range) == (3, mdp.reward_range)
        # Hoeffding at level 1e-6 over all entries of both tables.
        width = math.sqrt(math.log(2 * 60 / LEVEL) / 10_000)
        assert np.abs(estimate.to_dense().transition - mdp.transition).max() <= width
        assert np.abs(estimate.reward - mdp.reward).max() <= width
        if law == "deterministic":
            assert np.array_equal(estimate.reward, mdp.reward)
        else:
            assert not np.array_equal(estimate.reward, mdp.reward)


def test_the_empirical_model_keeps_mask_and_criterion():
    estimate = GenerativeModel(masked(), rng=0).empirical_mdp(10)
    assert np.array_equal(estimate.action_mask, masked().action_mask)
    discounted = GenerativeModel(model().with_discount(0.9)).empirical_mdp(3)
    assert isinstance(discounted, DiscountedMDP) and discounted.discount == 0.9
    staged = GenerativeModel(model(staged=True)).empirical_mdp(3)
    assert staged.transition.shape == (5, 4, 3, 4)


def test_mean_noise_has_its_variance():
    """The mean of n uniform draws has variance noise^2 / (3 n); its square is compared by Hoeffding over 4096 pairs."""
    mdp = FiniteHorizonMDP(
        np.ones((1, 4096, 1)), np.zeros((1, 4096)), horizon=1, reward_law="uniform", reward_noise=1.0
    )
    squares = GenerativeModel(mdp, rng=5).empirical_mdp(3).reward ** 2
    assert abs(squares.mean() - 1 / 9) <= math.sqrt(math.log(2 / LEVEL) / (2 * 4096))
