"""Actions summed over along trajectories that the program simulates, whatever its states are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.support import log_probs, support_size
from cai.inference.gradients.gradient import Estimator, checked
from cai.numerics.exclusive import seeded
from cai.numerics.logspace import product
from cai.program.episode import begin, remembers
from cai.program.interfaces import Policy
from cai.program.scoring import without_latents
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel


def num_actions(model: TrajectoryModel) -> int | None:
    """A, or None where the actions are not finitely many."""
    with seeded(0):
        return support_size(model.prior(model.initial.sample(), 0))


def enumerated_program_gradient(
    model: TrajectoryModel, policy: nn.Module, A: int, particles: int
) -> Estimator:
    """The gradient from simulated trajectories of a model with A actions and states of any kind.

        ∇ELBO = E_q Σ_t [ Σ_a (r/α + log p - log q)(s_t,a) ∇q_t(a|s_t) + F_t ∇log q_t(a_t|s_t) ]

    F_t is what comes after the action, arrival and all, less its mean over the other particles.
    Leaving it out would be the gradient of another objective: the action drawn also decides where
    the trajectory goes on.
    """
    T = checks.finite_horizon(model, "fit")
    steps = torch.arange(T).expand(particles, T)

    def estimate() -> float:
        paths = model.simulate(policy, particles)
        s, a = paths.states[:, :-1], paths.actions.long().unsqueeze(-1)
        log_q = _all_log_probs(policy, s, paths.actions, A)
        with torch.no_grad():
            alive = paths.alive[:, :-1]
            now = _gains(model, s, steps, A) - log_q
            paid = torch.where(alive, now.gather(-1, a).squeeze(-1), 0.0)
            future = _future(model, paths, paid)
            elbo = (paid[:, 0] + future[:, 0]).mean()
            checked(elbo.item())
            others = (future.sum(0) - future) / (particles - 1)
            slope = product(log_q.exp(), now)
            slope = slope.scatter_add(-1, a, (future - others).unsqueeze(-1))
            slope = torch.where(alive.unsqueeze(-1), slope, 0.0)
        log_q.backward(slope / -particles)
        return -elbo.item()

    return estimate


def _gains(model: TrajectoryModel, s: Tensor, steps: Tensor, A: int) -> Tensor:
    """r/α + log p(a|s) of every action in the states visited, (n, T, A), nats."""
    shape = (*steps.shape, A)
    event = s.shape[2:]
    each = s.unsqueeze(2).expand(*shape, *event)
    reward = model.rewards(each, torch.arange(A).expand(shape), steps.unsqueeze(-1))
    return reward / model.temperature + log_probs(model.prior(s, steps), A)


def _future(model: TrajectoryModel, paths: Trajectories, paid: Tensor) -> Tensor:
    """What comes after the action of each step, its own arrival reward included, (n, T), nats."""
    before, alive = paths.states[:, :-1], paths.alive[:, :-1]
    arrival = torch.zeros_like(paid)
    if model.pays_on_arrival:
        arrival = model.arrival_rewards(before, paths.actions, paths.states[:, 1:])
        arrival = torch.where(alive, arrival / model.temperature, 0.0)
    total = paid + arrival
    later = total.flip(1).cumsum(1).flip(1) - total
    return later + arrival + (paths.final_rewards / model.temperature).unsqueeze(1)


def _all_log_probs(policy: Policy, states: Tensor, actions: Tensor, A: int) -> Tensor:
    """log q(a | what was seen by step t) of every action, (n, T, A); step by step with a memory."""
    n, T = actions.shape
    policy = without_latents(policy)
    if not remembers(policy):
        steps = torch.arange(T).expand(n, T)
        return log_probs(policy(steps, states), A).expand(n, T, A)
    step, before, parts = begin(policy), None, []
    for t, (s, a) in enumerate(zip(states.unbind(1), actions.unbind(1), strict=True)):
        parts.append(log_probs(step(t, s, before), A).expand(n, A))
        before = a
    return torch.stack(parts, 1)
