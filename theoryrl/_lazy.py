"""Lazy packages (PEP 562): a public name loads its module on first use, and `import theoryrl` stays near numpy."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


class _LazyPackage(ModuleType):
    """A package in which a public name wins over the submodule of the same name."""

    _exports: Mapping[str, str] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds every submodule on its package; `verify` must stay the function, not the file.
        if isinstance(value, ModuleType) and not self._exports.get(name, "=").startswith("="):
            return
        super().__setattr__(name, value)


def attach(package: str, exports: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, `__dir__` and `__all__` of a package whose public names live in submodules.

    Parameters
    ----------
    package : str
        The package's `__name__`.
    exports : mapping from public name to submodule
        `{"verify": "verify"}` makes `package.verify` the attribute `verify` of `package.verify`; a submodule written
        with a leading `=` (as in `"=online"`) exports the submodule itself.
    """
    this = sys.modules[package]
    this.__class__ = _LazyPackage
    this.__dict__["_exports"] = exports

    def get(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        source = exports[name]
        module = importlib.import_module(f"{package}.{source.removeprefix('=')}")
        value = module if source.startswith("=") else getattr(module, name)
        setattr(this, name, value)
        return value

    return get, lambda: sorted(exports), sorted(exports)


def above(module: str) -> Any:
    """A module of an upper floor, resolved at call time: only for methods that draw or tabulate their own object."""
    return importlib.import_module(f"theoryrl.{module}")
