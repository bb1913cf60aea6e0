"""The options of the command line and their help texts."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from typing import Any

from cai import installation
from cai.cli.failure import program

_EXAMPLES = """\
examples:
  cai compare FrozenLake-v1 --horizon 60 --temperature 0.01
  cai compare FrozenLake-v1 --option map_name=8x8 --option is_slippery=False
  cai compare my_dynamics.py:model --out out/mine
  cai compare ledge --json
  cai draw gridworld --option wind=0.2 --steps 2
  cai models
"""
_MOST = 10**9  # more steps than anyone will wait for


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; its result names the chosen one in ``command``."""
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Control as inference: one model, every inference on it, side by side.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {installation.version()}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="compare | draw | models"
    )
    comparison = commands.add_parser("compare", help="compare methods side by side")
    _add_model_arguments(comparison)
    comparison.add_argument(
        "--seed", type=_seed, default=0, help="random seed of the training (default 0)"
    )
    comparison.add_argument(
        "--steps", type=_count, default=2000, help="maximum number of training steps (default 2000)"
    )
    comparison.add_argument("--json", action="store_true", help="print JSON instead of a table")
    drawing = commands.add_parser("draw", help="draw the graphical model")
    _add_model_arguments(drawing)
    drawing.add_argument("--steps", type=_count, help="how many steps to unroll (default: up to 3)")
    commands.add_parser("models", help="list the available models")
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        help="a built-in model, a Gymnasium environment with a published table, or FILE.py:NAME",
    )
    parser.add_argument("--horizon", type=_count, help="T, the number of steps")
    parser.add_argument("--temperature", type=float, help="alpha, reward units per nat")
    parser.add_argument("--discount", type=float, help="gamma, the survival probability per step")
    parser.add_argument(
        "--option",
        type=_option,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the built-in model or of the environment; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="output folder (default: out)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes")


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


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all it can raise
        pass
    try:
        return key, float(value)  # inf and -inf, which are not literals
    except ValueError:
        return key, value
