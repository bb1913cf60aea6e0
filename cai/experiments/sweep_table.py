"""The cells of a sweep as a table: a column for each argument and each number."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy import stats

from cai.frames.data_frame import data_frame

_TEXTS = ("method", "seed", "error")  # which are in every table


def table(axes: Iterable[str], cells: Sequence[Any]) -> dict[str, list[Any]]:
    """Name -> values, an entry for each cell: its point, method, seed, numbers, and its error.

    Args:
        axes: the arguments of the factory.
        cells: each with point, method, seed, row and error.
    """
    columns = dict.fromkeys(name for cell in cells for name in cell.row)
    found = {name: [cell.point[name] for cell in cells] for name in axes}
    found |= {name: [getattr(cell, name) for cell in cells] for name in ("method", "seed")}
    found |= {name: [cell.row.get(name) for cell in cells] for name in columns}
    return found | {"error": [cell.error for cell in cells]}


def as_csv(columns: Mapping[str, Sequence[Any]]) -> str:
    """A table as CSV, in which what there is not is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def as_frame(columns: Mapping[str, Sequence[Any]], axes: Iterable[str]) -> Any:
    """A table as a pandas DataFrame, in which numbers that there are not are NaN.

    Args:
        columns: name -> values.
        axes: the arguments of the factory, which have no units.

    Raises:
        ValueError: if pandas is not installed.
    """
    numbers = [name for name in columns if name not in (*axes, *_TEXTS)]
    found = dict(columns)
    for name in numbers:
        found[name] = [math.nan if x is None else x for x in columns[name]]
    return data_frame(found, {name: "reward" if "return" in name else "nats" for name in numbers})


def interval(numbers: list[float]) -> tuple[float | None, float | None]:
    """The mean, and half the width of its 95% interval by Student's t."""
    if not numbers:
        return None, None
    mean = sum(numbers) / len(numbers)
    if len(numbers) < 2 or not math.isfinite(mean):
        return mean, None
    spread = statistics.stdev(numbers) / math.sqrt(len(numbers))
    return mean, float(stats.t.ppf(0.975, len(numbers) - 1)) * spread
