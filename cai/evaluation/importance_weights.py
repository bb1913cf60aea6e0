"""Importance weights of simulated trajectories, and their averages with a standard error."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact
from cai.program.interfaces import Policy
from cai.program.scoring import log_probs_along
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel

_ADVICE = "look for 0/0, 0·inf or a root of what is negative, where trajectories lead"


class Scores(NamedTuple):
    """The scores of n trajectories of a policy in the true dynamics, nats; 0 after termination.

    Attributes:
        log_policy: (n,), Σ_t log q(a_t|…), given the latents of a policy that has some.
        log_weights: (n,), log p(τ,O)/q(τ) = Σ rewards/α - Σ log q(a|s)/p(a|s), with
            log r(z|τ)/q(z) for latents z.
    """

    log_policy: Tensor
    log_weights: Tensor


def scores(model: TrajectoryModel, policy: Policy, paths: Trajectories) -> Scores:
    """The scores of trajectories that were simulated with this policy."""
    n, T = paths.rewards.shape
    s, alive = paths.states[:, :-1], paths.alive[:, :-1]
    with torch.no_grad():
        log_q, prior = paths.log_policy, exact(model.prior(s, torch.arange(T).expand(n, T)))
        if log_q is None:
            log_q = log_probs_along(policy, s, paths.actions)
        log_q = torch.where(alive, log_q, 0.0).double().sum(-1)
        checks.check_no_nan("policy, log q(a|s) of trajectories", log_q, _ADVICE)
        log_p = torch.where(alive, prior.log_prob(paths.actions), 0.0).double().sum(-1)
        checks.check_no_nan("action_prior, log p(a|s) of trajectories", log_p, _ADVICE)
    checks.check_no_nan("rewards of trajectories, their sum", paths.returns, _ADVICE)
    log_w = paths.returns / model.temperature - log_q + log_p
    return Scores(log_q, log_w if paths.log_auxiliary is None else log_w + paths.log_auxiliary)


def mean(x: Tensor) -> tuple[float, float]:
    """The mean of independent draws (n,) and its standard error.

    One draw of -inf makes the mean -inf; the error of a single draw is unknown, given as infinite.
    """
    if (x == -torch.inf).any():
        return -torch.inf, 0.0
    stderr = x.std() / len(x) ** 0.5 if len(x) > 1 else torch.tensor(torch.inf)
    return x.mean().item(), stderr.item()
