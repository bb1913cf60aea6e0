"""The density over open-loop plans that NUTS samples, as a function of unbounded numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to

from cai.distributions.flat_prior import FlatPrior
from cai.inference.planning.noise import roll
from cai.numerics import memory
from cai.program.trajectory import TrajectoryModel


class PlanDensity:
    """The density of an unbounded plan x and of noise."""

    def __init__(self, model: TrajectoryModel, T: int, eta: float, copies: int) -> None:
        self.model, self.T, self.eta = model, T, eta
        self.prior = model.prior(torch.zeros(()), torch.arange(T))
        self.flat = isinstance(self.prior, FlatPrior)
        self.off: Transform = biject_to(self.prior.support)
        with torch.no_grad():
            self.size = roll(model, self.plan(self._unbounded()).unsqueeze(0), None)[1]
        self.copies = copies if self.size else 1
        self.sampled = self.size > 0 and eta > 0
        size, advice = self.copies * self.size, "take fewer noises"
        memory.check_fits("noises", f"{self.copies} of {self.size} numbers", size, advice)
        half = torch.randn(self.copies // 2, self.size, dtype=torch.float64)
        self.fixed = torch.cat([half, -half]) if self.size else half.new_zeros(1, 0)
        gamma, t = model.discount, torch.arange(T, dtype=torch.float64)
        # log P(termination on arrival at step t + 1), t < T, and of surviving all steps.
        dies = t * math.log(gamma) + (math.log1p(-gamma) if gamma < 1 else -math.inf)
        self.log_death = torch.cat([dies, dies.new_tensor([T * math.log(gamma)])])

    def start(self) -> dict[str, Tensor]:
        """A starting point: a plan from the prior, and noise."""
        at = {"plan": self._unbounded()}
        if self.sampled:
            at["noise"] = torch.randn(self.copies, self.size, dtype=torch.float64)
        return at

    def _unbounded(self) -> Tensor:
        """A plan of the prior, or of N(0, 1) where that is flat, as numbers without bounds."""
        if self.flat:
            return torch.randn(self.T, *self.prior.event_shape, dtype=torch.float64)
        plan: Tensor = self.off.inv(self.prior.expand(torch.Size((self.T,))).sample().double())
        return plan

    def plan(self, x: Tensor) -> Tensor:
        """The actions of unbounded numbers, (..., T) + event shape."""
        action: Tensor = self.off(x)
        return action

    def potential(self, at: dict[str, Tensor]) -> Tensor:
        """Minus the log density, nats, ()."""
        return -self.log_density(at)

    def log_density(self, at: dict[str, Tensor]) -> Tensor:
        """The log density of the unbounded numbers, up to a constant, nats, ()."""
        x = at["plan"]
        plan = self.plan(x)
        total = self.off.log_abs_det_jacobian(x, plan).sum() + self.prior.log_prob(plan).sum()
        noise = at["noise"] if self.sampled else self.fixed
        if self.sampled:
            total = total - 0.5 * noise.square().sum()
        return total + self.utility(self.outcomes(plan.expand(len(noise), *plan.shape), noise)[0])

    def outcomes(self, plans: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of rewards up to each possible termination, (n, T+1), nats, and the states."""
        states, _ = roll(self.model, plans, numbers)
        before, after = states[:, :-1], states[:, 1:]
        paid = self.model.log_factor(before, plans, after, torch.arange(self.T))
        rewards = paid.expand(len(plans), self.T).cumsum(-1)
        final = self.model.final_rewards(states[:, -1]) / self.model.temperature
        return torch.cat([rewards, (rewards[:, -1] + final).unsqueeze(-1)], -1), states

    def utility(self, rewards: Tensor) -> Tensor:
        """(1/η) log E exp(η R/α) over termination, or E[R]/α, averaged over the noises."""
        if self.model.discount == 1:
            return rewards[:, -1].mean()
        if self.eta > 0:
            return (self.log_death + self.eta * rewards).logsumexp(-1).mean() / self.eta
        return (rewards * self.log_death.exp()).sum(-1).mean()
