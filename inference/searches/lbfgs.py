"""L-BFGS with a line search that backs off from where there are no values."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cai.inference.searches.sought import GradientSearch, Sought

_PAIRS = 20  # of steps and changes of the gradient that are remembered
_TRIALS = 40  # along one direction
_SUFFICIENT = 1e-4  # of the gain that a linear function would bring (Armijo)
_FLATTER = 0.9  # the share of the slope that may be left (Wolfe)
_ENOUGH = 1e-9  # nats: the gain that a further step could bring
_ROUNDING = 1e-6  # nats: the same where no step gains anything any more


class _Place(NamedTuple):
    """Parameters (p,), minus the objective, its gradient (p,), and the mean of the cases."""

    x: Tensor
    loss: float
    slope: Tensor
    mean: float


class LBFGS(GradientSearch):
    """Limited-memory BFGS (Nocedal and Wright 2006, algorithm 7.4).

    The line search brackets by halving and doubling until the weak Wolfe conditions hold (Lewis and
    Overton 2013), which takes a loss of +inf for an answer: SciPy's own L-BFGS-B reports
    convergence after a single one. All cases are trained on, none is held out.

    Args:
        sought: what is maximised.
        steps: at most.

    Attributes:
        refused: how many places were tried at which there are no values.
    """

    method = "L-BFGS"

    def __init__(self, sought: Sought, steps: int) -> None:
        super().__init__(sought, steps)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._at: _Place | None = None
        self.refused = 0

    def step(self) -> None:
        """One direction and the step along it.

        Raises:
            ValueError: if there are no values at the start.
        """
        if self._at is None:
            self._at = self._finite(self._evaluated(self.sought.flat.detach()))
            if self._at is None:
                self.sought.refuse()
            self.means.append(self._at.mean)
        at = self._at
        direction = self._direction(at.slope)
        gain = -float(at.slope @ direction)
        if gain < 2 * _ENOUGH and (self._pairs or gain == 0):
            self.end("a further step would gain less than 1e-9 nats", True)
            return
        found = self._along(at, direction, -gain)
        if found is None:
            self._put(at.x)
            self.end("no step along the gradient gains anything", gain < _ROUNDING)
            return
        step, change = found.x - at.x, found.slope - at.slope
        if step @ change > 1e-12 * change.norm() * step.norm():
            self._pairs = [*self._pairs, (step, change)][-_PAIRS:]
        self._at = found
        self.means.append(found.mean)
        self.done += 1

    def restore(self) -> None:
        """Puts the best parameters into the module."""
        if self._at is not None:
            self._put(self._at.x)

    def _direction(self, slope: Tensor) -> Tensor:
        """-H slope, by two loops over the pairs."""
        d, shares = -slope, []
        for step, change in reversed(self._pairs):
            shares.append(step @ d / (step @ change))
            d = d - shares[-1] * change
        if not self._pairs:
            return d / max(1.0, float(slope.norm()))
        step, change = self._pairs[-1]
        d = d * (step @ change / (change @ change))
        for (step, change), share in zip(self._pairs, reversed(shares), strict=True):
            d = d + (share - change @ d / (step @ change)) * step
        return d

    def _along(self, at: _Place, direction: Tensor, slope: float) -> _Place | None:
        """A place that is lower and flatter; else the lowest one that gains enough; else None."""
        low, high, share, best = 0.0, math.inf, 1.0, None
        for _ in range(_TRIALS):
            tried = self._tried(at.x + share * direction)
            if tried is None or not tried.loss <= at.loss + _SUFFICIENT * share * slope:
                high = share
            else:
                best = tried
                if float(tried.slope @ direction) >= _FLATTER * slope:
                    break
                low = share
            share = 2 * low if high == math.inf else (low + high) / 2
        return best if best is not None and best.loss < at.loss else None

    def _tried(self, x: Tensor) -> _Place | None:
        """None where there are no values, or they are not finite."""
        try:
            return self._finite(self._evaluated(x))
        except ValueError:
            self.refused += 1
            return None

    @staticmethod
    def _finite(found: _Place) -> _Place | None:
        return found if math.isfinite(found.loss) and bool(found.slope.isfinite().all()) else None

    def _evaluated(self, x: Tensor) -> _Place:
        self._put(x)
        self.evaluations += 1
        values = self.sought.values()
        loss = -(values.sum() + self.sought.prior())
        slopes = torch.autograd.grad(loss, self.sought.parameters, allow_unused=True)
        flat = [
            torch.zeros_like(p) if slope is None else slope
            for p, slope in zip(self.sought.parameters, slopes, strict=True)
        ]
        slope = torch.cat([g.double().flatten() for g in flat])
        return _Place(x, float(loss.detach()), slope, self.sought.mean(values))

    def _put(self, x: Tensor) -> None:
        held = self.sought.parameters
        with torch.no_grad():  # in the type of each
            for p, part in zip(held, x.split([p.numel() for p in held]), strict=True):
                p.copy_(part.view_as(p))

    def state_dict(self) -> dict[str, Any]:
        """With the place and the pairs."""
        at = None if self._at is None else tuple(self._at)
        return super().state_dict() | {"at": at, "pairs": self._pairs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the search where it was when the state was taken."""
        super().load_state_dict(state)
        self._at = None if state["at"] is None else _Place(*state["at"])
        self._pairs = [(step, change) for step, change in state["pairs"]]
