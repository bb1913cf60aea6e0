"""The result of a sweep: a line for each cell, in order, as text, CSV or JSON, and as a figure."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, overload

from matplotlib.figure import Figure

from cai import checks, one_line
from cai.evaluation.spelling import aligned, counted, number, spell, without_infinities
from cai.experiments import sweep_figure, sweep_table
from cai.experiments.cells import DONE, Cell
from cai.experiments.grid import COLUMNS, Plain
from cai.files.whole_file import check_path, write_whole

_SHOWN = {"elbo": "ELBO (nats)", "expected_return": "return (reward)", "kl": "KL (nats)"}
_INFINITIES = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclass(frozen=True, eq=False)
class SweepCell:
    """One method on one model of a sweep, with one seed.

    Attributes:
        point: argument of the factory -> its value.
        method: the name of the method.
        seed: the seed.
        row: the columns of :class:`cai.Row`, and ``log_evidence``, by name: nats or reward units,
            None where there is no such number; empty if the cell failed.
        error: what went wrong, or None.
        seconds: how long it took where it was computed; None if its process was killed.
        version: the version of the library that computed it.

    >>> import cai
    >>> from cai import inference, models
    >>> found = cai.sweep(models.ledge, {"temperature": [0.5]}, {"best": inference.soft_values})
    >>> (cell,) = found
    >>> cell.point["temperature"], cell.method, cell.seed, round(cell.row["elbo"], 2)
    (0.5, 'best', 0, -6.57)
    """

    point: Mapping[str, Plain]
    method: str
    seed: int
    row: Mapping[str, float | None]
    error: str | None
    seconds: float | None
    version: str

    __repr__ = one_line.of_fields


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep found, in the order of its grid, methods and seeds, whoever was done first.

    Attributes:
        axes: argument of the factory -> its values.
        methods: the names of the methods.
        seeds: the seeds.
        cells: one for each combination, the seed changing fastest, then the method.

    >>> import cai
    >>> from cai import inference, models
    >>> methods = {"posterior": inference.posterior, "fixed dynamics": inference.soft_values}
    >>> found = cai.sweep(models.ledge, {"temperature": [0.5, 1.0]}, methods)
    >>> [round(cell.row["elbo"], 2) for cell in found if cell.method == "posterior"]
    [-8.47, -3.96]
    """

    axes: Mapping[str, tuple[Plain, ...]]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[SweepCell, ...]

    def __iter__(self) -> Iterator[SweepCell]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def failed(self) -> tuple[SweepCell, ...]:
        """The cells that ended with an error."""
        return tuple(cell for cell in self.cells if cell.error is not None)

    def where(self, **chosen: Plain) -> SweepResult:
        """The part of a sweep in which arguments of the factory have given values.

        Args:
            chosen: argument -> one of its values.

        Raises:
            ValueError: if there is no such argument or value.
        """
        for name, value in chosen.items():
            if name not in self.axes:
                came = ", ".join(self.axes) or "none"
                checks.refuse("where", f"arguments among {came}", name, "as in the grid")
            if value not in self.axes[name]:
                came = ", ".join(map(repr, self.axes[name]))
                checks.refuse(f"where {name}", f"one of {came}", repr(value), "as in the grid")
        kept = tuple(
            cell for cell in self if all(cell.point[k] == value for k, value in chosen.items())
        )
        axes = {name: xs for name, xs in self.axes.items() if name not in chosen}
        return SweepResult(axes, self.methods, self.seeds, kept)

    def summary(self, column: str = "elbo") -> list[dict[str, Any]]:
        """The mean of a column over the seeds, for each point and method.

        Args:
            column: a column of :class:`cai.Row`, or ``log_evidence``.

        Returns:
            Rows of the arguments of the point, ``method``, ``mean``, ``half_width`` (of a 95%
            interval by Student's t, None for one seed), and ``count`` of the seeds that have it.

        Raises:
            ValueError: if there is no such column.
        """
        known = {*COLUMNS, *(name for cell in self for name in cell.row)}
        if not isinstance(column, str) or column not in known:
            advice = "columns are those of cai.Row, and log_evidence"
            checks.refuse("column", f"one of {', '.join(sorted(known))}", repr(column), advice)
        rows = []
        n = len(self.seeds)
        for first in range(0, len(self.cells), n):
            same = self.cells[first : first + n]
            found = [x for cell in same if (x := cell.row.get(column)) is not None]
            mean, half = sweep_table.interval(found)
            given = {**same[0].point, "method": same[0].method}
            rows.append({**given, "mean": mean, "half_width": half, "count": len(found)})
        return rows

    def figure(self, columns: str | Iterable[str] = ("elbo", "expected_return")) -> Figure:
        """Columns against the first argument, a line a method, a panel for each other point.

        Bands are 95% intervals of the mean over seeds, by Student's t.

        Args:
            columns: columns of :class:`cai.Row`, a row of panels each; or a single one.

        Returns:
            A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

        Raises:
            ValueError: if there is no such column, or there would be too many panels; take
                ``where`` then.
        """
        names = [columns] if isinstance(columns, str) else columns
        names = checks.several("columns", names, 'for instance ("elbo",)', "names of columns")
        if not names:
            checks.refuse("columns", "at least one", "none", 'for instance ("elbo",)')
        found = {column: self.summary(column) for column in names}
        return sweep_figure.sweep_figure(self.axes, self.methods, len(self.seeds), found)

    def to_dict(self) -> dict[str, Any]:
        """{"axes", "methods", "seeds", "cells": [{column: value}]}, nats and reward units."""
        cells = [{name: getattr(cell, name) for name in _FIELDS} for cell in self]
        axes = {name: list(values) for name, values in self.axes.items()}
        seeds, methods = list(self.seeds), list(self.methods)
        return {"axes": axes, "methods": methods, "seeds": seeds, "cells": cells}

    def to_json(self) -> str:
        """to_dict as JSON; infinities are "inf" and "-inf"."""
        found = self.to_dict()
        cells = [without_infinities(cell) for cell in found["cells"]]
        axes = {name: list(map(without_infinities, xs)) for name, xs in found["axes"].items()}
        found |= {"axes": axes, "cells": cells}
        return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each cell, and the columns of ``to_csv``.

        Numbers that there are not are NaN. Units are in ``attrs["units"]``.

        Raises:
            ValueError: if pandas is not installed.
        """
        return sweep_table.as_frame(sweep_table.table(self.axes, self.cells), self.axes)

    @overload
    def to_csv(self, path: None = None) -> str: ...
    @overload
    def to_csv(self, path: str | os.PathLike[str]) -> None: ...
    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str | None:
        """A line a cell: its point, method, seed, columns, and its error.

        Numbers are written so that they are read back to the last bit, infinities as inf and -inf;
        what there is not is empty. Seconds are left out, so that the same sweep gives the same text
        however it was computed.

        Args:
            path: a file, which is written whole or not at all; None for the text.

        Raises:
            ValueError: if it is not the path of a file.
        """
        text = sweep_table.as_csv(sweep_table.table(self.axes, self.cells))
        if path is None:
            return text
        file = check_path("path", path, "sweep.csv")
        write_whole(file, lambda open_file: open_file.write(text.encode()))
        return None

    def to_text(self, encoding: str = "utf-8", width: int | None = None) -> str:
        """A table of means over seeds.

        Args:
            encoding: that of the output. Symbols that it lacks are spelt.
            width: characters a line; columns are left out until the table fits. None for all.
        """
        known = {name for cell in self for name, x in cell.row.items() if x is not None}
        shown = {name: self.summary(name) for name in _SHOWN if name in known}
        while True:
            lines = self._lines(shown, encoding)
            if width is None or len(shown) <= 1 or max(map(len, lines)) <= width:
                break
            shown.popitem()
        return "\n".join([*lines, *(spell(note, encoding) for note in self._notes())])

    def _lines(self, shown: dict[str, list[dict[str, Any]]], encoding: str) -> list[str]:
        heading = [*self.axes, "method", *(_SHOWN[name] for name in shown)]
        first = self.summary(next(iter(shown))) if shown else self.summary()
        body = []
        for k, row in enumerate(first):
            cells = [_on_one_line(row[name]) for name in (*self.axes, "method")]
            cells += [_number(rows[k]) for rows in shown.values()]
            body.append(cells)
        return aligned([[spell(x, encoding) for x in line] for line in [heading, *body]])

    def _notes(self) -> list[str]:
        notes = []
        if len(self.seeds) > 1:
            words = "mean of {} ± half of its 95% interval."
            notes.append(words.format(counted(len(self.seeds), "seed")))
        if self.failed:
            cell = self.failed[0]
            where = "".join(f", {name} = {_on_one_line(x)}" for name, x in cell.point.items())
            notes.append(
                f"{counted(len(self.failed), 'cell')} of {len(self)} failed; the first, "
                f"{_on_one_line(cell.method)}, seed {cell.seed}{where}:"
            )
            notes.append(str(cell.error))
        return notes

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        axes = (f"{name}: {len(values)}" for name, values in self.axes.items())
        methods = ", ".join(map(_on_one_line, self.methods))
        parts = [f"{len(self)} cells", *axes, methods, counted(len(self.seeds), "seed")]
        return one_line.named("SweepResult", *parts)

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """The table for IPython."""
        printer.text(str(self))


_FIELDS = ("point", "method", "seed", "row", "error", "seconds", "version")


def cell_of(cell: Cell, line: Mapping[str, Any]) -> SweepCell:
    """A cell as its line says that it ended."""
    row = {name: _INFINITIES.get(x, x) for name, x in (line["row"] or {}).items()}
    error = None if line["outcome"] == DONE else str(line["error"])
    seconds, version = line["seconds"], line["version"]
    return SweepCell(cell.point, cell.method, cell.seed, row, error, seconds, version)


def _on_one_line(value: Any) -> str:
    """A value as text, its line ends and what else is not printed as in a string of Python."""
    signs = str(value)
    return "".join(x if x.isprintable() else x.encode("unicode_escape").decode() for x in signs)


def _number(row: dict[str, Any]) -> str:
    half = row["half_width"]
    return number(row["mean"], half if half else None)
