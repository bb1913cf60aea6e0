"""Results as data frames of pandas, with the units of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cai.numerics.optional_package import optional


class Column(NamedTuple):
    """A column of numbers and what its standard errors are, if it has any.

    Attributes:
        group: the heading that it stands under.
        title: its own heading.
        unit: "nats" or "reward".
        estimates: for each row a number, None where there is none, and its standard error, None
            where it is exact.
    """

    group: str
    title: str
    unit: str
    estimates: Sequence[tuple[float | None, float | None]]


def data_frame(
    data: Mapping[str, Any] | Sequence[Any],
    units: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Any:
    """A pandas DataFrame whose ``attrs["units"]`` say the unit of each column that has one.

    Args:
        data: name -> values; or rows, with ``columns`` among the arguments.
        units: name -> unit.
        arguments: further ones of ``pandas.DataFrame``.

    Raises:
        ValueError: if pandas is not installed.
    """
    pandas = optional("pandas", "to_dataframe", 'pip install "control-as-inference[frames]"')
    frame = pandas.DataFrame(data, **arguments)
    frame.attrs["units"] = dict(units or {})
    return frame


def grouped(rows: Iterable[str], columns: Sequence[Column]) -> Any:
    """A pandas DataFrame whose columns stand in groups, standard errors beside their numbers.

    ``attrs["units"]`` are by group and column. What there is not is NaN.

    Args:
        rows: their names.
        columns: in order.

    Raises:
        ValueError: if pandas is not installed.
    """
    pandas = optional("pandas", "to_dataframe", 'pip install "control-as-inference[frames]"')
    found: dict[tuple[str, str], Sequence[float | None]] = {}
    units: dict[str, dict[str, str]] = {}
    for group, title, unit, estimates in columns:
        values, stderr = zip(*estimates, strict=True)
        pair = {title: values} | ({f"{title} stderr": stderr} if set(stderr) != {None} else {})
        found |= {(group, name): x for name, x in pair.items()}
        units.setdefault(group, {}).update(dict.fromkeys(pair, unit))
    frame = pandas.DataFrame(found, index=pandas.Index([*rows], name="method"), dtype=float)
    frame.columns = frame.columns.set_names(["group", "column"])
    frame.attrs["units"] = units
    return frame
