"""Answers to the exercises of notebook 6."""

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
    """All but the last: only the price of independent steps is left.

    Without chance there is no luck to be had, and whoever remembers what it did knows where it is:
    looking tells nothing new. Independent steps still cannot make up for one another, and still
    have to settle for one way round.
    """
    ladder = inference.price_ladder(pit(slip=0.0), observe=fog)
    print(ladder)
    prices = dict(ladder.prices)
    assert prices.pop("independent steps") > 1
    assert max(prices.values()) < 1e-6


def answer_2():
    """No. Seeing the row is worth 1.57 nats, and seeing whether the pit is passed less than half.

    Neither is worth as much as seeing everything, which is 2.34 nats. What an eye is worth depends
    on what one knows without it: here it is harder to keep track of the row than of the column.
    """
    past = torch.tensor([j >= 2 for _, j in pit().layout.cells]).long()
    elbos = {
        "no eye": inference.belief_values(pit(), cai.blind).elbo,
        "is it the middle row?": inference.belief_values(pit(), fog).elbo,
        "is it past the pit?": inference.belief_values(pit(), lambda s: past[s]).elbo,
        "all of the state": inference.soft_values(pit()).elbo,
    }
    for name, elbo in elbos.items():
        print(f"{name:22} {elbo:.3f} nats, worth {elbo - elbos['no eye']:.3f}")
    none, row, column, everything = elbos.values()
    assert column - none < (row - none) / 2
    assert row < everything


def answer_3():
    """½ (10 log(λ + c) - 9 log λ - log(λ + 10 c)): without limit, as 4.5 log c.

    The more only the sum counts, the more a push should make up for those before it. Independent
    steps cannot, and each of them has to be as precise as the sum should be.
    """
    precision, T = 4.0, 10
    for c in (0.1, 1.0, 10.0, 100.0, 1000.0):
        line = models.linear_gaussian(
            [[1.0]],
            [[1.0]],
            horizon=T,
            noise=[[0.15**2]],
            Q_final=[[c]],
            q_final=[2 * c],
            initial_mean=[-2.0],
            initial_covariance=[[0.01]],
            action_prior=dist.MultivariateNormal(torch.zeros(1), torch.eye(1) / precision),
        )
        price = inference.price_ladder(line).prices["independent steps"]
        closed = 0.5 * (
            T * math.log(precision + c)
            - (T - 1) * math.log(precision)
            - math.log(precision + T * c)
        )
        print(f"c = {c:6}: {price:7.3f} nats, by the formula {closed:7.3f}")
        assert abs(price - closed) < 1e-9
