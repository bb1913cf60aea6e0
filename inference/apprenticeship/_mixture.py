"""The mixture of policies nearest to observed features, one policy after the other."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from cai.inference.apprenticeship.examples import Examples
from cai.inference.searches.rounds import Rounds


class Mixture(Rounds):
    """The mixture of policies nearest to observed features, all in units of the spread.

    Args:
        of: the demonstrations.
        corrective: whether all weights of the mixture are chosen anew in each step.
        tolerance: a distance.
        steps: at most.

    Attributes:
        sought: (k,), the observed features.
        mean: (k,), those of the mixture.
        corners: (m, k), those of its policies.
        mixture: (m,).
        visits: (T, S, A) or (1, S, A), of the mixture.
        direction: (k,), the last one.
        bound: no mixture is nearer.
    """

    held = "corners", "mixture", "visits", "direction", "bound", "_each"

    def __init__(self, of: Examples, corrective: bool, tolerance: float, steps: int) -> None:
        super().__init__("feature_matching", steps)
        self._of, self._corrective, self._tolerance = of, corrective, tolerance
        self._begin = of.begin() / len(of)
        self.sought = of.taken.mean(0) / of.scale
        self.visits = visits = of.planner.of_prior(self._begin)
        self._each, self.mixture = [visits], visits.new_ones(1)
        self.corners = (of.features_of(visits) / of.scale).unsqueeze(0)
        self.direction, self.bound = self.sought - self.mean, 0.0
        if not self.direction.any():
            self.direction = torch.ones_like(self.direction)

    @property
    def mean(self) -> Tensor:
        """(k,), the features of the mixture."""
        return self.mixture @ self.corners

    def step(self) -> None:
        """Plans for what is missing, and moves towards the policy that was found."""
        missing = self.sought - self.mean
        distance = float(missing.norm())
        self.history.append(distance)
        self.done += 1
        if distance <= self._tolerance:
            self.end("features are matched as well as was asked for", True)
            return
        of, self.direction = self._of, missing
        visits = of.planner.best(of.worth(missing / of.scale), self._begin).visits
        corner = of.features_of(visits) / of.scale
        self.bound = max(self.bound, float(missing @ (self.sought - corner)) / distance)
        if distance - self.bound <= self._tolerance:
            self.end("no mixture is nearer by more than the tolerance", True)
            return
        if self._corrective:
            self._go_nearest(corner, visits)
        else:
            self._go_towards(corner, visits)

    def _go_towards(self, corner: Tensor, visits: Tensor) -> None:
        """To the nearest point on the way to a corner."""
        way = corner - self.mean
        share = float(((self.sought - self.mean) @ way / (way @ way)).clamp(0.0, 1.0))
        self.corners = torch.cat([self.corners, corner.unsqueeze(0)])
        self.mixture = torch.cat([(1 - share) * self.mixture, way.new_tensor([share])])
        self.visits = (1 - share) * self.visits + share * visits

    def _go_nearest(self, corner: Tensor, visits: Tensor) -> None:
        """To the nearest mixture of all corners; those without a weight are forgotten.

        With differences D, min |Dλ|² with Σ λ = 1 has the direction of min |Dλ|² + (Σλ - 1)², since
        the size of λ can be chosen after its direction.
        """
        corners = torch.cat([self.corners, corner.unsqueeze(0)])
        D = (corners - self.sought).T.numpy()
        size = max(float(np.abs(D).max()), np.finfo(float).tiny)
        rows = np.vstack([D / size, np.ones(D.shape[1])])
        weights = nnls(rows, np.r_[np.zeros(len(D)), 1.0])[0]
        used = torch.from_numpy(weights > 0)
        self._each = [x for x, some in zip([*self._each, visits], used, strict=True) if some]
        self.corners = corners[used]
        self.mixture = torch.from_numpy(weights / weights.sum())[used]
        self.visits = torch.einsum("m,mtsa->tsa", self.mixture, torch.stack(self._each))
