"""Rollouts of several proposals with the weights of any reward, and the estimates they give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cai.inference.inverse.observed import Observed
from cai.rewards.linear_reward import FeatureArrays
from cai.tables.rollouts import Rollouts
from cai.tables.table import Table

_NONE = 1e-9  # of the largest eigenvalue counts as no information


class Totals(NamedTuple):
    """Sums along n trajectories.

    Attributes:
        features: (n, k).
        known: (n,), reward units: what is paid whatever the weights are.
    """

    features: Tensor
    known: Tensor


class Estimates(NamedTuple):
    """The objective at some weights as a sample estimates it, nats a demonstration.

    Attributes:
        value: mean R(τ)/α - log Z(s_0), up to a constant.
        gradient: (k,).
        information: (k, k), minus the Hessian.
        noise: (k, k), the covariance of the gradient that comes from the rollouts.
        effective_fraction: (Σ w)²/(N Σ w²), from 0 to 1, on average over first states.
        effective_size: that many draws of the posterior tell as much, over all first states.
    """

    value: float
    gradient: Tensor
    information: Tensor
    noise: Tensor
    effective_fraction: float
    effective_size: float


def totals_of(table: Table, features: FeatureArrays, taken: Rollouts) -> Totals:
    """The sums along rollouts."""
    s, a = taken.states[:, :-1], taken.actions
    alive = taken.alive[:, :-1]
    each = features.reward[:, s, a]
    if features.arrival is not None:
        each = each + features.arrival[:, s, a, taken.outcomes]
    known = torch.where(alive, features.offset[s, a], 0.0).sum(1)
    final = torch.where(taken.alive[:, -1], table.final_reward[taken.states[:, -1]], 0.0)
    return Totals(torch.where(alive, each, 0.0).sum(-1).T, known + final)


def totals_seen(table: Table, features: FeatureArrays, seen: Observed) -> Totals:
    """The sums along demonstrations."""
    at, n = (seen.s, seen.a), len(seen.demonstrations)
    each = features.reward[(slice(None), *at)]
    if features.arrival is not None:
        each = each + features.arrival[(slice(None), *at, seen.outcome)]
    sums = torch.zeros(n, len(each), dtype=torch.float64).index_add_(0, seen.who, each.T)
    known = torch.zeros(n, dtype=torch.float64).index_add_(0, seen.who, features.offset[at])
    whole = seen.demonstrations.ending("horizon")
    return Totals(sums, known + torch.where(whole, table.final_reward[seen.stop], 0.0))


@dataclass(eq=False)
class WeightedRollouts:
    """N rollouts from m first states, by J proposals.

    A trajectory has the weight p(τ) exp(R(τ)/α) over the density of the mixture of all proposals,
    the balance heuristic of Veach and Guibas (1995); the dynamics cancel.

    Attributes:
        share: (m,), of the demonstrations that begin in each first state.
        start: (N,), which of the m it is.
        totals: of the rollouts.
        log_prior: (N,), nats, Σ log p(a|s).
        log_proposals: (N, J), nats, Σ log q_j(a|s).
        counts: (m, J), how many rollouts each proposal has from each first state.
        alpha: the temperature α.
    """

    share: Tensor
    start: Tensor
    totals: Totals
    log_prior: Tensor
    log_proposals: Tensor
    counts: Tensor
    alpha: float

    def log_weights(self, weights: Tensor) -> Tensor:
        """(N,), nats."""
        paid = self.totals.features @ weights + self.totals.known
        of_all = (self.counts / self.counts.sum(1, keepdim=True)).log()
        mixture = (self.log_proposals + of_all[self.start]).logsumexp(1)
        return self.log_prior + paid / self.alpha - mixture

    def estimate(self, weights: Tensor, seen: Totals) -> Estimates:
        """At some weights (k,), for the sums along demonstrations."""
        f, k, each = self.totals.features, len(weights), self.log_weights(weights)
        value = float((seen.features @ weights + seen.known).mean()) / self.alpha
        gradient = seen.features.mean(0).clone()
        information, noise = torch.zeros(2, k, k, dtype=torch.float64)
        fraction = size = 0.0
        for i, share in enumerate(self.share.tolist()):
            here = self.start == i
            log_z = each[here].logsumexp(0)
            w, x = (each[here] - log_z).exp(), f[here]
            mean = w @ x
            away = x - mean
            value -= share * (float(log_z) - math.log(len(w)))
            gradient -= share * mean
            information += share * (w[:, None] * away).T @ away
            noise += share**2 * (w[:, None] ** 2 * away).T @ away
            effective = 1 / float(w.square().sum())
            fraction, size = fraction + share * effective / len(w), size + effective
        alpha = self.alpha
        gradient, noise = gradient / alpha, noise / alpha**2
        return Estimates(value, gradient, information / alpha**2, noise, fraction, size)


def maximum(
    sample: WeightedRollouts, seen: Totals, start: Tensor, scale: Tensor, steps: int = 50
) -> tuple[Tensor, Estimates, bool]:
    """The weights at which the estimated objective, which is concave, is highest.

    By Newton's method with a step that is halved until it gains, and until the weights of the
    rollouts are not those of a few alone, since the estimate says nothing there.

    Args:
        sample: the rollouts.
        seen: the sums along demonstrations.
        start: (k,).
        scale: (k,), of the features.
        steps: at most.

    Returns:
        The weights (k,), the estimates there, and whether no further step would gain anything.
    """
    weights, at = start, sample.estimate(start, seen)
    for _ in range(steps):
        direction = inverse(at.information, scale) @ at.gradient
        gain = float(at.gradient @ direction)
        if gain < 1e-10:
            return weights, at, True
        share, least = 1.0, min(10.0, at.effective_size)
        for _ in range(30):
            tried = sample.estimate(weights + share * direction, seen)
            if tried.value >= at.value + 1e-4 * share * gain and tried.effective_size >= least:
                break
            share /= 2
        else:
            return weights, at, gain < 1e-6
        weights, at = weights + share * direction, tried
    return weights, at, False


def inverse(information: Tensor, scale: Tensor) -> Tensor:
    """(k, k), the inverse in the directions that are determined, and zero in the others."""
    values, vectors = torch.linalg.eigh(information / (scale * scale.unsqueeze(1)))
    keep = values > max(_NONE * float(values[-1]), 1e-18)
    changes = vectors[:, keep] / scale.unsqueeze(1)
    return (changes / values[keep]) @ changes.T
