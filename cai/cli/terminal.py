"""The streams that a command prints to, whatever they are: a terminal, a file, a pipe, nothing."""

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
    """Whoever read standard output has gone, as ``| head`` does."""


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Within it both standard streams exist and take any text, see ``evaluation/spelling.py``."""
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
    with contextlib.suppress(OSError, ValueError):  # it flushes what nobody takes any more
        stream.reconfigure(errors=errors)


def encoding() -> str:
    """The encoding of standard output, or UTF-8 where that is a text in memory."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def show(text: object) -> None:
    """Prints a result, to its end.

    Raises:
        NobodyReads, OSError: see :func:`finish`.
    """
    with _told():
        print(text)
    finish()


def finish() -> None:
    """Sees that all that was printed has arrived.

    Raises:
        NobodyReads: where whoever read the output has gone.
        OSError: if it cannot be written, for instance since the disk is full.
    """
    with _told():
        sys.stdout.flush()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """The two errors of standard output, which is given up then."""
    try:
        yield
    except BrokenPipeError:
        _discard()
        raise NobodyReads from None
    except (OSError, ValueError) as error:  # a full disk; closed by a user's file
        _discard()
        raise OSError(f"standard output: {getattr(error, 'strerror', error)}") from None


def note(text: object) -> None:
    """Prints a line of news where errors go; that nobody takes it is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):  # ValueError if a user's file has closed it
        print(text, file=sys.stderr, flush=True)


def _discard() -> None:
    """Lets the rest of standard output go nowhere, or the interpreter would complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
