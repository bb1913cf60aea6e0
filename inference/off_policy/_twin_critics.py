"""Two networks Q(s,a) side by side, as one batched product for each layer."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai.distributions.exact_scores import support_size
from cai.policies.heads import moments, onto
from cai.policies.observation import View
from cai.program.interfaces import Observe


class TwinCritics(nn.Module):
    """Q_1 and Q_2 in reward units, of a state and an action, or of a state for each action.

    Actions on a box come in units of half its width, others in those of the prior's standard
    deviation.

    Args:
        problem: the model or environment, of which the space of states and the prior are kept.
        hidden: widths of the hidden layers, with rectified linear units.
        timed: whether the time is part of the state.
        observe: s -> what is seen of it; everything if not given.
    """

    def __init__(
        self,
        problem: Any,
        hidden: tuple[int, ...],
        timed: bool,
        observe: Observe | None = None,
    ) -> None:
        super().__init__()
        self._view, self._timed = View(problem, observe), timed
        prior = self._view.prior(problem.initial.sample(), 0)
        self.actions = support_size(prior)
        inputs, outputs = self._view.size + timed, self.actions or 1
        self._event = len(prior.event_shape)
        self._centre, self._unit = torch.zeros(1), torch.ones(1)
        if self.actions is None:
            inputs += prior.event_shape.numel()
            self._centre, self._unit = _units(prior)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise((inputs, *hidden, outputs)):
            bound = 1 / math.sqrt(fan_in)
            self.weights.append(torch.empty(2, fan_in, fan_out).uniform_(-bound, bound))
            self.biases.append(torch.empty(2, 1, fan_out).uniform_(-bound, bound))
        # Torch's own lists are slow to go through.
        self._layers = list(zip(self.weights, self.biases, strict=True))

    def forward(self, s: Tensor, t: Any, a: Tensor | None = None) -> Tensor:
        """Q of states and actions, (2, …), or of all actions if they are finitely many, (2, …, A).

        Args:
            s: of any batch shape.
            t: an int, or of a batch shape that broadcasts with it.
            a: of a batch shape that broadcasts with it; not needed for finitely many actions.
        """
        dtype = self._layers[0][0].dtype
        x = self._view.inputs(t, s, dtype, self._timed)
        if self.actions is None:
            assert a is not None
            action = a.flatten(a.dim() - self._event).to(dtype) if self._event else a.unsqueeze(-1)
            action = (action.to(dtype) - self._centre) / self._unit
            if x.shape[:-1] != action.shape[:-1]:
                batch = torch.broadcast_shapes(x.shape[:-1], action.shape[:-1])
                x, action = x.expand(*batch, -1), action.expand(*batch, -1)
            x = torch.cat([x, action], -1)
        batch, x = x.shape[:-1], x.reshape(1, -1, x.shape[-1]).expand(2, -1, -1)
        *inner, (weight, bias) = self._layers
        for w, b in inner:
            x = torch.baddbmm(b, x, w).relu_()
        if self.actions is None:  # a sum, as batched products with one column are slow
            return ((x * weight.mT).sum(-1) + bias.squeeze(-1)).reshape(2, *batch)
        return torch.baddbmm(bias, x, weight).reshape(2, *batch, -1)

    def smaller(self, s: Tensor, t: Any, a: Tensor | None = None) -> Tensor:
        """The smaller of both Q, (…) or (…, A), float64."""
        found: Tensor = self(s, t, a)
        return found.double().min(0).values

    def mean(self, s: Tensor, t: Any, a: Tensor | None = None) -> Tensor:
        """The mean of both Q, (…) or (…, A), float64."""
        found: Tensor = self(s, t, a)
        return found.double().mean(0)

    def prior(self, s: Tensor, t: Any) -> TorchDistribution:
        """The action prior."""
        return self._view.prior(s, t)


def _units(prior: Any) -> tuple[Tensor, Tensor]:
    """The middle and half the width of a box of actions, or the prior's moments, (m,) each."""
    edge: Any = onto(prior)
    if hasattr(edge, "low") and hasattr(edge, "high"):
        low, high = (x.expand(prior.event_shape).reshape(-1) for x in (edge.low, edge.high))
        return ((low + high) / 2).float(), ((high - low) / 2).float()
    centre, unit = moments(prior, torch.zeros(1))
    return centre.reshape(-1).float(), unit.reshape(-1).float()
