"""What clipping the ratios loses, exactly: below potential / (4 gamma), and free beside the second moment.

Claim: with D^t = d^1 + ... + d^t, u = d^t / (gamma D^t) and A = (e - 1) / 4 + 2 (e - 2), in every run and at every
gamma

    sum_t sum_z (d^t - gamma D^t)_+  <=  P / (4 gamma),        P = sum_t E_{d^t}[d^t / D^t],
    sum_t sum_z [A gamma D^t min(u, 1)^2 + (d^t - gamma D^t)_+]  <=  (A / gamma) P.

The second line is why clipping costs nothing in the regret bound of GLOW: its right side is what the second moment
alone is bounded by. Predicted: no violation, relative tolerance 1e-9 (rounding). The sequences are those that GLOW
plays.
"""

import math

import numpy as np

from theoryrl.density_ratio import GLOW, occupancy_ratios
from theoryrl.density_ratio._instances import costly_instance
from theoryrl.lab import Experiment
from theoryrl.mdp import occupancy
from theoryrl.online import run
from theoryrl.viz._axes import BLUE, GREEN, GREY, finish, positive

ROUNDS, TOLERANCE = 3000, 1e-9
GAMMAS = tuple(float(f"{g:.3g}") for g in np.geomspace(1e-4, 2, 14))
A = (math.e - 1) / 4 + 2 * (math.e - 2)


def measure(cell, seed):
    mdp, cls = costly_instance()
    gamma, rounds = cell["gamma"], cell["rounds"]
    learner = GLOW(cls, occupancy_ratios(cls, mdp, 1.0), iterations=rounds, gamma=gamma, total_reward=1.0)
    chosen = run(learner, mdp, rounds, rng=seed, jobs=1, keep_states=True).states[0].chosen
    masses = np.stack([occupancy(mdp, policy) for policy in cls.greedy()]).reshape(cls.size, -1)[chosen]
    total = np.cumsum(masses, axis=0)
    ratio = np.divide(masses, total, out=np.zeros_like(masses), where=masses > 0)
    loss = np.maximum(masses - gamma * total, 0.0)
    second = A * gamma * total * np.minimum(ratio / gamma, 1.0) ** 2
    return {"potential": (masses * ratio).sum(), "loss": loss.sum(), "both": (second + loss).sum()}


def summarise(frame, out):
    table = frame.pivot_table(index=["gamma", "seed"], columns="metric", values="value")
    gamma = table.index.get_level_values("gamma").to_numpy()
    share = {
        "loss": table["loss"] / (table["potential"] / (4 * gamma)),
        "both": table["both"] / (A / gamma * table["potential"]),
    }
    summary = {
        name: {
            "largest_share_of_the_bound": float(found.max()),
            "at_gamma": float(found.idxmax()[0]),
            "predicted": "at most 1",
            "verdict": "as predicted" if found.max() <= 1 + TOLERANCE else "contradicted",
        }
        for name, found in share.items()
    }
    draw(table, out / "e06_clip_loss.png")
    return {**summary, "runs": len(table), "figure": "e06_clip_loss.png"}


def draw(table, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    mean = table.groupby("gamma").mean()
    gamma = mean.index.to_numpy()
    ax.plot(gamma, positive(mean["both"]), "s", color=GREEN, label="second moment and loss, measured")
    ax.plot(gamma, A / gamma * mean["potential"], color=GREEN, label=r"predicted: at most $(A/\gamma)\,P$")
    ax.plot(gamma, positive(mean["loss"]), "o", color=BLUE, label="loss of clipping, measured")
    ax.plot(gamma, mean["potential"] / (4 * gamma), color=BLUE, label=r"predicted: at most $P/(4\gamma)$")
    ax.axhline(3 * ROUNDS, color=GREY, linestyle=":", label="all mass, $H T$")
    ax.set(xscale="log", yscale="log")
    finish(
        ax, f"What clipping loses in {ROUNDS} rounds of GLOW", r"clipping level $\gamma$", "sum over rounds and layers"
    )
    ax.legend(frameon=False, fontsize=10)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="clip-loss",
    claim="glow.clip-loss",
    grid={"gamma": list(GAMMAS), "rounds": [ROUNDS]},
    measure=measure,
    seeds=5,
    predicted={"loss": "at most P / (4 gamma)", "both": "at most A P / gamma", "tolerance": TOLERANCE},
    summarise=summarise,
)
