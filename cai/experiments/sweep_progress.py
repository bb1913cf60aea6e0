"""How far a sweep has come: a bar on a terminal, or lines of text where that is asked for."""

from __future__ import annotations

import contextlib
import math
import sys
import time

from cai.progress.progress_bar import progress_bar

_BETWEEN_LINES = 10.0  # seconds

BAR, LINES = "bar", "lines"


class SweepProgress:
    """What is shown of a sweep on standard error while it runs.

    Args:
        total: its number of cells.
        done: how many were there before.
        shown: "bar" for a bar on a terminal or in a notebook, "lines" for that or else a line every
            ten seconds, None for nothing.
    """

    def __init__(self, total: int, done: int, shown: str | None) -> None:
        terminal = _on_terminal()
        self._total, self._done, self._first = total, done, done
        self._shown, self._lines = shown is not None, shown == LINES and not terminal
        self._begun = self._due = math.inf
        self._bar = progress_bar(
            total=total, initial=done, desc="sweep", unit="cell", shown=self._shown
        )
        if self._lines and done:
            self.say(f"sweep: goes on after {done} of {total} cells")

    def __enter__(self) -> SweepProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self) -> None:
        """Counts a cell that has ended."""
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        if self._begun == math.inf:  # processes have started, which says nothing about the cells
            self._first, self._begun, self._due = self._done, now, now + _BETWEEN_LINES
        if not self._lines or now < self._due:
            return
        self._due = now + _BETWEEN_LINES
        each = (now - self._begun) / (self._done - self._first)
        left = math.ceil((self._total - self._done) * each)
        self.say(f"sweep: {self._done} of {self._total} cells, about {left} s left")

    def say(self, text: str) -> None:
        """Prints a separate line to standard error, unless nothing is to be shown."""
        if not self._shown:
            return
        with contextlib.suppress(OSError, ValueError):  # a pipe or a file that was closed
            self._bar.write(text, file=sys.stderr)


def _on_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except ValueError:  # closed
        return False
