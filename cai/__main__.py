"""The command line: ``cai compare``, ``cai draw`` and ``cai models``."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from cai import inference, models, plot
from cai.comparison import Comparison, compare
from cai.policy import NeuralPolicy, TabularPolicy
from cai.support import NotEnumerable
from cai.table import Table
from cai.tabulation import tabulate
from cai.timeless import ChangesWithTime
from cai.trajectory import TrajectoryModel

_EXAMPLES = """\
examples:
  cai compare FrozenLake-v1 --horizon 60 --temperature 0.01
  cai compare FrozenLake-v1 --option map_name=8x8 --option is_slippery=False
  cai compare my_dynamics.py:model --out out/mine
  cai compare ledge --json
  cai draw gridworld --option wind=0.2 --steps 2
  cai models
"""


_BUILT_IN = (
    "ledge",
    "lottery",
    "gridworld",
    "pendulum",
    "cartpole",
    "multigoal",
    "double_integrator",
)
_MOST = 10**9  # steps that anyone will wait for


class _Mistake(Exception):
    """Something about the arguments that the user can mend."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, 1 where the run failed, or 2 where the arguments are wrong."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except _Mistake as mistake:
        return _fail(mistake, 2)
    except (ValueError, OSError) as error:
        return _fail(error, 1)
    except (MemoryError, OverflowError, RuntimeError) as error:
        if "allocate" not in str(error) and not isinstance(error, MemoryError | OverflowError):
            raise  # a fault of this library, whose traceback is of use
        return _fail(f"the model is too large for this machine: {error}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 1)
    return 0


def _fail(message: object, status: int) -> int:
    print(f"cai: error: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cai",
        description="Control as inference: one model, every inference on it, side by side.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="compare | draw | models")
    comparison = commands.add_parser("compare", help="compare what the methods imagine and get")
    comparison.set_defaults(run=_compare)
    _add_model_arguments(comparison)
    comparison.add_argument("--seed", type=_seed, default=0, help="of the training (default 0)")
    comparison.add_argument(
        "--steps", type=_count, default=2000, help="of the training, at most (default 2000)"
    )
    comparison.add_argument("--json", action="store_true", help="print JSON instead of a table")
    drawing = commands.add_parser("draw", help="draw the graphical model")
    drawing.set_defaults(run=_draw)
    _add_model_arguments(drawing)
    drawing.add_argument("--steps", type=_count, help="how many steps to unroll (default: up to 3)")
    listing = commands.add_parser("models", help="list the models there are")
    listing.set_defaults(run=_list_models)
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        help="a built-in model, a Gymnasium environment with a published table, or FILE.py:NAME",
    )
    parser.add_argument("--horizon", type=_count, help="T, the number of steps")
    parser.add_argument("--temperature", type=float, help="alpha, reward units per nat")
    parser.add_argument("--discount", type=float, help="gamma, the chance of surviving a step")
    parser.add_argument(
        "--option",
        type=_option,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an argument of the built-in model or of the environment; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="for the files (default: out)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no notes")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of at least 1 and at most {_MOST}, got {text}"
        )
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number in 0 … 2^63 - 1, got {text}")
    return int(text)


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        pass
    try:
        return key, float(value)  # inf and -inf, which are no literals
    except ValueError:
        return key, value


def _compare(options: argparse.Namespace) -> None:
    # What a user's file prints must not mix with JSON.
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
        report = _run_comparison(options)
    print(report.to_json() if options.json else report)


def _run_comparison(options: argparse.Namespace) -> Comparison:
    _check_out(options.out)
    torch.manual_seed(options.seed)  # a network starts at random
    model = _load(options)
    if model.horizon is None:
        raise _Mistake("--horizon: the model's horizon is infinite; give a number of steps")
    table = _table(model, options)
    methods: dict[str, Any] = {}
    if table is None:
        policy: Any = NeuralPolicy(model)
        methods["prior"] = lambda t, s: model.prior(s, t)
    else:
        policy = TabularPolicy(model)
        methods["exact posterior"] = inference.posterior(table)
        methods["fixed dynamics"] = inference.soft_values(table)
    fitted = inference.fit(
        model if table is None else table,
        policy,
        steps=options.steps,
        seed=options.seed,
        progress=not options.quiet,
    )
    methods["SVI"] = fitted
    report = compare(model if table is None else table, methods)
    figures = {"comparison": plot.comparison(report)}
    bound = None
    if table is not None:
        figures |= {
            "policies": plot.policies(report),
            "occupancy": plot.occupancy(report),
            "optimism": plot.optimism(table),
        }
        bound = methods["fixed dynamics"].elbo
    figures["training"] = plot.losses(fitted, bound)
    texts = {"comparison.md": report.to_markdown(), "comparison.json": report.to_json() + "\n"}
    _write(options, figures, texts)
    return report


def _table(model: TrajectoryModel, options: argparse.Namespace) -> Table | None:
    """The table of a model; None, with a word about it, where only sampling is left."""
    try:
        return tabulate(model)
    except NotEnumerable as error:
        numbered = not model.initial.sample().dtype.is_floating_point
        if numbered and not isinstance(error, ChangesWithTime):
            raise  # numbered states that are not counted yet: the message says how
        if not options.quiet:
            print(f"no exact posterior: {error}", file=sys.stderr)
        return None


def _draw(options: argparse.Namespace) -> None:
    _check_out(options.out)
    model = _load(options)
    try:
        figure = plot.graphical_model(model, options.steps)
    except ValueError as error:
        raise _Mistake(error) from None
    _write(options, {"graphical_model": figure}, {})


def _list_models(options: argparse.Namespace) -> None:
    for name, constructor in _builtin().items():
        print(f"{name:19}{(constructor.__doc__ or '').splitlines()[0]}")
    print(f"{'FILE.py:NAME':19}A TrajectoryModel of your own, by its name in a Python file.")
    print("Gymnasium environments with a published table:")
    for name in models.published():
        print(f"  {name}")


def _builtin() -> dict[str, Callable[..., TrajectoryModel]]:
    """The models that need no arrays."""
    return {name: getattr(models, name) for name in _BUILT_IN}


def _load(options: argparse.Namespace) -> TrajectoryModel:
    """The model that the arguments name.

    Raises:
        _Mistake: where there is none.
    """
    changes = {
        name: getattr(options, name)
        for name in ("horizon", "temperature", "discount")
        if getattr(options, name) is not None
    }
    extra = dict(options.option)
    name = options.model
    try:
        if re.fullmatch(r".+\.py(:.*)?", name):
            file = re.fullmatch(r"(.+\.py)(?::(\w+))?", name)
            if file is None:
                raise _Mistake(f"{name}: expected FILE.py:NAME, with the name of a model in it")
            if extra:
                raise _Mistake("--option: a model from a file has no options; edit the file")
            return dataclasses.replace(_from_file(Path(file[1]), file[2] or "model"), **changes)
        constructor = _builtin().get(name)
        if constructor is None:
            return models.gym(name, **changes, **extra)
        unknown = sorted(extra.keys() - inspect.signature(constructor).parameters.keys())
        if unknown:
            known = ", ".join(inspect.signature(constructor).parameters)
            raise _Mistake(f"--option: {name} has no {', '.join(unknown)}; it has {known}")
        return constructor(**changes, **extra)
    except (ValueError, TypeError) as error:
        raise _Mistake(error) from None


def _from_file(file: Path, name: str) -> TrajectoryModel:
    if not file.is_file():
        raise _Mistake(f"{file}: there is no such file; give it as FILE.py:NAME")
    spec = importlib.util.spec_from_file_location(f"_model_in_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the types of their fields
    sys.path.insert(0, str(file.parent.resolve()))  # so that it can import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _Mistake(f"{_place(error, file)}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        found = [k for k, v in vars(module).items() if isinstance(v, TrajectoryModel)]
        advice = f"it has {', '.join(found)}" if found else "it holds no cai.TrajectoryModel"
        raise _Mistake(f"{file}: there is no {name!r} in it; {advice}")
    model = getattr(module, name)
    if not isinstance(model, TrajectoryModel):
        raise _Mistake(
            f"{file}: expected {name!r} to be a cai.TrajectoryModel, got {type(model).__name__}; "
            "build one with cai.TrajectoryModel(initial=..., dynamics=..., ...)"
        )
    return model


def _place(error: BaseException, file: Path) -> str:
    """The line of the user's file where an error came from."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{file}, line {line}" if line else str(file)


def _check_out(out: Path) -> None:
    """Before the work rather than after it."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise _Mistake(f"--out: {there} is a file, expected a folder to write into")
    if not os.access(there, os.W_OK):
        raise _Mistake(f"--out: {there} cannot be written into; choose another folder")


def _write(options: argparse.Namespace, figures: dict[str, Figure], texts: dict[str, str]) -> None:
    """Writes all files or none: they are finished beside the folder, then moved into it."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    for name in [*(f"{name}.png" for name in figures), *texts]:
        if (out / name).is_dir():
            raise IsADirectoryError(f"{out / name} is a folder; choose another --out")
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as folder:
        for name, figure in figures.items():
            figure.savefig(Path(folder) / f"{name}.png", dpi=150)
        for name, text in texts.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        for finished in sorted(Path(folder).iterdir()):
            os.replace(finished, out / finished.name)
            if not options.quiet:
                print(f"wrote {out / finished.name}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
