"""Every trajectory of a small problem, one by one: chains, values of plans, and gradients."""

import math

import numpy as np
import oracles
import torch

import cai
from cai.program.trajectories import Trajectories


def tilted_dynamics(solution, problem):
    """[t][s][a][s'] of surviving there and of dying there, by hand from the values."""
    eta, alpha, gamma = solution.optimism, problem.temperature, problem.discount
    steps = [problem.at(t) for t in range(problem.T)]
    P, arrival = (np.stack([getattr(x, name) for x in steps]) for name in ("P", "arrival"))
    after = solution.V.numpy()[1:, None, None]
    on = P * gamma * np.exp(eta * (arrival + after) / alpha)
    off = P * (1 - gamma) * np.exp(eta * arrival / alpha)
    total = (on + off).sum(-1, keepdims=True)
    return on / total, off / total


def chain_paths(solution, problem):
    """Every path of the tilted chain, with its probability under it."""
    policy = solution.policy.log_probs.exp().numpy()
    start = np.asarray(problem.initial) * np.exp(
        solution.optimism * solution.V[0].numpy() / problem.temperature
    )
    return list(
        oracles.paths(problem, start / start.sum(), policy, tilted_dynamics(solution, problem))
    )


def gradient(estimate, policy):
    """One gradient of -ELBO in all parameters, one after the other."""
    policy.zero_grad()
    estimate()
    return torch.cat([p.grad.flatten().double() for p in policy.parameters()])


def every_trajectory(model, policy):
    """(probability, states, actions, alive) of all trajectories of a policy; ghosts move on."""
    table, gamma = cai.tabulate(model), model.discount
    S, A, T = table.num_states, table.num_actions, model.horizon
    P = table.dense(table.log_dynamics).expand(T, S, A, S).tolist()
    q, p = policy.log_probs.exp().tolist(), table.log_prior.exp().expand(T, S, A).tolist()

    def walk(probability, s, a, alive):
        t = len(a)
        if probability == 0:
            return
        if t == T:
            yield probability, s, a, alive
            return
        here = s[-1]
        for action, chance in enumerate((q if alive[-1] else p)[t][here]):
            for after, move in enumerate(P[t][here][action]):
                for lives, coin in ((True, gamma), (False, 1 - gamma)):
                    coin = coin if alive[-1] else 1.0 - lives
                    path = [*s, after], [*a, action], [*alive, lives]
                    yield from walk(probability * chance * move * coin, *path)

    for s_0, probability in enumerate(table.log_initial.exp().tolist()):
        yield from walk(probability, [s_0], [], [True])


def trajectories(model, pair):
    """Two given trajectories, as the simulation would return them."""
    s, a, alive = (torch.tensor([path[i] for path in pair]) for i in (1, 2, 3))
    before, steps = (s[:, :-1], a), torch.arange(a.shape[1])
    rewards = model.rewards(*before, steps) + model.arrival_rewards(*before, s[:, 1:], steps)
    rewards = torch.where(alive[:, :-1], rewards, 0.0)
    final = torch.where(alive[:, -1], model.final_rewards(s[:, -1]), 0.0)
    return Trajectories(s, a, rewards, final, alive)


def value_of(problem, plan):
    """E[Σ rewards/α + Σ log p(a|s) | plan] by all paths; -inf where the prior forbids it."""
    S, A = problem.sizes
    certain = [
        [[float(a == plan[t]) for a in range(A)] for _ in range(S)] for t in range(problem.T)
    ]
    value = 0.0
    for path in oracles.paths(problem, policy=certain):
        value += path.probability * path.reward / problem.temperature
        for t, (s, a) in enumerate(zip(path.states, path.actions, strict=False)):
            p = problem.at(t).prior[s][a]
            value += path.probability * math.log(p) if p > 0 else -math.inf
    return value
