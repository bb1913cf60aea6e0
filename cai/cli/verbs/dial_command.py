"""The command ``dial``: a model at every optimism, from the worst case to the best."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from cai import cli, inference, plot
from cai.cli import shared_options
from cai.cli.failure import Mistake
from cai.evaluation.spelling import aligned

_FILES = ("dial.json", "optimism_curve.png")
_SHOWN = 9  # lines of a curve that was not asked for in detail
_TITLES = ("eta", "bound (nats)", "ELBO (nats)", "imagined return", "real return")


def add_to(commands: Any) -> None:
    """Adds the command's options."""
    dial = commands.add_parser(
        "dial",
        help="bound, ELBO and return at every optimism",
        description="Solve a model at every optimism, from the worst case to the best, and find "
        "where its policy prefers another action.",
    )
    shared_options.add_model(dial, shared_options.horizon)
    dial.add_argument(
        "--optimism",
        type=_several,
        metavar="ETA,ETA",
        help="values of η, e.g. -1,0,1 (default: 41 values from -inf to inf)",
    )
    shared_options.add_json(dial, "a table")


def _several(text: str) -> list[float]:
    return [shared_options.number(part) for part in text.split(",")]


def run(options: argparse.Namespace) -> None:
    """Turns the dial, prints a table, and writes it with its figure."""
    with cli.output.folder(options.out):
        cli.output.announce(options, _FILES)
        table = cli.table_of(options)
        try:
            curve = inference.optimism_curve(table, options.optimism)
        except ValueError as error:
            raise Mistake(error) from None
        found = _plain(curve)
        texts = {"dial.json": cli.to_json(found) + "\n"}
        cli.output.write(options, {"optimism_curve": plot.optimism_curve(curve)}, texts)
    lines = [cli.title(options, table), *_lines(found, options.optimism is None)]
    cli.show(found, lines, options.json)


def _plain(curve: Any) -> dict[str, Any]:
    names = ("optimism", "bound", "slope", "elbo", "imagined_return", "expected_return")
    layout = curve.table.layout
    switches = [
        {
            "optimism": x.optimism,
            "step": x.t,
            "state": cli.state(layout, x.s),
            "before": cli.action(layout, x.before),
            "after": cli.action(layout, x.after),
        }
        for x in curve.changes
    ]
    return {name: getattr(curve, name).tolist() for name in names} | {"switches": switches}


def _lines(found: dict[str, Any], some: bool) -> list[str]:
    """A line for each η, or for every fifth of the many that are taken by default."""
    n = len(found["optimism"])
    every = max(1, (n - 1) // (_SHOWN - 1)) if some else 1
    columns = [found[x] for x in ("bound", "elbo", "imagined_return", "expected_return")]
    rows = [
        [f"{found['optimism'][k]:.4g}", *(f"{column[k]:.6g}" for column in columns)]
        for k in range(0, n, every)
    ]
    lines = aligned([_TITLES, *rows])
    for x in found["switches"]:
        lines += textwrap.wrap(
            f"At eta = {x['optimism']:.4g} the first action in state {x['state']} changes from "
            f"{x['before']} to {x['after']}.",
            80,
        )
    if some:
        lines.append("dial.json has all of the curve, --optimism chooses where to look.")
    return lines
