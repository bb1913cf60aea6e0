"""A policy as the action prior of a model: trust regions, transfer and demonstrations are that."""

from __future__ import annotations

import copy

from torch import nn

from cai import checks
from cai.program.calling import AsPrior
from cai.program.episode import check_policy, has_latents, remembers
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.tables.tabulation import replaced


def with_prior(model: TrajectoryModel, policy: Policy) -> TrajectoryModel:
    """The same problem with a policy as its action prior p(a|s), which may depend on the step.

    What is then charged for acting is the divergence from that policy. With the best policy π₁ of
    rewards r₁ in its place (``soft_values`` at optimism 0) the values of rewards r₂ are
    V = V₁₊₂ - V₁ and their policy is that of r₁ + r₂, in the same dynamics, stochastic ones
    included; of a finite horizon π₁ depends on the step, and so does the prior.

    Args:
        model: any but a linear-Gaussian one, whose prior has to be Gaussian.
        policy: (t, s) -> q(a_t|s_t), without a memory or latents; what is trained is copied as it
            stands. With an infinite horizon one that does not change with the step.

    Returns:
        The model, of the same kind; with ``action_prior`` a function of s and t.

    Raises:
        ValueError: if the policy remembers, draws latents, or does not fit the model, or the model
            is a table or linear-Gaussian.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> careful = inference.soft_values(model)
    >>> again = cai.with_prior(model, careful.policy)
    >>> cai.evaluate(again, careful.policy).elbo <= inference.soft_values(again).elbo
    True
    """
    checks.check_model(model)
    check_policy(policy)
    if remembers(policy) or has_latents(policy):
        checks.refuse(
            "policy",
            "a policy of the step and the state, as an action prior is",
            f"{type(policy).__name__}, which remembers or draws latents",
            "take cai.TabularPolicy or cai.NeuralPolicy",
        )
    fixed = copy.deepcopy(policy) if isinstance(policy, nn.Module) else policy
    return replaced(model, action_prior=AsPrior(fixed))
