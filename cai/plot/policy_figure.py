"""The policy of each method: arrows on a map, or bars."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from cai.drawing.canvas import captioned, figure, tabulated
from cai.drawing.maps import cell_size, map_figure, on_map, paint, state_ticks
from cai.drawing.palette import HATCHES, LEVELS, REFERENCE, SHARES, UNSEEN, ink
from cai.evaluation.report import Comparison, Row
from cai.policies.as_table import policy_log_probs
from cai.program.layout import Layout
from cai.tables.absorbing import absorbing
from cai.tables.table import Table

_REACH = 0.46  # of a cell, the length of its longest arrow
_DOT = 0.28  # of a cell, the width of its largest dot
_LEAST = 0.02  # a less probable move is not drawn


def policies(report: Comparison) -> Figure:
    """The policy of each method: arrows on the map, or the probability of each action.

    A policy that changes with time is averaged over steps, weighted by how often it is in the state
    at each step; in states that it never visits it is shown at step 0. The longest arrow of each
    cell has one length; moves less probable than 2% are not drawn.

    Args:
        report: from :func:`cai.compare`, of a model that can be tabulated.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if the model has no finite states.

    >>> import cai
    >>> from cai import inference, models, plot
    >>> model = models.ledge()
    >>> figure = plot.policies(cai.compare(model, {"posterior": inference.posterior(model)}))
    """
    table = tabulated(report)
    layout = table.layout
    if layout is None or layout.map is None or layout.moves is None:
        return _bars(report, table)
    canvas, panels = map_figure(len(report), layout)
    blank = on_map(layout, torch.zeros(table.num_states))
    unseen = False
    for axes, (name, row) in zip(panels, report.items(), strict=True):
        paint(axes, layout, blank, SHARES, Normalize(0.0, 1.0))
        unseen |= _arrows(axes, layout, row, table)
        axes.set_title(name, fontsize=9)
    text = (
        "Arrows: the probability of each move relative to the likeliest move of its cell, averaged "
        "over the steps at which the policy is in that cell."
    )
    if (0, 0) in layout.moves:
        _name_dots(canvas, layout)
        text += " Dots, by their area: actions that do not move."
    if unseen:
        text += " Grey: never visited, as at step 0."
    return captioned(canvas, text)


def _visits(row: Row, table: Table) -> tuple[Tensor, Tensor]:
    """Expected counts of each action in each state, (S, A), and the policy at step 0, (S, A)."""
    assert row.evaluation.state_actions is not None
    log_policy = policy_log_probs(getattr(row.method, "policy", row.method), table).detach()
    if table.horizon is None:
        return row.evaluation.state_actions, log_policy.exp()
    return row.evaluation.state_actions.sum(0), log_policy[0].exp()


def _bars(report: Comparison, table: Table) -> Figure:
    canvas, panels = figure(len(report), height=3.4)
    layout, A = table.layout, table.num_actions
    names = layout.actions if layout and layout.actions else tuple(map(str, range(A)))
    states = (~absorbing(table)).nonzero().flatten()
    x, colours = np.arange(len(states)), colormaps[LEVELS](np.linspace(0.05, 0.95, A))
    for axes, (title, row) in zip(panels, report.items(), strict=True):
        visits, otherwise = _visits(row, table)
        total = visits.sum(-1, keepdim=True)
        policy = torch.where(total > 0, visits / total.clamp(min=1e-300), otherwise)[states].numpy()
        bottom = np.zeros(len(states))
        for a in range(A):
            # The lines of a hatch have the colour of the edge.
            look = {"color": colours[a], "hatch": HATCHES[a % len(HATCHES)], "lw": 0}
            look |= {"edgecolor": ink(colours[a][:3])}
            axes.bar(x, policy[:, a], 0.7, bottom, label=names[a], **look)
            bottom += policy[:, a]
        axes.set_title(title, fontsize=9)
        axes.set_ylim(0, 1)
        state_ticks(axes, table, states.tolist())
    panels[0].set_ylabel("probability of the action")
    panels[-1].legend(
        fontsize=8,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        reverse=True,
        handleheight=1.4,
    )
    return captioned(
        canvas,
        "The policy in each state that is not absorbing, averaged over the steps at which it is "
        "there.",
    )


def _arrows(axes: Axes, layout: Layout, row: Row, table: Table) -> bool:
    """Arrows for moves, dots for not moving; whether some cell is never visited."""
    places, directions, shares, colours = _moves(layout, row, table)
    still = ~directions.any(-1)
    i, j = places.T
    down, right = (_REACH * shares[:, None] * directions)[~still].T
    axes.quiver(
        j[~still],
        i[~still],
        right,
        down,
        color=colours[~still],
        angles="xy",
        scale_units="xy",
        scale=1,
        units="x",
        width=0.055,
        headwidth=3.6,
        headlength=3.6,
        headaxislength=3.3,
        minlength=0,
    )
    widest = (72 * _DOT * cell_size(layout)) ** 2
    axes.scatter(j[still], i[still], widest * shares[still], color=colours[still], linewidths=0)
    return bool((colours == UNSEEN).any())


def _moves(
    layout: Layout, row: Row, table: Table
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cell, direction, probability over that of the cell's likeliest move, colour: of each move."""
    assert layout.cells is not None
    assert layout.moves is not None
    visits, otherwise = _visits(row, table)
    by_cell: dict[tuple[int, int], list[int]] = {}
    for s in (~absorbing(table)).nonzero().flatten().tolist():
        by_cell.setdefault(layout.cells[s], []).append(s)
    directions = list(dict.fromkeys(layout.moves))
    which = torch.tensor([directions.index(move) for move in layout.moves])
    places, found, shares, colours = [], [], [], []
    for cell, states in by_cell.items():
        counts = visits[states].sum(0)
        seen = bool(counts.sum() > 0)
        policy = counts / counts.sum() if seen else otherwise[states].mean(0)
        p = torch.zeros(len(directions), dtype=policy.dtype).index_add(0, which, policy)
        for k in (p >= _LEAST).nonzero().flatten().tolist():
            places.append(cell)
            found.append(directions[k])
            shares.append(float(p[k] / p.max()))
            colours.append(REFERENCE if seen else UNSEEN)
    shape = (len(places), 2)
    return (
        np.array(places, dtype=float).reshape(shape),
        np.array(found, dtype=float).reshape(shape),
        np.array(shares, dtype=float),
        np.array(colours, dtype=object),
    )


def _name_dots(canvas: Figure, layout: Layout) -> None:
    """A legend with the actions that do not move."""
    assert layout.moves is not None
    names = layout.actions or tuple(f"action {a}" for a in range(len(layout.moves)))
    still = [name for name, move in zip(names, layout.moves, strict=True) if move == (0, 0)]
    dot = Line2D([], [], ls="", marker="o", color=REFERENCE, ms=5)
    canvas.legend([dot], [", ".join(still)], loc="outside upper center", frameon=False, fontsize=8)
