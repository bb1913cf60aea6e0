"""What things are asked for, on one page: functions of users, policies, programs, and beliefs."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    """A policy with a memory, which is called step by step."""

    def start(self) -> Episode:
        """A fresh episode, or a batch of them side by side. It may draw latents of the policy."""


class HasLatents(Protocol):
    """A policy that draws latents z in ``start``, or at its first action."""

    def reverse(self, states: list[Tensor], actions: list[Tensor], alive: list[Tensor]) -> None:
        """A Pyro program that draws z from r(z|τ); see ``TrajectoryModel.with_auxiliary``."""


class Sums(Protocol):
    """A policy that can sum out its latents."""

    def marginal(self) -> Policy:
        """The same policy without latents."""


class Unrolls(Protocol):
    """A policy that can prepare for a run over all steps, to make each step cheaper."""

    def unroll(self) -> Policy:
        """The same policy for one run."""


class Program(Protocol):
    """The interface of a program that can be run and checked; see ``cai.TrajectoryModel``."""

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
    def terminal(self) -> Callable[[Tensor], Tensor] | None:
        """Which states end an episode."""

    @property
    def layout(self) -> Layout | None:
        """Names and places."""

    @property
    def dynamics(self) -> Dynamics:
        """(s, a) -> p(s'|s,a), which ``transition`` asks unless it may change."""

    @property
    def overridden(self) -> frozenset[str]:
        """The methods below that a subclass overrides."""

    @property
    def may_change(self) -> frozenset[str]:
        """The methods below that may depend on the step."""

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

    def paid_on_arrival(self, s: Tensor, a: Tensor, s_next: Tensor, t: Any) -> Tensor:
        """r⁺(s,a,s') at step t."""

    def final_rewards(self, s: Tensor) -> Tensor:
        """r_T(s)."""


class Forms(Protocol):
    """A problem in the forms that it can be solved in; None for a form that it does not have."""

    @property
    def table(self) -> Any:
        """Its table."""

    @property
    def gaussian(self) -> Any:
        """Its linear-Gaussian model."""


class Belief(ABC):
    """Start and dynamics that a method believes in, perhaps other than the true ones.

    Solutions are beliefs, and so is a guide that bends the dynamics.

    Attributes:
        optimism: η; at 0 it believes in the true dynamics.
        rule: how actions are chosen. All but "soft" leave out of the bound what actions cost,
            KL(policy‖prior).
    """

    optimism: float
    rule: str = "soft"

    @property
    @abstractmethod
    def bound(self) -> float:
        """(), nats: what it believes it achieves."""

    @property
    @abstractmethod
    def imagined_return(self) -> float:
        """(), reward units: the expected return in what it believes."""

    def is_exact(self) -> bool:
        """Whether nothing is better at its optimism, where all is optimal and that is all seen."""
        return False

    def imagined_states(self) -> Tensor | None:
        """How often it expects each of finitely many states, alive; None if it does not say."""
        return None

    @abstractmethod
    def is_of(self, problem: Forms) -> bool:
        """Whether it is about a problem, number for number."""


class ExactBelief(Belief):
    """The belief that is best at its optimism by its rule, as an exact method returns it."""

    @property
    @abstractmethod
    def conditioned(self) -> bool:
        """Whether something else is observed than that all was optimal."""

    def is_exact(self) -> bool:
        """Whether it is by the soft rule, and of all o_t and nothing else."""
        return self.rule == "soft" and not self.conditioned

    @property
    def log_evidence(self) -> float:
        """(), nats: log p(O), the bound at η = 1.

        Raises:
            AttributeError: at any other η or rule, where the bound is another quantity.
        """
        if self.optimism != 1 or self.rule != "soft":
            raise AttributeError(
                f"log_evidence: the bound at {self.setting()} is not log p(O); "
                "take .bound, or inference.posterior(model).log_evidence"
            )
        return self.bound

    @property
    def elbo(self) -> float:
        """(), nats: the ELBO of the policy as a guide with the true dynamics, the bound at η = 0.

        Raises:
            AttributeError: at any other η, where the bound is under other dynamics, or with another
                rule, whose bound does not count KL(policy‖prior).
        """
        if self.optimism != 0 or self.rule != "soft":
            what = (
                "is under changed dynamics; the ELBO of its policy in the true ones"
                if self.optimism != 0
                else "does not count KL(policy‖prior); with it, the ELBO"
            )
            raise AttributeError(
                f"elbo: the bound at {self.setting()} {what} is "
                "cai.evaluate(model, solution.policy).elbo"
            )
        return self.bound

    def setting(self) -> str:
        """Its optimism, and its rule if it is not the soft one, for messages."""
        rule = "" if self.rule == "soft" else f" and rule {self.rule!r}"
        return f"optimism {self.optimism:g}{rule}"
