"""UCB-B against the unrolled formula of its page: bonuses that add up to beta_t, and never above UCB-H's."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import UCBB, Problem, act, observe, run, ucb_b_regret_bound, ucb_h_regret_bound
from theoryrl.testing import mdps
from theoryrl.theory import verify


def drift(S, A, H, h, t, log):
    """D_t of the page, term by term."""
    total = 0.0
    for j in range(h + 1, H):
        e = (1 + 1 / H) ** (j - h - 1)
        total += (H - j) * (S * A * e + 4 * (H + 1) / math.sqrt(4 * H + 2) * math.sqrt(S * A * e * t * log))
    return (H - h - 1) * total


def beta(S, A, H, h, targets, delta):
    """beta_t of the page for the list of targets of a pair."""
    t = len(targets)
    log = math.log(8 * S * A * H * t * (t + 1) / delta)
    hoeffding = (H - h) * (H + 1) * math.sqrt(log / ((4 * H + 2) * t))
    if t == 1:
        return hoeffding
    spread = math.sqrt(t / (t - 1)) * (
        math.sqrt(statistics.pvariance(targets)) + math.sqrt(drift(S, A, H, h, t, log) / t)
    )
    bracket = spread + (H - h) * math.sqrt(2 * log / (t - 1))
    root = math.sqrt((H + 1) ** 2 / (H + 0.5) * log / t)
    return min(hoeffding, root * bracket + (H - h) * (H + 1) * log / (3 * (H + t)))


def twin(mdp, settings, episodes, seed):
    """UCB-B by the paper's update, with b_t from two successive beta: the final Q."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    low, high = mdp.reward_range
    tables = sampler(mdp)
    environment = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed).spawn(1)[0].spawn(2)[0]))
    Q = {(h, s, a): float(H - h) for h in range(H) for s in range(S) for a in range(A) if mdp.action_mask[s, a]}
    targets = {key: [] for key in Q}

    def greedy(h, s):
        return max((a for a in range(A) if mdp.action_mask[s, a]), key=lambda a: Q[h, s, a])

    def V(h, s):
        return min(float(H - h), Q[h, s, greedy(h, s)]) if h < H else 0.0

    for _ in range(episodes):
        s = draw_initial(tables, environment)
        for h in range(H):
            a = greedy(h, s)
            reward, t = draw_step(tables, h, s, a, environment)
            data = targets[h, s, a]
            before = beta(S, A, H, h, data, settings.delta) if data else 0.0
            data.append(((reward - low) / (high - low) if high > low else 0.0) + V(h + 1, t))
            alpha = (H + 1) / (H + len(data))
            b = settings.scale * (beta(S, A, H, h, data, settings.delta) - (1 - alpha) * before) / alpha
            Q[h, s, a] = (1 - alpha) * Q[h, s, a] + alpha * (data[-1] + b)
            s = t
    return Q


@given(mdp=mdps(), seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.03]))
def test_twin(mdp, seed, scale):
    settings = UCBB(0.1, scale=scale)
    state = run(settings, mdp, 6, rng=seed, keep_states=True).states[0]
    for (h, s, a), q in twin(mdp, settings, 6, seed).items():
        assert abs(state.q[h, s, a] - q) <= 1e-9
    assert (state.q[:, ~mdp.action_mask] == -np.inf).all()


def test_twin_where_the_variance_decides():
    # A sure reward in the last layer: from some 300 visits on the Bernstein term is the smaller one.
    mdp = trl.FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.3, 0.3]]), horizon=1, reward_range=(0.0, 1.0))
    state = run(UCBB(), mdp, 2000, keep_states=True).states[0]
    assert state.q[0, 0, 0] == pytest.approx(twin(mdp, UCBB(), 2000, 0)[0, 0, 0], rel=1e-9)
    t = int(state.visits[0, 0, 0])
    hoeffding = 2 * math.sqrt(math.log(8 * 2 / 0.05 * t * (t + 1)) / (6 * t))
    assert state.q[0, 0, 0] - 0.3 < 0.6 * hoeffding
    # The same mean with the greatest variance: Hoeffding's term remains, and the better arm needs more visits.
    coins = trl.FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.5, 0.5]]), horizon=1, reward_law="bernoulli")
    noisy = run(UCBB(), coins, 2000, keep_states=True).states[0]
    t = int(noisy.visits[0, 0, 0])
    hoeffding = 2 * math.sqrt(math.log(8 * 2 / 0.05 * t * (t + 1)) / (6 * t))
    assert noisy.q[0, 0, 0] - noisy.average[0, 0, 0] == pytest.approx(hoeffding, rel=1e-12)


@pytest.mark.parametrize(("S", "A", "H"), [(1, 1, 1), (3, 2, 4), (2, 5, 7)])
def test_drift_is_its_formula(S, A, H):
    problem = Problem(S, A, H, 0.0, 1.0, True, np.ones((S, A), np.bool_))
    constants = UCBB(0.05).init(problem).drift
    for h in range(H):
        for t in (1, 50):
            expected = drift(S, A, H, h, t, 3.0)
            assert constants[h, 0] + constants[h, 1] * math.sqrt(3.0 * t) == pytest.approx(expected, rel=1e-12)


def test_beta_where_the_drift_decides():
    # Two steps, a sure reward, the second never updated: no variance at all, so that beta_t is the drift and constants.
    problem = Problem(1, 1, 2, 0.0, 1.0, True, np.ones((1, 1), np.bool_))
    state = UCBB().init(problem)
    for t in range(1, 8001):
        observe(state, 0, 0, 0, 0.5, 0)
        if t in (2, 500, 8000):
            found = state.q[0, 0, 0] - state.average[0, 0, 0]
            assert found == pytest.approx(beta(1, 1, 2, 0, [1.5] * t, 0.05), rel=1e-9)
    log = math.log(8 * 2 * 8000 * 8001 / 0.05)
    assert found < 0.95 * 2 * 3 * math.sqrt(log / (10 * 8000))
    assert state.average[0, 0, 0] == pytest.approx(1.5, rel=1e-12)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_optimism(mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    result = run(UCBB(1e-6), mdp, 30, rng=seed, watch=True)
    assert result.least_margin[0] >= -1e-9 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))


@pytest.mark.slow
def test_optimism_where_the_variance_decides():
    # Rewards that hardly vary, one step: the Bernstein term is in force from a few hundred visits on.
    mdp = trl.FiniteHorizonMDP(
        np.ones((1, 2, 1)),
        np.array([[0.5, 0.48]]),
        horizon=1,
        reward_law="uniform",
        reward_noise=np.array([[0.02, 0.02]]),
        reward_range=(0.0, 1.0),
    )
    result = run(UCBB(1e-6), mdp, 50_000, seeds=10, watch=True)
    assert (result.least_margin >= 0).all()


def test_the_drift_covers_what_optimism_adds():
    # The lemma on a run: the sum of V - V* over the successors of each pair, against D_t / (H - h - 1).
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    S, A, H, episodes = 3, 2, 4, 300
    settings, optimal = UCBB(), trl.backward_induction(mdp).value
    tables = sampler(mdp)
    environment = np.random.default_rng(0)
    problem = Problem(S, A, H, *mdp.reward_range, mdp.stationary, mdp.action_mask)
    state = settings.init(problem)
    promised = np.zeros((H, S, A))
    low, high = mdp.reward_range
    for _ in range(episodes):
        s = draw_initial(tables, environment)
        for h in range(H):
            a = int(act(state, h, s, environment))
            reward, t = draw_step(tables, h, s, a, environment)
            truth = (optimal[h + 1, t] - (H - h - 1) * low) / (high - low)
            promised[h, s, a] += state.value[h + 1, t] - truth
            observe(state, h, s, a, reward, t)
            s = t
    for h, s, a in np.ndindex(H, S, A):
        n = int(state.visits[h, s, a])
        if n:
            log = math.log(8 * S * A * H * n * (n + 1) / 0.05)
            assert (H - h - 1) * promised[h, s, a] <= drift(S, A, H, h, n, log)
    assert promised[0].max() > 0


def test_bound_is_the_formula_of_ucb_h_with_other_constants():
    sizes = {"n_states": 3, "n_actions": 2, "horizon": 4, "delta": 0.05}
    episodes = np.array([10, 50_000, 10**7])
    bound = ucb_b_regret_bound(episodes, **sizes)
    assert bound[0] == 40
    # 2 < 1 + kappa, and the logarithm of 8 ... / delta is that of 4 ... / (delta / 2).
    other = ucb_h_regret_bound(episodes, **{**sizes, "delta": 0.025})
    assert (bound[1:] < other[1:]).all() and (bound[1:] > 0.9 * 2 / (1 + 10 / 9) * other[1:]).all()
    assert np.allclose(ucb_b_regret_bound(episodes, **sizes, reward_width=2.0), 2 * bound, rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ucb-b.optimism", "ucb-b.regret"])
def test_verdict_and_controls(key):
    report = verify(key)
    assert report.verdict == "consistent" and report.as_expected
    assert len(report.controls) == 2 and all(control.verdict == "refuted" for control in report.controls)


def test_scaled_bonus_is_not_provable():
    assert UCBB().provable and not UCBB(scale=0.5).provable


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UCBB(delta=1.0), "delta must lie in"),
        (lambda: UCBB(delta=float("nan")), "delta must lie in"),
        (lambda: UCBB(scale=float("inf")), "scale must be"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()
