"""Stochastic variational inference: maximises the ELBO of a policy in the true dynamics."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cai import checks, notebook, one_line
from cai.evaluation.evaluate import evaluate
from cai.evaluation.problem import as_problem
from cai.inference.fitting import _policies, checkpoint_file
from cai.inference.fitting._described import described, options
from cai.inference.fitting.descent import Budget, MakeOptimizer, MakeSchedule, make_steps
from cai.inference.fitting.fit_stopped import stopped
from cai.inference.fitting.loop import check_device, seeded, train
from cai.inference.fitting.resumption import Resumption, copy_of
from cai.inference.fitting.training import WINDOW, Training
from cai.inference.gradients import estimators
from cai.inference.gradients.estimators import EstimatorChoice
from cai.inference.gradients.gradient import Estimator
from cai.inference.gradients.renyi_gradient import check_order
from cai.program.episode import remembers
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel
from cai.progress.callback import check_callback
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class Fit:
    """A policy trained by the ELBO.

    Attributes:
        policy: the trained copy of the policy: the latest parameters whose mean loss was as low as
            any before, within two standard errors.
        elbo: (), nats: exact where the model can be enumerated, else from 10 000 trajectories.
        losses: (steps,), nats: -ELBO at each step and its temperature, estimated if the gradient
            was sampled.
        estimator: the name of the estimator of the gradient, as chosen by "auto" or as requested.
        converged: whether the losses no longer fell; False if the steps ran out before that, or
            training was interrupted.
        stopped: whether the callback ended training.
        visits: (S, A): how often each action is taken in each state, on average over trajectories;
            None for continuous ones.
        layout: names and places of the states, of the model; or None.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> fitted = inference.fit(model, cai.TabularPolicy(model), steps=20, progress=False)
    >>> fitted.losses.shape, fitted.estimator
    (torch.Size([20]), 'exact')
    """

    policy: nn.Module
    elbo: float
    losses: Tensor
    estimator: str
    converged: bool
    visits: Tensor | None = field(default=None, repr=False, kw_only=True)
    layout: Layout | None = field(default=None, repr=False, kw_only=True)
    stopped: bool = field(default=False, repr=False, kw_only=True)

    __repr__ = one_line.of_fields

    def _repr_html_(self) -> str:
        """The result for a notebook: numbers, the losses, and what the policy does on a map."""
        rows = [
            ("ELBO (nats)", f"{self.elbo:.6g}"),
            ("policy", type(self.policy).__name__),
            ("estimator", self.estimator),
            ("steps", f"{len(self.losses)}{'' if self.converged else ', not converged'}"),
        ]
        losses = notebook.curve(self.running_mean, "-ELBO (nats), mean of 50 steps")
        if self.visits is None:
            return notebook.card("Fit", rows, losses)
        shares = 100 * self.visits.sum(-1) / self.visits.sum()
        caption = "share of time (%), and the most frequent action"
        actions = notebook.on_map(self.layout, shares, caption, self.visits.argmax(-1))
        return notebook.card("Fit", rows, losses, actions)

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
    callback: Callable[[dict[str, float]], bool | None] | None = None,
    progress: bool = True,
) -> Fit:
    """A policy trained to maximise the ELBO in the true dynamics (Levine 2018, section 4.1).

    The guide is ``model.rollout(policy)``. Its ELBO is at most the bound of
    ``soft_values(model, optimism=0)``. Its gradient comes from an unbiased estimator:

    * "exact": through the occupancies, if the model can be tabulated and the policy has no memory
      other than a table of histories; for a linear-Gaussian policy in such a model, in closed form.
      Nothing is sampled.
    * "mirror": the exact natural gradient of a table, or of a linear-Gaussian policy in such a
      model. A step size of one reaches the optimum in at most T steps, ½ halves the remaining error
      in each. A stationary policy has no such guarantee, but no step lowers its ELBO.
    * "enumerated": for finitely many actions, in sampled states. The reward of a step is summed
      over the actions; later rewards are weighted by the score of the sampled action.
    * "score": trajectories are simulated and the score function is weighted by the reward to go
      (Williams 1992), minus the mean of the other trajectories. Works for every program.
    * "critic": the same, with a learnt function of step and state as an additional baseline; see
      ``critic_gradient``, also for generalised advantages.
    * "natural": the same score, in the metric of the KL between policies, by conjugate gradients,
      with a trust region; see ``natural_gradient``. Few steps, each of which costs more.
    * "pathwise": trajectories are differentiated, if everything between an action and later rewards
      is reparameterised (``rsample``). Usually it has low variance, but it does not see jumps: the
      return must be a continuous function of the actions. Over hundreds of steps of unstable
      dynamics its gradients explode.

    "auto" takes "exact" if possible, else "enumerated", else "score"; ``Fit.estimator`` says which.
    Training ends early once the losses no longer fall; "mirror" takes equal steps until its
    gradient is zero.

    A copy is trained; the policy that was passed, and Pyro's parameter store, are not changed. Each
    trajectory starts in its own state, drawn from the model; to amortise over a set of states, give
    the model ``initial=cai.EmpiricalStates(states)``: each step draws a minibatch.

    Ctrl-C ends training after the current step and returns the best policy so far; a second one
    interrupts at once. Passing ``fitted.policy`` continues from there with a fresh optimiser. With
    a checkpoint the same call resumes exactly from the file: the result is that of an uninterrupted
    run, bit for bit on one machine. A file must match the problem: a table's arrays, the matrices
    of a linear-Gaussian model, or a program's scores and rewards at states and actions that are
    kept in the file. It must also match the run: its settings, the temperatures and rates of the
    steps taken, and the policy's actions at the parameters in the file. Initial parameters are not
    compared.

    Args:
        model: the model, or its table.
        policy: a torch module (t, s) -> distribution, the starting point.
        estimator: the estimator of the gradient, see above; or a function (model, policy, samples)
            that makes one, such as ``functools.partial(inference.critic_gradient, lam=0.95)``.
        optimism: η ≤ 1 for "renyi", which maximises not the ELBO but a bound from K = samples
            trajectories: the importance-weighted one at η = 1, and as K grows that of
            ``soft_values(model, optimism=η)``. Its losses are of that bound. Such a policy is
            over-optimistic (at η < 0 over-pessimistic), which a warning says.
        steps: the maximum number of training steps.
        samples: trajectories per step, if sampled; at least two, for the baseline.
        learning_rate: the initial rate of Adam; 0.2 for a table and 0.01 for a network if not
            given. For "mirror" the step size, one if not given; for "natural" 0.3.
        optimizer: parameters -> a torch optimiser, in place of Adam and its rate:
            ``functools.partial(torch.optim.RMSprop, lr=1e-3)``. LBFGS fits "exact".
        schedule: optimiser -> a torch scheduler of its rate, stepped once per training step. If not
            given, Adam's rate falls by a factor of 100, and that of an ``optimizer`` is constant.
        clip: the maximum norm of a gradient; larger ones are scaled down to it.
        temperature: step -> α at that step, 0 … steps - 1, for annealing. ``Fit.elbo`` is at the
            model's own, where the schedule should end.
        tolerance: training ends once the mean loss of the last fifth of ``steps`` is not lower than
            that of the fifth before by this much, relative to its size above one; 0 for any fall,
            -inf for no such test.
        checkpoint: path of a file, written every ``every`` steps and at the end. If it exists
            already the run resumes from it.
        every: steps from one checkpoint to the next.
        device: where to train, "cpu" or "cuda"; the table and the policy are moved there, and the
            policy is moved back. A program must have its own tensors there.
        seed: seed of the simulation.
        callback: is called after each hundredth of the steps with a dict of "step"; "loss" and
            "elbo" (with "renyi" its bound, "bound"), minus the mean loss of up to 50 steps at the
            present temperature, nats; "gradient_norm"; "learning_rate"; and "seconds" since the run
            began or was resumed. If it returns True, training ends.
        progress: whether to show a progress bar on a terminal or in a notebook.

    Returns:
        A :class:`Fit`: the trained policy, its ELBO, and the losses of all training steps.

    Raises:
        ValueError: if the policy has no parameters or does not fit the model, the ELBO is -inf
            because the policy cannot avoid a reward of -inf, the horizon is infinite, the estimator
            needs a model or a policy of another kind, or the checkpoint is truncated, is not a
            checkpoint, or is from a run with other settings or another model.
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
    _policies.check(policy, estimator, steps, samples)
    check_callback(callback)
    check_order(estimator, optimism)
    place, home = check_device(device), next(policy.parameters()).device
    checks.check_count("every", every)
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    checks.check_number("tolerance", tolerance)
    if clip is not None:
        checks.check_positive("clip", clip)
    file = None if checkpoint is None else checkpoint_file.check(checkpoint)
    budget = Budget(steps, tolerance, temperature)
    policy = copy_of(policy)
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
            budget=budget,
            callback=callback,
            reached="bound" if name == "renyi" else "elbo",
        )
        estimators.log_choice(estimator, name, policy)
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
            kept = Resumption(file, settings, problem, whole)
        try:
            whole_steps = train(run, kept, every, progress)
        except (FloatingPointError, ValueError) as error:
            if isinstance(error, ValueError) and not run.losses:
                raise  # a fault of the arguments, not of numbers
            raise stopped(error, problem.program, policy, samples, run.losses) from error
        if whole_steps:
            run.remember()
        run.restore()
        found = evaluate(model if table is None else table, policy, seed=seed)
    losses = torch.tensor(run.losses, dtype=torch.float64)
    converged = whole_steps and run.converged()
    seen = found.state_actions
    visits = None if seen is None else seen.sum(0).to(home)
    more: dict[str, Any] = {"visits": visits, "layout": model.layout, "stopped": run.stopped}
    return Fit(policy.to(home), found.elbo, losses, name, converged, **more)
