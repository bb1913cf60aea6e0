"""Learners side by side: their speed, and the returns of what they learnt."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

import torch
from scipy import stats

Side = Callable[[int, int], tuple[float, float]]
"""(transitions, seed) -> seconds of training, and the return of the trained policy."""


def race(sides: Mapping[str, Side], seeds: int, steps: int) -> None:
    """Prints a table; the sides alternate, so that a drifting speed affects all alike.

    Args:
        sides: name -> a side; speeds are relative to the first.
        seeds: how many seeds.
        steps: how many transitions.
    """
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for seed in range(seeds):
        for name, side in sides.items():
            found[name].append(side(steps, seed))
    first = found[next(iter(sides))]
    print(f"{steps} transitions, {seeds} seeds   transitions/s  faster  return, its median")
    for name, runs in found.items():
        speed = statistics.median(steps / seconds for seconds, _ in runs)
        ratio = statistics.median(a[0] / b[0] for a, b in zip(first, runs, strict=True))
        returns = [x for _, x in runs]
        spread = statistics.stdev(returns) if len(returns) > 1 else float("nan")
        half = stats.t.ppf(0.975, len(returns) - 1) * spread / len(returns) ** 0.5
        mean, middle = statistics.fmean(returns), statistics.median(returns)
        print(f"{name:32} {speed:15.0f} {ratio:7.2f}  {mean:.1f} ± {half:.1f}, {middle:.1f}")
