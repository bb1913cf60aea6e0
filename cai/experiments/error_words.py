"""What went wrong in a cell, in words, with the line of the user's code where it was raised."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

_LONGEST = 1000  # characters of an error
_OURS = {"cai", "torch", "pyro", "numpy", "scipy", "gymnasium", "networkx", "matplotlib", "tqdm"}
_NOT_THEIRS = _OURS | {"joblib", "cloudpickle"} | sys.stdlib_module_names


class CellError(Exception):
    """An error whose message says all that there is to say, without the name of its class."""


def in_words(error: BaseException) -> str:
    """An error on one line: its class, its message, and the file and line that it is from.

    Of the file there is the name alone, so that the words are the same on every machine.
    """
    words = " ".join(str(error).split())
    if not isinstance(error, CellError):
        kind = type(error).__name__
        words = f"{kind}: {words}" if words else kind
    where = _place(error)
    if where is None or where in words:
        return words[:_LONGEST]
    return f"{words[: _LONGEST - len(where) - 3]} ({where})"


def _place(error: BaseException) -> str | None:
    """The innermost line of the user's code that the first cause of an error went through."""
    seen: set[int] = set()
    cause: BaseException | None = error
    found: str | None = None
    while cause is not None and id(cause) not in seen:  # the first cause is the last of them
        seen.add(id(cause))
        for frame, number in traceback.walk_tb(cause.__traceback__):
            file = frame.f_code.co_filename
            package = str(frame.f_globals.get("__name__")).partition(".")[0]
            if package not in _NOT_THEIRS and not file.startswith("<"):  # generated code
                found = f"{Path(file).name}, line {number}"
        cause = cause.__cause__ or cause.__context__
    return found
