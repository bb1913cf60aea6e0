"""A continuous deterministic model on a grid: values between nodes are interpolated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact, support_size
from cai.infinite.fixed_point import fixed_point
from cai.numerics import arrays, logspace, memory
from cai.numerics.exclusive import seeded
from cai.program.trajectory import TrajectoryModel
from cai.solutions._grid_axes import Axes
from cai.solutions._grid_step import Choices, check_deterministic, stepped
from cai.sweeps import sweeps
from cai.tables.finite import refuse_changes
from cai.tables.table import Table

_MOST = 3  # dimensions of a state
_COPIES = 6  # of an array over all nodes, actions and corners at once, while the table is made
_ABREAST = 2**20  # points whose values are looked up at once
_ASKED = 64  # nodes at which other steps are compared


@dataclass(frozen=True, eq=False)
class GridSolution:
    """Soft values at optimism 0 of a continuous deterministic model, by interpolation.

    Attributes:
        model: the model.
        states: the coordinates of the nodes along each dimension of the state; of one that closes
            to a circle without the last, which is the first again.
        V: (T+1, n_1, …) or, with an infinite horizon, (n_1, …), reward units: V_t at the nodes.
        actions: (A, k) or (A,), the actions that are tried.

    >>> import torch, cai
    >>> from cai import models
    >>> model = models.pendulum(horizon=3)
    >>> side = torch.linspace(-4, 4, 9)
    >>> found = cai.on_grid(model, states=[side, 2 * side], actions=[side / 2])
    >>> found.V.shape, found.values(torch.zeros(2)).shape
    (torch.Size([4, 9, 9]), torch.Size([]))
    """

    model: TrajectoryModel
    states: tuple[Tensor, ...]
    V: Tensor
    actions: Tensor
    _axes: Axes = field(repr=False)
    _choices: Choices = field(repr=False)

    def __repr__(self) -> str:
        sizes = "×".join(str(n) for n in self._axes.shape)
        return f"GridSolution({sizes} states, {len(self.actions)} actions)"

    def values(self, s: Tensor, t: Any = 0) -> Tensor:
        """V_t(s) between the nodes, reward units; beyond the grid those of its edge.

        Args:
            s: states of any batch shape.
            t: the step, 0 ≤ t ≤ T, an int or a tensor of the batch shape; it does not matter with
                an infinite horizon.
        """
        x, flat = _vectors(self.model, s), self.V.reshape(-1, self._axes.size)
        step = torch.as_tensor(t if self.model.horizon is not None else 0)
        if not ((step >= 0) & (step < len(flat))).all():
            came, advice = f"{t}", "values are those of the horizon that was solved"
            checks.refuse("t", f"steps in 0 … {len(flat) - 1}", came, advice)
        batch = torch.broadcast_shapes(step.shape, x.shape[:-1])
        steps = step.expand(batch).reshape(-1).split(_ABREAST)
        points = x.expand(*batch, -1).reshape(-1, x.shape[-1]).split(_ABREAST)
        parts = [self._between(flat, *pair) for pair in zip(steps, points, strict=True)]
        return torch.cat(parts).reshape(batch)

    def _between(self, flat: Tensor, steps: Tensor, points: Tensor) -> Tensor:
        index, weight = self._axes.corners(points)
        return logspace.product(weight, flat[steps.unsqueeze(-1), index]).sum(-1)

    def action_values(self, s: Tensor, t: Any = 0) -> Tensor:
        """r(s,a) + γ V_{t+1}(s') of each action that is tried, (..., A), reward units.

        Looked ahead in the model itself: s' is where the step leads from s, not from a node.

        Args:
            s: states of any batch shape.
            t: the step, 0 ≤ t < T, an int or a tensor of the batch shape.
        """
        s_next, reward = stepped(self.model, *self._choices.beside(s))
        after = torch.as_tensor(t).unsqueeze(-1) + 1
        return reward + self.model.discount * self.values(s_next, after)

    def policy(self, t: Any, s: Tensor) -> TorchDistribution:
        """π_t(a|s) ∝ p(a|s) exp(Q_t(s,a)/α), by one step of lookahead in the model itself.

        Over continuous actions its density is constant on the cell around each action that is
        tried, so that it can be evaluated and compared like any other.

        Args:
            t: the step, 0 ≤ t < T, an int or a tensor of the batch shape.
            s: states of any batch shape.
        """
        q = self.action_values(s.double(), t) / self.model.temperature
        return self._choices.distribution(logspace.tilt(self._choices.log_prior(s), q, 1.0))


def on_grid(
    model: TrajectoryModel,
    *,
    states: Sequence[Any],
    actions: Sequence[Any] | None = None,
    periodic: Sequence[bool] | None = None,
) -> GridSolution:
    """Soft values of a continuous deterministic model of up to three dimensions, on a grid.

        V_t(s) = α log Σ_a p(a|s) exp((r(s,a) + γ V_{t+1}(s'))/α),   s' = f(s,a)

    in all nodes s, where V at s' is interpolated between the 2^d nodes around it (multilinearly, as
    in Munos and Moore 2002), and the integral over actions is a sum over the nodes of another grid.
    What a step leads to beyond the grid counts as its edge. The interpolation is a table whose
    successors are nodes, with the weights as probabilities: right for means, at optimism 0. Any
    other optimism would take the weights for luck, or bad luck, that is not there, and is not to be
    had: no other method takes a grid.

    Args:
        model: with states that are numbers or vectors of up to three, and dynamics that return
            a Delta.
        states: for each dimension of the state its coordinates, ascending.
        actions: for each dimension of the action the same, as far as the prior reaches, which is
            normalised over them. None where the actions are finitely many.
        periodic: which dimensions of the state close to a circle, so that the last coordinate is
            the first again; none if not given.

    Returns:
        A :class:`cai.GridSolution`: values at and between the nodes, and the policy in the model
        itself.

    Raises:
        ValueError: if the model is random, changes with time, never ends without a discount, or has
            finitely many states or more than three dimensions; if the grid does not fit it, or does
            not fit into memory.

    >>> import cai, torch
    >>> import pyro.distributions as dist
    >>> model = cai.TrajectoryModel(
    ...     initial=dist.Normal(0.0, 1.0),
    ...     dynamics=lambda s, a: dist.Delta(s + a),
    ...     reward=lambda s, a: -(s**2),
    ...     action_prior=dist.Normal(0.0, 1.0),
    ...     horizon=5,
    ... )
    >>> line = torch.linspace(-6, 6, 121)
    >>> found = cai.on_grid(model, states=[line], actions=[line])
    >>> found
    GridSolution(121 states, 121 actions)
    >>> cai.evaluate(model, found.policy, samples=100).elbo < 0
    True
    """
    checks.check_model(model)
    _check_model(model)
    event = model.initial.event_shape
    points = _points("states", states, event.numel())
    axes = Axes.closing(points, _circles(periodic, points))
    with seeded(0), poutine.block():
        choices = _choices(model, actions)
    nodes = axes.nodes if event else axes.nodes.squeeze(-1)
    size = axes.size * len(choices.actions) * 2 ** len(points)
    advice = "take fewer points"
    memory.check_fits("states", f"a grid of {axes.size} nodes", _COPIES * size, advice)
    with seeded(0), poutine.block(), torch.no_grad():
        check_deterministic(model, *choices.beside(nodes[:_ASKED]))
        _check_steps(model, choices, nodes)
        table = _table(model, axes, choices, nodes)
        if table.horizon is None:
            v = fixed_point(table, 0.0).log_values
        else:
            memory.check_values(table.steps, axes.size)
            last = table.final_reward / table.temperature
            v = sweeps.backward_from(table, 0.0, last, table.steps)
    V = (table.temperature * v).reshape(*v.shape[:-1], *axes.shape)
    return GridSolution(model, axes.points, V, choices.actions, axes, choices)


def _vectors(model: TrajectoryModel, s: Tensor) -> Tensor:
    """States as vectors, (..., d)."""
    event = model.initial.event_shape
    if not isinstance(s, Tensor) or s.shape[s.dim() - len(event) :] != event:
        advice = "as the model takes them"
        checks.refuse(
            "s",
            f"a tensor of shape [..., {event.numel()}]" if event else "a tensor",
            checks.described(s),
            advice,
        )
    return s.double() if event else s.double().unsqueeze(-1)


def _table(model: TrajectoryModel, axes: Axes, choices: Choices, nodes: Tensor) -> Table:
    """The interpolated problem, whose successors are the corners around each next state."""
    s_next, reward = stepped(model, *choices.beside(nodes))
    checks.check_no_nan("dynamics, states that follow", s_next, "look for 0/0 or 0·inf")
    index, weight = axes.corners(_vectors(model, s_next))
    log_prior = choices.log_prior(nodes)
    if log_prior.isnan().any():
        checks.refuse(
            "actions",
            "an action in the support of action_prior in each state",
            "none in some",
            "take a grid over that support",
        )
    S = axes.size
    return Table(
        log_initial=torch.full((S,), -math.log(S), dtype=torch.float64),
        log_prior=log_prior,
        log_dynamics=weight.log(),
        successors=index,
        reward=reward.contiguous(),
        arrival_reward=None,
        final_reward=model.final_rewards(nodes).expand(S).contiguous(),
        horizon=model.horizon,
        temperature=float(model.temperature),
        discount=float(model.discount),
    )


def _check_model(model: TrajectoryModel) -> None:
    event = model.initial.event_shape
    if support_size(model.initial) is not None:
        came, advice = "finitely many", "cai.tabulate(model) is its table, without a grid"
        checks.refuse("model", "continuous states", came, advice)
    if len(event) > 1 or event.numel() > _MOST:
        expected, advice = f"states of up to {_MOST} dimensions", "inference.fit trains a policy"
        checks.refuse("model", expected, f"shape {list(event)}", advice)
    if model.horizon is None and model.discount == 1:
        advice = "between nodes nothing ends for certain"
        checks.refuse("model", "a finite horizon or a discount below one", "neither", advice)


def _check_steps(model: TrajectoryModel, choices: Choices, nodes: Tensor) -> None:
    """Raises ValueError where other steps differ from the first, at some of the nodes."""
    s = nodes[torch.linspace(0, len(nodes) - 1, min(_ASKED, len(nodes))).long()]
    pairs = choices.beside(s)
    refuse_changes(model, "prior", choices.log_prior(s), lambda t: choices.log_prior(s, t))
    for name in ("transition", "rewards", "arrival_rewards"):
        refuse_changes(model, name, stepped(model, *pairs), lambda t: stepped(model, *pairs, t))


def _points(name: str, axes: Any, dimensions: int) -> list[Tensor]:
    """The coordinates of each dimension."""
    expected = f"{dimensions} arrays of coordinates, one for each dimension"
    listed = checks.several(name, axes, "torch.linspace(low, high, n) is one dimension")
    if len(listed) != dimensions:
        checks.refuse(name, expected, f"{len(listed)}", "a list of one is one dimension")
    points = [arrays.numbers(name, x, expected).detach() for x in listed]
    for x in points:
        if x.dim() != 1 or len(x) < 2 or not (x.isfinite().all() and (x.diff() > 0).all()):
            came = f"shape {list(x.shape)}" if x.dim() != 1 or len(x) < 2 else "others"
            advice = "torch.linspace(low, high, n) has them"
            checks.refuse(name, "at least two finite coordinates, ascending", came, advice)
    return points


def _circles(periodic: Any, points: list[Tensor]) -> list[bool]:
    if periodic is None:
        return [False] * len(points)
    listed = checks.several("periodic", periodic, "True or False for each dimension")
    for around in listed:
        checks.check_flag("periodic", around)
    if len(listed) != len(points):
        expected = f"{len(points)} times True or False, one for each dimension of the state"
        checks.refuse("periodic", expected, f"{len(listed)}", "leave it out if there is none")
    if any(around and len(x) < 3 for around, x in zip(listed, points, strict=True)):
        advice = "the last is the first again"
        checks.refuse("states", "at least three coordinates around a circle", "two", advice)
    return listed


def _choices(model: TrajectoryModel, actions: Any) -> Choices:
    prior = model.prior(model.initial.sample(), 0)
    if isinstance(exact(prior), dist.ImproperUniform):
        advice = "give action_prior a distribution, or solve it by inference.soft_values"
        checks.refuse("model", "an action prior that is a distribution", "a flat one", advice)
    A = support_size(prior)
    if A is None:
        if actions is None:
            advice = "torch.linspace(low, high, n) is one dimension"
            checks.refuse("actions", "a grid, since they are continuous", "none", advice)
        return Choices.on(model, _points("actions", actions, prior.event_shape.numel()))
    if actions is not None:
        advice = f"all of 0 … {A - 1} are tried"
        checks.refuse("actions", "None, as they are finitely many", "a grid", advice)
    return Choices(model, torch.arange(A))
