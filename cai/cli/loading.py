"""Finds the model to run: a built-in one, an environment, or one from a user's file."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import inspect
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import networkx as nx

from cai import models
from cai.cli import terminal
from cai.cli.failure import Mistake, file_of, named, naming, place
from cai.cli.options import INFINITE
from cai.cli.shared_options import nearest
from cai.demonstrations import reading
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.roads.network import Streets

_BUILT_IN = (
    "ledge",
    "lottery",
    "gridworld",
    "pendulum",
    "cartpole",
    "multigoal",
    "double_integrator",
)
_ENDS = (("u", "v"), ("tail", "head"), ("from", "to"))  # columns of the nodes of a segment
_OF_TURNS = ("angle", "left", "right", "u_turn")


def built_in() -> dict[str, Callable[..., TrajectoryModel]]:
    """The built-in models that can be made without arrays."""
    return {name: getattr(models, name) for name in _BUILT_IN}


def load(options: argparse.Namespace) -> TrajectoryModel:
    """The model that the arguments name.

    Raises:
        Mistake: if there is none, or it cannot be made with these arguments.
    """
    changes = {
        name: getattr(options, name)
        for name in ("horizon", "temperature", "discount")
        if getattr(options, name) is not None
    }
    if options.horizon == INFINITE:
        changes |= {"horizon": None}
    extra = dict(options.option)
    name = options.model if options.model in _BUILT_IN else published_name(options.model)
    twice = ", ".join(sorted(changes.keys() & extra.keys()))
    if twice:
        raise Mistake(f"--option: {twice} is given twice, by --{twice} as well; leave one out")
    try:
        if file_of(name) is not None:
            file = re.fullmatch(r"(.+\.py)(?::(\w+))?", name)
            if file is None:
                raise Mistake(f"{name}: expected FILE.py:NAME, with the name of a model in it")
            if extra:
                raise Mistake("--option: a model from a file has no options; edit the file")
            found = _from_file(Path(file[1]), file[2] or "model", TrajectoryModel)
            if options.horizon == INFINITE and found.final_reward is not None:
                raise Mistake("--horizon: a model with a final reward has no infinite horizon")
            return dataclasses.replace(found, **changes)
        if name in _BUILT_IN:
            return _from_options(name, changes, extra)
        return _from_gymnasium(name, options.quiet, **changes, **extra)
    except (ValueError, TypeError) as error:
        raise Mistake(error) from None


def load_any(options: argparse.Namespace) -> Any:
    """The model that the arguments name, or an environment of which only samples can be had.

    Raises:
        Mistake: if there is none, or it cannot be made with these arguments.
    """
    if options.model in _BUILT_IN or file_of(options.model) is not None:
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
    found: LinearReward = _from_file(Path(file[1]), file[2] or "reward", LinearReward)
    return found


def load_network(options: argparse.Namespace, features: list[str] | None) -> Streets:
    """The road network of a file, with some features; None for all that its kind offers.

    Of a .graphml file these are attributes of its edges, by default "length" and "travel_time";
    "minutes" is a sixtieth of "travel_time" where there is none. Of a .tntp or .csv file they are
    its columns of numbers. "segment" is one for each segment where there is none.

    Raises:
        Mistake: if there is no such file, or it cannot be read.
    """
    path, nodes = options.network, options.nodes
    for file in (path, nodes):
        if file is not None and not file.is_file():
            raise Mistake(f"{file}: there is no such file")
    with naming(path):
        streets = _network(path, nodes, features, True if options.degrees else None)
        for name in features or []:
            streets.feature(name)
    return streets


def _network(
    path: Path, nodes: Path | None, features: list[str] | None, degrees: bool | None
) -> Streets:
    if path.suffix == ".graphml":
        graph = nx.read_graphml(path, force_multigraph=True)
        known = {name for *_, data in graph.edges(data=True) for name in data}
        return models.streets(graph, _of_network(features, known), degrees=degrees)
    if path.suffix == ".tntp":
        read = models.streets_from_tntp(path, nodes, degrees=degrees)
        made = _of_network(features, set(read.segment_features))
        return models.streets_from_tntp(path, nodes, made, degrees=degrees)
    return _from_columns(path, nodes, features, degrees)


def _from_columns(
    path: Path, nodes: Path | None, features: list[str] | None, degrees: bool | None
) -> Streets:
    columns = reading.csv_columns(path)
    ends = next((x for x in _ENDS if set(x) <= columns.keys()), None)
    if ends is None:
        there = ", ".join(columns)
        raise ValueError(f"expected columns u and v, or tail and head, got {there}")
    key, line = (x if x in columns else None for x in ("key", "geometry"))
    known = {x for x in columns if x not in (*ends, key, line) and _numeric(columns[x])}
    chosen = [x for x in columns if x in known] if features is None else features
    return models.streets_from_columns(
        columns,
        _of_network(chosen, known),
        tail=ends[0],
        head=ends[1],
        key=key,
        geometry=line,
        nodes=None if nodes is None else reading.csv_columns(nodes),
        degrees=degrees,
    )


def _of_network(features: list[str] | None, known: set[str]) -> dict[str, Any] | None:
    """What the library makes features of, by name; those of turns are made by itself."""
    if features is None:
        return None
    instead: dict[str, Any] = {"segment": 1.0}
    if "travel_time" in known:  # in seconds, as OSMnx has it
        instead["minutes"] = lambda edge: edge["travel_time"] / 60
    chosen = [name for name in features if name in known or name not in _OF_TURNS]
    for name in chosen:
        if name not in known and name not in instead:
            there = ", ".join(sorted({*known, *instead, *_OF_TURNS}))
            raise ValueError(f"expected names of features, got {name}; there are {there}")
    return {name: name if name in known else instead[name] for name in chosen}


def _numeric(texts: list[str]) -> bool:
    try:
        return all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False


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


def _from_options(name: str, changes: dict[str, Any], extra: dict[str, Any]) -> TrajectoryModel:
    constructor = built_in()[name]
    known = inspect.signature(constructor).parameters
    unknown = sorted(extra.keys() - known.keys())
    if unknown:
        guess = nearest(unknown[0], known) or f"; it has {', '.join(known)}"
        raise Mistake(f"--option: {name} has no {', '.join(unknown)}{guess}")
    try:
        return constructor(**changes, **extra)
    except (AttributeError, LookupError) as error:
        words = ", ".join(f"{key}={value!r}" for key, value in extra.items())
        raise Mistake(f"--option: {name} cannot be made with {words}: {named(error)}") from None


def _from_gymnasium(name: str, quiet: bool, **arguments: Any) -> TrajectoryModel:
    known = [*_BUILT_IN, *models.published()]
    with quietly(quiet):
        try:
            return models.gym(name, **arguments)
        except ValueError as error:
            if not isinstance(error.__context__, gymnasium.error.UnregisteredEnv):
                raise Mistake(error) from None
            guess = nearest(name, known) or f"; there are {', '.join(known)}"
            raise Mistake(f"{name}: there is no such model{guess}") from None


def _from_file(file: Path, name: str, kind: type) -> Any:
    module, what = _run(file), f"cai.{kind.__name__}"
    if not hasattr(module, name):
        found = [k for k, v in vars(module).items() if isinstance(v, kind)]
        advice = f"; it has {', '.join(found)}" if found else f"; it holds no {what}"
        raise Mistake(f"{file}: there is no {name!r} in it{nearest(name, found) or advice}")
    made = getattr(module, name)
    if not isinstance(made, kind):
        came = type(made).__name__
        raise Mistake(
            f"{file}: expected {name!r} to be a {what}, got {came}; build one with {what}(...)"
        )
    return made


def _run(file: Path) -> ModuleType:
    """The user's file as a module."""
    if not file.is_file():
        raise Mistake(f"{file}: there is no such file; give it as FILE.py:NAME")
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
