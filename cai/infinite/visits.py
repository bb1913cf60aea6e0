"""Expected visits of a time-homogeneous chain before it terminates."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from cai.infinite.endings import never_paid, reaching
from cai.infinite.transient import Transient
from cai.numerics.logspace import product
from cai.tables.table import Table

_LOST = 1e-6  # of the trajectories, by rounding errors


def counted(table: Table) -> Tensor:
    """(S,), boolean: the states whose visits count.

    With a discount all of them, until termination; without one, until no reward can follow.
    """
    if table.discount < 1:
        return torch.ones(table.num_states, dtype=torch.bool)
    return ~never_paid(table)


def answering(table: Table, moves: Tensor) -> Tensor:
    """(S,), boolean: the states whose values answer to a change of the rewards.

    Without a discount these are all but those in which the chain stays for ever unpaid: the value
    there is zero, and any reward would make it infinite.

    Args:
        table: the problem.
        moves: (S, A, K), nonzero where the chain moves while alive.
    """
    S = table.num_states
    if table.discount < 1:
        return torch.ones(S, dtype=torch.bool)
    unpaid = never_paid(table)
    among = unpaid.nonzero().squeeze(1)
    place, column = moves.detach()[among].flatten(1).nonzero(as_tuple=True)
    tails = among[place]
    heads = table.successor_index[tails, column]
    graph = csr_array((np.ones(len(tails)), (tails.numpy(), heads.numpy())), shape=(S, S))
    part = torch.from_numpy(connected_components(graph, connection="strong")[1]).long()
    left = torch.zeros(S, dtype=torch.bool)
    left[part[tails[part[tails] != part[heads]]]] = True
    return ~unpaid | left[part]


def expected_visits(table: Table, start: Tensor, moves: Tensor, survival: Tensor) -> Tensor:
    """Expected numbers of visits while alive, by the transposed system x (I - P) = start.

    Args:
        table: the problem.
        start: (S,), the start distribution.
        moves: (S, A, K), the probability of each action and successor, survival not included.
        survival: (S,), the probability of being alive on arrival in each state.

    Returns:
        (S,); their sum is the expected lifetime.

    Raises:
        ValueError: if the chain can reach a state from which it never terminates, or terminates so
            rarely that its lifetime is not known in float64.
    """
    count = counted(table)
    tails, column = (moves.flatten(1) > 0).nonzero(as_tuple=True)
    heads = table.successor_index[tails, column]
    on = count[heads] & (survival[heads] > 0)
    ends = torch.zeros_like(count)
    ends[tails[~count[heads] | (survival[heads] < 1)]] = True
    # Backwards over reversed edges is forwards: the states that the start can reach.
    seen = reaching(heads[on], tails[on], (start > 0) & count) & count
    lasting = seen & ~reaching(tails[on], heads[on], ends)
    if lasting.any():
        raise ValueError(
            f"policy: the trajectory never ends once it is in state {int(lasting.nonzero()[0])}, "
            "so that it has no finite number of visits, nor a return; take a policy that reaches "
            "the end from there with some probability, or a discount"
        )
    onto = table.gather(survival)
    left = table.gather(torch.where(seen, 1 - survival, 1.0))
    leaving = torch.where(seen, (moves * left).sum((1, 2)), 0.0)
    found = Transient(table, moves * onto, seen, leaving).visits(start).clamp(min=0)
    _check_ends(float((found * leaving).sum()), float(torch.where(seen, start, 0.0).sum()))
    return found


def _check_ends(ended: float, begun: float) -> None:
    """Raises ValueError unless as many trajectories end as begin, which the visits imply."""
    if not abs(ended - begun) <= _LOST * begun:
        raise ValueError(
            "policy: the trajectory ends so rarely that its number of visits is not known in "
            f"float64: of {begun:g} that begin, {ended:g} end by the visits that were found; take "
            "a policy that reaches the end sooner, or a discount"
        )


def of_policy(table: Table, log_policy: Tensor) -> tuple[Tensor, Tensor, float]:
    """Expected visits and return of a stationary policy in the true dynamics.

    Args:
        table: the problem.
        log_policy: (S, A), log q(a|s).

    Returns:
        Visits of states (S,), of states and actions (S, A), and E[Σ rewards] in reward units.

    Raises:
        ValueError: if the trajectory may never end under the policy.
    """
    moves = log_policy.exp().unsqueeze(-1) * table.log_dynamics.exp()
    survival = torch.full((table.num_states,), table.discount, dtype=torch.float64)
    states = expected_visits(table, table.log_initial.exp(), moves, survival)
    state_actions = states.unsqueeze(-1) * log_policy.exp()
    return states, state_actions, earned(table, states, moves)


def earned(table: Table, states: Tensor, moves: Tensor) -> float:
    """(), reward units: E[Σ r + r⁺] from expected visits (S,) and transitions (S, A, K)."""
    flow = states[:, None, None] * moves
    total = product(flow.sum(-1), table.reward).sum()
    if table.arrival_reward is not None:
        total = total + product(flow, table.arrival_reward).sum()
    return float(total.item())
