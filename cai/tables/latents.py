"""Latents of the dynamics, which a table has summed out: their distribution given a transition.

A latent acts through the next state alone, and at any optimism the dynamics reweigh next states. So
p(z|s,a,s') stays that of the program: q(z|s,a) ∝ p(z|s,a) E[exp(ηx)|s,a,z] follows from it, and any
other choice would have a larger KL.
"""

from __future__ import annotations

import math

import torch
from pyro import poutine
from torch import Tensor

from cai import checks
from cai.numerics.default_type import float64
from cai.numerics.exclusive import seeded
from cai.numerics.logspace import logsumexp_by_group
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import all_pairs
from cai.tables.outcomes import with_latents
from cai.tables.table import Table

_AGREEMENT = 1e-6  # of probabilities, as tabulation asks of scalars


def given_successors(table: Table, names: list[str], t: int) -> Tensor:
    """p(latents | s, a, s') of each transition of a step, by enumerating the latents again.

    Args:
        table: the problem, with the program that it was made from.
        names: the names of the latents in the dynamics.
        t: the step.

    Returns:
        (sizes of the latents…, S, A, K); zero for impossible transitions.

    Raises:
        ValueError: if the table was made without a program, its dynamics are no longer those of
            the program, or the program has no such latent.
    """
    if table.program is None:
        checks.refuse(
            "marginal",
            f"a solution of a model whose dynamics sample {names[0]!r}",
            "one of a table without a program: made by hand, copied by pickle, or loaded",
            "solve the model itself, or cai.tabulate(model)",
        )
    joint, table = _joint(table.program, table, names, t), table.at(t)
    total = joint.logsumexp([*range(len(names))])
    if not torch.allclose(total.exp(), table.log_dynamics.exp(), rtol=0, atol=_AGREEMENT):
        checks.refuse(
            "marginal",
            "a table with the dynamics of its program",
            "one whose dynamics were replaced",
            f"tabulate a model whose dynamics sample {names[0]!r}",
        )
    return torch.where(total > -torch.inf, joint - total, -torch.inf).exp()


def _joint(program: TrajectoryModel, table: Table, names: list[str], t: int) -> Tensor:
    """log p(latents, s'|s,a), (sizes of the latents…, S, A, K), laid out as the table is."""
    with seeded(0), torch.no_grad(), poutine.block():
        s, a = all_pairs(program)
        log_p, state, known = with_latents(program, s, a, table.num_states, float64(), t)
    for name in names:
        if name not in known:
            checks.refuse(
                "marginal",
                f"a latent that the dynamics sample, {', '.join(sorted(known)) or 'of which none'}",
                repr(name),
                "take a name from pyro.sample in the dynamics, with the step in front, t0/name",
            )
    order = [known.index(name) for name in names]
    others = [i for i in range(len(known)) if i not in order]
    log_p = log_p.permute(*order, *others, -3, -2, -1)
    if state is None:
        log_p = log_p.logsumexp([*range(len(names), len(known))]) if others else log_p
        if table.successors is None:
            return log_p
        return log_p.gather(-1, table.successors.expand(*log_p.shape[:-1], -1))
    state = state.permute(*order, *others, -3, -2, -1)
    return _collect(table, log_p, state, len(names))


def _collect(table: Table, log_p: Tensor, state: Tensor, kept: int) -> Tensor:
    """Adds up outcomes, (kept…, others…, S, A, k), in the places of their next states."""
    shape = (*log_p.shape[:kept], *table.log_dynamics.shape[-3:])
    place, possible = state, log_p > -torch.inf
    if table.successors is not None:
        found = state.unsqueeze(-1) == table.successors.unsqueeze(-2)
        place = found.int().argmax(-1)
    cell = torch.arange(math.prod(shape[:-1])).view(
        *shape[:kept], *[1] * (log_p.dim() - kept - 3), *shape[kept:-1], 1
    )
    group = (cell * shape[-1] + place)[possible]
    return logsumexp_by_group(log_p[possible], group, math.prod(shape)).view(shape)
