"""``--save FILE``: a result is kept for later by ``cai.save``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cai
from cai.cli import terminal
from cai.cli.failure import Mistake


def add_save(parser: argparse.ArgumentParser, what: str) -> None:
    """The option."""
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help=f"keep {what} in a file that cai.load reads"
    )


def check_save(options: argparse.Namespace) -> None:
    """Raises Mistake, before the work, if what is asked for cannot be saved."""
    path: Path | None = options.save
    if path is None:
        return
    if getattr(cai, "save", None) is None:
        raise Mistake("--save: this version of the library saves no results; leave it out")
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise Mistake(f"--save: {path}: expected a file in a folder that exists")


def save(options: argparse.Namespace, thing: Any) -> None:
    """Saves a thing where the option says."""
    path: Path | None = options.save
    if path is None:
        return
    getattr(cai, "save")(thing, path)  # noqa: B009 (as above)
    if not options.quiet:
        terminal.note(f"wrote {path}")
