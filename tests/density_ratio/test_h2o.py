"""H2O: which data the oracle is given, with any oracle, and against Hy-Q and its own pseudocode."""

import numpy as np
import pytest

from theoryrl.classes import TabularClass, complete_class
from theoryrl.density_ratio import h2o, units_of
from theoryrl.density_ratio.oracles import FQI, MABOCR, Choice
from theoryrl.mdp import (
    Dataset,
    FiniteHorizonMDP,
    MixturePolicy,
    backward_induction,
    evaluate,
    occupancy,
    random_mdp,
    rollout,
    uniform_policy,
)
from theoryrl.online import FixedPolicy, HyQ, Problem, run
from theoryrl.online.verbs import plan

MDP = random_mdp(3, 2, 3, 0, staged=True, reward_law="bernoulli")
OFFLINE = rollout(MDP, uniform_policy(MDP), 30, 5)
ROWS = Dataset.COLUMNS[1:]


class Recorder:
    """Any policy will do; what it was given is kept."""

    def __init__(self):
        self.data, self.laws = [], []
        self.rng = np.random.default_rng(0)

    def choose(self, data, law=None):
        self.data.append(data)
        self.laws.append(law)
        return Choice(self.rng.integers(0, 2, (3, 3)), -1, np.zeros(0))


def rows_of(data, h):
    mine = data.step == h
    return np.stack([getattr(data, name)[mine] for name in ROWS[1:]], axis=-1)


def test_the_oracle_is_given_exactly_the_first_offline_tuples_and_all_episodes():
    oracle, law = Recorder(), occupancy(MDP, uniform_policy(MDP))
    result = h2o(oracle, MDP, OFFLINE, 20, 3, offline_law=law)
    assert len(oracle.data) == 19
    played = np.zeros((3, 3, 2))
    for t, (data, mean) in enumerate(zip(oracle.data, oracle.laws, strict=True), 2):
        assert len(data) == 3 * 2 * (t - 1) and (np.bincount(data.step) == 2 * (t - 1)).all()
        played += occupancy(MDP, result.policies[t - 2])
        assert np.allclose(mean, (law + played / (t - 1)) / 2, rtol=1e-13)
        for h in range(3):
            mine = rows_of(data, h)
            # Offline tuple i, then that of episode i: the offline ones are a prefix in their order.
            assert np.array_equal(mine[::2], rows_of(OFFLINE, h)[: t - 1])
            assert np.array_equal(mine[1::2], rows_of(result.data, h)[1 : 2 * t - 2 : 2])
            actions = [0 if i == 0 else result.policies[i][h, int(mine[2 * i + 1, 0])] for i in range(t - 1)]
            assert np.array_equal(mine[1::2, 1], actions)
    assert len(result.data) == 3 * (20 + 19)
    assert np.array_equal(result.data.reward.sum(), result.collected.sum() + OFFLINE.reward[: 19 * 3].sum())


def test_data_come_from_the_streams_of_run():
    policy = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    mine = h2o(lambda data: policy, MDP, OFFLINE, 15, 8, first=policy)
    theirs = run(FixedPolicy(policy), MDP, 15, rng=8, checkpoints=range(1, 16))
    # A deterministic policy draws nothing of its own: the same transitions, the same rewards.
    assert np.array_equal(np.cumsum(mine.collected), theirs.collected[0])
    assert np.allclose(np.cumsum(mine.regret), theirs.regret[0], rtol=1e-12)
    assert mine.risk == pytest.approx(theirs.regret[0, -1] / 15)


def test_without_offline_data_it_is_the_online_loop_of_the_oracle():
    oracle = Recorder()
    result = h2o(oracle, MDP, None, 10, 3, offline_law=occupancy(MDP, uniform_policy(MDP)))
    for t, (data, law) in enumerate(zip(oracle.data, oracle.laws, strict=True), 2):
        assert len(data) == 3 * (t - 1)
        assert np.allclose(law, np.mean([occupancy(MDP, p) for p in result.policies[: t - 1]], axis=0), rtol=1e-13)
    assert len(result.data) == 30
    assert np.array_equal(result.data.trajectory, np.repeat(np.arange(10), 3))


@pytest.mark.parametrize(
    "found",
    [
        np.array([1, 0, 1]),
        np.full((3, 3, 2), 0.5),
        MixturePolicy((np.array([0, 0, 0]), np.array([1, 1, 1])), [0.25, 0.75]),
        MixturePolicy((np.array([0, 0, 0]), np.full((3, 2), 0.5)), [0.0, 1.0]),
    ],
)
def test_any_policy_and_any_mixture_can_be_returned(found):
    result = h2o(lambda data: found, MDP, OFFLINE, 30, 1)
    members = found.policies if isinstance(found, MixturePolicy) else (found,)
    best = float(MDP.initial @ backward_induction(MDP).value[0])
    seen: set[int] = set()
    for policy, regret in zip(result.policies[1:], result.regret[1:], strict=True):
        place = [k for k, member in enumerate(members) if np.array_equal(policy, member)]
        seen |= set(place)
        assert regret == pytest.approx(best - float(MDP.initial @ evaluate(MDP, members[place[0]])[0]))
    weights = getattr(found, "weights", np.ones(1))
    assert seen == set(np.flatnonzero(np.asarray(weights) > 0).tolist())  # 29 draws, chance of a miss 3e-4; seeded
    assert result.risk == pytest.approx(result.regret.mean())
    value = float(MDP.initial @ evaluate(MDP, result.returned)[0])
    assert best - value == pytest.approx(result.risk, rel=1e-9)


def test_a_run_is_reproducible_and_depends_on_its_seed():
    one, two, other = (h2o(lambda data: np.full((3, 2), 0.5), MDP, OFFLINE, 12, seed) for seed in (1, 1, 2))
    assert one.data == two.data and one.data != other.data


def test_h2o_with_fitted_q_iteration_is_hy_q_on_the_data_so_far():
    # Hy-Q itself reuses all offline data from the start; H2O takes them as they come. Given the same data both agree.
    cls, given = complete_class(MDP, 5, 1), []

    def oracle(data):
        given.append(data)
        return FQI(cls).choose(data)

    result = h2o(oracle, MDP, rollout(MDP, uniform_policy(MDP), 60, 2), 60, 4)
    problem = Problem(3, 2, 3, *MDP.reward_range, False, MDP.action_mask)
    for data, policy in zip(given, result.policies[1:], strict=True):
        state = HyQ(data, cls).init(problem)
        plan(state, 0)
        assert np.array_equal(policy, state.greedy[state.chosen[:-1]])
    assert len({policy.tobytes() for policy in result.policies[1:]}) > 1


def certainty_equivalent(data, worst):
    """Backward induction on the empirical model of every layer; pairs without data have the value `worst`."""
    visits, moves = np.zeros((3, 3, 2)), np.zeros((3, 3, 2, 3))
    rewards = np.zeros((3, 3, 2))
    for _, h, s, a, r, s_next in zip(*data.columns.values(), strict=True):
        visits[h, s, a] += 1
        moves[h, s, a, s_next] += 1
        rewards[h, s, a] += r
    q, later = np.full((3, 3, 2), worst), np.zeros(3)
    for h in (2, 1, 0):
        known = visits[h] > 0
        q[h][known] = (rewards[h][known] + moves[h][known] @ later) / visits[h][known]
        later = q[h].max(axis=1)
    return q


def test_mabo_cr_over_all_tables_plays_the_certainty_equivalent_policy_of_the_hybrid_data():
    oracle = MABOCR(TabularClass(3, 2, 3), None, 0.1, units=units_of(MDP))
    given = []

    def ask(data):
        given.append(data)
        return oracle.choose(data)

    result = h2o(ask, MDP, OFFLINE, 25, 6)
    for data, policy, choice in zip(given, result.policies[1:], result.choices[1:], strict=True):
        q = certainty_equivalent(data, 0.0)
        best = q.max(axis=2)
        assert np.allclose(np.take_along_axis(q, policy[..., np.newaxis], axis=2)[..., 0], best, atol=1e-12)
        assert np.allclose(choice.objective, 0.0, atol=1e-12)


def test_a_single_round_asks_nobody():
    result = h2o(lambda data: 1 / 0, MDP, OFFLINE, 1, 0)
    assert result.choices == (None,) and len(result.data) == 3
    mask = np.array([[False, True], [True, True], [True, False]])
    masked = FiniteHorizonMDP(MDP.transition, MDP.reward, horizon=3, action_mask=mask)
    assert np.array_equal(h2o(lambda data: 1 / 0, masked, OFFLINE, 1, 0).policies[0], [1, 0, 0])


def test_what_does_not_fit_is_refused_in_one_line():
    short = rollout(MDP, uniform_policy(MDP), 5, 0)
    for change, message in (
        (dict(offline=short, iterations=7), r"layer 0 has 5 offline rows, fewer than the 6 that 7 iterations take"),
        (dict(iterations=0), "iterations"),
        (dict(oracle=lambda data: np.array([0, 0, 5])), r"round 2: policy\[2\] = 5 is not an action"),
        (dict(offline_law=np.ones((3, 3, 2))), r"offline_law\[0\] is no distribution"),
        (dict(offline_law=np.full((3, 2), 1 / 6)), "offline_law has shape"),
        (dict(offline=rollout(random_mdp(2, 2, 3, 0), np.zeros(2, int), 9, 0)), "offline data are for"),
    ):
        settings = dict(oracle=Recorder(), mdp=MDP, offline=OFFLINE, iterations=5) | change
        with pytest.raises(ValueError, match=message) as caught:
            h2o(**settings)
        assert "\n" not in str(caught.value)
    h2o(Recorder(), MDP, short, 6)  # T - 1 rows are enough
    for oracle in (None, Recorder, 3):
        with pytest.raises(TypeError, match="oracle must be callable"):
            h2o(oracle, MDP, OFFLINE, 5)
    uneven = Dataset(*(column[1:] for column in OFFLINE.columns.values()), n_states=3, n_actions=2, horizon=3)
    with pytest.raises(ValueError, match="layer 0 has 29 offline rows"):
        h2o(Recorder(), MDP, uneven, 31)
