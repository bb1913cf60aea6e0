"""Options that several commands have in common, and a parser that guesses what was misspelt."""

from __future__ import annotations

import argparse
import ast
import difflib
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

INFINITE = "infinite"  # a horizon
_MOST = 10**9  # more steps than anyone will wait for
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
        """As argparse has it, but for two things.

        Arguments that a command does not know end it here, and ``--optimism -1,0`` or ``-inf`` is a
        number after its option, where argparse sees another option.
        """
        given = list(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(_joined(given), namespace)
        if unknown:
            options = [x.partition("=")[0] for x in unknown if x.startswith("-")]
            guesses = [nearest(option, self._known) for option in options]
            guess = next((guess for guess in guesses if guess), "")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{guess}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Prints a message and leaves with status 2."""
        if message.endswith(": COMMAND"):
            known = [name for x in self._actions if x.dest == "command" for name in x.choices or ()]
            message += f", one of {', '.join(known)}"
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        if choice:
            message += nearest(choice[1], re.findall(r"[\w-]+", choice[2]))
        super().error(message)


def _joined(arguments: list[str]) -> list[str]:
    """The arguments, with negative numbers as ``--option=-1``."""
    joined: list[str] = []
    for argument in arguments:
        if joined and re.match(r"--[\w-]+$", joined[-1]) and re.match(r"-(inf|\.?\d)", argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def nearest(name: str, known: Iterable[str]) -> str:
    """A question after the nearest known name, whatever its case and the dashes before it."""
    spelt = {x.lower().lstrip("-"): x for x in known}
    close = difflib.get_close_matches(name.lower().lstrip("-"), spelt, 1)
    return f"; did you mean {spelt[close[0]]}?" if close else ""


def add_model(
    parser: argparse.ArgumentParser,
    steps: Any = None,
    out: bool = True,
    otherwise: str | None = None,
) -> None:
    """Which model, and what is to be changed of it; where files are written, if there are any.

    Args:
        parser: of the command.
        steps: what reads a horizon, if that may be infinite.
        out: whether the command writes files.
        otherwise: what is meant where no model is given, if it need not be.
    """
    known = "a built-in model, a Gymnasium environment with a published table, FILE.py:NAME or "
    known += "MODULE:NAME"
    if otherwise is None:
        parser.add_argument("model", help=known)
    else:
        parser.add_argument("model", nargs="?", help=f"{known} (default: {otherwise})")
    more = "" if steps is None else f', or "{INFINITE}"'
    words = f"T, the number of steps{more}"
    parser.add_argument("-T", "--horizon", type=steps or _finite_horizon, help=words)
    parser.add_argument("-a", "--temperature", type=float, help="alpha, reward units per nat")
    parser.add_argument(
        "-g", "--discount", type=float, help="gamma, the survival probability per step"
    )
    parser.add_argument(
        "-O",
        "--option",
        type=key_and_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the built-in model or of the environment; may be repeated",
    )
    if out:
        add_output(parser)
    else:
        add_quiet(parser)


def add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    """The seed of something."""
    parser.add_argument(
        "-s", "--seed", type=seed, default=0, help=f"random seed for {of} (default 0)"
    )


def add_estimation(parser: argparse.ArgumentParser) -> None:
    """How errors are estimated, a prior, and JSON."""
    parser.add_argument(
        "--cluster", metavar="COLUMN", help="who it was, for errors by groups: driver perhaps"
    )
    parser.add_argument(
        "--prior", type=float, metavar="SCALE", help="of a normal prior around 0 for each weight"
    )
    add_json(parser, "a table")


def add_save(parser: argparse.ArgumentParser, what: str) -> None:
    """Whether a result is kept for later, by ``cai.save``."""
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help=f"keep {what} in a file that cai.load reads"
    )


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


def horizon(text: str) -> int | str:
    """A number of steps, or "infinite"."""
    return text if text == INFINITE else count(text)


def _finite_horizon(text: str) -> int:
    if text == INFINITE:
        words = "expected a finite number of steps; cai solve takes infinite ones"
        raise argparse.ArgumentTypeError(words)
    return count(text)


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of at least 1 and at most {_MOST}, got {text!r}"
        )
    return int(text)


def number(text: str) -> float:
    """A number, infinities among them."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if math.isnan(found):
        raise argparse.ArgumentTypeError(f"expected a number, inf or -inf, got {text!r}")
    return found


def seed(text: str) -> int:
    """A whole number that seeds a generator."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number in 0 … 2^63 - 1, got {text!r}")
    return int(text)


def key_and_value(text: str) -> tuple[str, Any]:
    """KEY=VALUE, where the value is a Python literal or else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all it can raise
        pass
    try:
        return key, float(value)  # inf and -inf, which are not literals
    except ValueError:
        return key, value
