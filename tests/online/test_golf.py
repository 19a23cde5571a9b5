"""GOLF against a twin that sums losses over raw transitions, its confidence set against enumeration, its faults."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl._jit import plain
from theoryrl.classes import FiniteClass, ProductClass, complete_class, realizable_class
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import GOLF, Problem, driver, golf_regret_bound, run
from theoryrl.online import _golf_kernels as kernels
from theoryrl.online._protocols import unlucky_bandit
from theoryrl.online._theorems_golf import detour, never_removed, too_high, two_guesses
from theoryrl.online.verbs import act, observe, plan, upper_value
from theoryrl.testing import mdps
from theoryrl.theory import get, verify

KINDS = ("product", "list")


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def class_for(mdp, kind, seed):
    """A complete product, or a list of 6 of its combinations with Q* first."""
    product = complete_class(mdp, 2, rng=seed)
    if kind == "product":
        return product
    rng = np.random.default_rng(seed)
    members = [product.member([0] * mdp.horizon)]
    members += [product.member([int(rng.integers(n)) for n in product.sizes]) for _ in range(5)]
    return FiniteClass(np.stack(members))


class Twin:
    """The page's pseudocode with raw transitions, tuples of members and dictionaries; its own losses and search."""

    def __init__(self, cls, mdp, delta, scale):
        self.H, self.mask, self.product = mdp.horizon, mdp.action_mask, isinstance(cls, ProductClass)
        self.low, high = mdp.reward_range
        self.unit = high - self.low or 1.0
        layers = cls.layers if self.product else [cls.values[:, h] for h in range(self.H)]
        self.F = [(np.array(f) - (self.H - h) * self.low) / self.unit for h, f in enumerate(layers)]
        self.V = [np.where(self.mask, f, -np.inf).max(axis=2) for f in self.F] + [np.zeros((1, mdp.n_states))]
        if not self.product:
            self.V[-1] = np.zeros((cls.size, mdp.n_states))
        members = sum(len(f) for f in self.F)
        b = [(high > self.low) + np.ptp(self.V[h + 1]) for h in range(self.H)]
        self.beta = [scale * x**2 / 2 * math.log(3 * members / delta) for x in b]
        self.data = [[] for _ in range(self.H)]
        self.starts, self.out = [], set()

    def loss(self, h, i, j):
        return sum((self.F[h][i][s, a] - r - self.V[h + 1][j][t]) ** 2 for s, a, r, t in self.data[h])

    def excess(self, h, i, j):
        return self.loss(h, i, j) - min(self.loss(h, k, j) for k in range(len(self.F[h])))

    def edges(self, path):
        after = (*path[1:], 0) if self.product else path
        return [(h, path[h], after[h]) for h in range(self.H)]

    def choose(self):
        """Best tuple none of whose tests has failed: by value, then the lowest numbers; None if there is none."""
        sizes = [len(f) for f in self.F]
        paths = itertools.product(*map(range, sizes)) if self.product else [(i,) * self.H for i in range(sizes[0])]
        while True:
            left = [p for p in paths if not self.out.intersection(self.edges(p))]
            if not left:
                return None
            best = min(left, key=lambda p: (-sum(self.V[0][p[0]][s] for s in self.starts), p))
            columns = {(h, j) for h, _, j in self.edges(best)}
            tests = [(h, i, j) for h, j in columns for i in (range(sizes[h]) if self.product else [j])]
            failed = {edge for edge in tests if self.excess(*edge) > self.beta[edge[0]] + 1e-9}
            self.out |= failed
            if not failed.intersection(self.edges(best)):
                return best
            paths = left


@pytest.mark.parametrize("kind", KINDS)
@given(mdp=mdps(max_states=3, max_horizon=3), seed=st.integers(0, 1000))
def test_twin(kind, mdp, seed):
    cls = class_for(mdp, kind, seed)
    settings = GOLF(cls, 0.1, scale=0.03)
    state, tables, rng = settings.init(problem_of(mdp)), sampler(mdp), np.random.default_rng(seed)
    twin = Twin(cls, mdp, 0.1, 0.03)
    for episode in range(8):
        before = state.policy.copy()
        changed = plan(state, episode)
        assert changed == (not np.array_equal(before, state.policy))
        chosen = twin.choose()
        if chosen is None:
            assert state.empty[0] == episode
            assert f"empty before episode {episode}: at layer" in settings.fault(state)
            return
        assert settings.fault(state) is None
        assert tuple(state.path) == chosen
        s = draw_initial(tables, rng)
        twin.starts.append(s)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            q = np.where(mdp.action_mask[s], twin.F[h][chosen[h]][s], -np.inf)
            assert a == int(np.argmax(q))
            reward, t = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, t)
            twin.data[h].append((s, a, (reward - twin.low) / twin.unit, t))
            s = t


@pytest.mark.parametrize("kind", KINDS)
@given(mdp=mdps(max_states=3, max_horizon=3), seed=st.integers(0, 1000))
def test_incremental_sums_and_peaks_are_the_recomputed_ones_to_the_bit(kind, mdp, seed):
    cls = class_for(mdp, kind, seed)
    state = GOLF(cls, test="full").init(problem_of(mdp))
    rng = np.random.default_rng(seed)
    low, high = mdp.reward_range
    data = [[] for _ in range(mdp.horizon)]
    peaks = np.zeros_like(state.peak)
    for episode in range(6):
        plan(state, episode)
        for h in range(mdp.horizon):
            n, order = len(data[h]), list(dict.fromkeys(x for x, _, _ in data[h]))
            sums = np.zeros_like(state.target_sum[h])
            for x, r, t in data[h]:  # in the order of time
                sums[: state.columns[h], x] += r + state.best[h + 1, : state.columns[h], t]
            assert np.array_equal(sums, state.target_sum[h])
            counts = np.bincount([x for x, _, _ in data[h]], minlength=sums.shape[1]).astype(float)
            assert np.array_equal(counts, state.visits[h])
            largest, offset = state.rounding
            u = 2.0**-53
            slack = n * (4 * largest * ((n + 2) * u * largest + offset) + 2 * (len(order) + 3) * u * largest * largest)
            for j in range(state.columns[h]):
                losses = []
                for k in range(state.sizes[h]):
                    total = 0.0
                    for x in order:
                        gap = state.values[h, k, x] - sums[j, x] / counts[x]
                        total += counts[x] * gap * gap
                    losses.append(total)
                for k in range(state.sizes[h]) if kind == "product" else [j]:
                    place = (h, j, k) if kind == "product" else (h, 0, j)
                    peaks[place] = max(peaks[place], losses[k] - min(losses) - slack)
        assert np.array_equal(peaks, state.peak)
        s = int(rng.integers(mdp.n_states))
        for h in range(mdp.horizon):
            a = int(rng.choice(np.flatnonzero(mdp.action_mask[s])))
            r, t = float(rng.choice([low, high])), int(rng.integers(mdp.n_states))
            observe(state, h, s, a, r, t)
            data[h].append((s * mdp.n_actions + a, (r - low) / (high - low) if high > low else 0.0, t))
            s = t


@given(seed=st.integers(0, 10_000))
def test_reachability_is_enumeration_of_all_tuples(seed):
    rng = np.random.default_rng(seed)
    horizon = int(rng.integers(1, 4))
    sizes = np.array([*rng.integers(1, 4, horizon), 1])
    m = int(sizes.max())
    peak, level = rng.integers(0, 3, (horizon, m, m)).astype(float), np.full(horizon, 0.5)
    start = rng.integers(0, 3, m).astype(float)
    alive, path = np.zeros((horizon + 1, m), bool), np.zeros(horizon, np.int64)
    kernels.reach(peak, level, sizes, True, alive)
    first = kernels.most_optimistic(alive[0], sizes[0], start)
    feasible = [
        p
        for p in itertools.product(*map(range, sizes[:-1]))
        if all(peak[h, j, i] <= 0.5 for h, (i, j) in enumerate(zip(p, (*p[1:], 0), strict=True)))
    ]
    if not feasible:
        assert first == -1
        return
    kernels.backtrack(first, peak, level, sizes, alive, True, path)
    assert tuple(path) == min(feasible, key=lambda p: (-start[p[0]], p))


@pytest.mark.parametrize("seed", [9, 138, 302, 339])
def test_a_member_whose_last_continuation_fell_in_the_test_of_another_starts_no_path(seed):
    # Seven members at layer 0, two at layer 1: a path that is not looked up again leaves the class.
    rng = np.random.default_rng(seed)
    cls = ProductClass([rng.uniform(0, 2, (7, 2, 1)), rng.uniform(0, 1, (2, 2, 1))])
    settings = GOLF(cls, scale=rng.choice([0.01, 0.03, 0.1]), check=False)
    state = settings.init(Problem(2, 1, 2, 0.0, 1.0, True, np.ones((2, 1), bool)))
    for episode in range(60):
        plan(state, episode)
        if state.empty[0] >= 0:
            break
        first, second = state.path
        assert second < 2 and state.peak[0, second, first] <= state.level[0]
        assert state.peak[1, 0, second] <= state.level[1]
        # Alive means exactly: with a continuation none of whose tests has failed.
        passes = state.peak <= state.level[:, None, None]
        last = passes[1, 0, :2]
        assert np.array_equal(state.alive[1, :2], last)
        assert np.array_equal(state.alive[0], (passes[0, :2] & last[:, None]).any(axis=0))
        s = int(rng.integers(2))
        for h in range(2):
            r, t = float(rng.random() < 0.5), int(rng.integers(2))
            observe(state, h, s, 0, r, t)
            s = t


def test_losses_of_a_worked_example():
    # Two layers by hand: counts, summed rewards and next counts; the excesses to their printed digits.
    second = np.array([[[0.5, 0.3], [0.6, 0.1]], [[0.9, 0.3], [0.6, 0.8]], [[0.2, 0.2], [0.2, 0.2]]]).reshape(3, 4)
    count, rewards = np.array([4.0, 2, 3, 1]), np.array([2, 0.5, 1.9, 0.2])
    losses, order = np.zeros(3), np.arange(4)
    least = kernels.losses_of_column(second, 3, rewards, count, order, 4, losses)
    assert np.allclose(losses, [0.0183333333, 1.0083333333, 0.9283333333], rtol=0, atol=1e-10)
    assert np.allclose(losses - least, [0, 0.99, 0.91], rtol=0, atol=1e-12)
    first = np.array([[[0.7, 0.66], [0.5, 0.6]], [[1.2, 0.9], [0.9, 0.8]], [[0.5, 0.4], [0.3, 0.3]]]).reshape(3, 4)
    count, rewards, after = np.array([6.0, 4, 0, 0]), np.array([1.2, 0.4, 0, 0]), np.array([[4, 2], [1, 3]])
    expected = np.array([[0, 0.9784, 0.9584], [1.5016, 0, 5.18], [0.6216, 2.92, 0]])
    for j in range(3):
        targets = rewards.copy()
        targets[:2] += after @ second[j].reshape(2, 2).max(axis=1)
        least = kernels.losses_of_column(first, 3, targets, count, order, 2, losses)
        assert np.allclose(losses - least, expected[:, j], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@given(mdp=mdps(max_states=3, max_horizon=3), seed=st.integers(0, 1000))
def test_on_the_same_data_lazy_tests_leave_no_less_than_full_ones(kind, mdp, seed):
    cls = class_for(mdp, kind, seed)
    lazy, full = (GOLF(cls, test=test, scale=0.05).init(problem_of(mdp)) for test in ("lazy", "full"))
    rng = np.random.default_rng(seed)
    for episode in range(8):
        plan(lazy, episode)
        plan(full, episode)
        if lazy.empty[0] >= 0:
            assert full.empty[0] >= 0
            return
        assert (lazy.peak <= full.peak).all()
        if full.empty[0] >= 0:
            return
        assert (full.alive <= lazy.alive).all()
        assert lazy.start_sum[lazy.path[0]] >= full.start_sum[full.path[0]]
        s = int(rng.integers(mdp.n_states))
        for h in range(mdp.horizon):
            a = int(rng.choice(np.flatnonzero(mdp.action_mask[s])))
            r, t = float(rng.choice(mdp.reward_range)), int(rng.integers(mdp.n_states))
            observe(lazy, h, s, a, r, t)
            observe(full, h, s, a, r, t)
            s = t


@pytest.mark.parametrize("settings", [dict(), dict(test="full")])
@pytest.mark.parametrize("kind", KINDS)
@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=st.integers(0, 1000))
def test_compiled_and_plain_python_agree_to_the_bit(settings, kind, mdp, seed):
    learner = GOLF(class_for(mdp, kind, seed), scale=0.05, **settings)
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 3])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = learner.init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 3, True, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@given(mdp=mdps(max_states=3, max_horizon=3), seed=st.integers(0, 1000))
def test_optimism(kind, mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem; a deterministic model leaves none to chance.
    learner = GOLF(class_for(mdp, kind, seed), 1e-6, check=False)
    result = run(learner, mdp, 40, rng=seed, watch=True, keep_states=True)
    assert result.least_margin[0] >= -1e-9 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))
    state = result.states[0]
    assert (state.alive[: mdp.horizon, 0]).all()  # Q* is still there
    start = state.start_sum[state.path[0]]
    assert start >= state.start_sum[0]


def test_upper_value_is_the_largest_of_those_left():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    learner = GOLF(complete_class(mdp, 2, rng=3), scale=0.5)
    state = run(learner, mdp, 2000, keep_states=True).states[0]
    values = [layer.max(axis=2) for layer in learner.cls.layers]
    for h, s in np.ndindex(4, 3):
        left = [values[h][i, s] for i in range(learner.cls.sizes[h]) if state.alive[h, i]]
        assert upper_value(state, h, s) == pytest.approx(max(left), abs=1e-12)
    assert sum(int(row.sum()) for row in state.alive[:4]) < sum(learner.cls.sizes)  # something has been removed


@given(mdp=mdps(max_states=3, max_actions=2, masked=False, reward_laws=("deterministic",)), seed=st.integers(0, 1000))
def test_a_learner_never_sees_what_it_did_not_visit(mdp, seed):
    mdp = mdp.to_dense()
    learner = GOLF(complete_class(mdp, 1, rng=seed), check=False)
    before = run(learner, mdp, 3, rng=seed, keep_states=True)
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    unseen = before.states[0].visits.reshape(shape) == 0
    transition = np.array(np.broadcast_to(mdp.transition_layers, (*shape, mdp.n_states)))
    reward = np.array(np.broadcast_to(mdp.reward_layers, shape))
    transition[unseen] = np.eye(mdp.n_states)[0]
    reward[unseen] = mdp.reward_range[0]
    other = trl.FiniteHorizonMDP(
        transition, reward, horizon=mdp.horizon, initial=mdp.initial, reward_range=mdp.reward_range
    )
    after = run(learner, other, 3, rng=seed, keep_states=True)
    for one, two in zip(before.states[0], after.states[0], strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("noise", ["bernoulli", "coin"])
def test_the_exponential_supermartingale_behind_the_level(noise):
    # E exp(lambda (2 D xi - D^2)) <= 1 at lambda = 2 / b^2 for every law in an interval of length b: two-point laws.
    b = 1.0 if noise == "bernoulli" else 2.5
    rate = 2 / b**2
    worst = 0.0
    for p, gap in itertools.product(np.linspace(0.01, 0.99, 50), np.linspace(-3, 3, 121)):
        mean = sum(weight * math.exp(rate * (2 * gap * (y - p * b) - gap**2)) for weight, y in ((p, b), (1 - p, 0.0)))
        worst = max(worst, mean)
        # The energy of residuals: at 1 / b^2 what is left decays like exp(-D^2 / (2 b^2)).
        left = sum(w * math.exp(-(gap**2 - 2 * gap * (y - p * b)) / b**2) for w, y in ((p, b), (1 - p, 0.0)))
        assert left <= math.exp(-(gap**2) / (2 * b**2)) * (1 + 1e-12)
    assert 0.99 <= worst <= 1 + 1e-12  # attained as D -> 0, and a rate of 3 / b^2 would break it


def test_the_sum_that_coverability_bounds():
    # sum_t sum_z d_t(z)^2 / sum_{s <= t} d_s(z) <= C (1 + log+(K / C)), C = sum_z max_t d_t(z).
    rng = np.random.default_rng(0)
    for _ in range(100):
        rounds, cells = int(rng.integers(1, 60)), int(rng.integers(1, 6))
        d = rng.dirichlet(np.full(cells, 0.3), size=rounds)
        total = np.cumsum(d, axis=0)
        potential = (d**2 / np.where(total > 0, total, 1)).sum()
        c = d.max(axis=0).sum()
        assert potential <= min(rounds, c * (1 + max(0.0, math.log(rounds / c)))) * (1 + 1e-12)


def test_bound_by_hand():
    # H = 1, two members on two arms: b = D = 1, P = 2, and the start state is always the same.
    cls = two_guesses(None)
    delta, K = 0.05, 10_000
    beta = 0.5 * math.log(3 * 2 / delta)
    residual = 1.0 - 0.2
    energy = (beta + math.log(3 * 2 / delta)) / (1 - math.exp(-0.5))
    main = math.sqrt(K * (energy + residual**2) * 2 * (1 + math.log(K / 2)))
    value = golf_regret_bound(K, cls=cls, delta=delta, single_start=True)
    assert value == pytest.approx(main + 0.25, rel=1e-6) and value < K
    assert value >= main + 0.25
    # Unknown start law: more, and never less than with less coverage.
    many = golf_regret_bound([1, 100, K], cls=cls, delta=delta)
    assert many[2] > value and (np.diff(many) > 0).all()
    assert golf_regret_bound(K, cls=cls, delta=delta, single_start=True, coverability=1.5) < value
    wide = golf_regret_bound(K, cls=FiniteClass(cls.values * 4), delta=delta, reward_range=(0, 4), single_start=True)
    assert wide == pytest.approx(4 * value, rel=1e-9)


def test_refusals_name_layer_and_member():
    mdp = detour()
    cls = never_removed(mdp)
    with pytest.raises(ValueError, match=r"completeness .* at layer 0, member 1.*check=False runs"):
        run(GOLF(cls), mdp, 3)
    assert run(GOLF(cls, check=False), mdp, 3).provable is False
    with pytest.raises(ValueError, match=r"realizability .* at layer 0"):
        run(GOLF(too_high(None)), unlucky_bandit(), 3)
    assert run(GOLF(complete_class(mdp, 2, rng=0)), mdp, 3).provable


def test_a_false_member_stays_when_the_class_is_not_complete():
    mdp = detour()
    result = run(GOLF(never_removed(mdp), check=False), mdp, 5000, rng=1, keep_states=True)
    state = result.states[0]
    assert tuple(state.path) == (1, 1)
    assert result.regret[0, -1] > 0.6 * 5000
    # Its excess over Q* per visit is (1e-6) (2 * 0.7 + 1e-6), by hand: what it promises against what it finds (0.1).
    visits = state.visits[0, 1]
    assert state.peak[0, 0, 1] <= visits * 1.5e-6
    complete = run(GOLF(complete_class(mdp, 2, rng=0)), mdp, 5000, rng=1)
    assert complete.regret[0, -1] < 200


def test_an_empty_set_is_a_fault_that_names_layer_and_excess():
    mdp = unlucky_bandit()
    one = FiniteClass(too_high(None).values)
    messages = []
    for jobs in (1, 2):
        with pytest.raises(
            ValueError, match=r"GOLF on bandit .*, seed 0: .*empty before episode \d+: at layer 0"
        ) as seen:
            run(GOLF(one, check=False, scale=0.01), mdp, 5000, seeds=3, rng=4, jobs=jobs)
        messages.append(str(seen.value))
    assert messages[0] == messages[1]
    product = ProductClass([one.values[:, 0]])
    with pytest.raises(ValueError, match=r"at layer 0 every member exceeds the level \d.*smallest excess being \d"):
        run(GOLF(product, check=False, scale=0.0), mdp, 5000)


def test_list_and_product_of_one_layer_play_alike():
    mdp = trl.random_mdp(3, 2, 1, rng=1, reward_law="bernoulli")
    values = complete_class(mdp, 6, rng=2).layers[0]
    one = run(GOLF(FiniteClass(values[:, None]), scale=0.5), mdp, 300, rng=3)
    two = run(GOLF(ProductClass([values]), scale=0.5), mdp, 300, rng=3)
    assert np.array_equal(one.regret, two.regret)


def test_shifted_and_scaled_rewards_change_nothing():
    mdp = trl.random_mdp(3, 2, 3, rng=1, reward_law="deterministic")
    moved = mdp.with_reward(mdp.reward * 4.0 - 8.0, reward_range=(-8.0, -4.0))
    cls = complete_class(mdp, 3, rng=2)
    far = ProductClass([4.0 * layer - 8.0 * (3 - h) for h, layer in enumerate(cls.layers)])
    one = run(GOLF(cls, scale=0.1), mdp, 300, rng=3)
    two = run(GOLF(far, scale=0.1), moved, 300, rng=3)
    assert np.allclose(4 * one.regret, two.regret, rtol=0, atol=1e-9)


def test_work_does_not_grow_with_time():
    # The state holds sums alone, so its size is the same after any number of episodes.
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    learner = GOLF(complete_class(mdp, 2, rng=0))
    sizes = [
        sum(np.asarray(field).nbytes for field in run(learner, mdp, k, keep_states=True).states[0]) for k in (1, 500)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GOLF(np.zeros((1, 1, 1, 1))), TypeError, "FiniteClass or a ProductClass"),
        (lambda: GOLF(two_guesses(None), delta=0.0), ValueError, "delta must lie in"),
        (lambda: GOLF(two_guesses(None), test="some"), ValueError, "test must be"),
        (lambda: GOLF(two_guesses(None), scale=math.nan), ValueError, "scale must be"),
        (lambda: run(GOLF(two_guesses(None)), detour(), 1), ValueError, "the model has"),
        (lambda: golf_regret_bound(5, cls=two_guesses(None), delta=0.1, coverability=0.5), ValueError, "coverability"),
        (lambda: golf_regret_bound(0, cls=two_guesses(None), delta=0.1), ValueError, "episodes"),
    ],
)
def test_bad_settings(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_realizable_lists_of_every_kind_keep_the_optimal_value():
    mdp = trl.envs.make("riverswim", n_states=3, horizon=4)
    for kind in ("consistent", "optimistic", "bad-policy", "random"):
        cls = realizable_class(mdp, 5, kind=kind, rng=1)
        state = run(GOLF(cls, 1e-6, check=False), mdp, 200, keep_states=True).states[0]
        assert state.alive[0, 0]


KEYS = ("golf.confidence-set", "golf.optimism", "golf.regret")


@pytest.mark.parametrize("key", KEYS)
def test_protocols_do_not_fail_on_another_model(key):
    protocol = partial(get(key).protocol, episodes=100)
    mdp = trl.random_mdp(3, 2, 3, rng=5, staged=True)
    mdp = mdp.with_reward(mdp.reward * -7.0, reward_range=(-7.0, 0.0)).with_initial(np.full(3, 1 / 3))
    assert not protocol(mdp, rng=np.random.SeedSequence(1), runs=4, jobs=None, progress=None).failures.any()


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("seed", [0, 1])
def test_verdict_and_controls(key, seed):
    report = verify(key, rng=seed)
    assert report.verdict == "consistent" and report.as_expected
    assert all(control.verdict == "refuted" for control in report.controls)
