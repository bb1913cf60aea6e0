"""Posteriors over rewards: importance draws against Pyro's NUTS, and weights of each driver.

Run ``python -m benchmarks.reward_posterior`` from the root of the repository.

``grid``: three weights on a grid of 8x8 cells, 25 steps, 30 demonstrations. Four hundred importance
draws of ``inference.reward_posterior``, the mode included, against Pyro's NUTS on
``inference.reward_program`` with its usual settings. The time of NUTS is that of its warm-up, and
of as many draws as an effective size of 70 takes. The posterior means of both are shown.

``drivers``: 25 drivers on a generated town, 60 trips each, whose weights are normally distributed.
For each seed the error of the weights of drivers (root mean square), of the hierarchical posterior
over that of pooled weights, and over that of separate fits where there are any; how many of the 95%
intervals of drivers cover their weights; and seconds of one thread.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

import cai
from cai import inference, models

_GRID = [
    "S.......",
    "........",
    "..PP....",
    "........",
    ".....P..",
    "........",
    "........",
    ".......G",
]
_WEIGHTS = torch.tensor([-0.3, 3.0, -2.0], dtype=torch.float64)
_WANTED = 70  # the effective size of NUTS
_NAMES = ["minutes", "left", "u_turn"]
_MEAN = torch.tensor([-11.0, -0.7, -2.0], dtype=torch.float64)
_SPREAD = torch.tensor([1.6, 0.4, 0.4], dtype=torch.float64)
_DRIVERS, _TRIPS = 25, 60


def problem() -> tuple[cai.TrajectoryModel, cai.Demonstrations, cai.LinearReward]:
    """A grid with a goal and pits, demonstrations, and a reward of steps, the goal and pits."""
    model = models.gridworld(_GRID, horizon=25, slip=0.2, temperature=1.0)
    assert model.layout is not None
    assert model.layout.cells is not None
    letters = [_GRID[i][j] for i, j in model.layout.cells]
    pit, goal = (torch.tensor([x == kind for x in letters]) for kind in "PG")
    inside = ~(pit | goal)
    reward = cai.LinearReward(
        {"step": lambda s, a: inside[s]},
        {
            "goal": lambda s, a, after: goal[after] & inside[s],
            "pit": lambda s, a, after: pit[after] & inside[s],
        },
    )
    expert = reward.weighted(_WEIGHTS).given_to(model)
    paths = model.simulate(inference.soft_values(expert).policy, 30, seed=0)
    return model, cai.Demonstrations.from_trajectories(paths), reward


def grid(warmup: int = 150, samples: int = 300) -> None:
    """Importance draws against plain NUTS."""
    model, seen, reward = problem()
    prior = torch.distributions.Normal(torch.zeros(3, dtype=torch.float64), 3.0)
    table = cai.tabulate(model)
    start = time.perf_counter()
    ours = inference.reward_posterior(table, seen, reward, prior, progress=False)
    own = time.perf_counter() - start
    size, tail = ours.effective_sample_size, ours.pareto_k
    assert tail is not None
    print(ours)
    print(f"importance: {own:.2f} s, effective size {size:.0f} of 400, k̂ {tail:.2f}")
    torch.manual_seed(0)
    program = inference.reward_program(table, seen, reward, prior)
    stamps: list[float] = []
    chain = MCMC(
        NUTS(program),
        num_samples=samples,
        warmup_steps=warmup,
        disable_progbar=True,
        hook_fn=lambda *_: stamps.append(time.perf_counter()),
    )
    start = time.perf_counter()
    chain.run()
    stamps = [x - start for x in stamps]
    theirs = float(chain.diagnostics()["weights"]["n_eff"].min())
    per_draw = (stamps[-1] - stamps[warmup - 1]) / samples
    taken = stamps[warmup - 1] + per_draw * samples * _WANTED / theirs
    means = chain.get_samples()["weights"].mean(0).tolist()
    print(
        f"NUTS: {stamps[-1]:.1f} s for {warmup} + {samples} draws, effective size {theirs:.0f}; "
        f"{taken:.1f} s for {_WANTED}; means {', '.join(f'{x:.2f}' for x in means)}"
    )
    print(f"ours / NUTS: {own / taken:.3f} of the time\n")


def drivers(seed: int) -> None:
    """Errors of hierarchical, pooled and separate weights."""
    town = models.city(10, 10, seed=1)
    rng = np.random.default_rng(seed)
    truth = _MEAN + _SPREAD * torch.from_numpy(rng.normal(size=(_DRIVERS, 3)))
    trips = _driven(town, truth, rng)
    start = time.process_time()
    found = inference.reward_posterior(town, trips, _NAMES, groups=True, progress=False)
    seconds = time.process_time() - start
    pooled = inference.fit_reward(town, trips, _NAMES)
    of_all = torch.tensor([*pooled.weights.values()], dtype=torch.float64)
    alone = torch.stack(
        [
            torch.tensor([*inference.fit_reward(town, one, _NAMES).weights.values()]).double()
            for one in (trips[trips.group_index == d] for d in range(_DRIVERS))
        ]
    )
    error = _error(found.group_weights, truth)
    apart = (found.group_weights - truth).abs()
    inside = apart < 1.96 * found.group_covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    words = [
        f"{name}: {a:.2f} of pooled, {b:.2f} of separate, {100 * c:.0f}% covered"
        for name, a, b, c in zip(
            _NAMES,
            (error / _error(of_all, truth)).tolist(),
            (error / _error(alone, truth)).tolist(),
            inside.double().mean(0).tolist(),
            strict=True,
        )
    ]
    print(f"seed {seed}: {'; '.join(words)}; {found.steps} steps, {seconds:.1f} s")


def _driven(town: cai.Streets, truth: Tensor, rng: Any) -> cai.Demonstrations:
    """Trips between random segments, drawn from the model of each driver."""
    paths, who = [], []
    for d, weights in enumerate(truth):
        for _ in range(_TRIPS):
            origin, goal = rng.choice(len(town.segments), 2, replace=False).tolist()
            one = inference.Routes(town, tuple(_NAMES), weights, torch.tensor([goal]))
            paths.append(one.sample(origin, goal, 1, seed=int(rng.integers(2**31)))[0])
            who.append(d)
    turns = [town.locate_turns(path[:-1], path[1:]) for path in paths]
    goals = [int(path[-1]) for path in paths]
    return cai.Demonstrations.from_paths(paths, turns, ends="absorbed", groups=who, goals=goals)


def _error(found: Tensor, truth: Tensor) -> Tensor:
    return (found - truth).square().mean(0).sqrt()


def main() -> None:
    """Prints both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5, help="of drivers (default 5)")
    parser.add_argument("--only", choices=("grid", "drivers"), help="one part")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only != "drivers":
        grid()
    if options.only != "grid":
        for seed in range(options.seeds):
            drivers(seed)


if __name__ == "__main__":
    main()
