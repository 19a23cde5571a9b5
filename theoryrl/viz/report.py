"""One figure per verdict: what was observed, what the theorem allows."""

from __future__ import annotations

from typing import Any

import numpy as np

from theoryrl.viz._axes import BLUE, GREY, ORANGE, RED, VERDICT_COLOURS, axes, finish, positive
from theoryrl.viz.regret import plot_band, plot_slope


def plot_report(report: Any, ax: Any = None) -> Any:
    """The figure of a verification.

    Regret claims show the band over runs against the bound, on logarithmic axes; other probability claims the two sides
    of every run; exact claims both sides of every instance; rates the slope.

    Parameters
    ----------
    report : theoryrl.theory.Report
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    seen = report.observations
    if seen is None:
        ax = axes(ax, (6, 2))
        ax.text(0.5, 0.5, report.note, ha="center", va="center", wrap=True)
        ax.set_axis_off()
    elif "bound" in seen.series and "regret" in seen.series:
        ax = _regret(seen, ax)
    elif hasattr(seen, "low"):
        ax = _mean(seen, ax)
    elif seen.claim == "rate":
        ax = plot_slope(seen.x, seen.y, seen.predicted, ax)
    else:
        ax = _sides(seen, ax)
    where = "" if report.model == "none" else f" on {_short(report.model)}"
    ax.set_title(f"{report.key}{where}", loc="left", fontsize=11)
    ax.text(
        1.0, 1.01, str(report.verdict), transform=ax.transAxes, ha="right", va="bottom", fontsize=10, color="white",
        bbox={"boxstyle": "round,pad=0.3", "facecolor": VERDICT_COLOURS[str(report.verdict)], "edgecolor": "none"},
    )  # fmt: skip
    return ax


def _short(model: str) -> str:
    return model if len(model) <= 44 else model[:41] + "..."


def _regret(seen: Any, ax: Any) -> Any:
    ax = axes(ax, (7, 4.5))
    episodes = seen.series["episodes"]
    plot_band(ax, episodes, seen.series["regret"], f"regret of {seen.runs} runs (median, 90%)", BLUE)
    worst = positive(seen.series["regret"].max(axis=0))
    ax.plot(episodes, worst, color=BLUE, linewidth=0.8, linestyle=":", label="worst run")
    ax.plot(episodes, seen.series["bound"], color=RED, linewidth=1.8, label="bound of the theorem")
    ax.plot(episodes, seen.series["trivial"], color=GREY, linewidth=1.0, linestyle="--", label="trivial bound $KH$")
    ax.set_xscale("log")
    ax.set_yscale("log")
    finish(ax, "", "episodes $K$", "regret")
    ax.legend(frameon=False, fontsize=9)
    return ax


def _mean(seen: Any, ax: Any) -> Any:
    ax = axes(ax, (7, 4.5))
    ax.plot(np.sort(seen.observed), ".", color=BLUE, markersize=4, label="observed, in order")
    ax.axhline(float(seen.observed.mean()), color=BLUE, linewidth=1.2, label="their mean")
    side = "most" if seen.relation == "<=" else "least"
    ax.axhline(seen.bound, color=RED, linewidth=1.6, label=f"the expectation is at {side} this")
    finish(ax, "", "run", "value")
    ax.legend(frameon=False, fontsize=9)
    return ax


def _sides(seen: Any, ax: Any) -> Any:
    ax = axes(ax, (7, 4.5))
    order = np.argsort(seen.bound, kind="stable")
    number = np.arange(seen.runs)
    unit = "run" if seen.claim == "probability" else "instance"
    ax.plot(number, seen.bound[order], color=RED, linewidth=1.6, drawstyle="steps-mid", label="bound")
    ax.plot(number, seen.observed[order], ".", color=BLUE, markersize=4 if seen.runs > 200 else 7, label="observed")
    if seen.claim == "probability":
        failed = seen.failures[order]
    else:
        slack = seen.observed - seen.bound
        slack = np.abs(slack) if seen.relation == "==" else slack
        failed = ~(slack <= seen.allowance)[order]
    if failed.any():
        ax.plot(number[failed], seen.observed[order][failed], "x", color=ORANGE, markersize=8, label="fails")
    values = np.concatenate([seen.observed, seen.bound])
    values = np.abs(values[np.isfinite(values) & (values != 0)])
    if values.size and values.max() > 1e3 * values.min() and not np.concatenate([seen.observed, seen.bound]).min() < 0:
        ax.set_yscale("symlog", linthresh=max(float(values.min()), 1e-12))
    finish(ax, "", f"{unit} (ordered by bound)", "both sides of the claim")
    ax.legend(frameon=False, fontsize=9)
    return ax
