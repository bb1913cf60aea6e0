"""The command ``routes drivers``: what turns cost each driver, and the population of drivers."""

from __future__ import annotations

import argparse
import json

from cai import inference, plot
from cai.cli import irl_command, output, terminal
from cai.cli.roads.trips_file import network_and_trips

_FILES = ("drivers.json", "drivers.md", "drivers.png")


def drivers(options: argparse.Namespace) -> None:
    """Weights of each driver, drawn to the population: a table, and files with a figure.

    Raises:
        Mistake: if a file cannot be read, or does not hold what it should.
    """
    with output.folder(options.out):
        output.announce(options, _FILES)
        prior = irl_command.normal_prior(options)
        streets, trips, names = network_and_trips(options, options.group)
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
