"""Makes functions of plain tensors differentiable by autograd and all transforms of torch.func.

A sweep or a linear solve works on numbers, with branches that depend on them, and partly in NumPy.
The transforms of torch.func pass tensors that stand for a batch (vmap) or carry a tangent (jvp),
which such code cannot take. So it is wrapped: the function itself, its derivative, the derivative's
derivative and so on are each *one* operation, which sees plain tensors only.

The derivative is a pullback, (inputs, outputs, ∂loss/∂outputs) -> ∂loss/∂inputs, given by hand.
Higher derivatives are left to torch's tape, of a second form of the pullback that is written in
torch operations. Forward mode differentiates the pullback, which is linear in its last arguments:
jvp(t) = ∂/∂u ⟨pullback(u), t⟩. A batch is processed one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

Needed: TypeAlias = tuple[bool, ...]
"""Which of the inputs need a derivative."""

Tensors: TypeAlias = tuple[Tensor, ...]
Gradients: TypeAlias = tuple[Tensor | None, ...]
"""Of each input; None where none is wanted."""
P = ParamSpec("P")
R = TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """A function that ``torch.compile`` does not compile, since it branches on numbers."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            # Only now, since the compiler takes seconds to import.
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return called


def is_batch(x: Tensor) -> bool:
    """Whether a tensor is a batch within vmap, so that no branch can depend on it."""
    while is_wrapped(x):
        if torch._C._functorch.is_batchedtensor(x):
            return True
        x = torch._C._functorch.get_unwrapped(x)
    return False


def is_wrapped(x: Tensor) -> bool:
    """Whether a tensor comes from a transform of torch.func."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


@dataclass(frozen=True, eq=False)
class Operation:
    """A function of tensors with its derivative.

    Attributes:
        compute: (*inputs) -> outputs, plain tensors, the fast version.
        pullback: which inputs need a gradient -> the operation (*inputs, *outputs, *on_outputs) ->
            the gradients of those inputs.
        taped: as ``compute``, in operations that autograd differentiates; None if the pullback is
            given by hand.
    """

    compute: Callable[..., Tensors]
    pullback: Callable[[Needed], Operation]
    taped: Callable[..., Tensors] | None = None

    def __call__(self, *inputs: Tensor | None) -> Tensors:
        """The outputs, differentiable."""
        found: Tensors
        if torch._C._are_functorch_transforms_active():
            found = _Transformed.apply(self, *inputs)
        elif torch.is_grad_enabled() or forward_ad._current_level >= 0:
            found = _Taped.apply(self, *inputs)
        else:  # in most backward passes
            found = self.compute(*map(_plain, inputs))
        return found


def taped(
    function: Callable[..., Tensors], quick: Callable[..., Tensors] | None = None
) -> Operation:
    """A function of torch operations as an operation, to be differentiated by its tape.

    Args:
        function: (*inputs) -> outputs.
        quick: a faster function with the same results.
    """

    def pullback(needed: Needed) -> Operation:
        return taped(_vector_jacobian_product(function, needed))

    return Operation(quick or function, pullback, function)


def chosen(gradients: Gradients, needed: Needed) -> Tensors:
    """The gradients that are needed."""
    return tuple(g for g, each in zip(gradients, needed, strict=True) if each and g is not None)


def _vector_jacobian_product(
    function: Callable[..., Tensors], needed: Needed
) -> Callable[..., Tensors]:
    """(*inputs, *outputs, *on_outputs) -> the gradients of the inputs that are needed."""

    def gradients(*tensors: Tensor) -> Tensors:
        again, n = torch.is_grad_enabled(), len(needed)
        with torch.enable_grad():
            inputs = [_tracked(x) if on else x for x, on in zip(tensors, needed, strict=False)]
            outputs = function(*inputs)
            wanted = [x for x, each in zip(inputs, needed, strict=True) if each]
            return _taken_back(outputs, tensors[n + len(outputs) :], wanted, again)

    return gradients


def _pushforward(operation: Operation, moved: Needed, num_outputs: int) -> Operation:
    """(*inputs, *outputs, *tangents of the inputs that have some) -> tangents of the outputs."""
    back = operation.pullback(moved).taped
    assert back is not None

    def tangents(*tensors: Tensor) -> Tensors:
        again, first = torch.is_grad_enabled(), len(moved)
        last = first + num_outputs
        with torch.enable_grad():
            on = [torch.zeros_like(y).requires_grad_() for y in tensors[first:last]]
            return _taken_back(back(*tensors[:last], *on), tensors[last:], on, again)

    return taped(tangents)


def _tracked(x: Tensor) -> Tensor:
    """A separate leaf for an input, which may be used elsewhere."""
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def _taken_back(outputs: Tensors, on: Tensors, inputs: Sequence[Tensor], again: bool) -> Tensors:
    """Gradients of the inputs by torch's tape; with ``again`` differentiable once more."""
    pairs = [(y, g) for y, g in zip(outputs, on, strict=True) if y.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(x) for x in inputs)
    return torch.autograd.grad(
        [y for y, _ in pairs],
        inputs,
        [g for _, g in pairs],
        create_graph=again,
        allow_unused=True,
        materialize_grads=True,
    )


def _plain(x: Tensor | None) -> Tensor | None:
    return x.detach() if x is not None and x.requires_grad else x


class _Derivatives(torch.autograd.Function):
    """The derivatives of an operation, in reverse and forward mode."""

    @staticmethod
    def backward(ctx: Any, *on: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        found = iter(ctx.operation.pullback(needed)(*ctx.saved_tensors, *on))
        return None, *(next(found) if each else None for each in needed)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensors:
        moved = tuple(t is not None for t in tangents)
        forward = _pushforward(ctx.operation, moved, ctx.num_outputs)
        return forward(*ctx.saved_tensors, *(t for t in tangents if t is not None))


class _Taped(_Derivatives):
    """An operation for torch's tape: the most frequent case, which has to be fast."""

    @staticmethod
    def forward(ctx: Any, operation: Operation, *inputs: Tensor | None) -> Tensors:
        found = operation.compute(*(None if x is None else x.detach() for x in inputs))
        _save(ctx, operation, inputs, found)
        return found


class _Transformed(_Derivatives):
    """An operation for the transforms of torch.func."""

    @staticmethod
    def forward(operation: Operation, *inputs: Tensor | None) -> Tensors:
        return operation.compute(*(None if x is None else x.detach() for x in inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        _save(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], operation: Operation, *inputs: Tensor | None
    ) -> tuple[Tensors, Any]:
        results = []
        for i in range(info.batch_size):
            one = (
                x if x is None or dim is None else x.select(dim, i)
                for x, dim in zip(inputs, in_dims[1:], strict=True)
            )
            results.append(operation(*one))
        stacked = tuple(torch.stack(outputs) for outputs in zip(*results, strict=True))
        return stacked, (0,) * len(stacked)


def _save(
    ctx: Any, operation: Operation, inputs: tuple[Tensor | None, ...], outputs: Tensors
) -> None:
    ctx.operation, ctx.num_outputs = operation, len(outputs)
    ctx.save_for_backward(*inputs, *outputs)
    ctx.save_for_forward(*inputs, *outputs)
