"""Continuous control by ``fit``: the pendulum's swing-up, and four goals that are all visited.

These are outcomes, not races: the return of a fitted policy relative to the best classical
controllers from the same starts, how often it ends at each goal, and the training time.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

import cai
from benchmarks import pendulum_control
from cai import inference, models
from cai.models.continuous.multigoal import GOALS
from cai.networks.heads import MixtureHead

STARTS = 2000


def outcomes() -> Iterator[str]:
    """One line for each figure, as soon as it is known."""
    yield from swing_up()
    yield from four_goals()


def swing_up() -> Iterator[str]:
    """Returns over 200 steps from the environment's own starts, the same for all."""
    model = models.pendulum(temperature=0.1)
    torch.manual_seed(0)
    tuning = model.initial.sample((STARTS,))
    policy, seconds = _timed(lambda: fit_swing_up(model))
    ours = model.simulate(policy, STARTS, seed=1)
    s = ours.states[:, 0]
    by_top = pendulum_control.returns(model, pendulum_control.best_on_top(model, tuning), s)
    by_grid = pendulum_control.returns(model, pendulum_control.value_iteration(model), s)
    yield f"swing-up: mean return {ours.returns.mean():.1f}, trained in {seconds}"
    for name, theirs in (("energy and LQR on top", by_top), ("value iteration on a grid", by_grid)):
        ratio, mean = ours.returns.mean() / theirs.mean(), theirs.mean()
        yield f"    {name}: {mean:.1f}; our costs over theirs {ratio:.3f}, target ≤ 1.1"


def fit_swing_up(model: Any) -> nn.Module:
    """A network that sees (cos θ, sin θ, θ̇) and no time, by windows of 20 and then of 40 steps."""
    torch.manual_seed(0)
    policy: nn.Module = cai.NeuralPolicy(model, observe=_seen, stationary=True)
    edge = torch.tensor([math.pi, 8.0], dtype=torch.float64)
    anywhere = dist.Uniform(-edge, edge).to_event(1)
    for horizon in (20, 40):
        window = dataclasses.replace(model, initial=anywhere, horizon=horizon)
        policy = inference.fit(
            window, policy, estimator="pathwise", steps=300, clip=1.0, progress=False
        ).policy
    return policy


def four_goals() -> Iterator[str]:
    """How often a mixture ends at each goal, and the ELBO of a single Gaussian, in nats."""
    model = models.multigoal()
    for name, head in (("a mixture of four", MixtureHead(4)), ("one Gaussian", None)):
        torch.manual_seed(0)
        policy = cai.NeuralPolicy(model, head=head, observe=_place)
        fitted, seconds = _timed(functools.partial(fit_four_goals, model, policy))
        ends = model.simulate(fitted.policy, 10_000, seed=1).states[:, -1]
        shares = ", ".join(f"{x:.3f}" for x in visited(ends).tolist())
        yield f"four goals, {name}: visits {shares}; ELBO {fitted.elbo:.2f} nats, in {seconds}"
    yield "    target: each 0.25 ± 0.05, by the mixture"


def fit_four_goals(model: Any, policy: nn.Module) -> Any:
    """A fit annealed from a temperature at which goals do not matter."""
    steps = 500

    def falling(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)

    return inference.fit(
        model,
        policy,
        estimator="critic",
        steps=steps,
        samples=200,
        clip=10.0,
        schedule=falling,
        temperature=lambda step: 10.0 * 30.0 ** max(0.0, 1 - 2 * step / steps),
        tolerance=-math.inf,
        progress=False,
    )


def visited(states: Tensor) -> Tensor:
    """(4,): the share of states, (n, 2), that are closer than one to each goal."""
    return _reached(states).double().mean(0)


def _reached(s: Tensor) -> Tensor:
    """Whether each goal is closer than one, (..., 4), which ends the episode."""
    return (s.unsqueeze(-2) - GOALS).norm(dim=-1) < 1


def _place(s: Tensor) -> Tensor:
    """Where the point is, and whether the episode is over."""
    over = _reached(s).any(-1, keepdim=True)
    return torch.cat([s.where(~over, 0.0), over.to(s.dtype)], -1)


def _seen(s: Tensor) -> Tensor:
    return torch.stack([s[..., 0].cos(), s[..., 0].sin(), s[..., 1] / 8], -1)


def _timed(run: Callable[[], Any]) -> tuple[Any, str]:
    """The result of a call, and its time in words."""
    wall, processor = time.perf_counter(), time.process_time()
    result = run()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return result, f"{wall:.0f} s ({processor:.0f} s of one core)"
