"""Regret against coverability: k disjoint arms, proportional to k at one gap and to sqrt(k) at the worst.

One step, k arms, arm 0 pays 1/2 and the others 1/2 - g; F = {Q*, f_1, ..., f_{k-1}}, f_i promising 1/2 + g for arm i.
The policies have no pair in common: C_cov = k, and the ratios a round can test are t / (plays of the arm + 1), k T (T
+ 1) / 2 over all rounds, which is the count used here (the library's, of all mixtures, would bring another k log T
into L and hide what is to be seen). Each false member has to be played n = O(L / g^2) times, so that regret is g
min((k - 1) n, T).

Predicted: at fixed g, with (k - 1) n < T, slope 1 +- 0.15 in k; at the worst gap, of order sqrt(k L / T), slope 1/2 +-
0.15, as in the bound. (A fixed gap is where the bound is not attained: sqrt(k) there would be too little.) n is the
first with 2 g n x > sqrt((n x^2 + gamma^2) (L_W + log(1 + n x^2 / gamma^2) / 2) / 2), x = min(1 / (n + 1), gamma), the
alpha-free test on mean residuals; measured regret within a factor of 2 of the prediction.
"""

import math

import numpy as np

from theoryrl.density_ratio import GLOW, occupancy_ratios
from theoryrl.density_ratio._instances import disjoint_paths
from theoryrl.lab import Experiment
from theoryrl.online import run
from theoryrl.viz._axes import BLUE, GREEN, GREY, finish

DELTA, ROUNDS, FIXED, FACTOR, TOLERANCE = 0.1, 2**15, 0.1, 2.0, 0.15
ARMS = (4, 8, 16, 32, 64)
MULTIPLES = tuple(2 ** (k / 2) for k in range(-5, 1))  # of sqrt(k L_W / T)
KINDS = {"fixed": (f"gap {FIXED}", GREEN, 1.0), "worst": ("worst gap", BLUE, 0.5)}


def log_tests(arms: int) -> float:
    return math.log(arms * ROUNDS * (ROUNDS + 1) / 2)


def log_level(arms: int) -> float:
    return math.log(4 / DELTA) + log_tests(arms)


def gap_of(cell) -> float:
    """Multiple 0 stands for the fixed gap."""
    arms, multiple = cell["arms"], cell["multiple"]
    return multiple * math.sqrt(arms * log_level(arms) / ROUNDS) if multiple else FIXED


def learner(cell) -> GLOW:
    mdp, cls = disjoint_paths(cell["arms"], gap_of(cell), horizon=1)
    return GLOW(
        cls, occupancy_ratios(cls, mdp), iterations=ROUNDS, coverability=float(cell["arms"]), delta=DELTA,
        schedule="scale_free", log_tests=log_tests(cell["arms"]), initial=mdp.initial, nested=True,
    )  # fmt: skip


def measure(cell, seed):
    mdp, _ = disjoint_paths(cell["arms"], gap_of(cell), horizon=1)
    return {"regret": run(learner(cell), mdp, ROUNDS, rng=seed, jobs=1).regret[0, -1]}


def predicted(cell) -> float:
    gap, gamma, level = gap_of(cell), learner(cell).slope(), log_level(cell["arms"])
    n = np.arange(1, ROUNDS)
    x = np.minimum(1 / (n + 1), gamma)
    threshold = np.sqrt((n * x**2 + gamma**2) * (level + np.log1p(n * x**2 / gamma**2) / 2) / 2)
    out = np.flatnonzero(2 * gap * n * x > threshold)
    plays = int(n[out[0]]) if len(out) else ROUNDS
    return gap * min((cell["arms"] - 1) * plays, ROUNDS)


def summarise(frame, out):
    mean = frame.groupby(["arms", "multiple"])["value"].mean().unstack()
    theory = {(k, m): predicted({"arms": k, "multiple": m}) for k in ARMS for m in (0.0, *MULTIPLES)}
    measured = {"fixed": mean[0.0].to_numpy(), "worst": mean[list(MULTIPLES)].max(axis=1).to_numpy()}
    expected = {
        "fixed": np.array([theory[k, 0.0] for k in ARMS]),
        "worst": np.array([max(theory[k, m] for m in MULTIPLES) for k in ARMS]),
    }
    summary: dict = {}
    for name, (_, _, exponent) in KINDS.items():
        slope = float(np.polyfit(np.log(ARMS), np.log(measured[name]), 1)[0])
        factor = float(np.exp(np.abs(np.log(measured[name] / expected[name]))).max())
        summary[name] = {
            "arms": ARMS,
            "regret": measured[name],
            "predicted": expected[name],
            "slope": slope,
            "slope_of_the_prediction": float(np.polyfit(np.log(ARMS), np.log(expected[name]), 1)[0]),
            "slope_verdict": "as predicted" if abs(slope - exponent) <= TOLERANCE else "contradicted",
            "largest_factor": factor,
            "factor_verdict": "as predicted" if factor <= FACTOR else "contradicted",
        }
    summary["worst"]["multiple"] = mean[list(MULTIPLES)].idxmax(axis=1).to_numpy()
    draw(summary, out / "e09_coverability.png")
    return {**summary, "figure": "e09_coverability.png"}


def draw(summary: dict, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    x = np.array(ARMS)
    for name, (label, colour, exponent) in KINDS.items():
        found = summary[name]
        ax.plot(x, found["regret"], "o", color=colour, label=f"{label}: measured, slope {found['slope']:.2f}")
        ax.plot(x, found["predicted"], color=colour, label=f"{label}: predicted")
        ax.plot(x, 0.6 * found["predicted"][0] * (x / x[0]) ** exponent, ":", color=GREY)
    ax.plot([], [], ":", color=GREY, label="slopes 1 and 1/2")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(ARMS, [str(k) for k in ARMS])
    ax.minorticks_off()
    finish(ax, f"Disjoint arms, $T$ = {ROUNDS}", "coverability $k$", "regret (mean)")
    ax.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="coverability",
    claim="glow.regret",
    grid={"arms": list(ARMS), "multiple": [0.0, *MULTIPLES]},
    measure=measure,
    seeds=4,
    predicted={"fixed": 1.0, "worst": 0.5, "tolerance": TOLERANCE, "factor": FACTOR},
    summarise=summarise,
    settings={"delta": DELTA, "rounds": ROUNDS},
)
