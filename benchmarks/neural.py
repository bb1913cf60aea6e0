"""One training step of a network on FrozenLake 8x8, 100 steps and 256 particles, and its noise.

The hand-written reference knows that there are 64 states: it evaluates the network once per
training step, for all states (and all steps, if it sees the time), draws actions and successors of
all particles from tables, and weighs each score by the reward to go. Pyro evaluates the network in
each of the 100 steps. All of them estimate the gradient that ``exact_gradient`` computes; a second
table shows their noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from torch import Tensor

import cai
from benchmarks import fit
from benchmarks.fit import Noise
from benchmarks.programs import step
from benchmarks.timing import Race, check_close
from cai import models
from cai.inference.gradients.enumerated import enumerated_gradient
from cai.inference.gradients.exact_gradient import exact_gradient

PARTICLES = 256
DRAWS = 300
_RATE = 1e-3


def lake() -> cai.TrajectoryModel:
    return models.gym("FrozenLake-v1", map_name="8x8", horizon=100, temperature=0.1)


def network(model: cai.TrajectoryModel, *, timed: bool = False) -> cai.NeuralPolicy:
    """A policy of two hidden layers of 64, away from the prior, so that advantages differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = cai.NeuralPolicy(model, stationary=not timed)
        torch.nn.init.normal_(policy.network[-1].weight, std=0.1)
    return policy


def against_torch() -> Race:
    return _against_torch("fit, neural / torch", "torch, 64 states at once", timed=False)


def timed_against_torch() -> Race:
    return _against_torch("fit, neural, timed / torch", "torch, 6400 inputs at once", timed=True)


def _against_torch(name: str, reference: str, timed: bool) -> Race:
    model = lake()
    by_hand = ByHand(model, network(model, timed=timed))
    exact = _gradient(by_hand.policy, exact_gradient(by_hand.table, by_hand.policy))
    for which, estimate in (("ours", _ours(model, by_hand.policy)), ("theirs", by_hand.estimate)):
        noise = fit.noise_of("", which, _draws(by_hand.policy, estimate, 100), exact)
        check_close(f"the gradient of {which}, in standard errors", noise.z, 0.0, 5)
    theirs = network(model, timed=timed)
    plain = step(theirs, ByHand(model, theirs).estimate)
    return _race(name, reference, _our_step(model, timed=timed), plain, 1 / 1.5)


def against_trace() -> Race:
    model = lake()
    check_pyro(model, Trace_ELBO)
    return _race(
        "fit, neural / Trace_ELBO",
        "SVI, Trace_ELBO",
        _our_step(model),
        _svi_step(model, Trace_ELBO),
        15,
    )


def against_trace_graph() -> Race:
    model = lake()
    check_pyro(model, TraceGraph_ELBO)
    return _race(
        "fit, neural / TraceGraph_ELBO",
        "SVI, TraceGraph_ELBO",
        _our_step(model),
        _svi_step(model, TraceGraph_ELBO),
        200,
    )


def exact_against_sampled() -> Race:
    """The exact gradient of a table against those of 100 particles."""
    model = lake()
    table, policy = cai.tabulate(model), cai.TabularPolicy(model)
    exact = step(policy, exact_gradient(table, policy))
    sampled = step(policy, enumerated_gradient(table, policy, 100))
    return _race("fit, exact, 8x8 / 100 sampled", "our own sampled step", exact, sampled, 1)


def _race(
    name: str,
    reference: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    target: float,
) -> Race:
    n = 100 if "exact" in name else PARTICLES
    sizes = f"S=64 A=4 T=100 n={n}"
    return Race(
        name=name, sizes=sizes, reference=reference, ours=ours, theirs=theirs, target=target
    )


class ByHand:
    """The score function with the reward to go, as one would write it for a table."""

    def __init__(self, model: cai.TrajectoryModel, policy: cai.NeuralPolicy) -> None:
        self.table, self.policy = cai.tabulate(model), policy
        table, S = self.table, self.table.num_states
        assert table.successors is not None
        assert table.arrival_reward is not None
        self.moves = table.log_dynamics.exp().cumsum(-1).flatten(0, 1)
        self.successors = table.successors.flatten()
        self.paid = (table.reward.unsqueeze(-1) + table.arrival_reward).flatten() / 0.1
        self.K = table.log_dynamics.shape[-1]
        self.inputs = torch.eye(S)
        if policy.inputs > S:
            time = torch.arange(table.steps).float() / table.steps
            time = time.view(-1, 1, 1).expand(-1, S, 1)
            self.inputs = torch.cat([time, self.inputs.expand(table.steps, S, S)], -1)

    def log_q(self) -> Tensor:
        """(S, A), or (T, S, A) with the time."""
        logits: Tensor = self.policy.network(self.inputs)
        return logits.log_softmax(-1)

    def draw(self, log_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States and actions, (T, n), and the indices of their outcomes (S, A, K)."""
        T, A = self.table.steps, self.table.num_actions
        cumulative = log_q.exp().double().cumsum(-1).expand(T, -1, -1)
        u = torch.rand(2, T, PARTICLES, 1, dtype=torch.float64)
        s = torch.zeros(PARTICLES, dtype=torch.long)  # the start
        states, actions, outcomes = [], [], []
        for q, u_a, u_s in zip(cumulative.unbind(), *u.unbind(), strict=True):
            a = (q[s] < u_a).sum(-1).clamp(max=A - 1)
            row = s * A + a
            outcome = row * self.K + (self.moves[row] < u_s).sum(-1).clamp(max=self.K - 1)
            states.append(s)
            actions.append(a)
            outcomes.append(outcome)
            s = self.successors[outcome]
        return torch.stack(states), torch.stack(actions), torch.stack(outcomes)

    def loss(
        self, log_q: Tensor, s: Tensor, a: Tensor, outcome: Tensor, *, whole: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The surrogate loss and the ELBO; with ``whole`` weighted by the whole return."""
        steps = torch.arange(self.table.steps).unsqueeze(1)
        scores = log_q[s, a] if log_q.dim() == 2 else log_q[steps, s, a]
        gain = self.paid[outcome] + self.table.log_prior[s, a] - scores.detach()
        weight = gain.flip(0).cumsum(0).flip(0)
        elbo = weight[0].mean()
        weight = weight[:1].expand_as(weight) if whole else weight
        return -(weight * scores).sum() / PARTICLES, elbo

    def estimate(self, *, whole: bool = False) -> float:
        """Adds a gradient of -ELBO to the parameters, and returns an estimate of it."""
        log_q = self.log_q()
        with torch.no_grad():
            drawn = self.draw(log_q)
        loss, elbo = self.loss(log_q, *drawn, whole=whole)
        loss.backward()
        return -elbo.item()


def _ours(model: cai.TrajectoryModel, policy: cai.NeuralPolicy) -> Callable[[], float]:
    return enumerated_gradient(cai.tabulate(model), policy, PARTICLES)


def _our_step(model: cai.TrajectoryModel, *, timed: bool = False) -> Callable[[], None]:
    policy = network(model, timed=timed)
    return step(policy, _ours(model, policy))


def _svi_step(model: cai.TrajectoryModel, elbo: type) -> Callable[[], float]:
    guide = model.rollout(network(model))
    return SVI(model, guide, pyro.optim.Adam({"lr": _RATE}), _vectorized(elbo)).step


def _vectorized(elbo: type) -> Trace_ELBO | TraceGraph_ELBO:
    return elbo(num_particles=PARTICLES, vectorize_particles=True, max_plate_nesting=0)


def check_pyro(model: cai.TrajectoryModel, elbo: type) -> None:
    """Raises if Pyro's gradient is not the hand-written one for the trajectories that Pyro drew."""
    by_hand = ByHand(model, network(model))
    policy, guide, estimator = by_hand.policy, model.rollout(by_hand.policy), _vectorized(elbo)
    torch.manual_seed(0)
    gradient = _gradient(policy, lambda: estimator.loss_and_grads(model, guide))
    torch.manual_seed(0)
    with pyro.plate("particles", PARTICLES, dim=-1):
        sites = poutine.trace(guide).get_trace().nodes
    T = by_hand.table.steps
    states = torch.stack([sites[f"s_{t}"]["value"] for t in range(T + 1)])
    a = torch.stack([sites[f"a_{t}"]["value"] for t in range(T)])
    s = states[:-1]
    rows = by_hand.successors.view(-1, by_hand.K)[s * by_hand.table.num_actions + a]
    which = (rows == states[1:].unsqueeze(-1)).int().argmax(-1)
    outcome = (s * by_hand.table.num_actions + a) * by_hand.K + which

    def formula() -> None:
        by_hand.loss(by_hand.log_q(), s, a, outcome, whole=elbo is Trace_ELBO)[0].backward()

    again = _gradient(policy, formula)
    check_close(f"gradient of {elbo.__name__}", gradient, again, 1e-4 * again.abs().max().item())


def noises() -> Iterator[list[Noise]]:
    """The noise of our estimator, and of Pyro's by their formula, which is checked."""
    model = lake()
    by_hand = ByHand(model, network(model))
    policy = by_hand.policy
    exact = _gradient(policy, exact_gradient(by_hand.table, policy))
    at = "8x8, network"
    group = [fit.noise_of(at, "this library", _draws(policy, _ours(model, policy), DRAWS), exact)]
    for elbo in (Trace_ELBO, TraceGraph_ELBO):
        check_pyro(model, elbo)
        by_formula = partial(by_hand.estimate, whole=elbo is Trace_ELBO)
        draws = _draws(policy, by_formula, DRAWS)
        group.append(fit.noise_of(at, elbo.__name__, draws, exact))
    yield group


def _draws(policy: cai.NeuralPolicy, estimate: Callable[[], object], n: int) -> Tensor:
    """Gradients in the parameters, one a row."""
    torch.manual_seed(0)
    return torch.stack([_gradient(policy, estimate) for _ in range(n)])


def _gradient(policy: cai.NeuralPolicy, estimate: Callable[[], object]) -> Tensor:
    policy.zero_grad()
    estimate()
    slopes = [p.grad.flatten().double() for p in policy.parameters() if p.grad is not None]
    return torch.cat(slopes)
