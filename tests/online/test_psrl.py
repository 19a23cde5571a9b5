"""PSRL against a slow twin, the laws of what it draws, and the protocol's promises."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import PSRL, Problem, driver, psrl_bayes_regret_bound, run
from theoryrl.online.psrl import draw_row
from theoryrl.online.verbs import act, chance, observe, plan, sample, upper_value
from theoryrl.testing import mdps
from theoryrl.theory import get, verify


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def twin(mdp, prior, episodes, seed):
    """PSRL with dictionaries and numpy's own Dirichlet draws: every action it took and the last model it drew."""
    S, A, H = mdp.n_states, mdp.n_actions, mdp.horizon
    low, high = mdp.reward_range
    tables = sampler(mdp)
    streams = np.random.SeedSequence(seed).spawn(1)[0].spawn(2)
    environment, own = (np.random.Generator(np.random.PCG64(stream)) for stream in streams)
    groups = 1 if mdp.stationary else H
    counts = {(g, s, a): np.full(S, prior) for g in range(groups) for s in range(S) for a in range(A)}
    odds = {key: [1.0, 1.0] for key in counts}
    taken = []
    for _ in range(episodes):
        P, R = {}, {}
        for key in counts:
            if mdp.action_mask[key[1], key[2]]:
                P[key] = own.dirichlet(counts[key])
                success, failure = (own.gamma(shape) for shape in odds[key])
                R[key] = success / (success + failure)
        V, policy = np.zeros(S), {}
        for h in reversed(range(H)):
            new = np.zeros(S)
            for s in range(S):
                q = {a: R[k] + P[k] @ V for a in range(A) if (k := (0 if groups == 1 else h, s, a)) in P}
                policy[h, s] = max(q, key=q.get)
                new[s] = q[policy[h, s]]
            V = new
        s = draw_initial(tables, environment)
        for h in range(H):
            a, coin = policy[h, s], own.random()
            reward, t = draw_step(tables, h, s, a, environment)
            unit = (reward - low) / (high - low) if high > low else 0.0
            key = (0 if groups == 1 else h, s, a)
            counts[key][t] += 1
            odds[key][0 if coin < unit else 1] += 1
            taken.append((h, s, a))
            s = t
    return taken, P, R, counts


@pytest.mark.parametrize("prior", [1.0, 0.4])
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_twin(prior, mdp, seed):
    state = run(PSRL(prior), mdp, 5, rng=seed, keep_states=True).states[0]
    taken, P, R, counts = twin(mdp, prior, 5, seed)
    visits = np.zeros(state.visits.shape, int)
    for h, s, a in taken:
        visits[0 if mdp.stationary else h, s * mdp.n_actions + a] += 1
    assert np.array_equal(visits, state.visits)
    for (g, s, a), row in P.items():
        pair = s * mdp.n_actions + a
        # Numpy divides by the total where the kernel multiplies by its inverse.
        assert np.allclose(state.transition[g, :, pair], row, rtol=1e-14, atol=0)
        assert state.reward[g, pair] == R[g, s, a]
        assert np.array_equal(state.successor_shape[g, pair], counts[g, s, a])


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_plan_is_optimal_in_the_model_drawn(mdp, seed):
    state = run(PSRL(), mdp, 4, rng=seed, keep_states=True).states[0]
    shape = (len(state.reward), mdp.n_states, mdp.n_actions)
    rows = np.ascontiguousarray(state.transition.transpose(0, 2, 1)).reshape(*shape, mdp.n_states)
    reward = np.where(np.isfinite(state.reward), state.reward, 0.0).reshape(shape)
    if mdp.stationary:
        rows, reward = rows[0], reward[0]
    drawn = trl.FiniteHorizonMDP(rows, reward, horizon=mdp.horizon, action_mask=mdp.action_mask)
    best = trl.backward_induction(drawn)
    assert np.allclose(state.value, best.value, rtol=0, atol=1e-12 * (1 + mdp.horizon))
    assert np.allclose(trl.evaluate(drawn, state.policy), best.value, rtol=0, atol=1e-12 * (1 + mdp.horizon))


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(mdp, seed):
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 3])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = PSRL().init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 3, False, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def draws(visits, number=4000, prior=1.0):
    """Models drawn after these visits of the only pair of two states, (probability of state 1, reward) each."""
    mask = np.array([[True], [True]])
    state = PSRL(prior).init(Problem(2, 1, 1, 0.0, 1.0, True, mask))
    for s_next, reward in visits:
        observe(state, 0, 0, 0, reward, s_next)
    rng = np.random.default_rng(0)
    seen = np.zeros((number, 2))
    for row in seen:
        sample(state, rng)
        row[:] = state.transition[0, 1, 0], state.reward[0, 0]
    return seen


@pytest.mark.parametrize("prior", [1.0, 0.3])
def test_the_model_is_drawn_from_the_posterior(prior):
    from scipy.stats import beta, kstest

    # A Kolmogorov-Smirnov test at level 1e-4; the seed is fixed.
    seen = draws([(1, 1.0), (0, 1.0), (1, 0.0), (1, 1.0)], prior=prior)
    assert kstest(seen[:, 0], beta(prior + 3, prior + 1).cdf).pvalue > 1e-4
    assert kstest(seen[:, 1], beta(4, 2).cdf).pvalue > 1e-4
    # The same draws are not those of a posterior that misses one visit.
    assert kstest(seen[:, 0], beta(prior + 2, prior + 1).cdf).pvalue < 1e-4


def test_a_fractional_reward_is_a_success_with_its_own_probability():
    state = PSRL().init(Problem(1, 1, 1, -2.0, 2.0, True, np.array([[True]])))
    rng = np.random.default_rng(0)
    for _ in range(4000):
        act(state, 0, 0, rng)
        observe(state, 0, 0, 0, -1.0, 0)
    # A quarter of the range: four standard deviations are 110.
    assert abs(state.reward_shape[0, 0, 0] - 1001) <= 110
    assert state.reward_shape[0, 0].sum() == 4002


def test_rows_that_underflow_become_a_vertex():
    class Silent:
        def standard_gamma(self, shape):
            return 0.0

        def integers(self, low, high):
            return high - 1

    row = np.zeros(3)
    plain(draw_row)(np.full(3, 0.01), row, Silent())
    assert row.tolist() == [0.0, 0.0, 1.0]


def test_rows_whose_sum_has_no_reciprocal_are_distributions():
    class Faint:
        def standard_gamma(self, shape):
            return 1e-310

        def integers(self, low, high):
            return low

    row = np.zeros(3)
    plain(draw_row)(np.full(3, 0.01), row, Faint())
    assert row.tolist() == [1.0, 0.0, 0.0]


def test_ranks_of_rewards_where_rows_are_sure():
    ranks = get("psrl.posterior-sampling").protocol
    for model in (trl.random_mdp(1, 2, 1, rng=0), trl.random_mdp(1, 2, 2, rng=0, staged=True)):
        seen = ranks(model, rng=np.random.SeedSequence(1), runs=200, jobs=None, progress=None)
        # 20 of 200 are expected to fail; 45 are six standard deviations away.
        assert 1 <= seen.failures.sum() <= 45


@given(mdp=mdps(masked=False), seed=st.integers(0, 1000))
def test_it_never_sees_what_it_did_not_visit(mdp, seed):
    mdp = mdp.to_dense()
    if mdp.reward_law == "outcome":
        mdp = mdp.with_reward(mdp.reward, reward_range=mdp.reward_range)
    before = run(PSRL(), mdp, 3, rng=seed, keep_states=True)
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    unseen = np.broadcast_to((before.states[0].visits == 0).reshape(-1, *shape[1:]), shape)
    transition = np.array(np.broadcast_to(mdp.transition_layers, (*shape, mdp.n_states)))
    reward = np.array(np.broadcast_to(mdp.reward_layers, shape))
    transition[unseen] = np.eye(mdp.n_states)[0]
    reward[unseen] = mdp.reward_range[0]
    noise = None if mdp.reward_noise is None else np.where(unseen, 0.0, mdp.reward_noise)
    if mdp.stationary:
        transition, reward, noise = transition[0], reward[0], None if noise is None else noise[0]
    other = trl.FiniteHorizonMDP(
        transition,
        reward,
        horizon=mdp.horizon,
        initial=mdp.initial,
        reward_law=mdp.reward_law,
        reward_noise=noise,
        reward_range=mdp.reward_range,
    )
    after = run(PSRL(), other, 3, rng=seed, keep_states=True)
    for one, two in zip(before.states[0], after.states[0], strict=True):
        assert np.array_equal(one, two)


@given(mdp=mdps(), seed=st.integers(0, 100))
def test_protocol(mdp, seed):
    state = PSRL().init(problem_of(mdp))
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


def test_learning():
    # In its second half it loses less than a quarter of the optimal value on average.
    mdp = trl.envs.make("riverswim", n_states=4, horizon=12)
    played = run(PSRL(), mdp, 3000, seeds=4, checkpoints=[1500, 3000])
    late = played.regret[:, 1] - played.regret[:, 0]
    assert (late < 0.25 * 1500 * trl.backward_induction(mdp).value[0, 0]).all()


@pytest.mark.parametrize("prior", [0.0, -1.0, float("nan"), float("inf"), 0.001])
def test_bad_settings(prior):
    with pytest.raises(ValueError, match="prior must be finite and at least"):
        PSRL(prior)


@pytest.mark.parametrize("stationary", [True, False])
def test_bound_against_plain_sums(stationary):
    S, A, H, K = 2, 3, 4, 60_000
    groups = 1 if stationary else H
    visits = K * H / (S * A * groups)

    def width(n):
        # The radius of a reward, twice, is covered by that of its row.
        row = math.sqrt(2 * (S * math.log(2) + math.log(2 * groups * S * A * K)) / (n + 1))
        assert 2 * math.sqrt(math.log(4 * groups * S * A * K) / (2 * (n + 3))) <= row
        return min(1.0, row) if n else 1.0

    summed = sum(width(n) for n in range(int(visits)))
    summed += (visits - int(visits)) * width(int(visits))
    main = H * S * A * (H - 1 + summed) if stationary else H * (H + 1) / 2 * S * A * summed
    sizes = {"n_states": S, "n_actions": A, "horizon": H, "stationary": stationary}
    bound = psrl_bayes_regret_bound([K, K // 2, 1], **sizes, reward_width=3.0)
    assert math.isclose(bound[0], 3 * (main + 2 * H), rel_tol=1e-9)
    assert bound[0] < 3 * K * H and bound[1] < bound[0] and bound[2] == 3 * H
    assert psrl_bayes_regret_bound(K, **sizes).shape == ()
    with pytest.raises(ValueError, match="episodes must be"):
        psrl_bayes_regret_bound(0, **sizes)


@pytest.mark.parametrize("total", [1.0, 4.0, 40.0])
def test_posterior_leaves_its_mean_no_more_often_than_the_proof_says(total):
    # The inequality behind the bound: Beta(a, b) exceeds its mean by t with probability at most exp(-2 (a+b+1) t^2).
    from scipy.stats import beta

    for share in (0.05, 0.3, 0.5, 0.8):
        law = beta(share * total, (1 - share) * total)
        for t in np.linspace(0.01, 1 - share, 40):
            assert law.sf(share + t) <= math.exp(-2 * (total + 1) * t * t) * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["psrl.posterior-sampling", "psrl.bayes-regret"])
def test_verdict_and_controls(key):
    report = verify(key, rng=1)
    assert report.verdict == "consistent" and report.as_expected
    assert len(report.controls) == 2 and all(control.verdict == "refuted" for control in report.controls)


@pytest.mark.slow
def test_theorems_on_time_varying_sizes_and_on_models_they_are_not_about():
    bare = dataclasses.replace(get("psrl.bayes-regret"), controls=get("psrl.bayes-regret").controls[:1])
    staged = trl.random_mdp(2, 2, 3, rng=0, staged=True)
    assert verify(bare, staged, runs=30).verdict == "consistent"
    ranks = get("psrl.posterior-sampling").protocol
    seen = ranks(staged, rng=np.random.SeedSequence(0), runs=200, jobs=None, progress=None)
    # 20 of 200 are expected to fail; 45 are six standard deviations away.
    assert 1 <= seen.failures.sum() <= 45 and "time-varying" in seen.models[0]
    mask = np.array([[True, False], [True, True]])
    masked = trl.FiniteHorizonMDP(np.full((2, 2, 2), 0.5), np.ones((2, 2)), horizon=2, action_mask=mask)
    report = verify("psrl.bayes-regret", masked)
    assert report.verdict == "not-applicable" and "forbidden" in report.note
