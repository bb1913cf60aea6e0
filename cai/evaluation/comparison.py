"""Methods side by side: what each imagines, what it gets, and its divergence term by term."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from cai.checks import refuse
from cai.evaluation import importance_weights
from cai.evaluation.bracket import EvidenceBracket, bracket, from_above
from cai.evaluation.divergence import Split, measured
from cai.evaluation.evaluate import Evaluation
from cai.evaluation.problem import Problem, as_problem
from cai.evaluation.references import References
from cai.evaluation.report import Comparison, Estimate, Row
from cai.numerics.exclusive import seeded
from cai.program.episode import check_policy, remembers
from cai.program.interfaces import Belief, Policy, ValueFunction
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table

_TOGETHER = 100  # trajectories at a time in a bracket of the log evidence


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

    Where the exact posterior is out of reach, log p(O) is bracketed, as by
    ``inference.evidence_bracket``, with importance weights of the best of the policies; not with
    an infinite horizon, nor if all trajectories have weight zero.

    Args:
        model: the model, or its table.
        methods: name -> a Chain, a fit, or a policy (t, s) -> Distribution.
        value: (t, s) -> V_t(s) in reward units, nowhere too low, with which the upper end of that
            bracket is a bound, not an estimate; see ``inference.evidence_bracket``.

    Returns:
        A :class:`cai.Comparison`: one :class:`cai.Row` for each method, printed as a
        table.

    Raises:
        ValueError: if a method has no policy or does not fit the model, if the evidence is zero,
            or if a value is given that is too low, or that has no use because the posterior is
            known or the horizon is infinite.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> methods = {"posterior": inference.posterior(model), "prior": lambda t, s: model.prior(s)}
    >>> report = cai.compare(model, methods)
    >>> round(report.rows["prior"].elbo, 2)
    -3.5
    """
    problem = as_problem(model, sampled=True)
    if not isinstance(methods, Mapping) or not methods:
        came = "none" if isinstance(methods, Mapping) else f"a {type(methods).__name__}"
        raise ValueError(
            f"methods: expected at least one, as {{name: solution or policy}}, got {came}"
        )
    entries = {name: _entry(name, method, problem) for name, method in methods.items()}
    known = References.of(problem, [x.belief for x in entries.values() if x.belief is not None])
    if known.posterior is not None and known.posterior.bound == -math.inf:
        raise ValueError(
            "evidence: p(O) = 0, there is no posterior to compare with; no trajectory has a "
            "reward above -inf"
        )
    rows = {name: _row(entry, known) for name, entry in entries.items()}
    if known.posterior is not None:
        if value is not None:
            raise ValueError(
                "value: expected None where log p(O) is known exactly, as here; leave it out"
            )
        table = None if known.chain is None else known.chain.table
        return Comparison(rows, known.posterior.bound, known.posterior, model, table=table)
    evaluations = [row.evaluation for row in rows.values()]
    found = _bracket(problem, [x.policy for x in entries.values()], evaluations, value)
    if found is None and value is not None:
        raise ValueError(
            "value: expected None where no trajectory can be drawn, as with an infinite horizon or "
            "with a flat prior and a discount; leave it out"
        )
    if found is not None:
        rows = {name: _between(row, found) for name, row in rows.items()}
    return Comparison(rows, None, None, model, found)


class _Entry(NamedTuple):
    """A method as it is compared: its policy, and what it believes beyond the true dynamics."""

    method: Any
    policy: Policy
    belief: Belief | None


def _entry(name: str, method: Any, problem: Problem) -> _Entry:
    """A method, which must have a policy, and belong to the problem if it believes anything."""
    policy: Any = getattr(method, "policy", method)
    expected = "a solution, a fit or a policy (t, s) -> distribution"
    solves = inspect.isfunction(method) and next(iter(inspect.signature(method).parameters), "")
    if solves in ("model", "source"):
        came, advice = f"the function {method.__name__} of a model", f"{method.__name__}(model)"
        refuse(f"methods[{name!r}]", expected, came, f"pass its result, {advice}")
    if isinstance(method, TrajectoryModel) or not (callable(policy) or remembers(policy)):
        raise ValueError(f"methods[{name!r}]: expected {expected}, got {type(method).__name__}")
    # That of a fit is its policy's.
    belief = next((x for x in (method, policy) if isinstance(x, Belief)), None)
    check_policy(belief if isinstance(belief, nn.Module) else policy)
    if belief is not None and not belief.is_of(problem):
        raise ValueError(
            f"methods[{name!r}]: expected a solution of the model that is compared on, got one of "
            "another problem; solve this one, or pass its policy alone, solution.policy"
        )
    return _Entry(method, policy, belief)


def _row(entry: _Entry, known: References) -> Row:
    evaluation, split = measured(entry.policy, known)
    elbo = Estimate(evaluation.elbo, evaluation.elbo_stderr)
    total = Estimate(evaluation.expected_return, evaluation.expected_return_stderr)
    objective, belief = evaluation.elbo, entry.belief
    if belief is not None and belief.rule != "soft":
        objective = evaluation.expected_return / float(known.problem.model.temperature)
    estimates = {
        "imagined_bound": Estimate(objective, elbo.stderr),
        "imagined_return": total,
        "elbo": elbo,
        "expected_return": total,
        "entropy": Estimate(evaluation.entropy, evaluation.entropy_stderr),
    }
    if belief is not None and belief.optimism != 0:
        estimates["imagined_bound"] = Estimate(belief.bound)
        estimates["imagined_return"] = Estimate(belief.imagined_return)
        estimates["optimism_gap"] = Estimate(_less(belief.bound, objective))
    elif known.best is not None:
        if belief is not None and belief.rule == "planned":  # it does not count on its own errors
            estimates["imagined_bound"] = Estimate(belief.bound)
        estimates["restriction"] = Estimate(_less(known.best, evaluation.elbo), elbo.stderr)
    return Row(estimates | (_parts(split) if split else {}), evaluation, entry.method, belief)


def _parts(split: Split) -> dict[str, Estimate]:
    return {
        "kl_start": Estimate(split.start),
        "kl_actions": Estimate(split.actions, split.actions_stderr),
        "kl_dynamics": Estimate(split.dynamics, split.dynamics_stderr),
        "kl": Estimate(split.total, split.total_stderr),
    }


def _bracket(
    problem: Problem,
    policies: Sequence[Policy],
    evaluations: Sequence[Evaluation],
    value: ValueFunction | None,
) -> EvidenceBracket | None:
    """log p(O) bracketed by the best policy; None if all trajectories have weight zero."""
    model, gaussian = problem.program, problem.gaussian
    if model is None or model.horizon is None:
        return None
    if gaussian is not None and gaussian.flat and gaussian.discount < 1:
        return None  # after termination actions follow the prior, which cannot be sampled
    halves = [
        _log_weights(model, policy, evaluation).tensor_split(2)
        for policy, evaluation in zip(policies, evaluations, strict=True)
    ]
    # Chosen on one half, measured on the other: the best of several estimates is biased upwards.
    bounds = [(bracket(w, _TOGETHER).lower, w.logsumexp(0).item()) for w, _ in halves]
    chosen = max(range(len(halves)), key=bounds.__getitem__)
    above = None
    if value is not None:
        with seeded(0):
            above = from_above(model, value, model.simulate(policies[chosen], 100))
    found = bracket(halves[chosen][1], _TOGETHER, above)
    return found if found.effective > 0 or above is not None else None


def _log_weights(model: TrajectoryModel, policy: Policy, evaluation: Evaluation) -> Tensor:
    """(n,), nats; simulated now if the policy was evaluated in closed form."""
    found = evaluation.log_weights
    if found is not None:
        return found
    return importance_weights.scores(
        model, policy, model.simulate(policy, 10_000, seed=0)
    ).log_weights


def _between(row: Row, found: EvidenceBracket) -> Row:
    """A row with its divergence to the posterior bracketed."""
    error = row.elbo_stderr or 0.0
    between = {
        "kl_lower": Estimate(_less(found.lower, row.elbo), math.hypot(found.lower_stderr, error)),
        "kl_upper": Estimate(_less(found.upper, row.elbo), math.hypot(found.upper_stderr, error)),
    }
    return dataclasses.replace(row, estimates={**row.estimates, **between})


def _less(x: float, y: float) -> float:
    """x - y; zero if both are the same infinity."""
    return x - y if x != y else 0.0
