"""One training step for programs that cannot be tabulated: score function, 100 particles, T = 100.

The reference is the same estimator in plain torch, without Pyro: noise drawn in one call, states
and actions by arithmetic under ``no_grad``, then one call that scores the policy in all steps, the
reward to go minus the mean of the other particles, and the same network and optimiser. The target
is half the speed, the price of writing the model as a program and not as a simulator.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import cai
from benchmarks.timing import Race, check_close
from cai.inference.gradients.score_function import score_gradient

HORIZON = 100
PARTICLES = 100

Simulator = Callable[[nn.Module, int], tuple[Tensor, Tensor]]
"""(network, n) -> what the network saw (T+1, n, 1 + state) and actions (T, n, action)."""

PUSH = torch.tensor([[1.0, 0.1], [0.0, 1.0]])  # position and velocity after a tenth of a second
THRUST = torch.tensor([0.0, 0.1])
JITTER = torch.tensor([0.01, 0.05])


def integrator() -> Race:
    """A cart on a line, to be parked at zero: 2-D state, linear dynamics, Gaussian noise."""
    model = cai.TrajectoryModel(
        initial=dist.Normal(torch.tensor([1.0, 0.0]), 0.2).to_event(1),
        dynamics=lambda s, a: dist.Normal(s @ PUSH.T + a * THRUST, JITTER).to_event(1),
        reward=lambda s, a: -s.square().sum(-1) - 0.1 * a.square().sum(-1),
        action_prior=dist.Normal(torch.zeros(1), 1.0).to_event(1),
        horizon=HORIZON,
    )

    def simulate(network: nn.Module, n: int) -> tuple[Tensor, Tensor]:
        seen, actions = _clock(n, 2), torch.randn(HORIZON, n, 1)
        jitter = torch.randn(HORIZON, n, 2) * JITTER
        s = torch.tensor([1.0, 0.0]) + 0.2 * torch.randn(n, 2)
        for t in range(HORIZON):
            seen[t, :, 1:] = s
            mean, log_scale = network(seen[t]).chunk(2, -1)
            a = actions[t].mul_(log_scale.exp()).add_(mean)
            s = torch.addmm(jitter[t], s, PUSH.T) + a * THRUST
        seen[HORIZON, :, 1:] = s
        return seen, actions

    def rewards(seen: Tensor, actions: Tensor) -> Tensor:
        return -seen[:-1, :, 1:].square().sum(-1) - 0.1 * actions.square().sum(-1)

    return _race("program, integrator", model, simulate, rewards)


def gusts() -> Race:
    """A walker on a line in gusts: 1-D state, and a latent site of the dynamics' own."""

    def dynamics(s: Tensor, a: Tensor) -> dist.Normal:
        gust = pyro.sample("gust", dist.Bernoulli(0.1))
        return dist.Normal(s + 0.1 * a - gust, 0.1)

    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=dynamics,
        reward=-0.1,
        arrival_reward=lambda s, a, s_next: -s_next.abs(),
        action_prior=dist.Normal(0.0, 1.0),
        horizon=HORIZON,
    )

    def simulate(network: nn.Module, n: int) -> tuple[Tensor, Tensor]:
        seen, actions = _clock(n, 1), torch.randn(HORIZON, n, 1)
        gust = (torch.rand(HORIZON, n, 1) < 0.1).float()
        shift = 0.1 * torch.randn(HORIZON, n, 1) - gust
        s = torch.randn(n, 1)
        for t in range(HORIZON):
            seen[t, :, 1:] = s
            mean, log_scale = network(seen[t]).chunk(2, -1)
            a = actions[t].mul_(log_scale.exp()).add_(mean)
            s = (s + shift[t]).add_(a, alpha=0.1)
        seen[HORIZON, :, 1:] = s
        return seen, actions

    def rewards(seen: Tensor, actions: Tensor) -> Tensor:
        return -0.1 - seen[1:, :, 1].abs()

    return _race("program, gusts", model, simulate, rewards)


def twins(model: cai.TrajectoryModel) -> tuple[cai.NeuralPolicy, nn.Module]:
    """A policy, and a copy of its network for the reference."""
    policy = cai.NeuralPolicy(model)
    nn.init.normal_(policy.network[-1].weight, std=0.1)  # a start at the prior would prove little
    return policy, copy.deepcopy(policy.network)


def step(module: nn.Module, gradient: Callable[[], object]) -> Callable[[], None]:
    """One step of Adam along what a function adds to the gradients of a module."""
    adam = torch.optim.Adam(module.parameters(), lr=1e-3)

    def take() -> None:
        adam.zero_grad()
        gradient()
        adam.step()

    return take


def _race(
    name: str,
    model: cai.TrajectoryModel,
    simulate: Simulator,
    rewards: Callable[[Tensor, Tensor], Tensor],
) -> Race:
    torch.manual_seed(0)
    policy, network = twins(model)
    estimate = score_gradient(model, policy, PARTICLES)

    def by_hand() -> None:
        with torch.no_grad():
            seen, actions = simulate(network, PARTICLES)
            reward = rewards(seen, actions)
        score_function(network, seen, actions, reward)

    _check(model, policy, network, simulate, rewards)
    weights = sum(p.numel() for p in network.parameters())
    return Race(
        name=name,
        sizes=f"T={HORIZON} n={PARTICLES}, {weights} weights",
        reference="the same estimator in torch",
        ours=step(policy, estimate),
        theirs=step(network, by_hand),
        target=0.5,
    )


def score_function(network: nn.Module, seen: Tensor, actions: Tensor, rewards: Tensor) -> float:
    """Adds the gradient of -ELBO to the network and returns -ELBO; p(a) is standard normal."""
    mean, log_scale = network(seen[:-1]).chunk(2, -1)
    z = (actions - mean) * (-log_scale).exp()
    log_q = (-0.5 * z.square() - log_scale).sum(-1)  # less the ½ log 2π that log p(a) has, too
    with torch.no_grad():
        scores = rewards - log_q - 0.5 * actions.square().sum(-1)
        to_go = scores.flip(0).cumsum(0).flip(0)
        n = to_go.shape[1]
        weight = (to_go - to_go.mean(1, keepdim=True)) / (n - 1)  # 1/n of own less others' mean
    log_q.backward(-weight)
    return -to_go[0].mean().item()


def _clock(n: int, dims: int) -> Tensor:
    """What the network will see, (T+1, n, 1 + dims), with t/T filled in."""
    seen = torch.empty(HORIZON + 1, n, 1 + dims)
    seen[..., 0] = (torch.arange(HORIZON + 1) / HORIZON).unsqueeze(1)
    return seen


def _check(
    model: cai.TrajectoryModel,
    policy: cai.NeuralPolicy,
    network: nn.Module,
    simulate: Simulator,
    rewards: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """The same gradient from the same trajectories, and trajectories of the same distribution."""
    torch.manual_seed(1)
    loss = score_gradient(model, policy, PARTICLES)()
    torch.manual_seed(1)
    paths = model.simulate(policy, PARTICLES)
    seen, dims = _clock(PARTICLES, math.prod(model.initial.event_shape)), (PARTICLES, HORIZON, -1)
    seen[:-1, :, 1:] = paths.states[:, :-1].reshape(dims).movedim(0, 1)
    actions = paths.actions.reshape(dims).movedim(0, 1)
    same = score_function(network, seen, actions, paths.rewards.movedim(0, 1).float())
    check_close("-ELBO from the same trajectories", loss, same, 1e-5 * abs(loss))
    for a, b in zip(policy.parameters(), network.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        check_close("gradient", a.grad, b.grad, 1e-4 * a.grad.abs().max().item())
    with torch.no_grad():
        seen, actions = simulate(network, 5000)
        reward = rewards(seen, actions).sum(0)
    returns = model.simulate(policy, 5000).returns
    for what, power in (("mean return", 1), ("mean squared return", 2)):
        x, y = returns**power, reward.double() ** power
        stderr = math.sqrt((x.var() + y.var()) / 5000)
        check_close(what, x.mean().item(), y.mean().item(), 5 * stderr)
