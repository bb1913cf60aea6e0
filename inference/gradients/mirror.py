"""Mirror descent on a table, its natural gradient; with step size one, dynamic programming."""

from __future__ import annotations

import torch
from torch import Tensor

from cai.inference.gradients.exact_gradient import advantages, occupancies
from cai.inference.gradients.gradient import Estimator, checked, not_too_far
from cai.numerics import logspace
from cai.numerics.logspace import product
from cai.policies.as_table import policy_log_probs
from cai.policies.tabular import TabularPolicy
from cai.tables import bellman
from cai.tables.table import Table


def mirror_gradient(table: Table, policy: TabularPolicy, step: float = 1.0) -> Estimator:
    """The estimator of the natural gradient in the logits θ_t(s,a) of q ∝ p(a|s) exp(θ).

        Q_t^q(s,a)/α + log p(a|s) - log q_t(a|s) - v_t(s)

    The inverse Fisher information removes the occupancies from the gradient (Kakade 2002), so that
    a step of size λ along it is one :func:`mirror_sweep`. For a stationary table they remain, as
    the weights of a mean over all steps, and the number of sweeps is not bounded; if a full
    ``step`` would lower the ELBO, it is halved until it does not.
    """
    of_policy = advantages(table)

    def after(step: float, slope: Tensor) -> float:
        log_q = logspace.log_softmax(policy.log_prior + policy.logits - step * slope)
        return of_policy(log_q.expand(table.steps, *log_q.shape)).elbo

    def estimate() -> float:
        with torch.no_grad():
            log_q = policy_log_probs(policy, table)
            elbo, _, advantage, flow = of_policy(log_q)
            checked(elbo)
            slope = -advantage
            if policy.logits.dim() == 2:
                weight = occupancies(table, flow).unsqueeze(-1)
                slope = product(weight, slope).sum(0) / weight.sum(0)
            # Logits of actions that are never taken, or in states of value -inf, do not change.
            slope = torch.where(slope.isfinite(), slope, 0.0)
            if policy.logits.dim() == 2:
                slope = slope * (not_too_far(elbo, lambda to: after(to, slope), step) / step)
            policy.logits.grad = slope
        return -elbo

    return estimate


def mirror_sweep(table: Table, log_q: Tensor, step: float = 1.0, backward: bool = False) -> Tensor:
    """A policy after one step of mirror descent in all rows, log q_t(a|s), (T, S, A), nats.

        q'_t(a|s) ∝ q_t(a|s)^{1-λ} [p(a|s) exp(Q_t^q(s,a)/α)]^λ

    It maximises λ <Q^q/α + log p - log q, q'> - KL(q'‖q) in each state (Geist, Scherrer and
    Pietquin 2019). Simultaneously, every row uses the Q of the old policy: once the later steps are
    right, an error shrinks by 1 - λ per sweep; with λ = 1, k sweeps make the last k steps optimal,
    and T sweeps all of them. Backward, with the Q of the new policy, one sweep with λ = 1 is the
    soft Bellman recursion.

    Args:
        table: the problem.
        log_q: the old policy.
        step: λ in (0, 1].
        backward: whether later steps are changed before earlier ones.
    """
    new = torch.empty_like(log_q)
    v = table.final_reward / table.temperature
    for t in range(table.steps - 1, -1, -1):
        now = table.at(t)
        q_values = bellman.action_values(now, v, 0.0)
        target = now.log_prior + q_values
        new[t] = logspace.log_softmax(
            target if step == 1 else (1 - step) * log_q[t] + step * target
        )
        v = _value(now, new[t] if backward else log_q[t], q_values)
    return new


def _value(table: Table, log_q: Tensor, q_values: Tensor) -> Tensor:
    """E_q[Q/α + log p - log q], (S,), nats."""
    gain = torch.where(log_q > -torch.inf, q_values + table.log_prior - log_q, 0.0)
    return product(log_q.exp(), gain).sum(-1)
