"""The files that a command writes: figures and texts, all of them or none."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from cai.cli import output_folder, terminal
from cai.cli.failure import Mistake


@contextlib.contextmanager
def folder(out: Path) -> Iterator[None]:
    """A context that checks the output folder before the work starts, not after it.

    Raises:
        Mistake: if it cannot be written into.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(output_folder.prepared(out))
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
    with output_folder.unfinished(out) as unfinished:
        for name, figure in figures.items():
            figure.savefig(unfinished / f"{name}.png", dpi=150)
        for name, text in texts.items():
            (unfinished / name).write_text(text, encoding="utf-8")
        files = sorted(path.name for path in unfinished.iterdir())
        output_folder.check_names(out, files)
        for name in files:
            os.replace(unfinished / name, out / name)
    if not options.quiet:
        for name in files:
            terminal.note(f"wrote {out / name}")
