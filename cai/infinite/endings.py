"""How an infinite horizon ends: which states have value 0, which -inf, and which a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order
from torch import Tensor

from cai.tables import bellman
from cai.tables.table import Table

_FAR = 1e14  # rewards, or nats: nothing that converges gets there
_WINDOW = 500  # sweeps within which values of -inf must show


class Diverges(ValueError):
    """There are no stationary values, or none was found."""


class Undetermined(Diverges):
    """Values repeat to rounding errors, but nothing bounds them: others may repeat as well."""


@dataclass(frozen=True, eq=False)
class Endings:
    """What is known of the values of an infinite horizon before any is computed.

    Attributes:
        ended: (S,), boolean: from here nothing is ever paid; V = 0.
        live: (S,), boolean: the trajectory can be absorbed, or terminate, at no infinite cost; V is
            a number, if there is one. The other states are lost, V = -inf, unless going on for ever
            pays.
    """

    ended: Tensor
    live: Tensor

    def filled(self, v: Tensor) -> Tensor:
        """The values v (S,) of live states, with 0 and -inf in the others."""
        return torch.where(self.live, v, torch.where(self.ended, 0.0, -torch.inf))


def endings(table: Table, eta: float) -> Endings:
    """Which states end at an optimism η.

    Without a discount the end must be reached: for η > 0 by some way, since the dynamics bend
    towards it; for η ≤ 0 surely, by some choice of actions. Actions whose cost may be infinite are
    not among them.
    """
    ended = torch.from_numpy(never_paid(table))
    if table.discount < 1:
        return Endings(ended, _never_at_infinite_cost(table, eta, ended) & ~ended)
    if eta > 0:
        usable = (table.log_weights > -torch.inf).flatten(1)
        tails, column = usable.nonzero(as_tuple=True)
        heads = table.successor_index[tails, column]
        return Endings(ended, reaching(tails, heads, ended) & ~ended)
    return Endings(ended, _surely_ending(table, ended) & ~ended)


def endings_at_worst(table: Table) -> Endings:
    """Which states end whatever happens, by some choice of actions, at η = -∞.

    Nature puts off the end wherever it can, as it does where going on costs. A discount does not
    help, for it kills nobody who would rather be dead.
    """
    ended = torch.from_numpy(never_paid(table))
    affordable, possible, heads = _affordable(table)
    inside = ended
    while True:
        forced = (affordable & (inside[heads] | ~possible).all(-1)).any(-1)
        if torch.equal(forced, inside):
            return Endings(ended, inside & ~ended)
        inside = forced


def _never_at_infinite_cost(table: Table, eta: float, ended: Tensor) -> Tensor:
    """The states whose value is not -inf for rewards of -inf, with a discount."""
    alive = torch.ones_like(ended)
    while True:
        v = torch.where(alive | ended, 0.0, -torch.inf).double()
        still = bellman.backup(table, v, eta) > -torch.inf
        if torch.equal(still, alive):
            return alive
        alive = still


def _surely_ending(table: Table, ended: Tensor) -> Tensor:
    """The states from which some choice of actions ends with probability one."""
    affordable, possible, heads = _affordable(table)
    inside = torch.ones_like(ended)
    while True:
        stays = (inside[heads] | ~possible).all(-1) & affordable
        usable = possible & stays.unsqueeze(-1)
        tails, action, k = usable.nonzero(as_tuple=True)
        found = reaching(tails, heads[tails, action, k], ended)
        if torch.equal(found, inside):
            return inside
        inside = found


def may_go_on(table: Table) -> Tensor:
    """(S,), boolean: the states from which the trajectory may never end, for some actions.

    From the others the end is sure whatever is done, if late: some way to it is always possible.
    """
    _, possible, heads = _affordable(table)
    ended = torch.from_numpy(never_paid(table))
    allowed = possible.any(-1)
    closed = ~ended  # the states that some choice of actions never leaves, in the end
    while True:
        stays = allowed & (closed[heads] | ~possible).all(-1)
        inside = closed & stays.any(-1)
        if torch.equal(inside, closed):
            break
        closed = inside
    tails, column = possible.flatten(1).nonzero(as_tuple=True)
    return reaching(tails, table.successor_index[tails, column], closed)


def _affordable(table: Table) -> tuple[Tensor, Tensor, Tensor]:
    """Actions that never cost -inf (S, A), what is possible and where to, (S, A, K) each."""
    S, A = table.num_states, table.num_actions
    possible = possible_transitions(table).reshape(S, A, -1)
    costs_all = (table.log_weights == -torch.inf) & possible
    affordable = (table.log_prior > -torch.inf) & ~costs_all.any(-1)
    return affordable, possible, table.successor_index.reshape(S, A, -1)


def never_paid(table: Table) -> Any:
    """(S,), boolean: the states from which no move that pays can ever be reached.

    Their value is 0, like that of absorbing states, though they may run in circles.
    """
    possible = possible_transitions(table)
    paying = (possible & paying_transitions(table)).any(1)
    tails, column = possible.nonzero(as_tuple=True)
    return ~reaching(tails, table.successor_index[tails, column], paying).numpy()


def reaching(tails: Tensor, heads: Tensor, targets: Tensor) -> Tensor:
    """(S,), boolean: the states from which moves tail -> head lead to a target (S,), or are one."""
    S = len(targets)
    # Backwards from a node of its own, S, to the targets, and on to the states before them.
    at = targets.nonzero().squeeze(1).numpy()
    rows = np.concatenate([heads.numpy(), np.full(len(at), S)])
    columns = np.concatenate([tails.numpy(), at])
    graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(S + 1, S + 1))
    found = torch.zeros(S + 1, dtype=torch.bool)
    order = breadth_first_order(graph, S, return_predecessors=False)
    found[torch.from_numpy(order).long()] = True
    return found[:S]


def possible_transitions(table: Table) -> Tensor:
    """(S, A·K), boolean: what prior and dynamics allow, whatever it pays."""
    possible = (table.log_prior.unsqueeze(-1) > -torch.inf) & (table.log_dynamics > -torch.inf)
    return possible.reshape(table.num_states, -1)


def paying_transitions(table: Table) -> Tensor:
    """(S, A·K), boolean: whether a move pays or costs anything."""
    pays = table.outcome_rewards != 0
    return pays.expand(table.log_dynamics.shape).reshape(table.num_states, -1).clone()


def check_lost(table: Table, ends: Endings, eta: float, rule: bellman.Rule) -> None:
    """Raises where going on for ever does not cost more and more in the states that are lost.

    They have values of -inf if some w has T w < w, or T w = -inf, everywhere among them; what is
    outside counts as zero, which a bounded number stands for.
    """
    lost = ~(ends.live | ends.ended)
    if not lost.any():
        return
    w = torch.zeros(table.num_states, dtype=torch.float64)
    for _ in range(_WINDOW):
        backed_up = torch.where(lost, bellman.backup(table, w, eta, rule), 0.0)
        falls = (backed_up < w - 1e-12 * (1 + w.abs())) | (backed_up == -torch.inf)
        if bool(falls[lost].all()):
            return
        # Half a step: circles of an even length would oscillate.
        w = torch.where(backed_up > -torch.inf, (w + backed_up) / 2, -torch.inf)
        if w[lost].max() > far(table):
            break
    raise Diverges("going on for ever costs nothing")


def far(table: Table) -> float:
    """What is too far to get to, nats, at the size of these rewards."""
    sizes = [table.reward] if table.arrival_reward is None else [table.reward, table.arrival_reward]
    return _FAR * max(1.0, *(largest(x / table.temperature) for x in sizes))


def largest(v: Tensor) -> float:
    """The largest finite |v|, nats."""
    return torch.where(v.isfinite(), v.abs(), 0.0).max().item()
