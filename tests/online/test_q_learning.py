"""What every learner of this family promises the protocol: the same bits twice, no look at the model, exact chances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import OPPO, UCBB, UCBH, EpsilonGreedy, Problem, driver, run
from theoryrl.online.verbs import VISITED, act, chance, observe, plan
from theoryrl.testing import mdps

LEARNERS = [
    UCBH(0.2, scale=0.1),
    UCBB(0.2, scale=0.1),
    EpsilonGreedy(0.3),
    EpsilonGreedy(1.0, decay=0.5),
    OPPO(5, 0.2, scale=0.1),
]


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


@pytest.mark.parametrize("settings", LEARNERS)
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(settings, mdp, seed):
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 4])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = settings.init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 4, True, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("settings", LEARNERS)
@given(mdp=mdps(), seed=st.integers(0, 100))
def test_plan_says_whether_the_policy_changed(settings, mdp, seed):
    state, tables = settings.init(problem_of(mdp)), sampler(mdp)
    rng, own = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)

    def chances():
        return np.array([chance(state, h, s, a) for h, s, a in np.ndindex(shape)]).reshape(shape)

    before, trail = None, np.zeros(shape[:2], np.bool_)
    for episode in range(6):
        changed = plan(state, episode)
        after = chances()
        assert np.abs(after.sum(axis=2) - 1).max() <= 1e-14
        assert (after[:, ~mdp.action_mask] == 0).all() and (after >= 0).all()
        assert changed or episode == 0 or np.array_equal(before, after)
        if changed == VISITED and episode > 0:
            assert np.array_equal(before[~trail], after[~trail])
        before, trail = after, np.zeros(shape[:2], np.bool_)
        s = draw_initial(tables, rng)
        for h in range(mdp.horizon):
            trail[h, s] = True
            a = int(act(state, h, s, own))
            assert after[h, s, a] > 0
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            s = t
        assert state.visits.sum() == (episode + 1) * mdp.horizon


@pytest.mark.parametrize("settings", LEARNERS)
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_regret_is_the_exact_value_lost(settings, mdp, seed):
    result = run(settings, mdp, 4, rng=seed, checkpoints=range(1, 5), keep_states=True)
    optimal = float(mdp.initial @ trl.backward_induction(mdp).value[0])
    scale = mdp.horizon * max(abs(x) for x in mdp.reward_range) + 1
    for episodes in range(1, 5):
        state = run(settings, mdp, episodes, rng=seed, keep_states=True).states[0]
        plan(state, episodes)  # what the next episode plays
        shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
        policy = np.array([chance(state, h, s, a) for h, s, a in np.ndindex(shape)]).reshape(shape)
        lost = optimal - float(mdp.initial @ trl.evaluate(mdp, policy)[0])
        if episodes < 4:
            assert abs(result.episode_regret[0, episodes] - lost) <= 1e-12 * scale


@pytest.mark.parametrize("settings", LEARNERS)
@given(mdp=mdps(masked=False), seed=st.integers(0, 1000))
def test_a_learner_never_sees_what_it_did_not_visit(settings, mdp, seed):
    mdp = mdp.to_dense()
    if mdp.reward_law == "outcome":
        mdp = mdp.with_reward(mdp.reward, reward_range=mdp.reward_range)
    before = run(settings, mdp, 3, rng=seed, keep_states=True)
    visits = before.states[0].visits
    unseen = visits.sum(axis=0) == 0 if mdp.stationary else visits == 0
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
    assert np.array_equal(before.collected, after.collected)
    for one, two in zip(before.states[0], after.states[0], strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("settings", LEARNERS)
def test_names_of_states_do_not_matter(settings):
    rng = np.random.default_rng(3)
    successor, reward = rng.integers(0, 4, size=(4, 3)), rng.random((4, 3))
    order = np.array([2, 0, 3, 1])  # old state s is called order[s]

    def model(names):
        transition, table = np.zeros((4, 3, 4)), np.zeros((4, 3))
        for s, a in np.ndindex(4, 3):
            transition[names[s], a, names[successor[s, a]]] = 1.0
            table[names[s], a] = reward[s, a]
        # Every initial state has one uniform of its own, so the start is fixed; successors are certain.
        return trl.FiniteHorizonMDP(transition, table, horizon=5, initial=int(names[0]), reward_range=(0.0, 1.0))

    one = run(settings, model(np.arange(4)), 60, rng=5, keep_states=True)
    two = run(settings, model(order), 60, rng=5, keep_states=True)
    assert np.allclose(one.regret, two.regret, rtol=0, atol=1e-11)
    assert np.array_equal(one.states[0].visits, two.states[0].visits[:, order])
    assert np.allclose(one.states[0].q, two.states[0].q[:, order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", LEARNERS)
def test_smallest_models(settings):
    single = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=1, reward_law="bernoulli")
    assert np.abs(run(settings, single, 20, rng=0).regret).max() == 0
    # Constant rewards below zero: nothing to learn, nothing to divide by.
    flat = trl.FiniteHorizonMDP(np.full((2, 3, 2), 0.5), np.full((2, 3), -1.1), horizon=3)
    result = run(settings, flat, 20, rng=0, watch=True)
    assert np.abs(result.regret).max() <= 1e-13 and result.least_margin[0] >= -1e-14
