"""States on a map, or along an axis if there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from cai import checks
from cai.plot.canvas import check_drawn
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel
from cai.tables.state_rewards import state_rewards
from cai.tables.table import Table
from cai.tables.tabulation import enumerated


def map_figure(n: int, layout: Layout, bar: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of n maps of a layout; ``bar`` says whether a colour bar needs room beside them."""
    assert layout.map is not None
    rows, columns = len(layout.map), len(layout.map[0])
    across = n if n * columns <= 20 else min(n, max(1, 24 // columns))
    down = -(-n // across)
    cell = min(0.55, 4.6 / max(rows, columns))
    size = (max(4.6, across * (columns * cell + 0.5) + 1.2 * bar), down * (rows * cell + 0.6) + 0.6)
    canvas = Figure(figsize=size, layout="constrained")
    panels = list(canvas.subplots(down, across, squeeze=False).flat)
    for axes in panels[n:]:
        axes.remove()
    return canvas, panels[:n]


def paint(
    axes: Axes,
    layout: Layout,
    values: Tensor,
    colours: str,
    low: float,
    high: float | None,
    best: bool = False,
) -> Any:
    """Colours the cells of a map; states that share a cell add up, or show the best of them."""
    assert layout.map is not None
    assert layout.cells is not None
    picture = np.full((len(layout.map), len(layout.map[0])), np.nan)
    for (i, j), value in zip(layout.cells, values.tolist(), strict=True):
        if np.isnan(picture[i, j]):
            picture[i, j] = value
        else:
            picture[i, j] = max(picture[i, j], value) if best else picture[i, j] + value
    image = axes.imshow(picture, cmap=colours, vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[])
    lines: dict[str, Any] = {"colors": "#bbbbbb", "linewidth": 0.5}
    axes.hlines(np.arange(len(layout.map) - 1) + 0.5, *axes.get_xlim(), **lines)
    axes.vlines(np.arange(len(layout.map[0]) - 1) + 0.5, *axes.get_ylim(), **lines)
    for i, row in enumerate(layout.map):
        for j, letter in enumerate(row):
            if letter == "#":
                axes.fill_between([j - 0.5, j + 0.5], i - 0.5, i + 0.5, color="#444444")
            elif letter not in ". F":
                text = axes.text(j - 0.45, i - 0.42, letter, fontsize=9, va="top", color="#333333")
                text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    return image


def write_numbers(axes: Axes, picture: Any, top: float) -> None:
    """Writes the finite numbers of a map into its cells, white on those near ``top`` in size."""
    size = 7.0 if picture.shape[1] <= 8 else 5.5
    for (i, j), x in np.ndenumerate(picture):
        if np.isfinite(x):
            colour = "white" if abs(x) > 0.65 * top else "#222222"
            text = f"{x + 0.0:.3g}"  # no minus zero
            axes.text(j, i + 0.1, text, ha="center", va="center", fontsize=size, color=colour)


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


def pays(where: str, reward: Any, model: TrajectoryModel | Table) -> Tensor:
    """(S,), what is paid for acting in each state and on arrival there, reward units."""
    states = enumerated(model).num_states
    if isinstance(reward, Tensor):
        if reward.shape != (states,):
            came = f"shape {list(reward.shape)}"
            checks.refuse(where, f"a number for each of {states} states", came, "see reward_map()")
        return reward.double()
    holder = getattr(reward, "model", reward)  # of a fit
    if not isinstance(holder, TrajectoryModel | Table):
        maker = "inference.fit_reward, a cai.LinearReward with weights or a model"
        check_drawn(where, reward, ("on", "weights"), maker)
        if reward.weights is None:
            advice = "inference.fit_reward finds them, reward.weighted([…]) gives them"
            checks.refuse(where, "a reward with weights", "one without", advice)
        features = reward.on(enumerated(model))
        weights = torch.tensor([reward.weights[x] for x in features.names], dtype=torch.float64)
        holder = features.rewards(enumerated(model), weights)
    found = state_rewards(enumerated(holder))
    if len(found) != states:
        checks.refuse(where, f"one of a model of {states} states", f"{len(found)} states", "")
    return found
