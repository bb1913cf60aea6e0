"""Stochastic variational inference: the ELBO of a policy in the true dynamics, by its gradient."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cai import checks
from cai.evaluation.evaluate import evaluate
from cai.evaluation.problem import as_problem
from cai.inference.fitting import _policies, checkpoint_file
from cai.inference.fitting._described import described, options
from cai.inference.fitting.fit_stopped import stopped
from cai.inference.fitting.loop import Budget, check_device, seeded, train
from cai.inference.fitting.resumption import Resumption
from cai.inference.fitting.training import WINDOW, MakeOptimizer, MakeSchedule, Training, make_steps
from cai.inference.gradients import estimators
from cai.inference.gradients.estimators import EstimatorChoice
from cai.inference.gradients.gradient import Estimator
from cai.inference.gradients.renyi_gradient import check_order
from cai.program.episode import check_policy, remembers
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class Fit:
    """A policy trained by the ELBO.

    Attributes:
        policy: the trained copy of the policy that was passed: the latest parameters whose mean
            loss was as low as any before, within two standard errors.
        elbo: (), nats: exact where the model can be enumerated, else from 10 000 trajectories.
        losses: (steps,), nats: -ELBO at each step and at its temperature, estimated where the
            gradient was sampled.
        estimator: the name of the estimator of the gradient: what "auto" chose, or what was asked.
        converged: whether the losses no longer fell; False where the steps ran out before, or an
            interrupt ended them.
    """

    policy: nn.Module
    elbo: float
    losses: Tensor
    estimator: str
    converged: bool

    @property
    def running_mean(self) -> Tensor:
        """(steps,), nats: the mean of the last 50 losses, or of as many as there were."""
        total = torch.cat([self.losses.new_zeros(1), self.losses.cumsum(0)])
        last = torch.arange(1, len(total))
        first = (last - WINDOW).clamp(min=0)
        return (total[last] - total[first]) / (last - first)


def fit(
    model: TrajectoryModel | Table,
    policy: nn.Module,
    *,
    estimator: EstimatorChoice = "auto",
    optimism: float = 0.0,
    steps: int = 2000,
    samples: int = 100,
    learning_rate: float | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule | None = None,
    clip: float | None = None,
    temperature: Callable[[int], float] | None = None,
    tolerance: float = 1e-6,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 100,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    """Maximises the ELBO over policies that keep the true dynamics (Levine 2018, eqs. 20-22).

    The guide is ``model.rollout(policy)``. Its ELBO is at most the bound of
    ``soft_values(model, optimism=0)``. Its gradient comes from an unbiased estimator:

    * "exact": through the occupancies, where the model can be tabulated and the policy has no
      memory but a table; for a linear-Gaussian policy in such a model, in closed form. Nothing is
      sampled.
    * "mirror": the natural gradient of a table, or of a linear-Gaussian policy in such a model,
      exact. A step of one reaches the optimum in at most T steps, and ½ halves what is left in
      each. A stationary policy takes as long as it takes, by steps that never lower the ELBO.
    * "enumerated": for finitely many actions, in states that are sampled. What a step pays is
      summed over the actions, what comes after it weighted by the score of the action drawn.
    * "score": trajectories are simulated and the score function is weighted by the reward to go
      (Williams 1992), less the mean of the other trajectories. For every program.
    * "critic": the same, with a learnt function of step and state as the baseline besides; see
      ``critic_gradient``, also for generalised advantages.
    * "pathwise": trajectories are differentiated, where all that lies between an action and the
      rewards after it is reparameterised (``rsample``). Little noise as a rule, but blind to jumps:
      the return must be a continuous function of the actions. Over hundreds of steps of unstable
      dynamics its gradients explode.

    "auto" takes "exact" where it can be had, else "enumerated", else "score", and ``Fit.estimator``
    says which. The loop ends early once the losses no longer fall; "mirror" takes equal steps until
    its gradient is zero.

    A copy is trained; the policy that was passed, and Pyro's parameter store, stay as they are.
    Each particle starts in a state of its own, drawn from the model; to amortise over a set of
    states, give the model ``initial=cai.EmpiricalStates(states)``: each step draws a minibatch.

    Ctrl-C ends the loop after the step it is in and returns the best there was; a second one
    interrupts at once. Passing ``fitted.policy`` goes on from there with a fresh optimiser. With a
    checkpoint the same call goes on exactly where the file left it: the outcome is that of a run
    that was never interrupted, bit for bit on one machine. A file is known as that of this problem
    by a table's arrays, by the matrices of a linear-Gaussian model, and by what a program scores
    and pays at states and actions that are kept in the file; and as that of this run by its
    settings, by the temperatures and rates of the steps that were taken, and by what the policy
    does at the parameters in the file. The parameters that a policy starts with are not compared.

    Args:
        model: the model, or its table.
        policy: a torch module (t, s) -> distribution, the starting point.
        estimator: of the gradient, see above; or a function (model, policy, samples) that makes
            one, such as ``functools.partial(inference.critic_gradient, lam=0.95)``.
        optimism: η ≤ 1 of "renyi", which maximises not the ELBO but a bound of K = samples
            trajectories: the importance-weighted one at η = 1, and as K grows that of
            ``soft_values(model, optimism=η)``. Its losses are of that bound. A policy that is
            fitted so counts on luck that it does not have, so that there is a warning.
        steps: at most so many steps.
        samples: trajectories a step, where sampled; at least two, for the baseline.
        learning_rate: of Adam at the start; 0.2 for a table and 0.01 for a network if not given.
            For "mirror" its step size, one if not given.
        optimizer: parameters -> a torch optimiser, in place of Adam and its rate:
            ``functools.partial(torch.optim.RMSprop, lr=1e-3)``. LBFGS fits "exact".
        schedule: optimiser -> a torch scheduler of its rate, stepped once a step. If not given,
            Adam's falls by a factor of 100 over the steps, and that of an ``optimizer`` stays.
        clip: the largest norm that a gradient keeps; longer ones are scaled down to it.
        temperature: step -> α at that step, 0 … steps - 1, for annealing. ``Fit.elbo`` is at the
            model's own, where the schedule should end.
        tolerance: the loop ends once the mean loss of the last fifth of ``steps`` is not lower by
            so much than that of the fifth before, relative to its size above one; 0 for any
            fall, -inf for no such test.
        checkpoint: path of a file, written whole every ``every`` steps and at the end. Where it
            exists already the run goes on from it.
        every: steps from one checkpoint to the next.
        device: where to train, "cpu" or "cuda"; the table and the policy go there, and the
            policy comes back. A program must have its own tensors there.
        seed: of the simulation.
        progress: whether to show a progress bar on a terminal.

    Returns:
        A :class:`Fit`: the trained policy, its ELBO, and the losses of all training
        steps.

    Raises:
        ValueError: if the policy has no parameters or does not fit the model, the ELBO is -inf
            because a reward of -inf cannot be avoided by the policy, the horizon is infinite, the
            estimator needs a model or a policy of another kind, or the checkpoint is truncated,
            of something else, or of a run with other settings or of another model.
        FitStopped: a ValueError that names the step and the site where a loss or its gradient was
            not finite, and carries the last good parameters as ``.policy``.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> fitted = inference.fit(model, cai.TabularPolicy(model), steps=300, progress=False)
    >>> best = inference.soft_values(model).elbo  # of all policies
    >>> abs(cai.evaluate(model, fitted.policy).elbo - best) < 0.01
    True
    """
    checks.finite_horizon(model, "fit")
    problem = as_problem(model)
    _check(policy, estimator, steps, samples)
    check_order(estimator, optimism)
    place, home = check_device(device), next(policy.parameters()).device
    checks.check_count("every", every)
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    checks.check_number("tolerance", tolerance)
    if clip is not None:
        checks.check_positive("clip", clip)
    file = None if checkpoint is None else checkpoint_file.check(checkpoint)
    budget = Budget(steps, tolerance, temperature, every)
    policy = _policies.copy_of(policy)
    table = None if remembers(policy) else problem.table
    _policies.check_guide(policy, problem)
    if table is not None:
        estimators.forbid_the_fatal(policy, table)
        table = table.to(place)
    policy = policy.to(place)

    def build(alpha: float) -> tuple[str, Estimator]:
        one = model if alpha == model.temperature else dataclasses.replace(model, temperature=alpha)
        two = None if table is None else dataclasses.replace(table, temperature=alpha)
        rate = 1.0 if learning_rate is None else learning_rate
        return estimators.build(estimator, one, policy, two, samples, optimism, rate)

    with seeded(seed, place, table):
        name, estimate = build(model.temperature)
        by, rates = make_steps(name, policy, steps, learning_rate, optimizer, schedule)
        run = Training(
            policy=policy,
            build=lambda alpha: build(alpha)[1],
            estimate=estimate,
            temperature=float(model.temperature),
            optimizer=by,
            schedule=rates,
            clip=clip,
            natural=name == "mirror",
        )
        plain = {k: x for k, x in by.defaults.items() if isinstance(x, int | float | str | tuple)}
        settings = {
            "estimator": name if isinstance(estimator, str) else described(estimator, name),
            "optimism": float(optimism),
            "steps": int(steps),
            "samples": int(samples),
            "seed": int(seed),
            "clip": None if clip is None else float(clip),
            "tolerance": float(tolerance),
            "optimizer": f"{type(by).__name__}({', '.join(options(plain))})",
            "schedule": type(rates).__name__,
            "policy": _policies.described(policy),
            "horizon": int(model.horizon or 0),
            "discount": float(model.discount),
            "temperature": float(model.temperature),
        }
        kept = None
        if file is not None:
            whole = problem.table if table is None else table
            kept = Resumption(file, settings, problem, whole, budget.at)
        try:
            converged = train(run, budget, kept, progress)
        except (FloatingPointError, ValueError) as error:
            if isinstance(error, ValueError) and not run.losses:
                raise  # not a matter of numbers, but of what was passed
            raise stopped(error, problem.program, policy, samples, run.losses) from error
        run.restore()
        elbo = evaluate(model if table is None else table, policy, seed=seed).elbo
    losses = torch.tensor(run.losses, dtype=torch.float64)
    return Fit(policy.to(home), elbo, losses, name, converged)


def _check(policy: object, estimator: object, steps: int, samples: int) -> None:
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
    checks.check_count("samples", samples, 2, "the baseline needs another one")
