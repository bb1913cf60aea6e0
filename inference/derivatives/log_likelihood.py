"""The log-likelihood of observed actions, which torch can differentiate."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.inference.derivatives._linearised import Visits
from cai.inference.derivatives._pullback import Needed, Operation, eager, is_batch, taped
from cai.inference.derivatives._solve import solve
from cai.numerics import arrays
from cai.program.trajectories import Trajectories
from cai.tables import bellman
from cai.tables.table import Table


@eager
def log_likelihood(
    table: Table,
    demonstrations: Trajectories | tuple[Tensor, Tensor],
    optimism: float = 0.0,
    rule: bellman.Rule = "soft",
) -> Tensor:
    r"""The log-likelihood of observed actions, Σ_t log π_t(a_t|s_t) of each trajectory.

    Inverse reinforcement learning maximises it: at η = 0 it is the likelihood of maximum causal
    entropy (Ziebart 2010), at η = 1 that of an agent whose plan is the exact posterior. With the
    expected counts from step t on given the action, g_t^Q(s,a), and before it, g_t^V(s), which are
    the derivatives of Q and V, its gradient in rewards r(s,a), times α, is

        Σ_t [g_t^Q(s_t,a_t) - g_t^V(s_t)],

    and for a linear reward the same with features in the place of counts. With deterministic
    dynamics and no discount that is observed minus expected counts of a whole trajectory. With
    stochastic dynamics it is not: the agent is not credited with chance events. (Observed minus
    expected counts are the gradient of log p(τ|O), maximum-entropy IRL in Ziebart's first form,
    2008, which scores states, too: for that subtract ``differentiable_bound(table, 1.0)`` from the
    observed rewards over α.)

    Args:
        table: a problem, as for :func:`differentiable_values`.
        demonstrations: n trajectories of up to T steps, from ``model.simulate``; or states (n, ≥T')
            and actions (n, T') as integers. Actions after termination are not scored.
        optimism: η of the agent, any real number or ±inf.
        rule: how actions are chosen, "soft", "hard", "boltzmann" or "planned"; where
            actions tie, a subgradient.

    Returns:
        (n,), nats; -inf, with derivative zero, if an action is impossible.

    Raises:
        ValueError: if optimism is not a number, the horizon is shorter than the trajectories,
            shapes do not fit, or a state or an action is not one of the table's.

    Learning the parameters of a model's own reward:

    >>> import torch, pyro.distributions as dist, cai
    >>> from cai import inference
    >>> cost = torch.nn.Parameter(torch.zeros(3))
    >>> model = cai.TrajectoryModel(
    ...     initial=dist.Categorical(torch.ones(3)),
    ...     dynamics=lambda s, a: dist.Delta((s + a) % 3),
    ...     reward=lambda s, a: -cost[s],
    ...     action_prior=dist.Categorical(torch.ones(2)),
    ...     horizon=4,
    ... )
    >>> table = cai.tabulate(model)  # once: the dynamics do not change
    >>> states = torch.tensor([[0, 1, 2, 2], [1, 2, 2, 2]])
    >>> seen = states, torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]])
    >>> optimizer = torch.optim.Adam([cost], lr=0.1)
    >>> for _ in range(50):
    ...     optimizer.zero_grad()
    ...     loss = -inference.log_likelihood(cai.tabulate_rewards(model, table), seen).mean()
    ...     loss.backward()
    ...     optimizer.step()
    >>> int(cost.argmin())
    2
    """
    checks.check_is_table("table", table)
    states, actions, alive = _read(table, demonstrations)
    n, T = actions.shape
    if is_batch(states) or is_batch(actions):
        steps = torch.arange(1 if table.horizon is None else T)
        states, actions = Operation(partial(_in_range, table), _constant)(states, actions)
        sizes = len(steps), table.num_states, table.num_actions
        everywhere = torch.cartesian_prod(steps, *map(torch.arange, sizes[1:]))
        visits = Visits(*everywhere.T.contiguous())
        _, _, log_pi = solve(table, optimism, rule, visits)
        return log_pi.view(sizes)[steps, states, actions].sum(-1)
    states, actions = _in_range(table, states, actions)
    t, who = alive.T.nonzero(as_tuple=True)
    if table.horizon is None:  # one policy for all steps
        t = torch.zeros_like(t)
    visits = Visits(t, states.T[alive.T].long(), actions.T[alive.T].long())
    _, _, log_pi = solve(table, optimism, rule, visits)
    return log_pi.new_zeros(n).index_add(0, who, log_pi)


def _read(
    table: Table, demonstrations: Trajectories | tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """States and actions, (n, T) each, and which trajectories are alive, (n, T), boolean."""
    states, actions = (
        (demonstrations.states, demonstrations.actions)
        if isinstance(demonstrations, Trajectories)
        else _pair(demonstrations, table)
    )
    if states.dim() != 2 or actions.dim() != 2 or len(states) != len(actions):
        expected = "states and actions of shape (n, T)"
        came = f"{list(states.shape)} and {list(actions.shape)}"
        checks.refuse("demonstrations", expected, came, "one row for each trajectory")
    n, T = actions.shape
    horizon = T if table.horizon is None else table.horizon
    if horizon < T or states.shape[1] < T:
        checks.refuse(
            "demonstrations",
            f"at most {horizon} steps, the horizon, and a state for each action",
            f"{T} actions and {states.shape[1]} states",
            "cut the trajectories, or lengthen the horizon with dataclasses.replace(table, …)",
        )
    alive = torch.ones(n, T, dtype=torch.bool)
    if isinstance(demonstrations, Trajectories):
        alive = demonstrations.alive[:, :T]
    return states[:, :T], actions, alive


def _in_range(table: Table, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """The same; raises ValueError unless they are states and actions of the table."""
    for index, (name, size) in zip((states, actions), _sizes(table).items(), strict=True):
        if ((index < 0) | (index >= size)).any():
            came = f"numbers from {index.min().item():g} to {index.max().item():g}"
            advice = "number them as the table does"
            checks.refuse(f"demonstrations, {name}", f"integers in 0 … {size - 1}", came, advice)
    return states, actions


def _sizes(table: Table) -> dict[str, int]:
    return {"states": table.num_states, "actions": table.num_actions}


def _constant(needed: Needed) -> Operation:
    """The pullback of a constant."""
    return taped(lambda *_: ())


def _pair(demonstrations: Any, table: Table) -> tuple[Tensor, Tensor]:
    """States and actions as integers, from a user's demonstrations."""
    if not isinstance(demonstrations, tuple | list) or len(demonstrations) != 2:
        expected = "trajectories, or a pair of states and actions"
        came = type(demonstrations).__name__
        checks.refuse("demonstrations", expected, came, "model.simulate(policy, n) returns some")
    states, actions = (
        arrays.integers(f"demonstrations, {name}", x, f"integers in 0 … {size - 1}")
        for x, (name, size) in zip(demonstrations, _sizes(table).items(), strict=True)
    )
    return states, actions
