"""RLSVI against a slow twin, what is left of it without noise, and the protocol's promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import RLSVI, Problem, driver, rlsvi_regret_bound, run
from theoryrl.online.verbs import act, chance, observe, plan, sample, upper_value
from theoryrl.testing import mdps
from theoryrl.theory import get, verify
from theoryrl.theory.verdict import decide_mean


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def twin(mdp, scale, episodes, seed):
    """RLSVI with lists of what was seen: the last Q and every pair it visited."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    low, high = mdp.reward_range
    tables = sampler(mdp)
    streams = np.random.SeedSequence(seed).spawn(1)[0].spawn(2)
    environment, own = (np.random.Generator(np.random.PCG64(stream)) for stream in streams)
    seen: dict = {}
    for k in range(1, episodes + 1):
        noise = own.standard_normal((H, S, A))
        Q, V, policy = {}, np.zeros(S), {}
        for h in reversed(range(H)):
            new = np.zeros(S)
            beta = H * S * (H - h) ** 2 * (1 + math.log(2 * S * A * H * H * k * k) / 2)
            for s in range(S):
                for a in np.flatnonzero(mdp.action_mask[s]):
                    data = seen.get((0 if mdp.stationary else h, s, a), [])
                    n = len(data)
                    Q[h, s, a] = sum(r + V[t] for r, t in data) / (n + 1)
                    Q[h, s, a] += scale * math.sqrt(beta / (n + 1)) * noise[h, s, a]
                policy[h, s] = max((a for a in range(A) if mdp.action_mask[s, a]), key=lambda a: Q[h, s, a])
                new[s] = Q[h, s, policy[h, s]]
            V = new
        s = draw_initial(tables, environment)
        for h in range(H):
            a = policy[h, s]
            reward, t = draw_step(tables, h, s, a, environment)
            unit = (reward - low) / (high - low) if high > low else 0.0
            seen.setdefault((0 if mdp.stationary else h, s, a), []).append((unit, t))
            s = t
    return Q, {key: len(data) for key, data in seen.items()}


@pytest.mark.parametrize("scale", [1.0, 0.05])
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_twin(scale, mdp, seed):
    state = run(RLSVI(scale), mdp, 6, rng=seed, keep_states=True).states[0]
    Q, visits = twin(mdp, scale, 6, seed)
    for (h, s, a), q in Q.items():
        # The two add up in different orders.
        assert abs(state.q[h, s, a] - q) <= 1e-10 * (1 + abs(q))
    assert {tuple(map(int, key)): n for key, n in visits.items()} == {
        tuple(map(int, key)): state.visits[tuple(key)] for key in np.argwhere(state.visits)
    }


def test_without_noise_the_last_layer_is_the_regularised_mean():
    # A known fault elsewhere: noise drawn around the mean, and the mean added once more, gives twice the mean.
    mdp = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.8]]), horizon=2, reward_range=(0.0, 1.0))
    state = run(RLSVI(scale=0.0), mdp, 100, keep_states=True).states[0]
    n = 2 * 99
    assert abs(state.q[1, 0, 0] - 0.8 * n / (n + 1)) <= 1e-13
    assert abs(state.q[0, 0, 0] - 0.8 * n / (n + 1) * (1 + n / (n + 1))) <= 1e-13


def test_the_noise_has_the_variance_of_the_theorem():
    # Without data a pair has no successors, so that Q_0 and Q_1 are the noise of their own layers.
    mask = np.array([[True]])
    state = RLSVI().init(Problem(1, 1, 2, 0.0, 1.0, False, mask))
    rng = np.random.default_rng(0)
    seen = np.zeros((4000, 2))
    for row in seen:
        sample(state, rng)
        plan(state, 9)
        row[:] = state.q[:, 0, 0]
    scale = 2 * (1 + 0.5 * math.log(2 * 4 * 100))
    # Four standard deviations of a sample variance of 4000 draws are 9 per cent.
    assert np.allclose(seen.var(axis=0), [4 * scale, scale], rtol=0.09)
    assert abs(np.corrcoef(seen.T)[0, 1]) < 0.07


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(mdp, seed):
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 3])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = RLSVI().init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 3, False, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@given(mdp=mdps(), seed=st.integers(0, 100))
def test_protocol(mdp, seed):
    state = RLSVI(0.1).init(problem_of(mdp))
    tables, rng = sampler(mdp), np.random.default_rng(seed)
    before = state.policy.copy()
    for episode in range(4):
        sample(state, rng)
        changed = plan(state, episode)
        assert changed == (not np.array_equal(before, state.policy))
        before = state.policy.copy()
        s = draw_initial(tables, rng)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            assert mdp.action_mask[s, a] and chance(state, h, s, a) == 1
            assert upper_value(state, h, s) == np.inf
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            s = t


def test_the_state_knows_only_what_was_visited():
    # Two models that differ where one run never goes: states 1 and 2 from layer 1 on.
    P = np.zeros((3, 1, 3))
    P[:, 0, 0] = 1.0
    other = P.copy()
    other[1:, 0] = [0.0, 0.5, 0.5]
    models = [
        trl.FiniteHorizonMDP(rows, np.array([[0.5], [x], [x]]), horizon=3, reward_range=(0.0, 1.0))
        for rows, x in ((P, 0.1), (other, 0.9))
    ]
    states = [run(RLSVI(), mdp, 20, rng=4, keep_states=True).states[0] for mdp in models]
    for one, two in zip(*states, strict=True):
        assert np.array_equal(one, two)


def test_scaled_noise_is_not_provable():
    assert RLSVI().provable and not RLSVI(0.5).provable


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_bad_settings(scale):
    with pytest.raises(ValueError, match="scale must be"):
        RLSVI(scale)


@pytest.mark.parametrize("stationary", [True, False])
@pytest.mark.parametrize(("S", "A", "H", "K"), [(1, 2, 1, 10**6), (2, 1, 3, 10**12)])
def test_bound_covers_plain_sums(S, A, H, K, stationary):
    p = 0.15865525393145707
    m, log = S * A * H, math.log(2 * S * A * H * H * K * K)
    c, z, L = 1 + log / 2, math.sqrt(2 * math.log(2 * m * m * K)), S * math.log(2) + log
    sigma = math.sqrt(H * S * c)
    B = z * sigma * H * (H - 1) / 2
    n = np.arange(10.0**5)
    d = np.append(2.0, np.minimum(2.0, np.sqrt(2 * L / n[1:])))
    # Reward, noise and its transfer (the latter two once more over p), transfer of the value: as the proof lists them.
    steps = np.sqrt(log / (2 * (n + 1))) + (1 + 1 / p) * z * H * sigma / np.sqrt(n + 1)
    steps += d / 2 * B / p + d / 2 * (H - 1 + B) + (d / 2 + 1 / (n + 1)) * B
    groups = 1 if stationary else H
    rest = sum(1 / k for k in range(1, 1001)) + math.log(K / 1000)  # at least sum 1/k - 1/1000
    rest *= H + 1 + (H + (1 + 1 / p) * H * H * sigma * (z + 1 / z)) / (2 * m)
    visits = K * H / (groups * S * A)
    whole = 2 * (steps[-1] * math.sqrt(n[-1] + 1)) * (math.sqrt(visits) - math.sqrt(n[-1] + 1))
    needed = groups * S * A * (steps.sum() + whole) + rest
    if stationary:
        needed += S * A * (H - 1) * steps[0]
    bound = float(rlsvi_regret_bound(K, n_states=S, n_actions=A, horizon=H, stationary=stationary))
    a, b = math.sqrt(log / 2) + (1 + 1 / p) * z * H * sigma, (H - 1) / 2 + B + B / (2 * p)
    stated = groups * S * A * (2 * a * math.sqrt(visits) + 2 * b * (1 + math.sqrt(2 * L * visits)))
    stated += groups * S * A * B * (1 + math.log(1 + visits)) + (S * A * (H - 1) * (a + 2 * b + B) if stationary else 0)
    stated += (1 + math.log(K)) * (H + 1 + (H + (1 + 1 / p) * H * H * sigma * (z + 1 / z)) / (2 * m))
    assert math.isclose(bound, stated, rel_tol=1e-12) and bound < K * H
    assert needed * (1 - 1e-3) <= bound <= 1.1 * needed
    assert rlsvi_regret_bound([1, 2], n_states=S, n_actions=A, horizon=H, reward_width=2.0).tolist() == [2 * H, 4 * H]


@pytest.mark.slow
@pytest.mark.parametrize("key", ["rlsvi.optimism", "rlsvi.regret"])
def test_verdict_and_controls(key):
    report = verify(key, rng=1)
    assert report.verdict == "consistent" and report.as_expected
    assert report.controls and all(control.verdict == "refuted" for control in report.controls)


@pytest.mark.slow
def test_optimism_on_a_time_varying_model_with_losses():
    mdp = trl.random_mdp(3, 2, 4, rng=5, staged=True)
    mdp = mdp.with_reward(mdp.reward * -7.0, reward_range=(-7.0, 0.0))
    seen = get("rlsvi.optimism").protocol(mdp, rng=np.random.SeedSequence(1), runs=60, jobs=None, progress=None)
    # At least 0.157 of the runs are optimistic: 60 pessimistic ones have probability 4e-5.
    assert not seen.failures.all()
    assert np.allclose(seen.observed, trl.backward_induction(mdp).value[0, 0])


def test_regret_where_rewards_cannot_differ():
    mdp = trl.FiniteHorizonMDP(np.full((2, 2, 2), 0.5), np.full((2, 2), 3.0), horizon=3, reward_range=(3.0, 3.0))
    seen = get("rlsvi.regret").protocol(mdp, rng=np.random.SeedSequence(1), runs=2, jobs=1, progress=None, episodes=5)
    assert seen.observed.tolist() == [0.0, 0.0] and seen.bound == 0.0
    assert decide_mean(seen).verdict == "consistent"
