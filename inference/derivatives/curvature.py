"""Curvature of the bound in the rewards: Hessian-vector products by two sweeps, or by solves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cai import checks
from cai.inference.derivatives import _implicit
from cai.inference.derivatives._adjoint import chunks
from cai.inference.derivatives._linearised import Recursion, check_bound
from cai.infinite.transient import Transient
from cai.infinite.visits import answering
from cai.numerics import arrays, logspace
from cai.sweeps import sweeps
from cai.tables.table import Table


def reward_hessian_vector_product(table: Table, direction: Tensor, optimism: float = 0.0) -> Tensor:
    r"""H u, H the Hessian of the bound in the rewards r(s,a), without forming H.

    H is a covariance of counts. With g_t the expected counts n(s,a) from step t on, under the
    policy π_η and the dynamics q at η, termination included,

        α² H = η Cov_{s_0~q}(g_0) + Σ_t E_q[ Cov_{a~π}(g_t) + η Cov_{s'~q}(g_{t+1}) ]

    so that at η = 1 it is the posterior covariance of counts. For η ≥ 0 it is positive
    semi-definite, since the bound is convex in the rewards; for η < 0 it may be indefinite. A
    backward sweep finds the expected sum of u from each state on, a forward sweep the response of
    the occupancies. The memory is that of V, (T+1, S). With an infinite horizon, three linear
    solves take the place of the sweeps.

    Args:
        table: a problem.
        direction: u, (S, A), reward units.
        optimism: η, any real number; at ±inf the chosen outcomes are held fixed.

    Returns:
        (S, A), nats per unit of reward: the derivative along u of ∂bound/∂r.

    Raises:
        ValueError: if optimism is not a number, the direction has another shape, the bound is
            -inf, or the horizon is infinite and there are no values, see :func:`soft_values`.

    >>> import torch, cai
    >>> from cai import inference, models
    >>> table = cai.tabulate(models.ledge())
    >>> direction = torch.ones_like(table.reward)  # adds a constant to the return: no curvature
    >>> inference.reward_hessian_vector_product(table, direction, 1.0).abs().max().item() < 1e-9
    True
    """
    checks.check_is_table("table", table)
    table, eta = table.detached(), checks.check_optimism(optimism)
    direction = arrays.numbers("direction", direction)
    if direction.shape != table.reward.shape:
        expected = f"shape {list(table.reward.shape)}, one number for each state and action"
        came = f"{list(direction.shape)}"
        checks.refuse("direction", expected, came, "it has the shape of table.reward")
    alpha = table.temperature
    problem = Recursion(table, eta, "soft", None)
    table = problem.in_nats()
    u = direction.detach() / alpha
    with torch.no_grad(), table.threads():
        if table.horizon is None:
            return _at_fixed_point(problem, table, u) / alpha
        v = sweeps.backward(table, eta)
        check_bound(logspace.soft_mean(table.log_initial, v[0], eta))
        onward = _expected_onward(problem, table, v, u)
        return _response(problem, table, v, u, onward) / alpha


def _expected_onward(problem: Recursion, table: Table, v: Tensor, u: Tensor) -> Tensor:
    """E_q[Σ u(s,a) from step t on | s_t = s], (T+1, S): the derivative of v along u."""
    onward = torch.zeros_like(v)
    for steps in reversed(chunks(table)):
        at = problem.linearised(table.at(steps), v[1:][steps])
        pi = at.log_policy.exp()
        paid = u[steps] if u.dim() == 3 else u
        flow, now = table.flow(pi.unsqueeze(-1) * at.survived), (pi * paid).sum(-1)
        for i in range(steps.stop - steps.start - 1, -1, -1):
            t = steps.start + i
            onward[t] = now[i] + table.pull(flow[i], onward[t + 1])
    return onward


def _response(problem: Recursion, table: Table, v: Tensor, u: Tensor, onward: Tensor) -> Tensor:
    """The derivative along u of the occupancies of states and actions, summed over steps."""
    eta = 0.0 if math.isinf(problem.eta) else problem.eta
    here = logspace.tilt(table.log_initial, v[0], problem.eta).exp()
    moved = eta * here * (onward[0] - (here * onward[0]).sum())
    total = torch.zeros_like(u)
    for steps in chunks(table):
        at = problem.linearised(table.at(steps), v[1:][steps])
        pi, later = at.log_policy.exp(), table.gather(onward[1:][steps])
        mean = (at.survived * later).sum(-1)
        paid = u[steps] if u.dim() == 3 else u
        ahead = paid + mean - onward[steps].unsqueeze(-1)  # of an action, relative to its state
        by_action = pi.unsqueeze(-1) * at.survived
        flow = table.flow(by_action)
        lean = eta * (later - mean.unsqueeze(-1)) + ahead.unsqueeze(-1)
        answer = table.flow(by_action * lean)
        visits, changes = [], []
        for i in range(steps.stop - steps.start):
            visits.append(here)
            changes.append(moved)
            moved = table.push(moved, flow[i]) + table.push(here, answer[i])
            here = table.push(here, flow[i])
        change = torch.stack(changes).unsqueeze(-1) + torch.stack(visits).unsqueeze(-1) * ahead
        if u.dim() == 3:
            total[steps] = pi * change
        else:
            total += (pi * change).sum(0)
    return total


def _at_fixed_point(problem: Recursion, table: Table, u: Tensor) -> Tensor:
    """As :func:`_response`, for an infinite horizon; zero where no reward can follow."""
    v, _ = _implicit.solved(problem.table, problem.eta, problem.rule)
    check_bound(logspace.soft_mean(table.log_initial, v, problem.eta))
    eta = 0.0 if math.isinf(problem.eta) else problem.eta
    at = problem.linearised(table, v.unsqueeze(0))
    pi = at.log_policy[0].exp()
    counts = answering(table, pi.unsqueeze(-1) * at.survived[0]) & (v > -torch.inf)
    pi = torch.where(counts.unsqueeze(-1), pi, 0.0)
    by_action = pi.unsqueeze(-1) * at.survived[0]
    ending = Transient(table, by_action, counts)
    onward = ending.sums((pi * u).sum(-1))
    later = table.gather(onward)
    mean = (at.survived[0] * later).sum(-1)
    ahead = u + mean - onward.unsqueeze(-1)
    lean = eta * (later - mean.unsqueeze(-1)) + ahead.unsqueeze(-1)
    start = logspace.tilt(table.log_initial, v, problem.eta).exp()
    here = ending.visits(start)
    moved = eta * start * (onward - (start * onward).sum())
    moved = ending.visits(moved + table.push(here, table.flow(by_action * lean)))
    return pi * (moved.unsqueeze(-1) + here.unsqueeze(-1) * ahead)
