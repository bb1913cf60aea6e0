"""Answers to the exercises of notebook 7."""

import math

import pyro.distributions as dist
import torch

import cai
from cai import inference, models


def pit(slip=0.1):
    return models.gridworld(
        ("....", "SP.G", "...."),
        horizon=6,
        temperature=2.0,
        slip=slip,
        goal_reward=30.0,
        pit_reward=-10.0,
    )


ROWS = torch.tensor([i for i, _ in pit().layout.cells])


def fog(s):
    return (ROWS[s] == 1).long()


def answer_1():
    """Of 2.27 nats, 0.77 for what cannot be seen, 1.47 for forgetting, and 0.03 not learnt.

    The table forgets as the network does, and its gradients are exact: what it reaches is what can
    be done without a memory. The perfect memory, ``belief_values``, is the best in the fog.
    """
    torch.manual_seed(0)
    network = inference.fit(
        pit(),
        cai.NeuralPolicy(pit(), observe=fog),
        steps=300,
        learning_rate=0.03,
        progress=False,
    )
    table = inference.fit(
        pit(), cai.TabularPolicy(pit(), observe=fog), steps=600, learning_rate=0.1, progress=False
    )
    memory, sight = inference.belief_values(pit(), fog).elbo, inference.soft_values(pit()).elbo
    parts = {
        "not to be seen": sight - memory,
        "not remembered": memory - table.elbo,
        "not learnt": table.elbo - network.elbo,
    }
    for name, price in parts.items():
        print(f"{name:15} {price:.3f} nats")
    assert abs(sum(parts.values()) - (sight - network.elbo)) < 1e-9
    assert parts["not remembered"] > parts["not to be seen"] > 10 * abs(parts["not learnt"])


def answer_2():
    """As many nats as the entropy of the ways that its sides take: log 4 if all four differ.

    The plan of independent steps settles for one way of four and loses log 4 = 1.39 nats. A coin
    brings back what its sides differ in. Sides that begin with the same turn learn together and
    stay together, and four sides that begin at random all differ only once in 4^4/4! = 10.7 times.
    """
    P = torch.zeros(5, 4, 5)
    P[0, torch.arange(4), torch.arange(1, 5)] = 1.0  # the first turn decides
    for went in range(1, 5):
        P[went, :, went] = 1.0
    reward = torch.full((5, 4), -5.0)  # a turn that does not fit costs 5
    reward[0] = 0.0
    reward[torch.arange(1, 5), torch.arange(4)] = 0.0
    turns = models.tabular(P, reward, horizon=4, initial=[1.0, 0.0, 0.0, 0.0, 0.0])
    ladder = inference.price_ladder(turns)
    print(ladder)
    assert abs(ladder.prices["independent steps"] - math.log(4)) < 0.01

    zero = torch.zeros(1, dtype=torch.long)
    for spread in (10.0, 30.0):
        torch.manual_seed(0)
        policy = cai.LatentPolicy(
            turns, dist.Categorical(torch.ones(4)), observe=torch.zeros_like, hidden=(16,)
        )
        with torch.no_grad():
            policy.network[-1].weight.mul_(spread)
        fitted = inference.fit(
            turns,
            policy,
            steps=120,
            samples=100,
            learning_rate=0.03,
            tolerance=-math.inf,
            progress=False,
        )
        sides = fitted.policy.of_all(zero, zero).probs.detach().argmax(-1).flatten()
        shares = sides.bincount() / 4
        entropy = torch.distributions.Categorical(shares).entropy().item()
        gain = fitted.elbo - ladder.nats["factorised plan"]
        print(
            f"first turns of the four sides {sides.tolist()}: entropy {entropy:.2f} nats,", end=" "
        )
        print(f"worth {gain:.2f} nats")
        assert abs(gain - entropy) < 0.25


def answer_3():
    """They approach each other with the height of the hill, and touch where there is none.

    The upper number is the value of the line without a hill, so it does not move. The lower one, of
    importance weights, rises towards it. The guide here is the best policy of the line, which needs
    no training.
    """
    line = models.linear_gaussian(
        [[1.0]],
        [[1.0]],
        horizon=10,
        noise=[[0.15**2]],
        Q=[[0.3]],
        q=[0.6],
        initial_mean=[-2.0],
        initial_covariance=[[0.01]],
        action_prior=dist.MultivariateNormal(torch.zeros(1), 0.25 * torch.eye(1)),
    )
    easier, gaps = inference.posterior(line), []
    for height in (3.0, 1.0, 0.3, 0.0):
        hill = cai.TrajectoryModel(
            initial=line.initial,
            dynamics=line.transition,
            reward=lambda s, a, h=height: (
                line.rewards(s, a) - h * torch.exp(-0.5 * (s[..., 0] / 0.4) ** 2)
            ),
            action_prior=line.action_prior,
            horizon=10,
        )
        found = inference.evidence_bracket(
            hill, inference.soft_values(line).policy, samples=5000, value=easier.V
        )
        gaps.append(found.upper - found.lower)
        print(f"height {height}: {found.lower:.2f} ≤ log p(O) ≤ {found.upper:.2f}")
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.1
