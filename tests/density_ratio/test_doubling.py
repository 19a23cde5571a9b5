"""GLOW in epochs: equal to fresh runs, guesses given up when the members' promises say so, and the bounds."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from theoryrl.classes import FiniteClass
from theoryrl.density_ratio import (
    GLOW,
    FullWeights,
    GLOWDoubling,
    GLOWGuessing,
    glow_doubling_regret_bound,
    glow_gamma,
    glow_guessing_regret_bound,
    glow_regret_bound,
    occupancy_ratios,
)
from theoryrl.mdp import FiniteHorizonMDP
from theoryrl.online import run

ARMS = FiniteHorizonMDP(np.ones((1, 3, 1)), np.array([[0.25, 0.75, 0.5]]), horizon=1, name="three sure arms")
NOISY = FiniteHorizonMDP(np.ones((1, 3, 1)), np.array([[0.25, 0.75, 0.5]]), horizon=1, reward_law="bernoulli")
# Q*, one that promises 1 for the first arm, one that promises 0.875 for the last.
CLS = FiniteClass(np.array([[0.25, 0.75, 0.5], [1.0, 0.75, 0.5], [0.25, 0.75, 0.875]]).reshape(3, 1, 1, 3))
WEIGHTS = occupancy_ratios(CLS, ARMS)
PROMISE, PAY = np.array([0.75, 1.0, 0.875]), np.array([0.75, 0.25, 0.5])


def glow(iterations, **settings):
    return GLOW(CLS, WEIGHTS, iterations=iterations, **{"coverability": 3.0, "delta": 0.1, **settings})


# ---- epochs


@pytest.mark.parametrize("settings", (
    {}, {"trajectories": 3}, {"schedule": "scale_free", "nested": True}, {"initial": (1.0,), "test": "full"},
    {"gamma": 0.05, "scale": 0.1},
))  # fmt: skip
def test_every_epoch_is_a_fresh_run(settings):
    learner = GLOWDoubling(glow(20, **settings), epochs=4)
    k = learner.glow.trajectories
    whole = run(learner, ARMS, 300 * k, keep_states=True)
    state = whole.states[0]
    np.testing.assert_array_equal(state.begin, [0, 20, 60, 140])
    for one, begin in zip(learner.settings(), state.begin, strict=True):
        alone = run(one, ARMS, one.iterations * k, keep_states=True).states[0]
        np.testing.assert_array_equal(state.history[begin : begin + one.iterations], alone.chosen)
    assert len(np.unique(state.history)) > 1
    np.testing.assert_allclose(whole.regret[0, -1], k * (0.75 - PAY[state.history]).sum(), rtol=1e-12)


def test_the_first_epoch_meets_the_same_chance_as_a_run_alone():
    learner = GLOWDoubling(glow(400, scale=0.5), epochs=2)
    both = run(learner, NOISY, 400, seeds=3, keep_states=True)
    alone = run(learner.settings()[0], NOISY, 400, seeds=3, keep_states=True)
    np.testing.assert_array_equal(both.regret, alone.regret)
    for mine, theirs in zip(both.states, alone.states, strict=True):
        np.testing.assert_array_equal(mine.history[:400], theirs.chosen)
        np.testing.assert_array_equal(mine.inner.residual, theirs.residual)


def test_probabilities_of_failure_add_up():
    learner = GLOWDoubling(glow(10), epochs=30)
    shares = [one.delta for one in learner.settings()]
    assert sum(shares) == pytest.approx(0.1 * (1 - 1 / 31), rel=1e-12)
    assert [one.iterations for one in learner.settings()[:4]] == [10, 20, 40, 80]
    guessing = GLOWGuessing(glow(100))
    assert guessing.guesses == (1.0, 2.0, 3.0)
    assert sum(one.delta for one in guessing.settings()) == pytest.approx(0.05)
    assert GLOWGuessing(glow(9, coverability=1.0)).guesses == (1.0,)
    assert GLOWGuessing(glow(9, coverability=4.0)).guesses == (1.0, 2.0, 4.0)


def test_no_more_than_there_is_room_for():
    run(GLOWDoubling(glow(3), epochs=2), ARMS, 9)
    with pytest.raises(ValueError, match="9 iterations"):
        run(GLOWDoubling(glow(3), epochs=2), ARMS, 10)
    run(GLOWGuessing(glow(8, trajectories=2)), ARMS, 16)
    with pytest.raises(ValueError, match="8 iterations"):
        run(GLOWGuessing(glow(8, trajectories=2)), ARMS, 17)


def test_an_empty_set_is_said_with_its_epoch():
    wrong = FiniteClass(CLS.values[1:])
    settings = GLOW(wrong, occupancy_ratios(wrong, ARMS), iterations=40, coverability=2.0, scale=0.01, check=False)
    with pytest.raises(ValueError, match="epoch 0: the confidence set is empty"):
        run(GLOWDoubling(settings, epochs=2), ARMS, 100)
    with pytest.raises(ValueError, match="member"):
        run(GLOWDoubling(replace(settings, check=True), epochs=2), ARMS, 100)


# ---- guesses


@dataclass(frozen=True, eq=False)
class Impatient(GLOWGuessing):
    """Gives guesses up at thresholds that grow by random steps."""

    seed: int = 0

    def thresholds(self):
        steps = np.random.default_rng(self.seed).uniform(0, 0.4, (len(self.guesses), self.glow.iterations))
        return 0.5 + np.cumsum(steps, axis=1)


@pytest.mark.parametrize("k", (1, 3))
@pytest.mark.parametrize("seed", range(6))
def test_guesses_are_given_up_when_promises_are_not_kept(k, seed):
    learner = Impatient(glow(60, trajectories=k, coverability=8.0), seed=seed)
    limits = learner.thresholds()
    state = run(learner, ARMS, 60 * k, keep_states=True).states[0]
    expected, surplus = [0], 0.0
    for i, member in enumerate(state.history):
        n = i - expected[-1]
        if n > 0 and len(expected) < 4 and surplus > limits[len(expected) - 1, n - 1]:
            expected.append(i)
            surplus = 0.0
        surplus += PROMISE[member] - PAY[member]
    assert len(expected) > 1
    np.testing.assert_array_equal(state.begin, expected + [-1] * (4 - len(expected)))
    assert state.surplus[0] == pytest.approx(k * surplus, rel=1e-12)


def test_a_right_guess_is_kept_and_thresholds_are_those_of_the_theorem():
    learner = GLOWGuessing(glow(2000, trajectories=4, coverability=3.0))
    table = learner.thresholds()
    for guess, row in zip(learner.guesses, table, strict=True):
        settings = dict(coverability=guess, horizon=1, n_functions=3, n_policies=3, trajectories=4)
        gamma = float(glow_gamma(2000, delta=0.1 / 6, **settings))
        for n in (1, 50, 2000):
            promised = glow_regret_bound(n, gamma=gamma, planned=2000, delta=0.1 / 6, known_start=True, **settings)
            chance = math.sqrt(2 * n / 4 * math.log(4 * 3 * 2000 / 0.1))
            assert row[n - 1] >= promised + chance - 1e-9
            if promised < n:
                assert row[n - 1] == pytest.approx(float(promised) + chance, rel=1e-12)
    assert (np.diff(table, axis=1) > 0).all()
    assert (table[-1] < 2000 * 1e6).all()
    state = run(learner, NOISY, 8000, keep_states=True).states[0]
    np.testing.assert_array_equal(state.begin, [0, -1, -1])


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(TypeError, match="settings of GLOW"):
        GLOWDoubling(CLS)
    with pytest.raises(TypeError, match="settings of GLOW"):
        GLOWGuessing(WEIGHTS)
    with pytest.raises(ValueError, match="epochs"):
        GLOWDoubling(glow(3), epochs=0)
    with pytest.raises(ValueError, match="anytime"):
        GLOWDoubling(glow(3, anytime=True))
    with pytest.raises(ValueError, match="no gamma"):
        GLOWGuessing(glow(3, gamma=0.1))
    with pytest.raises(ValueError, match="upper bound"):
        GLOWGuessing(glow(3, gamma=0.1, coverability=None))
    for bad in (glow(3, schedule="paper"), glow(3, anytime=True)):
        with pytest.raises(ValueError, match="self-normalised"):
            GLOWGuessing(bad)
    with pytest.raises(ValueError, match="counted"):
        GLOWGuessing(GLOW(CLS, FullWeights(), iterations=3, coverability=3.0))


# ---- bounds

SMALL = dict(coverability=2.0, horizon=1, n_functions=2, n_weights=2, trajectories=10**6, known_start=True)


def test_bound_of_the_epochs_is_their_sum():
    expected = sum(float(glow_regret_bound(100 * 2**e, delta=0.1 / ((e + 1) * (e + 2)), **SMALL)) for e in range(3))
    assert glow_doubling_regret_bound(700, first=100, delta=0.1, **SMALL) == pytest.approx(expected, rel=1e-12)
    partly = expected + float(glow_regret_bound(50, planned=800, delta=0.1 / 20, **SMALL))
    several = glow_doubling_regret_bound([1, 100, 750], first=100, delta=0.1, **SMALL)
    assert several[2] == pytest.approx(partly, rel=1e-12)
    assert several[1] == pytest.approx(float(glow_regret_bound(100, delta=0.05, **SMALL)), rel=1e-12)
    assert (np.diff(glow_doubling_regret_bound(np.arange(1, 900), first=100, delta=0.1, **SMALL)) > -1e-9).all()


def test_not_knowing_the_number_of_iterations_costs_the_factor_of_the_theorem():
    settings = dict(SMALL, trajectories=1)
    for rounds in (10**9, 3 * 10**9, 10**10):
        epochs = math.floor(math.log2(rounds / 1000 + 1))
        level = 0.1 / ((epochs + 1) * (epochs + 2))
        known = float(glow_regret_bound(rounds, delta=level, **settings))
        assert 1 < glow_doubling_regret_bound(rounds, first=1000, delta=0.1, **settings) / known < 2 + math.sqrt(2)


def test_guessing_costs_little_more_than_knowing():
    settings = dict(n_functions=2, n_weights=2, delta=0.1, horizon=2, trajectories=1)
    for known_start in (True, False):
        for cover in (1.0, 5.0, 32.0):
            rounds = 10**10
            found = glow_guessing_regret_bound(
                rounds, largest=64.0, coverability=cover, known_start=known_start, **settings
            )
            known = float(glow_regret_bound(rounds, coverability=cover, known_start=known_start, **settings))
            # 3.12 for what grows with gamma, and the deviation terms of every epoch.
            assert known < found < 4.5 * known
    with pytest.raises(ValueError, match="below the coverability"):
        glow_guessing_regret_bound(100, largest=2.0, coverability=3.0, **settings)
    assert glow_guessing_regret_bound(10, largest=2.0, coverability=2.0, total_reward=3.0, **settings) == 30.0


def test_guessing_bound_is_the_formula():
    rounds, delta, k = 10**9, 0.1, 5
    settings = dict(n_functions=4, n_weights=3, horizon=2, trajectories=k)
    total, count, every = 0.0, 3, 4  # of 1, 2, 4, 6 three are tried at coverability 3
    for guess in (1.0, 2.0, 4.0):
        gamma = float(glow_gamma(rounds, coverability=guess, delta=delta / 8, **settings))
        a = (math.e - 1) / 4 + 2 * (math.e - 2)
        from theoryrl.density_ratio import potential_bound

        total += (a / gamma + 1) * 2 * float(potential_bound(rounds, guess))
    level = math.log(4 * 2 * 4 * 3 * rounds * 8 / delta)
    total += 2 * 2.75 * gamma * rounds * level / k + 4 * count
    total += 2 * math.sqrt(2 * count * rounds * math.log(8 * every * 4 * rounds / delta) / k)
    total += 2 * math.sqrt(2 * count * rounds * math.log(4 * every * rounds / delta) / k)
    assert total < rounds
    found = glow_guessing_regret_bound(rounds, largest=6.0, coverability=(3.0, 2.5), delta=delta, **settings)
    assert found == pytest.approx(total, rel=1e-12)
