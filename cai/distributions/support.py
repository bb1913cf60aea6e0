"""Checks that the actions of a policy lie in the support of the action prior."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import Independent, transforms

from cai import checks
from cai.distributions.exact_scores import support_size


def elementwise(support: Any) -> Any:
    """The elementwise constraint of a support of vectors, mixtures or the like."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def check_support(policy: Any, prior: Any, name: str = "policy") -> None:
    """Raises ValueError if a policy's distribution leaves the support of the action prior.

    Deltas and supports of unknown kinds pass: their scores will show whether they fit.
    """
    expected = "a distribution over actions from (t, s)"
    advice = "return the distribution itself; the rollout draws from it"
    checks.check_kind(name, policy, torch.distributions.Distribution, expected, advice)
    if type(policy).__name__ in ("Delta", "_Delta") or _ends_affine(policy):
        return
    inner, outer = elementwise(policy.support), elementwise(prior.support)
    sizes = support_size(policy), support_size(prior)
    if policy.event_shape != prior.event_shape or sizes[0] != sizes[1]:
        fits = False
    elif sizes[0] is not None or inner.is_discrete != outer.is_discrete:
        fits = sizes[0] is not None
    else:
        fits = all(_keeps_to(inner, outer, end) for end in ("lower", "upper"))
    if not fits:
        checks.refuse(
            name,
            f"actions like those of action_prior, {_described(prior)}",
            _described(policy),
            "take cai.NeuralPolicy(model), whose head suits the prior, or give the policy a "
            "distribution that cannot leave that support",
        )


def _ends_affine(distribution: Any) -> bool:
    """Whether the last of several transforms is affine: torch then reports a real support.

    It does so for tanh and a scale, and for its own ``biject_to`` of an interval.
    """
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    last = getattr(distribution, "transforms", [None])[-1]
    while isinstance(last, transforms.ComposeTransform):
        last = last.parts[-1]
    return isinstance(last, transforms.AffineTransform)


def _keeps_to(inner: Any, outer: Any, end: str) -> bool:
    """Whether a lower bound is no lower than another support has it, or an upper one no higher."""
    bound, limit = (getattr(support, f"{end}_bound", None) for support in (inner, outer))
    if limit is None or bound is None:
        return limit is None
    further = bound - limit if end == "lower" else limit - bound
    return bool((torch.as_tensor(further) >= 0).all())


def _described(distribution: Any) -> str:
    size, shape = support_size(distribution), list(distribution.event_shape)
    if size is not None:
        return f"{type(distribution).__name__} over 0 … {size - 1}"
    support = elementwise(distribution.support)
    return f"{type(distribution).__name__} of event shape {shape} on {support}"
