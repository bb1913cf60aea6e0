"""The long-run average: what a step is worth when there is no end and no discount."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from torch import Tensor

from cai import bellman
from cai.policy import TabularPolicy
from cai.table import Table
from cai.tabulation import tabulate
from cai.trajectory import TrajectoryModel

_TOLERANCE = 1e-12  # width of the bracket at which to stop, relative to the gain, nats
_STEPS = 1000


@dataclass(frozen=True, eq=False)
class AverageReward:
    """The solution of g + V = T V at one optimism η, T the soft Bellman operator without discount.

    S states, A actions. At η = 1, exp(g/α) is the largest eigenvalue of
    M(s,s') = Σ_a p(a|s) exp((r + r⁺)/α) p(s'|s,a), and exp(V/α) its eigenvector (Todorov 2009).

    Attributes:
        table: the problem that was solved.
        optimism: η.
        gain: (), reward units a step: the long-run average of r - α KL(π‖prior), less the price
            α/η of bending the dynamics.
        error: (), reward units: ``gain`` is off by at most this much, for certain.
        V: (S,), reward units: what it is worth to start in a state rather than on average; -inf
            where rewards of -inf cannot be avoided.
        Q: (S, A), reward units: g + V = α log Σ_a p(a|s) exp(Q/α).
        policy: π(a|s) ∝ p(a|s) exp(Q/α), stationary.
        states: (S,): how often each state is visited in the long run, under the bent chain.
    """

    table: Table
    optimism: float
    gain: float
    error: float
    V: Tensor
    Q: Tensor
    policy: TabularPolicy
    states: Tensor


def average_reward(model: TrajectoryModel | Table, optimism: float = 0.0) -> AverageReward:
    """The best long-run average reward, less the cost of control, at optimism η.

    Newton's method on g + V = T V, that is Howard's policy iteration with the bent dynamics in the
    place of the true ones; where that does not bring the bracket closer, a damped step of value
    iteration. T is monotone, and T(V + c) = TV + c, so that for any V whatever

        min_s (TV - V)(s) ≤ g ≤ max_s (TV - V)(s),

    which is the certificate (Collatz and Wielandt's for the eigenvalue at η = 1).

    Args:
        model: a model with finitely many states and actions, infinite horizon and discount 1.
        optimism: η, any real number.

    Raises:
        ValueError: where the horizon is finite, there is a discount, every state is bound for a
            reward of -inf, or there are two sets of states neither of which is ever left, each
            with an average of its own.
    """
    table = tabulate(model)
    eta = float(optimism)
    _check(table, eta)
    with table.threads():
        v = _possible(table, eta)
        _check_one_long_run(table, v)
        width, best = math.inf, v
        for _ in range(_STEPS):
            q = bellman.action_values(table, v, eta)
            backed_up = bellman.logsumexp(table.log_prior + q)
            lower, upper = _bracket(backed_up, v)
            newton = upper - lower < width
            if newton:
                width, best = upper - lower, v
            if width <= _TOLERANCE * max(1.0, abs(upper)):
                break
            v = _newton(table, v, q, backed_up, eta) if newton else (v + backed_up) / 2
            v = v - v[v > -torch.inf].max()
        return _result(table, eta, best)


def _check(table: Table, eta: float) -> None:
    if table.horizon is not None:
        raise ValueError(
            f"horizon: a long-run average needs an infinite horizon, got {table.horizon}; try "
            "dataclasses.replace(model, horizon=None)"
        )
    if table.discount < 1:
        raise ValueError(
            f"discount: with a discount of {table.discount:g} every trajectory ends, and its "
            "long-run average is zero; take soft_values, or a discount of 1"
        )
    if not math.isfinite(eta):
        raise ValueError(f"optimism: expected a finite number, got {eta}; ±1e3 is close to ±inf")


def _possible(table: Table, eta: float) -> Tensor:
    """Zero for states that can go on for ever without a reward of -inf, -inf for the others."""
    v = torch.zeros(table.num_states, dtype=torch.float64)
    while True:
        q = bellman.action_values(table, v, eta)
        dead = bellman.logsumexp(table.log_prior + q) == -torch.inf
        if torch.equal(dead, v == -torch.inf):
            break
        v = torch.where(dead, -torch.inf, 0.0)
    if dead.all():
        raise ValueError(
            "evidence: p(O) = 0, a reward of -inf cannot be avoided from any state; make it finite"
        )
    return v


def _bracket(backed_up: Tensor, v: Tensor) -> tuple[float, float]:
    rise = (backed_up - v)[v > -torch.inf]
    return rise.min().item(), rise.max().item()


def _matrix(table: Table, moves: Tensor, possible: NDArray[np.bool_]) -> sparse.csr_array:
    """Moves (S, A, K) as a matrix from state to state, over the possible states."""
    S = table.num_states
    row = np.repeat(np.arange(S), table.successor_index.shape[1])
    entries = moves.flatten().numpy(), (row, table.successor_index.flatten().numpy())
    return sparse.csr_array(entries, shape=(S, S))[possible][:, possible]


def _check_one_long_run(table: Table, v: Tensor) -> None:
    """Raises where the chain can end up in either of two sets of states, neither ever left."""
    possible = (v > -torch.inf).numpy()
    may = table.log_prior.unsqueeze(-1) + table.log_dynamics > -torch.inf
    chain = _matrix(table, may.double(), possible)
    chain.eliminate_zeros()
    count, component = connected_components(chain, directed=True, connection="strong")
    tail, head = chain.nonzero()
    left = np.unique(component[tail[component[tail] != component[head]]])
    closed = np.setdiff1d(np.arange(count), left)
    if len(closed) > 1:
        states = np.flatnonzero(possible)
        first, second = sorted(states[component == k][0] for k in closed)[:2]
        raise ValueError(
            f"average_reward: it depends on the start: there are {len(closed)} sets of states "
            f"that are never left again, one holds state {first}, another state {second}; solve "
            "them apart, or connect them by the action prior"
        )


def _newton(table: Table, v: Tensor, q: Tensor, backed_up: Tensor, eta: float) -> Tensor:
    """The V for which g + V = T V, with T made linear at v."""
    possible = v > -torch.inf
    target = (v - backed_up)[possible].numpy()
    # P V - V - g = P v - T v, and so for the change d = V - v: P d - d - g = v - T v.
    change = splu(_linear_system(table, v, q, eta)).solve(np.append(target, 0.0))[:-1]
    new = v.clone()
    new[possible] += torch.as_tensor(change)
    return new


def _linear_system(table: Table, v: Tensor, q: Tensor, eta: float) -> sparse.csc_array:
    """[[P - I, -1], [e_0, 0]] over the possible states, P the bent chain at v.

    The last row fixes the constant that V is free by.
    """
    possible = (v > -torch.inf).numpy()
    n = int(possible.sum())
    x = bellman.outcome_values(table, v, eta)
    moves = bellman.log_policy(table, q).exp().unsqueeze(-1)
    moves = moves * bellman.tilt(table.log_dynamics, x, eta).exp()
    chain = _matrix(table, moves, possible)
    fixed = sparse.csr_array(([1.0], ([0], [0])), shape=(1, n))
    column = sparse.csr_array(-np.ones((n, 1)))
    return sparse.csc_array(
        sparse.block_array([[chain - sparse.eye_array(n), column], [fixed, None]])
    )


def _result(table: Table, eta: float, v: Tensor) -> AverageReward:
    q = bellman.action_values(table, v, eta)
    lower, upper = _bracket(bellman.logsumexp(table.log_prior + q), v)
    alpha = table.temperature
    system = _linear_system(table, v, q, eta)
    found = splu(system).solve(np.append(np.zeros(system.shape[0] - 1), -1.0), trans="T")[:-1]
    states = torch.zeros_like(v)
    states[v > -torch.inf] = torch.as_tensor(found).clamp(min=0)
    states /= states.sum()
    visited = states > 0
    v = v - states[visited] @ v[visited]
    q = bellman.action_values(table, v, eta)
    return AverageReward(
        table=table,
        optimism=eta,
        gain=alpha * (lower + upper) / 2,
        error=alpha * (upper - lower) / 2,
        V=alpha * v,
        Q=alpha * q,
        policy=TabularPolicy.from_log_probs(bellman.log_policy(table, q)),
        states=states,
    )
