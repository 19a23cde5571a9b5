"""R-max against a slow twin written from the page of the proof, its bounds against the page's formulas by hand."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import Problem, RMax, driver, rmax_mistake_bound, rmax_regret_bound, rmax_visits, run
from theoryrl.online._theorems_rmax import THEOREMS, accuracy_for, mistakes_protocol, regret_settings, settings_for
from theoryrl.online.bounds import min_episodes
from theoryrl.online.bounds.rmax import rmax_allowance
from theoryrl.online.verbs import act, chance, observe, plan, upper_value
from theoryrl.testing import mdps


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def twin(mdp, m, episodes, seed):
    """R-max with lists, planned from nothing before every episode: the last Q, and the sequence of actions."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    low, high = mdp.reward_range
    tables = sampler(mdp)
    environment = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed).spawn(1)[0].spawn(2)[0]))
    seen: dict = {}
    actions = []
    for _ in range(episodes):
        V, Q, policy = [[0.0] * S for _ in range(H + 1)], {}, {}
        for h in reversed(range(H)):
            for s in range(S):
                allowed = [a for a in range(A) if mdp.action_mask[s, a]]
                for a in allowed:
                    data = seen.get((0 if mdp.stationary else h, s, a), [])[:m]
                    Q[h, s, a] = float(H - h)
                    if len(data) == m:
                        Q[h, s, a] = min(Q[h, s, a], sum(r + V[h + 1][t] for r, t in data) / m)
                V[h][s] = max(Q[h, s, a] for a in allowed)
                # Ties in the last bits would go another way in another order of summation.
                policy[h, s] = next(a for a in allowed if Q[h, s, a] >= V[h][s] - 1e-12)
        s = draw_initial(tables, environment)
        for h in range(H):
            a = policy[h, s]
            reward, t = draw_step(tables, h, s, a, environment)
            unit = (reward - low) / (high - low) if high > low else 0.0
            seen.setdefault((0 if mdp.stationary else h, s, a), []).append((unit, t))
            actions.append(a)
            s = t
    return Q, actions, seen


@given(
    mdp=mdps(reward_laws=("deterministic", "bernoulli", "outcome")),
    m=st.sampled_from((1, 2, 4)),
    seed=st.integers(0, 1000),
)
def test_twin(mdp, m, seed):
    # Rewards on a grid of quarters and m a power of two: no rounding but in the probabilities of the draws.
    if mdp.outcome_reward is None:
        mdp = mdp.with_reward(np.round(mdp.reward * 4) / 4, reward_law=mdp.reward_law, reward_range=(0, 1))
    else:
        mdp = mdp.with_reward(outcome_reward=np.round(mdp.outcome_reward * 4) / 4, reward_range=(0, 1))
    episodes = 12
    state = run(RMax(0.5, visits=m), mdp, episodes, rng=seed, keep_states=True).states[0]
    Q, actions, seen = twin(mdp, m, episodes, seed)
    for (h, s, a), q in Q.items():
        assert abs(state.q[h, s, a] - q) <= 1e-12 if mdp.action_mask[s, a] else state.q[h, s, a] == -np.inf
    assert (state.q[:, ~mdp.action_mask] == -np.inf).all()
    for (g, s, a), data in seen.items():
        assert state.visits[g, s, a] == min(m, len(data))
        assert state.successor_count[g, s, a].sum() == min(m, len(data))
    assert state.visits.sum() == sum(min(m, len(data)) for data in seen.values())
    assert len(actions) == episodes * mdp.horizon


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(mdp, seed):
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 5])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = RMax(0.5, visits=2).init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 5, True, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@given(mdp=mdps(masked=False), seed=st.integers(0, 1000))
def test_a_learner_never_sees_what_it_did_not_visit(mdp, seed):
    mdp = mdp.to_dense()
    if mdp.reward_law == "outcome":
        mdp = mdp.with_reward(mdp.reward, reward_range=mdp.reward_range)
    settings = RMax(0.5, visits=1)
    before = run(settings, mdp, 3, rng=seed, keep_states=True)
    unseen = before.states[0].visits == 0
    unseen = unseen[0] if mdp.stationary else unseen
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    transition = np.array(np.broadcast_to(mdp.transition_layers, (*shape, mdp.n_states)))
    reward = np.array(np.broadcast_to(mdp.reward_layers, shape))
    transition[np.broadcast_to(unseen, shape)] = np.eye(mdp.n_states)[0]
    reward[np.broadcast_to(unseen, shape)] = mdp.reward_range[0]
    if mdp.stationary:
        transition, reward = transition[0], reward[0]
    other = trl.FiniteHorizonMDP(
        transition,
        reward,
        horizon=mdp.horizon,
        initial=mdp.initial,
        reward_law=mdp.reward_law,
        reward_noise=None if mdp.reward_noise is None else np.where(unseen, 0.0, mdp.reward_noise),
        reward_range=mdp.reward_range,
    )
    after = run(settings, other, 3, rng=seed, keep_states=True)
    assert np.array_equal(before.collected, after.collected)
    for one, two in zip(before.states[0], after.states[0], strict=True):
        assert np.array_equal(one, two)


@given(mdp=mdps(), seed=st.integers(0, 100))
def test_plan_says_whether_the_policy_changed_and_skipped_plans_change_nothing(mdp, seed):
    state = RMax(0.5, visits=2).init(problem_of(mdp))
    tables, rng = sampler(mdp), np.random.default_rng(seed)

    def chances():
        shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
        return np.array([chance(state, h, s, a) for h, s, a in np.ndindex(shape)]).reshape(shape)

    for episode in range(8):
        before = chances()
        changed = plan(state, episode)
        after = chances()
        assert changed == (not np.array_equal(before, after))
        kept = [np.copy(field) for field in (state.q, state.value, state.policy)]
        state.stale[0] = True
        assert not plan(state, episode)
        for field, copy in zip((state.q, state.value, state.policy), kept, strict=True):
            assert np.array_equal(field, copy)
        s = draw_initial(tables, rng)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            assert after[h, s, a] == 1
            assert mdp.action_mask[s, a]
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            s = t


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_optimism_while_nothing_is_known_and_after(mdp, seed):
    scale = 1 + mdp.horizon * max(abs(x) for x in mdp.reward_range)
    assert run(RMax(0.5), mdp, 5, rng=seed, watch=True).least_margin[0] >= -1e-9 * scale
    # epsilon so large that few visits make a pair known; a false alarm has probability below 1e-6, by the theorem.
    width = mdp.reward_range[1] - mdp.reward_range[0]
    settings = RMax(max(width, 0.1) * 60 * mdp.horizon, 1e-6)
    result = run(settings, mdp, 60, rng=seed, watch=True, keep_states=True)
    assert result.least_margin[0] >= -1e-9 * scale


def test_upper_value_is_the_value_with_its_allowance():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    state = RMax(1.0).init(problem_of(mdp))
    assert [upper_value(state, h, 0) for h in range(5)] == [4, 3, 2, 1, 0]
    state.value[:] = 0
    log = math.log(3 * 3 * 2 * 4 / 0.05)
    for h in range(4):
        steps = 4 - h
        expected = steps * (steps + 1) / 2 * math.sqrt(log / (2 * state.known_after))
        assert upper_value(state, h, 1) == pytest.approx(expected, rel=1e-14)


def test_degenerate_models():
    one = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=1, reward_range=(0.5, 0.5))
    result = run(RMax(0.1), one, 4, watch=True, keep_states=True)
    assert np.array_equal(result.regret, np.zeros_like(result.regret))
    assert result.least_margin[0] == 0
    assert result.states[0].known_after == 1


def test_once_known_the_best_arm_is_played():
    arms = trl.FiniteHorizonMDP(np.ones((1, 3, 1)), np.array([[0.2, 0.9, 0.4]]), horizon=1)
    result = run(RMax(0.5, visits=3), arms, 20, checkpoints=range(1, 21))
    # Three visits each in turn, then the best.
    assert np.allclose(result.episode_regret[0, :9], [0.7] * 3 + [0.0] * 3 + [0.5] * 3)
    assert (result.episode_regret[0, 9:] == 0).all()


def relabelled(mdp, order):
    """The model whose state i is state order[i]."""
    transition = mdp.transition[..., order, :, :][..., order]
    return trl.FiniteHorizonMDP(transition, mdp.reward[order], horizon=mdp.horizon, initial=mdp.initial[order])


def test_permuting_states_permutes_the_plan():
    mdp = trl.random_mdp(4, 2, 4, 3, branching=1)  # deterministic: the streams do not matter
    order = np.array([2, 0, 3, 1])
    mine = run(RMax(0.5, visits=2), mdp, 60, keep_states=True)
    other = run(RMax(0.5, visits=2), relabelled(mdp, order), 60, keep_states=True)
    assert np.array_equal(mine.states[0].visits[:, order], other.states[0].visits)
    assert np.allclose(mine.states[0].value[:, order], other.states[0].value, atol=1e-12)
    assert np.allclose(mine.regret, other.regret, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RMax(0.0), "epsilon must be positive"),
        (lambda: RMax(float("nan")), "epsilon must be positive"),
        (lambda: RMax(0.1, delta=1.0), "delta must lie in"),
        (lambda: RMax(0.1, visits=0), "visits must be at least 1"),
        (lambda: rmax_visits(0.1, n_states=0, n_actions=1, horizon=1, delta=0.1), "n_states must be at least 1"),
        (lambda: rmax_visits(-1.0, n_states=1, n_actions=1, horizon=1, delta=0.1), "epsilon must be positive"),
        (lambda: rmax_visits(1e-300, n_states=1, n_actions=1, horizon=1, delta=0.1), "epsilon = 1e-300 is too small"),
        (lambda: rmax_visits(5e-324, n_states=1, n_actions=1, horizon=1, delta=0.1), "epsilon = 5e-324 is too small"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("settings", [RMax(1e-12), RMax(0.1, visits=10**30)])
def test_more_visits_than_a_counter_holds_are_never_reached(settings):
    result = run(settings, trl.random_mdp(3, 2, 3, 1), 20, watch=True, keep_states=True)
    state = result.states[0]
    assert result.least_margin[0] >= 0 and (state.value[:-1] == np.arange(3, 0, -1)[:, np.newaxis]).all()
    assert state.visits.sum() == 60 and not state.policy.any()


def test_a_number_of_visits_of_ones_own_is_not_provable():
    assert RMax(0.1).provable and not RMax(0.1, visits=10**9).provable


@pytest.mark.parametrize("width", [1e300, 1e-9, 1e-200, 1e-323])
def test_the_accuracy_that_is_verified_goes_with_the_unit_of_reward(width):
    unit, other = (
        trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.zeros((1, 1)), horizon=2, reward_range=(0.0, high))
        for high in (1.0, width)
    )
    for choose in (settings_for, regret_settings):
        mine, others = choose(unit, 10**4).epsilon, choose(other, 10**4).epsilon
        assert others == pytest.approx(mine * width, rel=0.011, abs=1e-323)


# ---- bounds


def test_bounds_by_hand():
    sizes = dict(n_states=2, n_actions=3, horizon=4, delta=0.1)
    log = math.log(3 * 24 / 0.1)
    roots = math.sqrt(log) + math.sqrt(log + 2 * math.log(2))
    m = rmax_visits(0.5, **sizes)
    assert m == math.ceil(9 * 16 * 25 * roots**2 / (32 * 0.25))
    assert rmax_visits(1.5, reward_width=3.0, **sizes) == m
    # The purpose of m: the model's part of the loss is at most two thirds of epsilon, and not with one visit less.
    parts = [(4 - h) * (math.sqrt(log / 2) + math.sqrt((log + 2 * math.log(2)) / 2)) for h in range(4)]
    assert sum(parts) / math.sqrt(m) <= 2 / 3 * 0.5 < sum(parts) / math.sqrt(m - 1)
    for stationary, weight in ((True, m * 6 * 4), (False, m * 6 * 10)):
        x = math.sqrt(2 * 4 * math.log(30) / weight)
        escapes = (x * weight + 4 * math.log(30)) / (1 - math.exp(-x))
        assert rmax_mistake_bound(0.5, stationary=stationary, **sizes) == pytest.approx(6 * escapes, rel=1e-9)
        regret = rmax_regret_bound([10, 10**9], epsilon=0.5, stationary=stationary, **sizes)
        assert regret == pytest.approx([40, 1e9 / 3 + escapes], rel=1e-9)
        # x is a good choice: no other one on a grid gains more than half a percent.
        others = [(y * weight + 4 * math.log(30)) / (1 - math.exp(-y)) for y in x * np.geomspace(0.1, 10, 50)]
        assert escapes <= 1.005 * min(others)
    assert rmax_mistake_bound(4.0, **sizes) == 0
    assert rmax_visits(0.5, reward_width=0.0, **sizes) == 1


def test_the_allowance_adds_up_the_widths_of_the_layers():
    sizes = dict(n_states=2, n_actions=3, horizon=4, delta=0.1)
    one = math.sqrt(math.log(720) / 200)
    assert rmax_allowance(1, 100, **sizes) == pytest.approx((3 + 2 + 1) * one)


def test_a_number_of_episodes_for_an_average_loss():
    sizes = dict(n_states=1, n_actions=2, horizon=1, delta=0.05)
    bound = functools.partial(rmax_regret_bound, epsilon=0.15)
    enough = min_episodes(bound, 0.15, **sizes)
    assert bound(enough, **sizes) <= 0.15 * enough
    assert bound(enough - 1, **sizes) > 0.15 * (enough - 1)


# ---- theorems


def test_chosen_accuracies_are_informative_on_the_default_model():
    bandit = THEOREMS[1].default_model()
    epsilon = accuracy_for(bandit, 20_000)
    sizes = dict(n_states=1, n_actions=2, horizon=1, delta=0.05)
    assert epsilon < 0.25  # what the wrong arm loses
    assert rmax_mistake_bound(epsilon, **sizes) <= 10_000
    assert rmax_mistake_bound(epsilon / 1.02, **sizes) > 10_000
    best = regret_settings(bandit, 20_000).epsilon
    bound = rmax_regret_bound(20_000, epsilon=best, **sizes)
    assert all(bound <= rmax_regret_bound(20_000, epsilon=best * f, **sizes) for f in (0.5, 0.9, 1.1, 2.0))


def test_mistakes_are_counted_over_every_episode():
    bandit = THEOREMS[1].default_model()
    seen = mistakes_protocol(
        bandit,
        rng=np.random.SeedSequence(0),
        runs=3,
        jobs=1,
        progress=None,
        learner=RMax(0.2, visits=7),
        episodes=20_000,
    )
    # Arm 0 until it is known, then arm 1 until it is known, then the better one: 7 mistakes, or all from then on.
    assert set(seen.observed.tolist()) <= {7.0, 20_000.0 - 7}


@pytest.mark.slow
@pytest.mark.parametrize("key", [theorem.key for theorem in THEOREMS])
def test_theorems_come_out_as_expected(key):
    for seed in range(3):
        report = trl.verify(key, rng=seed)
        assert report.as_expected, report.note
        assert "nothing could have failed" not in report.note


@pytest.mark.slow
@pytest.mark.parametrize("staged", [False, True])
def test_mistakes_stay_below_the_bound_where_pairs_become_known(staged):
    mdp = trl.random_mdp(2, 2, 2, 1, staged=staged, reward_law="bernoulli").with_initial([0.5, 0.5])
    settings = RMax(0.6)
    result = run(settings, mdp, 40_000, seeds=10, checkpoints=range(1, 40_001), keep_states=True)
    assert all((state.visits == state.known_after).all() for state in result.states)
    bound = rmax_mistake_bound(0.6, n_states=2, n_actions=2, horizon=2, delta=0.05, stationary=mdp.stationary)
    assert ((result.episode_regret > 0.6).sum(axis=1) <= bound).all()
    # Once all is known the plan is within epsilon for ever.
    assert (result.episode_regret[:, -1] <= 0.6).all()


def test_proofs_are_where_the_entries_say():
    page = (Path(__file__).resolve().parents[2] / "docs" / "theory" / "rmax.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
    for theorem in THEOREMS:
        assert theorem.proof.anchor.split("#")[1] in anchors
        assert f"`{theorem.key}`" in page
