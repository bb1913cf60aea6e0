"""Fisher scoring, in the directions that the data determine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.inference.scoring.exponentiated_gradient import exponentiated_ascent
from cai.inference.scoring.log_prior import log_prior, with_log_prior
from cai.inference.scoring.secant_steps import secant_steps
from cai.inference.scoring.soft_thresholding import thresholded_step, violation

_NONE = 1e-9  # of the largest eigenvalue: what the data say nothing about
_NOISE = 1e-18  # nats per squared unit of a weight: what rounding errors alone amount to
_ENOUGH = 1e-10  # nats: the gain that a further step could bring
_SUFFICIENT = 1e-4  # of the gain that a linear function would bring (Armijo)
_HALVINGS = 40
_NEAR = 10.0  # nats: twice the gain of a step from which on gradients alone may do
_PRECISE = 1e-9  # of the penalty: how far the gradient may be from what it is at the maximum
_FLAT = 1e-9  # the gain, relative to the objective, that rounding errors hide
_RISES = 1e-3, 1e-6  # nats per unit, and of the largest eigenvalue: a gradient that is not zero
_SATURATED = "the objective still rises where choices are certain; begin elsewhere, start="
INTERRUPTED = "it was interrupted; these are the best weights so far"


@dataclass(frozen=True, eq=False)
class Maximum:
    """Where the search ended.

    Attributes:
        value: nats: the objective there, the log prior included, less the penalty.
        weights: (k,).
        scored: the demonstrations there.
        prior: (k, k), minus the Hessian of the log prior there.
        first: the information at the start, prior included.
        steps: how many were taken.
        evaluations: how many times the demonstrations were scored.
        converged: whether a further step would gain less than 1e-10 nats.
        reason: why it ended.
        refused: how many weights were tried at which there are no values.
    """

    value: float
    weights: Tensor
    scored: ScoredDemonstrations
    prior: Tensor
    first: Tensor
    steps: int
    evaluations: int
    converged: bool
    reason: str
    refused: int = 0


def maximise(
    score: Callable[[Tensor], ScoredDemonstrations],
    start: Tensor,
    scale: Tensor,
    prior: Any,
    most: int,
    *,
    penalty: Tensor | None = None,
    first: Tensor | None = None,
    keep: Callable[[Maximum], None] | None = None,
    slope: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
    enough: float = _ENOUGH,
) -> Maximum:
    """Climbs along information⁻¹ · score, halving a step until it gains what it should.

    An interrupt ends the search with the best weights so far.

    Args:
        score: weights (k,) -> the demonstrations at them.
        start: (k,).
        scale: (k,), units in which directions are compared.
        prior: a distribution over weights, or None.
        most: the number of steps at most.
        penalty: (k,), p of a penalty Σ p_i |w_i|, nats per unit; None for none.
        first: (k, k), the information where the search first began, if it goes on from there.
        keep: what is called after each step, with the weights so far.
        slope: weights (k,) -> the sum of the demonstrations and its gradient (k,), where these are
            cheaper than ``score``; steps near the maximum then take few of those.
        enough: nats: the gain of a further step at which it ends.

    Raises:
        ValueError: if the objective is not finite at the start.
    """
    at = _evaluated(score, start, prior, penalty)
    if not math.isfinite(at.value):
        came, advice = str(start.tolist()), "give start= that the prior allows"
        checks.refuse("start", "weights whose likelihood and prior are not zero", came, advice)
    evaluations, steps, refused = 1, 0, 0
    if first is None:
        first = at.scored.information + at.bend
    most_known = largest(first, scale)

    def ended(converged: bool, reason: str) -> Maximum:
        counts = steps, evaluations
        where = at.value, at.weights, at.scored, at.bend, first
        return Maximum(*where, *counts, converged, reason, refused)

    try:
        while steps < most:
            direction, gain = at.ascent(scale, most_known, penalty)
            if penalty is None and gain < 2 * enough:
                if at.rises(scale, most_known):
                    return ended(False, _SATURATED)
                return ended(True, f"a further step would gain less than {enough:g} nats")
            if penalty is not None and at.violation(penalty) < _PRECISE:
                return ended(True, "the gradient is what the penalty allows")
            if slope is not None and penalty is None and gain < _NEAR:
                climb = inverse(at.scored.information + at.bend, scale, most_known)
                known = torch.tensor(at.value, dtype=torch.float64), at.gradient
                posed = with_log_prior(slope, prior)
                ahead = secant_steps(posed, at.weights, *known, climb, 2 * enough)
                evaluations, refused = evaluations + ahead.evaluations, refused + ahead.refused
                if ahead.steps and (there := _tried(score, ahead.weights, prior, None)):
                    at, steps, evaluations = there, steps + ahead.steps, evaluations + 1
                    if keep is not None:
                        keep(ended(False, INTERRUPTED))
                    continue
            share = 1.0
            for _ in range(_HALVINGS):
                evaluations += 1
                tried = _tried(score, at.weights + share * direction, prior, penalty)
                refused += tried is None
                if tried is not None and tried.gains(at, share * gain, penalty):
                    break
                share /= 2
            else:
                return ended(gain < 1e-6, "no step along the gradient gains anything")
            at, steps = tried, steps + 1
            if keep is not None:
                keep(ended(False, INTERRUPTED))
        return ended(False, f"{most} steps were not enough")
    except KeyboardInterrupt:
        return ended(False, INTERRUPTED)


def by_exponentiated_gradient(
    score: Callable[[Tensor], ScoredDemonstrations],
    start: Tensor,
    scale: Tensor,
    prior: Any,
    steps: int,
    *,
    first: Tensor | None = None,
    keep: Callable[[Maximum], None] | None = None,
) -> Maximum:
    """The best weights of :func:`exponentiated_ascent`, and what was left to gain there.

    Args and errors are those of :func:`maximise`.
    """
    begun = maximise(score, start, scale, prior, 0, first=first)
    n = len(begun.scored.values)

    refused = 0

    def evaluate(weights: Tensor) -> tuple[float, Tensor] | None:
        nonlocal refused
        at = _tried(score, weights, prior, None)
        if at is None:
            refused += 1
            return None
        if keep is not None:
            keep(replace(begun, value=at.value, weights=weights))
        return at.value, at.gradient / n

    best, done, evaluations, whole = exponentiated_ascent(evaluate, start, scale, steps)
    at = _evaluated(score, best, prior, None)
    gain = at.ascent(scale, largest(begun.first, scale), None)[1] / 2
    reason = f"{done} steps of exponentiated gradient; a step of scoring would gain {gain:.2g} nats"
    return replace(
        begun,
        value=at.value,
        weights=best,
        scored=at.scored,
        prior=at.bend,
        steps=done,
        evaluations=evaluations + 2,
        reason=reason if whole else INTERRUPTED,
        refused=refused,
    )


class _Point(NamedTuple):
    """The objective at some weights, with the log prior's gradient and minus its Hessian."""

    value: float
    weights: Tensor
    scored: ScoredDemonstrations
    slope: Tensor
    bend: Tensor

    @property
    def gradient(self) -> Tensor:
        """(k,), without the penalty."""
        return self.scored.scores.sum(0) + self.slope

    def violation(self, penalty: Tensor) -> float:
        """See :func:`violation`."""
        return violation(self.gradient, self.weights, penalty)

    def ascent(self, scale: Tensor, most: float, penalty: Tensor | None) -> tuple[Tensor, float]:
        """A direction (k,), and what a full step would gain by its first derivative, nats."""
        information, gradient = self.scored.information + self.bend, self.gradient
        if penalty is None:
            direction = solved(information, gradient, scale, most)
            return direction, float(gradient @ direction)
        direction = thresholded_step(information, gradient, self.weights, penalty)
        shrunk = self.weights.abs() - (self.weights + direction).abs()
        return direction, float(gradient @ direction + penalty @ shrunk)

    def rises(self, scale: Tensor, most: float) -> bool:
        """Whether it has a slope in directions of no information, as far from any maximum."""
        none = directions(self.scored.information + self.bend, scale, most)[2]
        slopes = (none.T @ self.gradient).abs()
        return bool((slopes > _RISES[0] + _RISES[1] * most).any())

    def gains(self, before: _Point, gain: float, penalty: Tensor | None) -> bool:
        """Whether it is enough higher; where rounding hides that, whether it is flatter."""
        if self.value - before.value >= _SUFFICIENT * gain:
            return True
        if penalty is None or gain >= _FLAT * max(1.0, abs(self.value)):
            return False
        return self.violation(penalty) < before.violation(penalty)


def _evaluated(
    score: Callable[[Tensor], ScoredDemonstrations],
    weights: Tensor,
    prior: Any,
    penalty: Tensor | None,
) -> _Point:
    scored = score(weights)
    log_p, slope, bend = log_prior(prior, weights)
    value = float(scored.values.sum()) + log_p
    if penalty is not None:
        value -= float(penalty @ weights.abs())
    return _Point(value, weights, scored, slope, bend)


def solved(information: Tensor, gradient: Tensor, scale: Tensor, most: float) -> Tensor:
    """information⁻¹ · gradient in the directions that are determined; zero in the others."""
    values, vectors, _ = directions(information, scale, most)
    return vectors @ ((vectors.T @ gradient) / values)


def inverse(information: Tensor, scale: Tensor, most: float) -> Tensor:
    """(k, k): information⁻¹ in the directions that are determined; zero in the others."""
    values, vectors, _ = directions(information, scale, most)
    return (vectors / values) @ vectors.T


def directions(information: Tensor, scale: Tensor, most: float) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (m,) of what the data determine, its directions (k, m), and all others (k, j).

    Args:
        information: (k, k).
        scale: (k,), weights are compared in units of 1/scale.
        most: the largest eigenvalue that was seen before: 1e-9 of it counts as nothing, and so do
            1e-18, as it may be that none of the weights is identified.

    Returns:
        Eigenvalues, and directions as changes of the weights; information⁻¹ = Σ_i v_i v_i'/λ_i.
    """
    values, vectors = torch.linalg.eigh(information / (scale * scale.unsqueeze(1)))
    keep = values > max(_NONE * max(float(values[-1]), most), _NOISE)
    changes = vectors / scale.unsqueeze(1)
    return values[keep], changes[:, keep], changes[:, ~keep]


def largest(information: Tensor, scale: Tensor) -> float:
    """The largest eigenvalue, weights in units of 1/scale."""
    return float(torch.linalg.eigvalsh(information / (scale * scale.unsqueeze(1)))[-1])


def _tried(
    score: Callable[[Tensor], ScoredDemonstrations],
    weights: Tensor,
    prior: Any,
    penalty: Tensor | None,
) -> _Point | None:
    """None where there are no values, or the objective is not finite."""
    try:
        found = _evaluated(score, weights, prior, penalty)
    except ValueError:
        return None
    return found if math.isfinite(found.value) else None
