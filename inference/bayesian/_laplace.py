"""The mode of the weights given demonstrations, and coordinates in which they are nearly normal.

With H minus the Hessian of the log-posterior at the mode (of the likelihood of actions the Fisher
information), x = mode + H^{-1/2} z has a posterior near the standard normal in z (Laplace).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.inference.bayesian._likelihood import log_likelihood, total
from cai.inference.scoring.fisher_scoring import Maximum
from cai.inference.scoring.highest import highest
from cai.inference.scoring.log_prior import log_prior
from cai.inference.scoring.task import Task
from cai.inference.scoring.undetermined import check_determined, information
from cai.rewards.weight_priors import Coordinates

_LONGEST = 3.0  # step in coordinates of a bounded support, where ±3 reach over nine tenths
_LEAST = 0.1  # of the curvature that is certain to be positive


@dataclass(frozen=True, eq=False)
class Laplace:
    """The posterior of the weights in coordinates z (k,) in which it is nearly standard normal.

    Attributes:
        task: the demonstrations.
        coordinates: x of the weights, with the prior.
        mode: (k,), x.
        root: (k, k): x = mode + root z.
        log_volume: log |det root|.
        remarks: what a reader should know of the mode, a sentence each.
    """

    task: Task
    coordinates: Coordinates
    mode: Tensor
    root: Tensor
    log_volume: float
    remarks: tuple[str, ...] = ()

    def weights(self, z: Tensor) -> Tensor:
        """ψ (…, k)."""
        return self.coordinates.weights(self.mode + z @ self.root.T)

    def log_density(self, z: Tensor) -> Tensor:
        """(), nats: log p(demonstrations, z) at some z (k,), without a derivative."""
        x = self.mode + z @ self.root.T
        paid = self.coordinates.log_prob(x) + self.log_volume
        return paid + total(self.task, self.coordinates.weights(x))

    def log_densities(self, z: Tensor) -> Tensor:
        """(n,), the same at n places (n, k)."""
        x = self.mode + z @ self.root.T
        paid = self.coordinates.log_prob(x) + self.log_volume
        return paid + self.task.totals(self.coordinates.weights(x))

    def density(self, z: Tensor) -> Tensor:
        """The same, with one derivative."""
        x = self.mode + z @ self.root.T
        paid = self.coordinates.log_prob(x) + self.log_volume
        weights = self.coordinates.weights(x).unsqueeze(-2)
        return paid + log_likelihood([self.task], weights).squeeze(-1)


def laplace(task: Task, coordinates: Coordinates) -> Laplace:
    """The highest mode that was found, and the curvature there.

    Raises:
        KeyboardInterrupt: if the search is interrupted, since there is nothing yet.
        ValueError: naming the combination of weights, if neither the data nor the prior determine
            all of them.
    """
    scale = task.scale if coordinates.whole else torch.ones_like(task.scale)
    score = in_coordinates(task.score, coordinates)
    best = highest(score, _starts(task, coordinates), scale, coordinates)
    check_determined(best, scale, task.names)
    bend = _curvature(best, coordinates)
    lower = torch.linalg.cholesky(bend)
    root = torch.linalg.solve_triangular(lower.T, torch.eye(len(bend)).to(bend), upper=True)
    remarks = (
        () if best.converged else (f"The search for the mode did not converge: {best.reason}.",)
    )
    return Laplace(task, coordinates, best.weights, root, _log_det(root), remarks)


def in_coordinates(
    score: Callable[[Tensor], ScoredDemonstrations], coordinates: Coordinates
) -> Callable[[Tensor], ScoredDemonstrations]:
    """The objective as a function of x, with the gradient and the information in x.

    With J = ∂ψ/∂x and the gradient g in ψ, minus the Hessian is J'IJ - Σ_j g_j ∂²ψ_j/∂x∂x'. At the
    border of the prior's support J vanishes, and the second part is what holds the mode there. Of
    it the directions in which it bends down count, so that there is always a way up; and what keeps
    steps from leaping to where x is flat, which is nothing at the mode.
    """
    if coordinates.whole:
        return score

    def scored(x: Tensor) -> ScoredDemonstrations:
        J = coordinates.jacobian(x)
        values, scores, known = score(coordinates.weights(x))
        held = _positive(-coordinates.bend(x, scores.sum(0)))
        rise = (scores @ J).sum(0) + log_prior(coordinates, x)[1]
        short = torch.eye(len(x)).to(x) * rise.norm() / _LONGEST
        return ScoredDemonstrations(values, scores @ J, J.T @ known @ J + held + short)

    return scored


def _curvature(best: Maximum, coordinates: Coordinates) -> Tensor:
    """(k, k), minus the Hessian at the mode, if that is a maximum; else what the search took."""
    taken = information(best)
    if coordinates.whole:
        return taken
    J = coordinates.jacobian(best.weights)
    slope = torch.linalg.lstsq(J.T, best.scored.scores.sum(0).unsqueeze(1)).solution.squeeze(1)
    bend = -coordinates.bend(best.weights, slope)
    whole = taken - _positive(bend) + bend
    least = torch.linalg.eigvalsh(whole)[0] / torch.linalg.eigvalsh(taken)[0]
    return whole if least > _LEAST else taken


def _positive(symmetric: Tensor) -> Tensor:
    """Its part with positive eigenvalues."""
    values, vectors = torch.linalg.eigh(symmetric)
    return (vectors * values.clamp(min=0.0)) @ vectors.T


def _starts(task: Task, coordinates: Coordinates) -> Iterator[Tensor]:
    """Those of a fit, where the prior allows them.

    Raises:
        ValueError: if the prior has no density where the search would begin.
    """
    for i, weights in enumerate(task.starts(None)):
        x = coordinates.back(weights)
        x = torch.zeros_like(weights) if x is None else x
        if coordinates.log_prob(x).isfinite():
            yield x
        elif i == 0:
            came = f"none at {coordinates.weights(x).tolist()}, where the search begins"
            advice = "for instance torch.distributions.Normal(0.0, 3.0)"
            checks.refuse("prior", "a distribution with a density of weights", came, advice)


def _log_det(root: Tensor) -> float:
    return float(torch.linalg.slogdet(root).logabsdet)
