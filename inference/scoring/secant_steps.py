"""Steps by gradients alone, between two evaluations of an information that is dear."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

_MOST = 8  # steps
_WORTH = 0.1  # the share of the gain that a step may leave for a further one to be worth it


class Ahead(NamedTuple):
    """Where the steps ended.

    Attributes:
        weights: (k,).
        steps: how many were taken.
        evaluations: of the gradient.
        refused: whether they ended where there are no values.
    """

    weights: Tensor
    steps: int
    evaluations: int
    refused: bool = False


def secant_steps(
    slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    weights: Tensor,
    value: Tensor,
    gradient: Tensor,
    inverse: Tensor,
    enough: float,
) -> Ahead:
    """Quasi-Newton steps (BFGS) from an inverse information that is exact where they begin.

    Whole steps only: near a maximum they are good ones. They end where one of them is worse, or
    leaves more than a tenth of the gain that there was, or with one that should leave next to
    nothing, which the next evaluation of the information will tell.

    Args:
        slope: weights (k,) -> objective (), nats, and its gradient (k,); it may raise ValueError.
        weights: (k,), where they begin.
        value: (), the objective there.
        gradient: (k,), there.
        inverse: (k, k), the inverse information there.
        enough: nats: twice the gain that may be left.
    """
    steps, evaluations, refused = 0, 0, False
    step = inverse @ gradient
    gain = float(gradient @ step)
    while evaluations < _MOST:
        evaluations += 1
        try:
            new_value, new_gradient = slope(weights + step)
        except ValueError:
            refused = True
            break
        change = gradient - new_gradient
        curved = float(step @ change)
        if not new_value.isfinite() or new_value < value or not curved > 0:
            break
        weights, value, gradient, steps = weights + step, new_value, new_gradient, steps + 1
        # (I - s y'/s·y) H (I - y s'/s·y) + s s'/s·y, for the step s and the change y.
        bent = inverse @ change
        inverse = (
            inverse
            - (step.outer(bent) + bent.outer(step)) / curved
            + step.outer(step) * ((change @ bent) / curved + 1) / curved
        )
        step = inverse @ gradient
        before, gain = gain, float(gradient @ step)
        if gain > _WORTH * before:
            break
        if gain * (gain / before) < enough:  # as the next step will leave
            weights, steps = weights + step, steps + 1
            break
    return Ahead(weights, steps, evaluations, refused)
