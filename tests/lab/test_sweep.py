import json
import math
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from theoryrl.lab import Experiment, ResultsError, Store, sweep
from theoryrl.lab.sweep import measure_job


def measure(cell, seed):
    rng = np.random.default_rng(seed)
    steps = np.arange(1, 6)
    return {"end": rng.normal(), "path": (steps, cell["S"] * rng.normal(size=5))}


def make(function=measure, grid=None, **changes):
    grid = {"S": [1, 2, 3], "kind": ["a", "b"]} if grid is None else grid
    return Experiment(**dict(name="toy", claim="toy.claim", grid=grid, measure=function, seeds=3) | changes)


def table(out):
    return (Path(out) / "table.csv").read_bytes()


def test_one_row_per_cell_seed_step_metric(tmp_path):
    result = sweep(make(), tmp_path / "new" / "folder")
    assert (result.finished, result.total) == (18, 18)
    assert len(result.frame) == 18 * 6
    for (cell, seed), rows in result.frame.groupby(["cell", "seed"]):
        job = measure_job(measure, make().cells[cell], seed, np.random.SeedSequence(0))
        expected = {(metric, step): value for step, metric, value in job}
        assert dict(zip(zip(rows["metric"], rows["step"], strict=True), rows["value"], strict=True)) == expected
    assert result.frame["value"].nunique() == len(result.frame)  # no two jobs share a stream
    assert result.summary == {}
    assert not (result.out / "summary.json").exists()


def test_the_number_of_workers_changes_nothing(tmp_path):
    for jobs in (1, 2, 7):
        sweep(make(), tmp_path / str(jobs), jobs=jobs)
    assert table(tmp_path / "1") == table(tmp_path / "2") == table(tmp_path / "7")


def test_a_cell_keeps_its_numbers_in_another_grid(tmp_path):
    small = sweep(make(grid={"S": [3]}), tmp_path / "small").frame
    large = sweep(make(grid=[{"S": 9, "x": 1}, {"S": 3}]), tmp_path / "large").frame
    assert small["value"].tolist() == large.loc[large["cell"] == 1, "value"].tolist()


def test_the_root_seed_decides(tmp_path):
    tables = []
    sequence = np.random.SeedSequence(5)
    for name, rng in (("int", 5), ("sequence", sequence), ("other", 6), ("child", sequence.spawn(1)[0])):
        sweep(make(), tmp_path / name, rng=rng)
        tables.append(table(tmp_path / name))
    assert tables[0] == tables[1]
    assert len(set(tables)) == 3


def test_a_measure_gets_its_own_cell(tmp_path):
    def spoil(cell, seed):
        cell["list"].append(1)
        return {"length": len(cell["list"])}

    result = sweep(make(spoil, grid={"list": [[], [5, 5]]}), tmp_path)
    assert result.frame["value"].tolist() == [1.0] * 3 + [3.0] * 3


def test_more_seeds_extend_and_fewer_select(tmp_path):
    sweep(make(), tmp_path / "whole", seeds=5)
    first = sweep(make(), tmp_path / "grown", seeds=2)
    second = sweep(make(), tmp_path / "grown", seeds=5)
    assert (first.finished, first.total, second.finished, second.total) == (12, 12, 18, 30)
    assert table(tmp_path / "grown") == table(tmp_path / "whole")
    sweep(make(), tmp_path / "small", seeds=2)
    third = sweep(make(), tmp_path / "grown", seeds=2)
    assert table(tmp_path / "grown") == table(tmp_path / "small") != table(tmp_path / "whole")
    assert (third.finished, third.total) == (0, 12)
    assert third.frame.equals(first.frame)
    assert set(third.frame["seed"]) == {0, 1}
    assert sweep(make(), tmp_path / "grown", seeds=5).finished == 0  # the others were kept


def test_not_a_number_and_infinity_come_through(tmp_path):
    def odd(cell, seed):
        return {"x": ([0, 1, 2, 3], [math.nan, math.inf, -math.inf, -0.0]), "flag": np.True_, "count": np.int64(3)}

    frame = sweep(make(odd, grid={"S": [1]}, seeds=1), tmp_path).frame
    values = dict(zip(zip(frame["metric"], frame["step"], strict=True), frame["value"], strict=True))
    assert math.isnan(values["x", 0])
    assert values["x", 1] == math.inf
    assert values["x", 2] == -math.inf
    assert math.copysign(1, values["x", 3]) == -1
    assert (values["flag", 0], values["count", 0]) == (1.0, 3.0)


def fails_at_two(cell, seed):
    if cell["S"] == 2 and seed.spawn_key[-1] >= 1:
        raise ZeroDivisionError("S - 2\nis zero")
    return measure(cell, seed)


def test_a_failing_measure_is_named_and_the_others_are_kept(tmp_path):
    experiment = make(fails_at_two)
    with pytest.raises(ValueError) as caught:
        sweep(experiment, tmp_path)
    message = str(caught.value)
    assert message.startswith("toy: cell 2 (S = 2, kind = 'a'), seed 1: ZeroDivisionError: S - 2 is zero (4 of 18 jobs")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with Store(experiment, tmp_path) as store:
        failed = {(cell, seed) for cell in (2, 3) for seed in (1, 2)}
        assert store.finished() == {(cell, seed) for cell in range(6) for seed in range(3)} - failed
        assert {tuple(job) for job in store.table()[["cell", "seed"]].to_numpy()} == store.finished()


def test_the_first_failing_job_is_named_whichever_failed_first(tmp_path):
    second_failed = threading.Event()

    def fail(cell, seed):
        if cell["S"] == 1:
            assert second_failed.wait(60)
        else:
            second_failed.set()
        raise KeyError(cell["S"])

    with pytest.raises(ValueError, match=r"cell 0 \(S = 1\), seed 0: KeyError: 1 \(2 of 2 jobs failed"):
        sweep(make(fail, grid={"S": [1, 2]}, seeds=1), tmp_path, jobs=2)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (None, "must return a mapping"),
        ({}, "must return a mapping"),
        ({3: 1.0}, "name of a metric"),
        ({"x": "1.0"}, "x must be a number"),
        ({"x": None}, "x must be a number"),
        ({"x": 1j}, "x must be a number"),
        ({"x": [1.0, 2.0]}, "x must be a number"),
        ({"x": np.zeros(3)}, "x must be a number"),
        ({"x": (1, 2, 3)}, "not 3 things"),
        ({"x": ([1, 2], [1.0])}, r"steps of shape \(2,\)"),
        ({"x": ([1, 1], [1.0, 2.0])}, "steps of x must be distinct"),
        ({"x": ([-1], [1.0])}, "steps of x must be distinct non-negative"),
        ({"x": ([0.5], [1.0])}, "integers"),
        ({"x": (np.array([2**63], dtype=np.uint64), [1.0])}, "integers"),
    ],
)
def test_what_is_no_measurement_is_refused(tmp_path, measured, message):
    with pytest.raises(ValueError, match=rf"toy: cell 0 \(S = 1\), seed 0: ValueError: .*{message}"):
        sweep(make(lambda cell, seed: measured, grid={"S": [1]}), tmp_path)


@pytest.mark.parametrize("arguments", [{"seeds": 0}, {"jobs": 0}, {"seeds": 1.5}, {"rng": -1}, {"rng": None}])
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        sweep(make(), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_progress_counts_what_was_there(tmp_path):
    calls = []
    sweep(make(), tmp_path, seeds=1)
    sweep(make(), tmp_path, seeds=2, progress=lambda *call: calls.append(call))
    assert calls == [(done, 12, "toy") for done in range(6, 13)]


def test_the_manifest_says_who_computed_and_stays_out_of_the_table(tmp_path):
    experiment = make(predicted={"slope": 0.5}, settings={"episodes": 10})
    sweep(experiment, tmp_path, seeds=1, rng=3)
    sweep(experiment, tmp_path, seeds=2, rng=3)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["digest"] == experiment.digest()
    assert (manifest["predicted"], manifest["settings"]) == ({"slope": 0.5}, {"episodes": 10})
    assert [run["seeds"] for run in manifest["runs"]] == [1, 2]
    assert manifest["runs"][0]["numpy"] == np.__version__
    assert manifest["runs"][0]["rng"] == {"entropy": 3, "spawn_key": []}
    (tmp_path / "manifest.json").write_text('{"runs": ')
    with pytest.raises(ResultsError, match=r"manifest.json: truncated"):
        sweep(experiment, tmp_path, rng=3)


def test_the_summary_is_plain_json(tmp_path):
    def summarise(frame, out):
        (out / "note.txt").write_text(str(len(frame)))
        return {"mean": np.float64(0.5), "bounds": np.array([1.0, np.inf]), "bad": float("nan"), "n": (np.int64(3),)}

    result = sweep(make(summarise=summarise), tmp_path)
    assert result.summary == {"mean": 0.5, "bounds": [1.0, "inf"], "bad": "nan", "n": [3]}
    assert json.loads((tmp_path / "summary.json").read_text()) == result.summary
    assert (tmp_path / "note.txt").read_text() == "108"


def test_a_failing_summary_is_named_and_the_table_kept(tmp_path):
    with pytest.raises(ValueError, match="summarise raised KeyError: 'no such column'; the table is kept in"):
        sweep(make(summarise=lambda frame, out: frame["no such column"]), tmp_path)
    assert table(tmp_path).count(b"\n") == 109


def test_a_full_disk_stops_the_sweep_and_keeps_what_is_finished(tmp_path, monkeypatch):
    sweep(make(), tmp_path / "whole")
    record, calls = Store.record, []

    def full(self, cell, seed, rows):
        calls.append((cell, seed))
        if len(calls) == 5:
            self._connection.execute("PRAGMA max_page_count = 1")  # SQLite keeps it at the present size
            rows = rows + [(step, "big", 0.0) for step in range(50_000)]
        record(self, cell, seed, rows)

    monkeypatch.setattr(Store, "record", full)
    with pytest.raises(ResultsError, match="the disk is full"):
        sweep(make(), tmp_path / "full", jobs=2)
    monkeypatch.undo()
    with Store(make(), tmp_path / "full") as store:
        assert store.finished() == set(calls[:4])
    assert sweep(make(), tmp_path / "full").finished == 14
    assert table(tmp_path / "full") == table(tmp_path / "whole")


def test_the_text_of_a_full_disk_is_enough(tmp_path, monkeypatch):
    def full(self, cell, seed, rows):
        from theoryrl.lab.store import reported

        with reported(self.path):
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "record", full)
    with pytest.raises(ResultsError, match=r"results.sqlite: the disk is full"):
        sweep(make(), tmp_path)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs pthread_kill")
def test_control_c_stops_and_nothing_half_written_counts(tmp_path):
    ran, stopped = [], threading.Event()

    def interrupt(cell, seed):
        ran.append(cell)
        if len(ran) == 6:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            stopped.wait(60)
        return measure(cell, seed)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep(make(interrupt, source="x"), tmp_path / "cut", jobs=1)
    finally:
        signal.signal(signal.SIGINT, previous)
        stopped.set()
    for thread in threading.enumerate():
        if thread.name.startswith("theoryrl-lab"):
            thread.join()
    assert len(ran) == 6  # the job that was running ended; the one that waited never started
    with Store(make(source="x"), tmp_path / "cut") as store:
        finished = store.finished()
        assert len(finished) in (4, 5)
        assert len(store.table()) == 6 * len(finished)
    assert sweep(make(source="x"), tmp_path / "cut").finished == 18 - len(finished)
    sweep(make(source="x"), tmp_path / "whole")
    assert table(tmp_path / "cut") == table(tmp_path / "whole")


FILE = """
import os, signal, sys, time
import numpy as np
from theoryrl.lab import Experiment, load_experiment, sweep

def measure(cell, seed):
    rng = np.random.default_rng(seed)
    time.sleep(0.02)
    return {"path": (np.arange(50), rng.normal(size=50)), "odd": float("nan")}

EXPERIMENT = Experiment(name="slow", claim="toy.claim", grid={"S": list(range(10))}, measure=measure, seeds=4)
if __name__ == "__main__":
    out, last = sys.argv[1], int(sys.argv[2])

    def die(done, total, text):
        if done >= last:  # other jobs are running now
            os.kill(os.getpid(), signal.SIGKILL)

    sweep(load_experiment(__file__), out, jobs=3, progress=die)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_9_and_again_gives_the_same_table(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text(FILE)

    def run(name, last):
        return subprocess.run([sys.executable, str(file), str(tmp_path / name), str(last)]).returncode

    assert run("whole", 41) == 0
    for last in (3, 17, 29):
        assert run("cut", last) == -signal.SIGKILL
        assert not (tmp_path / "cut" / "table.csv").exists()
        reader = sqlite3.connect(tmp_path / "cut" / "results.sqlite")
        done = set(reader.execute("SELECT cell, seed FROM job"))
        rows = dict(reader.execute("SELECT cell * 1000 + seed, count(*) FROM measurement GROUP BY cell, seed"))
        reader.close()
        assert len(done) == last
        assert rows == {cell * 1000 + seed: 51 for cell, seed in done}
    assert run("cut", 41) == 0
    assert table(tmp_path / "cut") == table(tmp_path / "whole")
    assert table(tmp_path / "cut").count(b"\n") == 40 * 51 + 1
