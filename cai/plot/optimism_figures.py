"""The dial in a picture: what luck is worth, and where the policy changes its mind."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cai.plot.canvas import IMAGINED, REAL, caption, figure

_TICKS = (-np.inf, -3.0, -1.0, 0.0, 1.0, 3.0, np.inf)
_TANGENTS = 11  # at most so many
_NAMED = 7  # changes of mind that find room for their names
_CHANGE = "#6a4c93"


def optimism_curve(curve: Any) -> Figure:
    """Bound and ELBO, imagined and real return against the optimism, from worst case to best.

    The tangents of the bound are its slope, bend/η². A vertical line says where the policy changes
    its mind.

    Args:
        curve: from :func:`cai.inference.optimism_curve`.
    """
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
            axes.axvline(at, color=_CHANGE, linestyle="--", linewidth=1)
        axes.legend(loc="upper left", frameon=False, fontsize=8)
    _name_changes(right, curve)
    caption(
        canvas,
        "From the worst case to the best, on the scale η/(1 + |η|). Left: the bound and its "
        "tangents, whose slope is what is spent on bending the dynamics, in nats, over η²; what "
        "lies between bound and ELBO is luck that the policy counts on (η > 0) or guards against "
        "(η < 0)." + (" Dashed: the policy changes its mind." if curve.changes else ""),
    )
    return canvas


def _scaled(eta: np.ndarray) -> np.ndarray:
    """η/(1 + |η|), from -1 at -∞ to 1 at +∞."""
    finite = np.where(np.isinf(eta), 0.0, eta)
    return np.where(np.isinf(eta), np.sign(eta), finite / (1 + np.abs(finite)))


def _drawn(column: Any) -> np.ndarray:
    """A column as what can be drawn of it: nothing at infinities."""
    return np.where(np.isfinite(column.numpy()), column.numpy(), np.nan)


def _tangents(axes: Axes, x: np.ndarray, curve: Any) -> None:
    """Short pieces of tangents at some points, in the slope that they have on this scale."""
    eta, bend, slope = (c.numpy() for c in (curve.optimism, curve.bend, curve.slope))
    # d bound/dx = slope (1 + |η|)², which is the bend itself at ±∞.
    finite = np.isfinite(eta)
    steep = np.where(finite, slope * (1 + np.abs(np.where(finite, eta, 0.0))) ** 2, bend)
    every = max(1, -(-len(x) // _TANGENTS))
    reach = 0.045
    label: str | None = "slope = bend/η²"
    for i in range(0, len(x), every):
        bound = curve.bound[i].item()
        if np.isfinite(bound) and np.isfinite(steep[i]):
            ends = np.clip([x[i] - reach, x[i] + reach], -1, 1)
            axes.plot(ends, bound + steep[i] * (ends - x[i]), color="black", lw=1.2, label=label)
            label = None


def _optimism_axis(axes: Axes, x: np.ndarray) -> None:
    low, high = x.min(), x.max()
    margin = 0.03 * (high - low) or 0.1
    places = [(float(_scaled(np.array(eta))), eta) for eta in _TICKS]
    shown = [(at, eta) for at, eta in places if low - margin <= at <= high + margin]
    names = [_signs(f"{eta:g}") for _, eta in shown]
    axes.set_xticks([at for at, _ in shown], names)
    axes.set(xlim=(low - margin, high + margin), xlabel="optimism η")


def _name_changes(axes: Axes, curve: Any) -> None:
    """Which action gives way to which, where and when, beside each line, one above the other."""
    layout = curve.table.layout
    actions, states = (layout.actions, layout.states) if layout is not None else (None, None)
    for k, change in enumerate(curve.changes[:_NAMED]):
        before, after = (
            actions[a] if actions else f"action {a}" for a in (change.before, change.after)
        )
        state = states[change.s] if states else f"state {change.s}"
        at = float(_scaled(np.array(change.optimism)))
        right = at > np.mean(axes.get_xlim())
        eta = _signs(f"{change.optimism:.3g}")
        text = f"{before} → {after} at η = {eta}\n{state}, step {change.t}"
        axes.annotate(
            text,
            (at, 0.02 + 0.1 * k),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=8,
            color=_CHANGE,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
        )


def _signs(text: str) -> str:
    return text.replace("inf", "∞").replace("-", "−")
