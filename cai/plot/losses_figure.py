"""The ELBO over the steps of a fit."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cai.drawing.canvas import captioned, check_drawn, figure
from cai.drawing.palette import REAL, REFERENCE
from cai.drawing.signs import signs

_EXACT = ("exact", "mirror")  # estimators whose losses have no noise
_SETTLED = 0.01  # of the rise of the ELBO: so close to its end a fit has arrived
_SMALLEST = 1e-12  # distance to the optimum that is drawn, nats


class _Fit(Protocol):
    """What is drawn of an ``inference.Fit``."""

    @property
    def elbo(self) -> float: ...
    @property
    def estimator(self) -> str: ...
    @property
    def losses(self) -> Tensor: ...
    @property
    def running_mean(self) -> Tensor: ...


def losses(fitted: _Fit, bound: float | None = None) -> Figure:
    """The ELBO over the steps of a fit.

    If losses are exact, a dot marks the step from which the ELBO stays within 1% of its rise of
    where it ends, and with a bound the distance to it is drawn as well. If they are estimates, they
    are drawn with their running mean, which lags behind in the first steps.

    Args:
        fitted: from :func:`cai.inference.fit`.
        bound: the best possible ELBO in nats, ``soft_values(model).elbo``, drawn as a line.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if it is not a result of ``fit``.

    >>> import cai
    >>> from cai import inference, models, plot
    >>> model = models.ledge()
    >>> fitted = inference.fit(model, cai.TabularPolicy(model), steps=20, progress=False)
    >>> figure = plot.losses(fitted, bound=inference.soft_values(model).elbo)
    """
    fields = ("elbo", "estimator", "losses", "running_mean")
    check_drawn("fitted", fitted, fields, "inference.fit")
    elbo, exact = -fitted.losses.numpy(force=True), fitted.estimator in _EXACT
    distance = None if bound is None or not exact else bound - elbo
    if distance is not None and not (distance > -1e-9).all():
        distance = None  # another bound, or temperatures that changed
    canvas, panels = figure(1 if distance is None else 2, height=3.4)
    axes = panels[0]
    ended = signs(f"{fitted.elbo:.4f}")
    text = f"Training ended at an ELBO of {ended} nats; higher is better."
    if exact:
        axes.plot(elbo, color=REAL, label="ELBO")
        text += _mark_arrival(axes, elbo)
    else:
        axes.plot(elbo, color=REAL, alpha=0.4, linewidth=0.6, label="ELBO estimate")
        mean = -fitted.running_mean.numpy(force=True)
        axes.plot(mean, color=REAL, label="running mean of 50 steps")
        text += (
            " Estimates are noisy, and some may lie above the best ELBO; their mean over the last "
            "50 steps lags behind."
        )
    if bound is not None:
        axes.axhline(bound, color=REFERENCE, linestyle="--", label="the best with fixed dynamics")
    axes.set(xlabel="training step", ylabel="ELBO (nats)")
    axes.legend(frameon=False, fontsize=8)
    if distance is not None:
        panels[1].semilogy(distance.clip(min=_SMALLEST), color=REAL)
        panels[1].set(xlabel="training step", ylabel="below the best ELBO (nats)")
        text += " Right: its distance from the best, on a logarithmic scale."
    return captioned(canvas, text)


def _mark_arrival(axes: Axes, elbo: np.ndarray) -> str:
    """Marks the step from which the ELBO stays close to its end; the words for it."""
    rise = np.ptp(elbo[np.isfinite(elbo)]) if np.isfinite(elbo).any() else 0.0
    away = np.flatnonzero(~(np.abs(elbo - elbo[-1]) <= _SETTLED * rise))
    step = int(away[-1]) + 1 if len(away) else 0
    if not 0 < step < len(elbo) - 1:
        return ""
    axes.plot(step, elbo[step], "o", color=REAL, ms=7)
    return f" From step {step} (dot) it stays within 1% of its rise of where it ends."
