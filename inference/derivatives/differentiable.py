"""Values, bounds and likelihoods of trajectories that torch can differentiate.

Any tensors of a table may require grad: ``reward``, ``arrival_reward``,
``final_reward``, ``log_prior``, ``log_dynamics``, ``log_initial``, and ``temperature``, which may
be a tensor of shape (). The functions here differentiate with respect to them, by one forward sweep
(:mod:`cai.inference.derivatives._adjoint`) instead of a tape of T steps, and with an infinite
horizon by one linear solve (:mod:`cai.inference.derivatives._implicit`); every other function takes
such a table as plain numbers.
Higher derivatives work as well, ``create_graph=True``, but tape that sweep; and so do the
transforms of ``torch.func`` in any order, forward mode and ``hessian`` among them. A batch under
``vmap`` is solved one by one.

Parameters at -inf (forbidden or impossible) have derivative zero. Rows of ``log_dynamics``
and ``log_initial`` that require grad are normalised first, so that their derivatives are those
along the simplex; the prior is used as it is, normalised or not.
"""

from __future__ import annotations

from torch import Tensor

from cai.inference.derivatives._linearised import check_bound, lean
from cai.inference.derivatives._pullback import (
    Needed,
    Operation,
    Tensors,
    chosen,
    eager,
    taped,
)
from cai.inference.derivatives._solve import scaled, solve
from cai.numerics import logspace
from cai.tables import bellman
from cai.tables.table import Table


@eager
def differentiable_values(
    table: Table, optimism: float = 0.0, rule: bellman.Rule = "soft"
) -> Tensor:
    r"""The soft values V_t(s) of ``soft_values``, differentiable.

    ∂V_0(s_0)/∂r(s,a) is the expected number of times that a is taken in s starting from s_0, under
    the policy π_η and the dynamics at η.

    Args:
        table: a problem; see the module for what may require grad. With an infinite horizon the
            values are (S,), and without a discount those of absorbing states are always zero.
        optimism: η, any real number or ±inf (where derivatives are subgradients: one of the best
            outcomes that tie, or a mixture of them).
        rule: how actions are chosen, "soft", "hard", "boltzmann" or "planned"; where
            actions tie, a subgradient.

    Returns:
        (T+1, S), reward units.

    Raises:
        ValueError: if optimism is not a plain number, or the horizon is infinite and there are
            no values, see :func:`soft_values`.

    A reward that is a network, on the states and actions of a table made once:

    >>> import dataclasses, torch, cai
    >>> from cai import inference, models
    >>> table = cai.tabulate(models.ledge())
    >>> net = torch.nn.Linear(table.num_states, table.num_actions)
    >>> reward = net(torch.eye(table.num_states)).double()  # (S, A)
    >>> V = inference.differentiable_values(dataclasses.replace(table, reward=reward), optimism=1.0)
    >>> V[0, 0].backward()
    >>> net.bias.grad.sum().round(decimals=3).item() == table.horizon  # one action per step
    True
    """
    v, alpha, _ = solve(table, optimism, rule, None)
    return scaled(v, alpha)


@eager
def differentiable_bound(
    table: Table, optimism: float = 0.0, rule: bellman.Rule = "soft"
) -> Tensor:
    r"""The bound (1/η) log E_{s_0} exp(η V_0/α), differentiable; log p(O) at η = 1.

    With occ(s,a) the occupancies under the solution's own chain:

        ∂bound/∂r(s,a) = occ/α,    ∂bound/∂log p(a|s) = occ,
        ∂bound/∂log p(s'|s,a) = occ (q(s'|s,a) - p(s'|s,a))/η,  at η = 0  occ p (x - E x),

    x(s') = (r⁺ + γ V_{t+1}(s'))/α being the value of the outcome.

    Args:
        table: a problem, as for :func:`differentiable_values`.
        optimism: η, any real number or ±inf.
        rule: how actions are chosen, "soft", "hard", "boltzmann" or "planned"; where
            actions tie, a subgradient.

    Returns:
        (), nats.

    Raises:
        ValueError: as :func:`differentiable_values`, and where the bound is -inf,
            which has no derivative.

    >>> import dataclasses, cai
    >>> from cai import inference, models
    >>> table = cai.tabulate(models.ledge())
    >>> reward = table.reward.clone().requires_grad_()
    >>> inference.differentiable_bound(dataclasses.replace(table, reward=reward), 1.0).backward()
    >>> round(reward.grad.sum().item(), 6) == table.horizon  # the expected number of actions
    True
    """
    v, _, _ = solve(table, optimism, rule, None)
    first = v if table.horizon is None else v[0]
    return _soft_mean(float(optimism))(table.log_initial, first)[0]


def _soft_mean(eta: float) -> Operation:
    """(1/η) log E_p[exp(ηx)], (S,) and (S,) -> ()."""

    def mean(log_p: Tensor, x: Tensor) -> Tensors:
        found = logspace.soft_mean(log_p.log_softmax(-1), x, eta)
        check_bound(found)
        return (found,)

    def pullback(needed: Needed) -> Operation:
        def tape(log_p: Tensor, x: Tensor, _: Tensor, on: Tensor) -> Tensors:
            log_p = log_p.log_softmax(-1)
            tilted = logspace.tilt(log_p, x, eta).exp()
            by_log_p = on * lean(log_p, x, tilted, eta) if needed[0] else None
            return chosen((by_log_p, on * tilted), needed)

        return taped(tape)

    return Operation(mean, pullback)
