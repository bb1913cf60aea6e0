"""A learnt critic as the baseline of the score function, and generalised advantages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.evaluation.problem import as_problem
from cai.inference.gradients.gradient import Estimator
from cai.inference.gradients.score_function import leave_one_out, scored, surrogate
from cai.policies.critics import NeuralCritic, TabularCritic
from cai.program.episode import check_policy
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table


def critic_gradient(
    model: TrajectoryModel | Table, policy: nn.Module, samples: int, *, lam: float = 1.0
) -> Estimator:
    """The score-function estimator weighted by advantages over a critic v (GAE, Schulman 2016).

        A_t = Σ_k λ^k δ_{t+k},    δ_t = (r + r⁺)/α + log p(a_t|s_t) - log q(a_t|s_t)
                                        + v_{t+1}(s_{t+1}) - v_t(s_t)

    The critic is a table of means for finitely many states, else a network of (t, s). It learns the
    soft reward to go, in nats, from trajectories after its values have been used for them: so
    λ = 1, the reward to go minus v_t(s_t), is unbiased even if the critic is wrong. With λ < 1 the
    critic replaces later rewards, with less noise and a bias from its errors. The mean over the
    other trajectories is subtracted from each advantage, so that an untrained critic does no harm.

    As an estimator of ``fit``: ``estimator="critic"``, or ``functools.partial(critic_gradient,
    lam=0.95)`` for another λ.

    Args:
        model: any program.
        policy: any policy that can be scored along a trajectory.
        samples: trajectories per call, at least two.
        lam: λ in [0, 1].

    Returns:
        An estimator: a call adds the gradient of -ELBO to those of the parameters and returns an
        estimate of -ELBO, nats.

    Raises:
        ValueError: if λ is not in [0, 1], samples is 1, the horizon is infinite, or the
            model is a table.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> policy = cai.TabularPolicy(model)
    >>> estimator = inference.critic_gradient(model, policy, samples=50, lam=0.9)
    >>> minus_elbo = estimator()
    >>> policy.logits.grad.shape
    torch.Size([4, 5, 2])
    """
    checks.check_share("lam", lam, "1 is unbiased")
    program = as_problem(model).program
    if program is None:
        checks.refuse("critic", "a model whose program can be run", "its table", "pass the model")
    check_policy(policy)
    checks.check_count("samples", samples, 2, "each is a baseline of the others")
    checks.finite_horizon(program, "fit")
    finite = support_size(program.initial) is not None
    critic: TabularCritic | NeuralCritic = (
        TabularCritic(program) if finite else NeuralCritic(program)
    )
    return _Estimator(program, policy, samples, lam, critic)


@dataclass(frozen=True, eq=False)
class _Estimator:
    """The gradient, and the critic that it learns."""

    model: TrajectoryModel
    policy: nn.Module
    samples: int
    lam: float
    module: TabularCritic | NeuralCritic  # see Estimator

    def __call__(self) -> float:
        drawn = scored(self.model, self.policy, self.samples)
        alive, s = drawn.alive, drawn.paths.states[:, :-1]
        with torch.no_grad():
            v = torch.where(alive, self.module(torch.arange(s.shape[1]), s), 0.0)
            final = (drawn.paths.final_rewards / self.model.temperature).unsqueeze(1)
            residuals = drawn.terms + torch.cat([v[:, 1:], final], 1) - v
            advantage = torch.where(alive, _accumulated(residuals, self.lam), 0.0)
            advantage = advantage - leave_one_out(advantage, alive=alive)
            weight = torch.where(alive, advantage, 0.0) / self.samples
        surrogate(drawn.log_q, weight).backward()
        self.module.learn(s, drawn.to_go, alive)
        return -drawn.to_go[:, 0].mean().item()


def _accumulated(residuals: Tensor, lam: float) -> Tensor:
    """Σ_k λ^k δ_{t+k}, (n, T)."""
    total, parts = torch.zeros_like(residuals[:, 0]), []
    for residual in reversed(residuals.unbind(1)):
        total = residual + lam * total
        parts.append(total)
    return torch.stack(parts[::-1], 1)
