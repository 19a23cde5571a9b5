"""Results in one SQLite file: tidy rows, whole jobs only, the same table however often the run was interrupted."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import SeedSequence

from theoryrl.lab.experiment import Experiment
from theoryrl.mdp.randomness import as_seed_sequence
from theoryrl.mdp.writing import write_whole

DATABASE = "results.sqlite"
APPLICATION = 0x74726C31  # "trl1": tells our files from any other SQLite file

Row = tuple[int, str, float]  # step, metric, value

# A value has no declared type: a REAL column would store -0.0 as the integer 0. NULL is NaN (SQLite knows no NaN);
# every other float, the infinities included, is kept as its eight bytes.
SCHEMA = f"""
BEGIN;
PRAGMA application_id = {APPLICATION};
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE job (cell INTEGER, seed INTEGER, PRIMARY KEY (cell, seed)) WITHOUT ROWID;
CREATE TABLE measurement (cell INTEGER, seed INTEGER, step INTEGER, metric TEXT, value,
                          PRIMARY KEY (cell, seed, step, metric)) WITHOUT ROWID;
"""


class ResultsError(ValueError):
    """A results folder cannot be used: another experiment's, damaged, not writable, or on a full disk."""


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into one line that says what happened, and to which file."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "disk is full" in text:
            raise ResultsError(_full(path)) from error
        # Extended codes carry the primary one in their low byte; errors of the Python module itself have none.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise ResultsError(f"{path}: truncated, damaged or not a results file ({text})") from error
        raise ResultsError(f"{path}: {text}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResultsError(_full(path)) from error
        raise ResultsError(f"{error.filename or path}: {error.strerror or error}") from error


def _full(path: Path) -> str:
    return f"{path}: the disk is full; what was finished is kept: free some space and run again"


def write_text(path: Path, text: str) -> None:
    """Write a file so that at every moment it is either the old one or the whole new one, power loss included."""
    with reported(path):
        write_whole(path, lambda file: file.write(text.encode()))


def root_record(root: SeedSequence) -> dict[str, Any]:
    """A root seed as JSON values."""
    return {"entropy": np.asarray(root.entropy).tolist(), "spawn_key": list(root.spawn_key)}


class Store:
    """The results of one experiment in one folder; open it in a ``with`` statement, use it from one thread.

    A job is a pair (cell, seed). Its rows and its finished mark are written in one transaction, so a job counts wholly
    or not at all. ``kill -9`` loses nothing that was recorded: the operating system still has it. A power cut may undo
    the latest jobs (WAL with ``synchronous=NORMAL``) but does not damage the file; those jobs are computed again, from
    the same seeds, so the stronger ``FULL`` would buy nothing for its fsync per job.

    Parameters
    ----------
    experiment : Experiment
    out : path of the results folder; made when it is not there
    rng : int, SeedSequence or Generator
        The root seed; a folder belongs to one.

    Raises
    ------
    ResultsError
        If the folder holds another experiment's results, another root seed's, or a file that is truncated, damaged or
        foreign; if it cannot be written; if the disk is full.
    """

    def __init__(self, experiment: Experiment, out: str | os.PathLike[str], rng: Any = 0) -> None:
        self.experiment = experiment
        self.root = as_seed_sequence(rng)
        self.out = Path(out)
        self.path = self.out / DATABASE
        with reported(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        with reported(self.path):
            if not self.path.exists():
                self._create()
            self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        try:
            with reported(self.path):
                self._check()
                # Only now: the mode is a mark in the file, and a foreign file stays as it is.
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was recorded stays."""
        self._connection.close()

    def _about(self) -> dict[str, str]:
        rng = json.dumps(root_record(self.root))
        return {"digest": self.experiment.digest(), "rng": rng, **self.experiment.fingerprint()}

    def _create(self) -> None:
        # Made beside its place and moved there whole: a results file without its tables is always a damaged one.
        if self.path.with_name(DATABASE + "-wal").exists():
            raise ResultsError(f"{self.path}: missing, though its -wal file is there; restore it or use another folder")
        part = self.path.with_name(DATABASE + ".part")
        part.unlink(missing_ok=True)
        connection = sqlite3.connect(part, isolation_level=None)
        try:
            connection.executescript(SCHEMA)
            connection.executemany("INSERT INTO about VALUES (?, ?)", self._about().items())
            connection.execute("COMMIT")
        finally:
            connection.close()
        os.replace(part, self.path)

    def _check(self) -> None:
        if self._connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise ResultsError(f"{self.path}: truncated, damaged or not a results file of theoryrl")
        (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise ResultsError(f"{self.path}: truncated or damaged ({' '.join(verdict.split())})")
        there, here = dict(self._connection.execute("SELECT key, value FROM about")), self._about()
        differences = {
            "name": "holds the experiment {there!r}, not {here!r}",
            "theoryrl": "was made by theoryrl {there}, this is {here}",
            "grid": "belongs to the same experiment with another grid or other settings",
            "source": "belongs to an earlier text of the experiment's file",
            "digest": "belongs to another experiment",
            "rng": "was made with the root seed {there}, not {here}",
        }
        for key, text in differences.items():
            if there.get(key) != here[key]:
                what = text.format(there=there.get(key), here=here[key])
                raise ResultsError(f"{self.out}: this folder {what}; use another folder or delete this one")

    def finished(self, seeds: int | None = None) -> set[tuple[int, int]]:
        """The finished jobs (cell, seed), those with a seed below `seeds`; all by default."""
        with reported(self.path):
            return set(self._connection.execute("SELECT cell, seed FROM job WHERE seed < ?", (_limit(seeds),)))

    def record(self, cell: int, seed: int, rows: Iterable[Row]) -> None:
        """Record a job: its rows (step, metric, value) and its finished mark, all or nothing.

        A job that is recorded already stays as it is: another process on the same folder computed the same rows.

        Raises
        ------
        ResultsError
            If the rows cannot be written, on a full disk for one; the job then does not count.
        """
        values = [(cell, seed, step, metric, None if math.isnan(value) else value) for step, metric, value in rows]
        with reported(self.path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                if self._connection.execute("INSERT OR IGNORE INTO job VALUES (?, ?)", (cell, seed)).rowcount:
                    self._connection.executemany("INSERT INTO measurement VALUES (?, ?, ?, ?, ?)", values)
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back on a full disk.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, seeds: int | None) -> Iterator[tuple[int, int, int, str, float]]:
        # The primary key's order is the canonical one: cell, seed, step, metric (by code point).
        query = "SELECT * FROM measurement WHERE seed < ? ORDER BY cell, seed, step, metric"
        for cell, seed, step, metric, value in self._connection.execute(query, (_limit(seeds),)):
            yield cell, seed, step, metric, math.nan if value is None else value

    def table(self, seeds: int | None = None) -> Any:
        """The tidy table: one row per (cell, seed, step, metric), in that order, whatever order the jobs finished in.

        Parameters
        ----------
        seeds : int, optional
            Only the seeds below it; all by default.

        Returns
        -------
        pandas.DataFrame
            Columns ``cell`` (its index in the grid), one per parameter (missing where a cell has none), ``seed``,
            ``step``, ``metric``, ``value``.
        """
        import pandas as pd

        with reported(self.path):
            rows = list(self._rows(seeds))
        columns = [np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1, 2)]
        cells = [json.loads(text) for text in self.experiment.cells]
        data: dict[str, Any] = {"cell": columns[0]}
        for name in self.experiment.parameters:
            data[name] = pd.Series([cell.get(name) for cell in cells]).take(columns[0]).reset_index(drop=True)
        data |= {"seed": columns[1], "step": columns[2]}
        data |= {"metric": [row[3] for row in rows], "value": np.array([row[4] for row in rows], dtype=np.float64)}
        return pd.DataFrame(data)

    def export_csv(self, path: str | os.PathLike[str], seeds: int | None = None) -> None:
        """Write the table as CSV, whole or not at all; floats as Python's `repr`, from which they can be read exactly.

        The same finished jobs give the same bytes. Parameters are strings or JSON text, empty where a cell has none.

        Raises
        ------
        ResultsError
            If the file cannot be written.
        """
        parameters = self.experiment.parameters
        prefix = []
        for text in self.experiment.cells:
            cell = json.loads(text)
            prefix.append([_field(cell[name]) if name in cell else "" for name in parameters])
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["cell", *parameters, "seed", "step", "metric", "value"])
        with reported(self.path):
            for cell_index, seed, step, metric, value in self._rows(seeds):
                writer.writerow([cell_index, *prefix[cell_index], seed, step, metric, repr(value)])
        write_text(Path(path), buffer.getvalue())


def _limit(seeds: int | None) -> int:
    return 2**63 - 1 if seeds is None else seeds


def _field(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
