"""A model in the forms in which it can be solved; the kind of problem is decided here alone."""

from __future__ import annotations

from dataclasses import dataclass

from cai import checks
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.numerics.exclusive import cached_property
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table
from cai.tables.tabulation import enumerable


@dataclass(frozen=True, eq=False)
class Problem:
    """A model, or its table, in the forms that methods use.

    Attributes:
        model: what was passed.
        program: the model, which can be run; None for a table.
        gaussian: the model if it is linear-Gaussian, else None.
    """

    model: TrajectoryModel | Table
    program: TrajectoryModel | None
    gaussian: LinearGaussian | None

    @cached_property
    def table(self) -> Table | None:
        """The table; None if the randomness of the model is not discrete and finite."""
        return enumerable(self.model)


def as_problem(model: TrajectoryModel | Table, sampled: bool = False) -> Problem:
    """The problem that a model, or its table, poses; an environment's, if sampling is enough.

    Raises:
        ValueError: if it is neither.
    """
    checks.check_model(model, table=True, sampled=sampled)
    if isinstance(model, Table):
        return Problem(model, None, None)
    return Problem(model, model, model if isinstance(model, LinearGaussian) else None)
