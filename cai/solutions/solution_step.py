"""One step of a solution, without the others."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cai import checks, one_line
from cai.solutions.chain import Chain
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class SolutionStep:
    """Step t of a solution: values and occupancies of states and actions.

    At t = T there are values and states but no actions: Q, policy, state_actions and dynamics raise
    ValueError.

    Attributes:
        t: which step, 0 … T.
        states: (S,): q(s_t=s, alive).
        rest: the solution from this step to the next, as a problem of its own.

    >>> from cai import inference, models
    >>> step = inference.posterior(models.ledge()).at(1)
    >>> step.V.shape, step.Q.shape, step.states.sum().round(decimals=6).item()
    (torch.Size([5]), torch.Size([5, 2]), 1.0)
    """

    t: int
    states: Tensor
    rest: Chain

    __repr__ = one_line.of_fields

    @property
    def V(self) -> Tensor:
        """(S,), reward units: V_t(s)."""
        return self.rest.V[0]

    @property
    def Q(self) -> Tensor:
        """(S, A), reward units: Q_t(s,a)."""
        return self._only(self.rest.Q)

    @property
    def policy(self) -> Tensor:
        """(S, A): π_t(a|s)."""
        return self._only(self.rest.policy.log_probs).exp()

    @property
    def state_actions(self) -> Tensor:
        """(S, A): q(s_t=s, a_t=a, alive)."""
        return self.states.unsqueeze(-1) * self.policy

    def dynamics(self) -> Tensor:
        """(S, A, S): q(s_{t+1}|s_t,a_t), alive, as :meth:`Solution.dynamics`."""
        self._only(self.rest.log_values[1:])
        return self.rest.dynamics(0)

    def _only(self, field: Tensor) -> Tensor:
        if not len(field):
            raise ValueError(
                f"step {self.t}: expected a step before the last, got the last; it has a value V "
                "and a distribution of states, but no actions"
            )
        return field[0]


def check_time(table: Table, t: int) -> None:
    """Raises ValueError unless t is a whole number, 0 ≤ t ≤ T."""
    if not checks.within(t, lambda step: 0 <= step <= table.steps and step.is_integer()):
        came, advice = str(t), "states are numbered from 0 to T"
        checks.refuse("t", f"a step in 0 … {table.steps}", came, advice)
