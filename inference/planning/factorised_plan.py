"""The best plan whose steps are independent, by mean-field coordinate ascent on a table."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cai import checks, one_line
from cai.numerics import memory
from cai.numerics.arrays import of_step
from cai.numerics.logspace import product
from cai.policies import history
from cai.policies.observation import shared_log_prior
from cai.policies.plans import Plan
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_SETTLED = 1e-12  # gain of a sweep, relative to the ELBO above one, at which to stop


@dataclass(frozen=True, eq=False)
class FactorisedPlan:
    """A plan q(a_0) q(a_1) … q(a_{T-1}) that no change of a single step improves.

    Attributes:
        elbo: nats; at most that of ``belief_values(model, cai.blind)``, the correlated plan.
        policy: that plan.
        elbos: (starts,), nats: the ELBO from each start. If they differ there are several local
            optima, and the best of those found is returned.

    >>> from cai import inference, models
    >>> found = inference.factorised_plan(models.ledge())
    >>> found.elbo == found.elbos.max().item()
    True
    """

    elbo: float
    policy: Plan
    elbos: Tensor

    __repr__ = one_line.of_fields


def factorised_plan(
    model: TrajectoryModel, *, restarts: int = 16, sweeps: int = 1000, seed: int = 0
) -> FactorisedPlan:
    """The mean-field guide: the best plan found with independent steps, blind to the state.

    Given the other steps, the best distribution of one is in closed form,

        q(a_t) ∝ exp E[Σ (rewards/α + log p(a|s)) from t on - Σ log q(a_k) after t | a_t]

    with the distribution of s_t under the earlier steps. A sweep goes through all steps, the last
    one first; each update is the exact maximum in its step, so that the ELBO never falls. It is not
    concave in all steps jointly: the best of several starts is returned, the prior among them, with
    as many deterministic plans as random ones. An action is allowed at a step if it is in all
    states that the earlier steps can reach.

    Args:
        model: a model with finitely many states and actions and a finite horizon.
        restarts: how many random starts besides the prior, every other one deterministic.
        sweeps: the maximum number of sweeps.
        seed: seed of the random starts.

    Returns:
        A :class:`FactorisedPlan`: the best plan found, and its ELBO.

    Raises:
        ValueError: if the model cannot be tabulated, the horizon is infinite, or every action
            is forbidden in some state.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> plan = inference.factorised_plan(model)
    >>> plan.elbo < inference.soft_values(model).elbo + 1e-9
    True
    """
    checks.check_model(model)
    T = checks.finite_horizon(model, "a plan")
    checks.check_seed(seed)
    checks.check_count("restarts", restarts)
    checks.check_count("sweeps", sweeps)
    table = tabulate(model)
    alike = torch.zeros(table.num_states, dtype=torch.long)
    prior = shared_log_prior(model, alike)[..., 0, :]  # (A,), or (T, A)
    P, generator = history.moves(table), torch.Generator().manual_seed(int(seed))
    A = table.num_actions
    size, advice = restarts * T * A, "take a shorter horizon, or fewer restarts"
    memory.check_fits("restarts", f"{restarts} plans of {T} steps", size, advice)
    noise = torch.randn(restarts, T, A, generator=generator, dtype=torch.float64)
    with table.threads():
        start = torch.cat([torch.zeros_like(noise[:1]), 3 * noise]) + prior
        start[2::2] = _pure(table, P, start[2::2], generator)
        log_q, elbos = _ascend(table, P, start.log_softmax(-1), sweeps)
    best = int(elbos.argmax())
    return FactorisedPlan(elbos[best].item(), Plan.of(model, log_q[best]), elbos)


def _pure(table: Table, P: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
    """Random deterministic plans, whose actions are allowed in all states that they reach."""
    log_q, x = torch.full_like(like, -torch.inf), table.log_initial.exp().expand(len(like), -1)
    for t in range(like.shape[1]):
        allowed = product(x.unsqueeze(-1), of_step(table.log_prior, t, 2)).sum(1) > -torch.inf
        allowed = allowed | ~allowed.any(-1, keepdim=True)
        a = torch.multinomial(allowed.double(), 1, generator=generator)
        log_q[:, t].scatter_(-1, a, 0.0)
        x = torch.einsum("ns,nsx->nx", x, of_step(P, t, 3)[:, a.squeeze(-1)].movedim(1, 0))
    return log_q


def _ascend(table: Table, P: Tensor, log_q: Tensor, sweeps: int) -> tuple[Tensor, Tensor]:
    """log q(a_t) (N, T, A) of N starts after coordinate ascent, and their ELBOs (N,)."""
    gain = table.expected_reward / table.temperature + table.log_prior  # ([T,] S, A), nats
    elbos = torch.full((len(log_q),), -torch.inf, dtype=torch.float64)
    for _ in range(sweeps):
        log_q, found = _sweep(table, P, gain, log_q)
        gained = torch.where(found > elbos, found - elbos, 0.0)
        elbos = found
        if (gained <= _SETTLED * found.abs().clamp(min=1)).all():
            break
    return log_q, elbos


def _sweep(table: Table, P: Tensor, gain: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """One sweep: each step in turn, the last one first, given the others."""
    steps = log_q.exp()
    occupancies = [table.log_initial.exp().expand(len(log_q), -1)]
    for t in range(log_q.shape[1] - 1):
        moved = torch.einsum("ns,na,sax->nx", occupancies[-1], steps[:, t], of_step(P, t, 3))
        occupancies.append(moved)
    v = (table.final_reward / table.temperature).expand(len(log_q), -1)
    new = log_q.clone()
    for t in range(log_q.shape[1] - 1, -1, -1):
        q = of_step(gain, t, 2) + _after(of_step(P, t, 3), v)  # (N, S, A)
        x = occupancies[t].unsqueeze(-1)
        mean = product(x, q).sum(1) / x.sum(1)
        lost = (mean == -torch.inf).all(-1, keepdim=True)  # whatever the action: no change
        new[:, t] = torch.where(lost, log_q[:, t], mean).log_softmax(-1)
        log_p = new[:, t].unsqueeze(1)
        v = product(log_p.exp(), q).sum(-1) - product(log_p.exp(), log_p).sum(-1)
    return new, product(table.log_initial.exp(), v).sum(-1)


def _after(P: Tensor, v: Tensor) -> Tensor:
    """γ E[V_{t+1}|s,a], (N, S) -> (N, S, A), nats, with 0 · inf = 0."""
    if v.isfinite().all():
        return torch.einsum("sax,nx->nsa", P, v)
    return product(P, v[:, None, None, :]).sum(-1)
