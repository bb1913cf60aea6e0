"""A policy as a network of time and state.

A policy is any callable (t, s) -> Distribution. One of your own that is a torch module can be
trained as those of this library are:

>>> import pyro.distributions as dist, torch
>>> class Threshold(torch.nn.Module):
...     '''Action 1 to the right of a learnt place, with more certainty further away.'''
...
...     def __init__(self):
...         super().__init__()
...         self.place = torch.nn.Parameter(torch.tensor(2.5))
...
...     def forward(self, t, s):
...         return dist.Categorical(logits=torch.stack([self.place - s, s - self.place], -1))
>>> import cai
>>> from cai import inference, models
>>> model = models.ledge()
>>> fitted = inference.fit(model, Threshold(), steps=100)
>>> fitted.elbo > cai.evaluate(model, Threshold()).elbo
True
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai import checks, one_line
from cai.networks.heads import Head, head_for
from cai.networks.perceptron import perceptron
from cai.policies.observation import View
from cai.program.interfaces import Observe
from cai.program.trajectory import TrajectoryModel


class NeuralPolicy(nn.Module):
    """A policy whose distribution over actions comes from a network of (time, state).

    The input is t/T, unless stationary, and a one-hot state or, for continuous states, the state
    itself. Its output goes to a head, a family of distributions on the support of the action prior:
    a categorical one, q(a|t,s) ∝ p(a|s) exp(network), restricted to the actions that the prior
    allows, or for continuous actions a Gaussian, squashed if the prior is on a box.

    Args:
        model: the model, which gives the spaces of states and actions.
        hidden: widths of the hidden layers of the default network.
        network: replaces it; maps (..., inputs) to (..., outputs), see the attributes.
        head: replaces the one that suits the prior: ``GaussianHead("full")``, ``MixtureHead(4)``.
        observe: s -> what the policy sees of it, any function; everything if not given. States
            0 … S-1 that look alike then share the geometric mean of their priors.
        stationary: the network does not see the time: on S states it is then evaluated S times per
            training step instead of T·S times, and it can be used with an infinite horizon.

    Attributes:
        inputs: how many numbers go into the network.
        outputs: how many come out, ``head.size(prior)``: A for discrete actions; for a Gaussian
            with a diagonal covariance twice the dimension of an action.

    Raises:
        ValueError: if the head has no distribution on the support of the action prior, observe
            does not broadcast, or the prior depends on what it hides.

    >>> import torch, cai
    >>> from cai import models
    >>> policy = cai.NeuralPolicy(models.pendulum(), hidden=(32,), stationary=True)
    >>> policy(0, torch.zeros(7, 2)).sample().shape
    torch.Size([7, 1])
    """

    __repr__ = one_line.of_module

    def __init__(
        self,
        model: TrajectoryModel,
        hidden: tuple[int, ...] = (64, 64),
        network: nn.Module | None = None,
        head: Head | None = None,
        observe: Observe | None = None,
        stationary: bool = False,
    ) -> None:
        super().__init__()
        checks.check_widths("hidden", hidden)
        checks.check_flag("stationary", stationary)
        if network is not None:
            advice = "it maps (..., inputs) to (..., outputs)"
            checks.check_kind("network", network, nn.Module, "a torch module", advice)
        self._view, self._stationary = View(model, observe), stationary
        prior = self._view.prior(model.initial.sample(), 0)
        self._head = head_for(prior, head)
        self.inputs = self._view.size + (not stationary)
        self.outputs = self._head.size(prior)
        self.network = (
            perceptron((self.inputs, *hidden, self.outputs)) if network is None else network
        )
        self._weights = tuple(self.network.parameters())[:1]  # torch takes long to find them

    def forward(self, t: Any, s: Tensor) -> TorchDistribution:
        """q(a_t|s_t) for an int or a tensor t that broadcasts with s."""
        dtype = self._weights[0].dtype if self._weights else torch.get_default_dtype()
        view = self._view
        numbers = self.network(view.inputs(t, s, dtype, timed=not self._stationary))
        if numbers.shape[-1:] != (self.outputs,):
            checks.refuse(
                "network",
                f"{self.outputs} outputs, what the head takes",
                f"shape {list(numbers.shape)}",
                "see the attributes inputs and outputs",
            )
        return self._head(numbers, view.prior(s, t))
