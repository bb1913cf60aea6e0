"""Pretraining that pays for speed in any direction (after Haarnoja et al. 2017, section 5.3).

Run ``python -m benchmarks.pretraining`` from the root of the repository. A point mass with drag on
an open plane (``benchmarks.point_mass``) takes the place of the paper's robot; it is paid for its
speed, 1 at most, with a temperature of 0.3; at 0.1 the policies settle for one to three directions.
The first table shows the policies of this pretraining by their mean speed, and by how many of eight
directions their episodes end in: the exponential of the entropy of their shares.

Then there are walls, only arrival at an exit is paid, with 10, and the temperature is 0.05:

* ``wide``: a hall of width 1.5, closed on the left, with the exit 2 to the right;
* ``narrow``: the same, of width 0.4;
* ``U``: 1.4 to the right, around a wall, and back, with the exit above the start.

Each learner starts from nothing, from its pretrained policy with new critics, or from the policy
and its critics (``start=``). Until something is paid, the best soft policy is the action prior, and
what was learnt is lost; so in the last case the pretrained policy is also the action prior of the
task (``cai.with_prior``). That takes a policy with a density, here a mixture of four Gaussians. The
curves are arrivals per thousand transitions of the training, in fifths of the run (an episode lasts
60 steps at most, and about 20 on the way to the exit of a hall); ``trained`` is the share of
episodes of the trained policy that arrive, with the 95% interval of its mean over seeds;
``seconds`` is processor time.

``--figure FILE`` draws instead the traces of policies that were trained on the open plane at four
temperatures, as in their figure 7.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import torch
from scipy import stats
from torch import Tensor, nn

import cai
from benchmarks.point_mass import point_mass
from cai import inference
from cai.stepping.model_source import ModelSource
from cai.stepping.source import Transition

_LIMIT, _PAID = 60, 10.0
_PRETRAINING, _TEMPERATURE = 0.3, 0.05
_EPISODES = 200
_HIDDEN = (64, 64)
_FIFTHS = 5

mass = functools.partial(
    point_mass,
    start=(0.0, 0.0),
    drag=0.2,
    force=0.2,
    dt=0.125,
    discount=0.97,
    temperature=_TEMPERATURE,
    shortened=True,
)


def speed(s: Tensor) -> Tensor:
    """1 at most."""
    return s[..., 2:].norm(dim=-1)


def plane() -> cai.TrajectoryModel:
    """Paid for speed in any direction."""
    return mass(lambda s, s_next: speed(s_next))


def to_exit(over: Callable[[Tensor], Tensor], **layout: Any) -> cai.TrajectoryModel:
    """Paid for arrival, where the episode ends."""
    return mass(lambda s, s_next: torch.where(over(s_next), _PAID, 0.0), over=over, **layout)


def hall(width: float) -> cai.TrajectoryModel:
    """A hall to the right."""
    room = ((-0.25, -width / 2), (math.inf, width / 2))
    return to_exit(lambda s: s[..., 0] >= 2, room=room)


def bend() -> cai.TrajectoryModel:
    """A U that lies on its side."""
    return to_exit(
        lambda s: (s[..., 0] <= 0) & (s[..., 1] >= 0.375),
        room=((-0.25, -0.25), (1.375, 0.875)),
        walls=[((-1, 0.25), (0.875, 0.375))],
    )


TASKS: dict[str, Callable[[], cai.TrajectoryModel]] = {
    "wide": functools.partial(hall, 1.5),
    "narrow": functools.partial(hall, 0.4),
    "U": bend,
}


class Counted(ModelSource):
    """Copies of a model that count how many episodes are over at an exit."""

    def __init__(self, model: cai.TrajectoryModel, seed: int) -> None:
        torch.manual_seed(seed)  # the first states are drawn here
        super().__init__(model, 16, time_limit=_LIMIT)
        self.arrived: list[int] = []

    def advance(self, a: Tensor) -> Transition:
        """Takes one action in each copy."""
        taken = super().advance(a)
        self.arrived.append(int(taken.ended.sum()))
        return taken

    def curve(self) -> list[float]:
        """Arrivals per thousand transitions, in fifths of the run."""
        parts = torch.tensor(self.arrived, dtype=torch.float64).tensor_split(_FIFTHS)
        return [float(part.mean()) * 1000 / self.num_envs for part in parts]


def train(
    learner: str,
    source: ModelSource,
    steps: int,
    seed: int,
    policy: Any = None,
    start: inference.Learned | None = None,
) -> inference.Learned:
    """One run, from a policy, from an earlier result, or from nothing."""
    how: dict[str, Any] = {
        "steps": steps,
        "hidden": _HIDDEN,
        "batch": 64,
        "updates": 2,
        "warm_up": 100,
        "lag": 0.02,
        "learning_rate": 1e-3,
        "start": start,
        "seed": seed,
        "progress": False,
    }
    if learner == "DDPG":
        how |= {"rule": "hard", "gradient": "plain", "exploration": 0.2}
        return inference.stein_soft_q(source, policy, **how)
    if learner == "stein_soft_q":
        return inference.stein_soft_q(source, policy, **how)
    if policy is None and start is None:
        torch.manual_seed(seed)
        head = cai.MixtureHead(4)
        policy = cai.NeuralPolicy(source.model, _HIDDEN, head=head, stationary=True)
    return inference.sac(source, policy, **how)


LEARNERS = ("stein_soft_q", "sac", "DDPG")


@functools.cache
def pretrained(learner: str, steps: int, seed: int) -> inference.Learned:
    """What was learnt on the open plane."""
    model = dataclasses.replace(plane(), temperature=_PRETRAINING)
    return train(learner, Counted(model, seed), steps, seed)


@dataclass(frozen=True)
class Start:
    """What a run in a task starts from: nothing, a policy, or a policy that is the prior as well.

    Attributes:
        learner: the name of the learner.
        takes: "nothing", "policy", "critics" for both, or "prior" for a policy that is the action
            prior, too.
    """

    learner: str
    takes: str

    def __str__(self) -> str:
        return f"{self.learner}, {self.takes}"

    def run(
        self, task: str, pretraining: int, steps: int, seed: int
    ) -> tuple[inference.Learned, list[float]]:
        """One run in a task, and its curve."""
        model = TASKS[task]()
        if self.takes == "nothing":
            source = Counted(model, seed)
            return train(self.learner, source, steps, seed), source.curve()
        before = pretrained(self.learner, pretraining, seed)
        if self.takes == "prior":
            model = cai.with_prior(model, before.policy)
        source = Counted(model, seed)
        policy, start = (None, before) if self.takes == "critics" else (before.policy, None)
        return train(self.learner, source, steps, seed, policy, start), source.curve()


STARTS = [
    *(Start(learner, takes) for learner in LEARNERS for takes in ("nothing", "policy", "critics")),
    Start("sac", "prior"),
]


def episodes(model: cai.TrajectoryModel, policy: nn.Module, count: int, seed: int) -> Tensor:
    """The states of episodes, (count, T + 1, 4)."""
    finite = dataclasses.replace(model, horizon=_LIMIT, discount=1.0)
    return finite.simulate(policy, count, seed).states


def directions(states: Tensor) -> float:
    """The exponential of the entropy of the directions of episodes, in eighths of a turn."""
    last = states[:, -1, :2]
    eighth = (torch.atan2(last[:, 1], last[:, 0]) / (math.pi / 4)).round().long() % 8
    shares = eighth.bincount(minlength=8).double() / len(eighth)
    return float(torch.special.entr(shares).sum().exp())


def interval(found: list[float]) -> str:
    """The mean with its 95% interval."""
    if len(found) < 2:
        return f"{found[0]:.2f}"
    half = stats.t.ppf(0.975, len(found) - 1) * statistics.stdev(found) / len(found) ** 0.5
    return f"{statistics.fmean(found):.2f} ± {half:.2f}"


def show_pretraining(steps: int, seeds: int) -> None:
    """Prints speeds and directions."""
    print(f"open plane, {steps} transitions, {seeds} seeds")
    print("                       speed        directions of 8")
    for learner in LEARNERS:
        runs = [
            episodes(plane(), pretrained(learner, steps, seed).policy, _EPISODES, seed)
            for seed in range(seeds)
        ]
        fast = [float(speed(states[:, _LIMIT // 2 :]).mean()) for states in runs]
        many = [directions(states) for states in runs]
        print(f"{learner:20} {interval(fast):>14} {interval(many):>14}", flush=True)


def show(task: str, start: Start, pretraining: int, steps: int, seeds: int) -> None:
    """Prints a row."""
    curves, trained, seconds = [], [], []
    for seed in range(seeds):
        if start.takes != "nothing":
            pretrained(start.learner, pretraining, seed)
        begin = time.process_time()
        learnt, arrivals = start.run(task, pretraining, steps, seed)
        seconds.append(time.process_time() - begin)
        curves.append(arrivals)
        model = TASKS[task]()
        assert model.terminal is not None
        last = episodes(model, learnt.policy, _EPISODES, seed)[:, -1]
        trained.append(float(model.terminal(last).double().mean()))
    row = " ".join(f"{statistics.fmean(part):5.1f}" for part in zip(*curves, strict=True))
    print(
        f"{task:7} {start!s:26} {row}  {interval(trained):>14} {statistics.fmean(seconds):6.0f}",
        flush=True,
    )


def figure(file: str, steps: int) -> None:
    """Traces of policies at four temperatures."""
    drawn, axes = plt.subplots(1, 4, figsize=(12, 3.4), sharex=True, sharey=True)
    for axis, alpha in zip(axes, (10.0, 1.0, 0.1, 0.01), strict=True):
        model = dataclasses.replace(plane(), temperature=alpha)
        states = episodes(
            model, train("stein_soft_q", Counted(model, 0), steps, seed=0).policy, 40, seed=0
        )
        axis.plot(states[..., 0].T, states[..., 1].T, color="black", alpha=0.5, linewidth=0.8)
        count, fast = directions(states), float(speed(states[:, _LIMIT // 2 :]).mean())
        axis.set_title(f"α = {alpha:g}")
        axis.set_xlabel(f"speed {fast:.2f}, {count:.1f} of 8 directions")
        axis.set_aspect("equal")
    drawn.suptitle("40 episodes of a mass that is paid for speed in any direction")
    drawn.tight_layout()
    drawn.savefig(file, dpi=120)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pretraining", type=int, default=8_000)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--takes", choices=("nothing", "policy", "critics", "prior"))
    parser.add_argument("--figure")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.figure:
        return figure(given.figure, given.pretraining)
    show_pretraining(given.pretraining, given.seeds)
    print(f"\n{given.steps} transitions, {given.seeds} seeds; arrivals per thousand, by fifth")
    print(f"{'':49}{'trained':>29} seconds")
    for task in [given.task] if given.task else TASKS:
        for start in STARTS:
            if given.takes in (None, start.takes):
                show(task, start, given.pretraining, given.steps, given.seeds)
    return None


if __name__ == "__main__":
    main()
