"""What a sweep costs beside its cells, and how much faster two processes are than one.

Cells sleep, so that what is measured does not depend on how many cores are free: two processes are
at most twice as fast, and what is missing is the sweep's own. The time to start, from the call to
the beginning of the first cell, counts once; that of two processes is theirs to import the library.
About two minutes, or less with shorter cells than ten seconds.

    python -m benchmarks.sweep_workers [SECONDS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cai
from cai import models

CELLS = 8


def asleep(seconds: float, folder: str, model: Any, seed: int) -> Any:
    """A method that takes so long, and notes when it began."""
    Path(folder, f"{seed}-{time.time()}").touch()
    time.sleep(seconds)
    return lambda t, s: model.prior(s, t)


def timed(seconds: float, jobs: int) -> tuple[float, float]:
    """Seconds of a whole sweep, and until its first cell begins."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        begun = time.time()
        cai.sweep(
            models.ledge,
            {},
            {"asleep": lambda model, seed: asleep(seconds, folder, model, seed)},
            seeds=CELLS,
            jobs=jobs,
            out=out,
            progress=False,
        )
        whole = time.time() - begun
        first = min(float(path.name.partition("-")[2]) for path in Path(folder).iterdir())
        return whole, first - begun


def main() -> None:
    """Prints a line for each number of processes."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    found = {}
    for jobs in (1, 2):
        whole, first = found[jobs] = timed(seconds, jobs)
        work = CELLS * seconds / jobs
        print(
            f"{jobs} at once: {CELLS} cells of {seconds:g} s in {whole:.2f} s, "
            f"{whole - work:.2f} s above the work; the first begins after {first:.2f} s"
        )
    print(f"2 processes are {found[1][0] / found[2][0]:.2f} times as fast as 1")


if __name__ == "__main__":
    main()
