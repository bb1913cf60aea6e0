"""How near learners come to the exact values of the frozen lake, over several seeds.

Run ``python -m benchmarks.learners`` from the root of the repository; ``--seeds 3`` for a quick
look, ``--only networks`` for one row. The rows of the winner's curse act by the action prior and
stop early: at a low α the largest of few samples counts, unless α falls to it from one (G-learning,
Fox et al. 2016). The error is the largest of V over the largest value, on the
tiles where anything can be done; the interval is that of the mean over seeds, by Student's t.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import pyro.distributions as dist
import torch
from scipy import stats
from torch import Tensor

from cai import TrajectoryModel, inference, models

_STEPS = 200_000
_TEMPERATURE = 0.01


def lake(discount: float) -> TrajectoryModel:
    """The frozen lake, where episodes begin at S."""
    return models.gym("FrozenLake-v1", horizon=None, discount=discount, temperature=_TEMPERATURE)


def from_everywhere(model: TrajectoryModel) -> TrajectoryModel:
    """The same, where an episode begins on any tile from which the goal can be reached."""
    return dataclasses.replace(model, initial=dist.Categorical(_open(model).double()))


def _open(model: TrajectoryModel) -> Tensor:
    return inference.soft_values(model).V > 0


def error(model: TrajectoryModel, values: Callable[[Tensor], Tensor]) -> float:
    """max |V - V*| / max V*."""
    exact = inference.soft_values(model).V
    where = _open(model).nonzero().squeeze(1)
    return float((values(where) - exact[where]).abs().max() / exact.max())


def rows() -> dict[str, tuple[str, Callable[[int], float]]]:
    """name -> what is reached elsewhere, and the error of a seed."""
    near, far = lake(0.95), from_everywhere(lake(0.99))

    def of(model: TrajectoryModel, steps: int = _STEPS, **how: object) -> Callable[[int], float]:
        def run(seed: int) -> float:
            learnt = inference.soft_q(
                model,
                steps=steps,
                seed=seed,
                progress=False,
                **how,  # type: ignore[arg-type]
            )
            return error(model, learnt.values)

        return run

    def cursed(steps: int, falling: bool) -> Callable[[int], float]:
        def temperature(taken: int) -> float:
            return max(_TEMPERATURE, _TEMPERATURE ** min(1.0, taken / (0.7 * steps)))

        return of(
            near,
            steps,
            behaviour=lambda t, s: near.prior(s),
            temperature=temperature if falling else None,
        )

    curse = {
        f"winner's curse, {steps:,}{', α falling' if falling else ''}": ("", cursed(steps, falling))
        for falling in (False, True)
        for steps in (2_000, 10_000, 30_000, 100_000)
    }
    return curse | {
        "table, γ = .95, from S": ("at most 2 %", of(near)),
        "table, γ = .99, from everywhere": ("at most 1.5 %", of(far)),
        "networks, γ = .95, from S": ("at most 5 %", of(near, hidden=(64, 64))),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'soft_q, ' + str(_STEPS) + ' transitions':34}  error of V, %     worst  wanted")
    for name, (wanted, run) in rows().items():
        if given.only not in name:
            continue
        start = time.process_time()
        errors = [100 * run(seed) for seed in range(given.seeds)]
        seconds = (time.process_time() - start) / given.seeds
        half = stats.t.ppf(0.975, len(errors) - 1) * statistics.stdev(errors) / len(errors) ** 0.5
        print(
            f"{name:34}  {statistics.fmean(errors):5.2f} ± {half:4.2f}  {max(errors):8.2f}  "
            f"{wanted} ({seconds:.0f} s a seed)"
        )


if __name__ == "__main__":
    main()
