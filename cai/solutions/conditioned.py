"""The exact posterior given other observations than the optimality of all steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from cai.solutions.solution import Solution
from cai.tables import bellman
from cai.tables.evidence import Evidence


@dataclass(frozen=True, eq=False, repr=False)
class Conditioned(Solution):
    """p(τ | observed, O_observed): a solution at η = 1 by the soft rule, with observations.

    Everything is as in :class:`Solution`, where O stands for the observations and the o_t that are
    observed, and ``bound`` is log p(observed, O).

    Attributes:
        evidence: what is observed.
    """

    evidence: Evidence = field(kw_only=True)  # type: ignore[misc]  # a field, not a class variable

    def piece(self, steps: slice) -> Conditioned:
        """The solution of steps start … stop - 1 as a problem of their own."""
        values = self.log_values[steps.start : steps.stop + 1]
        table, known = self.table.at(steps), self.evidence.piece(steps)
        return replace(self, table=table, log_values=values, evidence=known)

    def termination(self, steps: slice) -> tuple[Tensor, Tensor]:
        """log (γ, 1-γ), and the values of surviving and terminating, (steps, S, 2), nats."""
        terminated = self.evidence.log_dead[1:][steps, None]
        return bellman.termination(self.log_values[1:][steps], self.table.discount, terminated)

    def arrival_reward(self, t: int) -> Tensor | None:
        """r⁺ where step t is observed to be optimal, (S, A, K), reward units; else None."""
        return super().arrival_reward(t) if self.evidence.optimal[t] else None

    @property
    def _by_products(self) -> bool:
        return False

    def _action_values(self) -> Tensor:
        return self.evidence.action_values(self.table, self.log_values, slice(None))

    def _outcome_values(self, steps: slice) -> Tensor:
        return self.evidence.outcome_values(self.table, self.log_values, steps)

    @property
    def _known(self) -> Evidence:
        return self.evidence
