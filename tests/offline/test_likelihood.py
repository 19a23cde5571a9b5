import math

import numpy as np
import pytest

from theoryrl.mdp import FiniteHorizonMDP, backward_induction, random_mdp, rollout, uniform_policy
from theoryrl.offline import maximum_likelihood

RNG = np.random.default_rng(3)


def variant(base, law, seed):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(3), (2, 3, 2))
    if law == "outcome":
        # One table for all: an outcome that does not match rules a model out at once.
        paid = np.random.default_rng(99).random(transition.shape)
        return FiniteHorizonMDP(transition, outcome_reward=paid, horizon=2, reward_range=(0, 1))
    noise = np.full((2, 3, 2), 0.25) if law == "uniform" else None
    reward = 0.25 + 0.5 * base.random((2, 3, 2)) if law == "bernoulli" else np.full((2, 3, 2), 0.5)
    return FiniteHorizonMDP(
        transition, reward, horizon=2, reward_law=law, reward_noise=noise, reward_range=(0, 1), initial=np.ones(3) / 3
    )


@pytest.mark.parametrize("law", ["deterministic", "bernoulli", "uniform", "outcome"])
def test_scores_are_sums_of_logarithms(law):
    models = [variant(np.random.default_rng(i), law, i) for i in range(4)]
    data = rollout(models[2], uniform_policy(models[2]), 50, rng=0)
    found = maximum_likelihood(data, models)
    for i, model in enumerate(models):
        for h in range(2):
            total = 0.0
            for k in np.flatnonzero(data.step == h):
                s, a, t, r = data.state[k], data.action[k], data.next_state[k], data.reward[k]
                total += math.log(model.transition[h, s, a, t])
                if law == "bernoulli":
                    total += math.log(model.reward[h, s, a] if r == 1 else 1 - model.reward[h, s, a])
                if law == "uniform":
                    total += math.log(2.0)  # density 1 / (2 noise)
            assert found.log_likelihood[i, h] == pytest.approx(total, rel=1e-10)
    np.testing.assert_array_equal(found.members, found.log_likelihood.argmax(axis=0))


def test_enough_data_find_the_truth_in_every_layer():
    models = [variant(np.random.default_rng(i), "bernoulli", i) for i in range(4)]
    data = rollout(models[2], uniform_policy(models[2]), 5000, rng=0)
    found = maximum_likelihood(data, models)
    assert found.members.tolist() == [2, 2]
    np.testing.assert_allclose(found.plan.value, backward_induction(models[2]).value, rtol=1e-13)


def test_layers_are_chosen_one_by_one():
    a, b = (variant(np.random.default_rng(i), "bernoulli", i) for i in range(2))
    mixed = FiniteHorizonMDP(
        np.stack([b.transition[0], a.transition[1]]),
        np.stack([b.reward[0], a.reward[1]]),
        horizon=2,
        reward_law="bernoulli",
        initial=a.initial,
    )
    found = maximum_likelihood(rollout(mixed, uniform_policy(mixed), 3000, rng=0), [a, b])
    assert found.members.tolist() == [1, 0]
    np.testing.assert_array_equal(found.model.transition, mixed.transition)
    np.testing.assert_array_equal(found.model.reward, mixed.reward)


def test_what_no_model_allows_is_named():
    mdp = random_mdp(3, 2, 2, RNG)
    shifted = mdp.with_reward(mdp.reward / 2)
    data = rollout(mdp, uniform_policy(mdp), 20, rng=0)
    with pytest.raises(ValueError, match="models\\[0\\]|every model rules out some row of layer 0"):
        maximum_likelihood(data, [shifted])
    found = maximum_likelihood(data, [shifted, mdp])
    assert found.members.tolist() == [1, 1] and np.isneginf(found.log_likelihood[0]).all()
    with pytest.raises(ValueError, match="models is empty"):
        maximum_likelihood(data, [])
    with pytest.raises(ValueError, match=r"models\[1\] has \(H, S, A\) = \(3, 3, 2\)"):
        maximum_likelihood(data, [mdp, mdp.with_horizon(3)])
    with pytest.raises(ValueError, match=r"models\[1\] has another initial"):
        maximum_likelihood(data, [mdp, mdp.with_initial(1)])


def test_a_sure_reward_beats_a_narrow_noise_around_it():
    # The density of +-0.01 is 50; of an event of probability 1 the other model is sure. Its rows are right, too.
    sure = np.array([[[0.9, 0.1]], [[0.1, 0.9]]])
    reward, noise = np.array([[0.5], [0.25]]), np.full((2, 1), 0.01)
    truth = FiniteHorizonMDP(sure, reward, horizon=2, reward_law="uniform", reward_noise=0 * noise, reward_range=(0, 1))
    noisy = FiniteHorizonMDP(
        sure[::-1], reward, horizon=2, reward_law="uniform", reward_noise=noise, reward_range=(0, 1)
    )
    found = maximum_likelihood(rollout(truth, uniform_policy(truth), 200, rng=0), [noisy, truth])
    assert found.members.tolist() == [1, 1] and np.isneginf(found.log_likelihood[0]).all()
    found = maximum_likelihood(rollout(noisy, uniform_policy(noisy), 200, rng=0), [noisy, truth])
    assert found.members.tolist() == [0, 0] and np.isneginf(found.log_likelihood[1]).all()


def test_rounding_at_the_edge_of_uniform_noise_rules_nothing_out():
    # The mean is large beside the noise: draws near the edge are rounded beyond it.
    model = FiniteHorizonMDP(
        np.ones((1, 1, 1)), np.array([[1e3 / 3]]), horizon=1, reward_law="uniform", reward_noise=1e-13
    )
    data = rollout(model, np.array([0]), 2000, rng=0)
    assert (np.abs(data.reward - 1e3 / 3) > 1e-13).any()
    assert maximum_likelihood(data, [model]).members.tolist() == [0]
