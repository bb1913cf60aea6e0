"""The folder that a command writes into: tried before the work, and written all or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PREFIX = ".unfinished-"
_ROOM = 2**20  # bytes, about what the figures of one comparison take


@contextlib.contextmanager
def prepared(out: Path) -> Iterator[None]:
    """The folder exists within it; what was made for nothing is removed where the work fails.

    Args:
        out: the folder.

    Raises:
        OSError: if it cannot be made or written into, or there is no room, before the work.
    """
    made: list[Path] = []
    try:
        for folder in reversed((out, *out.parents)):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                made.append(folder)
            elif not folder.is_dir():
                raise NotADirectoryError(f"{folder} is a file, expected a folder to write into")
        with tempfile.TemporaryFile(dir=out) as trial:
            trial.write(bytes(_ROOM))
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another run may have put its files there
            for folder in reversed(made):
                folder.rmdir()
        raise


def check_names(out: Path, names: Iterable[str]) -> None:
    """Raises IsADirectoryError where a folder has the name of a file to be written."""
    for name in names:
        if (out / name).is_dir():
            raise IsADirectoryError(f"{out / name} is a folder; choose another --out")


@contextlib.contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder within ``out`` for files that are not finished; it is gone at the end.

    What runs that were killed have left is removed first. A run holds a lock on its own folder, as
    long as it lives, so that it is known from what was left.
    """
    out.mkdir(parents=True, exist_ok=True)  # another run, which had made it, may have failed
    with contextlib.ExitStack() as stack:
        with _lock(out) as alone:  # nobody sees a folder of ours that is not locked yet
            if alone:
                _remove_leftovers(out)
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=out, prefix=_PREFIX))
            stack.enter_context(_lock(Path(folder)))
        yield Path(folder)


def _remove_leftovers(out: Path) -> None:
    for left in out.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _lock(left, wait=False) as dead:
            if dead:
                shutil.rmtree(left)


@contextlib.contextmanager
def _lock(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Whether the folder was locked, which ends with this process at the latest."""
    if sys.platform == "win32":  # a folder cannot be locked there
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:  # it is alive, or its file system has no locks
            locked = False
        yield locked
    finally:
        os.close(descriptor)
