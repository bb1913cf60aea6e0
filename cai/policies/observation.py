"""What a policy sees of the state: observe(s), any function of it, invertible or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.program.interfaces import Observe
from cai.program.trajectory import TrajectoryModel, told
from cai.tables.finite import log_prior_table, prior_sees_state, require_finite


def blind(s: Tensor) -> Tensor:
    """Zeros, whatever the state: the observation of a policy that sees nothing.

    Args:
        s: states of any batch shape.

    Returns:
        Zeros of the same shape and type.

    >>> import cai
    >>> from cai import models
    >>> plan = cai.TabularPolicy(models.ledge(), observe=cai.blind)
    >>> plan.logits.shape[1]  # one row for all states
    1
    """
    return torch.zeros_like(s)


class View:
    """The network input of a state, and the action prior given the observation only.

    States 0 … S-1, or their observations, are encoded as one-hot vectors; other states or
    observations as flat rows of numbers.

    Args:
        model: the model, which gives the space of states.
        observe: s -> what is seen of it; everything if not given.

    Attributes:
        size: how many numbers a state becomes.

    Raises:
        ValueError: if observe does not broadcast, or the prior depends on what it hides.
    """

    def __init__(self, model: TrajectoryModel, observe: Observe | None = None) -> None:
        checks.check_model(model, sampled=True)
        self._prior, self._observe = ActionPrior.of(model), observe
        self._event = len(model.initial.event_shape)
        self._seen: Tensor | None = None
        self._log_prior: Tensor | None = None
        S = support_size(model.initial)
        if S is not None and observe is not None:
            self._seen = classes(model, observe)
            if support_size(model.prior(torch.zeros((), dtype=torch.long), 0)) is not None:
                self._log_prior = shared_log_prior(model, self._seen)
        elif observe is not None:
            s = model.initial.sample((3,))
            self.size = look(observe, s, 3)[0].numel()
        self._kinds = S if self._seen is None else int(self._seen.max()) + 1
        if self._kinds is not None:
            self.size = self._kinds
        elif observe is None:
            self.size = model.initial.event_shape.numel()
        if observe is not None and self._log_prior is None and prior_sees_state(model):
            checks.refuse(
                "action_prior",
                "one density for all states when there is observe=",
                "a function of the state, which reveals what is not observed",
                "give the model a distribution",
            )

    def features(self, s: Tensor, dtype: torch.dtype) -> Tensor:
        """(..., size) numbers, of states of batch shape (...)."""
        if self._kinds is not None:
            index = s.long() if self._seen is None else self._seen[s.long()]
            return torch.nn.functional.one_hot(index, self._kinds).to(dtype)
        seen = s if self._observe is None else self._observe(s)
        return seen.reshape(*s.shape[: s.dim() - self._event], -1).to(dtype)

    def inputs(self, t: Any, s: Tensor, dtype: torch.dtype, timed: bool) -> Tensor:
        """What a network sees: the features, with the time in front or without it."""
        return self.timed(t, s, dtype) if timed else self.features(s, dtype)

    def timed(self, t: Any, s: Tensor, dtype: torch.dtype) -> Tensor:
        """(..., 1 + size): t/T in front of the features, t an int or a tensor of steps."""
        state = self.features(s, dtype)
        scale = float(self._prior.horizon or 1)
        if isinstance(t, int):
            time = torch.full_like(state[..., :1], t / scale)
        else:
            time = t.to(dtype).unsqueeze(-1) / scale
            time, _ = torch.broadcast_tensors(time, state[..., :1])
            state = state.expand(*time.shape[:-1], -1)
        return torch.cat([time, state], -1)

    def prior(self, s: Tensor, t: Any) -> TorchDistribution:
        """p(a|s); with ``observe`` shared by all states that look alike."""
        if self._log_prior is None or self._seen is None:
            return self._prior(s, t)
        seen = self._seen[s.long()]
        by_step = self._log_prior.dim() == 3
        return dist.Categorical(logits=self._log_prior[(t, seen) if by_step else seen])


class Numbers:
    """The values of a distribution as rows of numbers: one-hot for 0 … n-1, else flattened.

    Attributes:
        size: how many numbers a value becomes.
    """

    def __init__(self, distribution: TorchDistribution) -> None:
        self._kinds, self._event = support_size(distribution), len(distribution.event_shape)
        self.size = self._kinds or distribution.event_shape.numel()

    def __call__(self, value: Tensor) -> Tensor:
        """(..., size), of values of batch shape (...)."""
        if self._kinds is not None:
            return torch.nn.functional.one_hot(value.long(), self._kinds).to(
                torch.get_default_dtype()
            )
        return value.reshape(*value.shape[: value.dim() - self._event], -1)


@dataclass(frozen=True, eq=False)
class ActionPrior:
    """p(a|s) and the horizon of a model, which is all that a policy keeps of it.

    So policies can be pickled even if dynamics and rewards cannot.

    Attributes:
        given: the distribution, or the function of the state; or a model that overrides it.
        horizon: T, or None.
    """

    given: Any
    horizon: int | None

    @classmethod
    def of(cls, model: TrajectoryModel) -> ActionPrior:
        """The prior of a model."""
        given = model if "prior" in model.overridden else model.action_prior
        return cls(given, model.horizon)

    def __deepcopy__(self, memo: dict[int, Any]) -> ActionPrior:
        return self  # immutable, and heads cache by the identity of the distribution

    def __call__(self, s: Tensor, t: Any) -> TorchDistribution:
        """p(a|s) at step t for states of any batch shape."""
        if isinstance(self.given, Distribution):
            return self.given
        overrides = hasattr(self.given, "prior")
        return self.given.prior(s, t) if overrides else told(self.given, t, s)


def classes(model: TrajectoryModel, observe: Observe | None) -> Tensor:
    """The observation of each state, (S,), numbered 0, 1, …; the state itself if observe is None.

    Raises:
        ValueError: if the states are not finitely many, or observe does not broadcast.
    """
    S, _ = require_finite(model)
    s = torch.arange(S)
    if observe is None:
        return s
    seen = look(observe, s, S)
    for i in (0, S - 1):
        if not torch.equal(look(observe, s[i], None), seen[i]):
            checks.refuse(
                "observe",
                "the same observation of a state alone and in a batch",
                f"something else for state {i}",
                "treat each element on its own: torch.where instead of Python `if`",
            )
    return torch.unique(seen, dim=0, return_inverse=True)[1]


def look(observe: Observe, s: Tensor, length: int | None) -> Tensor:
    """The observations of states, checked to be a tensor with a row for each state."""
    try:
        seen: Any = observe(s) if callable(observe) else observe
    except Exception as error:
        checks.refuse(
            "observe",
            f"a function that takes states of shape {list(s.shape)}, {s.dtype}",
            f"one that raised {type(error).__name__}: {error}",
            "for instance lambda s: s % 4",
        )
    if not isinstance(seen, Tensor) or (length is not None and seen.shape[:1] != (length,)):
        checks.refuse(
            "observe",
            f"a tensor for states of shape {list(s.shape)}, with their shape in front",
            checks.described(seen),
            "for instance lambda s: s % 4, or lambda s: s[..., :2], or cai.blind",
        )
    return seen


def shared_log_prior(model: TrajectoryModel, observations: Tensor) -> Tensor:
    """The normalised geometric mean of p(a|s) over states that look alike, (O, A), logarithms.

    A policy that cannot tell states apart may only do what is allowed in all of them. If the prior
    depends on the step, (T, O, A).

    Raises:
        ValueError: if no action is.
    """
    log_prior = log_prior_table(model)
    count = observations.bincount().unsqueeze(1)
    total = log_prior.new_zeros(*log_prior.shape[:-2], len(count), log_prior.shape[-1])
    shared = total.index_add_(-2, observations, log_prior) / count
    nothing = ~(shared > -torch.inf).any(-1)
    if nothing.any():
        alikes = (observations == nothing.nonzero()[0, -1]).nonzero().flatten().tolist()
        checks.refuse(
            "action_prior",
            "an action that is allowed in all states that look alike",
            f"none for states {alikes}",
            "let a forbidden action stay in its state instead, or observe more",
        )
    return shared.log_softmax(-1)
