"""Regret against episodes, and slopes on logarithmic axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theoryrl.viz._axes import BLUE, GREY, axes, finish, positive

BAND = (0.05, 0.95)


def plot_band(ax: Any, x: ArrayLike, rows: ArrayLike, label: str, colour: str | None = None) -> Any:
    """The median of `rows` (seeds, C) with the band between its 5% and 95% quantiles; returns the line."""
    table = np.asarray(rows, float)
    (line,) = ax.plot(x, positive(np.median(table, axis=0)), label=label, color=colour, linewidth=1.8)
    if len(table) > 1:
        low, high = np.quantile(table, BAND, axis=0)
        ax.fill_between(x, positive(low), positive(high), color=line.get_color(), alpha=0.2, linewidth=0)
    return line


def plot_regret(run: Any, ax: Any = None, label: str | None = None) -> Any:
    """Cumulative regret of a run on logarithmic axes: median over seeds, and the band of 90% of them.

    Parameters
    ----------
    run : theoryrl.online.Run
    ax : matplotlib Axes, optional
        Draw further runs on the same Axes to compare them.
    label : str, optional
        Default the learner's name.

    Returns
    -------
    matplotlib Axes
    """
    ax = axes(ax, (6, 4))
    plot_band(ax, run.checkpoints, run.regret, label or type(run.learner).__name__)
    ax.set_xscale("log")
    ax.set_yscale("log")
    title = f"{run.mdp.name or 'model'}: regret, {len(run.regret)} seeds"
    finish(ax, title, "episodes", "regret (median, 90% of seeds)")
    ax.legend(frameon=False)
    return ax


def plot_slope(
    x: ArrayLike, y: ArrayLike, predicted: float, ax: Any = None, label: str = "measured", colour: str = BLUE
) -> Any:
    """Measurements along a growing parameter on logarithmic axes, and the predicted slope through their middle.

    Parameters
    ----------
    x : (m,) positive
    y : (seeds, m)
    predicted : float
        Exponent of the theorem.
    ax : matplotlib Axes, optional
    label, colour : str

    Returns
    -------
    matplotlib Axes
    """
    ax = axes(ax, (5, 4))
    x, y = np.asarray(x, float), np.atleast_2d(np.asarray(y, float))
    plot_band(ax, x, y, label, colour)
    centre = np.exp(np.nanmean(np.log(positive(y.mean(axis=0)))))
    guide = centre * (x / np.exp(np.log(x).mean())) ** predicted
    ax.plot(x, guide, color=GREY, linestyle="--", linewidth=1.2, label=f"slope {predicted:g}")
    ax.set_xscale("log")
    ax.set_yscale("log")
    finish(ax, "", "", "")
    ax.legend(frameon=False)
    return ax
