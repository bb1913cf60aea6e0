"""Networks Q(s,a) side by side, as one batched product for each layer."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.inference.learning.q_network import of_actions
from cai.networks.heads import moments, onto
from cai.policies.observation import View
from cai.program.interfaces import Observe


class Critics(nn.Module):
    """Q_1 … Q_n in reward units, of a state and an action, or of a state for each action.

    Actions on a box come in units of half its width, others in those of the prior's standard
    deviation.

    Args:
        problem: the model or environment, of which the space of states and the prior are kept.
        hidden: widths of the hidden layers, with rectified linear units.
        timed: whether the time is part of the state.
        observe: s -> what is seen of it; everything if not given.
        count: n, how many there are.
        unit: what an output of one is worth, reward units.

    Attributes:
        actions: A; None if actions are not finitely many.
        state_dims: how many dimensions of a tensor of states belong to one of them.
    """

    def __init__(
        self,
        problem: Any,
        hidden: tuple[int, ...],
        timed: bool,
        observe: Observe | None = None,
        count: int = 2,
        unit: float = 1.0,
    ) -> None:
        super().__init__()
        self._view, self._timed = View(problem, observe), timed
        self.unit = unit
        self.state_dims = len(problem.initial.event_shape)
        self._states = support_size(problem.initial)
        self._example = problem.initial.sample()
        prior = self._view.prior(self._example, 0)
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
            self.weights.append(torch.empty(count, fan_in, fan_out).uniform_(-bound, bound))
            self.biases.append(torch.empty(count, 1, fan_out).uniform_(-bound, bound))
        # Torch's own lists are slow to go through.
        self._layers = list(zip(self.weights, self.biases, strict=True))

    def forward(self, s: Tensor, t: Any, a: Tensor | None = None) -> Tensor:
        """Q of states and actions, (n, …), or of all actions if they are finitely many, (n, …, A).

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
        count, batch = len(self._layers[0][0]), x.shape[:-1]
        x = x.reshape(1, -1, x.shape[-1]).expand(count, -1, -1)
        *inner, (weight, bias) = self._layers
        for w, b in inner:
            x = torch.baddbmm(b, x, w).relu_()
        if self.actions is not None:
            return (torch.baddbmm(bias, x, weight) * self.unit).reshape(count, *batch, -1)
        # A sum, as batched products with one column are slow.
        return (((x * weight.mT).sum(-1) + bias.squeeze(-1)) * self.unit).reshape(count, *batch)

    def begin_at(self, other: Critics) -> None:
        """Takes the parameters of others of the same shapes, as the same functions of s and a.

        Outputs are scaled to the own unit, and weights of actions to the own units of actions,
        which differ where the priors do.

        Raises:
            ValueError: if the others see another observation of a state, or of the time.
        """
        s = self._example
        s = torch.arange(self._states) if self._states else torch.stack([s, s + 0.5])
        if not torch.allclose(self._seen(s), other._seen(s), equal_nan=True):
            checks.refuse(
                "start",
                "a result of a run with the same observe= and the same horizon",
                "one that saw states or times in another way",
                "train both runs alike",
            )
        self.load_state_dict(other.state_dict())
        if self.actions is None:
            rows = self.weights[0].data[:, -len(self._unit) :]
            self.biases[0].data += ((self._centre - other._centre) / other._unit) @ rows[:, None]
            rows *= (self._unit / other._unit)[:, None]
        for last in (self.weights[-1], self.biases[-1]):
            last.data *= other.unit / self.unit

    def _seen(self, s: Tensor) -> Tensor:
        """What the networks see of states at the second step."""
        return self._view.inputs(1, s, torch.float64, self._timed)

    def smaller(self, s: Tensor, t: Any, a: Tensor | None = None) -> Tensor:
        """The smallest Q, (…) or (…, A), float64."""
        found: Tensor = self(s, t, a)
        return found.double().min(0).values

    def mean(self, s: Tensor, t: Any, a: Tensor | None = None) -> Tensor:
        """The mean Q, (…) or (…, A), float64."""
        found: Tensor = self(s, t, a)
        return found.double().mean(0)

    @torch.no_grad()
    def action_values(self, s: Tensor, a: Tensor, t: Any = 0) -> Tensor:
        """The mean Q of states and actions, of their batch shape, reward units."""
        s, a = torch.as_tensor(s), torch.as_tensor(a)
        found = self.mean(s, t, a)
        return found if self.actions is None else of_actions(found, a)

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
