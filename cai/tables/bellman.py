"""The backward recursion of every exact method, with one parameter, the optimism η.

    Q_t(s,a) = r + (α/η) log E_{s'|s,a}[ exp(η r⁺/α) ( γ exp(η V_{t+1}(s')/α) + 1 - γ ) ]
    V_t(s)   = α log Σ_a p(a|s) exp(Q_t(s,a)/α)

η = 1 is exact inference (Levine 2018, eq. 7), η → 0 leaves the dynamics as they are (eq. 15),
η → ∞ chooses the outcome, η < 0 plays against the agent. Everything here is in nats: v = V/α,
q = Q/α, x = (r⁺ + continuation)/α. The second line is the soft rule of action; the hard rule has
V = max_a Q, the Boltzmann rule V = E_π[Q] with the π of the soft one, and the planned rule
V = max_a Q with that π.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from cai import checks
from cai.numerics import logspace, memory
from cai.numerics.exclusive import cached_property
from cai.tables.table import Table

Rule: TypeAlias = Literal["soft", "hard", "boltzmann", "planned"]
"""How actions are chosen, which defines the value of a state."""


def check_rule(rule: Rule, name: str = "rule") -> Rule:
    """The rule; raises ValueError if it is not one of them."""
    checks.check_one_of(name, rule, get_args(Rule), 'try "soft"')
    return rule


def rule_of_values(rule: Rule) -> Rule:
    """The rule that has the same values: "hard" for "planned", whose policy alone is another."""
    return "hard" if rule == "planned" else rule


def backward(table: Table, eta: float, rule: Rule = "soft") -> Tensor:
    """v_t(s) = V_t(s)/α for t = 0 … T, shape (T+1, S), nats, as written above: any η and rule.

    ``sweeps.backward`` is the fast version, by matrix products where possible.
    """
    memory.check_values(table.steps, table.num_states)
    v = torch.empty(table.steps + 1, table.num_states, dtype=torch.float64)
    v[-1] = table.final_reward / table.temperature
    with table.threads():
        for t in range(table.steps - 1, -1, -1):
            v[t] = backup(table.at(t), v[t + 1], eta, rule)
    return v


def backup(table: Table, v_next: Tensor, eta: float, rule: Rule = "soft") -> Tensor:
    """One step of the recursion, the operator T: (..., S) -> (..., S), nats."""
    return state_values(table, action_values(table, v_next, eta), rule)


def action_values(table: Table, v_next: Tensor, eta: float) -> Tensor:
    """q(s,a) from the values of the next step, (..., S) -> (..., S, A), nats."""
    x = outcome_values(table, v_next, eta)
    return table.reward / table.temperature + logspace.soft_mean(table.log_dynamics, x, eta)


def outcome_values(table: Table, v_next: Tensor, eta: float) -> Tensor:
    """X = (r⁺ + continuation)/α of each outcome, (..., S) -> (..., S, A, K), nats."""
    x = table.gather(continuation(v_next, eta, table.discount))
    if table.arrival_reward is not None:
        x = x + table.arrival_reward / table.temperature
    return x


def state_values(table: Table, q: Tensor, rule: Rule = "soft") -> Tensor:
    """v(s) from action values, (..., S, A) -> (..., S), nats."""
    return values_of(table.log_prior, q, rule)


def log_policy(table: Table, q: Tensor, rule: Rule = "soft") -> Tensor:
    """log π(a|s) with π ∝ p(a|s) exp(q), (..., S, A); at a dead end (v = -inf) the prior.

    With the hard rule it is the prior restricted to the best actions. Actions tie if they differ by
    rounding errors only.
    """
    return policy_of(table.log_prior, q, rule)


def values_of(log_prior: Tensor, q: Tensor, rule: Rule) -> Tensor:
    """:func:`state_values` from log p(a|s) of any states, (..., A) each."""
    if rule_of_values(rule) == "hard":
        return torch.where(log_prior > -torch.inf, q, -torch.inf).amax(-1)
    if rule == "boltzmann":
        return logspace.mean(policy_of(log_prior, q, rule), q)
    return logspace.logsumexp(log_prior + q)


def policy_of(log_prior: Tensor, q: Tensor, rule: Rule) -> Tensor:
    """:func:`log_policy` from log p(a|s) of any states, (..., A) each."""
    if rule == "hard":
        best = values_of(log_prior, q, rule).unsqueeze(-1)
        wins = (q >= best - logspace.TIE * best.abs().clamp(min=1)) | (best == -torch.inf)
        return logspace.log_softmax(torch.where(wins, log_prior, -torch.inf))
    log_pi = log_prior + q
    dead_end = log_pi.amax(-1, keepdim=True) == -torch.inf
    return logspace.log_softmax(torch.where(dead_end, log_prior, log_pi))


@dataclass(frozen=True, eq=False)
class Linearised:
    """One step of the recursion and its derivative, the probabilities of what can follow.

    Attributes:
        table: the problem.
        v_next: (..., S), nats: the values of the next step.
        eta: the optimism η.
        rule: how actions are chosen.
        x: (..., S, A, K), nats: the value of each outcome.
        q: (..., S, A), nats.
    """

    table: Table
    v_next: Tensor
    eta: float
    rule: Rule
    x: Tensor
    q: Tensor

    @cached_property
    def log_policy(self) -> Tensor:
        """log π(a|s), (..., S, A)."""
        return log_policy(self.table, self.q, self.rule)

    @cached_property
    def log_transitions(self) -> Tensor:
        """log q(s'|s,a), the dynamics at η, before termination, (..., S, A, K)."""
        return logspace.tilt(self.table.log_dynamics, self.x, self.eta)

    @cached_property
    def transitions(self) -> Tensor:
        """q(s'|s,a), (..., S, A, K)."""
        return self.log_transitions.exp()

    @cached_property
    def survived(self) -> Tensor:
        """q(s', alive|s,a), (..., S, A, K)."""
        if self.table.discount == 1:
            return self.transitions
        alive = survival(self.v_next, self.eta, self.table.discount).exp()
        return self.transitions * self.table.gather(alive)


def linearised(table: Table, v_next: Tensor, eta: float, rule: Rule = "soft") -> Linearised:
    """The linearisation of one step at the values of the next step, (..., S), nats."""
    x = outcome_values(table, v_next, eta)
    q = table.reward / table.temperature + logspace.soft_mean(table.log_dynamics, x, eta)
    return Linearised(table, v_next, eta, rule, x, q)


def slopes(at: Linearised, v: Tensor) -> tuple[Tensor, Tensor]:
    """∂v/∂q(s,a) and ∂v/∂log p(a|s), (c, S, A) each; zero where v = -inf.

    The Boltzmann rule has v = E_π[q], so that an action also counts by how much it beats v.
    """
    pi = torch.where(v.unsqueeze(-1) > -torch.inf, at.log_policy.exp(), 0.0)
    if at.rule == "soft":
        return pi, pi
    if rule_of_values(at.rule) == "hard":
        if at.rule == "planned":  # values count the best actions alone
            best = log_policy(at.table, at.q, "hard").exp()
            pi = torch.where(v.unsqueeze(-1) > -torch.inf, best, 0.0)
        return pi, torch.zeros_like(pi)
    better = torch.where(pi > 0, at.q - v.unsqueeze(-1), 0.0)
    return pi * (1 + better), pi * better


def continuation(v: Tensor, eta: float, discount: float, dead: Tensor | float = 0.0) -> Tensor:
    """(1/η) log(γ exp(ηv) + 1 - γ): the value of a successor before termination."""
    if discount == 1:
        return v
    log_p, x = termination(v, discount, dead)
    return logspace.soft_mean(log_p, x, eta)


def survival(v: Tensor, eta: float, discount: float) -> Tensor:
    """log q(alive|s'), survival at η: γ exp(ηv) / (γ exp(ηv) + 1 - γ)."""
    if discount == 1:
        return torch.zeros_like(v)
    log_p, x = termination(v, discount)
    return logspace.tilt(log_p, x, eta)[..., 0]


def termination_kl(v: Tensor, eta: float, discount: float) -> Tensor:
    """KL(true ‖ at η) of termination for each successor, nats."""
    log_p, x = termination(v, discount)
    return logspace.kl(log_p, logspace.tilt(log_p, x, eta))


def termination(v: Tensor, discount: float, dead: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Termination as a distribution: log (γ, 1-γ), and x = (v, dead), shape (..., S, 2)."""
    log_p = torch.tensor([discount, 1 - discount], dtype=torch.float64).log()
    return log_p, torch.stack([v, torch.as_tensor(dead, dtype=v.dtype).expand_as(v)], -1)
