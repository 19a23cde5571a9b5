"""Epsilon-greedy Q-learning against its formula, its chances, and the locks that it cannot open."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.online import EpsilonGreedy, Problem, act, chance, epsilon_greedy_lock_regret, observe, plan, run
from theoryrl.online._theorems_q_learning import lock, lock_protocol
from theoryrl.testing import mdps
from theoryrl.theory import verify


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_table_is_the_weighted_mean_of_its_targets(mdp, seed):
    # Random data fed in by hand; Q summed anew from all targets with the weights alpha_t^i.
    rng = np.random.default_rng(seed)
    H, (low, high) = mdp.horizon, mdp.reward_range
    state = EpsilonGreedy().init(problem_of(mdp))
    targets: dict = {}

    def Q(h, s, a):
        data = targets.get((h, s, a), [])
        alpha = [(H + 1) / (H + i) for i in range(1, len(data) + 1)]
        return sum(
            alpha[i] * math.prod(1 - alpha[j] for j in range(i + 1, len(data))) * data[i] for i in range(len(data))
        )

    for _ in range(8):
        for h in range(H):
            s, t = (int(x) for x in rng.integers(0, mdp.n_states, 2))
            a = int(rng.choice(np.flatnonzero(mdp.action_mask[s])))
            reward = low + (high - low) * rng.random()
            following = max(Q(h + 1, t, b) for b in np.flatnonzero(mdp.action_mask[t])) if h + 1 < H else 0.0
            unit = (reward - low) / (high - low) if high > low else 0.0
            targets.setdefault((h, s, a), []).append(unit + following)
            observe(state, h, s, a, reward, t)
    for h, s, a in np.ndindex(state.q.shape):
        if mdp.action_mask[s, a]:
            assert abs(state.q[h, s, a] - Q(h, s, a)) <= 1e-12
        else:
            assert state.q[h, s, a] == -np.inf
    for h, s in np.ndindex(H, mdp.n_states):
        allowed = np.flatnonzero(mdp.action_mask[s])
        best = max(state.q[h, s, a] for a in allowed)
        assert state.policy[h, s] == next(a for a in allowed if state.q[h, s, a] == best)


@pytest.mark.parametrize(("epsilon", "decay"), [(0.3, 0.0), (1.0, 0.5), (0.0, 0.0)])
def test_actions_come_as_often_as_their_chances_say(epsilon, decay):
    mask = np.array([[True, False, True, True]])
    mdp = trl.FiniteHorizonMDP(np.ones((1, 4, 1)), np.zeros((1, 4)), horizon=1, action_mask=mask)
    state = EpsilonGreedy(epsilon, decay).init(problem_of(mdp))
    plan(state, 3)
    current = epsilon / 4**decay
    expected = np.array([1 - current + current / 3, 0, current / 3, current / 3])
    assert np.allclose([chance(state, 0, 0, a) for a in range(4)], expected, rtol=1e-15, atol=0)
    rng, draws = np.random.default_rng(0), 30_000
    counts = np.bincount([int(act(state, 0, 0, rng)) for _ in range(draws)], minlength=4)
    # Five standard deviations.
    assert (np.abs(counts - draws * expected) <= 5 * np.sqrt(draws * expected * (1 - expected))).all()


def test_without_exploration_nothing_is_ever_tried():
    mdp = trl.FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.0, 1.0]]), horizon=1)
    assert run(EpsilonGreedy(0.0), mdp, 50).regret[0, -1] == 50
    assert run(EpsilonGreedy(0.5), mdp, 1000).episode_regret[0, -1] == pytest.approx(0.25)


@pytest.mark.parametrize(("epsilon", "decay"), [(0.3, 0.0), (1.0, 1.0)])
def test_on_a_shut_lock_regret_is_the_claim(epsilon, decay):
    result = run(EpsilonGreedy(epsilon, decay), lock(8, 3), 300, seeds=3, checkpoints=range(1, 301))
    assert (result.collected == 0).all()
    paid = np.cumsum([1 - (epsilon / k**decay / 3) ** 8 for k in range(1, 301)])
    assert np.allclose(result.regret, paid, rtol=1e-13)
    least = epsilon_greedy_lock_regret(
        result.checkpoints, length=8, n_actions=3, epsilon=epsilon, decay=decay, delta=0.05
    )
    assert (least <= paid + 1e-12).all() and (least >= 0.999 * paid - 0.001).all()


@given(
    length=st.integers(1, 6),
    A=st.integers(1, 4),
    epsilon=st.floats(0, 1),
    decay=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    delta=st.floats(0.001, 0.9),
)
def test_lock_bound_against_a_sum(length, A, epsilon, decay, delta):
    chances = np.array([(epsilon / k**decay / A) ** length for k in range(1, 2001)])
    before = np.concatenate([[0.0], np.cumsum(chances)[:-1]])  # probability of a reward in the first K - 1 episodes
    bound = epsilon_greedy_lock_regret(
        range(1, 2001), length=length, n_actions=A, epsilon=epsilon, decay=decay, delta=delta
    )
    # Wherever the union bound allows K episodes the claim is at most their regret, and never more than the last such.
    paid = np.cumsum(1 - chances)
    allowed = int((before <= delta * (1 + 1e-9)).sum())
    assert (bound <= paid * (1 + 1e-12)).all()
    assert (bound <= paid[allowed - 1] * (1 + 1e-12)).all()
    if decay == 0:
        assert np.allclose(bound[:allowed], paid[:allowed], rtol=1e-9, atol=1e-9) or allowed < 2000


def test_lock_bound_numbers():
    sizes = {"length": 6, "n_actions": 2, "delta": 0.05}
    p = 0.05**6
    bound = epsilon_greedy_lock_regret([10, 10**9], epsilon=0.1, **sizes)
    assert bound[0] == pytest.approx(10 * (1 - p), rel=1e-14)
    assert bound[1] == pytest.approx((1 + math.floor(0.05 / p)) * (1 - p), rel=1e-6)
    # 1/k: never more than 6/5 of the first term in all, so linear for ever.
    late = epsilon_greedy_lock_regret(10**15, epsilon=1.0, decay=1.0, **sizes)
    assert late == pytest.approx(10**15 - 1.2 / 64, rel=1e-14)


def test_protocol_turns_red_when_the_lock_opens():
    # Epsilon 1 on two digits opens at once: what is claimed for a small epsilon is false for it.
    seen = lock_protocol(
        None,
        rng=np.random.SeedSequence(0),
        runs=3,
        jobs=1,
        progress=None,
        learner=EpsilonGreedy(1.0),
        claimed=EpsilonGreedy(0.1),
        episodes=500,
        length=2,
    )
    assert seen.failures.all()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["epsilon-greedy.lock", "epsilon-greedy.decay"])
def test_verdict_and_controls(key):
    report = verify(key)
    assert report.verdict == "consistent" and report.as_expected
    assert len(report.controls) == 2 and all(control.verdict == "refuted" for control in report.controls)
    assert report.tightness == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EpsilonGreedy(1.5), "epsilon must lie in"),
        (lambda: EpsilonGreedy(float("nan")), "epsilon must lie in"),
        (lambda: EpsilonGreedy(decay=-1.0), "decay must be"),
        (lambda: EpsilonGreedy(decay=float("nan")), "decay must be"),
        (lambda: epsilon_greedy_lock_regret(5, length=2, n_actions=2, epsilon=2.0, delta=0.1), "epsilon"),
        (lambda: epsilon_greedy_lock_regret(5, length=2, n_actions=2, epsilon=0.1, delta=0.1, decay=-1), "decay"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()
