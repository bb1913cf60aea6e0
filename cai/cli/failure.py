"""Error messages of failed commands, with the line of the user's file where it went wrong."""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from cai.cli import terminal


class Mistake(Exception):
    """A mistake in the arguments, which the user can correct."""


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """A context in which errors of reading a file begin with its name.

    Raises:
        Mistake: in place of a ValueError or a SyntaxError.
    """
    try:
        yield
    except (ValueError, SyntaxError) as error:
        raise Mistake(f"{file}: {str(error).removeprefix('path: ')}") from None


def program() -> str:
    """The name under which the command was called: ``cai`` or ``python -m cai``."""
    called = Path(next(iter(sys.argv), "")).stem
    return called if called == "control-as-inference" else "cai"


def fail(message: object, status: int) -> int:
    """Prints a message in one line, and returns the exit status."""
    terminal.note(f"{program()}: error: {' '.join(str(message).split())}")
    return status


def explain(error: BaseException, file: Path | None) -> str:
    """What went wrong in a run, with the line of the user's file where it began.

    Args:
        error: what was raised.
        file: that of the user's model, if it is from one.

    Raises:
        BaseException: the error itself, if it is a fault of this library.
    """
    where = file and place(error, file)
    own = isinstance(error, ValueError | OSError)  # their messages suffice
    memory = isinstance(error, MemoryError | OverflowError) or "allocate" in str(error)
    if not (own or memory or where):
        raise error  # a bug of ours, where the traceback helps
    theirs = file is not None and _raised_in(error, file)
    words = str(error) if own and not theirs else named(error)
    if memory and not own:
        words = f"the model is too large for this machine: {words}"
    return f"{where}: {words}" if where else words


def named(error: BaseException) -> str:
    """An error with its type; SystemExit holds a status, not a message."""
    if isinstance(error, SystemExit):
        return f"SystemExit: {error.code}; a model's code must not end the program"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def file_of(name: str) -> Path | None:
    """The Python file that a model is taken from; None if it is named otherwise."""
    file = re.fullmatch(r"(.+\.py)(:.*)?", name)
    return Path(file[1]) if file else None


def place(error: BaseException, file: Path) -> str | None:
    """Where in the user's file an error began, or None if it is from elsewhere."""
    cause: BaseException | None = error
    line: int | None = None
    while cause is not None:  # the first cause is the last of them
        line = _line(cause, file) or line
        cause = cause.__cause__ or cause.__context__
    return f"{file}, line {line}" if line else None


def _raised_in(error: BaseException, file: Path) -> bool:
    """Whether an error was raised by the code of a file itself, and not by what that called."""
    last = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1:]
    return any(Path(frame.f_code.co_filename).resolve() == file.resolve() for frame in last)


def _line(error: BaseException, file: Path) -> int | None:
    """The innermost line of a file that an error went through, if it went through it."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if Path(frame.f_code.co_filename).resolve() == file.resolve():
            line = number
    return line
