"""Infinite horizons at optimism 1: the exact posterior is the solution of one linear system.

With z = exp(V/α), one step of p(τ, O) is linear: z(s) = Σ_{a,s'} p(a|s) p(s'|s,a) exp((r + r⁺)/α)
(γ z(s') + 1 - γ), and z = 1 in absorbing states. So (I - M) z = b, M over the other states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai import checks, one_line
from cai.inference.infinite._factors import Factors, solve
from cai.inference.infinite._potentials import shortest_distances
from cai.inference.infinite._system import (
    System,
    divergence,
    log_spectral_radius,
    row_logsumexp,
)
from cai.inference.infinite._transition_graph import TransitionGraph, transition_graph
from cai.inference.infinite.count_transitions import TransitionCounts
from cai.infinite.endings import never_paid
from cai.numerics import arrays
from cai.numerics.exclusive import cached_property
from cai.numerics.logspace import product
from cai.program.trajectory import TrajectoryModel
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import tabulate


def linear_system(model: TrajectoryModel | Table) -> LinearValues:
    """Exact values of an infinite horizon at optimism 1, by one sparse factorisation.

    Solves (I - M) z = b for z = exp(V/α), M = Σ_a p(a|s) γ p(s'|s,a) exp((r + r⁺)/α) over the
    states that are not absorbing, b the weight of steps into absorbing states or into termination
    (Todorov 2009; in route choice the recursive logit of Fosgerau, Frejinger and Karlstrom 2013).
    States from which no reward can follow have value 0, like absorbing states; those from which
    costs cannot be avoided for ever have value -inf.

    Args:
        model: a discrete model with an infinite horizon, or its table.

    Returns:
        A :class:`LinearValues`: values, the factorisation behind them, and their residual.

    Raises:
        ValueError: if the horizon is finite, or the spectral radius of M is not below one, so
            that p(O) is infinite (the message gives it).

    >>> from cai import inference, models
    >>> roads = models.road_network([0, 0, 1], [1, 2, 2], [-1.0, -3.0, -1.0], goals=2)
    >>> found = inference.linear_system(roads)
    >>> [round(v, 3) for v in found.log_values.tolist()]
    [-2.38, -1.0, 0.0]
    """
    table = tabulate(model)
    if table.horizon is not None:
        advice = "take inference.posterior, or dataclasses.replace(model, horizon=None)"
        checks.refuse("horizon", "None, an infinite horizon", repr(table.horizon), advice)
    graph = transition_graph(table)
    system = System.of(graph, table.discount)
    distance = shortest_distances(system)
    stuck = np.isinf(distance) & ~graph.absorbing
    if stuck.any():
        free = never_paid(table).numpy()
        if (free & stuck).any():
            graph = graph.ending(free)
            system = System.of(graph, table.discount)
            distance = shortest_distances(system)
        _check_stuck(system, np.isinf(distance))
    return LinearValues(table, graph, solve(system, distance))


@dataclass(frozen=True, eq=False)
class LinearValues:
    """Exact values of an infinite horizon at optimism 1, with the factorisation that gave them.

    Attributes:
        table: the problem, S states, A actions and K successors of each.
        graph: its possible transitions.
        factors: the solved system.

    >>> import torch
    >>> from cai import inference, models
    >>> roads = models.road_network([0, 0, 1], [1, 2, 2], [-1.0, -3.0, -1.0], goals=2)
    >>> found = inference.linear_system(roads)
    >>> found.error < 1e-9, found.expected_visits(torch.tensor([1.0, 0.0, 0.0])).shape
    (True, torch.Size([3]))
    """

    table: Table
    graph: TransitionGraph
    factors: Factors

    __repr__ = one_line.of_fields

    @property
    def log_values(self) -> Tensor:
        """(S,), nats: V(s)/α = log p(O|s_0=s); 0 in absorbing states, -inf if costs never end."""
        v = np.where(self.graph.absorbing, 0.0, self.factors.log_values)
        return torch.from_numpy(v)

    @property
    def residual(self) -> float:
        """(), nats: max |T V - V|/α, computed in log space."""
        return self.factors.residual

    def expected_transitions(self, start: Tensor) -> Tensor:
        """Expected counts of transitions under p(τ|O, s_0), by one solve with the factorisation.

        They are the derivatives of Σ_s start(s) V(s) in the rewards r⁺(s,a,s'); summed over
        successors, in r(s,a).

        Args:
            start: (S,), how many trajectories begin in each state.

        Returns:
            (S, A, K), expected numbers of transitions, summed over all trajectories.

        Raises:
            ValueError: if a trajectory starts in a state with p(O|s_0) = 0.
        """
        table, graph, factors = self.table, self.graph, self.factors
        visits = self.expected_visits(start).numpy()
        v = np.where(graph.absorbing, 0.0, factors.log_values)
        then = bellman.continuation(torch.from_numpy(v), 1.0, table.discount).numpy()
        on = factors.live[graph.tails]
        tails, heads = graph.tails[on], graph.heads[on]
        chance = np.exp(graph.log_weights[on] + (then[heads] - v[tails]))
        out = np.zeros(table.log_dynamics.numel())
        out[graph.places[on]] = visits[tails] * chance
        return torch.from_numpy(out).reshape(table.log_dynamics.shape)

    def expected_visits(self, start: Tensor) -> Tensor:
        """Expected visits of states under p(τ|O, s_0), arguments as above; 0 for absorbing states.

        Returns:
            (S,), expected numbers of visits, summed over all trajectories.
        """
        graph, factors = self.graph, self.factors
        mass = arrays.numbers("start", start).numpy(force=True)
        if mass.shape != factors.live.shape:
            expected = f"one number for each of {len(factors.live)} states"
            checks.refuse("start", expected, f"shape {list(mass.shape)}", "zero for most of them")
        lost = (mass > 0) & ~(factors.live | graph.absorbing)
        if lost.any():
            expected = "trajectories from states where p(O|s_0) > 0"
            came = f"one from state {np.flatnonzero(lost)[0]}"
            checks.refuse("start", expected, came, "no trajectory from there ends")
        before = np.divide(mass, factors.u, out=np.zeros_like(mass), where=factors.live)
        return torch.from_numpy(factors.lu.solve(before, trans="T") * factors.u)

    def log_likelihood(self, counts: TransitionCounts) -> float:
        """Σ log p(τ|O, s_0) of counted trajectories, terminations included, (), nats.

        Args:
            counts: trajectories counted by :func:`count_transitions`.
        """
        table, ended = self.table, counts.terminations
        ending = torch.from_numpy(self.graph.absorbing)[table.successor_index]
        going_on = counts.transitions.flatten(1)[~ending].sum().item() - ended
        paid = product(counts.transitions, table.log_weights).sum().item()
        if table.discount < 1:
            paid += going_on * math.log(table.discount) + ended * math.log1p(-table.discount)
        return paid - product(counts.starts, self.log_values).sum().item()

    def reward_gradient(self, counts: TransitionCounts) -> Tensor:
        """∂ log p(τ|O)/∂r of counted trajectories: observed minus expected counts, over α.

        Args:
            counts: trajectories counted by :func:`count_transitions`.

        Returns:
            (S, A), nats per unit of reward; zero in absorbing states, which stay absorbing.

        Raises:
            ValueError: if a trajectory starts in a state with p(O|s_0) = 0.
        """
        more = counts.transitions - self.expected_transitions(counts.starts)
        more[torch.from_numpy(self.graph.absorbing)] = 0.0
        return more.sum(-1) / self.table.temperature

    @cached_property
    def error(self) -> float:
        """(), nats: a bound on |V - exact V|/α in every state, by a sub- and a super-solution.

        y = (I - M)⁻¹ u is how a residual adds up until termination. If one step moves u (1 ± ε),
        ε = 2 (residual + rounding) y/u, in the right direction, the exact solution lies between the
        two, and the spectral radius of M is below one. This takes one more solve.
        """
        found = self.factors
        live, u = found.live, found.u
        y = found.lu.solve(u)
        with np.errstate(invalid="ignore"):
            gained = (y - found.weights @ y)[live] / u[live]
        if not gained.min(initial=1.0) > 0.5:  # also if NaN, when y overflowed
            return math.inf
        size = np.abs(found.log_values[live]).max(initial=1.0)
        slack = 2 * (found.residual + 8 * np.finfo(float).eps * size)
        off = slack * (y[live] / u[live]).max(initial=0.0)
        return float(-np.log1p(-off)) if off < 1 else math.inf


def _check_stuck(system: System, stuck: Any) -> None:
    """Raises ValueError unless states that never terminate have infinite costs, so value -inf."""
    inside = system.restricted(stuck)
    nothing = np.full(len(stuck), -np.inf)
    if row_logsumexp(inside.log_on, nothing).max(initial=-np.inf) < 0:
        return
    if log_spectral_radius(inside) > -1e-12:
        raise divergence(inside)
