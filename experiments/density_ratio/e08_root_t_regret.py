"""Regret against T when the gap is matched to T: the square root of the bound is what GLOW pays.

On one fixed model GLOW stops losing once the false members are excluded, so that a fit there says nothing about the
bound: its sqrt(T) is the price of the worst gap for each T. One step, two arms, F = {Q*, f}: f promises 1/2 + g for an
arm that pays 1/2 - g, hence errs by 2g. gamma is the theorem's gamma*. With mean residuals f leaves after the first n
with

    self-normalised  2 g w > w^2 / (4 s) + s L_W / (2n),
    alpha-free       2 g w > sqrt((w^2 + s^2/n) (L_W + log(1 + n w^2/s^2)/2) / (2n)),

where s = gamma (n + 1), w = min(1, s): predicted regret g min(n, T). g runs over multiples k of sqrt(L_W / T).

Predicted: the largest mean regret over k is within a factor of 2 of the largest prediction; its slope in T lies in
[0.4, 0.6] (L_W and H_T grow, which adds to one half). At g = 0.1 fixed the regret is flat in the end: slope below 0.2
over the last three values of T, again from growing logarithms.
"""

import math
from functools import lru_cache

import numpy as np

from theoryrl.density_ratio import GLOW, log_tests, occupancy_ratios
from theoryrl.density_ratio._instances import two_arms
from theoryrl.lab import Experiment
from theoryrl.online import run
from theoryrl.viz._axes import BLUE, GREEN, GREY, finish

DELTA, FIXED = 0.1, 0.1
ROUNDS = tuple(2**k for k in range(8, 18))
MULTIPLES = tuple(2 ** (k / 2) for k in range(-6, 4))
SLOPE, FACTOR, FLAT = (0.4, 0.6), 2.0, 0.2
SCHEDULES = {"self_normalised": ("self-normalised", BLUE), "scale_free": (r"$\alpha$-free", GREEN)}


@lru_cache
def log_level(rounds: int) -> float:
    """L_W = log(4 H / delta) + log(number of tests)."""
    mdp, cls = two_arms(FIXED)
    return math.log(4 / DELTA) + log_tests(occupancy_ratios(cls, mdp), rounds)


def gap_of(cell) -> float:
    """Multiple 0 stands for the fixed gap."""
    return cell["multiple"] * math.sqrt(log_level(cell["rounds"]) / cell["rounds"]) if cell["multiple"] else FIXED


def learner(cell) -> GLOW:
    mdp, cls = two_arms(gap_of(cell))
    return GLOW(
        cls, occupancy_ratios(cls, mdp), iterations=cell["rounds"], coverability=2.0, delta=DELTA,
        schedule=cell["schedule"], initial=mdp.initial,
    )  # fmt: skip


def measure(cell, seed):
    mdp, _ = two_arms(gap_of(cell))
    return {"regret": run(learner(cell), mdp, cell["rounds"], rng=seed, jobs=1).regret[0, -1]}


def predicted(cell) -> float:
    gap, rounds, level = gap_of(cell), cell["rounds"], log_level(cell["rounds"])
    n = np.arange(1, rounds)
    s = learner(cell).slope() * (n + 1)
    w = np.minimum(1.0, s)
    if cell["schedule"] == "self_normalised":
        threshold = w**2 / (4 * s) + s * level / (2 * n)
    else:
        threshold = np.sqrt((w**2 + s**2 / n) * (level + np.log1p(n * w**2 / s**2) / 2) / (2 * n))
    out = np.flatnonzero(2 * gap * w > threshold)
    return gap * float(n[out[0]] if len(out) else rounds)


def grid() -> list[dict]:
    """Gaps of at most 1/2, so that values stay in [0, 1]."""
    multiples = (0.0, *MULTIPLES)
    cells = [{"schedule": s, "rounds": t, "multiple": m} for s in SCHEDULES for t in ROUNDS for m in multiples]
    return [cell for cell in cells if gap_of(cell) <= 0.5]


def slope(x, y) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def summarise(frame, out):
    mean = frame.groupby(["schedule", "rounds", "multiple"])["value"].mean()
    theory = {key: predicted(dict(zip(mean.index.names, key, strict=True))) for key in mean.index}
    summary: dict = {}
    for name in SCHEDULES:
        table = mean[name].unstack()
        matched, fixed = table[list(MULTIPLES)], table[0.0]
        expected = np.array([max(v for (s, r, m), v in theory.items() if (s, r) == (name, t) and m) for t in ROUNDS])
        worst = matched.max(axis=1).to_numpy()
        factor = float(np.exp(np.abs(np.log(worst / expected))).max())
        found, flat = slope(ROUNDS, worst), slope(ROUNDS[-3:], fixed.to_numpy()[-3:])
        summary[name] = {
            "rounds": ROUNDS,
            "regret": worst,
            "predicted": expected,
            "worst_multiple": matched.idxmax(axis=1).to_numpy(),
            "slope": found,
            "slope_of_the_prediction": slope(ROUNDS, expected),
            "slope_verdict": "as predicted" if SLOPE[0] <= found <= SLOPE[1] else "contradicted",
            "largest_factor": factor,
            "factor_verdict": "as predicted" if factor <= FACTOR else "contradicted",
            "fixed_gap": fixed.to_numpy(),
            "fixed_gap_slope": flat,
            "fixed_gap_verdict": "as predicted" if flat < FLAT else "contradicted",
        }
    draw(summary, out / "e08_root_t_regret.png")
    return {**summary, "figure": "e08_root_t_regret.png"}


def draw(summary: dict, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    for name, (label, colour) in SCHEDULES.items():
        found = summary[name]
        ax.plot(ROUNDS, found["regret"], "o", color=colour, label=f"{label}, worst gap: slope {found['slope']:.2f}")
        ax.plot(ROUNDS, found["predicted"], color=colour, label=f"{label}: predicted")
        ax.plot(ROUNDS, found["fixed_gap"], "s", color=colour, markerfacecolor="white", label=f"{label}, gap {FIXED}")
    x = np.array(ROUNDS)
    ax.plot(x, 2.5 * np.sqrt(x), ":", color=GREY, label="slope 1/2")
    ax.set(xscale="log", yscale="log")
    finish(ax, "Regret at the worst gap of each $T$, and at a fixed one", "rounds $T$", "regret (mean)")
    ax.legend(frameon=False, fontsize=9, ncols=2)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="root-t-regret",
    claim="glow.regret",
    grid=grid(),
    measure=measure,
    seeds=8,
    predicted={"slope": SLOPE, "factor": FACTOR, "fixed_gap_slope_below": FLAT},
    summarise=summarise,
    settings={"delta": DELTA},
)
