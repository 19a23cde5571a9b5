"""Root mean square error of off-policy estimates against the horizon, beside the variances that theory gives them.

One small model, a behaviour policy that plays both actions alike and a target that prefers one. Weights that are
products over steps have second moment 1.36^H; weights of states and actions stay below the largest ratio of
occupancies. The predictions are exact for the unbiased estimates (`ope_variance`), asymptotic for the marginalised one
with estimated ratios (`efficiency_bound`), and there is none for the self-normalised one. An estimate that is refused,
because the data miss a pair that the target meets, is counted and left out of the mean.
"""

import math

import numpy as np

from theoryrl.lab import Experiment
from theoryrl.mdp import FiniteHorizonMDP, evaluate, evaluate_q, random_mdp, rollout
from theoryrl.offline import doubly_robust, efficiency_bound, importance_sampling, marginalised_sampling, ope_variance

HORIZONS = (1, 2, 4, 8, 16, 32)
TRAJECTORIES, DATA_SETS = 200, 100  # per data set, per seed
TARGET, BEHAVIOUR = (0.8, 0.2), (0.5, 0.5)
# Largest |log ratio| of measured to predicted error that agrees, where the measured one is itself reliable.
TOLERANCE = 0.15

METHODS = {
    "trajectory": ("trajectory", "#D55E00"),
    "per-decision": ("per decision", "#E69F00"),
    "self-normalised": ("per decision, self-normalised (biased)", "#7F7F7F"),
    "doubly-robust": ("doubly robust, true q", "#009E73"),
    "marginalised": ("marginalised, estimated ratios", "#0072B2"),
}


def model_of(horizon: int) -> FiniteHorizonMDP:
    base = random_mdp(5, 2, horizon, np.random.default_rng(7))
    return FiniteHorizonMDP(base.transition, base.reward, horizon=horizon, reward_law="bernoulli")


def policies(mdp) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.tile(row, (mdp.n_states, 1)) for row in (TARGET, BEHAVIOUR))


def estimates(data, target, behaviour, q) -> dict[str, float]:
    return {
        "trajectory": importance_sampling(data, target, behaviour, per_decision=False).value,
        "per-decision": importance_sampling(data, target, behaviour).value,
        "self-normalised": importance_sampling(data, target, behaviour, weighted=True).value,
        "doubly-robust": doubly_robust(data, target, behaviour, q).value,
        "marginalised": marginalised_sampling(data, target, staged=False).value,
    }


def measure(cell, seed):
    mdp = model_of(cell["H"])
    target, behaviour = policies(mdp)
    truth, q = float(mdp.initial @ evaluate(mdp, target)[0]), evaluate_q(mdp, target)
    squares: dict[str, list[float]] = {name: [] for name in METHODS}
    for stream in np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key).spawn(DATA_SETS):
        data = rollout(mdp, behaviour, cell["trajectories"], stream, jobs=1)
        for name, value in estimates(data, target, behaviour, q).items():
            if math.isfinite(value):
                squares[name].append((value - truth) ** 2)
    refused = {f"refused.{name}": DATA_SETS - len(found) for name, found in squares.items()}
    return refused | {f"square.{name}": float(np.mean(found)) for name, found in squares.items()}


def predicted(horizon: int) -> dict[str, float]:
    """Root of variance / n; NaN where there is no prediction."""
    mdp = model_of(horizon)
    target, behaviour = policies(mdp)
    found = {name: ope_variance(mdp, target, behaviour, name) for name in ("trajectory", "per-decision")}
    found["doubly-robust"] = ope_variance(mdp, target, behaviour, "doubly-robust", evaluate_q(mdp, target))
    # Transitions are pooled over layers, so that the estimate may beat the bound of the time-varying model.
    found["marginalised"] = efficiency_bound(mdp, target, behaviour)
    return {name: math.sqrt(found[name] / TRAJECTORIES) if name in found else math.nan for name in METHODS}


def summarise(frame, out):
    table = frame.pivot_table(index="H", columns="metric", values="value", aggfunc=["mean", "sem"])
    theory = {horizon: predicted(horizon) for horizon in HORIZONS}
    summary: dict = {}
    for name in METHODS:
        mean, spread = (table[kind][f"square.{name}"].to_numpy() for kind in ("mean", "sem"))
        rmse, line = np.sqrt(mean), np.array([theory[h][name] for h in table.index])
        summary[name] = {
            "H": table.index.to_numpy(),
            "rmse": rmse,
            "relative_error_of_its_square": spread / mean,
            "predicted": line,
            "refused": int(frame[frame["metric"] == f"refused.{name}"]["value"].sum()),
            "growth_per_step": float((rmse[-1] / rmse[0]) ** (1 / (table.index[-1] - table.index[0]))),
        }
        if name in ("trajectory", "per-decision", "doubly-robust"):
            reliable = spread / mean < TOLERANCE / 2
            off = np.abs(np.log(rmse / line))[reliable]
            verdict = "agrees" if (off <= TOLERANCE).all() else "disagrees"
            summary[name] |= {"verdict": verdict, "compared": int(reliable.sum()), "worst": float(off.max(initial=0.0))}
    draw(summary, out / "curse_of_horizon.png")
    return {**summary, "figure": "curse_of_horizon.png"}


def draw(summary: dict, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    ax = figure.subplots()
    for name, (label, colour) in METHODS.items():
        found = summary[name]
        ax.plot(found["H"], found["rmse"], color=colour, marker="o", markersize=5, linestyle="none", label=label)
        ax.plot(found["H"], found["predicted"], color=colour, linewidth=1.5)
    ax.plot([], [], color="black", linewidth=1.5, label="predicted from the model")
    ax.set(xscale="log", yscale="log", xlabel="horizon $H$", ylabel="root mean square error (units of reward)")
    ax.set_xticks(HORIZONS, [str(h) for h in HORIZONS])
    ax.minorticks_off()
    ax.set_title(f"{TRAJECTORIES} trajectories of the uniform policy; the target plays (0.8, 0.2)", fontsize=11)
    ax.grid(True, which="major", alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=10)
    figure.savefig(path, dpi=120)


EXPERIMENT = Experiment(
    name="curse-of-horizon",
    claim="ope.variance",
    grid=[{"H": horizon, "trajectories": TRAJECTORIES} for horizon in HORIZONS],
    measure=measure,
    seeds=20,
    predicted={"tolerance": TOLERANCE},
    summarise=summarise,
    settings={"target": TARGET, "behaviour": BEHAVIOUR, "data_sets": DATA_SETS},
)
