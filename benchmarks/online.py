"""The learners and rlberry's UCBVI on one chain, a hundred seeds on all cores, and what a fresh process costs.

rlberry wants older companions than this library, so it runs in an interpreter of its own: make a virtual environment
with `pip install rlberry==0.7.3 rlberry-scool==0.7.3 gymnasium==0.29.1`, name its python in THEORYRL_RLBERRY_PYTHON.
All but the hundred seeds is CPU time of one thread; `ratio` is time per episode (or per process) over the first
contender's.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

import theoryrl as trl
from benchmarks.timing import race, skipped
from theoryrl.online import (
    EULER,
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

EPISODES = 2000
LONG = 100_000
TURNS = 2
CASE = "chain S=20 A=2 H=20"
PIP, JITTED, REAL_TIME = "rlberry", "rlberry, planner compiled", "rlberry, real_time_dp"

# Answers every line with the CPU seconds of that many episodes. The planner of 0.7.3 has lost its numba decorator: the
# compiled form gets it back from outside.
PEER = """
import json, sys, time
import numba, rlberry
from rlberry_scool.agents.ucbvi import UCBVIAgent, ucbvi
from rlberry_scool.envs import Chain

rlberry.logger.setLevel("ERROR")
environment = Chain(L=20, fail_prob=0.1)
print(json.dumps([environment.P.tolist(), environment.R.tolist()]), flush=True)
names = ("backward_induction_reward_sd", "backward_induction_in_place")
planners = {"pip": {name: getattr(ucbvi, name) for name in names}}
planners["jitted"] = {name: numba.njit(planner) for name, planner in planners["pip"].items()}
planners["real_time"] = planners["pip"]

def seconds(form, episodes):
    for name, planner in planners[form].items():
        setattr(ucbvi, name, planner)
    learner = UCBVIAgent(Chain(L=20, fail_prob=0.1), horizon=20, real_time_dp=form == "real_time")
    start = time.process_time()
    learner.fit(budget=episodes)
    return time.process_time() - start

for form in planners:
    seconds(form, 3)
for line in sys.stdin:
    form, episodes = line.split()
    print(json.dumps(seconds(form, int(episodes))), flush=True)
"""

# Counts what numba compiles while the command line does its work.
COUNT = """
import contextlib, io, sys
from numba.core.event import install_recorder
from theoryrl.cli.app import invoke
with install_recorder("numba:compile") as recorder, contextlib.redirect_stdout(io.StringIO()):
    invoke(sys.argv[1:])
print(sum(event.is_start for _, event in recorder.buffer))
"""

COMMANDS = (
    ("verify", "ucbvi.optimism", "--mdp", "riverswim", "n_states=3", "horizon=4", "--runs", "2"),
    ("solve", "riverswim", "--certify"),
)


def cpu_seconds(call):
    """CPU time of this process while `call` runs."""
    start = time.process_time()
    call()
    return time.process_time() - start


def record(contender, samples, episodes, base):
    """One line of the race, in the words of `timing.race`; `ratio` is time per episode over the first contender's."""
    least = min(samples)
    return {
        "case": f"{CASE}, {episodes} episodes",
        "contender": contender,
        "cpu_ms_min": least * 1e3,
        "cpu_ms_median": float(np.median(samples)) * 1e3,
        "episodes": episodes,
        "episodes_per_second": episodes / least,
        "ratio": least / episodes / base,
        "samples": len(samples),
        "load": os.getloadavg()[0],
    }


def peer_process(python, mdp):
    """The peer, warmed up, after a check that its model is ours to the bit."""
    process = subprocess.Popen([python, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    if not first:
        raise RuntimeError(f"{python} cannot run rlberry; its message is above")
    for ours, theirs in zip((mdp.transition, mdp.reward), json.loads(first), strict=True):
        if not np.array_equal(ours, theirs):
            raise ValueError("rlberry's chain is not the model that theoryrl plays")
    return process


def episodes_race():
    """Our learners and three forms of the peer in turns; the exact regret of every episode is part of our time."""
    mdp = trl.envs.make("chain")
    ours = {f"theoryrl, UCBVI, {bonus}": UCBVI(bonus=bonus) for bonus in ("hoeffding", "bernstein")}
    for bonus in ("hoeffding", "bernstein"):
        ours[f"theoryrl, UCBVI, {bonus}, doubled counts"] = UCBVI(bonus=bonus, replan="doubling")
        ours[f"theoryrl, UCBVI, {bonus}, real time"] = UCBVIRTDP(bonus=bonus)
    others = (
        EULER(),
        UCRL2(),
        RMax(epsilon=1.0),
        PSRL(),
        RLSVI(),
        OPPO(LONG),
        UCBH(),
        UCBB(),
        EpsilonGreedy(),
        Uniform(),
    )
    ours |= {f"theoryrl, {type(learner).__name__}": learner for learner in others}
    samples = {(name, episodes): [] for name in ours for episodes in (EPISODES, LONG)}
    for learner in ours.values():
        run(learner, mdp, 10, jobs=1)
    python = os.environ.get("THEORYRL_RLBERRY_PYTHON")
    peer = peer_process(python, mdp) if python else None
    for _ in range(TURNS):
        for (name, episodes), times in samples.items():
            if name in ours:
                repeats = 10 if episodes == EPISODES else 1
                times.extend(
                    cpu_seconds(lambda n=name, e=episodes: run(ours[n], mdp, e, jobs=1)) for _ in range(repeats)
                )
        if peer:
            for name, form, repeats in ((PIP, "pip", 1), (JITTED, "jitted", 3), (REAL_TIME, "real_time", 3)):
                for _ in range(repeats):
                    peer.stdin.write(f"{form} {EPISODES}\n")
                    peer.stdin.flush()
                    samples.setdefault((name, EPISODES), []).append(json.loads(peer.stdout.readline()))
    if peer:
        peer.communicate()
    base = min(next(iter(samples.values()))) / EPISODES
    for (name, episodes), times in samples.items():
        yield record(name, times, episodes, base)
    if not peer:
        for name in (PIP, JITTED, REAL_TIME):
            yield skipped(
                f"{CASE}, {EPISODES} episodes", name, "THEORYRL_RLBERRY_PYTHON does not name an interpreter that has it"
            )


def many_seeds():
    """A hundred seeds of UCBVI on RiverSwim, ten thousand episodes each: wall-clock time on every core there is."""
    mdp = trl.envs.make("riverswim", n_states=20, horizon=20)
    run(UCBVI(), mdp, 10, jobs=1)
    samples = []
    for _ in range(TURNS):
        wall, cpu = time.perf_counter(), time.process_time()
        run(UCBVI(), mdp, 10_000, seeds=100)
        samples.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = min(samples)
    yield {
        "case": "riverswim S=20 H=20, 100 seeds of 10000 episodes",
        "contender": "theoryrl, UCBVI, hoeffding",
        "wall_seconds_min": wall,
        "cpu_seconds": cpu,
        "cores": os.cpu_count(),
        "episodes_per_second": 1e6 / wall,
        "samples": len(samples),
        "load": os.getloadavg()[0],
    }


def process(case, commands, environment):
    """Fresh processes in turns; CPU time of the whole process, least of seven."""
    samples = {name: [] for name in commands}
    for _ in range(7):
        for name, command in commands.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            samples[name].append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    base = min(next(iter(samples.values())))
    for name, times in samples.items():
        yield {"case": case, "contender": name, "cpu_ms_min": min(times) * 1e3, "ratio": min(times) / base}


def starts():
    """Imports, and the command line's first verdict once another process has filled the cache of kernels."""
    imports = {f"import {name}": [sys.executable, "-c", f"import {name}"] for name in ("numpy", "theoryrl", "numba")}
    yield from process("start: imports", imports, os.environ)
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"THEORYRL_CACHE_DIR": cache}
        for command in COMMANDS:
            count = [sys.executable, "-c", COUNT, *command]
            for which in ("first", "second"):
                done = subprocess.run(count, env=environment, capture_output=True, text=True, check=True)
                case = f"start: functions that numba compiles in the {which} process"
                yield {"case": case, "contender": f"theoryrl {' '.join(command)}", "compiled": int(done.stdout)}
        entry = "from theoryrl.cli import main; main()"
        commands = {f"theoryrl {' '.join(command)}": [sys.executable, "-c", entry, *command] for command in COMMANDS}
        yield from process("start: command line, warm cache", commands, environment)


def first_call():
    """A learner run as short as can be: what a call costs besides its episodes."""
    mdp = trl.envs.make("chain")
    yield from race(
        "UCBVI: one episode, set-up included", {"theoryrl": lambda: run(UCBVI(), mdp, 1, jobs=1)}, seconds=1
    )


def measure():
    """Episodes per second, many seeds, then starts."""
    yield from episodes_race()
    yield from many_seeds()
    yield from first_call()
    yield from starts()
