"""Refuses arrays that would not fit into memory, with their size, before they are allocated.

An allocation may succeed and the process still be killed once the memory is written to.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import NoReturn

from cai import checks


def check_fits(where: str, what: str, numbers: int, advice: str) -> None:
    """Raises ValueError if so many float64 numbers exceed the machine's memory.

    Args:
        where: the argument or function to name.
        what: what the numbers are, with their sizes.
        numbers: how many there will be at once.
        advice: what to take instead.
    """
    if 8 * numbers > installed():
        refuse(where, f"{what}, {readable(8 * numbers)}", advice)


def check_values(steps: int, states: int) -> None:
    """Raises ValueError where the values of all steps and states would not fit into memory."""
    what = f"values of {steps} steps and {states} states"
    advice = "take a shorter or an infinite one, or inference.soft_values(…, recompute=True)"
    check_fits("horizon", what, (steps + 1) * states, advice)


def refuse(where: str, what: str, advice: str) -> NoReturn:
    """Raises ValueError for what is too large."""
    checks.refuse(where, f"what fits into the memory of {readable(installed())}", what, advice)


@cache
def installed() -> float:
    """The bytes of memory of this machine; infinite if unknown."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def asked_for(error: Exception) -> str:
    """The size that an allocator's error message names."""
    found = re.search(r"(\d+) bytes", str(error))
    return readable(int(found[1])) if found else f"more ({error})"


def readable(size: float) -> str:
    """A number of bytes in a suitable unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
