"""Which states of an infinite horizon have value 0, which -inf, and which a finite value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order
from torch import Tensor

from cai.tables import bellman
from cai.tables.table import Table

_FAR = 1e14  # rewards, or nats: nothing that converges gets there


class Diverges(ValueError):
    """There are no stationary values, or none was found."""


class Undetermined(Diverges):
    """The values settled up to rounding errors, but could not be certified as the fixed point."""


@dataclass(frozen=True, eq=False)
class Endings:
    """What is known about the values of an infinite horizon before computing them.

    Attributes:
        ended: (S,), boolean: no reward can follow from here; V = 0.
        live: (S,), boolean: the trajectory can be absorbed, or terminate, at a finite cost; V is
            finite, if there is a solution. The other states have V = -inf, unless going on for ever
            is profitable.
    """

    ended: Tensor
    live: Tensor

    def filled(self, v: Tensor) -> Tensor:
        """The values v (S,) of live states, with 0 or -inf in the others."""
        return torch.where(self.live, v, torch.where(self.ended, 0.0, -torch.inf))


def endings(table: Table, eta: float) -> Endings:
    """The endings at an optimism η.

    Without a discount an absorbing state must be reached: for η > 0 with positive probability,
    since the dynamics shift towards it; for η ≤ 0 with probability one, by some choice of actions.
    Actions whose cost may be infinite are excluded.
    """
    ended = never_paid(table)
    if table.discount < 1:
        return Endings(ended, at_finite_cost(table, eta, ended) & ~ended)
    if eta > 0:
        return Endings(ended, _leading(table, table.log_weights > -torch.inf, ended) & ~ended)
    return Endings(ended, _surely_ending(table, ended) & ~ended)


def endings_at_worst(table: Table) -> Endings:
    """The endings at η = -∞: where some choice of actions ends whatever nature does.

    Nature avoids the end wherever it can if going on is costly. A discount does not help: nature
    does not terminate a trajectory that would be better off terminated.
    """
    ended = never_paid(table)
    affordable, possible, heads = _affordable(table)
    inside = _settled(
        lambda inside: (affordable & (inside[heads] | ~possible).all(-1)).any(-1), ended
    )
    return Endings(ended, inside & ~ended)


def at_finite_cost(table: Table, eta: float, ended: Tensor, rule: bellman.Rule = "soft") -> Tensor:
    """(S,), boolean: the states that can go on for ever without a reward of -inf, or have ended."""

    def possible(alive: Tensor) -> Tensor:
        v = torch.where(alive | ended, 0.0, -torch.inf).double()
        return bellman.backup(table, v, eta, rule) > -torch.inf

    return _settled(possible, torch.ones_like(ended))


def _surely_ending(table: Table, ended: Tensor) -> Tensor:
    """The states from which some choice of actions ends with probability one."""
    affordable, possible, heads = _affordable(table)

    def ending(inside: Tensor) -> Tensor:
        stays = (inside[heads] | ~possible).all(-1) & affordable
        return _leading(table, possible & stays.unsqueeze(-1), ended)

    return _settled(ending, torch.ones_like(ended))


def _settled(change: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """The states (S,), boolean, that are left once a change of them, made again, changes none."""
    while not torch.equal(after := change(states), states):
        states = after
    return states


def may_go_on(table: Table) -> Tensor:
    """(S,), boolean: the states from which the trajectory may never end, for some actions.

    From the others the end comes with probability one under every policy.
    """
    _, possible, heads = _affordable(table)
    allowed = possible.any(-1)

    def staying(closed: Tensor) -> Tensor:
        return closed & (allowed & (closed[heads] | ~possible).all(-1)).any(-1)

    closed = _settled(staying, ~never_paid(table))  # that some choice of actions never leaves
    return _leading(table, possible, closed)


def _affordable(table: Table) -> tuple[Tensor, Tensor, Tensor]:
    """Actions without rewards of -inf (S, A), possible transitions and successors, (S, A, K)."""
    S, A = table.num_states, table.num_actions
    possible = possible_transitions(table).reshape(S, A, -1)
    costs_all = (table.log_weights == -torch.inf) & possible
    affordable = (table.log_prior > -torch.inf) & ~costs_all.any(-1)
    return affordable, possible, table.successor_index.reshape(S, A, -1)


def never_paid(table: Table) -> Tensor:
    """(S,), boolean: the states from which no transition with a nonzero reward can be reached.

    Their value is 0, like that of absorbing states, though trajectories may run in circles.
    """
    possible = possible_transitions(table)
    paying = (possible & paying_transitions(table)).any(1)
    return ~_leading(table, possible, paying)


def _leading(table: Table, usable: Tensor, targets: Tensor) -> Tensor:
    """(S,), boolean: from which states usable transitions (S, A, K) lead to a target (S,)."""
    others = (~targets).nonzero().squeeze(1)  # how one goes on from a target does not matter
    at, column = usable.flatten(1)[others].nonzero(as_tuple=True)
    tails = others[at]
    return reaching(tails, table.successor_index[tails, column], targets)


def reaching(tails: Tensor, heads: Tensor, targets: Tensor) -> Tensor:
    """(S,), boolean: the targets, and the states from which edges tail -> head lead to one."""
    S = len(targets)
    # Backwards from an extra node S, which is joined to all targets.
    at = targets.nonzero().squeeze(1).numpy()
    rows = np.concatenate([heads.numpy(), np.full(len(at), S)])
    columns = np.concatenate([tails.numpy(), at])
    graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(S + 1, S + 1))
    found = torch.zeros(S + 1, dtype=torch.bool)
    order = breadth_first_order(graph, S, return_predecessors=False)
    found[torch.from_numpy(order).long()] = True
    return found[:S]


def possible_transitions(table: Table) -> Tensor:
    """(S, A·K), boolean: the transitions that prior and dynamics allow, whatever their reward."""
    possible = (table.log_prior.unsqueeze(-1) > -torch.inf) & (table.log_dynamics > -torch.inf)
    return possible.reshape(table.num_states, -1)


def paying_transitions(table: Table) -> Tensor:
    """(S, A·K), boolean: the transitions with a nonzero reward."""
    pays = table.outcome_rewards != 0
    return pays.expand(table.log_dynamics.shape).reshape(table.num_states, -1).clone()


def far(table: Table) -> float:
    """A value, nats, beyond which values with these rewards do not converge."""
    return _FAR * max(1.0, *reward_sizes(table))


def reward_sizes(table: Table) -> list[float]:
    """The largest finite reward, and the largest on arrival if there are any, nats."""
    rewards = [table.reward, table.arrival_reward]
    return [largest(r / table.temperature) for r in rewards if r is not None]


def largest(v: Tensor) -> float:
    """The largest finite |v|, nats."""
    return torch.where(v.isfinite(), v.abs(), 0.0).max().item()
