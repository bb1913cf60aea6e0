"""States on a map, or along an axis if there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from cai.drawing.palette import UNSEEN, ink
from cai.program.layout import Layout
from cai.tables.table import Table

_BAR = 3.2  # inches, the longest scale of colours


def map_figure(n: int, layout: Layout, bar: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of n maps of a layout; ``bar`` says whether a colour bar needs room beside them."""
    assert layout.map is not None
    rows, columns = len(layout.map), len(layout.map[0])
    across = n if n * columns <= 20 else min(n, max(1, 24 // columns))
    down = -(-n // across)
    cell = cell_size(layout)
    size = (max(4.6, across * (columns * cell + 0.5) + 1.2 * bar), down * (rows * cell + 0.6) + 0.6)
    canvas = Figure(figsize=size, layout="constrained")
    panels = list(canvas.subplots(down, across, squeeze=False).flat)
    for axes in panels[n:]:
        axes.remove()
    return canvas, panels[:n]


def cell_size(layout: Layout) -> float:
    """The width of a cell, inches."""
    assert layout.map is not None
    return min(0.55, 5.4 / max(len(layout.map), len(layout.map[0])))


def on_map(layout: Layout, values: Tensor, best: bool = False) -> np.ndarray:
    """Values (S,) in their cells; states that share a cell add up, or show the best of them."""
    assert layout.map is not None
    assert layout.cells is not None
    picture = np.full((len(layout.map), len(layout.map[0])), np.nan)
    combine = np.fmax if best else lambda old, new: new if np.isnan(old) else old + new
    for cell, value in zip(layout.cells, values.tolist(), strict=True):
        picture[cell] = combine(picture[cell], value)
    return picture


def paint(axes: Axes, layout: Layout, picture: np.ndarray, colours: str, scale: Normalize) -> Any:
    """Colours the cells of a map, hatches its walls, and writes its letters."""
    assert layout.map is not None
    image = axes.imshow(picture, cmap=colours, norm=scale)
    axes.set(xticks=[], yticks=[])
    lines: dict[str, Any] = {"colors": "#bbbbbb", "linewidth": 0.5}
    axes.hlines(np.arange(len(layout.map) - 1) + 0.5, *axes.get_xlim(), **lines)
    axes.vlines(np.arange(len(layout.map[0]) - 1) + 0.5, *axes.get_ylim(), **lines)
    letters = {(i, j): x for i, row in enumerate(layout.map) for j, x in enumerate(row)}
    walls = [Rectangle((j - 0.5, i - 0.5), 1, 1) for (i, j), x in letters.items() if x == "#"]
    look: dict[str, Any] = {"facecolor": "#eeeeee", "edgecolor": UNSEEN, "linewidth": 0}
    axes.add_collection(PatchCollection(walls, hatch="/////", **look))
    size = _size(layout, 9.0)
    for (i, j), letter in letters.items():
        if letter not in "#. F":
            colour = ink(_colour(image, picture[i, j]))
            axes.text(j - 0.44, i - 0.43, letter, fontsize=size, va="top", color=colour)
    return image


def write_numbers(
    axes: Axes, layout: Layout, picture: np.ndarray, image: Any, written: Callable[[float], str]
) -> None:
    """Writes the finite numbers of a picture into its cells, legible on the colours of an image."""
    size = _size(layout, 7.5)
    for (i, j), x in np.ndenumerate(picture):
        if np.isfinite(x):
            colour = ink(_colour(image, x))
            axes.text(
                j, i + 0.12, written(x), ha="center", va="center", fontsize=size, color=colour
            )


def colour_bar(canvas: Figure, image: Any, panels: list[Axes], label: str) -> Any:
    """A scale of colours beside maps, not longer than is needed."""
    share = min(0.8, _BAR / canvas.get_figheight())
    return canvas.colorbar(image, ax=panels, label=label, shrink=share)


def state_ticks(axes: Axes, table: Table, states: list[int] | None = None) -> None:
    """Writes the names of the states below an axis, or numbers that find room there."""
    states = list(range(table.num_states)) if states is None else states
    layout = table.layout
    if layout is not None and layout.states is not None:
        names = [layout.states[s] for s in states]
        axes.set_xticks(range(len(states)), names, rotation=30, ha="right", fontsize=8)
    else:
        every = max(1, len(states) // 12)
        axes.set_xticks(range(0, len(states), every), map(str, states[::every]), fontsize=8)
    axes.set_xlabel("state")


def state_name(layout: Layout | None, s: int) -> str:
    """A state as a reader of the map knows it: its name, its cell, or else its number."""
    if layout is not None and layout.states is not None:
        return layout.states[s]
    if layout is None or layout.cells is None or layout.map is None:
        return f"state {s}"
    i, j = layout.cells[s]
    letter = layout.map[i][j]
    place = letter if letter not in ". F" and str(layout.map).count(letter) == 1 else ""
    alone = layout.cells.count((i, j)) == 1
    return (place or f"row {i}, column {j}") + ("" if alone else f" (state {s})")


def _colour(image: Any, value: float) -> Any:
    """The colour of a value in an image; white where there is none."""
    return image.cmap(image.norm(value))[:3] if np.isfinite(value) else "white"


def _size(layout: Layout, largest: float) -> float:
    """A size of text that fits into a cell, points."""
    return float(np.clip(18 * cell_size(layout), 5.0, largest))
