"""Whether an objective falls around its maximum as its standard errors take it to fall.

A quadratic function loses ½ nat at one standard error on either side. Where the maximum lies near
weights for which the model has no values, as on a road network with cycles that cost too little, it
may lose nothing on one side and everything on the other, and the curvature says how near the border
is rather than how sure one can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cai.inference.scoring.log_prior import log_prior

_QUADRATIC = 0.5  # nats
_TIMES = 4.0  # a fall that is so much larger or smaller is no quadratic one


def irregular_falls(
    totals: Callable[[Tensor], Tensor],
    prior: Any,
    weights: Tensor,
    covariance: Tensor,
    names: tuple[str, ...],
) -> dict[str, tuple[float, float]]:
    """What the objective loses at one standard error below and above, where that is far from ½ nat.

    Weight j is moved by its standard error, and the others as their covariance with it says, which
    is to where they are best for it.

    Args:
        totals: weights (n, k) -> the log-likelihood (n,), nats; -inf where there are no values.
        prior: a distribution over weights, or None.
        weights: (k,), at the maximum.
        covariance: (k, k), the inverse information; NaN for weights that are not determined.
        names: of k features.

    Returns:
        Name -> nats below and above, infinite where there are no values.
    """
    errors = covariance.diagonal().sqrt()
    known = errors.isfinite() & (errors > 0)
    moves = (covariance / errors).nan_to_num().T[known]
    places = torch.cat([weights[None], weights - moves, weights + moves])
    found = totals(places) + torch.tensor([log_prior(prior, x)[0] for x in places])
    below, above = (found[0] - found[1:]).reshape(2, -1)
    least, most = _QUADRATIC / _TIMES, _QUADRATIC * _TIMES
    kept = [name for name, yes in zip(names, known.tolist(), strict=True) if yes]
    lost = zip(below.tolist(), above.tolist(), strict=True)
    return {
        name: both
        for name, both in zip(kept, lost, strict=True)
        if not (least <= min(both) and max(both) <= most)
    }


def spelt_falls(name: str, below: float, above: float) -> str:
    """The sentence for a reader."""
    sides = [
        f"there are no values {side}" if lost == float("inf") else f"{lost:.2g} nats {side}"
        for lost, side in ((below, "below"), (above, "above"))
    ]
    return (
        f"Do not trust the error of {name}: at one standard error a normal distribution loses 0.5 "
        f"nats, but here it is {' and '.join(sides)}."
    )
