"""The result of a comparison: one row for each method, as text, HTML, Markdown or JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from cai import checks, one_line
from cai.evaluation import spelling
from cai.evaluation.bracket import EvidenceBracket
from cai.evaluation.evaluate import Evaluation
from cai.evaluation.spelling import markdown, number, spell
from cai.frames.data_frame import Column, grouped
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
_GROUP_OF = dict(zip(_HEADINGS, (group for group, n in _GROUPS for _ in range(n)), strict=True))
_LEAST_FIRST = (  # what a narrow table leaves out, in this order
    *("kl_start", "kl_actions", "entropy", "kl_dynamics", "restriction", "kl_upper", "kl_lower"),
    *("optimism_gap", "imagined_bound", "imagined_return", "kl"),
)


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

    def __repr__(self) -> str:
        known = {name: x.value for name, x in self.estimates.items() if x.value is not None}
        return one_line.named("Row", *(f"{name}={x:.6g}" for name, x in known.items()))

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
        return json.dumps(spelling.without_infinities(self.to_dict()), indent=2, ensure_ascii=False)

    def to_markdown(self) -> str:
        """The table in Markdown, with the units in the heading."""
        columns = self._columns()
        header = [f"{_group(column)}: {column[1]} ({column[2]})" for column in columns]
        return markdown([["method", *header], *self._cells(columns)])

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with the groups of the table, standard errors beside; NaN is unknown.

        Units are in ``attrs["units"]``, by group and column.

        Raises:
            ValueError: if pandas is not installed.
        """
        columns = self._columns()
        return grouped(self.rows, [Column(_group(x), *x[1:], self._of(x[0])) for x in columns])

    def _of(self, field: str) -> list[Estimate]:
        return [row.estimates.get(field, _UNKNOWN) for row in self.rows.values()]

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        known = [] if self.log_evidence is None else [f"log_evidence={self.log_evidence:.6g} nats"]
        return one_line.named("Comparison", *known, *(repr(name) for name in self.rows))

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """The table for IPython."""
        printer.text(str(self))

    def to_text(self, encoding: str = "utf-8", width: int | None = None) -> str:
        """The table in columns of one width.

        Args:
            encoding: that of the output. Symbols that it lacks are spelt: τ as tau, ± as +/-.
            width: characters a line. Columns are left out until the table fits, the parts of a sum
                first, and the last line names them; what a method gets is always shown. None for
                all columns.

        Raises:
            ValueError: if the width is not a whole number of at least 1.
        """
        if width is not None:
            checks.check_count("width", width, advice="80 is that of many terminals")
        columns = shown = self._columns()
        for name in ("", *_LEAST_FIRST):
            shown = [column for column in shown if column[0] != name]
            lines = self._lines(shown, encoding)
            if width is None or max(map(len, lines)) <= width:
                break
        notes = self._notes()
        if shown != columns:
            hidden = itertools.groupby((x for x in columns if x not in shown), _group)
            said = [f"{group}: {', '.join(x[1] for x in same)}" for group, same in hidden]
            notes.append(f"Not shown, to fit {width} characters: {'; '.join(said)}.")
        return spell("\n".join([*lines, *spelling.wrapped(notes, width)]), encoding)

    def _lines(self, columns: list[tuple[str, str, str]], encoding: str) -> list[str]:
        units = ["", *(f"({unit})" for _, _, unit in columns)]
        titles = ["", *(title for _, title, _ in columns)]
        return spelling.grouped([titles, units], self._cells(columns), _spans(columns), encoding)

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        columns = self._columns()
        titles = [(title, unit) for _, title, unit in columns]
        return spelling.grouped_html(titles, self._cells(columns), _spans(columns), self._notes())

    def _columns(self) -> list[tuple[str, str, str]]:
        """(field, title, unit) of each column that any row fills."""
        return [
            (field, self._title(field, title), "reward" if "return" in field else "nats")
            for field, title in _HEADINGS.items()
            if any(x.value is not None for x in self._of(field))
        ]

    def _title(self, field: str, title: str) -> str:
        """The title of a column; estimates are not called bounds."""
        loose = field == "kl_upper" and self.bracket is not None and self.bracket.kind != "bound"
        return "estimate" if loose else title

    def _cells(self, columns: list[tuple[str, str, str]]) -> list[list[str]]:
        cells = [[_cell(field, x) for x in self._of(field)] for field, _, _ in columns]
        return [[*line] for line in zip(self.rows, *cells, strict=True)]

    def _notes(self) -> list[str]:
        notes = []
        if self.log_evidence is not None:
            notes.append(f"log p(O) = {number(self.log_evidence)} nats = ELBO + KL, in every row.")
        if self.bracket is not None:
            notes.append(f"{self.bracket}.")
        if any(row.elbo_stderr is not None for row in self.rows.values()):
            notes.append("± is one standard error of a simulation; without it a number is exact.")
        return notes


def _group(column: tuple[str, str, str]) -> str:
    return _GROUP_OF[column[0]]


def _spans(columns: list[tuple[str, str, str]]) -> list[tuple[str, int]]:
    """Each group of columns, and how many it has."""
    return [(group, len([*same])) for group, same in itertools.groupby(columns, _group)]


def _cell(field: str, estimate: Estimate) -> str:
    """A number of a row; a restriction below 5e-4 nats is unfinished training, shown as zero."""
    x, stderr = estimate
    return number(0.0 if field == "restriction" and x and abs(x) < 5e-4 else x, stderr)
