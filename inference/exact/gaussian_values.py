"""Exact inference in linear-Gaussian models, at any optimism at which an answer exists."""

from __future__ import annotations

import math
import sys

from cai import checks
from cai.evaluation.problem import as_problem
from cai.gaussian import riccati, riccati_equation, tilted_noise
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian

_EDGE = 1e-9  # relative width to which the edge of existence is bisected
_LEAST = 1e-20  # an edge closer to zero than this is at zero


def gaussian_values(model: LinearGaussian, eta: float) -> GaussianSolution:
    """The Riccati recursion at optimism η; ``soft_values`` and ``posterior`` come here.

    At η = 0 it is LQR with a Gaussian policy (certainty equivalence: gains do not depend on the
    noise), at η = 1 Gaussian smoothing, below zero LEQG or risk-sensitive control (Whittle 1981),
    which breaks down where nature can do damage faster than it pays for it.

    Raises:
        ValueError: if no solution exists at η, naming the last η at which one does, or where
            the discount is below one and η is not zero.
    """
    _undiscounted(model, eta)
    try:
        return GaussianSolution.at(model, eta)
    except tilted_noise.Breakdown as breakdown:
        raise ValueError(_said(model, eta, breakdown)) from None


def stabilising_values(model: LinearGaussian, optimism: float = 0.0) -> GaussianSolution:
    """The stationary solution that keeps the state in bounds, whatever no reward asks for.

    ``soft_values`` gives an infinite horizon the limit of long finite ones, and so does every other
    method here. Where a state grows by itself and costs nothing, now or later, that limit lets it
    grow. A control engineer who writes down such a problem means something else: that the loop be
    stable, at the least cost. It is another root of the same Riccati equation, and never better
    than the limit. The two agree where each direction that grows, or stays as it is, costs
    something in the end.

    Args:
        model: linear-Gaussian, with an infinite horizon.
        optimism: η, finite; with a discount below one 0 only. A discount γ < 1 makes √γ times the
            loop stable.

    Returns:
        The solution; its policy is N(k - Ks, αH⁻¹), and A - BK, in bent dynamics, has a spectral
        radius below 1/√γ.

    Raises:
        ValueError: if the model is another, its horizon is finite, or there is no such root.

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
            "soft_values(model) has the values of any other",
        )
    eta = checks.check_optimism(optimism)
    _undiscounted(model, eta)
    try:
        return GaussianSolution.at(model, eta, "stabilising")
    except tilted_noise.Breakdown as breakdown:
        raise ValueError(
            f"model: expected one with a stabilising solution at η = {eta:g}, got one without "
            f"({breakdown}); let the actions reach whatever grows, or take soft_values(model)"
        ) from None


def _undiscounted(model: LinearGaussian, eta: float) -> None:
    if model.discount < 1 and eta != 0:
        raise ValueError(
            f"discount: expected 1 at optimism {eta:g} in a linear-Gaussian model, got "
            f"{model.discount:g}; (1/η) log(γ exp(ηV/α) + 1 - γ) is not quadratic in the state "
            "unless η = 0. Take optimism=0, or discount=1 with a finite horizon"
        )


def optimism_range(model: LinearGaussian) -> tuple[float, float]:
    """The most negative and the largest optimism at which a linear-Gaussian model has an answer.

    Values grow with η, so that what exists is an interval. Below it nature's damage is worth its
    price without limit, and the value is -∞; above it the agent's luck or action is, and the value
    is +∞ (never, where the reward is concave and the actions cost something). The edges are found
    by bisection, to nine digits, with every step and the first state checked. For an infinite
    horizon they are the edges of what long horizons tend to.

    Args:
        model: linear-Gaussian, without a discount.

    Returns:
        (lowest, highest), themselves inside; -inf or +inf where there is no edge.

    Raises:
        ValueError: if no η has an answer, or the discount is below one.

    >>> from cai import inference, models
    >>> model = models.linear_gaussian([[1.0]], [[1.0]], horizon=3, R=[[1.0]], noise=[[0.1]])
    >>> low, high = inference.optimism_range(model)
    >>> low < 0 < high
    True
    """
    advice = "of a table, every optimism has an answer"
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
            "optimism: no η at all has an answer; the value grows without limit in an action (or "
            "falls, by the noise): let every action cost something, R > 0, or give it a prior"
        )
    return lowest, highest


def _side(model: LinearGaussian, eta: float) -> int:
    """0 where a solution exists; -1 where the value is -∞, +1 where it is +∞."""
    try:
        if model.horizon is None:
            riccati_equation.solve(model, eta)
        else:
            riccati.backward(model, eta)
    except tilted_noise.Breakdown as breakdown:
        return breakdown.side
    return 0


def _edge(model: LinearGaussian, side: int) -> float:
    """The last η, going towards side · ∞, at which the value is not side · ∞."""
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
    """The next optimism of 1, 8, 64, 64², …, ∞: few steps to the end of all floats."""
    return eta * max(8.0, abs(eta))


def _between(good: float, bad: float) -> float:
    """The geometric mean, as edges have any size; the middle where zero is one of the two."""
    if good == 0 or bad == 0:
        return 0.5 * (good + bad)
    one, other = (math.sqrt(min(abs(eta), sys.float_info.max)) for eta in (good, bad))
    return math.copysign(one * other, good)


def _said(model: LinearGaussian, eta: float, breakdown: tilted_noise.Breakdown) -> str:
    """The message of a breakdown, with the last optimism that has an answer."""
    side = breakdown.side
    edge = _edge(model, side)
    if _side(model, edge):
        remedy = "no η at all has an answer"
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
    """The edge to six digits, rounded to where an answer exists."""
    if edge == 0 or math.isinf(edge):
        return f"{edge:g}"
    rounded = float(f"{edge:.6g}")
    if side * (rounded - edge) > 0:
        rounded -= side * 10.0 ** (math.floor(math.log10(abs(edge))) - 5)
    return f"{rounded:.6g}"
