"""The registry: every `theorems` module of every room, found on first use."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Iterable

import theoryrl
from theoryrl.theory.theorem import Theorem


class UnknownTheorem(KeyError):
    """No such key or family; the message is one line and suggests the closest."""

    def __str__(self) -> str:
        return str(self.args[0])


def theorems(family: str | None = None) -> tuple[Theorem, ...]:
    """All theorems, or those of one family, room by room in the order in which each room lists them.

    Parameters
    ----------
    family : str, optional

    Raises
    ------
    UnknownTheorem
        A KeyError, if no theorem is of this family.
    """
    found = tuple(_registry().values())
    if family is None:
        return found
    chosen = tuple(theorem for theorem in found if theorem.family == family)
    if not chosen:
        raise UnknownTheorem(_suggest("family", family, {theorem.family for theorem in found}))
    return chosen


def get(key: str) -> Theorem:
    """The theorem of this key.

    Raises
    ------
    UnknownTheorem
        A KeyError, if there is none.
    """
    registry = _registry()
    if key not in registry:
        raise UnknownTheorem(_suggest("theorem", key, registry))
    return registry[key]


def collect(modules: Iterable[tuple[str, Iterable[Theorem]]]) -> dict[str, Theorem]:
    """One mapping from key to theorem out of (module name, its THEOREMS) pairs.

    Raises
    ------
    TypeError
        If an entry is not a Theorem.
    ValueError
        If two entries share a key.
    """
    found: dict[str, Theorem] = {}
    origin: dict[str, str] = {}
    for module, entries in modules:
        for entry in entries:
            if not isinstance(entry, Theorem):
                raise TypeError(f"{module}.THEOREMS holds a {type(entry).__name__}, not a Theorem")
            if entry.key in found:
                raise ValueError(f"{entry.key} is registered by {origin[entry.key]} and again by {module}")
            found[entry.key], origin[entry.key] = entry, module
    return found


@functools.cache
def _registry() -> dict[str, Theorem]:
    return collect((name, importlib.import_module(name).THEOREMS) for name in _modules())


def _modules() -> list[str]:
    """Names of the `theorems` modules, found on disk: rooms without one are not even imported."""
    names = []
    for room in pkgutil.iter_modules(theoryrl.__path__, "theoryrl."):
        spec = room.module_finder.find_spec(room.name, None) if room.ispkg else None
        inside = pkgutil.iter_modules(spec.submodule_search_locations or ()) if spec else ()
        if any(module.name == "theorems" for module in inside):
            names.append(f"{room.name}.theorems")
    return names


def _suggest(what: str, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return f"no {what} {name!r}; {hint}"
