"""A categorical distribution over a short list of successors.

Lists of its own, since the matrices of ``scipy.sparse`` have two axes, not states, actions and
steps, and no gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from cai.checks import check_count, refuse
from cai.numerics.arrays import INTEGERS, is_dense


class SparseCategorical(TorchDistribution):
    """p(s'|s,a) over K listed successors, for models in which few of many states can follow.

    A dense ``Categorical`` over S states costs S numbers for every state and action; this costs
    K. A state may be listed more than once, its probabilities add up.

    Args:
        logits: log-probabilities up to a constant, shape (..., K); -inf for impossible.
        successors: integers in 0 … num_states - 1, shape (..., K); 0 … K-1 if not given.
        num_states: S, the size of the support; K if not given.

    Raises:
        ValueError: if they are not dense tensors, or their shapes do not broadcast.

    >>> import torch, cai
    >>> move = cai.SparseCategorical(torch.zeros(2), torch.tensor([10, 20]), num_states=1000)
    >>> move.log_prob(torch.tensor(20)).exp().item()
    0.5
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012 - as torch declares it
    has_enumerate_support = True

    def __init__(
        self,
        logits: Tensor,
        successors: Tensor | None = None,
        num_states: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        K = _check(logits, successors)
        if num_states is not None:
            check_count("num_states", num_states)
        # Both are copies: the caller may write into the originals later.
        listed = torch.arange(K) if successors is None else successors.clone()
        self.successors, self.logits = torch.broadcast_tensors(listed, logits.log_softmax(-1))
        self.num_states = K if num_states is None else num_states
        try:
            super().__init__(self.logits.shape[:-1], validate_args=validate_args)
        except ValueError:
            refuse("logits", "numbers, some above -inf in each row", "NaN", "look for 0/0 or -inf")

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        """The integers 0 … S - 1."""
        return constraints.integer_interval(0, self.num_states - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SparseCategorical:
        """The same distribution with a larger batch shape."""
        shape = (*batch_shape, self.logits.shape[-1])
        new: Any = SparseCategorical.__new__(SparseCategorical) if _instance is None else _instance
        new.successors, new.logits = self.successors.expand(shape), self.logits.expand(shape)
        new.num_states = self.num_states
        super(SparseCategorical, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """States, shape sample_shape + batch_shape."""
        shape = self._extended_shape(sample_shape)
        chosen = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)
        listed = self.successors.expand(*shape, self.successors.shape[-1])
        return listed.gather(-1, chosen.reshape(shape).unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(s'); -inf for a state that is not listed."""
        if self._validate_args:
            self._validate_sample(value)
        here = value.unsqueeze(-1) == self.successors
        return torch.where(here, self.logits, -torch.inf).logsumexp(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All S states, along a new leftmost dimension."""
        states = torch.arange(self.num_states)
        states = states.reshape(-1, *(1,) * len(self.batch_shape))
        return states.expand(-1, *self.batch_shape) if expand else states


def _check(logits: Any, successors: Any) -> int:
    """K; raises ValueError unless both are dense tensors that broadcast with one another."""
    if not is_dense(logits) or not logits.is_floating_point() or not sum(logits.shape[-1:]):
        refuse("logits", "a dense tensor of floating point, (..., K)", _what(logits), "K ≥ 1")
    if successors is None:
        return int(logits.shape[-1])
    if not is_dense(successors) or successors.dtype not in INTEGERS:
        refuse("successors", "a dense tensor of integers, (..., K)", _what(successors), "or None")
    if logits.shape[-1:] != successors.shape[-1:]:
        came = f"shapes {list(logits.shape)} and {list(successors.shape)}"
        refuse("logits, successors", "as many of both, (..., K)", came, "impossible ones at -inf")
    return int(logits.shape[-1])


def _what(x: Any) -> str:
    return f"{x.dtype}, {x.layout}" if isinstance(x, Tensor) else repr(x)
