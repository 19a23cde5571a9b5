"""The families by name, for the command line and for sweeps."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

from theoryrl.mdp.model import FiniteHorizonMDP

# Family -> module; the order is the order of `theoryrl envs`.
FAMILIES = {
    "chain": "chain",
    "strens_chain": "chain",
    "riverswim": "riverswim",
    "combination_lock": "lock",
    "deep_sea": "deep_sea",
    "binary_tree": "tree",
    "jao_two_state": "lower_bounds",
    "jao_copies": "lower_bounds",
    "hard_episodic": "lower_bounds",
    "garnet": "randoms",
    "random_dense": "randoms",
    "linear_mdp": "linear",
    "from_text_map": "grid",
    "four_rooms": "grid",
    "windy": "grid",
    "cliff": "grid",
    "block_mdp": "block",
    "exogenous": "block",
    "inventory": "operations",
    "machine_replacement": "operations",
    "queue_admission": "operations",
}


def names() -> list[str]:
    """Names of all families."""
    return list(FAMILIES)


def make(name: str, **params: Any) -> FiniteHorizonMDP:
    """The model of a family, `make("riverswim", n_states=8, horizon=20)`.

    Parameters
    ----------
    name : str
        One of `names()`.
    params
        Of the family (see `describe`); what is left out keeps its default.

    Raises
    ------
    ValueError
        Unknown name or parameter (the nearest one is suggested), or a value out of range.
    """
    function = _function(name)
    allowed = list(inspect.signature(function).parameters)
    for key in params:
        if key not in allowed:
            raise ValueError(f"{name} has no parameter {key!r}; {_suggest(key, allowed)}")
    result = function(**params)
    # Families with more to tell than the model (a decoder, features) return a record around it.
    return result if isinstance(result, FiniteHorizonMDP) else result.mdp


def parse(name: str, assignments: Iterable[str]) -> FiniteHorizonMDP:
    """The model of a family from text, `parse("riverswim", ["n_states=8", "horizon=20"])`.

    A value is read as the type of the parameter's default: an integer, a number, true or false, numbers separated by
    commas, or text.

    Raises
    ------
    ValueError
        Unknown name or parameter, a value of another type, a parameter given twice.
    """
    parameters = inspect.signature(_function(name)).parameters
    params: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} is not of the form parameter=value")
        if key not in parameters:
            raise ValueError(f"{name} has no parameter {key!r}; {_suggest(key, list(parameters))}")
        if key in params:
            raise ValueError(f"{name}: {key} is given twice")
        params[key] = _value(text, parameters[key].default, key)
    return make(name, **params)


def describe() -> list[dict[str, Any]]:
    """Every family as a dict: name, summary, parameters with their defaults, source, constants (known values)."""
    return [
        {
            "name": name,
            "summary": inspect.cleandoc(_function(name).__doc__ or "").split("\n")[0],
            "parameters": {k: p.default for k, p in inspect.signature(_function(name)).parameters.items()},
            "source": _section(_function(name), "References"),
            "constants": _section(_function(name), "Notes").removeprefix("Known constants: "),
        }
        for name in FAMILIES
    ]


def _function(name: str) -> Any:
    if name not in FAMILIES:
        raise ValueError(f"there is no environment {name!r}; {_suggest(name, names())}")
    return getattr(importlib.import_module(f"theoryrl.envs.{FAMILIES[name]}"), name)


def _suggest(word: Any, known: list[str]) -> str:
    near = difflib.get_close_matches(str(word), known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def _value(text: str, default: Any, key: str) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, int) or default is None:
            return int(text)
        if isinstance(default, float):
            return float(text)
        if isinstance(default, tuple):
            return tuple(float(part) for part in text.split(","))
    except (ValueError, KeyError):
        kinds = {bool: "true or false", float: "a number", tuple: "numbers separated by commas"}
        kind = kinds.get(type(default), "an integer")
        raise ValueError(f"{key} must be {kind}, not {text!r}") from None
    return text


def _section(function: Any, title: str) -> str:
    text = inspect.cleandoc(function.__doc__ or "")
    match = re.search(rf"^{title}\n-+\n(.*?)(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return " ".join(match[1].split()) if match else ""
