"""The command ``info``: what a model is, its sizes, and which methods take it."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from cai import cli
from cai.cli import shared_options

_WIDTH, _NAMES = 80, 15  # characters of a line, and of the names in front
_COMMANDS = {
    "posterior": "cai solve --optimism 1",
    "soft_values": "cai solve",
    "optimism_curve": "cai dial",
    "map_trajectory": "cai plan",
    "fit": "cai fit",
}
_NO_METHOD = {
    False: "none: only samples can be had; see the learners",
    True: "none of a continuous model without an end; give --horizon a number of steps",
}
_UNITS = ("bytes", "kB", "MB", "GB")


def add_to(commands: Any) -> None:
    """Adds the command's options."""
    info = commands.add_parser(
        "info",
        help="what a model is, and which methods take it",
        description="Say what a model is: its sizes, the bytes of its table, which methods take "
        "it, and whether its functions keep the contract.",
    )
    shared_options.add_model(info, shared_options.horizon, out=False)
    shared_options.add_json(info, "text")


def run(options: argparse.Namespace) -> None:
    """Prints what there is to say."""
    found = cli.facts(cli.loading.load_any(options), options.model)
    lines = textwrap.wrap(f"{options.model}: {found['what']}", _WIDTH)
    for name, words in _rows(found):
        first, *more = _wrapped(words) or [""]
        lines += [f"{name:{_NAMES}}{first}", *(f"{'':{_NAMES}}{line}" for line in more)]
    if found["map"] is not None:
        lines += [f"{'map' if k == 0 else '':{_NAMES}}{row}" for k, row in enumerate(found["map"])]
    cli.show(found, lines, options.json)


def _wrapped(words: str) -> list[str]:
    return textwrap.wrap(words, _WIDTH - _NAMES, break_long_words=False, break_on_hyphens=False)


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    horizon = "infinite" if found["horizon"] is None else f"T = {found['horizon']} steps"
    methods = ", ".join(
        f"{name} ({_COMMANDS[name]})" if name in _COMMANDS else name for name in found["methods"]
    )
    rows = [
        ("states", _set(found["states"], found["state_shape"], "S")),
        ("actions", _set(found["actions"], found["action_shape"], "A")),
        ("horizon", horizon),
        ("temperature", f"alpha = {found['temperature']:g} reward units per nat"),
        ("discount", f"gamma = {found['discount']:g}"),
    ]
    if found["table_bytes"] is None:
        rows.append(("table", f"none: {found['no_table']}"))
    else:
        k, dense = found["successors"], found["dense"]
        kept = "dense" if dense else f"lists of K = {k} successors"
        rows.append(("table", f"{_size(found['table_bytes'])}, {kept}"))
    rows.append(("methods", methods or _NO_METHOD[found["horizon"] is None]))
    rows.append(("learners", ", ".join(found["learners"])))
    rows.append(("contract", found["contract"]))
    return rows


def _set(n: int | None, shape: list[int], letter: str) -> str:
    if n is not None:
        return f"{letter} = {n}"
    dims = "×".join(map(str, shape))
    one = dims in ("", "1")
    return "continuous, one number" if one else f"continuous, {dims} numbers"


def _size(n: float) -> str:
    for unit in _UNITS:
        if n < 1000 or unit == _UNITS[-1]:
            break
        n /= 1000
    return f"{n:.3g} {unit}"
