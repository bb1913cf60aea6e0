"""Finds the model to run: a built-in one, an environment, or one from a user's file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import inspect
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium

from cai import models
from cai.cli import terminal
from cai.cli.failure import Mistake, explain, file_of, named, place
from cai.cli.shared_options import INFINITE, nearest
from cai.cli.verbs.model_names import (
    CHANGES,
    entry_points,
    from_file,
    from_module,
    functions_of,
    held_by,
    in_a_module,
    instead,
    source_of,
)
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
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def built_in() -> dict[str, Callable[..., TrajectoryModel]]:
    """The built-in models that can be made without arrays."""
    return {name: getattr(models, name) for name in _BUILT_IN}


def load(options: argparse.Namespace) -> TrajectoryModel:
    """The model that the arguments name.

    Args:
        options: those of :func:`add_model`; in a sweep also ``swept``, which of the names in
            ``option`` are of the grid, for messages.

    Raises:
        Mistake: if there is none, or it cannot be made with these arguments.
    """
    changes = {
        name: getattr(options, name) for name in CHANGES if getattr(options, name) is not None
    }
    if options.horizon == INFINITE:
        changes |= {"horizon": None}
    extra, swept = dict(options.option), getattr(options, "swept", ())
    name = options.model if options.model in _BUILT_IN else published_name(options.model)
    twice = ", ".join(sorted(changes.keys() & extra.keys()))
    if twice:
        raise Mistake(f"--option: {twice} is given twice, by --{twice} as well; leave one out")
    try:
        if name in _BUILT_IN:
            return _from_options(name, built_in()[name], changes | extra, extra, swept)
        if is_own(name):
            return _own(name, changes, extra, swept)
        return _from_gymnasium(name, options.quiet, **changes, **extra)
    except (ValueError, TypeError) as error:
        file = source_of(name)
        theirs = file is not None and place(error, file) is not None
        raise Mistake(explain(error, file) if theirs else error) from None


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
    held, where, what = held_by(options.model)
    found = _found_in(held, where, what, TrajectoryModel)
    module = in_a_module(options.model)
    if file_of(options.model) is not None or module is None:
        line = f"import runpy\nmodel = runpy.run_path({where!r})[{what!r}]"
    else:
        line = f"from {module[0]} import {module[1]}\nmodel = {module[1]}"
    if isinstance(found, TrajectoryModel):
        return line
    known = inspect.signature(found).parameters
    given = {name: getattr(options, name) for name in CHANGES if name in known}
    given = {name: x for name, x in given.items() if x is not None} | dict(options.option)
    return f"{line}({', '.join(f'{name}={x!r}' for name, x in given.items())})"


def _own(
    name: str, changes: dict[str, Any], extra: dict[str, Any], swept: Collection[str]
) -> TrajectoryModel:
    """A model from a file, a module or another package, or what a function there makes."""
    held, where, what = held_by(name)
    found = _found_in(held, where, what, TrajectoryModel)
    if not isinstance(found, TrajectoryModel):
        known = inspect.signature(found).parameters
        taken = {key: value for key, value in changes.items() if key in known}
        changes = {key: value for key, value in changes.items() if key not in known}
        found = _from_options(name, found, taken | extra, extra, swept)
        if not isinstance(found, TrajectoryModel):
            came = type(found).__name__
            raise Mistake(f"{where}: expected {what!r} to return a cai.TrajectoryModel, got {came}")
    elif extra:
        came = f"{name} is a finished model, which has no arguments"
        raise Mistake(f"{_flags(extra, swept)}: {came}; {instead(held, name, extra)}")
    if changes.get("horizon", 1) is None and found.final_reward is not None:
        raise Mistake("--horizon: a model with a final reward has no infinite horizon")
    return dataclasses.replace(found, **changes)


def _flags(names: Iterable[str], swept: Collection[str]) -> str:
    """How options were given: by --option, or in a sweep by --grid."""
    return " and ".join(sorted({"--grid" if x in swept else "--option" for x in names}))


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
    held, what = vars(from_file(Path(file[1]))), file[2] or "reward"
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
    name: str,
    make: Callable[..., Any],
    arguments: dict[str, Any],
    extra: dict[str, Any],
    swept: Collection[str],
) -> Any:
    """What a function makes of arguments, of which some were given as options."""
    known = inspect.signature(make).parameters
    unknown = sorted(extra.keys() - known.keys())
    if unknown and not any(x.kind is x.VAR_KEYWORD for x in known.values()):
        guess = nearest(unknown[0], known) or f"; it has {', '.join(known)}"
        raise Mistake(f"{_flags(unknown, swept)}: {name} has no {', '.join(unknown)}{guess}")
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
        flags = _flags(extra, swept)
        raise Mistake(f"{flags}: {name} cannot be made with {words}: {named(error)}") from None


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
        own = functions_of(held)
        found = [k for k, v in held.items() if isinstance(v, kind) or k in own]
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
