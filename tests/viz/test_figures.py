"""Figures: what is drawn is what was measured, on the Axes that were given, and nothing global changes."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

import theoryrl as trl
from theoryrl.theory import get
from theoryrl.viz import plot_graph, plot_grid, plot_plan, plot_regret, plot_report, plot_slope


@pytest.fixture(autouse=True)
def no_leftovers():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
    pyplot.close("all")


@pytest.fixture(scope="module")
def river():
    return trl.envs.make("riverswim", n_states=3, horizon=4)


def test_plan_map_shows_every_value(river):
    plan = trl.backward_induction(river)
    ax = plan.plot()
    assert np.array_equal(np.asarray(ax.images[0].get_array()), plan.value[:-1].T)
    given = pyplot.subplots()[1]
    assert plot_plan(plan, given) is given


def test_grid_puts_values_on_their_cells():
    ax = plot_grid(["(0, 0)", "(0, 1)", "(1, 1)", "terminal"], [1.0, 2.0, 3.0, 9.0], [0, 1, 0, 0], ["up", "jump"])
    board = ax.images[0].get_array()
    assert board[0, 0] == 1 and board[0, 1] == 2 and board[1, 1] == 3 and np.ma.is_masked(board[1, 0])
    texts = [text.get_text() for text in ax.texts]
    assert "3" in texts and "9" not in texts
    # An action without a direction is a number.
    assert "1" in texts
    with pytest.raises(ValueError, match="no state label"):
        plot_grid(["a"], [0.0])


def test_gridworlds_are_drawn_as_grids():
    plan = trl.backward_induction(trl.envs.make("four_rooms"))
    assert plan.plot().images[0].get_array().ndim == 2
    lake = trl.backward_induction(trl.from_gymnasium("FrozenLake-v1", horizon=5))
    assert lake.plot().images[0].get_array().shape == (4, 4)
    with pytest.raises(ValueError, match="layer"):
        plot_plan(lake, layer=5)


def test_graph_has_an_arrow_per_transition(river):
    ax = plot_graph(river)
    kernel = river.to_dense().transition
    moves = sum(kernel[s, a, t] > 0 for s, a, t in np.ndindex(kernel.shape))
    # Every transition is a patch, and so is every state.
    assert len(ax.patches) == moves + river.n_states
    with pytest.raises(ValueError, match="at most 25"):
        plot_graph(trl.random_mdp(26, 1, 1, rng=0))


def test_regret_line_is_the_median(river):
    run = trl.run(trl.online.UCBVI(), river, 50, seeds=5)
    ax = run.plot(label="mine")
    assert np.array_equal(ax.lines[0].get_xdata(), run.checkpoints)
    median = np.median(run.regret, axis=0)
    shown = ax.lines[0].get_ydata()
    assert np.array_equal(shown[median > 0], median[median > 0])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert plot_regret(run, ax=ax) is ax and len(ax.lines) == 2


def test_slope_guide_has_the_predicted_slope():
    x = np.array([1.0, 10.0, 100.0])
    ax = plot_slope(x, np.outer([1.0, 2.0], x**0.5), 0.5)
    guide = ax.lines[1].get_ydata()
    assert np.allclose(np.diff(np.log(guide)) / np.diff(np.log(x)), 0.5)


def test_report_of_an_exact_claim_marks_what_fails():
    theorem = get("pigeonhole.visits")
    report = trl.verify(theorem)
    ax = plot_report(report)
    assert report.key in ax.get_title(loc="left")
    assert "verified" in [text.get_text() for text in ax.texts]
    assert {line.get_label() for line in ax.lines} == {"bound", "observed"}


@pytest.mark.slow
def test_report_of_a_regret_claim(river):
    report = trl.verify("ucbvi.regret", river, runs=5)
    ax = plot_report(report)
    lines = {line.get_label(): line for line in ax.lines}
    assert np.array_equal(lines["bound of the theorem"].get_ydata(), report.observations.series["bound"])
    assert "inconclusive" in [text.get_text() for text in ax.texts]
