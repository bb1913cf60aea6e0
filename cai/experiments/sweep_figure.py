"""The figure of a sweep: what methods get against an argument of the model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cai import checks
from cai.drawing.canvas import captioned
from cai.drawing.palette import SERIES
from cai.experiments.grid import Plain

_UNITS = {"expected_return": "return (reward units)", "elbo": "ELBO (nats)"}
_MARKERS, _DASHES = "os^Dv", ("-", "--", ":")
_MOST_PANELS = 6  # side by side
_WIDE = 10.0  # ratio of the ends of an axis from which on it is logarithmic


def sweep_figure(
    axes: Mapping[str, Sequence[Plain]],
    methods: Sequence[str],
    seeds: int,
    found: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Figure:
    """Columns against the first axis: a line a method, a panel for each point of the other axes.

    Args:
        axes: argument -> its values.
        methods: names.
        seeds: how many.
        found: column -> rows of its summary, in the order of the axes and then the methods.

    Raises:
        ValueError: if there are too many panels.
    """
    (across, values), *others = list(axes.items()) or [("", ("",))]
    panels = list(itertools.product(*(values for _, values in others)))
    if len(panels) > _MOST_PANELS:
        names = " and ".join(name for name, _ in others)
        advice = f"draw a part, as result.where({others[-1][0]}={others[-1][1][0]!r}).figure()"
        expected = f"at most {_MOST_PANELS} panels, for combinations of {names}"
        checks.refuse("figure", expected, str(len(panels)), advice)
    canvas = Figure(
        figsize=(max(6.0, 3.2 * len(panels)), 0.6 + 2.6 * len(found)), layout="constrained"
    )
    known = {
        x["method"] for rows in found.values() for x in rows if not math.isnan(_drawn(x["mean"]))
    }
    labels = [name if name in known else f"{name}: no number" for name in methods]
    grid = canvas.subplots(len(found), len(panels), squeeze=False, sharex=True, sharey="row")
    for line, (column, rows) in zip(grid, found.items(), strict=True):
        for k, panel in enumerate(line):
            # Rows are ordered by the first axis, the others, and then the method.
            size = len(panels) * len(methods)
            here = [list(rows[i * size :][k * len(methods) :]) for i in range(len(values))]
            for j, label in enumerate(labels):
                _draw(panel, values, [line[j] for line in here], label, j)
        line[0].set_ylabel(_UNITS.get(column, column.replace("_", " ")))
    for panel, point in zip(grid[0], panels, strict=True):
        pairs = zip(others, point, strict=True)
        panel.set_title(", ".join(f"{name} = {value}" for (name, _), value in pairs), fontsize=10)
    for panel in grid[-1]:
        panel.set_xlabel(across)
    grid[0, 0].legend(frameon=False, fontsize=8)
    return captioned(canvas, _caption(seeds))


def _caption(seeds: int) -> str:
    text = "What the policy of each method gets in the true dynamics."
    if seeds > 1:
        text += f" Means of {seeds} seeds, with 95% intervals by Student's t."
    return text


def _draw(
    panel: Axes, values: Sequence[Plain], rows: list[Mapping[str, Any]], label: str, j: int
) -> None:
    """The line of one method, with its interval; what is infinite or unknown is left out."""
    x = _places(panel, values)
    mean = np.array([_drawn(row["mean"]) for row in rows])
    half = np.array([_drawn(row["half_width"]) for row in rows])
    colour, dash = SERIES[j % len(SERIES)], _DASHES[j // len(SERIES) % len(_DASHES)]
    order = np.argsort(x)
    x, mean, half = x[order], mean[order], half[order]
    style = dash if _numeric(values) else "none"
    marker = _MARKERS[j % len(_MARKERS)]
    # Later ones are smaller, so that marks in one place are all seen.
    size = max(4.0, 9.0 - j)
    look: dict[str, Any] = {
        "linestyle": style,
        "marker": marker,
        "ms": size,
        "mfc": "none",
        "color": colour,
    }
    panel.plot(x, mean, label=label, **look)
    if (np.nan_to_num(half) > 0).any():
        panel.fill_between(x, mean - half, mean + half, color=colour, alpha=0.2, lw=0)
        panel.errorbar(x, mean, half, fmt="none", ecolor=colour, elinewidth=1, capsize=2)
    panel.spines[["top", "right"]].set_visible(False)
    panel.ticklabel_format(axis="y", useOffset=False)


def _places(panel: Axes, values: Sequence[Plain]) -> np.ndarray:
    """Where values lie on the axis, whose scale and marks are set."""
    if not _numeric(values):
        panel.set_xticks(range(len(values)), list(map(str, values)))
        panel.set_xlim(-0.5, len(values) - 0.5)
        return np.arange(len(values), dtype=float)
    x = np.array([float(value or 0) for value in values])
    if x.min() > 0 and x.max() / x.min() >= _WIDE:
        panel.set_xscale("log")
        if len(values) <= _MOST_PANELS:
            panel.set_xticks(x, [f"{value:g}" for value in x], minor=False)
            panel.xaxis.set_minor_locator(NullLocator())
    return x


def _numeric(values: Sequence[Plain]) -> bool:
    """Whether all are finite numbers."""
    numbers = [x for x in values if isinstance(x, int | float) and not isinstance(x, bool)]
    return len(numbers) == len(values) and all(map(math.isfinite, numbers))


def _drawn(x: float | None) -> float:
    return x if x is not None and math.isfinite(x) else math.nan
