"""What ``repr`` says of a result, a model or a network: one line, without the numbers of arrays.

Nothing is imported here, so that the command line can show its help at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Real
from typing import Any

LONGEST = 200  # characters
_SHORT = 60  # characters of a single value


def of_fields(result: Any) -> str:
    """The name of the class of a dataclass, and its fields: numbers first, arrays as shapes.

    Fields that are None are left out, and the last ones where the line would become too long.

    Args:
        result: an instance of a dataclass.
    """
    shown = [field.name for field in dataclasses.fields(result) if field.repr]
    values = {name: getattr(result, name) for name in shown}
    values = {name: x for name, x in values.items() if x is not None}
    numbers = [f"{name}={brief(x)}" for name, x in values.items() if isinstance(x, Real | str)]
    others = [f"{name}={brief(x)}" for name, x in values.items() if not isinstance(x, Real | str)]
    return named(type(result).__name__, *numbers, *others)


def of_module(module: Any) -> str:
    """The name of the class of a torch module, and the number and shapes of its parameters."""
    found = list(module.parameters())
    count = sum(x.numel() for x in found)
    words = "1 parameter" if count == 1 else f"{count or 'no'} parameters"
    arrays = found or [x for x in module.buffers() if x.dim()]
    return named(type(module).__name__, words, *map(brief, arrays if len(arrays) == 1 else ()))


def named(name: str, *parts: str) -> str:
    """name(part, part, …), of which the last parts are left out if there is no room for them."""
    text = f"{name}({', '.join(parts)})"
    while len(text) > LONGEST and parts:
        parts = parts[:-1]
        text = f"{name}({', '.join(parts)}, …)"
    return text


def brief(value: Any) -> str:
    """A value in a few words: a number, the shape of an array, or the name of what it is."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        if value.shape:
            words = "number" if value.shape == (1,) else "numbers"
            return f"{'×'.join(map(str, value.shape))} {words}"
        return brief(value.item())
    if isinstance(value, float):
        return f"{value:.6g}"
    if hasattr(value, "log_prob") and hasattr(value, "event_shape"):  # a distribution
        base = getattr(value, "base_dist", value)
        return brief(base) if base is not value else type(value).__name__
    if isinstance(value, Mapping):
        return _cut("{" + ", ".join(map(str, value)) + "}")
    if isinstance(value, tuple | list):
        if all(isinstance(x, Real | str) for x in value):
            return _cut("(" + ", ".join(map(brief, value)) + ("," * (len(value) == 1)) + ")")
        return f"{len(value)} of {type(value[0]).__name__}"
    if value is None or isinstance(value, Real | str):
        return _cut(repr(value))
    if callable(value) and not hasattr(value, "parameters"):  # a function, not a torch module
        return str(getattr(value, "__qualname__", type(value).__name__)).rpartition("<locals>.")[2]
    return type(value).__name__


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"
