"""Which estimator of the ELBO's gradient fits a model and a policy, and what the policy needs."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Literal, NoReturn, TypeAlias, get_args

import torch
from torch import Tensor, nn

from cai import checks
from cai.evaluation.exact_evaluation import of_histories, of_linear_policy
from cai.evaluation.problem import as_problem
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.inference.gradients.critic import critic_gradient
from cai.inference.gradients.enumerated import (
    enumerated_gradient,
    enumerated_program_gradient,
    num_actions,
)
from cai.inference.gradients.exact_gradient import exact_gradient
from cai.inference.gradients.gaussian_mirror import gaussian_mirror_gradient
from cai.inference.gradients.gradient import Estimator, EstimatorFactory, checked
from cai.inference.gradients.guarded import Guarded, raising
from cai.inference.gradients.mirror import mirror_gradient
from cai.inference.gradients.natural import natural_gradient
from cai.inference.gradients.pathwise import pathwise_gradient
from cai.inference.gradients.renyi_gradient import renyi_gradient
from cai.inference.gradients.score_function import score_gradient
from cai.policies.dynamics_guide import DynamicsGuide
from cai.policies.history import HistoryPolicy
from cai.policies.tabular import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.sweeps import sweeps
from cai.tables import bellman
from cai.tables.table import Table

_LOG = logging.getLogger("cai.fit")

EstimatorName: TypeAlias = Literal[
    "auto", "exact", "mirror", "enumerated", "pathwise", "score", "critic", "natural", "renyi"
]
PLAIN = {"mirror": 1.0, "natural": 0.3}  # rates of those whose steps are taken without Adam
EstimatorChoice: TypeAlias = EstimatorName | EstimatorFactory


def check_name(name: object) -> None:
    """Raises ValueError unless it is the name of an estimator, or a function that makes one."""
    names = get_args(EstimatorName)
    if not callable(name) and not (isinstance(name, str) and name in names):
        expected = ", ".join(f'"{known}"' for known in names)
        raise ValueError(
            f"estimator: expected one of {expected}, or a function (model, policy, samples) that "
            f'makes one, got {" ".join(repr(name).split())[:200]}; "auto" chooses'
        )


def build(
    name: EstimatorChoice,
    model: TrajectoryModel | Table,
    policy: nn.Module,
    table: Table | None,
    samples: int,
    optimism: float = 0.0,
    rate: float = 1.0,
) -> tuple[str, Estimator]:
    """The estimator of a name, and its name, since "auto" takes the best one possible.

    Args:
        name: its name, or a function that makes one.
        model: the model.
        policy: the policy whose parameters get the gradient.
        table: the table of the model; None if it has none, or the policy has a memory.
        samples: trajectories per call, if they are sampled.
        optimism: η of the bound for "renyi".
        rate: the step size along a natural gradient.

    Raises:
        ValueError: if the estimator needs another kind of model or policy.
    """
    if not isinstance(name, str):
        made = getattr(name, "func", name)  # of a partial
        expected = "a function (model, policy, samples) that makes an estimator"
        with raising("estimator", expected, "see inference.critic_gradient"):
            estimate = name(model, policy, samples)
        if not callable(estimate):
            checks.refuse(
                "estimator",
                "a function that makes an estimator, () -> -ELBO in nats",
                f"one that returns {type(estimate).__name__}",
                "see inference.critic_gradient",
            )
        own = getattr(made, "__module__", "").startswith("cai.")
        return getattr(made, "__name__", type(made).__name__), estimate if own else Guarded(
            estimate
        )
    problem = as_problem(model)
    if name in ("auto", "exact"):
        exact = _exact(model, policy, table)
        if exact is not None:
            return "exact", exact
    if name == "exact":
        _refuse(
            name,
            "a model with finitely many states and actions and discrete sites, whose steps are "
            "alike and can be tabulated, and a policy without a memory",
            "another one",
            '"score", which works for any',
        )
    if name == "enumerated" and table is not None:
        return name, enumerated_gradient(table, policy, samples)
    if name == "mirror":
        return name, _mirror(problem.gaussian, policy, table, rate)
    program = problem.program
    if program is None:
        _refuse(name, "a model whose program can be run", "its table", '"exact" or "enumerated"')
    if name == "pathwise":
        return name, pathwise_gradient(program, policy, samples)
    if name == "critic":
        return name, critic_gradient(program, policy, samples)
    if name == "natural":
        return name, natural_gradient(program, policy, samples)
    if name == "renyi":
        return name, renyi_gradient(program, policy, samples, optimism=optimism)
    A = None if name == "score" else num_actions(program)
    if A is not None:
        return "enumerated", enumerated_program_gradient(program, policy, A, samples)
    if name == "enumerated":
        _refuse(name, "finitely many actions", "an action_prior over others", '"score"')
    return "score", score_gradient(program, policy, samples)


_WHY = {
    "exact": "the ELBO of this policy in this model is known without sampling",
    "enumerated": "the policy has to be sampled, and actions are finitely many",
    "score": "the policy has to be sampled, and actions are not finitely many",
}


def log_choice(asked: object, name: str, policy: nn.Module) -> None:
    """Says in the log which estimator trains a policy, and why "auto" took it."""
    why = f', taken by "auto" as {_WHY[name]}' if asked == "auto" else ""
    _LOG.info("fit: %s by the estimator %s%s", type(policy).__name__, name, why)


def default_rate(name: str, policy: nn.Module) -> float:
    """The step size for an estimator: a table takes larger ones of Adam than a network."""
    if name in PLAIN:
        return PLAIN[name]
    return 0.2 if isinstance(policy, TabularPolicy) else 0.01


def forbid_the_fatal(policy: nn.Module, table: Table) -> None:
    """Masks the actions of a table that can lead to -inf, in states where another avoids it.

    A policy of finite ELBO cannot take such an action, and no gradient shows that.
    """
    tensors = (table.reward, table.arrival_reward, table.final_reward)
    if not isinstance(policy, TabularPolicy) or policy.observations is not None:
        return
    if all(x is None or x.isfinite().all() for x in tensors):
        return
    v = sweeps.backward(table, 0.0)
    q = bellman.action_values(table, v[1:], 0.0)
    fatal = (q == -torch.inf) & (v[:-1] > -torch.inf).unsqueeze(-1)
    if policy.logits.dim() == 2:
        fatal = fatal.any(0)
    policy.log_prior = policy.log_prior.masked_fill(fatal, -torch.inf)


def _exact(
    model: TrajectoryModel | Table, policy: nn.Module, table: Table | None
) -> Estimator | None:
    """The exact estimator; None if the gradient is not known exactly."""
    in_closed_form = closed_form_gradient(model, policy)
    if in_closed_form is not None or table is None:
        return in_closed_form
    return exact_gradient(table, policy)


def closed_form_gradient(model: TrajectoryModel | Table, policy: nn.Module) -> Estimator | None:
    """The estimator of an ELBO that is known in closed form; None for any other.

    It is known for a linear-Gaussian policy in such a model, a table of histories, and a guide of
    the dynamics, whose objective is its imagined bound.
    """
    problem = as_problem(model)
    if problem.gaussian is not None and isinstance(policy, LinearGaussianPolicy):
        found: Any = partial(of_linear_policy, problem.gaussian, policy)
    elif isinstance(policy, HistoryPolicy) and problem.table is not None:
        found = partial(of_histories, problem.table, policy)
    elif isinstance(policy, DynamicsGuide):
        found = partial(policy.objective, float(model.temperature))
    else:
        return None

    def estimate() -> float:
        value = found()
        loss: Tensor = -(value if isinstance(value, Tensor) else value.elbo)
        checked(-loss.item())
        loss.backward()
        return loss.item()

    return estimate


def _mirror(
    model: LinearGaussian | None, policy: nn.Module, table: Table | None, rate: float
) -> Estimator:
    """The natural gradient, for the two kinds of policy that have one in closed form."""
    if table is not None and isinstance(policy, TabularPolicy) and policy.observations is None:
        return mirror_gradient(table, policy, rate)
    if model is not None and isinstance(policy, LinearGaussianPolicy):
        return gaussian_mirror_gradient(model, policy, rate)
    came = f"{type(policy).__name__} in {'a program' if table is None else 'a table'}"
    _refuse(
        "mirror",
        "a TabularPolicy without observe=, for a table, or a LinearGaussianPolicy, in a "
        "linear-Gaussian model",
        came,
        '"auto"',
    )


def _refuse(name: str, expected: str, came: str, instead: str) -> NoReturn:
    checks.refuse(f'estimator "{name}"', expected, came, f"take {instead}")
