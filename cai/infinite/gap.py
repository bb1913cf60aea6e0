"""T v - v for stationary values v, to all the digits that floats have, and how far it may be off.

Where the end is rare, values are as large as it is rare, and what tells them is a small difference
of large numbers: with an end of 1e-10 a step, costs of 1 add up to 1e10 nats, of which T v and v
are rounded to 1e-6, and that, once a step until the end, would sum up to 1e4 nats. So all numbers
here are taken less the value v(s) of the state itself. To stay then counts as its reward, exactly,
and to leave as large a number times a small probability: the error is a fraction of what the gap
is added up from, and the errors of 1e10 steps add up to a fraction of the values.

Soft means are taken around themselves, m + log1p(Σ p expm1(η(x - m)))/η, into which what is most
probable hardly enters. Rows that differ from one by no more than rounding errors count as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from cai.numerics import logspace
from cai.tables import bellman
from cai.tables.table import Table

_EPSILON = torch.finfo(torch.float64).eps
_TINY, _HUGE = 1e-200, 1e290  # of |η|: what is less counts as 0, what is more as infinite
_LEAST = 1e-30  # nats: to stay for nothing is told to all digits, but never makes an end
_TIE = 250.0  # times rounding errors: what is this close to the best is as good
_LEAST_LOG = -745.0  # of a float above zero
_NONE = -50.0  # log of a probability that counts nothing
_ROUNDED = 1e-12  # by how much a row may differ from one for rounding errors
_FAR = 40.0  # log of a number beside which one counts nothing


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
    def at(cls, table: Table, v: Tensor, eta: float, rule: bellman.Rule) -> Gap:
        """T v - v at v (S,), nats.

        Args:
            table: the problem.
            v: (S,), nats, -inf where states are lost.
            eta: the optimism η.
            rule: how actions are chosen.
        """
        worth, loss = _successors(table, v, eta)
        x = table.gather(worth) - _finite(v)[:, None, None]
        if table.discount < 1:
            x = x + table.gather(loss)
        if table.arrival_reward is not None:
            x = x + table.arrival_reward / table.temperature
        reward = table.reward / table.temperature
        less = _finite(v).unsqueeze(-1) - _finite(reward)
        outcomes = _Mean.of(table.log_dynamics, x + reward.unsqueeze(-1), eta, less)
        actions = _Mean.of(table.log_prior, outcomes.value, 1.0) if rule == "soft" else None
        if actions is not None:
            values = actions.value
        else:
            values = bellman.state_values(table, outcomes.value, rule)
        return cls(values, table, v, eta, rule, outcomes, actions)

    @property
    def x(self) -> Tensor:
        """(S, A, K), nats: what an outcome is worth with the reward of its step, less v(s)."""
        return self._outcomes.x

    @property
    def q(self) -> Tensor:
        """What an action is worth, less v(s), (S, A), nats."""
        return self._outcomes.value

    @cached_property
    def noise(self) -> Tensor:
        """(S,), nats: how far the values may be off for rounding errors.

        To first order in ε, and twice that. Those of the logarithms of probabilities in the table
        count, and those of v in states that one leaves or arrives at: v ± d is no closer.
        """
        if self._actions is None:
            return _of_the_best(self._table.log_prior, self.q, self._off) + _LEAST
        return self._actions.noise(self._off) + _LEAST

    def log_policy(self) -> Tensor:
        """log π(a|s), (S, A). For the hard rule actions tie that rounding errors may tell apart."""
        if self._rule != "hard":
            return bellman.log_policy(self._table, self.q, self._rule)
        wins = self.q + _TIE * self._off >= self.values.unsqueeze(-1)
        wins = wins | (self.values == -torch.inf).unsqueeze(-1)
        return logspace.log_softmax(torch.where(wins, self._table.log_prior, -torch.inf))

    @cached_property
    def _off(self) -> Tensor:
        """(S, A), nats: how far q may be off."""
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
    """(1/η) log E_p[exp(ηx)] over the last axis, and what it is added up from.

    Attributes:
        value: (…), the soft mean.
        terms: (…, n), p (exp(η(x - m)) - 1), or p (x - m) at η = 0, with m close to the value.
        bent: (…, n), q ∝ p exp(ηx), where the terms count.
        close: (…), boolean: whether the terms count; else the value is that of bellman.py.
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
    def of(cls, log_p: Tensor, x: Tensor, eta: float, less: Tensor | float = 0.0) -> _Mean:
        """The soft mean of x + less, less that; of a row that sums to one ``less`` has no say."""
        eta = 0.0 if abs(eta) < _TINY else eta
        m = logspace.soft_mean(log_p, x, eta)
        if abs(eta) > _HUGE:
            return cls(m, x, x, m.isfinite(), log_p, x, eta)
        excess = torch.where(m.isfinite(), log_p.logsumexp(-1).expm1(), 0.0)
        excess = torch.where(excess.abs() > _ROUNDED, excess, 0.0)
        counts = (log_p > -torch.inf) & m.isfinite().unsqueeze(-1)
        d, p = torch.where(counts, x - m.unsqueeze(-1), 0.0), log_p.exp()
        if eta == 0:
            terms = p * d
            extra = torch.where(excess == 0, 0.0, excess * (m + less))
            value = m + terms.sum(-1) + extra
            return cls(value, terms, p, m.isfinite(), log_p, x, eta)
        d = eta * d
        terms = p * d.expm1()
        bent = p + terms
        if (d > 1).any():  # may be too much for a float, times as little
            bent = torch.where(d > 1, (log_p + d).exp(), bent)
            terms = torch.where(d > 1, bent - p, terms)
        total = terms.sum(-1) + excess
        close = total.abs() < 0.5
        value = torch.where(close, m + torch.where(close, total, 0.0).log1p() / eta, m)
        return cls(value, terms, bent, close, log_p, x, eta)

    def noise(self, off: Tensor) -> Tensor:
        """(…): how far the value may be off, where x may be by ``off`` (…, n), all twice."""
        size, value = abs(self.eta), _EPSILON * _finite(self.value).abs()
        if size > _HUGE:
            return 2 * (
                _of_the_best(self.log_p, math.copysign(1.0, self.eta) * self.x, off) + value
            )
        counts = self.x.shape[-1] + 8 - 4 * self.log_p.clamp(min=_LEAST_LOG)
        own = _EPSILON * (self.terms.abs() * counts).sum(-1) / (size or 1.0)
        if size * off.max() < 1e-3:
            passed = 1.001 * (self.bent * off).sum(-1)
        else:
            each = torch.where(size * off < 600, (size * off).expm1() / (size or 1.0), 1e300)
            passed = torch.minimum((self.bent * each).sum(-1), self._largest(off))
        if not self.close.all():  # |η| is so large that ε of the value is more than 1/η
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
    """The value of a successor while alive (S,), and what termination adds to that (S,), nats.

    A value of -inf is taken with termination at once.
    """
    if table.discount == 1:
        return v, torch.zeros_like(v)
    finite = v.isfinite()
    worth = torch.where(finite, v, bellman.continuation(v, eta, table.discount))
    return worth, torch.where(finite, _death(worth, eta, table.discount), 0.0)


def _death(v: Tensor, eta: float, discount: float) -> Tensor:
    """(1/η) log(γ + (1-γ) exp(-ηv)): what termination adds to a value v."""
    if abs(eta) > _HUGE:
        return torch.relu(-v) if eta > 0 else -torch.relu(v)
    if abs(eta) < _TINY:
        return -(1 - discount) * v
    x = -eta * v
    far = torch.logaddexp(math.log(1 - discount) + x, torch.zeros_like(x))
    return torch.where(x < _FAR, ((1 - discount) * x.clamp(max=_FAR).expm1()).log1p(), far) / eta


def _sensitivity(v: Tensor, eta: float, discount: float) -> Tensor:
    """(S,), nats: what :func:`_death` errs by at most is ε times that; q(dead) |v|, and its own."""
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
    """How far the largest x that is possible may be off, where each may be by ``off``."""
    possible = log_p > -torch.inf
    low = torch.where(possible, x - 2 * off, -torch.inf).amax(-1, keepdim=True)
    return torch.where(possible & (x + 2 * off >= low), off, 0.0).amax(-1)
