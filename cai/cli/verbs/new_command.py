"""The command ``new``: a file with a model to start from."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from cai.cli import shared_options, terminal
from cai.cli.failure import Mistake, program

_DISCRETE = '''\
"""A model to start from: a corridor with a wind, a goal at one end and a pit at the other.

Change it, and see what comes of it:

    cai info {file}
    cai compare {file}
    cai sweep {file}:make --grid wind=0:0.4:0.1
"""

import pyro
import pyro.distributions as dist
import torch

import cai

WIDTH = 7  # cells 0 … 6: the pit is 0, the goal is 6
PIT, GOAL = 0, WIDTH - 1


def make(wind=0.2, temperature=0.5):
    """A corridor. What is an argument here can be set by --option and by --grid."""

    def dynamics(s, a):
        """p(s' | s, a). It must broadcast: s and a are tensors of the same shape, any shape."""
        gust = pyro.sample("gust", dist.Bernoulli(wind))  # latent sites of your own are welcome
        step = torch.where(gust.bool(), -1, a - 1)  # actions 0, 1, 2: left, stay, right
        over = (s == PIT) | (s == GOAL)  # torch.where instead of if
        return dist.Delta(torch.where(over, s, s + step))

    def reward(s, a):
        """r(s, a), in reward units: a step costs 0.1, and so much is paid at either end."""
        inside = torch.where(a == 1, 0.0, -0.1)
        return torch.where(s == GOAL, 1.0, torch.where(s == PIT, -1.0, inside))

    start = torch.zeros(WIDTH)
    start[WIDTH // 2] = 1.0
    return cai.TrajectoryModel(
        initial=dist.Categorical(start),  # p(s_0): its support says how many states there are
        dynamics=dynamics,  # or dist.Categorical(...), dist.Normal(...) instead of dist.Delta
        reward=reward,
        action_prior=dist.Categorical(torch.ones(3)),  # p(a | s): this, or a function of s
        horizon=10,  # T
        temperature=temperature,  # alpha: the smaller, the more rewards count beside the prior
        discount=1.0,  # gamma: the probability of surviving a step
        layout=cai.Layout(  # names and places, for tables and figures; leave it out if you like
            states=("pit", *(f"cell {{k}}" for k in range(1, GOAL)), "goal"),
            actions=("left", "stay", "right"),
            map=("P" + "." * (WIDTH - 2) + "G",),
            cells=tuple((0, k) for k in range(WIDTH)),
            moves=((0, -1), (0, 0), (0, 1)),
        ),
    )


model = make()
'''

_CONTINUOUS = '''\
"""A continuous model to start from: a puck on a track is pushed until it rests at the origin.

Change it, and see what comes of it:

    cai info {file}
    cai fit {file} --estimator pathwise
    cai sweep {file}:make --grid noise=0.01,0.1 --methods prior,fit

Or in Python:

    fitted = inference.fit(model, cai.NeuralPolicy(model), estimator="pathwise")
    trajectories = model.simulate(fitted.policy, samples=100, seed=0)
    figure = plot.trajectories(model, {{"fitted": fitted.policy}})
"""

import pyro.distributions as dist
import torch

import cai

DT = 0.1  # seconds in a step
PUSH = 3.0  # the largest force in either direction


def make(noise=0.01, temperature=0.1):
    """A puck on a track. What is an argument here can be set by --option and by --grid."""

    def dynamics(s, a):
        """p(s' | s, a), where s is (position, velocity) and a is (force,).

        The last axis holds these numbers, and every axis before it is the batch shape: with states
        of shape (batch, 2) come actions of shape (batch, 1). So index the last axis only.
        """
        position, velocity = s[..., 0], s[..., 1]
        moved = torch.stack([position + DT * velocity, velocity + DT * a[..., 0]], -1)
        return dist.Normal(moved, noise).to_event(1)  # to_event(1): the two numbers are one state

    def reward(s, a):
        """r(s, a), in reward units: one number for each state, of shape (batch,)."""
        return -s[..., 0].square() - 0.1 * s[..., 1].square()

    low, high = torch.tensor([-PUSH]), torch.tensor([PUSH])
    return cai.TrajectoryModel(
        initial=dist.Normal(torch.tensor([1.0, 0.0]), 0.1).to_event(1),  # p(s_0)
        dynamics=dynamics,
        reward=reward,
        action_prior=dist.Uniform(low, high).to_event(1),  # p(a | s): policies stay in this box
        horizon=30,  # T
        temperature=temperature,  # alpha: the smaller, the more rewards count beside the prior
        discount=1.0,  # gamma: the probability of surviving a step
    )


model = make()
'''


def add_to(commands: Any) -> None:
    """Adds the command's options."""
    new = commands.add_parser(
        "new",
        help="write a file with a model to start from",
        description="Write a commented model to start from; a file that exists is left alone.",
    )
    new.add_argument("file", type=Path, metavar="FILE.py", help="the file to write")
    new.add_argument(
        "--continuous",
        action="store_true",
        help="a model of continuous states and actions, instead of finitely many",
    )
    shared_options.add_quiet(new)


def run(options: argparse.Namespace) -> None:
    """Writes the file.

    Raises:
        Mistake: if it exists, or is no Python file in a folder that does.
    """
    file: Path = options.file
    if file.suffix != ".py":
        raise Mistake(f"{file}: expected a file whose name ends in .py, as my_model.py")
    if any(sign in str(file) for sign in "\\\"'\n"):
        raise Mistake(f"{file}: expected a name without quotes and backslashes; choose another one")
    if not file.absolute().parent.is_dir():
        raise Mistake(f"{file}: there is no folder {file.parent}; make it first")
    try:
        with file.open("x", encoding="utf-8") as new:
            text = _CONTINUOUS if options.continuous else _DISCRETE
            new.write(text.format(file=file.as_posix()))
    except FileExistsError:
        raise Mistake(f"{file}: it exists, and is left as it is; choose another name") from None
    except OSError as error:
        raise Mistake(f"{file}: {error.strerror}; choose another folder") from None
    model = shlex.quote(f"{file}:model")
    if options.continuous:
        line, does = f"fit {model} --estimator pathwise", "trains a policy for it"
    else:
        line, does = f"compare {model}", "compares methods on it"
    terminal.show(f"{program()} {line}")
    if not options.quiet:
        terminal.note(f"wrote {file}; the line above {does}")
