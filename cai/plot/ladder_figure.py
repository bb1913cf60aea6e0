"""What each restriction of a guide costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from cai.drawing.bars import beside_bar, legend_above
from cai.drawing.canvas import captioned, check_drawn, figure
from cai.drawing.palette import DYNAMICS, INDEPENDENT, OPEN_LOOP, SIGHT, ink
from cai.drawing.signs import signs, three_digits

_RESTRICTIONS = {
    "luck that cannot be had": DYNAMICS,
    "not seeing all of the state": SIGHT,
    "not looking": OPEN_LOOP,
    "independent steps": INDEPENDENT,
}
_NARROW = 0.05  # fraction of the longest bar below which a price has no room for its number


class _Ladder(Protocol):
    """What is drawn of an ``inference.PriceLadder``: ELBOs and prices, nats."""

    @property
    def nats(self) -> Mapping[str, float]: ...
    @property
    def prices(self) -> Mapping[str, float]: ...


def price_ladder(ladder: _Ladder) -> Figure:
    """How many nats each rung is below log p(O), divided by restriction.

    An infinite price is drawn as long as all others together.

    Args:
        ladder: from :func:`cai.inference.price_ladder`.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if it is not a result of ``inference.price_ladder``.

    >>> from cai import inference, models, plot
    >>> figure = plot.price_ladder(inference.price_ladder(models.ledge()))
    """
    check_drawn("ladder", ladder, ("nats", "prices"), "inference.price_ladder")
    rungs, prices = list(ladder.nats), ladder.prices
    canvas, (axes,) = figure(1, height=0.5 * len(rungs) + 1.8)
    canvas.set_figwidth(8.0)
    y, left = np.arange(len(rungs)), np.zeros(len(rungs))
    known = sum(nats for nats in prices.values() if nats < np.inf)
    drawn = {what: min(nats, max(known, 1.0)) for what, nats in prices.items()}
    total = sum(drawn.values())
    for k, (what, nats) in reversed(list(enumerate(drawn.items()))):
        width = np.where(y <= k, nats, 0.0)
        colour = _RESTRICTIONS[what.split(", ")[-1]]
        bars = axes.barh(y, width, 0.6, left, color=colour, label=what)
        if nats > _NARROW * total:
            numbers = [three_digits(prices[what]) if x > 0 else "" for x in width]
            axes.bar_label(bars, numbers, label_type="center", color=ink(colour))
        left += width
    for i, rung in enumerate(rungs):
        number = signs(f"{ladder.nats[rung]:.3f}")
        beside_bar(axes, left[i], i, number)
    axes.set(yticks=y, yticklabels=rungs, xlabel="nats below log p(O)")
    axes.set_xlim(0, 1.15 * total if total > 0 else 1.0)
    legend_above(axes, 2)
    return captioned(
        canvas,
        "Each row is the best guide under some restrictions, with the true dynamics; its ELBO in "
        "nats is at the end of the bar. Each colour is the cost of one restriction, the bar their "
        "total.",
    )
