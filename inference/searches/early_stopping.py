"""Adam on minibatches, until the cases that are held out no longer gain."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cai.inference.searches.sought import GradientSearch, Sought

_HALVINGS = 30
_GAIN = 1e-6  # nats a case: what counts as an improvement


class EarlyStopping(GradientSearch):
    """Adam (Kingma and Ba 2015) with early stopping.

    One solution of the table serves all cases, so that those that are held out cost next to
    nothing: they are looked at in every step. The best parameters are those at which they, or where
    none are held out the cases to train on and the prior, had the highest mean. Where a step leads
    to a reward without values, the search goes back to the best, and halves the rate.

    Args:
        sought: what is maximised.
        steps: at most.
        rate: of Adam.
        batch: cases in a step; None for all of them.
        patience: steps without an improvement after which it ends.
    """

    method = "Adam"

    def __init__(
        self, sought: Sought, steps: int, rate: float, batch: int | None, patience: int
    ) -> None:
        super().__init__(sought, steps)
        self.batch, self.patience = batch, patience
        self.optimizer = torch.optim.Adam(sought.parameters, lr=rate)
        self.best: dict[str, Tensor] = {}
        self.highest, self.best_step, self.halvings = -math.inf, 0, 0

    def step(self) -> None:
        """One step of Adam.

        Raises:
            ValueError: if there are no values at the start.
        """
        self.evaluations += 1
        try:
            values = self.sought.values()
            if not (values.isfinite().all() and self.sought.prior().isfinite()):
                self.sought.refuse()
        except ValueError:
            if not self.best:
                raise
            self._back_off()
            return
        self._remember(values)
        if self.done - self.best_step >= self.patience:
            which = "held-out" if not self.sought.inside.all() else "mean"
            self.end(f"the {which} likelihood did not rise in {self.patience} steps", True)
            return
        self.optimizer.zero_grad()
        self._loss(values).backward()
        self.optimizer.step()
        self.done += 1

    def _loss(self, values: Tensor) -> Tensor:
        """Minus the mean of a random batch, with a share of the prior."""
        inside = self.sought.inside.nonzero().squeeze(1)
        n = len(inside)
        if self.batch is not None and self.batch < n:
            inside = inside[torch.randperm(n)[: self.batch]]
        return -(values[inside].mean() + self.sought.prior() / n)

    def _remember(self, values: Tensor) -> None:
        """Records the means; keeps the parameters if they are the best so far."""
        self.means.append(self.sought.mean(values))
        self.held_out.append(self.sought.mean(values, held_out=True))
        reached = self.held_out[-1]
        if math.isnan(reached):
            prior = float(self.sought.prior().detach()) / len(values)
            reached = self.means[-1] + prior
        if reached > self.highest:
            if reached > self.highest + _GAIN:
                self.best_step = self.done
            self.highest, module = reached, self.sought.module
            self.best = {name: x.clone() for name, x in module.state_dict().items()}

    def _back_off(self) -> None:
        self.restore()
        self.halvings += 1
        for group in self.optimizer.param_groups:
            group["lr"] /= 2
        self.optimizer.state.clear()
        if self.halvings > _HALVINGS:
            self.end("every step led to a reward without values")

    def restore(self) -> None:
        """Puts the best parameters into the module."""
        if self.best:
            self.sought.module.load_state_dict(self.best)

    def state_dict(self) -> dict[str, Any]:
        """With the optimiser and the best parameters."""
        own = {name: getattr(self, name) for name in _OWN}
        return super().state_dict() | {"optimizer": self.optimizer.state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the search where it was when the state was taken."""
        super().load_state_dict(state)
        self.optimizer.load_state_dict(state["optimizer"])
        for name in _OWN:
            setattr(self, name, state[name])


_OWN = ("best", "highest", "best_step", "halvings")
