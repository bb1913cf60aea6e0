"""What a road network checks of its parts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.numerics import arrays

_MILLIONFOLD = 1e6


def pairs(name: str, values: Any, count: int) -> Tensor:
    """Pairs of numbers 0 … count - 1 as a tensor (n, 2); raises ValueError for anything else."""
    found = arrays.integers(name, values)
    fits = found.dim() == 2 and found.shape[1] == 2
    if not fits or (len(found) and not (found.min() >= 0 and found.max() < count)):
        came = f"shape {list(found.shape)}" if not fits else f"{found.min()} … {found.max()}"
        checks.refuse(name, f"pairs of 0 … {count - 1}, (n, 2)", came, "from, then to")
    return found


def check_turns(turns: Tensor, segments: Tensor, names: tuple[Any, ...]) -> None:
    """Raises ValueError if turns join segments that do not meet, or are not in ascending order."""
    apart = segments[turns[:, 0], 1] != segments[turns[:, 1], 0]
    if apart.any():
        n = int(apart.nonzero()[0])
        one, other = (names[e] for e in turns[n].tolist())
        advice = "a turn leads to a segment that leaves the end of the first"
        checks.refuse(f"turn {n}", "segments that join", f"{one} and {other}", advice)
    codes = turns[:, 0] * len(names) + turns[:, 1]
    if (codes.diff() <= 0).any():
        n = int((codes.diff() <= 0).nonzero()[0]) + 1
        advice = "sort them by the segment they lead from, then by the one they lead to"
        checks.refuse(f"turn {n}", "turns in ascending order", f"{turns[n].tolist()}", advice)


def feature_columns(where: str, given: Mapping[str, Any], count: int) -> dict[str, Tensor]:
    """Features as tensors (count,); raises ValueError unless all numbers are finite."""
    checks.check_kind(where, given, Mapping, "a mapping of names to numbers", "{name: values}")
    found = {str(name): arrays.numbers(f"{where}: {name}", x) for name, x in given.items()}
    for name, x in found.items():
        if x.shape != (count,) or not x.isfinite().all():
            came = f"{checks.described(x)}{'' if x.isfinite().all() else ', not all finite'}"
            checks.refuse(f"{where}: {name}", f"{count} finite numbers", came, "one for each")
    return found


def names_that_differ(where: str, names: Any) -> tuple[Any, ...]:
    """Names as a tuple; raises ValueError if there are none, or two are the same as texts."""
    names = tuple(checks.several(where, names, "a name for each", "a list of names"))
    texts = [str(name) for name in names]
    if len(set(texts)) < len(texts):
        ((twice, _),) = Counter(texts).most_common(1)
        checks.refuse(where, "names that differ as texts", f"{twice} twice", "rename one of them")
    if not names:
        checks.refuse(where, "at least one", "none", "is the file or the graph empty?")
    return names


def places(
    coordinates: Any, points: Any, bounds: Any, V: int, E: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The places of V nodes and E lines as tensors; raises ValueError if shapes do not fit."""
    if coordinates is not None:
        coordinates = arrays.numbers("coordinates", coordinates)
        if coordinates.shape != (V, 2):
            came = f"shape {list(coordinates.shape)}"
            checks.refuse("coordinates", f"shape [{V}, 2]", came, "x and y of each node")
    if points is None and bounds is None:
        return coordinates, None, None
    points, bounds = arrays.numbers("points", points), arrays.integers("bounds", bounds)
    ends = points.shape[1:] == (2,) and bounds.shape == (E + 1,)
    ends = ends and [int(bounds[0]), int(bounds[-1])] == [0, len(points)]
    if not ends or not (bounds.diff() > 1).all():
        expected = f"points (P, 2) and {E + 1} bounds of lines, from 0 to P"
        came = f"{checks.described(points)} and {checks.described(bounds)}"
        checks.refuse("points, bounds", expected, came, "at least two points for each segment")
    return coordinates, points, bounds


def mask(name: str, values: Any, count: int) -> Tensor:
    """Flags (count,), all false if None; raises ValueError for anything else."""
    if values is None:
        return torch.zeros(count, dtype=torch.bool)
    flags = arrays.read(name, values, f"{count} flags")
    if str(flags.dtype) not in ("bool", "torch.bool") or tuple(flags.shape) != (count,):
        came = f"{flags.dtype} of shape {list(flags.shape)}"
        checks.refuse(name, f"{count} flags, one for each", came, "compare a feature: x > 0")
    return torch.as_tensor(flags)


def tell_scales(columns: Mapping[str, Tensor]) -> None:
    """Warns if the typical sizes of features that stand side by side differ a millionfold."""
    sizes = {name: float(x[x != 0].abs().median()) for name, x in columns.items() if x.any()}
    small, large = (pick(sizes, key=sizes.__getitem__, default="") for pick in (min, max))
    if sizes and sizes[large] >= _MILLIONFOLD * sizes[small]:
        warnings.warn(
            f"features: {large} is typically {sizes[large]:.3g} and {small} "
            f"{sizes[small]:.3g}, scales that differ a millionfold; is each in the unit that you "
            "mean, no seconds beside hours?",
            stacklevel=3,
        )
