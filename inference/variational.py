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
from cai.policy import TabularPolicy
from cai.table import Table
from cai.trajectory import TrajectoryModel

_WINDOW = 50  # steps that the running mean of the losses covers


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
    steps: int = 2000,
    particles: int = 100,
    learning_rate: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    """Maximises the ELBO over policies that keep the true dynamics (Levine 2018, eqs. 20-22).

    The guide is ``model.rollout(policy)``. Its ELBO is at most the bound of
    ``soft_values(model, optimism=0)``. Its gradient comes from an estimator, all of them unbiased:

    * "exact": through the occupancies, where the model can be tabulated and the policy has no
      memory but a table; for a linear-Gaussian policy in such a model, in closed form. Nothing is
      sampled.
    * "enumerated": states are sampled. What a step pays is summed over the actions, what comes
      after it is weighted by the score of the action drawn, as with "score".
    * "score": trajectories are simulated and the score function is weighted by the reward to go
      (Williams 1992), less the mean of the other particles. For every program.

    "auto" takes the first that can be had, and ``Fit.estimator`` says which. Adam's rate decays by
    a factor of 100 over the steps, and the loop ends early once the losses no longer fall.

    A copy is trained; the policy that was passed, and Pyro's parameter store, stay as they are.
    An interrupt (Ctrl-C) ends the loop and returns what was reached; passing ``fitted.policy``
    goes on from there.

    Args:
        model: the model, or its table.
        policy: a torch module (t, s) -> distribution, the starting point.
        estimator: of the gradient, see above.
        steps: at most so many steps.
        particles: trajectories a step, where sampled; at least two, for the baseline.
        learning_rate: of Adam at the start; 0.2 for a table and 0.01 for a network if not given.
        seed: of the simulation.
        progress: whether to show a progress bar on a terminal.

    Raises:
        ValueError: where the policy has no parameters or does not fit the model, the ELBO is -inf
            because a reward of -inf cannot be avoided by the policy, or the estimator needs a
            model or a policy of another kind.
    """
    _check(policy, estimator, steps, particles)
    policy = copy.deepcopy(policy)
    table = None if remembers(policy) else enumerable(model)
    if table is not None:
        _forbid_the_fatal(policy, table)
    rate = learning_rate
    if rate is None:
        rate = 0.2 if isinstance(policy, TabularPolicy) else 0.01
    checks.check_positive("learning_rate", rate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        name, estimate = estimators.build(estimator, model, policy, table, particles)
        # Without noise a short memory serves Adam best: gradients shrink as probabilities settle.
        betas = (0.8, 0.95) if name == "exact" else (0.9, 0.999)
        adam = torch.optim.Adam(policy.parameters(), lr=rate, betas=betas)
        with contextlib.nullcontext() if table is None else table.threads():
            losses = _descend(estimate, adam, steps, progress)
    elbo = evaluate(model if table is None else table, policy, seed=seed).elbo
    return Fit(policy, elbo, losses, name)


def _descend(
    estimate: Estimator, optimizer: torch.optim.Optimizer, steps: int, progress: bool
) -> Tensor:
    """Steps of decaying size until the losses no longer fall; the losses of all steps taken."""
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.01 ** (1 / steps))
    losses: list[float] = []
    bar = tqdm(total=steps, desc="fit", unit="step", disable=None if progress else True)
    with bar:
        try:
            while len(losses) < steps and not _plateau(losses, steps):
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


def _plateau(losses: list[float], steps: int) -> bool:
    """Whether the mean loss of the last fifth of the budget is no lower than of the one before."""
    window = max(_WINDOW, steps // 5)
    n = len(losses)
    if n < 2 * window or n % _WINDOW:
        return False
    last = sum(losses[-window:]) / window
    before = sum(losses[-2 * window : -window]) / window
    return before - last < 1e-6 * max(1.0, abs(last))


def _check(policy: object, estimator: object, steps: int, particles: int) -> None:
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
