"""Lower bounds: formulas term by term, what they must never exceed, and the protocol on both sides."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import theoryrl as trl
from theoryrl.online import UCBVI, FixedPolicy, Uniform, bounds, run
from theoryrl.online._theorems_lower_bounds import copies, hidden_instance_protocol, needles, told
from theoryrl.online.bounds.lower_bounds import (
    coin_divergence,
    distance_bound,
    domingues_lower_bound,
    jao_hardest,
    jao_lower_bound,
    largest_tree,
)
from theoryrl.theory import get, verify


def slow_needles(K, N, P, e):
    kl = coin_divergence(0.5, 0.5 + e)
    total = 0.0
    for k in range(1, K + 1):
        x = (k - 1) * kl / N
        total += max(0.0, 1 - 1 / N - min(math.sqrt(x / 2), math.sqrt(1 - math.exp(-x))))
    return e * P * total


def slow_copies(K, M, A, H, d, e):
    q = [0.5 + 0.5 * (1 - 2 * d) ** h for h in range(H)]
    kl = coin_divergence(d, d + e)
    total = 0.0
    for h in range(H):
        w = sum((1 - 2 * d - e) ** i for i in range(H - h - 1))
        for k in range(1, K + 1):
            x = (sum(q) * (k - 1) / M + sum(q[:h])) * kl / A
            total += w * max(0.0, q[h] * (1 - 1 / A) - min(math.sqrt(x / 2), math.sqrt(1 - math.exp(-x))))
    return e * total


def test_formulas():
    # S = 6, A = 2, H = 9: d = 2, W = 3, N = 12, P = 4.
    sizes = dict(n_states=6, n_actions=2, horizon=9)
    for K in (1, 7, 200):
        assert float(domingues_lower_bound(K, **sizes, epsilon=0.2)) == pytest.approx(slow_needles(K, 12, 4, 0.2))
        slow = slow_copies(K, 3, 2, 9, 0.1, 0.07)
        assert float(jao_lower_bound(K, **sizes, delta=0.1, epsilon=0.07)) == pytest.approx(slow, rel=1e-12)
    # Later terms are summed in blocks: below, and close.
    for fast, slow in [
        (domingues_lower_bound(3000, **sizes, epsilon=0.02), slow_needles(3000, 12, 4, 0.02)),
        (jao_lower_bound(1500, **sizes, delta=0.1, epsilon=0.004), slow_copies(1500, 3, 2, 9, 0.1, 0.004)),
    ]:
        assert 0.98 * slow <= float(fast) <= slow


@given(st.floats(0.0, 40.0), st.floats(0.0, 40.0), st.floats(0.0, 1.0))
def test_the_distance_bound_is_concave_and_increasing(x, y, weight):
    middle = weight * x + (1 - weight) * y
    mean = weight * distance_bound(np.array(x)) + (1 - weight) * distance_bound(np.array(y))
    assert distance_bound(np.array(middle)) >= mean - 1e-12
    assert (x <= y) == (distance_bound(np.array(x)) <= distance_bound(np.array(y))) or abs(x - y) < 1e-12


@given(st.integers(0, 10**6))
def test_the_distance_bound_bounds_the_distance(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(4, 0.5), size=2) + 1e-12
    p, q = p / p.sum(), q / q.sum()
    assert np.abs(p - q).sum() / 2 <= distance_bound(np.array((p * np.log(p / q)).sum())) + 1e-9


@given(st.integers(2, 4), st.integers(2, 3), st.integers(0, 30), st.integers(3, 9))
def test_closed_forms_lie_below(n_actions, depth, more, log_episodes):
    S = 3 + sum(n_actions**level for level in range(depth))
    H = 3 * depth + more
    W = H // 3
    N, P = W * n_actions**depth, H - W - depth
    K = 8 * N * 2**log_episodes
    bound = float(domingues_lower_bound(K, n_states=S, n_actions=n_actions, horizon=H))
    assert bound >= 0.97 * 0.349 * (1 - 1 / N) ** 2 * P * math.sqrt(N * K)
    assert bound >= 0.97 * math.sqrt(H**3 * S * n_actions * K) / 51


def test_never_above_the_trivial_or_an_upper_bound():
    counts = np.array([1, 10, 1000, 10**6, 10**9])
    sizes = dict(n_states=10, n_actions=3, horizon=20)
    low = domingues_lower_bound(counts, **sizes)
    assert low.shape == counts.shape and (low > 0).all() and (np.diff(low) > 0).all()
    assert (low <= counts * 20).all()
    assert (low <= bounds.ucbvi_regret_bound(counts, **sizes, delta=0.05, stationary=False)).all()
    assert np.allclose(domingues_lower_bound(counts, **sizes, reward_width=3.0), 3 * low)
    stationary = jao_lower_bound(counts[:4], **sizes)
    assert (stationary > 0).all() and (np.diff(stationary) > 0).all()
    assert (stationary <= bounds.ucbvi_regret_bound(counts[:4], **sizes, delta=0.05)).all()
    # The rate: a hundred times the episodes, ten times the regret.
    assert low[-1] / float(domingues_lower_bound(10**7, **sizes)) == pytest.approx(10, rel=0.05)
    assert float(jao_lower_bound(10**6, **sizes)) / float(jao_lower_bound(10**4, **sizes)) == pytest.approx(10, rel=0.2)
    assert jao_hardest(10**4, **sizes)[0] == float(jao_lower_bound(10**4, **sizes))


def test_sizes_without_a_hard_instance_have_bound_zero():
    for sizes in (dict(n_states=3, n_actions=2, horizon=9), dict(n_states=9, n_actions=1, horizon=9)):
        assert (
            float(domingues_lower_bound(100, **sizes)) == 0 == float(domingues_lower_bound(100, **sizes, epsilon=0.1))
        )
    assert float(domingues_lower_bound(100, n_states=9, n_actions=2, horizon=2)) == 0
    assert float(jao_lower_bound(100, n_states=1, n_actions=2, horizon=9)) == 0
    assert float(jao_lower_bound(100, n_states=2, n_actions=1, horizon=9)) == 0
    assert float(jao_lower_bound(100, n_states=2, n_actions=2, horizon=1)) == 0
    assert (
        largest_tree(6, 2, 9) == 2
        and largest_tree(9, 2, 9) == 2
        and largest_tree(10, 2, 4) == 2
        and largest_tree(10, 2, 5) == 3
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: domingues_lower_bound(0, n_states=6, n_actions=2, horizon=9), "episodes"),
        (lambda: domingues_lower_bound(5, n_states=6, n_actions=2, horizon=9, epsilon=0.5), "epsilon must lie"),
        (lambda: domingues_lower_bound(5, n_states=6, n_actions=2, horizon=9, epsilon=math.nan), "epsilon must lie"),
        (lambda: domingues_lower_bound(5, n_states=6, n_actions=2, horizon=9, waiting=2), "waiting without epsilon"),
        (
            lambda: domingues_lower_bound(5, n_states=6, n_actions=2, horizon=9, epsilon=0.1, waiting=7),
            "waiting must be at most 6, not 7",
        ),
        (lambda: jao_lower_bound(5, n_states=6, n_actions=2, horizon=9, delta=0.1), "both, or neither"),
        (lambda: jao_lower_bound(5, n_states=6, n_actions=2, horizon=9, delta=0.6, epsilon=0.4), "sum below 1"),
        (lambda: bounds.bpi_lower_bound(0.0, n_states=6, n_actions=2, horizon=9, delta=0.1), "epsilon must be"),
        (lambda: bounds.bpi_lower_bound(0.1, n_states=6, n_actions=2, horizon=9, delta=1.0), "delta must lie"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_identification_bound_by_hand():
    # d = 1: W = 2 gives N = 4, P = 3, gain 2 * 0.3 / 3 = 0.2; W = 1 gives N = 2, P = 4; W = 3: N = 6, P = 2, gain 0.3.
    bound = bounds.bpi_lower_bound(0.3, n_states=4, n_actions=2, horizon=6, delta=0.05)
    assert bound == pytest.approx(4 * coin_divergence(0.25, 0.95) / coin_divergence(0.5, 0.7))
    scaled = bounds.bpi_lower_bound(0.6, n_states=4, n_actions=2, horizon=6, delta=0.05, reward_width=2.0)
    assert scaled == pytest.approx(bound)
    assert bounds.bpi_lower_bound(5.0, n_states=4, n_actions=2, horizon=6, delta=0.05) == 0
    assert coin_divergence(0.0, 0.5) == pytest.approx(math.log(2)) and coin_divergence(0.5, 1.0) == math.inf


# ---- the families and the protocol


def test_families_are_the_models_of_the_proof():
    model = trl.envs.hard_episodic()
    family = needles(model)
    assert family.n_instances == 12 and len({family.build(j).name for j in range(12)}) == 12
    # What a policy that takes triple 5 loses: nothing there, the most everywhere else; the first layers of all agree.
    policy = trl.backward_induction(family.build(5)).policy
    for j in range(12):
        instance = family.build(j)
        lost = instance.initial @ (trl.backward_induction(instance).value[0] - trl.evaluate(instance, policy)[0])
        assert lost == pytest.approx(0.0 if j == 5 else family.most, abs=1e-12)
    family = copies(trl.envs.jao_copies(n_states=5 // 2 * 2, n_actions=3, horizon=6))
    assert family.n_instances == 9
    instance = family.build(4)
    worst = trl.backward_induction(instance.with_reward(-instance.reward)).value[0]
    lost = float(instance.initial @ (trl.backward_induction(instance).value[0] + worst))
    assert 0 < lost <= family.most + 1e-12


@pytest.mark.parametrize("sizes", [(4, 2, 3), (6, 2, 6)])
def test_the_exact_mean_of_a_blind_policy_is_above(sizes):
    # K = 1: the first policy of any learner, averaged over all instances, against the bound of a single episode.
    S, A, H = sizes
    model = trl.random_mdp(S, A, H, rng=0, staged=True)
    family = needles(model)
    bound = float(domingues_lower_bound(1, n_states=S, n_actions=A, horizon=H, epsilon=0.25))
    lost = []
    for j in range(family.n_instances):
        instance = family.build(j)
        value = trl.evaluate(instance, trl.uniform_policy(instance))[0]
        lost.append(instance.initial @ (trl.backward_induction(instance).value[0] - value))
    assert np.mean(lost) == pytest.approx(bound, rel=1e-12)  # attained: (1 - 1/N) e P


@pytest.mark.slow
@pytest.mark.parametrize("key", ["lower-bound.hard-instance", "lower-bound.hidden-actions"])
@pytest.mark.parametrize("seed", range(5))
def test_verdicts(key, seed):
    report = verify(key, rng=seed)
    assert report.verdict == "consistent" and report.as_expected and 0 < report.tightness < 1
    assert report.controls[0].verdict == "refuted"


@pytest.mark.slow
def test_sizes_of_the_user():
    report = verify("lower-bound.hard-instance", trl.random_mdp(11, 3, 12, rng=0), rng=1)
    assert report.as_expected and "36 instances like hard_episodic(n_states=7, n_actions=3" in report.model
    report = verify("lower-bound.hidden-actions", trl.random_mdp(5, 3, 6, rng=0), rng=1)
    assert report.as_expected and "9 instances" in report.model
    report = verify("lower-bound.hard-instance", trl.random_mdp(3, 3, 12, rng=0))
    assert report.verdict == "not-applicable" and "S >= 4" in report.note


def test_a_cheat_is_caught_and_progress_is_told():
    seen = []

    def call(**options):
        return hidden_instance_protocol(
            trl.envs.hard_episodic(n_states=4, horizon=5),
            rng=np.random.SeedSequence(3),
            runs=30,
            progress=lambda *args: seen.append(args),
            family=needles,
            **options,
        )

    cheat, honest = call(jobs=1, learners=(told,)), call(jobs=1, learners=(Uniform(),))
    assert (np.abs(cheat.observed) <= cheat.allowance).all() and (honest.observed > honest.bound).all()
    assert seen[-1][:2] == (30, 30)
    again = call(jobs=2, learners=(UCBVI(),)).observed
    assert np.array_equal(again, call(jobs=1, learners=(UCBVI(),)).observed) and len(set(again)) > 1
    theorem = get("lower-bound.hard-instance")
    broken = dataclasses.replace(
        theorem, protocol=partial(theorem.protocol, learners=(told, told, told, told, UCBVI()))
    )
    assert verify(broken, rng=0).verdict == "refuted"


# ---- the learner that plays a given policy


def test_fixed_policy_has_the_regret_of_its_policy():
    mdp = trl.random_mdp(3, 2, 4, rng=1)
    policy = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 1]])
    lost = float(mdp.initial @ (trl.backward_induction(mdp).value[0] - trl.evaluate(mdp, policy)[0]))
    assert run(FixedPolicy(policy), mdp, 6).regret[0, -1] == pytest.approx(6 * lost, abs=1e-12)
    assert run(FixedPolicy(trl.backward_induction(mdp).policy), mdp, 6).regret[0, -1] == pytest.approx(0, abs=1e-12)


def test_fixed_policy_refuses_what_does_not_fit():
    mask = np.array([[True, True], [True, False]])
    mdp = trl.FiniteHorizonMDP(np.full((2, 2, 2), 0.5), np.zeros((2, 2)), horizon=2, action_mask=mask)
    for policy, message in [
        (np.zeros((3, 2), int), "shape"),
        (np.array([0, 1]), r"policy\[0, 1\] is 1, no allowed action"),
        (np.array([0, 2]), r"policy\[0, 1\] is 2"),
        (np.array([-1, 0]), r"policy\[0, 0\] is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(FixedPolicy(policy), mdp, 1)
    with pytest.raises(ValueError, match="integers"):
        FixedPolicy(np.array([0.0, 1.0]))
