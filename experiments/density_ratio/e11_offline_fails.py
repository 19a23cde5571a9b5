"""Offline data of an optimal policy are not enough for a value-based learner; as many episodes of its own are.

A combination lock of length H: the right action at every step leads to 0.8, the wrong one to nothing (0.1 at the first
step). F = {Q*, f_1, ..., f_H}, f_k promising 0.95 for going wrong at step k. Along the optimal policy no member has a
Bellman error, so that from its data, however many (C_* = 1), MABO.CR gives every member the objective 0, exactly, and
ties broken by an adversary cost 0.8 for ever. HyGLOW adds one episode of its own a round: a false member that is
played shows its error of 0.95 at the next call. Predicted for the layer-max form: every false member is played once, H
bad episodes, regret 0.8 H - 0.1 (f_1 earns 0.1), none after round H, at every gamma. For the summed form, whose
penalty at the other layers hides an error, nothing is predicted beyond a falling risk.
"""

import numpy as np

from theoryrl.density_ratio import MABOCR, HyGLOW, adversarial_order, member_values, occupancy_ratios
from theoryrl.density_ratio._instances import combination_lock
from theoryrl.lab import Experiment
from theoryrl.mdp import backward_induction, occupancy, rollout
from theoryrl.online import run
from theoryrl.viz._axes import BLUE, GREY, ORANGE, RED, finish

ROUNDS, OFFLINE = 2000, 400
LENGTHS, GAMMAS, DRAWN = (4, 6, 8), (0.01, 0.05, 0.2), 4


def measure(cell, seed):
    mdp, cls = combination_lock(cell["length"])
    best = backward_induction(mdp).policy
    law, loss = occupancy(mdp, best), member_values(mdp, cls, 1.0).regret
    weights, order = occupancy_ratios(cls, mdp, 1.0), adversarial_order(cls, mdp, 1.0)
    settings = {"form": cell["form"], "gamma": cell["gamma"], "tie_order": order}
    offline = rollout(mdp, best, ROUNDS, seed, jobs=1)
    few = rollout(mdp, best, OFFLINE, seed, jobs=1)
    choice = MABOCR(cls, weights, **settings).choose(few, law=law)
    learner = HyGLOW(offline, cls, weights, iterations=ROUNDS, offline_law=law, total_reward=1.0, **settings)
    chosen = run(learner, mdp, ROUNDS, rng=seed, jobs=1, keep_states=True).states[0].chosen
    bad = loss[chosen] > 0
    marks = np.unique(np.geomspace(1, ROUNDS, 60).astype(int))
    return {
        "objective": np.abs(choice.objective).max(),
        "offline_risk": loss[choice.member],
        "regret": (marks, np.cumsum(loss[chosen])[marks - 1]),
        "bad": int(bad.sum()),
        "last": int(np.flatnonzero(bad).max(initial=-1)) + 1,
    }


def summarise(frame, out):
    summary: dict = {}
    for _, rows in frame.groupby("cell"):
        length, form, gamma = rows["length"].iloc[0], rows["form"].iloc[0], rows["gamma"].iloc[0]
        found = rows[rows["metric"] != "regret"].set_index("metric")["value"]
        regret = float(rows[(rows["metric"] == "regret") & (rows["step"] == ROUNDS)]["value"].iloc[0])
        offline = found["objective"] == 0 and abs(found["offline_risk"] - 0.8) <= 1e-12
        record = {
            "offline_objective": float(found["objective"]),
            "offline_risk": float(found["offline_risk"]),
            "offline_verdict": "as predicted" if offline else "contradicted",
            "bad_episodes": int(found["bad"]),
            "last_bad": int(found["last"]),
            "regret": regret,
            "risk": regret / ROUNDS,
        }
        if form == "max":
            good = found["bad"] == length == found["last"] and abs(regret - (0.8 * length - 0.1)) <= 1e-9
            record |= {"predicted_regret": 0.8 * length - 0.1, "verdict": "as predicted" if good else "contradicted"}
        summary[f"H = {length}, {form}, gamma = {gamma:g}"] = record
    draw(frame, out / "e11_offline_fails.png")
    return {**summary, "figure": "e11_offline_fails.png"}


def draw(frame, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    ax = figure.subplots()
    t = np.geomspace(1, ROUNDS, 60)
    ax.plot(t, 0.8 * t, color=RED, label="offline MABO.CR, adversarial ties: 0.8 an episode")
    for form, colour in (("sum", ORANGE), ("max", BLUE)):
        for gamma, style in zip(GAMMAS, (":", "--", "-"), strict=True):
            if form == "max" and gamma != GAMMAS[-1]:
                continue  # all three are the same curve
            keep = (frame["length"] == DRAWN) & (frame["form"] == form) & (frame["gamma"] == gamma)
            curve = frame[keep & (frame["metric"] == "regret")].set_index("step")["value"]
            label = rf"HyGLOW, {form} form, " + (r"any $\gamma$" if form == "max" else rf"$\gamma$ = {gamma:g}")
            ax.plot(curve.index, curve, style, color=colour, label=label)
    ax.axhline(0.8 * DRAWN - 0.1, color=GREY, linewidth=1, linestyle="--", label="predicted, max form: $0.8\\,H - 0.1$")
    ax.set(xscale="log", yscale="log")
    finish(ax, f"Combination lock, H = {DRAWN}, offline data of an optimal policy", "episodes", "regret")
    ax.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


EXPERIMENT = Experiment(
    name="offline-fails",
    claim="hyglow.offline-fails",
    grid={"length": list(LENGTHS), "form": ["max", "sum"], "gamma": list(GAMMAS)},
    measure=measure,
    seeds=1,  # nothing is random
    predicted={"offline": "objective 0 for every member, risk 0.8", "max": "H bad episodes, regret 0.8 H - 0.1"},
    summarise=summarise,
    settings={"rounds": ROUNDS, "offline": OFFLINE},
)
