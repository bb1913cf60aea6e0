"""What a function is, in plain values, so that a sweep knows its own results again.

Nothing that differs from one process to the next is in it: no address, and no order of a set.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import json
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from cai import checks
from cai.experiments.grid import canonical

_DIGITS = 16  # of a hash, each of four bits
_ITSELF = "itself"  # what leads back to where it was found
_LONGEST = 40  # characters that are kept as they are
_ADVICE = "take functools.partial of a function and plain values, or a dataclass of them"


class _Plain:
    """An object of Python that holds its attributes alone."""


def described(function: Any, where: str | None = None) -> Any:
    """What a function is: its module and name, and what it was given beforehand.

    Functions that have a name of their own are known by it, whatever their code; a lambda by its
    code, and it as well as a closure by the values that it holds. An object is known by its class
    and its attributes, an array by its numbers.

    Args:
        function: a function, a class or an object.
        where: what it is called in a message; None if whatever has no plain values is to be known
            by its class alone.

    Raises:
        ValueError: if something in it has no plain values, unless where is None.
    """
    try:
        return _described(function, where, ())
    except RecursionError:  # in values that hold each other without end
        if where is not None:
            _refuse(where, function)
        return _name(type(function))


def _described(it: Any, where: str | None, above: tuple[int, ...]) -> Any:
    if id(it) in above:
        return _ITSELF
    above = (*above, id(it))
    if isinstance(it, functools.partial):
        more = dict(enumerate(it.args)) | it.keywords
        arguments = {str(name): _in_words(value, where, above) for name, value in more.items()}
        return [_described(it.func, where, above), arguments]
    if dataclasses.is_dataclass(it) and not isinstance(it, type):
        names = [field.name for field in dataclasses.fields(it)]
        given = {name: _in_words(getattr(it, name, None), where, above) for name in names}
        return [_name(type(it)), given]
    if inspect.ismethod(it):
        return [_name(it), _in_words(it.__self__, where, above)]
    if isinstance(it, types.FunctionType):
        if _is_found_by_name(it):
            return _name(it)
        held = _held(it, where, above)
        return [_name(it), held] if held else _name(it)
    if isinstance(it, type | types.ModuleType):
        return _name(it)
    if inspect.isroutine(it):  # of C
        owner = getattr(it, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType):
            return _name(it)
        return [_name(it), _in_words(owner, where, above)]
    return _object(it, where, above)


def _held(function: types.FunctionType, where: str | None, above: tuple[int, ...]) -> Any:
    """What tells functions of one name apart; empty for one that is alone in having its name."""
    held: dict[str, Any] = {}
    alike = function.__name__ == "<lambda>"
    if alike:
        held["code"] = _hash(_code(function.__code__))
    if function.__closure__ is not None:
        cells = zip(function.__code__.co_freevars, function.__closure__, strict=True)
        held["closure"] = {name: _content(cell, where, above) for name, cell in cells}
    if alike or "<locals>" in function.__qualname__:
        given = [function.__defaults__, function.__kwdefaults__]
        if any(given):
            held["defaults"] = _in_words(given, where, above)
    return held


def _content(cell: types.CellType, where: str | None, above: tuple[int, ...]) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:  # of a name that has no value yet
        return []
    return _in_words(value, where, above)


def _is_found_by_name(function: types.FunctionType) -> bool:
    """Whether it is what its module has under its name, so that no other function is."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def _code(code: types.CodeType) -> list[Any]:
    """What a function does, without its lines and its file; the same in one version of Python."""
    return [code.co_code.hex(), _constant(code.co_consts), list(code.co_names)]


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, tuple):
        return [_constant(x) for x in value]
    if isinstance(value, frozenset):
        return sorted(json.dumps(_constant(x)) for x in value)
    return [type(value).__name__, repr(value)]


def _in_words(value: Any, where: str | None, above: tuple[int, ...]) -> Any:
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, enum.Enum):
        return [_name(type(value)), value.name]
    if value is None or isinstance(value, str | bool | int | float):
        return canonical(value)
    if id(value) in above:
        return _ITSELF
    if isinstance(value, list | tuple):
        return [_in_words(x, where, (*above, id(value))) for x in value]
    if isinstance(value, Mapping):
        above = (*above, id(value))
        return {str(key): _in_words(x, where, above) for key, x in value.items()}
    return _described(value, where, above)


def _object(it: Any, where: str | None, above: tuple[int, ...]) -> Any:
    """An object by its class, and by what it holds."""
    name = _name(type(it))
    if isinstance(it, complex | bytes | range):
        return [name, repr(it) if len(repr(it)) < _LONGEST else _hash(repr(it))]
    if isinstance(it, os.PathLike):
        return [name, os.fspath(it)]
    if isinstance(it, set | frozenset):
        found = (_in_words(x, where, above) for x in it)
        return [name, sorted(json.dumps(x, sort_keys=True) for x in found)]
    if type(it).__module__ in ("torch", "numpy") and type(it).__name__ in ("dtype", "device"):
        return [name, str(it)]
    if hasattr(it, "dtype") and hasattr(it, "tolist"):  # an array, or a tensor
        if isinstance(it, torch.Tensor) and it.layout != torch.strided:
            it = it.detach().to_sparse_coo().coalesce()
            numbers = [it.indices().tolist(), it.values().tolist()]
        else:
            numbers = it.tolist()
        return [name, str(it.dtype), list(it.shape), _hash(_in_words(numbers, where, above))]
    if hasattr(it, "__wrapped__"):  # by a cache, which counts its calls
        return [name, _described(it.__wrapped__, where, above)]
    if type(it).__basicsize__ > _Plain.__basicsize__ or not hasattr(it, "__dict__"):
        if where is not None:  # there is more in it than its attributes
            _refuse(where, it)
        return name
    return [name, _in_words(vars(it), where, above)]


def _refuse(where: str, it: Any) -> NoReturn:
    expected = "what plain values describe, so that its results are known again in out"
    checks.refuse(where, expected, f"an object of {_name(type(it))} in it", _ADVICE)


def _name(it: Any) -> str:
    name = str(getattr(it, "__qualname__", None) or it.__name__)
    module = getattr(it, "__module__", None)
    if module == "__main__":
        module = _script()
    return name if module in (None, "builtins") else f"{module}.{name}"


def _script() -> str | None:
    """The name under which the program that runs would be imported; None in a notebook."""
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:  # python -m
        return str(spec.name)
    return Path(file).stem if file else None


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
