"""Time and memory of finite-horizon sweeps against the size of the model: ``out/sweeps.png``.

Values and occupancies of T = 100 steps at optimism 0 and 1, dense with A = 10 actions and sparse
with A = 4 actions and 3 successors, this library beside the hand-written references of
``sweeps.py``, medians of alternating runs on one thread. Then the peak memory of a long horizon,
with all values and with checkpoints, each in its own process. About two minutes.

    python -m benchmarks.sizes
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import cai
from benchmarks import sweeps
from benchmarks.timing import run

_TITLES = {"dense": "dense, 10 actions", "sparse": "sparse, 4 actions of 3 successors each"}
_DENSE = (10, 30, 100, 300, 600)
_SPARSE = (100, 1_000, 10_000, 100_000)
_LONG = """
import dataclasses
import torch
from benchmarks import sweeps
from benchmarks.timing import peak_memory
from cai import inference

torch.set_num_threads(1)
table = dataclasses.replace(sweeps.sparse(2_000), horizon=20_000)
before = peak_memory()
solution = inference.soft_values(table, {eta}, recompute={recompute})
solution.imagined_return, solution.visits, solution.at(777).policy
print(peak_memory() - before)
"""


def main() -> None:
    """Measures, draws, and prints."""
    torch.set_num_threads(1)
    curves = {}
    for what, make, many in (("dense", sweeps.dense, _DENSE), ("sparse", sweeps.sparse, _SPARSE)):
        for eta in (0.0, 1.0):
            curves[f"{what}, optimism {eta:g}"] = [(S, *times(make, S, eta)) for S in many]
            print(what, eta, curves[f"{what}, optimism {eta:g}"], flush=True)
    draw(curves, Path("out/sweeps.png"))
    for recompute in (False, True):
        script = _LONG.format(eta=1.0, recompute=recompute)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True
        )
        kept = "checkpoints" if recompute else "all values"
        print(f"S=2000, T=20000, {kept}: {float(done.stdout):.0f} MB above the table")


def times(make: Callable[[int], cai.Table], S: int, eta: float) -> tuple[float, float]:
    """Milliseconds, ours and theirs."""
    result = run(sweeps.race(f"S={S}", make(S), eta, summed=eta == 1), 7)
    return result.ours, result.theirs


def draw(curves: dict[str, list[tuple[int, float, float]]], path: Path) -> None:
    """Time against the number of states, a panel for dense and one for sparse."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    figure.suptitle(f"Values and occupancies of {sweeps.HORIZON} steps, float64, one thread")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, what in zip(panels, ("dense", "sparse"), strict=True):
        for color, eta, what_for in (
            ("tab:blue", "0", "dynamics as they are"),
            ("tab:orange", "1", "exact posterior"),
        ):
            S, ours, theirs = zip(*curves[f"{what}, optimism {eta}"], strict=True)
            panel.loglog(S, ours, "o-", color=color, label=f"η = {eta}, {what_for}")
            panel.loglog(S, theirs, "x--", color=color, label="the same by hand in torch")
        panel.set_xlabel("number of states")
        panel.set_title(_TITLES[what], fontsize="medium")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("time / milliseconds")
    panels[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
