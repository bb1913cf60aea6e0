"""The side by side: what each method imagines, what it gets, and where the nats go."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import bellman, riccati
from cai.bellman import product
from cai.episode import remembers
from cai.evaluate import Evaluation, enumerable, evaluate, evaluate_table, policy_log_probs
from cai.fixed_point import Diverges, fixed_point
from cai.gaussian_divergence import divergences as gaussian_divergences
from cai.gaussian_solution import GaussianSolution
from cai.linear_gaussian import LinearGaussian
from cai.linear_policy import LinearGaussianPolicy
from cai.policy import Policy
from cai.solution import Solution
from cai.stationary import Stationary
from cai.table import Table
from cai.trajectory import TrajectoryModel

_HEADINGS = {
    "imagined_bound": "bound",
    "imagined_return": "return",
    "elbo": "ELBO",
    "expected_return": "return",
    "optimism_gap": "optimism",
    "entropy": "entropy",
    "kl_start": "start",
    "kl_actions": "actions",
    "kl_dynamics": "dynamics",
    "kl": "total",
}
_GROUPS = (("imagines", 2), ("gets", 2), ("gap", 1), ("policy", 1), ("KL to p(τ|O)", 4))


@dataclass(frozen=True, eq=False, kw_only=True)
class Row:
    """One method in a comparison. Bounds, entropies and divergences in nats, returns in reward.

    Attributes:
        imagined_bound: what the method believes it achieves, its own bound or log evidence. (Of
            the hard and the Boltzmann rule: return/α, less the price of bending. They do not count
            what actions cost, KL(policy‖prior), and so may be above the ELBO without optimism.)
        imagined_return: the return it expects, under the dynamics that it believes in.
        elbo: what its policy achieves in the true dynamics, E_q[log p(τ,O) - log q(τ)].
        elbo_stderr: its standard error; None where exact, as with each ``*_stderr``.
        expected_return: the return of its policy in the true dynamics.
        optimism_gap: imagined_bound less what the method's own objective is worth in the true
            dynamics: the ELBO, or return/α where actions are not counted; None where the method
            believes in the true dynamics.
        entropy: E_q[Σ_t H(q(·|s_t))] of its policy in the true dynamics.
        kl_start: KL(p(s_0) ‖ p(s_0|O)).
        kl_actions: Σ_t E_q[KL(q(a|s) ‖ p(a|s,O))].
        kl_dynamics: Σ_t E_q[KL(p(s'|s,a) ‖ p(s'|s,a,O))].
        kl: the sum of the three, which is log p(O) - elbo; None, as its parts, where the exact
            posterior is out of reach.
        evaluation: the policy's evaluation in the true dynamics.
        method: what was passed to the comparison.
    """

    imagined_bound: float
    imagined_bound_stderr: float | None
    imagined_return: float
    imagined_return_stderr: float | None
    elbo: float
    elbo_stderr: float | None
    expected_return: float
    expected_return_stderr: float | None
    optimism_gap: float | None
    entropy: float
    entropy_stderr: float | None
    kl_start: float | None
    kl_actions: float | None
    kl_dynamics: float | None
    kl: float | None
    evaluation: Evaluation
    method: Any


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Mapping[str, Row]):
    """Rows by name, in the order in which the methods were given.

    Prints as an aligned table, shows as HTML in a notebook, and exports to a dict, to JSON and to
    Markdown.

    Attributes:
        rows: name -> row.
        log_evidence: log p(O) in nats; None where the exact posterior is out of reach.
        posterior: the exact posterior that the divergences are measured to; or None.
        model: what was compared on.
    """

    rows: dict[str, Row]
    log_evidence: float | None
    posterior: Solution | GaussianSolution | None
    model: TrajectoryModel | Table

    def __getitem__(self, name: str) -> Row:
        return self.rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """{"log_evidence": nats or None, "rows": {name: {column: number or None}}}."""
        return {
            "log_evidence": self.log_evidence,
            "rows": {
                name: {
                    field.name: getattr(row, field.name)
                    for field in dataclasses.fields(row)
                    if field.name not in ("evaluation", "method")
                }
                for name, row in self.rows.items()
            },
        }

    def to_json(self) -> str:
        """to_dict as JSON; what has no number there is null, infinities are "inf" and "-inf"."""
        return json.dumps(_without_infinities(self.to_dict()), indent=2, ensure_ascii=False)

    def to_markdown(self) -> str:
        """The table in Markdown, with the units in the heading."""
        header = ["method"] + [
            f"{group}: {title} ({unit})"
            for (_, title, unit), group in zip(self._columns(), self._groups(), strict=True)
        ]
        lines = [header, ["---"] + ["---:"] * (len(header) - 1), *self._cells()]
        cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        return "".join("| " + " | ".join(line) + " |\n" for line in cells)

    def __str__(self) -> str:
        units = ["", *(f"({unit})" for _, _, unit in self._columns())]
        titles = ["", *(title for _, title, _ in self._columns())]
        body = [titles, units, *self._cells()]
        widths = [max(map(len, column)) for column in zip(*body, strict=True)]
        lines = [self._group_line(widths)]
        for line in body:
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        lines.insert(3, "-" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join([*lines, *self._notes()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        cell = "<{0} style='text-align:{1}'>{2}</{0}>".format
        spans: list[list[Any]] = []
        for group in self._groups():
            if spans and spans[-1][0] == group:
                spans[-1][1] += 1
            else:
                spans.append([group, 1])
        groups = "".join(
            f"<th colspan='{n}' style='text-align:center'>{html.escape(group)}</th>"
            for group, n in spans
        )
        titles = "".join(
            cell("th", "right", f"{html.escape(title)}<br><small>{html.escape(unit)}</small>")
            for _, title, unit in self._columns()
        )
        body = "".join(
            "<tr>"
            + cell("th", "left", html.escape(name))
            + "".join(cell("td", "right", value) for value in values)
            + "</tr>"
            for name, *values in self._cells()
        )
        notes = "<br>".join(html.escape(note) for note in self._notes())
        return (
            f"<table><thead><tr><th></th>{groups}</tr><tr><th></th>{titles}</tr></thead>"
            f"<tbody>{body}</tbody></table><small>{notes}</small>"
        )

    def _columns(self) -> list[tuple[str, str, str]]:
        """(field, title, unit) of each column that any row fills."""
        return [
            (field, title, "reward" if "return" in field else "nats")
            for field, title in _HEADINGS.items()
            if any(getattr(row, field) is not None for row in self.rows.values())
        ]

    def _groups(self) -> list[str]:
        """The group of each column."""
        groups = [group for group, n in _GROUPS for _ in range(n)]
        of = dict(zip(_HEADINGS, groups, strict=True))
        return [of[field] for field, _, _ in self._columns()]

    def _group_line(self, widths: list[int]) -> str:
        line = " " * widths[0]
        groups = self._groups()
        for i, group in enumerate(groups):
            if i and groups[i - 1] == group:
                continue
            n = groups.count(group)
            width = sum(widths[i + 1 : i + 1 + n]) + 2 * (n - 1)
            line += "  " + (f" {group} ".center(width, "·") if n > 1 else group.rjust(width))
        return line

    def _cells(self) -> list[list[str]]:
        return [
            [name]
            + [
                _number(getattr(row, field), getattr(row, f"{field}_stderr", None))
                for field, _, _ in self._columns()
            ]
            for name, row in self.rows.items()
        ]

    def _notes(self) -> list[str]:
        notes = []
        if self.log_evidence is not None:
            notes.append(f"log p(O) = {_number(self.log_evidence)} nats = ELBO + KL, in every row.")
        if any(row.elbo_stderr is not None for row in self.rows.values()):
            notes.append("± is one standard error of a simulation; without it a number is exact.")
        return notes


def compare(model: TrajectoryModel | Table, methods: Mapping[str, Any]) -> Comparison:
    """Puts solutions, fits and policies side by side on one model.

    The divergence of each policy, as a guide with the true dynamics, to the exact posterior is
    split by the identity (for any policy q)

        log p(O) - ELBO(q) = KL(p(s_0) ‖ p(s_0|O)) + Σ_t E_q[KL(q(a|s) ‖ p(a|s,O))]
                             + Σ_t E_q[KL(p(s'|s,a) ‖ p(s'|s,a,O))]

    Args:
        model: the model, or its table.
        methods: name -> a Solution, a fit, or a policy (t, s) -> Distribution.

    Raises:
        ValueError: where a method has no policy, does not fit the model, or the evidence is zero.
    """
    if not methods:
        raise ValueError("methods: expected at least one, as {name: solution or policy}, got none")
    table = enumerable(model)
    posterior: Solution | GaussianSolution | None = _gaussian_posterior(model)
    if table is not None:
        posterior = _posterior(table, methods)
        if posterior is not None and posterior.bound == -math.inf:
            raise ValueError(
                "evidence: p(O) = 0, there is no posterior to compare with; no trajectory has a "
                "reward above -inf"
            )
    rows = {name: _row(name, method, model, table, posterior) for name, method in methods.items()}
    return Comparison(rows, posterior.bound if posterior else None, posterior, model)


def _posterior(table: Table, methods: Mapping[str, Any]) -> Solution | None:
    """The exact posterior, one of the methods perhaps; None where it is infinite, p(O) = ∞."""
    if table.horizon is not None:
        return Solution(table, 1.0, bellman.backward(table, 1.0))
    for method in methods.values():
        exact = isinstance(method, Stationary) and method.optimism == 1 and method.rule == "soft"
        if exact and same(method.table, table):
            return method
    try:
        return Stationary.of(table, 1.0, "soft", fixed_point(table, 1.0))
    except Diverges:
        return None


def _gaussian_posterior(model: TrajectoryModel | Table) -> GaussianSolution | None:
    """The posterior of a linear-Gaussian model; None where it is not Gaussian or p(O) = ∞."""
    if not isinstance(model, LinearGaussian) or model.discount < 1 or model.horizon is None:
        return None
    try:
        return GaussianSolution.at(model, 1.0)
    except riccati.Breakdown:
        return None


def _row(
    name: str,
    method: Any,
    model: TrajectoryModel | Table,
    table: Table | None,
    posterior: Solution | GaussianSolution | None,
) -> Row:
    policy: Policy = getattr(method, "policy", method)
    if not callable(policy):
        raise ValueError(
            f"methods[{name!r}]: expected a solution, a fit or a policy (t, s) -> distribution, "
            f"got {type(method).__name__}"
        )
    if isinstance(method, Solution) and table is not None and not same(method.table, table):
        raise ValueError(
            f"methods[{name!r}]: expected a solution of the model that is compared on, got one of "
            "another problem; solve this one, or pass its policy alone, solution.policy"
        )
    split: tuple[float | None, ...]
    if table is None or not isinstance(posterior, Solution) or remembers(policy):
        evaluation, split = evaluate(model, policy), (None, None, None)
        if isinstance(posterior, GaussianSolution) and isinstance(policy, LinearGaussianPolicy):
            split = gaussian_divergences(posterior, policy)
        if isinstance(posterior, Solution) and evaluation.elbo_stderr is None:
            split = with_memory(posterior, evaluation)
    else:
        with table.threads(), torch.no_grad():
            log_policy = policy_log_probs(policy, table)
            evaluation = evaluate_table(table, log_policy)
            split = divergences(posterior, log_policy, evaluation)
    bends = isinstance(method, Solution | GaussianSolution) and method.optimism != 0
    had = evaluation.elbo
    if isinstance(method, Solution) and method.rule != "soft":
        had = evaluation.expected_return / method.table.temperature
    bound = method.bound if bends else had
    parts = [part for part in split if part is not None]
    gap = bound - had if bound != had else 0.0  # both may be -inf
    return Row(
        imagined_bound=bound,
        imagined_return=method.imagined_return if bends else evaluation.expected_return,
        elbo=evaluation.elbo,
        elbo_stderr=evaluation.elbo_stderr,
        imagined_bound_stderr=None if bends else evaluation.elbo_stderr,
        imagined_return_stderr=None if bends else evaluation.expected_return_stderr,
        entropy_stderr=evaluation.entropy_stderr,
        expected_return=evaluation.expected_return,
        expected_return_stderr=evaluation.expected_return_stderr,
        optimism_gap=gap if bends else None,
        entropy=evaluation.entropy,
        kl_start=split[0],
        kl_actions=split[1],
        kl_dynamics=split[2],
        kl=sum(parts) if parts else None,
        evaluation=evaluation,
        method=method,
    )


def same(one: Table, other: Table) -> bool:
    """Whether two tables hold the same problem, number for number."""

    def equal(x: Any, y: Any) -> bool:
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return torch.equal(x, y)
        return x is y if isinstance(x, Tensor) or isinstance(y, Tensor) else bool(x == y)

    names = {field.name for field in dataclasses.fields(Table)} - {"layout", "program"}
    return one is other or all(equal(getattr(one, n), getattr(other, n)) for n in names)


def divergences(
    posterior: Solution, log_policy: Tensor, evaluation: Evaluation
) -> tuple[float, float, float]:
    """KL(q(τ) ‖ p(τ|O)) of a policy in the true dynamics, split into start, actions, dynamics.

    Args:
        posterior: the exact posterior.
        log_policy: (T, S, A), log q(a_t|s_t); (S, A) with an infinite horizon.
        evaluation: of that policy, with its occupancies.

    Returns:
        Three divergences in nats; +inf where the posterior excludes what the policy does.
    """
    table = posterior.table
    assert evaluation.states is not None
    of_actions = bellman.kl(log_policy, posterior.policy.log_probs)
    before = evaluation.states if table.horizon is None else evaluation.states[:-1]
    start, dynamics = _luck(posterior, evaluation)
    return start, product(before, of_actions).sum().item(), dynamics


def with_memory(posterior: Solution, evaluation: Evaluation) -> tuple[float, float, float]:
    """The same of a policy with a memory, whose actions account for what the rest does not."""
    start, dynamics = _luck(posterior, evaluation)
    total = posterior.bound - evaluation.elbo
    return start, math.inf if total == math.inf else total - start - dynamics, dynamics


def _luck(posterior: Solution, evaluation: Evaluation) -> tuple[float, float]:
    """KL of the start and of the dynamics, true to bent, under the occupancies of a policy."""
    table = posterior.table
    lasting = table.horizon is None
    assert evaluation.state_actions is not None
    start = bellman.kl(table.log_initial, posterior.log_initial)
    dynamics = torch.zeros((), dtype=torch.float64)
    occupancies = [evaluation.state_actions] if lasting else evaluation.state_actions
    for t, occupancy in enumerate(occupancies):
        bend = bellman.kl(table.log_dynamics, posterior.log_transitions(slice(t, t + 1))[0])
        if table.discount < 1:
            v_next = posterior.log_values if lasting else posterior.log_values[t + 1]
            coin = bellman.coin_kl(v_next, posterior.optimism, table.discount)
            bend = bend + product(table.log_dynamics.exp(), table.gather(coin)).sum(-1)
        dynamics += product(occupancy, bend).sum()
    return start.item(), dynamics.item()


def _number(x: float | None, stderr: float | None = None) -> str:
    if x is None:
        return "–"
    text = f"{x:.4g}" if abs(x) >= 1e5 or 0 < abs(x) < 1e-3 else f"{x:.3f}"
    text = "0.000" if abs(x) < 1e-9 else text
    return text if stderr is None else f"{text} ± {stderr:.2g}"


def _without_infinities(x: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(x, dict):
        return {key: _without_infinities(value) for key, value in x.items()}
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x
