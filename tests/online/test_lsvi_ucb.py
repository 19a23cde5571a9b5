"""LSVI-UCB against a twin that replays every transition through numpy's solver, and what its page promises."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.envs.linear import linear_mdp
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import LSVIUCB, Problem, driver, lsvi_ucb_regret_bound, run
from theoryrl.online.lsvi_ucb import _rank_one
from theoryrl.online.verbs import act, observe, plan
from theoryrl.testing import mdps
from theoryrl.theory import get, verify


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def one_hot(mdp):
    pairs = mdp.n_states * mdp.n_actions
    return np.eye(pairs).reshape(mdp.n_states, mdp.n_actions, pairs)


def random_features(mdp, d, seed):
    phi = np.random.default_rng(seed).normal(size=(mdp.n_states, mdp.n_actions, d))
    return phi / np.maximum(1.0, np.linalg.norm(phi, axis=2, keepdims=True))


def replayed(mdp, settings, data):
    """(Q, log dets) from raw transitions: data[h] is a list of (s, a, unit reward, s')."""
    S, H, d = mdp.n_states, mdp.horizon, settings.features.shape[2]
    V = np.zeros((H + 1, S))
    Q = np.full((H, S, mdp.n_actions), -np.inf)
    logs = np.zeros(H)
    for h in reversed(range(H)):
        phi = np.array([settings.features[s, a] for s, a, _, _ in data[h]]).reshape(-1, d)
        target = np.array([r + V[h + 1, t] for _, _, r, t in data[h]])
        gram = np.eye(d) + phi.T @ phi
        logs[h] = np.linalg.slogdet(gram)[1]
        w = np.linalg.solve(gram, phi.T @ target)
        union = S * math.log(2) if h < H - 1 else 0
        beta = (H - h) * (0.5 * math.sqrt(2 * union + 2 * math.log(2 * H / settings.delta) + logs[h]) + math.sqrt(d))
        for s in range(S):
            for a in np.flatnonzero(mdp.action_mask[s]):
                x = settings.features[s, a]
                width = math.sqrt(x @ np.linalg.solve(gram, x))
                Q[h, s, a] = min(H - h, max(0.0, x @ w + settings.scale * beta * width))
            V[h, s] = Q[h, s].max()
    return Q, V, logs


@pytest.mark.parametrize("replan", ["always", "doubling"])
@given(mdp=mdps(), seed=st.integers(0, 1000), d=st.sampled_from([0, 1, 3]))
def test_twin(replan, mdp, seed, d):
    features = random_features(mdp, d, seed) if d else one_hot(mdp)
    settings = LSVIUCB(features, 0.1, replan, scale=0.1, check=False)
    state, tables, rng = settings.init(problem_of(mdp)), sampler(mdp), np.random.default_rng(seed)
    low, high = mdp.reward_range
    data = [[] for _ in range(mdp.horizon)]
    planned = None
    for episode in range(9):
        before = state.policy.copy()
        changed = plan(state, episode)
        assert changed == (not np.array_equal(before, state.policy))
        Q, V, logs = replayed(mdp, settings, data)
        if replan == "always" or planned is None or (logs > planned + math.log(2) + 1e-9).any():
            planned = logs
            assert np.allclose(state.value, V, rtol=0, atol=1e-9)
            assert np.allclose(state.planned_log_det, logs, rtol=0, atol=1e-9)
            for h, s in np.ndindex(state.policy.shape):
                assert Q[h, s, state.policy[h, s]] >= Q[h, s].max() - 1e-9
        elif (logs < planned + math.log(2) - 1e-9).all():
            assert not changed
        else:
            planned = state.planned_log_det.copy()  # on the edge: rounding decides
        s = draw_initial(tables, rng)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            assert mdp.action_mask[s, a]
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            data[h].append((s, a, (reward - low) / (high - low) if high > low else 0.0, t))
            s = t
    assert np.allclose(state.inverse, np.linalg.inv(state.gram), rtol=0, atol=1e-10)


@pytest.mark.parametrize("replan", ["always", "doubling"])
@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(replan, mdp, seed):
    settings = LSVIUCB(one_hot(mdp), replan=replan)
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 3])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = settings.init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 3, True, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_optimism(mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    result = run(LSVIUCB(one_hot(mdp), 1e-6), mdp, 20, rng=seed, watch=True)
    assert result.least_margin[0] >= -1e-9 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))


@given(mdp=mdps(max_states=3, max_actions=2, masked=False, reward_laws=("deterministic",)), seed=st.integers(0, 1000))
def test_a_learner_never_sees_what_it_did_not_visit(mdp, seed):
    mdp = mdp.to_dense()
    settings = LSVIUCB(one_hot(mdp))
    before = run(settings, mdp, 3, rng=seed, keep_states=True)
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    # One-hot features: the diagonal of Lambda counts the visits.
    visits = np.diagonal(before.states[0].gram, axis1=1, axis2=2).reshape(shape) - 1
    unseen = (visits.sum(axis=0) == 0) if mdp.stationary else visits == 0
    transition, reward = np.array(mdp.transition), np.array(mdp.reward)
    lead = transition.shape[:-1]
    transition[np.broadcast_to(unseen if unseen.ndim <= len(lead) else unseen.all(axis=0), lead)] = np.eye(shape[1])[0]
    reward[np.broadcast_to(unseen if unseen.ndim <= reward.ndim else unseen.all(axis=0), reward.shape)] = (
        mdp.reward_range[0]
    )
    other = trl.FiniteHorizonMDP(
        transition,
        reward,
        horizon=mdp.horizon,
        initial=mdp.initial,
        reward_range=mdp.reward_range,
    )
    after = run(settings, other, 3, rng=seed, keep_states=True)
    for one, two in zip(before.states[0], after.states[0], strict=True):
        assert np.array_equal(one, two)


def test_rotated_features_give_the_same_learner():
    env = linear_mdp(n_states=5, n_actions=3, dimension=4, horizon=3, rng=2)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    one = run(LSVIUCB(env.features, scale=0.3, check=False), env.mdp, 200, rng=1, keep_states=True)
    two = run(LSVIUCB(env.features @ rotation, scale=0.3, check=False), env.mdp, 200, rng=1, keep_states=True)
    assert np.allclose(one.states[0].value, two.states[0].value, rtol=0, atol=1e-9)
    assert np.allclose(one.states[0].log_det, two.states[0].log_det, rtol=0, atol=1e-9)


def test_doubling_plans_rarely_and_as_often_as_the_page_says():
    env = linear_mdp(n_states=4, n_actions=2, dimension=3, horizon=3, rng=4)
    settings = LSVIUCB(env.features, replan="doubling")
    state, tables, rng = settings.init(problem_of(env.mdp)), sampler(env.mdp), np.random.default_rng(0)
    plans, episodes = 0, 400
    for episode in range(episodes):
        before = state.planned_log_det.copy()
        plan(state, episode)
        plans += not np.array_equal(before, state.planned_log_det)
        s = draw_initial(tables, rng)
        for h in range(3):
            a = int(act(state, h, s, rng))
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            s = t
    assert 3 <= plans <= 3 * 3 * math.log2(1 + episodes / 3)


def test_the_factor_of_an_older_determinant():
    rng = np.random.default_rng(5)
    for _ in range(200):
        d = int(rng.integers(1, 5))
        phi = rng.normal(size=(6, d))
        old = np.eye(d) + phi[:3].T @ phi[:3]
        new = old + phi[3:].T @ phi[3:]
        x = rng.normal(size=d)
        ratio = (x @ np.linalg.solve(old, x)) / (x @ np.linalg.solve(new, x))
        assert 1 - 1e-9 <= ratio <= np.linalg.det(new) / np.linalg.det(old) * (1 + 1e-9)


def test_bound_by_hand():
    # H = 1, d = 1, delta = 0.1, K = 100: no union over values, D = log 101.
    information = math.log(101)
    beta = 0.5 * math.sqrt(2 * math.log(20) + information) + 1
    noise = math.sqrt(100 * math.log(2 * 100 * 101 / 0.1) / 2)
    expected = min(100, 2 * beta * math.sqrt(100 * information / math.log(2))) + noise
    assert lsvi_ucb_regret_bound(100, n_states=7, dimension=1, horizon=1, delta=0.1) == min(100, expected)
    # So many episodes that it is not the trivial bound.
    count, information = 10**6, math.log1p(10**6)
    beta = 0.5 * math.sqrt(2 * math.log(20) + information) + 1
    noise = math.sqrt(count * math.log(2 * count * (count + 1) / 0.1) / 2)
    main = 2 * beta * math.sqrt(count * information / math.log(2))
    for replan, factor in (("always", 1.0), ("doubling", math.sqrt(2))):
        value = lsvi_ucb_regret_bound(
            count, n_states=7, dimension=1, horizon=1, delta=0.1, reward_width=3.0, replan=replan
        )
        assert value == pytest.approx(3 * (factor * main + noise), rel=1e-12)
        assert value < 3 * count


def test_union_over_values_is_a_maximum_over_corners():
    # The lemma: the norm of an affine function of V over a cube is largest at a corner.
    rng = np.random.default_rng(1)
    phi, counts = rng.normal(size=(5, 2)), rng.integers(0, 4, size=(5, 3))
    excess = counts - counts.sum(axis=1, keepdims=True) * rng.dirichlet(np.ones(3), size=5)
    gram = np.eye(2) + (counts.sum(axis=1)[:, None] * phi).T @ phi

    def norm(value):
        total = phi.T @ (excess @ value)
        return math.sqrt(total @ np.linalg.solve(gram, total))

    corners = max(norm(2.0 * np.array(corner)) for corner in np.ndindex(2, 2, 2))
    assert max(norm(2 * rng.random(3)) for _ in range(500)) <= corners * (1 + 1e-12)


def test_a_model_that_is_not_linear_is_refused():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    constant = np.ones((3, 2, 1))
    with pytest.raises(ValueError, match=r"not linear in the features: layer 0, state \d, action \d is off by"):
        run(LSVIUCB(constant), mdp, 5)
    assert run(LSVIUCB(constant, check=False), mdp, 5).provable is False
    small = np.eye(6).reshape(3, 2, 6) / 100
    with pytest.raises(ValueError, match="weights of norm"):
        run(LSVIUCB(small), mdp, 5)
    env = linear_mdp(n_states=4, n_actions=2, dimension=3, staged=True, horizon=3, rng=1)
    assert run(LSVIUCB(env.features), env.mdp, 5).provable
    assert run(LSVIUCB(one_hot(mdp)), mdp, 5).provable


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LSVIUCB(np.ones((2, 2))), "shape"),
        (lambda: LSVIUCB(np.full((1, 1, 1), np.nan)), "finite"),
        (lambda: LSVIUCB(np.ones((1, 1, 1)), delta=1.0), "delta must lie in"),
        (lambda: LSVIUCB(np.ones((1, 1, 1)), replan="never"), "replan must be"),
        (lambda: LSVIUCB(np.ones((1, 1, 1)), scale=-1.0), "scale must be"),
        (lambda: run(LSVIUCB(np.ones((2, 1, 1))), trl.random_mdp(3, 1, 2, rng=0), 1), "not for 3 states"),
        (lambda: lsvi_ucb_regret_bound(5, n_states=2, dimension=0, horizon=1, delta=0.1), "dimension"),
        (
            lambda: lsvi_ucb_regret_bound(5, n_states=2, dimension=1, horizon=1, delta=0.1, replan="x"),
            "replan must be",
        ),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_rounding_does_to_the_inverse_is_within_the_slack_of_the_proof():
    # Two features, nearly parallel, and a rare third direction: badly conditioned, between two factorisations.
    d, steps, rng = 2, 1000, np.random.default_rng(0)
    features = np.array([[1 - 1e-4, 1e-2], [1 - 1e-4, -1e-2], [0.0, 1.0]]).reshape(3, 1, d)
    gram, inverse, norm_square, scratch = np.eye(d), np.eye(d), (features**2).sum(axis=2), np.zeros(d)
    for n in range(1, steps + 1):
        s = int(rng.choice(3, p=[0.7, 0.29, 0.01]))
        _rank_one(features[s, 0], gram, inverse, features, norm_square, n, True, scratch)
    sizes, axes = np.linalg.eigh(gram)
    half = axes * np.sqrt(sizes)
    off = np.abs(np.linalg.eigvalsh(half.T @ inverse @ half) - 1).max()
    assert 0 < off <= 10 * d * 2.0**-53 * (steps + 1) ** 2
    exact = np.einsum("sai,ij,saj->sa", features, np.linalg.inv(gram), features)
    assert np.abs(norm_square / exact - 1).max() <= 10 * d * 2.0**-53 * (steps + 1) ** 2


def test_long_features_are_refused():
    mdp = trl.random_mdp(1, 2, 2, rng=0)
    with pytest.raises(ValueError, match=r"features\[0, 1\] has norm 2, above 1"):
        LSVIUCB(np.array([[[1.0], [2.0]]])).init(problem_of(mdp))


@pytest.mark.parametrize("key", ["lsvi-ucb.optimism", "lsvi-ucb.regret"])
def test_protocols_do_not_fail_on_another_model(key):
    protocol = partial(get(key).protocol, episodes=200)
    mdp = trl.random_mdp(3, 2, 3, rng=5, staged=True)
    mdp = mdp.with_reward(mdp.reward * -7.0, reward_range=(-7.0, 0.0))
    assert not protocol(mdp, rng=np.random.SeedSequence(1), runs=4, jobs=None, progress=None).failures.any()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["lsvi-ucb.optimism", "lsvi-ucb.regret"])
@pytest.mark.parametrize("seed", [0, 1])
def test_verdict_and_controls(key, seed):
    report = verify(key, rng=seed)
    assert report.verdict == "consistent" and report.as_expected
    assert all(control.verdict == "refuted" for control in report.controls)
