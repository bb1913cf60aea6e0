"""A model from arrays: transition probabilities and rewards of numbered states and actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from cai import checks
from cai.distributions.lookup import (
    Entry,
    EntryAt,
    Lookup,
    Moves,
    MovesAt,
    ToldStep,
    Weighted,
    WeightedAt,
)
from cai.models.discrete.sparse import as_lists, is_sparse
from cai.numerics import arrays
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel


def tabular(
    transitions: Any,
    reward: Any,
    *,
    horizon: int | None,
    successors: Any = None,
    initial: Any = None,
    action_prior: Any = None,
    arrival_reward: Any = None,
    final_reward: Any = None,
    temperature: float = 1.0,
    discount: float = 1.0,
    optimality: Literal["factor", "bernoulli"] = "factor",
    layout: Layout | None = None,
) -> TrajectoryModel:
    """A model of S states and A actions from arrays.

    With a finite horizon T transitions, rewards, arrival rewards and the action prior may depend
    on the step: each may have a leading axis of its own, (T, …), beside others that have none.

    Args:
        transitions: P[s,a,s'], shape (S, A, S), as lists, arrays of NumPy or dense ones of torch,
            or what NumPy reads; all arrays are copied. With ``successors``, the probability of
            each listed successor, shape (S, A, K); or a list of A ``scipy.sparse`` matrices (S, S),
            whose row s is p(s'|s,a), of which no dense row is ever made.
        reward: r[s,a], shape (S, A), reward units; -inf forbids.
        horizon: T, or None for an infinite horizon.
        successors: which state each listed successor is, integers of shape (S, A, K), the same at
            every step: what can follow at any of them.
        initial: p(s_0), shape (S,); state 0 if not given.
        action_prior: p(a|s), shape (A,) or (S, A); uniform if not given. Zero forbids. Of a step,
            (T, S, A); (T, A) is not taken, since it might be (S, A).
        arrival_reward: r⁺, paid on arrival, shaped as the ``transitions`` of a step; sparse as they
            are, where what is not stored is zero.
        final_reward: r_T(s), shape (S,).
        temperature: α, reward units per nat.
        discount: γ.
        optimality: "factor" or "bernoulli".
        layout: names and places of the states and actions.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: if shapes do not fit together or an axis of steps does not fit the horizon, rows
            do not sum to one, a successor is not a state, or one successor is listed twice with
            different arrival rewards.

    >>> from cai import inference, models
    >>> P = [[[0.9, 0.1], [0.2, 0.8]], [[0.0, 1.0], [0.0, 1.0]]]  # (S, A, S)
    >>> model = models.tabular(P, [[0.0, -1.0], [1.0, 1.0]], horizon=3)
    >>> inference.posterior(model).V.shape
    torch.Size([4, 2])
    """
    if is_sparse(transitions):
        if successors is not None:
            expected = "none beside sparse matrices"
            advice = "the columns of a sparse matrix say which states follow"
            checks.refuse("successors", expected, type(successors).__name__, advice)
        transitions, successors, arrival_reward = as_lists(transitions, arrival_reward)
    P, r = arrays.numbers("transitions", transitions), arrays.numbers("reward", reward)
    if P.dim() not in (3, 4) or r.dim() not in (2, 3) or r.shape[-2:] != P.shape[-3:-1]:
        expected = "shapes (S, A, S) or (S, A, K), and (S, A), or those of T steps"
        came = f"{list(P.shape)} and {list(r.shape)}"
        advice = "the state comes first, then the action"
        checks.refuse("transitions, reward", expected, came, advice)
    for name, x, dims in (("transitions", P, 3), ("reward", r, 2)):
        _check_steps(name, x, dims, horizon)
    S, A, K = P.shape[-3:]
    if not P.numel():
        expected = "at least one state and one action"
        checks.refuse("transitions", expected, f"shape {list(P.shape)}", "give one")
    if (P < 0).any():
        state, action, _ = (P < 0).nonzero()[0, -3:].tolist()
        where = f"transitions at state {state}, action {action}"
        advice = "give probabilities, not logarithms"
        checks.refuse(where, "probabilities ≥ 0", f"{P.min().item():g}", advice)
    log_P = P.log()
    checks.check_rows("transitions", log_P)
    listed = None if successors is None else _successors(successors, P)
    if listed is None and K != S:
        advice = "for lists of successors pass successors=, too"
        checks.refuse("transitions", f"shape {[S, A, S]}", f"{[S, A, K]}", advice)
    start = torch.eye(1, S)[0] if initial is None else initial
    start = arrays.weights("initial", start, (S,))
    prior = torch.ones(A, dtype=torch.float64) if action_prior is None else action_prior
    of_steps = [] if horizon is None else [(horizon, S, A)]
    prior = arrays.weights("action_prior", prior, (A,), (S, A), *of_steps)
    arrival = None
    if arrival_reward is not None:
        arrival = _shaped("arrival_reward", arrival_reward, (S, A, K), horizon)
    final = None if final_reward is None else _shaped("final_reward", final_reward, (S,))
    if listed is not None and arrival is not None:
        _check_unambiguous(listed, P, arrival)

    paid: Entry | EntryAt | _ArrivalRewards | None = None
    if arrival is not None and listed is None:
        paid = _entry(arrival, 3)
    elif arrival is not None:
        assert listed is not None
        timed = arrival.dim() == 4 or P.dim() == 4
        possible, kind = P > 0, _ArrivalRewardsAt if timed else _ArrivalRewards
        arrival, possible = torch.broadcast_tensors(arrival, possible)
        paid = kind(arrival, listed, possible)
    dynamics: Any = Moves(log_P, listed) if P.dim() == 3 else MovesAt(log_P, listed)
    return TrajectoryModel(
        initial=dist.Categorical(start),
        dynamics=dynamics,
        reward=_entry(r, 2),
        action_prior=_prior(prior),
        horizon=horizon,
        temperature=temperature,
        arrival_reward=paid,
        final_reward=None if final is None else Entry(final),
        discount=discount,
        optimality=optimality,
        layout=layout,
    )


@dataclass(frozen=True, eq=False)
class _ArrivalRewards(Lookup):
    """r⁺(s,a,s') by lists of successors, (S, A, K) each: rewards, states, which are possible."""

    rewards: Tensor
    successors: Tensor
    possible: Tensor

    def __call__(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        return self._paid((s, a), s_next, (s, a))

    def _paid(self, here: Any, s_next: Tensor, now: Any) -> Tensor:
        where = (self.successors[here] == s_next.unsqueeze(-1)) & self.possible[now]
        paid = torch.where(where, self.rewards[now], -torch.inf).amax(-1)
        return torch.where(where.any(-1), paid, 0.0)  # a reward of -inf is one, too


@dataclass(frozen=True, eq=False)
class _ArrivalRewardsAt(_ArrivalRewards, ToldStep):
    """The same at each step: rewards and what is possible are (T, S, A, K)."""

    def __call__(self, s: Tensor, a: Tensor, s_next: Tensor, t: Any = 0) -> Tensor:
        return self._paid((s, a), s_next, (t, s, a))


def _entry(array: Tensor, dims: int) -> Entry | EntryAt:
    """An array as a function of the ``dims`` indices of one step, and of the step if it has one."""
    return Entry(array) if array.dim() == dims else EntryAt(array)


def _prior(weights: Tensor) -> Any:
    """p(a|s) by weights (A,), (S, A) or (T, S, A)."""
    if weights.dim() == 1:
        return dist.Categorical(weights)
    return Weighted(weights) if weights.dim() == 2 else WeightedAt(weights)


def _shaped(name: str, values: Any, shape: tuple[int, ...], horizon: int | None = None) -> Tensor:
    """Numbers in a shape, or with a horizon also in that shape at each of its steps."""
    array = arrays.numbers(name, values)
    if array.shape != shape and array.shape != (horizon, *shape):
        advice = "one number for each entry of the arrays beside it"
        checks.refuse(name, f"shape {list(shape)}", f"{list(array.shape)}", advice)
    checks.check_reward(name, array)
    return array


def _check_steps(name: str, x: Tensor, dims: int, horizon: int | None) -> None:
    """Raises ValueError if an array has an axis of steps that is not the horizon's."""
    if x.dim() > dims and x.shape[0] != horizon:
        came = f"horizon {horizon} and {x.shape[0]} steps"
        expected = "an axis of steps in front only beside horizon=, as long as that"
        checks.refuse(name, expected, came, "leave the axis out where all steps are alike")


def _successors(values: Any, P: Tensor) -> Tensor:
    listed = arrays.integers("successors", values)
    if listed.shape != P.shape[-3:]:
        expected, came = f"integers of shape {list(P.shape[-3:])}", f"shape {list(listed.shape)}"
        advice = "one for each entry of transitions, the same at every step"
        checks.refuse("successors", expected, came, advice)
    S = P.shape[-3]
    if ((listed < 0) | (listed >= S)).any():
        came = f"{listed.min().item()} … {listed.max().item()}"
        advice = "fill up short lists with any state at probability zero"
        checks.refuse("successors", f"states 0 … {S - 1}", came, advice)
    return listed


def _check_unambiguous(listed: Tensor, P: Tensor, arrival: Tensor) -> None:
    """One successor, one reward: r⁺(s,a,s') is a function of where one arrives."""
    both = (P > 0).unsqueeze(-1) & (P > 0).unsqueeze(-2)
    same = listed.unsqueeze(-1) == listed.unsqueeze(-2)
    clash = both & same & (arrival.unsqueeze(-1) != arrival.unsqueeze(-2))
    if clash.any():
        s, a, k, _ = clash.nonzero()[0, -4:].tolist()
        raise ValueError(
            f"arrival_reward: from state {s} with action {a} the successor {listed[s, a, k]} is "
            "listed twice, with different rewards; make them two states, since their mean would "
            "be another problem"
        )
