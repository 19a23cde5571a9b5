"""UCBVI's forms: replanning on doubled counts, backups left out, the paper's bonuses; and bugs that peers have had."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import UCBVI, UCBVIRTDP, Problem, driver, run
from theoryrl.online.verbs import act, observe, plan
from theoryrl.testing import mdps

FORMS = [
    UCBVI(0.05, "hoeffding", replan="doubling"),
    UCBVI(0.05, "bernstein", replan="doubling"),
    UCBVI(0.05, "azar-ch", scale=0.01, episodes=6),
    UCBVI(0.05, "azar-bf", scale=0.01, episodes=6),
    UCBVIRTDP(0.05, "hoeffding", scale=0.1),
    UCBVIRTDP(0.05, "bernstein", scale=0.1),
]


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def core_of(state):
    return getattr(state, "core", state)


def flat(state):
    return [
        np.asarray(x) for field in state for x in (field if isinstance(field, tuple) and len(field) > 9 else (field,))
    ]


def bonus_of(settings, mdp, data, values, arrivals, steps):
    """The bonus of a pair after `data`, in the letters of the documentation; `values` are V at what followed."""
    S, A, H, n = mdp.n_states, mdp.n_actions, mdp.horizon, len(data)
    v = sum(values) / n
    spread = sum((x - v) ** 2 for x in values) / n
    if settings.bonus.startswith("azar"):
        L = math.log(5 * S * A * H * settings.episodes / settings.delta)
        if settings.bonus == "azar-ch":
            return settings.scale * 7 * H * L * math.sqrt(1 / n)
        unsure = sum(min(1e4 * H**3 * S**2 * A * L**2 / max(arrivals.get(t, 0), 1e-9), H**2) for _, t in data) / n
        return settings.scale * (math.sqrt(8 * L * spread / n) + 14 * H * L / (3 * n) + math.sqrt(8 * unsure / n))
    log = math.log(2 * (3 if settings.bonus == "hoeffding" else 5) * S * A * H * n * (n + 1) / settings.delta)
    if settings.bonus == "hoeffding":
        return settings.scale * steps * math.sqrt(log / (2 * n))
    rewards = [r for r, _ in data]
    noise = max(sum(x * x for x in rewards) / n - (sum(rewards) / n) ** 2, 0.0)
    return settings.scale * max(
        10 / 3 * math.sqrt(log / n * spread), 35 / 3 * (steps - 1) * log / n
    ) + settings.scale * min(1.0, math.sqrt(4 * noise * log / n) + 14 * log / (3 * n))


def twin(mdp, settings, episodes, seed):
    """All forms with dictionaries: Q before the last episode's data are used, the actions, whether all were clear.

    A choice between values that differ by rounding alone is not clear: sums in another order may choose otherwise.
    """
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    low, high = mdp.reward_range
    width, tables = high - low, sampler(mdp)
    environment = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed).spawn(1)[0].spawn(2)[0]))
    allowed = [[a for a in range(A) if mdp.action_mask[s, a]] for s in range(S)]
    seen: dict = {}
    arrivals: list[dict] = [{} for _ in range(H + 1)]
    Q = {(h, s, a): float(H - h) for h in range(H) for s in range(S) for a in range(A)}
    at_plan: dict = {}
    actions, trail, clear = [], None, True

    def V(h, s):
        return max(Q[h, s, a] for a in allowed[s]) if h < H else 0.0

    def back_up(h, s):
        for a in allowed[s]:
            data = seen.get((0 if mdp.stationary else h, s, a))
            if data:
                values = [V(h + 1, t) for _, t in data]
                mean = sum(r for r, _ in data) / len(data) + sum(values) / len(data)
                Q[h, s, a] = min(Q[h, s, a], mean + bonus_of(settings, mdp, data, values, arrivals[h + 1], H - h))

    for _ in range(episodes):
        if isinstance(settings, UCBVIRTDP):
            for h in reversed(range(H)):
                if trail:
                    back_up(h, trail[h])
        elif settings.replan == "always" or any(len(d) >= 2 * at_plan.get(key, 0) for key, d in seen.items()):
            at_plan = {key: len(d) for key, d in seen.items()}
            for h in reversed(range(H)):
                for s in range(S):
                    back_up(h, s)
        policy = {(h, s): max(allowed[s], key=lambda a, h=h, s=s: Q[h, s, a]) for h in range(H) for s in range(S)}
        s, trail = draw_initial(tables, environment), []
        for h in range(H):
            a = policy[h, s]
            rivals = [b for b in allowed[s] if b != a and abs(Q[h, s, a] - Q[h, s, b]) < 1e-9]
            clear = clear and (not rivals or Q[h, s, a] == H - h)  # at the cap nothing is summed
            reward, t = draw_step(tables, h, s, a, environment)
            key = (0 if mdp.stationary else h, s, a)
            seen.setdefault(key, []).append(((reward - low) / width if width > 0 else 0.0, t))
            arrivals[h + 1][t] = arrivals[h + 1].get(t, 0) + 1
            actions.append(a)
            trail.append(s)
            s = t
    return Q, actions, clear


@pytest.mark.parametrize("settings", FORMS)
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_twin(settings, mdp, seed):
    settings = dataclasses.replace(settings, scale=0.05 if settings.scale == 1 else settings.scale)
    state = core_of(run(settings, mdp, 6, rng=seed, keep_states=True).states[0])
    Q, actions, clear = twin(mdp, settings, 6, seed)
    assume(clear)
    for (h, s, a), q in Q.items():
        if mdp.action_mask[s, a]:
            # The sums of the two are in different orders.
            assert abs(state.q[h, s, a] - q) <= 1e-9
        else:
            assert state.q[h, s, a] == -np.inf
    assert np.array_equal(state.visits.sum(axis=(0, 1)), np.bincount(actions, minlength=mdp.n_actions))


@pytest.mark.parametrize("settings", FORMS)
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(settings, mdp, seed):
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 3])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = settings.init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 3, True, *streams)
        outcomes.append([*flat(state), *(np.asarray(field) for field in record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize(
    "settings", [UCBVI(0.1, scale=0.1), UCBVI(0.1, "bernstein", 0.1), UCBVI(0.1, replan="doubling")]
)
@pytest.mark.parametrize("size", [4, 40])
@given(seed=st.integers(0, 1000), staged=st.booleans())
def test_backups_left_out_change_no_bit(settings, size, seed, staged):
    # 40 states do not fit the 32 bits in which what a backup reads is written: then too much is done, never too little.
    mdp = trl.random_mdp(size, 2, 4, rng=seed, branching=3, staged=staged, reward_law="bernoulli")
    tables, outcomes = sampler(mdp), []
    for thorough in (True, False):
        state, rng = settings.init(problem_of(mdp))._replace(thorough=thorough), np.random.default_rng(seed)
        for episode in range(20):
            outcomes.append((plan(state, episode), state.q.copy(), state.value.copy(), state.policy.copy()))
            s = draw_initial(tables, rng)
            for h in range(mdp.horizon):
                a = int(act(state, h, s, rng))
                reward, t = draw_step(tables, h, s, a, rng)
                observe(state, h, s, a, reward, t)
                s = t
    for one, other in zip(outcomes[:20], outcomes[20:], strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("settings", FORMS)
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_regret_is_that_of_the_policies_played(settings, mdp, seed):
    settings = dataclasses.replace(settings, scale=0.05)
    result = run(settings, mdp, 6, rng=seed, checkpoints=range(1, 7))
    optimal = float(mdp.initial @ trl.backward_induction(mdp).value[0])
    scale = mdp.horizon * max(abs(x) for x in mdp.reward_range) + 1
    for episodes in range(1, 7):
        policy = core_of(run(settings, mdp, episodes, rng=seed, keep_states=True).states[0]).policy
        lost = optimal - float(mdp.initial @ trl.evaluate(mdp, policy)[0])
        assert abs(result.episode_regret[0, episodes - 1] - lost) <= 1e-12 * scale


@pytest.mark.parametrize(
    "settings",
    [
        UCBVI(1e-6, replan="doubling"),
        UCBVI(1e-6, "bernstein", replan="doubling"),
        UCBVI(1e-6, "azar-ch", episodes=30),
        UCBVIRTDP(1e-6),
        UCBVIRTDP(1e-6, "bernstein"),
    ],
)
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_optimism(settings, mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorems.
    result = run(settings, mdp, 30, rng=seed, watch=True)
    assert result.least_margin[0] >= -1e-9 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))
    assert result.provable


@pytest.mark.parametrize("settings", FORMS)
@given(mdp=mdps(masked=False, reward_laws=("deterministic", "bernoulli")), seed=st.integers(0, 1000))
def test_a_learner_never_sees_what_it_did_not_visit(settings, mdp, seed):
    mdp = mdp.to_dense()
    before = run(settings, mdp, 3, rng=seed, keep_states=True)
    unseen = core_of(before.states[0]).visits == 0
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    unseen = np.broadcast_to(unseen, shape)
    transition = np.array(np.broadcast_to(mdp.transition_layers, (*shape, mdp.n_states)))
    reward = np.array(np.broadcast_to(mdp.reward_layers, shape))
    transition[unseen], reward[unseen] = np.eye(mdp.n_states)[0], mdp.reward_range[0]
    if mdp.stationary:
        transition, reward = transition[0], reward[0]
    other = trl.FiniteHorizonMDP(
        transition,
        reward,
        horizon=mdp.horizon,
        initial=mdp.initial,
        reward_law=mdp.reward_law,
        reward_range=mdp.reward_range,
    )
    after = run(settings, other, 3, rng=seed, keep_states=True)
    for one, two in zip(flat(before.states[0]), flat(after.states[0]), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("settings", [*FORMS, UCBVI(), UCBVI(bonus="bernstein")])
def test_values_stay_below_the_steps_to_go(settings):
    # A peer clips the value of every layer at H.
    mdp = trl.envs.make("chain")
    state = core_of(run(settings, mdp, 200, keep_states=True).states[0])
    assert all((state.value[h] <= mdp.horizon - h).all() for h in range(mdp.horizon + 1))


@pytest.mark.parametrize("settings", [UCBVI(), UCBVI(bonus="bernstein"), UCBVI(replan="doubling")])
def test_the_bonus_of_a_pair_is_fresh_at_every_layer(settings):
    # A peer refreshes the bonus of pooled counts only at the layer where the pair was visited.
    mdp = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.zeros((1, 1)), horizon=3, reward_range=(0.0, 1.0))
    state = settings.init(problem_of(mdp))
    for _ in range(1000):
        observe(state, 2, 0, 0, 0.0, 0)
    plan(state, 0)
    unit = 0.0 if settings.bonus == "hoeffding" else state.estimate[0, 0, 0, 4]
    slope = state.estimate[0, 0, 0, 2 if settings.bonus == "hoeffding" else 3]
    one = [unit + slope * (steps if settings.bonus == "hoeffding" else steps - 1) for steps in (1.0, 2.0, 3.0)]
    assert np.allclose(state.value[:3, 0], np.cumsum(one)[::-1], rtol=1e-12, atol=0)
    assert state.value[0, 0] < 1


def test_replanning_waits_until_a_count_has_doubled():
    mdp = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.zeros((1, 1)), horizon=1, reward_range=(0.0, 1.0))
    state, plans = UCBVI(replan="doubling").init(problem_of(mdp)), []
    for episode in range(70):
        plan(state, episode)
        plans.append(int(state.planned[0, 0, 0]))
        observe(state, 0, 0, 0, 0.0, 0)
    assert sorted(set(plans)) == [0, 1, 2, 4, 8, 16, 32, 64]
    assert all(2 * m > n or n == 0 for n, m in enumerate(plans))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UCBVI(replan="never"), "replan must be"),
        (lambda: UCBVI(bonus="azar-ch"), "episodes must be given"),
        (lambda: UCBVI(episodes=10), "episodes must be given"),
        (lambda: UCBVI(bonus="azar-bf", episodes=0), "episodes must be at least 1"),
        (lambda: UCBVIRTDP(bonus="azar-ch"), "bonus must be"),
        (lambda: UCBVIRTDP(delta=1.0), "delta must lie"),
        (lambda: UCBVIRTDP(scale=-1.0), "scale must be"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_proved_and_what_is_not():
    assert not UCBVI(bonus="azar-bf", episodes=5).provable
    assert not UCBVIRTDP(scale=2.0).provable and UCBVIRTDP().provable
