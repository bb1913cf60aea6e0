"""One step of the recursion, linearised: how mass flows from states to outcomes.

Everything is in nats. A state's mass goes to its actions by ∂v/∂q, and on to their outcomes by the
dynamics q at η, termination included; the gradient of the dynamics is that of the reweighting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.inference.derivatives._pullback import Needed, Tensors
from cai.numerics import logspace
from cai.tables import bellman
from cai.tables.bellman import Linearised
from cai.tables.table import Table, check_numbers


@dataclass(frozen=True)
class Visits:
    """The N actions that were taken, with their steps and states, in the order of time.

    Attributes:
        t: (N,), steps, ascending.
        s: (N,), states.
        a: (N,), actions.
    """

    t: Tensor
    s: Tensor
    a: Tensor

    def within(self, steps: slice) -> tuple[slice, tuple[Tensor, Tensor, Tensor]]:
        """The visits within some steps, and their indices into (steps, S, A)."""
        first, last = torch.searchsorted(self.t, torch.tensor([steps.start, steps.stop])).tolist()
        inside = slice(first, last)
        return inside, (self.t[inside] - steps.start, self.s[inside], self.a[inside])


@dataclass(frozen=True)
class Recursion:
    """The recursion without the tensors that have derivatives.

    Attributes:
        table: sizes, successors, horizon and discount; its tensors are replaced.
        eta: the optimism η.
        rule: how actions are chosen: "soft", "hard", "boltzmann" or "planned".
        visits: where the log-policy is needed.
    """

    table: Table
    eta: float
    rule: bellman.Rule
    visits: Visits | None

    @property
    def alpha(self) -> Tensor:
        """The temperature α, reward units per nat, ()."""
        return torch.as_tensor(self.table.temperature, dtype=torch.float64)

    def with_tensors(self, tensors: tuple[Tensor | None, ...]) -> Table:
        """The table in nats: temperature 1, with the tensors that have derivatives, unchecked."""
        reward, arrival, final, log_prior, log_dynamics = tensors
        changes: dict[str, Any] = {"reward": reward, "arrival_reward": arrival}
        changes |= {"final_reward": final, "log_prior": log_prior, "log_dynamics": log_dynamics}
        return self.table.holding(temperature=1.0, **changes)

    def checked(self, tensors: tuple[Tensor | None, ...]) -> Table:
        """The same; raises ValueError for NaN or +inf, which may have been written into them."""
        table = self.with_tensors(tensors)
        check_numbers(table)
        return table

    def in_nats(self) -> Table:
        """The table in nats, temperature 1, as plain numbers."""
        t, alpha = self.table, self.table.temperature
        arrival = None if t.arrival_reward is None else t.arrival_reward / alpha
        nats = (t.reward / alpha, arrival, t.final_reward / alpha)
        return self.checked((*nats, t.log_prior, t.log_dynamics))

    def linearised(self, table: Table, v_next: Tensor) -> Linearised:
        """The recursion at the values (..., S) of the next steps, from the table in nats."""
        return bellman.linearised(table, v_next, self.eta, self.rule)


def check_bound(bound: Tensor) -> None:
    """Raises ValueError if the bound is -inf, which has no derivative."""
    if bound == -torch.inf:
        checks.refuse(
            "bound",
            "a finite number to differentiate",
            "-inf",
            "look for rewards of -inf that cannot be avoided within the horizon, or make them "
            "finite",
        )


def lean(log_p: Tensor, x: Tensor, tilted: Tensor, eta: float) -> Tensor:
    """(q_k - p_k)/η for q ∝ p exp(ηx) over the last axis, without cancellation near η = 0."""
    if math.isinf(eta):
        return torch.zeros_like(tilted)
    p = log_p.exp()
    if abs(eta) >= 0.1:
        return (tilted - p) / eta
    soft = logspace.soft_mean(log_p, x, eta).unsqueeze(-1)
    ahead = torch.where((p > 0) & (soft > -torch.inf), x - soft, 0.0)
    if eta == 0:
        return p * torch.where(ahead > -torch.inf, ahead, 0.0)
    near = (eta * ahead).abs() < 1
    d = torch.where(near, eta * ahead, 0.0)
    return torch.where(near, p * d.expm1() / eta, (tilted - p) / eta)


def observed(
    problem: Recursion, steps: slice, at: Linearised, v: Tensor, on_log_policy: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of log p(a|s) and q from the log-policy at the visits, (c, S, A) each.

    An action counts once where it was taken, minus its probability for each visit of its state.
    Impossible actions count nothing, and at a dead end the policy is the prior.
    """
    visits = problem.visits
    assert visits is not None
    inside, index = visits.within(steps)
    on = torch.where(at.log_policy[index] > -torch.inf, on_log_policy[inside], 0.0)
    taken = torch.zeros_like(at.log_policy).index_put(index, on, accumulate=True)
    on_prior = taken - taken.sum(-1, keepdim=True) * at.log_policy.exp()
    if problem.rule == "hard":
        return on_prior, torch.zeros_like(on_prior)
    return on_prior, torch.where(v.unsqueeze(-1) > -torch.inf, on_prior, 0.0)


def gradients(
    at: Linearised, mass: Tensors, asked: Tensors | None, needed: Needed
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """The contribution of a few steps to the gradients.

    Args:
        at: policy and tilt, in nats.
        mass: on q and on log p(a|s) by way of v, (c, S, A) each.
        asked: the result of :func:`observed`, or None.
        needed: whether arrival rewards, the second, and dynamics, the last, need a gradient.

    Returns:
        Gradients of reward (S, A), arrival reward (S, A, K), log prior (S, A), log dynamics
        (S, A, K); of fields that depend on the step with their axis of c steps in front.
    """
    through, prior = mass
    if asked is not None:
        prior, through = prior + asked[0], through + asked[1]
    each = through.unsqueeze(-1)
    arrival = dynamics = None

    def summed(name: str, x: Tensor) -> Tensor:
        return x if name in at.table.by_step else x.sum(0)

    if needed[1]:
        arrival = summed("arrival_reward", each * at.transitions)
    if needed[-1]:
        tilt = lean(at.table.log_dynamics, at.x, at.transitions, at.eta)
        dynamics = summed("log_dynamics", each * tilt)
    return summed("reward", through), arrival, summed("log_prior", prior), dynamics
