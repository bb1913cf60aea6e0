"""The command ``routes drivers``: what turns cost each driver, and the population of drivers."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cai import inference, plot
from cai.cli import irl_command, loading, output, terminal
from cai.cli.failure import Mistake, naming
from cai.demonstrations import reading
from cai.demonstrations.demonstrations import Demonstrations
from cai.roads.network import Streets

_FILES = ("drivers.json", "drivers.md", "drivers.png")


def drivers(options: argparse.Namespace) -> None:
    """Weights of each driver, drawn to the population: a table, and files with a figure.

    Raises:
        Mistake: if a file cannot be read, or does not hold what it should.
    """
    with output.folder(options.out):
        output.check_names(options.out, _FILES)
        prior = irl_command.normal_prior(options)
        streets = loading.load_network(options, options.features)
        with naming(options.trips):
            columns = reading.csv_columns(options.trips)
        trips = trips_of(options, streets, columns, options.group)
        names = options.features or [*streets.segment_features, *streets.turn_features]
        progress = not options.quiet
        found = inference.reward_posterior(
            streets, trips, names, prior, groups=True, progress=progress
        )
        text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False)
        tables = f"{found.to_markdown()}\n{found.by_group.to_markdown()}"
        figures = {"drivers": plot.by_group(found)}
        output.write(options, figures, {"drivers.json": text + "\n", "drivers.md": tables})
    both = [x.to_text(terminal.encoding()) for x in (found, found.by_group)]
    terminal.show(text if options.json else "\n\n".join(both))


def trips_of(
    options: argparse.Namespace, streets: Streets, columns: Any, group: str | None
) -> Demonstrations:
    """The trips of a file, by its columns.

    Raises:
        Mistake: if columns are missing, or segments are unknown.
    """
    segment = [x for x in ("u", "v", "key") if x in columns]
    if not {"u", "v"} <= set(segment):
        came = ", ".join(columns)
        raise Mistake(f"{options.trips}: expected columns u and v, and perhaps key, got {came}")
    with naming(options.trips):
        found: Demonstrations = streets.demonstrations(
            columns, trip=options.trip_column, segment=segment, group=group
        )
    return found
