"""Results as plain values and tensors, which a file can hold, and the way back.

A result becomes a dict of its fields with the name of its kind; no program, function or class goes
into it. What two results share, such as the table of several solutions, is one dict of both, and
one result again when they are put together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from cai.distributions.flat_prior import FlatPrior
from cai.evaluation.bracket import EvidenceBracket
from cai.evaluation.evaluate import Evaluation
from cai.evaluation.report import Comparison, Estimate, Row
from cai.gaussian.forms import Gaussian, LinearMap, Quadratic
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.policies.as_table import policy_log_probs
from cai.policies.tabular import TabularPolicy
from cai.program.episode import remembers
from cai.program.layout import Layout
from cai.program.trajectories import Trajectories
from cai.solutions.checkpointed import CheckpointedSolution
from cai.solutions.conditioned import Conditioned
from cai.solutions.solution import Solution
from cai.solutions.solution_step import SolutionStep
from cai.solutions.stationary import Stationary
from cai.tables.evidence import Evidence
from cai.tables.table import Table

PARAMETERS = "parameters"  # of a network, which its user builds again
_OF_FIELDS: tuple[type[Any], ...] = (
    *(
        Table,
        Layout,
        Evidence,
        Solution,
        Conditioned,
        Stationary,
        CheckpointedSolution,
        SolutionStep,
    ),
    *(LinearGaussian, GaussianSolution, Gaussian, LinearMap, Quadratic),
    *(Evaluation, Trajectories, EvidenceBracket, Comparison, Row),
)
_OF_TENSORS: dict[type[Any], tuple[str, ...]] = {
    TabularPolicy: ("logits", "log_prior", "observations"),
    LinearGaussianPolicy: ("gains", "offsets", "log_scales", "lower"),
}
_KINDS = {kind.__name__: kind for kind in (*_OF_FIELDS, *_OF_TENSORS)}
_ALREADY_PLAIN = str | int | float | None | torch.dtype


class NotPlain(TypeError):
    """Something that a file cannot hold."""


class NotInFile:
    """The model of a comparison that was loaded, if it has no table: a file holds no program."""

    layout = None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"model.{name}: expected a model, got that of a loaded comparison, whose program is in "
            "no file; build the model again, and compare on it"
        )

    def __repr__(self) -> str:
        return "NotInFile()"


class Apart:
    """Takes results apart; what occurs twice becomes one dict."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Any, Any]] = {}

    def of(self, x: Any) -> Any:
        """Plain values and tensors of a result, from which :class:`Together` makes it again.

        Raises:
            NotPlain: for what is none of the kinds that a file holds.
        """
        if isinstance(x, np.generic):
            return x.item()
        if isinstance(x, _ALREADY_PLAIN):
            return x
        if id(x) not in self._found:
            self._found[id(x)] = x, self._taken_apart(x)  # x itself, lest its id be given again
        return self._found[id(x)][1]

    def _taken_apart(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            return _alone(x)
        if isinstance(x, tuple | list):
            return [self.of(part) for part in x]
        if isinstance(x, Mapping) and not isinstance(x, Comparison):
            return {"class": "mapping", "entries": {name: self.of(y) for name, y in x.items()}}
        if isinstance(x, FlatPrior):
            return {"class": "FlatPrior", "size": x.event_shape[0]}
        if type(x) is dist.MultivariateNormal:
            return {"class": "normal", "mean": _alone(x.loc), "scale_tril": _alone(x.scale_tril)}
        if type(x) in _OF_TENSORS:
            return self._of_policy(x)
        if isinstance(x, nn.Module):
            state = {name: self.of(y) for name, y in x.state_dict().items()}
            return {"class": PARAMETERS, "network": type(x).__name__, "state": state}
        if type(x) not in _OF_FIELDS:
            raise NotPlain(type(x).__name__)
        return {"class": type(x).__name__} | {
            name: self.of(part) for name, part in self._fields(x).items()
        }

    def _of_policy(self, policy: nn.Module) -> dict[str, Any]:
        held = {name: getattr(policy, name) for name in _OF_TENSORS[type(policy)]}
        parameters = [name for name, x in held.items() if isinstance(x, nn.Parameter)]
        state = {name: self.of(x) for name, x in held.items()}
        return {"class": type(policy).__name__, "parameters": parameters, "state": state}

    def _fields(self, x: Any) -> dict[str, Any]:
        if isinstance(x, Table):
            x = x.detached()
        names = [y.name for y in dataclasses.fields(x) if y.init and y.name != "program"]
        held = {name: getattr(x, name) for name in names}
        if isinstance(x, Comparison):
            rows = {name: _row(row, x.table) for name, row in x.rows.items()}
            return held | {"model": _exact(x), "rows": rows}
        return held


class Together:
    """Puts results together again from their plain values."""

    def __init__(self) -> None:
        self._found: dict[int, Any] = {}

    def of(self, x: Any) -> Any:
        """The result of plain values, or these themselves.

        Raises:
            KeyError, TypeError, ValueError: if they are not those of a result.
        """
        if isinstance(x, list):
            return tuple(map(self.of, x))
        if not isinstance(x, dict):
            return x
        if id(x) not in self._found:
            self._found[id(x)] = self._put_together(x)
        return self._found[id(x)]

    def _put_together(self, plain: dict[str, Any]) -> Any:
        parts = dict(plain)
        name = parts.pop("class")
        if name == "mapping":
            return {key: self.of(part) for key, part in parts["entries"].items()}
        if name == "FlatPrior":
            return FlatPrior(parts["size"])
        if name == "normal":
            mean, root = parts["mean"], parts["scale_tril"]
            return dist.MultivariateNormal(mean, scale_tril=root, validate_args=False)
        kind = _KINDS[name]
        if kind in _OF_TENSORS:
            return _policy(kind, **parts)
        made = {name: self.of(part) for name, part in parts.items()}
        if kind is Comparison:
            made["model"] = NotInFile() if made["model"] is None else made["model"]
        if kind is Row:
            made["estimates"] = {k: Estimate(*x) for k, x in made["estimates"].items()}
        return kind(**made)


def _policy(kind: Any, parameters: list[str], state: dict[str, Any]) -> nn.Module:
    policy: nn.Module = kind.__new__(kind)
    nn.Module.__init__(policy)
    for name in _OF_TENSORS[kind]:
        if name in parameters:
            policy.register_parameter(name, nn.Parameter(state[name]))
        else:
            policy.register_buffer(name, state[name])
    return policy


def _row(row: Row, table: Table | None) -> Row:
    """A row whose method and belief a file can hold.

    Of a method that it cannot hold there remains the policy as a table, for figures, or None.
    """
    method, belief = row.method, row.belief
    if type(method) not in _KINDS.values():
        policy = getattr(method, "policy", method)
        if type(policy) not in _KINDS.values():
            policy = None if table is None or remembers(policy) else _tabular(policy, table)
        method = policy
    return dataclasses.replace(
        row, method=method, belief=belief if type(belief) in _KINDS.values() else None
    )


def _tabular(policy: Any, table: Table) -> TabularPolicy:
    with torch.no_grad():
        return TabularPolicy.from_log_probs(policy_log_probs(policy, table))


def _exact(found: Comparison) -> Table | LinearGaussian | None:
    """The model of a comparison in numbers; None for a program that has no table."""
    if isinstance(found.model, Table | LinearGaussian):
        return found.model
    return found.table


def _alone(x: Tensor) -> Tensor:
    """Without its graph, and without the rest of the memory that it is a view of."""
    x = x.detach()
    whole = x.is_contiguous() and x.untyped_storage().nbytes() == x.numel() * x.element_size()
    return x if whole else x.contiguous().clone()


def described(plain: Any) -> str:
    """What plain values are of, in a word."""
    kind = plain.get("class", "") if isinstance(plain, dict) else ""
    return f"the parameters of a {plain['network']}" if kind == PARAMETERS else f"a {kind}"
