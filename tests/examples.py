"""Small models and policies that several tests build on."""

import numpy as np
import oracles
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

import cai
from cai import models


class Remembering:
    """Any policy, in the form of one with a memory."""

    def __init__(self, policy):
        self.plain = policy

    def start(self):
        return lambda t, s, before: self.plain(t, s)


def random_model(seed, T=4, n=3, m=2, rank=2, flat=False, cost=1.0, **changes):
    """Everything that can be there is there, and depends on the step; W is singular."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape)

    def positive(*shape):
        root = draw(*shape, shape[-1])
        return root @ root.swapaxes(-1, -2)

    L = 0.4 * draw(T, n, rank)
    joint = cost * positive(T, n + m) + 0.5 * np.eye(n + m)  # concave in state and action together
    arguments = {
        "A": 0.6 * draw(T, n, n),
        "B": draw(T, n, m),
        "horizon": T,
        "noise": L @ L.swapaxes(-1, -2),
        "drift": draw(T, n),
        "Q": joint[:, :n, :n],
        "N": joint[:, :n, n:],
        "R": joint[:, n:, n:],
        "q": draw(T, n),
        "rho": draw(T, m),
        "Q_final": positive(n),
        "q_final": draw(n),
        "initial_mean": draw(n),
        "initial_covariance": 0.3 * positive(n),
        "temperature": rng.uniform(0.5, 2),
    }
    if not flat:
        arguments["action_prior"] = dist.MultivariateNormal(
            torch.as_tensor(draw(T, m)), torch.as_tensor(positive(T, m) + np.eye(m))
        )
    return models.linear_gaussian(**(arguments | changes))


def scalar(T, W=1.0, alpha=1.0, **changes):
    arguments = {"noise": [[W]], "Q": [[1.0]], "R": [[1.0]]}
    arguments |= {} if T is None else {"Q_final": [[1.0]]}
    return models.linear_gaussian(
        [[1.0]], [[1.0]], horizon=T, temperature=alpha, **(arguments | changes)
    )


def sites(program):
    trace = poutine.trace(program).get_trace()
    return trace, [name for name, site in trace.nodes.items() if site["type"] == "sample"]


def continuous(horizon=5, **changes):
    """A particle on a line with a push of its own, and a state of two numbers."""

    def dynamics(s, a):
        push = pyro.sample("push", dist.Normal(0.0, 0.1))
        position, speed = s[..., 0] + 0.1 * s[..., 1], s[..., 1] + 0.1 * a + push
        return dist.Normal(torch.stack([position, speed], -1), 0.05).to_event(1)

    arguments = {
        "initial": dist.Normal(torch.zeros(2), 1.0).to_event(1),
        "dynamics": dynamics,
        "reward": lambda s, a: -(s[..., 0] ** 2) - 0.1 * a**2,
        "action_prior": dist.Normal(0.0, 1.0),
        "horizon": horizon,
    }
    return cai.TrajectoryModel(**(arguments | changes))


def tiny(discount):
    """Two steps, two states, two actions, one of which leads where it leads for sure."""
    problem = oracles.random_problem(3, 2, 2, 2, discount, zeros=0.0, forbidden=0.0)
    problem.initial[:] = [1.0, 0.0]
    problem.P[:, 1] = problem.P[:, 1].round()
    return problem.model()


def regulator(**changes):
    """Two numbers to be brought to zero by one, in three steps, with a final cost."""
    arguments = {
        "A": [[1.0, 0.3], [-0.2, 0.9]],
        "B": [[0.0], [0.5]],
        "noise": [[0.05, 0.0], [0.0, 0.1]],
        "Q": [[1.0, 0.2], [0.2, 0.5]],
        "R": [[0.3]],
        "q": [0.5, -0.2],
        "Q_final": [[2.0, 0.0], [0.0, 1.0]],
        "initial_mean": [1.0, -0.5],
        "initial_covariance": [[0.3, 0.1], [0.1, 0.2]],
        "action_prior": dist.MultivariateNormal(torch.ones(1).double(), torch.eye(1).double()),
        "horizon": 3,
        "temperature": 0.7,
    }
    return models.linear_gaussian(**(arguments | changes))


def scramble(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter))
    return policy


parity = lambda s: s % 2  # noqa: E731


def random_log_policy(seed, problem):
    """log q(a|s) at random on what the prior allows, (T, S, A)."""
    rng = np.random.default_rng(seed)
    weights = rng.random((problem.T, *problem.sizes)) * (np.asarray(problem.prior) > 0)
    return torch.as_tensor(weights / weights.sum(-1, keepdims=True)).log()


def bandit(prior, log_density):
    """One step whose posterior over actions is given: r/α = log density - log prior, p(O) = 1."""
    return cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s, 1.0),
        reward=lambda s, a: log_density(a) - prior.log_prob(a),
        action_prior=prior,
        horizon=1,
    )


def endless(seed, S=4, A=2, discount=1.0, zeros=0.3, temperature=0.7, sure=False):
    """A random problem with costs and, without a discount, a goal: the last state.

    Where it is sure, the goal is there with any discount, and the first action leads to later
    states only, so that nature cannot put off the end for ever whatever it pays.
    """
    rng = np.random.default_rng(seed)
    P = rng.random((S, A, S)) * (rng.random((S, A, S)) > zeros) + 0.1 * np.eye(S)[-1]
    reward, arrival = -rng.random((S, A)) - 0.2, -rng.random((S, A, S))
    if sure:
        P[:, 0] = np.triu(P[:, 0], 1)
    if discount == 1 or sure:
        P[-1] = np.eye(S)[-1]
        reward[-1] = arrival[-1] = 0
    return cai.tabulate(
        models.tabular(
            P / P.sum(-1, keepdims=True),
            reward,
            horizon=None,
            arrival_reward=arrival,
            initial=rng.random(S) + 0.1,
            action_prior=rng.random((S, A)) + 0.1,
            temperature=temperature,
            discount=discount,
        )
    )


def random_table(seed, discount=1.0, absorbing=1, zeros=0.5, arrival=True, level=-1.0):
    """A random model with absorbing states, forbidden actions and exact zeros."""
    rng = np.random.default_rng(seed)
    S, A = int(rng.integers(absorbing + 1, 8)), int(rng.integers(1, 4))
    P = rng.random((S, A, S)) * (rng.random((S, A, S)) >= zeros)
    P += 0.1 * (rng.integers(S, size=(S, A, 1)) == np.arange(S))
    prior = rng.random((S, A)) * (rng.random((S, A)) >= 0.3)
    prior += 0.1 * (rng.integers(A, size=(S, 1)) == np.arange(A))
    reward, more = level + rng.normal(size=(S, A)), rng.normal(size=(S, A, S)) * arrival
    for s in range(absorbing):
        P[s], reward[s], more[s] = np.arange(S) == s, 0.0, 0.0
    model = models.tabular(
        P / P.sum(-1, keepdims=True),
        reward,
        horizon=None,
        action_prior=prior,
        arrival_reward=more if arrival else None,
        discount=discount,
        temperature=0.7,
    )
    return cai.tabulate(model)


def grid_edges(n):
    """Both directions of every street of an n × n grid."""
    index = np.arange(n * n).reshape(n, n)
    a = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    b = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    return n * n, np.concatenate([a, b]), np.concatenate([b, a])


def passive(seed, S=6, exits=0):
    """Random passive dynamics with exact zeros; the last states never leave themselves."""
    rng = np.random.default_rng(seed)
    P = rng.random((S, S)) * (rng.random((S, S)) < 0.5)
    P[np.arange(S), (np.arange(S) + 1) % S] += 0.1
    P[S - exits :] = np.eye(S)[S - exits :]
    return P / P.sum(1, keepdims=True), rng.random(S) * (np.arange(S) < S - exits)
