"""One step of a sampler by Stein's gradient: 64 states, 32 particles moved by 32 others.

The reference is the same step in plain torch: the same network of noise, whose first layer is
applied to a state once for all draws; the kernel; and the score of a density of four modes on the
square, in coordinates before tanh.
"""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from benchmarks.timing import Race, check_close
from cai import NoiseHead
from cai.inference.off_policy.stein import score_of, stein_loss
from cai.networks.unsquashed import Unsquashed

_STATES, _FIXED, _MOVED, _WIDTH, _RATE = 64, 32, 32, 128, 1e-3
_MODES = 0.6 * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def log_density(u: Tensor) -> Tensor:
    """log p(u) up to a constant, (…, 2) -> (…)."""
    nearness = -8.0 * (u.tanh().unsqueeze(-2) - _MODES).square().sum(-1)
    return nearness.logsumexp(-1) + (logsigmoid(2 * u) + logsigmoid(-2 * u)).sum(-1)


def against_torch() -> Race:
    torch.manual_seed(0)
    x = torch.randn(_STATES, _WIDTH)
    ours, theirs = _Ours(), _ByHand()
    theirs.network.load_state_dict(ours.head.network.state_dict())
    values = []
    for side in (ours, theirs):
        torch.manual_seed(1)
        values.append(float(side.loss(x).detach()))
    check_close("the loss", values[0], values[1], 1e-5)
    return Race(
        name="stein, one step / torch",
        sizes="64 states, 32 × 32 particles",
        reference="torch, by hand",
        ours=_step(ours, ours.head, x),
        theirs=_step(theirs, theirs.network, x),
        target=1 / 1.2,
    )


def _step(side: Any, network: nn.Module, x: Tensor) -> Any:
    adam = torch.optim.Adam(network.parameters(), lr=_RATE, fused=True)

    def step() -> None:
        adam.zero_grad()
        side.loss(x).backward()
        adam.step()

    return step


class _Ours:
    def __init__(self) -> None:
        edge = torch.ones(2)
        self.prior = dist.Uniform(-edge, edge).to_event(1)
        self.head, self.unsquashed = NoiseHead(_WIDTH, (_WIDTH,)), Unsquashed(self.prior)
        self.head.size(self.prior)

    def loss(self, x: Tensor) -> Tensor:
        q = self.head(x, self.prior)
        with torch.no_grad():
            fixed = self.unsquashed.draws(q, torch.Size((_FIXED,))).movedim(0, -2)
        moved = self.unsquashed.draws(q, torch.Size((_MOVED,))).movedim(0, -2)
        return stein_loss(fixed, score_of(log_density, fixed), moved)


class _ByHand:
    def __init__(self) -> None:
        self.network = nn.Sequential(nn.Linear(_WIDTH + 2, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, 2))

    def draw(self, x: Tensor, n: int) -> Tensor:
        xi = torch.randn(n, _STATES, 2)
        first, _, last = self.network
        of_x, of_noise = first.weight.split([_WIDTH, 2], -1)  # type: ignore[operator]
        hidden = (linear(x, of_x, first.bias) + xi @ of_noise.mT).tanh()  # type: ignore[arg-type]
        return (0.875 * (xi + last(hidden))).transpose(0, 1)

    def loss(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            u = self.draw(x, _FIXED)
        v = self.draw(x, _MOVED)
        u.requires_grad_()
        score = torch.autograd.grad(log_density(u).sum(), u)[0]
        with torch.no_grad():
            apart = v.unsqueeze(-2) - u.unsqueeze(-3)  # (states, moved, fixed, 2)
            squares = apart.square().sum(-1)
            h = squares.flatten(1).median(1).values.view(-1, 1, 1) / math.log(_FIXED + 1)
            kernel = (-squares / h).exp()
            pushed = 2 / h * (kernel.unsqueeze(-1) * apart).sum(-2)
            direction = (kernel @ score + pushed) / _FIXED
        return -(direction * v).sum(-1).mean()
