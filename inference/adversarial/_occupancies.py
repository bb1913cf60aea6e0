"""How often transitions happen: of a policy on a table, and in demonstrations."""

from __future__ import annotations

import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.inverse.observed import Observed, observed
from cai.tables.absorbing import absorbing
from cai.tables.table import Table


def stochastic(table: Table) -> bool:
    """Whether any action that is allowed may lead to several states."""
    p = table.log_dynamics.exp() * _allowed(table).unsqueeze(-1)
    return bool((_into(table, p) > 1e-12).sum(-1).max() > 1)


def groups(table: Table) -> int:
    """How many groups of states there are that no state can choose between.

    Two states are linked if one action or another leads from the same state to either. Potentials
    that are constant within each group, and different between them, shape rewards of states
    without leaving a trace in behaviour.
    """
    p = table.log_dynamics.exp() * _allowed(table).unsqueeze(-1)
    after = (_into(table, p) > 0).any(-2)
    if after.dim() == 3:
        after = after.any(0)
    linked = after.double().T @ after.double() > 0
    count, _ = connected_components(csr_array(linked.numpy()))
    reached = after.any(0)
    return int(count - int((~reached).sum()))


def _into(table: Table, p: Tensor) -> Tensor:
    """(…, S, A, S), the probability of each next state, from those of successors."""
    if table.successors is None:
        return p
    found = p.new_zeros(*p.shape[:-1], table.num_states)
    return found.scatter_add_(-1, table.successors.expand(p.shape), p)


def visits(table: Table, log_policy: Tensor) -> Tensor:
    """How often each action is taken in each state while alive, in the true dynamics.

    Args:
        table: the problem.
        log_policy: (T, S, A), or (S, A) for an infinite horizon.

    Returns:
        (T, S, A), or (S, A) for an infinite horizon; there, without a discount, zero in absorbing
        states.

    Raises:
        ValueError: if trajectories of an infinite horizon without a discount may go on for ever.
    """
    policy = log_policy.exp()
    if table.horizon is None:
        return _endless(table, policy)
    now, found = table.log_initial.exp(), []
    for t in range(table.steps):
        found.append(now.unsqueeze(1) * policy[t])
        moves = found[-1].unsqueeze(-1) * table.at(t).log_dynamics.exp()
        now = table.discount * table.arrivals(moves)
    return torch.stack(found)


def _endless(table: Table, policy: Tensor) -> Tensor:
    """(S, A), by one linear system in the states that count."""
    table.check_dense()
    counts = torch.ones(table.num_states, dtype=torch.bool)
    if table.discount == 1:
        counts = ~absorbing(table)
    P = (policy.unsqueeze(-1) * table.dense(table.log_dynamics)).sum(1)[counts][:, counts]
    system = torch.eye(len(P), dtype=torch.float64) - table.discount * P.T
    found = torch.zeros(table.num_states, dtype=torch.float64)
    solved, info = torch.linalg.solve_ex(system, table.log_initial.exp()[counts])
    if info or not solved.isfinite().all() or solved.max() > 1e12 or solved.min() < -1e-6:
        came = "a policy under which some trajectories never end"
        advice = "give the model a horizon, or a discount below one"
        checks.refuse("problem", "trajectories that end", came, advice)
    found[counts] = solved.clamp(min=0.0)
    return found.unsqueeze(1) * policy


def transitions(table: Table, taken: Tensor) -> Tensor:
    """(…, S, A, K), how often each successor follows, from the visits of states and actions."""
    return taken.unsqueeze(-1) * table.log_dynamics.exp()


def demonstrated(table: Table, seen: Demonstrations) -> Tensor:
    """How often each transition was seen, a demonstration, on average.

    What happens after a demonstration was absorbed counts as well: it stays where it is, with the
    actions of the action prior, to the horizon, or for ever with the weights of the discount.

    Returns:
        (T, S, A, K), or (S, A, K) for an infinite horizon.

    Raises:
        ValueError: if demonstrations do not fit, are cut off, or are absorbed where they could go
            on.
    """
    wrong = [x for x in seen.ends if x in ("cut", "own")]
    if wrong:
        expected = "demonstrations that are seen to their end"
        advice = 'take those that ended: "horizon", "terminated" or "absorbed"'
        checks.refuse("ends", expected, repr(wrong[0]), advice)
    found, _ = observed(table, seen, "error")
    stays = absorbing(table)
    astray = seen.ending("absorbed") & ~stays[found.stop]
    if astray.any():
        i = int(astray.nonzero()[0])
        expected = 'a last state that no action leaves, of what ends "absorbed"'
        came = f"state {int(found.stop[i])} in demonstration {i}"
        checks.refuse("ends", expected, came, "take those that ended")
    return _counted(table, found, stays) / len(seen)


def _counted(table: Table, seen: Observed, stays: Tensor) -> Tensor:
    S, A, K = table.log_dynamics.shape[-3:]
    endless = table.horizon is None
    counts = torch.zeros(*(() if endless else (table.steps,)), S, A, K, dtype=torch.float64)
    weighted = ~seen.demonstrations.ending("terminated") & (table.discount < 1)
    share = torch.where(weighted[seen.who], table.discount ** seen.step.double(), 1.0)
    at = (seen.s, seen.a, seen.outcome)
    counts.index_put_(at if endless else (seen.t, *at), share, accumulate=True)
    if endless and table.discount == 1:
        counts[stays] = 0.0
        return counts
    lengths = seen.demonstrations.lengths
    for i in seen.demonstrations.ending("absorbed").nonzero().squeeze(1).tolist():
        s, L = int(seen.stop[i]), int(lengths[i])
        here = transitions(table, table.log_prior.exp()) if endless else None
        if here is not None:
            counts[s] += table.discount**L / (1 - table.discount) * here[s]
            continue
        for t in range(L, table.steps):
            now = table.at(t)
            counts[t, s] += table.discount**t * transitions(now, now.log_prior.exp())[s]
    return counts


def _allowed(table: Table) -> Tensor:
    found = table.log_prior > -torch.inf
    return found if found.dim() == 2 else found.any(0)


def _after(table: Table) -> Tensor:
    """(S, A, K) or (K,), which state each successor is."""
    if table.successors is not None:
        return table.successors
    return torch.arange(table.num_states)
