"""What an iteration of GLOW costs: the same early and late, and in proportion to |F| |W| S A when all is tested.

Claim: an iteration costs O(H |F| |W| S A), whatever t, because a tuple adds one number per member to sums of residuals.
Only pairs that were visited are read, and their number still grows with t. Predicted: time per visited pair at t = 10^4
is at most 1.2 times that at t = 10^3; over sizes, time against |F| |W| S A is a straight line (R^2 > 0.95). Times are
the least processor times of several repetitions; they depend on the machine, their ratios much less. Run it with
`--jobs 1` on a quiet machine.
"""

import time

import numpy as np

from theoryrl.classes import WeightClass, realizable_class
from theoryrl.density_ratio import GLOW
from theoryrl.lab import Experiment
from theoryrl.mdp import random_mdp
from theoryrl.mdp.sampling import sampler
from theoryrl.online.driver import judge, play, tally
from theoryrl.online.verbs import Problem
from theoryrl.viz._axes import BLUE, GREY, ORANGE, finish

HORIZON, BLOCK, REPEATS = 4, 1000, 5
MOMENTS = (1000, 3000, 10_000, 30_000)
SIZES = [(16, 16, 8, 4), (16, 16, 16, 4), (16, 16, 32, 4), (32, 16, 32, 4), (16, 32, 32, 4), (32, 32, 32, 4)]
FLAT, FIT = 1.2, 0.95


def started(members: int, weights: int, n_states: int, n_actions: int, seed):
    """A fresh state of GLOW that tests all members, and what the driver needs to let it play."""
    mdp = random_mdp(n_states, n_actions, HORIZON, rng=seed, reward_law="bernoulli")
    cls = realizable_class(mdp, members - 1, kind="random", rng=2)
    table = np.exp(np.random.default_rng(0).standard_normal((weights, HORIZON, n_states, n_actions)))
    learner = GLOW(
        cls, WeightClass(table), iterations=10**6, gamma=0.003, initial=mdp.initial, test="full", check=False
    )
    low, high = mdp.reward_range
    problem = Problem(n_states, n_actions, HORIZON, low, high, mdp.stationary, mdp.action_mask)
    truth = judge(mdp)
    return learner.init(problem), truth, sampler(mdp), tally(1, truth)


def seconds(state, truth, tables, record, first: int, last: int, streams) -> float:
    begin = time.thread_time()
    play(state, truth, tables, record, np.array([10**9]), first, last, False, *streams)
    return time.thread_time() - begin


def measure(cell, seed):
    size = cell["members"], cell["weights"], cell["states"], cell["actions"]
    state, *rest = started(*size, seed)
    streams = [np.random.Generator(np.random.PCG64(child)) for child in seed.spawn(2)]
    done, costs, pairs = 1, [], []
    seconds(state, *rest, 0, 1, streams)  # compiles
    for moment in MOMENTS if cell["question"] == "late" else MOMENTS[:1]:
        seconds(state, *rest, done, moment, streams)
        done = moment
        blocks = []
        for _ in range(REPEATS):
            blocks.append(seconds(state, *rest, done, done + BLOCK, streams))
            done += BLOCK
        costs.append(min(blocks) / BLOCK * 1e6)
        pairs.append(float(state.n_visited.sum()))
    steps = np.array(MOMENTS[: len(costs)])
    return {"microseconds": (steps, np.array(costs)), "pairs": (steps, np.array(pairs))}


def summarise(frame, out):
    times = frame[frame["metric"] == "microseconds"]
    series = frame[frame["question"] == "late"].pivot_table(index=["seed", "step"], columns="metric", values="value")
    late = (1000 * series["microseconds"] / series["pairs"]).groupby("step").min()
    ratio = float(late.loc[10_000] / late.loc[1000])
    sized = times[times["question"] == "size"].copy()
    sized["work"] = sized["members"] * sized["weights"] * sized["states"] * sized["actions"]
    cost = sized.groupby(["members", "weights", "states", "actions", "work"])["value"].min().reset_index()
    slope, start = np.polyfit(cost["work"], cost["value"], 1)
    rest = cost["value"] - (slope * cost["work"] + start)
    fit = float(1 - (rest**2).sum() / ((cost["value"] - cost["value"].mean()) ** 2).sum())
    draw(late, cost, (slope, start), out / "e13_runtime.png")
    return {
        "late_against_early": ratio,
        "flat_verdict": "as predicted" if ratio <= FLAT else "contradicted",
        "nanoseconds_per_pair": {str(t): float(v) for t, v in late.items()},
        "R_squared": fit,
        "linear_verdict": "as predicted" if fit > FIT else "contradicted",
        "picoseconds_per_term": float(slope / HORIZON * 1e6),
        "figure": "e13_runtime.png",
    }


def draw(late, cost, line, path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(late.index, late, "o-", color=BLUE, label="measured")
    left.axhspan(0, FLAT * late.loc[1000], color=GREY, alpha=0.15, label="predicted: at most 1.2 times the first")
    left.set(xscale="log", ylim=(0, 1.6 * late.max()))
    finish(left, "An iteration, early and late", "iterations so far", "nanoseconds per visited pair")
    left.legend(frameon=False, fontsize=9)
    work = np.array([0, cost["work"].max()])
    right.plot(cost["work"], cost["value"], "o", color=ORANGE, label="measured")
    right.plot(work, line[0] * work + line[1], color=GREY, label="predicted: a straight line")
    right.set(xlim=(0, None), ylim=(0, None))
    finish(right, "An iteration by size, all members tested", "$|F|\\,|W|\\,S\\,A$", "microseconds")
    right.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


GRID = [
    {"question": "late", "members": 16, "weights": 16, "states": 16, "actions": 4},
    *({"question": "size", "members": f, "weights": w, "states": s, "actions": a} for f, w, s, a in SIZES),
]

EXPERIMENT = Experiment(
    name="runtime",
    claim="glow.regret",
    grid=GRID,
    measure=measure,
    seeds=3,
    predicted={"late against early": FLAT, "R squared": FIT},
    summarise=summarise,
    settings={"moments": MOMENTS, "block": BLOCK, "repeats": REPEATS},
)
