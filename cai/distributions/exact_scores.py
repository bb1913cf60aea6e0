"""Exact scores: every discrete site in float64, with log 0 = -inf.

``torch`` clamps a probability of zero to 1e-7 before it takes the logarithm, and the factor
exp(reward / temperature) then amplifies what should have been impossible. One handler around a
program replaces each discrete distribution by one that scores exactly; what it samples, and the
type of the samples, stays as the author wrote it.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid

from cai.numerics.default_type import AS_WRITTEN, Types


class exact_scores(Messenger):  # noqa: N801 - used as a context manager, like Pyro's handlers
    """Replaces the distribution of every sample site by :func:`exact` of it."""

    def _pyro_sample(self, msg: Any) -> None:
        msg["fn"] = exact(msg["fn"])


def support_size(distribution: Any) -> int | None:
    """n if the support is the integers 0 … n-1, else None."""
    if distribution.event_shape:
        return None
    support = distribution.support
    support = getattr(support, "base_constraint", support)  # of a mixture
    if support is constraints.boolean:
        return 2
    lower, upper = (getattr(support, f"{end}_bound", None) for end in ("lower", "upper"))
    if not support.is_discrete or lower is None or upper is None:
        return None
    return int(torch.as_tensor(upper).max()) + 1 if torch.as_tensor(lower).eq(0).all() else None


def log_probs(distribution: Any, n: int, types: Types = AS_WRITTEN) -> Tensor:
    """log p(x) for x = 0 … n-1 in float64, normalised, shape batch_shape + (n,).

    Python numbers in a user's own distribution get the dtype that ``types`` gives them.
    """
    with AS_WRITTEN if type(distribution) is dist.Categorical else types:
        distribution = exact(distribution)
        values = torch.arange(n).reshape(-1, *(1,) * len(distribution.batch_shape))
        log_p: Tensor = distribution.log_prob(values).double()
    return log_p.expand(n, *distribution.batch_shape).movedim(0, -1).log_softmax(-1)


@singledispatch
def exact(d: Any) -> Any:
    """The same distribution, scoring in float64 with log 0 = -inf.

    Continuous distributions are unchanged, except that a Uniform includes its upper end.

    Raises:
        ValueError: for a plain torch distribution, which Pyro cannot run.
    """
    if isinstance(d, Distribution) and not isinstance(d, TorchDistributionMixin):
        name = type(d).__name__
        raise ValueError(
            f"torch.distributions.{name}: expected a Pyro distribution, whose impossible "
            f"values stay impossible; take pyro.distributions.{name}, with the same arguments"
        )
    return d


class _Bernoulli(dist.Bernoulli):
    """A Bernoulli that keeps both log-probabilities instead of clamped log-odds."""

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        super().__init__(probs, logits, validate_args=False)
        if logits is None:
            p = self.probs.double()
            self._log_one, self._log_zero = _safe_log(p), _safe_log(1 - p)
        else:
            log_odds = self.logits.double()
            self._log_one, self._log_zero = logsigmoid(log_odds), logsigmoid(-log_odds)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Bernoulli:
        new: _Bernoulli = super().expand(
            batch_shape, self._get_checked_instance(_Bernoulli, _instance)
        )
        new._log_one = self._log_one.expand(batch_shape)
        new._log_zero = self._log_zero.expand(batch_shape)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.where(value > 0.5, self._log_one, self._log_zero)


class _Delta(dist.Delta):
    """A Delta on integers whose score is 0 or -inf in float64 (an integer dtype rounds it)."""

    def log_prob(self, value: Tensor) -> Tensor:
        hit = value == self.v
        hit = hit.flatten(hit.dim() - self.event_dim).all(-1) if self.event_dim else hit
        return hit.double().log() + self.log_density


class _Binomial(dist.Binomial):
    """A Binomial whose probabilities of zero and one are exact."""

    def log_prob(self, value: Tensor) -> Tensor:
        n, k, p = self.total_count.double(), value.double(), self.probs.double()
        ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
        return ways + torch.xlogy(k, p) + torch.special.xlog1py(n - k, -p)


class _Uniform(dist.Uniform):
    """A Uniform with both ends in its support, which torch leaves open above.

    A control that is squashed onto a box may reach its bounds by rounding. The bounds are compared
    in the precision of the value, since a float32 may lie above the same number in float64.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        low, high = self.low, self.high
        if value.is_floating_point():
            low, high = low.to(value.dtype), high.to(value.dtype)
        inside = (low <= value) & (value <= high)
        return torch.where(inside, -(self.high - self.low).log(), -torch.inf)


@exact.register
def _(d: dist.Categorical) -> Any:
    log_p = _log_probabilities(d)
    return d if log_p is None else dist.Categorical(logits=log_p, validate_args=False)


@exact.register
def _(d: dist.OneHotCategorical) -> Any:
    log_p = _log_probabilities(d._categorical)
    return d if log_p is None else dist.OneHotCategorical(logits=log_p, validate_args=False)


def _log_probabilities(d: Any) -> Tensor | None:
    """Exact log-probabilities of a categorical; None where it scores exactly already."""
    if _built_from_probs(d):
        return _safe_log(d.probs.double())
    return None if d.logits.dtype == torch.float64 else d.logits.double()


def _built_from_probs(d: Any) -> bool:
    """Whether probabilities, not log-odds, are what the author gave.

    ``torch`` computes the other one on demand, and ``expand`` keeps both. They were computed from
    probabilities if one lies below the clamp while its logit does not.
    """
    if "probs" not in d.__dict__ or "logits" not in d.__dict__:
        return "probs" in d.__dict__
    if d._param is not d.__dict__["logits"]:
        return True
    eps = torch.finfo(d.probs.dtype).eps
    clamp = -math.log(eps) + 0.1
    certain = (d.probs < eps / 2) | (d.probs == 1 if isinstance(d, dist.Bernoulli) else False)
    return bool((certain & (d.logits.abs() <= clamp)).any())


def _safe_log(p: Tensor) -> Tensor:
    """log p with log 0 = -inf and a gradient of zero there, where autograd would give NaN."""
    positive = p > 0
    return torch.where(positive, torch.where(positive, p, 1.0).log(), -torch.inf)


@exact.register
def _(d: dist.Bernoulli) -> Any:
    return _Bernoulli(probs=d.probs) if _built_from_probs(d) else _Bernoulli(logits=d.logits)


@exact.register(_Bernoulli)
@exact.register(_Uniform)
def _(d: Any) -> Any:
    return d


@exact.register
def _(d: dist.Delta) -> Any:
    if d.v.dtype.is_floating_point:
        return d
    return _Delta(d.v, d.log_density.double(), d.event_dim, validate_args=False)


@exact.register
def _(d: dist.Uniform) -> Any:
    return _Uniform(d.low, d.high, validate_args=False)


@exact.register
def _(d: dist.Binomial) -> Any:
    return _Binomial(d.total_count, probs=d.probs, validate_args=False)


@exact.register
def _(d: dist.Independent) -> Any:
    return dist.Independent(exact(d.base_dist), d.reinterpreted_batch_ndims, validate_args=False)


@exact.register
def _(d: dist.MaskedDistribution) -> Any:
    return exact(d.base_dist).mask(d._mask)


@exact.register
def _(d: dist.MixtureSameFamily) -> Any:
    return dist.MixtureSameFamily(
        exact(d.mixture_distribution), exact(d.component_distribution), validate_args=False
    )


@exact.register
def _(d: dist.MaskedMixture) -> Any:
    return dist.MaskedMixture(d.mask, exact(d.component0), exact(d.component1), validate_args=False)


@exact.register
def _(d: ExpandedDistribution) -> Any:
    return exact(d.base_dist).expand(d.batch_shape)
