"""Trajectories of continuous models in a plane of their states, over level curves of the reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cai import checks
from cai.drawing.canvas import captioned, figure
from cai.drawing.palette import REAL, REFERENCE
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import first_change

_GRID = 120  # places along each side for which the reward is drawn
_MARGIN = 0.08  # around the trajectories, of their extent
_LEVELS = 14

Extent: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
"""What is shown across, and up."""


def trajectories(
    model: TrajectoryModel,
    policies: Mapping[str, Any],
    *,
    samples: int = 24,
    coordinates: tuple[int, int] = (0, 1),
    labels: tuple[str, str] | None = None,
    seed: int = 0,
) -> Figure:
    """Trajectories of each policy in the true dynamics, over the level curves of the reward.

    The level curves are of r(s,a) + r⁺(s,a,s), the reward of resting at s with the prior's mean
    action, or on average over finitely many; coordinates that are not drawn are at their means over
    the starts. Places of reward -inf stay white; if rewards change with the step there are no level
    curves. All policies are simulated with the same seed.

    Args:
        model: a model whose states are vectors of two numbers or more.
        policies: title of the panel -> a policy, or a result that has one.
        samples: how many trajectories of each.
        coordinates: the indices of the state's coordinates on the x and y axes.
        labels: their names with units; ``s[0]`` and the like if not given.
        seed: seed of the simulation.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if the states have no such coordinates, there is no policy, or the horizon
            is infinite.

    >>> from cai import models, plot
    >>> model = models.multigoal(horizon=5)
    >>> figure = plot.trajectories(model, {"prior": lambda t, s: model.prior(s)}, samples=5)
    """
    checks.check_count("samples", samples)
    _check(model, policies, coordinates)
    names = labels or tuple(f"s[{i}]" for i in coordinates)
    paths = {
        name: model.simulate(getattr(policy, "policy", policy), samples, seed=seed).states
        for name, policy in policies.items()
    }
    drawn = torch.stack([*paths.values()])
    extent = _extent(drawn[..., list(coordinates)].reshape(-1, 2))
    others = drawn[0, :, 0].double().mean(0)
    canvas, panels = figure(len(paths), height=4.2)
    for axes, (name, states) in zip(panels, paths.items(), strict=True):
        filled = _levels(axes, model, coordinates, extent, others)
        _lines(axes, states[..., list(coordinates)].numpy())
        axes.set(title=name, xlabel=names[0], xlim=extent[0], ylim=extent[1])
    panels[0].set_ylabel(names[1])
    handles, words = panels[0].get_legend_handles_labels()
    canvas.legend(handles, words, fontsize=8, loc="outside upper center", ncols=2, frameon=False)
    if filled is not None:
        canvas.colorbar(filled, ax=panels, label="reward of a step (reward units)", shrink=0.9)
    return captioned(
        canvas,
        f"{samples} trajectories of {model.horizon} steps in the true dynamics, from their starts "
        "(dots) to their ends (squares), over the reward of resting in a place: the lighter, the "
        "better.",
    )


def _lines(axes: Axes, paths: np.ndarray) -> None:
    """Draws paths, (n, T+1, 2), with a dot where each starts and a square where it ends."""
    for path in paths:
        axes.plot(*path.T, color=REAL, alpha=0.55, linewidth=0.9)
    ends = (0, 16, "white", "o", "start"), (-1, 16, REFERENCE, "s", "end")
    for k, size, colour, marker, label in ends:
        x, y = paths[:, k].T
        look: dict[str, Any] = {"s": size, "c": colour, "edgecolors": REFERENCE, "linewidths": 0.8}
        axes.scatter(x, y, marker=marker, zorder=3, label=label, **look)


def _levels(
    axes: Axes, model: TrajectoryModel, coordinates: tuple[int, int], extent: Extent, others: Tensor
) -> Any:
    """Draws the reward of resting at each place; None if it is constant or depends on the step."""
    x, y = (torch.linspace(*span, _GRID, dtype=torch.float64) for span in extent)

    def at(t: int) -> Tensor:
        return resting(model, coordinates, x, y, others, t)

    paid = at(0)
    if any(first_change(model, name, paid, at) is not None for name in ("prior", "rewards")):
        return None
    finite = paid[paid.isfinite()]
    if not len(finite) or finite.min() == finite.max():
        return None
    shown = paid.where(paid.isfinite(), torch.nan).numpy()
    return axes.contourf(x.numpy(), y.numpy(), shown, _LEVELS, cmap="Greys_r", alpha=0.7)


def resting(
    model: TrajectoryModel,
    coordinates: tuple[int, int],
    x: Tensor,
    y: Tensor,
    others: Tensor,
    t: int = 0,
) -> Tensor:
    """r(s,a) + r⁺(s,a,s) at s = x across and y up: (len y, len x).

    The action a is the mean of the prior; if there are finitely many, it is the mean over them.

    Args:
        model: the model.
        coordinates: the indices of the coordinates x and y in the state.
        x: (n,).
        y: (m,).
        others: a state that gives the other coordinates.
        t: the step.
    """
    s = others.double().expand(len(y), len(x), -1).clone()
    s[..., coordinates[0]], s[..., coordinates[1]] = x, y.unsqueeze(-1)
    prior, shape = model.prior(s, t), (len(y), len(x))
    if not prior.has_enumerate_support:
        a = prior.mean.expand(*shape, *prior.event_shape)
        return model.log_factor(s, a, s, t) * model.temperature
    total = torch.zeros(shape, dtype=torch.float64)
    for each in prior.enumerate_support(expand=False).flatten():
        a = each.expand(shape)
        p = prior.log_prob(a).exp()
        total += torch.where(p > 0, p * model.log_factor(s, a, s, t), 0.0)
    return total * model.temperature


def in_a_plane(model: TrajectoryModel) -> bool:
    """Whether states are vectors of two numbers or more."""
    shape = model.initial.event_shape
    return len(shape) == 1 and shape[0] >= 2


def _extent(points: Tensor) -> Extent:
    """What is shown across and up, with a margin around all points, (k, 2)."""
    low, high = points.amin(0).double(), points.amax(0).double()
    margin = _MARGIN * (high - low).clamp(min=1e-3)
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    return (left, right), (bottom, top)


def _check(model: TrajectoryModel, policies: Any, coordinates: tuple[int, int]) -> None:
    shape = model.initial.event_shape
    if not isinstance(policies, Mapping):
        came, advice = type(policies).__name__, 'for instance {"fitted": fit}'
        checks.refuse("policies", "a dict, title of the panel -> policy", came, advice)
    if not policies:
        checks.refuse("policies", "at least one, by name", "none", 'for instance {"fitted": fit}')
    if not in_a_plane(model):
        checks.refuse(
            "model",
            "states of two numbers or more",
            f"states of shape {list(shape)}",
            "plot.occupancy and plot.policies draw models with finitely many states",
        )
    if len(set(coordinates)) != 2 or not all(0 <= i < shape[0] for i in coordinates):
        expected = f"two of 0 … {shape[0] - 1}"
        checks.refuse("coordinates", expected, repr(coordinates), "count from 0")
