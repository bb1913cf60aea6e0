"""Exponentiated gradient, by which the first papers on inverse problems searched."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

_HALVINGS = 30


def exponentiated_ascent(
    evaluate: Callable[[Tensor], tuple[float, Tensor] | None],
    start: Tensor,
    scale: Tensor,
    steps: int,
) -> tuple[Tensor, int, int, bool]:
    r"""The best weights on a path of steps that multiply.

    Weights of either sign are differences of positive ones, ψ = (u - v)/scale, which a step takes
    to u exp(ρ g) and v exp(-ρ g) (Kivinen and Warmuth 1997). Their product stays one, so that
    ψ · scale = 2 sinh θ with θ growing by ρ g. The rate ρ falls like 1/√t, from one at which the
    first step changes no θ by more than one; where a step leads to weights without a value, it is
    halved.

    Args:
        evaluate: weights (k,) -> the objective and its gradient (k,); None where it has no value.
        start: (k,).
        scale: (k,), of the features.
        steps: how many.

    Returns:
        The weights (k,) of the highest objective, the number of steps and of evaluations, and
        whether no interrupt ended it early.
    """
    found = evaluate(start)
    assert found is not None
    best, theta, evaluations = (found[0], start), (start * scale / 2).asinh(), 1
    gradient = found[1] / scale
    done, rate = 0, 1 / max(float(gradient.abs().max()), 1e-300)
    try:
        for t in range(1, steps + 1):
            share = rate / t**0.5
            for _ in range(_HALVINGS):
                weights = 2 * (theta + share * gradient).sinh() / scale
                found, evaluations = evaluate(weights), evaluations + 1
                if found is not None:
                    break
                share /= 2
            else:
                break
            theta, gradient, done = theta + share * gradient, found[1] / scale, t
            if found[0] > best[0]:
                best = found[0], weights
    except KeyboardInterrupt:
        return best[1], done, evaluations, False
    return best[1], done, evaluations, True
