"""T, the backward recursion of an infinite horizon, and T at v made linear, for Newton's method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cai.infinite.endings import Diverges, Endings, endings, far, largest
from cai.infinite.gap import Gap, gaps
from cai.infinite.precise_mean import Weights
from cai.infinite.transient import Transient
from cai.numerics import logspace
from cai.numerics.exclusive import cached_property
from cai.tables import bellman
from cai.tables.table import Table

_ROUGH = 1e-8  # a gap above this fraction of the values is more than rounding errors
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

    def gaps(self, v: Tensor) -> Iterator[Gap]:
        """T v - v to all its digits, at v (S,), nats, in blocks of states."""
        return gaps(self.table, v, self.eta, self.rule, self._weights)

    @cached_property
    def _weights(self) -> tuple[Weights, Weights]:
        return Weights.of(self.table.log_dynamics), Weights.of(self.table.log_prior)

    def linear(self, v: Tensor, greedy: bool = False) -> Linearisation:
        """One application of T at v (S,), nats, with its derivative.

        Where T has a kink because actions or outcomes tie, the derivative is that of a mixture of
        them all, or with ``greedy`` that of the first of the best.
        """
        last, alive = (~self.ends.live).double(), None
        if self.table.discount < 1:
            log_p, x = bellman.termination(v, self.table.discount)
            alive, dead = logspace.tilt(log_p, x, self.eta).exp().unbind(-1)
            last = torch.where(self.ends.live, dead, last)
        gap, noise, ending = v.clone(), v.clone(), v.clone()
        moves = torch.empty_like(self.table.log_dynamics)
        small = _ROUGH * (1 + largest(v))
        for found in self.gaps(v):
            live, states = self.ends.live[found.states], found.states
            gap[states] = torch.where(live, found.values, 0.0)
            known = not gap[states].abs().max() > small
            noise[states] = torch.where(live, found.noise if known else torch.inf, 0.0)
            moved = self._policy(found, greedy).unsqueeze(-1) * self._transitions(found, greedy)
            ending[states] = logspace.total((moved * found.table.gather(last)).flatten(-2))
            moves[states] = moved if alive is None else moved * found.table.gather(alive)
        return Linearisation(self, v, gap, moves, ending, noise)

    def _policy(self, found: Gap, greedy: bool) -> Tensor:
        """By how much each action counts in the derivative, (n, A)."""
        if greedy and self.rule == "hard":
            return _first_of_best(found.table.log_prior, found.q)
        policy = found.policy()
        if self.rule == "boltzmann":  # an action also counts by how much it beats the others
            beats = found.q - found.values.unsqueeze(-1)
            policy = policy * (1 + torch.where(policy > 0, beats, 0.0))
        return policy

    def _transitions(self, found: Gap, greedy: bool) -> Tensor:
        """By how much each outcome counts in the derivative, (n, A, K)."""
        if greedy and abs(self.eta) == torch.inf:
            x = math.copysign(1.0, self.eta) * found.x
            return _first_of_best(found.table.log_dynamics, x)
        return found.transitions()

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
    _noise: Tensor

    def chain(self) -> Transient:
        """The chain of the moves among live states, until it ends."""
        return Transient(self.operator.table, self.moves, self.operator.ends.live, self.ending)

    @property
    def residual(self) -> float:
        """max |T v - v|; NaN where v is."""
        return self.gap.abs().max().item()

    @cached_property
    def noise(self) -> Tensor:
        """(S,), nats, a bound of the rounding error of the gap."""
        if self._noise.isfinite().all():
            return self._noise
        found = torch.cat([found.noise for found in self.operator.gaps(self.v)])
        return torch.where(self.operator.ends.live, found, 0.0)

    @property
    def settled(self) -> bool:
        """Whether the gap is rounding errors."""
        if self.residual > _ROUGH * (1 + largest(self.v)):
            return False
        return bool((self.gap.abs() <= self.noise).all())


def _first_of_best(log_p: Tensor, x: Tensor) -> Tensor:
    """All weight on one of the largest possible x along the last axis; p if none is possible."""
    x = torch.where(log_p > -torch.inf, x, -torch.inf)
    one = torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1.0)
    return torch.where(x.amax(-1, keepdim=True) > -torch.inf, one, log_p.exp())
