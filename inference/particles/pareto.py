"""The tail of importance weights: the shape of a fitted generalised Pareto distribution."""

from __future__ import annotations

import contextlib
import math

import torch
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

from cai import checks
from cai.numerics import arrays

_LEAST = 25  # weights, of which five are then the tail


def pareto_k(log_weights: Tensor) -> float:
    """k̂, the shape of the generalised Pareto distribution fitted to the largest weights.

    Moments of the weights up to the order 1/k are finite, so that below ½ the error of a mean is
    normal with a finite variance, and above one there is not even a mean to estimate. Above the
    :func:`pareto_threshold` of n, standard errors and effective sample sizes are too good to be
    true (Vehtari, Simpson, Gelman, Yao and Gabry 2024).

    The min(n/5, 3√n) largest weights, minus the largest of the others, are fitted as in Zhang and
    Stephens (2009), by a mean over a profile of the likelihood (Pyro's
    ``fit_generalized_pareto``), and k̂ is shrunk towards ½ as by ten more weights of that shape.
    Weights with few different values, as from short trajectories in a table, are not a sample of a
    density: k̂ then says little, and nothing if over a quarter of the largest tie with the rest.

    Args:
        log_weights: (n,), nats, up to any constant; -inf for a weight of zero.

    Returns:
        k̂; -inf if the largest weights are all equal, so that there is no tail, and inf if ties
        leave too few others.

    Raises:
        ValueError: for fewer than 25 weights, if none is above zero, or for NaN or +inf.

    >>> import torch
    >>> from cai import inference
    >>> inference.pareto_k(torch.linspace(0, 1, 1000)) < inference.pareto_threshold(1000)
    True
    """
    log_w = arrays.numbers("log_weights", log_weights, "numbers, nats").detach()
    if log_w.dim() != 1 or len(log_w) < _LEAST:
        advice = "draw more samples"
        checks.refuse("log_weights", f"shape (n,), n ≥ {_LEAST}", str(list(log_w.shape)), advice)
    highest = log_w.max().item()
    if not math.isfinite(highest):
        checks.refuse(
            "log_weights",
            "finite numbers or -inf",
            f"a largest of {highest}",
            "look for an overflow",
        )
    w = (log_w - highest).exp().sort().values
    size = math.floor(min(len(w) / 5, 3 * math.sqrt(len(w))))
    beyond = w[-size:] - w[-size - 1]
    if beyond[-1] == 0:
        return -math.inf
    if beyond[_quartile(size)] == 0:
        return math.inf
    return generalised_pareto(beyond)


def pareto_threshold(samples: int) -> float:
    """The largest k̂ at which n weights are reliable: min(1 - 1/log₁₀ n, 0.7).

    Args:
        samples: n, how many weights.

    Returns:
        k̂, a number below 0.7.

    Raises:
        ValueError: if n is not a whole number of at least 2.

    >>> from cai import inference
    >>> inference.pareto_threshold(100)
    0.5
    """
    checks.check_count("samples", samples, 2, "one weight has no tail")
    return min(1 - 1 / math.log10(samples), 0.7)


def generalised_pareto(x: Tensor) -> float:
    """The shape of a generalised Pareto distribution from its exceedances, pulled towards ½.

    Pyro's fit (Zhang and Stephens 2009), pulled as by ten more exceedances of that shape.

    Args:
        x: (n,), ascending, at least 0, and positive from the first quartile on.
    """
    shape, nudged = math.nan, torch.cat([x[:-1], x[-1:] * (1 + 1e-9)])
    # Ties can put a point of the grid of -shape/scale at zero, where its likelihood is 0/0.
    for values in (x, nudged):
        with contextlib.suppress(ZeroDivisionError):
            shape = fit_generalized_pareto(values)[0]
        if not math.isnan(shape):
            break
    return shape


def _quartile(n: int) -> int:
    """The index of the first quartile of n sorted numbers."""
    return math.floor(n / 4 + 0.5) - 1
