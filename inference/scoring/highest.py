"""The highest of several maxima."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.inference.scoring.fisher_scoring import INTERRUPTED, Maximum, maximise

_STEPS = 100


def highest(
    score: Callable[[Tensor], ScoredDemonstrations],
    starts: Iterator[Tensor],
    scale: Tensor,
    prior: Any,
) -> Maximum:
    """The highest of the maxima that searches from several starts find.

    Raises:
        KeyboardInterrupt: if a search is interrupted.
        ValueError: if there are no values at the first start.
    """
    best: Maximum | None = None
    for start in starts:
        try:
            first = None if best is None else best.first  # later starts may lie where it is flat
            found = maximise(score, start, scale, prior, _STEPS, first=first)
        except ValueError:
            if best is None:
                raise
            continue
        if found.reason == INTERRUPTED:
            raise KeyboardInterrupt
        best = found if best is None or found.value > best.value else best
    assert best is not None
    return best
