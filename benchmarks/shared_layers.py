"""An actor-critic whose policy and values share their hidden layers, from ``policy_gradient``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import cai
from cai import models
from cai.inference.learning._state_values import StateValues
from cai.inference.learning.policy_gradient import PolicyGradient
from cai.inference.learning.records import History
from cai.inference.learning.stepped import stepped
from cai.numerics.exclusive import seeded
from cai.policies.neural import perceptron


class Columns(nn.Module):
    """Some of the outputs of a network, with a weight that their gradient alone has."""

    def __init__(self, which: slice, weight: float = 1.0) -> None:
        super().__init__()
        self.which, self.weight = which, weight

    def forward(self, outputs: Tensor) -> Tensor:
        """The outputs, unchanged."""
        x = outputs[..., self.which]
        return x.detach() + self.weight * (x - x.detach())


def shared_actor_critic(
    environment: models.Environment,
    *,
    value_weight: float,
    steps: int,
    num_envs: int,
    length: int,
    hidden: tuple[int, ...],
    learning_rate: float,
    seed: int,
) -> dict[str, Tensor]:
    """The history of a run; the arguments are those of ``soft_q`` and ``policy_gradient``."""
    with seeded(seed):
        made = stepped(environment, num_envs)
        outputs = 1 + (made.num_actions or 0)
        critic = StateValues(environment, hidden, timed=False)
        inputs = critic.network[0].in_features
        joint = perceptron((inputs, *hidden, outputs))
        critic.network = nn.Sequential(joint, Columns(slice(1), value_weight))
        network = nn.Sequential(joint, Columns(slice(1, None)))
        policy = cai.NeuralPolicy(environment, network=network, stationary=True)  # type: ignore[arg-type]
        learner = PolicyGradient(policy, critic, made, length, lam=1.0)
        learner.alpha = environment.temperature
        adam = torch.optim.Adam(joint.parameters(), lr=learning_rate, fused=True)
        history = History(num_envs, steps)
        while learner.taken < steps:
            adam.zero_grad()
            learner.loss(history).backward()
            adam.param_groups[0]["lr"] = learning_rate * max(1 - learner.taken / steps, 0.0)
            adam.step()
    return history.tensors()
