"""The figure of a training run."""

from __future__ import annotations

from typing import Protocol

from matplotlib.figure import Figure
from torch import Tensor

from cai.plot.canvas import IMAGINED, REAL, captioned, check_drawn, figure


class _Fit(Protocol):
    """What is drawn of an ``inference.Fit``."""

    @property
    def elbo(self) -> float: ...
    @property
    def losses(self) -> Tensor: ...
    @property
    def running_mean(self) -> Tensor: ...


def losses(fitted: _Fit, bound: float | None = None) -> Figure:
    """The ELBO over the steps of a fit, with its running mean.

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
    check_drawn("fitted", fitted, ("elbo", "losses", "running_mean"), "inference.fit")
    canvas, (axes,) = figure(1, height=3.4)
    axes.plot(-fitted.losses.numpy(), color=REAL, alpha=0.35, linewidth=0.8, label="ELBO")
    axes.plot(-fitted.running_mean.numpy(), color=REAL, label="running mean of 50 steps")
    if bound is not None:
        axes.axhline(bound, color=IMAGINED, linestyle="--", label="the best with fixed dynamics")
    axes.set(xlabel="training step", ylabel="ELBO (nats)")
    axes.legend(frameon=False)
    text = f"Training ended at an ELBO of {fitted.elbo:.4f} nats; higher is better."
    return captioned(canvas, text)
