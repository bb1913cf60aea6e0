"""Policies on whole histories, as tables: q(a_t | o_0, a_0, o_1, …, o_t), o = observe(s).

If nothing is observed, a history is the actions so far, and the policy is a joint distribution over
all plans.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai import checks, one_line
from cai.numerics.arrays import of_step
from cai.policies.observation import classes, shared_log_prior
from cai.program.interfaces import Episode, Observe
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table

_LARGEST = 2**24  # numbers in the largest array, histories times actions times states


class HistoryPolicy(nn.Module):
    """q(a_t | o_0, a_0, …, o_t) ∝ p(a|o_t) exp(θ_t(history)): perfect memory of what was seen.

    The histories of step t are numbered: o_0 at first, then (h A + a) O + o after history h, action
    a and observation o. There are (A O)^t O of them, so this is for short horizons.

    Args:
        model: a model with finitely many states and actions and a finite horizon.
        observe: s -> what the policy sees of it; everything if not given. With ``cai.blind`` it is
            a plan: a joint distribution q(a_0, …, a_{T-1}) with correlated steps.

    Attributes:
        logits: θ, for each step a tensor (histories, A); float64.
        observations: (S,), the number of the observation that each state gives.
        log_prior: (O, A), or (T, O, A) of a prior that depends on the step: log p(a|o), the
            normalised geometric mean over states that look alike.

    Raises:
        ValueError: if the model is not finite, there are too many histories, or states that
            look alike have no allowed action in common.

    >>> import cai
    >>> from cai import models
    >>> policy = cai.HistoryPolicy(models.ledge(), observe=lambda s: s == 3)  # home or not
    >>> [len(logits) for logits in policy.logits]
    [2, 8, 32, 128]
    """

    observations: Tensor
    log_prior: Tensor

    __repr__ = one_line.of_module

    def __init__(self, model: TrajectoryModel, observe: Observe | None = None) -> None:
        super().__init__()
        T = checks.finite_horizon(model, "a policy on histories")
        self.register_buffer("observations", classes(model, observe))
        self.register_buffer("log_prior", shared_log_prior(model, self.observations))
        O, A = self.log_prior.shape[-2:]  # noqa: E741
        check_size(T, len(self.observations), A, O)
        self.logits = nn.ParameterList(
            torch.zeros((A * O) ** t * O, A, dtype=torch.float64) for t in range(T)
        )

    @property
    def log_probs(self) -> list[Tensor]:
        """log q(a_t | history), (histories, A) for each step."""
        return [(self.prior_of(t) + logits).log_softmax(-1) for t, logits in enumerate(self.logits)]

    def prior_of(self, t: int) -> Tensor:
        """log p(a|o) of the last observation of each history of step t, (histories, A)."""
        log_prior = of_step(self.log_prior, t, 2)
        return log_prior.repeat(len(self.logits[t]) // len(log_prior), 1)

    def start(self) -> Episode:
        """A fresh episode, whose memory is the number of its history."""
        log_probs, (O, A) = self.log_probs, self.log_prior.shape[-2:]  # noqa: E741
        history = torch.zeros((), dtype=torch.long)

        def step(t: int, s: Tensor, before: Tensor | None) -> TorchDistribution:
            nonlocal history
            seen = self.observations[s.long()]
            history = seen if before is None else (history * A + before.long()) * O + seen
            return dist.Categorical(logits=log_probs[t][history])

        return step


def moves(table: Table) -> Tensor:
    """γ p(s'|s,a), dense, (S, A, S), or (T, S, A, S) where they depend on the step."""
    return table.dense(table.log_dynamics) * table.discount


def seen_first(table: Table, observations: Tensor) -> Tensor:
    """p(o_0, s_0), (O, S)."""
    return _split(table.log_initial.exp(), observations)


def seen_next(acting: Tensor, P: Tensor, observations: Tensor) -> Tensor:
    """The mass (N, S, A) of (history, s, a) propagated to the next histories, (N A O, S)."""
    arrived = torch.einsum("hsa,san->han", acting, P)
    return _split(arrived, observations).flatten(0, 2)


def _split(mass: Tensor, observations: Tensor) -> Tensor:
    """(..., S) -> (..., O, S), the mass of each state in the row of its observation."""
    alike = torch.nn.functional.one_hot(observations).T.to(mass.dtype)
    return mass.unsqueeze(-2) * alike


def check_size(T: int, S: int, A: int, O: int) -> None:  # noqa: E741
    """Raises ValueError if there are too many histories to list."""
    numbers = (A * O) ** (T - 1) * O * A * S  # exact, since Python's integers do not overflow
    if numbers <= _LARGEST:
        return
    fits = _longest(S, A, O)
    so = f"so a horizon of at most {fits}" if fits else "which a single step already exceeds"
    power = math.log10(numbers)
    came = f"{numbers:.3g}" if power < 300 else f"10^{power:.0f}"
    checks.refuse(
        "horizon",
        f"at most {_LARGEST} numbers, (A O)^(T-1) O A S, {so}",
        f"{came} of {T} steps, {S} states, {A} actions and {O} observations",
        "take cai.Plan(model), or cai.NeuralPolicy and cai.RecurrentPolicy with observe=",
    )


def _longest(S: int, A: int, O: int) -> int:  # noqa: E741
    """The longest horizon whose histories can all be listed."""
    numbers, T = O * A * S, 0
    while numbers <= _LARGEST:
        numbers, T = numbers * A * O, T + 1
    return T
