"""GLOW against a twin that goes through raw tuples, worked numbers, exact arithmetic, invariants, its faults."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl._jit import plain
from theoryrl.classes import FiniteClass, WeightClass, realizable_class
from theoryrl.density_ratio import GLOW, FullWeights, OccupancyRatios, RatioTable, occupancy_ratios, ratio_table
from theoryrl.mdp import FiniteHorizonMDP, random_mdp
from theoryrl.mdp.sampling import draw_initial, draw_step, sampler
from theoryrl.online import Problem, driver, run
from theoryrl.online.verbs import act, chance, observe, plan, upper_value
from theoryrl.testing import mdps

KINDS = ("list", "mixtures", "models", "table", "full")
SCHEDULES = ("self_normalised", "paper", "scale_free")
WIDE = st.integers(0, 10_000)


def problem_of(mdp):
    return Problem(mdp.n_states, mdp.n_actions, mdp.horizon, *mdp.reward_range, mdp.stationary, mdp.action_mask)


def random_weights(mdp, n, rng):
    """Log-normal weights, some of them zero, some infinite."""
    values = np.exp(rng.standard_normal((n, mdp.horizon, mdp.n_states, mdp.n_actions)))
    values[rng.random(values.shape) < 0.2] = 0.0
    values[rng.random(values.shape) < 0.2] = np.inf
    return WeightClass(values)


def weights_for(kind, cls, mdp, rng):
    if kind == "list":
        return random_weights(mdp, 3, rng)
    if kind == "mixtures":
        return occupancy_ratios(cls, mdp)
    if kind == "models":
        other = random_mdp(mdp.n_states, mdp.n_actions, mdp.horizon, rng=int(rng.integers(100)))
        other = dataclasses.replace(other, action_mask=mdp.action_mask, reward_range=mdp.reward_range)
        return occupancy_ratios(cls, [mdp, other])
    return ratio_table(cls, mdp) if kind == "table" else FullWeights(prior=0.5)


def settings_for(kind, schedule, cls, mdp, seed, **changes):
    """Settings small enough that members fail within a dozen episodes; everything else is drawn."""
    rng = np.random.default_rng(seed)
    chosen = dict(
        trajectories=int(rng.integers(1, 4)),
        initial=mdp.initial if rng.random() < 0.5 else None,
        nested=bool(rng.random() < 0.5),
        test=str(rng.choice(["lazy", "full"])),
        anytime=bool(rng.random() < 0.5),
        tie_order=rng.permutation(cls.size) if rng.random() < 0.5 else None,
        noise_width=float(rng.choice([0.5, 1.0])),
        c=float(rng.choice([0.1, 0.25])),
        gamma=float(rng.choice([0.1, 0.5, 1.0])),
        schedule=schedule,
        scale={"paper": 1e-4, "scale_free": 0.05}.get(schedule, 0.01),
        check=False,
    )
    if kind == "full":
        chosen.update(gamma=None, schedule="self_normalised", scale=0.05)
    return GLOW(cls, weights_for(kind, cls, mdp, rng), 12, **(chosen | changes))


class Twin:
    """The formula of the paper over raw tuples, in plain Python; nothing is kept but the data and who was chosen."""

    def __init__(self, g, mdp):
        self.g, self.H, self.mask = g, mdp.horizon, mdp.action_mask
        self.low, high = mdp.reward_range
        self.unit = g.total_reward or (mdp.horizon * (high - self.low) or 1.0)
        to_go = np.arange(self.H, 0, -1)[:, None, None]
        self.F = np.where(self.mask, (g.cls.values - to_go * self.low) / self.unit, 0.0)
        allowed = np.where(self.mask, self.F, -np.inf)
        self.V = np.concatenate([allowed.max(axis=3), np.zeros((g.cls.size, 1, mdp.n_states))], axis=1)
        self.greedy = allowed.argmax(axis=3)
        self.data = [[] for _ in range(self.H)]
        self.starts, self.chosen, self.out = [], [], set()
        order = range(g.cls.size) if g.tie_order is None else [int(f) for f in g.tie_order]
        self.rank = {f: k for k, f in enumerate(order)}

    def log_tests(self, t):
        w, T = self.g.weights, self.g.iterations
        if isinstance(w, WeightClass):
            return math.log(w.size * (math.pi**2 * t**2 / 6 if self.g.anytime else T))
        n = w.n_policies
        choices = n * (w.n_models if isinstance(w, OccupancyRatios) else 1)
        if self.g.anytime:
            return math.log(choices * math.comb(t - 1 + n - 1, n - 1) * math.pi**2 * t**2 / 6)
        return math.log(choices * math.comb(T + n - 1, n))

    def weights(self, f, h, t):
        """What f is tested with at layer h, as functions of (s, a), not clipped."""
        w = self.g.weights
        if isinstance(w, WeightClass):
            return [w.values[j, h] for j in range(w.size)]
        history = [int(w.row[i]) for i in self.chosen] + [int(w.row[f])]
        with np.errstate(divide="ignore"):
            if isinstance(w, OccupancyRatios):
                tables = []
                for model in w.masses[:, :, h]:
                    d, mean = model[w.row[f]], np.mean([model[p] for p in history], axis=0)
                    tables.append(np.where(d > 0, d / np.where(d > 0, mean, 1.0), 0.0))
                return tables
            return [1.0 / np.mean([w.values[p, w.row[f], h] for p in history], axis=0)]

    def excess(self, f, t):
        """The largest test minus its threshold over all layers."""
        g, n, worst = self.g, g_n(self.g, t), -math.inf
        gamma_t = (g.gamma or 0.0) * t
        for h in range(self.H):
            residuals = [(s, a, self.F[f, h, s, a] - r - self.V[f, h + 1, z]) for s, a, r, z in self.data[h]]
            if isinstance(g.weights, FullWeights):
                pairs, rho = {(s, a) for s, a, _ in residuals}, g.weights.prior
                total, level = 0.0, math.log(self.H / g.delta)
                for pair in pairs:
                    here = [x for s, a, x in residuals if (s, a) == pair]
                    total += len(here) ** 2 / (len(here) + rho) * max(0.0, np.mean(here)) ** 2
                    level += 0.5 * math.log(1 + len(here) / rho)
                worst = max(worst, total - g.scale * g.noise_width**2 / 2 * level)
                continue
            for w in self.weights(f, h, t):
                clipped = [(min(w[s, a], gamma_t), x) for s, a, x in residuals]
                mean = sum(v * x for v, x in clipped) / n
                square = sum(v * v for v, _ in clipped) / n
                log = math.log(4 * self.H / g.delta) + self.log_tests(t)
                b = g.noise_width
                if g.schedule == "self_normalised":
                    limit = g.c / gamma_t * square + g.scale * b**2 * gamma_t * log / (8 * g.c * n)
                elif g.schedule == "paper":
                    log = math.log(6 * g.cls.size * self.H / g.delta) + self.log_tests(t)
                    limit = 8 / gamma_t * square + g.scale * 36 * gamma_t / n * log
                else:
                    inner = log + 0.5 * math.log(1 + n * square / gamma_t**2)
                    limit = g.scale * b * math.sqrt((square + gamma_t**2 / n) * inner / (2 * n))
                worst = max(worst, mean - limit)
        return worst

    def choose(self, t):
        """The member of round t, or None; the excess of every member that is looked at is appended to `margins`."""
        g, law = self.g, self.g.initial
        value = {
            f: sum(p * v for p, v in zip(law, self.V[f, 0], strict=True))
            if law is not None
            else sum(self.V[f, 0, s] for s in self.starts)
            for f in range(g.cls.size)
        }
        left = [f for f in range(g.cls.size) if not (g.nested and f in self.out)]
        self.margins, self.tested, best = [], {}, None
        for f in sorted(left, key=lambda f: (-round(value[f], 10), self.rank[f])):
            if t > 1:
                self.tested[f] = self.excess(f, t)
                self.margins.append(abs(self.tested[f]))
                if self.tested[f] > 0:
                    self.out.add(f)
                    continue
            if best is None:
                best = f
            if g.test == "lazy" or t == 1:
                break
        return best


def g_n(g, t):
    return g.trajectories * (t - 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
@given(mdp=mdps(max_states=3, max_actions=3, max_horizon=3), seed=WIDE)
def test_twin(kind, schedule, mdp, seed):
    cls = realizable_class(mdp, 5, kind="random", rng=seed)
    g = settings_for(kind, schedule, cls, mdp, seed)
    state, twin = g.init(problem_of(mdp)), Twin(g, mdp)
    tables, rng = sampler(mdp), np.random.default_rng(seed)
    for episode in range(g.iterations * g.trajectories):
        before = state.policy.copy()
        changed = plan(state, episode)
        assert changed == (not np.array_equal(before, state.policy))
        t, first = episode // g.trajectories + 1, episode % g.trajectories == 0
        if first:
            f = twin.choose(t)
            if min(twin.margins, default=1.0) < 1e-9:
                return  # rounding decides
            assert all((state.status[k] > 0) == (x <= 0) for k, x in twin.tested.items())
            if f is None:
                assert state.empty[0] == t - 1 and f"empty before iteration {t - 1}" in g.fault(state)
                return
            assert state.chosen[t - 1] == f and g.fault(state) is None
            for k, excess in twin.tested.items():
                if g.test == "full":
                    assert state.excess[k].max() == pytest.approx(excess, abs=1e-9)
                if excess > 0:
                    assert 0 <= state.first_out[k] <= t - 1
                else:
                    assert state.last_in[k] == t - 1
            twin.chosen.append(f)
        s = int(draw_initial(tables, rng))
        twin.starts.append(s)
        for h in range(mdp.horizon):
            a = int(act(state, h, s, rng))
            assert a == twin.greedy[f, h, s] and chance(state, h, s, a) == 1.0
            reward, z = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, z)
            twin.data[h].append((s, a, (reward - twin.low) / twin.unit, int(z)))
            s = int(z)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=WIDE)
def test_compiled_and_plain_python_agree_to_the_bit(kind, schedule, mdp, seed):
    cls = realizable_class(mdp, 4, kind="random", rng=seed)
    g = settings_for(kind, schedule, cls, mdp, seed)
    truth, tables, marks = driver.judge(mdp), sampler(mdp), np.array([1, 5])
    outcomes = []
    for play in (driver.play, plain(driver._cached)):
        streams = [np.random.default_rng([seed, role]) for role in range(2)]
        state, record = g.init(problem_of(mdp)), driver.tally(2, truth)
        play(state, truth, tables, record, marks, 0, 6, True, *streams)
        outcomes.append([np.asarray(field) for field in (*state, *record)])
    for one, other in zip(*outcomes, strict=True):
        assert np.array_equal(one, other, equal_nan=True)


# ---- worked numbers


def fed(g, mdp_like, tuples):
    """A state that has seen (h, s, a, r, s') in this order."""
    state = g.init(mdp_like)
    rng = np.random.default_rng(0)
    for h, s, a, r, z in tuples:
        assert 0 <= act(state, h, s, rng)
        observe(state, h, s, a, r, z)
    return state


SIX = [(0, 0, 0, 0), (0, 1, 0.2, 1), (0, 0, 0.1, 1), (1, 1, 0, 0), (0, 1, 0.3, 1), (1, 0, 0, 1)]


@pytest.mark.parametrize(
    ("gamma", "schedule", "expected"),
    [
        (0.25, "paper", -7.4517857143),
        (0.25, "self_normalised", -0.3014880952),
        (1.0, "paper", -12.0678571429),
        (1.0, "self_normalised", -0.6273809524),
    ],
)
def test_clipped_weighted_residuals_of_a_worked_example(gamma, schedule, expected):
    values = np.array([[[[0.6, 0.7], [0.3, 0.5]], [[0.4, 0.1], [0.2, 0.5]]]])
    weights = np.array([[[[0.5, 2.5], [np.inf, 0.0]], np.ones((2, 2))]])
    problem = Problem(2, 2, 2, 0.0, 1.0, True, np.ones((2, 2), bool))
    g = GLOW(
        FiniteClass(values),
        WeightClass(weights),
        10,
        gamma,
        schedule=schedule,
        total_reward=1.0,
        scale=0.0,
        test="full",
    )
    state = fed(g, problem, [(0, *row) for row in SIX] + [(1, 0, 0, 0.0, 0)] * 6)
    assert np.allclose(state.residual[0, :, 0], [0.2, -0.1, -0.2, 0.1], rtol=0, atol=1e-12)
    plan(state, 6)
    assert state.excess[0, 0] == pytest.approx(expected, abs=1e-10)
    penalty = {0.25: 1.6145833333, 1.0: 10.3333333333}[gamma]
    assert state.penalty[0, 0] == pytest.approx(penalty, abs=1e-10)


def bandit_state(**changes):
    values = np.array([(0.5, 0.2), (0.55, 0.9), (0.95, 0.2)]).reshape(3, 1, 1, 2)
    weights = np.array([(1.0, 1.0), (0.2, 2.2)]).reshape(2, 1, 1, 2)
    gamma = math.sqrt(2 / (1000 * math.log(3 * 2 / 0.1)))
    settings = dict(delta=0.1, test="full", total_reward=1.0) | changes
    g = GLOW(FiniteClass(values), WeightClass(weights), 1000, gamma, **settings)
    data = [(0, 0, 0, 0.5, 0)] * 300 + [(0, 0, 1, 0.2, 0)] * 200
    state = fed(g, Problem(1, 2, 1, 0.0, 1.0, True, np.ones((1, 2), bool)), data)
    plan(state, 500)
    return g, state


def test_membership_of_a_worked_example():
    g, state = bandit_state(schedule="paper")
    gamma_t, alpha, beta = g.levels(501)
    assert gamma_t == pytest.approx(11.0728783742, abs=1e-10)
    assert alpha == pytest.approx(0.7224860357, abs=1e-10) and beta == pytest.approx(10.1998690618, abs=1e-10)
    assert np.allclose(state.excess[:, 0] + beta, [-0.7224860357, -0.4124860357, -0.4524860357], rtol=0, atol=1e-10)
    assert (state.status == 1).all() and state.chosen[500] == 2  # nobody is refuted, and the third promises most
    own = math.log(2 * 1000 / 0.1) - math.log(4 / 0.1)  # the example has log(|W| H T / delta), a quarter of our delta
    g, state = bandit_state(log_tests=own)
    gamma_t, alpha, beta = g.levels(501)
    assert alpha == pytest.approx(0.0225776886, abs=1e-10) and beta == pytest.approx(0.1096601131, abs=1e-10)
    assert np.allclose(state.excess[:, 0] + beta, [-0.0225776886, 0.5777477303, 0.2474223114], rtol=0, atol=1e-10)
    assert list(state.status) == [1, -1, -1] and list(state.first_out) == [-1, 500, 500]
    assert state.chosen[500] == 0 and not g.provable
    g, state = bandit_state()
    assert float(g.log_levels()[0]) == pytest.approx(11.2897819136, abs=1e-10) and g.provable


def test_scale_free_threshold_of_a_worked_example():
    g, state = bandit_state(schedule="scale_free")
    gamma_t, alpha, beta = g.levels(501)
    log, n = math.log(4 * 2 * 1000 / 0.1), 500
    assert alpha == 0.0 and beta == pytest.approx(gamma_t * math.sqrt(log / 2) / n, rel=1e-12)
    # N = (300, 200), means (0.5, 0.2): mean and square of w (f - r) by hand, for both weights.
    for f, (e0, e1) in enumerate([(0, 0), (0.05, 0.7), (0.45, 0)]):
        worst = -math.inf
        for w0, w1 in ((1, 1), (0.2, 2.2)):
            mean, square = 0.6 * w0 * e0 + 0.4 * w1 * e1, 0.6 * w0**2 + 0.4 * w1**2
            inside = (square + gamma_t**2 / n) * (log + 0.5 * math.log(1 + n * square / gamma_t**2)) / (2 * n)
            worst = max(worst, mean - math.sqrt(inside))
        assert state.excess[f, 0] == pytest.approx(worst, abs=1e-11)
    assert list(state.status) == [1, -1, -1]


# ---- rounding


@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=2), seed=WIDE)
@pytest.mark.parametrize("schedule", ["self_normalised", "paper"])
def test_what_rounding_can_add_is_subtracted_and_hardly_more(schedule, mdp, seed):
    # All in rational numbers: the units, the residuals, the clipped weights, the levels.
    cls = realizable_class(mdp, 2, kind="random", rng=seed)
    g = settings_for("list", schedule, cls, mdp, seed, test="full", trajectories=1, nested=False, scale=0.0)
    state, rng = g.init(problem_of(mdp)), np.random.default_rng(seed)
    low, high = (Fraction(x) for x in mdp.reward_range)
    unit = mdp.horizon * (high - low) or Fraction(1)
    member = [
        [[[(Fraction(x) - (mdp.horizon - h) * low) / unit for x in row] for row in table] for h, table in enumerate(f)]
        for f in cls.values
    ]
    best = [
        [[max(x for x, ok in zip(*pair, strict=True) if ok) for pair in zip(table, mdp.action_mask, strict=True)]
         for table in f] + [[Fraction(0)] * mdp.n_states]
        for f in member
    ]  # fmt: skip
    n = 9
    total = {f: [0] * mdp.horizon for f in product(range(3), range(3))}
    square = {j: [0] * mdp.horizon for j in range(3)}
    ceiling = Fraction(g.gamma) * (n + 1)
    for _ in range(n):
        for h in range(mdp.horizon):
            s, z = (int(rng.integers(mdp.n_states)) for _ in range(2))
            a = int(rng.choice(np.flatnonzero(mdp.action_mask[s])))
            reward = float(rng.uniform(*mdp.reward_range))
            observe(state, h, s, a, reward, z)
            for j in range(3):
                w = g.weights.values[j, h, s, a]
                w = ceiling if w == np.inf else min(Fraction(w), ceiling)
                square[j][h] += w * w
                for f in range(3):
                    total[f, j][h] += w * (member[f][h][s][a] - (Fraction(reward) - low) / unit - best[f][h + 1][z])
    plan(state, n)
    alpha = (Fraction(8) if schedule == "paper" else Fraction(g.c)) / ceiling
    for f in range(3):
        for h in range(mdp.horizon):
            exact = max((total[f, j][h] - alpha * square[j][h]) / n for j in range(3))
            assert state.excess[f, h] <= exact
            assert exact - state.excess[f, h] <= Fraction(1, 10**11) * (1 + max(abs(low), abs(high)) / unit)


@given(mdp=mdps(max_states=3, max_horizon=3, reward_laws=("deterministic",)), seed=WIDE)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_where_nothing_is_random_the_optimal_values_pass_without_any_margin(schedule, mdp, seed):
    mdp = mdp.to_dense()
    rng = np.random.default_rng(seed)
    mdp = mdp.with_reward(mdp.reward, reward_range=mdp.reward_range)
    successor = rng.integers(0, mdp.n_states, mdp.transition.shape[:-1])
    mdp = dataclasses.replace(mdp, transition=np.eye(mdp.n_states)[successor], initial=np.eye(mdp.n_states)[0])
    cls = realizable_class(mdp, 4, kind="random", rng=seed)
    g = GLOW(cls, random_weights(mdp, 3, rng), 20, 0.7, schedule=schedule, scale=0.0, check=False, test="full")
    state = run(g, mdp, 20, rng=seed, keep_states=True).states[0]
    assert state.first_out[0] == -1 and state.last_in[0] == 19


# ---- invariants


@pytest.mark.parametrize("kind", KINDS)
@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=WIDE)
def test_lazy_and_full_tests_choose_alike(kind, mdp, seed):
    cls = realizable_class(mdp, 5, kind="random", rng=seed)
    both = {}
    for test in ("lazy", "full"):
        g = settings_for(kind, "self_normalised", cls, mdp, seed, nested=False, test=test)
        state, rng, tables = g.init(problem_of(mdp)), np.random.default_rng(seed), sampler(mdp)
        for episode in range(g.iterations * g.trajectories):
            plan(state, episode)
            s = draw_initial(tables, rng)
            for h in range(mdp.horizon):
                a = act(state, h, s, rng)
                reward, z = draw_step(tables, h, s, a, rng)
                observe(state, h, s, a, reward, z)
                s = z
        both[test] = state
    lazy, full = both["lazy"], both["full"]
    assert np.array_equal(lazy.chosen, full.chosen) and lazy.empty[0] == full.empty[0]
    assert np.array_equal(lazy.residual, full.residual)
    assert (lazy.last_in <= full.last_in).all()
    late = np.where(lazy.first_out < 0, np.inf, lazy.first_out)
    assert (late >= np.where(full.first_out < 0, np.inf, full.first_out)).all()


def forced(g, mdp, seed, episodes=8):
    """A state that was given data which its own choices have no part in; planned once after them."""
    state, rng = g.init(problem_of(mdp)), np.random.default_rng(seed)
    data = []
    for _ in range(episodes * g.trajectories):
        for h in range(mdp.horizon):
            s, z = (int(rng.integers(mdp.n_states)) for _ in range(2))
            a = int(rng.choice(np.flatnonzero(mdp.action_mask[s])))
            data.append((h, s, a, float(rng.choice(mdp.reward_range)), z))
            observe(state, *data[-1])
    plan(state, episodes * g.trajectories)
    return state, data


@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=WIDE)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_weights_keep_fewer_and_higher_levels_keep_more(schedule, mdp, seed):
    cls = realizable_class(mdp, 6, kind="random", rng=seed)
    rng = np.random.default_rng(seed)
    some = random_weights(mdp, 2, rng)
    more = WeightClass(np.concatenate([some.values, random_weights(mdp, 2, rng).values]))
    zero = WeightClass(np.concatenate([some.values, np.zeros_like(some.values[:1])]))
    kept = {}
    for name, weights, scale in (("some", some, 0.01), ("more", more, 0.01), ("zero", zero, 0.01), ("high", some, 0.5)):
        g = settings_for(
            "list", schedule, cls, mdp, seed, test="full", nested=False, log_tests=3.0, scale=scale, anytime=False
        )
        state, _ = forced(dataclasses.replace(g, weights=weights), mdp, seed)
        kept[name] = state.status > 0
    assert (kept["more"] <= kept["some"]).all() and (kept["some"] <= kept["high"]).all()
    assert np.array_equal(kept["zero"], kept["some"])
    fresh = g.init(problem_of(mdp))
    plan(fresh, 0)  # nothing is tested before there are data
    assert not fresh.status.any() and (fresh.first_out == -1).all() and fresh.chosen[0] >= 0


@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=WIDE)
@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_those_of_the_tuples_in_whatever_order_and_however_often(kind, mdp, seed):
    cls = realizable_class(mdp, 4, kind="random", rng=seed)
    g = settings_for(kind, "self_normalised", cls, mdp, seed, test="full", nested=False, scale=0.0, trajectories=1)
    state, data = forced(g, mdp, seed)
    # From the counts of the pairs, the summed rewards and the counts of the successors.
    rows = (mdp.horizon, mdp.n_states, mdp.n_actions)
    n, rewards, later = np.zeros(rows), np.zeros(rows), np.zeros((*rows, mdp.n_states))
    for h, s, a, r, z in data:
        n[h, s, a] += 1
        rewards[h, s, a] += (r - state.low) / state.unit
        later[h, s, a, z] += 1
    values, best = state.values.reshape(*rows, -1), state.best
    recomputed = n[..., None] * values - rewards[..., None] - np.einsum("hsaz,hzf->hsaf", later, best[1:])
    assert np.array_equal(state.visits.reshape(rows), n)
    assert np.allclose(state.residual.reshape(recomputed.shape), recomputed, rtol=0, atol=1e-9)
    # The same tuples in another order, and the same twice with twice as many in an episode.
    shuffled = [data[i] for i in np.random.default_rng(seed + 1).permutation(len(data))]
    again = fed(g, problem_of(mdp), shuffled)
    plan(again, 8)
    assert np.allclose(again.excess, state.excess, rtol=0, atol=1e-9)
    if kind != "full":
        twice = fed(dataclasses.replace(g, trajectories=2), problem_of(mdp), data + data)
        plan(twice, 16)
        assert np.allclose(twice.excess, state.excess, rtol=0, atol=1e-9)


@given(mdp=mdps(max_states=3, max_actions=2, max_horizon=3), seed=WIDE)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_nested_shrinks_and_so_does_the_promise(kind, mdp, seed):
    cls = realizable_class(mdp, 6, kind="random", rng=seed)
    g = settings_for(kind, "self_normalised", cls, mdp, seed, nested=True, initial=mdp.initial, scale=0.002)
    state, tables, rng = g.init(problem_of(mdp)), sampler(mdp), np.random.default_rng(seed)
    alive, promise = np.ones(cls.size, bool), math.inf
    for episode in range(g.iterations * g.trajectories):
        plan(state, episode)
        if state.empty[0] >= 0:
            assert not (state.status >= 0).any()
            return
        now, member = state.status >= 0, state.chosen[episode // g.trajectories]
        assert (now <= alive).all() and now[member] and state.start[member] <= promise
        assert np.array_equal(now, state.first_out < 0)
        alive, promise = now, state.start[member]
        s = draw_initial(tables, rng)
        for h in range(mdp.horizon):
            a = act(state, h, s, rng)
            reward, z = draw_step(tables, h, s, a, rng)
            observe(state, h, s, a, reward, z)
            s = z


@pytest.mark.parametrize("kind", ["list", "table", "full"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@given(mdp=mdps(max_states=3, max_horizon=3), seed=WIDE)
def test_optimism(kind, schedule, mdp, seed):
    # A false alarm has probability below 1e-6 per example, by the theorem.
    cls = realizable_class(mdp, 5, kind="random", rng=seed)
    weights = weights_for(kind, cls, mdp, np.random.default_rng(seed))
    slope = {} if kind == "full" else {"gamma": 0.3, "schedule": schedule}
    g = GLOW(cls, weights, 40, delta=1e-6, test="full", check=False, **slope)
    result = run(g, mdp, 40, rng=seed, watch=True, keep_states=True)
    assert result.least_margin[0] >= -1e-9 * (1 + mdp.horizon * max(abs(x) for x in mdp.reward_range))
    state = result.states[0]
    assert state.first_out[0] == -1 and state.last_in[0] == 39
    assert state.start[state.chosen[39]] >= state.start[0] - 1e-9


# ---- choices


def two_arms():
    return FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.6, 0.3]]), horizon=1, reward_law="bernoulli")


def test_equals_are_taken_in_the_stated_order():
    values = np.array([(0.6, 0.3), (0.3, 0.6), (0.6, 0.6), (0.1, 0.1)]).reshape(4, 1, 1, 2)
    cls, mdp = FiniteClass(values), two_arms()
    for order, first in ((None, 0), ([0, 1, 2, 3], 0), ([3, 1, 2, 0], 1), ([2, 0, 1, 3], 2)):
        for law in (None, [1.0]):
            g = GLOW(cls, WeightClass(np.ones((1, 1, 1, 2))), 5, 0.1, tie_order=order, initial=law)
            state = g.init(problem_of(mdp))
            plan(state, 0)
            # Nothing has been seen at first, so that with an unknown start law the first in order is taken.
            assert state.chosen[0] == (first if law else (order or [0])[0])
            assert act(state, 0, 0, None) == values[state.chosen[0], 0, 0].argmax()
            observe(state, 0, 0, 0, 1.0, 0)
            plan(state, 1)
            assert state.chosen[1] == first


def test_an_iteration_lasts_k_episodes():
    mdp = random_mdp(3, 2, 2, rng=4)
    cls = realizable_class(mdp, 4, kind="random", rng=1)
    g = GLOW(cls, occupancy_ratios(cls, mdp), 5, 0.2, trajectories=4, scale=0.01, check=False)
    state, tables, rng = g.init(problem_of(mdp)), sampler(mdp), np.random.default_rng(0)
    for episode in range(20):
        policy = state.policy.copy()
        changed = plan(state, episode)
        assert not changed or episode % 4 == 0
        assert episode % 4 == 0 or np.array_equal(policy, state.policy)
        assert (state.chosen >= 0).sum() == episode // 4 + 1 and state.played.sum() == episode // 4 + 1
        s = draw_initial(tables, rng)
        for h in range(2):
            reward, z = draw_step(tables, h, s, act(state, h, s, rng), rng)
            observe(state, h, s, act(state, h, s, rng), reward, z)
            s = z
    assert state.visits.sum(axis=1).tolist() == [20, 20]


def test_a_false_promise_is_found_out_without_completeness():
    # At 0, action 0 pays 0.3 and ends, action 1 leads to 1, where action 0 pays 0.8 and action 1 0.1. The other member
    # keeps its own promise, to rounding, at layer 0, and plays action 1 at layer 1, for which 0.1 is the truth there.
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 2] = transition[0, 1, 1] = 1.0
    transition[1:, :, 2] = 1.0
    reward = np.array([[0.3, 0.0], [0.8, 0.1], [0.0, 0.0]])
    mdp = FiniteHorizonMDP(transition, reward, horizon=2, reward_law="bernoulli", initial=0)
    optimal = np.array([[[0.3, 0.8], [0, 0], [0, 0]], [[0, 0], [0.8, 0.1], [0, 0]]])
    false = np.array([[[0.3, 0.8 + 1e-6], [0, 0], [0, 0]], [[0, 0], [0.0, 0.1], [0, 0]]])
    cls, weights = FiniteClass(np.stack([optimal, false])), WeightClass(np.ones((1, 2, 3, 2)))
    for schedule, gamma in product(("self_normalised", "scale_free"), (0.01, 0.1)):
        g = GLOW(cls, weights, 1000, gamma, 0.1, schedule=schedule, total_reward=1.0, initial=mdp.initial, check=False)
        result = run(g, mdp, 1000, rng=1, keep_states=True)
        state = result.states[0]
        assert state.first_out[0] == -1 and 8 <= state.first_out[1] <= 40
        assert result.regret[0, -1] == pytest.approx(0.7 * (state.chosen == 1).sum(), abs=1e-9)
        assert (state.chosen[state.first_out[1] :] == 0).all()
    g = GLOW(cls, weights, 1000, 0.01, 0.1, schedule="paper", total_reward=1.0, initial=mdp.initial, check=False)
    assert (run(g, mdp, 1000, rng=1, keep_states=True).states[0].chosen == 1).all()  # vacuous so early


def test_upper_value_is_the_largest_of_those_left():
    mdp = random_mdp(3, 2, 3, rng=8, reward_law="bernoulli")
    mdp = mdp.with_reward(mdp.reward, reward_law="bernoulli", reward_range=(-1.0, 2.0))
    cls = realizable_class(mdp, 6, kind="random", rng=2)
    g = GLOW(cls, FullWeights(), 400, test="full", nested=True, scale=0.2, check=False)
    state = run(g, mdp, 400, keep_states=True).states[0]
    values, alive = cls.state_values(), state.first_out < 0
    assert alive.sum() < cls.size
    for h, s in np.ndindex(3, 3):
        assert upper_value(state, h, s) == pytest.approx(values[alive, h, s].max(), abs=1e-12)


def test_work_does_not_grow_with_time():
    mdp = random_mdp(3, 2, 3, rng=8)
    cls = realizable_class(mdp, 3, kind="random", rng=2)
    for weights in (occupancy_ratios(cls, mdp), ratio_table(cls, mdp), WeightClass(np.ones((2, 3, 3, 2)))):
        g = GLOW(cls, weights, 300, 0.1, check=False)
        sizes = [sum(np.asarray(x).nbytes for x in run(g, mdp, k, keep_states=True).states[0]) for k in (1, 300)]
        assert sizes[0] == sizes[1]


# ---- faults and refusals


def test_an_empty_set_is_a_fault_that_names_the_member_that_came_closest():
    mdp = two_arms()
    cls = FiniteClass(np.array([(0.9, 0.8), (1.0, 1.0)]).reshape(2, 1, 1, 2))
    g = GLOW(cls, WeightClass(np.ones((1, 1, 1, 2))), 500, 0.01, scale=0.1, check=False)
    with pytest.raises(
        ValueError, match=r"seed 0: the confidence set is empty before iteration \d+: even member 0"
    ) as e:
        run(g, mdp, 500, seeds=2, rng=3)
    assert "at layer 0 by 0." in str(e.value) and "\n" not in str(e.value)


def test_no_more_episodes_than_the_settings_are_for():
    mdp = two_arms()
    cls = FiniteClass(np.array([0.6, 0.3]).reshape(1, 1, 1, 2))
    g = GLOW(cls, WeightClass(np.ones((1, 1, 1, 2))), 3, 0.1, trajectories=2)
    assert run(g, mdp, 6).regret[0, -1] == 0.0
    with pytest.raises(ValueError, match=r"iterations=3 of 2 episodes each, no more"):
        run(g, mdp, 7)


def lacking(kind):
    """A model, and settings whose weights lack something of it."""
    mdp = random_mdp(3, 2, 2, rng=4, reward_law="bernoulli")
    cls = realizable_class(mdp, 3, kind="random", rng=1)
    if kind == "mixtures":
        masses = occupancy_ratios(cls, mdp).masses.copy()
        masses[0, 1, 1, 0, 0] += 0.1
        return mdp, GLOW(cls, OccupancyRatios(masses, occupancy_ratios(cls, mdp).row), 9, 0.5)
    if kind == "table":
        values = ratio_table(cls, mdp).values.copy()
        values[0, 1, 1] *= 1.5
        return mdp, GLOW(cls, RatioTable(values, ratio_table(cls, mdp).row), 9, 0.5)
    return mdp, GLOW(cls, WeightClass(np.ones((1, 2, 3, 2))), 9, 0.5)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "mixtures",
            r"occupancy of the greedy policy of member \d: model 0, .* off by 0\.1 at layer 1, \(s, a\) = \(0, 0",
        ),
        ("table", r"weights\.values\[0, 1, 1, \d, \d\] is .*, but the ratio of the policy of member"),
        ("list", r"lack a ratio at layer 0: that of the policy of member .* against the mean .* clipped at 1"),
    ],
)
def test_missing_ratios_are_named(kind, message):
    mdp, g = lacking(kind)
    with pytest.raises(ValueError, match=message + r".*check=False runs"):
        run(g, mdp, 3)
    assert not run(dataclasses.replace(g, check=False), mdp, 3).provable
    assert run(dataclasses.replace(g, iterations=1), mdp, 1).provable  # a single policy is tested with nothing


def test_what_the_theorems_need_of_the_model_is_looked_for():
    mdp = random_mdp(3, 2, 2, rng=4, reward_law="bernoulli")
    cls = realizable_class(mdp, 3, kind="random", rng=1)
    g = GLOW(cls, FullWeights(), 9)
    assert run(g, mdp, 3).provable
    with pytest.raises(ValueError, match=r"realizability .* fails by .* at layer \d"):
        run(dataclasses.replace(g, cls=FiniteClass(cls.values[1:])), mdp, 3)
    with pytest.raises(ValueError, match=r"an episode can collect 2 above the lowest rewards, more than 1\.9"):
        run(GLOW(FiniteClass(0.5 * cls.values[:1]), FullWeights(), 9, total_reward=1.9), mdp, 3)
    with pytest.raises(ValueError, match=r"initial is not the start law"):
        run(dataclasses.replace(g, initial=np.full(3, 1 / 3)), mdp, 3)
    high = cls.values.copy()
    high[1, 0, 0, 1] = 3.0
    with pytest.raises(ValueError, match=r"cls\.values\[1, 0, 0, 1\] is 3, outside \[0, 2\]"):
        run(dataclasses.replace(g, cls=FiniteClass(high)), mdp, 3)


def one(**changes):
    cls = FiniteClass(np.array([0.6, 0.3]).reshape(1, 1, 1, 2))
    return GLOW(**dict(cls=cls, weights=WeightClass(np.ones((1, 1, 1, 2))), iterations=3, gamma=0.1) | changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(cls=np.zeros((1, 1, 1, 2))), TypeError, "cls must be a FiniteClass"),
        (dict(weights=np.ones((1, 1, 1, 2))), TypeError, "weights must be one of WeightClass, OccupancyRatios"),
        (dict(weights=WeightClass(np.ones((1, 2, 1, 2)))), ValueError, r"weights are for \(H, S, A\) = \(2, 1, 2\)"),
        (dict(weights=OccupancyRatios(np.ones((1, 1, 1, 1, 2)), [0, 0])), ValueError, "rows for 2 members, cls has 1"),
        (dict(iterations=0), ValueError, "iterations must be at least 1"),
        (dict(trajectories=0), ValueError, "trajectories must be at least 1"),
        (dict(trajectories=1.5), ValueError, "trajectories must be an integer"),
        (dict(gamma=0.0), ValueError, "gamma must be positive"),
        (dict(gamma=math.nan), ValueError, "gamma must be positive"),
        (dict(gamma=math.inf), ValueError, "gamma must be positive and finite"),
        (dict(gamma=None), ValueError, "gamma, or coverability"),
        (dict(gamma=1.5, schedule="paper"), ValueError, "gamma must be at most 1"),
        (dict(gamma=0.5, weights=FullWeights()), ValueError, "FullWeights has a level of its own"),
        (dict(coverability=0.5), ValueError, "coverability must be finite and at least 1"),
        (dict(coverability=[2.0, math.nan]), ValueError, r"coverability has shape \(2,\), not \(H,\)"),
        (dict(coverability=math.nan), ValueError, "coverability must be finite"),
        (dict(delta=0.0), ValueError, "delta must lie in"),
        (dict(delta=1.0), ValueError, "delta must lie in"),
        (dict(delta=math.nan), ValueError, "delta must lie in"),
        (dict(c=0.0), ValueError, "c must be positive"),
        (dict(noise_width=-1.0), ValueError, "noise_width must be positive"),
        (dict(total_reward=math.nan), ValueError, "total_reward must be positive"),
        (dict(log_tests=-1.0), ValueError, "log_tests must be finite"),
        (dict(log_tests=math.nan), ValueError, "log_tests must be finite"),
        (dict(scale=math.nan), ValueError, "scale must be finite"),
        (dict(schedule="best"), ValueError, "schedule must be one of self_normalised, paper, scale_free"),
        (dict(test="some"), ValueError, "test must be"),
        (dict(initial=[0.5]), ValueError, "initial sums to 0.5"),
        (dict(initial=[0.5, 0.5]), ValueError, "initial has shape"),
        (dict(initial=[math.nan]), ValueError, r"initial\[0\] is nan"),
        (dict(tie_order=[1]), ValueError, "tie_order must be a permutation"),
    ],
)
def test_bad_settings(changes, error, message):
    with pytest.raises(error, match=message) as caught:
        one(**changes)
    assert "\n" not in str(caught.value)


def test_bad_rounds():
    with pytest.raises(ValueError, match="t must be at most 3"):
        one().levels(4)
    with pytest.raises(ValueError, match="t must be at least 1"):
        one().levels(0)
    with pytest.raises(ValueError, match="FullWeights have no clipping level"):
        one(gamma=None, weights=FullWeights()).levels(1)
    assert one().levels(1) == (0.1, 2.5, math.inf)
