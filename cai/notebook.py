"""What a notebook shows of a result: a table of its numbers, a map of its states, a small curve."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

_MOST_CELLS = 900  # of a map; larger ones are for figures
_ARROWS = {(-1, 0): "↑", (1, 0): "↓", (0, -1): "←", (0, 1): "→", (0, 0): "·"}
_BLUE = "47,102,144"
_WIDTH, _HEIGHT = 240, 48  # pixels of a curve


def card(title: str, rows: Iterable[tuple[str, str]], *below: str) -> str:
    """HTML of a title and a table of names and values, which are escaped, and of what follows.

    Args:
        title: above the table.
        rows: (name, value).
        below: HTML, for instance of :func:`on_map` and :func:`curve`.
    """
    lines = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:right'>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    table = f"<table><caption>{html.escape(title)}</caption><tbody>{lines}</tbody></table>"
    return f"<div>{table}{''.join(below)}</div>"


def on_map(layout: Any, values: Tensor, caption: str, best: Tensor | None = None) -> str:
    """HTML of a map whose cells are shaded by a number for each state; empty without a map.

    Args:
        layout: a ``cai.Layout`` or None.
        values: (S,), averaged over the states that share a cell.
        caption: what the numbers are.
        best: (S,), an action for each state, shown by an arrow; or None.
    """
    if layout is None or not layout.map or layout.cells is None:
        return ""
    if len(layout.map) * len(layout.map[0]) > _MOST_CELLS:
        return ""
    states: dict[tuple[int, int], list[int]] = {}
    for s, cell in enumerate(layout.cells):
        states.setdefault(cell, []).append(s)
    numbers = {cell: values[of].double().mean().item() for cell, of in states.items()}
    finite = [x for x in numbers.values() if math.isfinite(x)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    least = 1e-3 * max(abs(low), abs(high))  # smaller ones are shown as 0
    rows = []
    for i, line in enumerate(layout.map):
        cells = []
        for j, letter in enumerate(line):
            x = numbers.get((i, j))
            if x is None:
                cells.append("<td style='background:#ddd'></td>")
                continue
            shade = 0.75 * (x - low) / (high - low) if math.isfinite(x) and high > low else 0.0
            mark = "" if best is None else _mark(layout, int(best[states[i, j][0]]))
            shown = html.escape(f"{letter} {mark}".strip())
            cells.append(
                f"<td style='background:rgba({_BLUE},{shade:.2f});text-align:center'>"
                f"<small>{shown}<br>{0 if abs(x) < least else x:.3g}</small></td>"
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><caption>{html.escape(caption)}</caption><tbody>{''.join(rows)}</tbody></table>"


def _mark(layout: Any, action: int) -> str:
    """An arrow for an action that moves to a neighbouring cell, else its name or number."""
    move = None if layout.moves is None else layout.moves[action]
    if move in _ARROWS:
        return _ARROWS[move]
    return str(action) if layout.actions is None else str(layout.actions[action])


def curve(values: Tensor, caption: str) -> str:
    """HTML of a small curve of numbers, as an inline SVG; empty for fewer than two finite ones."""
    y = values.detach().double()
    y = y[y.isfinite()]
    if len(y) < 2:
        return ""
    y = y[torch.linspace(0, len(y) - 1, min(len(y), _WIDTH)).round().long()]
    spread = float(y.max() - y.min()) or 1.0
    points: Sequence[str] = [
        f"{k * _WIDTH / (len(y) - 1):.1f},{_HEIGHT * float(y.max() - x) / spread:.1f}"
        for k, x in enumerate(y)
    ]
    return (
        f"<div><svg width='{_WIDTH}' height='{_HEIGHT}'><polyline fill='none' "
        f"stroke='rgb({_BLUE})' points='{' '.join(points)}'/></svg><br>"
        f"<small>{html.escape(caption)}</small></div>"
    )
