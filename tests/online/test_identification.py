"""The driver that stops, exact judgements of what is handed over, and the bounds on stopping times."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.mdp.sampling import sampler
from theoryrl.online import (
    BPIUCBVI,
    RFUCRL,
    Problem,
    RFExpress,
    Uniform,
    bounds,
    hard_rewards,
    identify,
    plug_in_losses,
)
from theoryrl.online import identification as module
from theoryrl.online._counting import TRANSFER, bound_over_starts, empirical_transition
from theoryrl.online._theorems_identification import THEOREMS, two_coins, two_doors
from theoryrl.online.bounds.identification import _sums_of_widths, log_histograms
from theoryrl.testing import mdps
from theoryrl.theory import get, verify
from theoryrl.theory.verdict import decide_probability

LEARNERS = [BPIUCBVI, RFUCRL, RFExpress]


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


# ---- the driver


@pytest.mark.parametrize("learner", LEARNERS)
@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(learner, mdp, seed):
    settings, most = learner(1.0, 0.2, scale=0.1), 6
    states, played = [], []
    for explore in (module._cached, plain(module._cached)):
        streams = (np.random.Generator(np.random.PCG64(seed + i)) for i in (0, 1000))
        state = settings.init(problem_of(mdp))
        played.append(explore(state, sampler(mdp), mdp.horizon, 0, most + 1, most, *streams))
        states.append(state)
    assert played[0] == played[1]
    for one, two in zip(*states, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("learner", LEARNERS)
def test_results_do_not_depend_on_workers_chunks_or_seeds(learner):
    mdp = two_doors()
    settings = learner(1.0, 0.2, scale=0.3)
    whole = identify(settings, mdp, 5000, seeds=4, rng=7, jobs=1, keep_states=True)
    assert whole.stopped.all() and whole.provable is False
    for other in (
        identify(settings, mdp, 5000, seeds=4, rng=7, jobs=3, keep_states=True),
        identify(settings, mdp, 5000, seeds=2, rng=7, keep_states=True),
    ):
        rows = len(other.episodes)
        assert np.array_equal(whole.episodes[:rows], other.episodes)
        for one, two in zip(whole.states[:rows], other.states, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(one, two, strict=True))
    # Stopping is not put off: one episode fewer, and it has not stopped; a limit in the middle changes nothing before.
    k = int(whole.episodes[0])
    short = identify(settings, mdp, k - 1, rng=7)
    assert not short.stopped[0] and short.episodes[0] == k - 1
    assert identify(settings, mdp, k, rng=7).stopped[0]


@pytest.mark.parametrize("learner", LEARNERS)
@given(mdp=mdps(masked=False), seed=st.integers(0, 1000))
def test_a_learner_never_sees_what_it_did_not_visit(learner, mdp, seed):
    mdp = mdp.to_dense()
    if mdp.reward_law == "outcome":
        mdp = mdp.with_reward(mdp.reward, reward_range=mdp.reward_range)
    before = identify(learner(0.01), mdp, 3, rng=seed, keep_states=True)
    unseen = before.states[0].visits == 0
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    transition = np.array(np.broadcast_to(mdp.transition_layers, (*shape, mdp.n_states)))
    transition[np.broadcast_to(unseen, shape)] = np.eye(mdp.n_states)[0]
    other = trl.FiniteHorizonMDP(
        transition[0] if mdp.stationary else transition,
        mdp.reward,
        horizon=mdp.horizon,
        initial=mdp.initial,
        reward_law=mdp.reward_law,
        reward_noise=mdp.reward_noise,
        reward_range=mdp.reward_range,
    )
    after = identify(learner(0.01), other, 3, rng=seed, keep_states=True)
    for one, two in zip(before.states[0], after.states[0], strict=True):
        assert np.array_equal(one, two)


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_gap_is_the_exact_loss_of_the_policy(mdp, seed):
    result = identify(BPIUCBVI(0.01), mdp, 4, seeds=2, rng=seed)
    optimal = trl.backward_induction(mdp).value[0]
    for policy, gap in zip(result.policy, result.gap, strict=True):
        lost = float(mdp.initial @ (optimal - trl.evaluate(mdp, policy)[0]))
        assert abs(gap - lost) <= 1e-11 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))
        assert gap >= -1e-9


def test_a_frame_and_what_is_refused():
    mdp = two_doors()
    result = identify(BPIUCBVI(2.0), mdp, 10, seeds=2)
    assert list(result.to_frame().columns) == ["learner", "model", "seed", "episodes", "stopped", "gap"]
    # What H steps can lose at most is enough at once.
    assert result.episodes.tolist() == [0, 0] and result.stopped.all()
    with pytest.raises(ValueError, match="keeps no model"):
        result.plug_in_losses(np.zeros((1, 2, 2)))
    assert np.isnan(identify(RFUCRL(0.5), mdp, 2).gap).all() and identify(RFUCRL(0.5), mdp, 2).policy is None
    for learner in (Uniform(), BPIUCBVI, 3):
        with pytest.raises(TypeError, match="learner must be settings"):
            identify(learner, mdp, 2)
    with pytest.raises(TypeError, match="FiniteHorizonMDP"):
        identify(BPIUCBVI(), mdp.with_discount(0.9), 2)
    with pytest.raises(ValueError, match="max_episodes must be at least 1"):
        identify(BPIUCBVI(), mdp, 0)
    seen = []
    identify(BPIUCBVI(2.0), mdp, 10, seeds=3, progress=lambda *args: seen.append(args))
    assert [args[:2] for args in seen] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize(
    "setting, message",
    [
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"epsilon": math.nan}, "epsilon must be positive"),
        ({"delta": 1.0}, "delta must lie"),
        ({"delta": math.nan}, "delta must lie"),
        ({"scale": -1.0}, "scale must be"),
        ({"scale": math.nan}, "scale must be"),
    ],
)
def test_bad_settings(learner, setting, message):
    with pytest.raises(ValueError, match=message):
        learner(**setting)


# ---- tools of the proofs


@given(st.integers(0, 10**6))
def test_transfer(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(4, 0.5), size=2) * 0.999 + 0.00025
    f, b = rng.random(4) * 3.0, 3.0
    alpha = float((p * np.log(p / q)).sum())
    variance = {name: float(w @ (f - w @ f) ** 2) for name, w in (("p", p), ("q", q))}
    far = abs(float((p - q) @ f))
    assert far <= math.sqrt(2 * alpha * variance["q"]) + alpha * b / 3 + 1e-9
    assert variance["q"] <= 2 * variance["p"] + 8 / 3 * alpha * b * b + 1e-9
    assert far <= math.sqrt(4 * alpha * variance["p"]) + TRANSFER * alpha * b + 1e-9


def test_the_histogram_bound_fails_at_most_that_often():
    # P(some n <= 60 with n KL > log(1 / 0.2) + log C(n + 2, 2)) <= 0.2; without the last term it is not.
    rng, p, broken, naive = np.random.default_rng(0), np.array([0.5, 0.3, 0.2]), 0, 0
    for _ in range(400):
        counts = np.cumsum(np.eye(3)[rng.choice(3, p=p, size=60)], axis=0)
        n = np.arange(1, 61)
        with np.errstate(divide="ignore", invalid="ignore"):
            kl = np.nansum(counts * np.log(counts / n[:, None] / p), axis=1)
        broken += bool((kl > math.log(5) + np.log([comb(k + 2, 2) for k in n])).any())
        naive += bool((kl > math.log(5)).any())
    assert broken <= 80 and naive > 80


def test_log_histograms():
    for n, states in product((1, 2, 7, 300), (1, 2, 5, 40)):
        exact = math.log(comb(n + states - 1, states - 1))
        assert float(log_histograms(np.array(float(n)), states)) == pytest.approx(exact, abs=1e-9)
    huge = np.array([1e9, 1e15, 2.0**62])
    expected = 2 * np.log(huge) - math.log(2)  # C(n + 2, 2)
    assert np.allclose(log_histograms(huge, 3), expected, rtol=1e-6)
    assert (log_histograms(huge, 1) == 0).all()


def test_counters_agree_with_the_histogram_formula():
    state = identify(BPIUCBVI(0.01), two_doors(), 500, keep_states=True).states[0]
    for count, log in zip(state.visits.ravel(), state.histograms.ravel(), strict=True):
        assert log == pytest.approx(math.log(comb(int(count) + 1, 1)), abs=1e-9)
    assert state.about_start[0] == 500 == state.starts.sum()
    assert state.about_start[1] == pytest.approx(math.log(501), abs=1e-9)


@given(st.integers(0, 10**6))
def test_bound_over_starts(seed):
    rng = np.random.default_rng(seed)
    starts, table, most = rng.integers(0, 30, size=3).astype(float), rng.random(3) * 2.0, 2.0
    k = starts.sum()
    log = math.log(comb(int(k) + 2, 2))
    value = bound_over_starts(starts, np.array([k, log, 0.0]), table, most, 1.5, 1.0)
    if k == 0:
        assert value == most
        return
    y, rate = float(starts @ table) / k, (1.5 + log) / k
    assert value == pytest.approx(min(most, y + math.sqrt(4 * most * y * rate) + TRANSFER * most * rate))
    # The other direction, for every mu within the divergence: at most 2 mu g + 7.5 b b_k / k.
    mu = rng.dirichlet(np.ones(3))
    hat = starts / k
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.nansum(hat * np.log(hat / mu)) <= rate
    if near:
        assert float(mu @ table) <= value + 1e-9
        assert value <= 2 * float(mu @ table) + 7.5 * most * rate


def test_empirical_transition_counts():
    mdp = trl.random_mdp(3, 2, 4, rng=0)
    state = identify(RFUCRL(0.01), mdp, 200, keep_states=True, rng=3).states[0]
    table = RFUCRL().model(state)
    assert table.shape == (3, 2, 3) and np.allclose(table.sum(axis=2), 1)
    for s, a in np.ndindex(3, 2):
        n = state.visits[0, s, a]
        for i in range(state.n_successors[0, s, a]):
            t, seen = state.successor[0, s, a, i], state.successor_count[0, s, a, i]
            assert table[s, a, t] == pytest.approx(seen / n)
    empty = empirical_transition(
        np.zeros((1, 1, 1), int), np.zeros((1, 1, 1), int), np.zeros((1, 1, 1, 4), int), np.zeros((1, 1, 1, 4))
    )
    assert (empty == 0.25).all()


# ---- plug-in planning


@given(mdp=mdps(), seed=st.integers(0, 1000))
def test_plug_in_losses_against_one_reward_at_a_time(mdp, seed):
    rng = np.random.default_rng(seed)
    shape = (mdp.n_states, mdp.n_actions, mdp.n_states)
    wrong = rng.dirichlet(np.ones(mdp.n_states), size=shape[:2])
    rewards = rng.random((3, mdp.horizon, *shape[:2]))
    losses = plug_in_losses(mdp, wrong, rewards)
    for reward, loss in zip(rewards, losses, strict=True):
        truth = mdp.with_reward(reward)
        belief = trl.FiniteHorizonMDP(
            wrong, reward, horizon=mdp.horizon, initial=mdp.initial, action_mask=mdp.action_mask
        )
        policy = trl.backward_induction(belief).policy
        value = trl.backward_induction(truth).value[0] - trl.evaluate(truth, policy)[0]
        assert loss == pytest.approx(float(mdp.initial @ value), abs=1e-10)


def test_hard_rewards_grow_from_random_ones():
    mdp = trl.random_mdp(3, 2, 4, rng=2)
    wrong = np.random.default_rng(1).dirichlet(np.ones(3), size=(3, 2))
    found, begun = (hard_rewards(mdp, wrong, 0, starts=20, rounds=rounds) for rounds in (5, 0))
    assert found.shape == (4 * 3 * 2 + 20, 4, 3, 2) and ((found >= 0) & (found <= 1)).all()
    assert (found[:24].sum(axis=(1, 2, 3)) == 1).all() and len(np.unique(found[:24].reshape(24, -1), axis=0)) == 24
    before, after = (plug_in_losses(mdp, wrong, rewards) for rewards in (begun, found))
    assert (after >= before).all() and after.max() > before.max() and after[24:].mean() > 1.5 * before[24:].mean()
    assert np.array_equal(found, hard_rewards(mdp, wrong, 0, starts=20))
    assert np.abs(plug_in_losses(mdp, mdp.transition, found)).max() < 1e-12
    large = hard_rewards(trl.random_mdp(6, 3, 20, rng=0), np.full((6, 3, 6), 1 / 6), starts=2, rounds=1)
    assert large.shape[0] == 258 and len(np.unique(large[:256].reshape(256, -1).argmax(axis=1))) == 256


# ---- bounds


def slow_sum(width, visits):
    whole = math.floor(visits)
    terms = [1.0] + [min(1.0, width(n)) for n in range(1, whole + 1)]
    return sum(terms[:whole]) + (visits - whole) * terms[whole]


def slow_met(K, target, width, caps, q, S, A, H, events, stationary):
    cap = caps[0]
    powers = [q**h for h in range(len(caps))]
    if stationary:
        main = cap * powers[-1] * S * A * (H - 1 + slow_sum(lambda n: width(n) / cap, K * H / (S * A)))
    else:
        main = cap * sum(powers) * S * A * slow_sum(lambda n: width(n) / cap, K / (S * A))
    late = sum(p * c for p, c in zip(powers, caps, strict=True)) * math.log(events)
    start = math.log(events) + math.log(comb(K + S - 1, S - 1))
    return (K - 1) * target >= 2 * math.e / (math.e - 1) * (main + late) + 7.5 * cap * start * (1 + math.log(K))


@pytest.mark.parametrize("stationary", [True, False])
def test_sample_bounds_against_the_formulas(stationary):
    S, A, H, delta = 2, 2, 2, 0.1
    sizes = dict(n_states=S, n_actions=A, horizon=H, delta=delta, stationary=stationary)

    def hist(n):
        return math.log(comb(n + S - 1, S - 1))

    def bpi(n):
        ell = math.log(10 * S * A * H * n * (n + 1) / delta)
        beta, W = ell + hist(n), H - 1
        return (
            math.sqrt(2 * ell / n)
            + 2 * W * math.sqrt(2 * ell / n)
            + W * (4 * H * ell + (H + 9) * beta) / n
            + (1 + 3 / H) * W * (H / 2 + 1 / 3) * beta / n
        )

    def rate(n):
        return (math.log(3 * (1 if stationary else H) * S * A / delta) + hist(n)) / n

    W = H - 1
    cases = [
        (bounds.bpi_ucbvi_sample_bound, 1.9, 1.9, bpi, [2, 1], (1 + 1 / H) * (1 + 3 / H), 5),
        (
            bounds.rf_ucrl_sample_bound,
            1.9,
            0.95,
            lambda n: W * math.sqrt(rate(n) / 2) + W * (H / 2 + 1 / 3) * rate(n),
            [1],
            1 + 1 / H,
            3,
        ),
        (
            bounds.rf_express_sample_bound,
            3.0,
            None,
            lambda n: ((2 * H + 3) * W + (1 + 1 / H) * W * (H / 2 + 1 / 3)) * rate(n),
            [1],
            (1 + 1 / H) ** 2,
            3,
        ),
    ]
    for bound, epsilon, target, width, caps, q, events in cases:
        if target is None:
            target = ((-math.sqrt(math.e) + math.sqrt(math.e + 2 * epsilon)) / 2) ** 2
            assert 2 * (math.sqrt(math.e * target) + target) == pytest.approx(epsilon)
        enough = bound(epsilon, **sizes)
        check = partial(slow_met, target=target, width=width, caps=caps, q=q, S=S, A=A, H=H, events=events / delta)
        if enough < 10**5:
            assert check(enough, stationary=stationary) and not check(enough - 1, stationary=stationary)
        else:  # past the exact sum: an upper bound, and close
            assert check(enough, stationary=stationary) and not check(int(0.97 * enough), stationary=stationary)


def test_sums_of_widths_lie_above():
    ends, sums = _sums_of_widths(lambda n: np.minimum(1.0, 3.0 / np.sqrt(n)), 2.0**63)
    for count in (1, 10, 99_999, 10**6, 3 * 10**6):
        exact = 1 + np.minimum(1.0, 3.0 / np.sqrt(np.arange(1.0, count))).sum()
        assert exact * (1 - 1e-12) <= np.interp(count, ends, sums) <= 1.003 * exact
    slopes = np.diff(sums) / np.diff(ends)
    assert (np.diff(slopes) <= 1e-12).all()  # concave


def test_sample_bounds_scale_and_refuse():
    sizes = dict(n_states=3, n_actions=2, horizon=3, delta=0.05)
    for bound in (bounds.bpi_ucbvi_sample_bound, bounds.rf_ucrl_sample_bound, bounds.rf_express_sample_bound):
        ladder = [bound(epsilon, **sizes) for epsilon in (0.01, 0.1, 1.0)]
        assert ladder[0] > 50 * ladder[1] > 2000 * ladder[2] > 0
        assert bound(0.5, **(sizes | {"delta": 1e-6})) > bound(0.5, **sizes)
        assert bound(100.0, **sizes) == 1
        for change, message in (
            ({"delta": 0.0}, "delta"),
            ({"horizon": 0}, "horizon"),
            ({"delta": math.nan}, "delta"),
            ({"n_states": 1.5}, "n_states"),
        ):
            with pytest.raises(ValueError, match=message):
                bound(0.5, **(sizes | change))
        with pytest.raises(ValueError, match="epsilon"):
            bound(math.nan, **sizes)
        with pytest.raises(ValueError, match="beyond"):
            bound(1e-9, **sizes)
    one = bounds.bpi_ucbvi_sample_bound(0.5, **sizes)
    assert bounds.bpi_ucbvi_sample_bound(1.0, **sizes, reward_width=2.0) == one
    # Above what no learner can do without.
    low = bounds.bpi_lower_bound(0.1, n_states=6, n_actions=2, horizon=6, delta=0.05)
    high = bounds.bpi_ucbvi_sample_bound(0.1, n_states=6, n_actions=2, horizon=6, delta=0.05, stationary=False)
    assert 0 < low < high


# ---- theorems


@pytest.mark.slow
@pytest.mark.parametrize("key", [theorem.key for theorem in THEOREMS])
def test_verdicts(key):
    report = verify(key)
    assert report.verdict == "consistent" and report.as_expected and report.tightness <= 1


@pytest.mark.slow
@pytest.mark.parametrize("key", ["bpi-ucbvi.pac", "rf.plug-in", "rf-ucrl.plug-in"])
@pytest.mark.parametrize("seed", range(1, 11))
def test_no_seed_misses_the_controls(key, seed):
    theorem = get(key)
    for control in theorem.controls:
        broken = dataclasses.replace(
            theorem, protocol=control.protocol, default_model=control.model, default_runs=control.runs
        )
        broken = dataclasses.replace(broken, controls=theorem.controls[:1])
        assert verify(broken, rng=seed).verdict == "refuted"


def test_a_run_that_is_broken_off_decides_nothing_and_is_told():
    theorem = get("rf.plug-in")
    how = dict(rng=np.random.SeedSequence(0), runs=3, jobs=1, progress=None)
    seen = theorem.protocol(two_coins(), **how, most=5)
    assert not seen.failures.any() and seen.undecided.all() and seen.remark == "3 of 3 runs had not stopped after 5"


@pytest.mark.parametrize("key", ["bpi-ucbvi.pac", "rf.plug-in", "rf-ucrl.plug-in"])
def test_where_nobody_stops_nothing_is_said(key):
    theorem = get(key)
    how = dict(rng=np.random.SeedSequence(1), runs=100, jobs=1, progress=None, most=3)
    decision = decide_probability(theorem.protocol(theorem.default_model(), **how), 0.05)
    assert decision.verdict == "inconclusive" and "100 of them undecided" in decision.note


def test_more_visits_than_episodes_are_summed_as_well():
    # One pair is visited H times per episode, here beyond 2^63 times: the bound still meets its own inequality.
    horizon, epsilon = 100, 5e-5
    k = bounds.rf_ucrl_sample_bound(epsilon, n_states=1, n_actions=1, horizon=horizon, delta=0.05)
    assert k * horizon > 2.0**63
    visits, cap, rate = k * horizon, horizon - 1.0, math.log(60)
    # A sum of W sqrt(rate / (2 n)) alone, which is at least its integral, weighs more than this.
    least = cap * (1 + 1 / horizon) ** (horizon - 2) * math.sqrt(rate / 2) * 2 * (math.sqrt(visits) - 1)
    assert (k - 1) * epsilon / 2 >= 2 * math.e / (math.e - 1) * least
