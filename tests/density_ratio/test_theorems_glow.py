"""The registry entries of GLOW: verdicts, controls that turn red, and measurements against sums done another way."""

import numpy as np
import pytest

from theoryrl.classes import FiniteClass
from theoryrl.classes.checks import realizability
from theoryrl.density_ratio import GLOW, member_values, occupancy_ratios
from theoryrl.density_ratio import _instances as instances
from theoryrl.density_ratio import _protocols as protocols
from theoryrl.density_ratio import _theorems_glow as theorems
from theoryrl.density_ratio.bounds import glow_regret_bound
from theoryrl.mdp import FiniteHorizonMDP
from theoryrl.mdp.random import random_mdp
from theoryrl.online import run
from theoryrl.theory import get, verify

KEYS = ["glow.optimism", "glow.bellman-error", "glow.regret", "glow.sample-complexity"]
PROTOCOLS = [
    theorems.optimism_protocol,
    theorems.bellman_error_protocol,
    theorems.regret_protocol,
    theorems.risk_protocol,
]


def measure(protocol, model, runs=3, rounds=40, seed=0, **settings):
    stream = np.random.SeedSequence(seed)
    return protocol(model, rng=stream, runs=runs, jobs=1, progress=None, iterations=rounds, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_verdicts_and_controls(key):
    report = verify(key)
    assert report.verdict == "consistent" and report.as_expected
    assert all(control.verdict == "refuted" for control in report.controls)
    assert theorems.VACUOUS not in report.note
    assert not report.tightness > 1


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_controls_fail_in_every_run_at_every_seed(key):
    for control in get(key).controls:
        for seed in range(100, 110):
            stream = np.random.SeedSequence(seed)
            seen = control.protocol(control.model(), rng=stream, runs=2, jobs=None, progress=None)
            assert seen.failures.all(), (control.name, seed)


def models():
    mask = np.array([[True, True], [False, True], [True, False]])
    base = random_mdp(3, 2, 3, 4, staged=True)
    start = np.array([0.5, 0.3, 0.2])
    chain = np.zeros((4, 2, 4))
    chain[np.arange(4), 0, np.minimum(np.arange(4) + 1, 3)] = 1.0
    chain[:, 1, 0] = 1.0
    goal = np.zeros((4, 2))
    goal[3] = 1.0
    return {
        "staged, masked, random start": FiniteHorizonMDP(
            base.transition, base.reward, horizon=3, initial=start, action_mask=mask
        ),
        "losses": FiniteHorizonMDP(base.transition, -5 * base.reward, horizon=3, initial=start),
        "one reward": FiniteHorizonMDP(np.ones((1, 2, 1)), np.full((1, 2), -0.7), horizon=2),
        "one action": random_mdp(3, 1, 2, 1, reward_law="bernoulli"),
        "all ones": FiniteHorizonMDP(np.ones((1, 1, 1)), np.full((1, 1), 0.3), horizon=1),
        "rewards of successors": random_mdp(4, 2, 2, 1, reward_law="outcome"),
        "sparse": random_mdp(6, 2, 3, 1, sparse=True, branching=2, reward_law="uniform"),
        # At layer 1 the goal is worth more than an episode can collect: it cannot be there so early.
        "far goal": FiniteHorizonMDP(chain, goal, horizon=5),
    }


@pytest.mark.parametrize("name", models())
def test_on_models_they_were_not_written_for(name):
    model = models()[name]
    setting = protocols.setting_of(model)
    assert realizability(setting.cls, model)
    for protocol in PROTOCOLS:
        assert not measure(protocol, model).failures.any()


def test_units_hold_values_where_no_episode_gets():
    model = models()["far goal"]
    # From state 0 the goal is entered at layer 3 and pays twice; who were there at layer 0 would be paid five times.
    assert protocols.total_of(model) == 5.0
    assert member_values(model, protocols.class_of(model), 5.0).value[0] == 2.0


def test_what_was_played_adds_up_to_the_regret_of_the_run():
    model, cls = instances.slope_instance(4)
    weights = occupancy_ratios(cls, model, 1.0)
    settings = GLOW(cls, weights, iterations=80, gamma=0.05, total_reward=1.0, trajectories=2, scale=0.5)
    seen = protocols.played(settings, model, 2, np.random.SeedSequence(5), jobs=1)
    rounds = np.arange(1, 81)
    setting = protocols.setting_of(model, lambda _: cls)
    sums = protocols.sums_of(seen, model, setting, rounds)
    other = run(protocols.Unstopped(settings), model, 160, 2, np.random.SeedSequence(5), jobs=1, checkpoints=2 * rounds)
    assert sums.regret.max() > 0.2
    assert 2 * sums.regret == pytest.approx(other.regret, abs=1e-10)
    known = member_values(model, cls, 1.0)
    slow = np.zeros((2, 80, 3))
    for i in range(2):
        for t in range(80):
            slow[i, t] = sum(known.bellman_errors[f] for f in seen.member[i, : t + 1])
    assert sums.errors == pytest.approx(slow, abs=1e-12)


def test_an_emptied_set_is_counted_and_not_raised():
    # Both members overrate the arm that they play, so that none is left in the end.
    model, cls = instances.bandit([0.5, 0.1]), instances.arm_class([[0.5, 1.0], [0.95, 0.9]])
    settings = GLOW(cls, occupancy_ratios(cls, model), iterations=300, gamma=0.02)
    seen = protocols.played(settings, model, 3, np.random.SeedSequence(0), jobs=1)
    assert ((seen.emptied > 2) & (seen.emptied < 300)).all()
    assert (seen.expelled < 300).all()
    for member, emptied in zip(seen.member, seen.emptied, strict=True):
        assert (member >= 0).all() and (member[emptied:] == member[emptied - 1]).all()
    # Afterwards the last policy is played: the regret is still that of the run.
    sums = protocols.sums_of(seen, model, protocols.setting_of(model, lambda _: cls), np.array([300]))
    other = run(protocols.Unstopped(settings), model, 300, 3, np.random.SeedSequence(0), jobs=1)
    assert sums.regret[:, 0] == pytest.approx(other.regret[:, -1], abs=1e-10)
    observed = measure(theorems.optimism_protocol, model, rounds=300, case=theorems.Case(classes=lambda _: cls))
    assert observed.failures.all() and (observed.observed > 0).all()


def test_an_empty_set_is_a_failure_of_optimism_even_if_it_was_not_the_truth_that_failed():
    seen = protocols.Played(np.zeros((1, 4), np.int64), np.array([2]), np.array([[4, 1]]))
    assert theorems.share_lost(seen, 4).tolist() == [0.5]
    assert theorems.share_lost(seen._replace(emptied=np.array([4])), 4).tolist() == [0.0]
    assert theorems.share_lost(seen._replace(expelled=np.array([[1, 4]])), 4).tolist() == [0.75]


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_a_level_below_the_noise_expels_the_truth(scale):
    case = theorems.Case(scale=scale, delta=theorems.WATCHED.delta)
    seen = measure(theorems.optimism_protocol, theorems.small_random(), runs=4, rounds=60, case=case)
    assert seen.failures.all() == (scale < 1) and seen.failures.any() == (scale < 1)


def test_errors_are_bounded_layer_by_layer_by_what_the_regret_bound_adds_up():
    model = theorems.two_paths()
    case = theorems.Case()
    setting = case.setting(model)
    learner = case.learner(model, setting, 100_000)
    marks = np.array([20_000, 50_000, 100_000])
    limit, trivial = theorems.layer_bound(setting, learner, marks)
    whole = glow_regret_bound(marks, gamma=learner.slope(), planned=100_000, **case.bound_settings(model, setting))
    assert (whole[1:] < trivial[1:]).all()
    assert 1 + limit[1:].sum(axis=1) == pytest.approx(whole[1:], rel=1e-12)


def test_bellman_errors_catch_an_optimal_value_that_is_not_there():
    # Its errors are 0 in every round, so that only the regret can give it away.
    seen = measure(
        theorems.bellman_error_protocol, theorems.two_arms(), rounds=50, case=theorems.Case(classes=theorems.too_modest)
    )
    assert seen.failures.all() and (seen.observed <= seen.bound).all()


def sets_of(model, rounds, seed, **settings):
    """Of every round: who is in the set, who is chosen, and the promises at the start law; by runs of every length."""
    cls = instances.wrong_optimists(model, 5, gaps=(0.1, 1.0), rng=seed)
    order = np.random.default_rng(seed).permutation(cls.size)
    glow = GLOW(
        cls,
        occupancy_ratios(cls, model, 1.0),
        iterations=rounds,
        gamma=1.0,
        total_reward=1.0,
        initial=model.initial,
        test="full",
        scale=0.02,
        tie_order=order,
        **settings,
    )
    alive, chosen = [], []
    for played in range(2, rounds + 1):
        state = run(protocols.Unstopped(glow), model, played, 1, seed, jobs=1, keep_states=True).states[0]
        if state.empty[0] >= 0:
            break
        alive.append(state.status > 0)
        chosen.append(state.chosen[played - 1])
    promises = member_values(model, cls, 1.0).optimistic
    return np.array(alive), np.array(chosen), promises, np.argsort(order)


@pytest.mark.parametrize("seed", [10, 13, 16])
def test_nested_sets_only_shrink_and_promise_less_and_less(seed):
    model = instances.last_reward(4, 2, 3, seed).with_initial([0.5, 0.3, 0.1, 0.1])
    free = sets_of(model, 30, seed)[0]
    assert (free[1:] > free[:-1]).any()  # without nesting some come back here
    alive, chosen, promises, _ = sets_of(model, 30, seed, nested=True)
    assert (alive[1:] <= alive[:-1]).all() and alive[0].sum() > alive[-1].sum()
    assert (np.diff(promises[chosen]) <= 1e-12).all()


@pytest.mark.parametrize("seed", [10, 13, 16])
def test_the_choice_is_the_first_of_the_most_optimistic_and_at_least_optimal(seed):
    model = instances.last_reward(4, 2, 3, seed).with_initial([0.5, 0.3, 0.1, 0.1])
    alive, chosen, promises, rank = sets_of(model, 30, seed)
    optimum = member_values(model, FiniteClass(instances.optimal_values(model)[np.newaxis]), 1.0).value[0]
    for inside, member in zip(alive, chosen, strict=True):
        best = min(np.flatnonzero(inside), key=lambda f: (-round(promises[f], 12), rank[f]))
        assert member == best
        if inside[0]:
            assert promises[member] >= optimum - 1e-12


@pytest.mark.parametrize(("runs", "rounds"), [(24, 100_000), (1000, 5000), (10**6, 200)])
def test_rounds_are_what_the_work_allows(runs, rounds):
    assert protocols.rounds_for(theorems.two_arms(), runs) == rounds
