"""Fixtures of the tests of sampling and simulation."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import theoryrl._jit
from theoryrl.mdp import _kernels_sampling as kernels


@pytest.fixture
def plain(monkeypatch):
    """The sampling kernels as plain Python throughout, callees included."""
    monkeypatch.setattr(theoryrl._jit, "kernel", lambda order: lambda function: function)
    module = {"__name__": "plain_kernels"}
    exec(compile(Path(kernels.__file__).read_text(), kernels.__file__, "exec"), module)
    return SimpleNamespace(**module)
