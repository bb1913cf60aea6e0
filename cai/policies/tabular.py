"""A policy as a table: one number for each step, each state or observation, and each action."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai import checks, one_line
from cai.numerics import arrays, logspace, memory
from cai.policies.observation import classes, shared_log_prior
from cai.program.interfaces import Observe, Policy
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import log_prior_table


class TabularPolicy(nn.Module):
    """q(a_t=a|s_t=s) ∝ p(a|s) exp(θ_t(s,a)), one number for each step, state and action.

    θ = 0 is the prior, and an action that the prior forbids stays forbidden.

    With ``observe`` states that look alike share a row, q(a_t|o_t) ∝ p(a|o) exp(θ_t(o,a)) for
    o = observe(s). Such a policy sees what :class:`cai.HistoryPolicy` sees but has no memory, so
    that its best ELBO is at most that of ``inference.belief_values(model, observe)``, and if it
    sees nothing (``cai.blind``) that of the factorised plan. Without a memory there may be local
    optima (finding the global one is NP-hard: Littman 1994).

    Args:
        model: a model with finitely many states and actions.
        stationary: one table for all steps instead of one for each.
        observe: s -> what the policy sees of it; everything if not given. States that look alike
            share the geometric mean of their priors.

    Attributes:
        logits: θ, shape (T, S, A), or (S, A) if stationary; float64. With ``observe`` there is a
            row for each of the O observations instead of one for each state.
        log_prior: log p(a|s), shape (S, A); with ``observe`` the normalised geometric mean over
            states that look alike, (O, A). Of a prior that depends on the step (T, …).
        observations: (S,), the number of the observation that each state gives; None if the policy
            sees everything.

    Raises:
        ValueError: if the states or actions are continuous, the horizon is infinite without
            ``stationary=True``, the prior depends on the step with it, or states that look alike
            have no allowed action in common.

    >>> import cai
    >>> from cai import models
    >>> cai.TabularPolicy(models.ledge()).logits.shape
    torch.Size([4, 5, 2])
    """

    logits: Tensor
    log_prior: Tensor
    observations: Tensor | None

    __repr__ = one_line.of_module

    def __init__(
        self, model: TrajectoryModel, stationary: bool = False, observe: Observe | None = None
    ) -> None:
        super().__init__()
        checks.check_flag("stationary", stationary)
        observations = None if observe is None else classes(model, observe)
        log_prior = (
            log_prior_table(model)
            if observations is None
            else shared_log_prior(model, observations)
        )
        if stationary and log_prior.dim() == 3:
            expected, came = "False, where the action prior depends on the step", "True"
            checks.refuse("stationary", expected, came, "give each step a table of its own")
        what = "a time-dependent policy (not one with stationary=True)"
        steps = () if stationary else (checks.finite_horizon(model, what),)
        rows = log_prior.shape[-2:]
        size = math.prod((*steps, *rows))
        advice = "take stationary=True, or a cai.NeuralPolicy"
        memory.check_fits("model", "logits of all steps, states and actions", size, advice)
        self.logits = nn.Parameter(torch.zeros(*steps, *rows, dtype=torch.float64))
        self.register_buffer("log_prior", log_prior)
        self.register_buffer("observations", observations)

    @classmethod
    def from_log_probs(cls, log_probs: Tensor) -> TabularPolicy:
        """The policy with given log q(a|s), shape (T, S, A) or (S, A), without parameters.

        Raises:
            ValueError: if they are not a dense array of numbers of such a shape.
        """
        log_probs = arrays.numbers("log_probs", log_probs, "log q(a|s), normalised or not")
        checks.check_no_nan("log_probs", log_probs, "log q(a|s), normalised or not")
        if log_probs.dim() not in (2, 3) or 0 in log_probs.shape[-2:]:
            came = str(list(log_probs.shape))
            checks.refuse("log_probs", "shape (T, S, A) or (S, A)", came, "one row for each state")
        policy = cls.__new__(cls)
        nn.Module.__init__(policy)
        policy.register_buffer("logits", torch.zeros((), dtype=torch.float64))
        policy.register_buffer("log_prior", log_probs)
        policy.register_buffer("observations", None)
        return policy

    @property
    def log_probs(self) -> Tensor:
        """log q(a_t|s_t), shape (T, S, A), or (S, A) if stationary."""
        rows = self._rows()
        return rows if self.observations is None else rows[..., self.observations, :]

    def forward(self, t: Any, s: Tensor) -> TorchDistribution:
        """q(a_t|s_t) for an int or a tensor t that broadcasts with s."""
        row, rows = self._row_of(s), self._rows()
        return dist.Categorical(logits=rows[row] if rows.dim() == 2 else rows[t, row])

    def unroll(self) -> Policy:
        """The same policy for one run over all steps.

        Splitting the table once costs its gradient one allocation; indexing it at every step
        would allocate the whole of it T times.
        """
        rows = self._rows()
        if rows.dim() == 2:
            return lambda t, s: dist.Categorical(logits=rows[self._row_of(s)])
        steps = rows.unbind()
        return lambda t, s: dist.Categorical(logits=steps[t][self._row_of(s)])

    def _rows(self) -> Tensor:
        return logspace.log_softmax(self.log_prior + self.logits)

    def _row_of(self, s: Tensor) -> Tensor:
        return s if self.observations is None else self.observations[s.long()]
