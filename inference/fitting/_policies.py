"""What a fit asks of a policy by its kind: its step size, and whether it is one for the problem."""

from __future__ import annotations

import copy

import torch
from torch import nn

from cai import checks
from cai.policies.dynamics_guide import DynamicsGuide
from cai.policies.tabular import TabularPolicy
from cai.tables import bellman, sweeps
from cai.tables.table import Table


def copy_of(policy: nn.Module) -> nn.Module:
    """A copy that holds each of its numbers once, so that they can be put back."""
    own = copy.deepcopy(policy)
    for tensor in (*own.parameters(), *own.buffers()):
        tensor.data = tensor.data.contiguous()
    return own


def described(policy: nn.Module) -> str:
    """The name of a policy, the shapes of its parameters, and the optimism of a guide."""
    shapes = [f"{name} {list(p.shape)}" for name, p in policy.named_parameters()]
    if isinstance(policy, DynamicsGuide):
        shapes.append(f"optimism {policy.optimism:g}")
    return f"{type(policy).__name__}({', '.join(shapes)})"


def default_rate(policy: nn.Module) -> float:
    """The step size of Adam: a table takes larger ones than a network."""
    return 0.2 if isinstance(policy, TabularPolicy) else 0.01


def check_guide(policy: nn.Module, table: Table | None) -> None:
    """Raises ValueError if a guide bends the dynamics of another problem."""
    if isinstance(policy, DynamicsGuide) and (table is None or not policy.is_of(table)):
        checks.refuse(
            "policy",
            "a guide that bends the dynamics of the model that is fitted",
            "DynamicsGuide of another problem, whose rewards it would be trained for",
            "make it anew, cai.DynamicsGuide(model, optimism)",
        )


def forbid_the_fatal(policy: nn.Module, table: Table) -> None:
    """Masks the actions of a table that can lead to -inf where another one avoids it.

    Such an action has no place in a policy of finite ELBO, and no gradient that would say so.
    """
    tensors = (table.reward, table.arrival_reward, table.final_reward)
    if not isinstance(policy, TabularPolicy) or policy.observations is not None:
        return
    if all(x is None or x.isfinite().all() for x in tensors):
        return
    v = sweeps.backward(table, 0.0)
    q = bellman.action_values(table, v[1:], 0.0)
    fatal = (q == -torch.inf) & (v[:-1] > -torch.inf).unsqueeze(-1)
    if policy.logits.dim() == 2:
        fatal = fatal.any(0)
    policy.log_prior = policy.log_prior.masked_fill(fatal, -torch.inf)
