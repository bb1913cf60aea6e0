"""Weights of fitted rewards with their intervals, and the profile of a demonstrator's optimism."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cai import checks
from cai.drawing.canvas import captioned, check_drawn, figure
from cai.drawing.palette import NEUTRAL, REFERENCE, SERIES, UNSEEN
from cai.drawing.signs import signs

_MARKERS = "osD^vP"
_FIELDS = ("weights",)
_Z = 1.959963984540054  # of a 95% interval


class _Fit(Protocol):
    """What is drawn of an ``inference.RewardFit``, which has intervals, or of another reward."""

    @property
    def weights(self) -> Mapping[str, float]: ...


class _One(Protocol):
    """What is drawn of one demonstrator."""

    @property
    def demonstrations(self) -> int: ...
    @property
    def weights(self) -> Mapping[str, float]: ...
    def intervals(self, level: float) -> Mapping[str, tuple[float, float]]: ...


class _Groups(Protocol):
    """What is drawn of an ``inference.GroupPosterior``."""

    @property
    def labels(self) -> Sequence[Hashable]: ...
    @property
    def weights(self) -> Mapping[str, float]: ...
    @property
    def spreads(self) -> Mapping[str, float]: ...
    def __getitem__(self, label: Hashable) -> _One: ...


class _Profile(Protocol):
    """What is drawn of an ``inference.OptimismFit``."""

    @property
    def optimism(self) -> float: ...
    @property
    def interval(self) -> tuple[float, float]: ...
    @property
    def level(self) -> float: ...
    @property
    def optimisms(self) -> Tensor: ...
    @property
    def log_likelihoods(self) -> Tensor: ...


def estimates(
    fits: Mapping[str, _Fit] | _Fit,
    *,
    truth: Mapping[str, float] | None = None,
    level: float = 0.95,
) -> Figure:
    """The weights of one or several fitted rewards, with intervals.

    Args:
        fits: name -> a result of :func:`cai.inference.fit_reward`, or of another method that finds
            weights, which have no errors; or one alone.
        truth: name of a feature -> its true weight, where it is known.
        level: of the intervals.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if there is nothing to draw, or a fit is none.

    >>> import cai
    >>> from cai import inference, models, plot
    >>> model = models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), 50, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> fitted = inference.fit_reward(model, seen, cai.LinearReward({"state": lambda s, a: s}))
    >>> figure = plot.estimates({"actions": fitted})
    """
    given: dict[str, Any] = dict(fits) if isinstance(fits, Mapping) else {"": fits}
    if not given:
        checks.refuse("fits", "at least one fitted reward", "none", "inference.fit_reward(…)")
    for name, fit in given.items():
        check_drawn(f"fits[{name!r}]", fit, _FIELDS, "inference.fit_reward")
        if fit.weights is None:
            advice = "inference.fit_reward finds them"
            checks.refuse(f"fits[{name!r}]", "a reward with weights", "one without", advice)
    features = list(dict.fromkeys(name for fit in given.values() for name in fit.weights))
    canvas, (axes,) = figure(1, height=1.6 + 0.3 * len(features) * (1 + len(given)) / 2)
    canvas.set_figwidth(7.0)
    hollow = bare = False
    for i, (name, fit) in enumerate(given.items()):
        colour = SERIES[i % len(SERIES)]
        offset = 0.6 * ((i + 1) / (len(given) + 1) - 0.5)
        ends = fit.intervals(level) if hasattr(fit, "intervals") else None
        bare |= ends is None
        for feature, weight in fit.weights.items():
            y = features.index(feature) + offset
            known = ends is None or math.isfinite(ends[feature][0])
            hollow |= not known
            if known and ends is not None:
                axes.plot(ends[feature], (y, y), color=colour, lw=2, solid_capstyle="butt")
            label = name if feature == next(iter(fit.weights)) else None
            face = colour if known else "white"
            marker = _MARKERS[i % len(_MARKERS)]
            axes.plot(weight, y, marker, color=colour, markerfacecolor=face, label=label)
    for feature, value in (truth or {}).items():
        if feature in features:
            y = features.index(feature)
            axes.plot((value, value), (y - 0.4, y + 0.4), color=REFERENCE, lw=1, ls="--")
    axes.axvline(0, color=UNSEEN, lw=0.8, zorder=0)
    axes.set_yticks(np.arange(len(features)), features)
    axes.set_ylim(len(features) - 0.5, -0.5)
    axes.set_xlabel("weight (reward units per unit of the feature)")
    if any(given):
        axes.legend(frameon=False, fontsize=8)
    caption = f"Points are weights, bars their {100 * level:g}% intervals."
    caption += " Without one: found by a method that gives no errors." if bare else ""
    caption += " Hollow: not determined by the data." if hollow else ""
    return captioned(canvas, caption + (" Dashed: the truth." if truth else ""))


def by_group(found: _Groups) -> Figure:
    """The weights of each of several demonstrators, with intervals, and their population.

    Args:
        found: a result of :func:`cai.inference.reward_posterior` with groups.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if it is none.

    >>> import cai
    >>> from cai import inference, models, plot
    >>> model = models.ledge()
    >>> who = ["Ann", "Bob", "Cy"] * 10
    >>> paths = model.simulate(lambda t, s: model.prior(s), 30, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths, groups=who)
    >>> reward = cai.LinearReward({"state": lambda s, a: s})
    >>> figure = plot.by_group(inference.reward_posterior(model, seen, reward, groups=True))
    """
    fields, maker = ("labels", "group_weights", "spreads"), "inference.reward_posterior with groups"
    check_drawn("found", found, fields, maker)
    names, order = list(found.weights), list(found.labels)
    order.sort(key=lambda label: found[label].weights[names[0]])
    shown = [str(label) for label in order]
    canvas, panels = figure(len(names), height=1.4 + 0.2 * len(order))
    for axes, name in zip(panels, names, strict=True):
        mean, spread = found.weights[name], _Z * found.spreads[name]
        axes.axvspan(mean - spread, mean + spread, color="#eeeeee", zorder=0)
        axes.axvline(mean, color=NEUTRAL, lw=1, zorder=1)
        for y, label in enumerate(order):
            one = found[label]
            axes.plot(one.intervals(0.95)[name], (y, y), color=SERIES[0], lw=2)
            face = SERIES[0] if one.demonstrations else "white"
            axes.plot(one.weights[name], y, "o", color=SERIES[0], markerfacecolor=face, ms=4)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("weight (reward units / unit)", fontsize=8)
        axes.set_yticks(np.arange(len(order)), shown if axes is panels[0] else [], fontsize=7)
        axes.set_ylim(len(order) - 0.5, -0.5)
    return captioned(
        canvas,
        "Points are the weights of each, bars their 95% intervals; hollow: without demonstrations. "
        "The line is the mean of the population, and 95% of it lies in the grey band.",
    )


def optimism_profile(found: _Profile) -> Figure:
    """The largest log-likelihood at each optimism, and the interval that follows from it.

    Args:
        found: a result of :func:`cai.inference.fit_optimism`.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if it is not a result of ``inference.fit_optimism``.

    >>> import cai
    >>> from cai import inference, models, plot
    >>> model = models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), 50, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> reward = cai.LinearReward({"state": lambda s, a: s})
    >>> figure = plot.optimism_profile(inference.fit_optimism(model, seen, reward))
    """
    check_drawn("found", found, ("optimisms", "log_likelihoods"), "inference.fit_optimism")
    canvas, (axes,) = figure(1, height=4.0)
    x, best = found.optimisms.numpy(), float(found.log_likelihoods.max())
    low, high = (min(max(end, x[0]), x[-1]) for end in found.interval)
    axes.axvspan(low, high, color="#eeeeee", lw=0)
    axes.plot(x, found.log_likelihoods.numpy() - best, "o-", color=SERIES[0], ms=4)
    axes.axvline(found.optimism, color=REFERENCE, ls="--", lw=1.2)
    axes.set_xlabel("optimism η of the demonstrator")
    axes.set_ylabel("log-likelihood below its maximum (nats)")
    return captioned(
        canvas,
        "At each optimism the weights are fitted anew. Shaded: the "
        f"{100 * found.level:g}% interval; dashed: the most probable optimism, "
        f"{signs(f'{found.optimism:.2f}')}.",
    )
