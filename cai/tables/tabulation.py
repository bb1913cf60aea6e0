"""One step of a discrete program, enumerated: its own latents are summed out into a table."""

from __future__ import annotations

import dataclasses
import logging
import time
from functools import partial
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution

from cai import checks
from cai.distributions.exact_scores import log_probs
from cai.distributions.lookup import Lookup, Moves, MovesAt
from cai.numerics import threads
from cai.numerics.default_type import AS_WRITTEN, Types, float64
from cai.numerics.exclusive import seeded
from cai.program import contract
from cai.program.calling import FIELDS, call
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import NotEnumerable, all_pairs, log_prior_table, over_time
from cai.tables.outcomes import dynamics_table
from cai.tables.table import Table

_LOG = logging.getLogger("cai.tables")


def tabulate(model: TrajectoryModel | Table) -> Table:
    """The table of a model with discrete randomness: one step enumerated, its latents summed out.

    Exact methods work on this table, never on T steps. Every exact method takes the table in place
    of the model, so that the enumeration is done only once. Tensors that the program keeps in
    float32 are accurate to about 1e-8; Python numbers, as in ``Bernoulli(0.2)``, are float64.

    Args:
        model: a model with finitely many states and actions, counted from the supports of
            ``initial`` and ``action_prior``; or a table, which is returned as it is, without the
            graph of tensors that require grad.

    Returns:
        A :class:`cai.Table`: log-probabilities and rewards of all states and actions.

    Raises:
        ValueError: for a site that cannot be enumerated (it is named), a successor outside the
            states, rows that do not sum to one, rewards of NaN or +inf, dynamics that treat the
            elements of a batch differently from scalars, or a prior, dynamics or rewards that
            depend on the step if the horizon is infinite.

    >>> import cai
    >>> from cai import models
    >>> table = cai.tabulate(models.ledge())
    >>> table.num_states, table.num_actions
    (5, 2)
    >>> table.reward.shape
    torch.Size([5, 2])
    """
    checks.check_model(model, table=True)
    return enumerated(model)


def enumerated(model: TrajectoryModel | Table) -> Table:
    """As :func:`tabulate`, of what is known to be a program or a table."""
    if isinstance(model, Table):
        return model.detached()
    types, begun = _types(model), time.perf_counter()
    with seeded(0), torch.no_grad(), poutine.block():
        s, a = all_pairs(model)
        with threads.suited_to(s.numel()):
            log_prior = log_prior_table(model, len(s), types)
            log_initial = log_probs(model.initial, len(s))
            contract.check_some_allowed(log_prior, s[:, 0].expand(log_prior.shape[:-1]))
            log_dynamics, successors = dynamics_table(model, s, a, types)
            reward, arrival, final = _rewards(model, s, a, log_dynamics, successors, types)
            table = Table(
                log_initial=log_initial,
                log_prior=log_prior,
                log_dynamics=log_dynamics,
                successors=successors,
                reward=reward,
                arrival_reward=arrival,
                final_reward=final,
                horizon=model.horizon,
                temperature=float(model.temperature),
                discount=float(model.discount),
                layout=model.layout,
                program=model,
            )
    _say(table, time.perf_counter() - begun)
    return table


def _say(table: Table, seconds: float) -> None:
    """The size of a table and how long it took, for the log."""
    if _LOG.isEnabledFor(logging.INFO):
        held = [x for x in vars(table).values() if isinstance(x, Tensor)]
        kind = "states" if table.successors is None else "listed successors"
        _LOG.info(
            "table of %d states, %d actions and %d %s each, %d bytes, in %.3f s",
            table.num_states,
            table.num_actions,
            table.log_dynamics.shape[-1],
            kind,
            sum(x.numel() * x.element_size() for x in held),
            seconds,
        )


def enumerable(model: TrajectoryModel | Table) -> Table | None:
    """The table of a model, or None if its randomness is not discrete and finite."""
    if isinstance(model, Table):
        return model
    if checks.can_only_be_sampled(model):
        return None
    try:
        return enumerated(model)
    except NotEnumerable:
        return None


def tabulate_rewards(model: TrajectoryModel, table: Table) -> Table:
    """A table with the rewards of a model and their graph, for learning rewards.

    The results of the differentiable functions of ``inference`` then have derivatives with respect
    to the parameters of the rewards. Everything else is taken from the table, so that fixed
    dynamics are enumerated only once.

    Args:
        model: the model, whose rewards may be torch modules.
        table: the table of it, or of a model with the same dynamics, from :func:`tabulate`.

    Returns:
        The same table with the model's rewards, which require grad if the model's parameters do.

    Raises:
        ValueError: if the numbers of states or actions are not the table's, or for rewards of NaN
            or +inf, or above zero if the model's optimality is "bernoulli".

    >>> import cai
    >>> from cai import models
    >>> model = models.ledge()
    >>> table = cai.tabulate(model)  # once; the rewards as often as they change
    >>> bool((cai.tabulate_rewards(model, table).reward == table.reward).all())
    True
    """
    checks.check_model(model, sampled=True)
    checks.check_is_table("table", table)
    with seeded(0), poutine.block():
        s, a = all_pairs(model)
        if s.shape != (table.num_states, table.num_actions):
            checks.refuse(
                "table",
                f"{s.shape[0]} states and {s.shape[1]} actions, as in the model",
                f"{table.num_states} and {table.num_actions}",
                "take cai.tabulate(model)",
            )
        paid = _rewards(model, s, a, table.log_dynamics, table.successors, _types(model))
    reward, arrival, final = paid
    return dataclasses.replace(table, reward=reward, arrival_reward=arrival, final_reward=final)


def _check_rewards(
    model: TrajectoryModel, reward: Tensor, arrival: Tensor | None, final: Tensor
) -> None:
    """Raises ValueError if rewards overflow at the temperature, or give no probabilities."""
    temperature = model.temperature
    for paid in (reward, arrival, final):
        if paid is not None and (paid.isfinite() & ~(paid / temperature).isfinite()).any():
            checks.refuse(
                "temperature",
                "one at which reward/temperature is a finite number",
                f"{temperature:g}",
                "raise it; 1e-3 of the largest reward is low already",
            )
    if model.optimality == "bernoulli":
        total = reward if arrival is None else reward + arrival.amax(-1)
        checks.check_reward("reward", total)
        checks.check_bernoulli("reward", total, model.discount)


def collapse(model: TrajectoryModel) -> TrajectoryModel:
    """The model whose dynamics are its own table: no latents, one site for each next state.

    Give this model to Pyro's whole-program enumeration and ``infer_discrete``: dynamics that return
    a ``Delta`` of latent sites would carry along the dimensions of all earlier steps.

    Args:
        model: a model with finitely many states and actions.

    Returns:
        The same p(τ, O), as a :class:`cai.TrajectoryModel` without latents.

    Raises:
        ValueError: if the model cannot be tabulated, see :func:`tabulate`.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.gridworld("bridge", slip=0.2)
    >>> same = cai.collapse(model)
    >>> inference.posterior(same).V.equal(inference.posterior(model).V)
    True
    """
    checks.check_model(model)
    table = tabulate(model)
    kind = MovesAt if "log_dynamics" in table.by_step else Moves
    return replaced(model, dynamics=kind(table.log_dynamics, table.successors))


def replaced(model: TrajectoryModel, **changes: Any) -> TrajectoryModel:
    """``dataclasses.replace``, where a subclass has versions of its own of what is replaced, too.

    Args:
        model: the model.
        changes: of its fields.
    """
    base = {
        method: getattr(TrajectoryModel, method)
        for method, name in FIELDS.items()
        if name in changes and method in model.overridden
    }
    if not base:
        return dataclasses.replace(model, **changes)
    kind: Any = type(type(model).__name__, (type(model),), base)
    held = {x.name: getattr(model, x.name) for x in dataclasses.fields(model) if x.init}
    found: TrajectoryModel = kind(**(held | changes))
    return found


def _types(model: TrajectoryModel) -> Types:
    """The context that gives Python numbers in a user's functions their dtype."""
    functions = [model.dynamics, model.reward, model.arrival_reward, model.final_reward]
    if not isinstance(model.action_prior, Distribution):
        functions.append(model.action_prior)
    found = all(isinstance(f, Lookup) or not callable(f) for f in functions)
    return AS_WRITTEN if found and not model.may_change else float64()


def _rewards(
    model: TrajectoryModel,
    s: Tensor,
    a: Tensor,
    log_p: Tensor,
    successors: Tensor | None,
    types: Types,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """r (S, A), r⁺ (S, A, K) or None, and r_T (S,)."""
    shape, states = s.shape, s[:, 0]
    at, final = partial(call, "reward", model.rewards, s, a), torch.zeros((), dtype=torch.float64)
    with types:
        reward = over_time(model, "rewards", shape, at)
        if model.pays_at_end:
            final = call("final_reward", model.final_rewards, states)
    arrival = _arrival_rewards(model, s, a, log_p, successors, types)
    reward, final = reward.contiguous(), final.expand(shape[0]).contiguous()
    _check_rewards(model, reward, arrival, final)
    return reward, arrival, final


def _arrival_rewards(
    model: TrajectoryModel,
    s: Tensor,
    a: Tensor,
    log_p: Tensor,
    successors: Tensor | None,
    types: Types,
) -> Tensor | None:
    if not model.pays_on_arrival:
        return None
    shape = log_p.shape[-3:]  # of one step
    s_next = torch.arange(shape[-1]) if successors is None else successors
    s_next = s_next.expand(shape).to(s.dtype)
    here = s.unsqueeze(-1).expand(shape), a.unsqueeze(-1).expand(shape)
    with types:
        at = partial(call, "arrival_reward", model.paid_on_arrival, *here, s_next)
        reward = over_time(model, "arrival_rewards", shape, at)
    return torch.where(log_p > -torch.inf, reward, 0.0)
