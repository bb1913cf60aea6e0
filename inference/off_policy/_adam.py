"""Adam on the parameters of one module, along the gradient of a loss that others may be part of."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cai import checks


class Adam:
    """Steps of the parameters of a module.

    Args:
        verb: the name of the learner, for its error.
        module: the module.
        learning_rate: that of the first step.

    Raises:
        ValueError: if the learning rate is not a number above zero.
    """

    def __init__(self, verb: str, module: nn.Module, learning_rate: float) -> None:
        self._verb, rate = verb, checks.check_positive("learning_rate", learning_rate)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.parameters, lr=rate, fused=True)

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """A step at a learning rate.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        self.step_at(loss, None, loss.item(), learning_rate)

    def step_at(self, x: Tensor, slope: Tensor | None, loss: float, learning_rate: float) -> None:
        """A step from the gradient of the loss in some numbers.

        Args:
            x: outputs of the module, of which the loss is a function.
            slope: the gradient of the loss in them; None if x is the loss.
            loss: the loss.
            learning_rate: the learning rate.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        if not math.isfinite(loss):
            words = f"the loss is {loss:g}; try a smaller learning_rate"
            raise FloatingPointError(f"{self._verb}: {words}")
        gradients = torch.autograd.grad(x, self.parameters, slope)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimiser.param_groups[0]["lr"] = learning_rate
        self.optimiser.step()
