"""OPPO against a slow twin with the papers' multiplicative update, its two inequalities, and its bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import OPPO, Problem, act, chance, observe, oppo_regret_bound, plan, run
from theoryrl.online._theorems_oppo import optimism_protocol, shortfall
from theoryrl.testing import mdps
from theoryrl.theory import verify


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def play(mdp, settings, episodes, seed):
    """States before each episode as (policy, q, value), what was seen, by the verbs in plain Python."""
    tables, rng, own = sampler(mdp), np.random.default_rng(seed), np.random.default_rng(seed + 1)
    state, trace, log = settings.init(problem_of(mdp)), [], []
    for episode in range(episodes):
        plan(state, episode)
        trace.append((state.policy.copy(), state.q.copy(), state.value.copy()))
        s, seen = draw_initial(tables, rng), []
        for h in range(mdp.horizon):
            a = int(act(state, h, s, own))
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            seen.append((h, s, a, reward, t))
            s = t
        log.append(seen)
    return trace, log


@given(mdp=mdps(), seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.05]), eta=st.sampled_from([None, 0.7]))
def test_twin(mdp, seed, scale, eta):
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    low, high = mdp.reward_range
    trace, log = play(mdp, OPPO(6, 0.1, scale=scale, eta=eta), 6, seed)
    rate = math.sqrt(2 * math.log(A) / (H * H * 6)) if eta is None else eta
    pi = {
        (h, s, a): float(mdp.action_mask[s, a]) / mdp.action_mask[s].sum()
        for h in range(H)
        for s in range(S)
        for a in range(A)
    }
    data: dict = {}
    for episode in range(6):
        V = [[0.0] * S for _ in range(H + 1)]
        Q = {}
        for h in reversed(range(H)):
            for s in range(S):
                for a in np.flatnonzero(mdp.action_mask[s]):
                    seen = data.get((0 if mdp.stationary else h, s, a), [])
                    Q[h, s, a] = float(H - h)
                    if seen:
                        n = len(seen)
                        ell = math.log(4 * S * A * H * n * (n + 1) / 0.1)
                        bonus = scale * (H - h) * math.sqrt((S * math.log(2) + ell) / (2 * n))
                        mean = sum(r + V[h + 1][t] for r, t in seen) / n
                        Q[h, s, a] = min(Q[h, s, a], mean + bonus)
                    V[h][s] += pi[h, s, a] * Q[h, s, a]
        policy, q, value = trace[episode]
        for (h, s, a), x in Q.items():
            assert abs(q[h, s, a] - x) <= 1e-9
            assert abs(policy[h, s, a] - pi[h, s, a]) <= 1e-9
        assert np.abs(value - np.array(V)).max() <= 1e-9
        assert (policy[:, ~mdp.action_mask] == 0).all() and (q[:, ~mdp.action_mask] == -np.inf).all()
        for h in range(H):
            for s in range(S):
                allowed = np.flatnonzero(mdp.action_mask[s])
                total = sum(pi[h, s, a] * math.exp(rate * Q[h, s, a]) for a in allowed)
                for a in allowed:
                    pi[h, s, a] *= math.exp(rate * Q[h, s, a]) / total
        for h, s, a, reward, t in log[episode]:
            unit = (reward - low) / (high - low) if high > low else 0.0
            data.setdefault((0 if mdp.stationary else h, s, a), []).append((unit, t))


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_optimism(mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    for episodes in (1, 2, 20):
        state = run(OPPO(20, 1e-6), mdp, episodes, rng=seed, keep_states=True).states[0]
        assert shortfall(mdp, state) <= 1e-9 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))


def test_shortfall_is_seen():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    state = run(OPPO(20), mdp, 20, keep_states=True).states[0]
    assert shortfall(mdp, state) == 0
    state.q[2, 1, 0] = 0.0
    assert shortfall(mdp, state) > 0.1
    state.q[2, 1, 0] = np.nan
    assert np.isnan(shortfall(mdp, state))


@given(mdp=mdps(), seed=st.integers(0, 1000), eta=st.sampled_from([0.01, 0.3, 5.0]))
def test_ascent_loses_little_against_any_fixed_action(mdp, seed, eta):
    # The lemma on exponential weights, in every state, whatever happened.
    trace, _ = play(mdp, OPPO(10, scale=0.1, eta=eta), 10, seed)
    for h, s in np.ndindex(mdp.horizon, mdp.n_states):
        allowed = np.flatnonzero(mdp.action_mask[s])
        gains = np.array([q[h, s, allowed] for _, q, _ in trace])
        earned = sum(float(policy[h, s, allowed] @ q[h, s, allowed]) for policy, q, _ in trace)
        limit = math.log(len(allowed)) / eta + eta * 10 * (mdp.horizon - h) ** 2 / 8
        assert gains.sum(axis=0).max() - earned <= limit + 1e-9


def test_actions_come_as_often_as_their_chances_say():
    mask = np.array([[True, False, True, True]])
    mdp = trl.FiniteHorizonMDP(
        np.ones((1, 4, 1)), np.array([[0.1, 0.0, 0.9, 0.4]]), horizon=1, action_mask=mask, reward_range=(0.0, 1.0)
    )
    state = run(OPPO(50, eta=0.3, scale=0.0), mdp, 50, keep_states=True).states[0]
    expected = np.array([chance(state, 0, 0, a) for a in range(4)])
    assert (
        expected.sum() == pytest.approx(1, rel=1e-15) and expected[1] == 0 and expected[0] < expected[3] < expected[2]
    )
    rng, draws = np.random.default_rng(0), 30_000
    counts = np.bincount([int(act(state, 0, 0, rng)) for _ in range(draws)], minlength=4)
    # Five standard deviations.
    assert (np.abs(counts - draws * expected) <= 5 * np.sqrt(draws * expected * (1 - expected))).all()


def test_it_learns():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    result = run(OPPO(4000, scale=0.1), mdp, 4000)
    assert result.episode_regret[0, -1] < 0.2 * result.episode_regret[0, 0]
    assert not result.provable


@pytest.mark.parametrize("stationary", [True, False])
@pytest.mark.parametrize(("K", "planned"), [(1, None), (300, 500), (20_000, None)])
def test_bound_is_its_formula(K, planned, stationary):
    S, A, H, delta = 3, 2, 4, 0.05
    eta = math.sqrt(2 * math.log(A) / (H * H * (planned or K)))

    def cost(n):
        if n == 0:
            return 1.0
        ell = math.log(4 * S * A * H * n * (n + 1) / delta)
        return min(1.0, 2 * math.sqrt((S * math.log(2) + ell) / (2 * n)))

    def F(N):
        whole = math.floor(N)
        return sum(cost(n) for n in range(whole)) + (N - whole) * cost(whole)

    squares = sum((H - h) ** 2 for h in range(H))
    main = H * S * A * (H - 1 + F(K * H / (S * A))) if stationary else sum(range(1, H + 1)) * S * A * F(K / (S * A))
    noise = math.sqrt(K * squares * math.log(2 * K * (K + 1) / delta))
    expected = min(K * H, H * math.log(A) / eta + eta * K * squares / 8 + main + noise)
    bound = oppo_regret_bound(
        K, n_states=S, n_actions=A, horizon=H, delta=delta, stationary=stationary, planned=planned
    )
    assert float(bound) == pytest.approx(expected, rel=1e-12)


def test_bound_with_a_single_action_has_no_price_of_ascent():
    bound = oppo_regret_bound([10**6], n_states=1, n_actions=1, horizon=1, delta=0.1)
    assert np.isfinite(bound).all()


def test_protocol_turns_red_without_bonus():
    seen = optimism_protocol(
        trl.envs.make("riverswim", n_states=3, horizon=4),
        rng=np.random.SeedSequence(0),
        runs=4,
        jobs=1,
        progress=None,
        episodes=100,
        scale=0.0,
    )
    assert seen.failures.all()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["oppo.optimism", "oppo.regret"])
def test_verdict_and_controls(key):
    report = verify(key)
    assert report.verdict == "consistent" and report.as_expected
    assert len(report.controls) == 2 and all(control.verdict == "refuted" for control in report.controls)


@pytest.mark.slow
def test_time_varying_model_with_losses():
    mdp = trl.random_mdp(3, 2, 4, rng=5, staged=True)
    mdp = mdp.with_reward(mdp.reward * -7.0, reward_range=(-7.0, 0.0))
    for key in ("oppo.optimism", "oppo.regret", "ucb-h.regret", "ucb-h.optimism", "ucb-b.regret", "ucb-b.optimism"):
        protocol = trl.theory.get(key).protocol
        seen = protocol(mdp, rng=np.random.SeedSequence(1), runs=6, jobs=None, progress=None, episodes=300)
        assert not seen.failures.any()


def test_other_settings_are_not_provable():
    assert OPPO(10).provable and not OPPO(10, scale=0.5).provable and not OPPO(10, eta=0.1).provable


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OPPO(0), "episodes must be at least 1"),
        (lambda: OPPO(10, delta=0.0), "delta must lie in"),
        (lambda: OPPO(10, scale=float("nan")), "scale must be"),
        (lambda: OPPO(10, eta=-0.1), "eta must be"),
        (lambda: OPPO(10, eta=float("nan")), "eta must be"),
        (lambda: oppo_regret_bound(5, n_states=1, n_actions=1, horizon=1, delta=0.1, planned=0), "episodes"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()
