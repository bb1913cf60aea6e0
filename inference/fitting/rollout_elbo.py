"""The estimators as a Pyro objective, so that plain ``SVI`` is as fast as ``fit``."""

from __future__ import annotations

from typing import Any

from pyro.infer import Trace_ELBO
from torch import nn

from cai import checks, one_line
from cai.evaluation.evaluate import evaluate
from cai.inference.gradients import estimators
from cai.inference.gradients.estimators import EstimatorChoice
from cai.inference.gradients.gradient import Estimator
from cai.program.episode import check_policy, register, remembers
from cai.tables.tabulation import enumerable


class RolloutELBO(Trace_ELBO):
    """The ELBO of ``model.rollout(policy)`` with the gradient estimators of ``fit``.

    ``SVI(model, model.rollout(policy), optim, RolloutELBO())`` does the same as with Pyro's
    ``Trace_ELBO()``, with less noise and in less time: neither program is traced.

    Args:
        estimator: as in :func:`cai.inference.fit`; "renyi" is ``renyi_elbo``, on its own.
        samples: trajectories per step, if they are sampled.

    Raises:
        ValueError: if there is no estimator of that name; from ``step``, if the guide is not the
            rollout of a policy with parameters, or the estimator needs another model.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> loss = inference.RolloutELBO().loss(model, model.rollout(cai.TabularPolicy(model)))
    >>> round(loss, 2)  # minus the ELBO of the prior
    3.5
    """

    def __init__(self, estimator: EstimatorChoice = "auto", samples: int = 100) -> None:
        estimators.check_name(estimator)
        if estimator == "renyi":
            checks.refuse("estimator", "one of the ELBO's", '"renyi"', "take inference.renyi_elbo")
        checks.check_count("samples", samples, 2, "the baseline needs a second trajectory")
        super().__init__(num_particles=samples)
        self.estimator = estimator
        self._built: tuple[Any, Any, Estimator] | None = None

    def __repr__(self) -> str:
        estimator = one_line.brief(self.estimator)
        return one_line.named(
            "RolloutELBO", f"estimator={estimator}", f"samples={self.num_particles}"
        )

    def __getstate__(self) -> dict[str, Any]:
        """The state without estimators built for a model and a policy, which are built again."""
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
