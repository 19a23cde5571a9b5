"""How many iterations the theorem asks for: the least certified T for an accuracy, by how it is analysed.

Claim: with T = `glow_iterations`(epsilon) a policy drawn from those played loses at most epsilon, with probability 1 -
delta. Coverability (2, 2.862943, 1.791999), |F| = |W| = 8, delta = 0.1, known start law, K = 1. Predicted: the numbers
of `PREDICTED`, computed by other means (a scan of the formula, to the unit); T epsilon^2 grows by logarithms only, by
less than a factor of 2 from epsilon = 0.4 to 0.05; the steps of the paper, 81 and 720, at its own gamma, need between
10^4 and 10^6 times as many.
"""

import numpy as np

from theoryrl.density_ratio import glow_iterations, paper_glow_regret_bound, tuned_constants
from theoryrl.lab import Experiment
from theoryrl.viz._axes import BLUE, GREEN, GREY, RED, finish

EPSILONS = (0.4, 0.2, 0.1, 0.05)
COVER = np.array([2.0, 2.862943, 1.791999])
COMMON = {"coverability": COVER, "n_functions": 8, "n_weights": 8, "delta": 0.1, "known_start": True}
PREDICTED = {"c = 1/4": (767443, 3667956, 17237436, 79898605), "tuned": (524240, 2517115, 11873217, 55204148)}
ANALYSES = {"c = 1/4": BLUE, "tuned": GREEN, "paper": RED}
GROWTH, PAPER_FACTOR = 2.0, (1e4, 1e6)


def paper_iterations(epsilon: float) -> int:
    """The least T with the constants 81 and 720, by bisection: this bound falls with T once it is not trivial."""
    settings = {name: value for name, value in COMMON.items() if name != "known_start"}
    low, high = 1, 2**60
    while high - low > 1:
        middle = (low + high) // 2
        enough = float(paper_glow_regret_bound(middle, known_start=True, **settings)) <= epsilon * middle
        low, high = (low, middle) if enough else (middle, high)
    return high


def measure(cell, seed):
    if cell["analysis"] == "paper":
        return {"iterations": paper_iterations(cell["epsilon"])}
    if cell["analysis"] == "tuned":
        return {"iterations": glow_iterations(cell["epsilon"], c=tuned_constants().c, tuned=True, **COMMON)}
    return {"iterations": glow_iterations(cell["epsilon"], **COMMON)}


def summarise(frame, out):
    table = frame.pivot_table(index="epsilon", columns="analysis", values="value").loc[list(EPSILONS)]
    scaled = table.mul(np.array(EPSILONS) ** 2, axis=0)
    summary: dict = {}
    for name in ANALYSES:
        growth = float(scaled[name].iloc[-1] / scaled[name].iloc[0])
        record = {
            "iterations": [int(n) for n in table[name]],
            "growth_of_T_epsilon_squared": growth,
            "growth_verdict": "as predicted" if 1 <= growth < GROWTH else "contradicted",
        }
        if name in PREDICTED:
            exact = record["iterations"] == list(PREDICTED[name])
            record |= {"predicted": PREDICTED[name], "verdict": "as predicted" if exact else "contradicted"}
        else:
            factor = float(table[name].loc[0.1] / table["c = 1/4"].loc[0.1])
            within = PAPER_FACTOR[0] <= factor <= PAPER_FACTOR[1]
            record |= {"times_as_many": factor, "verdict": "as predicted" if within else "contradicted"}
        summary[name] = record
    draw(scaled, out / "e12_sample_sizes.png")
    return {**summary, "figure": "e12_sample_sizes.png"}


def draw(scaled, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    labels = {"c = 1/4": "Theorem SN, $c = 1/4$", "tuned": "Theorem SN, best constants", "paper": "steps of the paper"}
    for name, colour in ANALYSES.items():
        ax.plot(scaled.index, scaled[name], "o-", color=colour, label=labels[name])
    for numbers in PREDICTED.values():
        ax.plot(EPSILONS, np.array(numbers) * np.array(EPSILONS) ** 2, "x", color=GREY, markersize=11)
    ax.plot([], [], "x", color=GREY, markersize=11, label="predicted, to the unit")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(EPSILONS, [str(e) for e in EPSILONS])
    ax.minorticks_off()
    ax.invert_xaxis()
    finish(ax, "Iterations that suffice, times $\\varepsilon^2$", r"$\varepsilon$", r"$T\,\varepsilon^2$")
    ax.legend(frameon=False, fontsize=10)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="sample-sizes",
    claim="glow.sample-complexity",
    grid={"analysis": list(ANALYSES), "epsilon": list(EPSILONS)},
    measure=measure,
    seeds=1,
    predicted={"iterations": PREDICTED, "growth": GROWTH, "paper": PAPER_FACTOR},
    summarise=summarise,
    settings={"coverability": COVER.tolist(), "n_functions": 8, "n_weights": 8, "delta": 0.1},
)
