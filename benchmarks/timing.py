"""Races: several contenders on one job, in turns, so that whatever else the machine does disturbs all of them alike."""

import os
import time
from statistics import median

import numpy as np

SAMPLE_SECONDS = 0.01  # shorter calls are repeated until a sample lasts this long


def race(case, contenders, seconds=6.0, reference=None, rounds=(5, 200)):
    """Time every contender; the first one is the one the ratios refer to.

    Parameters
    ----------
    case : str
    contenders : dict of callables
        Each returns its answer (an array), or None.
    seconds : float
        Time for all samples of this case, at least `rounds[0]` and at most `rounds[1]` turns.
    reference : array, optional
        The right answer; `error` is the largest distance from it.

    Yields
    ------
    dict
        CPU and wall time per call in milliseconds: least and median; `ratio` of the least CPU times, contender over
        first; the load average when the case began.
    """
    load = os.getloadavg()[0]
    calls, errors = {}, {}
    for name, call in contenders.items():
        answer = call()  # compiles, fills caches
        start = time.perf_counter()
        call()
        calls[name] = max(1, int(SAMPLE_SECONDS / max(time.perf_counter() - start, 1e-7)))
        errors[name] = None if reference is None else float(np.abs(np.asarray(answer) - reference).max())
    cpu = {name: [] for name in contenders}
    wall = {name: [] for name in contenders}
    began = time.perf_counter()
    for turn in range(rounds[1]):
        if turn >= rounds[0] and time.perf_counter() - began > seconds:
            break
        for name, call in contenders.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(calls[name]):
                call()
            cpu[name].append((time.process_time() - cpu_start) / calls[name] * 1e3)
            wall[name].append((time.perf_counter() - wall_start) / calls[name] * 1e3)
    base = min(cpu[next(iter(contenders))])
    for name in contenders:
        yield {
            "case": case,
            "contender": name,
            "cpu_ms_min": min(cpu[name]),
            "cpu_ms_median": median(cpu[name]),
            "wall_ms_min": min(wall[name]),
            "wall_ms_median": median(wall[name]),
            "ratio": min(cpu[name]) / base,
            "samples": len(cpu[name]),
            "error": errors[name],
            "load": load,
        }


def skipped(case, contender, reason):
    """A record for a contender that did not run, and why."""
    return {"case": case, "contender": contender, "skipped": reason}
