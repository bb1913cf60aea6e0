"""Q as a network of the state, and of the time where there is a horizon; and copies that lag."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.nn import functional

from cai.distributions.exact_scores import log_probs
from cai.inference.learning.action_values import ActionValues
from cai.networks.perceptron import perceptron
from cai.policies.observation import View
from cai.tables.bellman import Rule


class QNetwork(ActionValues, nn.Module):
    """Q(s,·) as a network, in reward units: an output for each action, or two streams.

    Two streams are V(s) and log π(·|s), outputs of the same hidden layers (Schulman et al. 2017,
    section 6.3; a dueling network, Wang et al. 2016, of the soft rule),

        Q(s,a) = V(s) + α log π(a|s)/p(a|s),    log π(·|s) = log p(·|s) + f(s,·) - log Σ_a p exp f,

    so that V(s) is also α log Σ_a p(a|s) exp(Q(s,a)/α). The gradient of Q is given as

        α (c ∇V(s) + ∇log π(a|s)),

    which is its own for c = 1/α. Along it, ½ (Q - y)² has α times the gradient of a policy
    gradient with a penalty α KL and a loss of the values with the weight c (eq. 65).

    Args:
        problem: the model or environment, of which the space of states and the prior are kept.
        hidden: widths of the hidden layers.
        timed: whether the time is part of the state.
        actions: A.
        rule: "soft", "hard", "boltzmann" or "planned".
        entropy: whether the policy is paid its entropy.
        value_weight: c, for two streams; None for an output for each action.
    """

    def __init__(
        self,
        problem: Any,
        hidden: tuple[int, ...],
        timed: bool,
        actions: int,
        rule: Rule,
        entropy: bool,
        value_weight: float | None = None,
    ) -> None:
        nn.Module.__init__(self)
        ActionValues.__init__(self, rule, entropy)
        self._view, self._timed, self._actions = View(problem), timed, actions
        self._weight, outputs = value_weight, actions + (value_weight is not None)
        self.network = perceptron((self._view.size + timed, *hidden, outputs))
        # Torch's own modules take long to be called.
        self._layers = [(x.weight, x.bias) for x in self.network if isinstance(x, nn.Linear)]
        self._scored: tuple[Any, Tensor] | None = None  # the latest prior and its logarithms

    def rows(self, s: Tensor, t: Any) -> Tensor:
        """Q(s,·), (n, A)."""
        *inner, (last, bias) = self._layers
        x = self._view.inputs(t, s, last.dtype, self._timed)
        for weight, b in inner:
            x = functional.linear(x, weight, b).tanh()
        outputs = functional.linear(x, last, bias).double()
        return outputs if self._weight is None else self._joined(outputs, s, t, self._weight)

    def _joined(self, streams: Tensor, s: Tensor, t: Any, weight: float) -> Tensor:
        """Q(s,·) from V(s) and f(s,·), (n, 1 + A)."""
        value, f = streams[..., :1], streams[..., 1:]
        fixed = value.detach()
        value = fixed + weight * self.alpha * (value - fixed)  # the same number, another gradient
        return value + self.alpha * (f - (self._reference(s, t) + f).logsumexp(-1, keepdim=True))

    def log_prior(self, s: Tensor, t: Any) -> Tensor:
        """log p(·|s), (n, A), or (A,) where it is the same for all states."""
        prior = self._view.prior(s, t)
        if self._scored is None or self._scored[0] is not prior:
            self._scored = prior, log_probs(prior, self._actions)
        return self._scored[1]

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
        return of_actions(self.rows(torch.as_tensor(s), t), torch.as_tensor(a))


def of_actions(rows: Tensor, a: Tensor) -> Tensor:
    """Q(s,a) from Q(s,·), (…, A), and actions, whose batch shapes broadcast."""
    shape = torch.broadcast_shapes(rows.shape[:-1], a.shape)
    index = a.long().expand(shape).unsqueeze(-1)
    return rows.expand(*shape, -1).gather(-1, index).squeeze(-1)


@torch.no_grad()
def follow(lagging: Iterable[Tensor], leading: Iterable[Tensor], share: float) -> None:
    """Moves the parameters of a network by a share of the way to those of another one."""
    for old, new in zip(lagging, leading, strict=True):
        old.lerp_(new, share)
