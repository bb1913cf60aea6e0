"""Which states nothing leads away from."""

from __future__ import annotations

import torch
from torch import Tensor

from cai.tables.table import Table


def absorbing(table: Table) -> Tensor:
    """(S,), boolean: the states that no allowed action can leave, at any step.

    Args:
        table: of S states.
    """
    may = (table.log_dynamics > -torch.inf) & (table.log_prior > -torch.inf).unsqueeze(-1)
    K = may.shape[-1]
    after = torch.arange(K) if table.successors is None else table.successors
    leaves = may & (after != torch.arange(table.num_states).view(-1, 1, 1))
    return ~leaves.flatten(-2).any(-1).reshape(-1, table.num_states).any(0)
