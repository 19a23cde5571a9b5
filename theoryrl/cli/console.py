"""Tables on stdout that are not squeezed to 80 columns where there is no terminal."""

from __future__ import annotations

import sys

from rich.console import Console

PLAIN_WIDTH = 150


def wide_console() -> Console:
    """A console as wide as the terminal, or 150 columns when stdout is a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
