"""A control problem as arrays: one step's log p(s'|s,a), densely or as lists of successors."""

from __future__ import annotations

import dataclasses
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cai import checks, one_line
from cai.numerics import memory, threads
from cai.numerics.exclusive import cached_property
from cai.numerics.logspace import mean
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel

_MATRIX_STATES = 128  # up to here one product with a matrix is faster than a gather
_DIMS_OF_ONE_STEP = {"log_prior": 2, "log_dynamics": 3, "reward": 2, "arrival_reward": 3}


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """A control problem with S states and A actions as arrays in float64.

    Dynamics are kept as lists of the K states that can follow each state and action, or densely,
    with K = S, whichever is smaller. A table made by hand holds the arrays that it is given, not
    copies, since learning makes a new table at every step; ``cai.tabulate`` makes new arrays.

    With a finite horizon T ``log_prior``, ``log_dynamics``, ``reward`` and ``arrival_reward`` may
    each have an axis of steps in front, (T, …); see :meth:`at`.

    Attributes:
        log_initial: (S,), log p(s_0).
        log_prior: (S, A), log p(a|s); -inf for forbidden actions.
        log_dynamics: (S, A, K), log p(s'|s,a) of the K-th successor; -inf for impossible.
        successors: (S, A, K), which state that is, at any step; None where dense, then K = S.
        reward: (S, A), reward units, r(s,a).
        arrival_reward: (S, A, K), reward units, r⁺(s,a,s'), zero where impossible; or None.
        final_reward: (S,), reward units, r_T(s).
        horizon: T, or None.
        temperature: α, reward units per nat; a tensor () where it is differentiated.
        discount: γ.
        layout: names and places of states and actions, or None.
        precision: the type that sweeps multiply matrices in, float64 or float32.
        program: the model that was enumerated, for queries about its latents; or None.
        num_states: S.
        num_actions: A.
        num_outcomes: S·A·K, the numbers of one step.
        by_step: the fields that depend on the step, which have an axis of steps in front.

    Raises:
        ValueError: if shapes do not fit, or a number is NaN or +inf.

    >>> from cai import models, tabulate
    >>> table = tabulate(models.gridworld("rooms"))
    >>> table.log_prior.shape == table.reward.shape == (table.num_states, table.num_actions)
    True
    """

    log_initial: Tensor
    log_prior: Tensor
    log_dynamics: Tensor
    successors: Tensor | None
    reward: Tensor
    arrival_reward: Tensor | None
    final_reward: Tensor
    horizon: int | None
    temperature: float | Any  # a tensor () is allowed, but most readers want a number
    discount: float
    layout: Layout | None = None
    precision: torch.dtype = torch.float64
    program: TrajectoryModel | None = field(default=None, repr=False)
    num_states: int = field(init=False)
    num_actions: int = field(init=False)
    num_outcomes: int = field(init=False, repr=False)
    by_step: tuple[str, ...] = field(init=False, repr=False)
    __repr__ = one_line.of_fields

    def __post_init__(self) -> None:
        check_shapes(self)
        self._derive()
        check_numbers(self)

    def _derive(self) -> None:
        held = self.__dict__
        held["num_states"], held["num_actions"] = self.log_prior.shape[-2:]
        held["num_outcomes"] = math.prod(self.log_dynamics.shape[-3:])
        held["by_step"] = tuple(
            name
            for name, dims in _DIMS_OF_ONE_STEP.items()
            if (x := held[name]) is not None and x.dim() > dims
        )

    def holding(self, **changes: Any) -> Table:
        """A copy with arrays that were derived from this table's, which are not checked again."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self._fields() | changes)
        copy._derive()
        return copy

    def __getstate__(self) -> dict[str, Any]:
        """The arrays alone, since programs often cannot be pickled and the rest is derived."""
        return self._fields() | {"program": None}

    def _fields(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    def _tensors(self) -> dict[str, Any]:
        return {name: x for name, x in self._fields().items() if isinstance(x, Tensor)}

    def at(self, steps: int | slice) -> Table:
        """Step t, without an axis of steps, or a slice of steps as a problem of their own.

        Views of the fields; the table itself where all steps are alike.
        """
        if not self.by_step:
            return self
        changes: dict[str, Any] = {name: getattr(self, name)[steps] for name in self.by_step}
        if isinstance(steps, slice):
            changes["horizon"] = len(range(self.steps)[steps])
        view = self.holding(**changes, program=None)  # which counts its steps from the first
        if {"log_dynamics", "arrival_reward"}.isdisjoint(self.by_step):
            vars(view)["rows"] = vars(self).setdefault("rows", {})  # see sweeps/rows.py
        return view

    def threads(self) -> AbstractContextManager[None]:
        """A context in which sweeps over this table use a suitable number of threads."""
        return threads.suited_to(self.num_outcomes)

    @cached_property
    def steps(self) -> int:
        """T, if it is finite.

        Raises:
            ValueError: if the horizon is infinite.
        """
        return self.horizon or checks.finite_horizon(self, "this method")

    def float32(self) -> Table:
        """The same problem, whose finite-horizon sweeps multiply matrices in float32.

        For large dense tables this is three times as fast, at optimism 1, where the matrix is
        smaller, one and a half times; each step errs by about 1e-7 of the spread of the values, in
        nats. Arrays, values and sums that underflow stay in float64.
        """
        return dataclasses.replace(self, precision=torch.float32)

    def to(self, device: torch.device) -> Table:
        """The same problem on another device; the table itself if it is there already."""
        if self.reward.device == device:
            return self
        return dataclasses.replace(self, **{k: x.to(device) for k, x in self._tensors().items()})

    @property
    def outcome_rewards(self) -> Tensor:
        """r + r⁺, (S, A, K), reward units; (S, A, 1) without arrival rewards."""
        reward = self.reward.unsqueeze(-1)
        return reward if self.arrival_reward is None else reward + self.arrival_reward

    @property
    def expected_reward(self) -> Tensor:
        """r + E[r⁺|s,a], (S, A), reward units, in the true dynamics."""
        if self.arrival_reward is None:
            return self.reward
        return self.reward + mean(self.log_dynamics, self.arrival_reward)

    @cached_property
    def successor_index(self) -> Tensor:
        """The successors of each state under all actions, flattened: (S, A·K)."""
        if self.successors is not None:
            return self.successors.flatten(1)
        S, A = self.num_states, self.num_actions
        return torch.arange(S).expand(S, A, S).reshape(S, A * S)

    @cached_property
    def log_weights(self) -> Tensor:
        """log p(a|s) + log p(s'|s,a) + (r + r⁺)/α, shape (S, A, K): one step of p(τ, O)."""
        log_p = self.log_prior.unsqueeze(-1) + self.log_dynamics
        return log_p + self.outcome_rewards / self.temperature

    def detached(self) -> Table:
        """The same numbers without their graph; the table itself if nothing requires grad."""
        changes = {k: x.detach() for k, x in self._tensors().items() if x.requires_grad}
        if isinstance(self.temperature, Tensor):
            changes["temperature"] = self.temperature.item()
        return dataclasses.replace(self, **changes) if changes else self

    def gather(self, values: Tensor) -> Tensor:
        """values(s') of each successor, (..., S) -> (..., S, A, K)."""
        if self.successors is None:
            return values[..., None, None, :]
        index = self.successors.flatten()
        return values.index_select(-1, index).unflatten(-1, self.successors.shape)

    def flow(self, moves: Tensor) -> Tensor:
        """Transitions in the form that :meth:`push` and :meth:`pull` take.

        (..., S, A, K) -> (..., S, S), summed over actions, if that is small or dense already; else
        (..., S, A·K), in the order of ``successor_index``.
        """
        if self.successors is None:
            return moves.sum(-2)
        if self.num_states > _MATRIX_STATES:
            return moves.flatten(-2)
        matrix = moves.new_zeros(*moves.shape[:-2], self.num_states)
        index = self.successor_index.expand(*moves.shape[:-2], -1)
        return matrix.scatter_add_(-1, index, moves.flatten(-2))

    @cached_property
    def flows_in_matrices(self) -> bool:
        """Whether :meth:`flow` makes matrices, (..., S, S)."""
        return self.successors is None or self.num_states <= _MATRIX_STATES

    def push(self, mass: Tensor, flow: Tensor) -> Tensor:
        """One step forward: the mass that arrives in each state, from the mass (S,) and a flow."""
        if self.flows_in_matrices:
            return mass @ flow
        arrived = (mass.unsqueeze(-1) * flow).flatten()
        return torch.zeros_like(mass).index_add_(0, self.successor_index.flatten(), arrived)

    def arrivals(self, moves: Tensor) -> Tensor:
        """The mass that arrives in each state, (S,), from that of each transition (S, A, K)."""
        if self.successors is None:
            return moves.sum((0, 1))
        arrived = moves.new_zeros(self.num_states)
        return arrived.index_add_(0, self.successors.flatten(), moves.flatten())

    def pull(self, flow: Tensor, values: Tensor) -> Tensor:
        """One step backward, the adjoint of push: the flow-weighted sum of the values (S,).

        A value of -inf does not count where the flow is zero.
        """
        finite = math.isfinite(values.sum())
        if self.flows_in_matrices:
            if finite:
                return flow @ values
        else:
            values = values[self.successor_index]
        return torch.where(flow > 0, flow * values, 0.0).sum(-1)

    def check_dense(self) -> None:
        """Raises ValueError if an array over all pairs of states would not fit into memory."""
        S = self.num_states
        instead = "take solution.sample or solution.at(t).rest.log_transitions, lists of successors"
        memory.check_fits(
            "dynamics(t)", f"an array (S, A, S) of {S} states", S**2 * self.num_actions, instead
        )

    def dense(self, log_p: Tensor) -> Tensor:
        """exp(log_p) of each successor as a dense array, (…, S, A, K) -> (…, S, A, S)."""
        if self.successors is None:
            return log_p.exp()
        out = log_p.new_zeros(*log_p.shape[:-1], self.num_states)
        return out.scatter_add_(-1, self.successors.expand(log_p.shape), log_p.exp())


def check_shapes(table: Table) -> None:
    """Raises ValueError if arrays of a table do not fit each other."""
    shape = list(getattr(table.log_dynamics, "shape", ()))
    if len(shape) not in (3, 4) or 0 in shape:
        came = str(shape) if shape else type(table.log_dynamics).__name__
        fits = "an array of shape (S, A, K), or (T, S, A, K)"
        checks.refuse("log_dynamics", fits, came, "cai.tabulate(model) makes one")
    S, A, K = shape[-3:]
    for name, expected in (
        ("log_initial", (S,)),
        ("log_prior", (S, A)),
        ("log_dynamics", (S, A, K)),
        ("successors", (S, A, K)),
        ("reward", (S, A)),
        ("arrival_reward", (S, A, K)),
        ("final_reward", (S,)),
    ):
        if (x := getattr(table, name)) is None and name in ("successors", "arrival_reward"):
            continue
        shapes: list[tuple[int, ...]] = [expected]
        if name in _DIMS_OF_ONE_STEP and table.horizon is not None:
            shapes.append((table.horizon, *expected))
        if not isinstance(x, Tensor) or x.shape not in shapes:
            either = f"a tensor of shape {', or '.join(str(list(shape)) for shape in shapes)}"
            checks.refuse(name, either, checks.described(x), "take that of cai.tabulate")


def check_numbers(table: Table) -> None:
    """Raises ValueError if numbers of a table are out of range, NaN or +inf."""
    if torch.compiler.is_compiling():  # inspecting a number would break the graph
        return
    if table.horizon is not None:
        checks.check_count("horizon", table.horizon)
    if not isinstance(table.temperature, Tensor):
        checks.check_positive("temperature", table.temperature)
    checks.check_discount(table.discount)
    for name, x in vars(table).items():
        numbers = isinstance(x, Tensor) and x.is_floating_point() and name != "temperature"
        if numbers and not checks.below_infinity(x):
            checks.check_reward(name, x)
