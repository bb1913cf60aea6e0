"""Where particles go next: a policy in the true dynamics, or a solution that bends them, too."""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeAlias

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from cai import checks
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.numerics import logspace
from cai.numerics.exclusive import exclusive
from cai.program import calling
from cai.program.calling import check_policy, move_at
from cai.program.episode import remembers, unrolled
from cai.program.interfaces import Policy
from cai.program.scoring import without_latents
from cai.program.trajectory import TrajectoryModel
from cai.solutions.chain import Chain
from cai.tables.tabulation import tabulate

Bent: TypeAlias = Chain | GaussianSolution


class Proposal(Protocol):
    """q(s_0), q(a_t|s_t) and q(s_{t+1}, alive | s_t, a_t) of n particles."""

    policy: Policy

    def start(self, n: int) -> tuple[Tensor, Tensor]:
        """s_0, (n, ...), and log p(s_0)/q(s_0), (n,) or (), nats."""

    def step(self, t: int, s: Tensor, a: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next states, who lives there, and the log of p/q of both, (n,) or (), nats."""


def proposal_of(model: TrajectoryModel, proposal: Policy | Bent | None) -> Proposal:
    """A policy moves in the true dynamics, a solution in the dynamics that it believes in.

    Raises:
        ValueError: for a policy with a memory, or a solution of other dynamics, another rule than
            the soft one, or an optimism that is negative or infinite.
    """
    if not isinstance(proposal, Chain | GaussianSolution):
        return TrueDynamics(model, model_prior(model) if proposal is None else proposal)
    eta = proposal.optimism
    if proposal.conditioned or (isinstance(proposal, Chain) and proposal.rule != "soft"):
        checks.refuse(
            "proposal",
            "a solution by the soft rule, of all o_t and nothing else",
            repr(proposal),
            "its policy alone may do, if it takes every action that the prior takes",
        )
    if not 0 <= eta < math.inf:
        checks.refuse(
            "proposal",
            "a solution at a finite optimism of at least 0",
            f"one at {eta:g}",
            "pass its policy, which moves in the true dynamics",
        )
    _check_dynamics(model, proposal)
    if eta == 0:
        return TrueDynamics(model, proposal.policy)
    return BentTable(proposal) if isinstance(proposal, Chain) else BentGaussian(proposal)


def model_prior(model: TrajectoryModel) -> Policy:
    """p(a|s) as a policy."""
    return lambda t, s: model.prior(s, t)


def draw(distribution: Any, n: int) -> Tensor:
    """n values, one of each where the distribution has a batch, (n, ...)."""
    shape = torch.Size((n,))
    fits = distribution.batch_shape == shape
    whole = distribution if fits else distribution.expand(shape)
    return calling.draw(whole, torch.Size(), "particles")


class TrueDynamics:
    """The policy's actions in the model's own dynamics, latents of theirs included."""

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
        """s' ~ p(s'|s,a), the coin of death, and zero."""
        n = len(s)
        with exclusive(), poutine.block(), pyro.plate("particles", n):
            next_state = move_at(self.model.transition, s, a, t)
        s_next = draw(next_state, n)
        if self.model.discount < 1:
            alive = alive & (torch.rand(n, dtype=torch.float64) < self.model.discount)
        return s_next, alive, torch.zeros((), dtype=torch.float64)


class BentTable:
    """The chain that a solution at η > 0 believes in: start, policy, moves and coins of death."""

    def __init__(self, solution: Chain) -> None:
        self.solution, self.table = solution, solution.table
        self.policy = unrolled(solution.policy)

    def start(self, n: int) -> tuple[Tensor, Tensor]:
        """s_0 ~ q(s_0), and log p/q."""
        log_q = self.solution.log_initial
        s = draw(dist.Categorical(logits=log_q, validate_args=False), n)
        return s, (self.table.log_initial - log_q)[s]

    def step(self, t: int, s: Tensor, a: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s' ~ q(s'|s,a) and its coin for the living, the true dynamics for the dead."""
        table, now = self.table, slice(t, t + 1)
        with table.threads():
            log_bent = self.solution.log_transitions(now)[0][s, a]
        log_p = table.log_dynamics[s, a]
        log_q = torch.where(alive.unsqueeze(-1), log_bent, log_p)
        k = draw(dist.Categorical(logits=log_q, validate_args=False), len(s)).unsqueeze(-1)
        ratio = (log_p.gather(-1, k) - log_q.gather(-1, k)).squeeze(-1)
        s_next = k if table.successors is None else table.successors[s, a].gather(-1, k)
        s_next = s_next.squeeze(-1)
        if table.discount < 1:
            log_true, worth = self.solution.termination(now)
            log_coin = logspace.tilt(log_true, worth[0], self.solution.optimism)
            survives = torch.rand(len(s), dtype=torch.float64).log() < log_coin[s_next, 0]
            side = (~survives).long()
            ratio = ratio + torch.where(alive, log_true[side] - log_coin[s_next, side], 0.0)
            alive = alive & survives
        return s_next, alive, ratio


class BentGaussian:
    """The chain that a linear-Gaussian solution at η > 0 believes in.

    p(s'|s,a)/q(s'|s,a) = E[exp(ηV/α) | s,a] exp(-ηV(s')/α), and the mean is in Q; so no density is
    asked for, which singular noise has none of.
    """

    def __init__(self, solution: GaussianSolution) -> None:
        self.solution, self.model = solution, solution.model
        self.policy = unrolled(solution.policy)
        self.theta = solution.optimism / solution.model.temperature

    def start(self, n: int) -> tuple[Tensor, Tensor]:
        """s_0 ~ q(s_0), and log p/q."""
        s = draw(self.solution.initial.distribution(), n)
        bound = self.solution.optimism * self.solution.bound
        return s, bound - self.theta * self.solution.V(0, s)

    def step(self, t: int, s: Tensor, a: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s' ~ q(s'|s,a), all alive, and log p/q."""
        s_next = draw(self.solution.dynamics(t)(s, a), len(s))
        worth = self.solution.Q(t, s, a) - self.model.rewards(s, a, t)
        return s_next, alive, self.theta * (worth - self.solution.V(t + 1, s_next))


def _check_dynamics(model: TrajectoryModel, solution: Bent) -> None:
    """Raises ValueError where a solution bends other dynamics than the model's."""
    if isinstance(solution, GaussianSolution):
        other = solution.model
        same = other is model or (
            isinstance(model, LinearGaussian)
            and (other.horizon, other.discount) == (model.horizon, model.discount)
            and all(
                getattr(other, name).shape == getattr(model, name).shape
                and torch.equal(getattr(other, name), getattr(model, name))
                for name in ("A", "B", "drift", "noise", "initial_mean", "initial_covariance")
            )
        )
    else:
        # Not by table.program, which a table keeps when its arrays are replaced.
        same = _same_moves(solution.table, tabulate(model))
    if not same:
        checks.refuse(
            "proposal",
            "a solution of this model's dynamics, start, horizon and discount",
            f"one of others, {solution!r}",
            "solve this model; its temperature and its rewards may be others",
        )


def _same_moves(one: Any, two: Any) -> bool:
    if (one.horizon, one.discount) != (two.horizon, two.discount):
        return False
    for name in ("log_initial", "log_dynamics", "successors"):
        x, y = getattr(one, name), getattr(two, name)
        if (x is None) != (y is None):
            return False
        if x is not None and not (x.shape == y.shape and torch.equal(x, y)):
            return False
    return True
