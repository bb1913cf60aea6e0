"""How heavy the tail of importance weights is: the shape of a generalised Pareto distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cai import checks
from cai.numerics import arrays

_LEAST = 25  # weights, of which five are then the tail


def pareto_k(log_weights: Tensor) -> float:
    """k̂, the shape of the generalised Pareto distribution that fits the largest weights.

    Moments of the weights up to the order 1/k are finite, so that below ½ the error of a mean is
    normal with a finite variance, and beyond one there is not even a mean to estimate. What a
    sample of n can bear is :func:`pareto_threshold`: beyond it standard errors and effective
    sample sizes are too good to be true (Vehtari, Simpson, Gelman, Yao and Gabry 2024).

    The min(n/5, 3√n) largest weights, less the largest of the others, are fitted as Zhang and
    Stephens (2009) do, by a mean over a profile of the likelihood, and k̂ is drawn towards ½ as ten
    more weights of that shape would. Weights of few different values, such as short trajectories of
    a table have, are no sample of a density: k̂ then says little, and where over a quarter of the
    largest ones tie with the rest, nothing.

    Args:
        log_weights: (n,), nats, up to any constant; -inf for a weight of zero.

    Returns:
        k̂; -inf where the largest weights are all equal, so that there is no tail, and inf where
        ties leave too few others to tell.

    Raises:
        ValueError: for fewer than 25 weights, of which less than one is above zero, or NaN or +inf.

    >>> import torch
    >>> from cai import inference
    >>> inference.pareto_k(torch.linspace(0, 1, 1000)) < inference.pareto_threshold(1000)
    True
    """
    log_w = arrays.numbers("log_weights", log_weights, "numbers, nats").detach()
    if log_w.dim() != 1 or len(log_w) < _LEAST:
        advice = "draw more; a tail needs weights that are in it"
        checks.refuse("log_weights", f"shape (n,), n ≥ {_LEAST}", str(list(log_w.shape)), advice)
    highest = log_w.max().item()
    if not math.isfinite(highest):
        checks.refuse(
            "log_weights",
            "finite numbers or -inf",
            f"a largest of {highest}",
            "look for what overflows",
        )
    w = (log_w - highest).exp().sort().values
    size = math.floor(min(len(w) / 5, 3 * math.sqrt(len(w))))
    beyond = w[-size:] - w[-size - 1]
    if beyond[-1] == 0:
        return -math.inf
    if beyond[_quartile(size)] == 0:
        return math.inf
    return (size * generalised_pareto(beyond) + 10 * 0.5) / (size + 10)


def pareto_threshold(samples: int) -> float:
    """The k̂ up to which n weights can be relied on: min(1 - 1/log₁₀ n, 0.7).

    Args:
        samples: n, how many weights.

    Returns:
        k̂, a number below 0.7.

    Raises:
        ValueError: if n is no whole number of at least 2.

    >>> from cai import inference
    >>> inference.pareto_threshold(100)
    0.5
    """
    checks.check_count("samples", samples, 2, "one weight has no tail")
    return min(1 - 1 / math.log10(samples), 0.7)


def generalised_pareto(x: Tensor) -> float:
    """The shape of a generalised Pareto distribution from its exceedances (Zhang, Stephens 2009).

    With θ = -shape/scale the likelihood of θ, its shape profiled out, is n (log(θ/k) + k - 1) for
    k(θ) = -mean log(1 - θx). The estimate of θ is its mean over a grid under that likelihood, and
    the shape -k(θ). (Their k has the opposite sign.)

    Args:
        x: (n,), ascending, at least 0, and above from the first quartile on.
    """
    n = len(x)
    quartile = x[_quartile(n)]
    points = 20 + math.floor(math.sqrt(n))
    j = torch.arange(1, points + 1, dtype=x.dtype)
    theta = 1 / x[-1] + (1 - (points / (j - 0.5)).sqrt()) / (3 * quartile)
    theta = torch.where(theta == 0, 1e-12 / x[-1], theta)
    k = -torch.log1p(-theta.unsqueeze(1) * x).mean(1)
    likelihood = n * ((theta / k).log() + k - 1)
    best = likelihood.softmax(0) @ theta
    return torch.log1p(-best * x).mean().item()


def _quartile(n: int) -> int:
    """Where the first quartile of n sorted numbers stands."""
    return math.floor(n / 4 + 0.5) - 1
