"""The nodes of a graph by name, and the states 0 … S-1 that stand for them."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cai import checks
from cai.numerics import arrays
from cai.program.layout import Layout

_EXPECTED = {
    "tails, heads": ("states", "number the states from 0, and let num_states count them"),
    "goals": ("at least one state of", "name the states where walks end"),
    "initial": ("a state of", "or weights (S,)"),
}


class Nodes:
    """The nodes of a graph: states 0 … S-1 as they are, or named, in ascending order.

    Args:
        count: S.
        named: (S,), the names in ascending order; None where state k is named k.
    """

    def __init__(self, count: int, named: NDArray[Any] | None = None) -> None:
        self._count, self._named = count, named

    @classmethod
    def named_by(cls, *mentioned: NDArray[Any]) -> Nodes:
        """The nodes that arrays of names from :func:`names` mention."""
        if any(array.dtype == object for array in mentioned):
            every = {name for array in mentioned for name in array.tolist()}
            if len({type(name) for name in every}) > 1:
                checks.refuse("tails, heads", "names of one type", "integers and texts", "take str")
            return cls(len(every), np.array(sorted(every), dtype=object))
        ends = np.concatenate(mentioned)
        low, high = int(ends.min()), int(ends.max())
        if low < 0:  # a mistake, not a name
            return cls(high + 1)
        if high < len(ends) and np.bincount(ends).all():  # without the sorting that unique does
            return cls(high + 1)
        named = np.unique(ends)
        return cls(len(named), named)

    def __len__(self) -> int:
        return self._count

    def __str__(self) -> str:
        if self._named is None:
            return f"0 … {self._count - 1}"
        return f"{self._named[0]} … {self._named[-1]}, those that edges join"

    def states(self, argument: str, mentioned: NDArray[Any]) -> NDArray[np.int64]:
        """The states of the nodes that an argument mentions, (n,).

        Raises:
            ValueError: if one is not among these nodes.
        """
        if self._named is None:
            found = mentioned if mentioned.dtype == np.int64 else np.full(mentioned.shape, -1)
            known = (found >= 0) & (found < self._count)
        elif self._named.dtype == mentioned.dtype == np.int64:
            found = np.searchsorted(self._named, mentioned).clip(max=self._count - 1)
            known = self._named[found] == mentioned
        else:
            index = {name: k for k, name in enumerate(self._named.tolist())}
            found = np.array([index.get(name, -1) for name in mentioned.tolist()], dtype=np.int64)
            known = found >= 0
        if not known.all():
            expected, advice = _EXPECTED[argument]
            came = f"{mentioned.tolist() if argument == 'goals' else mentioned[0]}"
            if argument == "tails, heads" and mentioned.dtype == np.int64:
                came = f"{mentioned.min()} … {mentioned.max()}"
            checks.refuse(argument, f"{expected} {self}", came, advice)
        return found

    def layout(self) -> Layout | None:
        """The names as texts; None where each name is the number of its state."""
        named = self._named
        return None if named is None else Layout(states=tuple(map(str, named.tolist())))


def names(argument: str, values: Any) -> NDArray[Any]:
    """Names of nodes as an array of int64, or of objects: integers of any size, or texts.

    Raises:
        ValueError: if an entry is neither an integer nor a text.
    """
    array = arrays.read(argument, values, "an array of integers")
    array = array.numpy(force=True) if isinstance(array, Tensor) else array
    kind = array.dtype.name
    if not array.size:
        return array.astype(np.int64)
    if array.dtype.kind == "i" or (array.dtype.kind == "u" and array.max() < 2**63):
        return array.astype(np.int64)
    if isinstance(values, list | tuple) and array.ndim == 1:
        array = np.array(values, dtype=object)  # else large integers become floats, and 1 a text
    if not all(_is_name(entry) for entry in array.astype(object).flat):
        advice = "or name the nodes by texts: str(name) turns any name into one"
        checks.refuse(argument, "integers", f"an array of {kind}", advice)
    plain = [x if isinstance(x, str) else int(x) for x in array.astype(object).flat]
    named = np.empty(len(plain), dtype=object)
    named[:] = plain
    return named.reshape(array.shape)


def _is_name(entry: Any) -> bool:
    return isinstance(entry, str | Integral) and not isinstance(entry, bool)
