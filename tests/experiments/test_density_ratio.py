"""The experiments on density ratios: they load, name a theorem of the registry, and a cell of each can be measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from theoryrl import theorems
from theoryrl.lab import load_experiment, sweep

FOLDER = Path(__file__).resolve().parent.parent.parent / "experiments" / "density_ratio"
PATHS = sorted(FOLDER.glob("e*.py"))


def test_there_are_thirteen_and_each_names_a_theorem():
    assert [path.name[:3] for path in PATHS] == [f"e{number:02d}" for number in range(1, 14)]
    known = {theorem.key for theorem in theorems()}
    for path in PATHS:
        experiment = load_experiment(path)
        assert experiment.claim in known, path.name
        assert experiment.predicted, path.name
        assert experiment.summarise is not None, path.name


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_first_cell_can_be_measured(path, tmp_path):
    experiment = load_experiment(path)
    first = json.loads(experiment.cells[0])
    frame = sweep(replace(experiment, grid=[first], summarise=None), tmp_path, seeds=1, jobs=1).frame
    assert len(frame) > 0
    assert not np.isnan(frame["value"]).any()


def test_sample_sizes_are_those_predicted(tmp_path):
    experiment = load_experiment(FOLDER / "e12_sample_sizes.py")
    cells = [{"analysis": name, "epsilon": 0.4} for name in ("c = 1/4", "tuned")]
    frame = sweep(replace(experiment, grid=cells, summarise=None), tmp_path, seeds=1).frame
    assert frame.set_index("analysis")["value"].to_dict() == {"c = 1/4": 767443, "tuned": 524240}
