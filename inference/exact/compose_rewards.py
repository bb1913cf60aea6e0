"""Policies for means of rewards, from the solutions of each: their bounds, and what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cai import checks
from cai.inference.exact.compose import check_one_setting, check_weights, listed
from cai.inference.infinite.stationary_values import stationary
from cai.numerics import arrays, logspace
from cai.numerics.differences import differs
from cai.numerics.exclusive import cached_property
from cai.policies.tabular import TabularPolicy
from cai.solutions.chain import Chain
from cai.tables import bellman
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class ComposedRewards:
    r"""The mean of solutions as a policy for the mean of their rewards, r = Σ_i w_i r_i.

    T steps, S states, A actions; with an infinite horizon there is no axis of steps. All but ``Q``
    is computed when it is asked for, in reward units. With π_Σ the ``policy``, and

        B(s) = log Σ_a Π_i π_i(a|s)^{w_i} ≤ 0

    how much the policies have in common (zero if they are one; for two with weights ½, minus half
    of Rényi's divergence of order ½), the optimal Q* and the Q of π_Σ are

        Q* = Q + correction,   correction = γ E[αB(s') + α log Σ_a π_Σ exp(correction(s',a)/α)]
        Q^π_Σ = Q - loss,            loss = γ E[-αB(s') + Σ_a π_Σ loss(s',a)]

        Q ≥ Q* ≥ Q - loss ≥ Q - gap,  gap = γ E[-αB(s') + max_a gap(s',a)]

    Attributes:
        table: the problem with the mean of the rewards.
        Q: (T, S, A) or (S, A), reward units: Σ_i w_i Q_i, no less than Q*.
        log_shares: (T, S, A) or (S, A), nats: Σ_i w_i log π_i(a|s).

    >>> import dataclasses
    >>> from cai import inference, models
    >>> one = models.ledge()
    >>> other = dataclasses.replace(one, reward=lambda s, a: -0.5 * (a == 1).double())
    >>> parts = [inference.soft_values(model) for model in (one, other)]
    >>> mean = inference.compose_rewards(parts, [0.5, 0.5])
    >>> bool((mean.correction <= 1e-12).all() and (mean.loss >= -1e-12).all())
    True
    """

    table: Table
    Q: Tensor
    log_shares: Tensor

    def __repr__(self) -> str:
        return f"ComposedRewards({self.table.num_states} states, {self.table.num_actions} actions)"

    @cached_property
    def policy(self) -> TabularPolicy:
        """π_Σ ∝ p exp(Q/α) ∝ Π_i π_i^{w_i}; the prior where the policies have no action in common.

        The best that can be had without solving anything.
        """
        return TabularPolicy.from_log_probs(self._log_policy)

    @cached_property
    def best_policy(self) -> TabularPolicy:
        """The optimal policy of the mean of the rewards, ∝ π_Σ exp(correction/α)."""
        q = self.correction / self.table.temperature
        return TabularPolicy.from_log_probs(logspace.tilt(self._log_policy, q, 1.0))

    @cached_property
    def correction(self) -> Tensor:
        """(T, S, A) or (S, A), reward units: Q* - Q ≤ 0, exactly.

        The soft Q of the same dynamics with π_Σ as prior, which pay γαB on arrival, and
        nothing else.
        """
        if self.table.horizon is not None:
            return self._swept(lambda log_pi, q: logspace.logsumexp(log_pi + q), self._log_policy)
        return self._stationary(dataclasses.replace(self._arrivals(1), log_prior=self._log_policy))

    @cached_property
    def loss(self) -> Tensor:
        """(T, S, A) or (S, A), reward units: Q - Q^π_Σ ≥ 0, exactly."""
        if self.table.horizon is not None:
            return -self._swept(logspace.mean, self._log_policy)
        arrivals = self._arrivals(1)
        followed = stationary(_following(arrivals, self._log_policy), 0.0)
        q = bellman.action_values(arrivals, followed.log_values, 0.0)
        return -self.table.temperature * q

    @property
    def shortfall(self) -> Tensor:
        """(T, S) or (S,), reward units: V* - V^π_Σ ≥ 0, the value lost by executing π_Σ.

        Zero where both are -inf.
        """
        q = self.correction / self.table.temperature
        regained = self.table.temperature * logspace.logsumexp(self._log_policy + q)
        left = regained - logspace.mean(self._log_policy, -self.loss)
        return torch.where(regained == -torch.inf, 0.0, left)

    @cached_property
    def gap(self) -> Tensor:
        """(T, S, A) or (S, A), reward units: Q ≥ Q* ≥ Q - gap (Haarnoja et al. 2018).

        The paper's bound, whose maximum over actions makes it far wider than ``loss``.

        Raises:
            ValueError: with an infinite horizon, if policies have no action in common somewhere,
                or there is no discount and one may meet where they differ again and again.
        """
        if self.table.horizon is not None:
            prior = self.table.log_prior.expand_as(self.Q)
            return -self._swept(_least, prior)
        if (self._overlap == -torch.inf).any():
            checks.refuse(
                "solutions",
                "policies with an action in common in each state",
                "some without in one, where the gap is infinite",
                "take .correction and .loss, which are exact",
            )
        return self._stationary(self._arrivals(-1), "hard")

    @cached_property
    def _overlap(self) -> Tensor:
        """B, (T, S) or (S,), nats."""
        return logspace.logsumexp(self.log_shares).clamp(max=0)

    @cached_property
    def _log_policy(self) -> Tensor:
        alone = self.log_shares.amax(-1, keepdim=True) == -torch.inf
        return logspace.log_softmax(torch.where(alone, self.table.log_prior, self.log_shares))

    def _swept(self, value: Callable[[Tensor, Tensor], Tensor], log_p: Tensor) -> Tensor:
        """q_t = γ E[B_{t+1} + value(log_p_{t+1}, q_{t+1})] in reward units, (T, S, A)."""
        still = _without_rewards(self.table)
        q, ahead = torch.empty_like(self.Q), torch.zeros_like(self.table.final_reward)
        for t in range(self.table.steps - 1, -1, -1):
            q[t] = bellman.action_values(still.at(t), ahead, 0.0)
            ahead = self._overlap[t] + value(log_p[t], q[t])
        return self.table.temperature * q

    def _arrivals(self, sign: int) -> Table:
        """The same dynamics, which pay ±γαB(s') on arrival."""
        table = self.table
        paid = table.discount * table.temperature * table.gather(self._overlap)
        possible = table.log_dynamics > -torch.inf
        paid = torch.where(possible, sign * paid, 0.0)
        return dataclasses.replace(_without_rewards(table), arrival_reward=paid)

    def _stationary(self, table: Table, rule: bellman.Rule = "soft") -> Tensor:
        v = stationary(table, 0.0, rule).log_values
        return self.table.temperature * bellman.action_values(table, v, 0.0)


def compose_rewards(solutions: Sequence[Chain], weights: Sequence[float]) -> ComposedRewards:
    r"""A policy for the mean of several rewards, r = Σ_i w_i r_i, from the solutions of each.

    The mean Q of soft values bounds that of the mean reward from above, and its policy, the
    normalised product of the policies, π_Σ ∝ Π_i π_i^{w_i}, comes close where these agree (Haarnoja
    et al. 2018, Composable deep reinforcement learning). How close it comes is known exactly, from
    one more problem that pays for disagreement alone; see :class:`ComposedRewards`. (Where exp(r/α)
    is to be averaged, as of goals of which one is enough, see :func:`compose`.)

    Args:
        solutions: at optimism 0, of problems that differ in their rewards alone: what is paid for
            acting, on arrival or at the end.
        weights: w_i > 0, which sum to one. A sum of n rewards at α is their mean at α/n.

    Returns:
        A :class:`ComposedRewards`: the mean of the Q, its policy, and, when they are asked for, the
        correction that makes it optimal, the loss of executing it, and the paper's bound.

    Raises:
        ValueError: if the problems differ in more than their rewards, the weights do not fit, or a
            solution is of another optimism, another rule, or holds observations.

    >>> import torch
    >>> from cai import inference, models
    >>> P = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).repeat(2, 1, 1)
    >>> def solved(reward):
    ...     return inference.soft_values(models.tabular(P, reward, horizon=None, discount=0.9))
    >>> one, other = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    >>> mixed = inference.compose_rewards([solved(one), solved(other)], [0.5, 0.5])
    >>> best = solved((one + other) / 2)
    >>> torch.allclose(mixed.Q + mixed.correction, best.Q)
    True
    """
    solutions = listed(solutions)
    w = arrays.numbers("weights", weights, "numbers above 0, one for each solution")
    check_weights(len(solutions), w)
    if abs(w.sum().item() - 1) > 1e-9:
        checks.refuse(
            "weights",
            "a sum of one",
            f"{w.sum().item():g}",
            "divide by it; and to have the sum of n rewards at α, solve each at α/n",
        )
    _check_solutions(solutions)
    tables = [solution.table for solution in solutions]
    _check_alike(tables)

    def mean(parts: Iterable[Tensor]) -> Tensor:
        same = torch.broadcast_tensors(*parts)  # some may have an axis of steps
        return torch.stack([x * part for x, part in zip(w / w.sum(), same, strict=True)]).sum(0)

    paid = [table.arrival_reward for table in tables]
    none = torch.zeros_like(tables[0].log_dynamics)
    table = dataclasses.replace(
        tables[0],
        reward=mean(table.reward for table in tables),
        arrival_reward=None
        if all(x is None for x in paid)
        else mean(none if x is None else x for x in paid),
        final_reward=mean(table.final_reward for table in tables),
    )
    return ComposedRewards(
        table,
        Q=mean(solution.Q for solution in solutions),
        log_shares=mean(solution.policy.log_probs for solution in solutions),
    )


def _check_solutions(solutions: Sequence[Chain]) -> None:
    for solution in solutions:
        if solution.conditioned or solution.optimism != 0 or solution.rule != "soft":
            held = " with observations" if solution.conditioned else ""
            checks.refuse(
                "solutions",
                "soft values at optimism 0, without observations",
                f"the rule {solution.rule!r} at optimism {solution.optimism:g}{held}",
                "elsewhere a mean of Q bounds nothing; take inference.soft_values(model)",
            )


def _check_alike(tables: Sequence[Table]) -> None:
    names = ("log_initial", "log_prior", "log_dynamics", "successors")
    for table in tables[1:]:
        if name := differs(tables[0], table, names):
            checks.refuse(
                "solutions",
                "problems that differ in their rewards alone",
                f"some whose {name} differ",
                "solve one model with one reward after the other",
            )
    check_one_setting(tables)


def _least(log_p: Tensor, q: Tensor) -> Tensor:
    return torch.where(log_p > -torch.inf, q, torch.inf).amin(-1)


def _without_rewards(table: Table) -> Table:
    return dataclasses.replace(
        table,
        reward=torch.zeros_like(table.reward),
        arrival_reward=None,
        final_reward=torch.zeros_like(table.final_reward),
        program=None,
    )


def _following(table: Table, log_policy: Tensor) -> Table:
    """The problem in which a policy acts, and nothing is left to choose: one action."""
    S = table.num_states
    paid = table.arrival_reward
    return dataclasses.replace(
        table,
        log_prior=torch.zeros(S, 1, dtype=torch.float64),
        log_dynamics=(log_policy.unsqueeze(-1) + table.log_dynamics).reshape(S, 1, -1),
        successors=table.successor_index.unsqueeze(1),
        reward=torch.zeros(S, 1, dtype=torch.float64),
        arrival_reward=None if paid is None else paid.reshape(S, 1, -1),
        layout=None,
    )
