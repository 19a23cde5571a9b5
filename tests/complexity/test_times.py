"""Hitting times, diameter, mixing, gain and bias: closed forms, linear programs, enumeration."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

import theoryrl as trl
from theoryrl.complexity import (
    average_reward,
    diameter,
    hitting_times,
    is_communicating,
    minimal_hitting_times,
    mixing_time,
    stationary_distribution,
)

seeds = st.integers(0, 2**32 - 1)


def chain_model(table, **settings):
    """A model with one action per state."""
    table = np.asarray(table, float)
    return trl.FiniteHorizonMDP(table[:, np.newaxis], np.zeros((len(table), 1)), horizon=2, **settings)


def river_steps(n_states):
    """Expected steps to the right in RiverSwim, exactly: m_0 = 10/3, m_s = (10 + m_{s-1}) / 3."""
    steps = [Fraction(10, 3)]
    for _ in range(n_states - 2):
        steps.append((10 + steps[-1]) / 3)
    return steps


def masked(seed, n_states=4, branching=2):
    rng = np.random.default_rng(seed)
    mdp = trl.random_mdp(n_states, 3, 2, rng, branching=branching)
    mask = rng.random((n_states, 3)) < 0.6
    mask[np.arange(n_states), rng.integers(0, 3, n_states)] = True
    table = np.where(mask[:, :, np.newaxis], mdp.transition, np.nan)
    return trl.FiniteHorizonMDP(table, mdp.reward, horizon=2, action_mask=mask)


def all_policies(mdp):
    return (np.array(p) for p in itertools.product(*(np.flatnonzero(row) for row in mdp.action_mask)))


# ---- hitting times


@pytest.mark.parametrize("n_states", [2, 3, 6, 40])
def test_river(n_states):
    mdp = trl.envs.make("riverswim", n_states=n_states, horizon=20)
    steps = river_steps(n_states)
    times = minimal_hitting_times(mdp)
    for s, t in itertools.product(range(n_states), repeat=2):
        exact = s - t if s >= t else sum(steps[s:t])
        assert times[s, t] == pytest.approx(float(exact), rel=1e-13)
    assert diameter(mdp) == pytest.approx(float(sum(steps)), rel=1e-13)
    right = hitting_times(mdp, np.ones(n_states, int))
    assert right[0, -1] == pytest.approx(float(sum(steps)), rel=1e-13)


def test_astronomic_times_keep_their_digits():
    # Up with probability 1/10, else back to 0: the time to the end is (10^n - 1) / 0.9 with n steps.
    n = 30
    table = np.zeros((n + 1, n + 1))
    table[np.arange(n), np.arange(1, n + 1)] = 0.1
    table[:n, 0] += 0.9
    table[n, n] = 1.0
    exact = float(Fraction(10) ** n * 10 / 9 - Fraction(10, 9))
    assert hitting_times(chain_model(table), np.zeros(n + 1, int))[0, n] == pytest.approx(exact, rel=1e-12)
    assert minimal_hitting_times(chain_model(table))[0, n] == pytest.approx(exact, rel=1e-12)


@given(seeds)
def test_least_times_are_those_of_the_best_policies(seed):
    mdp = masked(seed)
    every = np.array([hitting_times(mdp, policy) for policy in all_policies(mdp)])
    best = every.min(axis=0)
    found = minimal_hitting_times(mdp)
    assert (np.isinf(found) == np.isinf(best)).all()
    assert found[np.isfinite(best)] == pytest.approx(best[np.isfinite(best)], rel=1e-12)
    assert is_communicating(mdp) == np.isfinite(best).all() == is_communicating(mdp.to_sparse())
    assert diameter(mdp) == pytest.approx(best.max(), rel=1e-12)
    assert diameter(mdp.to_sparse()) == diameter(mdp)


@given(seeds)
def test_times_of_a_policy_solve_the_linear_equations(seed):
    mdp = trl.random_mdp(5, 2, 2, np.random.default_rng(seed))
    policy = np.random.default_rng(seed).dirichlet([1, 1], 5)
    chain = np.einsum("sa,sat->st", policy, mdp.transition)
    times = hitting_times(mdp, policy)
    for t in range(5):
        rest = np.arange(5) != t
        solved = np.linalg.solve(np.eye(4) - chain[np.ix_(rest, rest)], np.ones(4))
        assert times[rest, t] == pytest.approx(solved, rel=1e-9) and times[t, t] == 0


def test_least_times_against_linear_programs():
    mdp = masked(5, n_states=6, branching=4)
    mdp = trl.FiniteHorizonMDP(
        0.9 * np.nan_to_num(mdp.transition) + 0.1 / 6, mdp.reward, horizon=2, action_mask=mdp.action_mask
    )
    times = minimal_hitting_times(mdp)
    for t in range(6):
        # max sum T subject to T(s) <= 1 + sum_{x != t} P(x | s, a) T(x), T(t) = 0
        rows = [np.eye(6)[s] - mdp.transition[s, a] for s, a in np.argwhere(mdp.action_mask) if s != t]
        bounds = [(0, 0) if s == t else (0, None) for s in range(6)]
        assert linprog(-np.ones(6), rows, np.ones(len(rows)), bounds=bounds).x == pytest.approx(times[:, t], rel=1e-7)


def test_one_way_streets():
    table = np.zeros((3, 1, 3))
    table[0, 0, [1, 2]] = 0.5, 0.5
    table[1, 0, 2] = table[2, 0, 2] = 1.0
    mdp = trl.FiniteHorizonMDP(table, np.zeros((3, 1)), horizon=2)
    inf = np.inf
    assert minimal_hitting_times(mdp).tolist() == [[0, inf, 1.5], [inf, 0, 1], [inf, inf, 0]]
    assert diameter(mdp) == inf and not is_communicating(mdp)
    assert diameter(chain_model([[1.0]])) == 0
    # A second action from 0 that reaches 1 surely, but only when it is allowed.
    wide = np.concatenate([table, np.eye(3)[[1, 2, 0]][:, np.newaxis]], axis=1)
    assert diameter(trl.FiniteHorizonMDP(wide, np.zeros((3, 2)), horizon=2)) == 2
    mask = np.array([[True, False], [True, True], [True, True]])
    cut = trl.FiniteHorizonMDP(wide, np.zeros((3, 2)), horizon=2, action_mask=mask)
    # From 0 a coin decides between 1 and 2, and 2 leads back to 0: T(0, 1) = 1 + (1 + T(0, 1)) / 2.
    assert minimal_hitting_times(cut)[0].tolist() == [0, 3, 1.5]


def test_what_changes_over_time_is_refused():
    mdp = trl.random_mdp(3, 2, 3, 0, staged=True)
    for call in (diameter, minimal_hitting_times, is_communicating, average_reward):
        with pytest.raises(ValueError, match="time-varying"):
            call(mdp)
    still = trl.random_mdp(3, 2, 3, 0)
    for call in (hitting_times, mixing_time, stationary_distribution):
        with pytest.raises(ValueError, match="policy changes over time"):
            call(still, np.zeros((3, 3), int))
    with pytest.raises(ValueError, match="time-varying"):
        average_reward(trl.FiniteHorizonMDP(still.transition, np.zeros((3, 3, 2)), horizon=3))


# ---- mixing


@pytest.mark.parametrize("p", [0.5, 0.3, 0.1, 0.01, 1e-4])
def test_two_states(p):
    # The distance after t steps is (1 - 2 p)^t / 2.
    time = next(t for t in itertools.count() if (1 - 2 * p) ** t / 2 <= 0.25 + 1e-12)
    assert mixing_time(chain_model([[1 - p, p], [p, 1 - p]]), np.zeros(2, int)) == time


@given(seeds)
def test_mixing_against_every_power(seed):
    rng = np.random.default_rng(seed)
    mdp = trl.random_mdp(4, 2, 2, rng)
    mdp = trl.FiniteHorizonMDP(0.2 * mdp.transition + 0.8 * np.eye(4)[:, np.newaxis], mdp.reward, horizon=2)
    chain, policy = mdp.transition[:, 1], np.ones(4, int)
    law = stationary_distribution(mdp, policy)
    assert law @ chain == pytest.approx(law, rel=1e-12) and law.sum() == pytest.approx(1, rel=1e-14)
    power, time = np.eye(4), 0
    while np.abs(power - law).sum(axis=1).max() / 2 > 0.25 + 1e-12:
        power, time = power @ chain, time + 1
    assert mixing_time(mdp, policy) == time


def test_chains_that_never_mix():
    assert mixing_time(chain_model(np.eye(3)[[1, 2, 0]]), np.zeros(3, int)) == np.inf
    two = chain_model([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0.2, 0.2, 0.2, 0.4]])
    assert mixing_time(two, np.zeros(4, int)) == np.inf
    with pytest.raises(ValueError, match="2 recurrent classes"):
        stationary_distribution(two, np.zeros(4, int))
    # A transient state and an aperiodic class: mixes, and the time is that of leaving.
    slow = chain_model([[0.9, 0.1], [0, 1]])
    assert mixing_time(slow, np.zeros(2, int)) == np.ceil(np.log(0.25) / np.log(0.9))
    assert stationary_distribution(slow, np.zeros(2, int)).tolist() == [0, 1]
    assert mixing_time(chain_model([[1.0]]), np.zeros(1, int)) == 0


def test_river_in_the_long_run():
    mdp = trl.envs.make("riverswim", n_states=6, horizon=20)
    weights = np.array([1, 3, 9, 27, 81, 3 / 7 * 81])
    law = stationary_distribution(mdp, np.ones(6, int))
    assert law == pytest.approx(weights / weights.sum(), rel=1e-14)
    plan = average_reward(mdp)
    assert plan.gain == pytest.approx(np.full(6, law[-1]), rel=1e-12) and plan.policy.tolist() == [1] * 6
    # Bias of swimming right: g + b(s) = r(s) + P b, from the left bank upwards.
    bias = [0.0, law[-1] / 0.3]
    for s in range(1, 5):
        bias.append((law[-1] + bias[s] - 0.6 * bias[s] - 0.1 * bias[s - 1]) / 0.3)
    assert plan.bias - plan.bias[0] == pytest.approx(bias, rel=1e-10)
    assert plan.span == pytest.approx(bias[-1], rel=1e-10)


# ---- gain and bias


def gain_and_bias(chain, reward):
    """By Cesaro sums of powers: independent of the library's linear algebra."""
    lazy = np.linalg.matrix_power(0.5 * np.eye(len(chain)) + 0.5 * chain, 2**40)
    limit = lazy / lazy.sum(axis=1, keepdims=True)
    gain = limit @ reward
    bias = np.linalg.lstsq(
        np.vstack([np.eye(len(chain)) - chain, limit]), np.append(reward - gain, np.zeros(len(chain))), rcond=None
    )[0]
    return gain, bias


@given(seeds, st.integers(1, 4), st.booleans())
def test_bias_optimality_against_enumeration(seed, branching, ties):
    mdp = masked(seed, branching=branching)
    if ties:
        mdp = mdp.with_reward(np.round(2 * mdp.reward) / 2)
    table = np.nan_to_num(mdp.transition)
    every = np.arange(4)
    found = [gain_and_bias(table[every, p], mdp.reward[every, p]) for p in all_policies(mdp)]
    gains, biases = (np.array(part) for part in zip(*found, strict=True))
    best = gains.max(axis=0)
    optimal = (gains >= best - 1e-9).all(axis=1)
    plan = average_reward(mdp)
    assert plan.gain == pytest.approx(best, abs=1e-9)
    assert plan.bias == pytest.approx(biases[optimal].max(axis=0), abs=1e-7)
    assert mdp.action_mask[every, plan.policy].all()
    if is_communicating(mdp):
        width = mdp.reward[mdp.action_mask].max() - mdp.reward[mdp.action_mask].min()
        assert plan.span <= width * diameter(mdp) + 1e-9
    assert average_reward(mdp.to_sparse()).span == pytest.approx(plan.span, abs=1e-9)


def test_a_bias_that_only_the_third_term_sees():
    # State 0 stays for nothing or goes round 0 -> 1 -> 2 -> 0 with rewards 0, 1, -1: the same gain, and a tie in the
    # optimality equation of staying, but going round has partial sums 0, 1, 0 and bias 1/3.
    table = np.zeros((3, 2, 3))
    table[0, 0, 0] = table[0, 1, 1] = table[1, :, 2] = table[2, :, 0] = 1.0
    plan = average_reward(trl.FiniteHorizonMDP(table, [[0, 0], [1, 1], [-1, -1]], horizon=2))
    assert plan.gain == pytest.approx(0, abs=1e-14) and plan.policy[0] == 1
    assert plan.bias == pytest.approx([1 / 3, 1 / 3, -2 / 3], abs=1e-12) and plan.span == pytest.approx(1, abs=1e-12)


@given(seeds)
def test_names_of_states_do_not_matter(seed):
    mdp = masked(seed)
    order = np.random.default_rng(seed).permutation(4)
    other = trl.FiniteHorizonMDP(
        mdp.transition[order][:, :, order], mdp.reward[order], horizon=2, action_mask=mdp.action_mask[order]
    )
    assert minimal_hitting_times(other) == pytest.approx(minimal_hitting_times(mdp)[order][:, order], rel=1e-12)
    assert average_reward(other).bias == pytest.approx(average_reward(mdp).bias[order], abs=1e-8)
