"""The command ``sweep``: methods on a grid of models with several seeds."""

from __future__ import annotations

import argparse
import ast
import itertools
from decimal import Decimal, DecimalException, InvalidOperation
from pathlib import Path
from typing import Any

import cai
from cai import cli
from cai.cli import shared_options, terminal
from cai.cli.failure import Mistake
from cai.cli.learners import LEARNERS
from cai.cli.verbs.model_names import CHANGES

_METHODS = ("posterior", "soft_values", "hard", "fit", "prior", *LEARNERS)
_MOST = 10_000  # values of one argument
_WIDTH = 80  # characters of a terminal
_DESCRIPTION = """\
Compare methods on every model of a grid, with every seed. The folder --out
holds a line of JSON for each cell as it is done, and a table and a figure at
the end; after a kill or Ctrl-C the same command goes on where it was."""


def add_to(commands: Any) -> None:
    """Adds the command's options."""
    sweep = commands.add_parser(
        "sweep",
        help="compare methods on a grid of models, with several seeds",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared_options.add_model(sweep, shared_options.horizon)
    sweep.add_argument(
        "--grid",
        type=axis,
        action="append",
        default=[],
        metavar="KEY=VALUES",
        help="values of an argument of the model, as temperature=0.1,0.5,1 or slip=0:0.3:0.1 "
        "(first, last, step; both ends included); may be repeated",
    )
    sweep.add_argument(
        "--methods",
        type=shared_options.names,
        metavar="NAME,NAME",
        help=f"any of {', '.join(_METHODS)} (default: those of posterior, soft_values and fit that "
        "take the model)",
    )
    sweep.add_argument(
        "--seeds", type=shared_options.count, default=1, help="number of seeds: 0, 1, … (default 1)"
    )
    sweep.add_argument(
        "-n",
        "--steps",
        type=shared_options.count,
        default=1000,
        help="maximum training steps of fit (default 1000)",
    )
    sweep.add_argument(
        "--transitions",
        type=shared_options.count,
        default=100_000,
        help="of learners: how many (default 100000)",
    )
    sweep.add_argument(
        "--jobs", type=shared_options.count, default=1, help="cells at once (default 1)"
    )
    sweep.add_argument(
        "--engine", metavar="NAME", help="a backend of joblib, such as dask or ray, if installed"
    )
    sweep.add_argument(
        "--retry", action="store_true", help="do cells that failed again as well as new ones"
    )
    sweep.add_argument(
        "-w", "--wide", action="store_true", help="print all columns, also beyond 80 characters"
    )
    shared_options.add_json(sweep, "a table")


def axis(text: str) -> tuple[str, tuple[Any, ...]]:
    """KEY=VALUES: values a,b,c as Python has them or as text, or numbers first:last:step."""
    key, equals, values = text.partition("=")
    if not equals or not key.isidentifier() or not values:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUES, got {text!r}")
    if not all(value.strip() for value in values.split(",")):
        raise argparse.ArgumentTypeError(f"expected values between the commas, got {text!r}")
    ends = values.split(":")
    if len(ends) == 2 and all(isinstance(_literal(end), int | float) for end in ends):
        raise argparse.ArgumentTypeError(f"expected first:last:step, with a step, got {text!r}")
    found = _range(values) or tuple(
        shared_options.key_and_value(f"{key}={value}")[1] for value in values.split(",")
    )
    return key, found


def _range(text: str) -> tuple[Any, ...]:
    """first:last:step in decimals, so that 0:0.3:0.1 has 0.3, not 0.30000000000000004."""
    parts = text.split(":")
    try:
        first, last, step = map(Decimal, parts)
    except (ValueError, InvalidOperation):
        return ()
    try:
        return _steps(text, first, last, step)
    except DecimalException:
        words = "expected first:last:step, numbers that are not as far apart"
        raise argparse.ArgumentTypeError(f"{words}, got {text!r}") from None


def _steps(text: str, first: Decimal, last: Decimal, step: Decimal) -> tuple[Any, ...]:
    """The numbers from the first to the last, both included."""
    exact = all(map(Decimal.is_finite, (first, last, step)))
    n = (last - first) / step if exact and step else Decimal(-1)
    if n < 0 or n != n.to_integral_value():
        raise argparse.ArgumentTypeError(
            f"expected first:last:step, of which a whole number of steps leads to the last, got "
            f"{text!r}"
        )
    if n >= _MOST:
        raise argparse.ArgumentTypeError(
            f"expected at most {_MOST} values, got {n + 1:g} in {text!r}"
        )
    numbers = [first + k * step for k in range(int(n) + 1)]
    whole = all(isinstance(_literal(part), int) for part in text.split(":"))
    return tuple(int(x) if whole else float(x) for x in numbers)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return None


def run(options: argparse.Namespace) -> None:
    """Runs a sweep, or what is left of it, and prints its table.

    Raises:
        Mistake: if the arguments are wrong.
        ValueError: if cells failed, after all was written.
    """
    grid = _grid(options)
    unknown = [name for name in options.methods or () if name not in _METHODS]
    if unknown:
        guess = shared_options.nearest(unknown[0], _METHODS) or f"; there are {', '.join(_METHODS)}"
        raise Mistake(f"--methods: there is no {', '.join(unknown)}{guess}")
    with cli.output.folder(options.out):
        found = _result(options, grid)
    text = found.to_text(terminal.encoding(), None if options.wide else _WIDTH)
    terminal.show(found.to_json() if options.json else text)
    out: Path = options.out
    if not options.quiet:
        for name in ("results.jsonl", "results.csv", "sweep.png"):
            if (out / name).exists():
                terminal.note(f"wrote {out / name}")
    if found.failed:
        # Below the table is the first error; who reads JSON is told of it here.
        first = f", the first with {found.failed[0].error}" if options.json else ""
        raise ValueError(
            f"{len(found.failed)} of {len(found)} cells failed{first}; --retry does them again"
        )


def _grid(options: argparse.Namespace) -> dict[str, tuple[Any, ...]]:
    """The axes by name, none of which is also given as an option."""
    grid = dict(options.grid)
    fixed = {name for name in CHANGES if getattr(options, name) is not None}
    fixed |= dict(options.option).keys()
    twice = sorted(fixed & grid.keys())
    names = [name for name, _ in options.grid]
    twice += sorted(name for name in grid if names.count(name) > 1)
    if twice:
        raise Mistake(f"--grid: {', '.join(twice)} is given twice; leave one out")
    return grid


def _in_order(options: argparse.Namespace) -> tuple[tuple[str, Any], ...]:
    """The options by name: in another order they are the same sweep."""
    return tuple(sorted(dict(options.option).items()))


def _result(options: argparse.Namespace, grid: dict[str, tuple[Any, ...]]) -> Any:
    given = {name: getattr(options, name) for name in CHANGES}
    factory = cli.ModelFactory(cli.loading.absolute(options.model), _in_order(options), **given)
    points = [dict(zip(grid, x, strict=True)) for x in itertools.product(*grid.values())]
    cli.check_points(factory, points, options.methods)
    named = options.methods or cli.usual_methods(factory, points)
    steps = {"fit": options.steps, **dict.fromkeys(LEARNERS, options.transitions)}
    methods = {name: cli.SweptMethod(name, steps.get(name)) for name in named}
    try:
        return cai.sweep(
            factory,
            grid,
            methods,
            seeds=options.seeds,
            out=options.out,
            jobs=options.jobs,
            engine=options.engine,
            retry=options.retry,
            progress=not options.quiet and "lines",
        )
    except ValueError as error:  # of an argument: those of cells are in the results
        raise Mistake(f"--{error}") from None
