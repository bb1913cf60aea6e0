"""Values, bounds and likelihoods of trajectories that torch can differentiate.

The tensors of a table may require grad, each or all: ``reward``, ``arrival_reward``,
``final_reward``, ``log_prior``, ``log_dynamics``, ``log_initial``, and ``temperature``, which may
be a tensor of shape (). The functions here differentiate with respect to them, by one forward sweep
(:mod:`cai.inference.derivatives._adjoint`) instead of a tape of T steps, and without an end by one
linear solve (:mod:`cai.inference.derivatives._implicit`); every other function takes such a table
as plain numbers.
Derivatives of derivatives work too, ``create_graph=True``, but tape that sweep; and so do the
transforms of ``torch.func`` in any order, forward mode and ``hessian`` among them. What ``vmap``
makes a batch of is solved one by one.

Parameters at -inf (what is forbidden or impossible) have derivative zero. Rows of ``log_dynamics``
and ``log_initial`` that require grad are normalised first, so that their derivatives are those
along the simplex; the prior is taken as it comes, normalised or not.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.inference.derivatives import _adjoint, _implicit
from cai.inference.derivatives._linearised import Problem, Visits, check_bound, lean
from cai.inference.derivatives._pullback import (
    Needed,
    Operation,
    Tensors,
    chosen,
    eager,
    is_batch,
    is_wrapped,
    taped,
)
from cai.numerics import arrays, logspace
from cai.program.trajectories import Trajectories
from cai.tables import bellman
from cai.tables.table import Table


@eager
def values(table: Table, optimism: float = 0.0, rule: bellman.Rule = "soft") -> Tensor:
    r"""Soft values V_t(s) of :func:`soft_values`, differentiable.

    ∂V_0(s_0)/∂r(s,a) is the expected number of times that a is taken in s from s_0 on, under the
    policy π_η and the dynamics bent by η.

    Args:
        table: a problem; see the module for what may require grad. Without an end the values are
            (S,), and without a discount those of absorbing states are zero whatever is learnt.
        optimism: η, any real number or ±inf (where derivatives are subgradients: one of the best
            outcomes that tie, or a mixture of them).
        rule: how actions are chosen, "soft", "hard" (a subgradient) or "boltzmann".

    Returns:
        (T+1, S), reward units.

    Raises:
        ValueError: where optimism is not a plain number, or the horizon is infinite and there are
            no values, as :func:`soft_values` says.

    A reward that is a network, on the states and actions of a table made once:

    >>> import dataclasses, torch, cai
    >>> from cai import inference, models
    >>> table = cai.tabulate(models.ledge())
    >>> net = torch.nn.Linear(table.num_states, table.num_actions)
    >>> reward = net(torch.eye(table.num_states)).double()  # (S, A)
    >>> V = inference.values(dataclasses.replace(table, reward=reward), optimism=1.0)
    >>> V[0, 0].backward()
    >>> net.bias.grad.sum().round(decimals=3).item() == table.horizon  # one action a step
    True
    """
    v, alpha, _ = _solve(table, optimism, rule, None)
    return _scaled(v, alpha)


@eager
def bound(table: Table, optimism: float = 0.0, rule: bellman.Rule = "soft") -> Tensor:
    r"""The bound (1/η) log E_{s_0} exp(η V_0/α), differentiable; log p(O) at η = 1.

    With occ(s,a) the occupancies that the solution believes in:

        ∂bound/∂r(s,a) = occ/α,    ∂bound/∂log p(a|s) = occ,
        ∂bound/∂log p(s'|s,a) = (bent counts - true counts)/η,  at η = 0  occ p (x - E x),

    x(s') = (r⁺ + γ V_{t+1}(s'))/α being what the outcome is worth.

    Args:
        table: a problem, as for :func:`values`.
        optimism: η, any real number or ±inf.
        rule: how actions are chosen, "soft", "hard" (a subgradient) or "boltzmann".

    Returns:
        (), nats.

    Raises:
        ValueError: as :func:`values`, and where the bound is -inf,
            which has no derivative.
    """
    v, _, _ = _solve(table, optimism, rule, None)
    first = v if table.horizon is None else v[0]
    return _soft_mean(float(optimism))(table.log_initial, first)[0]


@eager
def log_likelihood(
    table: Table,
    observed: Trajectories | tuple[Tensor, Tensor],
    optimism: float = 0.0,
    rule: bellman.Rule = "soft",
) -> Tensor:
    r"""How probable the observed actions are: Σ_t log π_t(a_t|s_t) of each trajectory.

    What inverse reinforcement learning maximises: at η = 0 the likelihood of maximum causal
    entropy (Ziebart 2010), at η = 1 that of an agent whose plan is the exact posterior. With
    g_t^Q(s,a) and g_t^V(s) what is expected to be counted from step t on, once the action is known
    and before, the derivatives of Q and V, its gradient in rewards r(s,a), times α, is

        Σ_t [g_t^Q(s_t,a_t) - g_t^V(s_t)],

    for a linear reward with features in the place of counts. On deterministic dynamics without a
    discount that is observed minus expected counts of a whole trajectory. On stochastic dynamics it
    is not: what chance brought about afterwards is not put down to the agent. (Observed minus
    expected counts are the gradient of log p(τ|O), maximum-entropy IRL in Ziebart's first form,
    2008, which scores states, too: for that subtract ``bound(table, 1.0)`` from the observed
    rewards over α.)

    Args:
        table: a problem, as for :func:`values`.
        observed: n trajectories of up to T steps, from ``model.simulate``; or states (n, ≥T') and
            actions (n, T') as integers. What the dead do is not scored.
        optimism: η of the agent, any real number or ±inf.
        rule: how actions are chosen, "soft", "hard" (a subgradient) or "boltzmann".

    Returns:
        (n,), nats; -inf, with derivative zero, where an action is impossible.

    Raises:
        ValueError: where optimism is not a number, the horizon is shorter than the
            trajectories, shapes do not fit, or a state or an action is none of the table's.

    The reward of a model itself, whose parameters are asked for after every step of learning:

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
    states, actions, alive = _observed(table, observed)
    n, T = actions.shape
    if is_batch(states) or is_batch(actions):
        steps = torch.arange(1 if table.horizon is None else T)
        states, actions = Operation(partial(_in_range, table), _constant)(states, actions)
        sizes = len(steps), table.num_states, table.num_actions
        everywhere = torch.cartesian_prod(steps, *map(torch.arange, sizes[1:]))
        visits = Visits(*everywhere.T.contiguous())
        _, _, log_pi = _solve(table, optimism, rule, visits)
        return log_pi.view(sizes)[steps, states, actions].sum(-1)
    states, actions = _in_range(table, states, actions)
    t, who = alive.T.nonzero(as_tuple=True)
    if table.horizon is None:  # one policy for all steps
        t = torch.zeros_like(t)
    visits = Visits(t, states.T[alive.T].long(), actions.T[alive.T].long())
    _, _, log_pi = _solve(table, optimism, rule, visits)
    return log_pi.new_zeros(n).index_add(0, who, log_pi)


def _solve(
    table: Table, optimism: Any, rule: bellman.Rule, visits: Visits | None
) -> tuple[Tensor, Tensor, Tensor]:
    """v in nats, α, and the log-policy at the visits."""
    checks.check_is_table("table", table)
    eta = _plain(optimism)
    problem = Problem(table, eta, bellman.check_rule(rule), visits)
    alpha = problem.alpha
    log_dynamics = table.log_dynamics
    if log_dynamics.requires_grad:
        log_dynamics = log_dynamics.log_softmax(-1)
    rewards = (table.reward, table.arrival_reward, table.final_reward)
    nats = [None if r is None else _scaled(r, 1 / alpha) for r in rewards]
    solve = _adjoint.sweep if table.horizon is not None else _implicit.fixed_point
    v, log_pi = solve(problem, *nats, table.log_prior, log_dynamics)
    return v, alpha, log_pi


def _plain(optimism: Any) -> float:
    """η, unless it should have a derivative."""
    if isinstance(optimism, Tensor) and (optimism.requires_grad or is_wrapped(optimism)):
        checks.refuse(
            "optimism",
            "a plain number",
            "a tensor to be differentiated, or a batch",
            "optimism_curve(model, [0.5]).slope is the derivative of the bound in optimism",
        )
    return checks.check_optimism(optimism)


def _scaled(x: Tensor, factor: Tensor) -> Tensor:
    """x · factor, where -inf stays -inf and has no say in the derivative."""
    finite = x > -torch.inf
    return torch.where(finite, torch.where(finite, x, 0.0) * factor, -torch.inf)


def _observed(
    table: Table, observed: Trajectories | tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """States and actions, (n, T) each, and who is alive, (n, T), booleans."""
    states, actions = (
        (observed.states, observed.actions)
        if isinstance(observed, Trajectories)
        else _pair(observed, table)
    )
    if states.dim() != 2 or actions.dim() != 2 or len(states) != len(actions):
        checks.refuse(
            "observed",
            "states and actions of shape (n, T)",
            f"{list(states.shape)} and {list(actions.shape)}",
            "one row for each trajectory",
        )
    n, T = actions.shape
    horizon = T if table.horizon is None else table.horizon
    if horizon < T or states.shape[1] < T:
        checks.refuse(
            "observed",
            f"at most {horizon} steps, the horizon, and a state for each action",
            f"{T} actions and {states.shape[1]} states",
            "cut the trajectories, or lengthen the horizon with dataclasses.replace(table, …)",
        )
    alive = torch.ones(n, T, dtype=torch.bool)
    if isinstance(observed, Trajectories):
        alive = observed.alive[:, :T]
    return states[:, :T], actions, alive


def _in_range(table: Table, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """The same, where they are some of the table's."""
    for name, index, size in (
        ("states", states, table.num_states),
        ("actions", actions, table.num_actions),
    ):
        if ((index < 0) | (index >= size)).any():
            checks.refuse(
                f"observed {name}",
                f"integers in 0 … {size - 1}",
                f"numbers from {index.min().item():g} to {index.max().item():g}",
                "number them as the table does",
            )
    return states, actions


def _constant(needed: Needed) -> Operation:
    """The derivative of what has none."""
    return taped(lambda *_: ())


def _pair(observed: Any, table: Table) -> tuple[Tensor, Tensor]:
    """States and actions as integers, from what a user passes for both."""
    if not isinstance(observed, tuple | list) or len(observed) != 2:
        came, advice = type(observed).__name__, "model.simulate(policy, n) returns some"
        checks.refuse("observed", "trajectories, or a pair of states and actions", came, advice)
    states, actions = observed
    return (
        arrays.integers("observed states", states, f"integers in 0 … {table.num_states - 1}"),
        arrays.integers("observed actions", actions, f"integers in 0 … {table.num_actions - 1}"),
    )


def _soft_mean(eta: float) -> Operation:
    """(1/η) log E_p[exp(ηx)], (S,) and (S,) -> ()."""

    def mean(log_p: Tensor, x: Tensor) -> Tensors:
        found = logspace.soft_mean(log_p.log_softmax(-1), x, eta)
        check_bound(found)
        return (found,)

    def pullback(needed: Needed) -> Operation:
        def tape(log_p: Tensor, x: Tensor, _: Tensor, on: Tensor) -> Tensors:
            log_p = log_p.log_softmax(-1)
            bent = logspace.tilt(log_p, x, eta).exp()
            by_log_p = on * lean(log_p, x, bent, eta) if needed[0] else None
            return chosen((by_log_p, on * bent), needed)

        return taped(tape)

    return Operation(mean, pullback)
