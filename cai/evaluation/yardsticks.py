"""What a comparison measures by: the exact posterior, and the best that any policy can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai.evaluation.evaluate import enumerable
from cai.gaussian import tilted_noise
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.infinite.endings import Diverges
from cai.infinite.fixed_point import fixed_point
from cai.program.trajectory import TrajectoryModel
from cai.solutions.chain import Chain
from cai.solutions.solution import Solution
from cai.solutions.stationary import Stationary
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class Yardsticks:
    """What is known exactly of a model.

    Attributes:
        table: its table; None where it cannot be enumerated.
        posterior: the exact posterior; None where it is out of reach, or p(O) = ∞.
        best: nats, the highest ELBO of all policies in the true dynamics; None where unknown.
    """

    table: Table | None
    posterior: Chain | GaussianSolution | None
    best: float | None


def yardsticks(model: TrajectoryModel | Table, methods: Mapping[str, Any]) -> Yardsticks:
    """Solves the model at optimism 1 and 0, or finds the solutions among the methods."""
    if isinstance(model, LinearGaussian):
        solutions = (_gaussian(model, 1.0), _gaussian(model, 0.0))
        return Yardsticks(None, solutions[0], solutions[1].bound if solutions[1] else None)
    table = enumerable(model)
    if table is None:
        return Yardsticks(None, None, None)
    exact, best = (_solved(table, eta, methods) for eta in (1.0, 0.0))
    return Yardsticks(table, exact, best.bound if best else None)


def _solved(table: Table, eta: float, methods: Mapping[str, Any]) -> Chain | None:
    """The solution at η, one of the methods perhaps; None where it is infinite."""
    for method in methods.values():
        fits = isinstance(method, Chain) and method.optimism == eta and method.rule == "soft"
        if fits and not method.conditioned and same(method.table, table):
            return method
    if table.horizon is not None:
        return Solution.solve(table, eta)
    try:
        return Stationary.of(table, eta, "soft", fixed_point(table, eta))
    except Diverges:
        return None


def _gaussian(model: LinearGaussian, eta: float) -> GaussianSolution | None:
    """The solution at η; None where it is not Gaussian, or infinite."""
    if (model.discount < 1 and eta != 0) or model.horizon is None:
        return None
    try:
        return GaussianSolution.at(model, eta)
    except tilted_noise.Breakdown:
        return None


def same(one: Table, other: Table) -> bool:
    """Whether two tables hold the same problem, number for number."""

    def equal(x: Any, y: Any) -> bool:
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return torch.equal(x, y)
        return x is y if isinstance(x, Tensor) or isinstance(y, Tensor) else bool(x == y)

    names = {field.name for field in dataclasses.fields(Table)} - {"layout", "program"}
    return one is other or all(equal(getattr(one, n), getattr(other, n)) for n in names)


def same_gaussian(one: LinearGaussian, other: LinearGaussian) -> bool:
    """Whether two linear-Gaussian models are the same problem, number for number."""
    if one is other:
        return True
    for name in ("horizon", "temperature", "discount", "flat"):
        if getattr(one, name) != getattr(other, name):
            return False
    names = (
        *("A", "B", "drift", "noise", "Q", "R", "N", "q", "rho", "Q_final", "q_final"),
        *("initial_mean", "initial_covariance"),
    )
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    if not one.flat:
        priors: list[Any] = [one.action_prior, other.action_prior]
        pairs += [(priors[0].loc, priors[1].loc)]
        pairs += [(priors[0].covariance_matrix, priors[1].covariance_matrix)]
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)
