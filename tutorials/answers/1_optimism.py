"""Answers to the exercises of notebook 1."""

import dataclasses
import math

import torch

import cai
from cai import inference, models

START, SHORT_CUT = 0, 0
LEDGE = models.ledge()


def short_cut(solution):
    """The probability of the short cut at the start."""
    return solution.policy.log_probs[0, START, SHORT_CUT].exp().item()


def answer_1():
    """The path is worth -3 for both, so the two actions are equally likely where the short cut is.

    With the probability x of giving way, the short cut is worth -1 - 6x in the true dynamics, which
    is -3 at x = 1/3. For the exact posterior it is worth -1 + log(1 - x + x e^-6), which is -3
    only at x = (1 - e^-2)/(1 - e^-6) = 0.867: it goes on taking a ledge that fails six times in
    seven.
    """
    posterior, sober = (1 - math.exp(-2)) / (1 - math.exp(-6)), 1 / 3
    print(f"posterior {posterior:.4f}, true dynamics {sober:.4f}")
    for chance, solve in ((posterior, inference.posterior), (sober, inference.soft_values)):
        assert abs(short_cut(solve(models.ledge(gives_way=chance))) - 0.5) < 1e-6


def answer_2():
    """The posterior stays as it was, at 0.787, and the best policy never takes the ledge.

    log(1/2 + 1/2 e^-100) is log 1/2 for all purposes. Once a fall is so bad that it is as good as
    excluded, making it worse changes nothing. A mean has no such floor: -1 - 50 against -3.
    """
    deep = models.ledge(fall_reward=-100.0)
    before, after = (short_cut(inference.posterior(x)) for x in (LEDGE, deep))
    sober = short_cut(inference.soft_values(deep))
    print(f"posterior {before:.4f} -> {after:.4f}; true dynamics {sober:.1e}")
    assert abs(before - after) < 1e-3
    assert sober < 1e-15


def answer_3():
    """At η = 0.24: a quarter of the way to the exact posterior is enough to be undecided."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        taken = short_cut(inference.soft_values(LEDGE, optimism=middle))
        low, high = (middle, high) if taken < 0.5 else (low, middle)
    # There the certain equivalent of the fall, log(1/2 + 1/2 e^(-6 η))/η, is -2.
    print(f"η = {middle:.4f}")
    assert abs(math.log(0.5 + 0.5 * math.exp(-6 * middle)) / middle + 2) < 1e-6


def answer_4():
    """The posterior expects to win with its first or second ticket, and be rich for certain.

    The best policy buys more tickets, 2.7, and is rich with probability 0.003. It buys them by
    chance, not by hope: a ticket loses 0.98 on average, and at temperature 1 that is the price of
    just one nat of randomness.
    """
    lottery = cai.tabulate(models.lottery())
    tickets, rich = [], []
    for solution in (inference.posterior(lottery), inference.soft_values(lottery)):
        tickets.append(solution.state_actions[:, 0, 1].sum().item())
        rich.append(solution.states[-1, 1].item())
    print(f"tickets {tickets[0]:.2f} and {tickets[1]:.2f}, rich {rich[0]:.4f} and {rich[1]:.4f}")
    assert rich[0] > 0.999
    assert rich[1] < 0.01
    assert tickets[0] < 2 < tickets[1]


def answer_5():
    """Half the variance of the value of the next state, where the ledge is taken: 1.21 nats per η.

    The outcomes 0 and -6 are equally likely, so that their variance is 9. It counts as often as the
    short cut is taken, 0.269.
    """
    step = 1e-4
    up, down = (inference.soft_values(LEDGE, optimism=x).bound for x in (step, -step))
    slope, variance = (up - down) / (2 * step), 9.0
    best = inference.soft_values(LEDGE)
    half = best.state_actions[0, START, SHORT_CUT].item() * variance / 2
    print(f"difference quotient {slope:.4f}, half the variance {half:.4f}")
    assert abs(slope - half) < 1e-3


def answer_6():
    """For fixed dynamics only the mean of what is paid counts, and the mean has not changed.

    The posterior bends the dynamics. If 1/3 is paid for *standing* beside the goal and pushing
    towards it, it arranges to slip sideways, against the edge, and to be paid for ever: it imagines
    a return of 18 in a game that is worth at most 1.
    """
    lake = cai.tabulate(models.gym("FrozenLake-v1", horizon=60, temperature=0.01))
    mean = (lake.log_dynamics.exp() * lake.arrival_reward).sum(-1)
    meaner = dataclasses.replace(lake, reward=lake.reward + mean, arrival_reward=None, program=None)
    for solve in (inference.posterior, inference.soft_values):
        one, other = (solve(x).imagined_return for x in (lake, meaner))
        print(f"{solve.__name__:12} imagines {one:.3f}, with the mean {other:.3f}")
    assert abs(other - one) < 1e-9
    assert inference.posterior(meaner).imagined_return > 18
    torch.testing.assert_close(
        inference.soft_values(lake).policy.log_probs,
        inference.soft_values(meaner).policy.log_probs,
        atol=1e-9,
        rtol=0,
    )
