"""The solution of an infinite horizon: a chain without an axis of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor

from cai import checks
from cai.infinite.fixed_point import FixedPoint
from cai.infinite.visits import earned, expected_visits
from cai.numerics import logspace
from cai.numerics.exclusive import cached_property
from cai.solutions.chain import Chain
from cai.tables import bellman
from cai.tables.table import Table

_NOW = slice(0, 1)  # all steps are alike


class OfFiniteHorizons:
    """A member of :class:`Solution` about single steps, refused with an infinite horizon."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, solution: Chain | None, owner: type) -> Any:
        return self if solution is None else checks.finite_horizon(solution.table, self._name)


@dataclass(frozen=True, eq=False, repr=False)
class Stationary(Chain):
    """The Bellman solution of an infinite horizon at one optimism η, and its own chain q.

    S states, A actions: ``V`` (S,), ``Q`` (S, A), a stationary ``policy``, ``log_values`` (S,).
    The rest is as in :class:`Solution`, except for members about steps: ``sample``, ``marginal``,
    ``at`` and ``log_forward`` raise ValueError.

    Attributes:
        error: (), reward units: a certified bound of the error of ``V``; None for the Boltzmann
            rule, where only the residual is known.
        residual: (), reward units: max |T V - V|, T the backward recursion.

    >>> from cai import inference, models
    >>> solution = inference.soft_values(models.ledge(horizon=None, discount=0.9))
    >>> solution.V.shape, solution.policy.log_probs.shape, solution.error < 1e-9
    (torch.Size([5]), torch.Size([5, 2]), True)
    """

    error: float | None = None
    residual: float = 0.0

    sample = OfFiniteHorizons()
    marginal = OfFiniteHorizons()
    at = OfFiniteHorizons()
    log_forward = OfFiniteHorizons()

    @classmethod
    def of(cls, table: Table, eta: float, rule: bellman.Rule, found: FixedPoint) -> Stationary:
        """The solution from a fixed point, converted to reward units."""
        alpha = table.temperature
        error = None if found.error is None else alpha * found.error
        residual = alpha * found.residual
        return cls(table, eta, found.log_values, rule, error=error, residual=residual)

    def mixed(
        self, parts: Sequence[Self], table: Table, log_values: Tensor, rounding: float
    ) -> Self:
        """The solution of a mixture, which is no further off than the worst of its parts."""
        errors = [part.error for part in parts if part.error is not None]
        error = max(errors) + rounding if len(errors) == len(parts) else None
        residual = max(part.residual for part in parts)
        return replace(self, table=table, log_values=log_values, error=error, residual=residual)

    def dynamics(self, t: int | None = None) -> Tensor:
        """(S, A, S): q(s'|s,a) ∝ p(s'|s,a) exp(η (r⁺ + V(s'))/α), the same at every step.

        A row sums to the probability of surviving the step, which is one without a discount. At a
        dead end, the true dynamics.

        Args:
            t: the step, if it must be one; it does not matter.
        """
        return self._dense_dynamics(_NOW)

    def tilt(self, t: int | None = None) -> Tensor:
        """(S, A), nats: KL(q(s'|s,a) ‖ p(s'|s,a)), termination included, at every step.

        Args:
            t: the step, if it must be one; it does not matter.
        """
        with self.table.threads():
            return self._tilt(_NOW)[0]

    @cached_property
    def states(self) -> Tensor:
        """(S,): expected numbers of visits while alive, under the solution's own chain.

        They sum to the expected lifetime. Without a discount they are counted until no reward can
        follow, so that absorbing states report 0.

        Raises:
            ValueError: if the chain may never end.
        """
        with self.table.threads():
            survival = self.log_survival(_NOW)[0].exp()
            return expected_visits(self.table, self.initial, self._transitions, survival)

    @cached_property
    def state_actions(self) -> Tensor:
        """(S, A): expected counts of actions in states, as ``states``."""
        return self.states.unsqueeze(-1) * self._log_policy.exp()

    @property
    def visits(self) -> Tensor:
        """(S, A): the same as ``state_actions``."""
        return self.state_actions

    @cached_property
    def imagined_return(self) -> float:
        """(), reward units: E[Σ rewards] under the solution's own start, dynamics and policy."""
        return earned(self.table, self.states, self._transitions)

    def log_policy(self, steps: slice) -> Tensor:
        """log π(a|s), (1, S, A), nats."""
        return self._log_policy.unsqueeze(0)

    def log_transitions(self, steps: slice) -> Tensor:
        """log q(s'|s,a) of each successor, surviving or not, (1, S, A, K), nats."""
        return self._log_bent

    def termination(self, steps: slice) -> tuple[Tensor, Tensor]:
        """log (γ, 1-γ), and the values of surviving and terminating, (1, S, 2), nats."""
        return bellman.termination(self.log_values.unsqueeze(0), self.table.discount)

    @property
    def _transitions(self) -> Tensor:
        """(S, A, K), the probability of each action and successor, survival not included."""
        return self._log_policy.exp().unsqueeze(-1) * self._log_bent[0].exp()

    @cached_property
    def _log_Q(self) -> Tensor:
        with self.table.threads():
            return bellman.action_values(self.table, self.log_values, self.optimism)

    @cached_property
    def _log_bent(self) -> Tensor:
        x = bellman.outcome_values(self.table, self.log_values, self.optimism)
        return logspace.tilt(self.table.log_dynamics, x, self.optimism).unsqueeze(0)

    def _stretches(self) -> tuple[slice]:
        return (_NOW,)
