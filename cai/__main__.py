"""The command line: ``cai compare``, ``cai draw`` and ``cai models``."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import difflib
import importlib.util
import inspect
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from cai import __version__, inference, interruption, models, plot
from cai.cli import output_folder, terminal
from cai.evaluation.comparison import Comparison, compare
from cai.policies.neural import NeuralPolicy, TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import ChangesWithTime, NotEnumerable
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

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
_ALWAYS = ("comparison.png", "training.png", "comparison.md", "comparison.json")
_OF_A_TABLE = ("policies.png", "occupancy.png", "optimism.png")
_MOST = 10**9  # steps that anyone will wait for


class _Mistake(Exception):
    """Something about the arguments that the user can mend."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0, or 1 where the run failed, 2 where the arguments are wrong, 130 where it was interrupted,
        or 141 where whoever read the output has gone.
    """
    interruption.raise_again()
    with terminal.prepared():
        try:
            options = _parser().parse_args(arguments)
        except SystemExit as left:  # after --help, --version, or what argparse says of a mistake
            sys.exit(_status(terminal.finish, "") or left.code)
        return _status(lambda: options.run(options), getattr(options, "model", ""))


def _status(run: Callable[[], None], model: str) -> int:
    """The exit status of a run, of which it says what went wrong."""
    try:
        run()
    except _Mistake as mistake:
        return _fail(mistake, 2)
    except terminal.NobodyReads:
        return 141  # without a word, as a program that ends by SIGPIPE
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", interruption.STATUS)
    except BaseException as error:  # SystemExit is one, which a user's file may raise
        return _fail(_explain(error, model), 1)
    return 0


def _explain(error: BaseException, model: str) -> str:
    """What went wrong in a run, with the line of the user's file where it began.

    Raises:
        BaseException: the error itself, where it is a fault of this library.
    """
    file = _file_of(model)
    place = file and _place(error, file)
    own = isinstance(error, ValueError | OSError)  # which speak for themselves
    memory = isinstance(error, MemoryError | OverflowError) or "allocate" in str(error)
    if not (own or memory or place):
        raise error  # its traceback is of use
    words = str(error) if own and not (file and _line(error, file)) else _named(error)
    if memory and not own:
        words = f"the model is too large for this machine: {words}"
    return f"{place}: {words}" if place else words


def _named(error: BaseException) -> str:
    """An error with its type; what SystemExit holds is a status, and no message."""
    if isinstance(error, SystemExit):
        return f"SystemExit: {error.code}; a model's code must not end the program"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _program() -> str:
    """The command, by the name of the two under which it was called."""
    called = Path(next(iter(sys.argv), "")).stem
    return called if called == "control-as-inference" else "cai"


def _fail(message: object, status: int) -> int:
    terminal.note(f"{_program()}: error: {' '.join(str(message).split())}")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_program(),
        description="Control as inference: one model, every inference on it, side by side.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
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
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that it raises
        pass
    try:
        return key, float(value)  # inf and -inf, which are no literals
    except ValueError:
        return key, value


def _compare(options: argparse.Namespace) -> None:
    # What a user's file prints must not mix with JSON.
    elsewhere = contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout)
    with _output_folder(options.out), elsewhere:
        report = _run_comparison(options)
    terminal.show(report.to_json() if options.json else report.to_text(terminal.encoding()))


def _run_comparison(options: argparse.Namespace) -> Comparison:
    torch.manual_seed(options.seed)  # a network starts at random
    model = _load(options)
    if model.horizon is None:
        raise _Mistake("--horizon: the model's horizon is infinite; give a number of steps")
    table = _table(model, options)
    output_folder.check_names(options.out, _ALWAYS if table is None else _ALWAYS + _OF_A_TABLE)
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
            terminal.note(f"no exact posterior: {error}")
        return None


def _draw(options: argparse.Namespace) -> None:
    with _output_folder(options.out):
        output_folder.check_names(options.out, ["graphical_model.png"])
        model = _load(options)
        try:
            figure = plot.graphical_model(model, options.steps)
        except ValueError as error:
            raise _Mistake(error) from None
        _write(options, {"graphical_model": figure}, {})


def _list_models(options: argparse.Namespace) -> None:
    lines = [f"{n:19}{(make.__doc__ or '').splitlines()[0]}" for n, make in _builtin().items()]
    lines += [f"{'FILE.py:NAME':19}A TrajectoryModel of your own, by its name in a Python file."]
    lines += ["Gymnasium environments with a published table:"]
    terminal.show("\n".join([*lines, *(f"  {name}" for name in models.published())]))


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
    twice = ", ".join(sorted(changes.keys() & extra.keys()))
    if twice:
        raise _Mistake(f"--option: {twice} is given twice, by --{twice} as well; leave one out")
    try:
        if _file_of(name) is not None:
            file = re.fullmatch(r"(.+\.py)(?::(\w+))?", name)
            if file is None:
                raise _Mistake(f"{name}: expected FILE.py:NAME, with the name of a model in it")
            if extra:
                raise _Mistake("--option: a model from a file has no options; edit the file")
            return dataclasses.replace(_from_file(Path(file[1]), file[2] or "model"), **changes)
        if name in _BUILT_IN:
            return _from_options(name, changes, extra)
        return _from_gymnasium(name, options.quiet, **changes, **extra)
    except (ValueError, TypeError) as error:
        raise _Mistake(error) from None


def _from_options(name: str, changes: dict[str, Any], extra: dict[str, Any]) -> TrajectoryModel:
    constructor = _builtin()[name]
    known = inspect.signature(constructor).parameters
    unknown = sorted(extra.keys() - known.keys())
    if unknown:
        words = f"{name} has no {', '.join(unknown)}; it has {', '.join(known)}"
        raise _Mistake(f"--option: {words}")
    try:
        return constructor(**changes, **extra)
    except (AttributeError, LookupError) as error:
        words = ", ".join(f"{key}={value!r}" for key, value in extra.items())
        raise _Mistake(f"--option: {name} cannot be made with {words}: {_named(error)}") from None


def _from_gymnasium(name: str, quiet: bool, **arguments: Any) -> TrajectoryModel:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model = models.gym(name, **arguments)
        except ValueError as error:
            near = difflib.get_close_matches(name.lower(), _BUILT_IN, 1)
            raise _Mistake(f"{error}{f'; or was {near[0]!r} meant?' if near else ''}") from None
    for warning in [] if quiet else said:
        words = re.sub(r"\x1b\[\d*m", "", str(warning.message))  # Gymnasium paints them
        terminal.note(" ".join(words.split()))
    return model


def _file_of(name: str) -> Path | None:
    """The Python file that a model is taken from; None where it is named otherwise."""
    file = re.fullmatch(r"(.+\.py)(:.*)?", name)
    return Path(file[1]) if file else None


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
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _Mistake(f"{_place(error, file) or file}: {_named(error)}") from None
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


def _place(error: BaseException, file: Path) -> str | None:
    """Where in the user's file an error came from, or None if it is from elsewhere."""
    cause: BaseException | None = error
    while cause is not None:
        line = _line(cause, file)
        if line is not None:
            return f"{file}, line {line}"
        cause = cause.__cause__ or cause.__context__
    return None


def _line(error: BaseException, file: Path) -> int | None:
    """The innermost line of a file that an error went through, if it went through it."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if Path(frame.f_code.co_filename).resolve() == file.resolve():
            line = number
    return line


@contextlib.contextmanager
def _output_folder(out: Path) -> Iterator[None]:
    """The folder for the files, tried before the work rather than after it.

    Raises:
        _Mistake: where it cannot be written into.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(output_folder.prepared(out))
        except OSError as error:
            words = f"{error.filename or out}: {error.strerror}" if error.strerror else error
            raise _Mistake(f"--out: {words}; choose another folder") from None
        yield


def _write(options: argparse.Namespace, figures: dict[str, Figure], texts: dict[str, str]) -> None:
    """Writes all files or none: they are finished beside the folder, then moved into it."""
    out: Path = options.out
    with output_folder.unfinished(out) as folder:
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=150)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        files = sorted(path.name for path in folder.iterdir())
        output_folder.check_names(out, files)
        for name in files:
            os.replace(folder / name, out / name)
    if not options.quiet:
        for name in files:
            terminal.note(f"wrote {out / name}")


if __name__ == "__main__":
    sys.exit(main())
