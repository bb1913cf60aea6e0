"""float64 as torch's default dtype, in this thread alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Types: TypeAlias = AbstractContextManager[Any]
"""The dtype of Python numbers; used around a user's functions alone, as it slows torch."""

AS_WRITTEN: Types = nullcontext()

_NAMED = (Tensor.float, Tensor.type)  # an explicit choice of dtype
_CHOICES = (torch.where, Tensor.where)  # whose condition stays as it is


class float64(TorchFunctionMode):  # noqa: N801 - used as a context manager
    """Python numbers in float64, so that ``Bernoulli(0.2)`` is 0.2 and not 0.200000003.

    ``torch.set_default_dtype`` would do that to all threads of the process. Here a call that made
    a tensor of the default dtype, from arguments without a dtype, is repeated in float64. Tensors
    that are float32 by choice stay float32.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or result.dtype is not torch.get_default_dtype():
            return result
        if result.dtype is torch.float64 or func in _NAMED:
            return result
        if func is torch.tensor and isinstance(args[0], int | float):
            # Even with a dtype: a distribution of numbers asks for the default dtype by name.
            return func(*args, **kwargs | {"dtype": torch.float64})
        given = list(_flat([*args, *kwargs.values()]))
        if any(_has_type(x) for x in given):
            return result
        try:
            if any(isinstance(x, Tensor) for x in given):
                wide = [_widened(x, func in _CHOICES) for x in args]
                return func(*wide, **{k: _widened(x, func in _CHOICES) for k, x in kwargs.items()})
            return func(*args, **kwargs | {"dtype": torch.float64})
        except (TypeError, RuntimeError):  # it takes no other dtype
            return result


def _flat(arguments: Any) -> Iterator[Any]:
    for x in arguments:
        if isinstance(x, list | tuple):
            yield from _flat(x)
        else:
            yield x


def _has_type(x: Any) -> bool:
    """Whether an argument determines the dtype of the result."""
    if isinstance(x, Tensor):
        return x.is_floating_point() or x.is_complex()
    return isinstance(x, torch.dtype) or (hasattr(x, "dtype") and not isinstance(x, float))


def _widened(x: Any, choice: bool) -> Any:
    """Integers as float64; in a ``where`` Python numbers as well, but not the condition."""
    if isinstance(x, Tensor):
        return x if choice and x.dtype is torch.bool else x.double()
    if isinstance(x, list | tuple):
        return type(x)(_widened(part, choice) for part in x)
    return torch.tensor(x, dtype=torch.float64) if choice and isinstance(x, float) else x
