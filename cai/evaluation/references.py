"""The references of a comparison: the exact posterior, and the highest ELBO of any policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cai.evaluation.problem import Problem
from cai.gaussian import tilted_noise
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.infinite.endings import Diverges
from cai.infinite.fixed_point import fixed_point
from cai.numerics.exclusive import cached_property
from cai.program.interfaces import Belief
from cai.solutions.chain import Chain
from cai.solutions.solution import Solution
from cai.solutions.stationary import Stationary
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class References:
    """What is known exactly about a model.

    Attributes:
        problem: the model, or its table.
        chain: the exact posterior of a table; None if it is out of reach, or p(O) = ∞.
        gaussian: that of a linear-Gaussian model.
        best: nats, the highest ELBO of all policies in the true dynamics; None if unknown.
    """

    problem: Problem
    chain: Chain | None = None
    gaussian: GaussianSolution | None = None
    best: float | None = None

    @cached_property
    def posterior(self) -> Chain | GaussianSolution | None:
        """The exact posterior, of whichever kind."""
        return self.chain or self.gaussian

    @staticmethod
    def of(problem: Problem, beliefs: Iterable[Belief]) -> References:
        """Solves a problem at optimism 1 and 0, or finds the solutions among beliefs about it."""
        kept: Chain | GaussianSolution | None
        if problem.gaussian is not None:
            exact, kept = (_gaussian(problem.gaussian, eta) for eta in (1.0, 0.0))
            return References(problem, gaussian=exact, best=kept.bound if kept else None)
        if problem.table is None:
            return References(problem)
        found, kept = (_found(problem.table, eta, beliefs) for eta in (1.0, 0.0))
        return References(problem, found, best=kept.bound if kept else None)


def solved(table: Table, eta: float) -> Chain:
    """The soft solution at optimism η.

    Raises:
        Diverges: if the horizon is infinite and there are no finite values.
    """
    if table.horizon is None:
        return Stationary.of(table, eta, "soft", fixed_point(table, eta))
    return Solution.solve(table, eta)


def _found(table: Table, eta: float, beliefs: Iterable[Any]) -> Chain | None:
    """The solution at η, perhaps one of the beliefs about the table; None if it is infinite."""
    for belief in beliefs:
        if belief.optimism == eta and belief.is_exact():
            found: Chain = belief
            return found
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
