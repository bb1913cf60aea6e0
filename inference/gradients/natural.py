"""The natural gradient of any policy from its own trajectories, by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cai import checks
from cai.evaluation.problem import as_problem
from cai.inference.gradients.gradient import Estimator
from cai.inference.gradients.score_function import leave_one_out, scored
from cai.program.episode import check_policy
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table

_SMALL = 1e-6  # the residual, relative to the gradient, at which the iteration ends


def natural_gradient(
    model: TrajectoryModel | Table,
    policy: nn.Module,
    samples: int,
    *,
    damping: float = 1e-3,
    iterations: int = 50,
    radius: float | None = 5.0,
) -> Estimator:
    """The direction of steepest ascent where policies are as far apart as their KL (Kakade 2002).

        (F + λ I) x = ∇ELBO,    F = E Σ_t ∇log q(a_t|s_t) ∇log q(a_t|s_t)ᵀ  while alive

    with both sides from the same trajectories: x is the ridge regression of the advantages of the
    score-function estimator on the scores of the actions (compatible features, Sutton et al. 2000).
    F is never formed: each iteration of conjugate gradients takes its product with a vector, two
    passes backwards through log q. What a step changes in the policy does not depend on how it is
    parametrised, but for the damping. For a table without noise it is the step of "mirror".

    A step along x at rate one changes the distribution of trajectories by a KL of ½ xᵀFx nats to
    second order; x is scaled down where that exceeds ``radius`` (Schulman et al. 2015). At rate one
    the noise of the samples goes into the policy undamped, and may end actions for good.

    As an estimator of ``fit``: ``estimator="natural"``, which takes plain steps at a rate that
    falls from 0.3; or ``functools.partial(natural_gradient, radius=1.0)`` for other settings, with
    ``optimizer=functools.partial(torch.optim.SGD, lr=0.3)``.

    Args:
        model: any program.
        policy: any policy that can be scored along a trajectory.
        samples: trajectories per call, at least two.
        damping: λ, relative to gᵀFg/gᵀg of the gradient g.
        iterations: conjugate-gradient iterations at most.
        radius: the largest KL of a step at rate one, nats per trajectory; None for any.

    Returns:
        An estimator: a call adds -x to the gradients of the parameters and returns an estimate of
        -ELBO, nats.

    Raises:
        ValueError: if a number is out of range, samples is 1, the horizon is infinite, or the model
            is a table.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> policy = cai.TabularPolicy(model)
    >>> fitted = inference.fit(model, policy, estimator="natural", steps=100, progress=False)
    >>> inference.soft_values(model).elbo - fitted.elbo < 0.05
    True
    """
    program = as_problem(model).program
    if program is None:
        checks.refuse("natural", "a model whose program can be run", "its table", "pass the model")
    check_policy(policy)
    checks.check_count("samples", samples, 2, "each is a baseline of the others")
    damping = checks.check_positive("damping", damping)
    checks.check_count("iterations", iterations)
    if radius is not None:
        radius = checks.check_positive("radius", radius)
    checks.finite_horizon(program, "fit")

    def estimate() -> float:
        drawn = scored(program, policy, samples)
        parameters = [p for p in policy.parameters() if p.requires_grad]
        advantage = torch.where(drawn.alive, drawn.to_go - leave_one_out(drawn.to_go), 0.0)
        fisher = _Fisher(drawn.log_q, parameters, drawn.alive.double() / samples)
        gradient = fisher.pulled_back(advantage / samples)
        product = fisher(gradient)
        size = gradient @ gradient
        if size > 0:
            shift = damping * (gradient @ product / size)
            x = _solved(lambda v: fisher(v) + shift * v, gradient, iterations)
            if radius is not None:
                x = x * min(1.0, (2 * radius / (x @ fisher(x)).item()) ** 0.5)
        else:
            x = gradient
        fisher.add(-x)
        return -drawn.to_go[:, 0].mean().item()

    return estimate


class _Fisher:
    """v -> Jᵀ D J v, with J = ∂ log q/∂θ, and D the weights of the steps.

    Args:
        log_q: (n, T), with its graph.
        parameters: θ.
        weights: (n, T), D.
    """

    def __init__(self, log_q: Tensor, parameters: list[nn.Parameter], weights: Tensor) -> None:
        self._log_q, self._weights, self._parameters = log_q, weights, parameters
        self._probe = torch.zeros_like(log_q, requires_grad=True)
        self._back = self._vjp(self._probe, create_graph=True)  # Jᵀ probe, linear in the probe

    def _vjp(self, v: Tensor, create_graph: bool = False) -> list[Tensor]:
        found = torch.autograd.grad(
            self._log_q,
            self._parameters,
            v,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
        pairs = zip(found, self._parameters, strict=True)
        return [torch.zeros_like(p) if x is None else x for x, p in pairs]

    def pulled_back(self, v: Tensor) -> Tensor:
        """Jᵀ v, (P,), float64, from (n, T)."""
        return _flat(self._vjp(v.to(self._log_q.dtype)))

    def __call__(self, v: Tensor) -> Tensor:
        """Jᵀ D J v, (P,), float64."""
        parts = [(x, y) for x, y in zip(self._back, self._split(v), strict=True) if x.grad_fn]
        back, along = zip(*parts, strict=True)
        (pushed,) = torch.autograd.grad(back, self._probe, along, retain_graph=True)
        return self.pulled_back(self._weights * pushed)

    def add(self, x: Tensor) -> None:
        """Adds x, (P,), to the gradients of the parameters."""
        for p, part in zip(self._parameters, self._split(x), strict=True):
            p.grad = part.clone() if p.grad is None else p.grad + part

    def _split(self, v: Tensor) -> list[Tensor]:
        sizes = [p.numel() for p in self._parameters]
        pairs = zip(v.split(sizes), self._parameters, strict=True)
        return [x.view_as(p).to(p.dtype) for x, p in pairs]


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([x.detach().reshape(-1).double() for x in parts])


def _solved(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """x with A x = b, (P,), for a positive definite A, by conjugate gradients from zero."""
    x, residual = torch.zeros_like(b), b.clone()
    direction, size = residual.clone(), residual @ residual
    enough = _SMALL**2 * size
    for _ in range(iterations):
        if not size > enough:
            break
        pushed = product(direction)
        share = size / (direction @ pushed)
        x, residual = x + share * direction, residual - share * pushed
        before, size = size, residual @ residual
        direction = residual + (size / before) * direction
    return x
