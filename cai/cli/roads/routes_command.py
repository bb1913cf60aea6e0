"""The commands ``routes``: ``fit``, ``predict`` and ``destination``, on a network from a file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai import inference, plot
from cai.cli import irl_command, loading, output, terminal
from cai.cli.failure import Mistake, naming
from cai.cli.roads.drivers_command import drivers
from cai.cli.roads.network_file import load_network
from cai.cli.roads.trips_file import network_and_trips, trips_of
from cai.demonstrations import reading
from cai.demonstrations.demonstrations import Demonstrations
from cai.evaluation.spelling import aligned, number, spell
from cai.inference.route_choice.routes import Routes
from cai.roads.network import Streets

_FORMAT = "cai routes fit, 1"
_FIT = "fit.json"
_FIT_FILES = (_FIT, "fit.md", "estimates.png")
_PREDICTION = ("route.json", "use.png")
_DESTINATION = ("destination.json", "destination.png", "map.png")
_LOOKS = 10  # at a trip as it unfolds
_SHOWN = 6  # destinations in the table
_NONE = 1e-6  # a probability that is not worth a row


def run_routes(options: argparse.Namespace) -> None:
    """Runs the one that was named.

    Raises:
        Mistake: if a file cannot be read, or does not hold what it should.
    """
    actions = {"fit": _fit, "drivers": drivers, "predict": _predict, "destination": _destination}
    with loading.quietly(options.quiet):
        actions[options.action](options)


def _fit(options: argparse.Namespace) -> None:
    with output.folder(options.out):
        output.announce(options, _FIT_FILES)
        prior = irl_command.normal_prior(options)
        streets, trips, names = network_and_trips(options, options.cluster)
        cluster = options.cluster and "group"
        found = inference.fit_reward(streets, trips, names, prior=prior, cluster=cluster)
        goals = [[*_name(streets, g), n] for g, n in trips.goal_counts.items()]
        kept = {"format": _FORMAT, **found.to_dict(), "goals": goals}
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        figures = {"estimates": plot.estimates(found)}
        output.write(options, figures, {_FIT: text, "fit.md": found.to_markdown()})
    irl_command.show(found, options.json)


def _predict(options: argparse.Namespace) -> None:
    with output.folder(options.out):
        output.announce(options, _PREDICTION)
        kept = _kept(options.fit)
        names = list(kept["weights"])
        streets = load_network(options, names)
        origin = _segment(streets, "--from", options.from_.split(","))
        goal = _segment(streets, "--to", options.to_.split(","))
        routes = _routes(streets, kept, [goal])
        path, use = routes.likely(origin, goal), routes.use(origin, goal)
        turns = streets.locate_turns(path[:-1], path[1:])
        trip = Demonstrations.from_paths([path], [turns], ends="absorbed", goals=path[-1:])
        log_p = routes.log_probability(trip)
        f = streets.features(names)[turns]
        found = {
            "route": [_name(streets, e) for e in path.tolist()],
            "probability": float(log_p.exp()),
            "log_probability": float(log_p),
            "features": dict(zip(names, f.sum(0).tolist(), strict=True)),
            "use": _above_nothing(streets, use),
        }
        text = json.dumps(found, indent=1, ensure_ascii=False)
        figures = {} if streets.lines is None else {"use": plot.streets(streets, use)}
        output.write(options, figures, {"route.json": text + "\n"})
    rows = [
        [_spelt(streets, e), *map(number, x), f"{float(use[e]):.3f}"]
        for e, x in zip(path.tolist(), [[None] * len(names), *f.tolist()], strict=True)
    ]
    total = ["in all", *map(number, f.sum(0).tolist()), ""]
    share = f"{len(path)} segments, probability {float(log_p.exp()):.3g}"
    lines = [
        f"The most probable route: {share}",
        *aligned([["segment", *names, "use"], *rows, total]),
    ]
    lines += ["use: the probability that a trip between the two drives along the segment."]
    _show(text if options.json else "\n".join(lines))


def _destination(options: argparse.Namespace) -> None:
    with output.folder(options.out):
        output.announce(options, _DESTINATION)
        kept = _kept(options.fit)
        streets = load_network(options, list(kept["weights"]))
        trip = trips_of(options, streets, _rows_of_trip(options), None)
        prior = {_segment(streets, f"{options.fit}", g[:-1]): g[-1] for g in kept["goals"]}
        routes = _routes(streets, kept, list(prior))
        turns = _turns_seen(int(trip.lengths[0]), options.share)
        seen = trip.prefix(turns[-1] / int(trip.lengths[0]))
        belief = inference.intent(routes, seen, prior).probability[0, turns]
        order = belief[-1].argsort(descending=True, stable=True)
        goals = routes.goals[order].tolist()
        belief = belief[:, order]
        found = {
            "trip": options.trip,
            "turns": turns,
            "of": int(trip.lengths[0]),
            "ended": _name(streets, trip.goal),
            "goals": [
                {"segment": _name(streets, g), "probability": p}
                for g, p in zip(goals, belief.T.tolist(), strict=True)
            ],
        }
        text = json.dumps(found, indent=1, ensure_ascii=False)
        names = [_spelt(streets, g) for g in goals]
        ended = goals.index(trip.goal) if trip.goal in goals else None
        figures = {"destination": plot.destinations(turns, belief, names, ended=ended)}
        if streets.lines is not None:
            on_map = torch.zeros(len(streets.segments), dtype=torch.float64)
            on_map[goals] = belief[-1]
            label = "probability as a destination"
            figures["map"] = plot.streets(streets, on_map, label=label)
        output.write(options, figures, {"destination.json": text + "\n"})
    _show(text if options.json else _unfolding(options, found, names, belief, ended))


def _unfolding(
    options: argparse.Namespace,
    found: dict[str, Any],
    names: list[str],
    belief: Tensor,
    ended: int | None,
) -> str:
    """The most probable destinations after some turns, and the actual one, as a table."""
    shown = list(range(min(_SHOWN, len(names))))
    shown += [ended] if ended is not None and ended not in shown else []
    every = max(1, len(found["turns"]) // 4)
    columns = list(range(len(found["turns"])))[::-every][::-1]
    rows = [["destination", *(_counted(found["turns"][i]) for i in columns)]]
    rows += [
        [
            f"{names[j]}{' *' if j == ended else ''}",
            *(f"{float(belief[i, j]):.3f}" for i in columns),
        ]
        for j in shown
    ]
    title = f"Trip {options.trip}, {found['turns'][-1]} of {found['of']} turns seen: "
    lines = [f"{title}the probability of {len(names)} destinations", *aligned(rows)]
    if ended is None:
        u, v, key = found["ended"]
        return "\n".join([*lines, f"It ended in {u} → {v} ({key}), where no trip of the fit did."])
    return "\n".join([*lines, "* is where it ended."])


def _counted(turns: int) -> str:
    return "1 turn" if turns == 1 else f"{turns} turns"


def _turns_seen(length: int, share: float) -> list[int]:
    """Up to ten numbers of turns, up to a share of a trip.

    Raises:
        Mistake: if the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise Mistake(f"--share: expected a number above 0 and at most 1, got {share}")
    most = max(1, int(length * share + 1e-9))
    return sorted({max(1, round(most * (i + 1) / _LOOKS)) for i in range(_LOOKS)})


def _rows_of_trip(options: argparse.Namespace) -> dict[str, list[str]]:
    """The rows of the trip that was asked for."""
    with naming(options.trips):
        columns = reading.csv_columns(options.trips)
        who = reading.column(columns, options.trip_column).tolist()
    rows = [i for i, x in enumerate(who) if x == options.trip]
    if not rows:
        first = ", ".join(list(dict.fromkeys(who))[:5])
        raise Mistake(
            f"--trip: there is no {options.trip} in {options.trips}; {first}, … are there"
        )
    return {name: [column[i] for i in rows] for name, column in columns.items()}


def _kept(fit: Path) -> dict[str, Any]:
    """What ``routes fit`` wrote.

    Raises:
        Mistake: if it is something else.
    """
    path = fit / _FIT if fit.is_dir() else fit
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Mistake(f"{path}: expected the fit of cai routes fit; {reason}") from None
    whole = isinstance(found, dict) and {"weights", "goals"} <= found.keys()
    if not whole or found.get("format") != _FORMAT:
        raise Mistake(f"{path}: expected the fit of cai routes fit, of this version; fit it anew")
    return dict(found)


def _routes(streets: Streets, kept: dict[str, Any], goals: list[int]) -> Routes:
    weights = [x["weight"] for x in kept["weights"].values()]
    psi, ends = torch.tensor(weights, dtype=torch.float64), torch.tensor(goals).unique()
    return Routes(streets, tuple(kept["weights"]), psi, ends)


def _segment(streets: Streets, where: str, names: list[Any]) -> int:
    """The number of the segment (u, v) or (u, v, key)."""
    if len(names) not in (2, 3):
        raise Mistake(f"{where}: expected U,V or U,V,KEY, got {','.join(map(str, names))}")
    try:
        return streets.segment(*names)
    except ValueError as error:
        raise Mistake(f"{where}: {str(error).removeprefix('row 0: ')}") from None


def _name(streets: Streets, e: int) -> list[str]:
    return [str(x) for x in streets.segment_names[e]]


def _spelt(streets: Streets, e: int) -> str:
    u, v, key = streets.segment_names[e]
    return f"{u} → {v}" + ("" if str(key) == "0" else f" ({key})")


def _above_nothing(streets: Streets, use: Tensor) -> list[list[Any]]:
    """[u, v, key, probability] of each segment that may be used, the most probable ones first."""
    order = use.argsort(descending=True, stable=True).tolist()
    return [[*_name(streets, e), float(use[e])] for e in order if use[e] > _NONE]


def _show(text: str) -> None:
    terminal.show(spell(text, terminal.encoding()))
