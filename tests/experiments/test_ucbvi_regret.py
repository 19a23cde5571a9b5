import json
import math
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.random import SeedSequence

from theoryrl.lab import load_experiment, sweep
from theoryrl.lab.sweep import measure_job
from theoryrl.mdp.planning import backward_induction
from theoryrl.online import UCBVI, Uniform, run
from theoryrl.theory.statistics import Slope

PATH = Path(__file__).resolve().parent.parent.parent / "experiments" / "online" / "ucbvi_regret.py"


@pytest.fixture(scope="module")
def experiment():
    return load_experiment(PATH)


@pytest.fixture(scope="module")
def code(experiment):
    """The names of the experiment's file."""
    return experiment.measure.__globals__


def shortened(experiment, episodes, **changes):
    cells = [json.loads(text) | {"episodes": episodes} for text in experiment.cells]
    return replace(experiment, grid=cells, **changes)


def axis_of(name):
    return name.split("/")[1]


def power(place, exponents):
    return 0.01 * np.prod([float(place[axis]) ** exponents[axis] for axis in "SAH"])


def synthetic(code, exponents, seeds=6):
    """A table in which mean regret is a product of powers of K, S, A, H at the middle gap, half of it at the others."""
    rng = np.random.default_rng(3)
    rows = []
    for index, cell in enumerate(code["grid"]()):
        marks = code["checkpoints"](cell["episodes"])
        at_worst = cell.get("epsilon", 0.0625) == 0.0625
        scale = power(cell, exponents) * marks ** exponents["K"] * (1.0 if at_worst else 0.5)
        for seed in range(seeds):
            values = scale * (1 + 0.01 * rng.random(len(marks)))
            for name in code["LEARNERS"]:
                fixed = {"cell": index, **cell, "seed": seed, "metric": f"regret.{name}"}
                rows += [fixed | {"step": k, "value": value} for k, value in zip(marks, values, strict=True)]
    return pd.DataFrame(rows)


def test_every_sweep_varies_one_thing_and_has_its_prediction(experiment, code):
    assert experiment.claim == "ucbvi.regret"
    assert {axis_of(name) for name in code["PLACES"]} == set("KSAH")
    for name, places in code["PLACES"].items():
        band, axis = experiment.predicted[name], axis_of(name)
        # Only the worst case over gaps has a lower bound on its exponent.
        assert (band["lower"] is None) == name.startswith("riverswim")
        assert 0 < (band["lower"] or band["upper"]) <= band["upper"]
        rest = [{key: value for key, value in place.items() if key not in (axis, "W")} for place in places]
        assert rest == [rest[0]] * len(places)
        if axis == "K":
            assert len(places) == 1
        else:
            values = [place[axis] for place in places]
            assert len(values) >= 4
            assert values == sorted(set(values))
    cells = [json.loads(text) for text in experiment.cells]
    assert {cell["epsilon"] for cell in cells if cell["model"] == "hard"} == set(code["GAPS"])
    models = [{key: value for key, value in cell.items() if key != "episodes"} for cell in cells]
    assert all(models.count(model) == 1 for model in models)


def test_the_models_are_the_ones_named(experiment, code):
    for text in experiment.cells:
        cell = json.loads(text)
        model = code["model_of"](cell)
        assert (model.n_states, model.n_actions, model.horizon) == (cell["S"], cell["A"], cell["H"])
        assert model.stationary == (cell["model"] == "riverswim")
        if cell["model"] == "hard":
            depth = code["levels"](cell)
            value = float(model.initial @ backward_induction(model).value[0])
            assert value == pytest.approx((0.5 + cell["epsilon"]) * (cell["H"] - cell["W"] - depth), abs=1e-12)


def stream_of(cell, number):
    """The SeedSequence that a sweep with root seed 0 gives to this job."""
    given = []

    def note(_, stream):
        given.append(stream)
        return {"nothing": 0.0}

    measure_job(note, cell, number, SeedSequence(0))
    return given[0]


def test_rows_are_those_of_a_direct_run_under_one_environment_stream(experiment, code, tmp_path):
    cells = [code["hard"](4, 2, 6, 2) | {"epsilon": 0.25, "episodes": 60}, code["river"](3) | {"episodes": 60}]
    small = replace(experiment, grid=cells, summarise=None)
    frame = sweep(small, tmp_path, seeds=2, jobs=2).frame
    marks = code["checkpoints"](60)
    assert len(frame) == 2 * 2 * 3 * len(marks)
    learners = {"hoeffding": UCBVI(0.05), "bernstein": UCBVI(0.05, bonus="bernstein"), "uniform": Uniform()}
    for (index, number), rows in frame.groupby(["cell", "seed"]):
        stream = stream_of(small.cells[index], number)
        for name, learner in learners.items():
            found = rows[rows["metric"] == f"regret.{name}"]
            direct = run(learner, code["model_of"](cells[index]), 60, rng=stream, checkpoints=marks)
            assert found["step"].tolist() == direct.checkpoints.tolist()
            assert found["value"].tolist() == direct.regret[0].tolist()
    # Else the comparison could not tell one stream from another.
    last = frame[(frame["cell"] == 1) & (frame["metric"] == "regret.hoeffding") & (frame["step"] == 60)]
    assert last["value"].nunique() == 2


def test_checkpoints_of_a_shorter_run_are_among_those_of_a_longer_one(code):
    short, long = code["checkpoints"](100_000), code["checkpoints"](1_000_000)
    assert set(short) <= set(long)
    assert (short[0], short[-1], long[-1]) == (1, 100_000, 1_000_000)
    assert code["checkpoints"](300).tolist()[-2:] == [178, 300]


def test_known_exponents_come_out_of_the_summary(code, tmp_path):
    exponents = {"K": 0.5, "S": 0.5, "A": 0.5, "H": 1.7}
    summary = code["summarise"](synthetic(code, exponents), tmp_path)
    for name, places in code["PLACES"].items():
        record, axis = summary[name]["hoeffding"], axis_of(name)
        assert record["interval"][0] <= record["slope"] <= record["interval"][1]
        assert record["slope"] == pytest.approx(exponents[axis], abs=0.01)
        if name.startswith("hard"):
            assert record["verdict"] == "within the band"
            assert set(record["worst_gap"]) == {0.0625}
            assert record["at_an_end_of_the_gaps"] == 0
        else:
            assert record["verdict"] == "agrees with the upper bound only"
        # The sweeps over S, A, H compare all their models after as many episodes as the shortest run has.
        episodes = record["x"] if axis == "K" else [100_000] * len(places)
        places = places * len(episodes) if axis == "K" else places
        for place, k, regret, ratio in zip(places, episodes, record["regret"], record["tightness"], strict=True):
            assert regret == pytest.approx(power(place, exponents) * math.sqrt(k), rel=0.02)
            assert ratio == pytest.approx(regret / float(code["bound_at"](place, "hoeffding", k)), rel=0.02)
    assert summary["theorem"]["above_the_bound"] == 0
    assert summary["hard/K"]["uniform"]["verdict"].startswith("below the band")
    assert summary["hard/S"]["uniform"]["verdict"] == "no prediction"


def test_regret_above_the_bound_is_counted(code, tmp_path):
    frame = synthetic(code, {"K": 0.5, "S": 0.0, "A": 0.0, "H": 0.0}, seeds=2)
    assert code["exceedances"](frame)["above_the_bound"] == 0
    bad = (frame["cell"] == 0) & (frame["seed"] == 1) & (frame["metric"] == "regret.bernstein")
    frame.loc[bad & (frame["step"] == 1000), "value"] = 6001.0  # K H = 6000 is the trivial bound
    frame.loc[(frame["cell"] == 1) & (frame["seed"] == 0) & (frame["step"] == 10), "value"] = math.nan
    assert code["exceedances"](frame)["above_the_bound"] == 3


def test_the_word_says_where_the_interval_lies(code):
    word, two_sided, one_sided = code["word"], {"lower": 0.5, "upper": 0.5}, {"lower": None, "upper": 0.5}
    assert word(Slope(0.5, 0.45, 0.55), two_sided, 5) == "within the band"
    assert word(Slope(0.5, 0.45, 0.55), one_sided, 5) == "agrees with the upper bound only"
    assert word(Slope(0.2, 0.1, 0.3), two_sided, 5) == "below the band: agrees with the upper bound only"
    assert word(Slope(-3.0, -4.0, -2.0), one_sided, 5) == "agrees with the upper bound only"
    assert word(Slope(0.7, 0.61, 0.8), two_sided, 5) == word(Slope(0.7, 0.61, 0.8), one_sided, 5) == "above the band"
    assert word(Slope(0.6, 0.5, 0.7), two_sided, 5) == "across an edge of the band"
    assert word(Slope(0.4, 0.3, 0.5), two_sided, 5) == "across an edge of the band"
    assert word(Slope(0.6, 0.5, 0.7), one_sided, 5) == "across an edge of the band"
    assert word(Slope(0.5, 0.5, 0.5), two_sided, 4) == "too few seeds, 5 at least"
    assert word(Slope(0.5, 0.5, 0.5), None, 9) == "no prediction"


def test_the_instance_rate_is_the_one_of_its_sizes(code):
    rate, hard = code["instance_rate"], code["hard"]
    assert rate(hard(4, 2, 6, 2)) == 3 * math.sqrt(3)
    assert rate(hard(18, 2, 12, 2)) == 6 * math.sqrt(31)
    assert math.isnan(rate(code["river"](6)))


def test_the_whole_grid_short_writes_the_summary_and_the_figure(experiment, code, tmp_path):
    result = sweep(shortened(experiment, 12), tmp_path, seeds=1)
    assert result.total == len(experiment.cells)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert set(written) == {*code["PLACES"], "theorem", "figure"}
    assert json.loads((tmp_path / "manifest.json").read_text())["predicted"] == code["PREDICTED"]
    assert (tmp_path / written["figure"]).read_bytes().startswith(b"\x89PNG")
    uniform = written["hard/K"]["uniform"]
    assert uniform["slope"] == pytest.approx(1.0, abs=1e-9)
    assert uniform["worst_gap"] == [max(code["GAPS"])] * len(uniform["x"])


KILLED = """
import json, os, signal, sys
from dataclasses import replace
from theoryrl.lab import load_experiment, sweep

experiment, out, last = load_experiment(sys.argv[1]), sys.argv[2], int(sys.argv[3])
cells = [json.loads(text) for text in experiment.cells]
small = [cell | {"episodes": cell["episodes"] // 100} for cell in cells]

def die(done, total, text):
    if done >= last:
        os.kill(os.getpid(), signal.SIGKILL)

sweep(replace(experiment, grid=small), out, seeds=1, jobs=2, progress=die)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_9_and_again_gives_the_same_table(experiment, tmp_path):
    def go(name, last):
        command = [sys.executable, "-c", KILLED, str(PATH), str(tmp_path / name), str(last)]
        return subprocess.run(command, capture_output=True).returncode

    total = len(experiment.cells)
    assert go("whole", total + 1) == 0
    assert go("cut", total // 2) == -signal.SIGKILL
    assert not (tmp_path / "cut" / "table.csv").exists()
    reader = sqlite3.connect(tmp_path / "cut" / "results.sqlite")
    assert reader.execute("SELECT count(*) FROM job").fetchone() == (total // 2,)
    reader.close()
    assert go("cut", total + 1) == 0
    for name in ("table.csv", "summary.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
