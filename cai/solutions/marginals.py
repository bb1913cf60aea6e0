"""Marginals of sites by name, of one or several jointly, in one walk from first to last."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cai import checks
from cai.program import sites
from cai.program.sites import Site
from cai.solutions.chain import Chain
from cai.tables import latents
from cai.tables.table import Table

_MOST = 2**27  # numbers held at once, a gibibyte


def marginal(chain: Chain, names: tuple[str, ...]) -> Tensor:
    """The joint distribution of sites, as ``Solution.marginal`` documents it."""
    table = chain.table
    found = [sites.parse("marginal", name, table.steps, table.discount, True) for name in names]
    if len(found) == 1 and found[0].kind == "alive":
        alive = chain.states[found[0].t].sum().clamp(max=1)
        return torch.stack([1 - alive, alive])
    _check(found, names)
    order = sorted(found, key=lambda site: (site.t, site.kind != "s", site))
    walk = _forward if _peak(table, order) <= _peak(table, order[::-1]) else _backward
    with table.threads():
        joint, sizes = walk(chain, order)
    return joint.reshape(sizes).permute([order.index(site) for site in found]).clone()


def _peak(table: Table, order: list[Site]) -> int:
    """Roughly the largest number of combinations kept beside the state during the walk."""
    sizes = {"s": table.num_states, "a": table.num_actions, "latent": 1}
    return math.prod(sizes[site.kind] for site in order if site.t != order[-1].t)


def _forward(chain: Chain, order: list[Site]) -> tuple[Tensor, list[int]]:
    """The joint of the kept sites and the state, (kept, S), by the matrices of each step."""
    first, last = order[0].t, order[-1].t
    held, sizes = chain.states[first].unsqueeze(0), list[int]()
    for t in range(first, last + 1):
        within = [site for site in order if site.t == t and site.kind != "s"]
        keeps = Site("s", t) in order
        sizes += [chain.table.num_states] * keeps
        if t == last and not within:
            break
        values, steps = _steps(chain, t, within, t < last)
        sizes += values
        _check_size(math.prod(sizes) * (chain.table.num_states if t < last else 1))
        if keeps:
            parts = [held.unsqueeze(-1) * step.to_dense() for step in steps]
        else:
            parts = [(step.t() @ held.t()).t().unsqueeze(1) for step in steps]
        held = torch.stack(parts, 2).flatten(0, 2)
    return held, sizes


def _backward(chain: Chain, order: list[Site]) -> tuple[Tensor, list[int]]:
    """The kept sites given the state, (S, kept), from the last step to the first."""
    first, last, S = order[0].t, order[-1].t, chain.table.num_states
    held, sizes, keeps = torch.ones(S, 1, dtype=torch.float64), list[int](), False
    for t in range(last, first - 1, -1):
        within = [site for site in order if site.t == t and site.kind != "s"]
        if t < last or within:
            values, steps = _steps(chain, t, within, t < last)
            sizes = values + [S] * keeps + sizes
            _check_size(math.prod(sizes) * S)
            if keeps:
                parts = [step.to_dense().unsqueeze(-1) * held for step in steps]
            else:
                parts = [(step @ held if t < last else step).unsqueeze(1) for step in steps]
            held = torch.stack(parts, 1).flatten(1)
        keeps = Site("s", t) in order
    start = chain.states[first]
    return (start.unsqueeze(1) * held, [S, *sizes]) if keeps else (start @ held, sizes)


def _steps(
    chain: Chain, t: int, within: list[Site], goes_on: bool
) -> tuple[list[int], list[Tensor]]:
    """The sizes of the sites within step t, and the matrices that multiply the state.

    If the walk continues, a matrix (S, S) for each combination of their values, of transitions that
    survive; else one matrix (S, combinations).
    """
    table = chain.table
    policy = chain.log_policy(slice(t, t + 1))[0].exp()
    acts = bool(within) and within[0].kind == "a"
    values = [table.num_actions] if acts else []
    hidden = [site.name for site in within[len(values) :]]
    if not goes_on and not hidden:
        return values, [policy]
    moves = policy.unsqueeze(-1) * chain.log_transitions(slice(t, t + 1))[0].exp()
    if goes_on and table.discount < 1:
        moves = moves * table.gather(chain.log_survival(slice(t, t + 1))[0].exp())
    shares = moves.unsqueeze(0)
    if hidden:
        given = latents.given_successors(table, hidden, t)
        values += given.shape[: len(hidden)]
        shares = moves * given.flatten(0, len(hidden) - 1)
    if not goes_on:
        ends = shares.sum(-1).permute(1, 2, 0)
        return values, [ends.flatten(1) if acts else ends.sum(1)]
    parts = [slice(a, a + 1) for a in range(table.num_actions)] if acts else [slice(None)]
    return values, [_matrix(table, share, part) for part in parts for share in shares]


def _matrix(table: Table, moves: Tensor, actions: slice) -> Tensor:
    """(S, A, K) transitions by some actions as a matrix (S, S), sparse if the table has lists."""
    moves = moves[:, actions]
    if table.successors is None:
        return moves.sum(1)
    S = table.num_states
    columns = table.successors[:, actions].flatten()
    rows = torch.arange(S).repeat_interleave(len(columns) // S)
    entries = torch.stack([rows, columns]), moves.flatten()
    return torch.sparse_coo_tensor(*entries, (S, S), check_invariants=False)


def _check(found: list[Site], names: tuple[str, ...]) -> None:
    if not found or len(set(found)) < len(found) or any(site.kind == "alive" for site in found):
        checks.refuse(
            "marginal",
            "one site, or several states, actions and latents, each named once",
            ", ".join(map(repr, names)) or "none",
            "a joint with s_t counts trajectories that are alive, so query alive_t alone",
        )


def _check_size(numbers: int) -> None:
    if numbers > _MOST:
        checks.refuse(
            "marginal",
            f"sites whose joint distribution, with one state more, has at most {_MOST} numbers",
            f"{numbers}",
            "name fewer states, or condition on one of them, inference.posterior(model, "
            "observed={...})",
        )
