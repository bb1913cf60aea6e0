"""Figures of optimism: by how much states are overrated, and the curve over η."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from cai import checks
from cai.drawing.canvas import captioned, check_drawn, figure, finite
from cai.drawing.maps import (
    colour_bar,
    map_figure,
    on_map,
    paint,
    state_name,
    state_ticks,
    write_numbers,
)
from cai.drawing.palette import DYNAMICS, IMAGINED, LUCK, NEUTRAL, REAL, REFERENCE, ink
from cai.drawing.signs import signs
from cai.evaluation import references
from cai.explorer.explorer_page import Explorer, page_of
from cai.program.trajectory import TrajectoryModel
from cai.solutions.chain import Chain
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_TICKS = (-np.inf, -3.0, -1.0, 0.0, 1.0, 3.0, np.inf)
_TANGENTS = 11  # at most so many
_NAMED = 7  # policy switches that have room for their names
_APART = 0.03  # of the width of an axis, between the numbers of two switches
_NUMBERED = 20  # bars that have room for their numbers
_ROUNDING = 1e-9  # nats: less is the noise of rounding


class _Change(Protocol):
    """Beyond an optimism, action ``after`` takes the place of ``before`` in state s at step t."""

    @property
    def optimism(self) -> float: ...
    @property
    def t(self) -> int: ...
    @property
    def s(self) -> int: ...
    @property
    def before(self) -> int: ...
    @property
    def after(self) -> int: ...


class _Curve(Protocol):
    """What is drawn of an ``inference.OptimismCurve``: columns (n,) in nats and reward units."""

    @property
    def optimism(self) -> Tensor: ...
    @property
    def bound(self) -> Tensor: ...
    @property
    def tilt(self) -> Tensor: ...
    @property
    def slope(self) -> Tensor: ...
    @property
    def elbo(self) -> Tensor: ...
    @property
    def expected_return(self) -> Tensor: ...
    @property
    def imagined_return(self) -> Tensor: ...
    @property
    def changes(self) -> Sequence[_Change]: ...
    @property
    def table(self) -> Table: ...


def optimism_curve(curve: _Curve) -> Figure:
    """Bound and ELBO, imagined and real return against the optimism, from worst case to best.

    Tangents show the slope of the bound, the KL of the dynamics over η². A vertical line marks
    where the policy switches to another action.

    Args:
        curve: from :func:`cai.inference.optimism_curve`.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if it is not a result of ``inference.optimism_curve``.

    >>> from cai import inference, models, plot
    >>> figure = plot.optimism_curve(inference.optimism_curve(models.ledge(), [-1.0, 0.0, 1.0]))
    """
    check_drawn("curve", curve, ("optimism", "bound", "changes"), "inference.optimism_curve")
    canvas, (left, right) = figure(2, height=4.2)
    canvas.set_figwidth(9.0)
    x = _scaled(curve.optimism.numpy())
    left.plot(x, _drawn(curve.bound), color=IMAGINED, label="bound")
    left.plot(x, _drawn(curve.elbo), color=REAL, label="ELBO of the policy")
    _tangents(left, x, curve)
    left.set_ylabel("bound, ELBO (nats)")
    right.plot(x, _drawn(curve.imagined_return), color=IMAGINED, label="imagined")
    right.plot(x, _drawn(curve.expected_return), color=REAL, label="real")
    right.set_ylabel("return of the policy (reward units)")
    for axes in (left, right):
        _optimism_axis(axes, x)
        for change in curve.changes:
            at = float(_scaled(np.array(change.optimism)))
            axes.axvline(at, color=NEUTRAL, linestyle="--", linewidth=0.8, zorder=0)
        axes.legend(loc="best", framealpha=0.8, edgecolor="none", fontsize=8)
        _number_changes(axes, curve)
    return captioned(
        canvas,
        "From the worst case to the best. Left: the bound and its "
        "tangents, whose slope is the KL of the dynamics, in nats, over η²; the gap between bound "
        "and ELBO is luck that the policy counts on (η\u00a0>\u00a00) or guards against "
        "(η\u00a0<\u00a00)." + _named_changes(curve),
    )


def explore(
    model: TrajectoryModel | Table | Chain | None = None, *, name: str = "model"
) -> Explorer:
    """A page for a browser in which optimism is a slider: what is imagined, and what it gets.

    Temperature, horizon and discount are sliders, too. Without a model there are maps to paint on,
    with slip, wind and rewards. The page solves the recursion of ``inference.soft_values`` itself,
    needs no server and no network, and gives the lines of Python that make its numbers.

    Args:
        model: a model that can be tabulated, with a finite horizon; its table; a solution, whose
            table is taken; or None for the built-in maps and the ledge.
        name: of the model, for the heading.

    Returns:
        An ``Explorer``: a notebook shows it; ``save(path)`` writes the page to a file, ``open()``
        opens it in a browser, and ``html`` is its text.

    Raises:
        ValueError: if the model cannot be tabulated, its horizon is infinite, or its table would
            have more than 2 MB.

    >>> from cai import models, plot
    >>> page = plot.explore(models.ledge(), name="ledge")
    >>> page.title
    'Turn the dial: ledge'
    """
    checks.check_kind("name", name, str, "a text", 'for instance name="my model"')
    problem = model.table if isinstance(model, Chain) else model
    return page_of(None if problem is None else tabulate(problem), name)


def optimism(model: TrajectoryModel | Table) -> Figure:
    """By how many nats the exact posterior overrates each state.

    (V^1_0(s) - V^0_0(s))/α: the exact values at optimism 1 minus those in the true dynamics.

    Args:
        model: a model that can be tabulated, or its table.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if the model cannot be tabulated, or has an infinite horizon and no finite
            values.

    >>> from cai import models, plot
    >>> figure = plot.optimism(models.ledge())
    """
    table = tabulate(model)
    values = [references.solved(table, eta).log_values for eta in (1.0, 0.0)]
    surplus = values[0] - values[1]
    surplus = surplus if table.horizon is None else surplus[0]
    surplus = surplus.where(~surplus.isnan(), 0.0)  # -inf - -inf at dead ends
    surplus = surplus.where(surplus.abs() > _ROUNDING, 0.0)
    layout, label = table.layout, "optimism (nats)"
    if layout is None or layout.map is None:
        canvas, (axes,) = figure(1, height=3.4)
        bars = axes.bar(
            range(table.num_states), [finite(x) for x in surplus.tolist()], color=DYNAMICS
        )
        if table.num_states <= _NUMBERED:
            numbers = ["" if np.isinf(x) else signs(f"{x:.2g}") for x in surplus.tolist()]
            axes.bar_label(bars, numbers, fontsize=8)
            axes.margins(y=0.1)
        for s in surplus.isinf().nonzero().flatten().tolist():
            axes.text(s, 0, "∞", ha="center", va="bottom", color=DYNAMICS, fontsize=14)
        axes.set(ylabel=label, xlabel="state")
        state_ticks(axes, table)
    else:
        canvas, (axes,) = map_figure(1, layout, bar=True)
        picture = on_map(layout, surplus, best=True)
        known = picture[np.isfinite(picture)]
        top = known.max(initial=0.0) or 1.0
        image = paint(axes, layout, picture.clip(max=top), LUCK, Normalize(0.0, top))
        finite_only = np.where(np.isinf(picture), np.nan, picture)
        write_numbers(axes, layout, finite_only, image, lambda x: signs(f"{x:.2g}"))
        for i, j in np.argwhere(np.isinf(picture)):
            colour = ink(image.cmap(1.0)[:3])
            axes.text(j, i, "∞", ha="center", va="center", fontsize=14, color=colour)
        colour_bar(canvas, image, [axes], label)
    text = (
        "By how much the exact posterior, which conditions the dynamics on success, overrates each "
        "state at step 0, relative to the best policy in the true dynamics."
    )
    return captioned(canvas, text + ("" if surplus.any() else " No optimism anywhere."))


def _scaled(eta: np.ndarray) -> np.ndarray:
    """η/(1 + |η|), from -1 at -∞ to 1 at +∞."""
    finite = np.where(np.isinf(eta), 0.0, eta)
    return np.where(np.isinf(eta), np.sign(eta), finite / (1 + np.abs(finite)))


def _drawn(column: Tensor) -> np.ndarray:
    """A column as it is drawn: NaN in place of infinities."""
    return np.where(np.isfinite(column.numpy()), column.numpy(), np.nan)


def _tangents(axes: Axes, x: np.ndarray, curve: _Curve) -> None:
    """Draws short tangents at some points, with the slope that they have on this scale."""
    eta, tilt, slope = (c.numpy() for c in (curve.optimism, curve.tilt, curve.slope))
    # d bound/dx = slope (1 + |η|)², which is the KL of the dynamics itself at ±∞.
    finite = np.isfinite(eta)
    steep = np.where(finite, slope * (1 + np.abs(np.where(finite, eta, 0.0))) ** 2, tilt)
    every = max(1, -(-len(x) // _TANGENTS))
    reach = 0.045
    label: str | None = "slope = KL/η²"
    for i in range(0, len(x), every):
        bound = curve.bound[i].item()
        if np.isfinite(bound) and np.isfinite(steep[i]):
            ends = np.clip([x[i] - reach, x[i] + reach], -1, 1)
            axes.plot(ends, bound + steep[i] * (ends - x[i]), color=REFERENCE, lw=1.2, label=label)
            label = None


def _optimism_axis(axes: Axes, x: np.ndarray) -> None:
    low, high = x.min(), x.max()
    margin = 0.03 * (high - low) or 0.1
    places = [(float(_scaled(np.array(eta))), eta) for eta in _TICKS]
    shown = [(at, eta) for at, eta in places if low - margin <= at <= high + margin]
    names = [signs(f"{eta:g}") for _, eta in shown]
    axes.set_xticks([at for at, _ in shown], names)
    axes.set(xlim=(low - margin, high + margin), xlabel="optimism η, on the scale η/(1 + |η|)")


def _number_changes(axes: Axes, curve: _Curve) -> None:
    """Numbers the lines of the switches above the axes, together where they are close."""
    low, high = axes.get_xlim()
    groups: list[tuple[float, list[int]]] = []
    for k, change in enumerate(curve.changes[:_NAMED], start=1):
        at = float(_scaled(np.array(change.optimism)))
        if groups and abs(at - groups[-1][0]) < _APART * (high - low):
            groups[-1][1].append(k)
        else:
            groups.append((at, [k]))
    for at, numbers in groups:
        place = axes.get_xaxis_transform()
        text = ", ".join(map(str, numbers))
        axes.text(at, 1.01, text, transform=place, ha="center", va="bottom", fontsize=8)


def _named_changes(curve: _Curve) -> str:
    """Which action replaces which, in which state and step, in words for the caption."""
    if not curve.changes:
        return ""
    layout = curve.table.layout
    actions = layout.actions if layout is not None else None
    found = []
    for k, change in enumerate(curve.changes[:_NAMED], start=1):
        before, after = (
            actions[a] if actions else f"action {a}" for a in (change.before, change.after)
        )
        eta = signs(f"{change.optimism:.3g}")
        where = f"{state_name(layout, change.s)}, step {change.t}"
        found.append(f"{k}: {before} → {after} at η = {eta} ({where})".replace(" ", "\u00a0"))
    left = len(curve.changes) - len(found)
    more = f"; {left} more without a number" if left else ""
    return f" Dashed: the policy switches to another action: {'; '.join(found)}{more}."
