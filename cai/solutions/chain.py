"""The common part of exact solutions: values, policy, and the dynamics that they believe in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

from torch import Tensor

from cai import checks, notebook
from cai.frames.data_set import to_xarray
from cai.numerics import logspace
from cai.numerics.differences import differs
from cai.numerics.exclusive import cached_property
from cai.policies.tabular import TabularPolicy
from cai.program.interfaces import ExactBelief, Forms
from cai.tables import bellman
from cai.tables.evidence import Evidence
from cai.tables.table import Table


@dataclass(frozen=True, eq=False, repr=False)
class Chain(ExactBelief):
    """A Bellman solution at one optimism η, and its own Markov chain q: the one it believes in.

    With a finite horizon T a :class:`Solution`, whose fields have a first axis of steps; with an
    infinite one a :class:`Stationary`, whose fields have none. S states, A actions. Methods with an
    argument ``steps``, a slice, return an axis of steps in both.

    Attributes:
        table: the problem that was solved.
        optimism: η.
        log_values: (T+1, S) or (S,), nats, V_t(s)/α.
        rule: how actions are chosen, "soft", "hard", "boltzmann" or "planned". Statements about
            η = 1 and the ELBO are meant for the soft rule; the others do not count
            KL(policy‖prior).
        evidence: what is observed besides optimality, in :class:`Conditioned`; or None.
    """

    table: Table
    optimism: float
    log_values: Tensor
    rule: bellman.Rule = "soft"

    evidence: ClassVar[Evidence | None] = None

    def __post_init__(self) -> None:
        advice = "look for 0/0 or inf - inf where the values were computed"
        checks.check_no_nan("log_values", self.log_values, advice)

    to_xarray = to_xarray

    def __repr__(self) -> str:
        rule = "" if self.rule == "soft" else f"rule={self.rule!r}, "
        what = f"optimism={self.optimism:g}, {rule}bound={self.bound:.6g} nats"
        return f"{type(self).__name__}({what})"

    def _repr_html_(self) -> str:
        """The numbers for a notebook, and on a map values and most probable actions."""
        rows = [("optimism", f"{self.optimism:g}"), ("bound (nats)", f"{self.bound:.6g}")]
        rows += [("rule", self.rule)] * (self.rule != "soft")
        best = self.log_policy(slice(1))[0].argmax(-1)
        caption = "value (nats) and most probable action at step 0"
        shown = notebook.on_map(self.table.layout, self.first_values, caption, best)
        return notebook.card(type(self).__name__, rows, shown)

    @property
    def conditioned(self) -> bool:
        """Whether anything but the optimality of all steps is observed."""
        return self.evidence is not None

    def is_of(self, problem: Forms) -> bool:
        """Whether it solves a problem, number for number."""
        names = {x.name for x in fields(Table) if x.init} - {"layout", "program"}
        mine, other = self.table, problem.table
        return mine is other or (other is not None and differs(mine, other, names) is None)

    def mixed(
        self, parts: Sequence[Self], table: Table, log_values: Tensor, rounding: float
    ) -> Self:
        """The solution of a mixture of problems, from those of its parts and the values (T+1, S).

        Args:
            parts: solutions of one kind.
            table: the mixture.
            log_values: of it, nats.
            rounding: reward units, by how much these may be off where the parts are not.
        """
        return replace(self, table=table, log_values=log_values)

    @property
    def V(self) -> Tensor:
        """(T+1, S) or (S,), reward units: V_t(s); at η = 1, α log p(O_{t:T}|s_t=s)."""
        return self.table.temperature * self.log_values

    @cached_property
    def Q(self) -> Tensor:
        """(T, S, A) or (S, A), reward units: Q_t(s,a); at η = 1, α log p(O_{t:T}|s_t=s, a_t=a)."""
        return self.table.temperature * self._log_Q

    @cached_property
    def policy(self) -> TabularPolicy:
        """π_t(a|s) ∝ p(a|s) exp(Q_t(s,a)/α); at η = 1, p(a_t|s_t,O). At dead ends the prior.

        With the hard rule it is the prior restricted to the actions of the highest Q.
        """
        return TabularPolicy.from_log_probs(self._log_policy)

    @property
    def first_values(self) -> Tensor:
        """(S,), nats: V_0(s)/α, the value of starting in each state."""
        return self.log_values if self.log_values.dim() == 1 else self.log_values[0]

    @cached_property
    def bound(self) -> float:
        """(), nats: (1/η) log E_{s_0} exp(η V_0/α); E[V_0]/α at η = 0."""
        return logspace.soft_mean(self.table.log_initial, self.first_values, self.optimism).item()

    @property
    def log_backward(self) -> Tensor:
        """(T+1, S) or (S,), nats: log β_t(s) = log p(O_{t:T} | s_t=s, alive).

        Levine's backward message. At another η the chain is π(τ) (p(τ,O)/π(τ))^η e^{-η bound}, with
        π(τ) its policy in the true dynamics: ηV/α would be the backward message, and log ``states``
        - ηV/α + η bound the forward one, but both depend on the policy that is sought.

        Raises:
            AttributeError: at any η but 1, or another rule than the soft one.
        """
        self._check_exact("log_backward")
        return self.log_values

    @cached_property
    def log_initial(self) -> Tensor:
        """(S,), nats: log q(s_0), the initial distribution that the method believes in."""
        return logspace.tilt(self.table.log_initial, self.first_values, self.optimism)

    @property
    def initial(self) -> Tensor:
        """(S,): q(s_0) ∝ p(s_0) exp(η V_0(s_0)/α); at η = 1, p(s_0|O)."""
        return self.log_initial.exp()

    @property
    @abstractmethod
    def states(self) -> Tensor:
        """Occupancies of states, alive, under the solution's own chain."""

    def imagined_states(self) -> Tensor:
        """The same as ``states``, as comparisons ask for it."""
        return self.states

    @property
    @abstractmethod
    def state_actions(self) -> Tensor:
        """Occupancies of states and actions, alive, under the solution's own chain."""

    @property
    @abstractmethod
    def visits(self) -> Tensor:
        """(S, A): the expected number of times that an action is taken in a state, alive."""

    @property
    @abstractmethod
    def imagined_return(self) -> float:
        """(), reward units: E[Σ rewards] under the solution's own start, dynamics and policy."""

    @cached_property
    def tilt_start(self) -> float:
        """(), nats: KL(q(s_0) ‖ p(s_0))."""
        return logspace.kl(self.log_initial, self.table.log_initial).item()

    @cached_property
    def tilt_dynamics(self) -> float:
        """(), nats: Σ_t E_q[KL(q(s_{t+1}|s_t,a_t) ‖ p(s_{t+1}|s_t,a_t))]."""
        return self.expected(self._tilt)

    @property
    def total_tilt(self) -> float:
        """(), nats: tilt_start + tilt_dynamics; d bound/dη = total_tilt/η² for finite η ≠ 0.

        (Not under the Boltzmann rule, whose policy does not maximise the bound.)
        """
        return self.tilt_start + self.tilt_dynamics

    @cached_property
    def entropy(self) -> float:
        """(), nats: the entropy of the trajectories up to termination, at η = 1 of p(τ|O)."""
        return logspace.entropy(self.log_initial).item() + self.expected(self._surprise)

    def expected(
        self, nats: Callable[[slice], Tensor], state_actions: Tensor | None = None
    ) -> float:
        """Σ_t E_q[x_t(s_t, a_t)] while alive.

        Args:
            nats: a slice of steps -> x, (steps, S, A).
            state_actions: (T, S, A) or (S, A), how often another chain is expected there instead.
        """
        visits = self.state_actions if state_actions is None else state_actions
        total = 0.0
        with self.table.threads():
            for steps in self._stretches():
                now = visits[steps] if visits.dim() > 2 else visits
                total += logspace.product(now, nats(steps)).sum().item()
        return total

    @abstractmethod
    def dynamics(self, t: int) -> Tensor:
        """(S, A, S): q(s_{t+1}|s_t,a_t), alive."""

    @abstractmethod
    def log_policy(self, steps: slice) -> Tensor:
        """log π_t(a|s), (steps, S, A), nats."""

    @abstractmethod
    def log_transitions(self, steps: slice) -> Tensor:
        """log q(s'|s,a) of each successor, surviving or not.

        Args:
            steps: which t, within 0 … T-1.

        Returns:
            (steps, S, A, K), nats, whether or not the step is survived.
        """

    @abstractmethod
    def termination(self, steps: slice) -> tuple[Tensor, Tensor]:
        """The true log-probabilities of survival and termination on arrival, and their values.

        Args:
            steps: which t, within 0 … T-1; the arrival is in step t+1.

        Returns:
            log (γ, 1-γ), (2,), and (steps, S, 2), both in nats.
        """

    def log_survival(self, steps: slice) -> Tensor:
        """log q(alive|s') on arrival in each state s', (steps, S), nats."""
        log_p, x = self.termination(steps)
        return logspace.tilt(log_p, x, self.optimism)[..., 0]

    def arrival_reward(self, t: int) -> Tensor | None:
        """r⁺ if step t is observed to be optimal, (S, A, K), reward units; or None."""
        return self.table.at(t).arrival_reward

    def _tilt(self, steps: slice) -> Tensor:
        """KL(q(s',alive|s,a) ‖ p(s',alive|s,a)) of each state and action, (steps, S, A), nats."""
        log_q = self.log_transitions(steps)
        nats = logspace.kl(log_q, self.table.at(steps).log_dynamics)
        if self.table.discount < 1:
            log_p, x = self.termination(steps)
            on_arrival = logspace.kl(logspace.tilt(log_p, x, self.optimism), log_p)
            nats = nats + (log_q.exp() * self.table.gather(on_arrival)).sum(-1)
        return nats

    def _surprise(self, steps: slice) -> Tensor:
        """-log q(a|s) plus the entropy of q(s',alive|s,a), (steps, S, A), nats.

        Its expectation over actions is the entropy of one step.
        """
        log_q = self.log_transitions(steps)
        nats = logspace.entropy(log_q) - self.log_policy(steps)
        if self.table.discount < 1:
            on_arrival = logspace.entropy(logspace.tilt(*self.termination(steps), self.optimism))
            nats = nats + (log_q.exp() * self.table.gather(on_arrival)).sum(-1)
        return nats

    def _dense_dynamics(self, steps: slice) -> Tensor:
        """q(s',alive|s,a) of one step, (S, A, S)."""
        self.table.check_dense()
        with self.table.threads():
            log_q = self.log_transitions(steps)[0]
            if self.table.discount < 1:
                log_q = log_q + self.table.gather(self.log_survival(steps)[0])
            return self.table.dense(log_q)

    @cached_property
    def _log_policy(self) -> Tensor:
        with self.table.threads():
            return bellman.log_policy(self.table, self._log_Q, self.rule)

    @property
    @abstractmethod
    def _log_Q(self) -> Tensor:
        """(T, S, A) or (S, A), nats: Q/α."""

    @abstractmethod
    def _stretches(self) -> Iterable[slice]:
        """All steps in slices for which a field (steps, S, A, K) fits into memory."""

    def _check_exact(self, name: str) -> None:
        if self.optimism != 1 or self.rule != "soft":
            raise AttributeError(
                f"{name}: messages are sums over trajectories of p(τ, O), at optimism 1 and with "
                f"the soft rule, not at {self.setting()}: there the weights hold the policy that "
                "is sought, π(τ) (p(τ, O)/π(τ))^η, and say nothing that .V and .states do not; "
                "take these, or inference.posterior(model)"
            )
