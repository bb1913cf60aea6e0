"""Open loop: plans, which choose the actions of all steps without observing the states."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai import checks, one_line
from cai.distributions.exact_scores import support_size
from cai.networks.heads import Head, head_for, moments, moved, onto
from cai.numerics import arrays, memory
from cai.numerics.exclusive import seeded
from cai.policies.observation import ActionPrior, blind, classes, shared_log_prior
from cai.program.interfaces import Episode, Policy
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import prior_sees_state

_SHORTER = "take a shorter horizon, or a cai.NeuralPolicy"


class Plan(nn.Module):
    """q(a_0) q(a_1) … q(a_{T-1}): each step has a distribution of its own, whatever the state.

    It starts at the prior, or near it; if the prior depends on the state, at its geometric mean
    over states, so that no plan has an action that is forbidden anywhere.

    Args:
        model: the model, which gives the space of actions and the number of steps.
        head: the family, :class:`cai.GaussianHead` and so on; the one that suits the prior if not
            given.

    Attributes:
        numbers: (T, size of the head), the inputs of the head; float64.

    Raises:
        ValueError: if the horizon is infinite, every action is forbidden somewhere, or the
            prior of continuous actions depends on the state.

    >>> import torch, cai
    >>> from cai import models
    >>> cai.Plan(models.ledge())(2, torch.tensor(0)).probs  # the prior, before training
    tensor([0.5000, 0.5000], dtype=torch.float64, grad_fn=<SoftmaxBackward0>)
    """

    numbers: Tensor

    __repr__ = one_line.of_module

    def __init__(self, model: TrajectoryModel, head: Head | None = None) -> None:
        super().__init__()
        T = checks.finite_horizon(model, "a plan")
        self._blind = _blind_prior(model)
        self._action_prior = ActionPrior.of(model)
        prior = self._prior(0)
        self._head = head_for(prior, head)
        memory.check_fits("model", f"a plan of {T} steps", T * self._head.size(prior), _SHORTER)
        self.numbers = nn.Parameter(torch.zeros(T, self._head.size(prior), dtype=torch.float64))

    @classmethod
    def of(cls, model: TrajectoryModel, log_probs: Tensor) -> Plan:
        """The plan with given log q(a_t), (T, A), of discrete actions, without parameters.

        It may have an action that is forbidden in some states, if those are not reached.
        """
        log_probs = arrays.numbers("log_probs", log_probs)
        checks.check_no_nan("log_probs", log_probs, "log q(a), normalised or not")
        plan = cls(model).requires_grad_(False)
        if log_probs.shape != plan.numbers.shape:
            expected, came = f"shape {list(plan.numbers.shape)}", str(list(log_probs.shape))
            checks.refuse("log_probs", expected, came, "one row for each step")
        plan._blind = dist.Categorical(logits=torch.zeros_like(log_probs[0]))
        plan.numbers.copy_(log_probs)
        return plan

    def forward(self, t: Any, s: Tensor) -> TorchDistribution:
        """q(a_t), for an int or a tensor t; s is ignored."""
        return self._head(self.numbers[t], self._prior(t))

    def unroll(self) -> Policy:
        """The same plan for one run over all steps, with one full-size gradient, not T."""
        numbers = self.numbers.unbind()
        return lambda t, s: self._head(numbers[t], self._prior(t))

    def _prior(self, t: Any) -> TorchDistribution:
        if self._blind is None:
            return self._action_prior(torch.zeros(()), t)
        if self._blind.batch_shape:
            return dist.Categorical(logits=self._blind.logits[t])
        return self._blind


class GaussianPlan(nn.Module):
    """q(a_0, …, a_{T-1}) = N(μ, L L'): a plan whose steps are correlated.

    It is squashed onto a box if the prior is on one. Its memory is its own actions,
    q(a_t | a_0, …, a_{t-1}), which is Gaussian again; so it needs no latent site, and its score is
    exact. It starts at the prior, or near it.

    Args:
        model: the model, which gives the space of actions, numbers or vectors, and the horizon.

    Attributes:
        mean: μ, (T m,), the actions of all steps concatenated, before squashing; float64.
        log_scales: log of the diagonal of L, (T m,).
        lower: L below its diagonal, (T m, T m); the other entries are not used.

    Raises:
        ValueError: if the horizon is infinite, the actions are discrete, or their prior depends
            on the state.

    >>> import cai
    >>> from cai import models
    >>> plan = cai.GaussianPlan(models.multigoal(horizon=5))
    >>> plan.scale_tril.shape
    torch.Size([10, 10])
    """

    __repr__ = one_line.of_module

    def __init__(self, model: TrajectoryModel) -> None:
        super().__init__()
        T = checks.finite_horizon(model, "a plan")
        if _blind_prior(model) is not None:
            checks.refuse(
                "action_prior",
                "a density, for a Gaussian plan",
                "discrete actions",
                "take cai.HistoryPolicy(model) for a joint table of all plans, or cai.Plan(model)",
            )
        self._action_prior = ActionPrior.of(model)
        size = T * self._prior(0).event_shape.numel()
        memory.check_fits("model", f"the covariance of {size} numbers", size**2, _SHORTER)
        start = [moments(self._prior(t), torch.zeros((), dtype=torch.float64)) for t in range(T)]
        for t in range(T):
            onto(self._prior(t))
        self.mean = nn.Parameter(torch.cat([mean.double() for mean, _ in start]))
        self.log_scales = nn.Parameter(torch.cat([scale.double().log() for _, scale in start]))
        self.lower = nn.Parameter(torch.zeros(len(self.mean), len(self.mean), dtype=torch.float64))

    @property
    def scale_tril(self) -> Tensor:
        """L, (T m, T m)."""
        return self.lower.tril(-1) + torch.diag_embed(self.log_scales.exp())

    def start(self) -> Episode:
        """A fresh episode, which remembers its actions."""
        L, m = self.scale_tril, self._prior(0).event_shape.numel()
        noise: list[Tensor] = []  # of the steps before, (..., m) each

        def step(t: Any, s: Tensor, before: Tensor | None) -> TorchDistribution:
            if (t + 1) * m > len(self.mean):
                raise IndexError(f"this is a plan of {t} steps")
            if before is not None:
                noise.append(self._noise(L, t - 1, noise, before))
            here = slice(t * m, (t + 1) * m)
            base = dist.MultivariateNormal(
                self._centre(L, t, noise), scale_tril=L[here, here], validate_args=False
            )
            return moved(base, self._prior(t))

        return step

    def _centre(self, L: Tensor, t: int, noise: list[Tensor]) -> Tensor:
        """E[a_t | a_0, …, a_{t-1}] before squashing, (..., m)."""
        m = len(self.mean) // int(self._action_prior.horizon or 1)
        mean = self.mean[t * m : (t + 1) * m]
        if not noise:
            return mean
        return mean + torch.cat(noise, -1) @ L[t * m : (t + 1) * m, : t * m].mT

    def _noise(self, L: Tensor, t: int, noise: list[Tensor], a: Tensor) -> Tensor:
        """The standard normal numbers that action a of step t came from, (..., m)."""
        prior, m = self._prior(t), len(self.mean) // int(self._action_prior.horizon or 1)
        edge = onto(prior)
        x = a.double() if edge is None else edge.inv(a.double())
        x = x.reshape(*x.shape[: x.dim() - len(prior.event_shape)], m)
        away = (x - self._centre(L, t, noise)).unsqueeze(-1)
        here = slice(t * m, (t + 1) * m)
        return torch.linalg.solve_triangular(L[here, here], away, upper=False).squeeze(-1)

    def _prior(self, t: Any) -> TorchDistribution:
        return self._action_prior(torch.zeros(()), t)


def _blind_prior(model: TrajectoryModel) -> dist.Categorical | None:
    """A prior on discrete actions for all states, one for all steps or a batch; else None.

    Raises:
        ValueError: if there is none.
    """
    checks.check_model(model, sampled=True)
    with seeded(0):
        prior = model.prior(model.initial.sample(), 0)
    if support_size(prior) is not None:
        return dist.Categorical(logits=shared_log_prior(model, classes(model, blind))[..., 0, :])
    if prior_sees_state(model):
        checks.refuse(
            "action_prior",
            "one density for all states, since a plan does not see them",
            "a function of the state",
            "give the model a distribution, or take cai.NeuralPolicy",
        )
    return None
