"""A policy on a map of 16 x 16 cells, drawn and saved, against the same arrows by one ``quiver``.

The reference is what somebody would write by hand: the probabilities of the moves of each cell,
averaged over steps by how often the policy is there, all arrows in one call, on a figure of the
same size, and ``savefig`` into memory. It has no layout, grid, letters or caption. That the arrows
are the same is checked first.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

import cai
from benchmarks.timing import Race, check_close
from cai import inference, models, plot

_SIDE, _STEPS = 16, 40
_LEAST, _REACH = 0.02, 0.46  # the smallest probability that is drawn; the longest arrow, of a cell
# The grid, the letters and the caption may cost four times the arrows, and less beside saving.
_MADE, _SAVED = 0.2, 0.4


def made() -> Race:
    """``plot.policies`` alone."""
    return _race("arrows, made", saved=False)


def saved() -> Race:
    """``plot.policies`` and ``savefig``."""
    return _race("arrows, made and saved", saved=True)


def _race(name: str, saved: bool) -> Race:
    rows = ["S" + "." * (_SIDE - 1), *["." * _SIDE] * (_SIDE - 2), "." * (_SIDE - 1) + "G"]
    report = cai.compare(
        model := models.gridworld(rows, horizon=_STEPS, slip=0.1),
        {"best": inference.soft_values(model)},
    )
    by_hand = functools.partial(_by_hand, report, plot.policies(report).get_size_inches())
    check_close("arrows", _arrows(plot.policies(report)), _arrows(by_hand()), 1e-9)

    def finished(figure: Figure) -> Figure:
        if saved:
            figure.savefig(io.BytesIO())
        return figure

    return Race(
        name=name,
        sizes=f"{_SIDE}x{_SIDE} cells, 4 moves",
        reference="Matplotlib, one quiver",
        ours=lambda: finished(plot.policies(report)),
        theirs=lambda: finished(by_hand()),
        target=_SAVED if saved else _MADE,
    )


def _by_hand(report: cai.Comparison, size: Any) -> Figure:
    layout, evaluation = report.table.layout, report["best"].evaluation
    counts = evaluation.state_actions.sum(0).numpy()
    goal = layout.cells.index((_SIDE - 1, _SIDE - 1))
    p = np.delete(counts / counts.sum(1, keepdims=True), goal, axis=0)
    i, j = np.delete(np.array(layout.cells), goal, axis=0).T
    s, a = (p >= _LEAST).nonzero()
    down, right = (_REACH * p / p.max(1, keepdims=True))[s, a] * np.array(layout.moves)[a].T
    figure = Figure(figsize=size)
    axes = figure.subplots()
    look = {"angles": "xy", "scale_units": "xy", "scale": 1, "units": "x", "width": 0.055}
    axes.quiver(j[s], i[s], right, down, **look)
    axes.set(xlim=(-0.5, _SIDE - 0.5), ylim=(_SIDE - 0.5, -0.5), aspect="equal")
    return figure


def _arrows(figure: Figure) -> np.ndarray:
    """Place and direction of each arrow of a figure, in one order."""
    (arrows,) = figure.findobj(Quiver)
    found = np.column_stack([arrows.X, arrows.Y, arrows.U, arrows.V])
    return found[np.lexsort(found.round(9).T)]
