"""What an exact method returns: values, policy, and the chain that the method believes in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.numerics import logspace, memory
from cai.numerics.matrices import Array
from cai.policies.neural import TabularPolicy
from cai.program.trajectories import Trajectories
from cai.solutions import marginals, sampling, walk
from cai.solutions.moment import Moment, check_time
from cai.tables import bellman, evidence, messages, sweeps
from cai.tables.evidence import Evidence
from cai.tables.table import Table

_CHUNK = 2**22  # numbers held at once when a field of shape (T, S, A, K) is walked through


@dataclass(frozen=True, eq=False)
class Solution:
    """The soft Bellman solution at one optimism η, and the bent chain it believes in.

    η = 1 is the exact posterior p(τ|O): dynamics and initial state are conditioned on optimality
    too. η = 0 is the best policy in the true dynamics. T steps, S states, A actions; V and Q in
    units of reward, bounds in nats. Fields beyond V are computed when they are asked for.

    Attributes:
        table: the problem that was solved.
        optimism: η.
        log_values: (T+1, S), nats, V_t(s)/α; at η = 1 the log of Levine's backward message.
        rule: how actions are chosen, "soft", "hard" or "boltzmann". What is said below of η = 1 and
            of the ELBO is said of the soft rule; the others put no price on choosing an action.
        evidence: what else is observed, at η = 1; then each O below stands for that and for the
            o_t that are observed, and bound for log p(observed, O). None where all o_t are
            observed and nothing else.
        weights: what the backward sweep left for the forward one, until that has used it; or None.
    """

    table: Table
    optimism: float
    log_values: Tensor
    rule: bellman.Rule = "soft"
    evidence: Evidence | None = None
    weights: Array | None = field(default=None, repr=False)

    @classmethod
    def solve(cls, table: Table, eta: float, rule: bellman.Rule = "soft") -> Solution:
        """The solution of a finite horizon at one optimism η, by one sweep backward."""
        if rule != "soft" or not sweeps.by_products(eta):
            return cls(table, eta, bellman.backward(table, eta, rule), rule)
        last = table.final_reward / table.temperature
        v, weights = sweeps.backward_with_weights(table, eta, last, table.steps)
        return cls(table, eta, v, weights=weights)

    def __getstate__(self) -> dict[str, Any]:
        """Without the weights, which may be many and can be computed again."""
        return vars(self) | {"weights": None}

    def __post_init__(self) -> None:
        advice = "look for 0/0 or inf - inf where the values are made"
        checks.check_no_nan("log_values", self.log_values, advice)

    def __repr__(self) -> str:
        rule = "" if self.rule == "soft" else f"rule={self.rule!r}, "
        return f"Solution(optimism={self.optimism:g}, {rule}bound={self.bound:.6g} nats)"

    @property
    def V(self) -> Tensor:
        """(T+1, S), reward units: V_t(s); at η = 1, α log p(O_{t:T}|s_t=s)."""
        return self.table.temperature * self.log_values

    @cached_property
    def Q(self) -> Tensor:
        """(T, S, A), reward units: Q_t(s,a); at η = 1, α log p(O_{t:T}|s_t=s, a_t=a)."""
        return self.table.temperature * self._log_Q

    @cached_property
    def policy(self) -> TabularPolicy:
        """π_t(a|s) ∝ p(a|s) exp(Q_t(s,a)/α); at η = 1, p(a_t|s_t,O). At dead ends the prior.

        The hard rule's is the prior, restricted to the actions of the highest Q.
        """
        return TabularPolicy.from_log_probs(self._log_policy)

    @property
    def first_values(self) -> Tensor:
        """(S,), nats: V_0(s)/α, what a start in each state is worth."""
        return self.log_values[0]

    @cached_property
    def bound(self) -> float:
        """(), nats: (1/η) log E_{s_0} exp(η V_0/α); E[V_0]/α at η = 0."""
        return logspace.soft_mean(self.table.log_initial, self.first_values, self.optimism).item()

    @property
    def log_evidence(self) -> float:
        """(), nats: log p(O), the bound at η = 1.

        Raises:
            AttributeError: at any other η or rule, where the bound is another quantity.
        """
        if self.optimism != 1 or self.rule != "soft":
            raise AttributeError(
                f"log_evidence: the bound at {self._dial} is not log p(O); "
                "take .bound, or inference.posterior(model).log_evidence"
            )
        return self.bound

    @property
    def elbo(self) -> float:
        """(), nats: the ELBO of the policy as a guide with the true dynamics, the bound at η = 0.

        Raises:
            AttributeError: at any other η, where the bound believes in other dynamics, or rule,
                where it does not count what choosing an action costs.
        """
        if self.optimism != 0 or self.rule != "soft":
            what = (
                "believes in bent dynamics; what its policy achieves in the true ones"
                if self.optimism != 0
                else "leaves out what its actions cost, KL(policy‖prior); with it, the ELBO"
            )
            raise AttributeError(
                f"elbo: the bound at {self._dial} {what} is "
                "cai.evaluate(model, solution.policy).elbo"
            )
        return self.bound

    @property
    def _dial(self) -> str:
        rule = "" if self.rule == "soft" else f" and rule {self.rule!r}"
        return f"optimism {self.optimism:g}{rule}"

    @cached_property
    def log_initial(self) -> Tensor:
        """(S,), nats: log q(s_0), the initial distribution that the method believes in."""
        return logspace.tilt(self.table.log_initial, self.first_values, self.optimism)

    @property
    def initial(self) -> Tensor:
        """(S,): q(s_0) ∝ p(s_0) exp(η V_0(s_0)/α); at η = 1, p(s_0|O)."""
        return self.log_initial.exp()

    def dynamics(self, t: int) -> Tensor:
        """(S, A, S): q(s_{t+1}|s_t,a_t) ∝ p(s'|s,a) exp(η (r⁺ + V_{t+1}(s'))/α).

        At η = 1 that is p(s_{t+1}|s_t,a_t,O). A row sums to the probability of surviving the
        step, which is one without a discount. From a dead end the true dynamics.

        Args:
            t: the step, 0 ≤ t < T.

        Raises:
            ValueError: for a step outside the horizon.
        """
        checks.check_step(t, self.table.steps)
        self.table.check_dense()
        with self.table.threads():
            log_q = self.log_transitions(slice(t, t + 1))[0]
            if self.table.discount < 1:
                log_q = log_q + self.table.gather(self.log_survival(slice(t, t + 1))[0])
            return self.table.dense(log_q)

    def bend(self, t: int) -> Tensor:
        """(S, A), nats: KL(q(s_{t+1}|s_t,a_t) ‖ p(s_{t+1}|s_t,a_t)), the coin of death included.

        What the method spends on luck in that step; zero at η = 0, and from a dead end.

        Args:
            t: the step, 0 ≤ t < T.

        Raises:
            ValueError: for a step outside the horizon.
        """
        checks.check_step(t, self.table.steps)
        with self.table.threads():
            return walk.bend(self, slice(t, t + 1))[0]

    @cached_property
    def bend_start(self) -> float:
        """(), nats: KL(q(s_0) ‖ p(s_0))."""
        return logspace.kl(self.log_initial, self.table.log_initial).item()

    @cached_property
    def bend_dynamics(self) -> float:
        """(), nats: Σ_t E_q[KL(q(s_{t+1}|s_t,a_t) ‖ p(s_{t+1}|s_t,a_t))], under the bent chain."""
        return walk.expected(self, walk.bend)

    @property
    def total_bend(self) -> float:
        """(), nats: bend_start + bend_dynamics; d bound/dη = total_bend/η² for finite η ≠ 0.

        (Not under the Boltzmann rule, whose policy does not maximise the bound.)
        """
        return self.bend_start + self.bend_dynamics

    @cached_property
    def entropy(self) -> float:
        """(), nats: the entropy of the chain's trajectories, at η = 1 of p(τ|O).

        Of start, actions, next states and coins of death, until the end or death; the ghost that
        runs on by the prior is not counted.
        """
        start = logspace.entropy(self.log_initial).item()
        return start + walk.expected(self, walk.surprise)

    @property
    def log_backward(self) -> Tensor:
        """(T+1, S), nats: log β_t(s) = log p(O_{t:T} | s_t=s, alive), Levine's backward message.

        At another η the bent chain is π(τ) (p(τ,O)/π(τ))^η e^{-η bound}, π(τ) its policy in the
        true dynamics. There ηV/α would be the backward message, and log ``states`` - ηV/α + η bound
        the forward one; as they are made of the answer, they are not given these names.

        Raises:
            AttributeError: at any η but 1.
        """
        self._check_exact("log_backward")
        return self.log_values

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
        return messages.forward(self.table, self.evidence or evidence.none(self.table))

    def marginal(self, *sites: str) -> Tensor:
        """The distribution of a site by name, or of several jointly, at whatever steps.

        "s_3" (S,), "a_2" (A,), a latent of the dynamics' own "t3/slip" (in the order of its
        ``enumerate_support``), and any of them together, such as ``marginal("s_2", "a_2", "s_9")``
        (S, A, S), with an axis for each in the order given. With a discount they count who is alive
        at all of their steps and sum to the probability of that; "alive_4", by itself, is (2,),
        dead and alive. Under the bent chain; at η = 1, given O. Each step in between costs a
        product of its moves with S times as many numbers as what is kept so far, from the side
        where that is less.

        Raises:
            ValueError: for a site that the program does not have or that is named twice, latents
                of a table that was made without a program, or a joint too large to be held.
        """
        return marginals.marginal(self, sites)

    def sample(self, n: int, seed: int | None = None) -> Trajectories:
        """Draws n independent trajectories of the bent chain; at η = 1, of p(τ|O).

        With a discount, trajectories die; the dead run on as ghosts by the prior and the true
        dynamics, as they do in the program.

        Args:
            n: how many.
            seed: makes the draw reproducible; None draws from torch's generator as it stands.

        Raises:
            ValueError: where the horizon is infinite, or n is no whole number of at least 1.
        """
        return sampling.sample(self, n, seed)

    def piece(self, steps: slice) -> Solution:
        """The solution of some steps, start … stop - 1, as if they were a problem of their own."""
        return replace(
            self,
            log_values=self.log_values[steps.start : steps.stop + 1],
            evidence=None if self.evidence is None else self.evidence.piece(steps),
            weights=None,
        )

    def at(self, t: int) -> Moment:
        """Step t alone: V, Q, policy, state_actions and dynamics without an axis for time.

        Made for long horizons and many states, where (T, S, A) numbers are too many.

        Args:
            t: the step, 0 ≤ t ≤ T.

        Raises:
            ValueError: for a step outside the horizon.
        """
        check_time(self.table, t)
        return Moment(t, self.states[t], self.piece(slice(t, min(t + 1, self.table.steps))))

    @cached_property
    def states(self) -> Tensor:
        """(T+1, S): q(s_t=s, alive) under the bent chain; at η = 1, p(s_t=s|O)."""
        if not self._by_products:
            return self._forward[0]
        weights = vars(self).pop("weights", None)  # once: they may be as large as all policies
        return sweeps.forward(self.table, self.optimism, self.log_values, self.initial, weights)

    @cached_property
    def state_actions(self) -> Tensor:
        """(T, S, A): q(s_t=s, a_t=a, alive) under the bent chain; at η = 1, p(s_t,a_t|O)."""
        with self.table.threads():
            return self.states[:-1].unsqueeze(-1) * self._log_policy.exp()

    @cached_property
    def visits(self) -> Tensor:
        """(S, A): Σ_t q(s_t=s, a_t=a, alive), how often an action is expected in a state."""
        if not self._by_products:
            return self.state_actions.sum(0)
        return sweeps.visits(self.table, self.optimism, self.log_values, self.states)

    @cached_property
    def imagined_return(self) -> float:
        """(), reward units: E[Σ rewards] under bent start, bent dynamics and own policy."""
        if not self._by_products:
            return self._forward[1]
        earned = sweeps.imagined(self.table, self.optimism, self.log_values, self.states)
        return earned + sweeps.final(self.table, self.states[-1])

    def _check_exact(self, name: str) -> None:
        if self.optimism != 1 or self.rule != "soft":
            raise AttributeError(
                f"{name}: messages are sums over trajectories of p(τ, O), at optimism 1 and with "
                f"the soft rule, not at {self._dial}: there the weights hold the policy that is "
                "sought, π(τ) (p(τ, O)/π(τ))^η, and say nothing that .V and .states do not; take "
                "these, or inference.posterior(model)"
            )

    @property
    def _by_products(self) -> bool:
        """Whether sweeps do it, which follow the soft policy and know of no other evidence."""
        soft = self.rule == "soft" and self.evidence is None
        return soft and sweeps.by_products(self.optimism)

    @cached_property
    def _log_Q(self) -> Tensor:
        size = self.table.steps * self.table.num_states * self.table.num_actions
        advice = "take solution.at(t), one step at a time"
        memory.check_fits("Q", "values of all steps, states and actions", size, advice)
        if self._by_products:
            return sweeps.action_values(self.table, self.optimism, self.log_values)
        with self.table.threads():
            if self.evidence is not None:
                return self.evidence.action_values(self.table, self.log_values, slice(None))
            n = max(1, _CHUNK // self.table.log_dynamics.numel())
            parts = self.log_values[1:].split(n)
            return torch.cat([bellman.action_values(self.table, v, self.optimism) for v in parts])

    @cached_property
    def _log_policy(self) -> Tensor:
        with self.table.threads():
            return bellman.log_policy(self.table, self._log_Q, self.rule)

    def log_transitions(self, steps: slice) -> Tensor:
        """log q(s'|s,a) of each successor, bent towards what the step after is worth.

        Args:
            steps: which t, within 0 … T-1.

        Returns:
            (steps, S, A, K), nats, whether or not the step is survived.
        """
        return self._log_bent[steps] if self._keeps_bent else self._bend(steps)

    def coin(self, steps: slice) -> tuple[Tensor, Tensor]:
        """The coin of death on arrival: log p (2,) of living and dying, and what each is worth.

        Args:
            steps: which t, within 0 … T-1; the coin falls on arrival in step t+1.

        Returns:
            log (γ, 1-γ), and (steps, S, 2) in nats.
        """
        dead = 0.0 if self.evidence is None else self.evidence.log_dead[1:][steps, None]
        return bellman.coin(self.log_values[1:][steps], self.table.discount, dead)

    def log_survival(self, steps: slice) -> Tensor:
        """log q(alive|s') on arrival in each state s', the bent coin of death, (steps, S), nats."""
        log_coin, x = self.coin(steps)
        return logspace.tilt(log_coin, x, self.optimism)[..., 0]

    @property
    def _keeps_bent(self) -> bool:
        return self.table.steps * self.table.log_dynamics.numel() <= _CHUNK

    @cached_property
    def _log_bent(self) -> Tensor:
        return self._bend(slice(None))

    def _bend(self, steps: slice) -> Tensor:
        if self.evidence is not None:
            x = self.evidence.outcome_values(self.table, self.log_values, steps)
        else:
            x = bellman.outcome_values(self.table, self.log_values[1:][steps], self.optimism)
        return logspace.tilt(self.table.log_dynamics, x, self.optimism)

    @cached_property
    def _forward(self) -> tuple[Tensor, float]:
        """The forward sweep: states (T+1, S) and the imagined return."""
        with self.table.threads():
            return walk.forward(self, self._log_policy)
