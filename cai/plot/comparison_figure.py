"""What each method imagines, and what it gets."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cai.drawing.bars import SMALL, beside_bar, legend_above
from cai.drawing.canvas import captioned, check_report, figure, finite
from cai.drawing.palette import (
    ACTIONS,
    DYNAMICS,
    IMAGINED,
    NEUTRAL,
    REAL,
    START,
    UNSEEN,
    lettering,
)
from cai.drawing.signs import three_digits
from cai.evaluation.bracket import EvidenceBracket
from cai.evaluation.report import Comparison, Row

_MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "imagined": (IMAGINED, {"ms": 11, "mfc": "none", "mew": 2}),
    "real": (REAL, {"ms": 6}),
}
_PARTS = {"start": START, "actions": ACTIONS, "dynamics": DYNAMICS}
_DIVERGENCE = "KL to the exact posterior (nats)"
_ROOM = 0.3  # for numbers beside the outermost dots, of their distance


def comparison(report: Comparison) -> Figure:
    """What each method imagines against what it gets, and its divergence from the posterior.

    A ring is what a method imagines, a dot what its policy gets; the dot of a method that imagines
    what it gets lies in its ring. What is infinite or unknown has no mark, but is written.

    Args:
        report: from :func:`cai.compare`.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if the report is not one of :func:`cai.compare`.

    >>> import cai
    >>> from cai import inference, models, plot
    >>> model = models.ledge()
    >>> figure = plot.comparison(cai.compare(model, {"posterior": inference.posterior(model)}))
    """
    check_report(report)
    split, between = report.log_evidence is not None, report.bracket
    names, rows = list(report), list(report.values())
    canvas, panels = figure(3 if split or between else 2, height=0.45 * len(rows) + 2.0)
    for axes in panels:
        ends = len(rows) - 0.5, -0.5  # the same in all panels, the first row on top
        axes.set(yticks=np.arange(len(rows)), yticklabels=names, ylim=ends)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
    _pairs(panels[0], rows, ("imagined_bound", "elbo"), "bound, ELBO (nats)")
    _pairs(panels[1], rows, ("imagined_return", "expected_return"), "return (reward units)")
    legend_above(panels[0], 2)
    text = (
        "Rings: what a method imagines; dots: what its policy gets in the true dynamics, further "
        "left if the method is too optimistic."
    )
    if any(row.elbo_stderr for row in rows):
        text += " Bars: one standard error."
    if split:
        _divergences(panels[2], rows)
        text += (
            " Right: the divergence of each policy in the true dynamics from the exact posterior; "
            "no policy can remove the KL of the dynamics."
        )
    elif between is not None:
        _between(panels[2], rows, between)
        text += (
            " Right: the divergence of each policy from the exact posterior, which is out of "
            "reach: at least the dark part."
        )
    return captioned(canvas, text)


def _pairs(axes: Axes, rows: list[Row], fields: tuple[str, str], label: str) -> None:
    """What each method imagines, and what it gets with its standard error, on one line."""
    imagined, real = ([row.estimates[field] for row in rows] for field in fields)
    known = [x.value for x in (*imagined, *real) if x.value is not None and np.isfinite(x.value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    room = _ROOM * (high - low) or 1.0
    axes.set_xlim(low - room, high + room)
    y = np.arange(len(rows))
    dots = {
        name: (np.array([_nan(x.value) for x in xs]), [x.stderr or 0.0 for x in xs])
        for name, xs in (("imagined", imagined), ("real", real))
    }
    axes.hlines(y, dots["imagined"][0], dots["real"][0], color=UNSEEN, lw=1.5, zorder=1)
    for name, (x, error) in dots.items():
        colour, look = _MARKS[name]
        axes.plot(x, y, "o", color=colour, label=name, zorder=3, **look)
        axes.errorbar(x, y, xerr=error, fmt="none", ecolor=colour, lw=1.2, zorder=2)
    for k, (dream, fact) in enumerate(zip(imagined, real, strict=True)):
        same = _same(dream.value, fact.value, 1e-3 * room)
        if fact.value is not None:
            left = dream.value is not None and fact.value < dream.value and not same
            _beside(axes, fact.value, k, REAL, left)
        if dream.value is not None and not same:
            left = fact.value is not None and dream.value < fact.value
            _beside(axes, dream.value, k, IMAGINED, left)
    axes.set_xlabel(label)


def _same(x: float | None, y: float | None, tolerance: float) -> bool:
    """Whether two marks would lie in one place."""
    return x is not None and y is not None and (x == y or abs(x - y) < tolerance)


def _nan(x: float | None) -> float:
    """A number as it is drawn, nowhere if it is infinite or None."""
    return x if x is not None and np.isfinite(x) else np.nan


def _beside(axes: Axes, x: float, y: float, colour: str, left: bool) -> None:
    """Writes a number beside its mark, or at the end of the axis if it is infinite."""
    at = float(np.clip(x, *axes.get_xlim()))
    left = left if np.isfinite(x) else x > 0
    axes.annotate(
        three_digits(x),
        (at, y),
        xytext=(-9 if left else 9, 0) if np.isfinite(x) else (0, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=SMALL,
        color=lettering(colour),
    )


def _divergences(axes: Axes, rows: list[Row]) -> None:
    """The divergence of each row in its three parts, and their sum."""
    y, left = np.arange(len(rows)), np.zeros(len(rows))
    for part, colour in _PARTS.items():
        nats = np.array([finite(row.estimates[f"kl_{part}"].value) for row in rows])
        axes.barh(y, nats, 0.6, left, color=colour, label=part, edgecolor="white", lw=0.5)
        left += nats
    for k, row in enumerate(rows):
        if row.kl is not None:
            beside_bar(axes, left[k], k, three_digits(max(row.kl, 0.0)))
    axes.set_xlim(0, 1.25 * left.max() or 1.0)
    axes.set_xlabel(_DIVERGENCE)
    legend_above(axes, 3)


def _between(axes: Axes, rows: list[Row], between: EvidenceBracket) -> None:
    """The divergence of each row, of which only a bracket is known."""
    y = np.arange(len(rows))
    least = np.array([finite(row.kl_lower) for row in rows])
    most = np.array([finite(row.kl_upper) for row in rows])
    error = [finite(row.kl_lower_stderr) for row in rows]
    whiskers = {"ecolor": "black", "capsize": 3, "elinewidth": 1.2}
    axes.barh(y, least, 0.6, color=NEUTRAL, label="at least", xerr=error, error_kw=whiskers)
    what = "at most" if between.kind == "bound" else "estimate, no bound"
    width = np.maximum(most - least, 0)
    rest: dict[str, Any] = {"facecolor": "white", "edgecolor": NEUTRAL, "hatch": "////"}
    axes.barh(y, width, 0.6, least, label=what, **rest)
    for k in range(len(rows)):
        ends = f"{three_digits(least[k])} … {three_digits(most[k])}"
        beside_bar(axes, least[k] + width[k], k, ends)
    axes.set_xlim(min(0.0, *least), 1.4 * max(*most, *least) or 1.0)
    axes.set_xlabel(_DIVERGENCE)
    legend_above(axes, 2)
