import csv
import errno
import math
import os
import signal
import sqlite3
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theoryrl.lab import Experiment, ResultsError, Store, load_experiment
from theoryrl.lab.store import write_text


def measure(cell, seed):
    return {"x": 1.0}


EXPERIMENT = Experiment(name="toy", claim="toy.claim", grid={"S": [1, 2], "p": ["a,b", None]}, measure=measure)
ODD = [0.0, -0.0, 3.0, 0.1, 2.0**53 + 2, 5e-324, -1.7976931348623157e308, math.inf, -math.inf, math.nan]


def bits(values):
    return [struct.pack("<d", value) for value in values]


def refused(call, *words):
    """The one-line message of the ResultsError that `call` raises; it must contain every word."""
    with pytest.raises(ResultsError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
    return message


def fill(out, jobs=((0, 0), (1, 0), (2, 0), (3, 0)), length=3):
    with Store(EXPERIMENT, out) as store:
        for cell, seed in jobs:
            store.record(cell, seed, [(step, "x", cell + step / 7) for step in range(length)])
    return out / "results.sqlite"


def test_every_float_comes_back_to_the_bit(tmp_path):
    with Store(EXPERIMENT, tmp_path) as store:
        store.record(0, 0, [(step, "odd", value) for step, value in enumerate(ODD)])
    with Store(EXPERIMENT, tmp_path) as store:
        assert bits(store.table()["value"]) == bits(ODD)
        store.export_csv(tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        assert bits(float(row["value"]) for row in csv.DictReader(file)) == bits(ODD)


@given(values=st.lists(st.floats(allow_nan=False), max_size=20))
def test_any_floats_come_back_to_the_bit(tmp_path_factory, values):
    with Store(EXPERIMENT, tmp_path_factory.mktemp("store")) as store:
        store.record(3, 1, [(step, "x", value) for step, value in enumerate(values)])
        assert bits(store.table()["value"]) == bits(values)


def test_the_table_is_in_canonical_order_whatever_order_the_jobs_came_in(tmp_path):
    jobs = [(cell, seed) for cell in range(4) for seed in range(3)]
    rows = [(step, metric, float(step)) for step in (0, 1, 10, 2) for metric in ("b", "a")]
    written = []
    for name, order in (("forward", jobs), ("backward", jobs[::-1])):
        with Store(EXPERIMENT, tmp_path / name) as store:
            for job in order:
                store.record(*job, rows if name == "forward" else rows[::-1])
            frame = store.table()
            store.export_csv(tmp_path / f"{name}.csv")
        assert list(frame.columns) == ["cell", "S", "p", "seed", "step", "metric", "value"]
        keys = list(zip(frame["cell"], frame["seed"], frame["step"], frame["metric"], strict=True))
        assert keys == sorted((*job, step, metric) for job in jobs for step, metric, _ in rows)
        assert frame["S"].tolist() == [1 if cell < 2 else 2 for cell in frame["cell"]]
        written.append((tmp_path / f"{name}.csv").read_bytes())
    assert written[0] == written[1]
    lines = written[0].decode().split("\n")
    assert lines[:2] == ["cell,S,p,seed,step,metric,value", '0,1,"a,b",0,0,a,0.0']


def test_an_empty_store_gives_an_empty_table(tmp_path):
    with Store(EXPERIMENT, tmp_path) as store:
        assert store.finished() == set()
        assert len(store.table()) == 0


def test_seeds_select(tmp_path):
    with Store(EXPERIMENT, tmp_path) as store:
        for seed in range(4):
            store.record(0, seed, [(0, "x", float(seed))])
        assert store.finished(2) == {(0, 0), (0, 1)}
        assert store.table(2)["value"].tolist() == [0.0, 1.0]
        assert len(store.finished()) == len(store.table()) == 4


def test_a_job_counts_wholly_or_not_at_all(tmp_path):
    with Store(EXPERIMENT, tmp_path) as store:
        twice = [(0, "x", 1.0), (1, "x", 2.0), (0, "x", 3.0)]
        refused(lambda: store.record(0, 0, twice), "UNIQUE")
        assert store.finished() == set()
        assert len(store.table()) == 0
        store.record(0, 0, twice[:2])  # the store goes on
        assert store.finished() == {(0, 0)}


KILLED = """
import os, signal, sys
from theoryrl.lab import Store, load_experiment

with Store(load_experiment(sys.argv[1]), sys.argv[2]) as store:
    store.record(0, 0, [(0, "x", 1.0)])
    # SQLite reports a statement before it runs it: all rows and the mark are written, nothing is committed.
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    store._connection.set_trace_callback(lambda sql: die() if sql == sys.argv[3] else None)
    store.record(1, 0, [(step, "x", step / 7) for step in range(20_000)])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_a_job_killed_in_the_middle_of_its_transaction_does_not_count(tmp_path, statement):
    (tmp_path / "experiment.py").write_text(
        "from theoryrl.lab import Experiment\n"
        "EXPERIMENT = Experiment(name='toy', claim='toy.claim', grid={'S': [1, 2]}, measure=len)\n"
    )
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, tmp_path / "killed.py", tmp_path / "experiment.py", tmp_path / "out", statement]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    with Store(load_experiment(tmp_path / "experiment.py"), tmp_path / "out") as store:
        assert store.finished() == {(0, 0)}
        assert store.table()["value"].tolist() == [1.0]
        store.record(1, 0, [(0, "x", 2.0)])
        assert store.finished() == {(0, 0), (1, 0)}


def test_a_recorded_job_stays_as_it_is(tmp_path):
    with Store(EXPERIMENT, tmp_path) as store, Store(EXPERIMENT, tmp_path) as other:
        store.record(0, 0, [(0, "x", 1.0)])
        other.record(0, 0, [(0, "x", 2.0), (1, "x", 2.0)])
        assert store.table()["value"].tolist() == [1.0]


def test_a_full_disk_loses_the_job_and_nothing_else(tmp_path):
    with Store(EXPERIMENT, tmp_path) as store:
        store.record(0, 0, [(0, "x", 1.0)])
        store._connection.execute("PRAGMA max_page_count = 8")
        many = [(step, "x", step / 7) for step in range(20_000)]
        refused(lambda: store.record(1, 0, many), "the disk is full", tmp_path / "results.sqlite")
    with Store(EXPERIMENT, tmp_path) as store:
        assert store.finished() == {(0, 0)}
        assert store.table()["value"].tolist() == [1.0]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused(lambda: write_text(path, "new" * 10_000), "the disk is full", path)
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "other"}, "holds the experiment 'toy', not 'other'"),
        ({"grid": {"S": [1]}}, "another grid"),
        ({"settings": {"T": 5}}, "other settings"),
        ({"source": "pass"}, "an earlier text"),
    ],
)
def test_another_experiments_folder_is_refused(tmp_path, change, words):
    path = fill(tmp_path)
    before = path.read_bytes()
    other = Experiment(**dict(name="toy", claim="toy.claim", grid=EXPERIMENT.grid, measure=measure) | change)
    refused(lambda: Store(other, tmp_path), words, tmp_path)
    assert path.read_bytes() == before


def test_another_version_of_the_library_is_refused(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr("theoryrl.lab.experiment.__version__", "99.0")
    refused(lambda: Store(EXPERIMENT, tmp_path), "this is 99.0")


def test_another_root_seed_is_refused(tmp_path):
    fill(tmp_path)
    refused(lambda: Store(EXPERIMENT, tmp_path, rng=1), "root seed", tmp_path)
    refused(lambda: Store(EXPERIMENT, tmp_path, rng=np.random.SeedSequence(0).spawn(1)[0]), "root seed")
    with Store(EXPERIMENT, tmp_path, rng=np.random.SeedSequence(0)) as store:
        assert len(store.finished()) == 4
    large = np.random.SeedSequence([2**200, 7]).spawn(2)[1]
    for _ in range(2):
        with Store(EXPERIMENT, tmp_path / "large", rng=large) as store:
            store.record(0, 0, [])
    refused(lambda: Store(EXPERIMENT, tmp_path / "large", rng=np.random.SeedSequence([2**200, 7])), "root seed")


@pytest.mark.parametrize("kept", [0, 1, 50, 100, 4096, 4097, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = fill(tmp_path, length=400)
    size = path.stat().st_size
    assert size > 20_000
    os.truncate(path, kept if isinstance(kept, int) else int(kept * size))
    refused(lambda: Store(EXPERIMENT, tmp_path), path, "truncated")


def test_a_damaged_page_is_refused(tmp_path):
    path = fill(tmp_path, length=400)
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 4096)
    refused(lambda: Store(EXPERIMENT, tmp_path), path, "damaged")


def test_foreign_files_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "results.sqlite"
    path.write_text("a letter to a friend, long enough to be more than a header of one hundred bytes; " * 3)
    before = path.read_bytes()
    refused(lambda: Store(EXPERIMENT, tmp_path), path, "not a results file")
    assert path.read_bytes() == before
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE job (cell, seed)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    refused(lambda: Store(EXPERIMENT, tmp_path), path, "not a results file of theoryrl")
    assert path.read_bytes() == before


def test_a_write_ahead_log_without_its_file_is_refused(tmp_path):
    (tmp_path / "results.sqlite-wal").write_bytes(b"x" * 100)
    refused(lambda: Store(EXPERIMENT, tmp_path), tmp_path / "results.sqlite", "-wal")


def test_the_finished_part_can_be_read_while_a_run_writes(tmp_path):
    with Store(EXPERIMENT, tmp_path) as store:
        store.record(0, 0, [(0, "x", 1.0)])
        with Store(EXPERIMENT, tmp_path) as reader:
            reader._connection.execute("BEGIN")
            assert reader.finished() == {(0, 0)}
            store.record(1, 0, [(0, "x", 2.0)])  # without a write-ahead log this would wait for the reader
            assert len(reader.table()) == 1
            reader._connection.execute("COMMIT")
            assert len(reader.table()) == 2


def test_a_start_that_was_killed_is_started_again(tmp_path):
    (tmp_path / "results.sqlite.part").write_bytes(b"half a header")
    fill(tmp_path)
    assert not (tmp_path / "results.sqlite.part").exists()


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    refused(lambda: Store(EXPERIMENT, tmp_path / "file"), tmp_path / "file")
    refused(lambda: Store(EXPERIMENT, tmp_path / "file" / "below"), tmp_path / "file")


def test_a_folder_with_odd_characters(tmp_path):
    out = tmp_path / "a b%20?c#d é"
    fill(out)
    with Store(EXPERIMENT, out) as store:
        assert len(store.finished()) == 4
