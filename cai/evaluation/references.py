"""What a comparison measures by: the exact posterior, and the best that any policy can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cai.gaussian import tilted_noise
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.infinite.endings import Diverges
from cai.infinite.fixed_point import fixed_point
from cai.program.trajectory import TrajectoryModel
from cai.solutions.chain import Chain
from cai.solutions.solution import Solution
from cai.solutions.stationary import Stationary
from cai.tables.table import Table, same
from cai.tables.tabulation import enumerable


@dataclass(frozen=True, eq=False)
class References:
    """What is known exactly of a model.

    Attributes:
        problem: the model, or its table if it can be enumerated.
        posterior: the exact posterior; None if it is out of reach, or p(O) = ∞.
        best: nats, the highest ELBO of all policies in the true dynamics; None if unknown.
    """

    problem: TrajectoryModel | Table
    posterior: Chain | GaussianSolution | None = None
    best: float | None = None

    @property
    def table(self) -> Table | None:
        """The table of the model; None if it cannot be enumerated."""
        return self.problem if isinstance(self.problem, Table) else None

    @staticmethod
    def of(model: TrajectoryModel | Table, methods: Mapping[str, Any]) -> References:
        """Solves the model at optimism 1 and 0, or finds the solutions among the methods."""
        if isinstance(model, LinearGaussian):
            exact, best = (_gaussian(model, eta) for eta in (1.0, 0.0))
            return References(model, exact, best.bound if best else None)
        table = enumerable(model)
        if table is None:
            return References(model)
        found, kept = (_found(table, eta, methods) for eta in (1.0, 0.0))
        return References(table, found, kept.bound if kept else None)


def solved(table: Table, eta: float) -> Chain:
    """The soft solution at optimism η.

    Raises:
        Diverges: if the horizon is infinite and no values are finite.
    """
    if table.horizon is None:
        return Stationary.of(table, eta, "soft", fixed_point(table, eta))
    return Solution.solve(table, eta)


def _found(table: Table, eta: float, methods: Mapping[str, Any]) -> Chain | None:
    """The solution at η, perhaps one of the methods; None if it is infinite."""
    for method in methods.values():
        fits = isinstance(method, Chain) and method.optimism == eta and method.rule == "soft"
        if fits and not method.conditioned and same(method.table, table):
            return method
    try:
        return solved(table, eta)
    except Diverges:
        return None


def _gaussian(model: LinearGaussian, eta: float) -> GaussianSolution | None:
    """The solution at η; None if it is not Gaussian, or infinite."""
    if (model.discount < 1 and eta != 0) or model.horizon is None:
        return None
    try:
        return GaussianSolution.at(model, eta)
    except tilted_noise.Breakdown:
        return None
