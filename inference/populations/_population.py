"""The population of demonstrators: EM for its mean and covariance, by Laplace at each mode.

Each step finds the mode of every demonstrator under N(μ, Σ), and puts in the place of its
likelihood the quadratic function with the same value, gradient and information there. For these EM
has closed forms, and is run until nothing changes, at next to no cost: where a step changes
nothing, neither would EM with Laplace's approximation at each of its steps. Σ has the prior of
Chung, Gelman, Rabe-Hesketh, Liu and Dorie (2015), |Σ|^½ exp(-tr(V⁻¹Σ)/2): it keeps Σ off the
boundary, and with a wide V amounts to dividing by D - 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cai.inference.populations.demonstrators import Groups
from cai.inference.scoring.fisher_scoring import INTERRUPTED, maximise
from cai.inference.scoring.log_prior import log_prior

_INNER, _PRECISE = 5000, 1e-10  # steps of EM on quadratic functions, and their relative change
_CONVERGED = 1e-5  # of μ in units of the spread, and of Σ relative to itself
_TOWARDS_MODE = 50
_WIDE = 10.0  # √V in units of the error of the weights of one demonstrator alone


class Quadratics(NamedTuple):
    """Log-likelihoods of D demonstrators as quadratic functions.

    Attributes:
        modes: (D, k), of each with the population as its prior.
        value: (D,), nats, there.
        slope: (D, k), their gradients there.
        information: (D, k, k).
    """

    modes: Tensor
    value: Tensor
    slope: Tensor
    information: Tensor


class Population:
    """EM for μ and Σ, one search for all modes at each step.

    Args:
        groups: the demonstrators that have demonstrations; at least two.
        prior: of μ, or None.
        mean: (k,), where to begin.
        single: (k, k), the covariance of the weights of one demonstrator alone.
        steps: at most.

    Attributes:
        mean: μ, (k,).
        covariance: Σ, (k, k).
        found: the demonstrators at their modes, under μ and Σ as they were before the last step.
        history: nats: Laplace's marginal log-likelihood at each step, with the priors.
    """

    verb, outcome, restarts, policy = "reward_posterior", "the latest", "", None

    def __init__(
        self, groups: Groups, prior: Any, mean: Tensor, single: Tensor, steps: int
    ) -> None:
        self._tasks = [task for task in groups.tasks if task is not None]
        self._scale, self._prior, self.total, self.done = groups.whole.scale, prior, steps, 0
        self.mean, self.covariance = mean, single
        self._width = torch.linalg.cholesky(_WIDE**2 * single)
        self._modes = mean.expand(len(self._tasks), -1).clone()
        self.found: Quadratics | None = None
        self.history: list[float] = []
        self.converged = False

    def over(self) -> bool:
        """Whether nothing changes any more, or no step is left."""
        return self.converged or self.done >= self.total

    def step(self) -> None:
        """All modes under μ and Σ, then the best μ and Σ for what was found there."""
        found = self.modes()
        self.history.append(self.marginal(found))
        mean, covariance = self._em(found)
        spread = self.covariance.diagonal().sqrt()
        moved = float(((mean - self.mean).abs() / spread).max())
        changed = float((covariance - self.covariance).abs().div(torch.outer(spread, spread)).max())
        self.found, self._modes = found, found.modes
        self.mean, self.covariance = mean, covariance
        self.converged = max(moved, changed) < _CONVERGED
        self.done += 1

    def modes(self) -> Quadratics:
        """Each demonstrator at its mode, with N(μ, Σ) as its prior.

        Raises:
            KeyboardInterrupt: if a search is interrupted.
        """
        population = torch.distributions.MultivariateNormal(self.mean, self.covariance)
        rows = []
        for task, start in zip(self._tasks, self._modes, strict=True):
            end = maximise(task.score, start, self._scale, population, _TOWARDS_MODE)
            if end.reason == INTERRUPTED:
                raise KeyboardInterrupt
            scored = end.scored
            rows.append(
                (end.weights, scored.values.sum(), scored.scores.sum(0), scored.information)
            )
        return Quadratics(*(torch.stack(x) for x in zip(*rows, strict=True)))

    def marginal(self, found: Quadratics) -> float:
        """Laplace's log p(demonstrations | μ, Σ) + log p(μ) + log p(Σ), nats, up to a constant."""
        D, precise = len(found.modes), torch.linalg.inv(self.covariance)
        away = found.modes - self.mean
        apart = torch.einsum("di,ij,dj->", away, precise, away)
        volume = torch.linalg.slogdet(found.information + precise).logabsdet.sum()
        size = torch.linalg.slogdet(self.covariance).logabsdet
        total = found.value.sum() - 0.5 * (apart + volume + (D - 1) * size)
        inside = torch.linalg.solve_triangular(self._width, self.covariance, upper=False)
        inside = torch.linalg.solve_triangular(self._width, inside.T, upper=False)
        return float(total - 0.5 * inside.trace()) + log_prior(self._prior, self.mean)[0]

    def _em(self, found: Quadratics) -> tuple[Tensor, Tensor]:
        """μ and Σ where EM on the quadratic functions ends."""
        pull, mean, covariance = natural(found), self.mean, self.covariance
        for _ in range(_INNER):
            precise = torch.linalg.inv(covariance)
            each = torch.linalg.inv(found.information + precise)
            modes = torch.einsum("dij,dj->di", each, pull + precise @ mean)
            new = self._best_mean(mean, modes, precise)
            away = modes - new
            wider = self._best_covariance(each.sum(0) + away.T @ away, len(modes))
            spread = wider.diagonal().sqrt()
            change = (wider - covariance).abs().div(torch.outer(spread, spread)).max()
            change = torch.maximum(change, ((new - mean).abs() / spread).max())
            mean, covariance = new, wider
            if change < _PRECISE:
                break
        return mean, covariance

    def _best_mean(self, mean: Tensor, modes: Tensor, precise: Tensor) -> Tensor:
        """The mean of the modes; with a prior one step of Newton from the last one."""
        if self._prior is None:
            return modes.mean(0)
        _, slope, bend = log_prior(self._prior, mean)
        gradient = precise @ (modes - mean).sum(0) + slope
        return mean + torch.linalg.solve(len(modes) * precise + bend, gradient)

    def _best_covariance(self, scatter: Tensor, D: int) -> Tensor:
        """Where (D - 1) Σ + Σ V⁻¹ Σ is the expected scatter around μ."""
        inside = torch.linalg.solve_triangular(self._width, scatter, upper=False)
        inside = torch.linalg.solve_triangular(self._width, inside.T, upper=False)
        values, vectors = torch.linalg.eigh((inside + inside.T) / 2)
        root = (((D - 1) ** 2 + 4 * values.clamp(min=0)).sqrt() - (D - 1)) / 2
        half = self._width @ vectors
        return (half * root) @ half.T

    def log_probability(self, theta: Tensor, found: Quadratics) -> Tensor:
        """(), nats, up to a constant: as ``marginal``, of the quadratic functions, differentiable.

        Args:
            theta: (k + k(k+1)/2,), μ and the Cholesky factor of Σ, see :func:`unpacked`.
            found: the demonstrators.
        """
        mean, root = unpacked(theta, len(self.mean))
        precise, volume = torch.cholesky_inverse(root), 2 * root.diagonal().log().sum()
        each = found.information + precise
        pull = natural(found) + precise @ mean
        gain = (pull * torch.linalg.solve(each, pull.unsqueeze(-1)).squeeze(-1)).sum()
        D = len(pull)
        total = gain - D * (mean @ precise @ mean) - torch.linalg.slogdet(each).logabsdet.sum()
        wide = torch.linalg.solve_triangular(self._width, root, upper=False).square().sum()
        total = 0.5 * (total - (D - 1) * volume - wide)
        return total if self._prior is None else total + self._prior.log_prob(mean).sum()

    def shown(self) -> str:
        """The marginal log-likelihood."""
        return f"{self.history[-1]:.3f} nats" if self.history else ""

    def differs(self, kept: dict[str, Any]) -> str:
        """Nothing: the settings say all."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "mean": self.mean,
            "covariance": self.covariance,
            "modes": self._modes,
            "found": None if self.found is None else tuple(self.found),
            "history": torch.tensor(self.history, dtype=torch.float64),
            "done": self.done,
            "converged": self.converged,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.mean, self.covariance = state["mean"], state["covariance"]
        self._modes, self.done, self.converged = state["modes"], state["done"], state["converged"]
        self.found = None if state["found"] is None else Quadratics(*state["found"])
        self.history = state["history"].tolist()


def natural(found: Quadratics) -> Tensor:
    """(D, k), b of log-likelihoods b·ψ - ψ'Iψ/2."""
    return torch.einsum("dij,dj->di", found.information, found.modes) + found.slope


def packed(mean: Tensor, covariance: Tensor) -> Tensor:
    """μ, the logarithm of the diagonal of the Cholesky factor of Σ, and what is below it."""
    root = torch.linalg.cholesky(covariance)
    rows, columns = torch.tril_indices(len(mean), len(mean), -1)
    return torch.cat([mean, root.diagonal().log(), root[rows, columns]])


def unpacked(theta: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """μ (k,) and the Cholesky factor of Σ (k, k)."""
    rows, columns = torch.tril_indices(k, k, -1)
    below = theta.new_zeros(k, k).index_put((rows, columns), theta[2 * k :])
    return theta[:k], below + theta[k : 2 * k].exp().diag()
