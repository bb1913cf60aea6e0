"""A recurrent policy: a network with a memory of what it saw and did."""

from __future__ import annotations

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai import checks, one_line
from cai.networks.heads import Head, head_for
from cai.networks.perceptron import perceptron
from cai.numerics.memory import check_fits
from cai.policies.observation import Numbers, View
from cai.program.interfaces import Episode, Observe
from cai.program.trajectory import TrajectoryModel


class RecurrentPolicy(nn.Module):
    """q(a_t | o_0, a_0, …, o_t), o = observe(s), as a gated recurrent network and a head.

    At each step the memory is updated from t/T, the observation and the previous action (Cho et al.
    2014); a perceptron maps it to the inputs of the head. It starts near the prior.

    Args:
        model: the model, which gives the spaces of states and actions.
        observe: s -> what the policy sees of it; everything if not given.
        memory: the number of units of the memory.
        hidden: widths of the hidden layers between memory and head.
        head: the family; the one that suits the prior if not given.

    Raises:
        ValueError: as :class:`cai.NeuralPolicy`.

    >>> import cai
    >>> from cai import models
    >>> model = models.pendulum(horizon=5)
    >>> policy = cai.RecurrentPolicy(model, observe=lambda s: s[..., :1])  # the angle alone
    >>> model.simulate(policy, samples=3, seed=0).actions.shape
    torch.Size([3, 5, 1])
    """

    __repr__ = one_line.of_module

    def __init__(
        self,
        model: TrajectoryModel,
        observe: Observe | None = None,
        memory: int = 32,
        hidden: tuple[int, ...] = (64,),
        head: Head | None = None,
    ) -> None:
        super().__init__()
        checks.check_count("memory", memory)
        checks.check_widths("hidden", hidden)
        check_fits(
            "memory", f"weights of {memory} units", 3 * memory**2, "32 units are a long memory"
        )
        self._view = View(model, observe)
        prior = self._view.prior(model.initial.sample(), 0)
        self._actions = Numbers(prior)
        self._head = head_for(prior, head)
        self.cell = nn.GRUCell(1 + self._view.size + self._actions.size, memory)
        self.network = perceptron((memory, *hidden, self._head.size(prior)))

    def start(self) -> Episode:
        """A fresh episode, with an empty memory."""
        memory = self.cell.weight_hh.new_zeros(self.cell.hidden_size)

        def step(t: int, s: Tensor, before: Tensor | None) -> TorchDistribution:
            nonlocal memory
            x, memory = _broadcast(self._inputs(t, s, before), memory)
            memory = self.cell(_rows(x), _rows(memory)).view(memory.shape)
            return self._head(self.network(memory), self._view.prior(s, t))

        return step

    def _inputs(self, t: int, s: Tensor, before: Tensor | None) -> Tensor:
        seen = self._view.timed(t, s, self.cell.weight_ih.dtype)
        did = seen.new_zeros(self._actions.size)
        if before is not None:
            did = self._actions(before).to(seen.dtype)
        seen, did = _broadcast(seen, did)
        return torch.cat([seen, did], -1)


def _broadcast(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors of rows, broadcast to one batch shape."""
    shape = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    return x.expand(*shape, -1), y.expand(*shape, -1)


def _rows(x: Tensor) -> Tensor:
    """(..., k) -> (N, k), as the recurrent cell takes them."""
    return x.reshape(-1, x.shape[-1])
