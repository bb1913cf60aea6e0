"""Policies on the last observation alone, as tables: partial sight without a memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai import checks
from cai.numerics import memory
from cai.policies.observation import classes, shared_log_prior
from cai.program.interfaces import Observe, Policy

if TYPE_CHECKING:
    from cai.program.trajectory import TrajectoryModel


class ReactivePolicy(nn.Module):
    """q(a_t | o_t) ∝ p(a|o) exp(θ_t(o,a)), o = observe(s): a table that states alike share.

    It sees what :class:`cai.HistoryPolicy` sees, and forgets it at once, so that its best ELBO is
    no more than that of ``inference.belief_values(model, observe)``; seeing nothing, that of the
    factorised plan. Unlike with a memory there may be optima that are only local (finding the best
    of all is NP-hard: Littman 1994).

    Args:
        model: a model with finitely many states and actions.
        observe: s -> what is seen of it; nothing if not given.
        stationary: one table for all steps instead of one for each.

    Attributes:
        logits: θ, shape (T, O, A), or (O, A) where stationary; float64.
        observations: (S,), the number of the observation that each state gives.
        log_prior: (O, A), log p(a|o), the normalised geometric mean over states that look alike.

    Raises:
        ValueError: where the model is not finite, the horizon is infinite without
            ``stationary=True``, or states that look alike have no allowed action in common.
    """

    observations: Tensor
    log_prior: Tensor

    def __init__(
        self, model: TrajectoryModel, observe: Observe | None = None, stationary: bool = False
    ) -> None:
        super().__init__()
        checks.check_flag("stationary", stationary)
        what = "a time-dependent policy (not one with stationary=True)"
        steps = () if stationary else (checks.finite_horizon(model, what),)
        self.register_buffer("observations", classes(model, observe))
        self.register_buffer("log_prior", shared_log_prior(model, self.observations))
        shape = (*steps, *self.log_prior.shape)
        advice = "take stationary=True, or a cai.NeuralPolicy"
        memory.check_fits("model", "logits of all steps", math.prod(shape), advice)
        self.logits = nn.Parameter(torch.zeros(shape, dtype=torch.float64))

    @property
    def log_probs(self) -> Tensor:
        """log q(a_t|o_t), shape (T, O, A), or (O, A) where stationary."""
        return (self.log_prior + self.logits).log_softmax(-1)

    def forward(self, t: Any, s: Tensor) -> TorchDistribution:
        """q(a_t|observe(s_t)) for an int or a tensor t that broadcasts with s."""
        table, seen = self.log_probs, self.observations[s.long()]
        return dist.Categorical(logits=table[seen] if table.dim() == 2 else table[t, seen])

    def unroll(self) -> Policy:
        """The same policy for one run over all steps, the table split once."""
        table = self.log_probs
        if table.dim() == 2:
            return lambda t, s: dist.Categorical(logits=table[self.observations[s.long()]])
        steps = table.unbind()
        return lambda t, s: dist.Categorical(logits=steps[t][self.observations[s.long()]])
