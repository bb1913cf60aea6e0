"""Actions summed over, states sampled: the score function of what is left.

At each state that was visited, what the step pays is summed over all actions, weighted by the
policy. The sum alone would be biased: the action drawn also decides where the trajectory goes on,
so that what comes after it is weighted by its score.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cai.evaluation.evaluate import policy_log_probs
from cai.inference.gradients.gradient import Estimator, checked, gains
from cai.numerics import inverse_cdf
from cai.numerics.logspace import product
from cai.tables.table import Table

_PULL = 10  # how many particles in the same state weigh as much as all others together


def enumerated_gradient(table: Table, policy: nn.Module, particles: int) -> Estimator:
    """The gradient from trajectories drawn from the table.

    What a step pays is summed over the actions, weighted by the policy; what comes after it is
    weighted by the score of the action drawn. The baseline of a particle is the mean future of the
    others in the same state at the same step, drawn towards the mean of all others: independent of
    the particle, so unbiased.
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
            u = torch.rand(T + 1, particles, 1, dtype=torch.float64)
            s = inverse_cdf.draw(initial.expand(particles, -1), u[T])
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
            alive = _survivors(table.discount, T, particles)
            if alive is not None:
                paid, ends = paid * alive[:-1], ends * alive[-1]
            future = ends + paid.flip(0).cumsum(0).flip(0) - paid
            elbo = (paid.sum(0) + ends).mean().item()  # without the difference -inf - (-inf)
            checked(elbo)
            advantage = future - _others(future, at, T * S)
            living = torch.ones_like(advantage) if alive is None else alive[:-1]
            slope = log_q.new_zeros(T * S * A)
            slope.index_add_(0, chosen.flatten(), (advantage * living).flatten())
            visits = log_q.new_zeros(T * S).index_add_(0, at.flatten(), living.flatten())
            slope = slope.view(T, S, A) + product(visits.view(T, S, 1) * log_q.exp(), now)
        log_q.backward(slope / -particles)
        return -elbo

    return estimate


def _survivors(discount: float, T: int, particles: int) -> Tensor | None:
    """Whether each particle is alive at steps 0 … T, (T+1, particles); None without a discount."""
    if discount == 1:
        return None
    coins = torch.rand(T + 1, particles, dtype=torch.float64) < discount
    coins[0] = True
    return coins.double().cumprod(0)


def _others(to_go: Tensor, at: Tensor, groups: int) -> Tensor:
    """The mean reward to go of the others in the same state, where they are few towards all."""
    T, n = to_go.shape
    flat, index = to_go.flatten(), at.flatten()
    total = flat.new_zeros(groups).index_add_(0, index, flat)[index].view(T, n)
    count = flat.new_zeros(groups).index_add_(0, index, torch.ones_like(flat))[index].view(T, n)
    everywhere = (to_go.sum(1, keepdim=True) - to_go) / (n - 1)
    return (total - to_go + _PULL * everywhere) / (count - 1 + _PULL)
