"""Finds the model to run: a built-in one, an environment, or one from a user's file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium

from cai import models
from cai.cli import terminal
from cai.cli.failure import Mistake, explain, file_of, named, place, source_of
from cai.cli.shared_options import INFINITE, nearest
from cai.cli.verbs.model_names import entry_points, from_module, in_a_module
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward

_BUILT_IN = (
    "ledge",
    "lottery",
    "gridworld",
    "pendulum",
    "cartpole",
    "multigoal",
    "double_integrator",
)
_CHANGES = ("horizon", "temperature", "discount")
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def built_in() -> dict[str, Callable[..., TrajectoryModel]]:
    """The built-in models that can be made without arrays."""
    return {name: getattr(models, name) for name in _BUILT_IN}


def load(options: argparse.Namespace) -> TrajectoryModel:
    """The model that the arguments name.

    Raises:
        Mistake: if there is none, or it cannot be made with these arguments.
    """
    changes = {
        name: getattr(options, name) for name in _CHANGES if getattr(options, name) is not None
    }
    if options.horizon == INFINITE:
        changes |= {"horizon": None}
    extra = dict(options.option)
    name = options.model if options.model in _BUILT_IN else published_name(options.model)
    twice = ", ".join(sorted(changes.keys() & extra.keys()))
    if twice:
        raise Mistake(f"--option: {twice} is given twice, by --{twice} as well; leave one out")
    try:
        if name in _BUILT_IN:
            return _from_options(name, built_in()[name], changes | extra, extra)
        if is_own(name):
            return _own(name, changes, extra)
        return _from_gymnasium(name, options.quiet, **changes, **extra)
    except (ValueError, TypeError) as error:
        file = source_of(name)
        theirs = file is not None and place(error, file) is not None
        raise Mistake(explain(error, name) if theirs else error) from None


def is_own(name: str) -> bool:
    """Whether a model is from a file, a module or another package, not from here."""
    return file_of(name) is not None or in_a_module(name) is not None


def described(name: str) -> str:
    """The first line of what is said of a model that another package publishes, or its error."""
    try:
        found = _found_in(*from_module(name), TrajectoryModel)
    except Mistake as mistake:
        return f"cannot be loaded: {' '.join(str(mistake).split())}"
    if isinstance(found, TrajectoryModel):
        return f"A model of the package {entry_points()[name].module.partition('.')[0]}."
    return (inspect.getdoc(found) or "No description.").splitlines()[0]


def recipe(options: argparse.Namespace) -> str:
    """Lines of Python that make a model from a file, a module or another package.

    Horizon, temperature and discount are in them only where a function takes them.
    """
    found, where, what = _held(options.model)
    module = in_a_module(options.model)
    if file_of(options.model) is not None or module is None:
        line = f"import runpy\nmodel = runpy.run_path({where!r})[{what!r}]"
    else:
        line = f"from {module[0]} import {module[1]}\nmodel = {module[1]}"
    if isinstance(found, TrajectoryModel):
        return line
    known = inspect.signature(found).parameters
    given = {name: getattr(options, name) for name in _CHANGES if name in known}
    given = {name: x for name, x in given.items() if x is not None} | dict(options.option)
    return f"{line}({', '.join(f'{name}={x!r}' for name, x in given.items())})"


def _held(name: str) -> tuple[Any, str, str]:
    """What a file or a module holds, a model or a function; where that is, and its name there."""
    if file_of(name) is not None:
        file = re.fullmatch(r"(.+\.py)(?::(\w+))?", name)
        if file is None:
            raise Mistake(f"{name}: expected FILE.py:NAME, with the name of a model in it")
        held, where, what = vars(_run(Path(file[1]))), file[1], file[2] or "model"
    else:
        held, where, what = from_module(name)
    return _found_in(held, where, what, TrajectoryModel), where, what


def _own(name: str, changes: dict[str, Any], extra: dict[str, Any]) -> TrajectoryModel:
    """A model from a file, a module or another package, or what a function there makes."""
    found, where, what = _held(name)
    if not isinstance(found, TrajectoryModel):
        known = inspect.signature(found).parameters
        taken = {key: value for key, value in changes.items() if key in known}
        changes = {key: value for key, value in changes.items() if key not in known}
        found = _from_options(name, found, taken | extra, extra)
        if not isinstance(found, TrajectoryModel):
            came = type(found).__name__
            raise Mistake(f"{where}: expected {what!r} to return a cai.TrajectoryModel, got {came}")
    elif extra:
        advice = f"edit the file, or give {what!r} as a function that makes one"
        raise Mistake(f"--option: a model from a file has no options; {advice}")
    if changes.get("horizon", 1) is None and found.final_reward is not None:
        raise Mistake("--horizon: a model with a final reward has no infinite horizon")
    return dataclasses.replace(found, **changes)


def load_any(options: argparse.Namespace) -> Any:
    """The model that the arguments name, or an environment of which only samples can be had.

    Raises:
        Mistake: if there is none, or it cannot be made with these arguments.
    """
    if options.model in _BUILT_IN or is_own(options.model):
        return load(options)
    chosen = argparse.Namespace(**vars(options) | {"model": published_name(options.model)})
    try:
        return load(chosen)
    except Mistake as mistake:
        name = chosen.model
        if name not in gymnasium.registry or name in models.published():
            raise
        changes = {name: getattr(options, name) for name in ("temperature", "discount")}
        changes = {name: value for name, value in changes.items() if value is not None}
        if options.horizon not in (None, INFINITE):
            changes["horizon"] = options.horizon
        try:
            return models.environment(name, **changes, **dict(options.option))
        except (ValueError, TypeError) as error:
            raise Mistake(error) from mistake


def load_reward(name: str) -> LinearReward:
    """The reward that FILE.py:NAME names; NAME is "reward" if it is left out.

    Raises:
        Mistake: if there is none.
    """
    file = re.fullmatch(r"(.+\.py)(?::(\w+))?", name)
    if file is None:
        raise Mistake(f"--reward: expected FILE.py:NAME, got {name}")
    held, what = vars(_run(Path(file[1]))), file[2] or "reward"
    found: LinearReward = _found_in(held, file[1], what, LinearReward)
    return found


def published_name(name: str) -> str:
    """The environment with a table that a name such as frozen_lake means, or the name itself."""
    if name != name.lower():
        return name  # an environment by its own name, which may lack its version
    plain = name.replace("_", "")
    found = [full for full in models.published() if full.partition("-")[0].lower() == plain]
    return found[-1] if found else name


def absolute(name: str) -> str:
    """A name of a model that means the same in every folder."""
    file = file_of(name)
    return name if file is None else str(file.resolve()) + name[len(str(file)) :]


@contextlib.contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Within it what libraries warn of is a line where errors go, or nothing."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    for warning in [] if quiet else said:
        words = re.sub(r"\x1b\[\d*m", "", str(warning.message))  # Gymnasium paints them
        terminal.note(" ".join(words.split()))


def _from_options(
    name: str, make: Callable[..., Any], arguments: dict[str, Any], extra: dict[str, Any]
) -> Any:
    """What a function makes of arguments, of which some were given as options."""
    known = inspect.signature(make).parameters
    unknown = sorted(extra.keys() - known.keys())
    if unknown and not any(x.kind is x.VAR_KEYWORD for x in known.values()):
        guess = nearest(unknown[0], known) or f"; it has {', '.join(known)}"
        raise Mistake(f"--option: {name} has no {', '.join(unknown)}{guess}")
    needed = [x.name for x in known.values() if x.default is x.empty and x.kind not in _MANY]
    missing = [key for key in needed if key not in arguments]
    if missing:
        advice = f"pass --option {missing[0]}=VALUE"
        raise Mistake(f"{name}: expected a value of {', '.join(missing)}, got none; {advice}")
    try:
        return make(**arguments)
    except (AttributeError, LookupError) as error:
        if not extra:
            raise  # a fault of the function itself, whose line is named
        words = ", ".join(f"{key}={value!r}" for key, value in extra.items())
        raise Mistake(f"--option: {name} cannot be made with {words}: {named(error)}") from None


def _from_gymnasium(name: str, quiet: bool, **arguments: Any) -> TrajectoryModel:
    known = [*_BUILT_IN, *entry_points(), *models.published()]
    with quietly(quiet):
        try:
            return models.gym(name, **arguments)
        except ValueError as error:
            if not isinstance(error.__context__, gymnasium.error.UnregisteredEnv):
                raise Mistake(error) from None
            guess = nearest(name, known) or f"; there are {', '.join(known)}"
            raise Mistake(f"{name}: there is no such model{guess}") from None


def _found_in(held: dict[str, Any], where: str, name: str, kind: type) -> Any:
    """What a file or a module holds by a name: something of a kind, or a function that makes it."""
    what = f"cai.{kind.__name__}"
    if name not in held:
        found = [
            k
            for k, v in held.items()
            if isinstance(v, kind)
            or (inspect.isfunction(v) and v.__module__ == held.get("__name__") and k[0] != "_")
        ]
        advice = f"; it has {', '.join(found)}" if found else f"; it holds no {what}"
        raise Mistake(f"{where}: there is no {name!r} in it{nearest(name, found) or advice}")
    made = held[name]
    function = kind is TrajectoryModel and (
        inspect.isfunction(made) or isinstance(made, functools.partial)
    )
    if not (isinstance(made, kind) or function):
        came = type(made).__name__
        raise Mistake(
            f"{where}: expected {name!r} to be a {what}, got {came}; build one with {what}(...)"
        )
    return made


def _run(file: Path) -> ModuleType:
    """The user's file as a module."""
    if not file.is_file():
        raise Mistake(f"{file}: there is no such file; look at its name and its folder")
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
        raise Mistake(f"{place(error, file) or file}: {named(error)}") from None
    finally:
        sys.path.pop(0)
    return module
