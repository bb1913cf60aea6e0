"""What a callback of a run is called with, and what it may answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from cai import checks

_RECORDS = 100  # of a run


def check_callback(callback: Any) -> None:
    """Raises ValueError unless it is a function, or None."""
    if callback is not None and not callable(callback):
        advice = "for instance callback=print"
        checks.refuse("callback", "a function of a record", repr(callback), advice)


def is_due(done: int, total: int) -> bool:
    """Whether a record is due after so many of all steps: after each hundredth, and at the end."""
    return done % max(1, total // _RECORDS) == 0 or done == total


def says_stop(answer: Any) -> bool:
    """Whether a callback asked to stop: by True alone, not by what a log or a figure returns."""
    return isinstance(answer, bool | np.bool_) and bool(answer)
