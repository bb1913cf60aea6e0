"""A solution for long horizons: a few steps are kept, the others are recomputed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cai import one_line
from cai.numerics import logspace
from cai.numerics.exclusive import cached_property
from cai.solutions.solution import Solution
from cai.solutions.solution_step import SolutionStep, check_time
from cai.sweeps import sweeps
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class CheckpointedSolution:
    """The soft solution at one optimism η, in memory of O(√T·S) instead of O(T·S).

    Values are kept at every √T-th step; the steps in between are recomputed on demand, one stretch
    at a time. A walk over the whole horizon costs one more backward sweep.

    Attributes:
        table: the problem that was solved.
        optimism: η, finite.
        times: the steps that are kept, 0 < … < T, both ends included.
        log_values: (len(times), S), nats, V_t(s)/α at these steps.

    >>> from cai import inference, models
    >>> long = inference.soft_values(models.ledge(horizon=100), recompute=True)
    >>> len(long.times) < 30, long.at(50).policy.shape
    (True, torch.Size([5, 2]))
    """

    table: Table
    optimism: float
    times: tuple[int, ...]
    log_values: Tensor

    __repr__ = one_line.of_fields

    @cached_property
    def bound(self) -> float:
        """(), nats: (1/η) log E_{s_0} exp(η V_0/α); E[V_0]/α at η = 0."""
        start = self.table.log_initial
        return logspace.soft_mean(start, self.log_values[0], self.optimism).item()

    @property
    def initial(self) -> Tensor:
        """(S,): q(s_0) ∝ p(s_0) exp(η V_0(s_0)/α)."""
        return logspace.tilt(self.table.log_initial, self.log_values[0], self.optimism).exp()

    @cached_property
    def imagined_return(self) -> float:
        """(), reward units: E[Σ rewards] under the solution's own start, dynamics and policy."""
        total = 0.0
        for i in range(len(self.times) - 1):
            piece, x = self._stretch(i)
            total += sweeps.imagined(piece.table, self.optimism, piece.log_values, x)
        return total + sweeps.final(self.table, self._starts[-1])

    @cached_property
    def visits(self) -> Tensor:
        """(S, A): Σ_t q(s_t=s, a_t=a, alive), the expected counts of actions in states."""
        total = torch.zeros(self.table.num_states, self.table.num_actions, dtype=torch.float64)
        for i in range(len(self.times) - 1):
            piece, x = self._stretch(i)
            total += sweeps.visits(piece.table, self.optimism, piece.log_values, x)
        return total

    def at(self, t: int) -> SolutionStep:
        """Step t alone; the first call costs a walk over all steps, the others √T steps.

        Args:
            t: the step, 0 ≤ t ≤ T.

        Raises:
            ValueError: for a step outside the horizon.
        """
        check_time(self.table, t)
        i = min(sum(time <= t for time in self.times), len(self.times) - 1) - 1
        return self._step(t, i, *self._stretch(i))

    def walk(self) -> Iterator[SolutionStep]:
        """An iterator over steps 0 … T."""
        for i in range(len(self.times) - 1):
            piece, x = self._stretch(i)
            last = i == len(self.times) - 2
            for t in range(self.times[i], self.times[i + 1] + last):
                yield self._step(t, i, piece, x)

    def _step(self, t: int, i: int, piece: Solution, x: Tensor) -> SolutionStep:
        k, n = t - self.times[i], self.times[i + 1] - self.times[i]
        return SolutionStep(t, x[k], piece.piece(slice(k, min(k + 1, n))))

    @cached_property
    def _starts(self) -> Tensor:
        """(len(times), S): the distributions of the states in the steps that are kept."""
        starts = torch.empty_like(self.log_values)
        starts[0] = self.initial
        for i in range(len(self.times) - 1):
            starts[i + 1] = self._from(i, starts[i])[1][-1]
        return starts

    def _stretch(self, i: int) -> tuple[Solution, Tensor]:
        """The solution and the states of all steps from one that is kept to the next."""
        return self._from(i, self._starts[i])

    def _from(self, i: int, start: Tensor) -> tuple[Solution, Tensor]:
        steps, last = slice(self.times[i], self.times[i + 1]), self.log_values[i + 1]
        table, n = self.table.at(steps), steps.stop - steps.start
        v, weights = sweeps.backward_with_weights(table, self.optimism, last, n)
        x = sweeps.forward(table, self.optimism, v, start, weights)
        return Solution(table, self.optimism, v), x


def checkpointed(table: Table, eta: float) -> CheckpointedSolution:
    """The solution with values kept at every √T-th step."""
    T = table.steps
    every = math.isqrt(T - 1) + 1
    times = (*range(0, T, every), T)
    kept = torch.empty(len(times), table.num_states, dtype=torch.float64)
    kept[-1] = table.final_reward / table.temperature
    for i in range(len(times) - 2, -1, -1):
        steps = slice(times[i], times[i + 1])
        kept[i] = sweeps.backward_from(table.at(steps), eta, kept[i + 1], steps.stop - steps.start)[
            0
        ]
    return CheckpointedSolution(table, eta, times, kept)
