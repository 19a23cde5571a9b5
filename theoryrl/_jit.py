"""How theoryrl compiles: one decorator, one floating-point decision per kernel, one cache per state of the sources."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import config as _numba_config

config: Any = _numba_config  # its attributes are made at run time
# Reassociation and contraction change the rounding only: NaN and infinity keep their meaning.
FASTMATH: dict[str, Any] = {"strict": False, "any-order": {"reassoc", "contract"}}
PACKAGE = Path(__file__).parent
KEEP_SECONDS = 30 * 24 * 3600


def source_digest() -> str:
    """Hash of every source file of the package, the Python, the numba and the numpy that compile it."""
    digest = hashlib.sha256(f"{numba.__version__}".encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_directory() -> Path:
    """Where compiled kernels are kept; numba misses a change in a callee, so the sources' hash is in the name."""
    root = os.environ.get("THEORYRL_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "theoryrl"
    )
    return Path(root) / f"kernels-{source_digest()}"


def _prepare(directory: Path) -> str:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.utime(directory)
        for sibling in directory.parent.glob("kernels-*"):
            if time.time() - sibling.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(sibling, ignore_errors=True)
    except OSError:
        return ""  # a read-only home, or none: nothing is kept
    return str(directory)


_DIRECTORY = "" if config.DISABLE_JIT else _prepare(cache_directory())
_OWN = secrets.token_hex(4)


def _name_files_apart(dispatcher: Any) -> Any:
    """Let no other process write to the files of machine code that this one writes.

    Numba numbers them by what the index holds when it is read: two processes that compile two signatures of a kernel at
    the same time would take the same number, and one of them load the code of the other under its own signature.
    """
    stored = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if stored is not None:
        stored._data_name_pattern = stored._data_name_pattern.replace("{number", f"{_OWN}.{{number")
    return dispatcher


def compiled(function: Callable, order: str, cache: bool = True, borrowed: bool = False) -> Any:
    """`function` compiled without the GIL; `order` as in `kernel`; `cache=False` for code from outside the package.

    `borrowed` leaves out the counting of references to arrays, which outlive the call anyhow: then nothing in it can
    allocate (numba refuses), and no kernel it calls may return an array, which would never be freed. To be called by
    compiled code alone: a Generator that Python hands over would not be freed either.
    """
    if config.DISABLE_JIT:
        return function
    previous = config.CACHE_DIR
    config.CACHE_DIR = _DIRECTORY or previous
    # Without a directory of ours numba would choose one that is blind to the sources' hash, or raise for lack of any.
    try:
        options: dict[str, Any] = {
            "cache": cache and bool(_DIRECTORY),
            "fastmath": FASTMATH[order],
            "_nrt": not borrowed,
        }
        return _name_files_apart(numba.njit(nogil=True, **options)(function))
    finally:
        config.CACHE_DIR = previous


def kernel(order: str) -> Callable[[Callable], Any]:
    """Decorate a kernel with its floating-point decision.

    `"strict"`: sums are taken in the order written. `"any-order"`: sums may be reassociated and contracted into fused
    multiply-adds (three to five times faster on dot products); every error bound of the library holds for any order.
    """
    if order not in FASTMATH:
        raise ValueError(f"a kernel's order is 'strict' or 'any-order', not {order!r}")
    return lambda function: compiled(function, order)


def plain(function: Any) -> Callable:
    """The plain-Python function behind a kernel (the kernel itself when compilation is disabled)."""
    return getattr(function, "py_func", function)
