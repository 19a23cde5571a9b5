"""The price of precision: a member that errs by 2 epsilon is found out after about L / (8 epsilon^2) of its plays.

One step, two arms (Bernoulli 1/2 and 1/2 - epsilon); F = {Q*, f}, and f promises 1/2 + epsilon for the second arm.
While f is in the set it is played, and its own ratio is 1 on its arm, so that the test compares the mean of n = t - 1
residuals, 2 epsilon on average, with a threshold: with g = gamma t and w = min(1, g),

    self-normalised  2 epsilon w > w^2 / (4 g) + g L_W / (2n),
    alpha-free       2 epsilon w > sqrt((w^2 + g^2 / n) (L_W + log(1 + n w^2 / g^2) / 2) / (2n)).

gamma = 2 epsilon / L_W makes the two terms of the first equal where it is crossed: n = L_W / (8 epsilon^2). Predicted:
the first n at which the inequality holds, within a factor of 2 of the median (residuals are random and a boundary is
passed early by chance); slope of log(median) in log(epsilon) in [-2.25, -1.75], for both.
"""

import math

import numpy as np

from theoryrl.density_ratio import GLOW, log_tests, occupancy_ratios
from theoryrl.density_ratio._instances import two_arms
from theoryrl.lab import Experiment
from theoryrl.online import run
from theoryrl.viz._axes import BLUE, GREEN, GREY, finish

DELTA, ROUNDS = 0.1, 60_000
EPSILONS = (0.2, 0.1, 0.05, 0.025, 0.0125)
SLOPE, FACTOR = (-2.25, -1.75), 2.0
SCHEDULES = {"self_normalised": ("self-normalised", BLUE), "scale_free": (r"$\alpha$-free", GREEN)}


def log_level() -> float:
    """L_W = log(4 H / delta) + log(number of tests)."""
    mdp, cls = two_arms(EPSILONS[0])
    return math.log(4 / DELTA) + log_tests(occupancy_ratios(cls, mdp), ROUNDS)


def measure(cell, seed):
    mdp, cls = two_arms(cell["epsilon"])
    learner = GLOW(
        cls, occupancy_ratios(cls, mdp), iterations=ROUNDS, gamma=2 * cell["epsilon"] / log_level(), delta=DELTA,
        schedule=cell["schedule"], initial=mdp.initial, nested=True,
    )  # fmt: skip
    chosen = run(learner, mdp, ROUNDS, rng=seed, jobs=1, keep_states=True).states[0].chosen
    return {"plays": int((chosen == 1).sum())}


def predicted(schedule: str, epsilon: float) -> int:
    level = log_level()
    n = np.arange(1, ROUNDS)
    g = 2 * epsilon / level * (n + 1)
    w = np.minimum(1.0, g)
    if schedule == "self_normalised":
        threshold = w**2 / (4 * g) + g * level / (2 * n)
    else:
        threshold = np.sqrt((w**2 + g**2 / n) * (level + np.log1p(n * w**2 / g**2) / 2) / (2 * n))
    return int(n[np.flatnonzero(2 * epsilon * w > threshold)[0]])


def summarise(frame, out):
    table = frame.pivot_table(index=["schedule", "epsilon"], values="value", aggfunc=["median", "min", "max"])
    summary: dict = {"L_W": log_level()}
    for name in SCHEDULES:
        found = table.loc[name]
        epsilon, median = found.index.to_numpy(), found["median"]["value"].to_numpy()
        theory = np.array([predicted(name, e) for e in epsilon])
        slope = float(np.polyfit(np.log(epsilon), np.log(median), 1)[0])
        factor = float(np.exp(np.abs(np.log(median / theory))).max())
        summary[name] = {
            "epsilon": epsilon,
            "median": median,
            "predicted": theory,
            "slope": slope,
            "slope_verdict": "as predicted" if SLOPE[0] <= slope <= SLOPE[1] else "contradicted",
            "largest_factor": factor,
            "median_verdict": "as predicted" if factor <= FACTOR else "contradicted",
        }
    draw(table, summary, out / "e03_epsilon_slope.png")
    return {**summary, "figure": "e03_epsilon_slope.png"}


def draw(table, summary, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    for shift, (name, (label, colour)) in zip((0.97, 1.03), SCHEDULES.items(), strict=True):
        found, record = table.loc[name], summary[name]
        x, low, high = found.index * shift, found["min"]["value"], found["max"]["value"]
        ax.vlines(x, low, high, color=colour, linewidth=1.2)
        ax.plot(x, record["median"], "o", color=colour, label=f"{label}: median and range, slope {record['slope']:.2f}")
        ax.plot(found.index, record["predicted"], color=colour, linewidth=1.4, label=f"{label}: predicted")
    epsilon = np.array(EPSILONS)
    ax.plot(epsilon, 2 / epsilon**2, ":", color=GREY, label="slope $-2$")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(EPSILONS, [str(e) for e in EPSILONS])
    ax.minorticks_off()
    finish(ax, "Plays of a member that errs by $2\\varepsilon$", r"$\varepsilon$", "plays until it is excluded")
    ax.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="epsilon-slope",
    claim="glow.sample-complexity",
    grid={"schedule": list(SCHEDULES), "epsilon": list(EPSILONS)},
    measure=measure,
    seeds=60,
    predicted={"slope": SLOPE, "median": "the first n that satisfies the inequality, within a factor of 2"},
    summarise=summarise,
    settings={"delta": DELTA, "rounds": ROUNDS},
)
