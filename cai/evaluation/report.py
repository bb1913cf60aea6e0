"""The result of a comparison: one row for each method, as text, HTML, Markdown or JSON."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from cai.evaluation.bracket import EvidenceBracket
from cai.evaluation.evaluate import Evaluation
from cai.evaluation.spelling import markdown, number, spell
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.program.interfaces import Belief
from cai.program.trajectory import TrajectoryModel
from cai.solutions.chain import Chain
from cai.tables.table import Table

_HEADINGS = {
    "imagined_bound": "bound",
    "imagined_return": "return",
    "elbo": "ELBO",
    "expected_return": "return",
    "optimism_gap": "optimism",
    "restriction": "restriction",
    "entropy": "entropy",
    "kl_start": "start",
    "kl_actions": "actions",
    "kl_dynamics": "dynamics",
    "kl": "total",
    "kl_lower": "at least",
    "kl_upper": "at most",
}
_GROUPS = (("imagines", 2), ("gets", 2), ("gap", 2), ("policy", 1), ("KL to p(τ|O)", 6))


class Estimate(NamedTuple):
    """A number, and its standard error: None if it is exact."""

    value: float | None = None
    stderr: float | None = None


_UNKNOWN = Estimate()


def _value(name: str) -> float:
    return cast(float, property(lambda row: row.estimates[name].value))


def _maybe(name: str) -> float | None:
    return cast(float, property(lambda row: row.estimates.get(name, _UNKNOWN).value))


def _stderr(name: str) -> float | None:
    return cast(float, property(lambda row: row.estimates.get(name, _UNKNOWN).stderr))


@dataclass(frozen=True, eq=False)
class Row:
    """One method in a comparison. Bounds, entropies and divergences in nats, returns in reward.

    Attributes:
        imagined_bound: what the method believes it achieves, its own bound or log evidence. (For
            rules that are not soft: return/α, minus the KL of the dynamics over η. They do not
            count KL(policy‖prior), and so may be above the ELBO without optimism; the planned rule
            imagines besides that it errs no more.)
        imagined_return: the return it expects, under the dynamics that it believes in.
        elbo: what its policy achieves in the true dynamics, E_q[log p(τ,O) - log q(τ)].
        expected_return: the return of its policy there; each ``*_stderr`` is None where exact.
        optimism_gap: imagined_bound minus the method's own objective in the true dynamics, ELBO or
            return/α; None where the method believes in the true dynamics.
        restriction: the highest ELBO of any policy minus this one, the cost of limited sight,
            memory, family or training; None if unknown, or if the method changes the dynamics.
        entropy: E_q[Σ_t H(q(·|s_t))] of its policy in the true dynamics.
        kl_start: KL(p(s_0) ‖ p(s_0|O)).
        kl_actions: Σ_t E_q[KL(q(a|s) ‖ p(a|s,O))].
        kl_dynamics: Σ_t E_q[KL(p(s'|s,a) ‖ p(s'|s,a,O))].
        kl: the sum of the three, log p(O) - elbo; None, like these, if the posterior is unknown.
        kl_lower: in that case, the lower end of ``Comparison.bracket`` minus the ELBO.
        kl_upper: likewise, the upper end.
        estimates: all of these by name, each with its standard error.
        evaluation: the policy's evaluation in the true dynamics.
        method: what was passed to the comparison.
        belief: the belief of the method, or of its policy, about the dynamics; or None.

    >>> from cai import compare, inference, models
    >>> row = compare(models.ledge(), {"a": inference.posterior(models.ledge())}).rows["a"]
    >>> row.imagined_return > row.expected_return
    True
    """

    estimates: Mapping[str, Estimate]
    evaluation: Evaluation
    method: Any
    belief: Belief | None = None

    imagined_bound = _value("imagined_bound")
    imagined_bound_stderr = _stderr("imagined_bound")
    imagined_return = _value("imagined_return")
    imagined_return_stderr = _stderr("imagined_return")
    elbo = _value("elbo")
    elbo_stderr = _stderr("elbo")
    expected_return = _value("expected_return")
    expected_return_stderr = _stderr("expected_return")
    optimism_gap = _maybe("optimism_gap")
    entropy = _value("entropy")
    entropy_stderr = _stderr("entropy")
    restriction = _maybe("restriction")
    restriction_stderr = _stderr("restriction")
    kl_start = _maybe("kl_start")
    kl_actions = _maybe("kl_actions")
    kl_actions_stderr = _stderr("kl_actions")
    kl_dynamics = _maybe("kl_dynamics")
    kl_dynamics_stderr = _stderr("kl_dynamics")
    kl = _maybe("kl")
    kl_stderr = _stderr("kl")
    kl_lower = _maybe("kl_lower")
    kl_lower_stderr = _stderr("kl_lower")
    kl_upper = _maybe("kl_upper")
    kl_upper_stderr = _stderr("kl_upper")


_COLUMNS = [name for name, x in vars(Row).items() if isinstance(x, property)]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Mapping[str, Row]):
    """Rows by name, in the order in which the methods were given.

    It prints as an aligned table, and exports to HTML (in a notebook), a dict, JSON and Markdown.

    Attributes:
        rows: name -> row.
        log_evidence: log p(O) in nats; None where the exact posterior is out of reach.
        posterior: the exact posterior to which the divergences are measured; or None.
        model: the model, or its table.
        bracket: bounds of log p(O) if the exact posterior is out of reach, from the best method.
        table: the model's table, if the posterior is computed from a table; else None.

    >>> from cai import compare, inference, models
    >>> list(compare(models.ledge(), {"posterior": inference.posterior(models.ledge())}))
    ['posterior']
    """

    rows: dict[str, Row]
    log_evidence: float | None
    posterior: Chain | GaussianSolution | None
    model: TrajectoryModel | Table
    bracket: EvidenceBracket | None = None
    table: Table | None = field(default=None, kw_only=True)

    def __getitem__(self, name: str) -> Row:
        return self.rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """{"log_evidence", "bracket": …, "rows": {name: {column: number or None}}}, nats."""
        return {
            "log_evidence": self.log_evidence,
            "bracket": None if self.bracket is None else dataclasses.asdict(self.bracket),
            "rows": {
                name: {column: getattr(row, column) for column in _COLUMNS}
                for name, row in self.rows.items()
            },
        }

    def to_json(self) -> str:
        """to_dict as JSON; missing numbers are null, infinities are "inf" and "-inf"."""
        return json.dumps(_without_infinities(self.to_dict()), indent=2, ensure_ascii=False)

    def to_markdown(self) -> str:
        """The table in Markdown, with the units in the heading."""
        header = ["method"] + [
            f"{group}: {title} ({unit})"
            for (_, title, unit), group in zip(self._columns(), self._groups(), strict=True)
        ]
        return markdown([header, *self._cells()])

    def __str__(self) -> str:
        return self.to_text()

    __repr__ = __str__

    def to_text(self, encoding: str = "utf-8") -> str:
        """The table in columns of one width.

        Args:
            encoding: that of the output. Symbols that it lacks are spelt: τ as tau, ± as +/-.
        """
        units = ["", *(f"({unit})" for _, _, unit in self._columns())]
        titles = ["", *(title for _, title, _ in self._columns())]
        body = [[spell(cell, encoding) for cell in x] for x in (titles, units, *self._cells())]
        widths = [max(map(len, column)) for column in zip(*body, strict=True)]
        lines = [self._group_line(widths, encoding)]
        for line in body:
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        lines.insert(3, "-" * (sum(widths) + 2 * (len(widths) - 1)))
        return spell("\n".join([*lines, *self._notes()]), encoding)

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        cell = "<{0} style='text-align:{1}'>{2}</{0}>".format
        groups = "".join(
            f"<th colspan='{n}' style='text-align:center'>{html.escape(group)}</th>"
            for group, n in self._spans()
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
            (field, self._title(field, title), "reward" if "return" in field else "nats")
            for field, title in _HEADINGS.items()
            if any(
                row.estimates.get(field, _UNKNOWN).value is not None for row in self.rows.values()
            )
        ]

    def _title(self, field: str, title: str) -> str:
        """The title of a column; estimates are not called bounds."""
        loose = field == "kl_upper" and self.bracket is not None and self.bracket.kind != "bound"
        return "estimate" if loose else title

    def _groups(self) -> list[str]:
        """The group of each column."""
        groups = [group for group, n in _GROUPS for _ in range(n)]
        of = dict(zip(_HEADINGS, groups, strict=True))
        return [of[field] for field, _, _ in self._columns()]

    def _spans(self) -> list[tuple[str, int]]:
        """Each group, and how many columns it has."""
        return [(group, len([*same])) for group, same in itertools.groupby(self._groups())]

    def _group_line(self, widths: list[int], encoding: str) -> str:
        line, i = " " * widths[0], 1
        for group, n in self._spans():
            name, width = spell(group, encoding), sum(widths[i : i + n]) + 2 * (n - 1)
            line += "  " + (f" {name} ".center(width, "·") if n > 1 else name.rjust(width))
            i += n
        return line

    def _cells(self) -> list[list[str]]:
        columns = [field for field, _, _ in self._columns()]
        return [
            [name, *(_cell(field, row.estimates.get(field, _UNKNOWN)) for field in columns)]
            for name, row in self.rows.items()
        ]

    def _notes(self) -> list[str]:
        notes = []
        if self.log_evidence is not None:
            notes.append(f"log p(O) = {number(self.log_evidence)} nats = ELBO + KL, in every row.")
        if self.bracket is not None:
            notes.append(f"{self.bracket}.")
        if any(row.elbo_stderr is not None for row in self.rows.values()):
            notes.append("± is one standard error of a simulation; without it a number is exact.")
        return notes


def _cell(field: str, estimate: Estimate) -> str:
    """A number of a row; a restriction below 5e-4 nats is unfinished training, shown as zero."""
    x, stderr = estimate
    return number(0.0 if field == "restriction" and x and abs(x) < 5e-4 else x, stderr)


def _without_infinities(x: Any) -> Any:
    """The same with infinities as texts, since JSON has none."""
    if isinstance(x, dict):
        return {key: _without_infinities(value) for key, value in x.items()}
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x
