"""Files that are whole or not there: whatever interrupts a write, nobody meets half of it."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_whole(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Call `write(file)` on a temporary neighbour of `path` and give it that name once it is complete on disk."""
    path = Path(path)
    if path.exists() and not path.is_file():
        # Taking the name of a device or a pipe would remove it.
        code = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(code, os.strerror(code) if path.is_dir() else "not a regular file", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt too must not leave the piece lying about
        temporary.unlink(missing_ok=True)
        # A write on a full disk does not say which file it was, and nobody knows the temporary name.
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
