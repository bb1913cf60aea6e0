"""One training step on FrozenLake 4x4, 20 steps and 100 particles, and how noisy its gradient is.

Pyro trains the guide ``model.rollout(policy)`` as it stands, all particles in one vectorised trace.
``Trace_ELBO`` weighs every score by the whole return, ``TraceGraph_ELBO`` by the reward to go. This
library simulates the table and subtracts a baseline, so that its step should be faster *and* its
gradient no noisier. All three estimate the gradient that ``exact_gradient`` computes.

A gradient of Pyro's takes long, and its variance thousands of them. They are drawn by the formula
above from many trajectories at once, after it has been checked that the formula gives Pyro's own
gradient from Pyro's own trajectories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from torch import Tensor

import cai
from benchmarks.timing import Race, check_close
from cai import inference, models
from cai.inference.gradients.enumerated import enumerated_gradient
from cai.inference.gradients.exact_gradient import exact_gradient

PARTICLES = 100
DRAWS = 5000
_RATE = 1e-3
_AT_ONCE = 200  # gradients by formula at a time


def lake() -> cai.TrajectoryModel:
    return models.gym("FrozenLake-v1", horizon=20, temperature=0.1)


def against_trace() -> Race:
    _check(Trace_ELBO)
    return _race(
        "fit, sampled / Trace_ELBO",
        "SVI, Trace_ELBO",
        _sampled_step(),
        _svi_step(Trace_ELBO),
        12,
    )


def against_trace_graph() -> Race:
    _check(TraceGraph_ELBO)
    return _race(
        "fit, sampled / TraceGraph_ELBO",
        "SVI, TraceGraph_ELBO",
        _sampled_step(),
        _svi_step(TraceGraph_ELBO),
        200,
    )


def exact_against_sampled() -> Race:
    model = lake()
    table, policy = cai.tabulate(model), random_policy(model)
    exact = _gradient(policy, exact_gradient(table, policy))
    second = _gradient(policy, lambda: (-elbo_of(table, policy.log_probs)).backward())
    check_close("exact gradient", exact, second, 1e-9)
    step = _step(policy, exact_gradient(table, policy))
    return _race("fit, exact / sampled", "our own sampled step", step, _sampled_step(), 1)


def _race(
    name: str, reference: str, ours: Callable[[], object], theirs: Callable[[], object], target: int
) -> Race:
    table = cai.tabulate(lake())
    sizes = f"S={table.num_states} A={table.num_actions} T={table.steps} n={PARTICLES}"
    return Race(
        name=name, sizes=sizes, reference=reference, ours=ours, theirs=theirs, target=target
    )


def elbo_of(table: cai.Table, log_q: Tensor) -> Tensor:
    """The ELBO as one would write it for autograd, to check the exact gradient by."""
    assert table.arrival_reward is not None
    p = table.log_dynamics.exp()
    mean_reward = table.reward + (p * table.arrival_reward).sum(-1)
    P = table.dense(table.log_dynamics)
    occupancy, elbo = table.log_initial.exp(), torch.zeros(()).double()
    for log_q_t in log_q:
        moves = occupancy.unsqueeze(-1) * log_q_t.exp()
        gain = mean_reward / table.temperature + table.log_prior - log_q_t
        elbo = elbo + (moves * gain).sum()
        occupancy = torch.einsum("sa,sax->x", moves, P)
    return elbo


def _check(elbo: type) -> None:
    """Raises if our mean gradient is five standard errors off, or Pyro's is not the formula's."""
    model = lake()
    table, policy = cai.tabulate(model), random_policy(model)
    exact = _gradient(policy, exact_gradient(table, policy))
    noise = noise_of("", "", _our_draws(table, policy, 400), exact)
    check_close("our gradient, in standard errors", noise.z, 0.0, 5)
    check_pyro(model, policy, elbo)


def _sampled_step() -> Callable[[], None]:
    model = lake()
    policy = cai.TabularPolicy(model)
    return _step(policy, enumerated_gradient(cai.tabulate(model), policy, PARTICLES))


def _step(policy: cai.TabularPolicy, estimate: Callable[[], float]) -> Callable[[], None]:
    """Gradient and Adam, as ``fit`` runs them."""
    adam = torch.optim.Adam(policy.parameters(), lr=_RATE)

    def step() -> None:
        adam.zero_grad()
        estimate()
        adam.step()

    return step


def _svi_step(elbo: type) -> Callable[[], float]:
    model = lake()
    guide = model.rollout(cai.TabularPolicy(model))
    return SVI(model, guide, pyro.optim.Adam({"lr": _RATE}), _vectorized(elbo)).step


def _vectorized(elbo: type) -> Trace_ELBO | TraceGraph_ELBO:
    return elbo(num_particles=PARTICLES, vectorize_particles=True, max_plate_nesting=0)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise and bias of an estimator of the ELBO's gradient.

    Attributes:
        at: the parameters θ, in words.
        estimator: the name of the estimator.
        draws: how many gradients were drawn, of 100 particles each.
        variance: the trace of the covariance of the gradient in the logits, nats².
        stderr: the standard error of the variance.
        z: the mean gradient minus the exact one, along the exact one, in standard errors.
        error: the distance of the mean gradient from the exact one, over the average distance of an
            unbiased estimator of this variance: close to one, or there is a bias.
    """

    at: str
    estimator: str
    draws: int
    variance: float
    stderr: float
    z: float
    error: float


def noises() -> Iterator[list[Noise]]:
    """The noise of the three estimators, ours first, at each of three policies."""
    model = lake()
    table = cai.tabulate(model)
    for at, policy in _policies(model, table):
        exact = _gradient(policy, exact_gradient(table, policy))
        group = [noise_of(at, "this library", _our_draws(table, policy, DRAWS), exact)]
        for elbo in (Trace_ELBO, TraceGraph_ELBO):
            check_pyro(model, policy, elbo)
            draws = _pyro_draws(model, policy, elbo, DRAWS)
            group.append(noise_of(at, elbo.__name__, draws, exact))
        yield group


def noise_of(at: str, estimator: str, draws: Tensor, exact: Tensor) -> Noise:
    n = len(draws)
    off = draws.mean(0) - exact
    squares = (draws - draws.mean(0)).square().sum(1) * n / (n - 1)
    variance = squares.mean().item()
    along = draws @ exact / exact.norm()
    return Noise(
        at=at,
        estimator=estimator,
        draws=n,
        variance=variance,
        stderr=squares.std().item() / math.sqrt(n),
        z=((along.mean() - exact.norm()) / (along.std() / math.sqrt(n))).item(),
        error=(off.norm() / math.sqrt(variance / n)).item(),
    )


def _our_draws(table: cai.Table, policy: cai.TabularPolicy, n: int) -> Tensor:
    """Gradients in the logits, one a row, (n, T·S·A)."""
    torch.manual_seed(0)
    estimate = enumerated_gradient(table, policy, PARTICLES)
    return torch.stack([_gradient(policy, estimate) for _ in range(n)])


def _pyro_draws(
    model: cai.TrajectoryModel, policy: cai.TabularPolicy, elbo: type, n: int
) -> Tensor:
    """The same as Pyro would estimate them, by formula."""
    torch.manual_seed(0)
    draws = []
    for _ in range(0, n, _AT_ONCE):
        paths = model.simulate(policy, _AT_ONCE * PARTICLES)
        draws.append(score_function(model, policy, elbo, paths.states, paths.actions))
    return torch.cat(draws)


def score_function(
    model: cai.TrajectoryModel, policy: cai.TabularPolicy, elbo: type, states: Tensor, a: Tensor
) -> Tensor:
    """The gradient of -ELBO in the logits from each 100 trajectories, (n, T·S·A).

    Args:
        model: the model.
        policy: the policy.
        elbo: ``Trace_ELBO`` for the whole return as weight, ``TraceGraph_ELBO`` for that to go.
        states: (n·100, T+1).
        a: the actions, (n·100, T).
    """
    with torch.no_grad():
        log_q, s = policy.log_probs, states[:, :-1]
        T, S, A = log_q.shape
        t = torch.arange(T).expand(s.shape)
        gain = model.log_factor(s, a, states[:, 1:]) + policy.log_prior[s, a] - log_q[t, s, a]
        weight = gain.flip(1).cumsum(1).flip(1)
        if elbo is Trace_ELBO:
            weight = weight[:, :1].expand(s.shape)
        draw = torch.arange(len(s)).unsqueeze(1).expand(s.shape) // PARTICLES
        slope = torch.zeros(len(s) // PARTICLES, T, S, A).double()
        slope.index_put_((draw, t, s, a), -weight / PARTICLES, accumulate=True)
        return (slope - log_q.exp() * slope.sum(-1, keepdim=True)).flatten(1)


def check_pyro(model: cai.TrajectoryModel, policy: cai.TabularPolicy, elbo: type) -> None:
    """Raises if Pyro's gradient is not the formula's for the trajectories that Pyro drew."""
    guide, estimator = model.rollout(policy), _vectorized(elbo)
    torch.manual_seed(0)
    gradient = _gradient(policy, lambda: estimator.loss_and_grads(model, guide))
    torch.manual_seed(0)
    with pyro.plate("particles", PARTICLES, dim=-1):
        sites = poutine.trace(guide).get_trace().nodes
    T = len(policy.logits)
    states = torch.stack([sites[f"s_{t}"]["value"] for t in range(T + 1)], 1)
    actions = torch.stack([sites[f"a_{t}"]["value"] for t in range(T)], 1)
    formula = score_function(model, policy, elbo, states, actions)[0]
    check_close(f"gradient of {elbo.__name__}", gradient, formula, 1e-9)


def _gradient(policy: cai.TabularPolicy, estimate: Callable[[], object]) -> Tensor:
    policy.logits.grad = None
    estimate()
    assert policy.logits.grad is not None
    return policy.logits.grad.flatten().clone()


def random_policy(model: cai.TrajectoryModel) -> cai.TabularPolicy:
    policy = cai.TabularPolicy(model)
    torch.nn.init.normal_(policy.logits, generator=torch.Generator().manual_seed(0))
    return policy


def _policies(
    model: cai.TrajectoryModel, table: cai.Table
) -> Iterator[tuple[str, cai.TabularPolicy]]:
    """The prior, a random policy, and one that has climbed half of the way to the best ELBO."""
    yield "θ = 0", cai.TabularPolicy(model)
    yield "θ random", random_policy(model)
    policy = cai.TabularPolicy(model)
    estimate = exact_gradient(table, policy)
    adam = torch.optim.Adam(policy.parameters(), lr=0.01)
    halfway = (-estimate() + inference.soft_values(table).elbo) / 2
    elbo = -torch.inf
    while elbo < halfway:
        adam.zero_grad()
        elbo = -estimate()
        adam.step()
    yield "θ half trained", policy
