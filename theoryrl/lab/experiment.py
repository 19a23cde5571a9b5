"""An experiment is a value: a claim, a grid of cells, a measure, and what the theory predicts."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import CodeType
from typing import Any

from theoryrl import __version__
from theoryrl.mdp._checks import require_int

# Columns that every table has; a parameter cannot be called the same.
RESERVED = ("cell", "seed", "step", "metric", "value")


@dataclass(frozen=True)
class Experiment:
    """One question put to many cells: what to measure, where, how often, and what the theory says will come out.

    Parameters
    ----------
    name : str
        Short name; titles the progress line and the results folder.
    claim : str
        Registry key of the theorem that is put to the test, such as ``"ucbvi.regret"``.
    grid : mapping or sequence of dict
        A mapping from parameter to a sequence of JSON values stands for its cartesian product: parameters in the order
        written, the last one varying fastest. A sequence of dicts lists the cells themselves.
    measure : callable
        ``measure(cell, seed)`` takes a dict of parameters (its own copy) and a ``numpy.random.SeedSequence``; it
        returns a mapping from metric to a number, or to a pair ``(steps, values)`` of one-dimensional arrays of the
        same length (steps: distinct non-negative integers). A plain number stands at step 0. It runs on several
        threads at once, must draw all its randomness from `seed`, and must not change anything outside itself.
    seeds : int
        How many seeds each cell gets unless the call says otherwise; seeds are numbered from 0.
    predicted : dict
        What the theory predicts (a value or slope, and its tolerance); recorded with the results.
    summarise : callable, optional
        ``summarise(frame, out)`` is called once all jobs are done, with the table and the results folder (a ``Path``).
        It may write figures there; the dict it returns goes to ``summary.json``.
    settings : dict
        What else determines the results (episodes, presets); recorded with them.
    source : str
        Text of the file that defines the experiment. `load_experiment` fills it in; else the text of `measure` is taken
        where Python can find it.

    Raises
    ------
    ValueError
        If the grid is empty, repeats a cell or holds something that is not a JSON value (the entry is named), or a
        parameter has the name of one of the table's own columns.
    """

    name: str
    claim: str
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]
    measure: Callable[[dict[str, Any], Any], Mapping[str, Any]]
    seeds: int = 1
    predicted: Mapping[str, Any] = field(default_factory=dict)
    summarise: Callable[[Any, Path], Mapping[str, Any]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = field(default="", repr=False)
    #: Each cell as JSON text, in the order of the grid: what a store keeps and a job is derived from.
    cells: tuple[str, ...] = field(init=False, repr=False, compare=False)
    #: Names of the parameters, in the order in which they first occur.
    parameters: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for text, what in ((self.name, "name"), (self.claim, "claim")):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"the {what} of an experiment must be a non-empty string, not {text!r}")
        if not callable(self.measure):
            raise ValueError(f"measure must be callable, not {self.measure!r}")
        if self.summarise is not None and not callable(self.summarise):
            raise ValueError(f"summarise must be callable, not {self.summarise!r}")
        object.__setattr__(self, "seeds", require_int(self.seeds, 1, "seeds"))
        for record, what in ((self.predicted, "predicted"), (self.settings, "settings")):
            _as_json(dict(record), what)
        cells = _cells(self.grid)
        object.__setattr__(self, "parameters", tuple(dict.fromkeys(name for cell in cells for name in cell)))
        for name in self.parameters:
            if name in RESERVED:
                raise ValueError(f"the parameter {name!r} has the name of a column of the table; call it otherwise")
        texts = tuple(_as_json(cell, f"cell {index}") for index, cell in enumerate(cells))
        for index, text in enumerate(texts):
            if (first := texts.index(text)) != index:
                raise ValueError(f"cell {index} repeats cell {first}: {text}")
        object.__setattr__(self, "cells", texts)
        if not self.source:
            object.__setattr__(self, "source", _source_of(self.measure))

    def fingerprint(self) -> dict[str, str]:
        """Hashes of what determines the results: the name, the grid and settings, the source, theoryrl's version."""
        plan = json.dumps([self.parameters, self.cells, _as_json(dict(self.settings), "settings")])
        return {
            "name": self.name,
            "grid": hashlib.sha256(plan.encode()).hexdigest(),
            "source": hashlib.sha256(self.source.encode()).hexdigest(),
            "theoryrl": __version__,
        }

    def digest(self) -> str:
        """SHA-256 (hex) of the fingerprint: two experiments with one digest fill one table."""
        return hashlib.sha256(json.dumps(self.fingerprint()).encode()).hexdigest()


def one_line(error: BaseException) -> str:
    """An exception in one line: its type and its text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _as_json(value: Any, what: str) -> str:
    # Sorted keys: a cell is the same cell in whatever order its parameters are written.
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} is not made of JSON values (numbers, strings, lists, dicts): {error}") from None


def _cells(grid: Any) -> list[dict[str, Any]]:
    if isinstance(grid, Mapping):
        for name, values in grid.items():
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise ValueError(f"grid[{name!r}] must be a sequence of values, not {values!r}")
            if len(values) == 0:
                raise ValueError(f"grid[{name!r}] has no values")
            for index, value in enumerate(values):
                _as_json(value, f"grid[{name!r}][{index}] = {value!r}")
        cells = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    elif isinstance(grid, Sequence) and all(isinstance(cell, Mapping) for cell in grid):
        cells = [dict(cell) for cell in grid]
    else:
        raise ValueError(f"grid must be a mapping from parameter to values or a sequence of dicts, not {grid!r}")
    if not cells:
        raise ValueError("grid has no cells")
    for index, cell in enumerate(cells):
        for name in cell:
            if not isinstance(name, str):
                raise ValueError(f"cell {index}: a parameter's name is a string, not {name!r}")
    return cells


def _source_of(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or not a plain function
        return ""


class _Text(SourceFileLoader):
    """Compiles the text that was read, so the digest belongs to the code that runs (a .pyc can be a second stale)."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.text, self.path)


def load_experiment(path: str | os.PathLike[str]) -> Experiment:
    """The `EXPERIMENT` of a Python file; the file's code runs.

    Parameters
    ----------
    path : path of a Python file that assigns an `Experiment` to ``EXPERIMENT``

    Raises
    ------
    ValueError
        If there is no such file, it cannot be read, running it raises, or it has no ``EXPERIMENT``; the path is named.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; name a Python file that defines EXPERIMENT") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a Python file (it is not UTF-8 text)") from None
    full = str(path.resolve())
    name = f"theoryrl_experiment_{hashlib.sha256(full.encode()).hexdigest()[:12]}"
    spec = ModuleSpec(name, _Text(name, full, text), origin=full)
    spec.has_location = True
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and others look their module up by name
    try:
        module.__loader__.exec_module(module)  # type: ignore[union-attr]
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"{path}: running it raised {one_line(error)}") from error
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        what = "defines no EXPERIMENT" if experiment is None else f"EXPERIMENT is a {type(experiment).__name__}"
        raise ValueError(f"{path}: {what}; assign a theoryrl.lab.Experiment to it")
    return replace(experiment, source=text)
