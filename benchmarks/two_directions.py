"""Two ways that look alike, one of which is better (after Haarnoja et al. 2017, section 5.2).

Run ``python -m benchmarks.two_directions`` from the root of the repository. A point mass with drag
(``benchmarks.point_mass``) takes the place of the paper's robots:

* ``line``: a mass on a line is paid for speed either way. 15 to the right is a finish line, and
  crossing it pays 100 and ends the episode, which is worth more than twice as much as running to
  the left for ever (with discount 0.97). Random forces hardly ever reach it;
* ``short``: the same with the finish line at 10;
* ``wall``: a mass on a plane is paid exp(-d²/18) at a distance d from a target behind a wall that
  it can pass on both sides; one passage is closed at its far end.

A learner has to try both ways and then settle for the better one. ``stein_soft_q`` and ``sac``, the
latter with one Gaussian and with a mixture of two, have a temperature that falls from 0.4 to 0.05
over two thirds of the run; DDPG takes a fifth of its actions at random. The table shows in how many
runs more than half the episodes of the trained policy go the better way, with the 95% interval of
Clopper and Pearson, and the mean shares of episodes that go either way.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

import cai
from benchmarks.point_mass import point_mass
from cai import inference
from cai.stepping.model_source import ModelSource

_BONUS = 100.0
_TARGET = torch.tensor([4.0, 0.0], dtype=torch.float64)
_WIDTH = 3.0  # the standard deviation of the reward around the target
_DISCOUNT = 0.97
_FIRST, _LAST = 0.4, 0.05  # temperatures
_EPISODES = 200
_HIDDEN = (64, 64)


@dataclass(frozen=True)
class Problem:
    """A problem with two ways.

    Attributes:
        model: the problem.
        limit: steps after which an episode is cut.
        ways: the last states of episodes -> whether they went the better way, and the other one.
    """

    model: cai.TrajectoryModel
    limit: int
    ways: Callable[[Tensor], tuple[Tensor, Tensor]]


def line(finish: float) -> Problem:
    """A line, with a finish on the right."""

    def finished(s: Tensor) -> Tensor:
        return s[..., 0] >= finish

    def pays(s: Tensor, s_next: Tensor) -> Tensor:
        return s_next[..., 1].abs() + torch.where(finished(s_next), _BONUS, 0.0)

    model = point_mass(
        *(pays, (0.0,)),
        drag=0.1,
        force=0.1,
        discount=_DISCOUNT,
        temperature=_LAST,
        over=finished,
    )
    return Problem(model, 60, lambda s: (finished(s), s[..., 0] <= -finish))


def wall() -> Problem:
    """A wall that is open below and closed above."""

    def pays(s: Tensor, s_next: Tensor) -> Tensor:
        square = (s_next[..., :2] - _TARGET).square().sum(-1)
        return torch.exp(-square / (2 * _WIDTH**2))

    model = point_mass(
        *(pays, (-4.0, 0.0)),
        drag=0.2,
        force=0.1,
        discount=_DISCOUNT,
        temperature=_LAST,
        room=((-6, -3), (6, 3)),
        walls=[((-1, -1), (1, 1)), ((0.5, 0), (1, 4))],
    )

    def ways(s: Tensor) -> tuple[Tensor, Tensor]:
        x, y = s[..., 0], s[..., 1]
        return x > 1, (x <= 1) & (y >= 1)

    return Problem(model, 40, ways)


PROBLEMS = {"line": functools.partial(line, 15), "short": functools.partial(line, 10), "wall": wall}


def settings(problem: Problem, steps: int, seed: int) -> dict[str, Any]:
    """What all learners share."""
    torch.manual_seed(seed)  # the copies draw their first states here
    return {
        "source": ModelSource(problem.model, 16, time_limit=problem.limit),
        "steps": steps,
        "hidden": _HIDDEN,
        "batch": 64,
        "updates": 2,
        "lag": 0.02,
        "learning_rate": 1e-3,
        "seed": seed,
        "progress": False,
    }


def falling(steps: int) -> Callable[[int], float]:
    """A temperature that falls over two thirds of the run."""
    return lambda taken: float(max(_LAST, _FIRST * (_LAST / _FIRST) ** (1.5 * taken / steps)))


def by_stein(problem: Problem, steps: int, seed: int) -> inference.Learned:
    """Soft Q-learning with a sampler."""
    return inference.stein_soft_q(**settings(problem, steps, seed), temperature=falling(steps))


def by_gradients(problem: Problem, steps: int, seed: int) -> inference.Learned:
    """DDPG."""
    return inference.stein_soft_q(
        **settings(problem, steps, seed), rule="hard", gradient="plain", exploration=0.2
    )


def by_sac(problem: Problem, steps: int, seed: int, modes: int) -> inference.Learned:
    """Soft actor-critic with one Gaussian or several."""
    torch.manual_seed(seed)
    head = cai.GaussianHead() if modes == 1 else cai.MixtureHead(modes)
    policy = cai.NeuralPolicy(problem.model, _HIDDEN, head=head, stationary=True)
    return inference.sac(
        policy=policy, **settings(problem, steps, seed), temperature=falling(steps)
    )


LEARNERS: dict[str, Callable[[Problem, int, int], inference.Learned]] = {
    "stein_soft_q": by_stein,
    "sac, one Gaussian": functools.partial(by_sac, modes=1),
    "sac, a mixture": functools.partial(by_sac, modes=2),
    "DDPG": by_gradients,
}


def shares(problem: Problem, policy: Any, seed: int) -> tuple[float, float]:
    """The shares of episodes that go the better way, and the other one."""
    finite = dataclasses.replace(problem.model, horizon=problem.limit, discount=1.0)
    last = finite.simulate(policy, _EPISODES, seed).states[:, -1]
    better, other = problem.ways(last)
    return better.double().mean().item(), other.double().mean().item()


def summary(found: list[tuple[float, float]], seconds: list[float]) -> str:
    """A row of the table."""
    settled, n = sum(better > 0.5 for better, _ in found), len(found)
    low, high = stats.binomtest(settled, n).proportion_ci(0.95)
    better, other = (statistics.fmean(each) for each in zip(*found, strict=True))
    return (
        f"{settled:2} of {n:2}  {settled / n:.2f} [{low:.2f}, {high:.2f}]"
        f"  {better:6.2f} {other:6.2f} {statistics.fmean(seconds):8.0f}"
    )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--problem", choices=PROBLEMS)
    parser.add_argument("--only", choices=LEARNERS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in [given.problem] if given.problem else PROBLEMS:
        problem = PROBLEMS[name]()
        print(f"{name}, {given.steps} transitions")
        print("                   runs that settle for the better way    better  other  seconds")
        for learner in [given.only] if given.only else LEARNERS:
            found, seconds = [], []
            for seed in range(given.seeds):
                start = time.process_time()
                learnt = LEARNERS[learner](problem, given.steps, seed)
                seconds.append(time.process_time() - start)
                found.append(shares(problem, learnt.policy, seed))
            print(f"{learner:18} {summary(found, seconds)}", flush=True)
            print("    better way:", *(f"{better:.2f}" for better, _ in found), flush=True)


if __name__ == "__main__":
    main()
