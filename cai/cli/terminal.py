"""The streams that a command prints to: a terminal, a file, a pipe, or nothing at all."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator

from cai.evaluation.spelling import spell_what_is_lacking

_SPELLING = "cai.evaluation.spelling"


class NobodyReads(Exception):
    """The reader of standard output has gone, as with ``| head``."""


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """A context in which both standard streams exist and accept any text."""
    codecs.register_error(_SPELLING, spell_what_is_lacking)
    with contextlib.ExitStack() as stack:
        if sys.stdout is None:  # closed by whoever started the process
            stack.enter_context(contextlib.redirect_stdout(_nowhere(stack)))
        if sys.stderr is None:
            stack.enter_context(contextlib.redirect_stderr(_nowhere(stack)))
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and not stream.closed:
                stack.callback(_set_errors, stream, stream.errors)
                stream.reconfigure(errors=_SPELLING)
        yield


def _nowhere(stack: contextlib.ExitStack) -> io.TextIOWrapper:
    return stack.enter_context(open(os.devnull, "w", encoding="utf-8"))


def _set_errors(stream: io.TextIOWrapper, errors: str | None) -> None:
    with contextlib.suppress(OSError, ValueError):  # it flushes, and the reader may have gone
        stream.reconfigure(errors=errors)


def encoding() -> str:
    """The encoding of standard output; UTF-8 if that is a text buffer in memory."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def show(text: object) -> None:
    """Prints a result and flushes it.

    Raises:
        NobodyReads, OSError: see :func:`finish`.
    """
    with _told():
        print(text)
    finish()


def finish() -> None:
    """Flushes standard output.

    Raises:
        NobodyReads: if the reader of the output has gone.
        OSError: if the output cannot be written, for instance because the disk is full.
    """
    with _told():
        sys.stdout.flush()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns failures of standard output into the two errors of :func:`finish`, and discards it."""
    try:
        yield
    except BrokenPipeError:
        _discard()
        raise NobodyReads from None
    except (OSError, ValueError) as error:  # a full disk; closed by a user's file
        _discard()
        raise OSError(f"standard output: {getattr(error, 'strerror', error)}") from None


def note(text: object) -> None:
    """Prints a line to standard error; a closed one is ignored."""
    with contextlib.suppress(OSError, ValueError):  # ValueError if a user's file has closed it
        print(text, file=sys.stderr, flush=True)


def _discard() -> None:
    """Discards the rest of standard output, so that the interpreter does not complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
