"""From a word on the command line to a model."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from theoryrl.mdp.model import DiscountedMDP, FiniteHorizonMDP


def split_assignments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Theorem keys and `key=value` arguments of a model, which may be mixed."""
    return [word for word in words if "=" not in word], [word for word in words if "=" in word]


def resolve(text: str, assignments: Sequence[str] = (), horizon: int | None = None) -> FiniteHorizonMDP | DiscountedMDP:
    """The model that `text` names: `gymnasium:ID`, a family of `theoryrl envs`, or a file.

    `text` itself may carry parameters, as in `"riverswim n_states=8"`.

    Raises
    ------
    ValueError
        If there is no such model; near names are suggested.
    """
    if os.path.exists(text):
        name, parameters = text, list(assignments)
    else:
        name, *inside = text.split() or [""]
        parameters = [*inside, *assignments]
    if name.startswith("gymnasium:"):
        from theoryrl.mdp.interop import from_gymnasium

        keywords = _keywords(parameters)
        if "horizon" in keywords:
            if horizon is not None:
                raise ValueError("the horizon is given twice")
            horizon = keywords.pop("horizon")
        if "env_or_id" in keywords:
            raise ValueError("gymnasium.make has no parameter 'env_or_id'")
        return from_gymnasium(name.removeprefix("gymnasium:"), horizon=horizon, **keywords)
    from theoryrl.envs import registry

    if name in registry.names():
        if horizon is not None:
            if any(parameter.startswith("horizon=") for parameter in parameters):
                raise ValueError("the horizon is given twice")
            parameters.append(f"horizon={horizon}")
        return registry.parse(name, parameters)
    if os.path.exists(name) or os.path.splitext(name)[1] in (".npz", ".tra"):
        if parameters:
            raise ValueError(f"{name} is a file; it takes no parameters ({parameters[0]})")
        from theoryrl.mdp.files import load_any

        return load_any(name, horizon=horizon)
    near = difflib.get_close_matches(name, registry.names(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `theoryrl envs`, or write gymnasium:ID"
    raise ValueError(f"there is no model {name!r}, and no such file; {hint}")


def _keywords(parameters: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments for gymnasium.make: JSON values, anything else as text."""
    keywords = {}
    for parameter in parameters:
        key, separator, value = parameter.partition("=")
        if not separator or not key.isidentifier():
            raise ValueError(f"{parameter!r} is not of the form key=value")
        if key in keywords:
            raise ValueError(f"{key} is given twice")
        try:
            keywords[key] = json.loads(value.lower() if value in ("True", "False") else value)
        except json.JSONDecodeError:
            keywords[key] = value
    return keywords


def show_envs(as_json: bool) -> int:
    """Print the registry of named models."""
    from theoryrl.envs.registry import describe
    from theoryrl.theory.report import json_safe

    rows = describe()
    if as_json:
        sys.stdout.write(json.dumps(json_safe(rows), indent=2) + "\n")
        return 0
    from rich.table import Table

    from theoryrl.cli.console import wide_console

    table = Table("name", "parameters", "source", box=None, pad_edge=False)
    for row in rows:
        parameters = " ".join(f"{key}={value}" for key, value in row["parameters"].items())
        table.add_row(row["name"], parameters, row["source"])
    wide_console().print(table)
    return 0
