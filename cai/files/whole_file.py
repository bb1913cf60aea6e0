"""Files that are written whole: a crash leaves the old content or the new one, never half of it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from cai import checks

try:
    import fcntl
except ImportError:  # on Windows, where an open file cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]


def write_whole(
    path: Path,
    write: Callable[[BinaryIO], object],
    check: Callable[[Path], None] | None = None,
) -> None:
    """Writes a file beside its place and then renames it, which replaces the previous content.

    Where the path is a symbolic link, the file that it leads to is replaced.

    Args:
        path: the path of the file.
        write: writes the content into an open file.
        check: called with the path of the unfinished file; what it raises leaves the old one.

    Raises:
        OSError: if the file cannot be written.
    """
    path = Path(os.path.realpath(path))
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    # Not a file of tempfile, which nobody but its owner could read once it has its name.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(unfinished, flags, mode=0o666)
    lock = os.dup(handle)
    try:
        _lock(lock)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise
    finally:
        os.close(lock)


def remove_unfinished(path: Path) -> None:
    """Removes what processes that were killed left behind when they wrote this file.

    The file of a running process is locked, and left alone.
    """
    path = Path(os.path.realpath(path))
    ours = re.compile(rf"\.{re.escape(path.name)}-[0-9a-f]{{16}}")
    for unfinished in path.parent.iterdir():
        if ours.fullmatch(unfinished.name) and unfinished.is_file():
            with contextlib.suppress(OSError), unfinished.open("rb") as file:
                _lock(file.fileno())
                unfinished.unlink()


def _lock(handle: int) -> None:
    """Raises OSError if another process holds the lock."""
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_path(name: str, path: Any, example: str) -> Path:
    """The path of a file that is to be written.

    Args:
        name: that of the argument, for messages.
        path: what was passed.
        example: a path such as one would give.

    Raises:
        ValueError: if it is not a path, or its folder does not exist or cannot be written into.
    """
    file = path_of(name, path, example)
    folder = file.absolute().parent
    if file.is_dir() or not folder.is_dir():
        came = "a folder" if file.is_dir() else f"one in {folder}, which does not exist"
        checks.refuse(name, "the path of a file", f"{path}: {came}", "make it first")
    if not os.access(folder, os.W_OK):
        checks.refuse(name, "a folder to write into", str(folder), "choose another one")
    return file


def path_of(name: str, path: Any, example: str) -> Path:
    """What was passed as a path.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(path, str | os.PathLike):
        checks.refuse(name, "the path of a file", repr(path), f'for instance "{example}"')
    if "\0" in os.fspath(path):
        checks.refuse(name, "the path of a file", repr(path), "a name holds no zeros")
    return Path(path)
