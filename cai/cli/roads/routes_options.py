"""The options of the commands on road networks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cai.cli.shared_options import add_estimation, add_json, add_output, names


def add_routes(commands: Any) -> None:
    """The commands ``routes fit``, ``drivers``, ``predict`` and ``destination``."""
    routes = commands.add_parser("routes", help="which way drivers go, and where to")
    actions = routes.add_subparsers(
        dest="action", required=True, metavar="fit | drivers | predict | destination"
    )
    fitting = actions.add_parser("fit", help="estimate turn costs from trips")
    _add_network(fitting)
    _add_trips(fitting)
    _add_features(fitting)
    add_estimation(fitting)
    each = actions.add_parser("drivers", help="estimate turn costs per driver and for all drivers")
    _add_network(each)
    _add_trips(each)
    _add_features(each)
    each.add_argument(
        "--group", default="driver", metavar="COLUMN", help="tells drivers apart (default driver)"
    )
    each.add_argument(
        "--prior", type=float, metavar="SCALE", help="of a normal prior around 0 for each mean"
    )
    predicting = actions.add_parser("predict", help="the most probable route between two segments")
    _add_fit(predicting)
    _add_network(predicting)
    for end in ("from", "to"):
        predicting.add_argument(
            f"--{end}", required=True, dest=f"{end}_", metavar="U,V[,KEY]", help="a segment"
        )
    guessing = actions.add_parser("destination", help="where a trip is going, as it unfolds")
    _add_fit(guessing)
    _add_network(guessing)
    _add_trips(guessing)
    guessing.add_argument("--trip", required=True, metavar="ID", help="which trip of the file")
    guessing.add_argument(
        "--share", type=float, default=0.5, help="how much of it is seen (default 0.5)"
    )
    for one in (fitting, each, predicting, guessing):
        add_output(one)
    for one in (each, predicting, guessing):
        add_json(one, "a table")


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--features",
        type=names,
        metavar="NAME,NAME",
        help="such as minutes,left,u_turn; all that the network has if not given",
    )


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "fit",
        type=Path,
        metavar="FIT",
        help="the folder that cai routes fit wrote, or its fit.json",
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network",
        type=Path,
        metavar="NETWORK",
        help=".graphml as OSMnx saves it, .tntp, or .csv with columns u, v and perhaps key",
    )
    parser.add_argument("--nodes", type=Path, help="places of the nodes, for .tntp and .csv")
    parser.add_argument("--degrees", action="store_true", help="these are longitude and latitude")


def _add_trips(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "trips",
        type=Path,
        metavar="TRIPS.csv",
        help="a row for each segment of a trip: columns u, v and perhaps key",
    )
    parser.add_argument(
        "--trip-column", default="trip", metavar="COLUMN", help="tells trips apart (default trip)"
    )
