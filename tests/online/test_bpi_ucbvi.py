"""BPI-UCBVI against a slow twin written from the page of the proof, and both sides of what it bounds."""

from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import BPIUCBVI, Problem, identify, run
from theoryrl.online._theorems_identification import two_doors
from theoryrl.online.verbs import act, chance, observe, plan, stopped
from theoryrl.testing import mdps


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def twin(mdp, settings, data, starts):
    """Bounds and policy from lists of (reward, successor) per pair and the list of starts, by the page's formulas."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    c, delta = settings.scale, settings.delta
    up, low = [[0.0] * S for _ in range(H + 1)], [[0.0] * S for _ in range(H + 1)]
    gap = [[0.0] * S for _ in range(H + 1)]
    policy = np.zeros((H, S), int)
    for h in reversed(range(H)):
        W = H - h - 1
        for s in range(S):
            best = {}
            for a in (a for a in range(A) if mdp.action_mask[s, a]):
                seen = data.get((0 if mdp.stationary else h, s, a), [])
                if not seen:
                    best[a] = (float(H - h), 0.0, float(H - h))
                    continue
                n = len(seen)
                ell = math.log(10 * S * A * H * n * (n + 1) / delta)
                beta = ell + math.log(comb(n + S - 1, S - 1))
                r = sum(x for x, _ in seen) / n
                ups, lows, gaps = ([table[h + 1][t] for _, t in seen] for table in (up, low, gap))
                mean = sum(ups) / n
                root = c * math.sqrt(8 * sum((x - mean) ** 2 for x in ups) / n * ell / n)
                rho = c * math.sqrt(ell / (2 * n))
                bonus = rho + root + c * W * (2 * H * ell + 3 * beta) / n + (mean - sum(lows) / n) / H
                loss = 2 * rho + 2 * root + c * W * (4 * H * ell + (H + 9) * beta) / n + (1 + 3 / H) * sum(gaps) / n
                best[a] = (
                    min(H - h, r + mean + bonus),
                    max(0.0, r + sum(lows) / n - bonus),
                    min(H - h, loss),
                )
            up[h][s] = max(x[0] for x in best.values())
            low[h][s] = max(x[1] for x in best.values())
            policy[h, s] = next(a for a in sorted(best) if best[a][0] >= up[h][s] - 1e-9)
            gap[h][s] = best[policy[h, s]][2]
    k = len(starts)
    if k == 0:
        return up, low, gap, policy, float(H)
    rate = (math.log(5 / delta) + math.log(comb(k + S - 1, S - 1))) / k
    y = sum(gap[0][s] for s in starts) / k
    extra = math.sqrt(4 * H * y * rate) + (math.sqrt(16 / 3) + 1 / 3) * H * rate
    return up, low, gap, policy, min(float(H), y + c * extra)


@given(mdp=mdps(), seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 0.05, 0.001]))
def test_twin(mdp, seed, scale):
    settings = BPIUCBVI(0.5, 0.1, scale=scale)
    state, tables, rng = settings.init(problem_of(mdp)), sampler(mdp), np.random.default_rng(seed)
    low, high = mdp.reward_range
    data: dict = {}
    starts = []
    for episode in range(12):
        before = state.policy.copy()
        changed = plan(state, episode)
        assert changed == (not np.array_equal(before, state.policy))
        up, down, gap, policy, error = twin(mdp, settings, data, starts)
        assert np.allclose(state.upper, up, rtol=0, atol=1e-9) and np.allclose(state.lower, down, rtol=0, atol=1e-9)
        if np.array_equal(policy, state.policy):  # two actions may tie within rounding
            assert np.allclose(state.gap, gap, rtol=0, atol=1e-9)
            assert state.about_start[2] == pytest.approx(error, abs=1e-9)
        assert stopped(state) == (state.about_start[2] * (high - low) <= 0.5)
        s = draw_initial(tables, rng)
        starts.append(s)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            assert mdp.action_mask[s, a] and chance(state, h, s, a) == 1
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            unit = (reward - low) / (high - low) if high > low else 0.0
            data.setdefault((0 if mdp.stationary else h, s, a), []).append((unit, t))
            s = t


@pytest.mark.slow
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_the_bounds_hold(mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    result = identify(BPIUCBVI(1e-9, 1e-6), mdp, 60, rng=seed, keep_states=True)
    state, (low, high) = result.states[0], mdp.reward_range
    width, steps = high - low, np.arange(mdp.horizon, -1.0, -1.0)[:, np.newaxis]
    optimal = trl.backward_induction(mdp).value
    slack = 1e-9 * (1 + mdp.horizon * max(abs(low), abs(high)))
    assert (steps * low + width * state.upper >= optimal - slack).all()
    assert (steps * low + width * state.lower <= optimal + slack).all()
    lost = optimal - trl.evaluate(mdp, result.policy[0])
    assert (lost <= width * state.gap + slack).all()
    assert result.gap[0] <= width * state.about_start[2] + slack


def test_it_learns_and_its_value_is_optimistic_in_run():
    mdp = two_doors()
    result = run(BPIUCBVI(0.1), mdp, 3000, seeds=3, watch=True)
    assert (result.least_margin >= -1e-12).all() and result.provable
    found = identify(BPIUCBVI(0.5), mdp, 50_000, seeds=3)
    assert found.stopped.all() and (found.gap <= 1e-12).all() and (found.policy[:, 0, 0] == 1).all()


def test_units_do_not_matter():
    # Rewards r and 4 r - 2, both exact in binary: the same runs, the loss four times as large.
    mdp = trl.FiniteHorizonMDP(
        two_doors().transition, np.array([[0.25, 0.25], [0.75, 0.75]]), horizon=2, reward_range=(0.0, 1.0)
    )
    other = mdp.with_reward(4 * mdp.reward - 2, reward_range=(-2.0, 2.0))
    one, two = (identify(BPIUCBVI(e), m, 20_000, seeds=2, rng=4) for e, m in ((0.5, mdp), (2.0, other)))
    assert np.array_equal(one.episodes, two.episodes) and one.stopped.all()
    assert np.array_equal(one.policy, two.policy)


def test_nothing_to_learn_and_smallest_sizes():
    flat = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[-1.5]]), horizon=1)
    result = identify(BPIUCBVI(1e-6), flat, 5)
    assert result.stopped[0] and result.episodes[0] == 0 and result.gap[0] == 0
    single = trl.FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[0.5]]), horizon=3, reward_law="bernoulli")
    assert identify(BPIUCBVI(0.9), single, 10_000).stopped[0]
