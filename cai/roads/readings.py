"""Numbers of rows or edges, as users have them: texts, missing entries, functions of attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cai import checks

# What is measured cannot be negative; a slope, or a utility, can.
_MEASURES = {"length", "distance", "travel_time", "free_flow_time", "minutes", "seconds", "hours"}


def numeric(values: Any, attribute: str, where: Callable[[int], str]) -> NDArray[np.float64]:
    """Numbers, or texts of numbers, as a new array (n,).

    Args:
        values: n of them, of any type.
        attribute: what they are, for messages; lengths and times must not be negative.
        where: the name of row i, for messages.

    Raises:
        ValueError: if one is missing, no number, not finite, or a negative length or time.
    """
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    try:
        found = np.array(values, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError):
        found = np.array([_number(value) for value in values])
    wrong = ~np.isfinite(found)
    if attribute in _MEASURES:
        wrong |= found < 0
    if found.ndim != 1 or wrong.any():
        row = int(np.argmax(wrong.reshape(len(values), -1).any(-1)))
        negative = found.ndim == 1 and found[row] < 0
        expected = "a finite number ≥ 0" if negative else "a finite number, or a text of one"
        came = "nothing" if values[row] is None else repr(values[row])
        advice = "fill it, or give features={name: …} with other attributes or functions of them"
        checks.refuse(f"{where(row)}: {attribute}", expected, came, advice)
    return found


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.nan


class Attributes(Mapping[str, Any]):
    """The attributes of an edge, where texts of numbers are numbers.

    Args:
        given: as the edge has them.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def __getitem__(self, name: str) -> Any:
        value = self._given[name]
        number = _number(value) if isinstance(value, str) else np.nan
        return number if np.isfinite(number) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


def column(columns: Any, name: str, argument: str) -> list[Any]:
    """A column of a mapping or of a frame of any library, as a list.

    Raises:
        ValueError: if there is none of that name.
    """
    names = column_names(columns, argument)
    if not isinstance(name, str) or name not in names:
        advice = f"there are {', '.join(map(str, names)) or 'none'}"
        checks.refuse(argument, "the name of a column", repr(name), advice)
    values = columns[name]
    return values.tolist() if hasattr(values, "tolist") else list(values)


def column_names(columns: Any, argument: str) -> list[str]:
    """The names of the columns of a mapping or of a frame.

    Raises:
        ValueError: if it is neither.
    """
    names = getattr(columns, "columns", None)
    if names is None and isinstance(columns, Mapping):
        names = columns.keys()
    if names is None:
        advice = 'for instance {"tail": […], "head": […], "minutes": […]}'
        checks.refuse(argument, "a mapping of columns, or a frame", type(columns).__name__, advice)
    return list(names)
