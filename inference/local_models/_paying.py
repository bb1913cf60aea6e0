"""Continuous models that pay a linear reward: linear-Gaussian ones stay so where they can."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from cai import checks
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward

_PLACES, _SPREAD = 32, 3.0  # random states and actions where a reward is compared with a quadratic
_QUADRATIC = 1e-9  # relative error up to which it is one


def paying(model: TrajectoryModel, paid: LinearReward) -> TrajectoryModel:
    """A model with a reward in place of its own; its final reward stays.

    A linear-Gaussian model whose reward is quadratic remains one, up to a constant in the reward.

    Raises:
        ValueError: if another reward is meant for a linear-Gaussian model that depends on the step.
    """
    if not isinstance(model, LinearGaussian):
        return paid.given_to(model)
    n, m = model.state_size, model.action_size
    found = None if paid.arrival else quadratic(paid, n, m)
    if found is not None:
        P, p = found
        return dataclasses.replace(model, Q=P[:n, :n], N=P[:n, n:], R=P[n:, n:], q=p[:n], rho=p[n:])
    if any(x.dim() > 2 for x in (model.A, model.B, model.noise)) or model.drift.dim() > 1:
        expected, came = "features that are quadratic in (s, a)", "others"
        advice = "where matrices depend on the step, a cai.LinearGaussian takes no other reward"
        checks.refuse("reward", expected, came, advice)
    arrival = paid.on_arrival if paid.arrival else None
    return TrajectoryModel(
        initial=model.initial,
        dynamics=model.transition,
        reward=paid,
        arrival_reward=arrival,
        final_reward=model.final_reward,
        action_prior=model.action_prior,
        horizon=model.horizon,
        temperature=model.temperature,
    )


def quadratic(paid: LinearReward, n: int, m: int) -> tuple[Tensor, Tensor] | None:
    """P and p of r = -½ x'Px + p'x + a constant, x = (s, a); None if the reward is not that."""

    def at(x: Tensor) -> Tensor:
        return paid(x[..., :n], x[..., n:]).expand(x.shape[:-1])

    origin = torch.zeros(n + m, dtype=torch.float64, requires_grad=True)
    value = at(origin)
    p, P = torch.zeros(n + m, dtype=torch.float64), torch.zeros(n + m, n + m, dtype=torch.float64)
    if value.requires_grad:
        (slope,) = torch.autograd.grad(value, origin, create_graph=True)
        p = slope.detach()
        if slope.requires_grad:
            rows = [torch.autograd.grad(x, origin, retain_graph=True)[0] for x in slope]
            P = -torch.stack(rows)
    places = torch.randn(
        _PLACES, n + m, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    places = _SPREAD * places
    model = value.detach() + places @ p - 0.5 * (places @ P * places).sum(-1)
    off = (at(places) - model).abs()
    fits = P.isfinite().all() and (off <= _QUADRATIC * (1 + model.abs().max())).all()
    return (P, p) if fits else None
