"""Importance sampling of the exact posterior, with a policy in the true dynamics as proposal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.evaluation.importance_weights import scores
from cai.frames.data_tree import data_tree
from cai.inference.particles.pareto import pareto_k, pareto_threshold
from cai.numerics import arrays
from cai.numerics.exclusive import cached_property
from cai.program.interfaces import Policy
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel


@dataclass(frozen=True, eq=False)
class ImportanceSample:
    """n weighted trajectories of a policy, which represent p(τ|O).

    Attributes:
        trajectories: trajectories of the policy in the true dynamics.
        log_weights: (n,), nats: log p(τ,O)/q(τ).

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> sample = inference.importance(model, inference.soft_values(model).policy, samples=100)
    >>> 1 <= sample.effective_sample_size <= 100
    True
    """

    trajectories: Trajectories
    log_weights: Tensor

    def __repr__(self) -> str:
        return (
            f"ImportanceSample(log_evidence={self.log_evidence:.6g} ± "
            f"{self.log_evidence_stderr:.2g} nats, effective {self.effective_sample_size:.1f} of "
            f"{len(self.log_weights)})"
        )

    @cached_property
    def weights(self) -> Tensor:
        """(n,): the weights, divided by their sum."""
        return self.log_weights.softmax(0)

    @cached_property
    def log_evidence(self) -> float:
        """(), nats: an estimate of log p(O), the logarithm of the mean weight.

        The mean weight is unbiased, so that its logarithm is too low on average: the
        importance-weighted ELBO of n samples is its expectation.
        """
        return self.log_weights.logsumexp(0).item() - math.log(len(self.log_weights))

    @cached_property
    def log_evidence_stderr(self) -> float:
        """(), nats: the standard error of ``log_evidence``, by the delta method."""
        n = len(self.log_weights)
        return (n * self.weights).std().item() / n**0.5 if n > 1 else math.inf

    @cached_property
    def effective_sample_size(self) -> float:
        """(Σ w)²/Σ w², from 1 to n: the equivalent number of draws from p(τ|O)."""
        return 1 / self.weights.square().sum().item()

    @property
    def effective_fraction(self) -> float:
        """The effective sample size over n; in the limit at most ``effective_sample_ceiling``."""
        return self.effective_sample_size / len(self.log_weights)

    @cached_property
    def pareto_k(self) -> float:
        """k̂ of the weights, see :func:`cai.inference.pareto_k`.

        Raises:
            ValueError: for fewer than 25 samples.
        """
        return pareto_k(self.log_weights)

    @property
    def reliable(self) -> bool:
        """Whether k̂ is at most the threshold for this number of weights, ``pareto_threshold(n)``.

        The test is for continuous weights. If there are only few different trajectories, as in a
        small table, compare with ``posterior(model)`` instead.
        """
        return self.pareto_k <= pareto_threshold(len(self.log_weights))

    def to_arviz(self) -> Any:
        """An ``xarray.DataTree`` for ArviZ: "actions", "states" and "returns" of each draw.

        The draws are of the proposal: the group "sample_stats" has their "log_weights", nats, and
        the "weights", which sum to one.

        Raises:
            ValueError: if arviz-base is not installed.
        """
        paths = self.trajectories
        drawn = {"actions": paths.actions, "states": paths.states, "returns": paths.returns}
        stats = {"log_weights": self.log_weights, "weights": self.weights}
        about = {"log_evidence": self.log_evidence, "log_evidence_stderr": self.log_evidence_stderr}
        return data_tree(drawn, stats, about)

    def mean(self, values: Tensor) -> Tensor:
        """The self-normalised mean Σ w x of values (n, ...), an estimate of E[x|O], (...)."""
        return torch.tensordot(self.weights, self._of_each(values), dims=([0], [0]))

    def stderr(self, values: Tensor) -> Tensor:
        """The standard error of ``mean(values)``, by the delta method, (...)."""
        away = (self._of_each(values) - self.mean(values)).square()
        return torch.tensordot(self.weights.square(), away, dims=([0], [0])).sqrt()

    def _of_each(self, values: Tensor) -> Tensor:
        """The values of trajectories of positive weight, as float64; zero for the others."""
        n = len(self.log_weights)
        x = arrays.numbers("values", values)
        if x.shape[:1] != (n,):
            shape, advice = list(x.shape), "for instance sample.trajectories.returns"
            checks.refuse("values", f"one for each of {n} trajectories", f"shape {shape}", advice)
        weightless = (self.weights == 0).view(n, *(1,) * (x.dim() - 1))
        counted = torch.where(weightless, 0.0, x)
        checks.check_no_nan("values", counted, "look for 0/0 or inf - inf")
        return counted


def importance(
    model: TrajectoryModel, policy: Policy, samples: int = 10_000, seed: int = 0
) -> ImportanceSample:
    """Importance sampling of p(τ|O) by a policy in the true dynamics, such as a fitted one.

        w(τ) = p(τ,O)/q(τ) = exp(Σ rewards/α) Π_t p(a_t|s_t)/q(a_t|s_t),     E_q[w] = p(O)

    The policy must take every action that the prior takes; the part of the posterior that it never
    reaches is missed without notice. Since it cannot choose its luck, the best fraction of
    effective samples is :func:`cai.inference.effective_sample_ceiling`, attained by the policy of
    ``soft_values(model, optimism=2)``; the best fitted guide, that of optimism 0, has less.
    Trajectories count until they terminate. Latents of a policy are importance-sampled as well.

    Pyro's own ``Importance(model, model.rollout(policy), num_samples)`` has the same weights, one
    trajectory at a time.

    Args:
        model: any program with a finite horizon.
        policy: (t, s) -> q(a_t|s_t), or one with a memory or latents.
        samples: n, how many trajectories.
        seed: seed of the simulation.

    Returns:
        An :class:`ImportanceSample`: weighted trajectories with diagnostics of their weights.

    Raises:
        ValueError: if the horizon is infinite, the policy leaves the support of the prior, or
            all weights are zero.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> sample = inference.importance(model, inference.soft_values(model).policy, samples=2000)
    >>> abs(sample.log_evidence - inference.posterior(model).log_evidence) < 0.2
    True
    """
    checks.check_model(model, sampled=True)
    checks.check_count("samples", samples)
    trajectories = model.simulate(policy, samples, seed)
    log_w = scores(model, policy, trajectories).log_weights
    if log_w.max() == -math.inf:
        checks.refuse(
            "evidence",
            "a trajectory of positive weight",
            f"{samples} of weight zero",
            "either p(O) = 0, or possible trajectories are rare: take more samples, another "
            "policy, or inference.smc with a twist",
        )
    return ImportanceSample(trajectories, log_w)
