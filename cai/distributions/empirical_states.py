"""A set of starting states, from which training draws minibatches."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai import checks, one_line
from cai.numerics import arrays


class EmpiricalStates(TorchDistribution):
    """p(s_0) uniform over N given states, for models with continuous states.

    ``dataclasses.replace(model, initial=cai.EmpiricalStates(states))`` is the model that starts in
    one of them. A policy fitted to that model is amortised over all of them, and the trajectories
    of a training step are a minibatch, drawn with replacement.

    >>> import dataclasses, torch, cai
    >>> from cai import models
    >>> corners = torch.tensor([[-6.0, -6.0], [6.0, 6.0]])
    >>> model = dataclasses.replace(models.multigoal(), initial=cai.EmpiricalStates(corners))
    >>> model.initial.sample((5,)).shape
    torch.Size([5, 2])

    Args:
        states: (N,) + event shape, floating point.

    Raises:
        ValueError: if they are not finite, or are integers: for states 0 … S-1, p(s_0) is a
            Categorical, which exact inference can use.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __repr__(self) -> str:
        return one_line.named("EmpiricalStates", f"states={one_line.brief(self.states)}")

    def __init__(self, states: Tensor) -> None:
        if not arrays.is_dense(states) or not states.is_floating_point():
            came = type(states).__name__
            came = f"{states.dtype}, {states.layout}" if isinstance(states, Tensor) else came
            expected = "a dense tensor of floating point, (N,) + the shape of a state"
            advice = "for states 0 … S-1 take initial=dist.Categorical(counts)"
            checks.refuse("states", expected, came, advice)
        if states.dim() < 1 or not len(states) or not states.isfinite().all():
            checks.refuse(
                "states",
                "at least one row, of finite numbers",
                f"shape {list(states.shape)}" + ("" if states.isfinite().all() else " with others"),
                "for one start take dist.Delta",
            )
        self.states = states.clone()  # the caller may write into the original later
        super().__init__(torch.Size(), states.shape[1:], validate_args=False)

    @property
    def support(self) -> Any:
        """Real vectors, or numbers."""
        real = torch.distributions.constraints.real
        return torch.distributions.constraints.independent(real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> EmpiricalStates:
        """The same distribution with a larger batch shape."""
        new = EmpiricalStates.__new__(EmpiricalStates)
        new.states = self.states
        super(EmpiricalStates, new).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        return new

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Independent draws, shape sample_shape + batch_shape + event shape."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.states[torch.randint(len(self.states), shape)]

    def log_prob(self, value: Tensor) -> Tensor:
        """log of the fraction of the states that equal value; -inf if none does."""
        same = value.unsqueeze(-1 - len(self.event_shape)) == self.states
        if self.event_shape:
            same = same.flatten(-len(self.event_shape)).all(-1)
        share = same.double().mean(-1).log()
        return share.expand(torch.broadcast_shapes(share.shape, self.batch_shape))
