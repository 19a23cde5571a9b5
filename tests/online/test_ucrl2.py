"""UCRL2 against a slow twin and linear programs, its phases, and the protocol's promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import UCRL2, Problem, driver, run, ucrl2_regret_bound
from theoryrl.online.ucrl2 import best_expectation
from theoryrl.online.verbs import act, chance, observe, plan, upper_value
from theoryrl.testing import mdps
from theoryrl.theory import get, verify


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def favourable(p, radius, v):
    """The best row as in the paper: raise the best state, then lower the worst ones until it sums to 1."""
    order = sorted(range(len(v)), key=lambda s: (-v[s], s))
    p = list(p)
    p[order[0]] = min(1.0, p[order[0]] + radius / 2)
    for s in reversed(order):
        if sum(p) > 1:
            p[s] = max(0.0, 1 - (sum(p) - p[s]))
    return sum(x * y for x, y in zip(p, v, strict=True))


def planned(mdp, settings, seen):
    """Q of a new phase from the lists of what was seen, (reward in units of the range, successor) each."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    groups = 1 if mdp.stationary else H
    V, Q = [0.0] * S, {}
    for h in reversed(range(H)):
        for s in range(S):
            for a in np.flatnonzero(mdp.action_mask[s]):
                data = seen.get((h if groups > 1 else 0, s, a), [])
                n = len(data)
                if n == 0:
                    Q[h, s, a] = 1 + max(V)
                    continue
                L = math.log(groups * S * A * n * (n + 1) / settings.delta)
                b = settings.scale * math.sqrt((math.log(6) + L) / (2 * n))
                d = settings.scale * math.sqrt(2 * (S * math.log(2) + math.log(3) + L) / n)
                p = [sum(t == x for _, t in data) / n for x in range(S)]
                Q[h, s, a] = min(1, sum(r for r, _ in data) / n + b) + favourable(p, d, V)
        V = [max(Q[h, s, a] for a in np.flatnonzero(mdp.action_mask[s])) for s in range(S)]
    return Q


@pytest.mark.parametrize("scale", [1.0, 0.1])
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_twin(scale, mdp, seed):
    settings = UCRL2(0.07, scale)
    state = settings.init(problem_of(mdp))
    low, high = mdp.reward_range
    tables, rng = sampler(mdp), np.random.default_rng(seed)
    seen: dict = {}
    before, over, Q, phases = {}, True, {}, 0
    for episode in range(9):
        if over:
            Q, phases = planned(mdp, settings, seen), phases + 1
            before = {key: len(data) for key, data in seen.items()}
        plan(state, episode)
        for (h, s, a), q in Q.items():
            assert abs(state.q[h, s, a] - q) <= 1e-10
        s = draw_initial(tables, rng)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            assert Q[h, s, a] >= max(Q[h, s, b] for b in np.flatnonzero(mdp.action_mask[s])) - 1e-10
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            key = (0 if mdp.stationary else h, s, a)
            seen.setdefault(key, []).append(((reward - low) / (high - low) if high > low else 0.0, t))
            s = t
        over = any(len(data) - before.get(key, 0) >= max(1, before.get(key, 0)) for key, data in seen.items())
    assert state.phases[0] == phases


@given(
    count=st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any),
    radius=st.floats(0, 3),
    data=st.data(),
)
def test_best_expectation_solves_its_linear_program(count, radius, data):
    from scipy.optimize import linprog

    S, n = len(count), sum(count)
    v = np.array(data.draw(st.lists(st.floats(0, 4), min_size=S, max_size=S)))
    p = np.array(count) / n
    # Variables: the row q and t >= |q - p|.
    eye = np.eye(S)
    top, bottom = np.hstack([eye, -eye]), np.hstack([-eye, -eye])
    sums = np.hstack([np.zeros(S), np.ones(S)])
    solution = linprog(
        np.hstack([-v, np.zeros(S)]),
        A_ub=np.vstack([top, bottom, sums]),
        b_ub=np.concatenate([p, -p, [radius]]),
        A_eq=[np.hstack([np.ones(S), np.zeros(S)])],
        b_eq=[1.0],
    )
    order = np.argsort(-v, kind="stable")
    assert abs(best_expectation(np.array(count, float), float(n), radius, v, order) + solution.fun) <= 1e-8


def test_planning_changes_neither_counts_nor_rewards():
    # A known fault elsewhere: extended value iteration that writes the favourable row into the estimate.
    mdp = trl.random_mdp(4, 2, 5, rng=0)
    state = run(UCRL2(), mdp, 30, keep_states=True).states[0]
    kept = [np.array(field) for field in (state.successor_count, state.visits, state.reward_sum)]
    state.phases[1] = 1
    plan(state, 30)
    first = state.q.copy()
    for one, other in zip(kept, (state.successor_count, state.visits, state.reward_sum), strict=True):
        assert np.array_equal(one, other)
    state.phases[1] = 1
    plan(state, 31)
    assert np.array_equal(first, state.q)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_phases_are_few(mdp, seed):
    # A pair ends a phase at its first visit, then only when its visits have doubled: 1 + log2 N times.
    state = run(UCRL2(), mdp, 40, rng=seed, keep_states=True).states[0]
    n = state.visits[state.visits > 0]
    assert state.phases[0] <= 1 + (1 + np.log2(n)).sum()


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(mdp, seed):
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 4])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = UCRL2(scale=0.2).init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 4, True, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_optimism(mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    result = run(UCRL2(1e-6), mdp, 30, rng=seed, watch=True)
    assert result.least_margin[0] >= -1e-9 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))


@given(mdp=mdps(), seed=st.integers(0, 100))
def test_protocol(mdp, seed):
    state = UCRL2(0.2, scale=0.1).init(problem_of(mdp))
    tables, rng = sampler(mdp), np.random.default_rng(seed)
    before = state.policy.copy()
    for episode in range(6):
        changed = plan(state, episode)
        assert changed == (not np.array_equal(before, state.policy))
        before = state.policy.copy()
        for h in range(mdp.horizon):
            assert (state.value[h] <= (mdp.horizon - h) * (1 + 1e-12)).all()
        s = draw_initial(tables, rng)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            assert mdp.action_mask[s, a] and chance(state, h, s, a) == 1
            low, high = mdp.reward_range
            upper = (mdp.horizon - h) * low + (high - low) * state.value[h, s]
            assert upper_value(state, h, s) == upper
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            s = t


def test_the_state_knows_only_what_was_visited():
    # Two models that differ where no run goes: states 1 and 2.
    P = np.zeros((3, 1, 3))
    P[:, 0, 0] = 1.0
    other = P.copy()
    other[1:, 0] = [0.0, 0.5, 0.5]
    models = [
        trl.FiniteHorizonMDP(rows, np.array([[0.5], [x], [x]]), horizon=3, reward_range=(0.0, 1.0))
        for rows, x in ((P, 0.1), (other, 0.9))
    ]
    states = [run(UCRL2(), mdp, 20, rng=4, keep_states=True).states[0] for mdp in models]
    for one, two in zip(*states, strict=True):
        assert np.array_equal(one, two)


def test_scaled_radii_are_not_provable():
    assert UCRL2().provable and not UCRL2(scale=0.5).provable


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"delta": 1.0}, "delta must lie in"), ({"delta": float("nan")}, "delta"), ({"scale": -1.0}, "scale must be")],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        UCRL2(**settings)


def cost_of_visits(total, overshoot, width):
    """The most that `total` visits of one pair can cost when a phase may last `overshoot` visits too long."""
    cost, n, j = 0.0, 0, 0
    while j < total:
        length = max(1, n) + overshoot
        cost += min(length, total - j) * (1.0 if n == 0 else min(1.0, width(n)))
        j += length
        n = j
    return cost


@pytest.mark.parametrize("stationary", [True, False])
def test_bound_covers_every_course_of_phases(stationary):
    S, A, H, delta = 2, 2, 3, 0.1
    groups = 1 if stationary else H

    def width(n):
        log = math.log(groups * S * A * n * (n + 1) / delta)
        reward = math.sqrt((math.log(6) + log) / (2 * n))
        return max(2 * reward, math.sqrt(2 * (S * math.log(2) + math.log(3) + log) / n))

    for K in (20_000, 100_000):
        steps = [H - h for h in range(H)]
        if stationary:
            visits = K * H // (S * A)
            costs = [cost_of_visits(visits, overshoot, width) for overshoot in range(H)]
            main = [H * S * A * cost for cost in costs]
        else:
            main = [sum(steps) * S * A * cost_of_visits(K // (S * A), 0, width)]
        noise = math.sqrt(K / 2 * sum(w * w for w in steps) * math.log(3 * K * (K + 1) / delta))
        bound = float(ucrl2_regret_bound(K, n_states=S, n_actions=A, horizon=H, delta=delta, stationary=stationary))
        assert bound < K * H
        assert max(main) + noise <= bound <= 1.5 * (max(main) + noise)
        visits = K * H / (S * A * groups)
        summed = 1 + sum(min(1.0, width((i + 1) / 2)) for i in range(1, int(visits)))
        summed += (visits - int(visits)) * min(1.0, width((int(visits) + 1) / 2))
        stated = H * S * A * (H - 1 + summed) if stationary else sum(steps) * S * A * summed
        assert math.isclose(bound, stated + noise, rel_tol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ucrl2.optimism", "ucrl2.regret"])
def test_verdict_and_controls(key):
    report = verify(key, rng=1)
    assert report.verdict == "consistent" and report.as_expected
    assert len(report.controls) == 2 and all(control.verdict == "refuted" for control in report.controls)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["ucrl2.optimism", "ucrl2.regret"])
def test_time_varying_model_with_losses(key):
    mdp = trl.random_mdp(3, 2, 4, rng=5, staged=True)
    mdp = mdp.with_reward(mdp.reward * -7.0, reward_range=(-7.0, 0.0))
    protocol = get(key).protocol
    seen = protocol(mdp, rng=np.random.SeedSequence(1), runs=10, jobs=None, progress=None, episodes=300)
    assert not seen.failures.any()


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_names_of_states_do_not_matter(mdp, seed):
    S, H = mdp.n_states, mdp.horizon
    state = run(UCRL2(scale=0.3), mdp, 8, rng=seed, keep_states=True).states[0]
    order = np.random.default_rng(seed).permutation(S)
    other = UCRL2(scale=0.3).init(problem_of(mdp))
    other.visits[:] = state.visits[:, order]
    other.reward_sum[:] = state.reward_sum[:, order]
    other.successor_count[:] = state.successor_count[:, order][..., order]
    other.action_mask[:] = state.action_mask[order]
    for learner in (state, other):
        learner.phases[1] = 1
        plan(learner, 8)
    # The two add up in different orders.
    assert np.allclose(other.value, state.value[:, order], rtol=0, atol=1e-12 * H)
    allowed = np.isfinite(other.q)
    assert np.allclose(other.q[allowed], state.q[:, order][allowed], rtol=0, atol=1e-12 * H)
