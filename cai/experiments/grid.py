"""The grid of a sweep: values for each of several arguments, and every combination of them."""

from __future__ import annotations

import difflib
import inspect
import itertools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from cai import checks
from cai.evaluation.report import Row

MOST = 1_000_000  # combinations
COLUMNS = ("log_evidence", *(name for name, x in vars(Row).items() if isinstance(x, property)))
_TAKEN = {"method", "seed", "error", "count", "mean", "half_width", *COLUMNS}
Plain = str | int | float | bool | None


def axes_of(grid: Any) -> dict[str, tuple[Plain, ...]]:
    """A grid as {argument: its values}, of plain numbers and texts.

    Args:
        grid: argument of the factory -> its values: numbers, texts, True, False or None.

    Raises:
        ValueError: if it is none, or a value is of another kind, or occurs twice, or a name is
            that of a column of the results.
    """
    if not isinstance(grid, Mapping):
        advice = 'for instance {"temperature": [0.1, 0.5, 1.0]}; {} calls the factory alone'
        checks.refuse("grid", "{argument: values}", type(grid).__name__, advice)
    axes = {}
    for name, values in grid.items():
        if not isinstance(name, str) or not name.isidentifier():
            checks.refuse("grid", "names of arguments", repr(name), "as the factory has them")
        if name in _TAKEN:
            expected = "names of arguments that are no columns of the results"
            advice = f"such as lambda its_{name}: make({name}=its_{name}), with its_{name} here"
            checks.refuse("grid", expected, repr(name), advice)
        where = f"grid[{name!r}]"
        found = checks.several(where, values, "a list of one value is fine", "several values")
        axes[name] = tuple(_plain(where, value) for value in found)
        if not found:
            checks.refuse(where, "at least one value", "none", "leave the argument out")
        seen = [repr(canonical(value)) for value in axes[name]]
        twice = next((k for k, text in enumerate(seen) if text in seen[:k]), None)
        if twice is not None:
            came = f"{axes[name][twice]!r} twice"
            checks.refuse(where, "values that differ", came, "leave one of the two out")
    n = math.prod(map(len, axes.values()))
    if n > MOST:
        checks.refuse("grid", f"at most {MOST} combinations", str(n), "take fewer values")
    return axes


def check_arguments(factory: Callable[..., Any], axes: Mapping[str, Any]) -> None:
    """Raises ValueError unless a factory has all of the arguments, as far as it says so."""
    try:
        found = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of a builtin
        return
    if any(x.kind is x.VAR_KEYWORD for x in found):
        return
    names = [x.name for x in found if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)]
    for name in axes:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            advice = f"did you mean {near[0]}?" if near else "as the factory has them"
            if not names:
                advice = f"the factory has no arguments; give it one that is called {name}"
            expected = f"arguments of the factory, {', '.join(names)}" if names else "{}"
            checks.refuse("grid", expected, repr(name), advice)


def points(axes: Mapping[str, tuple[Plain, ...]]) -> list[dict[str, Plain]]:
    """Every combination of values, the last argument changing fastest."""
    return [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*axes.values())]


def canonical(value: Any) -> Any:
    """What stands for a value in a key: equal numbers are one, and 1 is not True.

    Infinities, which JSON lacks, are lists of a text.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return [str(value)]
        return int(value) if value.is_integer() else value
    return value


def _plain(where: str, value: Any) -> Plain:
    """A value without the type that a package gave it, so that it can be written as JSON."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # of NumPy, or torch
        value = value.item()
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        number: Plain = operator.index(value) if isinstance(value, int) else float(value)
        if number == number:
            return number
    checks.refuse(
        where,
        "numbers, texts, True, False or None",
        "NaN" if isinstance(value, float) else repr(value),
        "give other values names, and look them up in the factory",
    )
