"""Four goals around a point, none better than another (Haarnoja et al. 2017, section 5.1).

Run ``python -m benchmarks.four_goals`` from the root of the repository; with ``--figure FILE`` it
draws their figure 1 again, Q and draws of the learnt policy in three places beside exact ones. The
problem is ``models.multigoal`` without an end, discount 0.99, whose values ``cai.on_grid`` knows.

* ``spread``: ``stein_soft_q``, episodes of 15 steps that begin anywhere on the plane;
* ``centre``: the same from the centre, as in the paper, with a temperature that falls from 100 to
  10 over two thirds of the run, without which the sampler settles for some of the goals;
* ``sac``: with a mixture of four Gaussians, spread;
* ``DDPG``: plain gradients and hard targets, spread; it commits to one way from each place.

The shares of episodes from the centre that end at each goal should be a quarter. V is the root mean
square of the error of the learnt values over the square, relative to the range of the exact ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import pyro.distributions as dist
import torch
from torch import Tensor

import cai
from cai import inference, models
from cai.models.continuous.multigoal import GOALS
from cai.stepping.model_source import ModelSource

_DISCOUNT, _LIMIT = 0.99, 15
_SIDE = torch.linspace(-7, 7, 57, dtype=torch.float64)
_PLACES = ((-2.5, 0.0), (0.0, 0.0), (2.5, 2.5))
_EPISODES = 2000


def problem(spread: bool) -> cai.TrajectoryModel:
    """The problem without an end, from the centre or from anywhere on the plane."""
    endless = dataclasses.replace(models.multigoal(), horizon=None, discount=_DISCOUNT)
    if not spread:
        return endless
    edge = torch.full((2,), 7.0, dtype=torch.float64)
    return dataclasses.replace(endless, initial=dist.Uniform(-edge, edge).to_event(1))


@functools.cache
def exact() -> cai.GridSolution:
    """The values on a grid of 57 × 57 nodes, by 21 × 21 actions."""
    steps = torch.linspace(-1, 1, 21, dtype=torch.float64)
    return cai.on_grid(problem(spread=False), states=[_SIDE, _SIDE], actions=[steps, steps])


def by_stein(steps: int, seed: int, spread: bool) -> inference.Learned:
    """Soft Q-learning with a sampler."""
    falls = None if spread else (lambda taken: max(10.0, 100 * 10 ** (-1.5 * taken / steps)))
    torch.manual_seed(seed)  # the copies draw their first states here
    source = ModelSource(problem(spread), 16, time_limit=_LIMIT)
    return inference.stein_soft_q(
        source, steps=steps, updates=4, temperature=falls, seed=seed, progress=False
    )


def by_gradients(steps: int, seed: int) -> inference.Learned:
    """DDPG."""
    torch.manual_seed(seed)
    source = ModelSource(problem(spread=True), 16, time_limit=_LIMIT)
    return inference.stein_soft_q(
        source,
        steps=steps,
        updates=4,
        rule="hard",
        gradient="plain",
        exploration=0.2,
        seed=seed,
        progress=False,
    )


def by_mixture(steps: int, seed: int) -> inference.Learned:
    """Soft actor-critic with four Gaussians."""
    torch.manual_seed(seed)
    model = problem(spread=True)
    policy = cai.NeuralPolicy(model, (128, 128), head=cai.MixtureHead(4), stationary=True)
    return inference.sac(
        ModelSource(model, 16, time_limit=_LIMIT),
        policy,
        steps=steps,
        updates=4,
        hidden=(128, 128),
        batch=128,
        lag=0.01,
        learning_rate=1e-3,
        seed=seed,
        progress=False,
    )


LEARNERS: dict[str, Callable[[int, int], inference.Learned]] = {
    "spread": functools.partial(by_stein, spread=True),
    "centre": functools.partial(by_stein, spread=False),
    "sac": by_mixture,
    "DDPG": by_gradients,
}


def shares(policy: Any, seed: int) -> list[float]:
    """The shares of episodes from the centre that end at each goal."""
    last = models.multigoal().simulate(policy, _EPISODES, seed).states[:, -1]
    away = (last.unsqueeze(-2) - GOALS).square().sum(-1)
    arrived = away.amin(-1) < 1
    return [(arrived & (away.argmin(-1) == g)).double().mean().item() for g in range(len(GOALS))]


def error(learnt: inference.Learned) -> float:
    """The root mean square error of V at the nodes, over the range of the exact values."""
    nodes = torch.cartesian_prod(_SIDE, _SIDE)
    V = exact().values(nodes)
    found = (learnt.values(nodes) - V).square().mean().sqrt() / (V.max() - V.min())
    return float(found)


def figure(learnt: inference.Learned, file: str) -> None:
    """Q in three places, learnt and exact, with draws of the policy."""
    step = torch.linspace(-1, 1, 41, dtype=torch.float64)
    actions = torch.cartesian_prod(step, step)
    drawn, axes = plt.subplots(2, 3, figsize=(9, 6.4), sharex=True, sharey=True)
    torch.manual_seed(0)
    for column, place in enumerate(_PLACES):
        s = torch.tensor(place, dtype=torch.float64).expand(len(actions), 2)
        arrives = exact().model.transition(s, actions, 0).sample()
        paid = exact().model.rewards(s, actions) + exact().model.arrival_rewards(
            s, actions, arrives
        )
        true = paid + _DISCOUNT * exact().values(arrives)
        density = torch.distributions.Categorical(logits=true / 10)
        rows = (
            ("learnt", learnt.action_values(s, actions), learnt.policy(0, s[:300]).sample()),
            ("exact", true, actions[density.sample((300,))]),
        )
        for row, (name, Q, a) in enumerate(rows):
            axis = axes[row, column]
            levels = (Q / 10).reshape(41, 41).T
            top = float(levels.max())
            axis.contour(step, step, levels, top + torch.arange(-6, 0.1, 1.0), cmap="viridis")
            axis.scatter(*a.T, s=6, color="black", alpha=0.5, linewidths=0)
            axis.set_aspect("equal")
            if row == 0:
                axis.set_title(f"at {place}")
            if column == 0:
                axis.set_ylabel(f"{name}\nstep upwards")
            if row == 1:
                axis.set_xlabel("step to the right")
    drawn.suptitle(
        "Q (a line for each nat, down to six below the best) and 300 draws of the policy"
    )
    drawn.tight_layout()
    drawn.savefig(file, dpi=120)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--only", choices=LEARNERS)
    parser.add_argument("--figure")
    given = parser.parse_args()
    torch.set_num_threads(1)
    middle = torch.zeros(2, dtype=torch.float64)
    print(f"{given.steps} transitions; exact V at the centre {float(exact().values(middle)):.1f}")
    print("learner  seed  shares of the goals          V(0)    V   seconds")
    best: Tensor | Any = None
    for name in [given.only] if given.only else LEARNERS:
        smallest = []
        for seed in range(given.seeds):
            start = time.process_time()
            learnt = LEARNERS[name](given.steps, seed)
            seconds = time.process_time() - start
            found = shares(learnt.policy, seed)
            smallest.append(min(found))
            if name == "spread" and best is None:
                best = learnt
            row = " ".join(f"{x:.2f}" for x in found)
            at = learnt.values(middle).item()
            print(
                f"{name:8} {seed:4}  {row}  {at:12.1f} {error(learnt):6.3f} {seconds:8.0f}",
                flush=True,
            )
        print(f"{name:8} rarest goal, median over seeds: {statistics.median(smallest):.2f}")
    if given.figure and best is not None:
        figure(best, given.figure)


if __name__ == "__main__":
    main()
