"""Policies of two temperatures on pendulums that they were not made for, with networks.

Run ``python -m benchmarks.pendulum_changed`` from the root of the repository. ``sac`` is trained on
``models.pendulum``, with networks of two layers of 64 rectified linear units, at a low and at a
high temperature. Its policies, which draw their actions, then swing up rods whose mass or length is
another. The first rows of each table are mean returns over 200 steps from the model's own starts,
the same for all, with the 95% interval of the mean over seeds. Below are two policies planned
without error on the same model (``on_grid``), which tell what is due to the temperature and what to
the training, and the return of a policy planned for the changed rod itself at the low temperature.

With three seeds and α = 0.1 and 1 the low temperature has the higher mean on every rod, learnt and
planned alike; the intervals of what was learnt overlap where the rod is much heavier or longer.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from typing import Any

import torch
from scipy import stats

import cai
from benchmarks.soft_actor_critic import policy_of, seen
from cai import inference, models
from cai.stepping.model_source import ModelSource

_TEMPERATURES = 0.1, 1.0
_SCALES = 0.6, 0.8, 1.0, 1.2, 1.4, 1.6
_WIDTH, _COPIES, _DISCOUNT = 64, 8, 0.99
_EPISODES = 1000


def trained(temperature: float, steps: int, seed: int) -> Any:
    """The policy of a run on the unchanged pendulum."""
    finite = models.pendulum(temperature=temperature)
    model = dataclasses.replace(finite, horizon=None, discount=_DISCOUNT)
    policy = policy_of(model, seed, seen, _WIDTH)
    torch.manual_seed(seed)  # the copies draw their first states here
    return inference.sac(
        ModelSource(model, _COPIES, time_limit=200),
        policy,
        steps=steps,
        hidden=(_WIDTH, _WIDTH),
        observe=seen,
        learning_rate=1e-3,
        seed=seed,
        progress=False,
    ).policy


def planned(rod: cai.TrajectoryModel, temperature: float) -> Any:
    """The policy of a grid of 121 × 121 states and 21 torques."""
    model = dataclasses.replace(rod, temperature=temperature)
    angle, speed, torque = (
        torch.linspace(-x, x, n, dtype=torch.float64)
        for x, n in ((torch.pi, 121), (8.0, 121), (2.0, 21))
    )
    periodic = [True, False]
    return cai.on_grid(model, states=[angle, speed], actions=[torque], periodic=periodic).policy


def gets(policy: Any, rod: cai.TrajectoryModel) -> float:
    """The mean return on a rod."""
    return float(cai.evaluate(rod, policy, samples=_EPISODES, seed=0).expected_return)


def with_interval(returns: list[float]) -> str:
    """The mean over seeds with its 95% interval."""
    spread = statistics.stdev(returns) if len(returns) > 1 else float("nan")
    half = stats.t.ppf(0.975, len(returns) - 1) * spread / len(returns) ** 0.5
    return f"{statistics.fmean(returns):.0f} ± {half:.0f}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start, learnt = time.process_time(), {}
    for alpha in _TEMPERATURES:
        learnt[alpha] = [trained(alpha, given.steps, seed) for seed in range(given.seeds)]
    seconds = (time.process_time() - start) / (given.seeds * len(_TEMPERATURES))
    print(f"{given.seeds} seeds, {given.steps} transitions, {seconds:.0f} seconds for each run")
    plans = {alpha: planned(models.pendulum(), alpha) for alpha in _TEMPERATURES}
    changed = {
        "mass": [models.pendulum(mass=scale) for scale in _SCALES],
        "length": [models.pendulum(length=scale) for scale in _SCALES],
    }
    for what, rods in changed.items():
        rows = {
            f"sac, α = {alpha:g}": [
                with_interval([gets(policy, rod) for policy in policies]) for rod in rods
            ]
            for alpha, policies in learnt.items()
        }
        for alpha, plan in plans.items():
            rows[f"planned, α = {alpha:g}"] = [f"{gets(plan, rod):.0f}" for rod in rods]
        own = [gets(planned(rod, _TEMPERATURES[0]), rod) for rod in rods]
        rows["planned for it"] = [f"{x:.0f}" for x in own]
        print(f"{what:18}" + "".join(f"{scale:>13g}" for scale in _SCALES))
        for name, row in rows.items():
            print(f"  {name:16}" + "".join(f"{x:>13}" for x in row), flush=True)


if __name__ == "__main__":
    main()
