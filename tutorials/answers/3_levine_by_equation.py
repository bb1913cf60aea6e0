"""Answers to the exercises of notebook 3, on its six cells."""

import dataclasses
import math

import pyro.distributions as dist
import torch

from cai import inference, models

MAP, T = ("S.G", ".P."), 4
FLOOR = models.gridworld(MAP, horizon=T, temperature=1.0, slip=0.4, pit_reward=0.0)
CELLS = FLOOR.layout.cells
PAY = torch.tensor([{"P": -6.0, "G": 0.0}.get(MAP[i][j], -2.0) for i, j in CELLS]).double()
MODEL = dataclasses.replace(FLOOR, reward=lambda s, a: PAY[s], arrival_reward=None)
START = CELLS.index((0, 0))
BEST = inference.soft_values(MODEL)
P = BEST.dynamics(0)
UNIFORM = math.log(1 / 4)


def answer_1():
    """The expected return of the action prior, for both; and both policies are the prior.

    α log E e^(x/α) = E x + Var x/(2α) + …, so that both sums over actions and over outcomes become
    means, in eq. 7 as in eq. 15. When it is hot, nothing is worth a nat.
    """
    V = torch.zeros(len(CELLS)).double()
    for _ in range(T):
        V = PAY + P.mean(1) @ V  # the prior is uniform
    print(f"prior: {V[START]:.5f}")
    for alpha in (10.0, 1e3, 1e5):
        hot = dataclasses.replace(MODEL, temperature=alpha)
        exact, best = inference.posterior(hot), inference.soft_values(hot)
        print(f"α = {alpha:8.0f}: exact {exact.V[0, START]:.5f}, η = 0 {best.V[0, START]:.5f}")
    assert abs(exact.V[0, START] - V[START]) < 1e-3
    assert abs(best.V[0, START] - V[START]) < 1e-3
    assert (exact.policy.log_probs - UNIFORM).abs().max() < 1e-3


def answer_2():
    """KL(p(s_0 | O) || p(s_0)); it believes that it began in S, with a probability of nearly 0.9.

    Nobody can choose where a walk begins. But what went well probably began well, and the posterior
    is paid for that, at a nat per nat, like for any other luck.
    """
    begin = torch.zeros(len(CELLS)).double()
    begin[[START, CELLS.index((1, 0))]] = 0.5
    either = dataclasses.replace(MODEL, initial=dist.Categorical(begin))
    exact, best = inference.posterior(either), inference.soft_values(either)
    believed = exact.initial[START].item()
    split = torch.tensor([believed, 1 - believed], dtype=torch.float64)
    kl = (split * (split / 0.5).log()).sum().item()
    print(f"began in S: believed {believed:.3f}, true {best.initial[START]:.3f}; KL {kl:.3f} nats")
    beta = exact.V[0].exp()
    assert abs(believed - (begin * beta / (begin @ beta))[START]) < 1e-9
    assert abs(kl - exact.tilt_start) < 1e-9
    assert believed > 0.6


def all_paths():
    states, actions = torch.tensor([[START]]), torch.empty(1, 0, dtype=torch.long)
    for _ in range(T):
        path, action, to = P[states[:, -1]].nonzero(as_tuple=True)
        states = torch.cat([states[path], to.unsqueeze(1)], 1)
        actions = torch.cat([actions[path], action.unsqueeze(1)], 1)
    return states, actions


def answer_3():
    """E[x g²]/E[g²] given s and t, a mean weighted by the squared score; two percent better.

    With w = x - b(s) the variance is E[w² |g|²] minus a constant; its derivative with respect to
    b(s) is -2 E[(x - b) |g|²; s], which is zero for that b. If |g| did not depend on the action, or
    were independent of x, it would be V(s).
    """
    steps = torch.arange(T)
    torch.manual_seed(1)
    log_pi = torch.randn(T, len(CELLS), 4).double().log_softmax(-1)
    states, actions = all_paths()
    here = states[:, :-1]
    moves = P[here, actions, states[:, 1:]].log().sum(1)
    acts = log_pi[steps, here, actions]
    chance = (moves + acts.sum(1)).exp()
    to_go = (PAY[here] - (acts - UNIFORM)).flip(1).cumsum(1).flip(1)
    score = torch.nn.functional.one_hot(actions, 4) - log_pi[steps, here].exp()
    square = score.square().sum(-1)

    def mean_in_each_state(x, weight):
        total, count = torch.zeros(2, T, len(CELLS)).double()
        for t in range(T):
            total[t].index_add_(0, here[:, t], (chance * weight[:, t] * x[:, t]))
            count[t].index_add_(0, here[:, t], chance * weight[:, t])
        return (total / count.clamp(min=1e-300))[steps, here]

    second = {
        "none": chance @ (to_go**2 * square).sum(1),
        "V(s)": chance @ ((to_go - mean_in_each_state(to_go, 0 * square + 1)) ** 2 * square).sum(1),
        "best": chance @ ((to_go - mean_in_each_state(to_go, square)) ** 2 * square).sum(1),
    }
    for name, moment in second.items():
        print(f"baseline {name:5} mean square of the gradient of one trajectory {moment:.2f}")
    assert second["best"] < second["V(s)"] < second["none"] / 5


def answer_4():
    """Average e^V(s') and take the logarithm: Q = r + log mean e^V(s').

    In a table that works, as here. A network would have to fit e^V(s'), which ranges over a
    hundred orders of magnitude if values differ by some 230 nats: the squared error then sees the
    luckiest samples alone.
    """
    walks = MODEL.simulate(lambda t, s: MODEL.prior(s), samples=100_000, seed=0)
    s, a = walks.states.long(), walks.actions.long()
    V = torch.zeros(T + 1, len(CELLS)).double()
    for t in reversed(range(T)):
        cell = s[:, t] * 4 + a[:, t]
        total, count = torch.zeros(2, len(CELLS) * 4).double()
        total.index_add_(0, cell, V[t + 1, s[:, t + 1]].exp())
        count.index_add_(0, cell, torch.ones(len(s)).double())
        mean = (total / count.clamp(min=1)).view(-1, 4)
        V[t] = PAY + torch.logsumexp(mean.log() + UNIFORM, -1)
    exact = inference.posterior(MODEL).V[0, START]
    print(f"V(S) from samples {V[0, START]:.3f}, eq. 7 {exact:.3f}, eq. 15 {BEST.V[0, START]:.3f}")
    assert abs(V[0, START] - exact) < 0.1
