"""Models whose numbers span many orders of magnitude: rare transitions, huge rewards, times beyond floats."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

import theoryrl
from theoryrl.complexity import (
    average_reward,
    complexity_report,
    diameter,
    hitting_times,
    minimal_hitting_times,
    mixing_time,
    stationary_distribution,
    suboptimality_gaps,
)


def two_states(rate, rewards):
    """State 1 is worth more per step; both are left with the probabilities rate[s][a]."""
    table = np.zeros((2, 2, 2))
    for s, a in itertools.product(range(2), range(2)):
        table[s, a, 1 - s] = rate[s][a]
        table[s, a, s] = 1 - rate[s][a]
    return theoryrl.FiniteHorizonMDP(table, np.array(rewards), horizon=3)


def exact_two_states(rate, rewards):
    """Best gain over the four policies and the difference b(1) - b(0) of its policy, in rationals."""
    found = []
    for choice in itertools.product(range(2), range(2)):
        up, down = Fraction(rate[0][choice[0]]), Fraction(rate[1][choice[1]])
        low, high = (Fraction(rewards[s][choice[s]]) for s in range(2))
        gain = (down * low + up * high) / (up + down)
        found.append((gain, (high - low) / (up + down), choice))
    return max(found)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 2.0**-40])
def test_rare_transitions_decide_gain_and_bias(scale):
    # The larger immediate reward of state 0 is the wrong choice: it leaves four times as rarely.
    rate = [[0.25 * scale, scale / 16], [0.125 * scale, 0.125 * scale]]
    rewards = [[0.0, 0.25], [1.0, 0.5]]
    gain, difference, choice = exact_two_states(rate, rewards)
    assert choice == (0, 0)
    plan = average_reward(two_states(rate, rewards))
    assert plan.policy.tolist() == [0, 0]
    np.testing.assert_allclose(plan.gain, float(gain), rtol=1e-14)
    assert plan.span == pytest.approx(float(difference), rel=1e-13)
    assert plan.bias[1] - plan.bias[0] == pytest.approx(float(difference), rel=1e-13)


def test_a_way_to_a_better_class_is_taken_however_rare():
    table = np.zeros((3, 2, 3))
    table[0, 0, 0] = 1.0
    table[0, 1] = [1 - 2.0**-40, 2.0**-40, 0.0]
    table[1, :, 1] = table[2, :, 2] = 1.0
    reward = np.array([[0.5, 0.0], [1.0, 1.0], [0.0, 0.0]])
    plan = average_reward(theoryrl.FiniteHorizonMDP(table, reward, horizon=2))
    assert plan.policy[0] == 1
    np.testing.assert_allclose(plan.gain, [1.0, 1.0, 0.0])
    assert plan.bias[0] == pytest.approx(-(2.0**40), rel=1e-12)


def test_rates_below_half_an_ulp_are_no_singular_matrix():
    mdp = two_states([[1e-20, 1e-20], [1e-20, 1e-20]], [[0.0, 0.0], [1.0, 1.0]])
    assert average_reward(mdp).span == pytest.approx(5e19, rel=1e-13)
    report = complexity_report(mdp)
    assert report["diameter"].value == pytest.approx(1e20, rel=1e-13)
    mixing = report["uniform_mixing_time"]
    assert (mixing.value, mixing.status) == (None, "out-of-range") and "2^60" in mixing.note
    json.loads(report.to_json(), parse_constant=pytest.fail)


def drifting(n, rare, order):
    """A birth-death chain that steps down with probability `rare`, its states in another order."""
    table = np.zeros((n, n))
    for i in range(n):
        table[i, min(i + 1, n - 1)] += 1 - rare
        table[i, max(i - 1, 0)] += rare
    return theoryrl.FiniteHorizonMDP(table[np.ix_(order, order)][:, np.newaxis], np.zeros((n, 1)), horizon=2)


@pytest.mark.parametrize("upwards", [True, False])
def test_stationary_weights_that_differ_by_more_than_floats_hold(upwards):
    order = np.arange(40) if upwards else np.arange(40)[::-1]
    mdp, policy = drifting(40, 2.0**-40, order), np.zeros(40, np.int64)
    law = stationary_distribution(mdp, policy)[order]
    ratio = 2.0**-40 / (1 - 2.0**-40)
    wanted = [ratio ** (39 - i) * (1 - ratio) for i in range(40)]  # underflows to 0 at the far end
    np.testing.assert_allclose(law, wanted, rtol=1e-12, atol=0)
    assert mixing_time(mdp, policy) == 39


def test_times_beyond_floats_are_refused_and_named():
    mdp, policy = drifting(40, 1e-12, np.r_[0, 39, 1:39]), np.zeros(40, np.int64)
    with pytest.raises(OverflowError, match=r"from state \d+ to state 0 is over 1e\+250 steps"):
        hitting_times(mdp, policy)
    with pytest.raises(OverflowError, match=r"from state \d+ to state 0 is over 1e\+250 steps"):
        minimal_hitting_times(mdp)
    with pytest.raises(OverflowError, match="probabilities below 1e-250"):
        stationary_distribution(mdp, policy)
    report = complexity_report(mdp)
    assert report["diameter"].status == report["uniform_hitting_time"].status == "out-of-range"
    assert report["coverability"].status == "exact"


def test_a_first_policy_beyond_floats_does_not_hide_a_short_way():
    # Action 0 also leads on, but so rarely that taking it everywhere needs 1e400 steps.
    n = 21
    table = np.zeros((n, 2, n))
    for s in range(n - 1):
        table[s, 0, 0], table[s, 0, s + 1] = 1.0, 1e-20
        table[s, 1, s + 1] = 1.0
    table[0, 0] = 0.0
    table[0, 0, :2] = 1.0, 1e-20
    table[n - 1, :, 0] = 1.0
    assert diameter(theoryrl.FiniteHorizonMDP(table, np.zeros((n, 2)), horizon=2)) == n - 1


@pytest.mark.parametrize("size", [1e306, 1e-200])
def test_rewards_whose_squares_leave_floats(size):
    table = np.broadcast_to(np.eye(3)[[1, 2, 0]][:, np.newaxis], (3, 2, 3))
    mdp = theoryrl.FiniteHorizonMDP(table, np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]]) * size, horizon=4)
    gaps = suboptimality_gaps(mdp)
    assert gaps.minimal == pytest.approx(size)
    report = complexity_report(mdp)
    for measure in report.measures:
        assert measure.value is None or not math.isnan(measure.value), measure.key
        assert (measure.value is None) == (measure.status != "exact") and (measure.value is not None or measure.note)
    if size > 1:
        assert report["gap_complexity"].status == report["environmental_norm"].status == "out-of-range"
    json.loads(report.to_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize("n_states", [60, 300])
def test_policies_tried_on_the_way_may_take_forever(n_states):
    # With the left half drawn left and the right half right, one end is reached from the other in 1e160 steps and more.
    mdp = theoryrl.envs.riverswim(n_states=n_states, horizon=5)
    plan = average_reward(mdp)
    assert (plan.policy == 1).all()
    short = average_reward(theoryrl.envs.riverswim(n_states=20, horizon=5))
    assert plan.gain == pytest.approx(short.gain[0], rel=1e-9)
    # Far from both ends a step to the right is worth the gain of the time that it takes.
    here = mdp.transition[20, 1]
    np.testing.assert_allclose(np.diff(plan.bias)[20:-20], plan.gain[0] / (here[21] - here[19]), rtol=1e-8)
