"""The side by side: what each method imagines, what it gets, and where the nats go."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cai import checks
from cai.evaluation import importance_weights
from cai.evaluation.bracket import EvidenceBracket, bracket, from_above
from cai.evaluation.divergence import Split, measured
from cai.evaluation.evaluate import Evaluation
from cai.evaluation.spelling import spell
from cai.evaluation.yardsticks import Yardsticks, same, same_gaussian, yardsticks
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.numerics.exclusive import seeded
from cai.policies.free_dynamics import FreeDynamics
from cai.program.calling import check_policy
from cai.program.episode import remembers
from cai.program.interfaces import Policy, ValueFunction
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
_TOGETHER = 100  # trajectories at a time in a bracket of the log evidence


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
        restriction: the highest ELBO that any policy has, ``soft_values(model).elbo``, less this
            one: what it costs not to see, not to remember, to be of one family, or not to be
            trained to the end. None where that is not known, or the method bends the dynamics.
        entropy: E_q[Σ_t H(q(·|s_t))] of its policy in the true dynamics.
        kl_start: KL(p(s_0) ‖ p(s_0|O)).
        kl_actions: Σ_t E_q[KL(q(a|s) ‖ p(a|s,O))].
        kl_dynamics: Σ_t E_q[KL(p(s'|s,a) ‖ p(s'|s,a,O))].
        kl: the sum of the three, which is log p(O) - elbo; None, as its parts, where the exact
            posterior is out of reach.
        kl_lower: where it is, the lower bound of log p(O) less the ELBO.
        kl_upper: the upper number less the ELBO: a bound or an estimate, see
            :attr:`Comparison.bracket`.
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
    evaluation: Evaluation
    method: Any
    restriction: float | None = None
    restriction_stderr: float | None = None
    kl_start: float | None = None
    kl_actions: float | None = None
    kl_actions_stderr: float | None = None
    kl_dynamics: float | None = None
    kl_dynamics_stderr: float | None = None
    kl: float | None = None
    kl_stderr: float | None = None
    kl_lower: float | None = None
    kl_lower_stderr: float | None = None
    kl_upper: float | None = None
    kl_upper_stderr: float | None = None


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
        bracket: log p(O) between two numbers, where the exact posterior is out of reach; from
            half of the trajectories of the method that is closest on the other half.
    """

    rows: dict[str, Row]
    log_evidence: float | None
    posterior: Chain | GaussianSolution | None
    model: TrajectoryModel | Table
    bracket: EvidenceBracket | None = None

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
        return self.to_text()

    def to_text(self, encoding: str = "utf-8") -> str:
        """The table in columns of one width.

        Args:
            encoding: of where it goes. Symbols that it lacks are spelt: τ as tau, ± as +/-.
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
            (field, self._title(field, title), "reward" if "return" in field else "nats")
            for field, title in _HEADINGS.items()
            if any(getattr(row, field) is not None for row in self.rows.values())
        ]

    def _title(self, field: str, title: str) -> str:
        """What is no bound is not called one."""
        loose = field == "kl_upper" and self.bracket is not None and self.bracket.kind != "bound"
        return "estimate" if loose else title

    def _groups(self) -> list[str]:
        """The group of each column."""
        groups = [group for group, n in _GROUPS for _ in range(n)]
        of = dict(zip(_HEADINGS, groups, strict=True))
        return [of[field] for field, _, _ in self._columns()]

    def _group_line(self, widths: list[int], encoding: str) -> str:
        line = " " * widths[0]
        groups = [spell(group, encoding) for group in self._groups()]
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
                _number(_settled(row, field), getattr(row, f"{field}_stderr", None))
                for field, _, _ in self._columns()
            ]
            for name, row in self.rows.items()
        ]

    def _notes(self) -> list[str]:
        notes = []
        if self.log_evidence is not None:
            notes.append(f"log p(O) = {_number(self.log_evidence)} nats = ELBO + KL, in every row.")
        if self.bracket is not None:
            notes.append(f"{self.bracket}.")
        if any(row.elbo_stderr is not None for row in self.rows.values()):
            notes.append("± is one standard error of a simulation; without it a number is exact.")
        return notes


def compare(
    model: TrajectoryModel | Table,
    methods: Mapping[str, Any],
    *,
    value: ValueFunction | None = None,
) -> Comparison:
    """Puts solutions, fits and policies side by side on one model.

    The divergence of each policy, as a guide with the true dynamics, to the exact posterior is
    split by the identity (for any policy q)

        log p(O) - ELBO(q) = KL(p(s_0) ‖ p(s_0|O)) + Σ_t E_q[KL(q(a|s) ‖ p(a|s,O))]
                             + Σ_t E_q[KL(p(s'|s,a) ‖ p(s'|s,a,O))]

    Where the exact posterior is out of reach, log p(O) is put between two numbers, as
    ``inference.evidence_bracket`` does, by importance weights of the best of the policies; but
    not of an endless model, nor where no trajectory weighs anything.

    Args:
        model: the model, or its table.
        methods: name -> a Solution, a fit, or a policy (t, s) -> Distribution.
        value: (t, s) -> V_t(s) in reward units, nowhere too low, which makes the upper number of
            that bracket a bound; see ``inference.evidence_bracket``.

    Raises:
        ValueError: where a method has no policy, does not fit the model, or the evidence is zero;
            where a value is given that is too low, or of no use since the posterior is known
            or the model is endless.
    """
    checks.check_model(model, table=True)
    if not isinstance(methods, Mapping) or not methods:
        came = "none" if isinstance(methods, Mapping) else f"a {type(methods).__name__}"
        raise ValueError(
            f"methods: expected at least one, as {{name: solution or policy}}, got {came}"
        )
    known = yardsticks(model, methods)
    if known.posterior is not None and known.posterior.bound == -math.inf:
        raise ValueError(
            "evidence: p(O) = 0, there is no posterior to compare with; no trajectory has a "
            "reward above -inf"
        )
    rows = {name: _row(name, method, model, known) for name, method in methods.items()}
    if known.posterior is not None:
        if value is not None:
            raise ValueError(
                "value: expected None where log p(O) is known exactly, as here; leave it out"
            )
        return Comparison(rows, known.posterior.bound, known.posterior, model)
    found = _bracket(model, rows, value)
    if found is None and value is not None:
        raise ValueError(
            "value: expected None where no trajectory can be drawn, as of an endless model or "
            "with a flat prior and a discount; leave it out"
        )
    if found is not None:
        rows = {name: _between(row, found) for name, row in rows.items()}
    return Comparison(rows, None, None, model, found)


def _row(name: str, method: Any, model: TrajectoryModel | Table, known: Yardsticks) -> Row:
    policy = _policy(name, method, model, known.table)
    evaluation, split = measured(model, policy, known.table, known.posterior)
    believer = _believer(method)
    bends = isinstance(believer, Chain | GaussianSolution | FreeDynamics)
    bends = bends and believer.optimism != 0
    had = evaluation.elbo
    if isinstance(method, Chain) and method.rule != "soft":
        had = evaluation.expected_return / method.table.temperature
    bound = believer.bound if bends else had
    short = None if bends or known.best is None else _less(known.best, evaluation.elbo)
    return Row(
        imagined_bound=bound,
        imagined_return=believer.imagined_return if bends else evaluation.expected_return,
        elbo=evaluation.elbo,
        elbo_stderr=evaluation.elbo_stderr,
        imagined_bound_stderr=None if bends else evaluation.elbo_stderr,
        imagined_return_stderr=None if bends else evaluation.expected_return_stderr,
        entropy_stderr=evaluation.entropy_stderr,
        expected_return=evaluation.expected_return,
        expected_return_stderr=evaluation.expected_return_stderr,
        optimism_gap=_less(bound, had) if bends else None,
        entropy=evaluation.entropy,
        restriction=short,
        restriction_stderr=None if short is None else evaluation.elbo_stderr,
        evaluation=evaluation,
        method=method,
        **({} if split is None else _parts(split)),
    )


def _believer(method: Any) -> Any:
    """Who imagines something: a solution, or free dynamics, the policy of a fit perhaps."""
    policy = getattr(method, "policy", None)
    return policy if isinstance(policy, FreeDynamics) else method


def _policy(name: str, method: Any, model: TrajectoryModel | Table, table: Table | None) -> Policy:
    policy: Any = getattr(method, "policy", method)
    if not (callable(policy) or remembers(policy)):
        raise ValueError(
            f"methods[{name!r}]: expected a solution, a fit or a policy (t, s) -> distribution, "
            f"got {type(method).__name__}"
        )
    check_policy(_believer(method) if isinstance(_believer(method), FreeDynamics) else policy)
    if isinstance(method, Chain):
        fits = table is not None and same(method.table, table)
    elif isinstance(method, GaussianSolution):
        fits = isinstance(model, LinearGaussian) and same_gaussian(method.model, model)
    elif isinstance(free := _believer(method), FreeDynamics):
        fits = table is not None and free.is_of(table)
    else:
        fits = True
    if not fits:
        raise ValueError(
            f"methods[{name!r}]: expected a solution of the model that is compared on, got one of "
            "another problem; solve this one, or pass its policy alone, solution.policy"
        )
    found: Policy = policy
    return found


def _parts(split: Split) -> dict[str, float | None]:
    return {
        "kl_start": split.start,
        "kl_actions": split.actions,
        "kl_actions_stderr": split.actions_stderr,
        "kl_dynamics": split.dynamics,
        "kl_dynamics_stderr": split.dynamics_stderr,
        "kl": split.total,
        "kl_stderr": split.total_stderr,
    }


def _bracket(
    model: TrajectoryModel | Table, rows: Mapping[str, Row], value: ValueFunction | None
) -> EvidenceBracket | None:
    """log p(O) by the policy that is closest to it; None where no trajectory weighs anything."""
    if not isinstance(model, TrajectoryModel) or model.horizon is None:
        return None
    if isinstance(model, LinearGaussian) and model.flat and model.discount < 1:
        return None  # the dead act by the prior, which cannot be sampled
    policies = [getattr(row.method, "policy", row.method) for row in rows.values()]
    halves = [
        _log_weights(model, policy, row).tensor_split(2)
        for policy, row in zip(policies, rows.values(), strict=True)
    ]
    # Chosen by one half, measured by the other: the best of several numbers is too good.
    worth = [(bracket(w, _TOGETHER).lower, w.logsumexp(0).item()) for w, _ in halves]
    chosen = max(range(len(halves)), key=worth.__getitem__)
    above = None
    if value is not None:
        with seeded(0):
            above = from_above(model, value, model.simulate(policies[chosen], 100))
    found = bracket(halves[chosen][1], _TOGETHER, above)
    return found if found.effective > 0 or above is not None else None


def _log_weights(model: TrajectoryModel, policy: Policy, row: Row) -> Tensor:
    """(n,), nats; of one that was evaluated in closed form they are simulated now."""
    found = row.evaluation.log_weights
    if found is not None:
        return found
    return importance_weights.scores(
        model, policy, model.simulate(policy, 10_000, seed=0)
    ).log_weights


def _between(row: Row, found: EvidenceBracket) -> Row:
    """A row with its divergence to the posterior between two numbers."""
    error = row.elbo_stderr or 0.0
    return dataclasses.replace(
        row,
        kl_lower=_less(found.lower, row.elbo),
        kl_lower_stderr=math.hypot(found.lower_stderr, error),
        kl_upper=_less(found.upper, row.elbo),
        kl_upper_stderr=math.hypot(found.upper_stderr, error),
    )


def _less(x: float, y: float) -> float:
    """x - y, zero where both are the same infinity."""
    return x - y if x != y else 0.0


def _settled(row: Row, field: str) -> float | None:
    """A number of a row; what training still lacks in the fourth digit is no restriction."""
    x: float | None = getattr(row, field)
    return 0.0 if field == "restriction" and x is not None and abs(x) < 5e-4 else x


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
