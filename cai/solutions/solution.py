"""The solution of a finite horizon: its chain, marginals and samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.numerics import logspace, memory
from cai.numerics.exclusive import cached_property
from cai.numerics.matrices import Array
from cai.program.trajectories import Trajectories
from cai.solutions import marginals, sampling, walk
from cai.solutions.chain import Chain
from cai.solutions.solution_step import SolutionStep, check_time
from cai.sweeps import sweeps
from cai.tables import bellman, evidence, messages
from cai.tables.evidence import Evidence
from cai.tables.table import Table

_CHUNK = 2**22  # numbers held at once when a field of shape (T, S, A, K) is walked through


@dataclass(frozen=True, eq=False, repr=False)
class Solution(Chain):
    """The soft Bellman solution at one optimism η, and its own chain q: the one it believes in.

    η = 1 is the exact posterior p(τ|O): dynamics and initial state are conditioned on optimality
    too. η = 0 is the best policy in the true dynamics. T steps, S states, A actions; V and Q in
    units of reward, bounds in nats. Fields beyond V are computed on demand.

    Attributes:
        table: the problem that was solved, with a finite horizon.
        optimism: η.
        log_values: (T+1, S), nats, V_t(s)/α; at η = 1 the log of Levine's backward message.
        rule: how actions are chosen, "soft", "hard", "boltzmann" or "planned". Statements about
            η = 1 and the ELBO are meant for the soft rule; the others do not count
            KL(policy‖prior).
        weights: numbers that the backward sweep keeps for the forward one; None once used.

    Raises:
        ValueError: if the horizon is infinite, or a value is NaN.

    >>> from cai import inference, models
    >>> solution = inference.posterior(models.ledge())
    >>> solution.V.shape, solution.dynamics(0).shape, solution.marginal("s_1", "a_1").shape
    (torch.Size([5, 5]), torch.Size([5, 2, 5]), torch.Size([5, 2]))
    """

    weights: Array | None = field(default=None, init=False)

    @classmethod
    def solve(cls, table: Table, eta: float, rule: bellman.Rule = "soft") -> Solution:
        """The solution of a finite horizon at one optimism η, by one backward sweep."""
        if rule != "soft" or not sweeps.by_products(table, eta):
            return cls(table, eta, sweeps.backward(table, eta, rule), rule)
        last, steps = table.final_reward / table.temperature, table.horizon or 0  # None: see below
        v, weights = sweeps.backward_with_weights(table, eta, last, steps)
        solution = cls(table, eta, v)
        vars(solution)["weights"] = weights  # not a field: copies may have other values
        return solution

    def __getstate__(self) -> dict[str, Any]:
        """The state without the weights, which may be large and can be recomputed."""
        return vars(self) | {"weights": None}

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.finite_horizon(self.table, "a solution with an axis of steps")

    def dynamics(self, t: int) -> Tensor:
        """(S, A, S): q(s_{t+1}|s_t,a_t) ∝ p(s'|s,a) exp(η (r⁺ + V_{t+1}(s'))/α).

        At η = 1 that is p(s_{t+1}|s_t,a_t,O). A row sums to the probability of surviving the
        step, which is one without a discount. At a dead end, the true dynamics.

        Args:
            t: the step, 0 ≤ t < T.

        Raises:
            ValueError: for a step outside the horizon.
        """
        checks.check_step(t, self.table.steps)
        return self._dense_dynamics(slice(t, t + 1))

    def tilt(self, t: int) -> Tensor:
        """(S, A), nats: KL(q(s_{t+1}|s_t,a_t) ‖ p(s_{t+1}|s_t,a_t)), termination included.

        1/η times this is what the bound pays for the dynamics of that step; zero at η = 0 and at
        dead ends.

        Args:
            t: the step, 0 ≤ t < T.

        Raises:
            ValueError: for a step outside the horizon.
        """
        checks.check_step(t, self.table.steps)
        with self.table.threads():
            return self._tilt(slice(t, t + 1))[0]

    @cached_property
    def log_forward(self) -> Tensor:
        """(T+1, S), nats: log α_t(s) = log p(s_t=s, alive, O_{0:t-1}), the forward message.

        A joint probability, where Levine (2018, section 2.3) normalises it to p(s_t | O_{0:t-1}):
        log_forward + log_backward - log_evidence is the log of ``states``. What is observed of
        s_t itself is in the backward message.

        Raises:
            AttributeError: at any η but 1.
        """
        self._check_exact("log_forward")
        return messages.forward(self.table, self._known)

    def marginal(self, *sites: str) -> Tensor:
        """The distribution of a site by name, or the joint of several, at any steps.

        "s_3" (S,), "a_2" (A,), a latent of the dynamics "t3/slip" (in the order of its
        ``enumerate_support``), and any of them together, such as ``marginal("s_2", "a_2", "s_9")``
        (S, A, S), with an axis for each in the order given. Under the solution's own chain; at
        η = 1, given O. With a discount they count trajectories that are alive at all of these
        steps, and sum to the probability of that; "alive_4", by itself, is (2,), terminated and
        alive. Each step in between costs a product of its transitions with S times the size of the
        joint so far, from the end where that is smaller.

        Raises:
            ValueError: for a site that the program does not have or that is named twice, latents
                of a table that was made without a program, or a joint too large to be held.
        """
        return marginals.marginal(self, sites)

    def sample(self, samples: int, seed: int | None = None) -> Trajectories:
        """Independent trajectories of the solution's own chain; at η = 1, of p(τ|O).

        With a discount, trajectories terminate; afterwards they continue by the prior and the true
        dynamics, as in the program.

        Args:
            samples: how many.
            seed: makes the draw reproducible; None draws from torch's generator.

        Raises:
            ValueError: if samples is not a whole number of at least 1.
        """
        return sampling.sample(self, samples, seed)

    def piece(self, steps: slice) -> Solution:
        """The solution of steps start … stop - 1 as a problem of their own."""
        values = self.log_values[steps.start : steps.stop + 1]
        return replace(self, table=self.table.at(steps), log_values=values)

    def at(self, t: int) -> SolutionStep:
        """Step t alone: V, Q, policy, state_actions and dynamics without an axis for time.

        Made for long horizons and many states, where (T, S, A) numbers are too many.

        Args:
            t: the step, 0 ≤ t ≤ T.

        Raises:
            ValueError: for a step outside the horizon.
        """
        check_time(self.table, t)
        return SolutionStep(t, self.states[t], self.piece(slice(t, min(t + 1, self.table.steps))))

    @cached_property
    def states(self) -> Tensor:
        """(T+1, S): q(s_t=s, alive) under the solution's own chain; at η = 1, p(s_t=s|O)."""
        if not self._by_products:
            return self._forward[0]
        weights = vars(self).pop("weights", None)  # once: they may be as large as all policies
        return sweeps.forward(self.table, self.optimism, self.log_values, self.initial, weights)

    @cached_property
    def state_actions(self) -> Tensor:
        """(T, S, A): q(s_t=s, a_t=a, alive) under its own chain; at η = 1, p(s_t,a_t|O)."""
        with self.table.threads():
            return self.states[:-1].unsqueeze(-1) * self._log_policy.exp()

    @cached_property
    def visits(self) -> Tensor:
        """(S, A): Σ_t q(s_t=s, a_t=a, alive), the expected counts of actions in states."""
        if not self._by_products:
            return self.state_actions.sum(0)
        return sweeps.visits(self.table, self.optimism, self.log_values, self.states)

    @cached_property
    def imagined_return(self) -> float:
        """(), reward units: E[Σ rewards] under the solution's own start, dynamics and policy."""
        if not self._by_products:
            return self._forward[1]
        before = sweeps.imagined(self.table, self.optimism, self.log_values, self.states)
        return before + sweeps.final(self.table, self.states[-1])

    def log_policy(self, steps: slice) -> Tensor:
        """log π_t(a|s), (steps, S, A), nats."""
        return self.piece(steps)._log_policy

    def log_transitions(self, steps: slice) -> Tensor:
        """log q(s'|s,a) of each successor, surviving or not, (steps, S, A, K), nats."""
        return self._log_bent[steps] if self._keeps_bent else self._tilted(steps)

    def termination(self, steps: slice) -> tuple[Tensor, Tensor]:
        """log (γ, 1-γ), and the values of surviving and terminating, (steps, S, 2), nats."""
        return bellman.termination(self.log_values[1:][steps], self.table.discount)

    @property
    def _by_products(self) -> bool:
        """Whether matrix products can be used, which assume the soft policy."""
        return self.rule == "soft" and sweeps.by_products(self.table, self.optimism)

    @cached_property
    def _log_Q(self) -> Tensor:
        size = (len(self.log_values) - 1) * self.table.num_states * self.table.num_actions
        advice = "take solution.at(t), one step at a time"
        memory.check_fits("Q", "values of all steps, states and actions", size, advice)
        if self._by_products:
            return sweeps.action_values(self.table, self.optimism, self.log_values)
        with self.table.threads():
            return self._action_values()

    def _action_values(self) -> Tensor:
        table, after, eta = self.table, self.log_values[1:], self.optimism
        n = max(1, _CHUNK // table.num_outcomes)
        parts = (slice(t, min(t + n, len(after))) for t in range(0, len(after), n))
        found = [bellman.action_values(table.at(steps), after[steps], eta) for steps in parts]
        return torch.cat(found or [after.new_zeros(0, table.num_states, table.num_actions)])

    def _outcome_values(self, steps: slice) -> Tensor:
        """(r⁺ + continuation)/α of each outcome, (steps, S, A, K), nats."""
        now, after = self.table.at(steps), self.log_values[1:][steps]
        return bellman.outcome_values(now, after, self.optimism)

    @property
    def _known(self) -> Evidence:
        """All that is observed."""
        return evidence.none(self.table)

    @cached_property
    def _keeps_bent(self) -> bool:
        return self.table.steps * self.table.num_outcomes <= _CHUNK

    @cached_property
    def _log_bent(self) -> Tensor:
        return self._tilted(slice(None))

    def _tilted(self, steps: slice) -> Tensor:
        true = self.table.at(steps).log_dynamics
        return logspace.tilt(true, self._outcome_values(steps), self.optimism)

    @cached_property
    def _forward(self) -> tuple[Tensor, float]:
        """The forward sweep: states (T+1, S) and the imagined return."""
        with self.table.threads():
            return walk.forward(self, self._stretches(), self._log_policy)

    def _stretches(self) -> Iterator[slice]:
        T, n = self.table.steps, max(1, _CHUNK // self.table.num_outcomes)
        return (slice(t, min(t + n, T)) for t in range(0, T, n))


def solved(table: Table, eta: float, rule: bellman.Rule = "soft") -> Solution:
    """The solution of a table with a finite horizon.

    Raises:
        ValueError: if the evidence is zero.
    """
    solution = Solution.solve(table, eta, rule)
    if solution.log_values[0].isneginf().any():  # else the bound is finite
        check_possible(table, eta, solution.bound)
    return solution


def check_possible(table: Table, eta: float, bound: float) -> None:
    """Raises ValueError if there is nothing to condition on, given the bound at η, nats."""
    if bound == -math.inf and (eta > 0 or _impossible(table)):
        raise ValueError(
            "evidence: p(O) = 0, no trajectory has a reward above -inf, so there is nothing to "
            "condition on; look for rewards of -inf that cannot be avoided within the horizon, or "
            "make them finite"
        )


def _impossible(table: Table) -> bool:
    """Whether log p(O) = -inf, since even the best case is impossible."""
    v = table.final_reward / table.temperature
    for t in range(table.steps - 1, -1, -1):
        v = bellman.backup(table.at(t), v, math.inf)
    return logspace.soft_mean(table.log_initial, v, math.inf).item() == -math.inf
