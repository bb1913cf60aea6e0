"""Q as a network of the state, and of the time where there is a horizon."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai.distributions.exact_scores import log_probs
from cai.inference.learning.action_values import ActionValues
from cai.policies.neural import perceptron
from cai.policies.observation import View
from cai.tables.bellman import Rule


class QNetwork(ActionValues, nn.Module):
    """Q(s,·) as a network, in reward units.

    Args:
        problem: the model or environment, of which the space of states and the prior are kept.
        hidden: widths of the hidden layers.
        timed: whether the time is part of the state.
        actions: A.
        rule: "soft", "hard" or "boltzmann".
        entropy: whether the policy is paid its entropy.
    """

    def __init__(
        self,
        problem: Any,
        hidden: tuple[int, ...],
        timed: bool,
        actions: int,
        rule: Rule,
        entropy: bool,
    ) -> None:
        nn.Module.__init__(self)
        ActionValues.__init__(self, rule, entropy)
        self._view, self._timed, self._actions = View(problem), timed, actions
        self.network = perceptron((self._view.size + timed, *hidden, actions))

    def rows(self, s: Tensor, t: Any) -> Tensor:
        """Q(s,·), (n, A)."""
        dtype = next(self.network.parameters()).dtype
        x = self._view.timed(t, s, dtype) if self._timed else self._view.features(s, dtype)
        rows: Tensor = self.network(x)
        return rows.double()

    def log_prior(self, s: Tensor, t: Any) -> Tensor:
        """log p(·|s), (n, A), or (A,) where it is the same for all states."""
        return log_probs(self._view.prior(s, t), self._actions)

    def forward(self, t: Any, s: Tensor) -> TorchDistribution:
        """π(·|s), so that the network is a policy."""
        return dist.Categorical(logits=self.log_policy(s, t))

    @torch.no_grad()
    def values(self, s: Tensor, t: Any = 0) -> Tensor:
        """V_t(s), of the batch shape of s, reward units."""
        return self.V(torch.as_tensor(s), t)

    @torch.no_grad()
    def action_values(self, s: Tensor, a: Tensor, t: Any = 0) -> Tensor:
        """Q_t(s,a), of the batch shape of s and a, reward units."""
        rows, a = self.rows(torch.as_tensor(s), t), torch.as_tensor(a).long()
        shape = torch.broadcast_shapes(rows.shape[:-1], a.shape)
        chosen = rows.expand(*shape, -1).gather(-1, a.expand(shape).unsqueeze(-1))
        return chosen.squeeze(-1)
