"""Options that several commands have in common."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_estimation(parser: argparse.ArgumentParser) -> None:
    """How errors are estimated, a prior, and JSON."""
    parser.add_argument(
        "--cluster", metavar="COLUMN", help="who it was, for errors by groups: driver perhaps"
    )
    parser.add_argument(
        "--prior", type=float, metavar="SCALE", help="of a normal prior around 0 for each weight"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where files are written, and what is shown meanwhile."""
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="output folder (default: out)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes")


def names(text: str) -> list[str]:
    """a,b,c as a list of names that differ."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected names that differ, as a,b,c, got {text!r}")
    return names
