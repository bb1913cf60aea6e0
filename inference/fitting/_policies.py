"""What a fit asks of a policy: a copy, its description, and whether it is one for the problem."""

from __future__ import annotations

from torch import nn

from cai import checks
from cai.evaluation.problem import Problem
from cai.inference.gradients import estimators
from cai.program.episode import check_policy
from cai.program.interfaces import Belief


def described(policy: nn.Module) -> str:
    """The name of a policy, the shapes of its parameters, and what else it says of itself."""
    shapes = [f"{name} {list(p.shape)}" for name, p in policy.named_parameters()]
    return f"{type(policy).__name__}({', '.join(filter(None, [*shapes, policy.extra_repr()]))})"


def check_guide(policy: nn.Module, problem: Problem) -> None:
    """Raises ValueError if a guide was made for another problem."""
    if isinstance(policy, Belief) and not policy.is_of(problem):
        checks.refuse(
            "policy",
            "a guide for the dynamics of the model that is fitted",
            f"{type(policy).__name__} of another problem, whose rewards it would be trained for",
            "make a new one, cai.DynamicsGuide(model, optimism)",
        )


def check(policy: object, estimator: object, steps: int, samples: int) -> None:
    """Raises ValueError unless a fit can train a policy by an estimator in so many steps."""
    if not isinstance(policy, nn.Module) or not any(p.requires_grad for p in policy.parameters()):
        raise ValueError(
            "policy: fit trains the parameters of a torch module, got "
            f"{type(policy).__name__} without any; take cai.TabularPolicy(model) or "
            "cai.NeuralPolicy(model), and for a policy that calls pyro.param use "
            "SVI(model, model.rollout(policy), optim, Trace_ELBO())"
        )
    check_policy(policy)
    estimators.check_name(estimator)
    checks.check_count("steps", steps)
    checks.check_count("samples", samples, 2, "the baseline needs a second trajectory")
