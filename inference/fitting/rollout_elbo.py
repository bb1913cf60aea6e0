"""The estimators as an objective of Pyro's, so that plain ``SVI`` takes the fast path."""

from __future__ import annotations

from typing import Any

from pyro.infer import Trace_ELBO
from torch import nn

from cai import checks
from cai.evaluation.evaluate import evaluate
from cai.inference.gradients import estimators
from cai.inference.gradients.estimators import EstimatorChoice
from cai.inference.gradients.gradient import Estimator
from cai.program.episode import check_policy, register, remembers
from cai.tables.tabulation import enumerable


class RolloutELBO(Trace_ELBO):
    """The ELBO of ``model.rollout(policy)`` with the gradients that ``fit`` takes.

    ``SVI(model, model.rollout(policy), optim, RolloutELBO())`` is what it would be with Pyro's
    ``Trace_ELBO()``, but for the noise of its gradients and the time they take: neither program is
    traced.

    Args:
        estimator: as in :func:`cai.inference.fit`; "renyi" is ``renyi_elbo``, on its own.
        samples: trajectories a step, where they are sampled.

    Raises:
        ValueError: if there is no estimator of that name; and from ``step``, where the guide is
            no rollout of a policy with parameters, or the estimator needs another model.
    """

    def __init__(self, estimator: EstimatorChoice = "auto", samples: int = 100) -> None:
        estimators.check_name(estimator)
        if estimator == "renyi":
            checks.refuse("estimator", "one of the ELBO's", '"renyi"', "take inference.renyi_elbo")
        checks.check_count("samples", samples, 2, "the baseline needs another one")
        super().__init__(num_particles=samples)
        self.estimator = estimator
        self._built: tuple[Any, Any, Estimator] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What it has built for a model and a policy is built again where it is needed."""
        return self.__dict__ | {"_built": None}

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """-ELBO in nats: exact where the model can be enumerated, else from 10 000 trajectories."""
        policy = _policy_of(model, guide)
        register(policy)
        return -evaluate(model, policy).elbo

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """-ELBO in nats, exact or estimated; adds its gradient to the policy's parameters."""
        policy = _policy_of(model, guide)
        register(policy)
        if self._built is None or self._built[0] is not model or self._built[1] is not policy:
            table = None if remembers(policy) else enumerable(model)
            _, estimate = estimators.build(self.estimator, model, policy, table, self.num_particles)
            self._built = model, policy, estimate
        return self._built[2]()


def _policy_of(model: Any, guide: Any) -> nn.Module:
    """The policy whose rollout in the model a guide is."""
    policy = getattr(guide, "policy", None)
    if not hasattr(model, "rollout") or not isinstance(policy, nn.Module):
        checks.refuse(
            "RolloutELBO",
            "SVI(model, model.rollout(policy), …) with a policy that is a torch module",
            f"{type(model).__name__} and {getattr(guide, '__qualname__', type(guide).__name__)}",
            "any other guide goes with Pyro's own Trace_ELBO()",
        )
    check_policy(policy)
    if not any(p.requires_grad for p in policy.parameters()):
        checks.refuse(
            "policy",
            "one with parameters to train",
            f"{type(policy).__name__} without any",
            "for instance cai.TabularPolicy(model)",
        )
    return policy
