"""T v - v for stationary values v at full precision, with a bound of its rounding error.

If termination is rare, values are large, and they are determined by a small difference of large
numbers: with a termination probability of 1e-10 per step, costs of 1 add up to 1e10 nats, at which
T v and v are rounded to 1e-6; over all steps until termination these errors sum to 1e4 nats. So
here the value v(s) of the state itself is subtracted from all numbers. Staying then counts as its
reward, exactly, and leaving as a large number times a small probability: the error is a fraction of
the summands of the gap, and the errors of 1e10 steps add up to a fraction of the values.

Soft means m are computed around themselves, m + log1p(Σ p expm1(η(x - m)))/η, where the most
probable outcomes contribute little. Rows whose sum is one up to rounding errors count as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cai.numerics import logspace
from cai.numerics.exclusive import cached_property
from cai.tables import bellman
from cai.tables.table import Table

_EPSILON = torch.finfo(torch.float64).eps
_TINY, _HUGE = 1e-200, 1e290  # |η| below counts as 0, above as infinite
_LEAST = 1e-30  # nats: the smallest rounding error that is assumed
_TIE = 250.0  # times the rounding error: actions this close to the best tie with it
_LEAST_LOG = -745.0  # of a float above zero
_NONE = -50.0  # log of a negligible probability
_ROUNDED = 1e-12  # by how much rounding errors may change the sum of a row
_FAR = 40.0  # log of a number beside which one is negligible


class Sums(NamedTuple):
    """Probabilities of the last axis, and by how much their sum differs from one.

    Attributes:
        log_p: (…, n).
        p: (…, n).
        excess: (…), the sum minus one; zero if that is a rounding error.
    """

    log_p: Tensor
    p: Tensor
    excess: Tensor

    @classmethod
    def of(cls, log_p: Tensor) -> Sums:
        """The probabilities exp(log_p), (…, n)."""
        excess = logspace.logsumexp(log_p).expm1()
        return cls(log_p, log_p.exp(), torch.where(excess.abs() > _ROUNDED, excess, 0.0))

    @classmethod
    def of_table(cls, table: Table) -> tuple[Sums, Sums]:
        """Those of outcomes, and those of actions a priori."""
        return cls.of(table.log_dynamics), cls.of(table.log_prior)


@dataclass(frozen=True, eq=False)
class Gap:
    """T v - v.

    Attributes:
        values: (S,), nats: T v - v; T v itself where v is infinite.
    """

    values: Tensor
    _table: Table
    _v: Tensor
    _eta: float
    _rule: bellman.Rule
    _outcomes: _Mean
    _actions: _Mean | None

    @classmethod
    def at(
        cls,
        table: Table,
        v: Tensor,
        eta: float,
        rule: bellman.Rule,
        sums: tuple[Sums, Sums] | None = None,
    ) -> Gap:
        """T v - v at v (S,), nats.

        Args:
            table: the problem.
            v: (S,), nats, -inf included.
            eta: the optimism η.
            rule: how actions are chosen.
            sums: what is known of the table's probabilities, ``Sums.of_table``.
        """
        dynamics, prior = sums or Sums.of_table(table)
        worth, loss = _successors(table, v, eta)
        x = table.gather(worth) - _finite(v)[:, None, None]
        if table.discount < 1:
            x = x + table.gather(loss)
        if table.arrival_reward is not None:
            x = x + table.arrival_reward / table.temperature
        reward = table.reward / table.temperature
        less = _finite(v).unsqueeze(-1) - _finite(reward)
        outcomes = _Mean.of(dynamics, x + reward.unsqueeze(-1), eta, less)
        actions = _Mean.of(prior, outcomes.value, 1.0) if rule == "soft" else None
        if actions is not None:
            values = actions.value
        else:
            values = bellman.state_values(table, outcomes.value, rule)
        return cls(values, table, v, eta, rule, outcomes, actions)

    @property
    def x(self) -> Tensor:
        """(S, A, K), nats: reward plus next value of each outcome, minus v(s)."""
        return self._outcomes.x

    @property
    def q(self) -> Tensor:
        """(S, A), nats: Q(s,a) minus v(s)."""
        return self._outcomes.value

    @cached_property
    def noise(self) -> Tensor:
        """(S,), nats: a bound of the rounding error of the values.

        Twice the first order in ε. It includes the rounding of the log-probabilities in the table,
        and that of v in the present and the next state, as v ± d is rounded, too.
        """
        if self._actions is None:
            return _of_the_best(self._table.log_prior, self.q, self._off) + _LEAST
        return self._actions.noise(self._off) + _LEAST

    def log_policy(self) -> Tensor:
        """log π(a|s), (S, A). With the hard rule, actions within rounding errors tie."""
        if self._rule != "hard":
            return bellman.log_policy(self._table, self.q, self._rule)
        wins = self.q + _TIE * self._off >= self.values.unsqueeze(-1)
        wins = wins | (self.values == -torch.inf).unsqueeze(-1)
        return logspace.log_softmax(torch.where(wins, self._table.log_prior, -torch.inf))

    @cached_property
    def _off(self) -> Tensor:
        """(S, A), nats: a bound of the rounding error of q."""
        table, eta = self._table, self._eta
        worth, loss = _successors(table, self._v, eta)
        worth, here = _finite(worth), _finite(self._v).abs()
        moved = table.successor_index != torch.arange(table.num_states).unsqueeze(1)
        size = table.gather(worth.abs()) + here[:, None, None]
        size = size * moved.reshape(self.x.shape)
        if table.arrival_reward is not None:
            size = size + _finite(table.arrival_reward / table.temperature).abs()
        if table.discount < 1:
            size = size + table.gather(loss.abs() + _sensitivity(worth, eta, table.discount))
        size = size + _finite(table.reward / table.temperature).abs().unsqueeze(-1)
        return self._outcomes.noise(4 * _EPSILON * size)


class _Mean(NamedTuple):
    """(1/η) log E_p[exp(ηx)] over the last axis, and its summands.

    Attributes:
        value: (…), the soft mean.
        terms: (…, n), p (exp(η(x - m)) - 1), or p (x - m) at η = 0, with m close to the value.
        bent: (…, n), q ∝ p exp(ηx), where ``close``.
        close: (…), boolean: whether the terms are used; else the value is that of bellman.py.
        log_p: (…, n).
        x: (…, n).
        eta: η.
    """

    value: Tensor
    terms: Tensor
    bent: Tensor
    close: Tensor
    log_p: Tensor
    x: Tensor
    eta: float

    @classmethod
    def of(cls, sums: Sums, x: Tensor, eta: float, less: Tensor | float = 0.0) -> _Mean:
        """The soft mean of x + less, minus less; the same for any ``less`` if p sums to one."""
        log_p, p, excess = sums
        eta = 0.0 if abs(eta) < _TINY else eta
        m = logspace.soft_mean(log_p, x, eta)
        if abs(eta) > _HUGE:
            return cls(m, x, x, m.isfinite(), log_p, x, eta)
        finite = m.isfinite()
        excess = torch.where(finite, excess, 0.0)
        counts = (log_p > -torch.inf) & finite.unsqueeze(-1)
        d = torch.where(counts, x - m.unsqueeze(-1), 0.0)
        if eta == 0:
            terms = p * d
            extra = torch.where(excess == 0, 0.0, excess * (m + less))
            value = m + logspace.total(terms) + extra
            return cls(value, terms, p, finite, log_p, x, eta)
        d = eta * d
        terms = p * d.expm1()
        bent = p + terms
        if (d > 1).any():  # exp(d) may overflow, though its factor is small
            bent = torch.where(d > 1, (log_p + d).exp(), bent)
            terms = torch.where(d > 1, bent - p, terms)
        total = logspace.total(terms) + excess
        close = total.abs() < 0.5
        value = torch.where(close, m + torch.where(close, total, 0.0).log1p() / eta, m)
        return cls(value, terms, bent, close, log_p, x, eta)

    def noise(self, off: Tensor) -> Tensor:
        """(…): twice a bound of the error of the value if x errs by ``off`` (…, n)."""
        size, value = abs(self.eta), _EPSILON * _finite(self.value).abs()
        if size > _HUGE:
            return 2 * (
                _of_the_best(self.log_p, math.copysign(1.0, self.eta) * self.x, off) + value
            )
        counts = self.x.shape[-1] + 8 - 4 * self.log_p.clamp(min=_LEAST_LOG)
        own = _EPSILON * logspace.total(self.terms.abs() * counts) / (size or 1.0)
        if size * off.max() < 1e-3:
            passed = 1.001 * logspace.total(self.bent * off)
        else:
            each = torch.where(size * off < 600, (size * off).expm1() / (size or 1.0), 1e300)
            passed = torch.minimum(logspace.total(self.bent * each), self._largest(off))
        if not self.close.all():  # |η| is so large that the value's rounding error exceeds 1/η
            near = self.log_p + self.eta * (self.x - self.value.unsqueeze(-1)) > _NONE
            far = torch.where(near, self.x.abs() + counts / (size or 1.0), 0.0).amax(-1)
            own = torch.where(self.close, own, 8 * _EPSILON * far)
            passed = torch.where(self.close, passed, self._largest(off))
        return 2 * (passed + own + value)

    def _largest(self, off: Tensor) -> Tensor:
        possible = (self.log_p > -torch.inf) & (self.x > -torch.inf)
        return torch.where(possible, off, 0.0).amax(-1)


def _finite(x: Tensor) -> Tensor:
    """x, with zero where it is infinite."""
    return torch.where(x.isfinite(), x, 0.0)


def _successors(table: Table, v: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """The value of a successor if alive (S,), and what possible termination adds (S,), nats.

    For a value of -inf the two are combined.
    """
    if table.discount == 1:
        return v, torch.zeros_like(v)
    finite = v.isfinite()
    worth = torch.where(finite, v, bellman.continuation(v, eta, table.discount))
    return worth, torch.where(finite, _death(worth, eta, table.discount), 0.0)


def _death(v: Tensor, eta: float, discount: float) -> Tensor:
    """(1/η) log(γ + (1-γ) exp(-ηv)): what possible termination adds to a value v."""
    if abs(eta) > _HUGE:
        return torch.relu(-v) if eta > 0 else -torch.relu(v)
    if abs(eta) < _TINY:
        return -(1 - discount) * v
    x = -eta * v
    far = torch.logaddexp(math.log(1 - discount) + x, torch.zeros_like(x))
    return torch.where(x < _FAR, ((1 - discount) * x.clamp(max=_FAR).expm1()).log1p(), far) / eta


def _sensitivity(v: Tensor, eta: float, discount: float) -> Tensor:
    """(S,), nats: the error of :func:`_death` is at most ε times this: q(dead) |v| plus its own."""
    if abs(eta) > _HUGE:
        return v.abs()
    if abs(eta) < _TINY:
        return (1 - discount) * v.abs()
    x = -eta * v
    change = (1 - discount) * x.clamp(max=_FAR).expm1()
    share = change.abs() / (1 + change)
    dies = (1 - discount) * x.clamp(max=_FAR).exp() / (1 + change)
    logs = torch.where(x < _FAR, 0.0, 1 - math.log(1 - discount))
    return (2 * share + dies * (x.abs() + logs)) / abs(eta)


def _of_the_best(log_p: Tensor, x: Tensor, off: Tensor) -> Tensor:
    """The error of the largest possible x if each x errs by ``off``."""
    possible = log_p > -torch.inf
    low = torch.where(possible, x - 2 * off, -torch.inf).amax(-1, keepdim=True)
    return torch.where(possible & (x + 2 * off >= low), off, 0.0).amax(-1)
