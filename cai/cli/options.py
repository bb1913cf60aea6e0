"""The options of the command line and their help texts.

By argparse, which takes no time to load and needs nothing to be installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cai import installation
from cai.cli.failure import program
from cai.cli.learners import LEARNERS, METHODS, described, key_and_value, methods
from cai.cli.roads import routes_options
from cai.cli.shared_options import (
    STATUS,
    Parser,
    add_estimation,
    add_json,
    add_output,
    add_quiet,
    names,
)

_EXAMPLES = """\
examples:
  cai compare FrozenLake-v1 --horizon 60 --temperature 0.01
  cai compare FrozenLake-v1 -T 60 -a 0.01 -O map_name=8x8 -O is_slippery=False
  cai compare my_dynamics.py:model --out out/mine
  cai compare ledge --json
  cai draw gridworld --option wind=0.2 --steps 2
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
INFINITE = "infinite"  # a horizon
TRANSITIONS = 50_000  # steps of a training times the horizon, by default, if it is sampled
_MOST = 10**9  # more steps than anyone will wait for


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
        metavar="compare | draw | models | train | evaluate | plot | irl | routes",
    )
    comparison = commands.add_parser("compare", help="compare methods side by side")
    _add_model_arguments(comparison)
    _add_seed(comparison, "training")
    comparison.add_argument(
        "-n",
        "--steps",
        type=_count,
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
        type=_count,
        default=100_000,
        help="of the learner: how many (default 100000)",
    )
    comparison.add_argument(
        "-w", "--wide", action="store_true", help="print all columns, also beyond 80 characters"
    )
    add_json(comparison, "a table")
    drawing = commands.add_parser("draw", help="draw the graphical model")
    _add_model_arguments(drawing)
    drawing.add_argument(
        "-n", "--steps", type=_count, help="how many steps to unroll (default: up to 3)"
    )
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
    _add_model_arguments(training, _horizon)
    training.set_defaults(out=None)
    training.add_argument(
        "-n", "--steps", type=_count, default=200_000, help="transitions (default 200000)"
    )
    _add_seed(training, "training")
    training.add_argument("--seeds", type=_count, default=1, help="number of runs, one per seed")
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
    evaluation.add_argument("--episodes", type=_count, default=100, help="how many (default 100)")
    _add_seed(evaluation, "the episodes")
    add_json(evaluation, "text")
    plotting = commands.add_parser("plot", help="draw the learning curve of a run")
    plotting.add_argument("run", type=Path, help="the folder of a run, or of one for each seed")
    plotting.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="for the figure (default: there)"
    )
    add_quiet(plotting)


def _add_irl(commands: Any) -> None:
    """The command ``irl``."""
    irl = commands.add_parser(
        "irl",
        help="find the reward that demonstrations were paid",
        description="Fit the weights of a reward to demonstrations of a model.",
        epilog=methods(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model_arguments(irl, _horizon)
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


def _horizon(text: str) -> int | str:
    return text if text == INFINITE else _count(text)


def _add_model_arguments(parser: argparse.ArgumentParser, horizon: Any = None) -> None:
    parser.add_argument(
        "model",
        help="a built-in model, a Gymnasium environment with a published table, or FILE.py:NAME",
    )
    more = "" if horizon is None else f', or "{INFINITE}"'
    steps = f"T, the number of steps{more}"
    parser.add_argument("-T", "--horizon", type=horizon or _count, help=steps)
    parser.add_argument("-a", "--temperature", type=float, help="alpha, reward units per nat")
    parser.add_argument(
        "-g", "--discount", type=float, help="gamma, the survival probability per step"
    )
    parser.add_argument(
        "-O",
        "--option",
        type=key_and_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the built-in model or of the environment; may be repeated",
    )
    add_output(parser)


def _add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument(
        "-s", "--seed", type=_seed, default=0, help=f"random seed for {of} (default 0)"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of at least 1 and at most {_MOST}, got {text!r}"
        )
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number in 0 … 2^63 - 1, got {text!r}")
    return int(text)
