"""Options that several commands have in common, and a parser that guesses what was misspelt."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

STATUS = """\
exit status:
  0 success, 1 the run failed, 2 wrong arguments, 130 interrupted,
  141 the reader of a pipe has gone"""


class Parser(argparse.ArgumentParser):
    """A parser whose messages about unknown commands and options name the nearest known one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._known: list[str] = []
        super().__init__(*arguments, **options)

    def add_argument(self, *flags: Any, **options: Any) -> argparse.Action:
        """As argparse has it; the flags are remembered."""
        self._known += [flag for flag in flags if flag.startswith("--")]
        return super().add_argument(*flags, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it, but that arguments which a command does not know end it here."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [x.partition("=")[0] for x in unknown if x.startswith("-")]
            guesses = [nearest(option, self._known) for option in options]
            guess = next((guess for guess in guesses if guess), "")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{guess}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Prints a message and leaves with status 2."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        if choice:
            message += nearest(choice[1], re.findall(r"[\w-]+", choice[2]))
        super().error(message)


def nearest(name: str, known: Iterable[str]) -> str:
    """A question after the nearest known name, whatever its case and the dashes before it."""
    spelt = {x.lower().lstrip("-"): x for x in known}
    close = difflib.get_close_matches(name.lower().lstrip("-"), spelt, 1)
    return f"; did you mean {spelt[close[0]]}?" if close else ""


def add_estimation(parser: argparse.ArgumentParser) -> None:
    """How errors are estimated, a prior, and JSON."""
    parser.add_argument(
        "--cluster", metavar="COLUMN", help="who it was, for errors by groups: driver perhaps"
    )
    parser.add_argument(
        "--prior", type=float, metavar="SCALE", help="of a normal prior around 0 for each weight"
    )
    add_json(parser, "a table")


def add_json(parser: argparse.ArgumentParser, instead: str) -> None:
    """Whether JSON is printed instead of something."""
    parser.add_argument(
        "-j", "--json", action="store_true", help=f"print JSON instead of {instead}"
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where files are written, and what is shown meanwhile."""
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("out"),
        metavar="DIR",
        help="output folder (default: out)",
    )
    add_quiet(parser)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Whether anything but the result is shown."""
    parser.add_argument("-q", "--quiet", action="store_true", help="hide progress and messages")


def names(text: str) -> list[str]:
    """a,b,c as a list of names that differ."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected names that differ, as a,b,c, got {text!r}")
    return names
