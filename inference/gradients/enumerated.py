"""Gradients with actions summed and states sampled.

At each visited state, the reward of the step is summed over all actions, weighted by the policy.
The sum alone would be biased: the sampled action also decides how the trajectory continues, so the
later rewards are weighted by its score.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import log_probs, support_size
from cai.inference.gradients.gradient import Estimator, checked, gains
from cai.inference.gradients.score_function import leave_one_out
from cai.numerics import inverse_cdf
from cai.numerics.exclusive import seeded
from cai.numerics.logspace import product
from cai.policies.as_table import policy_log_probs
from cai.program.episode import begin, remembers
from cai.program.interfaces import Policy
from cai.program.scoring import without_latents
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table

_PULL = 10  # trajectories in the same state whose mean weighs as much as that of all others


def enumerated_gradient(table: Table, policy: nn.Module, samples: int) -> Estimator:
    """The estimator from trajectories drawn from the table.

    The reward of a step is summed over the actions, weighted by the policy; later rewards are
    weighted by the score of the sampled action. The baseline of a trajectory is the mean reward to
    go of the others in the same state at the same step, shrunk towards the mean of all others: it
    is independent of the trajectory, and so unbiased.
    """
    T, S, A = table.steps, table.num_states, table.num_actions
    K = table.log_dynamics.shape[-1]
    p, initial = table.log_dynamics.exp(), inverse_cdf.cumulative(table.log_initial.exp())
    successors = table.successor_index.flatten()
    gain = gains(table)
    final = table.final_reward / table.temperature
    first_row = torch.arange(T).unsqueeze(1) * S

    def estimate() -> float:
        log_q = policy_log_probs(policy, table)
        with torch.no_grad():
            joint = inverse_cdf.cumulative((log_q.exp().unsqueeze(-1) * p).reshape(T, S, A * K))
            u = torch.rand(T + 1, samples, 1, dtype=torch.float64)
            s = inverse_cdf.draw(initial.expand(samples, -1), u[T])
            states, outcomes = [], []
            for rows, u_t in zip(joint.unbind(), u[:T].unbind(), strict=True):
                outcome = s * (A * K) + inverse_cdf.draw(rows.index_select(0, s), u_t)
                states.append(s)
                outcomes.append(outcome)
                s = successors.index_select(0, outcome)
            at, outcome = first_row + torch.stack(states), torch.stack(outcomes)
            chosen = at * A + (outcome // K) % A
            now = gain - log_q
            paid, ends = now.flatten()[chosen], final[s]
            alive = _survivors(table.discount, T, samples)
            if alive is not None:
                paid, ends = paid * alive[:-1], ends * alive[-1]
            future = ends + paid.flip(0).cumsum(0).flip(0) - paid
            elbo = (paid.sum(0) + ends).mean().item()  # without the difference -inf - (-inf)
            checked(elbo)
            advantage = future - _others(future, at, T * S)
            counted = torch.ones_like(advantage) if alive is None else alive[:-1]
            slope = log_q.new_zeros(T * S * A)
            slope.index_add_(0, chosen.flatten(), (advantage * counted).flatten())
            visits = log_q.new_zeros(T * S).index_add_(0, at.flatten(), counted.flatten())
            slope = slope.view(T, S, A) + product(visits.view(T, S, 1) * log_q.exp(), now)
        log_q.backward(slope / -samples)
        return -elbo

    return estimate


def _survivors(discount: float, T: int, samples: int) -> Tensor | None:
    """Whether each trajectory is alive at steps 0 … T, (T+1, samples); None without a discount."""
    if discount == 1:
        return None
    coins = torch.rand(T + 1, samples, dtype=torch.float64) < discount
    coins[0] = True
    return coins.double().cumprod(0)


def _others(to_go: Tensor, at: Tensor, groups: int) -> Tensor:
    """The mean reward to go of the others in the same state, shrunk to that of all if few."""
    T, n = to_go.shape
    flat, index = to_go.flatten(), at.flatten()
    total = flat.new_zeros(groups).index_add_(0, index, flat)[index].view(T, n)
    count = flat.new_zeros(groups).index_add_(0, index, torch.ones_like(flat))[index].view(T, n)
    return (total - to_go + _PULL * leave_one_out(to_go, dim=1)) / (count - 1 + _PULL)


def num_actions(model: TrajectoryModel) -> int | None:
    """A, or None if there are not finitely many actions."""
    with seeded(0):
        return support_size(model.prior(model.initial.sample(), 0))


def enumerated_program_gradient(
    model: TrajectoryModel, policy: nn.Module, A: int, samples: int
) -> Estimator:
    """The estimator from simulated trajectories of a model with A actions and any states.

        ∇ELBO = E_q Σ_t [ Σ_a (r/α + log p - log q)(s_t,a) ∇q_t(a|s_t) + F_t ∇log q_t(a_t|s_t) ]

    F_t is the sum of later terms, arrival reward included, minus its mean over the other
    trajectories. Without it this would be the gradient of another objective, since the sampled
    action also decides how the trajectory continues.
    """
    T = checks.finite_horizon(model, "fit")
    steps = torch.arange(T).expand(samples, T)

    def estimate() -> float:
        paths = model.simulate(policy, samples)
        s, a = paths.states[:, :-1], paths.actions.long().unsqueeze(-1)
        log_q = _all_log_probs(policy, s, paths.actions, A)
        with torch.no_grad():
            alive = paths.alive[:, :-1]
            now = _gains(model, s, steps, A) - log_q
            paid = torch.where(alive, now.gather(-1, a).squeeze(-1), 0.0)
            future = _future(model, paths, paid)
            elbo = (paid[:, 0] + future[:, 0]).mean()
            checked(elbo.item())
            slope = product(log_q.exp(), now)
            slope = slope.scatter_add(-1, a, (future - leave_one_out(future)).unsqueeze(-1))
            slope = torch.where(alive.unsqueeze(-1), slope, 0.0)
        log_q.backward(slope / -samples)
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
    """The later terms of each step, its own arrival reward included, (n, T), nats."""
    before, alive = paths.states[:, :-1], paths.alive[:, :-1]
    arrival = torch.zeros_like(paid)
    if model.pays_on_arrival:
        steps = torch.arange(before.shape[1])
        arrival = model.paid_on_arrival(before, paths.actions, paths.states[:, 1:], steps)
        arrival = torch.where(alive, arrival / model.temperature, 0.0)
    total = paid + arrival
    later = total.flip(1).cumsum(1).flip(1) - total
    return later + arrival + (paths.final_rewards / model.temperature).unsqueeze(1)


def _all_log_probs(policy: Policy, states: Tensor, actions: Tensor, A: int) -> Tensor:
    """log q(a | observations up to t) of every action, (n, T, A); with a memory step by step."""
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
