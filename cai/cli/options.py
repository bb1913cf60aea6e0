"""The options of the command line and their help texts.

By argparse, which takes no time to load and needs nothing to be installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cai import installation
from cai.cli.failure import program
from cai.cli.learners import LEARNERS, METHODS, described, methods
from cai.cli.roads import routes_options
from cai.cli.shared_options import (
    STATUS,
    Parser,
    add_estimation,
    add_json,
    add_model,
    add_quiet,
    add_seed,
    count,
    horizon,
    key_and_value,
    names,
)
from cai.cli.verbs import (
    dial_command,
    fit_command,
    info_command,
    new_command,
    plan_command,
    solve_command,
    sweep_command,
)

_EXAMPLES = """\
examples:
  cai compare FrozenLake-v1 --horizon 60 --temperature 0.01
  cai compare FrozenLake-v1 -T 60 -a 0.01 -O map_name=8x8 -O is_slippery=False
  cai compare my_dynamics.py:model --out out/mine
  cai compare ledge --json
  cai new my_model.py
  cai info my_model.py:model
  cai solve gridworld --optimism 1
  cai dial ledge
  cai plan gridworld --option slip=0
  cai fit pendulum --checkpoint out/pendulum.pt
  cai sweep gridworld --grid temperature=0.1,0.5,1 --grid slip=0:0.3:0.1 --seeds 5 --jobs 2
  cai draw gridworld --option wind=0.2 --steps 2
  cai explore FrozenLake-v1 --horizon 60 --temperature 0.01 --open
  cai models
  cai train soft-q FrozenLake-v1 --steps 200000 --seed 1 --out runs/q1
  cai evaluate runs/q1 --episodes 20
  cai plot runs/q1
  cai irl gridworld demos.csv --option slip=0.2 --features step,pit,goal
  cai routes fit drive.graphml trips.csv --features minutes,left,u_turn --cluster driver
  cai routes drivers drive.graphml trips.csv --features minutes,left,u_turn --group driver
  cai routes predict out drive.graphml --from 101,102 --to 203,204
  cai routes destination out drive.graphml trips.csv --trip 7 --share 0.5
"""
_VERBS = (  # each in a file of its own
    info_command,
    solve_command,
    dial_command,
    plan_command,
    fit_command,
    sweep_command,
    new_command,
)
TRANSITIONS = 50_000  # steps of a training times the horizon, by default, if it is sampled


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; its result names the chosen one in ``command``."""
    parser = Parser(
        prog=program(),
        description="Control as inference: one model, every inference on it, side by side.",
        epilog=f"{described()}\n\n{_EXAMPLES}\n{STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"%(prog)s {installation.version()}"
    parser.add_argument("-V", "--version", action="version", version=version)
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="COMMAND",
    )
    comparison = commands.add_parser("compare", help="compare methods side by side")
    add_model(comparison)
    add_seed(comparison, "training")
    comparison.add_argument(
        "-n",
        "--steps",
        type=count,
        help="maximum number of training steps (default 1000; where trajectories are sampled, "
        f"{TRANSITIONS} divided by the horizon, at most 2000)",
    )
    comparison.add_argument(
        "--learner",
        choices=LEARNERS,
        metavar="LEARNER",
        help="a learner from transitions as another row, see cai train --help",
    )
    comparison.add_argument(
        "--transitions",
        type=count,
        default=100_000,
        help="of the learner: how many (default 100000)",
    )
    comparison.add_argument(
        "-w", "--wide", action="store_true", help="print all columns, also beyond 80 characters"
    )
    add_json(comparison, "a table")
    for verb in _VERBS:
        verb.add_to(commands)
    drawing = commands.add_parser("draw", help="draw the graphical model")
    add_model(drawing)
    drawing.add_argument(
        "-n", "--steps", type=count, help="how many steps to unroll (default: up to 3)"
    )
    _add_explore(commands)
    commands.add_parser("models", help="list the available models")
    _add_learners(commands)
    _add_irl(commands)
    routes_options.add_routes(commands)
    return parser


def _add_learners(commands: Any) -> None:
    """The commands ``train``, ``evaluate`` and ``plot``."""
    training = commands.add_parser(
        "train",
        help="train a learner from transitions",
        description="Train a learner from transitions of a model or a Gymnasium environment.",
        epilog=described(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    training.add_argument("learner", choices=LEARNERS, metavar="LEARNER", help="see below")
    add_model(training, horizon)
    training.set_defaults(out=None)
    training.add_argument(
        "-n", "--steps", type=count, default=200_000, help="transitions (default 200000)"
    )
    add_seed(training, "training")
    training.add_argument("--seeds", type=count, default=1, help="number of runs, one per seed")
    training.add_argument("--resume", action="store_true", help="go on with the run in --out")
    training.add_argument(
        "--set",
        type=key_and_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the learner, such as num_envs=16; may be repeated",
    )
    training.add_argument(
        "--tensorboard", action="store_true", help="write event files into --out as well"
    )
    add_json(training, "text")
    evaluation = commands.add_parser("evaluate", help="simulate the policy of a run")
    evaluation.add_argument("run", type=Path, help="the folder of a run, or of one for each seed")
    evaluation.add_argument("--episodes", type=count, default=100, help="how many (default 100)")
    add_seed(evaluation, "the episodes")
    add_json(evaluation, "text")
    plotting = commands.add_parser("plot", help="draw the learning curve of a run")
    plotting.add_argument("run", type=Path, help="the folder of a run, or of one for each seed")
    plotting.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="for the figure (default: there)"
    )
    add_quiet(plotting)


def _add_explore(commands: Any) -> None:
    """The command ``explore``."""
    exploring = commands.add_parser(
        "explore", help="write a page in which optimism is a slider, for a browser"
    )
    add_model(exploring, out=False, otherwise="maps you paint")
    exploring.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("out/explore.html"),
        metavar="FILE",
        help="the page (default: out/explore.html)",
    )
    exploring.add_argument("--open", action="store_true", help="open it in the browser as well")


def _add_irl(commands: Any) -> None:
    """The command ``irl``."""
    irl = commands.add_parser(
        "irl",
        help="infer the reward behind demonstrations (inverse RL)",
        description="Fit the weights of a reward to demonstrations of a model.",
        epilog=methods(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(irl, horizon)
    irl.add_argument(
        "demonstrations",
        type=Path,
        metavar="DEMOS.csv",
        help="columns trajectory, state, action; no action in the last row of a trajectory",
    )
    irl.add_argument(
        "--features",
        type=names,
        metavar="NAME,NAME",
        help="of the model's map or of its states; all that there are if not given",
    )
    irl.add_argument(
        "--reward", metavar="FILE.py:NAME", help="a cai.LinearReward, instead of --features"
    )
    irl.add_argument(
        "--method", choices=METHODS, default="likelihood", help="see below (default likelihood)"
    )
    irl.add_argument(
        "--set",
        type=key_and_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the method, such as slack=10; may be repeated",
    )
    irl.add_argument(
        "--likelihood",
        choices=("actions", "paths", "matching"),
        default="actions",
        help="what is maximised (default actions)",
    )
    irl.add_argument(
        "--optimism", type=float, default=0.0, help="eta of the demonstrator (default 0)"
    )
    irl.add_argument("--rule", default="soft", help="how actions are chosen (default soft)")
    irl.add_argument(
        "--ends",
        default="horizon",
        help="how demonstrations end: horizon, own, absorbed, terminated, cut (default horizon)",
    )
    add_estimation(irl)
