"""Exact inference in linear-Gaussian models, at any optimism at which a solution exists."""

from __future__ import annotations

import math
import sys

from cai import checks
from cai.evaluation.problem import as_problem
from cai.gaussian import riccati, riccati_equation, tilted_noise
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian

_EDGE = 1e-9  # relative accuracy to which the range of existence is bisected
_LEAST = 1e-20  # a limit closer to zero than this counts as zero


def gaussian_values(model: LinearGaussian, eta: float) -> GaussianSolution:
    """The solution by the Riccati recursion at η, for ``soft_values`` and ``posterior``.

    At η = 0 it is LQR with a Gaussian policy (certainty equivalence: gains do not depend on the
    noise), at η = 1 Gaussian smoothing, below zero LEQG or risk-sensitive control (Whittle 1981),
    which breaks down if nature's damage grows faster than the KL that it pays.

    Raises:
        ValueError: if no solution exists at η, naming the last η at which one does, or if the
            discount is below one and η is not zero.
    """
    _undiscounted(model, eta)
    try:
        return GaussianSolution.at(model, eta)
    except tilted_noise.Breakdown as breakdown:
        raise ValueError(_said(model, eta, breakdown)) from None


def stabilising_values(model: LinearGaussian, optimism: float = 0.0) -> GaussianSolution:
    """The stationary solution with a stable closed loop, even where rewards do not ask for it.

    For an infinite horizon ``soft_values``, like every other method here, gives the limit of long
    finite ones. If an unstable state never costs anything, that limit lets it grow. A control
    engineer usually wants the stable loop of least cost instead. It is another root of the same
    Riccati equation, and never better than the limit. The two agree if each direction that grows,
    or does not decay, eventually costs something.

    Args:
        model: a linear-Gaussian model with an infinite horizon.
        optimism: η, finite; 0 if the discount γ is below one. Then √γ times the closed loop is
            stable.

    Returns:
        The solution; its policy is N(k - Ks, αH⁻¹), and the closed loop A - BK, in the solution's
        own dynamics, has a spectral radius below 1/√γ.

    Raises:
        ValueError: if the model is not linear-Gaussian, its horizon is finite, or there is no such
            root.

    >>> from cai import inference, models
    >>> grows = models.linear_gaussian([[2.0]], [[1.0]], horizon=None, R=[[1.0]])
    >>> inference.soft_values(grows).gains.item()
    0.0
    >>> round(inference.stabilising_values(grows).gains.item(), 6)
    1.5
    """
    gaussian = as_problem(model).gaussian
    if gaussian is None or model.horizon is not None:
        checks.refuse(
            "model",
            "a linear-Gaussian one with an infinite horizon",
            f"{type(model).__name__} with a horizon of {model.horizon}",
            "soft_values(model) solves any other model",
        )
    eta = checks.check_optimism(optimism)
    _undiscounted(model, eta)
    try:
        return GaussianSolution.at(model, eta, "stabilising")
    except tilted_noise.Breakdown as breakdown:
        raise ValueError(
            f"model: expected one with a stabilising solution at η = {eta:g}, got one without "
            f"({breakdown}); let the actions control all that grows, or take soft_values(model)"
        ) from None


def _undiscounted(model: LinearGaussian, eta: float) -> None:
    if model.discount < 1 and eta != 0:
        raise ValueError(
            f"discount: expected 1 at optimism {eta:g} in a linear-Gaussian model, got "
            f"{model.discount:g}; (1/η) log(γ exp(ηV/α) + 1 - γ) is not quadratic in the state "
            "unless η = 0. Take optimism=0, or discount=1 with a finite horizon"
        )


def optimism_range(model: LinearGaussian) -> tuple[float, float]:
    """The lowest and the highest optimism at which a linear-Gaussian model has a solution.

    Values grow with η, so that solutions exist on an interval. Below it nature's damage exceeds its
    price without limit, and the value is -∞; above it luck or actions gain without limit, and the
    value is +∞ (never if the reward is concave and actions have a cost). The ends are found by
    bisection, to nine digits, with every step and the first state checked. For an infinite horizon
    they are the limits for long horizons.

    Args:
        model: a linear-Gaussian model without a discount.

    Returns:
        (lowest, highest), both of which have solutions; -inf or +inf if there is no limit.

    Raises:
        ValueError: if no η has a solution, or the discount is below one.

    >>> from cai import inference, models
    >>> model = models.linear_gaussian([[1.0]], [[1.0]], horizon=3, R=[[1.0]], noise=[[0.1]])
    >>> low, high = inference.optimism_range(model)
    >>> low < 0 < high
    True
    """
    advice = "tables have a solution at every optimism"
    checks.check_kind("model", model, LinearGaussian, "a linear-Gaussian one", advice)
    if model.discount < 1:
        checks.refuse(
            "discount",
            "1, where optimism has a range",
            f"{model.discount:g}",
            "with a discount only η = 0 has a quadratic value",
        )
    lowest, highest = _edge(model, -1), _edge(model, 1)
    if _side(model, lowest) or _side(model, highest):
        raise ValueError(
            "optimism: no η at all has a solution; the value grows without limit in an action (or "
            "falls, by the noise): let every action cost something, R > 0, or give it a prior"
        )
    return lowest, highest


def _side(model: LinearGaussian, eta: float) -> int:
    """0 if a solution exists, -1 if the value is -∞, +1 if it is +∞."""
    try:
        if model.horizon is None:
            riccati_equation.solve(model, eta)
        else:
            riccati.backward(model, eta)
    except tilted_noise.Breakdown as breakdown:
        return breakdown.side
    return 0


def _edge(model: LinearGaussian, side: int) -> float:
    """The last η towards side · ∞ at which the value is not side · ∞."""
    far = side * math.inf
    if _side(model, far) != side:
        return far
    good, bad = 0.0, float(side)
    if _side(model, good) == side:
        good, bad = -bad, good
        while _side(model, good) == side:
            if math.isinf(good):
                return good
            good, bad = _further(good), good
    while _side(model, bad) != side:
        good, bad = bad, _further(bad)
    while abs(bad - good) > _EDGE * abs(bad) and max(abs(good), abs(bad)) > _LEAST:
        middle = _between(good, bad)
        good, bad = (good, middle) if _side(model, middle) == side else (middle, bad)
    return good


def _further(eta: float) -> float:
    """The next optimism of 1, 8, 64, 64², …, ∞, which takes few steps to the largest float."""
    return eta * max(8.0, abs(eta))


def _between(good: float, bad: float) -> float:
    """The geometric mean, as limits have any size; the arithmetic one if either is zero."""
    if good == 0 or bad == 0:
        return 0.5 * (good + bad)
    one, other = (math.sqrt(min(abs(eta), sys.float_info.max)) for eta in (good, bad))
    return math.copysign(one * other, good)


def _said(model: LinearGaussian, eta: float, breakdown: tilted_noise.Breakdown) -> str:
    """The message of a breakdown, with the last optimism that has a solution."""
    side = breakdown.side
    edge = _edge(model, side)
    if _side(model, edge):
        remedy = "no η at all has a solution"
        if model.horizon is None:
            remedy += " with an infinite horizon, though a finite horizon may"
    else:
        which = "most negative" if side < 0 else "largest"
        remedy = f"the {which} η that exists is {_inside(edge, side)} (every step checked)"
    if side < 0:
        return (
            f"optimism: at η = {eta:g} the value is -∞: {breakdown.what}; {remedy}; take an η "
            "above it, less noise, or fewer steps"
        )
    return (
        f"optimism: at η = {eta:g} the value is +∞: {breakdown.what}; {remedy}; let every action "
        "cost something, R > 0, or give it a prior, and make the reward concave"
    )


def _inside(edge: float, side: int) -> str:
    """The limit to six digits, rounded to the side where a solution exists."""
    if edge == 0 or math.isinf(edge):
        return f"{edge:g}"
    rounded = float(f"{edge:.6g}")
    if side * (rounded - edge) > 0:
        rounded -= side * 10.0 ** (math.floor(math.log10(abs(edge))) - 5)
    return f"{rounded:.6g}"
