"""All learners on six models under common random numbers: who loses least, and where that is theory's order.

Theory orders learners by the leading terms of their worst-case regret bounds. A worst case is no promise about any one
model, and a leading term none about the first episodes: so each ordered pair is put to the test on each model by
itself. Under one seed all learners meet the same environment stream, and what is judged is the paired difference of
their regrets. Intervals come from the sign test: they hold for any distribution, and over all pairs, models and
presets of this survey at once.
"""

import math

import numpy as np

from theoryrl.classes import complete_class
from theoryrl.envs import make
from theoryrl.lab import Experiment
from theoryrl.mdp.evaluation import evaluate
from theoryrl.mdp.planning import backward_induction
from theoryrl.online import (
    EULER,
    GOLF,
    LSVIUCB,
    OPPO,
    PSRL,
    RLSVI,
    UCBB,
    UCBH,
    UCBVI,
    UCBVIRTDP,
    UCRL2,
    EpsilonGreedy,
    RMax,
    Uniform,
    run,
)

DELTA = 0.05
EPISODES = 50_000
ERROR = 0.05  # the chance that any of all the statements about pairs is wrong
SCALES = {"theory": 1.0, "tenth": 0.1}  # "tenth": bonuses a tenth of what the proofs ask, so that no theorem holds

MODELS = {
    "RiverSwim": ("riverswim", {"n_states": 5, "horizon": 12}),
    "chain": ("chain", {"n_states": 6, "horizon": 12}),
    "lock": ("combination_lock", {"length": 5, "n_actions": 3, "horizon": 5}),
    "deep sea": ("deep_sea", {"horizon": 6}),
    "hard instance": ("hard_episodic", {"n_states": 6, "n_actions": 2, "horizon": 9}),
    "random": ("random_dense", {"n_states": 6, "n_actions": 3, "horizon": 6}),
}


def learners(model, scale: float) -> dict:
    """Settings by name. GOLF is told a class of values that holds Q*, the others nothing but sizes."""
    pairs = model.n_states * model.n_actions
    features = np.eye(pairs).reshape(model.n_states, model.n_actions, pairs)
    told = {
        "UCBVI-CH": UCBVI(DELTA, scale=scale),
        "UCBVI-BF": UCBVI(DELTA, bonus="bernstein", scale=scale),
        "one-step UCBVI": UCBVIRTDP(DELTA, scale=scale),
        "EULER": EULER(DELTA, scale=scale),
        "UCRL2": UCRL2(DELTA, scale=scale),
        "UCB-H": UCBH(DELTA, scale=scale),
        "UCB-B": UCBB(DELTA, scale=scale),
        "OPPO": OPPO(EPISODES, DELTA, scale=scale),
        "RLSVI": RLSVI(scale=scale),
        "LSVI-UCB": LSVIUCB(features, DELTA, replan="doubling", scale=scale),
    }
    if scale == 1.0:  # no bonus to scale, and a tenth of GOLF's level now and then leaves it with an empty set
        told |= {"GOLF": GOLF(complete_class(model, 3, rng=0), DELTA)}
        told |= {"PSRL": PSRL(), "epsilon-greedy": EpsilonGreedy(0.1), "uniform": Uniform()}
        told |= {"R-max": RMax(0.1 * model.horizon, DELTA)}
    return told


# (loses less, loses more, by what factor of the published leading terms, logarithms aside).
ORDER = (
    ("UCBVI-BF", "UCBVI-CH", r"\sqrt{H}: Azar, Osband, Munos 2017, Theorems 1 and 2"),
    ("EULER", "UCBVI-CH", r"\sqrt{H}: Zanette, Brunskill 2019, Theorem 1"),
    ("UCBVI-CH", "UCRL2", r"\sqrt{S}: Jaksch, Ortner, Auer 2010, Theorem 2"),
    ("UCBVI-CH", "UCB-H", r"H: Jin, Allen-Zhu, Bubeck, Jordan 2018, Theorem 1"),
    ("UCB-B", "UCB-H", r"\sqrt{H}: the same, Theorem 2"),
    ("UCBVI-BF", "UCB-B", r"H^{1/2}: the two above"),
    ("UCBVI-CH", "OPPO", r"\sqrt{H S}: Shani, Efroni, Rosenberg, Mannor 2020, Theorem 1"),
    ("UCBVI-CH", "RLSVI", r"H^{3/2} S: Russo 2019, Theorem 1"),
    ("UCBVI-CH", "LSVI-UCB", r"SA H^{1/2}, d = SA: Jin, Yang, Wang, Jordan 2020, Theorem 3.1"),
    ("UCBVI-BF", "uniform", r"sublinear against linear"),
    ("UCB-H", "uniform", r"sublinear against linear"),
)

WORDS = {"holds": "#0072B2", "open": "#BFBFBF", "reversed": "#D55E00"}


def model_of(name: str):
    family, parameters = MODELS[name]
    return make(family, **parameters)


def measure(cell, seed):
    model = model_of(cell["model"])
    found = {}
    for name, learner in learners(model, SCALES[cell["preset"]]).items():
        result = run(learner, model, EPISODES, seeds=1, rng=seed, jobs=1)
        found[f"regret.{name}"] = (result.checkpoints, result.regret[0])
    return found


def uniform_loss(model) -> float:
    """What the uniform policy loses in an episode, the unit in which models can be compared."""
    weights = model.action_mask / model.action_mask.sum(axis=1, keepdims=True)
    return float(model.initial @ (backward_induction(model).value[0] - evaluate(model, weights)[0]))


def final(frame, model: str, preset: str) -> dict[str, np.ndarray]:
    """Regret after the last episode by learner, one entry per seed."""
    keep = (frame["model"] == model) & (frame["preset"] == preset) & (frame["step"] == frame["step"].max())
    table = frame[keep].pivot(index="seed", columns="metric", values="value")
    return {metric.removeprefix("regret."): table[metric].to_numpy() for metric in table}


def median_interval(sample: np.ndarray, error: float) -> tuple[float, float]:
    """An interval that misses the median with probability at most `error` (sign test); unbounded for few samples."""
    ordered, n = np.sort(sample), len(sample)
    below, rank = 0.0, 0  # P(Binomial(n, 1/2) < rank)
    while rank < n / 2 and 2 * (below + math.comb(n, rank) / 2**n) <= error:
        below += math.comb(n, rank) / 2**n
        rank += 1
    return (float(ordered[rank - 1]), float(ordered[n - rank])) if rank else (-math.inf, math.inf)


def statements() -> list[tuple[str, str, str, str]]:
    """(preset, model, better, worse) of every statement that is tested."""
    told = {preset: learners(model_of("chain"), scale) for preset, scale in SCALES.items()}
    return [
        (preset, model, better, worse)
        for preset in SCALES
        for model in MODELS
        for better, worse, _ in ORDER
        if better in told[preset] and worse in told[preset]
    ]


def judged(frame) -> list[dict]:
    """For every statement the interval of the median of regret(worse) - regret(better), and the word for it."""
    tested = statements()
    records = []
    for preset, model, better, worse in tested:
        regret = final(frame, model, preset)
        low, high = median_interval(regret[worse] - regret[better], ERROR / len(tested))
        word = "holds" if low > 0 else "reversed" if high < 0 else "open"
        interval = [low, high] if math.isfinite(low) else None
        records.append(
            {"preset": preset, "model": model, "better": better, "worse": worse, "word": word, "interval": interval}
        )
    return records


def ranking(frame) -> dict:
    """Mean final regret of every learner in units of what the uniform policy loses in all episodes, least first."""
    table: dict = {}
    for preset in SCALES:
        for model in MODELS:
            unit = EPISODES * uniform_loss(model_of(model))
            regret = {name: values / unit for name, values in final(frame, model, preset).items()}
            order = sorted(regret, key=lambda name: (regret[name].mean(), name))
            table.setdefault(preset, {})[model] = {
                name: {"mean": regret[name].mean(), "interval": list(median_interval(regret[name], ERROR))}
                for name in order
            }
    return table


def summarise(frame, out):
    pairs, ranks = judged(frame), ranking(frame)
    draw(pairs, ranks, out / "learner_survey.png")
    for models in ranks.values():
        for rows in models.values():
            for row in rows.values():
                row["interval"] = row["interval"] if math.isfinite(row["interval"][0]) else None
    counts = {
        preset: {word: sum(r["word"] == word and r["preset"] == preset for r in pairs) for word in WORDS}
        for preset in SCALES
    }
    return {"ranking": ranks, "pairs": pairs, "counts": counts, "figure": "learner_survey.png"}


def draw(pairs: list[dict], ranks: dict, path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(13, 10), layout="constrained")
    axes = figure.subplots(2, 2, width_ratios=[3, 4])
    for row, preset in zip(axes, SCALES, strict=True):
        draw_ranking(row[0], ranks[preset], preset)
        draw_pairs(row[1], [record for record in pairs if record["preset"] == preset])
    handles = [Patch(color=colour, label=word) for word, colour in WORDS.items()]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def draw_ranking(ax, ranks: dict, preset: str) -> None:
    names = sorted(
        {name for rows in ranks.values() for name in rows}, key=lambda n: np.mean([ranks[m][n]["mean"] for m in ranks])
    )
    table = np.array([[ranks[model][name]["mean"] for model in MODELS] for name in names])
    ax.imshow(np.log10(np.maximum(table, 1e-4)), cmap="viridis_r", vmin=-3, vmax=0, aspect="auto")
    for i, j in np.ndindex(*table.shape):
        ax.text(
            j,
            i,
            f"{table[i, j]:.2g}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if table[i, j] > 0.06 else "black",
        )
    ax.set_xticks(range(len(MODELS)), MODELS, rotation=20)
    ax.set_yticks(range(len(names)), names)
    title = "bonuses of the theorems" if preset == "theory" else "a tenth of the bonuses"
    ax.set_title(f"{title}: regret / regret of the uniform policy", loc="left", fontsize=11)


def draw_pairs(ax, records: list[dict]) -> None:
    from matplotlib.patches import Rectangle

    rows = list(dict.fromkeys((record["better"], record["worse"]) for record in records))
    columns = list(MODELS)
    for record in records:
        x, y = columns.index(record["model"]), rows.index((record["better"], record["worse"]))
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=WORDS[record["word"]], edgecolor="white"))
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xticks(range(len(columns)), columns, rotation=20)
    ax.set_yticks(range(len(rows)), [f"{better} < {worse}" for better, worse in rows])
    ax.set_title("theory's order", loc="left", fontsize=11)


EXPERIMENT = Experiment(
    name="learner-survey",
    claim="ucbvi.regret",
    grid={"preset": list(SCALES), "model": list(MODELS)},
    measure=measure,
    seeds=20,
    predicted={"order": [list(pair) for pair in ORDER], "error": ERROR},
    summarise=summarise,
    settings={"delta": DELTA, "episodes": EPISODES, "models": {name: [f, p] for name, (f, p) in MODELS.items()}},
)
