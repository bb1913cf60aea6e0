"""The network that policies, critics and values are unless another is given."""

from __future__ import annotations

import itertools

from torch import nn

from cai.numerics import memory


def perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    """A network with tanh between its layers, which starts close to the prior."""
    size = sum(fan_in * fan_out for fan_in, fan_out in itertools.pairwise(widths))
    memory.check_fits("hidden", f"a network of widths {widths}", size, "64 is wide for most models")
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    for parameter in layers[-2].parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(*layers[:-1])
