"""All tables and all weights, played online."""

import numpy as np
import pytest

from theoryrl import FiniteHorizonMDP
from theoryrl.classes.builders import optimal_values
from theoryrl.density_ratio import (
    TabularOptimism,
    h2o,
    mixture_ellipsoid,
    mixture_test,
    optimistic_box,
    optimistic_policy,
    tabular_data,
    units_of,
)
from theoryrl.mdp.dataset import Dataset
from theoryrl.mdp.random import random_mdp


def layered(seed=0):
    """Layers of their own, a forbidden action, any start, rewards between -1 and 3 that are 0 or 1 by chance."""
    base = random_mdp(2, 2, 2, np.random.default_rng(seed), staged=True)
    return FiniteHorizonMDP(
        base.transition,
        4 * base.reward - 1,
        horizon=2,
        initial=[0.3, 0.7],
        action_mask=np.array([[True, True], [False, True]]),
        reward_range=(-1.0, 3.0),
    )


def prefix(data, episodes):
    rows = episodes * data.horizon
    columns = [column[:rows] for column in data.columns.values()]
    return Dataset(*columns, data.n_states, data.n_actions, data.horizon)


@pytest.mark.parametrize("solver", ["search", "box"])
@pytest.mark.parametrize("seed", [0, 1])
def test_optimistic_in_every_round_in_which_the_truth_is_in_the_set(solver, seed):
    mdp = layered(seed)
    units = units_of(mdp)
    known = dict(units=units, action_mask=mdp.action_mask, initial=mdp.initial)
    run = h2o(TabularOptimism(0.1, solver=solver, **known), mdp, None, 40, rng=seed)
    to_go = np.arange(2, 0, -1)[:, None, None]
    truth = np.where(mdp.action_mask, (optimal_values(mdp) - to_go * units.low) / units.scale, 0.0)
    best = float(mdp.initial @ np.where(mdp.action_mask, truth[0], -np.inf).max(axis=1))
    inside = 0
    for t in range(1, 40):
        data = tabular_data(prefix(run.data, t), **known)
        assert data.visits.sum() == 2 * t
        if mixture_test(truth, data, delta=0.1).passed:
            inside += 1
            choice = run.choices[t]
            assert choice.upper >= best - 1e-12
            assert choice.value >= best - (choice.upper - choice.value) - 1e-12
    assert inside >= 35


def test_a_worse_arm_is_played_as_often_as_its_interval_allows():
    """Two sure arms: once the interval of the worse one ends below the better one, it is left alone."""
    mdp = FiniteHorizonMDP(np.ones((1, 2, 1)), np.array([[0.2, 0.9]]), horizon=1)
    for solver in ("search", "box"):
        run = h2o(TabularOptimism(solver=solver), mdp, None, 120)
        plays = int((run.regret > 0).sum())
        level = 0.5 * (np.log(1 / 0.05) + 0.5 * (np.log1p(np.arange(1, 40)) + np.log1p(119)))
        end = 0.2 + np.sqrt(level * (np.arange(1, 40) + 1)) / np.arange(1, 40)
        assert 0 < plays <= int((end >= 0.9).sum()) + 1 < 15
        assert run.regret[-40:].sum() <= 0.7


def test_with_one_state_and_layer_both_solvers_have_the_same_values():
    """The occupancy of a policy is one pair, and the norm of the form is the bonus of the box."""
    means = np.array([[0.1, 0.3, 0.2]])
    mdp = FiniteHorizonMDP(np.ones((1, 3, 1)), means, horizon=1, reward_law="bernoulli")
    data = h2o(TabularOptimism(solver="box"), mdp, None, 200, rng=3).data
    for episodes in (1, 2, 5, 30, 100, 200):
        search, box = (TabularOptimism(solver=solver).choose(prefix(data, episodes)) for solver in ("search", "box"))
        assert search.value == pytest.approx(box.value, abs=1e-5)
        assert search.upper == pytest.approx(box.value, abs=1e-5)
    assert search.value < 1
    assert search.policy == box.policy


def test_the_search_is_less_optimistic_than_the_box():
    mdp = layered()
    known = dict(units=units_of(mdp), action_mask=mdp.action_mask, initial=mdp.initial)
    data = h2o(TabularOptimism(solver="box", **known), mdp, None, 300).data
    search, box = (TabularOptimism(solver=solver, **known).choose(data) for solver in ("search", "box"))
    assert search.value <= search.upper <= box.value + 1e-12
    assert search.upper < box.value - 0.01


def test_the_settings_reach_the_set():
    mdp = layered()
    known = dict(units=units_of(mdp), action_mask=mdp.action_mask, initial=mdp.initial)
    data = h2o(TabularOptimism(solver="box", **known), mdp, None, 300).data
    for settings in ({}, dict(delta=0.5), dict(prior=9.0), dict(noise_width=2.0)):
        seen = tabular_data(data, **known)
        ellipsoid = mixture_ellipsoid(seen, **dict(delta=0.05) | settings)
        box = TabularOptimism(solver="box", **settings, **known).choose(data)
        assert box.value == optimistic_box(seen, ellipsoid).value
        assert np.array_equal(box.values, optimistic_box(seen, ellipsoid).values)
        search = TabularOptimism(tolerance=1e-9, **settings, **known).choose(data)
        assert search.upper == optimistic_policy(seen, ellipsoid).limited_upper
    frequencies = np.bincount(data.state[data.step == 0], minlength=2) / 300
    assert abs(frequencies - mdp.initial).max() > 1e-3
    loose = TabularOptimism(solver="box", **known | dict(initial=None)).choose(data)
    tables = np.where(mdp.action_mask, loose.values[0], -np.inf).max(axis=1)
    assert loose.value == pytest.approx(float(frequencies @ tables), abs=1e-12)


def test_another_solver():
    with pytest.raises(ValueError, match="solver must be 'search' or 'box', not 'milp'"):
        TabularOptimism(solver="milp")
