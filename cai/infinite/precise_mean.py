"""Soft means with a bound of their rounding error.

A soft mean m is computed around itself, m + log1p(Σ p expm1(η(x - m)))/η, where the most probable
outcomes contribute little. Rows whose sum is one up to rounding errors count as one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cai.numerics import logspace

_EPSILON = torch.finfo(torch.float64).eps
TINY, HUGE = 1e-200, 1e290  # |η| below counts as 0, above as infinite
_LEAST_LOG = -745.0  # of a float above zero
_NONE = -50.0  # log of a negligible probability
_ROUNDED = 1e-12  # by how much rounding errors may change the sum of a row


class Weights(NamedTuple):
    """Probabilities over the last axis, and what is known of them whatever the values are.

    Attributes:
        log_p: (…, n).
        p: (…, n).
        excess: (…), their sum minus one; zero if that is a rounding error.
        counts: (…, n), by how many ε a summand that is weighted with them may err.
    """

    log_p: Tensor
    p: Tensor
    excess: Tensor
    counts: Tensor

    @classmethod
    def of(cls, log_p: Tensor) -> Weights:
        """The probabilities exp(log_p), (…, n)."""
        excess = logspace.logsumexp(log_p).expm1()
        excess = torch.where(excess.abs() > _ROUNDED, excess, 0.0)
        counts = log_p.shape[-1] + 8 - 4 * log_p.clamp(min=_LEAST_LOG)
        return cls(log_p, log_p.exp(), excess, counts)

    def at(self, rows: slice) -> Weights:
        """Those of some states, views."""
        return Weights(*(x[rows] for x in self))


class PreciseMean(NamedTuple):
    """(1/η) log E_p[exp(ηx)] over the last axis, and its summands.

    Attributes:
        value: (…), the soft mean.
        d: (…, n), η(x - m), or x - m at η = 0, with m close to the value; x where |η| is infinite.
        terms: (…, n), p (exp(d) - 1), or p d at η = 0.
        close: (…), boolean: whether the terms are used; else the value is that of bellman.py.
        weights: p.
        x: (…, n).
        eta: η.
    """

    value: Tensor
    d: Tensor
    terms: Tensor
    close: Tensor
    weights: Weights
    x: Tensor
    eta: float

    @classmethod
    def of(cls, weights: Weights, x: Tensor, eta: float, less: Tensor | float = 0.0) -> PreciseMean:
        """The soft mean of x + less, minus less; the same for any ``less`` if p sums to one."""
        log_p, p, excess, _ = weights
        eta = 0.0 if abs(eta) < TINY else eta
        m = logspace.soft_mean(log_p, x, eta)
        known = m.isfinite()
        if abs(eta) > HUGE:
            return cls(m, x, x, known, weights, x, eta)
        excess = torch.where(known, excess, 0.0)
        counts = (log_p > -torch.inf) & known.unsqueeze(-1)
        d = torch.where(counts, x - m.unsqueeze(-1), 0.0)
        if eta == 0:
            terms = p * d
            extra = torch.where(excess == 0, 0.0, excess * (m + less))
            value = m + logspace.total(terms) + extra
            return cls(value, d, terms, known, weights, x, eta)
        d = d.mul_(eta)
        terms = d.expm1().mul_(p)
        if d.max() > 1:  # exp(d) may overflow, though its factor is small
            terms = torch.where(d > 1, (log_p + d).exp() - p, terms)
        total = logspace.total(terms) + excess
        close = total.abs() < 0.5
        value = torch.where(close, m + torch.where(close, total, 0.0).log1p() / eta, m)
        return cls(value, d, terms, close, weights, x, eta)

    def tilted(self) -> Tensor:
        """(…, n), q ∝ p exp(ηx); p itself if no outcome remains."""
        if self.eta == 0:
            return self.weights.p
        if abs(self.eta) <= HUGE and self.close.all():
            return (self.weights.log_p + self.d).exp_()
        return logspace.tilt(self.weights.log_p, self.x, self.eta).exp()

    def noise(self, off: Tensor) -> Tensor:
        """(…): twice a bound of the error of the value if x errs by ``off`` (…, n)."""
        size, value = abs(self.eta), _EPSILON * finite(self.value).abs()
        if size > HUGE:
            return 2 * (
                error_of_the_best(self.weights.log_p, math.copysign(1.0, self.eta) * self.x, off)
                + value
            )
        tilted = self.weights.p if self.eta == 0 else self.weights.p + self.terms
        own = _EPSILON * logspace.total(self.terms.abs().mul_(self.weights.counts)) / (size or 1.0)
        if size * off.max() < 1e-3:
            passed = 1.001 * logspace.total(tilted * off)
        else:
            each = torch.where(size * off < 600, (size * off).expm1() / (size or 1.0), 1e300)
            passed = torch.minimum(logspace.total(tilted * each), self._largest(off))
        if not self.close.all():  # |η| is so large that the value's rounding error exceeds 1/η
            near = self.weights.log_p + self.eta * (self.x - self.value.unsqueeze(-1)) > _NONE
            errors = self.x.abs() + self.weights.counts / (size or 1.0)
            far = torch.where(near, errors, 0.0).amax(-1)
            own = torch.where(self.close, own, 8 * _EPSILON * far)
            passed = torch.where(self.close, passed, self._largest(off))
        return 2 * (passed + own + value)

    def _largest(self, off: Tensor) -> Tensor:
        possible = (self.weights.log_p > -torch.inf) & (self.x > -torch.inf)
        return torch.where(possible, off, 0.0).amax(-1)


def finite(x: Tensor) -> Tensor:
    """x, with zero where it is infinite."""
    return torch.where(x.isfinite(), x, 0.0)


def error_of_the_best(log_p: Tensor, x: Tensor, off: Tensor) -> Tensor:
    """The error of the largest possible x if each x errs by ``off``."""
    possible = log_p > -torch.inf
    low = torch.where(possible, x - 2 * off, -torch.inf).amax(-1, keepdim=True)
    return torch.where(possible & (x + 2 * off >= low), off, 0.0).amax(-1)
