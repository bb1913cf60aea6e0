"""Steps towards the maximum of a quadratic less Σ p_i |w_i|, which sets weights to zero."""

from __future__ import annotations

import torch
from torch import Tensor

_SWEEPS = 200
_SETTLED = 1e-15  # relative to the largest weight


def violation(gradient: Tensor, weights: Tensor, penalty: Tensor) -> float:
    """How far from a maximum, at most over the weights, relative to the penalty.

    At a maximum |gradient| ≤ penalty everywhere, and = penalty · sign(w) where w ≠ 0.

    Args:
        gradient: (k,), without the penalty.
        weights: (k,).
        penalty: (k,), positive.
    """
    at_zero = (gradient.abs() - penalty).clamp(min=0)
    off = torch.where(weights == 0, at_zero, (gradient - penalty * weights.sign()).abs())
    return float((off / penalty).max())


def thresholded_step(
    information: Tensor, gradient: Tensor, weights: Tensor, penalty: Tensor
) -> Tensor:
    """The change d (k,) that maximises gradient·d - ½ d'·information·d - Σ p_i |w_i + d_i|.

    By coordinate descent with soft thresholds (Friedman, Hastie and Tibshirani 2010); then, with
    the signs that it found, by one linear system, whose solution is kept if it has those signs.

    Args:
        information: (k, k), positive semi-definite.
        gradient: (k,), at the weights, without the penalty.
        weights: (k,), w.
        penalty: (k,), p, positive.
    """
    w, left = weights.clone(), gradient.clone()  # gradient of the quadratic at w
    for _ in range(_SWEEPS):
        before = w.clone()
        for i in range(len(w)):
            curvature = float(information[i, i])
            if curvature <= 0:
                new = 0.0 if abs(float(left[i])) <= float(penalty[i]) else float(w[i])
            else:
                pull = float(left[i]) + curvature * float(w[i])
                new = _soft(pull, float(penalty[i])) / curvature
            if new != float(w[i]):
                left -= information[:, i] * (new - w[i])
                w[i] = new
        if float((w - before).abs().max()) <= _SETTLED * max(1.0, float(w.abs().max())):
            break
    return _polished(information, gradient, weights, penalty, w) - weights


def _soft(x: float, threshold: float) -> float:
    return max(x - threshold, 0.0) - max(-x - threshold, 0.0)


def _polished(
    information: Tensor, gradient: Tensor, weights: Tensor, penalty: Tensor, found: Tensor
) -> Tensor:
    """The exact solution for the signs of one that was found, or that one."""
    on = found != 0
    if not on.any():
        return found
    signs = found[on].sign()
    # gradient - information (w - weights) = penalty · sign(w) in the weights that are on
    right = (gradient + information @ weights)[on] - penalty[on] * signs
    exact, singular = torch.linalg.solve_ex(information[on][:, on], right)
    if singular or not exact.isfinite().all() or (exact.sign() != signs).any():
        return found
    polished = found.clone()
    polished[on] = exact
    slopes = [gradient - information @ (w - weights) for w in (polished, found)]
    better = violation(slopes[0], polished, penalty) <= violation(slopes[1], found, penalty)
    return polished if better else found
