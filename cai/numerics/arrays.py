"""Reads and copies users' arrays: lists, NumPy, torch, SciPy, data frames."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from cai.checks import refuse

INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def numbers(name: str, values: Any, expected: str = "an array of numbers") -> Tensor:
    """An array of real numbers as a new dense tensor of float64.

    Args:
        name: of the argument, for the message.
        values: a number, nested lists, or anything that NumPy can read: arrays, data frames,
            sparse matrices of SciPy. A torch tensor keeps its graph.
        expected: what it should be, for the message.

    Raises:
        ValueError: for anything else, and for ragged, complex, text, masked or sparse torch arrays.
    """
    array = read(name, values, expected)
    if not array.ndim and array.dtype in (torch.bool, np.bool_):
        refuse(name, expected, repr(values), "give 1 or 0 instead of a flag")
    if isinstance(array, Tensor):
        if array.is_complex():
            refuse(name, expected, f"one of {array.dtype}", "take its .real")
        return array.to(torch.float64, copy=True)
    if array.dtype.kind == "O":
        array = _from_objects(name, array, expected)
    if array.dtype.kind not in "biuf":
        refuse(name, expected, f"one of {array.dtype.name}", "real numbers only")
    return torch.from_numpy(np.array(array, dtype=np.float64, order="C"))


def integers(name: str, values: Any, expected: str = "integers") -> Tensor:
    """An array of integers as a new dense tensor of int64.

    Args:
        name: of the argument, for the message.
        values: as :func:`numbers` takes them. Booleans and whole floats are not integers.
        expected: what it should be, for the message.

    Raises:
        ValueError: for anything else, or if it holds anything but integers of 64 bits.
    """
    an_array = "an array of integers" if expected == "integers" else expected
    array = read(name, values, an_array)
    if isinstance(array, Tensor):
        if array.dtype not in INTEGERS:
            refuse(name, expected, f"{array.dtype}", "convert whole numbers with .long()")
        return array.to(torch.int64, copy=True)
    if array.size and array.dtype.kind not in "iu":
        advice = "convert whole numbers with astype(int)"
        refuse(name, expected, f"an array of {array.dtype.name}", advice)
    if array.size and array.max() > np.iinfo(np.int64).max:
        refuse(name, "integers below 2**63", str(array.max()), "number them from 0")
    return torch.from_numpy(np.array(array, dtype=np.int64, order="C"))


def weights(name: str, values: Any, *shapes: tuple[int, ...]) -> Tensor:
    """Weights ≥ 0 as a new tensor of float64, with no row of zeros only.

    Args:
        name: of the argument, for the message.
        values: an array of numbers.
        shapes: the shapes that are allowed.

    Raises:
        ValueError: if it has another shape, or a weight is negative or not finite.
    """
    array = numbers(name, values)
    if tuple(array.shape) not in shapes:
        expected = f"shape {' or '.join(str(list(s)) for s in shapes)}"
        refuse(name, expected, str(list(array.shape)), "one weight for each")
    total = array.sum(-1)
    if (array < 0).any() or not ((total > 0) & total.isfinite()).all():
        came = f"numbers from {array.min().item():g} to {array.max().item():g}"
        advice = "what has weight zero is impossible"
        refuse(name, "finite weights ≥ 0, not all of them zero", came, advice)
    return array


def read(name: str, values: Any, expected: str) -> NDArray[Any] | Tensor:
    """A dense array of whatever type values have: torch's own for tensors, else NumPy's.

    Args:
        name: of the argument, for the message.
        values: as :func:`numbers` takes them.
        expected: what it should be, for the message.

    Raises:
        ValueError: if it cannot be read.
    """
    if isinstance(values, Tensor):
        if not is_dense(values):
            came = f"a torch tensor of layout {values.layout} on {values.device}"
            advice = "take .to_dense(), or for large transitions matrices of scipy.sparse"
            refuse(name, f"{expected}, dense", came, advice)
        return values
    try:
        if scipy.sparse.issparse(values):
            array = values.toarray()
        else:
            array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    except MemoryError as error:
        refuse(name, f"{expected} that fits into memory", str(error), "make it smaller")
    except Exception as error:  # whatever an object's own conversion raises
        raise ValueError(f"{name}: expected {expected}: {_one_line(error)}") from None
    if np.ma.is_masked(values):
        refuse(name, expected, "one with masked entries", "fill them")
    if array.dtype.kind == "O" and array.ndim == 0 and not isinstance(values, Number):
        advice = "lists, arrays and data frames are taken"
        refuse(name, expected, type(values).__name__, advice)
    return array


def is_dense(values: Any) -> bool:
    """Whether values are a dense (strided) torch tensor."""
    if not isinstance(values, Tensor) or values.layout != torch.strided:
        return False
    return not (values.is_nested or values.is_quantized or values.is_meta)


def _from_objects(name: str, array: NDArray[Any], expected: str) -> NDArray[Any]:
    """Fractions, decimals and integers of any size as float64; anything else is refused."""
    try:
        return np.array([_real(x) for x in array.flat]).reshape(array.shape)
    except Exception as error:  # whatever an object's own conversion raises
        raise ValueError(f"{name}: expected {expected}: {_one_line(error)}") from None


def _real(x: Any) -> float:
    if isinstance(x, str | bytes) or np.iscomplexobj(x):
        raise TypeError(f"{type(x).__name__} in it")
    return float(x)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def of_step(x: Tensor, t: int, dims: int) -> Tensor:
    """What is the same at every step, of so many dimensions, or else that of step t."""
    return x[t] if x.dim() > dims else x
