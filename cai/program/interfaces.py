"""The signatures on one page: of a user's functions, of policies, and of a program as it is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai.program.layout import Layout

Dynamics: TypeAlias = Callable[[Tensor, Tensor], TorchDistribution]
"""(s, a) -> p(s'|s,a)."""

Reward: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(s, a) -> r(s,a) in reward units."""

ArrivalReward: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(s, a, s') -> r⁺(s,a,s') in reward units."""

FinalReward: TypeAlias = Callable[[Tensor], Tensor]
"""s -> r_T(s) in reward units."""

Observe: TypeAlias = Callable[[Tensor], Tensor]
"""s -> what is seen of it: numbers or vectors, for states of any batch shape."""

ValueFunction: TypeAlias = Callable[[Any, Tensor], Tensor]
"""(t, s) -> V_t(s) in reward units, for t and s that broadcast."""

Policy: TypeAlias = Callable[[Any, Tensor], TorchDistribution]
"""q(a_t|s_t): t is an int or an integer tensor that broadcasts with the batch shape of s."""

Episode: TypeAlias = Callable[[Any, Tensor, Tensor | None], Any]
"""(t, s_t, a_{t-1}) -> q(a_t | all that was seen), for one run over all steps in order."""


class Remembers(Protocol):
    """A policy with a memory, which is asked step by step."""

    def start(self) -> Episode:
        """A fresh episode, or a batch of them side by side. It may draw latents of the policy."""


class HasLatents(Protocol):
    """A policy that draws latents z in ``start``, or when it is asked for its first action."""

    def reverse(self, states: list[Tensor], actions: list[Tensor], alive: list[Tensor]) -> None:
        """A Pyro program that draws z by r(z|τ); see ``TrajectoryModel.with_auxiliary``."""


class Sums(Protocol):
    """A policy that can sum out its latents."""

    def marginal(self) -> Policy:
        """The same policy without them."""


class Unrolls(Protocol):
    """A policy that prepares for a run over all steps, so that each of them costs less."""

    def unroll(self) -> Policy:
        """The same policy for one run."""


class Program(Protocol):
    """What running and checking a program asks of it; see ``cai.TrajectoryModel``."""

    @property
    def initial(self) -> TorchDistribution:
        """p(s_0)."""

    @property
    def horizon(self) -> int | None:
        """T, or None."""

    @property
    def temperature(self) -> float:
        """α."""

    @property
    def discount(self) -> float:
        """γ."""

    @property
    def optimality(self) -> str:
        """How rewards enter: "factor" or "bernoulli"."""

    @property
    def layout(self) -> Layout | None:
        """Names and places."""

    @property
    def overridden(self) -> frozenset[str]:
        """Which of the methods below a subclass has its own version of."""

    @property
    def pays_on_arrival(self) -> bool:
        """Whether there is a reward r⁺(s,a,s')."""

    @property
    def pays_at_end(self) -> bool:
        """Whether there is a reward r_T(s)."""

    def prior(self, s: Tensor, t: Any) -> TorchDistribution:
        """p(a|s) at step t."""

    def transition(self, s: Tensor, a: Tensor, t: Any) -> TorchDistribution:
        """p(s'|s,a) at step t."""

    def log_factor(self, s: Tensor, a: Tensor, s_next: Tensor, t: Any) -> Tensor:
        """(r(s,a) + r⁺(s,a,s'))/α at step t, nats."""

    def rewards(self, s: Tensor, a: Tensor, t: Any) -> Tensor:
        """r(s,a) at step t."""

    def arrival_rewards(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        """r⁺(s,a,s')."""

    def final_rewards(self, s: Tensor) -> Tensor:
        """r_T(s)."""
