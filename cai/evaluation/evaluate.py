"""Evaluation of a policy in the true dynamics."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cai import checks, notebook, one_line
from cai.distributions.exact_scores import support_size
from cai.evaluation import importance_weights
from cai.evaluation.exact_evaluation import ExactEvaluation, exact_evaluation
from cai.evaluation.problem import Problem, as_problem
from cai.evaluation.spelling import number
from cai.program.episode import check_policy, remembers
from cai.program.interfaces import Policy
from cai.program.layout import Layout
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table

_SAMPLES, _EPISODES = 10_000, 200


@dataclass(frozen=True, eq=False)
class Evaluation:
    """ELBO, return, entropy and occupancies of a policy q(a|s) in the model's own dynamics.

    Exact where the model can be enumerated, and for a linear-Gaussian policy in a linear-Gaussian
    model; else estimated, with standard errors. ELBO and entropy are NaN if a policy can only be
    drawn from, without a density. T steps, S states, A actions; occupancies count trajectories that
    are alive, so that with a discount they sum to P(alive). With an infinite horizon they are
    expected numbers of visits, (S,) and (S, A), until termination or until no reward can follow any
    more: there the trajectory counts as ended, and actions cost nothing.

    Attributes:
        elbo: (), nats: E_q[Σ rewards/α - Σ log q(a|s)/p(a|s)] ≤ log p(O).
        expected_return: (), reward units: E_q[Σ rewards].
        entropy: (), nats: E_q[Σ_t H(q(·|s_t))]; of a policy with a memory or latents, given them.
        states: (T+1, S): q(s_t=s, alive); None for continuous states.
        state_actions: (T, S, A): q(s_t=s, a_t=a, alive); None for continuous ones.
        elbo_stderr: (), nats; None where exact.
        expected_return_stderr: (), reward units; None where exact.
        entropy_stderr: (), nats; None where exact.
        log_weights: (n,), nats: log p(τ,O)/q(τ) of the trajectories simulated; None where exact.
        trajectories: those n trajectories; None where exact.
        layout: names and places of the states, of the model; or None.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> found = cai.evaluate(model, inference.soft_values(model).policy)
    >>> found.states.shape, found.elbo_stderr is None
    (torch.Size([5, 5]), True)
    """

    elbo: float
    expected_return: float
    entropy: float
    states: Tensor | None
    state_actions: Tensor | None
    elbo_stderr: float | None = None
    expected_return_stderr: float | None = None
    entropy_stderr: float | None = None
    log_weights: Tensor | None = None
    trajectories: Trajectories | None = field(default=None, repr=False)
    layout: Layout | None = field(default=None, repr=False, kw_only=True)

    __repr__ = one_line.of_fields

    def _repr_html_(self) -> str:
        """The numbers for a notebook, and the share of time in each cell of a map."""
        rows = [
            ("ELBO (nats)", number(self.elbo, self.elbo_stderr)),
            ("return (reward)", number(self.expected_return, self.expected_return_stderr)),
            ("entropy (nats)", number(self.entropy, self.entropy_stderr)),
        ]
        if self.states is None:
            return notebook.card("Evaluation in the true dynamics", rows)
        visits = self.states if self.states.dim() == 1 else self.states.sum(0)
        shares = notebook.on_map(self.layout, 100 * visits / visits.sum(), "share of time (%)")
        return notebook.card("Evaluation in the true dynamics", rows, shares)

    @property
    def episode_return(self) -> float | None:
        """The mean sum of all rewards of an environment's episode, without a discount.

        In reward units; None of a program. ``expected_return`` stops where the discount terminates
        a trajectory, as it does for a program.
        """
        paths = self.trajectories
        found = None if paths is None else paths.episode_returns
        return None if found is None else found.mean().item()


def evaluate(
    model: TrajectoryModel | Table,
    policy: Policy,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """ELBO, expected return, entropy and occupancies of a policy in the true dynamics.

    Args:
        model: the model, or its table.
        policy: (t, s) -> q(a_t|s_t).
        samples: how many trajectories to simulate. If not given, the answer is exact where the
            model can be enumerated or model and policy are linear-Gaussian, and from 10 000
            trajectories where not, or where the policy has a memory other than a table; from 200
            episodes of an environment, whose steps are slow.
        seed: seed of the simulation.

    Returns:
        An :class:`cai.Evaluation`; its standard errors are None where the answer is exact.

    Raises:
        ValueError: if the policy does not broadcast over steps and states, or a table is to be
            simulated; with an infinite horizon, if the policy is not stationary or its trajectories
            may never end, or if the model cannot be enumerated.

    >>> import cai
    >>> from cai import models
    >>> model = models.ledge()
    >>> result = cai.evaluate(model, lambda t, s: model.prior(s))
    >>> round(result.elbo, 3), round(result.expected_return, 3)
    (-3.5, -3.5)
    >>> simulated = cai.evaluate(model, lambda t, s: model.prior(s), samples=1000)
    >>> abs(simulated.elbo - result.elbo) < 5 * simulated.elbo_stderr
    True
    """
    problem = as_problem(model, sampled=True)
    check_policy(policy)
    if samples is None:
        found = exactly(problem, policy)
        return (
            simulated(problem, policy, seed=seed)
            if found is None
            else of_exact(found, problem.model.layout)
        )
    if problem.program is None:
        raise ValueError("samples: a table is evaluated exactly; pass the model to simulate it")
    return simulated(problem, policy, samples, seed)


def exactly(problem: Problem, policy: Policy) -> ExactEvaluation | None:
    """The exact ELBO and return, without gradients; None if it takes a simulation."""
    with torch.no_grad():
        return exact_evaluation(policy, problem)


def of_exact(found: ExactEvaluation, layout: Layout | None) -> Evaluation:
    """An exact result as an evaluation, with the layout of the model."""
    elbo, value, entropy = (x.item() for x in found[:3])
    states, actions = found.states, found.state_actions
    return Evaluation(elbo, value, entropy, states, actions, layout=layout)


def simulated(
    problem: Problem, policy: Policy, samples: int | None = None, seed: int = 0
) -> Evaluation:
    """The ELBO and return of a policy, estimated from trajectories.

    Raises:
        ValueError: if a table would have to be simulated.
    """
    model = problem.program
    if model is None:
        raise ValueError(
            "policy: with a memory it is simulated, which a table cannot be; pass the model"
        )
    if samples is None:
        samples = _EPISODES if checks.can_only_be_sampled(model) else _SAMPLES
    # With a memory the scores are kept, to avoid a second pass over all steps.
    paths = model.simulate(policy, samples, seed, scored=remembers(policy))
    log_w: Tensor | None = None
    log_q = torch.full((samples,), torch.nan, dtype=torch.float64)
    with contextlib.suppress(NotImplementedError):  # a policy without a density
        log_q, log_w = importance_weights.scores(model, policy, paths)
    elbo, elbo_stderr = importance_weights.mean(log_q if log_w is None else log_w)
    expected_return, expected_return_stderr = importance_weights.mean(paths.returns)
    entropy, entropy_stderr = importance_weights.mean(-log_q)
    states, state_actions = _frequencies(model, paths)
    return Evaluation(
        elbo,
        expected_return,
        entropy,
        states,
        state_actions,
        elbo_stderr,
        expected_return_stderr,
        entropy_stderr,
        log_w,
        paths,
        layout=model.layout,
    )


def _frequencies(
    model: TrajectoryModel, paths: Trajectories
) -> tuple[Tensor | None, Tensor | None]:
    """How often each state was visited alive, and each action taken there."""
    S = support_size(model.initial)
    if S is None:
        return None, None
    n, T = paths.rewards.shape
    s, alive = paths.states.long(), paths.alive
    steps = torch.arange(T + 1)
    states = torch.zeros(T + 1, S, dtype=torch.float64)
    states.index_put_((steps.expand(n, -1)[alive], s[alive]), torch.tensor(1.0).double(), True)
    A = support_size(model.prior(torch.zeros((), dtype=paths.states.dtype), 0))
    if A is None:
        return states / n, None
    before = alive[:, :-1]
    state_actions = torch.zeros(T, S, A, dtype=torch.float64)
    where = steps[:-1].expand(n, -1)[before], s[:, :-1][before], paths.actions.long()[before]
    state_actions.index_put_(where, torch.tensor(1.0).double(), True)
    return states / n, state_actions / n
