"""Stochastic variational inference: the ELBO of a policy in the true dynamics, by its gradient."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cai import bellman, checks
from cai.episode import remembers
from cai.evaluate import enumerable, evaluate
from cai.inference import estimators
from cai.inference.estimators import EstimatorName
from cai.inference.gradient import Estimator
from cai.inference.renyi_gradient import check_order
from cai.policy import TabularPolicy
from cai.table import Table
from cai.trajectory import TrajectoryModel

_WINDOW = 50  # steps that the running mean of the losses covers
_ROUNDING = 1e-11  # what is left of a natural gradient of zero, relative to the ELBO above one


@dataclass(frozen=True, eq=False)
class Fit:
    """A policy trained by the ELBO.

    Attributes:
        policy: the trained copy of the policy that was passed.
        elbo: (), nats: exact where the model can be enumerated, else from 10 000 trajectories.
        losses: (steps,), nats: -ELBO at each step, estimated where the gradient was sampled.
        estimator: the name of the estimator of the gradient: what "auto" chose, or what was asked.
    """

    policy: nn.Module
    elbo: float
    losses: Tensor
    estimator: str

    @property
    def running_mean(self) -> Tensor:
        """(steps,), nats: the mean of the last 50 losses, or of as many as there were."""
        total = torch.cat([self.losses.new_zeros(1), self.losses.cumsum(0)])
        last = torch.arange(1, len(total))
        first = (last - _WINDOW).clamp(min=0)
        return (total[last] - total[first]) / (last - first)


def fit(
    model: TrajectoryModel | Table,
    policy: nn.Module,
    *,
    estimator: EstimatorName = "auto",
    optimism: float = 0.0,
    steps: int = 2000,
    particles: int = 100,
    learning_rate: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    """Maximises the ELBO over policies that keep the true dynamics (Levine 2018, eqs. 20-22).

    The guide is ``model.rollout(policy)``. Its ELBO is at most the bound of
    ``soft_values(model, optimism=0)``. Its gradient comes from an unbiased estimator:

    * "exact": through the occupancies, where the model can be tabulated and the policy has no
      memory but a table; for a linear-Gaussian policy in such a model, in closed form. Nothing is
      sampled.
    * "mirror": the natural gradient of a table, exact. A step of one reaches the optimum in at most
      T steps, and ½ halves what is left in each.
    * "enumerated": for finitely many actions, in states that are sampled. What a step pays is
      summed over the actions, what comes after it weighted by the score of the action drawn.
    * "score": trajectories are simulated and the score function is weighted by the reward to go
      (Williams 1992), less the mean of the other particles. For every program.

    * "pathwise": trajectories are differentiated, where all that lies between an action and the
      rewards after it is reparameterised (``rsample``). Little noise as a rule, but blind to jumps:
      the return must be a continuous function of the actions. Over hundreds of steps of unstable
      dynamics its gradients explode.

    "auto" takes "exact" where it can be had, else "enumerated", else "score", and ``Fit.estimator``
    says which. Adam's rate decays by a factor of 100 over the steps, and the loop ends early once
    the losses no longer fall; "mirror" takes equal steps until its gradient is zero.

    A copy is trained; the policy that was passed, and Pyro's parameter store, stay as they are.
    An interrupt (Ctrl-C) ends the loop and returns what was reached; passing ``fitted.policy``
    goes on from there.

    Args:
        model: the model, or its table.
        policy: a torch module (t, s) -> distribution, the starting point.
        estimator: of the gradient, see above.
        optimism: η ≤ 1 of "renyi", which maximises not the ELBO but a bound of K = particles
            trajectories: the importance-weighted one at η = 1, and as K grows that of
            ``soft_values(model, optimism=η)``. Its losses are of that bound. A policy that is
            fitted so counts on luck that it does not have, so that there is a warning.
        steps: at most so many steps.
        particles: trajectories a step, where sampled; at least two, for the baseline.
        learning_rate: of Adam at the start; 0.2 for a table and 0.01 for a network if not given.
            For "mirror" its step size, one if not given.
        seed: of the simulation.
        progress: whether to show a progress bar on a terminal.

    Raises:
        ValueError: where the policy has no parameters or does not fit the model, the ELBO is -inf
            because a reward of -inf cannot be avoided by the policy, the horizon is infinite, or
            the estimator needs a model or a policy of another kind.
    """
    _check(policy, estimator, steps, particles, learning_rate)
    checks.finite_horizon(model, "fit")
    check_order(estimator, optimism)
    policy = copy.deepcopy(policy)
    table = None if remembers(policy) else enumerable(model)
    if table is not None:
        _forbid_the_fatal(policy, table)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        name, estimate = estimators.build(estimator, model, policy, table, particles, optimism)
        optimizer = _optimizer(name, policy, learning_rate)
        with contextlib.nullcontext() if table is None else table.threads():
            losses = _descend(estimate, optimizer, steps, progress)
    elbo = evaluate(model if table is None else table, policy, seed=seed).elbo
    return Fit(policy, elbo, losses, name)


def _optimizer(name: str, policy: nn.Module, rate: float | None) -> torch.optim.Optimizer:
    """Adam, or steps along the gradient itself where it is the natural one."""
    if rate is None:
        rate = 1.0 if name == "mirror" else 0.2 if isinstance(policy, TabularPolicy) else 0.01
    if name == "mirror":
        return torch.optim.SGD(policy.parameters(), lr=rate)
    # Without noise a short memory serves Adam best: gradients shrink as probabilities settle.
    betas = (0.8, 0.95) if name == "exact" else (0.9, 0.999)
    return torch.optim.Adam(policy.parameters(), lr=rate, betas=betas)


def _descend(
    estimate: Estimator, optimizer: torch.optim.Optimizer, steps: int, progress: bool
) -> Tensor:
    """Steps until there is nothing to gain, of decaying size by Adam; the losses of all of them."""
    natural = isinstance(optimizer, torch.optim.SGD)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 1 if natural else 0.01 ** (1 / steps))
    losses: list[float] = []
    bar = tqdm(total=steps, desc="fit", unit="step", disable=None if progress else True)
    with bar:
        try:
            while len(losses) < steps and not (
                _at_rest(optimizer, losses) if natural else _plateau(losses, steps)
            ):
                optimizer.zero_grad()
                losses.append(estimate())
                optimizer.step()
                decay.step()
                bar.update()
                if len(losses) % _WINDOW == 0:
                    bar.set_postfix(elbo=f"{-sum(losses[-_WINDOW:]) / _WINDOW:.4f} nats")
        except KeyboardInterrupt:
            bar.write("fit: interrupted, returning what was reached")
    return torch.tensor(losses, dtype=torch.float64)


def _at_rest(optimizer: torch.optim.Optimizer, losses: list[float]) -> bool:
    """Whether the gradient of the last step was zero but for rounding errors."""
    if not losses:
        return False
    slopes = [p.grad for group in optimizer.param_groups for p in group["params"]]
    tiny = _ROUNDING * max(1.0, abs(losses[-1]))
    return all(slope is None or bool(slope.abs().max() <= tiny) for slope in slopes)


def _plateau(losses: list[float], steps: int) -> bool:
    """Whether the mean loss of the last fifth of the budget is no lower than of the one before."""
    window = max(_WINDOW, steps // 5)
    n = len(losses)
    if n < 2 * window or n % _WINDOW:
        return False
    last = sum(losses[-window:]) / window
    before = sum(losses[-2 * window : -window]) / window
    return before - last < 1e-6 * max(1.0, abs(last))


def _check(
    policy: object, estimator: object, steps: int, particles: int, rate: float | None
) -> None:
    if not isinstance(policy, nn.Module) or not any(p.requires_grad for p in policy.parameters()):
        raise ValueError(
            "policy: fit trains the parameters of a torch module, got "
            f"{type(policy).__name__} without any; take cai.TabularPolicy(model) or "
            "cai.NeuralPolicy(model), and for a policy that calls pyro.param use "
            "SVI(model, model.rollout(policy), optim, Trace_ELBO())"
        )
    estimators.check_name(estimator)
    checks.check_count("steps", steps)
    checks.check_count("particles", particles)
    if rate is not None:
        checks.check_positive("learning_rate", rate)
    if particles < 2:
        raise ValueError("particles: expected at least 2, got 1; the baseline needs another one")


def _forbid_the_fatal(policy: nn.Module, table: Table) -> None:
    """Masks the actions of a table that can lead to -inf where another one avoids it.

    Such an action has no place in a policy of finite ELBO, and no gradient that would say so.
    """
    tensors = (table.reward, table.arrival_reward, table.final_reward)
    if not isinstance(policy, TabularPolicy) or all(
        x is None or x.isfinite().all() for x in tensors
    ):
        return
    v = bellman.backward(table, 0.0)
    q = bellman.action_values(table, v[1:], 0.0)
    fatal = (q == -torch.inf) & (v[:-1] > -torch.inf).unsqueeze(-1)
    if policy.logits.dim() == 2:
        fatal = fatal.any(0)
    policy.log_prior = policy.log_prior.masked_fill(fatal, -torch.inf)
