"""The outcomes of one step of a discrete program: every value of its latents, every next state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact, log_probs, support_size
from cai.distributions.sparse_categorical import SparseCategorical
from cai.numerics import memory
from cai.numerics.default_type import AS_WRITTEN, Types, float64
from cai.numerics.logspace import logsumexp_by_group
from cai.program import contract
from cai.program.calling import SPARSE, restate
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import NotEnumerable, changes, each_step

_LARGE = 2**26  # numbers of a dense table from which on its size is checked against memory
_ROUNDING = 1e-5  # rounding error of a probability in a program that computes in float32
_COPIES = 7  # copies of a dense table that exist at once while it is made


def dynamics_table(
    model: TrajectoryModel, s: Tensor, a: Tensor, types: Types
) -> tuple[Tensor, Tensor | None]:
    """log p(s'|s,a) of all states and actions, densely or as lists of successors, as in a table.

    Args:
        model: the model.
        s: (S, A), every state.
        a: (S, A), every action.
        types: gives numbers written in the dynamics their type.

    Raises:
        ValueError: if they cannot be enumerated or are no distributions over the states, change
            with the step without an end, or treat the elements of a batch otherwise than scalars.
    """
    _check_size(model, s, a)
    found = _compressed(_transitions(model, s, a, types), *s.shape)
    _check_against_scalars(model, s, a, *found)
    return _of_all_steps(model, s, a, found) if "transition" in model.may_change else found


def outcomes(
    model: TrajectoryModel, s: Tensor, a: Tensor, S: int, types: Types = AS_WRITTEN, t: int = 0
) -> tuple[Tensor, Tensor | None]:
    """log p(outcome|s,a) and its state, (*batch, K) each; None if outcome k is state k.

    Latents that determine the next state are outcomes of their own, others are summed out. Python
    numbers in the dynamics get the dtype that ``types`` gives them.
    """
    log_p, state, _ = with_latents(model, s, a, S, types, t)
    latents = log_p.dim() - s.dim() - 1
    if state is None:
        return log_p.flatten(0, latents - 1).logsumexp(0) if latents else log_p, None
    log_p, state = _latents_last(log_p, latents), _latents_last(state, latents)
    _check_inside(state, log_p, S)
    return log_p, state.clamp(0, S - 1)  # states outside are impossible


def with_latents(
    model: TrajectoryModel, s: Tensor, a: Tensor, S: int, types: Types = AS_WRITTEN, t: int = 0
) -> tuple[Tensor, Tensor | None, list[str]]:
    """log p(latents, outcome|s,a) of step t, the state of each outcome, and the latents' names.

    Returns:
        (latents…, *batch, K) in nats, the states in that shape or None if outcome k is state k,
        and the names of the leading dimensions.
    """
    sites = _Enumerate(s.dim())
    told = "transition" in model.may_change
    try:
        with sites, types:
            d = model.transition(s, a, t) if told else model.dynamics(s, a)
    except Exception as error:
        restate("dynamics", error, s, a)
    while isinstance(d, dist.MaskedDistribution):  # a mask hides scores but does not change draws
        d = d.base_dist
    log_latent = sum(sites.log_probs, torch.zeros((), dtype=torch.float64)).unsqueeze(-1)
    state: Tensor | None
    if isinstance(d, dist.Delta) and not d.event_shape:
        log_p, state = exact(d).log_density.unsqueeze(-1), _whole_numbers(d.v).unsqueeze(-1)
    elif isinstance(d, SparseCategorical):
        log_p, state = d.logits, d.successors
    elif (size := support_size(d)) is None:
        raise NotEnumerable(
            f"dynamics: the next state comes from {type(d).__name__}, which has no finite support "
            f"0 … {S - 1}; return a Categorical or a Delta of enumerable sites, or use "
            "inference.fit, which samples"
        )
    else:
        log_p, state = log_probs(d, size, types), None if size == S else torch.arange(size)
    log_p = log_latent + log_p
    shape = np.broadcast_shapes(log_p.shape, (*sites.sizes, *s.shape, 1))
    log_p = log_p.expand(shape)
    return log_p, None if state is None else state.expand(shape), sites.names


def _latents_last(x: Tensor, latents: int) -> Tensor:
    """(latents…, *batch, K) -> (*batch, product of all else)."""
    return x.flatten(0, latents - 1).movedim(0, -2).flatten(-2) if latents else x


def _whole_numbers(v: Tensor) -> Tensor:
    if v.dtype.is_floating_point and not torch.equal(v, v.round()):
        raise NotEnumerable(
            "dynamics: enumeration needs next states that are whole numbers, got "
            f"{v.flatten()[0].item():g}; return integer states, or use inference.fit, which samples"
        )
    return v.long()


def _check_inside(state: Tensor, log_p: Tensor, S: int) -> None:
    outside = ((state < 0) | (state >= S)) & (log_p > -torch.inf)
    if outside.any():
        where = tuple(outside.nonzero()[0].tolist())
        place = f" from state {where[0]} with action {where[1]}" if len(where) == 3 else ""
        raise ValueError(
            f"dynamics:{place} the next state is {state[where].item()}, outside the states "
            f"0 … {S - 1}; they are counted from the support of `initial`: give it a category for "
            "every state, with probability zero where no trajectory starts"
        )


class _Enumerate(Messenger):
    """Gives every latent site its whole support, along a new dimension left of the batch."""

    def __init__(self, batch_dims: int) -> None:
        super().__init__()
        self.dims = batch_dims
        self.log_probs: list[Tensor] = []
        self.names: list[str] = []  # from the left, like their sizes
        self.sizes: list[int] = []

    def _pyro_sample(self, msg: Any) -> None:
        contract.check_site(msg)
        if msg["is_observed"]:  # a deterministic site
            return
        fn = msg["fn"]
        while isinstance(fn, dist.MaskedDistribution):
            fn = fn.base_dist
        fn = exact(fn)
        try:
            values = fn.enumerate_support(expand=False)
        except NotImplementedError:
            raise NotEnumerable(
                f"dynamics: site {msg['name']!r} comes from {type(fn).__name__}, which cannot be "
                "enumerated; exact inference needs discrete sites with finite support. Use "
                "inference.fit, which samples, or write the site as Categorical or Bernoulli"
            ) from None
        values = values.reshape(len(values), *(1,) * self.dims, *fn.event_shape)
        self.dims += 1
        self.names.insert(0, msg["name"])
        self.sizes.insert(0, len(values))
        self.log_probs.append(fn.log_prob(values).double())
        msg["value"], msg["done"] = values, True


def _transitions(
    model: TrajectoryModel, s: Tensor, a: Tensor, types: Types, t: int = 0
) -> tuple[Tensor, Tensor]:
    """The possible transitions of one step, (s·A + a)·S + s' ascending, and their log p."""
    S, A = s.shape
    log_p, state = outcomes(model, s, a, S, types, t)
    checks.check_rows("dynamics", log_p.logsumexp(-1, keepdim=True))
    log_p = log_p.reshape(S * A, -1)
    possible = log_p > -torch.inf
    if state is None:
        row, successor = possible.nonzero(as_tuple=True)
        return row * S + successor, log_p[row, successor]
    key = (torch.arange(S * A).unsqueeze(1) * S + state.reshape(S * A, -1))[possible]
    key, group = key.unique(return_inverse=True)
    return key, logsumexp_by_group(log_p[possible], group, len(key))


def _compressed(step: tuple[Tensor, Tensor], S: int, A: int) -> tuple[Tensor, Tensor | None]:
    """The transitions of one step as arrays; lists if they are smaller than rows."""
    log_dynamics, successors = _arranged([step], S, A)
    return log_dynamics[0], successors


def _arranged(steps: list[tuple[Tensor, Tensor]], S: int, A: int) -> tuple[Tensor, Tensor | None]:
    """log p(s'|s,a) of some steps, (steps, S, A, K), and successors (S, A, K) that serve for all.

    Args:
        steps: for each step the result of :func:`_transitions`.
        S: the number of states.
        A: the number of actions.
    """
    key = steps[0][0] if len(steps) == 1 else torch.cat([each for each, _ in steps]).unique()
    row, successor = key // S, key % S
    count = torch.bincount(row, minlength=S * A)
    K = int(count.max())
    rank = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
    dense = 2 * K >= S  # an entry of a list holds a number and an index
    place = successor if dense else rank
    listed = steps[0][1].new_full((len(steps), S * A, S if dense else K), -torch.inf)
    for now, (own, value) in zip(listed, steps, strict=True):
        i = slice(None) if own is key else torch.searchsorted(key, own)
        now[row[i], place[i]] = value
    listed = listed.log_softmax(-1).unflatten(1, (S, A))
    if dense:
        return listed, None
    # Rows are padded with their first successor, at probability zero.
    states = successor[count.cumsum(0) - count].unsqueeze(1).repeat(1, K)
    states[row, rank] = successor
    return listed, states.reshape(S, A, K)


def _check_size(model: TrajectoryModel, s: Tensor, a: Tensor) -> None:
    """Raises ValueError if the outcomes of all states and actions would not fit into memory."""
    (S, A), pairs = s.shape, s.numel()
    if pairs * S < _LARGE:
        return
    one = outcomes(model, s[0, 0], a[0, 0], S)[0]
    memory.check_fits(
        "dynamics",
        f"a table of {S} states and {A} actions with {one.numel()} outcomes each",
        _COPIES * pairs * one.numel(),
        SPARSE,
    )


def _of_all_steps(
    model: TrajectoryModel, s: Tensor, a: Tensor, first: tuple[Tensor, Tensor | None]
) -> tuple[Tensor, Tensor | None]:
    """The dynamics, with an axis of steps if transition(s, a, t) differs from step 0."""
    S, A = s.shape

    def at(t: int) -> tuple[Tensor, Tensor]:
        return _transitions(model, s, a, float64(), t)

    if not changes(model, "transition", first, lambda t: _compressed(at(t), S, A)):
        return first
    steps = each_step(model, "transition", at)
    memory.check_fits(
        "dynamics",
        f"tables of {len(steps)} steps, {S} states and {A} actions",
        len(steps) * first[0].numel(),
        "take a shorter horizon, or inference.fit, which samples",
    )
    return _arranged(steps, S, A)


def _check_against_scalars(
    model: TrajectoryModel,
    s: Tensor,
    a: Tensor,
    log_dynamics: Tensor,
    successors: Tensor | None,
) -> None:
    """Compares a few scalar calls with the table, to catch an `if` on the whole batch."""
    S, A = s.shape
    pairs = torch.linspace(0, s.numel() - 1, min(4, s.numel())).round().long()
    i, j = pairs // A, pairs % A
    listed = log_dynamics[i, j].exp()
    if successors is not None:
        listed = listed.new_zeros(len(pairs), S).scatter_add_(1, successors[i, j], listed)
    rows = listed.clone()
    for k, (s_k, a_k) in enumerate(zip(s[i, j], a[i, j], strict=True)):
        log_p, state = outcomes(model, s_k, a_k, S)
        if state is None:
            rows[k] -= log_p.exp()
        else:
            rows[k].index_add_(0, state, log_p.exp(), alpha=-1)
    differs = (rows.abs() > _ROUNDING * (0.1 + listed)).any(1)
    if differs.any():
        k = int(differs.nonzero()[0])
        raise ValueError(
            f"dynamics: for state {int(i[k])} and action {int(j[k])} a scalar call gives another "
            "distribution than the batch of all states and actions; replace Python `if` and "
            "reductions such as .all() over s and a by torch.where(condition, x, y)"
        )
