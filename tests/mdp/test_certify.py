import dataclasses
import math
import sys
from fractions import Fraction
from types import SimpleNamespace

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theoryrl._jit import plain
from theoryrl.mdp import (
    FiniteHorizonMDP,
    SparseTransition,
    backward_induction,
    certify,
    evaluate,
    exact_value,
    random_mdp,
)
from theoryrl.mdp import _kernels_certify as kernels
from theoryrl.mdp.policy import stochastic_layers

# ---- oracle: the model in fractions, from its definition


def row_of(mdp, h, s, a):
    """Exact probabilities and exact mean reward of one pair."""
    dense = mdp.to_dense()
    table = dense.transition_layers
    weights = [Fraction(w) for w in table[h % len(table), s, a].tolist()]
    total = sum(weights)
    if dense.outcome_reward is None:
        reward = Fraction(float(dense.reward_layers[h % len(dense.reward_layers), s, a]))
    else:
        outcomes = dense.outcome_reward.reshape(table.shape)[h % len(table), s, a].tolist()
        reward = sum(w * Fraction(o) for w, o in zip(weights, outcomes, strict=True)) / total
    return [w / total for w in weights], reward


def rational(text):
    """A "p/q" of any length; Python itself reads integers of 4,300 digits at most."""
    numerator, _, denominator = text.partition("/")
    return Fraction(int(flint.fmpz(numerator)), int(flint.fmpz(denominator or "1")))


def true_values(mdp, policy=None, gamma=Fraction(1), horizon=None):
    """V* (or V^pi) by backward induction over fractions, (H+1, S) lists."""
    horizon = horizon or mdp.horizon
    choice = None if policy is None else stochastic_layers(policy, mdp)
    value = [[Fraction(0)] * mdp.n_states]
    for h in range(horizon - 1, -1, -1):
        layer = []
        for s in range(mdp.n_states):
            q = {}
            for a in np.flatnonzero(mdp.action_mask[s]):
                p, r = row_of(mdp, h, s, a)
                q[a] = r + gamma * sum(x * v for x, v in zip(p, value[0], strict=True))
            if choice is None:
                layer.append(max(q.values()))
            else:
                share = {a: Fraction(float(choice[h % len(choice), s, a])) for a in q}
                layer.append(sum(share[a] * q[a] for a in q) / sum(share.values()))
        value.insert(0, layer)
    return value


def at_start(mdp, value):
    weights = [Fraction(w) for w in mdp.initial.tolist()]
    return sum(w * v for w, v in zip(weights, value[0], strict=True)) / sum(weights)


def assert_encloses(certificate, value):
    """Exact comparison: a fraction against floats, infinities included."""
    lower, upper = np.atleast_2d(certificate.lower).tolist(), np.atleast_2d(certificate.upper).tolist()
    for h, (low, high) in enumerate(zip(lower, upper, strict=True)):
        for s, (a, b) in enumerate(zip(low, high, strict=True)):
            assert a <= value[h][s] <= b, (h, s, a, float(value[h][s]), b)
    assert certificate.initial_lower <= at_start(certificate.mdp, value) <= certificate.initial_upper


# ---- models that try to slip through


@st.composite
def models(draw, magnitudes=(1.0, 1e-300, 1e300, 5e-324, 1e-12)):
    s, a, h = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    staged = draw(st.booleans())
    lead = (h,) if staged else ()
    weights = rng.random((*lead, s, a, s)) ** draw(st.sampled_from([1, 8])) * (rng.random((*lead, s, a, s)) < 0.7)
    weights[..., rng.integers(s)] += 0.1
    transition = weights / weights.sum(axis=-1, keepdims=True)
    transition *= 1.0 + draw(st.sampled_from([0.0, 1e-10, -9e-10]))
    if draw(st.booleans()):
        transition[transition == 0.0] = 5e-324
    mask = rng.random((s, a)) < 0.7
    mask[:, a - 1] = True
    transition[..., ~mask, :] = np.nan
    scale = draw(st.sampled_from(magnitudes))
    initial = rng.dirichlet(np.ones(s)) * (1.0 + draw(st.sampled_from([0.0, 9e-10])))
    common = dict(horizon=h, action_mask=mask, initial=initial)
    if draw(st.booleans()):
        outcome = scale * rng.choice([-1.0, 0.3, 1.0, 1 / 3], size=transition.shape)
        mdp = FiniteHorizonMDP(transition, outcome_reward=outcome, **common)
    else:
        mdp = FiniteHorizonMDP(transition, scale * rng.normal(size=(*lead, s, a)), **common)
    return mdp.to_sparse() if draw(st.booleans()) else mdp


@st.composite
def claims(draw, mdp):
    """A claimed value and policy: right, slightly off, or nonsense."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    value, policy = backward_induction(mdp).value.copy(), backward_induction(mdp).policy
    kind = draw(st.sampled_from(["right", "off", "nonsense", "other policy", "huge", "tail"]))
    if kind == "off":
        value += rng.normal(size=value.shape) * 10.0 ** draw(st.integers(-16, 0)) * np.abs(value)
    if kind == "nonsense":
        value = rng.normal(size=value.shape)
    if kind == "huge":
        value = rng.choice([-1.7e308, 1.7e308], size=value.shape)
    if kind == "tail":
        value[-1] = rng.normal(size=mdp.n_states)
    if kind != "right":
        allowed = [np.flatnonzero(row) for row in mdp.action_mask]
        policy = np.array([[rng.choice(row) for row in allowed] for _ in range(mdp.horizon)])
    return SimpleNamespace(value=value, policy=policy)


@settings(max_examples=100)
@given(st.data())
def test_the_truth_is_inside_whatever_is_claimed(data):
    mdp = data.draw(models())
    plan = data.draw(claims(mdp))
    truth, mine = true_values(mdp), true_values(mdp, plan.policy)
    certificate = certify(mdp, plan)
    assert_encloses(certificate, truth)
    assert certificate.check()
    for h in range(mdp.horizon):
        for s in range(mdp.n_states):
            assert certificate.lower[h, s] <= mine[h][s]
            assert truth[h][s] - mine[h][s] <= certificate.policy_gap


@given(st.data())
def test_the_value_of_a_policy_is_inside(data):
    mdp = data.draw(models())
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    policy = rng.random((mdp.horizon, mdp.n_states, mdp.n_actions)) * mdp.action_mask
    policy /= policy.sum(axis=-1, keepdims=True) * (1.0 + data.draw(st.sampled_from([0.0, 9e-10])))
    if data.draw(st.booleans()):
        policy = np.argmax(policy, axis=-1)
    truth = true_values(mdp, policy)
    certificate = certify(mdp, policy=policy)
    assert_encloses(certificate, truth)
    assert certificate.policy_gap is None
    assert certificate.check()
    exact = certify(mdp, policy=policy, mode="exact")
    assert_encloses(exact, truth)
    assert rational(exact.exact) == at_start(mdp, truth)


@given(st.data())
def test_exact_mode_agrees_with_fractions(data):
    mdp = data.draw(models())
    plan = data.draw(claims(mdp))
    truth = true_values(mdp)
    certificate = certify(mdp, plan, "exact")
    assert_encloses(certificate, truth)
    assert rational(certificate.exact) == at_start(mdp, truth)
    assert rational(certificate.exact_lower) <= rational(certificate.exact) <= rational(certificate.exact_upper)
    assert certificate.check()
    rough = certify(mdp, plan)
    for exact, bound in zip(certificate.stage_upper, rough.stage_upper, strict=True):
        assert exact <= bound  # the float bound is one on the exact residual
    for exact, bound in zip(certificate.stage_lower, rough.stage_lower, strict=True):
        assert exact <= bound


@settings(max_examples=15)
@given(st.data())
def test_discounted_models(data):
    mdp = data.draw(models(magnitudes=(1.0, 1e-200, 1e200)))
    discount = data.draw(st.sampled_from([0.0, 0.3, 0.9, 0.99]))
    stationary = FiniteHorizonMDP(
        mdp.to_dense().transition_layers[0],
        mdp.reward_layers[0],
        horizon=1,
        initial=mdp.initial,
        action_mask=mdp.action_mask,
    )
    model = stationary.with_discount(discount)
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    policy = np.array([rng.choice(np.flatnonzero(row)) for row in mdp.action_mask])
    truth = [discounted_truth(model, policy)]
    assert_encloses(certify(model, policy=policy), truth)
    exact = certify(model, policy=policy, mode="exact")
    assert rational(exact.exact) == at_start(model, truth)
    wrong = SimpleNamespace(value=rng.normal(size=model.n_states), policy=policy)
    best = [optimal_discounted(model)]
    for claim in (wrong, SimpleNamespace(value=np.array([float(v) for v in best[0]]), policy=policy)):
        for mode in ("float", "exact"):
            certificate = certify(model, claim, mode)
            assert_encloses(certificate, best)
            assert certificate.check()
            assert max(b - v for b, v in zip(best[0], truth[0], strict=True)) <= certificate.policy_gap
    assert rational(certificate.exact) == at_start(model, best)


def discounted_truth(mdp, policy):
    """Solve V = r + gamma P V over fractions by elimination."""
    n, gamma = mdp.n_states, Fraction(mdp.discount)
    rows = []
    for s in range(n):
        p, r = row_of(mdp, 0, s, int(policy[s]))
        rows.append([(s == t) - gamma * p[t] for t in range(n)] + [r])
    for i in range(n):
        pivot = next(k for k in range(i, n) if rows[k][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [x / rows[i][i] for x in rows[i]]
        for k in range(n):
            if k != i and rows[k][i] != 0:
                rows[k] = [x - rows[k][i] * y for x, y in zip(rows[k], rows[i], strict=True)]
    return [row[-1] for row in rows]


def optimal_discounted(mdp):
    from itertools import product

    choices = [np.flatnonzero(row).tolist() for row in mdp.action_mask]
    values = [discounted_truth(mdp, policy) for policy in product(*choices)]
    return [max(value[s] for value in values) for s in range(mdp.n_states)]


# ---- tight where it should be, wide where it must be


def test_a_solved_model_is_enclosed_tightly():
    mdp = random_mdp(30, 4, 20, 0, staged=True)
    certificate = certify(mdp)
    assert 0 < certificate.width < 1e-11
    assert certificate.policy_gap < 1e-11
    assert certify(mdp, mode="exact", bit_budget=1).width < certificate.width / 4
    assert certificate.error_per_stage.shape == (20,)
    assert certificate.to_frame().shape == (21 * 30, 5)


def test_a_wrong_claim_becomes_wide():
    mdp = random_mdp(10, 3, 8, 0)
    plan = backward_induction(mdp)
    moved = plan.value.copy()
    moved[3, 4] += 0.5
    assert certify(mdp, SimpleNamespace(value=moved, policy=plan.policy)).width > 0.4
    worst = np.argmin(plan.q, axis=-1)
    certificate = certify(mdp, SimpleNamespace(value=evaluate(mdp, worst), policy=worst))
    gap = float(mdp.initial @ (plan.value[0] - evaluate(mdp, worst)[0]))
    assert certificate.width > gap > 0.5


def test_taxi():
    pytest.importorskip("gymnasium")
    from theoryrl.mdp import from_gymnasium

    mdp = from_gymnasium("Taxi-v4", horizon=50)
    certificate = certify(mdp)
    assert certificate.width < 1e-9
    assert Fraction(exact_value(mdp)) == Fraction(793, 100)
    assert certificate.initial_lower <= Fraction(793, 100) <= certificate.initial_upper


def test_overflow_says_nothing_rather_than_something_false():
    mdp = FiniteHorizonMDP(np.ones((1, 1, 1)), np.array([[1.5e308]]), horizon=3)
    certificate = certify(mdp, SimpleNamespace(value=np.zeros((4, 1)), policy=np.zeros((3, 1), int)))
    assert certificate.upper[0, 0] == math.inf
    assert certificate.lower[0, 0] <= 3 * Fraction(1.5e308)
    steep = FiniteHorizonMDP(np.array([[[0.5, 0.5]], [[0.0, 1.0]]]), np.zeros((2, 1)), horizon=1)
    certificate = certify(steep, SimpleNamespace(value=np.array([[0, 0], [1.7e308, -1.7e308]]), policy=[[0, 0]]))
    assert_encloses(certificate, [[Fraction(0)] * 2] * 2)
    assert certificate.check()


# ---- the check notices


@pytest.mark.parametrize("mode", ["float", "exact"])
@pytest.mark.parametrize(
    "field, wrong",
    [
        ("upper", lambda c: np.nextafter(np.where(np.arange(6)[:, None] < 5, c.value - 1e-9, 0.0), 0)),
        ("lower", lambda c: np.where(np.arange(6)[:, None] < 5, c.value + 1e-9, 0.0)),
        ("stage_upper", lambda c: tuple(x - Fraction(1, 10**9) for x in map(Fraction, c.stage_upper))),
        ("stage_lower", lambda c: tuple(x - Fraction(1, 10**9) for x in map(Fraction, c.stage_lower))),
        ("initial_lower", lambda c: c.initial_upper + 1e-9),
        ("initial_upper", lambda c: c.initial_lower - 1e-9),
        ("policy_gap", lambda c: -1e-9),
    ],
)
def test_check_refuses_a_changed_certificate(mode, field, wrong):
    certificate = certify(random_mdp(4, 2, 5, 3), mode=mode)
    assert certificate.check()
    with pytest.raises(ValueError, match="stage|enclosure|policy_gap"):
        dataclasses.replace(certificate, **{field: wrong(certificate)}).check()


def test_check_refuses_bounds_one_part_too_small():
    """The exact stage bounds are attained: the next smaller fraction is refused."""
    certificate = certify(random_mdp(4, 2, 5, 3), mode="exact")
    smaller = list(certificate.stage_upper)
    smaller[2] -= Fraction(1, 2**200)
    with pytest.raises(ValueError, match="stage 2"):
        dataclasses.replace(certificate, stage_upper=tuple(smaller)).check()


# ---- Lemma 1, on its own


@settings(max_examples=200)
@given(st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([0.0, 1e-10, -9e-10]))
def test_mean_error_bounds_every_order_of_summation(count, seed, off):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(count, 0.3)) * (1 + off)
    weights = weights[weights > 0]
    values = rng.normal(size=len(weights)) * 10.0 ** rng.integers(-3, 3, size=len(weights))
    exact = sum(Fraction(w) * Fraction(v) for w, v in zip(weights, values, strict=True)) / sum(map(Fraction, weights))
    bound = Fraction(plain(kernels.mean_error)(float(weights.sum()), float(len(weights)))) * Fraction(
        np.abs(values).max()
    )
    bound += len(weights) * Fraction(kernels.TINY)
    for _ in range(5):
        order = rng.permutation(len(weights))
        total = 0.0
        for i in order:
            total += weights[i] * values[i]
        assert abs(Fraction(total) - exact) <= bound


def absorbing_row(n):
    """A weight 1 and n weights that vanish beside it in floats, with values that make the loss large."""
    u = 2.0**-53
    return np.array([1.0] + n * [u * (1 - 2.0**-20)]), np.array([1.0] + n * [-0.49])


@pytest.mark.parametrize("count", [1, 10, 200])
def test_lost_weights_are_counted(count):
    weights, values = absorbing_row(count)
    total, product = 0.0, 0.0
    for w, v in zip(weights, values, strict=True):
        total, product = total + w, product + w * v
    assert total == product == 1.0
    exact = sum(Fraction(w) * Fraction(v) for w, v in zip(weights, values, strict=True)) / sum(map(Fraction, weights))
    error = plain(kernels.mean_error)(total, count + 1.0)
    assert abs(1 - exact) <= Fraction(error)
    # The sums alone would not do: the defect of the row itself is counted.
    alone = (count + 1) * kernels.U / (1 - (count + 1) * kernels.U)
    assert count == 1 or abs(1 - exact) > Fraction(alone)


def test_the_worst_action_of_a_stochastic_policy_is_counted():
    count = 200
    weights, values = absorbing_row(count)
    rows = SparseTransition(
        np.append(0, np.cumsum([count + 1] + [1] * (2 * count + 1))),
        np.concatenate([np.arange(count + 1), [0], np.repeat(np.arange(1, count + 1), 2)]),
        np.concatenate([weights, np.ones(2 * count + 1)]),
        count + 1,
        2,
    )
    reward = np.zeros((2, count + 1, 2))
    reward[1] = values[:, np.newaxis]
    mdp = FiniteHorizonMDP(rows, reward, horizon=2)
    policy = np.full((count + 1, 2), 0.5)
    assert_encloses(certify(mdp, policy=policy), true_values(mdp, policy))


# ---- what is refused


def test_bad_claims_are_refused():
    mdp = random_mdp(3, 2, 2, 0)
    plan = backward_induction(mdp)
    bad = plan.value.copy()
    bad[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"value\[1, 2\] is nan"):
        certify(mdp, SimpleNamespace(value=bad, policy=plan.policy))
    with pytest.raises(ValueError, match="shape"):
        certify(mdp, SimpleNamespace(value=plan.value[:-1], policy=plan.policy))
    with pytest.raises(ValueError, match=r"policy\[0, 0\] = \d is not an action"):
        certify(mdp, SimpleNamespace(value=plan.value, policy=plan.policy + 7))
    with pytest.raises(ValueError, match="mode"):
        certify(mdp, plan, "verified")


def test_exact_values_over_budget_are_refused_but_still_enclosed():
    mdp = random_mdp(5, 2, 6, 0)
    with pytest.raises(ValueError, match="bits"):
        exact_value(mdp, bit_budget=500)
    certificate = certify(mdp, mode="exact", bit_budget=500)
    assert certificate.exact is None
    assert "bits" in certificate.note
    assert certificate.check()
    with pytest.raises(ValueError, match="bits"):
        exact_value(mdp.with_discount(0.9), bit_budget=50)


def test_without_flint_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ModuleNotFoundError, match="pip install python-flint"):
        certify(random_mdp(2, 2, 2, 0), mode="exact")
