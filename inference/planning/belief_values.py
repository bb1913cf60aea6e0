"""Soft values of beliefs: the best policy that sees observe(s) and remembers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cai import one_line
from cai.numerics import logspace
from cai.numerics.arrays import of_step
from cai.numerics.logspace import product
from cai.policies import history
from cai.policies.history import HistoryPolicy
from cai.program.trajectory import TrajectoryModel
from cai.tables.tabulation import tabulate


@dataclass(frozen=True, eq=False)
class BeliefSolution:
    """The optimum over policies on histories of observations.

    Attributes:
        elbo: nats; below that of ``soft_values(model)`` by the cost of not seeing the state.
        policy: the policy that attains it.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> blind = inference.belief_values(model, observe=cai.blind)
    >>> abs(cai.evaluate(model, blind.policy).elbo - blind.elbo) < 1e-9
    True
    """

    elbo: float
    policy: HistoryPolicy

    __repr__ = one_line.of_fields


def belief_values(
    model: TrajectoryModel, observe: Callable[[Tensor], Tensor] | None = None
) -> BeliefSolution:
    """The best ELBO of a partially observed policy with perfect memory, in the true dynamics.

    One soft backward recursion over histories h = (o_0, a_0, …, o_t), with the belief p(s|h):

        Q(h,a) = E[(r + r⁺)/α + log p(a|s) | h,a] + γ Σ_o p(o|h,a) V(h,a,o)
        V(h) = log Σ_a exp Q(h,a)

    With ``observe=cai.blind`` it is the best correlated plan, q(plan) ∝ exp E[Σ (rewards/α +
    log p(a|s)) | plan] if γ = 1; seeing everything, it is ``soft_values(model)``.

    Args:
        model: a model with finitely many states and actions and a short horizon: there are
            (A O)^t O histories of step t.
        observe: s -> the observation, for states of any batch shape; everything if not given.
            ``cai.blind`` sees nothing.

    Returns:
        A :class:`BeliefSolution`: the best ELBO and its policy on histories.

    Raises:
        ValueError: if the model cannot be tabulated, or there are too many histories.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> blind = inference.belief_values(model, observe=lambda s: 0 * s)
    >>> abs(blind.elbo - inference.soft_values(model).elbo) < 1e-9  # here nobody has to look
    True
    """
    policy = HistoryPolicy(model, observe)
    policy.requires_grad_(False)
    table = tabulate(model)
    paid, P = table.expected_reward, history.moves(table)
    gain = paid / table.temperature + table.log_prior
    beliefs = [history.seen_first(table, policy.observations)]
    for t in range(len(policy.logits)):
        acting = beliefs[-1].unsqueeze(-1).expand(-1, -1, table.num_actions)
        beliefs.append(history.seen_next(acting, of_step(P, t, 3), policy.observations))
    ends = table.final_reward / table.temperature
    total = product(beliefs[-1], ends).sum(-1)  # (histories,): V times p(o_0 … o_t | a_0 …), nats
    for t in range(len(policy.logits) - 1, -1, -1):
        x, logits = beliefs[t], policy.logits[t]
        N, A = logits.shape
        mass = x.sum(-1)
        later = total.view(N, A, -1).sum(-1)
        weighed = product(x.unsqueeze(-1), of_step(gain, t, 2)).sum(-2) + later
        possible = (mass > 0).unsqueeze(-1)
        q = torch.where(possible, weighed / torch.where(possible, mass.unsqueeze(-1), 1.0), 0.0)
        v = logspace.logsumexp(q)
        # Impossible histories, and those of value -inf, follow the prior.
        lost = ~possible | (v == -torch.inf).unsqueeze(-1)
        logits.copy_(torch.where(lost, policy.prior_of(t), q - v.unsqueeze(-1)))
        total = product(mass, v)
    policy.log_prior.zero_()
    return BeliefSolution(total.sum().item(), policy)
