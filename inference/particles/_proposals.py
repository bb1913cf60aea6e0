"""Proposals of particles: a policy in the true dynamics, or a solution with its own dynamics."""

from __future__ import annotations

import math
from typing import Any, Protocol

import pyro
import torch
from pyro import poutine
from torch import Tensor

from cai import checks
from cai.inference.particles._beliefs import belief_of, draw
from cai.numerics.exclusive import exclusive
from cai.program.episode import check_policy, remembers, unrolled
from cai.program.handlers import Scope
from cai.program.interfaces import Policy
from cai.program.scoring import without_latents
from cai.program.trajectory import TrajectoryModel


class Proposal(Protocol):
    """q(s_0), q(a_t|s_t) and q(s_{t+1}, alive | s_t, a_t) of n particles."""

    policy: Policy

    def start(self, n: int) -> tuple[Tensor, Tensor]:
        """s_0, (n, ...), and log p(s_0)/q(s_0), (n,) or (), nats."""

    def step(self, t: int, s: Tensor, a: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next states, whether they are alive, and log p/q of both, (n,) or (), nats."""


def proposal_of(model: TrajectoryModel, proposal: Any) -> Proposal:
    """The proposal of a policy, in the true dynamics, or of a solution, in its own dynamics.

    Raises:
        ValueError: for a policy with a memory, or a solution of other dynamics, another rule than
            the soft one, or an optimism that is negative or infinite.
    """
    tilted = belief_of(proposal)
    if tilted is None:
        return TrueDynamics(model, model_prior(model) if proposal is None else proposal)
    eta = tilted.solution.optimism
    if not tilted.is_whole():
        checks.refuse(
            "proposal",
            "a solution by the soft rule, of all o_t and nothing else",
            repr(proposal),
            "pass its policy, if that takes every action that the prior takes",
        )
    if not 0 <= eta < math.inf:
        checks.refuse(
            "proposal",
            "a solution at a finite optimism of at least 0",
            f"one at {eta:g}",
            "pass its policy, which keeps the true dynamics",
        )
    if not tilted.has_dynamics_of(model):
        checks.refuse(
            "proposal",
            "a solution of this model's dynamics, start, horizon and discount",
            f"one of another problem, {proposal!r}",
            "solve this model; only temperature and rewards may differ",
        )
    return TrueDynamics(model, tilted.solution.policy) if eta == 0 else tilted


def model_prior(model: TrajectoryModel) -> Policy:
    """p(a|s) as a policy."""
    return lambda t, s: model.prior(s, t)


class TrueDynamics:
    """The policy's actions in the model's own dynamics, latents of the dynamics included."""

    def __init__(self, model: TrajectoryModel, policy: Policy) -> None:
        check_policy(policy)
        policy = without_latents(policy)
        if remembers(policy):
            checks.refuse(
                "proposal",
                "a policy (t, s) -> distribution",
                f"{type(policy).__name__}, which has a memory",
                "particles change their past when they are resampled; take inference.importance",
            )
        self.model, self.policy = model, unrolled(policy)

    def start(self, n: int) -> tuple[Tensor, Tensor]:
        """s_0 ~ p(s_0), and zero."""
        return draw(self.model.initial, n), torch.zeros((), dtype=torch.float64)

    def step(self, t: int, s: Tensor, a: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s' ~ p(s'|s,a), whether it is alive, and zero."""
        n = len(s)
        with exclusive(), poutine.block(), pyro.plate("particles", n), Scope().of(t):
            next_state = self.model.transition(s, a, t)
        s_next = draw(next_state, n)
        if self.model.discount < 1:
            alive = alive & (torch.rand(n, dtype=torch.float64) < self.model.discount)
        return s_next, alive, torch.zeros((), dtype=torch.float64)
