"""A number for each segment of a road network on its map, and what is believed of a journey."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from cai import checks
from cai.drawing.canvas import captioned, check_drawn, figure
from cai.drawing.palette import SERIES, lettering
from cai.numerics import arrays
from cai.roads.network import Streets

_WIDEST = 5.0  # points
_HEIGHT = 6.0  # inches
_SHOWN = 5  # destinations with a line of their own
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)))
_THIN, _THICK = 1.3, 2.6
_APART = 0.055  # of the height of the axes, between two labels


class _Belief(Protocol):
    """What is drawn of an ``inference.Intent``."""

    @property
    def names(self) -> tuple[Hashable, ...]: ...
    @property
    def probability(self) -> Tensor: ...
    @property
    def lengths(self) -> Tensor: ...


def streets(streets: Streets, values: Any, *, label: str = "probability of use") -> Figure:
    """A map of a road network, with a number of each segment as width and colour.

    Args:
        streets: a network whose coordinates are known.
        values: (E,), a finite number of each segment: a probability, an expected count, a feature.
        label: what it is, with its unit, for the colour bar.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if it is no network, has no coordinates, or there is not one finite number for
            each segment.

    >>> from cai import models, plot
    >>> town = models.city(5, 5)
    >>> figure = plot.streets(town, town.segment_features["minutes"], label="minutes")
    """
    checks.check_kind("streets", streets, Streets, "a cai.Streets", "models.streets makes one")
    checks.check_kind("label", label, str, "a text", "what the numbers are, with their unit")
    numbers = arrays.numbers("values", values).numpy(force=True)
    if numbers.shape != (len(streets.segments),) or not np.isfinite(numbers).all():
        came = f"shape {list(numbers.shape)}{'' if np.isfinite(numbers).all() else ', not finite'}"
        advice = "features of turns have N numbers, those of segments E"
        checks.refuse("values", f"{len(streets.segments)} finite numbers", came, advice)
    courses = streets.lines
    if courses is None or streets.points is None:
        advice = "give the coordinates of its nodes, or geometries"
        checks.refuse("streets", "a network on a map", "one without coordinates", advice)
    low, high = streets.points.numpy().min(0), streets.points.numpy().max(0)
    stretch = 1 / np.cos(np.radians((low[1] + high[1]) / 2)) if streets.degrees else 1.0
    across = (high[0] - low[0]) / max(high[1] - low[1], 1e-12) / stretch
    canvas = Figure(
        figsize=(float(np.clip(_HEIGHT * across, 4.0, 12.0)) + 1.5, _HEIGHT + 0.5),
        layout="constrained",
    )
    axes = canvas.subplots()
    order = np.argsort(np.abs(numbers), kind="stable")  # of both directions the larger one on top
    lines = [courses[e].numpy() for e in order.tolist()]
    shares = np.abs(numbers[order]) / max(np.abs(numbers).max(), np.finfo(float).tiny)
    axes.add_collection(LineCollection(lines, colors="#cccccc", linewidths=0.6))
    drawn = LineCollection(
        lines,
        cmap="viridis_r",
        linewidths=_WIDEST * shares,
        capstyle="round",
        array=numbers[order],
    )
    drawn.set_clim(min(0.0, numbers.min()), max(0.0, numbers.max()))
    axes.add_collection(drawn)
    axes.autoscale_view()
    axes.set_aspect(stretch)
    axes.locator_params(nbins=4)
    axes.ticklabel_format(useOffset=False)
    axes.tick_params(labelsize=8)
    names = ("longitude (°)", "latitude (°)") if streets.degrees else ("x", "y")
    axes.set(xlabel=names[0], ylabel=names[1])
    canvas.colorbar(drawn, ax=axes, label=label, shrink=0.8)
    return captioned(
        canvas,
        f"Width and colour: {label} of each segment; grey where it is zero. Of the two directions "
        "of a street the one with the larger number lies on top.",
    )


def destinations(
    turns: Sequence[int], probabilities: Any, names: Sequence[str], *, ended: int | None = None
) -> Figure:
    """Where a trip is going, as it unfolds (Figure 5 of Ziebart et al. 2008).

    Of more than five destinations those five have a line whose probability was the highest at some
    turn.

    Args:
        turns: (m,), how many turns have been seen.
        probabilities: (m, D), the probability of each destination after so many turns, as
            ``Routes.goal_posterior`` gives it.
        names: D names of destinations.
        ended: the number of the one where it ended, if that is known.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if shapes do not fit together, or a number is no probability.

    >>> from cai import plot
    >>> belief = [[0.5, 0.5], [0.8, 0.2], [1.0, 0.0]]
    >>> figure = plot.destinations([1, 2, 3], belief, ["harbour", "station"], ended=0)
    """
    seen = arrays.numbers("turns", turns).numpy()
    p = arrays.numbers("probabilities", probabilities).numpy(force=True)
    if not p.size:
        checks.refuse("probabilities", "some turns and destinations", "none", "a row for each turn")
    if seen.ndim != 1 or p.shape != (len(seen), len(names)):
        expected = f"shape [{len(seen)}, {len(names)}], turns and names"
        checks.refuse("probabilities", expected, f"shape {list(p.shape)}", "a row for each turn")
    if not ((p >= 0) & (p <= 1)).all():
        advice = "Routes.goal_posterior gives such"
        checks.refuse("probabilities", "numbers in [0, 1]", "others among them", advice)
    if ended is not None and ended not in range(len(names)):
        checks.refuse("ended", f"one of 0 … {len(names) - 1}", repr(ended), "None if unknown")
    best = _likeliest(p, ended)
    canvas, (axes,) = figure(1, height=4.0)
    _lines(
        axes,
        seen,
        p,
        [f"{names[j]}{', where it ended' if j == ended else ''}" for j in best],
        best,
        ended,
    )
    axes.set(xlabel="turns seen", ylabel="probability of the destination")
    text = "What is believed of the destination of one trip, given the turns that were seen."
    text += " Thick: where it ended." if ended is not None else ""
    return captioned(canvas, text + _others(p, best))


def intent(
    belief: _Belief,
    *,
    labels: Mapping[Hashable, str] | None = None,
    truth: Hashable | None = None,
    step: str = "steps seen",
) -> Figure:
    """What somebody wants, as it is believed after each step of a trajectory.

    Of more than five names those five have a line whose probability was the highest at some step.

    Args:
        belief: a result of :func:`cai.inference.intent` for one trajectory.
        labels: name -> what it is called in the figure; names as texts if not given.
        truth: the true name, if it is known, whose line is thick.
        step: what is counted from left to right.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if it is no such result or of several trajectories, or the truth is not a name.

    >>> import cai
    >>> from cai import inference, models, plot
    >>> street = models.gridworld(["S......"], horizon=None, slip=0.0)
    >>> ends = {"home": cai.with_goal(street, 0), "work": cai.with_goal(street, 6)}
    >>> walk = cai.Demonstrations.from_paths([[3, 4, 5]], [[1, 1]])
    >>> figure = plot.intent(inference.intent(ends, walk), truth="work")
    """
    check_drawn("belief", belief, ("names", "probability", "lengths"), "inference.intent")
    if len(belief.lengths) != 1:
        advice = "belief[0] is about the first"
        checks.refuse("belief", "one of one trajectory", f"of {len(belief.lengths)}", advice)
    names, p = list(belief.names), belief.probability[0].numpy(force=True)
    if truth is not None and truth not in names:
        advice = f"there are {names[:8]}"
        checks.refuse("truth", "the name of a model", repr(truth), advice)
    place = None if truth is None else names.index(truth)
    best = _likeliest(p, place)
    called = [str((labels or {}).get(names[j], names[j])) for j in best]
    canvas, (axes,) = figure(1, height=3.6)
    _lines(axes, np.arange(len(p)), p, called, best, place)
    axes.set(xlabel=step, ylabel="probability")
    text = "What is believed after each step of one trajectory; at 0 the prior, given the start."
    text += " Thick: the truth." if truth is not None else ""
    return captioned(canvas, text + _others(p, best))


def _likeliest(p: Any, always: int | None) -> list[int]:
    """The columns to draw, the last number highest first: those once highest, and a given one."""
    best: list[int] = np.lexsort((-p[-1], -p.max(0)))[:_SHOWN].tolist()
    if always is not None and always not in best:
        best[-1] = always
    return sorted(best, key=lambda j: -float(p[-1, j]))


def _lines(
    axes: Axes, x: Any, p: Any, labels: Sequence[str], drawn: Sequence[int], thick: int | None
) -> None:
    """A line for each column of p that is drawn, labelled at its right end."""
    top = min(1.0, 1.05 * float(p[:, drawn].max())) + 0.01
    axes.set_ylim(0.0, top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    at = _spread_out([float(p[-1, j]) / top for j in drawn])
    styles = zip(SERIES, _DASHES, drawn, labels, at, strict=False)
    for colour, dash, j, label, y in styles:
        width = _THICK if j == thick else _THIN
        axes.plot(x, p[:, j], color=colour, ls=dash, lw=width, marker="o", ms=3, label=label)
        axes.annotate(
            label,
            (x[-1], p[-1, j]),
            (1.03, y),
            textcoords=axes.transAxes,
            color=lettering(colour),
            fontsize=9,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.6},
            annotation_clip=False,
        )


def _spread_out(heights: Sequence[float]) -> list[float]:
    """Heights of labels, in the same order from top to bottom, moved apart where they overlap."""
    order = sorted(range(len(heights)), key=lambda i: (heights[i], -i))
    found, floor = list(heights), -np.inf
    for i in order:
        floor = found[i] = max(found[i], floor + _APART)
    ceiling = 1.0 + _APART / 2
    for i in reversed(order):
        ceiling = found[i] = min(found[i], ceiling)
        ceiling -= _APART
    return found


def _others(p: Any, drawn: Sequence[int]) -> str:
    """What is left for the columns that are not drawn."""
    left = p.shape[1] - len(drawn)
    rest = max(float(p[-1].sum() - p[-1, list(drawn)].sum()), 0.0)
    return (
        f" In the end {left} other{'s share' if left > 1 else ' has'} {rest:.2g}." if left else ""
    )
