"""One pathwise training step through 200 steps of the pendulum, 256 particles at once.

The reference is the same estimator in plain torch for this one problem: the same network, the same
squashed Gaussian and its exact density, float64 states as the model has, and the backward pass
through all steps. The target is two thirds of its speed, the price of a model that is a program and
a policy that may be any distribution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

import cai
from benchmarks.programs import step, twins
from benchmarks.timing import Race, check_close
from cai import models
from cai.inference.gradients.pathwise import pathwise_gradient

HORIZON, PARTICLES, NOISE = 200, 256, 0.01
_TORQUE, _DT, _SPEED = 2.0, 0.05, 8.0


def pendulum() -> Race:
    """A network of 64 by 64 that swings the pendulum up."""
    model = models.pendulum(horizon=HORIZON, noise=NOISE)
    torch.manual_seed(0)
    policy, network = twins(model)
    estimate = pathwise_gradient(model, policy, PARTICLES)
    _check(estimate, policy, network)
    weights = sum(p.numel() for p in network.parameters())
    return Race(
        name="fit, pathwise / torch",
        sizes=f"T={HORIZON} n={PARTICLES}, {weights} weights",
        reference="the same estimator in torch",
        ours=step(policy, estimate),
        theirs=step(network, lambda: by_hand(network)),
        target=2 / 3,
    )


def by_hand(network: nn.Module) -> float:
    """Adds the gradient of -ELBO to the network and returns -ELBO, from noise drawn in order."""
    span = torch.tensor([math.pi, 1.0], dtype=torch.float64)
    s = (2 * torch.rand(PARTICLES, 2, dtype=torch.float64) - 1) * span
    elbo = torch.zeros(PARTICLES, dtype=torch.float64)
    for t in range(HORIZON):
        clock = torch.full((PARTICLES, 1), t / HORIZON)
        mean, log_scale = network(torch.cat([clock, s.float()], -1)).double().chunk(2, -1)
        noise = torch.randn(PARTICLES, 1, dtype=torch.float64)
        x = mean + log_scale.exp() * noise
        torque = _TORQUE * x.tanh()
        elbo = elbo + _score(x, noise, log_scale) + _reward(s, torque)
        s = _move(s, torque) + NOISE * torch.randn(PARTICLES, 2, dtype=torch.float64)
    loss = -elbo.mean()
    loss.backward()
    return loss.item()


def _score(x: Tensor, noise: Tensor, log_scale: Tensor) -> Tensor:
    """log p(a) - log q(a|s): a uniform prior, and a Gaussian squashed by tanh."""
    log_normal = -0.5 * noise.square() - log_scale - 0.5 * math.log(2 * math.pi)
    log_slope = math.log(4 * _TORQUE) + logsigmoid(2 * x) + logsigmoid(-2 * x)
    return (log_slope - log_normal - math.log(2 * _TORQUE)).squeeze(-1)


def _reward(s: Tensor, torque: Tensor) -> Tensor:
    from_upright = (s[:, 0] + math.pi) % (2 * math.pi) - math.pi
    return -(from_upright**2 + 0.1 * s[:, 1] ** 2 + 0.001 * torque[:, 0] ** 2)


def _move(s: Tensor, torque: Tensor) -> Tensor:
    speed = (s[:, 1] + (15 * s[:, 0].sin() + 3 * torque[:, 0]) * _DT).clamp(-_SPEED, _SPEED)
    return torch.stack([s[:, 0] + speed * _DT, speed], -1)


def _check(estimate: object, policy: cai.NeuralPolicy, network: nn.Module) -> None:
    """The same loss and gradient from the same noise, which both draw in the same order."""
    assert callable(estimate)
    torch.manual_seed(1)
    loss = estimate()
    torch.manual_seed(1)
    same = by_hand(network)
    check_close("-ELBO from the same noise", loss, same, 1e-6 * abs(same))
    for a, b in zip(policy.parameters(), network.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        check_close("gradient", a.grad, b.grad, 1e-3 * b.grad.abs().max().item())
        a.grad = b.grad = None
