"""Without completeness GOLF never lets go of a false member; GLOW, which asks for ratios instead, does at once.

Two steps: at the start a stops with reward 0.3, b leads on; there a pays 0.8 and b 0.1 (Bernoulli). F = {f, Q*}: f
promises 0.8 + 1e-6 at the start and plays the wrong action afterwards. The backup of f at b is 0.1, which no member of
F takes at the first step, so that GOLF's comparison sees an excess of 1.4e-6 a visit. GLOW tests the mean residual,
0.700001.

Everything at the first step is deterministic, so predictions are numbers, stated to the round. GLOW (W = {1}, T
rounds, L_W = log(4 H T / delta), delta = 0.1) removes f in the first round t >= 2 with, n = t - 1, g = gamma t, w =
min(1, g),

    0.700001 w - alpha w^2 > beta:   alpha-free  0.700001 w > sqrt((w^2 + g^2/n) (L_W + log(1 + n w^2/g^2)/2) / (2n)),
    self-normalised  alpha = 1/(4 g), beta = g L_W / (2n),
    published  alpha = 8/g, beta = 36 g log(6 |F| T H / delta) / n,

unless noise at the second step excludes it earlier. (With the literal threshold b sqrt(L w^2 / (2n)), L = log(T H /
delta), which is not valid under adaptive data, it would be round 12.) GOLF keeps f as long as 1.4e-6 n stays below its
level, which it does for T <= 10^6. Predicted: GLOW's first round is that number exactly; GOLF loses 0.7 T exactly;
with the published constants at the theorem's gamma, C_cov = 2, f leaves in round 73,950 of T = 10^6 and never for T <=
10^5.
"""

import math

import numpy as np

from theoryrl.classes import FiniteClass, WeightClass
from theoryrl.density_ratio import GLOW
from theoryrl.lab import Experiment
from theoryrl.mdp import FiniteHorizonMDP, backward_induction
from theoryrl.online import GOLF, run
from theoryrl.viz._axes import BLUE, GREEN, ORANGE, RED, finish

DELTA, RESIDUAL = 0.1, 0.8 + 1e-6 - 0.1
GAMMA = 0.05
LEARNERS = {
    "golf": ("GOLF, which needs completeness", RED),
    "paper": ("GLOW, published constants", ORANGE),
    "self_normalised": ("GLOW, self-normalised", BLUE),
    "scale_free": (r"GLOW, $\alpha$-free", GREEN),
}


def model() -> tuple[FiniteHorizonMDP, FiniteClass]:
    start, later, stop = range(3)
    transition, reward = np.zeros((3, 2, 3)), np.zeros((2, 3, 2))
    transition[start] = np.eye(3)[[stop, later]]
    transition[[later, stop], :, stop] = 1.0
    reward[0, start, 0], reward[1, later] = 0.3, (0.8, 0.1)
    mdp = FiniteHorizonMDP(transition, reward, horizon=2, reward_law="bernoulli", name="two steps")
    false = np.zeros((2, 3, 2))
    false[0, start], false[1, later] = (0.3, 0.8 + 1e-6), (0.0, 0.1)
    # GOLF does not know the start state before the first episode: a tie, which goes to the lowest number.
    return mdp, FiniteClass(np.stack([false, backward_induction(mdp).q]))


def gamma_of(cell) -> float:
    """The clipping level; for the published constants that of the theorem: sqrt(C_cov / (T log(|F| |W| / delta)))."""
    if cell["learner"] == "paper":
        return math.sqrt(2 / (cell["rounds"] * math.log(2 / DELTA)))
    return GAMMA


def first_round(cell) -> float:
    """The first round t >= 2 in which the first step excludes f, or infinity."""
    rounds, name = cell["rounds"], cell["learner"]
    if name == "golf":
        return math.inf
    t = np.arange(2, rounds + 1)
    n, g = t - 1, gamma_of(cell) * t
    w = np.minimum(1.0, g)
    log_weights = math.log(4 * 2 * rounds / DELTA)
    if name == "scale_free":
        limit = np.sqrt((w**2 + g**2 / n) * (log_weights + np.log1p(n * w**2 / g**2) / 2) / (2 * n))
    elif name == "self_normalised":
        limit = w**2 / (4 * g) + g * log_weights / (2 * n)
    else:
        limit = 8 * w**2 / g + 36 * g * math.log(6 * 2 * rounds * 2 / DELTA) / n
    out = np.flatnonzero(RESIDUAL * w > limit)
    return float(t[out[0]]) if len(out) else math.inf


def measure(cell, seed):
    mdp, cls = model()
    if cell["learner"] == "golf":
        learner = GOLF(cls, DELTA, check=False)
    else:
        learner = GLOW(
            cls, WeightClass(np.ones((1, 2, 3, 2))), iterations=cell["rounds"], gamma=gamma_of(cell), delta=DELTA,
            schedule=cell["learner"], total_reward=1.0, initial=mdp.initial, check=False,
        )  # fmt: skip
    result = run(learner, mdp, cell["rounds"], rng=seed, jobs=1, keep_states=True)
    found = {"regret": (result.checkpoints, result.regret[0])}
    if cell["learner"] != "golf":
        found["round"] = float(result.states[0].first_out[0]) + 1  # 0: never
    return found


def summarise(frame, out):
    summary: dict = {}
    for _, rows in frame.groupby("cell"):
        cell = {"learner": rows["learner"].iloc[0], "rounds": int(rows["rounds"].iloc[0])}
        last = rows[(rows["metric"] == "regret") & (rows["step"] == cell["rounds"])]["value"]
        rounds = [float(r) or math.inf for r in rows[rows["metric"] == "round"]["value"]] or [math.inf]
        theory = first_round(cell)
        loses = 0.7 * cell["rounds"]
        if cell["learner"] == "golf":
            good = bool(np.allclose(last, loses, rtol=1e-9))
        else:
            good = all(r == theory for r in rounds)
        summary[f"{cell['learner']}, T = {cell['rounds']}"] = {
            "predicted_round": theory,
            "rounds": sorted(set(rounds)),
            "regret": float(last.mean()),
            "verdict": "as predicted" if good else "contradicted",
        }
    draw(frame, out / "e10_no_completeness.png")
    return {**summary, "figure": "e10_no_completeness.png"}


def draw(frame, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    for name, (label, colour) in LEARNERS.items():
        rows = frame[(frame["learner"] == name) & (frame["metric"] == "regret") & (frame["rounds"] == 1_000_000)]
        curve = rows.groupby("step")["value"].mean()
        ax.plot(curve.index, curve, color=colour, label=label)
        leaves = first_round({"learner": name, "rounds": 1_000_000})
        if math.isfinite(leaves):
            ax.plot(leaves, 0.7 * (leaves - 1), "D", color=colour, markersize=8, markerfacecolor="white")
    ax.plot([], [], "D", color="black", markerfacecolor="white", label="predicted: where the false member leaves")
    t = np.geomspace(1, 1e6, 50)
    ax.plot(t, 0.7 * t, ":", color="black", linewidth=1, label="predicted for GOLF: $0.7\\,T$")
    ax.set(xscale="log", yscale="log")
    finish(ax, "A class that is not complete, $T = 10^6$", "episodes", "regret")
    ax.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="no-completeness",
    claim="glow.no-completeness",
    grid=[{"learner": name, "rounds": rounds} for rounds in (1000, 100_000, 1_000_000) for name in LEARNERS],
    measure=measure,
    seeds=3,
    predicted={"glow": "the first round of the inequality, exactly", "golf": "regret 0.7 T"},
    summarise=summarise,
    settings={"delta": DELTA, "gamma": GAMMA},
)
