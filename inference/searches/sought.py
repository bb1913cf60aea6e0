"""What a search by gradients maximises, and what all such searches have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from cai import checks
from cai.inference.searches.rounds import Rounds


@dataclass(frozen=True, eq=False)
class Sought:
    """A sum over n cases, and the parameters in which it is maximised.

    Attributes:
        module: the parameters, which are changed in place.
        values: () -> (n,), nats, differentiable; it raises ValueError where there are none.
        log_prior: (p,) -> (), nats, of all parameters in one row; None for none.
        inside: (n,), boolean: the cases to train on; the others are held out.
    """

    module: nn.Module
    values: Callable[[], Tensor]
    log_prior: Callable[[Tensor], Tensor] | None
    inside: Tensor

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that are trained."""
        return [p for p in self.module.parameters() if p.requires_grad]

    @property
    def flat(self) -> Tensor:
        """(p,), all parameters in one row, float64, with their graph."""
        return torch.cat([p.double().flatten() for p in self.parameters])

    def prior(self) -> Tensor:
        """(), nats: the log-density of the parameters; zero without a prior."""
        if self.log_prior is None:
            return torch.zeros((), dtype=torch.float64)
        return self.log_prior(self.flat)

    def refuse(self) -> NoReturn:
        """Raises ValueError for parameters to begin with at which nothing can be maximised."""
        checks.refuse(
            "reward",
            "parameters to begin with whose likelihood and prior are not zero",
            "others",
            "begin with other parameters, such as zeros",
        )

    def mean(self, values: Tensor, held_out: bool = False) -> float:
        """The mean over the cases to train on, or over those that are held out; NaN for none."""
        return float(values.detach()[~self.inside if held_out else self.inside].mean())


class GradientSearch(Rounds):
    """A search that the training loop steps, and a file keeps.

    Args:
        sought: what is maximised.
        steps: at most.

    Attributes:
        means: nats: the mean of the cases to train on after each step, or at its beginning.
        held_out: the same of those that are held out.
        evaluations: of all cases.
    """

    def __init__(self, sought: Sought, steps: int) -> None:
        super().__init__("fit_reward", steps)
        self.sought = sought
        self.means: list[float] = []
        self.held_out: list[float] = []
        self.evaluations = 0

    def shown(self) -> str:
        """The last means, for the progress bar."""
        held_out = self.held_out[-1] if self.held_out else math.nan
        aside = "" if math.isnan(held_out) else f", held out {held_out:.4f}"
        return f"{self.means[-1]:.4f} nats a demonstration{aside}" if self.means else ""

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        each_step = {"means": self.means, "held_out": self.held_out}
        history = {name: torch.tensor(x, dtype=torch.float64) for name, x in each_step.items()}
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {"module": self.sought.module.state_dict(), **history, **plain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the search where it was when the state was taken."""
        self.sought.module.load_state_dict(state["module"])
        self.means, self.held_out = state["means"].tolist(), state["held_out"].tolist()
        for name in _PLAIN:
            setattr(self, name, state[name])
        if not self.converged:  # it may go further now
            self.reason = ""


_PLAIN = ("evaluations", "done", "reason", "converged")
