"""A table as the text that the explorer reads: lists of successors with their probabilities."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.tables.table import Table

LARGEST = 2_000_000  # bytes
MOST_STEPS = 20_000_000  # of one transition each, which take a browser some seconds
_LEAST = -700.0  # log-probabilities below this are not numbers that a browser could add up


def table_as_json(table: Table) -> dict[str, Any]:
    """A finite-horizon table as plain lists, which ``fromTable`` in ``worlds.js`` reads.

    Args:
        table: of T steps, S states and A actions.

    Returns:
        ``S``, ``A``, ``T``, ``alpha``, ``gamma``; ``counts`` (S·A), how many states can follow each
        state and action, and, one after the other, which (``next``), with which probability
        (``p``) and what is paid on arrival (``arrival``, reward units); ``reward`` (S·A), ``prior``
        (S·A, or A where all states have the same), ``initial`` (S), ``final`` (S); of the fields
        named in ``timed`` one array for each step; and the names and places of the layout. None
        stands for -inf; ``arrival`` and ``final`` are left out where nothing is paid.

    Raises:
        ValueError: if the horizon is infinite, the text would have more than 2 MB, a browser would
            need minutes, or a probability is positive but below 1e-304.
    """
    T = checks.finite_horizon(table, "the explorer")
    S, A = table.num_states, table.num_actions
    for name in ("log_initial", "log_prior", "log_dynamics"):
        log_p = getattr(table, name)
        if ((log_p > -torch.inf) & (log_p < _LEAST)).any():
            least = f"{log_p[log_p > -torch.inf].min().item():.4g}"
            checks.refuse(f"model: {name}", f"-inf or above {_LEAST:g}", least, "forbid it: -inf")
    log_p = table.log_dynamics
    possible = log_p > -torch.inf
    if "log_dynamics" in table.by_step:  # what can follow at any step
        possible = possible.any(0)
    listed = int(possible.sum())
    times = {name: T if name in table.by_step else 1 for name in ("log_dynamics", "arrival_reward")}
    if listed * T > MOST_STEPS:
        advice = "explore fewer steps, or draw this model with plot.occupancy"
        came = f"{T} steps of {listed} transitions"
        checks.refuse("model", f"at most {MOST_STEPS} steps of transitions in all", came, advice)
    if listed * sum(times.values()) + S * A > LARGEST / 2:  # each is two bytes at least
        _refuse(table, f"{listed} transitions")
    successors = torch.arange(S).expand(S, A, S) if table.successors is None else table.successors
    found: dict[str, Any] = {
        "S": S,
        "A": A,
        "T": T,
        "alpha": float(table.temperature),
        "gamma": float(table.discount),
        "counts": possible.sum(-1).flatten().tolist(),
        "next": successors[possible].tolist(),
        "p": _numbers(log_p[..., possible].exp()),
        "reward": _numbers(table.reward),
        "prior": _numbers(_shared(table.log_prior).exp()),
        "initial": _numbers(table.log_initial.exp()),
    }
    if table.arrival_reward is not None:
        found["arrival"] = _numbers(table.arrival_reward[..., possible])
    if table.final_reward.any():
        found["final"] = _numbers(table.final_reward)
    names = {"log_dynamics": "p", "arrival_reward": "arrival", "log_prior": "prior"}
    found["timed"] = [names.get(name, name) for name in table.by_step]
    if table.layout is not None:
        fields = ("map", "cells", "moves", "actions", "states")
        given = {name: getattr(table.layout, name) for name in fields}
        found |= {name: x for name, x in given.items() if x is not None}
    return found


def text_of(table: Table, name: str, recipe: str) -> str:
    """The table as JSON that can stand within HTML, with its name and how Python makes the model.

    Args:
        table: the table.
        name: for the heading.
        recipe: lines of Python that leave the model in the variable ``model``.

    Raises:
        ValueError: as :func:`table_as_json`.
    """
    text = json.dumps(
        table_as_json(table) | {"name": name, "recipe": recipe}, separators=(",", ":")
    )
    for character in "<>&":  # so that no name ends the script that it stands in
        text = text.replace(character, f"\\u{ord(character):04x}")
    if len(text) > LARGEST:
        _refuse(table, f"{len(text) / 1e6:.1f} MB")
    return text


def _refuse(table: Table, came: str) -> None:
    size = f"{came} ({table.num_states} states, {table.num_actions} actions)"
    advice = "explore a smaller version, or draw this one with plot.occupancy"
    checks.refuse("model", f"a table of at most {LARGEST / 1e6:g} MB as JSON", size, advice)


def _shared(log_prior: Tensor) -> Tensor:
    """A prior (S, A), or its only row (A,) where all states have the same."""
    alike = log_prior.dim() == 2 and bool((log_prior == log_prior[0]).all())
    return log_prior[0] if alike else log_prior


def _numbers(x: Tensor) -> list[float | int | None]:
    """Flattened, in 15 digits, which hide the rounding of 0.1; None for -inf."""
    return [_number(value) for value in x.flatten().tolist()]


def _number(x: float) -> float | int | None:
    if x == -torch.inf:
        return None
    short = float(f"{x:.15g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
