"""Values and occupancies of large finite-horizon tables, against hand-written products in torch.

Each side starts from its own arrays of one step, whose construction is not timed, and computes V
(T+1, S) and the occupancies (T+1, S) of T = 100 steps. The references are hand-written: a product
with the transition matrix, a log-sum-exp over actions, policies kept for the forward pass. At η = 1
the values enter as exp(v - max v), which underflows silently if values are hundreds of nats apart;
the library repeats such rows in log space, and the references are raced on problems without them.
``summed`` references sum actions and successors in one matrix,
which only η = 1 allows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

import cai
from benchmarks.timing import Race, check_close
from cai import inference

HORIZON = 100


def dense(S: int = 500, A: int = 10) -> cai.Table:
    """Random transitions, a tenth of them probable, and random rewards."""
    generator = torch.Generator().manual_seed(0)
    P = torch.rand(S, A, S, generator=generator, dtype=torch.float64) ** 10
    reward = torch.randn(S, A, generator=generator, dtype=torch.float64)
    return _table(P / P.sum(-1, keepdim=True), reward, None)


def sparse(S: int = 50_000, A: int = 4, K: int = 3) -> cai.Table:
    """K random successors of each state and action: no order that a cache could use."""
    generator = torch.Generator().manual_seed(0)
    P = torch.rand(S, A, K, generator=generator, dtype=torch.float64) + 0.1
    successors = torch.randint(S, (S, A, K), generator=generator)
    reward = torch.randn(S, A, generator=generator, dtype=torch.float64)
    return _table(P / P.sum(-1, keepdim=True), reward, successors)


def _table(P: Tensor, reward: Tensor, successors: Tensor | None) -> cai.Table:
    S, A, _ = P.shape
    return cai.Table(
        log_initial=torch.full((S,), 1 / S, dtype=torch.float64).log(),
        log_prior=torch.full((S, A), 1 / A, dtype=torch.float64).log(),
        log_dynamics=P.log(),
        successors=successors,
        reward=reward,
        arrival_reward=None,
        final_reward=torch.zeros(S, dtype=torch.float64),
        horizon=HORIZON,
        temperature=1.0,
        discount=1.0,
    )


def race(name: str, table: cai.Table, eta: float, summed: bool = False) -> Race:
    """This library against a sweep in torch."""
    theirs = (by_summed_matrix if summed else by_matrix)(table, eta)
    v, x = theirs()
    solution = inference.soft_values(table, eta)
    check_close("V", solution.log_values, v, 1e-9)
    check_close("states", solution.states, x, 1e-9)
    matrix = "dense matrix" if table.successors is None else "CSR and its transpose"
    return Race(
        name=name,
        sizes=sizes(table),
        reference=f"torch, {matrix}{', summed' if summed else ''}",
        ours=lambda: inference.soft_values(table, eta).states,
        theirs=theirs,
        target=1 / 1.2,
    )


def underflows() -> Race:
    """A corridor with rewards of ±1e6, where nearly all products underflow, against log space."""
    S, A = 2000, 4
    generator = torch.Generator().manual_seed(0)
    steps = torch.tensor([-1, 0, 1]).expand(S, A, 3) + torch.arange(A)[:, None]
    successors = (torch.arange(S)[:, None, None] + steps).clamp(0, S - 1)
    P = torch.rand(S, A, 3, generator=generator, dtype=torch.float64) + 0.1
    reward = 1e6 * torch.randn(S, A, generator=generator, dtype=torch.float64)
    table = _table(P / P.sum(-1, keepdim=True), reward, successors)
    index = successors.flatten()
    log_weights = table.log_weights.flatten(1)

    def theirs() -> Tensor:
        v = torch.zeros(table.steps + 1, S, dtype=torch.float64)
        for t in range(table.steps - 1, -1, -1):
            torch.logsumexp(log_weights + v[t + 1][index].view(S, -1), -1, out=v[t])
        return v

    found, truth = inference.posterior(table).log_values, theirs()
    check_close("V, relative", found / truth.abs().max(), truth / truth.abs().max(), 1e-14)
    return Race(
        name="sweep, rewards of ±1e6",
        sizes=sizes(table),
        reference="torch in log space, values only",
        ours=lambda: inference.posterior(table).log_values,
        theirs=theirs,
        target=0.5,
    )


def sizes(table: cai.Table) -> str:
    return f"S={table.num_states} A={table.num_actions} T={table.steps}"


def by_matrix(table: cai.Table, eta: float) -> Callable[[], tuple[Tensor, Tensor]]:
    """Products with p(s'|s,a), a row for each action and state, at η = 0 or another."""
    S, A, T = table.num_states, table.num_actions, table.steps
    P, transposed = matrices(table.log_dynamics.exp().transpose(0, 1), table.successors)
    reward = (table.reward + table.log_prior).T.contiguous()
    initial = table.log_initial.exp()

    def sweep() -> tuple[Tensor, Tensor]:
        v, x = torch.zeros(T + 1, S).double(), torch.empty(T + 1, S).double()
        policy = torch.empty(T, A, S).double()
        sums = torch.empty(T if eta else 0, A, S).double()
        for t in range(T - 1, -1, -1):
            if eta == 0:
                q = reward + (P @ v[t + 1]).view(A, S)
            else:
                m = (eta * v[t + 1]).max()
                sums[t] = (P @ (eta * v[t + 1] - m).exp()).view(A, S)
                q = reward + (m + sums[t].log()) / eta
            v[t] = q.logsumexp(0)
            torch.exp(q - v[t], out=policy[t])
        x[0] = initial if eta == 0 else (eta * v[0] + initial.log()).softmax(0)
        for t in range(T):
            if eta == 0:
                x[t + 1] = transposed @ (policy[t] * x[t]).view(-1)
            else:
                w = (eta * v[t + 1] - (eta * v[t + 1]).max()).exp()
                x[t + 1] = w * (transposed @ (policy[t] / sums[t] * x[t]).view(-1))
        return v, x

    return sweep


def by_summed_matrix(table: cai.Table, eta: float) -> Callable[[], tuple[Tensor, Tensor]]:
    """Products with Σ_a p(a|s) p(s'|s,a) exp(r/α), a row for each state: exact inference only."""
    assert eta == 1
    S, T = table.num_states, table.steps
    scale = table.log_weights.amax((1, 2))
    weights = (table.log_weights - scale[:, None, None]).exp()
    if table.successors is None:
        P, transposed = matrices(weights.sum(1).unsqueeze(0), None)
    else:
        P, transposed = matrices(
            weights.flatten(1).unsqueeze(0), table.successor_index.unsqueeze(1)
        )
    initial = table.log_initial

    def sweep() -> tuple[Tensor, Tensor]:
        v, x = torch.zeros(T + 1, S).double(), torch.empty(T + 1, S).double()
        sums = torch.empty(T, S).double()
        for t in range(T - 1, -1, -1):
            m = v[t + 1].max()
            sums[t] = P @ (v[t + 1] - m).exp()
            v[t] = scale + m + sums[t].log()
        x[0] = (v[0] + initial).softmax(0)
        for t in range(T):
            w = (v[t + 1] - v[t + 1].max()).exp()
            x[t + 1] = w * (transposed @ (x[t] / sums[t]))
        return v, x

    return sweep


def matrices(weights: Tensor, successors: Tensor | None) -> tuple[Tensor, Tensor]:
    """A matrix with a row for each action and state, and its transpose; weights (A, S, K)."""
    A, S, K = weights.shape
    if successors is None:
        P = weights.reshape(A * S, K).contiguous()
        return P, P.T
    rows = torch.arange(A * S, dtype=torch.int32).repeat_interleave(K)
    columns = successors.transpose(0, 1).flatten().int()
    with warnings.catch_warnings(action="ignore"):  # torch warns that CSR is in beta
        P = torch.sparse_coo_tensor(
            torch.stack([rows, columns]).long(), weights.flatten(), (A * S, S)
        ).coalesce()
        return csr(P), csr(P.transpose(0, 1).coalesce())


def csr(matrix: Tensor) -> Tensor:
    """As CSR with indices of 32 bits, which multiply faster."""
    wide = matrix.to_sparse_csr()
    return torch.sparse_csr_tensor(
        wide.crow_indices().int(), wide.col_indices().int(), wide.values(), wide.shape
    )


def dense_fixed() -> Race:
    return race("sweep, dense, optimism 0", dense(), 0.0)


def dense_exact() -> Race:
    return race("sweep, dense, optimism 1", dense(), 1.0)


def dense_exact_summed() -> Race:
    return race("sweep, dense, optimism 1, summed", dense(), 1.0, summed=True)


def sparse_fixed() -> Race:
    return race("sweep, sparse, optimism 0", sparse(), 0.0)


def sparse_exact() -> Race:
    return race("sweep, sparse, optimism 1", sparse(), 1.0)


def sparse_exact_summed() -> Race:
    return race("sweep, sparse, optimism 1, summed", sparse(), 1.0, summed=True)


def dense_half() -> Race:
    return race("sweep, dense, optimism 0.5", dense(), 0.5)


def sparse_half() -> Race:
    return race("sweep, sparse, optimism 0.5", sparse(), 0.5)
