"""Answers to the exercises of notebook 10."""

import dataclasses
import math

import pyro.distributions as dist
import torch

import cai
from cai import inference, models


def answer_1():
    """It does not, and should not: the target of one transition does not ask who chose the action.

    r + V(s') has the mean Q(s, a), whoever took a in s. A behaviour only decides which entries are
    estimated well. Here the prior takes both actions equally often, and the short cut, whose
    outcome is the only random one, gets more samples than from the learnt policy.
    """
    ledge = models.ledge()
    best = inference.soft_values(ledge)
    for name, behaviour in (("own policy", "own"), ("prior", lambda t, s: ledge.prior(s))):
        run = inference.soft_q(ledge, behaviour=behaviour, steps=32_000, seed=0, progress=False)
        error = run.values(0) - best.V[0, 0]
        taken = run.policy.log_probs[0, 0, 0].exp()
        print(f"{name:10} error of V at the start {error:+.3f}, P(short cut) {taken:.3f}")
        assert abs(error) < 0.1


def answer_2():
    """Naive 0.62, 0.73, 0.82 for one, two, three steps; proper 0.29, 0.15, 0.07.

    With n steps the meadow costs n/2, and both agents see that. Staying alive in the corridor costs
    n log 4 nats besides, which only the proper one counts beforehand: n/2 - 1.39 n is negative, and
    the more so the longer the corridor.
    """

    def fork(steps):
        P = torch.zeros(3, 4, 3)
        P[0, :2, 1] = P[0, 2:, 2] = P[1, :, 1] = P[2, :, 2] = 1
        reward = torch.zeros(3, 4, dtype=torch.float64)
        reward[1, 1:], reward[2] = -math.inf, -0.5
        return models.tabular(P, reward, horizon=steps + 1)

    for n in (1, 2, 3, 5):
        found = []
        for rule in ("boltzmann", "soft"):
            policy = inference.soft_values(fork(n), rule=rule).policy
            found.append(policy.log_probs[0, 0].exp()[:2].sum().item())
        expected = [1 / (1 + math.exp(-n * x)) for x in (0.5, 0.5 - math.log(4))]
        print(f"{n} steps: naive {found[0]:.3f}, proper {found[1]:.3f}")
        assert max(abs(x - y) for x, y in zip(found, expected, strict=True)) < 1e-9


def lake(**options):
    """The lake of the notebook: an episode begins on any tile."""
    floor = torch.tensor([tile in "SF" for tile in "SFFFFHFHFFFHHFFG"]).double()
    model = models.gym("FrozenLake-v1", horizon=None, discount=0.95, temperature=0.01, **options)
    return dataclasses.replace(model, initial=dist.Categorical(floor / floor.sum())), floor.bool()


def answer_3():
    """Then it is as good as the others: there is no variance that a flat V could save.

    E C² = (E C)² + Var(r + γ V(s')), and without slipping the second term is zero. (The discount
    is a factor here, not a toss of a coin, so that it adds no variance either.) The exact V makes
    all C zero.
    """
    for slippery in (False, True):
        model, floor = lake(is_slippery=slippery)
        best, table = inference.soft_values(model), cai.tabulate(model)
        C = table.outcome_rewards + 0.95 * table.gather(best.V) - best.Q.unsqueeze(-1)
        square = (table.log_dynamics.exp() * C**2).sum(-1)[floor].mean().sqrt()
        run = inference.path_consistency(
            model,
            cai.TabularPolicy(model, stationary=True),
            steps=30_000,
            num_envs=96,
            length=1,
            learning_rate=0.05,
            seed=0,
            progress=False,
            ends="both",
        )
        V = run.values(torch.arange(16))[floor]
        learnt, exact = (x.max() - x.min() for x in (V, best.V[floor]))
        print(
            f"slippery {slippery!s:5}: root mean square of C at the exact V {square:.3f},", end=" "
        )
        print(f"spread of V learnt {learnt:.2f}, exact {exact:.2f}")
        assert (square > 0.1) == slippery
        assert (learnt < 0.75 * exact) == slippery


def answer_4():
    """Towards the hard rule: after k rounds the policy is the soft one of temperature α/k.

    A policy as prior brings along all of its rewards (notebook 11, section 1). So policy k is
    that of k times the rewards, which is the temperature divided by k.
    """
    model, _ = lake()
    model = dataclasses.replace(model, horizon=20)
    table = cai.tabulate(model)
    policy = inference.soft_values(table).policy
    for k in range(2, 9):
        policy = inference.soft_values(cai.with_prior(model, policy)).policy
        colder = inference.soft_values(dataclasses.replace(table, temperature=0.01 / k)).policy
        apart = (policy.log_probs.exp() - colder.log_probs.exp()).abs().max()
        assert apart < 1e-6
        if k in (2, 4, 8):
            print(f"{k} rounds: return {cai.evaluate(table, policy).expected_return:.4f}")
    hard = inference.soft_values(table, rule="hard").policy
    print(f"hard rule: return {cai.evaluate(table, hard).expected_return:.4f}")
    print("each the same as the soft policy of temperature α/k, to 1e-6")
