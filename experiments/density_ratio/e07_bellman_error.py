"""Cumulative Bellman errors along the policies played, against the bound that regret goes through.

Claim: with probability 1 - delta, in every layer and at every T,

    sum_t E_{d^t}[f_h^t - T_h f_{h+1}^t]  <=  (A / gamma + 1) C_h H(T / C_h) + B gamma T L,

A = (e - 1) / 4 + 2 (e - 2), B = 2.75, L = log(4 H |F| / delta) + log(number of tests); and, while Q* is in the set and
the start law is known, regret is at most the sum over the layers. Predicted: at most a fraction delta of the runs
above the bound (none, as it is loose: measured over bound below 0.1), regret never above the summed errors (relative
1e-9).
"""

import math

import numpy as np

from theoryrl.complexity import coverability
from theoryrl.density_ratio import GLOW, member_values, occupancy_ratios, potential_bound, self_normalised_constants
from theoryrl.density_ratio._instances import costly_instance
from theoryrl.lab import Experiment
from theoryrl.online import run
from theoryrl.viz._axes import BLUE, GREEN, ORANGE, finish, positive

DELTA, ROUNDS, TOLERANCE, RATIO = 0.1, 5000, 1e-9, 0.1
GAMMAS = {0.002: GREEN, 0.008: BLUE, 0.03: ORANGE}
MARKS = np.unique(np.geomspace(1, ROUNDS, 50).astype(int))


def learner(gamma: float) -> GLOW:
    mdp, cls = costly_instance()
    return GLOW(
        cls, occupancy_ratios(cls, mdp, 1.0), iterations=ROUNDS, gamma=gamma, delta=DELTA, total_reward=1.0,
        initial=mdp.initial,
    )  # fmt: skip


def bound(gamma: float, rounds: np.ndarray) -> np.ndarray:
    """(T, H)"""
    mdp, cls = costly_instance()
    a, b = self_normalised_constants()
    level = float(learner(gamma).log_levels()[0]) + math.log(cls.size)
    cover = coverability(mdp, list(cls.greedy()))
    return (a / gamma + 1) * potential_bound(rounds[:, np.newaxis], cover) + (b * gamma * level * rounds)[:, np.newaxis]


def measure(cell, seed):
    mdp, cls = costly_instance()
    truth = member_values(mdp, cls, 1.0)
    state = run(learner(cell["gamma"]), mdp, ROUNDS, rng=seed, jobs=1, keep_states=True).states[0]
    errors = np.cumsum(truth.bellman_errors[state.chosen], axis=0)
    regret = np.cumsum(truth.regret[state.chosen])
    limits = bound(cell["gamma"], np.arange(1, ROUNDS + 1))
    layer = int((errors / limits).max(axis=0).argmax())
    return {
        "error": (MARKS, errors[MARKS - 1, layer]),
        "bound": (MARKS, limits[MARKS - 1, layer]),
        "ratio": (errors / limits).max(),
        "excess": (regret - errors.sum(axis=1)).max(),
        "expelled": float(state.first_out[0] >= 0),
    }


def summarise(frame, out):
    summary: dict = {}
    for gamma in GAMMAS:
        rows = frame[frame["gamma"] == gamma]
        found = rows[rows["metric"].isin(["ratio", "excess", "expelled"])].pivot(
            index="seed", columns="metric", values="value"
        )
        above, size = int((~(found["ratio"] <= 1 + TOLERANCE)).sum()), len(found)
        largest, excess = float(found["ratio"].max()), float(found["excess"].max())
        summary[f"gamma = {gamma:g}"] = {
            "runs": size,
            "above_the_bound": above,
            "bound_verdict": "as predicted" if above <= DELTA * size else "contradicted",
            "largest_ratio": largest,
            "ratio_verdict": "as predicted" if largest < RATIO else "contradicted",
            "regret_above_the_errors": excess,
            "regret_verdict": "as predicted" if excess <= TOLERANCE * ROUNDS else "contradicted",
            "runs_that_expelled_the_truth": int(found["expelled"].sum()),
        }
    draw(frame, out / "e07_bellman_error.png")
    return {**summary, "figure": "e07_bellman_error.png"}


def draw(frame, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    for gamma, colour in GAMMAS.items():
        rows = frame[frame["gamma"] == gamma]
        curves = rows[rows["metric"] == "error"].pivot(index="step", columns="seed", values="value")
        limit = rows[rows["metric"] == "bound"].groupby("step")["value"].max()
        ax.plot(curves.index, positive(curves.median(axis=1)), color=colour, label=rf"measured, $\gamma$ = {gamma:g}")
        ax.fill_between(
            curves.index, positive(curves.min(axis=1)), positive(curves.max(axis=1)), color=colour, alpha=0.25, lw=0
        )
        ax.plot(limit.index, limit, "--", color=colour, label=rf"predicted: at most, $\gamma$ = {gamma:g}")
    ax.set(xscale="log", yscale="log")
    finish(
        ax,
        "Bellman errors along what GLOW plays (all runs), and their bound",
        "rounds $T$",
        "sum over rounds, one layer",
    )
    ax.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="bellman-error",
    claim="glow.bellman-error",
    grid={"gamma": list(GAMMAS)},
    measure=measure,
    seeds=50,
    predicted={"above_the_bound": DELTA, "ratio_below": RATIO, "regret": "at most the errors"},
    summarise=summarise,
    settings={"delta": DELTA, "rounds": ROUNDS},
)
