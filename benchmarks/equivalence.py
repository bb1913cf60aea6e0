"""Policy gradients and soft Q-learning: the experiments of Schulman, Chen and Abbeel (2017).

Run ``python -m benchmarks.equivalence`` from the root of the repository, with ``--only CartPole``
for one environment and ``--figure curves.png`` for learning curves. LunarLander-v3 needs ``pip
install "gymnasium[box2d]"``, the games ``pip install minatar``. The sections are those of the
paper, with networks of two layers of 64 tanh units:

* 6.1: an actor-critic with the naive entropy bonus and with the proper one;
* 6.2: Q-learning with a replay memory, by the maximum (DQN), by soft values relative to the uniform
  prior (KL) or with an entropy bonus, and by segments of five steps;
* 6.3: an actor-critic against soft Q-learning online, without a memory, a copy that lags behind or
  exploration. Both have values and policy on shared hidden layers and take a step after each
  transition of all copies. The gradient of the values has the weight c = 1 beside that of the
  policy, or c = 1/α, which the soft Q loss gives by itself.

The return is that of the episodes that end in the last fifth of the run (or of the last ones before
if none does), by the policy that acts, with the 95% interval of its mean over seeds, by Student's
t; "all of the run" is the mean of the learning curve. The difference is that of the last fifth from
the first row of the section, in pairs of seeds.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import statistics
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

import cai
from benchmarks.shared_layers import shared_actor_critic
from cai import inference, models

_HIDDEN = (64, 64)
_COPIES = 16
_DISCOUNT = 0.99
_COLOURS = "#0072b2", "#d55e00", "#009e73", "#cc79a7"  # Okabe and Ito's
_LINES = "-", "--", "-.", ":"

History: TypeAlias = dict[str, Tensor]
Run: TypeAlias = Callable[[models.Environment, int, int], History]
"""(environment, transitions, seed) -> the history of a run."""


@dataclass(frozen=True)
class Task:
    """An environment, at what temperature, and how long it takes.

    Attributes:
        name: the id of Gymnasium.
        temperature: α, in units of its rewards.
        steps: transitions of a run.
    """

    name: str
    temperature: float
    steps: int

    def make(self) -> models.Environment:
        """The environment."""
        if self.name.startswith("MinAtar/"):
            try:
                importlib.import_module("minatar.gym").register_envs()
            except ImportError:
                raise SystemExit("install minatar first: pip install minatar") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Box2D, when it is imported
            return models.environment(self.name, temperature=self.temperature, discount=_DISCOUNT)


TASKS = (
    Task("CartPole-v1", 0.01, 50_000),
    Task("Acrobot-v1", 0.01, 50_000),
    Task("LunarLander-v3", 0.1, 100_000),
    Task("MinAtar/Breakout-v1", 0.01, 100_000),
    Task("MinAtar/Asterix-v1", 0.01, 100_000),
)


def actor_critic(environment: models.Environment, steps: int, seed: int, **how: Any) -> History:
    """``policy_gradient`` after every sixteen steps of each copy."""
    torch.manual_seed(seed)
    policy = cai.NeuralPolicy(environment, _HIDDEN, stationary=True)  # type: ignore[arg-type]
    return inference.policy_gradient(
        environment,
        policy,
        steps=steps,
        num_envs=_COPIES,
        length=16,
        hidden=_HIDDEN,
        learning_rate=3e-3,
        seed=seed,
        progress=False,
        **how,
    ).history


def q_learning(environment: models.Environment, steps: int, seed: int, **how: Any) -> History:
    """``soft_q`` with a replay memory, and a step of Adam for every sixteen transitions."""
    settings = {"exploration": 0.05, "batch": 64, "updates": 1, "lag": 0.02} | how
    return inference.soft_q(
        environment,
        steps=steps,
        num_envs=_COPIES,
        hidden=_HIDDEN,
        learning_rate=1e-3,
        seed=seed,
        progress=False,
        **settings,
    ).history


def online(
    environment: models.Environment, steps: int, seed: int, *, actor: bool, plain: bool
) -> History:
    """A step of Adam after each transition of all copies, by one loss or the other."""
    weight = 1 / environment.temperature if plain else 1.0
    how: dict[str, Any] = {"steps": steps, "seed": seed, "num_envs": _COPIES, "length": 1}
    how |= {"hidden": _HIDDEN, "learning_rate": 3e-3, "value_weight": weight}
    if actor:
        return shared_actor_critic(environment, **how)
    how |= {"replay": 0, "lag": None, "exploration": 0.0, "progress": False}
    return inference.soft_q(environment, **how).history


_SECTIONS: dict[str, dict[str, Run]] = {
    "6.1": {
        "naive entropy": functools.partial(actor_critic, entropy="naive"),
        "proper entropy": functools.partial(actor_critic, entropy="proper"),
    },
    "6.2": {
        "hard (DQN)": functools.partial(q_learning, rule="hard"),
        "soft, KL": q_learning,
        "soft, bonus": functools.partial(q_learning, regulariser="entropy"),
        "soft, KL, five steps": functools.partial(q_learning, length=5),
    },
    "6.3": {
        "actor-critic, c = 1": functools.partial(online, actor=True, plain=False),
        "soft Q, c = 1": functools.partial(online, actor=False, plain=False),
        "actor-critic, c = 1/α": functools.partial(online, actor=True, plain=True),
        "soft Q, c = 1/α": functools.partial(online, actor=False, plain=True),
    },
}


def last_part(history: History) -> float:
    """The mean return of the episodes that ended in the last fifth of a run, else of the last."""
    known = ~history["returns"].isnan()
    steps, returns = history["steps"][known], history["returns"][known]
    late = steps > 0.8 * history["steps"][-1]
    return float(returns[late].mean() if late.any() else returns[-1])


def interval(x: list[float]) -> float:
    """Half of the 95% interval of the mean, by Student's t; NaN for one number."""
    if len(x) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(x) - 1)) * statistics.stdev(x) / len(x) ** 0.5


def lines(rows: dict[str, list[History]]) -> Iterator[str]:
    """The rows of a table."""
    first = [last_part(history) for history in next(iter(rows.values()))]
    for name, histories in rows.items():
        last = [last_part(history) for history in histories]
        whole = [float(history["returns"].nanmean()) for history in histories]
        apart = [a - b for a, b in zip(last, first, strict=True)]
        cells = [f"{statistics.fmean(x):8.2f} ± {interval(x):6.2f}" for x in (last, whole, apart)]
        yield f"{name:24} " + "   ".join(cells if last != first else cells[:2])


def drawn(found: dict[str, dict[str, dict[str, list[History]]]]) -> Figure:
    """Learning curves: a row of panels for each section, a column for each environment."""
    sections = list(next(iter(found.values())))
    size = (4.2 * len(found), 3.2 * len(sections))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(sections), len(found), squeeze=False)
    for column, (task, by_section) in enumerate(found.items()):
        for row, section in enumerate(sections):
            axes = panels[row][column]
            for i, (name, histories) in enumerate(by_section[section].items()):
                x, mean, half = _curve(histories)
                axes.plot(x, mean, color=_COLOURS[i], linestyle=_LINES[i], label=name)
                axes.fill_between(
                    x, mean - half, mean + half, color=_COLOURS[i], alpha=0.2, linewidth=0
                )
            axes.set(title=f"{task}, {section}", xlabel="transitions", ylabel="return")
            axes.legend(frameon=False, fontsize=7)
    seeds = len(next(iter(next(iter(found.values()))[sections[0]].values())))
    text = (
        f"Mean over {seeds} seeds of the returns of episodes that ended in each twentieth of the "
    )
    text += "run, with 95% intervals."
    figure.supxlabel(textwrap.fill(text, int(18 * figure.get_figwidth())), fontsize=8)
    return figure


def _curve(histories: list[History]) -> tuple[Tensor, Tensor, Tensor]:
    """Transitions, the mean return over seeds and half of its interval, in twenty parts."""
    length = min(len(history["steps"]) for history in histories)
    parts = torch.arange(length).chunk(20)
    x = torch.stack([histories[0]["steps"][part].mean() for part in parts])
    means = [[history["returns"][part].nanmean() for history in histories] for part in parts]
    rows = torch.tensor(means)
    known = ~rows.isnan().all(1)  # else no episode ended in that part
    half = [interval([y for y in row if y == y]) for row in rows[known].tolist()]
    return x[known], rows[known].nanmean(1), torch.tensor(half)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="transitions of a run; by the environment if not")
    parser.add_argument("--only", default="", help="only environments whose name contains this")
    parser.add_argument("--section", choices=[*_SECTIONS], help="only this one")
    parser.add_argument("--figure", help="a file for the learning curves")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, dict[str, list[History]]]] = {}
    for task in (task for task in TASKS if given.only in task.name):
        environment, steps = task.make(), given.steps or task.steps
        print(f"{task.name}, {steps} transitions, {given.seeds} seeds, α = {task.temperature:g}")
        found[task.name] = {}
        for section in [given.section] if given.section else _SECTIONS:
            start, rows = time.process_time(), {}
            for name, run in _SECTIONS[section].items():
                rows[name] = [run(environment, steps, seed) for seed in range(given.seeds)]
            found[task.name][section] = rows
            seconds = time.process_time() - start
            columns = "  last fifth          all of the run       difference"
            print(f"{f'section {section}, {seconds:.0f} s':24} {columns}")
            print("\n".join(lines(rows)), flush=True)
    if given.figure and found:
        drawn(found).savefig(given.figure, dpi=150)


if __name__ == "__main__":
    main()
