"""UCBVI against a slow twin written from the page of the proof, and the protocol's promises."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import UCBVI, Problem, Uniform, driver, run
from theoryrl.online.verbs import act, chance, observe, plan, upper_value
from theoryrl.testing import mdps


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def twin(mdp, settings, episodes, seed):
    """UCBVI with dictionaries: the final Q, and every action it took."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    low, high = mdp.reward_range
    width = high - low
    events = 3 if settings.bonus == "hoeffding" else 5
    tables = sampler(mdp)
    environment = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed).spawn(1)[0].spawn(2)[0]))
    seen: dict = {}
    Q = {(h, s, a): float(H - h) for h in range(H) for s in range(S) for a in range(A)}
    actions = []
    for _ in range(episodes):
        V = [[0.0] * S for _ in range(H + 1)]
        policy = {}
        for h in reversed(range(H)):
            for s in range(S):
                allowed = [a for a in range(A) if mdp.action_mask[s, a]]
                for a in allowed:
                    data = seen.get((0 if mdp.stationary else h, s, a))
                    if not data:
                        continue
                    n = len(data)
                    log = math.log(2 * events * S * A * H * n * (n + 1) / settings.delta)
                    rewards, values = [r for r, _ in data], [V[h + 1][t] for _, t in data]
                    r, v = sum(rewards) / n, sum(values) / n
                    if settings.bonus == "hoeffding":
                        bonus = settings.scale * (H - h) * math.sqrt(log / (2 * n))
                    else:
                        spread = sum((x - v) ** 2 for x in values) / n
                        noise = max(sum(x * x for x in rewards) / n - r * r, 0.0)
                        bonus = settings.scale * max(
                            10 / 3 * math.sqrt(log / n * spread), 35 / 3 * (H - h - 1) * log / n
                        ) + settings.scale * min(1.0, math.sqrt(4 * noise * log / n) + 14 * log / (3 * n))
                    Q[h, s, a] = min(Q[h, s, a], r + v + bonus)
                V[h][s] = max(Q[h, s, a] for a in allowed)
                policy[h, s] = next(a for a in allowed if Q[h, s, a] == V[h][s])
        s = draw_initial(tables, environment)
        for h in range(H):
            a = policy[h, s]
            reward, t = draw_step(tables, h, s, a, environment)
            seen.setdefault((0 if mdp.stationary else h, s, a), []).append(
                ((reward - low) / width if width > 0 else 0.0, t)
            )
            actions.append(a)
            s = t
    return Q, actions


@pytest.mark.parametrize("bonus", ["hoeffding", "bernstein"])
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_twin(bonus, mdp, seed):
    settings = UCBVI(0.1, bonus, scale=0.05)
    state = run(settings, mdp, 6, rng=seed, keep_states=True).states[0]
    Q, actions = twin(mdp, settings, 6, seed)
    for (h, s, a), q in Q.items():
        if mdp.action_mask[s, a]:
            # The sums of the two are in different orders.
            assert abs(state.q[h, s, a] - q) <= 1e-9
        else:
            assert state.q[h, s, a] == -np.inf
    assert state.visits.sum() == 6 * mdp.horizon
    counted = np.bincount(actions, minlength=mdp.n_actions)
    assert np.array_equal(state.visits.sum(axis=(0, 1)), counted)


@pytest.mark.parametrize("settings", [UCBVI(0.05), UCBVI(0.05, "bernstein"), Uniform()])
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(settings, mdp, seed):
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 3])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = settings.init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 3, True, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("settings", [UCBVI(0.05), UCBVI(0.05, "bernstein")])
@given(mdp=mdps(masked=False), seed=st.integers(0, 1000))
def test_a_learner_never_sees_what_it_did_not_visit(settings, mdp, seed):
    mdp = mdp.to_dense()
    if mdp.reward_law == "outcome":
        mdp = mdp.with_reward(mdp.reward, reward_range=mdp.reward_range)
    before = run(settings, mdp, 3, rng=seed, keep_states=True)
    unseen = before.states[0].visits == 0
    if mdp.stationary:
        unseen = unseen[0]
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    transition = np.array(np.broadcast_to(mdp.transition_layers, (*shape, mdp.n_states)))
    reward = np.array(np.broadcast_to(mdp.reward_layers, shape))
    transition[np.broadcast_to(unseen, shape)] = np.eye(mdp.n_states)[0]
    reward[np.broadcast_to(unseen, shape)] = mdp.reward_range[0]
    if mdp.stationary:
        transition, reward = transition[0], reward[0]
    noise = None if mdp.reward_noise is None else np.where(unseen, 0.0, mdp.reward_noise)
    other = trl.FiniteHorizonMDP(
        transition,
        reward,
        horizon=mdp.horizon,
        initial=mdp.initial,
        reward_law=mdp.reward_law,
        reward_noise=noise,
        reward_range=mdp.reward_range,
    )
    after = run(settings, other, 3, rng=seed, keep_states=True)
    assert run(settings, other, 3, rng=seed).states == ()
    assert np.array_equal(before.collected, after.collected)
    for one, two in zip(before.states[0], after.states[0], strict=True):
        assert np.array_equal(one, two)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_regret_is_the_exact_value_lost(mdp, seed):
    result = run(UCBVI(0.2, scale=0.1), mdp, 5, rng=seed, checkpoints=range(1, 6))
    optimal = float(mdp.initial @ trl.backward_induction(mdp).value[0])
    scale = mdp.horizon * max(abs(x) for x in mdp.reward_range) + 1
    total = 0.0
    for episodes in range(1, 6):
        policy = run(UCBVI(0.2, scale=0.1), mdp, episodes, rng=seed, keep_states=True).states[0].policy
        lost = optimal - float(mdp.initial @ trl.evaluate(mdp, policy)[0])
        total += lost
        assert abs(result.episode_regret[0, episodes - 1] - lost) <= 1e-12 * scale
        assert abs(result.regret[0, episodes - 1] - total) <= 1e-11 * scale


@given(mdp=mdps())
def test_uniform_regret_is_that_of_the_uniform_policy(mdp):
    result = run(Uniform(), mdp, 4, rng=1)
    optimal = float(mdp.initial @ trl.backward_induction(mdp).value[0])
    lost = optimal - float(mdp.initial @ trl.evaluate(mdp, trl.uniform_policy(mdp))[0])
    scale = mdp.horizon * max(abs(x) for x in mdp.reward_range) + 1
    assert abs(result.regret[0, -1] - 4 * lost) <= 1e-11 * scale


@pytest.mark.parametrize("bonus", ["hoeffding", "bernstein"])
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_optimism(bonus, mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    result = run(UCBVI(1e-6, bonus), mdp, 30, rng=seed, watch=True)
    assert result.least_margin[0] >= -1e-9 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_values_stay_within_what_can_be_collected(mdp, seed):
    state = run(UCBVI(0.05), mdp, 10, rng=seed, keep_states=True).states[0]
    for h in range(mdp.horizon + 1):
        assert (state.value[h] <= mdp.horizon - h).all()
        assert (state.value[h] >= 0).all()


@given(mdp=mdps(), seed=st.integers(0, 100))
def test_plan_says_whether_the_policy_changed(mdp, seed):
    state = UCBVI(0.2, scale=0.05).init(problem_of(mdp))
    tables, rng = sampler(mdp), np.random.default_rng(seed)

    def chances():
        shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
        return np.array([chance(state, h, s, a) for h, s, a in np.ndindex(shape)]).reshape(shape)

    for episode in range(6):
        before = chances()
        changed = plan(state, episode)
        after = chances()
        assert (after.sum(axis=2) == 1).all()
        assert changed == (not np.array_equal(before, after))
        s = draw_initial(tables, rng)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            assert after[h, s, a] == 1
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            s = t


def test_results_do_not_depend_on_workers_or_on_the_number_of_seeds():
    mdp = trl.random_mdp(4, 2, 6, rng=0, reward_law="bernoulli")
    whole = run(UCBVI(), mdp, 40, seeds=5, rng=7, jobs=1)
    for other in (run(UCBVI(), mdp, 40, seeds=5, rng=7, jobs=3), run(UCBVI(), mdp, 40, seeds=3, rng=7, jobs=2)):
        rows = len(other.regret)
        assert np.array_equal(whole.regret[:rows], other.regret)
        assert np.array_equal(whole.collected[:rows], other.collected)
    assert not np.array_equal(whole.collected[0], whole.collected[1])


def test_two_learners_meet_the_same_environment_stream():
    # Bernoulli rewards on one state and one action: what is received depends on the environment's stream alone.
    mdp = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=3, reward_law="bernoulli")
    assert np.array_equal(run(UCBVI(), mdp, 50, rng=3).collected, run(Uniform(), mdp, 50, rng=3).collected)


class Stubborn(NamedTuple):
    """A learner of a user's own: always the last action."""

    last: np.ndarray


class StubbornSettings:
    provable = False

    def init(self, problem):
        return Stubborn(np.array([problem.n_actions - 1]))


@plan.implement(Stubborn)
def _(learner, episode):
    return False


@act.implement(Stubborn)
def _(learner, h, s, rng):
    return learner.last[0]


@observe.implement(Stubborn)
def _(learner, h, s, a, reward, s_next):
    pass


@chance.implement(Stubborn)
def _(learner, h, s, a):
    return 1.0 if a == learner.last[0] else 0.0


@upper_value.implement(Stubborn)
def _(learner, h, s):
    return math.inf


def test_a_learner_from_outside_the_package():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    result = run(StubbornSettings(), mdp, 10, seeds=2)
    policy = np.full(3, 1)
    lost = float(mdp.initial @ (trl.backward_induction(mdp).value[0] - trl.evaluate(mdp, policy)[0]))
    assert np.allclose(result.regret[:, -1], 10 * lost, rtol=0, atol=1e-12)
    assert result.provable is False


def test_scaled_bonus_is_not_provable():
    assert UCBVI().provable and not UCBVI(scale=0.5).provable


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UCBVI(delta=0.0), "delta must lie in"),
        (lambda: UCBVI(delta=float("nan")), "delta must lie in"),
        (lambda: UCBVI(bonus="chernoff"), "bonus must be"),
        (lambda: UCBVI(scale=float("nan")), "scale must be"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_runs():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    for keywords, message in [
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"episodes": 2.5}, "episodes must be an integer"),
        ({"episodes": 5, "seeds": 0}, "seeds must be at least 1"),
        ({"episodes": 5, "checkpoints": [3, 3]}, "checkpoints must increase"),
        ({"episodes": 5, "checkpoints": [6]}, "at most 5"),
        ({"episodes": 5, "rng": -1}, "rng must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(UCBVI(), mdp, **keywords)
    with pytest.raises(TypeError, match="settings object"):
        run(UCBVI, mdp, 5)
    with pytest.raises(TypeError, match="FiniteHorizonMDP"):
        run(UCBVI(), mdp.with_discount(0.9), 5)


def test_frame_is_tidy():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    result = run(UCBVI(), mdp, 20, seeds=2, checkpoints=[5, 20])
    frame = result.to_frame()
    assert list(frame.columns) == ["learner", "model", "seed", "episode", "metric", "value"]
    row = frame[(frame.seed == 1) & (frame.episode == 20) & (frame.metric == "regret")]
    assert row.value.item() == result.regret[1, 1]


class Doubtful(NamedTuple):
    """A learner whose upper values are NaN in one place and fine elsewhere."""

    action: np.ndarray


class DoubtfulSettings:
    provable = False

    def init(self, problem):
        return Doubtful(np.zeros(1, np.int64))


@plan.implement(Doubtful)
def _(learner, episode):
    return False


@act.implement(Doubtful)
def _(learner, h, s, rng):
    return learner.action[0]


@observe.implement(Doubtful)
def _(learner, h, s, a, reward, s_next):
    pass


@chance.implement(Doubtful)
def _(learner, h, s, a):
    return 1.0 if a == 0 else 0.0


@upper_value.implement(Doubtful)
def _(learner, h, s):
    return math.nan if s == 1 else 1e9


def test_a_nan_among_the_upper_values_is_not_forgotten():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    assert np.isnan(run(DoubtfulSettings(), mdp, 2, watch=True).least_margin[0])
