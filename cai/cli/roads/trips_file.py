"""Trips from a file, with the network that they are driven on."""

from __future__ import annotations

import argparse
from typing import Any

from cai.cli.failure import Mistake, naming
from cai.cli.roads.network_file import load_network
from cai.demonstrations import reading
from cai.demonstrations.demonstrations import Demonstrations
from cai.roads.network import Streets


def network_and_trips(
    options: argparse.Namespace, group: str | None
) -> tuple[Streets, Demonstrations, list[str]]:
    """The network, the trips, and the names of the features that turns are fitted by.

    Args:
        options: with the files, and the features if they were given.
        group: the column that tells drivers apart, or None.

    Raises:
        Mistake: if a file cannot be read, or does not hold what it should.
    """
    streets = load_network(options, options.features)
    with naming(options.trips):
        columns = reading.csv_columns(options.trips)
    names = options.features or [*streets.segment_features, *streets.turn_features]
    return streets, trips_of(options, streets, columns, group), names


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
