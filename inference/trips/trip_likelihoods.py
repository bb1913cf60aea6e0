"""Log-likelihoods of trips on a road network, each to a goal of its own, and their derivatives.

log P(trip) = Σ utility - log z_d(o), with utility ψ·f of each turn. With x = G e_d, dx_k = G dM_k x
and y = Gᵀ of the weights 1/x(o) at origins and -1/x(d) at the goal, a trip has the score
f(trip) - dx(o)/x(o) + dx(d)/x(d), and minus the Hessian of Σ log P is

    y'(∂²M_kl x + dM_k dx_l + dM_l dx_k) - Σ_o dx_k dx_l/x² (o) + Σ_d dx_k dx_l/x² (d).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.inference.trips.factorised import Factorised, factorised, solved
from cai.inference.trips.feasible_start import Cycles, feasible_start
from cai.inference.trips.goal_solver import GoalSolver
from cai.roads.network import Streets

_MANY = 150  # goals from which on transposed solves, which are slower, take longer than factors


class _Block(NamedTuple):
    """Trips to b goals.

    Attributes:
        goals: (b,), their places.
        trips: (m,), which trips go there.
        columns: (m,), to which of the goals.
        origins: (m,), the places where they begin.
        x: (E, b), G e_d of each goal.
        here: (m,), x where a trip begins.
        there: (b,), x of each goal in itself.
        log_values: (m,), nats: log z_d(o).
    """

    goals: Any
    trips: Any
    columns: Any
    origins: Any
    x: Any
    here: Any
    there: Any
    log_values: Any

    @property
    def counts(self) -> Any:
        """(b,), how many trips go to each goal."""
        return np.bincount(self.columns, minlength=len(self.goals))

    def pull(self) -> Any:
        """The derivatives of Σ log z_d(o) in x, (E, b)."""
        found = np.zeros_like(self.x)
        np.add.at(found, (self.origins, self.columns), 1 / self.here)
        found[self.goals, np.arange(len(self.goals))] -= self.counts / self.there
        return found

    def relative(self, dx: list[Any]) -> tuple[Any, Any]:
        """dx/x where trips begin (m, k), and in the goals (b, k), from k derivatives (E, b)."""
        ends = np.arange(len(self.goals))
        at_origin = np.stack([d[self.origins, self.columns] for d in dx], 1)
        at_goal = np.stack([d[self.goals, ends] for d in dx], 1)
        return at_origin / self.here[:, None], at_goal / self.there[:, None]


class TripLikelihoods:
    """The likelihood of trips as a function of the weights.

    Args:
        streets: the network.
        features: (N, k), of its turns.
        trips: states are segments and actions are turns, the last state is the goal.

    Raises:
        ValueError: naming the trip, if it does not follow turns, or passes its goal.
    """

    def __init__(self, streets: Streets, features: Tensor, trips: Demonstrations) -> None:
        _check_trips(streets, trips)
        self.solver = GoalSolver(streets.turns, len(streets.segments))
        self.features: Any = features.numpy()
        where, turns = trips.taken.nonzero(as_tuple=True)[0], trips.actions[trips.taken]
        taken = torch.zeros(len(trips), features.shape[1], dtype=torch.float64)
        self.taken: Any = taken.index_add_(0, where, features[turns]).numpy()
        place, last = self.solver.place, trips.lengths.unsqueeze(1)
        self._from = place[trips.states[:, 0].numpy()]
        goals = place[trips.states.gather(1, last).squeeze(1).numpy()]
        self._goals, self._to = np.unique(goals, return_inverse=True)
        self._used = self._on_a_route()
        self._turns, self._names = streets.turns.numpy(), streets.segment_names
        self._by_goal = np.argsort(self._to, kind="stable")
        self._ends = np.searchsorted(self._to[self._by_goal], np.arange(len(self._goals) + 1))

    def __call__(self, weights: Tensor) -> ScoredDemonstrations:
        """At some weights (k,), by 2 + k solves for each goal.

        Raises:
            ValueError: if the sum over routes to some goal is infinite.
        """
        f, solver = self.features.T, self.solver
        k = len(f)
        values, scores = self._paid(weights), self.taken.copy()
        cross, seen, visits = np.zeros((k, k)), np.zeros((k, k)), np.zeros(len(self.features))
        with np.errstate(all="ignore"):  # what overflows is refused
            for here, blocks in self._blocks(weights):
                moves, pull = here.moves, self._transposed(here)
                once = [solver.matrix(moves * x) for x in f]
                for block in blocks:
                    values[block.trips] -= block.log_values
                    x, y = block.x, pull(block.pull())
                    dx = [here.lu.solve(np.asfortranarray(matrix @ x)) for matrix in once]
                    pulled = [matrix.T @ y for matrix in once]
                    cross += _rows(pulled) @ _rows(dx).T
                    visits += moves * solver.traversals(y, x)
                    at_origin, at_goal = block.relative(dx)
                    scores[block.trips] -= at_origin - at_goal[block.columns]
                    seen += at_origin.T @ at_origin - (at_goal.T * block.counts) @ at_goal
        information = (f * visits) @ f.T + cross + cross.T - seen
        return ScoredDemonstrations(*map(torch.from_numpy, (values, scores, information)))

    def values(self, weights: Tensor) -> Tensor:
        """(n,), nats: log P of each trip, by one solve for each goal.

        Raises:
            ValueError: if the sum over routes to some goal is infinite.
        """
        values = self._paid(weights)
        with np.errstate(all="ignore"):
            for _, blocks in self._blocks(weights):
                for block in blocks:
                    values[block.trips] -= block.log_values
        return torch.from_numpy(values)

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """log P of each trip (n,), and the gradient of their sum (k,), by two solves for each goal.

        Raises:
            ValueError: if the sum over routes to some goal is infinite.
        """
        values, visits = self._paid(weights), np.zeros(len(self.features))
        with np.errstate(all="ignore"):
            for here, blocks in self._blocks(weights):
                pull = self._transposed(here)
                for block in blocks:
                    values[block.trips] -= block.log_values
                    y = pull(block.pull())
                    visits += here.moves * self.solver.traversals(y, block.x)
        slope = self.taken.sum(0) - visits @ self.features
        return torch.from_numpy(values), torch.from_numpy(slope)

    def summed(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The log-likelihood of all trips (), nats, and its gradient (k,).

        Raises:
            ValueError: if the sum over routes to some goal is infinite.
        """
        values, gradient = self.gradient(weights)
        return values.sum(), gradient

    def _on_a_route(self) -> Any:
        """(N,), whether a turn lies between some origin and some goal.

        What cannot be reached, or leads nowhere, may have any cycles. Nor do trips to the only goal
        ever leave it.
        """
        solver = self.solver
        used = solver.reached(np.unique(self._from))[solver.tails]
        used &= solver.reached(self._goals, backwards=True)[solver.heads]
        return used & (solver.tails != self._goals[0]) if len(self._goals) == 1 else used

    def _paid(self, weights: Tensor) -> Any:
        return self.taken @ weights.numpy()

    def _blocks(self, weights: Tensor) -> Iterator[tuple[Factorised, Iterable[_Block]]]:
        """Each factorisation, with the goals that are in range of it, a few at a time."""
        utility, goals = self.features @ weights.numpy(), self._goals
        first = factorised(self.solver, utility, self._used, goals)
        for here, found in solved(first, utility, self._used, goals, self._least):
            yield here, (self._block(here, some, x) for some, x in found)

    def _trips_to(self, some: Any) -> tuple[Any, Any]:
        """Which trips go to some of the goals, (m,), and to which of those, (m,)."""
        trips = [self._by_goal[self._ends[i] : self._ends[i + 1]] for i in some]
        return np.concatenate(trips), np.repeat(np.arange(len(some)), [len(x) for x in trips])

    def _least(self, some: Any, x: Any) -> Any:
        """(b,), the smallest x where a trip begins."""
        trips, columns = self._trips_to(some)
        least = np.full(len(some), np.inf)
        np.minimum.at(least, columns, x[self._from[trips], columns])
        return least

    def _block(self, here: Factorised, some: Any, x: Any) -> _Block:
        goals, (trips, columns) = self._goals[some], self._trips_to(some)
        origins, h = self._from[trips], here.h
        begins, there = x[origins, columns], x[goals, np.arange(len(goals))]
        log_values = np.log(begins / there[columns]) + h[origins] - h[goals][columns]
        return _Block(goals, trips, columns, origins, x, begins, there, log_values)

    def _transposed(self, here: Factorised) -> Callable[[Any], Any]:
        """Solves with the transpose of I - M, by factors of its own if there are many goals."""
        if len(self._goals) < _MANY:
            return lambda right: here.lu.solve(right, "T")
        solve: Callable[[Any], Any] = here.transposed().solve
        return solve

    def start(self, given: Tensor | None = None) -> Tensor:
        """Weights (k,) at which the sums over routes are finite.

        Args:
            given: such weights; None to look for some.

        Raises:
            ValueError: naming a cycle that gains, if there are none, or at those that were given.
        """
        used, E = self._used, self.solver.size
        if given is None:
            weights = feasible_start(self._turns[used], E, self.features[used]).weights
        else:
            weights = given.numpy()
        try:
            if self.values(torch.from_numpy(weights)).isfinite().all():
                return torch.from_numpy(weights)
        except ValueError:
            pass
        cycles = Cycles(self._turns[used], E)
        utility = (self.features[used] @ weights)[cycles.inside]
        if not len(utility) or cycles.radius(utility)[0] < 0:
            expected, advice = "weights of a finite likelihood", "begin nearer to zero"
            checks.refuse("start", expected, str(weights.tolist()), advice)
        around = cycles.likely(utility)
        names = " → ".join(str(self._names[e]) for e in (*around, around[0]))
        checks.refuse(
            "start",
            "weights at which going round and round costs something",
            f"a gain, or no cost, for {names} "
            + ("whatever the weights are" if given is None else f"at {given.tolist()}"),
            "add a feature that every segment has, such as its minutes"
            if given is None
            else "leave start= out, or let segments cost more",
        )


def _rows(columns: list[Any]) -> Any:
    """k arrays (E, b) as the rows of a matrix."""
    return np.stack([x.ravel("F") for x in columns])


def _check_trips(streets: Streets, trips: Demonstrations) -> None:
    """Raises ValueError, naming the trip, unless turns join segments and a goal is entered once."""
    N, E = len(streets.turns), len(streets.segments)
    for name, x, size in (("states", trips.states, E), ("actions", trips.actions, N)):
        wrong = (x < 0) | (x >= size)
        if wrong.any():
            i = int(wrong.nonzero()[0, 0])
            advice = "streets.demonstrations reads trips by the names of segments"
            checks.refuse(f"trip {i}, {name}", f"integers in 0 … {size - 1}", "others", advice)
    whole = trips.ending("absorbed")
    if not whole.all():
        i = int((~whole).nonzero()[0])
        advice = "where a trip was cut off its goal is unknown; leave it out, or see goal_posterior"
        checks.refuse(f"trip {i}", "one that arrived, ends='absorbed'", repr(trips.ends[i]), advice)
    inside, turn = trips.taken, streets.turns[trips.actions]
    apart = (turn != torch.stack([trips.states[:, :-1], trips.states[:, 1:]], -1)).any(-1)
    if (apart & inside).any():
        i, t = (apart & inside).nonzero()[0].tolist()
        came = f"turn {int(trips.actions[i, t])}, which joins others"
        advice = "actions are rows of streets.turns"
        checks.refuse(f"trip {i}, step {t}", "the turn between its segments", came, advice)
    goals = trips.states.gather(1, trips.lengths.unsqueeze(1))
    passed = (trips.states[:, :-1] == goals) & inside
    if passed.any():
        i, t = passed.nonzero()[0].tolist()
        came = f"{streets.segment_names[int(goals[i])]} at step {t} already"
        advice = "a trip ends when it first enters its goal; cut it there"
        checks.refuse(f"trip {i}", "a goal that is entered last", came, advice)
