"""The files that a command writes into its folder, which is tried first: all of them or none."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from matplotlib.figure import Figure

from cai.cli import terminal
from cai.cli.failure import Mistake

if sys.platform != "win32":
    import fcntl

_PREFIX = ".unfinished-"
_ROOM = 2**20  # bytes, about the size of the figures of one comparison


@contextlib.contextmanager
def folder(out: Path) -> Iterator[None]:
    """A context that checks the output folder before the work starts, not after it.

    Raises:
        Mistake: if it cannot be written into.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(prepared(out))
        except OSError as error:
            words = f"{error.filename or out}: {error.strerror}" if error.strerror else error
            raise Mistake(f"--out: {words}; choose another folder") from None
        yield


def write(options: argparse.Namespace, figures: dict[str, Figure], texts: dict[str, str]) -> None:
    """Writes all files or none: they are finished beside the folder, then moved into it.

    Args:
        options: with ``out``, the folder, and ``quiet``.
        figures: name -> figure, written to name.png.
        texts: file name -> text.
    """
    out: Path = options.out
    with unfinished(out) as place:
        for name, figure in figures.items():
            figure.savefig(place / f"{name}.png", dpi=150)
        for name, text in texts.items():
            (place / name).write_text(text, encoding="utf-8")
        files = sorted(path.name for path in place.iterdir())
        check_names(out, files)
        for name in files:
            os.replace(place / name, out / name)
    if not options.quiet:
        for name in files:
            terminal.note(f"wrote {out / name}")


@contextlib.contextmanager
def prepared(out: Path) -> Iterator[None]:
    """A context in which the folder exists; folders made for it are removed if the work fails.

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


def announce(options: argparse.Namespace, names: Iterable[str]) -> None:
    """Says, before the work, which files of an earlier run will be replaced.

    Args:
        options: with ``out``, the folder, and ``quiet``.
        names: of the files to be written.

    Raises:
        IsADirectoryError: if a folder has the name of one of them.
    """
    out: Path = options.out
    check_names(out, names)
    there = sorted(name for name in names if (out / name).exists())
    if there and not options.quiet:
        terminal.note(
            f"{out} holds files of an earlier run, which this one replaces: {', '.join(there)}; "
            "to keep them choose another --out"
        )


def check_names(out: Path, names: Iterable[str]) -> None:
    """Raises IsADirectoryError where a folder has the name of a file to be written."""
    for name in names:
        if (out / name).is_dir():
            raise IsADirectoryError(f"{out / name} is a folder; choose another --out")


@contextlib.contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A temporary folder within ``out`` for unfinished files.

    Leftovers of killed runs are removed first. A running process holds a lock on its own folder,
    which tells it from leftovers.
    """
    out.mkdir(parents=True, exist_ok=True)  # another run, which had made it, may have failed
    with contextlib.ExitStack() as stack:
        with _lock(out) as alone:  # so that no other run sees our folder before it is locked
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
    """Whether the folder could be locked; the lock ends with this process at the latest."""
    if sys.platform == "win32":  # a folder cannot be locked there
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:  # another run holds it, or the file system has no locks
            locked = False
        yield locked
    finally:
        os.close(descriptor)
