"""What a callback of a run is called with, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch

from cai import checks
from cai.numerics.exclusive import generators, set_generators

Callback: TypeAlias = Callable[[dict[str, float]], bool | None]
"""A record, name -> number -> True to end the run."""

_RECORDS = 100  # of a run


class CallbackFailed(ValueError):
    """The error of a callback; the step that it was told of is complete."""


def check_callback(callback: Any) -> None:
    """Raises ValueError unless it is a function, or None."""
    if callback is not None and not callable(callback):
        advice = "for instance callback=print"
        checks.refuse("callback", "a function of a record", repr(callback), advice)


def is_due(done: int, total: int) -> bool:
    """Whether a record is due after a step: after each hundredth of all, and at the end."""
    return done * _RECORDS // total > (done - 1) * _RECORDS // total


def asks_to_stop(callback: Callback, record: dict[str, float]) -> bool:
    """Calls a callback, and says whether it asked to stop: by True alone.

    What it draws at random does not change the run: torch's generators are put back.

    Raises:
        CallbackFailed: if it raised anything.
    """
    before = generators()
    try:
        answer: Any = callback(record)
    except Exception as error:  # a full disk, a network, or what a logger has of its own
        words = " ".join(str(error).split())[:200]
        raise CallbackFailed(
            "callback: expected a function of a record, got one that raised "
            f"{type(error).__name__}: {words}; mend it, and pass checkpoint= to go on from there"
        ) from error
    finally:
        set_generators(before)
    if isinstance(answer, torch.Tensor):
        return answer.dtype == torch.bool and answer.numel() == 1 and bool(answer)
    return isinstance(answer, bool | np.bool_) and bool(answer)  # not what a log returns
