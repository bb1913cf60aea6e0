"""Soft means and tilted distributions along the last axis, in log space at full precision.

    (1/η) log E_p[exp(ηx)]      and its q ∝ p exp(ηx)

Probabilities are given by their logarithms, zero as -inf. Impossible outcomes do not count, even
if their x is infinite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SHORT = 32  # an axis this short is moved to the front for the sum
_NEAR_ZERO = 0.1  # below this |η| a soft mean is taken around the mean
TIE = 1e-12  # values this close to the best, relative to its size above one, tie with it
_HUGE = 1e290  # beyond this |η| the limits are right to the last digit, and ηx would overflow


def total(x: Tensor) -> Tensor:
    """Σ x over the last axis; torch is slow along a short one and quick in a product with ones."""
    if x.shape[-1] > _SHORT or x.dtype != torch.float64:
        return x.sum(-1)
    return x @ x.new_ones(x.shape[-1])


def mean(log_p: Tensor, x: Tensor) -> Tensor:
    """E_p[x] over the last axis, with 0 · inf = 0 and x = -inf where it is possible."""
    worst = torch.where(log_p > -torch.inf, x, 0.0)
    return total(torch.where(x == -torch.inf, worst, log_p.exp() * x))


def product(p: Tensor, x: Tensor) -> Tensor:
    """P · x with 0 · inf = 0: impossible outcomes cost nothing."""
    return torch.where(p > 0, p * x, 0.0)


def soft_mean(log_p: Tensor, x: Tensor, eta: float) -> Tensor:
    """(1/η) log E_p[exp(ηx)] over the last axis, for every real η and ±inf.

    η = 0 is the mean, ±inf the best and the worst possible outcome. Near η = 0 the logarithm of a
    number close to one loses digits; there it is computed around the mean m,
    m + log1p(Σ p expm1(η(x - m)))/η, and apart from outcomes of -inf.
    """
    if abs(eta) > _HUGE:
        possible = log_p > -torch.inf
        extreme = x.masked_fill(~possible, -math.copysign(torch.inf, eta))
        return extreme.amax(-1) if eta > 0 else extreme.amin(-1)
    if eta == 0:
        return mean(log_p, x)
    soft = logsumexp(scaled(log_p, x, eta)) / eta
    if abs(eta) >= _NEAR_ZERO:
        return soft
    lost = (x == -torch.inf) & (log_p > -torch.inf)
    if eta > 0 and lost.any():
        return _without_the_lost(log_p, x, eta, lost)
    m = mean(log_p, x)
    d = torch.where(log_p > -torch.inf, eta * (x - m.unsqueeze(-1)), 0.0)
    near = d.abs().amax(-1) <= 1  # false for NaN, where m is infinite
    d = torch.where(near.unsqueeze(-1), d, 0.0)
    return torch.where(near, m + torch.log1p(total(log_p.exp() * d.expm1())) / eta, soft)


def _without_the_lost(log_p: Tensor, x: Tensor, eta: float, lost: Tensor) -> Tensor:
    """soft_mean at a small η > 0: log P(x > -inf)/η plus the soft mean of the finite outcomes."""
    p = log_p.exp()
    kept, gone = total(torch.where(lost, 0.0, p)), total(torch.where(lost, p, 0.0))
    log_kept = torch.where(gone < 0.5, torch.log1p(-gone), kept.log())
    left = torch.where(lost, -torch.inf, log_p)
    # If all outcomes are -inf, log_kept = -inf makes the result -inf.
    left = left - torch.where(kept > 0, log_kept, 0.0).unsqueeze(-1)
    return log_kept / eta + soft_mean(left, torch.where(lost, 0.0, x), eta)


def scaled(log_p: Tensor, x: Tensor, eta: float) -> Tensor:
    """log p + ηx, -inf where p = 0 even if ηx = +inf."""
    if eta > 0:
        return torch.add(log_p, x, alpha=eta)  # x is nowhere +inf
    return torch.where(log_p > -torch.inf, log_p + eta * x, -torch.inf)


def tilt(log_p: Tensor, x: Tensor, eta: float) -> Tensor:
    """log q for q ∝ p exp(ηx) over the last axis; p itself if no outcome remains.

    If ηx is infinite, and for η = ±inf, q is p restricted to the best outcomes.
    """
    if eta == 0:
        return log_p.expand(torch.broadcast_shapes(log_p.shape, x.shape))
    if abs(eta) > _HUGE:
        best = soft_mean(log_p, x, eta).unsqueeze(-1)
        wins = (x == best) | ((x - best).abs() <= TIE * best.abs().clamp(min=1))
        wins &= log_p > -torch.inf
        log_q = torch.where(wins, log_p, -torch.inf)
    else:
        log_q = scaled(log_p, x, eta)
        if eta < 0 and (certain := log_q == torch.inf).any():
            only = torch.where(certain, log_p, -torch.inf)
            log_q = torch.where(certain.any(-1, keepdim=True), only, log_q)
    nothing = log_q.amax(-1, keepdim=True) == -torch.inf
    return log_softmax(torch.where(nothing, log_p, log_q))


def logsumexp(x: Tensor) -> Tensor:
    """Over the last axis; torch is slow along a short one and quick along the first."""
    if x.shape[-1] > _SHORT:
        return x.logsumexp(-1)
    return x.movedim(-1, 0).contiguous().logsumexp(0)


def log_softmax(x: Tensor) -> Tensor:
    """Over the last axis, as :func:`logsumexp`."""
    if x.shape[-1] > _SHORT:
        return x.log_softmax(-1)
    return x.movedim(-1, 0).log_softmax(0).movedim(0, -1)


def entropy(log_p: Tensor) -> Tensor:
    """-Σ p log p over the last axis, nats, with 0 log 0 = 0."""
    return -total(torch.where(log_p > -torch.inf, log_p.exp() * log_p, 0.0))


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) over the last axis in nats, with 0 log 0 = 0; +inf where q excludes what p allows.

    Computed as Σ p d + (q - p) with d = log p - log q, whose terms are ≥ 0 and of second order:
    Σ p d alone loses a divergence of order d² in rounding errors of order d.
    """
    d = log_p - log_q
    p, q = log_p.exp(), log_q.exp()
    rest = torch.where(d.abs() < 1, p * torch.expm1(-d), q - p)
    return total(torch.where(p > 0, p * d + rest, q)).clamp(min=0)


def logsumexp_by_group(log_p: Tensor, group: Tensor, n: int) -> Tensor:
    """log-sum-exp within groups numbered 0 … n-1, (N,) and (N,) -> (n,); -inf for an empty one."""
    highest = log_p.new_full((n,), -torch.inf).scatter_reduce_(0, group, log_p, "amax")
    highest = torch.where(highest == -torch.inf, 0.0, highest)
    total = log_p.new_zeros(n).index_add_(0, group, (log_p - highest[group]).exp())
    return highest + total.log()
