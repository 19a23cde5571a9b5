"""EULER against a slow twin written from the page of the proof, both estimates, its bound and its theorems."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import EULER, Problem, driver, euler_regret_bound, run
from theoryrl.testing import mdps
from theoryrl.theory import get, verify


def twin(mdp, settings, episodes, seed):
    """Both tables with dictionaries, and the actions taken."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    low, high = mdp.reward_range
    width, tables = high - low, sampler(mdp)
    environment = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed).spawn(1)[0].spawn(2)[0]))
    allowed = [[a for a in range(A) if mdp.action_mask[s, a]] for s in range(S)]
    seen: dict = {}
    Q = {(h, s, a): float(H - h) for h in range(H) for s in range(S) for a in range(A)}
    L = {(h, s): 0.0 for h in range(H + 1) for s in range(S)}
    actions = []

    def V(h, s):
        return max(Q[h, s, a] for a in allowed[s]) if h < H else 0.0

    for _ in range(episodes):
        policy = {}
        for h in reversed(range(H)):
            for s in range(S):
                least = {}
                for a in allowed[s]:
                    data = seen.get((0 if mdp.stationary else h, s, a), [])
                    n = len(data)
                    if n < 2:
                        continue
                    log = math.log(20 * S * A * H * n * (n + 1) / settings.delta)
                    r, v = np.array([x for x, _ in data]), np.array([V(h + 1, t) for _, t in data])
                    under = np.array([L[h + 1, t] for _, t in data])
                    c = min(1, math.sqrt(2 * log * r.var() / (n - 1)) + 7 * log / (3 * (n - 1)))
                    b = math.sqrt(2 * log / (n - 1)) * (v.std() + math.sqrt(((v - under) ** 2).mean()))
                    b += 7 * (H - h - 1) * log / (3 * (n - 1))
                    bonus = settings.scale * (c + b)
                    Q[h, s, a] = min(Q[h, s, a], r.mean() + v.mean() + bonus)
                    least[a] = r.mean() + under.mean() - bonus
                policy[h, s] = max(allowed[s], key=lambda a, h=h, s=s: Q[h, s, a])
                L[h, s] = max(L[h, s], 0.0, least.get(policy[h, s], 0.0))
        s = draw_initial(tables, environment)
        for h in range(H):
            a = policy[h, s]
            reward, t = draw_step(tables, h, s, a, environment)
            key = (0 if mdp.stationary else h, s, a)
            seen.setdefault(key, []).append(((reward - low) / width if width > 0 else 0.0, t))
            actions.append(a)
            s = t
    return Q, L, actions


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_twin(mdp, seed):
    settings = EULER(0.1, scale=0.02)
    state = run(settings, mdp, 6, rng=seed, keep_states=True).states[0]
    Q, L, actions = twin(mdp, settings, 6, seed)
    for (h, s, a), q in Q.items():
        if mdp.action_mask[s, a]:
            # A variance that is 0 in one order of sums is 1e-17 in another, its root 1e-8.
            assert abs(state.q[h, s, a] - q) <= 1e-6
        else:
            assert state.q[h, s, a] == -np.inf
    for (h, s), least in L.items():
        assert abs(state.lower[h, s] - least) <= 1e-6
    assert np.array_equal(state.visits.sum(axis=(0, 1)), np.bincount(actions, minlength=mdp.n_actions))


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(mdp, seed):
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 3])
    problem = Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = EULER(0.1, scale=0.05).init(problem), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 3, True, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_the_two_estimates_enclose_the_optimal_value(mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    protocol = get("euler.optimism").protocol
    seen = protocol(
        mdp, rng=np.random.SeedSequence(seed), runs=1, jobs=1, progress=None, learner=EULER(1e-6), episodes=40
    )
    assert not seen.failures.any()


def test_the_estimates_meet_where_nothing_is_random():
    mdp = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.full((1, 1), 0.5), horizon=2, reward_range=(0.0, 1.0))
    state = run(EULER(), mdp, 20_000, keep_states=True, jobs=1).states[0]
    assert 0 <= state.value[0, 0] - state.lower[0, 0] < 0.05
    assert state.lower[0, 0] <= 1.0 <= state.value[0, 0]


def test_a_lower_estimate_above_the_optimal_value_is_noticed():
    protocol = get("euler.optimism").protocol
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    seen = protocol(
        mdp, rng=np.random.SeedSequence(0), runs=6, jobs=1, progress=None, learner=EULER(scale=0.0), episodes=100
    )
    assert seen.failures.all()


@pytest.mark.parametrize("stationary", [True, False])
@pytest.mark.parametrize("K", [1, 300, 20_000])
def test_bound(stationary, K):
    S, A, H, G, delta = 3, 2, 4, 2, 0.05

    def phi(n):
        if n < 2:
            return 1.0
        log = math.log(20 * S * A * H * n * (n + 1) / delta)
        transfer = math.log(5 * S * S * A * H * n * (n + 1) / delta)
        return 4 * math.sqrt(log / (2 * (n - 1))) + 14 * log / (3 * (n - 1)) + G * (H / 2 + 1 / 3) * transfer / n

    def F(N):
        whole = math.floor(N)
        terms = [min(1.0, phi(n)) for n in range(whole + 1)]
        return sum(terms[:whole]) + (N - whole) * terms[whole]

    w = [(1 + 1 / H) ** h * (H - h) for h in range(H)]
    main = H * S * A * (H - 1 + F(K * H / (S * A))) if stationary else sum(w) * S * A * F(K / (S * A))
    slow = min(K * H, main + math.sqrt(K / 2 * sum(x * x for x in w) * math.log(5 * K * (K + 1) / delta)))
    fast = euler_regret_bound(K, n_states=S, n_actions=A, horizon=H, delta=delta, stationary=stationary, n_successors=G)
    assert float(fast) == pytest.approx(slow, rel=1e-10)


def test_bad_settings():
    with pytest.raises(ValueError, match="delta must lie"):
        EULER(delta=math.nan)
    with pytest.raises(ValueError, match="scale must be"):
        EULER(scale=-1.0)
    assert EULER().provable and not EULER(scale=0.5).provable


@pytest.mark.slow
@pytest.mark.parametrize("key", ["euler.optimism", "euler.regret"])
def test_verdict_and_controls(key):
    report = verify(key)
    assert report.verdict == "consistent" and report.as_expected
    assert all(control.verdict == "refuted" for control in report.controls)
    assert "trivial" not in report.note
