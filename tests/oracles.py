"""Brute force: a small problem as plain numbers, and sums over its paths, one by one.

Nothing here uses the library but to hand it the same problem as a model. Numbers may be floats or
fractions.Fraction; weights are exp(reward/α), so that fractions stay exact.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

import cai
from cai import models
from cai.distributions.lookup import ToldStep


@dataclass
class Problem:
    """initial[s], prior[s][a], P[s][a][s'], weight[s][a][s'] = exp((r + r⁺)/α), final[s].

    Where ``by_step`` the prior, P, reward and arrival have an axis of steps in front.
    """

    initial: Any
    prior: Any
    P: Any
    reward: Any  # r[s][a], in reward units
    arrival: Any  # r⁺[s][a][s'], in reward units
    final: Any  # r_T[s], in reward units
    T: int
    discount: float
    temperature: float
    by_step: bool = False

    @property
    def sizes(self):
        prior = self.at(0).prior
        return len(prior), len(prior[0])

    def at(self, t):
        """The problem all of whose steps are like step t."""
        if not self.by_step:
            return self
        names = "prior", "P", "reward", "arrival"
        now = {name: getattr(self, name)[t] for name in names}
        return dataclasses.replace(self, by_step=False, **now)

    def model(self, **changes):
        arguments = {
            "horizon": self.T,
            "initial": self.initial,
            "action_prior": self.prior,
            "arrival_reward": self.arrival,
            "final_reward": self.final,
            "temperature": self.temperature,
            "discount": self.discount,
        }
        return models.tabular(self.P, self.reward, **(arguments | changes))

    def latent_model(self):
        """The same problem as a program with latents: the dynamics are a mixture of two."""
        S, _ = self.sizes
        P, alpha = torch.as_tensor(self.P), self.temperature
        first = (P > 0).double() * torch.linspace(1.0, 2.0, S).double()
        first = first / first.sum(-1, keepdim=True)
        # P = h first + (1 - h) rest, with the largest h that keeps the rest ≥ 0, halved.
        h = torch.where(first > 0, P / first.clamp(min=1e-9), torch.inf).amin(-1) / 2
        rest = (P - h.unsqueeze(-1) * first).clamp(min=0) / (1 - h).unsqueeze(-1)
        arrays = [torch.as_tensor(x) for x in (self.reward, self.arrival, self.final, self.prior)]
        reward, arrival, final, prior = arrays
        told = _Told if self.by_step else lambda function: function

        def dynamics(*at):
            coin = pyro.sample("coin", dist.Bernoulli(h[at]))
            branch = torch.where(coin.bool().unsqueeze(-1), first[at], rest[at])
            landing = pyro.sample("landing", dist.Categorical(branch))
            return dist.Delta(landing)

        return cai.TrajectoryModel(
            initial=dist.Categorical(torch.as_tensor(self.initial)),
            dynamics=told(dynamics),
            reward=told(lambda *at: reward[at]),
            arrival_reward=told(lambda *at: arrival[at]),
            final_reward=lambda s: final[s],
            action_prior=told(lambda *at: dist.Categorical(prior[at])),
            horizon=self.T,
            temperature=alpha,
            discount=self.discount,
        )


class _Told(ToldStep):
    """A function of indices that is told the step, which it gets as the first of them."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        *indices, t = arguments
        return self.function(torch.as_tensor(t), *indices)


def random_problem(
    seed, S=3, A=2, T=3, discount=1.0, zeros=0.4, forbidden=0.3, scale=1.0, temperature=0.7
):
    """A random problem with exact zeros in its dynamics, start and prior."""
    rng = np.random.default_rng(seed)

    def rows(*shape, sparsity):
        x = rng.random(shape) * (rng.random(shape) >= sparsity)
        keep = rng.integers(shape[-1], size=shape[:-1])
        np.put_along_axis(x, keep[..., None], rng.random((*shape[:-1], 1)) + 0.1, -1)
        return x / x.sum(-1, keepdims=True)

    return Problem(
        initial=rows(S, sparsity=zeros),
        prior=rows(S, A, sparsity=forbidden),
        P=rows(S, A, S, sparsity=zeros),
        reward=scale * rng.normal(size=(S, A)),
        arrival=scale * rng.normal(size=(S, A, S)),
        final=scale * rng.normal(size=S),
        T=T,
        discount=discount,
        temperature=temperature,
    )


def random_steps(seed, T=3, alike=(), **options):
    """A random problem whose prior, dynamics and rewards are others at each step.

    Args:
        seed: of the numbers.
        T: how many steps.
        alike: which of "prior", "P", "reward" and "arrival" are those of step 0 at every step.
        options: of :func:`random_problem`.
    """
    parts = [random_problem(1000 * seed + t, T=T, **options) for t in range(T)]
    names = "prior", "P", "reward", "arrival"
    fields = {
        name: np.stack([getattr(parts[0 if name in alike else t], name) for t in range(T)])
        for name in names
    }
    return dataclasses.replace(parts[0], by_step=True, **fields)


KINDS = random_problem, random_steps  # the same at every step, and another at each


def with_time_in_the_state(problem):
    """The same problem without a change by the step, on the states t S + s, t = 0 … T."""
    (S, A), T = problem.sizes, problem.T
    N = (T + 1) * S
    prior, reward = np.full((N, A), 1 / A), np.zeros((N, A))
    P, arrival = np.zeros((N, A, N)), np.zeros((N, A, N))
    P[np.arange(N), :, np.arange(N)] = 1.0
    for t in range(T):
        now, here, after = problem.at(t), slice(t * S, t * S + S), slice(t * S + S, t * S + 2 * S)
        prior[here], reward[here], P[here] = now.prior, now.reward, 0.0
        P[here, :, after], arrival[here, :, after] = now.P, now.arrival
    initial, final = np.zeros(N), np.zeros(N)
    initial[:S], final[-S:] = problem.initial, problem.final
    changes = {"initial": initial, "prior": prior, "P": P, "reward": reward}
    changes |= {"arrival": arrival, "final": final, "by_step": False}
    return dataclasses.replace(problem, **changes)


@dataclass
class Path:
    """s_0, a_0, s_1, …: all steps that were taken; alive at the end or dead after the last."""

    states: tuple
    actions: tuple
    probability: Any  # p(τ)
    reward: Any  # Σ rewards, reward units

    def alive_at(self, t):
        return t < len(self.states) - (0 if self.survived else 1)

    survived: bool = True


def paths(problem, initial=None, policy=None, dynamics=None):
    """Every path of positive probability, under p, or under given (time-dependent) q's.

    Args:
        problem: the problem.
        initial: [s] instead of p(s_0).
        policy: [t][s][a] instead of the prior.
        dynamics: ([t][s][a][s'] of surviving there, [t][s][a][s'] of dying there) instead of P, γ.
    """
    S, A = problem.sizes
    gamma = problem.discount
    start = problem.initial if initial is None else initial

    def walk(path, t):
        s = path.states[-1]
        if t == problem.T:
            yield Path(path.states, path.actions, path.probability, path.reward + problem.final[s])
            return
        now = problem.at(t)
        for a in range(A):
            q = now.prior[s][a] if policy is None else policy[t][s][a]
            for n in range(S):
                if dynamics is None:
                    on, off = now.P[s][a][n] * gamma, now.P[s][a][n] * (1 - gamma)
                else:
                    on, off = dynamics[0][t][s][a][n], dynamics[1][t][s][a][n]
                reward = path.reward + now.reward[s][a] + now.arrival[s][a][n]
                states, actions = (*path.states, n), (*path.actions, a)
                p = path.probability * q
                if p * off > 0:
                    yield Path(states, actions, p * off, reward, survived=False)
                if p * on > 0:
                    yield from walk(Path(states, actions, p * on, reward), t + 1)

    for s in range(S):
        if start[s] > 0:
            yield from walk(Path((s,), (), start[s], 0), 0)


def terms(x):
    """Σ|x|, the size of the terms of a sum, where x is finite.

    A sum of n terms that were each rounded errs by up to n ε Σ|x|, however little of them is left
    where they cancel: that is what its error has to be measured by, and not the sum itself.
    """
    x = torch.as_tensor(x, dtype=torch.float64).detach()
    return x[x.isfinite()].abs().sum().item()


def exp(x):
    return math.exp(x) if x > -math.inf else 0.0


def mass(problem, path, optimal=None):
    """p(τ, O_observed) of a path: only the rewards of the steps that are observed count."""
    if optimal is None:
        return path.probability * exp(path.reward / problem.temperature)
    s, T = path.states, problem.T
    reward = problem.final[s[T]] if optimal[T] and path.survived else 0.0
    for t, a in enumerate(path.actions):
        if optimal[t]:
            now = problem.at(t)
            reward += now.reward[s[t]][a] + now.arrival[s[t]][a][s[t + 1]]
    return path.probability * exp(reward / problem.temperature)


def agrees(path, observed):
    """Whether a path lives where something is observed of it, and does there what is observed."""
    for name, value in observed.items():
        kind, t = name.split("_")
        if path.alive_at(int(t)) != (kind != "alive" or bool(value)):
            return False
        if kind != "alive" and {"s": path.states, "a": path.actions}[kind][int(t)] != value:
            return False
    return True


def posterior(problem, weigh=None, observed=None, optimal=None):
    """log p(O), and everything else of p(τ|O), by summing paths.

    Args:
        problem: the problem.
        weigh: reward -> exp(reward/α), for exact numbers.
        observed: {"s_1": state, …}, to condition on.
        optimal: which o_t are observed, T+1 booleans.
    """
    S, A = problem.sizes
    T = problem.T
    everything = [
        (path, path.probability * weigh(path.reward) if weigh else mass(problem, path, optimal))
        for path in paths(problem)
        if agrees(path, observed or {})
    ]
    total = sum(weight for _, weight in everything)
    zero = total - total
    states = [[zero] * S for _ in range(T + 1)]
    state_actions = [[[zero] * A for _ in range(S)] for _ in range(T)]
    transitions = [[[[zero] * S for _ in range(A)] for _ in range(S)] for _ in range(T)]
    imagined = zero
    for path, weight in everything:
        imagined += weight / total * path.reward
        for t, s in enumerate(path.states):
            if path.alive_at(t):
                states[t][s] += weight / total
        for t, a in enumerate(path.actions):
            s, n = path.states[t], path.states[t + 1]
            state_actions[t][s][a] += weight / total
            if path.alive_at(t + 1):
                transitions[t][s][a][n] += weight / total
    return {
        "evidence": total,
        "paths": [(path, weight / total) for path, weight in everything if weight > 0],
        "states": states,
        "state_actions": state_actions,
        "transitions": transitions,
        "imagined_return": imagined,
    }


def log_ratio(problem, path, policy, t_max=None):
    """log q(τ)/p(τ) of a policy with the true dynamics: only the actions differ."""
    return sum(
        math.log(policy[t][path.states[t]][a] / problem.at(t).prior[path.states[t]][a])
        for t, a in enumerate(path.actions)
    )


def elbo(problem, policy):
    """E_q[log p(τ,O) - log q(τ)] by summing paths; and the expected return."""
    value = expected = 0.0
    for path in paths(problem, policy=policy):
        value += path.probability * (
            path.reward / problem.temperature - log_ratio(problem, path, policy)
        )
        expected += path.probability * path.reward
    return value, expected


def spread(weighted):
    """The standard deviation of pairs (probability, x) by its definition."""
    mean = math.fsum(p * x for p, x in weighted)
    return math.sqrt(math.fsum(p * (x - mean) ** 2 for p, x in weighted))


def deviation(weighted, n):
    """What the mean of n draws of pairs (probability, x) misses by more than once in 10^9 times.

    Bernstein's inequality, for any distribution: the mean is off by more than d with a probability
    of at most 2 exp(-n d²/(2 (σ² + b d/3))), b = max |x - E x|. Standard errors that the draws say
    themselves cannot do that: what is rare and heavy, and was not drawn, is not in them.
    """
    mean = math.fsum(p * x for p, x in weighted)
    b, L = max(abs(x - mean) for p, x in weighted if p > 0), math.log(2e9)
    return b * L / (3 * n) + math.hypot(b * L / (3 * n), spread(weighted) * math.sqrt(2 * L / n))


def renyi(problem, policy, eta):
    """(1/η) log E_q[(p(τ,O)/q(τ))^η] by summing paths; the ELBO at η = 0."""
    if eta == 0:
        return elbo(problem, policy)[0]
    logs = [
        math.log(path.probability)
        + eta * (path.reward / problem.temperature - log_ratio(problem, path, policy))
        for path in paths(problem, policy=policy)
    ]
    top = max(logs)
    return (top + math.log(math.fsum(math.exp(x - top) for x in logs))) / eta


def rational_problem(seed, S=3, A=2, T=3, discount=Fraction(1)):
    """A problem of fractions, with integer rewards in units of log 2: weights are powers of two."""
    rng = np.random.default_rng(seed)

    def row(n):
        x = [int(k) for k in rng.integers(0, 4, size=n)]
        x[int(rng.integers(n))] += 1
        return [Fraction(k, sum(x)) for k in x]

    def integers(*shape):
        return rng.integers(-3, 4, size=shape).tolist()

    return Problem(
        initial=row(S),
        prior=[row(A) for _ in range(S)],
        P=[[row(S) for _ in range(A)] for _ in range(S)],
        reward=integers(S, A),
        arrival=integers(S, A, S),
        final=integers(S),
        T=T,
        discount=discount,
        temperature=1,
    )
