"""Small problems with rewards, all their paths as demonstrations, and the objective of these."""

import dataclasses
import itertools

import numpy as np
import oracles
import torch

import cai
from cai.inference.inverse._scores import Likelihoods
from cai.inference.inverse.observed import observed

KINDS = [
    ("actions", 0.0),
    ("actions", 1.0),
    ("actions", -0.4),
    ("paths", 0.0),
    ("paths", 0.6),
    ("paths", 1.0),
    ("paths", -0.3),
    ("matching", 0.0),
]


def features_of(seed, S, A, k=3):
    """Two features of states and actions, one paid on arrival, and an offset."""
    rng = np.random.default_rng(seed)
    f = torch.from_numpy(rng.normal(size=(k, S, A)))
    g = torch.from_numpy(rng.normal(size=(S, A, S)))
    named = {f"f{i}": f[i] for i in range(k - 1)}
    return cai.LinearReward(named, arrival={"g": g}, offset=f[-1])


def random_case(seed, discount=1.0, by_step=False, S=3, A=2, T=3):
    """A problem, a reward on it, and weights."""
    make = oracles.random_steps if by_step else oracles.random_problem
    problem = make(seed, T=T, discount=discount)
    table = cai.tabulate(problem.model())
    reward = features_of(seed, *problem.sizes)
    weights = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=len(reward.names)))
    return problem, table, reward, weights


def every_path(table, T, lengths=None):
    """All possible paths of T actions, as demonstrations that end at the horizon."""
    S, A = table.num_states, table.num_actions
    P = table.dense(table.log_dynamics)
    prior = table.log_prior
    states, actions = [], []
    for s in itertools.product(range(S), repeat=T + 1):
        for a in itertools.product(range(A), repeat=T):
            at = [
                (P[t] if P.dim() == 4 else P)[s[t], a[t], s[t + 1]] > 0
                and (prior[t] if prior.dim() == 3 else prior)[s[t], a[t]] > -torch.inf
                for t in range(T)
            ]
            if all(at):
                states.append(s)
                actions.append(a)
    return cai.Demonstrations.from_paths(states, actions, ends=lengths or "horizon")


def objective(table, reward, seen, likelihood, eta, rule="soft"):
    found, _ = observed(table, seen, "error")
    return Likelihoods(table, reward.on(table), found, eta, rule, likelihood)


def of_all_ends(table):
    """Every path of three actions, cut, of its own horizon, or terminated, in turn."""
    seen = every_path(table, 3)
    ends = ("horizon", "cut", "terminated") if table.discount < 1 else ("horizon", "cut")
    if not table.by_step:
        ends = (*ends, "own")
    seen = seen.with_ends([ends[i % len(ends)] for i in range(len(seen))])
    short = [i for i, end in enumerate(seen.ends) if end != "horizon"]
    lengths = seen.lengths.clone()
    lengths[short] = 1 + torch.arange(len(short)) % 3
    return dataclasses.replace(seen, lengths=lengths)[:]
