"""Bars: what is written beside them, and the legend above their panel."""

from __future__ import annotations

from matplotlib.axes import Axes

from cai.drawing.palette import REFERENCE

SMALL = 8  # points, of numbers


def legend_above(axes: Axes, columns: int) -> None:
    """A legend above the panel, from its left edge."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.0,
        borderaxespad=0.2,
    )


def beside_bar(axes: Axes, x: float, y: float, text: str) -> None:
    """Words to the right of the end of a bar."""
    axes.annotate(
        text,
        (x, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        color=REFERENCE,
    )
