"""What learners record, and the values that they learnt against the exact ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cai import checks
from cai.drawing.canvas import captioned, figure
from cai.drawing.palette import NEUTRAL, REAL
from cai.drawing.signs import signs

_SELDOM = 0.01  # of the visits of the state that is visited most: seldom enough to be left out
_PANELS = {  # name: (title, unit, colour)
    "returns": ("return of episodes", "reward units", REAL),
    "divergence": ("KL from the action prior", "nats per step", NEUTRAL),
    "temperature": ("temperature", "reward units per nat", NEUTRAL),
}


class _Learned(Protocol):
    """What is drawn of an ``inference.Learned``."""

    @property
    def history(self) -> dict[str, Tensor]: ...
    @property
    def values(self) -> Callable[..., Tensor]: ...


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
    ended = signs(f"{np.mean(last):.4g}") if last else ""
    text += f", which ended at a mean return of {ended}" if last else ""
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
