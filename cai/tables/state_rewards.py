"""What each state pays, of rewards for actions and on arrival, for pictures of rewards."""

from __future__ import annotations

import torch
from torch import Tensor

from cai.tables.table import Table


def state_rewards(table: Table) -> Tensor:
    """(S,), reward units: what is paid for acting in a state, and on arrival there.

    For acting it is the mean over the actions that the action prior allows, on arrival that over
    all moves from another state, each with its probability under the action prior, from all states
    alike. Rewards that depend on the step are averaged over steps. It is -inf in states where every
    action is forbidden.

    Args:
        table: of S states.
    """
    prior, paid = _over_steps(table.log_prior.exp(), 2), _over_steps(table.reward, 2)
    prior = torch.where(paid > -torch.inf, prior, 0.0).expand(paid.shape)
    allowed = prior.sum(-1)
    acting = torch.where(prior > 0, prior * paid, 0.0).sum(-1) / allowed
    acting = torch.where(allowed > 0, acting, -torch.inf)
    if table.arrival_reward is None:
        return acting
    arrivals = _over_steps(table.arrival_reward, 3)
    moves = prior.unsqueeze(-1) * _over_steps(table.log_dynamics.exp(), 3)
    S, K = table.num_states, moves.shape[-1]
    to = (torch.arange(K) if table.successors is None else table.successors).expand(moves.shape)
    elsewhere = (to != torch.arange(S).view(-1, 1, 1)) & (moves > 0)
    into, weight = to[elsewhere], moves[elsewhere]
    reached, got = torch.zeros(2, S, dtype=torch.float64)
    reached.index_add_(0, into, weight)
    got.index_add_(0, into, weight * arrivals[elsewhere])
    return acting + torch.where(reached > 0, got / reached, 0.0)


def _over_steps(x: Tensor, axes: int) -> Tensor:
    """Averaged over an axis of steps, if there is one before the others."""
    return x if x.dim() == axes else x.mean(0)
