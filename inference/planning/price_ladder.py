"""The cost of each restriction of a guide, from factorised plans up to the log evidence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cai import checks, notebook, one_line
from cai.evaluation.problem import as_problem
from cai.frames.data_frame import data_frame
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.inference.exact.gaussian_values import gaussian_values
from cai.inference.exact.soft_values import soft_values
from cai.inference.planning.belief_values import belief_values
from cai.inference.planning.factorised_plan import factorised_plan
from cai.inference.planning.gaussian_plan import gaussian_plan
from cai.policies import history
from cai.policies.observation import blind, classes
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import require_finite

FACTORISED, CORRELATED, PARTIAL = "factorised plan", "correlated plan", "partial sight"
FIXED, EVIDENCE = "fixed dynamics", "log evidence"

_PRICES = {
    FACTORISED: "independent steps",
    CORRELATED: "not looking",
    PARTIAL: "not seeing all of the state",
    FIXED: "luck that cannot be had",
}


@dataclass(frozen=True, eq=False)
class PriceLadder:
    """The best ELBO under each restriction, lowest first, and log p(O) on top.

    Attributes:
        nats: rung -> the best ELBO under the restriction, or log p(O); ascending. That of the
            factorised plan in a table is the best one found, see ``factorised_plan``.
        policies: rung -> the policy that attains it, ready for ``cai.compare(model, …)``; no policy
            in the true dynamics attains log p(O).
        left_out: rung -> why it was not computed.

    >>> from cai import inference, models
    >>> ladder = inference.price_ladder(models.ledge())
    >>> list(ladder.nats)
    ['factorised plan', 'correlated plan', 'fixed dynamics', 'log evidence']
    """

    nats: dict[str, float]
    policies: dict[str, Policy]
    left_out: dict[str, str]

    @property
    def prices(self) -> dict[str, float]:
        """Restriction -> its cost in nats, each rung minus the one below it, the lowest first.

        They add up to log p(O) minus the lowest rung. If a rung was left out, two restrictions
        share a price.
        """
        rungs, found = [*_PRICES, EVIDENCE], list(self.nats)
        prices = {}
        for low, high in itertools.pairwise(found):
            between = rungs[rungs.index(low) : rungs.index(high)]
            paid_for = [_PRICES[rung] for rung in between if rung == low or rung in self.left_out]
            more, less = self.nats[high], self.nats[low]
            prices[", ".join(paid_for)] = more - less if more != less else 0.0  # both may be -inf
        return prices

    def __str__(self) -> str:
        width = max(map(len, self.nats))
        lines = [f"{'':{width}}   best ELBO   below the next (nats)"]
        prices = [*self.prices.items(), None]
        for (rung, nats), price in reversed(list(zip(self.nats.items(), prices, strict=True))):
            what = "" if price is None else f"   {max(price[1], 0.0):9.3f}  for {price[0]}"
            lines.append(f"{rung:{width}}   {nats:9.3f}{what}")
        lines += [f"{rung}: left out, {why}" for rung, why in self.left_out.items()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        rungs = (f"{rung} {nats:.6g}" for rung, nats in self.nats.items())
        return one_line.named("PriceLadder", *rungs)

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """The table for IPython."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        prices = [*self.prices.items(), None]
        rows = [
            (rung, f"{nats:.3f}" + ("" if x is None else f", {max(x[1], 0.0):.3f} for {x[0]}"))
            for (rung, nats), x in reversed(list(zip(self.nats.items(), prices, strict=True)))
        ]
        rows += [(rung, f"left out, {why}") for rung, why in self.left_out.items()]
        return notebook.card("Best ELBO (nats), and below the next", rows)

    def to_dict(self) -> dict[str, Any]:
        """{"nats": …, "prices": …, "left_out": …}."""
        return {"nats": self.nats, "prices": self.prices, "left_out": self.left_out}

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row for each rung, the lowest first, and how it is priced.

        Its columns are "nats", "price", what the next rung is above it in nats, and "for", the
        restriction that costs it; the highest has neither.

        Raises:
            ValueError: if pandas is not installed.
        """
        prices = [*self.prices.items(), (None, math.nan)]
        columns = {
            "nats": [*self.nats.values()],
            "price": [nats for _, nats in prices],
            "for": [restriction for restriction, _ in prices],
        }
        return data_frame(columns, {"nats": "nats", "price": "nats"}, index=list(self.nats))


def price_ladder(
    model: TrajectoryModel, observe: Callable[[Tensor], Tensor] | None = None
) -> PriceLadder:
    """The best ELBO of guides under tighter and tighter restrictions, and what each costs.

        factorised plan ≤ correlated plan ≤ partial sight ≤ fixed dynamics ≤ log evidence

    A factorised plan chooses each step independently and does not look at states; a correlated one
    is any distribution over plans, q(plan) ∝ exp E[Σ (rewards/α + log p(a|s)) | plan]; partial
    sight is the best policy that sees observe(s) and remembers it; fixed dynamics is the best
    policy of all, ``soft_values(model)``; log p(O) is reached only by a guide that changes the
    dynamics. In a linear-Gaussian model all are in closed form, and the first price is
    ½ (Σ log Λ_ii - log det Λ) for plans of precision Λ.

    Args:
        model: a model with finitely many states and actions and a finite horizon, or a
            linear-Gaussian one without a discount. For others, fit each restricted policy and
            ``cai.compare`` them.
        observe: s -> the observation, for the rung of partial sight; without it there is no such
            rung. Correlated plans and partial sight are left out if the horizon is too long to list
            all histories.

    Returns:
        A :class:`PriceLadder`, which ``plot.price_ladder`` draws.

    Raises:
        ValueError: if the model cannot be tabulated, the horizon is infinite, or something is
            to be observed of a linear-Gaussian model.

    >>> from cai import inference, models
    >>> ladder = inference.price_ladder(models.ledge())
    >>> all(price > -1e-9 for price in ladder.prices.values())
    True
    """
    checks.check_model(model)
    checks.finite_horizon(model, "a ladder of plans")
    gaussian = as_problem(model).gaussian
    if gaussian is not None:
        return _gaussian_ladder(gaussian, observe)
    rungs: dict[str, Any] = {FACTORISED: factorised_plan(model)}
    left_out = {}
    seen = {CORRELATED: blind} | ({} if observe is None else {PARTIAL: observe})
    for rung, look in seen.items():
        why = _too_many(model, look)
        if why:
            left_out[rung] = why
        else:
            rungs[rung] = belief_values(model, look)
    rungs[FIXED] = soft_values(model)
    found = {rung: (solution.elbo, solution.policy) for rung, solution in rungs.items()}
    return _ladder(found, soft_values(model, optimism=1.0).bound, left_out)


def _gaussian_ladder(model: LinearGaussian, observe: Any) -> PriceLadder:
    if observe is not None:
        advice = "fit a cai.RecurrentPolicy(model, observe=…) and compare it"
        checks.refuse("observe", "None for a linear-Gaussian model", repr(observe), advice)
    plans = gaussian_plan(model)
    best, exact = gaussian_values(model, 0.0), gaussian_values(model, 1.0)
    rungs: dict[str, tuple[float, Policy]] = {
        FACTORISED: (plans.factorised_elbo, plans.factorised),
        CORRELATED: (plans.elbo, plans.policy),
        FIXED: (best.elbo, best.policy),
    }
    return _ladder(rungs, exact.bound, {})


def _ladder(
    rungs: dict[str, tuple[float, Policy]], evidence: float, left_out: dict[str, str]
) -> PriceLadder:
    nats = {rung: elbo for rung, (elbo, _) in rungs.items()}
    policies = {rung: policy for rung, (_, policy) in rungs.items()}
    return PriceLadder(nats | {EVIDENCE: evidence}, policies, left_out)


def _too_many(model: TrajectoryModel, observe: Any) -> str:
    """Why the histories of observations cannot be listed; empty if they can."""
    S, A = require_finite(model)
    O = int(classes(model, observe).max()) + 1  # noqa: E741
    try:
        history.check_size(checks.finite_horizon(model, "a policy on histories"), S, A, O)
    except ValueError:
        return f"{A * O}^{model.horizon} histories are too many to list"
    return ""
