"""`theoryrl run`: an experiment from a file, resumable, with a summary at the end."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from theoryrl.lab.experiment import load_experiment
from theoryrl.lab.progress import progress
from theoryrl.lab.sweep import sweep
from theoryrl.theory.report import json_safe


def report(path: Path, seeds: int | None, seed: int, jobs: int | None, as_json: bool, out: Path | None) -> int:
    """Run or resume, then print where the table is and what the experiment's own summary says."""
    # What an experiment prints is no part of the report, which has stdout for itself.
    with redirect_stdout(sys.stderr):
        experiment = load_experiment(path)
        folder = out or Path("results") / experiment.name
        with progress(None, experiment.name) as tick:
            result = sweep(experiment, folder, seeds=seeds, jobs=jobs, progress=tick.callback, rng=seed)
    document = {"experiment": experiment.name, "out": str(folder), "rows": len(result.frame), "summary": result.summary}
    if as_json:
        sys.stdout.write(json.dumps(json_safe(document), indent=2, allow_nan=False) + "\n")
        return 0
    sys.stdout.write(f"{len(result.frame)} rows in {folder}/table.csv\n")
    for key, value in (result.summary or {}).items():
        sys.stdout.write(f"{key}: {json.dumps(json_safe(value), allow_nan=False)}\n")
    return 0
