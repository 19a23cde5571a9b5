"""Regret of UCBVI against episodes, states, actions and horizon, beside the exponents that theory gives it.

On the hard instance of Domingues et al. (2021) the gap epsilon is not fixed: each point is the regret at the worst gap
of a grid, since only the worst case over a family grows like sqrt(K); on one fixed model regret is logarithmic in the
end. RiverSwim is such a fixed model, so there theory gives upper bounds only. All learners meet the same environment
stream under one seed.
"""

import math

import numpy as np

from theoryrl.envs import make
from theoryrl.lab import Experiment
from theoryrl.online import UCBVI, Uniform, run, ucbvi_regret_bound
from theoryrl.online._protocols import most_successors
from theoryrl.theory import log_log_slope
from theoryrl.theory.verdict import SLOPE_LEVEL, SLOPE_SEEDS

DELTA = 0.05
LEARNERS = {"hoeffding": UCBVI(DELTA), "bernstein": UCBVI(DELTA, bonus="bernstein"), "uniform": Uniform()}
GAPS = [0.25, 0.125, 0.0625, 0.03125, 0.015625]  # the lower bound of Domingues et al. takes epsilon <= 1/4


def hard(states: int, actions: int, horizon: int, waiting: int) -> dict:
    return {"model": "hard", "S": states, "A": actions, "H": horizon, "W": waiting}


def river(states: int) -> dict:
    return {"model": "riverswim", "S": states, "A": 2, "H": 20}


# Which models each sweep compares; the sweeps over K follow one model through its checkpoints.
PLACES = {
    "hard/K": [hard(4, 2, 6, 2)],
    "hard/S": [hard(states, 2, 12, 2) for states in (4, 6, 10, 18)],  # full binary trees of 1 to 4 levels
    "hard/A": [hard(4, actions, 6, 2) for actions in (2, 4, 8, 16)],
    "hard/H": [hard(4, 2, horizon, horizon // 3) for horizon in (6, 9, 12, 18)],  # W = H/3 as in Theorem 9
    "riverswim/K": [river(6)],
    "riverswim/S": [river(states) for states in (3, 4, 6, 8)],
}

# Exponents of regret. lower: of the minimax lower bound (Domingues et al. 2021, Theorem 9, sqrt(H^3 S A K)), which only
# speaks of the worst case over gaps. upper: of the leading term of `ucbvi_regret_bound` as K grows:
# H^(3/2) sqrt(S A K) with pooled counts, H^2 sqrt(S A K) with one count per layer, as on the hard instance. Both are
# asymptotic; what the sizes at hand make of them is in the summary (`rate_here`, `bound_here`).
PREDICTED = {
    "hard/K": {"lower": 0.5, "upper": 0.5},
    "hard/S": {"lower": 0.5, "upper": 0.5},
    "hard/A": {"lower": 0.5, "upper": 0.5},
    "hard/H": {"lower": 1.5, "upper": 2.0},
    "riverswim/K": {"lower": None, "upper": 0.5},
    "riverswim/S": {"lower": None, "upper": 0.5},
    "uniform/K": {"lower": 1.0, "upper": 1.0},  # exact: every episode costs the same
    "tolerance": 0.1,
}

BLUE, ORANGE, GREY, RED = "#0072B2", "#E69F00", "#7F7F7F", "#D55E00"
COLOURS = {"hoeffding": BLUE, "bernstein": ORANGE, "uniform": GREY}
NAMES = {"hoeffding": "UCBVI, Hoeffding", "bernstein": "UCBVI, Bernstein", "uniform": "uniform"}
PANELS = {
    "K": ("episodes $K$", "hard S = 4, A = 2, H = 6; river S = 6, H = 20"),
    "S": ("states $S$", "A = 2; hard H = 12, river H = 20"),
    "A": ("actions $A$", "S = 4, H = 6"),
    "H": ("horizon $H$", "S = 4, A = 2"),
}


def grid() -> list[dict]:
    cells: dict[str, dict] = {}
    for sweep, places in PLACES.items():
        episodes = 1_000_000 if sweep == "hard/K" else 100_000
        for place in places:
            for gap in GAPS if place["model"] == "hard" else [None]:
                cell = place if gap is None else {**place, "epsilon": gap}
                cells.setdefault(repr(cell), {**cell, "episodes": episodes})  # a model in two sweeps runs once
    return list(cells.values())


def levels(cell: dict) -> int:
    return round(math.log((cell["S"] - 3) * (cell["A"] - 1) + 1, cell["A"]))


def model_of(cell: dict):
    if cell["model"] == "riverswim":
        return make("riverswim", n_states=cell["S"], horizon=cell["H"])
    # The better triple is the last one in the learners' order of ties, the worst place for it.
    return make(
        "hard_episodic", n_states=cell["S"], n_actions=cell["A"], horizon=cell["H"], waiting=cell["W"],
        epsilon=cell["epsilon"], wait=cell["W"] - 1, leaf=cell["A"] ** (levels(cell) - 1) - 1, action=cell["A"] - 1,
    )  # fmt: skip


def checkpoints(episodes: int) -> np.ndarray:
    """Four to a decade from 1 on, so that runs of different length share theirs."""
    marks = np.unique(np.rint(10 ** (np.arange(4 * math.ceil(math.log10(episodes)) + 1) / 4)).astype(np.int64))
    return np.union1d(marks[marks <= episodes], [episodes])


def measure(cell, seed):
    model, marks = model_of(cell), checkpoints(cell["episodes"])
    played = {
        name: run(learner, model, cell["episodes"], seeds=1, rng=seed, jobs=1, checkpoints=marks)
        for name, learner in LEARNERS.items()
    }
    return {f"regret.{name}": (marks, result.regret[0]) for name, result in played.items()}


def curves(frame, place: dict, learner: str):
    """Regret (gaps, seeds, checkpoints) of a learner at a place, the gaps and the checkpoints."""
    keep = frame["metric"] == f"regret.{learner}"
    for key, value in place.items():
        keep &= frame[key] == value
    table = frame[keep].fillna({"epsilon": 0.0}).pivot(index=["epsilon", "seed"], columns="step", values="value")
    gaps = table.index.get_level_values("epsilon").unique().to_numpy()
    return table.to_numpy().reshape(len(gaps), -1, table.shape[1]), gaps, table.columns.to_numpy()


def bound_at(place: dict, learner: str, episodes):
    model = model_of({**place, "epsilon": GAPS[0]})
    return ucbvi_regret_bound(
        episodes, n_states=model.n_states, n_actions=model.n_actions, horizon=model.horizon, delta=DELTA,
        stationary=model.stationary, n_successors=most_successors(model), bonus=learner,
    )  # fmt: skip


def points(frame, sweep: str, learner: str) -> dict:
    """What a sweep compares: x, regret y (seeds, m) at the worst gap of each x, that gap, and the bound there."""
    axis, places = sweep.split("/")[1], PLACES[sweep]
    found = [curves(frame, place, learner) for place in places]
    if axis == "K":
        table, gaps, x = found[0]
        columns, episodes, places = list(np.moveaxis(table, 2, 0)), x, places * len(x)
    else:
        last = min(marks[-1] for _, _, marks in found)  # the same number of episodes for all
        columns = [table[:, :, list(marks).index(last)] for table, _, marks in found]
        x, episodes, gaps = np.array([place[axis] for place in places]), [last] * len(places), found[0][1]
    worst = [int(column.mean(axis=1).argmax()) for column in columns]
    y = np.stack([column[i] for column, i in zip(columns, worst, strict=True)], axis=1)
    pairs = list(zip(places, episodes, strict=True))
    bound = [math.nan if learner == "uniform" else float(bound_at(place, learner, k)) for place, k in pairs]
    trivial = [float(k) * place["H"] for place, k in pairs]
    rate = [math.sqrt(k) * instance_rate(place) for place, k in pairs]
    fit = x >= x[-1] / 10 if axis == "K" else np.ones(len(x), bool)
    columns = {"x": x, "gap": gaps[worst], "bound": bound, "trivial": trivial, "rate": rate, "fit": fit}
    return {"y": y} | {key: np.asarray(column) for key, column in columns.items()}


def instance_rate(place: dict) -> float:
    """How the hard instance itself scales: steps that pay times sqrt(number of wrong triples).

    Each of N - 1 wrong triples takes n ~ 1 / epsilon^2 visits to rule out: regret is about epsilon H' min(K, (N - 1) n)
    with H' = H - W - d and N = W A^d; at the worst epsilon, of order H' sqrt((N - 1) K).
    """
    if place["model"] != "hard":
        return math.nan
    depth = levels(place)
    return (place["H"] - place["W"] - depth) * math.sqrt(place["W"] * place["A"] ** depth - 1)


def slope_of(x, y) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def word(slope, band: dict | None, seeds: int) -> str:
    """Where a slope's interval lies: no more than the data and the kind of prediction allow to say."""
    if band is None:
        return "no prediction"
    if seeds < SLOPE_SEEDS:
        return f"too few seeds, {SLOPE_SEEDS} at least"
    tolerance = PREDICTED["tolerance"]
    low = -math.inf if band["lower"] is None else band["lower"] - tolerance
    high = band["upper"] + tolerance
    if low <= slope.lower and slope.upper <= high:
        return "within the band" if band["lower"] is not None else "agrees with the upper bound only"
    if slope.upper < low:
        return "below the band: agrees with the upper bound only"
    return "above the band" if slope.lower > high else "across an edge of the band"


def judged(frame, sweep: str, learner: str) -> dict:
    found = points(frame, sweep, learner)
    x, y = found["x"][found["fit"]], found["y"][:, found["fit"]]
    slope = log_log_slope(x, y, 0, SLOPE_LEVEL)  # seeds are resampled at the worst gap of the whole sample
    band = PREDICTED.get(f"uniform/{sweep.split('/')[1]}") if learner == "uniform" else PREDICTED[sweep]
    record = {
        "x": x, "regret": y.mean(axis=0), "slope": slope.estimate, "interval": [slope.lower, slope.upper],
        "verdict": word(slope, band, len(y)),
    }  # fmt: skip
    bound, trivial, rate, gap = (found[key][found["fit"]] for key in ("bound", "trivial", "rate", "gap"))
    if sweep.startswith("hard"):
        record |= {"worst_gap": gap, "at_an_end_of_the_gaps": int(np.isin(gap, [min(GAPS), max(GAPS)]).sum())}
        record["rate_here"] = slope_of(x, rate)
    if learner != "uniform":
        record |= {"bound_here": slope_of(x, bound), "bound_is_trivial": int((bound >= trivial).sum())}
        record["tightness"] = (y / bound).max(axis=0)
    return record


def exceedances(frame) -> dict:
    """The theorem itself: in how many runs regret exceeds the bound at some checkpoint, of how many."""
    runs = above = 0
    places = [place for group in PLACES.values() for place in group]
    for place in [place for i, place in enumerate(places) if place not in places[:i]]:
        for learner in ("hoeffding", "bernstein"):
            table, _, marks = curves(frame, place, learner)
            bad = ~(table <= bound_at(place, learner, marks)).all(axis=2)
            runs, above = runs + bad.size, above + int(bad.sum())
    return {"runs": runs, "above_the_bound": above, "delta": DELTA}


def summarise(frame, out):
    summary = {sweep: {name: judged(frame, sweep, name) for name in LEARNERS} for sweep in PLACES}
    draw(frame, summary, out / "ucbvi_regret.png")
    return {**summary, "theorem": exceedances(frame), "figure": "ucbvi_regret.png"}


def draw(frame, summary: dict, path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, 9), layout="constrained")
    for ax, axis in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        panel(ax, frame, summary, axis)
    river_style = {"linestyle": ":", "marker": "s", "markerfacecolor": "white"}
    handles = [Line2D([], [], color=colour, linewidth=3, label=NAMES[name]) for name, colour in COLOURS.items()]
    handles += [
        Line2D([], [], color=RED, label="bound of the theorem (Hoeffding, hard)"),
        Line2D([], [], color="black", marker="o", label="hard instance, worst gap"),
        Line2D([], [], color="black", label="RiverSwim", **river_style),
        Line2D([], [], color="black", linestyle="--", linewidth=1, label="predicted exponents, hard instance"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    figure.savefig(path, dpi=120)


def panel(ax, frame, summary: dict, axis: str) -> None:
    lines = []
    for sweep in (name for name in PLACES if name.endswith(axis)):
        on_hard = sweep.startswith("hard")
        for learner, colour in COLOURS.items():
            found = points(frame, sweep, learner)
            shown = found["x"] >= found["x"][-1] / 10**4
            x, y, fit = found["x"][shown], found["y"][:, shown], found["fit"][shown]
            style = {"linestyle": "-", "marker": "o"} if on_hard else {"linestyle": ":", "marker": "s"}
            style |= {"color": colour, "markersize": 4.5, "markerfacecolor": colour if on_hard else "white"}
            ax.plot(x, y.mean(axis=0), **style)
            ax.fill_between(x, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.2, linewidth=0)
            record = summary[sweep][learner]
            low, high = record["interval"]
            model = "hard" if on_hard else "river"
            lines.append((f"{model}, {learner}: {record['slope']:.2f} [{low:.2f}, {high:.2f}]", colour))
            if on_hard and learner == "hoeffding":
                for exponent in sorted({PREDICTED[sweep]["lower"], PREDICTED[sweep]["upper"]}):
                    guide = 1.15 * y.mean(axis=0)[fit][0] * (x[fit] / x[fit][0]) ** exponent
                    ax.plot(x[fit], guide, color="black", linestyle="--", linewidth=1)
                if axis == "K":
                    ax.plot(x, found["bound"][shown], color=RED)
    ax.set(xscale="log", yscale="log", xlabel=PANELS[axis][0], ylabel="regret")
    ax.set_title(f"against {axis}", loc="left", fontsize=12)
    last = frame.groupby("cell")["step"].max().min()
    ax.set_title(PANELS[axis][1] + ("" if axis == "K" else f", K = {last:,}"), loc="right", fontsize=9)
    ax.grid(True, which="major", alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if axis != "K":
        ticks = sorted({place[axis] for sweep, group in PLACES.items() if sweep.endswith(axis) for place in group})
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        low, high = ax.get_ylim()
        ax.set_ylim(low / (high / low) ** (0.08 * len(lines)), high)  # room for the slopes below the curves
    for i, (text, colour) in enumerate(reversed(lines)):
        ax.text(0.99, 0.02 + 0.05 * i, text, transform=ax.transAxes, ha="right", fontsize=9, color=colour)


EXPERIMENT = Experiment(
    name="ucbvi-regret",
    claim="ucbvi.regret",
    grid=grid(),
    measure=measure,
    seeds=10,
    predicted=PREDICTED,
    summarise=summarise,
    settings={"delta": DELTA, "learners": list(LEARNERS)},
)
