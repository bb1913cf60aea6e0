"""Linearly solvable control problems (Todorov 2007, 2009): to act is to choose the next state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from scipy import sparse
from torch import Tensor

from cai import checks
from cai.distributions.lookup import Entry, Lookup, Next, Weighted
from cai.models.discrete.sparse import square_rows
from cai.numerics import arrays
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel


def linearly_solvable(
    passive: Any,
    cost: Any,
    *,
    horizon: int | None,
    exit_cost: Any = None,
    final_cost: Any = None,
    initial: Any = None,
    temperature: float = 1.0,
    discount: float = 1.0,
    layout: Layout | None = None,
) -> TrajectoryModel:
    """A linearly solvable problem: passive dynamics, and a cost for each state.

    The agent picks the distribution of the next state, u(s'|s), and pays the cost of the state and
    α KL(u(·|s) ‖ passive(·|s)). As a trajectory model, action k leads for certain to the k-th
    successor of a state, and the passive dynamics are the action prior. Then exp(V/α) is Todorov's
    desirability z, and eq. 7 of Levine (2018) is his linear equation

        z(s) = exp(-cost(s)/α) Σ_s' passive(s'|s) z(s').

    Given the action the next state is certain, so that without a discount every optimism η gives
    the same answer. With a discount, termination is a chance event, and Todorov's discounted
    z(s) = exp(-cost/α) E[z(s')^γ] is ``soft_values`` at η = 0.

    ================  ============================================================================
    Todorov's form    what to call
    ================  ============================================================================
    finite horizon    ``soft_values(linearly_solvable(..., horizon=T, final_cost=...))``
    first exit        ``horizon=None``; the exits are the states that the passive dynamics never
                      leave, and ``exit_cost`` is paid once, on arrival in one
    average cost      ``average_reward(linearly_solvable(..., horizon=None))``
    discounted        ``horizon=None, discount=γ``, at optimism 0
    ================  ============================================================================

    Args:
        passive: p(s'|s), shape (S, S): an array, or a ``scipy.sparse`` matrix for many states. The
            number of actions is the largest number of successors that any state has.
        cost: (S,), reward units per step; +inf forbids the state.
        horizon: T, or None for an infinite horizon.
        exit_cost: (S,), reward units, paid on arrival in an exit; only the entries of exits count.
        final_cost: (S,), reward units, of the state at the end of a finite horizon.
        initial: p(s_0), shape (S,); state 0 if not given.
        temperature: α, reward units per nat.
        discount: γ.
        layout: names and places of the states.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: if shapes do not fit together, rows do not sum to one, a cost is NaN or
            -inf, or an exit would be paid for again and again because ``cost`` is not zero there.

    >>> from cai import inference, models
    >>> model = models.linearly_solvable([[0.5, 0.5], [0.0, 1.0]], [1.0, 0.0], horizon=None)
    >>> round(inference.linear_system(model).log_values[0].item(), 4)
    -1.4899
    """
    p, successors = _lists(passive)
    S = len(p)
    reward = -_costs("cost", cost, S)
    stays = (p > 0) & (successors == torch.arange(S).unsqueeze(1))
    exits = stays.any(1) & ((p > 0).sum(1) == 1)
    if horizon is None and discount == 1 and (reward[exits] != 0).any():
        state = int((exits & (reward != 0)).nonzero()[0])
        expected = "zero, since the passive dynamics never leave it and it would be paid for ever"
        advice = "give it as exit_cost, which is paid once"
        checks.refuse(f"cost at state {state}", expected, f"{-reward[state].item():g}", advice)
    on_exit = None
    if exit_cost is not None:
        on_exit = torch.where(exits, -_costs("exit_cost", exit_cost, S), 0.0)
    final = None if final_cost is None else -_costs("final_cost", final_cost, S)
    start = torch.eye(1, S)[0] if initial is None else initial
    start = arrays.weights("initial", start, (S,))

    return TrajectoryModel(
        initial=dist.Categorical(start),
        dynamics=Next(successors),
        reward=Entry(reward.unsqueeze(1).expand(p.shape)),
        action_prior=Weighted(p),
        horizon=horizon,
        temperature=temperature,
        arrival_reward=None if on_exit is None else _OnExit(exits, on_exit),
        final_reward=None if final is None else Entry(final),
        discount=discount,
        layout=layout,
    )


@dataclass(frozen=True, eq=False)
class _OnExit(Lookup):
    """r⁺(s,a,s') of arriving in an exit from elsewhere; (S,) each."""

    exits: Tensor
    rewards: Tensor

    def __call__(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        return torch.where(self.exits[s], 0.0, self.rewards[s_next])


def _lists(passive: Any) -> tuple[Tensor, Tensor]:
    """Probabilities and states of the successors, (S, K) each; short rows repeat the first one."""
    if not sparse.issparse(passive):
        expected = "an array of shape (S, S)"
        dense = arrays.numbers("passive", passive, expected)
        if dense.dim() != 2 or dense.shape[0] != dense.shape[1]:
            checks.refuse("passive", expected, f"shape {list(dense.shape)}", "row s is p(s'|s)")
        passive = sparse.csr_array(dense.numpy(force=True))
    matrix = square_rows("passive", passive)
    if not matrix.shape[0]:
        checks.refuse("passive", "at least one state", "none", "give one that stays where it is")
    matrix.eliminate_zeros()
    if not (matrix.data > 0).all():
        checks.refuse("passive", "probabilities", f"{np.min(matrix.data):g}", "not logarithms")
    count = np.diff(matrix.indptr)
    checks.check_rows("passive", torch.as_tensor(matrix.sum(1)).unsqueeze(-1).log())
    row = np.repeat(np.arange(len(count)), count)
    rank = np.arange(len(row)) - np.repeat(matrix.indptr[:-1], count)
    p = np.zeros((len(count), count.max()))
    successors = np.repeat(matrix.indices[matrix.indptr[:-1], None], count.max(), 1).astype(int)
    p[row, rank], successors[row, rank] = matrix.data, matrix.indices
    return torch.as_tensor(p), torch.as_tensor(successors)


def _costs(name: str, values: Any, S: int) -> Tensor:
    costs = arrays.numbers(name, values)
    if costs.shape not in ((), (S,)):
        expected = f"one number for each of the {S} states"
        checks.refuse(name, expected, f"shape {list(costs.shape)}", "or one")
    bad = costs[costs.isnan() | (costs == -torch.inf)]
    if len(bad):
        expected = "numbers above -inf (+inf forbids)"
        checks.refuse(name, expected, f"{bad[0].item()}", "look for 0/0 or 0·inf")
    return costs.expand(S)
