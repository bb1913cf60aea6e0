"""What all figures share: panels side by side, and a caption below."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cai import checks
from cai.evaluation.report import Comparison
from cai.tables.table import Table


def figure(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, height in inches."""
    canvas = Figure(figsize=(max(6.0, 3.8 * panels), height), layout="constrained")
    return canvas, list(canvas.subplots(1, panels, squeeze=False)[0])


def captioned(figure: Figure, text: str) -> Figure:
    """The figure, with a caption below in lines of even length that fit into its width."""
    width = int(figure.get_figwidth() * 14)
    lines = textwrap.wrap(text, width)
    while len(narrower := textwrap.wrap(text, width - 1)) == len(lines):
        lines, width = narrower, width - 1
    figure.supxlabel("\n".join(lines), fontsize=8, color="#444444")
    return figure


def finite(x: float | None) -> float:
    """A number as it is drawn; zero for infinities and None."""
    return x if x is not None and np.isfinite(x) else 0.0


def check_report(report: Any) -> None:
    """Raises ValueError unless it is a result of :func:`cai.compare`."""
    checks.check_kind(
        "report", report, Comparison, "a cai.Comparison", "pass the result of cai.compare"
    )


def check_drawn(name: str, value: Any, fields: tuple[str, ...], maker: str) -> None:
    """Raises ValueError unless a value has the fields that are drawn of what a function returns."""
    if isinstance(value, type) or not all(hasattr(value, x) for x in fields):
        came = type(value).__name__
        checks.refuse(name, f"a result of {maker}", came, f"pass what {maker} returns")


def tabulated(report: Comparison) -> Table:
    """The table of the model of a report.

    Raises:
        ValueError: unless it is a result of :func:`cai.compare` on finitely many states.
    """
    check_report(report)
    if report.table is None:
        checks.refuse(
            "report",
            "a comparison on a model with finitely many states, to draw them one by one",
            "another",
            "plot.trajectories draws trajectories of continuous models, plot.comparison and "
            "plot.losses any model",
        )
    return report.table
