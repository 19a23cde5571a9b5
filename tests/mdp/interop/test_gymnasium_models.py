import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.mdp import DiscountedMDP, FiniteHorizonMDP, from_gymnasium, to_gymnasium

MODELS = [
    ("FrozenLake-v1", {}, 37),
    ("FrozenLake-v1", {"is_slippery": False}, 12),
    ("FrozenLake-v1", {"desc": ["SFHS", "FFFF", "HFFG"]}, 25),
    ("FrozenLake-v1", {"reward_schedule": (5, -2, -1)}, 15),
    ("FrozenLake8x8-v1", {}, 120),
    ("CliffWalking-v1", {}, 61),
    ("CliffWalkingSlippery-v1", {}, 30),
    ("Taxi-v4", {}, 50),
    ("Taxi-v4", {"is_rainy": True}, 20),
]


def values_of_table(table, n_states, horizon):
    """Backward induction over the published table itself."""
    v = np.zeros(n_states)
    for _ in range(horizon):
        v = np.array(
            [
                max(sum(p * (r + (0 if done else v[t])) for p, t, r, done in entries) for entries in table[s].values())
                for s in range(n_states)
            ]
        )
    return v


def values_of_model(mdp):
    """Backward induction over a model's arrays."""
    dense = mdp.to_dense()
    transition, reward = dense.transition_layers, dense.reward_layers
    v = np.zeros(mdp.n_states)
    for h in reversed(range(mdp.horizon)):
        q = reward[h % len(reward)] + transition[h % len(transition)] @ v
        v = np.where(mdp.action_mask, q, -np.inf).max(axis=1)
    return v


class Published(gymnasium.Env):
    """An environment that is nothing but its table."""

    def __init__(self, table, start=None, n_actions=2):
        self.P = table
        self.observation_space = gymnasium.spaces.Discrete(len(table))
        self.action_space = gymnasium.spaces.Discrete(n_actions)
        if start is not None:
            self.initial_state_distrib = start


# ---- reading


@pytest.mark.parametrize(("name", "options", "horizon"), MODELS, ids=lambda part: str(part))
def test_values_are_those_of_the_published_table(name, options, horizon):
    mdp = from_gymnasium(name, horizon=horizon, **options)
    core = gymnasium.make(name, **options).unwrapped
    n_states = int(core.observation_space.n)
    want = values_of_table(core.P, n_states, horizon)
    assert np.abs(values_of_model(mdp)[:n_states] - want).max() <= 1e-12 * max(1, np.abs(want).max())
    assert np.array_equal(mdp.initial[:n_states], core.initial_state_distrib)
    assert mdp.name == f"gymnasium:{name}"
    assert mdp.horizon == horizon


def test_frozen_lake_keeps_its_states_and_rewards():
    mdp = from_gymnasium("FrozenLake-v1")
    assert (mdp.n_states, mdp.n_actions, mdp.horizon) == (16, 4, 100)
    assert mdp.reward_law == "outcome"
    assert mdp.reward_range == (0.0, 1.0)
    assert mdp.state_labels[:5] == ("(0,0)", "(0,1)", "(0,2)", "(0,3)", "(1,0)")
    assert mdp.action_labels == ("left", "down", "right", "up")
    assert mdp.outcome_reward[14, 2, 15] == 1
    assert mdp.transition[14, 2, 15] == 1 / 3
    assert mdp.transition[0, 0, 0] == pytest.approx(2 / 3, abs=1e-15)
    assert mdp.transition[0, 0, 4] == pytest.approx(1 / 3, abs=1e-15)
    assert mdp.transition[5, 1, 5] == 1  # a hole is absorbing


def test_an_end_that_is_no_absorbing_state_gets_one():
    mdp = from_gymnasium("CliffWalking-v1", horizon=20)
    assert mdp.n_states == 49
    assert mdp.state_labels[48] == "terminal"
    dense = mdp.to_dense()
    assert dense.transition[35, 2, 48] == 1  # the goal from above
    assert np.array_equal(dense.transition[48, :, 48], np.ones(4))
    assert not dense.reward[48].any()
    assert mdp.initial[36] == 1


def test_taxi_is_sparse_and_has_its_decoded_labels():
    mdp = from_gymnasium("Taxi-v4")
    assert mdp.is_sparse
    assert (mdp.n_states, mdp.horizon, mdp.reward_range) == (501, 200, (-10.0, 20.0))
    assert mdp.action_mask.all()
    assert mdp.state_labels[328] == "(3,1,2,0)"


def test_an_environment_object_is_read_and_left_open():
    env = gymnasium.make("FrozenLake-v1", max_episode_steps=7)
    mdp = from_gymnasium(env)
    assert mdp.horizon == 7
    assert mdp == from_gymnasium("FrozenLake-v1", horizon=7)
    env.reset(seed=0)


def test_done_and_not_done_to_one_state_are_two_outcomes():
    table = {
        0: {0: [(0.5, 1, 3.0, False), (0.25, 1, 5.0, True), (0.25, 1, 3.0, False)], 1: [(1.0, 0, 0.0, False)]},
        1: {0: [(1.0, 0, 2.0, False)], 1: [(1.0, 1, 1.0, False)]},
    }
    mdp = from_gymnasium(Published(table, [1.0, 0.0]), horizon=4)
    assert mdp.n_states == 3
    assert mdp.transition[0, 0].tolist() == [0, 0.75, 0.25]
    assert mdp.outcome_reward[0, 0].tolist() == [0, 3, 5]
    assert values_of_model(mdp)[:2] == pytest.approx(values_of_table(table, 2, 4), abs=1e-14)
    assert mdp.reward_range == (0.0, 5.0)


def test_an_end_that_would_go_on_paying_pays_once():
    table = {0: {0: [(1.0, 1, 1.0, True)]}, 1: {0: [(1.0, 1, 2.0, False)]}}
    mdp = from_gymnasium(Published(table, [1.0, 0.0], n_actions=1), horizon=4)
    assert mdp.n_states == 3
    assert values_of_model(mdp)[:2].tolist() == [1, 8]


def test_different_rewards_to_one_state_keep_their_mean_and_range():
    table = {0: {0: [(0.25, 0, -4.0, False), (0.75, 0, 2.0, False)], 1: [(1.0, 0, 0.0, False)]}}
    mdp = from_gymnasium(Published(table, [1.0]), horizon=3)
    assert mdp.reward[0, 0] == 0.5
    assert mdp.reward_range == (-4.0, 2.0)


def test_missing_actions_are_forbidden():
    table = {0: {0: [(1.0, 1, -1.0, False)], 1: []}, 1: {1: [(1.0, 0, -2.0, False)]}}
    mdp = from_gymnasium(Published(table), horizon=3, initial=1)
    assert mdp.action_mask.tolist() == [[True, False], [False, True]]
    assert values_of_model(mdp).tolist() == [-4, -5]
    assert mdp.initial.tolist() == [0, 1]


# ---- what cannot be read


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("FrozenLak-v1", {}, "did you mean 'FrozenLake-v1'"),
        ("CartPole-v1", {}, "CartPole-v1 has no finite model: its observations are continuous"),
        ("Blackjack-v1", {}, "its observation space is Tuple"),
        ("CliffWalking-v1", {}, "pass horizon="),
        ("Taxi-v4", {"fickle_passenger": True}, "hidden coin"),
        ("FrozenLake-v1", {"colour": 1}, "cannot make 'FrozenLake-v1'"),
        ("FrozenLake-v1", {"desc": ["FF", "FG"]}, r"FrozenLake-v1: initial\[0\] is nan"),
        ("FrozenLake-v1", {"success_rate": 1.5}, r"P\[0\]\[0\]\[0\] has probability -0.25"),
        ("nowhere_at_all:Thing-v0", {}, "cannot make"),
        ("FrozenLake-v1", {"horizon": 0}, "horizon must be at least 1"),
    ],
)
def test_one_line_says_what_is_wrong(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_gymnasium(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({0: {0: [(1.0, 2, 0.0, False)]}}, r"P\[0\]\[0\]\[0\] leads to 2, which is not a state"),
        ({0: {0: [(1.0, 0, float("nan"), False)]}}, "reward nan, not finite"),
        ({0: {0: [(float("nan"), 0, 0.0, False)]}}, "has probability nan"),
        ({0: {0: [(0.9, 0, 0.0, False)]}}, r"transition\[0, 0\] sums to 0.9, not 1"),
        ({0: {0: [(1.0, 0, 0.0)]}}, r"not \(p, s', r, done\)"),
        ({0: {0: [(1.0, 0, [1.0, 2.0], False)]}}, r"not \(p, s', r, done\)"),
        ({0: {0: []}}, r"P\[0\] has no action with entries"),
        ({0: {0: [(0.0, 0, 0.0, False)]}}, r"P\[0\]\[0\] has no entry of positive probability"),
        ({0: {2: [(1.0, 0, 0.0, False)]}}, r"P\[0\] has the key 2"),
        ({1: {0: [(1.0, 0, 0.0, False)]}}, "keys of P are not the states"),
        ({0: 3}, r"P\[0\] is int, not a table"),
        ({0: {"up": [(1.0, 0, 0.0, False)]}}, "not an action number"),
        ({}, "keys of P"),
    ],
)
def test_tables_that_are_no_model(table, message):
    env = Published({0: {}}, [1.0])
    env.P = table
    with pytest.raises(ValueError, match=message):
        from_gymnasium(env, horizon=2)


def test_a_start_must_be_known():
    with pytest.raises(ValueError, match="pass initial="):
        from_gymnasium(Published({0: {0: [(1.0, 0, 0.0, False)]}}), horizon=2)


def test_what_is_no_environment():
    with pytest.raises(TypeError, match="not dict"):
        from_gymnasium({}, horizon=2)
    with pytest.raises(ValueError, match="map_name"):
        from_gymnasium(gymnasium.make("FrozenLake-v1"), map_name="8x8")


def test_nothing_on_stderr():
    calls = ["'Taxi-v4'", "'FrozenLake'", "'CliffWalking-v1', 9", "'FrozenLake-v1', desc=['SFG']"]
    code = "import theoryrl as t;" + ";".join(f"t.from_gymnasium({call})" for call in calls)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


# ---- writing


@st.composite
def models(draw, masks=True):
    """Small random models of every kind: dense or sparse, stationary or not, each reward law, masks."""
    s, a, h = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    staged = draw(st.booleans())
    lead = (h,) if staged else ()
    weights = rng.random((*lead, s, a, s)) * (rng.random((*lead, s, a, s)) < 0.7)
    weights[..., 0] += 0.1
    transition = weights / weights.sum(axis=-1, keepdims=True)
    mask = rng.random((s, a)) < 0.7 if masks else np.ones((s, a), bool)
    mask[:, rng.integers(a)] = True
    law = draw(st.sampled_from(["deterministic", "bernoulli", "uniform", "outcome"]))
    reward = rng.random((*lead, s, a)) * (rng.random((*lead, s, a)) < 0.8)
    kind = {"reward": reward, "reward_law": law}
    if law == "outcome":
        kind = {"outcome_reward": rng.normal(size=transition.shape)}
    mdp = FiniteHorizonMDP(
        transition,
        **kind,
        horizon=h,
        initial=rng.dirichlet(np.ones(s)),
        reward_noise=0.25 if law == "uniform" else None,
        action_mask=mask,
        state_labels=[f"s{i}" for i in range(s)] if draw(st.booleans()) else None,
        name="random model",
    )
    return mdp.to_sparse() if draw(st.booleans()) else mdp


@given(models())
def test_there_and_back(mdp):
    back = from_gymnasium(to_gymnasium(mdp))
    assert back == mdp
    assert back.name == mdp.name
    assert from_gymnasium(to_gymnasium(mdp), horizon=1) == mdp.with_horizon(1)


def test_its_specification_makes_another_one():
    mdp = from_gymnasium("FrozenLake-v1")
    another = gymnasium.make(to_gymnasium(mdp).spec)
    assert another.spec.max_episode_steps == mdp.horizon
    assert from_gymnasium(another) == mdp


@given(models())
def test_the_published_table_alone_has_the_values(mdp):
    env = to_gymnasium(mdp)
    if not mdp.stationary:
        assert not hasattr(env, "P")
        return
    bare = from_gymnasium(Published(env.P, env.initial_state_distrib, mdp.n_actions), horizon=mdp.horizon)
    assert bare.n_states == mdp.n_states
    assert np.array_equal(bare.initial, mdp.initial)
    assert values_of_model(bare) == pytest.approx(values_of_model(mdp), abs=1e-12)
    assert values_of_table(env.P, mdp.n_states, mdp.horizon) == pytest.approx(values_of_model(mdp), abs=1e-12)
    allowed = mdp.action_mask
    assert np.array_equal(bare.to_dense().transition[allowed], mdp.to_dense().transition[allowed])


@given(models())
def test_check_env_has_nothing_to_say(mdp):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(to_gymnasium(mdp))


def test_check_env_on_known_models():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("FrozenLake-v1", "Taxi-v4", "CliffWalking-v1"):
            check_env(to_gymnasium(from_gymnasium(name, horizon=30)))


@given(models(masks=False), st.integers(0, 1000))
def test_an_episode_is_one_of_the_model(mdp, seed):
    env = to_gymnasium(mdp)
    dense = mdp.to_dense()
    state, info = env.reset(seed=seed)
    assert mdp.initial[state] == info["prob"] > 0
    action_rng = np.random.default_rng(seed)
    for h in range(mdp.horizon):
        action = int(action_rng.integers(mdp.n_actions))
        after, reward, terminated, truncated, info = env.step(action)
        row = dense.transition_layers[h % len(dense.transition_layers), state, action]
        assert info["prob"] == row[after] > 0
        assert info["h"] == h + 1
        if mdp.reward_law == "outcome":
            table = dense.outcome_reward if dense.staged_transition else dense.outcome_reward[np.newaxis]
            assert reward == table[h % len(table), state, action, after]
        elif mdp.reward_law == "deterministic":
            assert reward == mdp.reward_layers[h % len(mdp.reward_layers), state, action]
        else:
            assert mdp.reward_range[0] <= reward <= mdp.reward_range[1]
        assert truncated == (h + 1 == mdp.horizon)
        state = after
        if terminated:
            break
    if not terminated:
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)


@pytest.mark.parametrize("law", ["deterministic", "bernoulli", "uniform", "outcome"])
def test_the_law_of_a_step(law):
    rng = np.random.default_rng(5)
    transition = rng.dirichlet(np.ones(3), size=(3, 1))
    reward = {"reward": rng.random((3, 1)) / 2 + 0.25, "reward_law": law}
    if law == "outcome":
        reward = {"outcome_reward": rng.random((3, 1, 3))}
    if law == "uniform":
        reward["reward_noise"] = 0.25
    mdp = FiniteHorizonMDP(transition, **reward, horizon=1, initial=[0.2, 0.5, 0.3])
    env = to_gymnasium(mdp)
    env.reset(seed=1)
    visits, moves, paid = np.zeros(3), np.zeros((3, 3)), np.zeros(3)
    episodes = 20_000
    seen = []
    for _ in range(episodes):
        start, _ = env.reset()
        after, r, *_ = env.step(0)
        visits[start] += 1
        moves[start, after] += 1
        paid[start] += r
        seen.append(r)
    # Five standard deviations of a mean of variables in [0, 1] over at least 3000 episodes.
    bound = 5 * 0.5 / np.sqrt(3000)
    assert np.abs(visits / episodes - mdp.initial).max() <= bound
    assert np.abs(moves / visits[:, None] - transition[:, 0]).max() <= bound
    assert np.abs(paid / visits - mdp.reward[:, 0]).max() <= bound
    assert law != "bernoulli" or set(seen) == {0.0, 1.0}
    assert law != "uniform" or len(set(seen)) > episodes / 2


class Extreme:
    """In place of a generator: the least and the greatest number that `random()` can give."""

    def __init__(self, greatest):
        self.value = 1 - 2.0**-53 if greatest else 0.0

    def random(self):
        return self.value


@pytest.mark.parametrize("scale", [1.0, 1 - 1e-10, 1 + 1e-10])
def test_no_draw_hits_an_outcome_of_probability_zero(scale):
    weights = np.array([0.0, 0.1, 0.0, 0.2, 0.7, 0.0]) * scale
    mdp = FiniteHorizonMDP(np.tile(weights, (6, 1, 1)).reshape(6, 1, 6), np.zeros((6, 1)), horizon=2)
    env = to_gymnasium(mdp)
    for greatest, want in ((False, 1), (True, 4)):
        env.reset(seed=0)
        env._np_random = Extreme(greatest)
        assert env.step(0)[0] == want


def test_entering_an_end_terminates():
    mdp = from_gymnasium("FrozenLake-v1", is_slippery=False)
    env = to_gymnasium(mdp)
    env.reset(seed=0)
    env.step(1)
    state, reward, terminated, truncated, _ = env.step(2)
    assert (state, reward, terminated, truncated) == (5, 0.0, True, False)


def test_an_absorbing_state_that_pays_is_no_end():
    transition = np.zeros((2, 1, 2))
    transition[:, 0, 1] = 1
    for reward, noise in ((1.0, None), (0.0, [[0.0], [0.5]])):
        law = "deterministic" if noise is None else "uniform"
        mdp = FiniteHorizonMDP(transition, [[0.0], [reward]], horizon=3, reward_law=law, reward_noise=noise)
        env = to_gymnasium(mdp)
        env.reset(seed=0)
        assert env.step(0)[2] is False


def test_a_forbidden_action_acts_as_the_first_allowed_one():
    transition = np.zeros((2, 2, 2))
    transition[:, 0, 0] = transition[:, 1, 1] = 1
    mdp = FiniteHorizonMDP(transition, [[5.0, 1.0], [2.0, 3.0]], horizon=2, action_mask=[[False, True], [True, True]])
    env = to_gymnasium(mdp)
    _, info = env.reset(seed=0)
    assert info["action_mask"].tolist() == [0, 1]
    assert env.step(0)[:2] == (1, 1.0)


def test_only_reset_seeds():
    env = to_gymnasium(from_gymnasium("FrozenLake-v1"))

    def episode(seed):
        path = [env.reset(seed=seed)[0]]
        for _ in range(30):
            step = env.step(2)
            path.append(step[0])
            if step[2]:
                break
        return path

    np.random.seed(0)  # noqa: NPY002
    first = episode(3)
    np.random.seed(1)  # noqa: NPY002
    assert episode(3) == first
    assert any(episode(seed) != first for seed in range(4, 9))


def test_errors_of_the_environment():
    env = to_gymnasium(from_gymnasium("FrozenLake-v1"))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="5 is not an action"):
        env.step(5)
    with pytest.raises(ValueError, match="with_horizon"):
        to_gymnasium(DiscountedMDP(np.ones((1, 1, 1)), np.ones((1, 1)), discount=0.5))
