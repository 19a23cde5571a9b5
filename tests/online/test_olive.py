"""OLIVE against a twin that keeps every transition, its bound against exact Bellman errors, its faults."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.classes import FiniteClass, ProductClass, realizable_class
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import OLIVE, Problem, driver, olive_episode_bound, run
from theoryrl.online._protocols import unlucky_bandit
from theoryrl.online._theorems_golf import detour
from theoryrl.online._theorems_olive import class_of, truth_and_doubt, without_truth
from theoryrl.online.olive import ELIMINATIONS, EMPTY, MEMBER, STATUS, STOPPED, TOO_MANY, VOLUME_LOSS
from theoryrl.online.verbs import act, chance, observe, plan
from theoryrl.testing import mdps
from theoryrl.theory import get, verify


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def members_of(mdp, cls):
    """Values in units of the reward range, (nF, H, S, A); state values with their zero row; greedy actions."""
    low, high = mdp.reward_range
    steps = np.arange(mdp.horizon, 0, -1.0)[None, :, None, None]
    g = (cls.values - steps * low) / ((high - low) or 1.0)
    masked = np.where(mdp.action_mask, g, -np.inf)
    return g, np.concatenate([masked.max(axis=3), np.zeros((cls.size, 1, mdp.n_states))], axis=1), masked.argmax(axis=3)


def twin(mdp, settings, episodes, seed):
    """The page's four steps as a straight program: (answer or None, survivors, eliminations, episodes used)."""
    g, V, pi = members_of(mdp, settings.cls)
    low, high = mdp.reward_range
    plan_of = settings.schedule(problem_of(mdp))
    tables, H, F = sampler(mdp), mdp.horizon, range(settings.cls.size)
    environment, own = (np.random.default_rng([seed, role]) for role in range(2))
    used = 0

    def play(f, n, uniform_at=None):
        nonlocal used
        rows = []
        for _ in range(n):
            if used == episodes:
                raise StopIteration
            used += 1
            s = draw_initial(tables, environment)
            for h in range(H):
                if h == uniform_at:
                    allowed = np.flatnonzero(mdp.action_mask[s])
                    a = int(allowed[own.integers(0, len(allowed))])
                else:
                    a = int(pi[f, h, s])
                reward, t = draw_step(tables, h, s, a, environment)
                rows.append((h, s, a, (reward - low) / (high - low) if high > low else 0.0, t))
                s = t
        return rows

    alive, eliminations = set(F), 0
    try:
        starts = [s for h, s, _, _, _ in play(0, plan_of.start) if h == 0]
        while alive:
            f = min(alive, key=lambda i: (-sum(V[i, 0, s] for s in starts), i))
            rows = play(f, plan_of.evaluate)
            means = [
                sum(g[f, h, s, a] - r - V[f, h + 1, t] for k, s, a, r, t in rows if k == h) / plan_of.evaluate
                for h in range(H)
            ]
            if sum(means) <= 0.75 * plan_of.epsilon:
                return f, alive, eliminations, used
            layer = int(np.argmax(means))
            rows = [
                row for row in play(f, plan_of.eliminate, layer if settings.variant == "v" else None) if row[0] == layer
            ]
            for i in list(alive):
                total = 0.0
                for _, s, a, r, t in rows:
                    weight = 1.0
                    if settings.variant == "v":
                        weight = float(mdp.action_mask[s].sum()) * (pi[i, layer, s] == a)
                    total += weight * (g[i, layer, s, a] - r - V[i, layer + 1, t])
                if abs(total / plan_of.eliminate) > plan_of.threshold:
                    alive.discard(i)
            eliminations += 1
    except StopIteration:
        pass
    return None, alive, eliminations, used


@pytest.mark.parametrize("variant", ["q", "v"])
@given(mdp=mdps(max_states=3, max_horizon=3), seed=st.integers(0, 1000))
def test_twin(variant, mdp, seed):
    cls = realizable_class(mdp, 4, kind="random", rng=seed)
    width = (mdp.reward_range[1] - mdp.reward_range[0]) or 1.0
    settings = OLIVE(cls, 1.5 * width, 0.1, rank=1, variant=variant, scale=0.003)
    answer, alive, eliminations, used = twin(mdp, settings, 60, seed)
    state, tables = settings.init(problem_of(mdp)), sampler(mdp)
    environment, own = (np.random.default_rng([seed, role]) for role in range(2))
    played = 0
    for episode in range(61):
        before = np.array([chance(state, *i) for i in np.ndindex(state.values.shape[0], *mdp.action_mask.shape)])
        changed = plan(state, episode)
        after = np.array([chance(state, *i) for i in np.ndindex(state.values.shape[0], *mdp.action_mask.shape)])
        assert changed or np.array_equal(before, after)
        assert np.allclose(after.reshape(mdp.horizon, *mdp.action_mask.shape).sum(axis=2), 1)
        if episode == 60 or state.clock[STATUS]:
            break
        played += 1
        s = draw_initial(tables, environment)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, own))
            assert mdp.action_mask[s, a]
            reward, t = draw_step(tables, h, s, a, environment)
            observe(state, h, s, a, reward, t)
            s = t
    assert played == used
    if state.clock[STATUS] == TOO_MANY:
        assert state.clock[ELIMINATIONS] == state.most_eliminations
        return
    assert set(np.flatnonzero(state.alive)) == alive
    assert state.clock[ELIMINATIONS] == eliminations
    assert (state.clock[STATUS] == STOPPED) == (answer is not None)
    if answer is not None:
        assert state.clock[MEMBER] == answer


@pytest.mark.parametrize("variant", ["q", "v"])
@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(variant, mdp, seed):
    width = (mdp.reward_range[1] - mdp.reward_range[0]) or 1.0
    cls = realizable_class(mdp, 3, kind="random", rng=seed)
    learner = OLIVE(cls, width, rank=1, variant=variant, scale=1e-9)  # phases of one episode
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 8])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = learner.init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 8, True, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def bellman_errors(mdp, cls, variant):
    """The matrices of E_h(pi_f, g), (H, nF, nF), by exact occupancies."""
    g, V, pi = members_of(mdp, cls)
    dense = mdp.to_dense()
    errors = np.zeros((mdp.horizon, cls.size, cls.size))
    for f in range(cls.size):
        d = trl.occupancy(mdp, pi[f])
        for h in range(mdp.horizon):
            P = dense.transition_layers[h if len(dense.transition_layers) > 1 else 0]
            r = dense.reward_layers[h if len(dense.reward_layers) > 1 else 0]
            for i in range(cls.size):
                residual = g[i, h] - r - P @ V[i, h + 1]
                if variant == "q":
                    errors[h, f, i] = (d[h] * residual).sum()
                else:
                    errors[h, f, i] = d[h].sum(axis=1) @ residual[np.arange(mdp.n_states), pi[i, h]]
    return errors


@pytest.mark.parametrize("variant", ["q", "v"])
def test_exact_elimination_needs_no_more_rounds_than_the_rank_allows(variant):
    # The theorem's deterministic half: errors known exactly, thresholds phi and 6 sqrt(M) phi.
    most = 0
    for seed in range(20):
        mdp = trl.random_mdp(3, 2, 2, rng=seed)
        cls = realizable_class(mdp, 12, kind="consistent", rng=seed)
        errors = bellman_errors(mdp, cls, variant)
        assert np.abs(errors[:, :, 0]).max() < 1e-12  # Q*
        rank = max(int(np.linalg.matrix_rank(matrix, tol=1e-9)) for matrix in errors)
        assert rank <= (6 if variant == "q" else 3)
        starts = np.asarray(mdp.initial) @ cls.state_values()[:, 0].T
        epsilon = 0.05
        phi = 5 * epsilon / (48 * 2 * math.sqrt(rank))
        m = float(np.abs(errors).max())
        alive, rounds, sums = set(range(cls.size)), np.zeros(2, int), errors[:, range(13), range(13)]
        while True:
            f = min(alive, key=lambda i: (-starts[i], i))
            assert starts[f] - mdp.initial @ trl.evaluate(mdp, cls.greedy()[f])[0] == pytest.approx(sums[:, f].sum())
            if sums[:, f].sum() <= 0.75 * epsilon:
                break
            h = int(np.argmax(sums[:, f]))
            alive = {i for i in alive if abs(errors[h, f, i]) <= phi}
            assert f not in alive and 0 in alive
            rounds[h] += 1
        assert (rounds <= rank * math.log(rank * m / (2 * phi)) / VOLUME_LOSS).all()
        loss = float(mdp.initial @ (trl.backward_induction(mdp).value[0] - trl.evaluate(mdp, cls.greedy()[f])[0]))
        assert loss <= epsilon
        most = max(most, int(rounds.sum()))
    assert most >= 2  # the test has seen eliminations


def test_the_ellipsoid_of_a_slab_of_the_ball():
    # The volume argument: it contains the slab, and shrinks by sqrt(e) / 3 or more at sigma = 1 / (3 sqrt(r)).
    rng = np.random.default_rng(0)
    for r in range(2, 30):
        sigma = 1 / (3 * math.sqrt(r))
        assert math.sqrt(r) * sigma * (r / (r - 1)) ** ((r - 1) / 2) <= math.sqrt(math.e) / 3
        x = rng.normal(size=(300, r))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        x[:, 0] = np.clip(x[:, 0], -sigma, sigma)
        rest = 1 - x[:, 0] ** 2
        x[:, 1:] *= np.sqrt(rest / (x[:, 1:] ** 2).sum(axis=1))[:, None]
        assert (x[:, 0] ** 2 / (r * sigma**2) + (r - 1) / r * (x[:, 1:] ** 2).sum(axis=1) <= 1 + 1e-12).all()


def test_schedule_by_hand():
    mdp, cls = unlucky_bandit(), truth_and_doubt(None)
    epsilon, delta, M = 0.2, 0.05, 2
    plan_of = OLIVE(cls, epsilon, delta).schedule(problem_of(mdp))
    w, m, R = 0.5 - (0.2 - 1.0), 0.8, 0.25
    phi = 5 * epsilon / (48 * math.sqrt(M))
    rounds = math.floor(M * math.log(M * m / (2 * phi)) / (math.log(3) - 0.5)) + 1
    assert plan_of.threshold == pytest.approx(phi) and plan_of.eliminations == rounds - 1
    assert plan_of.start == math.ceil(128 * R**2 / epsilon**2 * math.log(6 / delta))
    assert plan_of.evaluate == math.ceil(32 * w**2 / epsilon**2 * math.log(6 * rounds / delta))
    assert plan_of.eliminate == math.ceil(w**2 / (2 * phi**2) * math.log(12 * rounds / delta))
    assert plan_of.episodes == plan_of.start + rounds * plan_of.evaluate + (rounds - 1) * plan_of.eliminate
    assert olive_episode_bound(epsilon, cls=cls, delta=delta) == plan_of.episodes
    # Variant "v": one state, so M = 1; Bernstein's inequality at the stated size holds, and barely.
    other = OLIVE(cls, epsilon, delta, variant="v").schedule(problem_of(mdp))
    phi, rounds = 5 * epsilon / 48, other.eliminations + 1
    log = math.log(12 * rounds / delta)

    def deviation(n):
        return math.sqrt(2 * 2 * m**2 * log / n) + 3 * m * log / (3 * n)

    assert deviation(other.eliminate) <= phi < deviation(other.eliminate - 2)
    # Rewards and values three times as large, and so is epsilon: the same schedule.
    wide = olive_episode_bound(3 * epsilon, cls=FiniteClass(3 * cls.values), delta=delta, reward_range=(0, 3))
    assert wide == plan_of.episodes


def test_a_learner_never_sees_what_it_did_not_visit():
    mdp = trl.random_mdp(3, 2, 2, rng=4, staged=True)
    learner = OLIVE(realizable_class(mdp, 3, kind="random", rng=1), 1.0, rank=2, scale=1e-9, check=False)
    policy = run(learner, mdp, 1, keep_states=True).states[0].policy
    transition, reward = np.array(mdp.transition), np.array(mdp.reward_layers)
    reward = np.array(np.broadcast_to(reward, (2, 3, 2)))
    for h, s, a in np.ndindex(2, 3, 2):
        if a != policy[h, s]:
            transition[h, s, a], reward[h, s, a] = np.eye(3)[0], 0.0
    other = trl.FiniteHorizonMDP(transition, reward, horizon=2, initial=mdp.initial, reward_range=mdp.reward_range)
    plain_one = mdp.with_reward(np.array(np.broadcast_to(mdp.reward_layers, (2, 3, 2))), reward_range=mdp.reward_range)
    one, two = (run(learner, model, 1, rng=5, keep_states=True).states[0] for model in (plain_one, other))
    for left, right in zip(one, two, strict=True):
        assert np.array_equal(left, right)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["q", "v"])
def test_two_layers_to_the_end(variant):
    mdp = detour()
    cls = realizable_class(mdp, 4, kind="optimistic", rng=2)
    learner = OLIVE(cls, 0.45, rank=2, variant=variant)
    result = run(learner, mdp, 900_000, seeds=2, rng=3, keep_states=True, watch=True)
    for state in result.states:
        assert state.clock[STATUS] == STOPPED and state.alive[0]
    assert (result.episode_regret[:, -1] <= 0.45).all()
    assert (result.least_margin >= -1e-12).all()


def test_faults():
    mdp, cls = unlucky_bandit(), without_truth(None)
    with pytest.raises(ValueError, match=r"realizability .* at layer 0.*check=False"):
        run(OLIVE(cls, 0.2), mdp, 3)
    alone = FiniteClass(cls.values[:1])
    with pytest.raises(
        ValueError, match=r"seed 0: no member is left before episode \d+: at layer 0 .*\|mean\| .* 0\.3"
    ):
        run(OLIVE(alone, 0.2, check=False, scale=0.01), mdp, 3000)
    state = OLIVE(alone, 0.2, variant="v", check=False, scale=0.01).init(problem_of(mdp))
    streams = [np.random.default_rng(i) for i in range(2)]
    truth, record = driver.judge(mdp), driver.tally(0, driver.judge(mdp))
    driver.play(state, truth, sampler(mdp), record, np.zeros(0, np.int64), 0, 3000, False, *streams)
    assert state.clock[STATUS] == EMPTY
    assert [chance(state, 0, 0, a) for a in range(2)] == [1.0, 0.0]  # back to a policy of its own


def test_too_many_eliminations_is_a_fault():
    # At so large an epsilon the rank allows no elimination; with a smaller one in its place the state asks for one.
    mdp = unlucky_bandit()
    learner = OLIVE(without_truth(None), 40.0, rank=1, check=False)
    state = learner.init(problem_of(mdp))
    assert state.most_eliminations == 0  # epsilon beyond all errors
    state = state._replace(epsilon=0.1)
    streams = [np.random.default_rng(i) for i in range(2)]
    truth, record = driver.judge(mdp), driver.tally(0, driver.judge(mdp))
    driver.play(state, truth, sampler(mdp), record, np.zeros(0, np.int64), 0, 3, False, *streams)
    assert state.clock[STATUS] == TOO_MANY
    assert "not stopped after 0 eliminations" in learner.fault(state)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: OLIVE(ProductClass([np.zeros((1, 1, 1))]), 0.1), TypeError, "must be a FiniteClass"),
        (lambda: OLIVE(class_of(unlucky_bandit()), 0.0), ValueError, "epsilon must be positive"),
        (lambda: OLIVE(class_of(unlucky_bandit()), 0.1, delta=2.0), ValueError, "delta must lie in"),
        (lambda: OLIVE(class_of(unlucky_bandit()), 0.1, rank=0), ValueError, "rank"),
        (lambda: OLIVE(class_of(unlucky_bandit()), 0.1, variant="w"), ValueError, "variant must be"),
        (lambda: OLIVE(class_of(unlucky_bandit()), 0.1, scale=0.0), ValueError, "scale must be"),
        (lambda: run(OLIVE(class_of(unlucky_bandit()), 0.1), detour(), 1), ValueError, "the model has"),
        (
            lambda: olive_episode_bound(0.1, cls=truth_and_doubt(None), delta=0.1, reward_range=(1, 0)),
            ValueError,
            "reward_range",
        ),
        *(
            (
                lambda settings=settings: run(OLIVE(class_of(unlucky_bandit()), **settings), unlucky_bandit(), 1),
                ValueError,
                "epsilon = .* may take more than 2\\^62 episodes",
            )
            for settings in (
                {"epsilon": 1e-9},
                {"epsilon": 1e-200},
                {"epsilon": 1e-200, "variant": "v"},
                {"epsilon": 0.1, "rank": 10**30},
                {"epsilon": 0.1, "scale": 1e300},
            )
        ),
    ],
)
def test_bad_settings(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["olive.pac", "olive.pac-v"])
def test_verdict_and_controls(key):
    report = verify(key, rng=1)
    assert report.verdict == "consistent" and report.as_expected
    assert all(control.verdict == "refuted" for control in report.controls)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["olive.pac", "olive.pac-v"])
def test_protocols_do_not_fail_on_another_model(key):
    mdp = trl.random_mdp(2, 2, 2, rng=5, staged=True)
    mdp = mdp.with_reward(mdp.reward * -7.0, reward_range=(-7.0, 0.0)).with_initial(np.array([0.3, 0.7]))
    seen = partial(get(key).protocol)(mdp, rng=np.random.SeedSequence(1), runs=2, jobs=None, progress=None)
    assert not seen.failures.any()


@pytest.mark.parametrize("key", ["olive.pac", "olive.pac-v"])
@pytest.mark.parametrize("reward", [0.0, -2.3])
def test_protocols_end_where_rewards_cannot_differ(key, reward):
    mdp = trl.random_mdp(2, 2, 2, rng=5).with_reward(np.full((2, 2), reward), reward_range=(reward, reward))
    seen = get(key).protocol(mdp, rng=np.random.SeedSequence(1), runs=2, jobs=None, progress=None)
    assert not seen.failures.any() and "only stopping is checked" in seen.remark
