"""V as a network, the action values that a policy implies beside it, and its divergence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cai.distributions.exact_scores import exact, log_probs
from cai.networks.perceptron import perceptron
from cai.policies.observation import View
from cai.program.interfaces import Observe


class StateValues(nn.Module):
    """V(s) in reward units, a network of the state, and of the time where there is a horizon."""

    def __init__(
        self,
        problem: Any,
        hidden: tuple[int, ...],
        timed: bool,
        observe: Observe | None = None,
    ) -> None:
        super().__init__()
        self._view, self._timed = View(problem, observe), timed
        self.network = perceptron((self._view.size + timed, *hidden, 1))

    def forward(self, t: Any, s: Tensor) -> Tensor:
        """V_t(s), of the batch shape of s."""
        dtype = next(self.network.parameters()).dtype
        values: Tensor = self.network(self._view.inputs(t, s, dtype, self._timed))
        return values.squeeze(-1).double()

    def begin_at(self, other: StateValues) -> None:
        """Takes the parameters of another of the same shapes."""
        self.load_state_dict(other.state_dict())

    @torch.no_grad()
    def reward_units(self, s: Tensor, t: Any = 0) -> Tensor:
        """V_t(s) with the state first, the form that ``Learned.values`` takes."""
        found: Tensor = self(t, s)
        return found


@dataclass(frozen=True, eq=False)
class SoftActionValues:
    """(s, a, t=0) -> V(s) + α log π(a|s)/p(a|s)."""

    policy: nn.Module
    critic: StateValues
    problem: Any
    alpha: float

    @torch.no_grad()
    def __call__(self, s: Tensor, a: Tensor, t: Any = 0) -> Tensor:
        """Action values, of the batch shape of s and a, reward units."""
        q, p = exact(self.policy(t, s)), exact(self.problem.prior(s, t))
        values: Tensor = self.critic(t, s) + self.alpha * (q.log_prob(a) - p.log_prob(a))
        return values


def divergence(q: Any, p: Any, a: Tensor, actions: int | None) -> tuple[Tensor, Tensor]:
    """log π(a|s), and KL(π ‖ p) at s, or log π(a|s)/p(a|s) if actions are not finitely many.

    Args:
        q: π(·|s), of n states.
        p: the action prior there.
        a: (n,) + event shape, the actions that were taken.
        actions: A; None if they are not finitely many.

    Returns:
        Both (n,), nats.
    """
    log_q = q.log_prob(a).double()
    if actions is None:
        return log_q, log_q - p.log_prob(a).double()
    every_q, every_p = log_probs(q, actions), log_probs(p, actions)
    ratio = torch.where(every_q > -torch.inf, every_q - every_p, 0.0)
    return log_q, (every_q.exp() * ratio).sum(-1)
