"""Answers to the exercises of notebook 9."""

import math

import pyro.distributions as dist
import torch

import cai
from cai import models


def answer_1():
    """At the upright rest by 1.21 a step: 26 times in 20 steps, some 10^16 times in 200.

    Near the top θ'' = 15 θ, whose solutions grow like e^(√15 t), and a step lasts 0.05 s. Hanging
    down, θ'' = -15 θ: pushes come back as oscillations, and do not grow. That is why the median of
    the notebook is small and the worst case enormous: it depends on how long one stays at the top.
    """
    model = models.pendulum()
    for name, angle in (("upright", 0.0), ("hanging", math.pi)):
        start = torch.tensor([[angle, 0.0]], dtype=torch.float64, requires_grad=True)
        s, grown = start, {}
        for t in range(1, 41):
            s = model.dynamics(s, torch.zeros(1, 1, dtype=torch.float64)).mean
            if t in (20, 40):
                (push,) = torch.autograd.grad(s[0, 0], start, retain_graph=True)
                grown[t] = push[0, 0].abs().item()
        factor = (grown[40] / grown[20]) ** (1 / 20)
        print(f"{name}: {grown[20]:.1f} times after 20 steps, {grown[40]:.1f} times after 40")
        if name == "upright":
            print(f"a factor of {factor:.3f} a step; e^(0.05 √15) = {math.exp(0.05 * 15**0.5):.3f}")
            assert abs(factor - math.exp(0.05 * 15**0.5)) < 0.03
        else:
            assert grown[40] < 2


def answer_2():
    """log 2 at a low temperature, and less the warmer it is.

    When it is cold each goal has its own set of good actions, all of them equally good: twice as
    many good trajectories are worth log 2 nats. When it is warm the actions for one goal are not
    bad for the other, and at an infinite temperature nothing is worth anything.
    """
    edge = torch.ones(1, dtype=torch.float64)
    line, push = (torch.linspace(-x, x, 201, dtype=torch.float64) for x in (3, 1))

    def solved(temperature, goals):
        places = torch.tensor(goals, dtype=torch.float64)
        model = cai.TrajectoryModel(
            initial=dist.Normal(torch.zeros(1, dtype=torch.float64), 0.01).to_event(1),
            dynamics=lambda s, a: dist.Delta((s + a).clamp(-3, 3), event_dim=1),
            reward=lambda s, a: -(a**2).sum(-1),
            final_reward=lambda s: -4.0 * (s - places).abs().amin(-1) ** 2,
            action_prior=dist.Uniform(-edge, edge).to_event(1),
            horizon=3,
            temperature=temperature,
        )
        found = cai.on_grid(model, states=[line], actions=[push])
        return found.values(torch.zeros(1, dtype=torch.float64)).item() / temperature

    worth = []
    for alpha in (0.1, 1.0, 10.0, 100.0):
        worth.append(solved(alpha, [-2.0, 2.0]) - solved(alpha, [2.0]))
        print(f"α = {alpha:5}: a second goal is worth {worth[-1]:.3f} nats")
    print(f"log 2 = {math.log(2):.3f}")
    assert abs(worth[0] - math.log(2)) < 1e-3


def answer_3():
    """It stays right on average, and its noise grows without bounds; at the jump itself it is zero.

    The steeper the edge, the fewer samples see any slope, and the steeper it is where they do. The
    score function does not ask how the reward changes, only which samples got it, so that the edge
    may be a jump.
    """
    torch.manual_seed(0)
    mean = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    x = mean + torch.randn(100_000, dtype=torch.float64)
    exact = math.exp(-0.5) / math.sqrt(2 * math.pi)  # of P(x > 1), the limit
    noise = []
    for steepness in (2.0, 20.0, 200.0):
        paid = torch.sigmoid(steepness * (x - 1))
        (slopes,) = torch.autograd.grad(paid.sum(), x)  # dx/dmean is 1
        noise.append(slopes.std().item())
        print(
            f"pathwise, steepness {steepness:5}: {slopes.mean():.3f}, one sample ± {noise[-1]:.2f}"
        )
    score = ((x - mean) * (x > 1)).detach()
    print(f"score function at the jump:  {score.mean():.3f}, one sample ± {score.std():.2f}")
    print(f"exact, at the jump:          {exact:.3f}")
    assert noise[0] < score.std() < noise[1] < noise[2] / 2
    assert abs(score.mean() - exact) < 4 * score.std() / len(x) ** 0.5
