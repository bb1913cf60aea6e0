"""The weights of each of several demonstrators, and of the population that they are drawn from."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.inference.fitting.loop import train
from cai.inference.populations._population import (
    Population,
    Quadratics,
    natural,
    packed,
    unpacked,
)
from cai.inference.populations.demonstrators import Demonstrator, Groups
from cai.inference.populations.group_posterior import GroupPosterior
from cai.inference.scoring.falls import irregular_falls
from cai.inference.scoring.fisher_scoring import INTERRUPTED, Maximum
from cai.inference.scoring.highest import highest
from cai.inference.scoring.undetermined import check_determined, information, named, undetermined
from cai.inference.searches.search_file import SearchFile
from cai.rewards.weight_priors import Coordinates

_STEPS = 100
_FLAT = 1e-12  # of the largest curvature


def empirical_bayes(
    groups: Groups, how: Demonstrator, prior: Any, file: SearchFile | None, progress: bool
) -> GroupPosterior:
    """μ and Σ of the population, and the posterior of each demonstrator given these.

    Args:
        groups: the demonstrators.
        how: they choose.
        prior: of μ, a distribution of k numbers; None for a flat one.
        file: that keeps the run, or None.
        progress: whether to show a bar on a terminal.

    Raises:
        ValueError: if fewer than two have demonstrations, or all of these together, and the prior,
            do not determine the mean.
    """
    active = [i for i, task in enumerate(groups.tasks) if task is not None]
    if len(active) < 2:
        came = f"{len(active)} of {len(groups.labels)} with demonstrations"
        checks.refuse("groups", "at least two demonstrators", came, "leave groups= out")
    if prior is not None and not Coordinates(prior).whole:
        came, advice = f"one on {prior.support}", "take a normal one, or none"
        checks.refuse("prior", "a density on all real numbers, as for μ", came, advice)
    pooled = _pooled(groups, prior)
    single = len(active) * torch.linalg.inv(information(pooled))
    run = Population(groups, prior, pooled.weights, single, _STEPS)
    train(run, file, 1, progress)
    if run.found is None:
        raise KeyboardInterrupt
    each, spread, of_mean = _given_population(run, run.found)
    D, k = len(groups.labels), len(run.mean)
    weights, covariances = run.mean.expand(D, k).clone(), (run.covariance + of_mean).repeat(D, 1, 1)
    weights[active], covariances[active] = each, spread
    falls = _irregular(run, run.found, [groups.labels[i] for i in active], groups)
    paid, fitted = groups.whole.fitted(run.mean)
    counts = [0 if task is None else len(task.demonstrations) for task in groups.tasks]
    return GroupPosterior(
        reward=paid,
        model=fitted,
        labels=groups.labels,
        optimism=how.optimism,
        rule=how.rule,
        likelihood=how.likelihood,
        mean=run.mean,
        covariance=run.covariance,
        mean_covariance=of_mean,
        group_weights=weights,
        group_covariances=covariances,
        counts=torch.tensor(counts),
        history=torch.tensor(run.history, dtype=torch.float64),
        actions=int(groups.whole.demonstrations.lengths.sum()),
        dropped=groups.whole.dropped,
        steps=run.done,
        converged=run.converged,
        reason=_reason(run),
        falls=falls,
    )


def _pooled(groups: Groups, prior: Any) -> Maximum:
    """The weights as of one demonstrator, where the search begins."""
    whole = groups.whole
    best = highest(whole.score, whole.starts(None), whole.scale, prior)
    check_determined(best, whole.scale, whole.names)
    if prior is not None:  # which says nothing of how far demonstrators are apart
        alone = replace(best, prior=torch.zeros_like(best.prior), first=best.scored.information)
        for changes in named(undetermined(alone, whole.scale)[0], whole.names):
            came, advice = f"none on {', '.join(changes)}", "leave a feature out"
            checks.refuse("demonstrations", "some that depend on every weight", came, advice)
    return best


def _irregular(
    run: Population, found: Quadratics, labels: list[Hashable], groups: Groups
) -> dict[Hashable, dict[str, tuple[float, float]]]:
    """Demonstrators around whose mode Laplace's approximation does not hold."""
    population = torch.distributions.MultivariateNormal(run.mean, run.covariance)
    each = torch.linalg.inv(found.information + torch.linalg.inv(run.covariance))
    tasks = [task for task in groups.tasks if task is not None]
    names, irregular = groups.whole.names, {}
    for label, task, mode, spread in zip(labels, tasks, found.modes, each, strict=True):
        if falls := irregular_falls(task.totals, population, mode, spread, names):
            irregular[label] = falls
    return irregular


def _given_population(run: Population, found: Quadratics) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (D, k) and covariances (D, k, k) of the demonstrators, and that of μ (k, k).

    With θ = (μ, Σ), the covariance C of the weights of a demonstrator given θ, and the derivative J
    of their mean, it is C + J var(θ) J' (Kass and Steffey 1989), var(θ) by the curvature of the
    marginal likelihood.
    """
    k, pull = len(run.mean), natural(found)

    def means(theta: Tensor) -> Tensor:
        mean, root = unpacked(theta, k)
        precise = torch.cholesky_inverse(root)
        each = found.information + precise
        return torch.linalg.solve(each, (pull + precise @ mean).unsqueeze(-1)).squeeze(-1)

    theta = packed(run.mean, run.covariance)
    bend = -torch.autograd.functional.hessian(lambda x: run.log_probability(x, found), theta)
    J = torch.autograd.functional.jacobian(means, theta)
    of_theta = _inverse((bend + bend.T) / 2)
    each = torch.linalg.inv(found.information + torch.linalg.inv(run.covariance))
    return means(theta), each + J @ of_theta @ J.mT, of_theta[:k, :k]


def _inverse(bend: Tensor) -> Tensor:
    """The inverse, without directions in which EM, interrupted perhaps, is at no maximum."""
    values, vectors = torch.linalg.eigh(bend)
    keep = values > _FLAT * values[-1]
    return (vectors[:, keep] / values[keep]) @ vectors[:, keep].T


def _reason(run: Population) -> str:
    if run.converged:
        return "a further step would change next to nothing"
    if run.done >= run.total:
        return f"{run.total} steps were not enough"
    return INTERRUPTED
