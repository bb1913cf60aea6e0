"""Describes a user's function in words and numbers, so that another one can be told from it."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_DEEP = 4  # levels of objects and closures that are described


def described(function: Any, name: str | None = None, deep: int = _DEEP) -> str:
    """The name of a function with its bound arguments, as "critic_gradient(lam=0.5)".

    For a user's own function, its code, its closure and the numbers that it uses from its module
    are added as a digest.

    Args:
        function: any function, method or object that can be called.
        name: its name in the description; its own if not given.
        deep: how many levels of functions and objects within it are described.
    """
    function, given = _unwrapped(function, deep)
    name = name or getattr(function, "__name__", type(function).__name__)
    hidden = "" if deep == 0 else _hidden(function, deep - 1)
    code = f"#{hashlib.sha256(hidden.encode()).hexdigest()[:8]}" if hidden else ""
    return f"{name}{code}({', '.join(given)})" if given else f"{name}{code}"


def options(given: dict[str, Any], deep: int = _DEEP) -> list[str]:
    """The options as "name=value", without those that are False."""
    return [f"{name}={_value(x, deep)}" for name, x in given.items() if x is not False]


def _unwrapped(function: Any, deep: int) -> tuple[Any, list[str]]:
    """The function of a partial, and its arguments."""
    given: list[str] = []
    while isinstance(function, functools.partial):
        own = [_value(x, deep) for x in function.args]
        given = [*own, *options(function.keywords, deep), *given]
        function = function.func
    return function, given


def _hidden(function: Any, deep: int) -> str:
    """What a function depends on besides its arguments; empty for those of the library."""
    if (getattr(function, "__module__", None) or "").partition(".")[0] in ("cai", "torch"):
        return ""
    if isinstance(function, types.MethodType):
        return described(function.__func__, deep=deep) + _value(function.__self__, deep)
    if not isinstance(function, types.FunctionType):
        return _value(getattr(function, "__dict__", None), deep)
    cells = [_cell(x, deep) for x in function.__closure__ or ()]
    found = {x: function.__globals__.get(x) for x in function.__code__.co_names}
    plain = [f"{k}={_value(x, 0)}" for k, x in found.items() if isinstance(x, int | float | Tensor)]
    extra = _value([function.__defaults__, function.__kwdefaults__], deep)
    return "; ".join([*_code(function.__code__), *cells, *plain, extra])


def _cell(cell: Any, deep: int) -> str:
    try:
        return _value(cell.cell_contents, deep)
    except ValueError:  # an empty cell
        return ""


def _code(code: types.CodeType) -> Iterable[str]:
    """The instructions and constants of a function and of nested ones."""
    yield code.co_code.hex()
    for x in code.co_consts:
        yield from _code(x) if isinstance(x, types.CodeType) else [repr(x)]


def _value(x: Any, deep: int) -> str:
    """A value in words: numbers as they are, other objects by their parts."""
    if isinstance(x, Tensor):
        flat = x.detach().cpu().double().flatten()
        weights = torch.arange(1, len(flat) + 1, dtype=torch.float64).sqrt()
        short = f"sum {(flat * weights).sum():.9g} of {list(x.shape)}"
        return f"{flat.tolist()}" if len(flat) <= 16 else short
    if isinstance(x, list | tuple):
        inner = ", ".join(_value(y, deep) for y in x)
        return f"({inner})" if isinstance(x, tuple) else f"[{inner}]"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k}: {_value(y, deep)}" for k, y in x.items()) + "}"
    if callable(x) and deep > 0:
        return described(x, deep=deep - 1)
    plain = x is None or isinstance(x, int | float | complex | str | bytes | torch.dtype)
    return str(x) if plain else type(x).__name__
