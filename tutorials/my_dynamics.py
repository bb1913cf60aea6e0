"""Dynamics of one's own, in a file: a ferry on a river with a current.

Run it with ``cai compare tutorials/my_dynamics.py:model``.
"""

import pyro
import pyro.distributions as dist
import torch

import cai

WIDTH = 9  # landings 0 … 8 down the river; the ferry starts at 4 and wants to be at 2
WEIR = WIDTH - 1  # the last one is a weir, where the trip ends badly


def dynamics(s, a):
    """p(s'|s,a): row up, hold or drift; the current takes the ferry down, and sometimes twice."""
    current = pyro.sample("current", dist.Categorical(torch.tensor([0.3, 0.5, 0.2])))
    slack = pyro.sample("slack", dist.Bernoulli(0.1 + 0.2 * (s < 3)))  # calmer upstream
    row = a - 2  # actions 0, 1, 2 row two, one or no landings up the river
    drift = torch.where(slack.bool(), 0, current)
    landing = (s + row + drift).clamp(0, WEIR)
    return dist.Delta(torch.where(s == WEIR, s, landing))


def reward(s, a):
    """Effort, and the distance from landing 2."""
    effort = 0.4 * (2 - a)
    return torch.where(s == WEIR, -3.0, -0.3 * (s - 2).abs() - effort)


model = cai.TrajectoryModel(
    initial=dist.Categorical(torch.nn.functional.one_hot(torch.tensor(4), WIDTH).double()),
    dynamics=dynamics,
    reward=reward,
    action_prior=dist.Categorical(torch.ones(3)),
    horizon=12,
    temperature=0.5,
    layout=cai.Layout(
        states=(*(f"landing {k}" for k in range(WEIR)), "weir"),
        actions=("row hard", "row", "drift"),
    ),
)
