"""How far a policy in the true dynamics is from the exact posterior: three divergences."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cai.evaluation import importance_weights
from cai.evaluation.evaluate import Evaluation, exactly, of_exact, simulated
from cai.evaluation.gaussian_divergence import divergences as gaussian_divergences
from cai.evaluation.gaussian_divergence import of_start
from cai.evaluation.references import References
from cai.gaussian.forms import Gaussian
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.tilting import tilt_divergences
from cai.numerics import logspace
from cai.numerics.logspace import product
from cai.program.trajectories import Trajectories
from cai.solutions.chain import Chain
from cai.tables import bellman


class Split(NamedTuple):
    """log p(O) - ELBO in three parts, nats; with standard errors if simulated.

    Attributes:
        start: KL(p(s_0) ‖ p(s_0|O)), the same for all policies.
        actions: Σ_t E_q[KL(q(a|s) ‖ p(a|s,O))].
        dynamics: Σ_t E_q[KL(p(s'|s,a) ‖ p(s'|s,a,O))].
        actions_stderr: standard error of ``actions``; None where exact, as the next two.
        dynamics_stderr: standard error of ``dynamics``.
        total_stderr: standard error of the sum.
    """

    start: float
    actions: float
    dynamics: float
    actions_stderr: float | None = None
    dynamics_stderr: float | None = None
    total_stderr: float | None = None

    @property
    def total(self) -> float:
        """(), nats."""
        return self.start + self.actions + self.dynamics


def measured(policy: Any, known: References) -> tuple[Evaluation, Split | None]:
    """The evaluation of a policy in the true dynamics, and its divergence from the posterior.

    Args:
        policy: any.
        known: of the problem; without an exact posterior there is no split.
    """
    problem, posterior, found = known.problem, known.posterior, exactly(known.problem, policy)
    evaluation = (
        simulated(problem, policy) if found is None else of_exact(found, problem.model.layout)
    )
    if posterior is None:
        return evaluation, None
    if found is None:
        assert evaluation.trajectories is not None
        assert evaluation.log_weights is not None
        split = along(known, evaluation.trajectories, evaluation.log_weights)
        if split.total == math.inf:  # a simulation may have missed rare events
            evaluation = dataclasses.replace(
                evaluation,
                elbo=-math.inf,
                elbo_stderr=0.0,
                expected_return=-math.inf,
                expected_return_stderr=0.0,
            )
        return evaluation, split
    if known.gaussian is not None:  # then the policy is linear-Gaussian, too
        return evaluation, Split(*gaussian_divergences(known.gaussian, policy))
    assert known.chain is not None
    if found.log_policy is None:
        return evaluation, with_memory(known.chain, evaluation)
    with known.chain.table.threads(), torch.no_grad():
        return evaluation, divergences(known.chain, found.log_policy, evaluation)


def divergences(posterior: Chain, log_policy: Tensor, evaluation: Evaluation) -> Split:
    """KL(q(τ) ‖ p(τ|O)) of a policy in the true dynamics, split into start, actions, dynamics.

    Args:
        posterior: the exact posterior.
        log_policy: (T, S, A), log q(a_t|s_t); (S, A) with an infinite horizon.
        evaluation: the evaluation of that policy, with its occupancies.

    Returns:
        Three divergences; +inf where the posterior excludes what the policy does.
    """
    table = posterior.table
    assert evaluation.states is not None
    of_actions = logspace.kl(log_policy, posterior.policy.log_probs)
    before = evaluation.states if table.horizon is None else evaluation.states[:-1]
    start, dynamics = _of_start_and_dynamics(posterior, evaluation)
    return Split(start, product(before, of_actions).sum().item(), dynamics)


def with_memory(posterior: Chain, evaluation: Evaluation) -> Split:
    """The same for a policy with a memory; the actions' part is total minus start and dynamics."""
    start, dynamics = _of_start_and_dynamics(posterior, evaluation)
    total = posterior.bound - evaluation.elbo
    return Split(start, _rest(total, start + dynamics), dynamics)


def along(known: References, paths: Trajectories, log_weights: Tensor) -> Split:
    """The same by simulation, for any policy: KL terms averaged along its own trajectories.

    Args:
        known: with the exact posterior, of a finite horizon.
        paths: n trajectories of the policy in the true dynamics.
        log_weights: (n,), log p(τ,O)/q(τ), nats.
    """
    if known.gaussian is not None:
        bound, (start, along_paths) = known.gaussian.bound, _bends_of_vectors(known.gaussian, paths)
    else:
        assert known.chain is not None
        bound, (start, along_paths) = known.chain.bound, _bends_of_states(known.chain, paths)
    if start == math.inf or not along_paths.isfinite().all():  # excluded by the posterior
        return Split(start, math.inf, math.inf, 0.0, 0.0, 0.0)
    minus, total_stderr = importance_weights.mean(log_weights - bound)
    dynamics, dynamics_stderr = importance_weights.mean(along_paths)
    _, actions_stderr = importance_weights.mean(log_weights + along_paths)
    return Split(
        start,
        _rest(-minus, start + dynamics),
        dynamics,
        actions_stderr,
        dynamics_stderr,
        total_stderr,
    )


def _bends_of_states(posterior: Chain, paths: Trajectories) -> tuple[float, Tensor]:
    """KL of the start, and Σ_t KL of the dynamics along each trajectory, (n,), nats."""
    table = posterior.table
    along_paths = torch.zeros(len(paths.states), dtype=torch.float64)
    for t in range(table.steps):
        s, a = paths.states[:, t].long(), paths.actions[:, t].long()
        along_paths += torch.where(
            paths.alive[:, t], _of_dynamics(posterior, slice(t, t + 1))[0, s, a], 0.0
        )
    return logspace.kl(table.log_initial, posterior.log_initial).item(), along_paths


def _bends_of_vectors(posterior: GaussianSolution, paths: Trajectories) -> tuple[float, Tensor]:
    model, T = posterior.model, paths.rewards.shape[1]
    along_paths = torch.zeros(len(paths.states), dtype=torch.float64)
    theta, factor = 1 / model.temperature, model.noise_root.factor
    for t in range(T):
        step = model.step(t)
        at = step.mean(paths.states[:, t], paths.actions[:, t])
        around = Gaussian(at, torch.zeros_like(step.W))
        P, p, k = (x[t + 1].numpy() for x in (posterior.V.P, posterior.V.p, posterior.V.k))
        here = factor if factor.dim() == 2 else factor[t]
        along_paths += tilt_divergences((P, p, k), here, theta, around)[1]
    return of_start(posterior), along_paths


def _rest(total: float, known: float) -> float:
    """The part of the actions: the total minus the other parts."""
    return math.inf if total == math.inf else total - known


def _of_start_and_dynamics(posterior: Chain, evaluation: Evaluation) -> tuple[float, float]:
    """KL(true ‖ posterior) of the start and of the dynamics, under a policy's occupancies."""
    assert evaluation.state_actions is not None
    start = logspace.kl(posterior.table.log_initial, posterior.log_initial).item()
    visits = evaluation.state_actions
    return start, posterior.expected(lambda steps: _of_dynamics(posterior, steps), visits)


def _of_dynamics(posterior: Chain, steps: slice) -> Tensor:
    """KL of the dynamics, true to tilted, termination included, (steps, S, A), nats."""
    table, v = posterior.table.at(steps), posterior.log_values
    nats = logspace.kl(table.log_dynamics, posterior.log_transitions(steps))
    if table.discount < 1:
        v_next = v.unsqueeze(0) if table.horizon is None else v[1:][steps]
        ends = bellman.termination_kl(v_next, posterior.optimism, table.discount)
        nats = nats + product(table.log_dynamics.exp(), table.gather(ends)).sum(-1)
    return nats
