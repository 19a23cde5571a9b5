"""UCB-H against the unrolled formula of its page, the lemmas on its weights, and optimism."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import UCBH, run, ucb_h_regret_bound
from theoryrl.testing import mdps
from theoryrl.theory import verify


def weights(H, t):
    """alpha_t^1 .. alpha_t^t by their definition."""
    alpha = [(H + 1) / (H + i) for i in range(1, t + 1)]
    return [alpha[i] * math.prod(1 - alpha[j] for j in range(i + 1, t)) for i in range(t)]


def twin(mdp, settings, episodes, seed):
    """UCB-H with every target kept and Q summed anew from all of them: Q, and the actions taken."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    low, high = mdp.reward_range
    tables = sampler(mdp)
    environment = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed).spawn(1)[0].spawn(2)[0]))
    seen = {(h, s, a): [] for h in range(H) for s in range(S) for a in range(A) if mdp.action_mask[s, a]}
    actions = []

    def Q(h, s, a):
        data = seen[h, s, a]
        if not data:
            return float(H - h)
        bonuses = [
            settings.scale
            * (H - h)
            * (H + 1)
            * math.sqrt(math.log(4 * S * A * H * i * (i + 1) / settings.delta) / ((4 * H + 2) * i))
            for i in range(1, len(data) + 1)
        ]
        return sum(w * (x + b) for w, x, b in zip(weights(H, len(data)), data, bonuses, strict=True))

    def greedy(h, s):
        return max((a for a in range(A) if mdp.action_mask[s, a]), key=lambda a: Q(h, s, a))

    def V(h, s):
        return min(float(H - h), Q(h, s, greedy(h, s))) if h < H else 0.0

    for _ in range(episodes):
        s = draw_initial(tables, environment)
        for h in range(H):
            a = greedy(h, s)
            reward, t = draw_step(tables, h, s, a, environment)
            unit = (reward - low) / (high - low) if high > low else 0.0
            seen[h, s, a].append(unit + V(h + 1, t))
            actions.append(a)
            s = t
    return {key: Q(*key) for key in seen}, actions


@given(mdp=mdps(), seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.03]))
def test_twin(mdp, seed, scale):
    settings = UCBH(0.1, scale=scale)
    state = run(settings, mdp, 6, rng=seed, keep_states=True).states[0]
    Q, actions = twin(mdp, settings, 6, seed)
    for (h, s, a), q in Q.items():
        assert abs(state.q[h, s, a] - q) <= 1e-9
    assert (state.q[:, ~mdp.action_mask] == -np.inf).all()
    counted = np.bincount(actions, minlength=mdp.n_actions)
    assert np.array_equal(state.visits.sum(axis=(0, 1)), counted)


def test_coin_flips_are_averaged_with_the_weights_of_the_paper():
    # Exchange alpha_t and 1 - alpha_t, and Q is the last reward: 0 or 1, or nearly so.
    mdp = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=1, reward_law="bernoulli")
    result = run(UCBH(scale=0.0), mdp, 199, rng=0, keep_states=True, checkpoints=range(1, 200))
    flips = np.diff(result.collected[0], prepend=0.0)
    assert set(flips) == {0.0, 1.0}
    assert result.states[0].q[0, 0, 0] == pytest.approx(np.dot(weights(1, 199), flips), rel=1e-12)
    assert 0.3 < result.states[0].q[0, 0, 0] < 0.7
    # At horizon H = 1 the weights are 2 i / (t (t + 1)).
    assert weights(1, 199)[41] == pytest.approx(2 * 42 / (199 * 200), rel=1e-12)


def test_first_two_visits_by_hand():
    mdp = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.25]]), horizon=2, reward_range=(0.0, 1.0))
    delta = 0.5
    first = [2 * 3 * math.sqrt(math.log(8 / delta * 2) / 10), 1 * 3 * math.sqrt(math.log(8 / delta * 2) / 10)]
    state = run(UCBH(delta), mdp, 1, keep_states=True).states[0]
    assert state.q[0, 0, 0] == pytest.approx(0.25 + 1 + first[0], rel=1e-14)  # V_1 is still the cap 1
    assert state.q[1, 0, 0] == pytest.approx(0.25 + first[1], rel=1e-14)
    assert state.value[:, 0].tolist() == [2.0, 1.0, 0.0]
    second = 2 * 3 * math.sqrt(math.log(8 / delta * 6) / 20)
    state = run(UCBH(delta), mdp, 2, keep_states=True).states[0]
    assert state.q[0, 0, 0] == pytest.approx(0.25 * (0.25 + 1 + first[0]) + 0.75 * (0.25 + 1 + second), rel=1e-14)


@given(H=st.integers(1, 60), t=st.integers(1, 300))
def test_lemmas_on_the_weights(H, t):
    w = weights(H, t)
    assert sum(w) == pytest.approx(1, rel=1e-12)
    assert max(w) == w[-1]
    assert sum(x * x for x in w) <= (H + 1) ** 2 / ((2 * H + 1) * t) * (1 + 1e-12)
    mean = sum(x / math.sqrt(i) for i, x in enumerate(w, 1))
    assert (1 - 1e-12) / math.sqrt(t) <= mean <= (2 * H + 2) / (2 * H + 1) / math.sqrt(t) * (1 + 1e-12)


@pytest.mark.parametrize("H", [1, 3, 20])
@pytest.mark.parametrize("i", [1, 2, 17])
def test_a_visit_weighs_one_plus_one_over_H_in_all(H, i):
    weight, total = (H + 1) / (H + i), 0.0
    for t in range(i, 400_000):
        total += weight
        weight *= t / (H + t + 1)
    assert total <= 1 + 1 / H + 1e-9
    assert total == pytest.approx(1 + 1 / H, rel=1e-4)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_optimism(mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    result = run(UCBH(1e-6), mdp, 30, rng=seed, watch=True)
    assert result.least_margin[0] >= -1e-9 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))


def test_values_fall_towards_the_optimum():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    state = run(UCBH(scale=0.1), mdp, 100_000, keep_states=True).states[0]
    optimal = trl.backward_induction(mdp).value
    assert 0 < state.value[0, 0] - optimal[0, 0] < 0.5


@pytest.mark.parametrize("K", [1, 300, 60_000])
def test_bound_is_its_formula(K):
    S, A, H, delta = 3, 2, 4, 0.05
    kappa = 1 + (2 * H + 2) / (2 * H + 1)

    def cost(n):
        if n == 0:
            return 1.0
        return min(1.0, kappa * (H + 1) * math.sqrt(math.log(4 * S * A * H * n * (n + 1) / delta) / ((4 * H + 2) * n)))

    N = K / (S * A)
    whole = math.floor(N)
    F = sum(cost(n) for n in range(whole)) + (N - whole) * cost(whole)
    main = sum((1 + 1 / H) ** h * (H - h) for h in range(H)) * S * A * F
    ranges = H**2 + sum(((1 + 1 / H) ** h * (H - h - 1)) ** 2 for h in range(H))
    expected = min(K * H, main + math.sqrt(K / 2 * ranges * math.log(2 * K * (K + 1) / delta)))
    sizes = {"n_states": S, "n_actions": A, "horizon": H, "delta": delta}
    assert (expected < K * H) == (K == 60_000)
    assert float(ucb_h_regret_bound(K, **sizes)) == pytest.approx(expected, rel=1e-12)
    assert float(ucb_h_regret_bound(K, **sizes, reward_width=3.0)) == pytest.approx(3 * expected, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ucb-h.optimism", "ucb-h.regret"])
def test_verdict_and_controls(key):
    report = verify(key)
    assert report.verdict == "consistent" and report.as_expected
    assert len(report.controls) == 2 and all(control.verdict == "refuted" for control in report.controls)


def test_scaled_bonus_is_not_provable():
    assert UCBH().provable and not UCBH(scale=0.5).provable


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UCBH(delta=0.0), "delta must lie in"),
        (lambda: UCBH(delta=float("nan")), "delta must lie in"),
        (lambda: UCBH(scale=-1.0), "scale must be"),
        (lambda: UCBH(scale=float("nan")), "scale must be"),
        (lambda: ucb_h_regret_bound(0, n_states=1, n_actions=1, horizon=1, delta=0.1), "episodes"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()
