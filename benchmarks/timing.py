"""Times two sides of a race in alternation, so that a drifting speed of the machine cancels."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONG_ENOUGH = 0.05  # seconds that one side runs in a round, by repetition if it is faster
_BUDGET = 15.0  # seconds for one race, except that at least five rounds are run


@dataclass(frozen=True, kw_only=True)
class Race:
    """This library against a reference that gives the same answer, which was checked before.

    Attributes:
        name: the name of the row, for ``--only``.
        sizes: the sizes of the problem.
        reference: the name of the reference.
        ours: runs the library once.
        theirs: runs the reference once.
        target: by which factor the library should be faster than the reference; None if the row
            only shows what can be reached.
    """

    name: str
    sizes: str
    reference: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    target: float | None


class Missing(Exception):
    """A reference is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Result:
    """Medians over the rounds.

    Attributes:
        ours: milliseconds.
        theirs: milliseconds.
        ratio: the median of theirs/ours of each round.
        quartiles: the lower and upper quartiles of the same.
    """

    ours: float
    theirs: float
    ratio: float
    quartiles: tuple[float, float]


def run(race: Race, rounds: int) -> Result:
    """Times ours, theirs, ours, theirs, …, with the garbage collector off as ``timeit`` has it."""
    repeats = [_repeats(side) for side in (race.ours, race.theirs)]
    gc.collect()
    gc.freeze()
    ours, theirs = [], []
    started = time.perf_counter()
    while len(ours) < rounds:
        ours.append(_time(race.ours, repeats[0]))
        theirs.append(_time(race.theirs, repeats[1]))
        if len(ours) >= 5 and time.perf_counter() - started > _BUDGET:
            break
    gc.unfreeze()
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    lower, ratio, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return Result(
        1000 * statistics.median(ours), 1000 * statistics.median(theirs), ratio, (lower, upper)
    )


def quickest(sides: dict[str, Callable[[], Any]]) -> str:
    """The name of the fastest of several references, by the medians of a few runs."""
    turns = [{name: _time(side, 1) for name, side in sides.items()} for _ in range(5)]
    return min(sides, key=lambda name: statistics.median(turn[name] for turn in turns))


def _repeats(side: Callable[[], Any]) -> int:
    side()  # one-time work such as lazy imports is not timed
    return max(1, round(_LONG_ENOUGH / min(_time(side, 1) for _ in range(3))))


def _time(side: Callable[[], Any], repeats: int) -> float:
    """Seconds per call."""
    gc.collect()
    gc.disable()
    try:
        started = time.perf_counter()
        for _ in range(repeats):
            side()
        return (time.perf_counter() - started) / repeats
    finally:
        gc.enable()


def check_close(what: str, ours: Any, theirs: Any, tolerance: float) -> None:
    """Raises an error if two answers differ by more than the tolerance anywhere."""
    difference = float(abs(ours - theirs).max()) if hasattr(ours, "max") else abs(ours - theirs)
    if not difference <= tolerance:
        raise RuntimeError(
            f"{what}: the two sides differ by {difference:.3g}, expected at most {tolerance:g}"
        )


def peak_memory() -> float:
    """The peak memory of this process so far, MiB; unlike getrusage without its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")  # Linux only
    found = re.search(r"VmHWM:\s*(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024
