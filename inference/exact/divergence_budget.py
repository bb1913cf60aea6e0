"""The temperature at which the best policy pays just so many nats for its actions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from scipy.optimize import brentq

from cai import checks
from cai.inference.exact.soft_values import soft_values
from cai.numerics.logspace import product
from cai.policies.tabular import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.solutions.solution import Solution
from cai.solutions.stationary import Stationary
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_STRIDE = math.log(8.0)  # between two temperatures, until the budget lies between them
_FARTHEST = 11 * _STRIDE  # from the spread of the rewards: beyond, rounding errors decide


@dataclass(frozen=True, eq=False)
class DivergenceBudget:
    """The best policy among those that spend no more than a budget of nats.

    Attributes:
        budget: nats, as it was asked for.
        temperature: α, reward units per nat: the price at which the budget is spent; by one nat
            more the best return rises by α.
        divergence: (), nats: E_π[Σ_t KL(π(·|s_t) ‖ p(·|s_t))] of the solution while alive, which
            is the budget up to rounding.
        solution: the soft values at that temperature, with its policy.

    >>> from cai import inference, models
    >>> spent = inference.divergence_budget(models.ledge(), nats=0.1)
    >>> round(spent.divergence, 6)
    0.1
    """

    budget: float
    temperature: float
    divergence: float
    solution: Solution | Stationary

    @property
    def policy(self) -> TabularPolicy:
        """The policy of the solution."""
        return self.solution.policy

    @property
    def expected_return(self) -> float:
        """(), reward units: E_π[Σ rewards], the most that the budget buys."""
        return self.solution.imagined_return

    def __repr__(self) -> str:
        return (
            f"DivergenceBudget(budget={self.budget:g} nats, temperature={self.temperature:.6g}, "
            f"expected_return={self.expected_return:.6g})"
        )


def divergence_budget(model: TrajectoryModel | Table, nats: float) -> DivergenceBudget:
    r"""The policy of the highest return among those that pay at most so many nats.

        max_π E_π[Σ rewards]   such that   E_π[Σ_t KL(π(·|s_t) ‖ p(·|s_t))] ≤ nats

    Its dual is min_α α nats + α bound_0(α), where bound_0 is that of ``soft_values`` at α, and

        d(α bound_0)/dα = -E_π[Σ_t KL(π(·|s_t) ‖ p(·|s_t))]

    of the best policy at α. α bound_0 is a maximum of functions that are linear in α, hence convex:
    what is spent falls as α rises, and a budget has one temperature. It is what a learner that
    adapts its temperature should find. (Not one whose average is over replayed states.) A budget is
    for the whole trajectory, alive, as the model begins it; the model's own temperature has no say.

    Args:
        model: a model with finitely many states and actions, and a finite horizon or a discount
            below one; or its table.
        nats: the budget, between what the policy of α → ∞ pays, which is nothing unless rewards of
            -inf have to be avoided, and what the greedy one of α → 0 pays.

    Returns:
        A :class:`DivergenceBudget`: the temperature, the divergence that it comes to, and the
        solution there.

    Raises:
        ValueError: if no temperature spends so much or so little, naming the range; the horizon is
            infinite without a discount; or every policy may meet a reward of -inf.

    >>> from cai import inference, models
    >>> one_of_two = models.tabular([[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    >>> found = inference.divergence_budget(one_of_two, 0.1)
    >>> round(found.temperature, 3), round(found.expected_return, 3)
    (1.06, 0.72)
    """
    advice = "as many as the policy may differ from the action prior"
    checks.check_real("nats", nats, lambda x: 0 < x < math.inf, "a finite number above 0", advice)
    nats = float(nats)
    table = tabulate(model)
    if table.horizon is None and table.discount == 1:
        advice = "where nothing ends, a policy may pay for ever"
        checks.refuse("model", "a finite horizon or a discount below one", "neither", advice)

    def spent(log_temperature: float) -> float:
        return _divergence(_solved(table, math.exp(log_temperature)))

    ends = _between(nats, math.log(_spread(table)), cache(spent))
    at = math.exp(brentq(lambda x: spent(x) - nats, *ends, xtol=1e-14, rtol=1e-14))
    solution = _solved(table, at)
    return DivergenceBudget(nats, at, _divergence(solution), solution)


def _divergence(solution: Solution | Stationary) -> float:
    """(), nats: E_π[Σ_t KL(π(·|s_t) ‖ p(·|s_t))] of the policy of a solution, while alive."""
    ratio = solution.policy.log_probs - solution.table.log_prior
    return product(solution.state_actions, ratio).sum().item()


def _solved(table: Table, temperature: float) -> Solution | Stationary:
    solution = soft_values(dataclasses.replace(table, temperature=temperature))
    if solution.bound == -math.inf:
        checks.refuse(
            "model",
            "a policy that never meets a reward of -inf",
            "none",
            "make them finite, for no temperature avoids them",
        )
    return solution


def _spread(table: Table) -> float:
    """By how much rewards differ, where they are finite; one where they are all the same."""
    rewards = torch.cat([table.outcome_rewards.flatten(), table.final_reward])
    finite = rewards[rewards.isfinite()]
    spread = (finite.max() - finite.min()).item() if len(finite) else 0.0
    return spread or 1.0


def _between(nats: float, start: float, spent: Callable[[float], float]) -> tuple[float, float]:
    """Two logarithms of temperatures: at the first as much is spent as asked for, or more."""
    near, upwards = start, spent(start) > nats
    stride = _STRIDE if upwards else -_STRIDE
    while abs(near - start) < _FARTHEST:
        far = near + stride
        if (spent(far) > nats) != upwards:
            return (near, far) if upwards else (far, near)
        near = far
    least, most = abs(round(spent(start + _FARTHEST), 12)), spent(start - _FARTHEST)
    checks.refuse(
        "nats",
        f"a number between {least:.6g} and {most:.6g}, what the policies of high and low "
        "temperatures spend",
        f"{nats:g}",
        "no temperature spends more than the greedy policy, which cannot buy more return, or less "
        "than it takes to avoid rewards of -inf",
    )
