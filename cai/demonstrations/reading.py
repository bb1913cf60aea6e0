"""Rows of a table, and other sources, as sequences of states and actions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cai import checks
from cai.numerics import arrays


class ReadTrajectories(NamedTuple):
    """One entry for each trajectory."""

    states: list[Any]
    actions: list[Any]
    groups: list[Any] | None
    goals: list[int] | None


def rows(columns: Any, names: dict[str, str], optional: dict[str, str | None]) -> ReadTrajectories:
    """Trajectories from columns.

    Args:
        columns: name -> column.
        names: the names of the columns ``trajectory``, ``state`` and ``action``.
        optional: those of ``group`` and ``goal``, or None.

    Raises:
        ValueError: see :meth:`cai.Demonstrations.from_columns`.
    """
    wanted = names | {name: column for name, column in optional.items() if column is not None}
    found = {name: column(columns, heading) for name, heading in wanted.items()}
    lengths = {name: len(column) for name, column in found.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        checks.refuse("columns", "columns of one length, at least one row", str(lengths), "")
    who = found["trajectory"]
    first_rows = starts(who, names["trajectory"])
    states = _whole(found["state"], names["state"])
    actions, last = _with_missing(found["action"], names["action"])
    stops = np.r_[first_rows[1:], len(who)] - 1
    for first, end in zip(first_rows, stops, strict=True):
        gaps = np.flatnonzero(last[first : end + 1])
        if first == end or not len(gaps) or first + gaps[0] != end:
            row = first + (gaps[0] if len(gaps) else end - first)
            expected = "an action in each row of a trajectory but its last, which has none"
            came = f"{found['action'][row]} for trajectory {who[first]}"
            advice = "the last row holds the state after the last action"
            checks.refuse(f"column {names['action']!r}, row {row}", expected, came, advice)
    each = list(zip(first_rows, stops, strict=True))
    groups = [found["group"][first] for first, _ in each] if "group" in found else None
    goals = _whole(found["goal"], str(optional["goal"]))[first_rows] if "goal" in found else None
    return ReadTrajectories(
        [torch.from_numpy(states[first : end + 1]) for first, end in each],
        [torch.from_numpy(actions[first:end]) for first, end in each],
        None if groups is None else [x.item() if hasattr(x, "item") else x for x in groups],
        None if goals is None else goals.tolist(),
    )


def sequences(states: Any, actions: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Sequences of integers, each of states one longer than its actions.

    Raises:
        ValueError: naming the sequence, if they are not.
    """
    given = {"states": states, "actions": actions}
    some, advice = "sequences of integers", "one for each trajectory"
    both = [checks.several(name, x, advice, some) for name, x in given.items()]
    if len(both[0]) != len(both[1]) or not both[0]:
        came = f"{len(both[0])} of states and {len(both[1])} of actions"
        checks.refuse("actions", "a sequence for each one of states, at least one", came, "")
    s, a = (
        [arrays.integers(f"{name}[{i}]", x) for i, x in enumerate(row)]
        for name, row in zip(("states", "actions"), both, strict=True)
    )
    for i, (before, taken) in enumerate(zip(s, a, strict=True)):
        if not taken.numel():
            advice = "a start without actions tells nothing"
            checks.refuse(f"actions[{i}]", "at least one action", "none", advice)
        if taken.dim() != 1 or before.dim() != 1 or len(taken) != len(before) - 1:
            came = f"{before.numel()} states and {taken.numel()} actions"
            advice = "the state after the last action is part of it"
            checks.refuse(f"states[{i}]", "one state more than actions", came, advice)
    return s, a


def episodes(given: Any) -> tuple[list[Any], list[Any], list[str]]:
    """States, actions and ends of episodes of Gymnasium or Minari.

    Raises:
        ValueError: naming the episode, if an attribute is missing.
    """
    s, a, ends = [], [], []
    for i, episode in enumerate(checks.several("episodes", given, "", "a list of them")):
        for name in ("observations", "actions", "terminations"):
            if not hasattr(episode, name):
                came, advice = f"{type(episode).__name__} without", "as minari.EpisodeData has"
                checks.refuse(f"episodes[{i}]", f"one with {name}", came, advice)
        s.append(episode.observations)
        a.append(episode.actions)
        ends.append("absorbed" if bool(list(episode.terminations)[-1]) else "cut")
    return s, a, ends


def csv_columns(path: Any) -> dict[str, list[str]]:
    """The columns of a file with a heading, as text.

    Raises:
        ValueError: if it cannot be read, is empty, or has a row of another length.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, TypeError) as error:
        came = f"no file {path}" if isinstance(error, FileNotFoundError) else str(error)
        checks.refuse("path", "a file of text that can be read", came, "look at its name")
    read = csv.reader(text.splitlines())
    heading = next(([name.strip() for name in line] for line in read if line), [])
    lines = []
    for line in filter(None, read):
        if len(line) != len(heading):
            expected = f"as many values in a line as names in its heading, {len(heading)}"
            checks.refuse("path", expected, f"{len(line)} in line {read.line_num} of {path}", "")
        lines.append(line)
    if not lines:
        came = f"{'a heading alone' if heading else 'nothing'} in {path}"
        checks.refuse("path", "a heading and rows", came, "")
    return {name: list(x) for name, x in zip(heading, zip(*lines, strict=True), strict=True)}


def column(columns: Any, name: str) -> NDArray[Any]:
    """One column of a table.

    Raises:
        ValueError: if there is none of that name, or it has more than one value a row.
    """
    if name not in columns:
        there = ", ".join(map(repr, columns))
        checks.refuse(f"column {name!r}", "one of the table", f"only {there}", "give its name")
    values = columns[name]
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.ndim != 1:
        checks.refuse(f"column {name!r}", "one value a row", f"shape {list(array.shape)}", "")
    return array


def starts(labels: NDArray[Any], name: str) -> NDArray[np.int64]:
    """The first row of each run of equal labels.

    Raises:
        ValueError: naming the row, if a label comes back after another one.
    """
    rows = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    seen: set[Any] = set()
    for label, row in zip(labels[rows].tolist(), rows, strict=True):
        if label in seen:
            expected, came = "rows of a trajectory that follow each other", f"{label!r} once more"
            checks.refuse(f"column {name!r}, row {row}", expected, came, "sort the table by it")
        seen.add(label)
    return rows


def _whole(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    numbers, missing = _with_missing(values, name)
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        came = str(values[row])
        checks.refuse(f"column {name!r}, row {row}", "an integer ≥ 0", came, "number from 0")
    return numbers


def _with_missing(values: NDArray[Any], name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Whole numbers, and where there are none: NaN, None, an empty text or a negative number."""
    if values.dtype.kind in "OUS":
        empty = np.array([x is None or str(x).strip() in ("", "nan", "NaN") for x in values])
        numbers = np.full(len(values), np.nan)
        for row in np.flatnonzero(~empty).tolist():
            try:
                numbers[row] = float(values[row])
            except (TypeError, ValueError):
                came, advice = repr(str(values[row])), "number states and actions from 0"
                checks.refuse(f"column {name!r}, row {row}", "an integer", came, advice)
    elif values.dtype.kind in "iuf":
        numbers = values.astype(np.float64)
    else:
        checks.refuse(f"column {name!r}", "integers", str(values.dtype), "number from 0")
    missing = np.isnan(numbers) | (numbers < 0)
    odd = ~missing & (numbers != np.round(numbers))
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        checks.refuse(f"column {name!r}, row {row}", "an integer", str(values[row]), "")
    return np.where(missing, -1, numbers).astype(np.int64), missing
