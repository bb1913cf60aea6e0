"""T v - v for stationary values v at full precision, with a bound of its rounding error.

If termination is rare, values are large, and they are determined by a small difference of large
numbers: with a termination probability of 1e-10 per step, costs of 1 add up to 1e10 nats, at which
T v and v are rounded to 1e-6; over all steps until termination these errors sum to 1e4 nats. So
here the value v(s) of the state itself is subtracted from all numbers. Staying then counts as its
reward, exactly, and leaving as a large number times a small probability: the error is a fraction of
the summands of the gap, and the errors of 1e10 steps add up to a fraction of the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cai.infinite.precise_mean import HUGE, TINY, PreciseMean, Weights, error_of_the_best, finite
from cai.numerics import logspace
from cai.numerics.exclusive import cached_property
from cai.tables import bellman
from cai.tables.table import Table

_EPSILON = torch.finfo(torch.float64).eps
_LEAST = 1e-30  # nats: the smallest rounding error that is assumed
_TIE = 250.0  # times the rounding error: actions this close to the best tie with it
_AT_ONCE = 2**16  # transitions of a block
_FAR = 40.0  # log of a number beside which one is negligible


def gaps(
    table: Table,
    v: Tensor,
    eta: float,
    rule: bellman.Rule,
    weights: tuple[Weights, Weights] | None = None,
) -> Iterator[Gap]:
    """T v - v at v (S,), nats, in blocks of states that fit the cache.

    Args:
        table: the problem.
        v: (S,), nats, -inf included.
        eta: the optimism η.
        rule: how actions are chosen.
        weights: those of outcomes, and those of actions a priori, if they are known already.
    """
    dynamics, prior = weights or (Weights.of(table.log_dynamics), Weights.of(table.log_prior))
    ahead = _Next.of(v, eta, table.discount)
    length = max(1, _AT_ONCE * table.num_states // table.num_outcomes)
    for first in range(0, table.num_states, length):
        rows = slice(first, first + length)
        some = dynamics.at(rows), prior.at(rows)
        yield Gap.of(_only(table, rows), rows, v[rows], ahead, rule, some)


@dataclass(frozen=True, eq=False)
class Gap:
    """T v - v in a block of n states.

    Attributes:
        values: (n,), nats: T v - v; T v itself where v is infinite.
        states: which states.
        table: (n, A, K), what can be done in these states alone; any state may follow.
    """

    values: Tensor
    states: slice
    table: Table
    _here: Tensor
    _next: _Next
    _rule: bellman.Rule
    _outcomes: PreciseMean
    _actions: PreciseMean | None

    @classmethod
    def of(
        cls,
        table: Table,
        states: slice,
        v: Tensor,
        ahead: _Next,
        rule: bellman.Rule,
        weights: tuple[Weights, Weights],
    ) -> Gap:
        """T v - v for v (n,), nats, in the states of a table (n, A, K)."""
        here, (dynamics, prior) = finite(v), weights
        x = table.gather(ahead.alive) - here[:, None, None]
        if table.discount < 1:
            x += table.gather(ahead.death)
        if table.arrival_reward is not None:
            x = x + table.arrival_reward / table.temperature
        reward = table.reward / table.temperature
        less = here.unsqueeze(-1) - finite(reward)
        outcomes = PreciseMean.of(dynamics, x + reward.unsqueeze(-1), ahead.eta, less)
        actions = PreciseMean.of(prior, outcomes.value, 1.0) if rule == "soft" else None
        if actions is not None:
            values = actions.value
        else:
            values = bellman.state_values(table, outcomes.value, rule)
        return cls(values, states, table, here, ahead, rule, outcomes, actions)

    @property
    def x(self) -> Tensor:
        """(n, A, K), nats: reward plus next value of each outcome, minus v(s)."""
        return self._outcomes.x

    @property
    def q(self) -> Tensor:
        """(n, A), nats: Q(s,a) minus v(s)."""
        return self._outcomes.value

    @cached_property
    def noise(self) -> Tensor:
        """(n,), nats: a bound of the rounding error of the values.

        Twice the first order in ε. It includes the rounding of the log-probabilities in the table,
        and that of v in the present and the next state, as v ± d is rounded, too.
        """
        if self._actions is None:
            return error_of_the_best(self.table.log_prior, self.q, self._off) + _LEAST
        return self._actions.noise(self._off) + _LEAST

    def policy(self) -> Tensor:
        """π(a|s), (n, A). With the hard rule, actions within rounding errors tie."""
        if self._actions is not None:
            return self._actions.tilted()
        return self._log_policy().exp()

    def transitions(self) -> Tensor:
        """q(s'|s,a), the dynamics at η, before termination, (n, A, K)."""
        return self._outcomes.tilted()

    def _log_policy(self) -> Tensor:
        if self._rule != "hard":
            return bellman.log_policy(self.table, self.q, self._rule)
        wins = self.q + _TIE * self._off >= self.values.unsqueeze(-1)
        wins = wins | (self.values == -torch.inf).unsqueeze(-1)
        return logspace.log_softmax(torch.where(wins, self.table.log_prior, -torch.inf))

    @cached_property
    def _off(self) -> Tensor:
        """(n, A), nats: a bound of the rounding error of q."""
        table, ahead = self.table, self._next
        every = torch.arange(len(ahead.alive))
        arrived = every if table.successors is None else table.successors
        moved = arrived != every[self.states, None, None]
        size = (table.gather(ahead.size) + self._here.abs()[:, None, None]) * moved
        if size.shape != self.x.shape:  # densely, all actions have the same successors
            size = size.repeat(1, table.num_actions, 1)
        if table.arrival_reward is not None:
            size += finite(table.arrival_reward / table.temperature).abs()
        if table.discount < 1:
            size += table.gather(ahead.noise)
        size += finite(table.reward / table.temperature).abs().unsqueeze(-1)
        return self._outcomes.noise(size.mul_(4 * _EPSILON))


@dataclass(frozen=True, eq=False)
class _Next:
    """The values of successors, which may die on arrival.

    Attributes:
        alive: (S,), nats: the value if it goes on. One of -inf is combined with what death adds.
        death: (S,), nats: what possible termination adds.
        eta: the optimism η.
        discount: γ.
    """

    alive: Tensor
    death: Tensor
    eta: float
    discount: float

    @classmethod
    def of(cls, v: Tensor, eta: float, discount: float) -> _Next:
        if discount == 1:
            return cls(v, torch.zeros_like(v), eta, discount)
        known = v.isfinite()
        alive = v
        if not known.all():
            alive = torch.where(known, v, bellman.continuation(v, eta, discount))
        return cls(alive, torch.where(known, _death(alive, eta, discount), 0.0), eta, discount)

    @cached_property
    def size(self) -> Tensor:
        """(S,), nats: |alive|, of which a fraction may be rounded."""
        return finite(self.alive).abs()

    @cached_property
    def noise(self) -> Tensor:
        """(S,), nats: what death adds errs by at most ε times this."""
        return self.death.abs() + _sensitivity(finite(self.alive), self.eta, self.discount)


def _only(table: Table, rows: slice) -> Table:
    """Views of what can be done in some of the states; any state may follow."""
    names = ("log_prior", "log_dynamics", "successors", "reward", "arrival_reward")
    held = {name: getattr(table, name) for name in names}
    return table.holding(**{name: x if x is None else x[rows] for name, x in held.items()})


def _death(v: Tensor, eta: float, discount: float) -> Tensor:
    """(1/η) log(γ + (1-γ) exp(-ηv)): what possible termination adds to a value v."""
    if abs(eta) > HUGE:
        return torch.relu(-v) if eta > 0 else -torch.relu(v)
    if abs(eta) < TINY:
        return -(1 - discount) * v
    x = -eta * v
    far = torch.logaddexp(math.log(1 - discount) + x, torch.zeros_like(x))
    return torch.where(x < _FAR, ((1 - discount) * x.clamp(max=_FAR).expm1()).log1p(), far) / eta


def _sensitivity(v: Tensor, eta: float, discount: float) -> Tensor:
    """(S,), nats: the error of :func:`_death` is at most ε times this: q(dead) |v| plus its own."""
    if abs(eta) > HUGE:
        return v.abs()
    if abs(eta) < TINY:
        return (1 - discount) * v.abs()
    x = -eta * v
    change = (1 - discount) * x.clamp(max=_FAR).expm1()
    share = change.abs() / (1 + change)
    dies = (1 - discount) * x.clamp(max=_FAR).exp() / (1 + change)
    logs = torch.where(x < _FAR, 0.0, 1 - math.log(1 - discount))
    return (2 * share + dies * (x.abs() + logs)) / abs(eta)
