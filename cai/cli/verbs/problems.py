"""What several commands need: the table of a model, words for states and actions, saved results."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from cai.cli import loading, terminal
from cai.cli.failure import Mistake
from cai.evaluation.spelling import counted, spell
from cai.files.saved_file import save
from cai.policies.neural import NeuralPolicy
from cai.policies.tabular import TabularPolicy
from cai.program.layout import Layout
from cai.tables.table import Table
from cai.tables.tabulation import tabulate


def table_of(options: argparse.Namespace) -> Table:
    """The table of the model that the arguments name.

    Raises:
        Mistake: if there is no such model, or it has none.
    """
    model = loading.load(options)
    try:
        return tabulate(model)
    except ValueError as error:
        raise Mistake(str(error).replace("inference.fit", "`cai fit`")) from None


def title(options: argparse.Namespace, table: Table) -> str:
    """What a table is, in a line."""
    horizon = "infinite horizon" if table.horizon is None else counted(table.horizon, "step")
    sizes = f"{counted(table.num_states, 'state')}, {counted(table.num_actions, 'action')}"
    discount = f", discount {table.discount:g}" if table.discount < 1 else ""
    temperature = f"temperature {float(table.temperature):g}"
    return f"{options.model}: {sizes}, {horizon}, {temperature}{discount}"


def state(layout: Layout | None, s: int) -> str:
    """A state by its name, its place on the map, or its number."""
    if layout is not None and layout.states is not None:
        return layout.states[s]
    if layout is not None and layout.cells is not None:
        row, column = layout.cells[s]
        return f"{s} at ({row}, {column})"
    return str(s)


def action(layout: Layout | None, a: int) -> str:
    """An action by its name or its number."""
    return layout.actions[a] if layout is not None and layout.actions is not None else str(a)


def show(found: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Prints a result, as JSON or as lines."""
    if as_json:
        terminal.show(to_json(found))
    else:
        terminal.show("\n".join(spell(line, terminal.encoding()) for line in lines))


def to_json(found: dict[str, Any]) -> str:
    """Plain values as JSON, infinities as texts."""
    return json.dumps(_plain(found), indent=2, ensure_ascii=False, allow_nan=False)


def untrained(model: Any, kind: str, seed: int) -> Any:
    """A policy to be trained, a "table" or a "network"."""
    torch.manual_seed(seed)  # a network starts at random
    return TabularPolicy(model) if kind == "table" else NeuralPolicy(model)


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    return x if not isinstance(x, float) or abs(x) < float("inf") else str(x)


def check_save(options: argparse.Namespace) -> None:
    """Raises Mistake, before the work, if there is no room for the file of ``--save``."""
    path = options.save
    if path is not None and (path.is_dir() or not path.resolve().parent.is_dir()):
        raise Mistake(f"--save: {path}: expected a file in a folder that exists; make it first")


def keep(options: argparse.Namespace, thing: Any) -> None:
    """Saves a thing where ``--save`` says, if it says so."""
    if options.save is None:
        return
    save(thing, options.save)
    if not options.quiet:
        terminal.note(f"wrote {options.save}")
