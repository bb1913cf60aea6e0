"""The figure of what each method imagines and gets."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cai.evaluation.bracket import EvidenceBracket
from cai.evaluation.report import Comparison, Row
from cai.plot.canvas import IMAGINED, REAL, captioned, check_report, figure, finite

_PARTS = {"kl_start": "#c9ada7", "kl_actions": "#81b29a", "kl_dynamics": "#6d597a"}
_DIVERGENCE = "KL to the exact posterior (nats)"


def comparison(report: Comparison) -> Figure:
    """What each method imagines against what it gets, and its divergence from the posterior.

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
    canvas, panels = figure(3 if split or between else 2, height=0.5 * len(rows) + 2.2)
    _bars(panels[0], rows, ("imagined_bound", "elbo"), "bound, ELBO (nats)")
    _bars(panels[1], rows, ("imagined_return", "expected_return"), "return (reward units)")
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False)
    text = (
        "Where the orange bar reaches further right than the blue one, a method expects more than "
        "its policy gets in the true dynamics."
    )
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
    for axes in panels:
        ends = len(rows) - 0.5, -0.5  # the same in all panels, the first row on top
        axes.set(yticks=np.arange(len(rows)), yticklabels=names, ylim=ends)
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
    return captioned(canvas, text)


def _bars(axes: Axes, rows: list[Row], fields: tuple[str, str], label: str) -> None:
    """What each method imagines above what it gets, with standard errors."""
    y = np.arange(len(rows))
    kinds = ((-0.2, IMAGINED, "imagined"), (0.2, REAL, "real"))
    for field, (offset, colour, what) in zip(fields, kinds, strict=True):
        values = [finite(row.estimates[field].value) for row in rows]
        error = [row.estimates[field].stderr or 0.0 for row in rows]
        axes.barh(y + offset, values, 0.36, color=colour, label=what, xerr=error)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(label)


def _divergences(axes: Axes, rows: list[Row]) -> None:
    """The divergence of each row in its three parts."""
    y, left = np.arange(len(rows)), np.zeros(len(rows))
    for field, colour in _PARTS.items():
        parts = np.array([finite(row.estimates[field].value) for row in rows])
        axes.barh(y, parts, 0.6, left, color=colour, label=field.removeprefix("kl_"))
        left += parts
    axes.set_xlabel(_DIVERGENCE)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False)


def _between(axes: Axes, rows: list[Row], between: EvidenceBracket) -> None:
    """The divergence of each row, of which only a bracket is known."""
    y = np.arange(len(rows))
    least = np.array([finite(row.kl_lower) for row in rows])
    most = np.array([finite(row.kl_upper) for row in rows])
    error = [finite(row.kl_lower_stderr) for row in rows]
    axes.barh(y, least, 0.6, color=_PARTS["kl_actions"], label="at least", xerr=error)
    what = "at most" if between.kind == "bound" else "estimate, no bound"
    width = np.maximum(most - least, 0)
    axes.barh(y, width, 0.6, least, color=_PARTS["kl_actions"], alpha=0.4, label=what)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False)
    axes.set_xlabel(_DIVERGENCE)
