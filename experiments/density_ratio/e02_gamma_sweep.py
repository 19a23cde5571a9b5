"""The clipping level has to be right from both sides: regret against gamma has two arms, and gamma* is between them.

Too small a gamma clips the ratios that would expose a false member until about 1 / gamma rounds have passed; too large
a gamma makes the level of the test, gamma L / (8 c) in the limit, larger than any Bellman error, and the set is
vacuous: the most optimistic member f is played for ever. gamma = 1 is no clipping at all. Two counts of tests: the
valid one (every mixture ratio that could be tested), and log|F|, with which nothing is proved but both arms are wider
apart.

Predicted: regret is least within a factor of 4 of gamma*; at gamma = 1 it is T times the gap of f, exactly (1e-9).
Where the right arm begins (the first gamma with half that regret): f has an error m per round while it is played, the
levels tend to gamma L_W / (8 c) and, alpha-free, gamma sqrt(L_W / 2); so at 8 c m / L_W and at m sqrt(2 / L_W), within
a factor of 2. The published constants exclude nothing at any gamma.
"""

import math

import numpy as np

from theoryrl.complexity import coverability
from theoryrl.density_ratio import (
    GLOW,
    log_tests,
    member_values,
    occupancy_ratios,
    potential_bound,
    self_normalised_constants,
)
from theoryrl.density_ratio._instances import costly_instance
from theoryrl.lab import Experiment
from theoryrl.online import run
from theoryrl.viz._axes import BLUE, GREEN, GREY, RED, finish

ROUNDS, DELTA, FACTOR = 3000, 0.1, 4.0
GAMMAS = tuple(float(f"{g:.2g}") for g in np.geomspace(1e-4, 1, 17))
SCHEDULES = {
    "self_normalised": ("self-normalised, $c = 1/4$", BLUE),
    "scale_free": (r"$\alpha$-free", GREEN),
    "paper": ("published constants", RED),
}


def learner(cell, mdp, cls) -> GLOW:
    count = {"log_tests": math.log(cls.size)} if cell["count"] == "heuristic" else {}
    return GLOW(
        cls, occupancy_ratios(cls, mdp, 1.0), iterations=cell["rounds"], gamma=cell["gamma"], delta=DELTA,
        schedule=cell["schedule"], total_reward=1.0, initial=mdp.initial, **count,
    )  # fmt: skip


def measure(cell, seed):
    mdp, cls = costly_instance()
    result = run(learner(cell, mdp, cls), mdp, cell["rounds"], rng=seed, jobs=1)
    return {"regret": result.regret[0, -1]}


def log_level(count: str) -> float:
    """L_W = log(4 H / delta) + log(number of tests)."""
    mdp, cls = costly_instance()
    n = log_tests(occupancy_ratios(cls, mdp, 1.0), ROUNDS) if count == "valid" else math.log(cls.size)
    return n + math.log(4 * mdp.horizon / DELTA)


def best_gamma(count: str) -> float:
    """gamma* = sqrt(A sum_h C_h H(T / C_h) / (B H T L)) at c = 1/4, b = 1."""
    mdp, cls = costly_instance()
    cover = coverability(mdp, list(cls.greedy()))
    level = log_level(count) + math.log(cls.size)
    a, b = self_normalised_constants()
    potential = potential_bound(ROUNDS, cover).sum()
    return float(np.sqrt(a * potential / (b * mdp.horizon * ROUNDS * level)))


def right_arm(regret, plateau: float) -> float:
    """The first gamma beyond the least regret at which it is above half of the plateau; infinite if there is none."""
    beyond = regret[regret.index > regret.idxmin()]
    return float(beyond.index[beyond > plateau / 2].min()) if (beyond > plateau / 2).any() else math.inf


def word(good: bool) -> str:
    return "as predicted" if good else "contradicted"


def summarise(frame, out):
    truth = member_values(*costly_instance(), 1.0)
    first = int(truth.optimistic.argmax())
    plateau, error = ROUNDS * float(truth.regret[first]), float(truth.bellman_errors[first].sum())
    table = frame.pivot_table(index=["count", "schedule", "gamma"], values="value", aggfunc="mean")["value"]
    summary: dict = {"plateau_predicted": plateau, "error_of_the_most_optimistic": error}
    for count in ("valid", "heuristic"):
        regret, star, level = table[count, "self_normalised"], best_gamma(count), log_level(count)
        least = float(regret.idxmin())
        factor = max(least / star, star / least)
        summary[count] = {
            "L_W": level,
            "gamma_star": star,
            "least_at": least,
            "least_regret": float(regret.min()),
            "factor": factor,
            "argmin": word(factor <= FACTOR),
            "plateau": float(regret.iloc[-1]),
            "plateau_verdict": word(abs(regret.iloc[-1] / plateau - 1) <= 1e-9),
            "paper_least": float(table[count, "paper"].min()),
            "paper_vacuous": word(abs(table[count, "paper"].min() / plateau - 1) <= 1e-9),
        }
        for name, arm in (("self_normalised", 2 * error / level), ("scale_free", error * math.sqrt(2 / level))):
            found = right_arm(table[count, name], plateau)
            good = max(found / arm, arm / found) <= 2
            summary[count][f"right_arm.{name}"] = {"predicted": arm, "measured": found, "verdict": word(good)}
    draw(table, summary, out / "e02_gamma_sweep.png")
    return {**summary, "figure": "e02_gamma_sweep.png"}


def draw(table, summary, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    titles = {"valid": "valid count of tests", "heuristic": r"heuristic count, $\log|F|$"}
    for ax, (count, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        for name, (label, colour) in SCHEDULES.items():
            ax.plot(table[count, name], color=colour, marker="o", markersize=4, label=label)
        star = summary[count]["gamma_star"]
        ax.axvspan(star / FACTOR, star * FACTOR, color=GREY, alpha=0.15, label=r"predicted: within 4 of $\gamma^*$")
        ax.axvline(star, color=GREY, linewidth=1)
        ax.axhline(
            summary["plateau_predicted"], color="black", linestyle="--", linewidth=1, label="predicted: vacuous set"
        )
        ax.set(xscale="log", yscale="log")
        finish(
            ax, title, r"clipping level $\gamma$", f"regret after {ROUNDS} rounds (mean)" if count == "valid" else ""
        )
    ax.legend(frameon=False, fontsize=9, loc="lower left")
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="gamma-sweep",
    claim="glow.clipping-needed",
    grid={
        "count": ["valid", "heuristic"], "schedule": list(SCHEDULES), "gamma": list(GAMMAS), "rounds": [ROUNDS],
    },
    measure=measure,
    seeds=4,
    predicted={"argmin": "within a factor of 4 of gamma*", "plateau": "T times a gap, to 1e-9"},
    summarise=summarise,
    settings={"delta": DELTA},
)  # fmt: skip
