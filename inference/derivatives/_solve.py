"""The solution of a table whose tensors require grad, shared by all differentiable functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.inference.derivatives import _adjoint, _implicit
from cai.inference.derivatives._linearised import Recursion, Visits
from cai.inference.derivatives._pullback import is_wrapped
from cai.tables import bellman
from cai.tables.table import Table


def solve(
    table: Table, optimism: Any, rule: bellman.Rule, visits: Visits | None
) -> tuple[Tensor, Tensor, Tensor]:
    """v in nats, α, and the log-policy at the visits."""
    checks.check_is_table("table", table)
    eta = _plain(optimism)
    problem = Recursion(table, eta, bellman.check_rule(rule), visits)
    alpha = problem.alpha
    log_dynamics = table.log_dynamics
    if log_dynamics.requires_grad:
        log_dynamics = log_dynamics.log_softmax(-1)
    rewards = (table.reward, table.arrival_reward, table.final_reward)
    nats = [None if r is None else scaled(r, 1 / alpha) for r in rewards]
    method = _adjoint.sweep if table.horizon is not None else _implicit.fixed_point
    v, log_pi = method(problem, *nats, table.log_prior, log_dynamics)
    return v, alpha, log_pi


def _plain(optimism: Any) -> float:
    """η as a number; raises ValueError for a tensor that should have a derivative."""
    if isinstance(optimism, Tensor) and (optimism.requires_grad or is_wrapped(optimism)):
        expected = "a plain number"
        advice = "optimism_curve(model, [0.5]).slope is the derivative of the bound in optimism"
        checks.refuse("optimism", expected, "a tensor to be differentiated, or a batch", advice)
    return checks.check_optimism(optimism)


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """x · factor, where -inf stays -inf and does not affect the derivative."""
    finite = x != -torch.inf  # NaN is kept, to be refused later
    return torch.where(finite, torch.where(finite, x, 0.0) * factor, -torch.inf)
