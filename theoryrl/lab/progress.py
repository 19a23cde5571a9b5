"""Progress on stderr with the time left: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

HEARTBEAT = 10.0  # seconds between lines where there is no terminal


class Ticker:
    """Shows how far a piece of work is; made by `progress`.

    Call it with what is done, ``tick(done)`` or ``tick(done, text)``. `callback` has the signature
    ``(done, total, text)`` that the library's long-running functions call.
    """

    def __init__(self, total: int | None, text: str) -> None:
        self.done, self.total, self.text = 0, total, text
        self._start = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, text: str | None = None) -> None:
        """Say that `done` units are done; a `text` replaces the line's title."""
        # What was done before the first call (a resumed run) tells nothing about the speed; going back is a new start.
        if self._first is None or done < self.done:
            self._first, self._start = done, time.monotonic()
        self.done, self.text = done, self.text if text is None else text
        self._show()

    def callback(self, done: int, total: int, text: str) -> None:
        """The same, for callers that also say the total: pass ``progress=tick.callback``."""
        self.total = total
        self(done, text)

    def left(self) -> float | None:
        """Seconds left at the speed so far; None as long as there is no telling."""
        if self.total is None or self._first is None or self.done <= self._first:
            return None
        elapsed = time.monotonic() - self._start
        return elapsed / (self.done - self._first) * max(self.total - self.done, 0)

    def line(self) -> str:
        """One line for a log: ``ucbvi-regret: 12/40, about 3 min left``."""
        count = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        left = self.left()
        estimate = f", about {duration(left)} left" if left else ""
        return (f"{self.text}: " if self.text else "") + count + estimate

    def _show(self) -> None:
        pass  # a log gets its lines from the clock


class _Bar(Ticker):
    def __init__(self, total: int | None, text: str, bar: Any) -> None:
        super().__init__(total, text)
        self._bar = bar
        self._task = bar.add_task(text, total=total, left="")

    def _show(self) -> None:
        left = self.left()
        estimate = f"about {duration(left)} left" if left else ""
        self._bar.update(self._task, description=self.text, total=self.total, completed=self.done, left=estimate)


def duration(seconds: float) -> str:
    """A length of time as a person says it: ``8 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def progress(total: int | None = None, text: str = "", stream: TextIO | None = None) -> Iterator[Ticker]:
    """Show progress while the ``with`` block runs.

    In a terminal this is a bar with the time left, which disappears at the end. Elsewhere nothing is written but one
    line every ten seconds, so that a log shows life even during one long job.

    Parameters
    ----------
    total : int, optional
        Units of work; may come later through `Ticker.callback`.
    text : str
        Title of the line.
    stream : text file, optional
        Where to; stderr by default.

    Yields
    ------
    Ticker
        ``tick(done, text)``, and ``tick.callback`` for ``progress=`` parameters.
    """
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        title, left = (TextColumn(field, markup=False) for field in ("{task.description}", "{task.fields[left]}"))
        console = Console(file=stream)
        with Progress(title, BarColumn(), MofNCompleteColumn(), left, console=console, transient=True) as bar:
            yield _Bar(total, text, bar)
        return
    tick, over = Ticker(total, text), threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            stream.write(tick.line() + "\n")
            stream.flush()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield tick
    finally:
        over.set()
        thread.join()
