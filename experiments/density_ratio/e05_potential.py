"""The coverability potential of a sequence of policies stays below C_h H(T / C_h), and the bound is attained.

Claim: sum_t E_{d^t}[d^t / (d^1 + ... + d^t)] <= C_h H(T / C_h), with C_h the coverability of layer h and H(x) the
harmonic numbers continued to real x. Four sequences: what GLOW plays, policies drawn at random, one policy for ever (C
= 1), and k policies without common pairs in turn. Predicted: never above the bound; equal to it for the constant
policy at every T, and for k policies in turn at every multiple of k. The relative tolerance is 1e-9, all of it
rounding.
"""

import numpy as np

from theoryrl.complexity import coverability
from theoryrl.density_ratio import GLOW, harmonic, occupancy_ratios
from theoryrl.density_ratio._instances import costly_instance
from theoryrl.lab import Experiment
from theoryrl.mdp import FiniteHorizonMDP, occupancy
from theoryrl.online import run
from theoryrl.viz._axes import BLUE, GREEN, GREY, ORANGE, RED, finish

ROUNDS, ARMS, TOLERANCE = 3000, 6, 1e-9
SEQUENCES = {
    "glow": ("what GLOW plays", BLUE),
    "random": ("policies drawn at random", GREEN),
    "constant": ("one policy for ever", ORANGE),
    "turns": (f"{ARMS} disjoint policies in turn", RED),
}


def arms_model() -> FiniteHorizonMDP:
    return FiniteHorizonMDP(np.ones((1, ARMS, 1)), np.full((1, ARMS), 0.5), horizon=1)


def played(sequence: str, rounds: int, seed) -> tuple[np.ndarray, np.ndarray]:
    """Occupancies of the policies played, (T, H, S A), and the coverability (H,) of the policies they come from."""
    if sequence == "turns":
        mdp = arms_model()
        policies, order = np.arange(ARMS)[:, np.newaxis], np.arange(rounds) % ARMS
    else:
        mdp, cls = costly_instance()
        policies = cls.greedy()
        if sequence == "glow":
            learner = GLOW(cls, occupancy_ratios(cls, mdp, 1.0), iterations=rounds, gamma=0.01, total_reward=1.0)
            order = run(learner, mdp, rounds, rng=seed, jobs=1, keep_states=True).states[0].chosen
        else:
            order = np.random.default_rng(seed).integers(0, len(policies), rounds)
            order = np.full(rounds, order[0]) if sequence == "constant" else order
    masses = np.stack([occupancy(mdp, policy) for policy in policies])
    cover = coverability(mdp, [policies[i] for i in np.unique(order)])
    return masses.reshape(len(masses), mdp.horizon, -1)[order], cover


def potentials(masses: np.ndarray) -> np.ndarray:
    """sum_{s <= t} E_{d^s}[d^s / (d^1 + ... + d^s)] for every t and layer, (T, H)."""
    total = np.cumsum(masses, axis=0)
    share = np.divide(masses**2, total, out=np.zeros_like(masses), where=masses > 0)
    return np.cumsum(share.sum(axis=-1), axis=0)


def measure(cell, seed):
    masses, cover = played(cell["sequence"], cell["rounds"], seed)
    steps = np.arange(1, cell["rounds"] + 1)
    found = potentials(masses)
    layer = int((found / (cover * harmonic(steps[:, np.newaxis] / cover)))[-1].argmax())
    marks = np.unique(np.geomspace(1, len(steps), 60).astype(int) // ARMS * ARMS)[1:] - 1
    bound = cover[layer] * harmonic(steps / cover[layer])
    excess = max(float((found[:, h] / (c * harmonic(steps / c))).max()) for h, c in enumerate(cover)) - 1
    return {
        "potential": (steps[marks], found[marks, layer]),
        "bound": (steps[marks], bound[marks]),
        "looser": (steps[marks], (cover[layer] * harmonic(steps))[marks]),
        "excess": excess,
        "coverability": cover[layer],
    }


def summarise(frame, out):
    summary: dict = {}
    curves = {}
    for name in SEQUENCES:
        rows = frame[frame["sequence"] == name]
        one = rows[rows["seed"] == 0]
        curves[name] = {
            metric: one[one["metric"] == metric].set_index("step")["value"]
            for metric in ("potential", "bound", "looser")
        }
        attained = float((curves[name]["potential"] / curves[name]["bound"]).min())
        excess = float(rows[rows["metric"] == "excess"]["value"].max())
        expected = name in ("constant", "turns")
        good = excess <= TOLERANCE and (not expected or attained >= 1 - TOLERANCE)
        summary[name] = {
            "largest_excess": excess,
            "least_share_of_the_bound": attained,
            "predicted": "equal to the bound" if expected else "below the bound",
            "verdict": "as predicted" if good else "contradicted",
            "coverability": float(one[one["metric"] == "coverability"]["value"].iloc[0]),
        }
    draw(curves, out / "e05_potential.png")
    return {**summary, "figure": "e05_potential.png"}


def draw(curves: dict, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    for name, (label, colour) in SEQUENCES.items():
        found = curves[name]
        ax.plot(found["bound"].index, found["bound"], color=colour, linewidth=1.5)
        ax.plot(found["looser"].index, found["looser"], color=colour, linewidth=1, linestyle=":")
        ax.plot(
            found["potential"].index[::3], found["potential"].iloc[::3], "o", color=colour, markersize=5, label=label
        )
    ax.plot([], [], color=GREY, linewidth=1.5, label="predicted: at most $C_h\\,H(T/C_h)$")
    ax.plot([], [], color=GREY, linewidth=1, linestyle=":", label="looser: $C_h\\,H_T$")
    ax.set_xscale("log")
    finish(ax, "Coverability potential, the layer closest to its bound", "rounds $T$", "potential")
    ax.legend(frameon=False, fontsize=10)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="potential",
    claim="glow.potential",
    grid={"sequence": list(SEQUENCES), "rounds": [ROUNDS]},
    measure=measure,
    seeds=5,
    predicted={"turns": "equality at multiples of k", "constant": "equality", "tolerance": TOLERANCE},
    summarise=summarise,
)
