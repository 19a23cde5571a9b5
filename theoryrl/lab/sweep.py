"""Run an experiment: every cell with every seed on threads, each finished job into the store, from where it stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import SeedSequence

from theoryrl import __version__
from theoryrl.lab.experiment import Experiment, one_line
from theoryrl.lab.store import ResultsError, Row, Store, reported, root_record, write_text
from theoryrl.mdp._checks import require_int

Job = tuple[int, int]  # cell, seed


@dataclass(frozen=True)
class SweepResult:
    """What a sweep leaves behind.

    Attributes
    ----------
    frame : pandas.DataFrame
        The tidy table of what was asked for (`Store.table`); also in ``out/table.csv``.
    out : Path
        The results folder.
    finished : int
        Jobs finished by this call.
    total : int
        Jobs asked for, cells times seeds; the others were there already.
    summary : dict
        What the experiment's `summarise` returned, as in ``out/summary.json``; empty without one.
    """

    frame: Any
    out: Path
    finished: int
    total: int
    summary: dict[str, Any]


def sweep(
    experiment: Experiment,
    out: str | os.PathLike[str],
    seeds: int | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int, str], object] | None = None,
    rng: Any = 0,
) -> SweepResult:
    """Measure every cell of an experiment with every seed, and keep what is finished.

    Job (cell, seed) draws from the SeedSequence of (root seed, content of the cell, seed number): the table depends
    neither on the number of workers nor on the order of the jobs, and a cell keeps its numbers in a larger grid. Called
    again on the same folder, a sweep computes only what is missing and ends with the same table, bit for bit.

    Parameters
    ----------
    experiment : Experiment
    out : path of the results folder
        Gets ``results.sqlite``, ``table.csv``, ``manifest.json``, ``summary.json`` and what `summarise` draws.
    seeds : int, optional
        Seeds per cell, numbered from 0; the experiment's own number by default. A larger number than before adds to the
        store. A smaller one gives the table of just these seeds; the others stay in the store.
    jobs : int, optional
        Threads; one per available core by default. Compiled kernels run in parallel; a measure that starts threads of
        its own should be told to use one.
    progress : callable, optional
        Called as ``progress(done, total, text)`` at the start and after each job.
    rng : int, SeedSequence or Generator
        The root seed.

    Returns
    -------
    SweepResult

    Raises
    ------
    ResultsError
        If the folder is another experiment's or damaged, or the disk is full. Finished jobs are kept.
    ValueError
        If the measure raised or returned something that is no measurement: after all other jobs are done and recorded,
        naming the first such cell and seed. Such a job is not recorded, so the next call tries it again.
    KeyboardInterrupt
        On ctrl-C, at once; no new job starts, and those still running are dropped (the interpreter waits for them to
        end before it exits).
    """
    if not isinstance(experiment, Experiment):
        raise TypeError(f"sweep takes an Experiment (see load_experiment), not a {type(experiment).__name__}")
    seeds = experiment.seeds if seeds is None else require_int(seeds, 1, "seeds")
    jobs = _cores() if jobs is None else require_int(jobs, 1, "jobs")
    with Store(experiment, out, rng) as store:
        _write_manifest(store, seeds, jobs)
        finished = store.finished(seeds)
        wanted = [(cell, seed) for cell in range(len(experiment.cells)) for seed in range(seeds)]
        missing = [job for job in wanted if job not in finished]
        _compute(store, missing, len(wanted), jobs, progress)
        frame = store.table(seeds)
        store.export_csv(store.out / "table.csv", seeds)
    return SweepResult(frame, store.out, len(missing), len(wanted), _summarise(experiment, frame, store.out))


def measure_job(measure: Callable[..., Any], cell: str, seed: int, root: SeedSequence) -> list[Row]:
    """Compute one job: the rows (step, metric, value) of a cell given as JSON text, for one seed of a root seed."""
    content = np.frombuffer(hashlib.sha256(cell.encode()).digest(), dtype="<u4").tolist()
    stream = SeedSequence(root.entropy, spawn_key=(*root.spawn_key, *content, seed), pool_size=root.pool_size)
    return _as_rows(measure(json.loads(cell), stream))


def _as_rows(measured: Any) -> list[Row]:
    if not isinstance(measured, Mapping) or not measured:
        raise ValueError(f"measure must return a mapping from metric to numbers, not {measured!r:.80}")
    rows: list[Row] = []
    for metric, value in measured.items():
        if not isinstance(metric, str) or not metric:
            raise ValueError(f"the name of a metric must be a non-empty string, not {metric!r}")
        if not isinstance(value, tuple):
            value = ([0], [value])
        if len(value) != 2:
            raise ValueError(f"{metric} must be a number or a pair (steps, values), not {len(value)} things")
        steps, values = np.asarray(value[0]), np.asarray(value[1])
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise ValueError(f"{metric} must be a number or a pair (steps, values) of 1-d arrays, not {value!r:.80}")
        if steps.shape != values.shape:
            raise ValueError(f"{metric} has steps of shape {steps.shape} for values of shape {values.shape}")
        numbers = [int(step) for step in steps] if steps.dtype.kind in "iu" or not steps.size else [-1]
        if min(numbers, default=0) < 0 or len(set(numbers)) < len(numbers) or max(numbers, default=0) >= 2**63:
            raise ValueError(f"the steps of {metric} must be distinct non-negative integers")
        rows += zip(numbers, [metric] * len(numbers), values.astype(np.float64).tolist(), strict=True)
    return rows


def _compute(
    store: Store,
    missing: list[Job],
    total: int,
    workers: int,
    progress: Callable[[int, int, str], object] | None,
) -> None:
    """Compute the missing jobs on threads and record them here, in the one thread that holds the store."""
    experiment = store.experiment
    failures = 0
    first: tuple[Job, BaseException] | None = None
    running: dict[Future[list[Row]], Job] = {}
    queue = iter(missing)
    done = total - len(missing)
    if progress is not None:
        progress(done, total, experiment.name)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="theoryrl-lab")
    try:
        while True:
            # A short queue: results wait for the store, not in memory, and a stop has little to call off.
            for cell, seed in islice(queue, 2 * workers - len(running)):
                future = pool.submit(measure_job, experiment.measure, experiment.cells[cell], seed, store.root)
                running[future] = cell, seed
            if not running:
                break
            # Wake up now and then: a ctrl-C that falls just before the wait is otherwise seen only after the next job.
            for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    rows = future.result()
                except (Exception, SystemExit) as error:
                    failures += 1
                    first = (job, error) if first is None or job < first[0] else first
                    continue
                store.record(*job, rows)
                done += 1
                if progress is not None:
                    progress(done, total, experiment.name)
    finally:
        # Threads cannot be stopped from outside: those that still run are left to end, and nobody takes their results.
        pool.shutdown(wait=False, cancel_futures=True)
    if first is not None:
        (cell, seed), cause = first
        where = ", ".join(f"{name} = {value!r}" for name, value in json.loads(experiment.cells[cell]).items())
        raise ValueError(
            f"{experiment.name}: cell {cell} ({where}), seed {seed}: {one_line(cause)} "
            f"({failures} of {total} jobs failed; the {done} finished ones are kept in {store.out})"
        ) from cause


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_manifest(store: Store, seeds: int, jobs: int) -> None:
    """Note who computes this, when and with what: one entry per run, beside the table and never in it."""
    path = store.out / "manifest.json"
    runs = []
    if path.exists():
        with reported(path):
            text = path.read_text(encoding="utf-8")
        try:
            runs = json.loads(text)["runs"]
        except (ValueError, KeyError, TypeError):
            raise ResultsError(f"{path}: truncated or not a manifest of theoryrl; delete it to go on") from None
    experiment = store.experiment
    run = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "rng": root_record(store.root),
        "seeds": seeds,
        "jobs": jobs,
        "python": platform.python_version(),
        "theoryrl": __version__,
        "numpy": np.__version__,
        "numba": version("numba"),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
    }
    about = {
        "experiment": experiment.name,
        "claim": experiment.claim,
        "digest": experiment.digest(),
        "predicted": dict(experiment.predicted),
        "settings": dict(experiment.settings),
        "runs": [*runs, run],
    }
    write_text(path, json.dumps(about, indent=2) + "\n")


def _summarise(experiment: Experiment, frame: Any, out: Path) -> dict[str, Any]:
    if experiment.summarise is None:
        return {}
    try:
        summary = _plain(dict(experiment.summarise(frame, out)))
        text = json.dumps(summary, indent=2, allow_nan=False)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{experiment.name}: summarise raised {one_line(error)}; the table is kept in {out}"
        ) from error
    write_text(out / "summary.json", text + "\n")
    return summary


def _plain(value: Any) -> Any:
    """JSON values out of what numpy gives; non-finite numbers become strings, as everywhere in the library's JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
