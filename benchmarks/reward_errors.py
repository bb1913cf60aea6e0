"""Whether the intervals of fitted rewards cover the truth, over many simulated data sets.

Run ``python -m benchmarks.reward_errors`` from the root of the repository. Each row fits the same
weights to ``--replications`` data sets and shows, for each weight, in how many of them its 95%
interval covers the truth, and the mean standard error over the spread of the estimates:

* ``actions``: 300 demonstrations of a causal agent in a random problem of six states, by the
  likelihood of actions at η = 0, with errors from the information;
* ``matching``: the same data by matched features, with the sandwich; and with the inverse Hessian,
  which is no covariance;
* ``MaxEnt``: the same data by the likelihood of paths at η = 1, which takes luck for choice;
* ``network``: 300 trips on a generated town, by the likelihood of paths;
* ``drivers``: 60 drivers whose weights differ, ten trips each; errors by the information and
  clustered by driver, beside the spread of the estimates. What is covered here is the mean of the
  estimates, as pooled weights are not the mean of the drivers'.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import cai
from cai import inference, models

_TRUTH = torch.tensor([1.0, -0.5, 0.8], dtype=torch.float64)
_ROADS = torch.tensor([-9.0, -0.7, -2.0], dtype=torch.float64)
_NAMES = ["minutes", "left", "u_turn"]
_SPREAD = torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64)  # of drivers, cut off at 1.5 of it
_Z = 1.959963984540054


def problem() -> tuple[cai.TrajectoryModel, cai.LinearReward]:
    """Six states, three actions, eight steps, and three features of states and actions."""
    rng = np.random.default_rng(1)
    P = rng.dirichlet(np.full(6, 0.5), size=(6, 3))
    model = models.tabular(P, np.zeros((6, 3)), horizon=8)
    f = torch.from_numpy(rng.normal(size=(3, 6, 3)))
    return model, cai.LinearReward({f"f{i}": f[i] for i in range(3)})


def agents(number: int, seed: int) -> Callable[[str], inference.RewardFit]:
    """A data set of a causal agent: how it is to be fitted -> the fit."""
    model, reward = problem()
    own = reward.on(cai.tabulate(model)).rewards(cai.tabulate(model), _TRUTH)
    paths = model.simulate(inference.soft_values(own).policy, number, seed=seed)
    seen = cai.Demonstrations.from_trajectories(paths)

    def fitted(how: str) -> inference.RewardFit:
        likelihood = "paths" if how == "MaxEnt" else how
        eta = 1.0 if how == "MaxEnt" else 0.0
        return inference.fit_reward(model, seen, reward, likelihood=likelihood, optimism=eta)

    return fitted


def trips(
    streets: cai.Streets, drivers: list[Tensor], each: int, rng: np.random.Generator
) -> cai.Demonstrations:
    """Trips between random segments, each driver with weights of their own."""
    E, paths, who = len(streets.segments), [], []
    for driver, weights in enumerate(drivers):
        for _ in range(each):
            origin, goal = rng.choice(E, 2, replace=False).tolist()
            routes = inference.Routes(streets, tuple(_NAMES), weights, torch.tensor([goal]))
            seed = int(rng.integers(2**31))
            paths.append(routes.sample(origin, goal, 1, seed=seed)[0])
            who.append(driver)
    turns = [streets.locate_turns(path[:-1], path[1:]) for path in paths]
    goals = [int(path[-1]) for path in paths]
    return cai.Demonstrations.from_paths(paths, turns, ends="absorbed", groups=who, goals=goals)


def row(name: str, estimates: list[Tensor], errors: list[Tensor], truth: Tensor | None) -> None:
    """Prints coverage, and the mean error over the spread of the estimates, of each weight."""
    found, said = torch.stack(estimates), torch.stack(errors)
    about = found.mean(0) if truth is None else truth
    covered = ((found - about).abs() <= _Z * said).double().mean(0)
    ratio = said.mean(0) / found.std(0)
    words = "  ".join(f"{100 * x:5.1f}" for x in covered.tolist())
    print(f"{name:34} {words}   {'  '.join(f'{x:.2f}' for x in ratio.tolist())}", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=1000)
    n = parser.parse_args().replications
    torch.set_num_threads(1)
    print(f"{n} data sets; coverage of 95% intervals (%), mean error / spread, by weight")
    fits: dict[str, list[inference.RewardFit]] = {"actions": [], "matching": [], "MaxEnt": []}
    for seed in range(n):
        fitted = agents(300, seed)
        for how, kept in fits.items():
            kept.append(fitted(how))
    for how, kept in fits.items():
        estimates = [torch.tensor([*fit.weights.values()]).double() for fit in kept]
        errors = [fit.covariance.diagonal().sqrt() for fit in kept]
        row(how, estimates, errors, _TRUTH)
        if how == "matching":
            inverse = [torch.linalg.inv(fit.information).diagonal().sqrt() for fit in kept]
            row("matching, inverse Hessian", estimates, inverse, _TRUTH)
    streets = models.city(5, 5, seed=3)
    for name, each, drivers in (("network", 5, False), ("drivers", 10, True)):
        estimates, plain, clustered = [], [], []
        for seed in range(n):
            rng = np.random.default_rng(seed)
            spread = _SPREAD if drivers else torch.zeros(3, dtype=torch.float64)
            own = [
                _ROADS + spread * torch.from_numpy(rng.normal(size=3)).clamp(-1.5, 1.5)
                for _ in range(60)
            ]
            seen = trips(streets, own, each, rng)
            fit = inference.fit_reward(streets, seen, _NAMES, cluster="group")
            estimates.append(torch.tensor([*fit.weights.values()]).double())
            clustered.append(fit.covariance.diagonal().sqrt())
            plain.append(torch.linalg.inv(fit.information).diagonal().sqrt())
        truth = None if drivers else _ROADS
        row(f"{name}, information", estimates, plain, truth)
        row(f"{name}, clustered by driver", estimates, clustered, truth)


if __name__ == "__main__":
    main()
