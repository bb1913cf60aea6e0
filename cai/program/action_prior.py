"""The action prior of a model, and no more of it: what a policy needs, so that it can be saved.

Dynamics and rewards are often functions that cannot be pickled; a policy does not call them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution

if TYPE_CHECKING:
    from cai.program.trajectory import TrajectoryModel


@dataclass(frozen=True, eq=False)
class ActionPrior:
    """p(a|s) and the horizon of a model.

    Attributes:
        given: the distribution, or the function of a state; or a model that overrides it.
        horizon: T, or None.
    """

    given: Any
    horizon: int | None

    @classmethod
    def of(cls, model: TrajectoryModel) -> ActionPrior:
        """The prior of a model."""
        given = model if "prior" in model.overridden else model.action_prior
        return cls(given, model.horizon)

    def __deepcopy__(self, memo: dict[int, Any]) -> ActionPrior:
        return self  # immutable, and what a head knows of a distribution it finds by the object

    def __call__(self, s: Tensor, t: Any) -> TorchDistribution:
        """p(a|s) at step t for states of any batch shape."""
        if isinstance(self.given, Distribution):
            return self.given
        prior: TorchDistribution = (
            self.given.prior(s, t) if hasattr(self.given, "prior") else self.given(s)
        )
        return prior
