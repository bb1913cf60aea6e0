"""Smoothing in linear-Gaussian models with states, actions and only some o_t observed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor

from cai import checks
from cai.distributions.flat_prior import FlatPrior
from cai.gaussian.forms import Gaussian, LinearMap, Quadratic
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.riccati import StepArrays, model_start
from cai.gaussian.tilted_noise import Array
from cai.inference.exact._elimination import Conditional, NoDensity, Potential, Unbounded, eliminate
from cai.program import sites
from cai.tables import evidence

Known: TypeAlias = Mapping[tuple[str, int], Array]
"""Observations: ("s" or "a", t) -> a vector."""


class ConditionedStep(NamedTuple):
    """One step: its values, and the distributions of a given s and of s' given (s, a)."""

    V: Potential
    Q: Potential
    action: Conditional
    arrival: Conditional


def conditioned_gaussian(
    model: LinearGaussian, observed: Mapping[str, Any], optimal: Any
) -> GaussianSolution:
    """p(τ | observed, O_observed), as :func:`cai.inference.posterior` documents it.

    One backward sweep of integrals, over the noise of a step and then over its action. An observed
    state cuts it: the value of later steps is a number, and earlier steps must arrive in the state.

    Raises:
        ValueError: if a site is unknown, a value or the mask has another shape, an observed
            state has no density (named), an integral is infinite, or the discount is below one.
    """
    if model.discount < 1:
        checks.refuse(
            "discount",
            "1, where a linear-Gaussian model is conditioned",
            f"{model.discount:g}",
            "possible termination would make the posterior a mixture",
        )
    T = checks.finite_horizon(model, "conditioning")
    known = _parse(model, observed, T)
    seen = _rewarded(model, evidence.mask(optimal, T), T)
    final = Potential.free(seen.Q_final.numpy(), seen.q_final.numpy())
    steps = _backward(seen, known, final, T)
    mean, L = model_start(model)
    before = _restricted(steps[0].V, known, 0)
    try:
        total, start = _over_noise(before, np.zeros((len(mean), 0)), mean, L, model.temperature)
    except (NoDensity, Unbounded) as error:
        _refuse(error, known, 0, "the noise of the first state")
    return GaussianSolution(
        model=model,
        optimism=1.0,
        V=_quadratic([step.V for step in steps] + [final]),
        Q=_quadratic([step.Q for step in steps]),
        policy=_policy([step.action for step in steps]),
        initial=Gaussian(torch.as_tensor(start.offset), torch.as_tensor(start.covariance)),
        transitions=_transitions([step.arrival for step in steps]),
        first_value=total.k,
        conditioned=True,
    )


def _backward(
    model: LinearGaussian, known: Known, final: Potential, T: int
) -> list[ConditionedStep]:
    flat = dataclasses.replace(model, action_prior=FlatPrior(model.action_size))
    arrays = zip(StepArrays.of(flat).over(T), StepArrays.of(model).over(T), strict=True)
    steps: list[ConditionedStep] = []
    value = final
    for t, (paid, priced) in reversed(list(enumerate(arrays))):
        steps.append(_earlier(model.temperature, paid, priced, value, known, t))
        value = steps[-1].V
    return steps[::-1]


def _earlier(
    alpha: float,
    paid: tuple[Any, ...],
    priced: tuple[Any, ...],
    value: Potential,
    known: Known,
    t: int,
) -> ConditionedStep:
    """Step t, from the value of the next step and the arrays without and with the prior."""
    A, B, c, L, Q, N, R, q, rho, _ = paid
    *_, R_prior, _, rho_prior, k = priced
    n, m = B.shape
    what = f"the noise of step {t}"
    try:
        after = _restricted(value, known, t + 1)
        Qt, arrival = _over_noise(after, np.hstack([A, B]), c, L, alpha)
        Qt = Qt.plus(np.block([[Q, N], [N.T, R]]), np.concatenate([q, rho]))
        what = f"the action of step {t}"
        prior = block_diag(np.zeros((n, n)), R_prior - R)
        acting = Qt.plus(prior, np.concatenate([np.zeros(n), rho_prior - rho]), k)
        taken = known.get(("a", t))
        if taken is None:
            V, action = eliminate(acting, n, alpha, 1.0, R_prior)
        else:
            acting = acting.of(np.eye(n + m, n), np.append(np.zeros(n), taken))
            V, _ = eliminate(acting, n, alpha, 1.0, np.zeros((0, 0)))
            action = _certain(taken, n)
    except (NoDensity, Unbounded) as error:
        _refuse(error, known, t + 1, what)
    if ("s", t + 1) in known:
        arrival = _certain(known["s", t + 1], n + m)
    return ConditionedStep(V, Qt, action, arrival)


def _restricted(value: Potential, known: Known, t: int) -> Potential:
    """The value of step t, restricted to the state that is observed there, if any."""
    if ("s", t) not in known:
        return value
    try:
        return value.at(known["s", t])
    except NoDensity as error:
        _refuse(error, known, t + 1, "")


def _over_noise(
    after: Potential, M: Array, c: Array, L: Array, alpha: float
) -> tuple[Potential, Conditional]:
    """α log E exp(V(Mx + c + Lz)/α) as a function of x, z ~ N(0, I), and the conditional of s'.

    That is the distribution of s' = Mx + c + Lz given x, weighted by the value.
    """
    n, x = M.shape
    price = np.zeros((x + n, x + n))
    price[x:, x:] = alpha * np.eye(n)
    both = after.of(np.hstack([M, L]), c)
    both = both.plus(price, np.zeros(x + n), -0.5 * alpha * n * math.log(2 * math.pi))
    value, z = eliminate(both, x, alpha, float(np.linalg.norm(L, 2)), price[x:, x:])
    spread = L @ z.covariance @ L.T
    return value, Conditional(M + L @ z.gain, c + L @ z.offset, 0.5 * (spread + spread.T))


def _certain(value: Array, given: int) -> Conditional:
    """A constant value, independent of the variables that are given."""
    n = len(value)
    return Conditional(np.zeros((n, given)), value, np.zeros((n, n)))


def _stack(arrays: Iterable[Any]) -> Tensor:
    return torch.as_tensor(np.stack(list(arrays)))


def _quadratic(values: list[Potential]) -> Quadratic:
    return Quadratic(*(_stack(getattr(value, name) for value in values) for name in "Ppk"))


def _policy(actions: list[Conditional]) -> LinearGaussianPolicy:
    return LinearGaussianPolicy.from_matrices(
        -_stack(a.gain for a in actions),
        _stack(a.offset for a in actions),
        _stack(a.covariance for a in actions),
    )


def _transitions(arrivals: list[Conditional]) -> LinearMap:
    n = len(arrivals[0].offset)
    gains = _stack(arrival.gain for arrival in arrivals)
    return LinearMap(
        gains[..., :n],
        gains[..., n:],
        _stack(arrival.offset for arrival in arrivals),
        _stack(arrival.covariance for arrival in arrivals),
    )


def _parse(model: LinearGaussian, observed: Mapping[str, Any], T: int) -> Known:
    known = {}
    for name, value in observed.items():
        kind, t, _ = sites.parse("observed", name, T, model.discount)
        size = model.state_size if kind == "s" else model.action_size
        try:
            vector = torch.as_tensor(value, dtype=torch.float64).detach()
        except (TypeError, ValueError, RuntimeError):
            vector = torch.tensor(math.nan)
        if vector.dim() == 0:
            vector = vector.expand(1)
        if vector.shape != (size,) or not vector.isfinite().all():
            checks.refuse(
                f"observed[{name!r}]",
                f"{size} finite numbers",
                repr(value),
                "a state or an action is observed as a whole vector",
            )
        known[kind, t] = vector.numpy()
    return known


def _rewarded(model: LinearGaussian, seen: Tensor, T: int) -> LinearGaussian:
    """The model with rewards only at the steps whose o_t are observed."""
    if seen.all():
        return model
    changes: dict[str, Any] = {}
    for name, dims in (("Q", 2), ("N", 2), ("R", 2), ("q", 1), ("rho", 1)):
        whole: Tensor = getattr(model, name)
        each = whole.expand(T, *whole.shape[-dims:])
        changes[name] = each * seen[:-1].view(-1, *[1] * dims)
    for name in ("Q_final", "q_final"):
        changes[name] = getattr(model, name) * seen[-1]
    return dataclasses.replace(model, **changes)


def _refuse(error: NoDensity | Unbounded, known: Known, first: int, what: str) -> NoReturn:
    """Raises ValueError: an integral is infinite, or the next observed state has no density."""
    if isinstance(error, Unbounded) and error.lost:
        raise ValueError(
            f"reward: expected one whose curvature keeps the integral over {what} accurate, got "
            "one that is more than 1e13 times sharper than the spread of noise or actions; observe "
            "its target exactly instead, or make it less sharp"
        ) from None
    if isinstance(error, Unbounded):
        raise ValueError(
            f"evidence: p(observed, O) = ∞, the integral over {what} is infinite; let every action "
            "cost something at a step that is observed to be optimal, or give it a prior, and make "
            "the reward concave"
        ) from None
    name = f"s_{min(step for kind, step in known if kind == 's' and step >= first)}"
    if error.possible:
        raise ValueError(
            f"observed[{name!r}]: expected a state with a density, got one that is partly "
            "determined by earlier observations, since there is no noise in between; leave it out, "
            "or give the start, the action or the step some noise"
        ) from None
    raise ValueError(
        f"evidence: p(observed, O) = 0, observed {name} is impossible given earlier "
        "observations: there is no noise in that direction; give the start, the action or the "
        "step some, or observe a state that is possible"
    ) from None
