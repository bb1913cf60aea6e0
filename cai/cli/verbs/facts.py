"""What there is to say of a model before it is solved: its sizes, and the methods that take it."""

from __future__ import annotations

from typing import Any

from cai import checks
from cai.cli import loading
from cai.cli.learners import LEARNERS
from cai.distributions.exact_scores import support_size
from cai.evaluation.problem import as_problem
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.program.contract import check_program
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import NotEnumerable
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_OF_TABLES = ("posterior", "soft_values", "optimism_curve", "map_trajectory", "fit", "smc")
_OF_ENDLESS_TABLES = ("soft_values", "optimism_curve")
_OF_GAUSSIANS = ("posterior", "soft_values", "fit", "smc")
_OF_ENDLESS_GAUSSIANS = ("soft_values",)
_OF_PROGRAMS = ("fit", "smc", "evidence_bracket")


def facts(model: Any, name: str) -> dict[str, Any]:
    """What a model is, in plain values.

    Args:
        model: the model, or an environment of which only samples can be had.
        name: its name.
    """
    table, reason = _table(model)
    start = model.initial.sample()
    prior = model.prior(start, 0)
    found = {
        "model": name,
        "what": _what(model, name),
        "states": support_size(model.initial) if table is None else table.num_states,
        "state_shape": list(model.initial.event_shape),
        "actions": support_size(prior) if table is None else table.num_actions,
        "action_shape": list(prior.event_shape),
        "successors": None if table is None else table.log_dynamics.shape[-1],
        "dense": None if table is None else table.successors is None,
        "horizon": model.horizon,
        "temperature": float(model.temperature),
        "discount": float(model.discount),
        "table_bytes": None if table is None else table_bytes(table),
        "no_table": reason,
        "methods": methods(model, table),
        "learners": _learners(prior),
        "contract": _contract(model),
    }
    layout = getattr(model, "layout", None)
    found["map"] = None if layout is None or layout.map is None else list(layout.map)
    return found


def table_bytes(table: Table) -> int:
    """The size of a table's arrays, each counted once."""
    held = {name: getattr(table, name) for name in table.__dataclass_fields__}
    arrays = {x.data_ptr(): x for x in held.values() if hasattr(x, "data_ptr")}
    return sum(x.numel() * x.element_size() for x in arrays.values())


def methods(model: Any, table: Table | None) -> list[str]:
    """The names in ``cai.inference`` of methods that take a model, without learners."""
    endless = model.horizon is None
    if checks.can_only_be_sampled(model):
        return []
    if table is not None:
        return list(_OF_ENDLESS_TABLES if endless else _OF_TABLES)
    if isinstance(model, LinearGaussian):
        return list(_OF_ENDLESS_GAUSSIANS if endless else _OF_GAUSSIANS)
    return [] if endless else list(_OF_PROGRAMS)


def _learners(prior: Any) -> list[str]:
    """The learners from transitions, by their names on the command line."""
    finite = support_size(prior) is not None
    return [name for name, x in LEARNERS.items() if (x.discrete if finite else x.continuous)]


def _table(model: Any) -> tuple[Table | None, str | None]:
    """The table of a model, or why there is none."""
    if checks.can_only_be_sampled(model):
        return None, "an environment, of which only samples can be had"
    try:
        return tabulate(model), None
    except NotEnumerable as error:
        return None, str(error)


def _contract(model: Any) -> str:
    """How the functions of a model were checked.

    Raises:
        ValueError: if they do not keep what they must.
    """
    if checks.can_only_be_sampled(model):
        return "no functions to check: an environment"
    check_program(model)
    return "kept: prior, dynamics and rewards broadcast, each element on its own; no NaN, no +inf"


def _what(model: Any, name: str) -> str:
    known = loading.built_in()
    if name in known:
        return str(known[name].__doc__ or "").splitlines()[0]
    if checks.can_only_be_sampled(model):
        return "An environment of Gymnasium."
    kind = "program" if isinstance(model, TrajectoryModel) else type(model).__name__
    own = "of your own" if loading.is_own(name) else "of an environment of Gymnasium"
    return f"A {kind} {own}."


def has_table(model: Any) -> bool:
    """Whether the randomness of a model is discrete and finite."""
    return as_problem(model).table is not None
