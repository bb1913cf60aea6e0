"""One gradient of a bound in all rewards, or all dynamics: by one forward sweep, or by a tape.

The reference is the same recursion written in torch, log-sum-exps on the same arrays, for which
torch keeps what each of the T steps needs to be differentiated. Beside the times stand the
megabytes that each side holds between the forward and the backward pass, beside the weights of
one step, as many as the dynamics, that ours keeps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

import cai
from benchmarks.evidence import lake
from benchmarks.timing import Race, check_close
from cai import inference, models


def on_the_lake() -> Race:
    return _race("gradient, lake", cai.tabulate(lake()), 1.0)


def dense() -> Race:
    return _race("gradient, dense", cai.tabulate(_dense(S=200, A=10, T=100)), 1.0)


def fixed_dynamics() -> Race:
    return _race("gradient, dense, no optimism", cai.tabulate(_dense(S=200, A=10, T=100)), 0.0)


def of_dynamics() -> Race:
    table = cai.tabulate(_dense(S=200, A=10, T=100))
    return _race("gradient, dense, in dynamics", table, 0.5, "log_dynamics")


def lists() -> Race:
    return _race("gradient, lists", cai.tabulate(_lists(S=20_000, A=4, K=3, T=50)), 0.5)


def _race(name: str, table: cai.Table, eta: float, field: str = "reward") -> Race:
    parameter = getattr(table, field).clone().requires_grad_()
    table = dataclasses.replace(table, **{field: parameter})

    def ours() -> Tensor:
        return _gradient(lambda: inference.differentiable_bound(table, eta), parameter)

    def theirs() -> Tensor:
        return _gradient(lambda: taped(table, eta), parameter)

    check_close("gradient", ours(), theirs(), 1e-9)
    held = [
        _held(method)
        for method in (
            lambda: inference.differentiable_bound(table, eta),
            lambda: taped(table, eta),
        )
    ]
    return Race(
        name=name,
        sizes=f"S={table.num_states} A={table.num_actions} T={table.steps} η={eta:g}",
        reference=f"torch's tape, {held[1]:.0f} MB for {held[0]:.1f}",
        ours=ours,
        theirs=theirs,
        target=1,
    )


def taped(table: cai.Table, eta: float) -> Tensor:
    """The bound, (), by a recursion that torch can differentiate."""
    alpha, log_p = table.temperature, table.log_dynamics
    if log_p.requires_grad:
        log_p = log_p.log_softmax(-1)
    arrival = 0.0 if table.arrival_reward is None else table.arrival_reward / alpha

    def soft_mean(log_p: Tensor, x: Tensor) -> Tensor:
        return (log_p.exp() * x).sum(-1) if eta == 0 else (log_p + eta * x).logsumexp(-1) / eta

    v = table.final_reward / alpha
    for _ in range(table.steps):
        later = v if table.successors is None else v[table.successors]
        q = table.reward / alpha + soft_mean(log_p, later + arrival)
        v = (table.log_prior + q).logsumexp(-1)
    return soft_mean(table.log_initial, v)


def _gradient(method: Callable[[], Tensor], parameter: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(method(), parameter)
    return gradient


def _held(method: Callable[[], Tensor]) -> float:
    """Megabytes that the forward pass keeps for the backward pass."""
    held: dict[int, int] = {}
    kept = []  # so that no two have one address

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        kept.append(storage)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        method()
    return sum(held.values()) / 2**20


def _dense(S: int, A: int, T: int) -> cai.TrajectoryModel:
    draw = torch.Generator().manual_seed(0)
    P = torch.rand(S, A, S, generator=draw, dtype=torch.float64)
    reward = torch.randn(S, A, generator=draw, dtype=torch.float64)
    return models.tabular(P / P.sum(-1, keepdim=True), reward, horizon=T)


def _lists(S: int, A: int, K: int, T: int) -> cai.TrajectoryModel:
    draw = torch.Generator().manual_seed(0)
    P = torch.rand(S, A, K, generator=draw, dtype=torch.float64)
    reward = torch.randn(S, A, generator=draw, dtype=torch.float64)
    successors = torch.randint(S, (S, A, K), generator=draw)
    initial = torch.ones(S) / S
    P = P / P.sum(-1, keepdim=True)
    return models.tabular(P, reward, successors=successors, initial=initial, horizon=T)
