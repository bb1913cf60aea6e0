"""The loop of all training: when it ends, its progress bar, and its handling of interrupts."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

import torch

from cai import checks
from cai.inference.fitting.resumption import Checkpoint, Resumable
from cai.numerics.exclusive import exclusive
from cai.progress.callback import CallbackFailed
from cai.progress.progress_bar import progress_bar
from cai.tables.table import Table

_LOG = logging.getLogger("cai.fit")
_FIRST_LINE, _BETWEEN_LINES = 1.0, 10.0  # seconds


def train(run: Resumable, kept: Checkpoint | None, every: int, progress: bool) -> bool:
    """Steps a run until it is over, or Ctrl-C; returns whether no step was left half done.

    Args:
        run: the run, which is changed in place.
        kept: its checkpoint, from which it is resumed if the file exists; or None.
        every: the interval between checkpoints, in the unit of ``run.done``.
        progress: whether to show a bar on a terminal; see also :func:`in_lines`.

    Raises:
        FloatingPointError, ValueError: from a step.
    """
    resumed, interrupted = kept is not None and kept.load(run), False
    if resumed:
        _LOG.info("%s: resumed from its checkpoint after %d of %d", run.verb, run.done, run.total)
    lines = progress and _in_lines.get() and not _on_terminal()
    shown = _ProgressLines() if lines else _ProgressBar(run, progress)
    with shown as bar, _interruptible() as asked:
        if resumed and run.restarts and not (run.over() or _reading.get()):
            bar.say(f"{run.verb}: goes on after {run.done} of {run.total}; {run.restarts}")
        try:
            while not run.over() and not _reading.get():
                if asked.is_set():
                    interrupted = True
                    bar.say(f"{run.verb}: interrupted, returning {run.outcome} so far")
                    break
                before = run.done
                try:
                    run.step()
                except ValueError as error:  # of a callback, after a step that is complete
                    if kept and CallbackFailed in (type(error), type(error.__cause__)):
                        kept.keep(run)
                    raise
                if bar.shown:
                    bar.update(run)
                if kept is not None and run.done // every > before // every:
                    kept.keep(run)
        except KeyboardInterrupt:
            _LOG.info("%s: interrupted within a step, after %d", run.verb, run.done)
            bar.say(f"{run.verb}: interrupted within a step, returning {run.outcome} so far")
            return False
    if kept is not None and not _reading.get():
        kept.keep(run)
    if not _reading.get():
        why = "interrupted" if interrupted else _why_over(run)
        _LOG.info("%s: ended after %d of %d, %s", run.verb, run.done, run.total, why)
    return True


def _why_over(run: Resumable) -> str:
    """Why a run is over, for the log."""
    if getattr(run, "stopped", False):
        return "by its callback"
    return "all of them" if run.done >= run.total else "as nothing more was to be gained"


_reading: ContextVar[bool] = ContextVar("reading", default=False)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """A context in which runs are restored from their files, and take no further step."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


_in_lines: ContextVar[bool] = ContextVar("in_lines", default=False)


@contextlib.contextmanager
def in_lines() -> Iterator[None]:
    """A context in which runs report their progress where standard error is no terminal as well.

    There it is a line of text every ten seconds; if a run will take longer than that, the first one
    comes after a second and says so.
    """
    token = _in_lines.set(True)
    try:
        yield
    finally:
        _in_lines.reset(token)


def check_device(device: Any) -> torch.device:
    """The device to train on.

    Raises:
        ValueError: if there is no such device.
    """
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, TypeError, AssertionError, ValueError) as error:
        words = str(error).split("\n")[0]
        _refuse_device(device, words)
    if place.type not in ("cpu", "cuda"):
        _refuse_device(device, "other devices lack float64, which this needs")
    return place


def _refuse_device(device: Any, words: str) -> NoReturn:
    checks.refuse("device", '"cpu", or "cuda" where there is one', repr(device), words)


@contextlib.contextmanager
def seeded(seed: int, place: torch.device, table: Table | None) -> Iterator[None]:
    """A context for training: seeded generators, a suitable number of threads, the device.

    Other threads that sample wait until it ends.
    """
    devices = [place] if place.type == "cuda" else []
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive())
        stack.enter_context(torch.random.fork_rng(devices=devices))
        torch.manual_seed(seed)
        if table is not None:
            stack.enter_context(table.threads())
        if place.type != "cpu":  # setting a default device slows every call of torch
            stack.enter_context(place)
        yield


def _on_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except ValueError:  # closed
        return False


class _ProgressBar:
    """How far a run has come and what it says of itself, on a terminal."""

    def __init__(self, run: Resumable, shown: bool) -> None:
        self._bar = progress_bar(
            total=run.total, initial=run.done, desc=run.verb, unit="step", shown=shown
        )
        self.shown = not self._bar.disable

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, run: Resumable) -> None:
        """Shows one more step."""
        self._bar.set_postfix_str(run.shown(), refresh=False)
        self._bar.update(min(run.done, run.total) - self._bar.n)

    def say(self, text: str) -> None:
        """Prints a separate line to standard error."""
        self._bar.write(text, file=sys.stderr)


class _ProgressLines:
    """The same in lines of text, for a file or a pipe."""

    shown = True

    def __init__(self) -> None:
        self._first: int | None = None
        self._begun = self._due = math.inf

    def __enter__(self) -> _ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open that would have to be closed."""

    def update(self, run: Resumable) -> None:
        """Prints a line if one is due; time counts from the end of the first step.

        That step loads packages, and says nothing about the others.
        """
        now = time.monotonic()
        if self._first is None:
            self._first, self._begun, self._due = run.done, now, now + _FIRST_LINE
        if now < self._due or run.done == self._first:
            return
        first, self._due = self._due == self._begun + _FIRST_LINE, now + _BETWEEN_LINES
        left = (run.total - run.done) * (now - self._begun) / (run.done - self._first)
        if first and left < _BETWEEN_LINES:
            return  # it will soon be over
        said = ", ".join(filter(None, [f"at most {math.ceil(left)} s left", run.shown()]))
        self.say(f"{run.verb}: {run.done} of {run.total}, {said}")

    def say(self, text: str) -> None:
        """Prints a line to standard error."""
        with contextlib.suppress(OSError, ValueError):  # a pipe or a file that was closed
            print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the current step is completed; a second one interrupts it.

    In another thread, or under a handler that is not Python's, the event is never set.
    """
    asked, before = threading.Event(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield asked
        return

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
