"""The textbook method: Pyro's own parallel enumeration of the whole program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor

from cai import checks, one_line
from cai.distributions.exact_scores import log_probs
from cai.numerics.exclusive import cached_property, exclusive
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.tables.tabulation import collapse


@dataclass(frozen=True, eq=False)
class Enumeration:
    """The result of Pyro's enumeration of all T steps of a program, in float64.

    Attributes:
        model: the collapsed model that was enumerated.
        log_evidence: (), nats: log p(O), every site summed out in the model.
        elbo: (), nats: the exact ELBO of the policy, every site summed in the guide; None without
            a policy.

    >>> from cai import inference, models
    >>> found = inference.enumeration(models.ledge(horizon=2))
    >>> sorted(found.marginals)
    ['a_0', 'a_1', 's_0', 's_1', 's_2']
    """

    model: TrajectoryModel
    log_evidence: float
    elbo: float | None

    __repr__ = one_line.of_fields

    @cached_property
    def marginals(self) -> dict[str, Tensor]:
        """p(site|O) of ``s_0``, ``a_0``, … by name; the cost grows with the square of T.

        With a discount there are sites ``alive_1``, …, and states and actions after termination,
        which continue unobserved, are included.
        """
        program = config_enumerate(self.model, "parallel")
        with exclusive():
            found = TraceEnum_ELBO(max_plate_nesting=0).compute_marginals(program, _nothing)
        sizes = {name: d.enumerate_support(expand=False).shape[0] for name, d in found.items()}
        return {name: log_probs(d, sizes[name]).exp() for name, d in found.items()}


@exclusive()
def enumeration(model: TrajectoryModel, policy: Policy | None = None) -> Enumeration:
    """log p(O) and marginals by Pyro's enumeration: a second opinion on small models.

    Pyro's ``TraceEnum_ELBO`` runs ``cai.collapse(model)``, whose dynamics have no latent sites
    left: dynamics that return a ``Delta`` of latents would carry along the dimensions of all
    earlier steps, at a cost exponential in T.

    Args:
        model: a model with finitely many states and actions and a finite horizon.
        policy: if given, its ELBO is enumerated in the guide ``model.rollout(policy)``.

    Returns:
        An :class:`Enumeration`: log p(O), marginals of all sites, and the ELBO of the policy.

    Raises:
        ValueError: if the model cannot be tabulated, or its horizon is infinite.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> second = inference.enumeration(model)
    >>> abs(second.log_evidence - inference.posterior(model).log_evidence) < 1e-9
    True
    """
    checks.check_model(model)
    checks.finite_horizon(model, "enumeration")
    collapsed = collapse(model)
    program = config_enumerate(collapsed, "parallel")
    log_evidence = -_loss(program, _nothing)
    elbo = None
    if policy is not None:
        elbo = -_loss(collapsed, config_enumerate(collapsed.rollout(policy), "parallel"))
    return Enumeration(collapsed, float(log_evidence), None if elbo is None else float(elbo))


def _loss(model: Any, guide: Any) -> Any:
    """Pyro's loss, without the shapes of all sites that it appends to an error."""
    try:
        return TraceEnum_ELBO(max_plate_nesting=0).loss(model, guide)
    except ValueError as error:
        raise ValueError(str(error).split("\n")[0]) from error


def _nothing() -> None:
    """The empty guide, with which all sites are summed in the model."""
