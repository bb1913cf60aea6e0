"""Two sides of a race, timed in turns, so that the drifting speed of a machine cancels."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONG_ENOUGH = 0.05  # seconds that one side runs in a round, by repetition if it is quicker
_BUDGET = 15.0  # seconds for one race; at least five rounds are run whatever they take


@dataclass(frozen=True, kw_only=True)
class Race:
    """This library against a reference that gives the same answer, which was checked before.

    Attributes:
        name: of the row, as ``--only`` finds it.
        sizes: of the problem.
        reference: what the library is compared with.
        ours: runs the library once.
        theirs: runs the reference once.
        target: how many times as fast as the reference the library should be; None where the row
            only shows what can be reached.
    """

    name: str
    sizes: str
    reference: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    target: float | None


class Missing(Exception):
    """A reference is not installed; says how to install it."""


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
    """The name of the quickest of several references, by the medians of a few turns."""
    turns = [{name: _time(side, 1) for name, side in sides.items()} for _ in range(5)]
    return min(sides, key=lambda name: statistics.median(turn[name] for turn in turns))


def _repeats(side: Callable[[], Any]) -> int:
    side()  # what is done once, such as lazy imports, is not timed
    return max(1, round(_LONG_ENOUGH / min(_time(side, 1) for _ in range(3))))


def _time(side: Callable[[], Any], repeats: int) -> float:
    """Seconds a call."""
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
    """Raises where two answers differ by more than the tolerance anywhere."""
    difference = float(abs(ours - theirs).max()) if hasattr(ours, "max") else abs(ours - theirs)
    if not difference <= tolerance:
        raise RuntimeError(
            f"{what}: the two sides differ by {difference:.3g}, expected at most {tolerance:g}"
        )


def peak_memory() -> float:
    """MiB that this process had at most so far; unlike getrusage without what its parent had."""
    status = Path("/proc/self/status").read_text(encoding="ascii")  # Linux only
    found = re.search(r"VmHWM:\s*(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024
