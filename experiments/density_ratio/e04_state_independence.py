"""Rich observations cost GLOW nothing: its regret does not depend on how many symbols each hidden state can show.

A model of four hidden states is lifted to block models with m = 1, 4, 16, 64 symbols a state (S = 4 to 256); F and the
ratios are lifted through the decoder. Residuals, ratios and start values are then those of the hidden model, so the
law of GLOW's regret is the same for every m; for m <= 4 even the path is, since one uniform number draws the same
hidden successor. UCBVI is told nothing and must learn every symbol.

Predicted: GLOW's mean regret at m = 4, 16, 64 differs from that at m = 1 by at most 3 standard errors (each m has its
own seeds); at m = 4 and m = 1 under one seed regret is the same at every checkpoint (1e-9); UCBVI's regret grows with
a slope of at least 0.3 in log S (its bound grows as sqrt(S)).
"""

import numpy as np

from theoryrl.classes import decoder_lift
from theoryrl.complexity import coverability
from theoryrl.density_ratio import GLOW, occupancy_ratios
from theoryrl.density_ratio._instances import costly_instance
from theoryrl.envs.block import block_mdp
from theoryrl.lab import Experiment
from theoryrl.online import UCBVI, run
from theoryrl.viz._axes import BLUE, RED, finish

DELTA, ROUNDS = 0.1, 20_000
SYMBOLS = (1, 4, 16, 64)
COUPLED = 4  # rows of at most 16 successors are drawn by inversion, longer ones from alias tables
LEARNERS = {"GLOW": BLUE, "UCBVI": RED}


def played(symbols: int, seed) -> dict:
    """Both learners on the block model with so many symbols a state."""
    hidden, cls = costly_instance()
    cover = coverability(hidden, list(cls.greedy()))
    block = block_mdp(hidden, n_observations=symbols, rng=0)
    mdp, lifted = block.mdp, decoder_lift(cls, block.decoder)
    glow = GLOW(
        lifted, occupancy_ratios(lifted, mdp, 1.0), iterations=ROUNDS, coverability=cover, delta=DELTA,
        total_reward=1.0, initial=mdp.initial,
    )  # fmt: skip
    return {
        name: run(learner, mdp, ROUNDS, rng=seed, jobs=1) for name, learner in (("GLOW", glow), ("UCBVI", UCBVI(DELTA)))
    }


def measure(cell, seed):
    found = played(cell["symbols"], seed)
    rows = {f"regret.{name}": (result.checkpoints, result.regret[0]) for name, result in found.items()}
    if cell["symbols"] == COUPLED:
        rows["difference"] = np.abs(played(1, seed)["GLOW"].regret - found["GLOW"].regret).max()
    return rows


def summarise(frame, out):
    last = frame[frame["step"] == ROUNDS].pivot(index=["metric", "seed"], columns="symbols", values="value")
    glow, ucbvi = last.loc["regret.GLOW"], last.loc["regret.UCBVI"]
    base = glow[1]
    errors = {m: abs(glow[m].mean() - base.mean()) / np.hypot(glow[m].sem(), base.sem()) for m in SYMBOLS[1:]}
    path = float(frame[frame["metric"] == "difference"]["value"].max())
    slope = float(np.polyfit(np.log(SYMBOLS), np.log(ucbvi.mean().to_numpy()), 1)[0])
    summary = {
        "symbols": SYMBOLS,
        "glow": glow.mean().to_numpy(),
        "ucbvi": ucbvi.mean().to_numpy(),
        "standard_errors_apart": {str(m): float(e) for m, e in errors.items()},
        "glow_verdict": "as predicted" if max(errors.values()) <= 3 else "contradicted",
        "same_seed_difference_at_4": path,
        "path_verdict": "as predicted" if path <= 1e-9 else "contradicted",
        "ucbvi_slope": slope,
        "ucbvi_verdict": "as predicted" if slope >= 0.3 else "contradicted",
        "figure": "e04_state_independence.png",
    }
    draw(last, slope, out / "e04_state_independence.png")
    return summary


def draw(last, slope: float, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    states = 4 * np.array(SYMBOLS)
    for name, colour in LEARNERS.items():
        table = last.loc[f"regret.{name}"]
        label = f"{name}: mean and 3 standard errors" + (f", slope {slope:.2f}" if name == "UCBVI" else "")
        ax.errorbar(states, table.mean(), 3 * table.sem(), color=colour, marker="o", capsize=4, label=label)
        first = table[1].mean()
        guide = first * np.ones(len(states)) if name == "GLOW" else first * np.sqrt(states / states[0])
        ax.plot(states, guide, ":", color=colour, label="predicted: constant" if name == "GLOW" else r"$\sqrt{S}$")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(states, [str(s) for s in states])
    ax.minorticks_off()
    finish(ax, f"Four hidden states, more and more symbols, {ROUNDS} episodes", "observed states $S$", "regret")
    ax.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="state-independence",
    claim="glow.state-independence",
    grid={"symbols": list(SYMBOLS)},
    measure=measure,
    seeds=10,
    predicted={"glow": "within 3 standard errors of m = 1", "ucbvi": "slope in log S at least 0.3"},
    summarise=summarise,
    settings={"delta": DELTA, "rounds": ROUNDS},
)
