"""T, the backward recursion of an infinite horizon, and T at v made linear, for Newton's method."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cai.infinite.endings import Diverges, Endings, endings, far, largest
from cai.infinite.gap import Gap, Sums
from cai.infinite.transient import Transient
from cai.numerics import logspace
from cai.numerics.exclusive import cached_property
from cai.tables import bellman
from cai.tables.table import Table

_ROUGH = 1e-10  # a gap below this fraction of the values is computed at full precision
_WINDOW = 500  # sweeps within which values of -inf must show


@dataclass(frozen=True, eq=False)
class Operator:
    """T: v -> T v, whose fixed point the stationary values are.

    Attributes:
        table: the problem; its horizon does not matter.
        eta: the optimism η.
        rule: how actions are chosen.
        ends: which values are known before any is computed.
    """

    table: Table
    eta: float
    rule: bellman.Rule
    ends: Endings

    @classmethod
    def of(cls, table: Table, eta: float, rule: bellman.Rule) -> Operator:
        """T with the values that are known at an optimism η."""
        return cls(table, eta, rule, endings(table, eta))

    def __call__(self, v: Tensor) -> Tensor:
        """T v, (S,) -> (S,), nats."""
        return self.ends.filled(bellman.backup(self.table, v, self.eta, self.rule))

    def gap(self, v: Tensor) -> Gap:
        """T v - v to all its digits, at v (S,), nats."""
        return Gap.at(self.table, v, self.eta, self.rule, self._sums)

    @cached_property
    def _sums(self) -> tuple[Sums, Sums]:
        return Sums.of_table(self.table)

    def linear(self, v: Tensor, greedy: bool = False, exact: bool = False) -> Linearisation:
        """One application of T at v (S,), nats, with its derivative.

        Where T has a kink because actions or outcomes tie, the derivative is that of a mixture of
        them all, or with ``greedy`` that of the first of the best. The gap is computed by
        ``gap.py`` if it is small, or if it has to be ``exact``.
        """
        table, eta, live = self.table, self.eta, self.ends.live
        at = bellman.linearised(table, v, eta, self.rule)
        backed_up = bellman.state_values(table, at.q, self.rule)
        gap, found = torch.where(live, backed_up - v, 0.0), None
        if exact or not gap.abs().max() > _ROUGH * (1 + largest(v)):
            found = self.gap(v)
            gap = torch.where(live, found.values, 0.0)
        by_q = (at.log_policy if found is None else found.log_policy()).exp()
        if self.rule == "boltzmann":  # an action also counts by how much it beats the others
            by_q = by_q * (1 + torch.where(by_q > 0, at.q - backed_up.unsqueeze(-1), 0.0))
        bent = at.transitions
        if greedy and self.rule == "hard":
            by_q = _first_of_best(table.log_prior, at.q)
        if greedy and abs(eta) == torch.inf:
            bent = _first_of_best(table.log_dynamics, math.copysign(1.0, eta) * at.x)
        moves, last = by_q.unsqueeze(-1) * bent, (~live).double()
        alive = None
        if table.discount < 1:
            log_coin, of_coin = bellman.coin(v, table.discount)
            alive, dead = logspace.tilt(log_coin, of_coin, eta).exp().unbind(-1)
            last = torch.where(live, dead, last)
        ending = logspace.total((moves * table.gather(last)).flatten(-2))
        moves = moves if alive is None else moves * table.gather(alive)
        return Linearisation(self, v, gap, moves, ending, found)

    def check_lost(self) -> None:
        """Raises Diverges unless the value of the remaining states is shown to be -inf.

        They have values of -inf if some w has T w < w, or T w = -inf, everywhere among them; what
        is outside counts as zero, which a bounded number stands for.

        Raises:
            Diverges: if no such w shows.
        """
        lost = ~(self.ends.live | self.ends.ended)
        if not lost.any():
            return
        w = torch.zeros(self.table.num_states, dtype=torch.float64)
        for _ in range(_WINDOW):
            backed_up = bellman.backup(self.table, w, self.eta, self.rule)
            backed_up = torch.where(lost, backed_up, 0.0)
            falls = (backed_up < w - 1e-12 * (1 + w.abs())) | (backed_up == -torch.inf)
            if bool(falls[lost].all()):
                return
            # Half a step, since cycles of even length would oscillate.
            w = torch.where(backed_up > -torch.inf, (w + backed_up) / 2, -torch.inf)
            if w[lost].max() > far(self.table):
                break
        raise Diverges("going on for ever costs nothing")


@dataclass(frozen=True, eq=False)
class Linearisation:
    """T and its derivative at v.

    Attributes:
        operator: T.
        v: (S,), nats.
        gap: (S,), nats, T v - v; zero in states that are not live.
        moves: (S, A, K), ∂T/∂v: policy times dynamics at η, while alive. (For the Boltzmann rule
            π(1 + q - v) in the place of π.)
        ending: (S,), the probability, in the dynamics at η, that the next step is the last one.
    """

    operator: Operator
    v: Tensor
    gap: Tensor
    moves: Tensor
    ending: Tensor
    _found: Gap | None

    def chain(self) -> Transient:
        """The chain of the moves among live states, until it ends."""
        return Transient(self.operator.table, self.moves, self.operator.ends.live, self.ending)

    @property
    def residual(self) -> float:
        """max |T v - v|; NaN where v is."""
        return self.gap.abs().max().item()

    def exact(self) -> Linearisation:
        """The same with the gap to all its digits; itself if it is known."""
        return self if self._found is not None else self.operator.linear(self.v, exact=True)

    @property
    def noise(self) -> Tensor:
        """(S,), nats, a bound of the rounding error of the gap; infinite if it is not exact."""
        noise = torch.inf if self._found is None else self._found.noise
        return torch.where(self.operator.ends.live, noise, 0.0)

    @property
    def settled(self) -> bool:
        """Whether the gap is rounding errors."""
        return self._found is not None and bool((self.gap.abs() <= self.noise).all())


def _first_of_best(log_p: Tensor, x: Tensor) -> Tensor:
    """All weight on one of the largest possible x along the last axis; p if none is possible."""
    x = torch.where(log_p > -torch.inf, x, -torch.inf)
    one = torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1.0)
    return torch.where(x.amax(-1, keepdim=True) > -torch.inf, one, log_p.exp())
