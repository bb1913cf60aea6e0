"""Figures of training: the ELBO of a fit, and what learners record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cai import checks
from cai.plot.canvas import captioned, check_drawn, figure
from cai.plot.palette import NEUTRAL, REAL, REFERENCE

_EXACT = ("exact", "mirror")  # estimators whose losses have no noise
_SETTLED = 0.01  # of the rise of the ELBO: so close to its end a fit has arrived
_SMALLEST = 1e-12  # distance to the optimum that is drawn, nats
_SELDOM = 0.01  # of the visits of the state that is visited most: seldom enough to be left out
_PANELS = {  # name: (title, unit, colour)
    "returns": ("return of episodes", "reward units", REAL),
    "divergence": ("KL from the action prior", "nats per step", NEUTRAL),
    "temperature": ("temperature", "reward units per nat", NEUTRAL),
}


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


class _Learned(Protocol):
    """What is drawn of an ``inference.Learned``."""

    @property
    def history(self) -> dict[str, Tensor]: ...
    @property
    def values(self) -> Callable[..., Tensor]: ...


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
    text = f"Training ended at an ELBO of {fitted.elbo:.4f} nats; higher is better."
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


def learning_curve(
    learned: _Learned | Sequence[_Learned],
    exact: Tensor | None = None,
    visits: Tensor | None = None,
) -> Figure:
    """Return, divergence and temperature during training, and the values that were learnt.

    Args:
        learned: the result of a learner, or several results that differ in their seed: then a
            line each, and the mean of all in bold.
        exact: exact state values in reward units, (S,), or (T+1, S) with a finite horizon; those
            that were learnt (the first of several) are drawn against them.
        visits: how often the policy visits each of these states, of the same shape; states with
            less than a hundredth of the most visits are left out; areas are in proportion.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if it is not what learners return.

    >>> from cai import inference, models, plot
    >>> model = models.ledge()
    >>> learnt = inference.soft_q(model, steps=5000, progress=False)
    >>> figure = plot.learning_curve(learnt, inference.soft_values(model).V)
    """
    runs: list[_Learned] = list(learned) if isinstance(learned, list | tuple) else [learned]  # type: ignore[list-item]
    advice = "take what inference.soft_q and the other learners return"
    if not runs:
        checks.refuse("learned", "at least one inference.Learned", "none", advice)
    for run in runs:
        if not isinstance(getattr(run, "history", None), dict):
            checks.refuse("learned", "an inference.Learned", type(run).__name__, advice)
    canvas, panels = figure(3 + (exact is not None), height=3.4)
    for axes, (name, (title, unit, colour)) in zip(panels, _PANELS.items(), strict=False):
        _curves(axes, [run.history for run in runs], name, colour)
        axes.set(title=title, xlabel="transitions", ylabel=unit)
        if name != "returns":
            axes.set_ylim(bottom=0)
    last = [x for run in runs if not np.isnan(x := _last(run.history["returns"]))]
    text = f"Learning curves of {len(runs)} run{'s' if len(runs) > 1 else ''}"
    text += f", which ended at a mean return of {np.mean(last):.4g}" if last else ""
    text += ". Returns are sums of rewards, undiscounted, of episodes with exploration"
    if exact is not None:
        text += ". " + _against(panels[3], runs[0], exact, visits)
    return captioned(canvas, f"{text.removesuffix('.')}.")


def _curves(axes: Axes, histories: list[dict[str, Tensor]], name: str, colour: str) -> None:
    many = len(histories) > 1
    shortest = min(len(history["steps"]) for history in histories)
    for history in histories:
        known = ~history[name].isnan()
        alpha, width = (0.3, 0.8) if many else (1.0, 1.5)
        x, y = history["steps"][known], history[name][known]
        axes.plot(x, y, color=colour, alpha=alpha, linewidth=width)
    if many and shortest:
        columns = torch.stack([history[name][:shortest] for history in histories])
        mean = columns.nanmean(0)
        label = f"mean of {len(histories)} seeds"
        axes.plot(histories[0]["steps"][:shortest], mean, color=colour, label=label)
        axes.legend(frameon=False)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))


def _last(returns: Tensor) -> float:
    """The last return that is known."""
    known = returns[~returns.isnan()]
    return known[-1].item() if len(known) else float("nan")


def _against(axes: Axes, run: _Learned, exact: Tensor, visits: Tensor | None) -> str:
    """Draws the values that were learnt against the exact ones; the caption."""
    timed = exact.dim() == 2
    exact = exact[:-1] if timed else exact  # at the horizon nothing is learnt
    s = torch.arange(exact.shape[-1])
    t = torch.arange(len(exact))[:, None]
    found = run.values(s.expand(exact.shape), t.expand(exact.shape)) if timed else run.values(s)
    seen = torch.ones_like(exact) if visits is None else visits[: len(exact)] if timed else visits
    drawn = (seen > _SELDOM * seen.max()) & exact.isfinite() & found.isfinite()
    x, y, area = (values[drawn].detach().numpy() for values in (exact, found, seen))
    size = 18.0 if visits is None else 6 + 60 * area / area.max()
    axes.scatter(x, y, s=size, color=REAL, alpha=0.6, linewidth=0)
    axes.axline((float(x.mean()), float(x.mean())), slope=1, color=NEUTRAL, linestyle="--")
    axes.set(title="state values", xlabel="exact (reward units)", ylabel="learnt (reward units)")
    sizes = "" if visits is None else ", with areas by how often the policy visits them"
    worst = np.abs(x - y).max() / max(np.abs(x).max(), 1e-12)
    return (
        f"Right: values of {len(x)} states{' and steps' if timed else ''}{sizes}; the largest "
        f"error is {worst:.1%} of the largest value"
    )
