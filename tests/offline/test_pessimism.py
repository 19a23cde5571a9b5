import math

import numpy as np
import pytest

from theoryrl.mdp import Dataset, FiniteHorizonMDP, backward_induction, evaluate, random_mdp, rollout, uniform_policy
from theoryrl.offline import vi_lcb

MDP = random_mdp(3, 2, 3, np.random.default_rng(4), staged=True).with_initial(np.array([0.5, 0.25, 0.25]))
DATA = rollout(MDP, uniform_policy(MDP), 90, rng=1)


def by_hand(data, low, high, delta, split):
    """Rows one by one, as the pseudocode reads."""
    horizon, n_states, n_actions = data.horizon, data.n_states, data.n_actions
    value = [0.0] * n_states
    q = np.zeros((horizon, n_states, n_actions))
    for h in reversed(range(horizon)):
        fresh = []
        for s in range(n_states):
            for a in range(n_actions):
                rows = [
                    i
                    for i in range(len(data))
                    if (data.step[i], data.state[i], data.action[i]) == (h, s, a)
                    and (not split or data.trajectory[i] % horizon == h)
                ]
                q[h, s, a] = (horizon - h) * low
                if rows:
                    mean = sum(data.reward[i] + value[data.next_state[i]] for i in rows) / len(rows)
                    pairs = horizon * n_states * n_actions
                    if split:
                        size = (horizon - h) * math.sqrt(math.log(2 * pairs / delta) / (2 * len(rows)))
                    else:
                        one = math.log(4 * pairs / delta) / (2 * len(rows))
                        size = math.sqrt(one) + (horizon - h - 1) * math.sqrt(
                            one + n_states * math.log(2) / (2 * len(rows))
                        )
                    q[h, s, a] = max(q[h, s, a], mean - (high - low) * size)
            fresh.append(max(q[h, s]))
        value = fresh
    return q


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("limits", [(0.0, 1.0), (-1.0, 2.0)])
def test_vi_lcb_is_its_pseudocode(split, limits):
    found = vi_lcb(DATA, reward_range=limits, delta=0.1, split=split)
    np.testing.assert_allclose(found.q, by_hand(DATA, *limits, 0.1, split), rtol=1e-12)
    np.testing.assert_array_equal(found.policy, found.q.argmax(axis=-1))
    np.testing.assert_array_equal(found.value[:-1], found.q.max(axis=-1))
    assert found.provable and found.visits.sum() == (90 if split else 270)


def test_more_data_come_closer_from_below():
    best = backward_induction(MDP).value[0]
    last = -math.inf
    for n in (300, 30_000, 1_000_000):
        found = vi_lcb(rollout(MDP, uniform_policy(MDP), n, rng=1))
        assert (found.value <= evaluate(MDP, found.policy) + 1e-12).all()
        assert found.value[0, 0] > last
        last = found.value[0, 0]
    assert last > best[0] - 0.1


def test_only_one_good_policy_needs_data():
    plan = backward_induction(MDP)
    data = rollout(MDP, plan.policy, 30_000, rng=0)
    found = vi_lcb(data)
    assert MDP.initial @ evaluate(MDP, found.policy)[0] == pytest.approx(MDP.initial @ plan.value[0], abs=1e-12)
    assert np.isinf(found.penalty[found.visits == 0]).all()


def test_without_penalty_it_is_the_empirical_plan():
    found = vi_lcb(DATA, split=False, scale=0.0)
    np.testing.assert_allclose(found.value, backward_induction(DATA.empirical_mdp(staged=True)).value, rtol=1e-12)
    assert not found.provable and "not provable" in repr(found)


def test_masked_pairs_are_never_played():
    mask = np.array([[True, False], [True, True], [False, True]])
    mdp = FiniteHorizonMDP(MDP.transition, MDP.reward, horizon=3, action_mask=mask)
    found = vi_lcb(rollout(mdp, uniform_policy(mdp), 60, rng=0), action_mask=mask)
    assert np.take_along_axis(mask, found.policy.T, 1).all()
    assert np.isneginf(found.q[:, ~mask]).all()


def test_sure_rewards_of_width_zero():
    mdp = FiniteHorizonMDP(np.ones((1, 2, 1)), np.full((1, 2), 0.5), horizon=2)
    found = vi_lcb(rollout(mdp, np.array([0]), 4, rng=0), reward_range=(0.5, 0.5))
    np.testing.assert_allclose(found.value[:, 0], [1.0, 0.5, 0.0])


def test_bad_calls():
    for settings, message in (
        (dict(delta=0), "delta is 0"),
        (dict(scale=-1), "scale is -1"),
        (dict(scale=math.nan), "scale is nan"),
        (dict(reward_range=(1, 0)), "reward_range is"),
        (dict(reward_range=(0, 0.5)), r"reward\[\d+\] = .* is not in \[0.0, 0.5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            vi_lcb(DATA, **settings)
    zero = np.zeros(1, np.int64)
    single = Dataset(zero, zero + 1, zero, zero, zero, zero, n_states=1, n_actions=1, horizon=2)
    with pytest.raises(ValueError, match="no row is left after splitting"):
        vi_lcb(single)
    assert vi_lcb(single, split=False).visits.sum() == 1
