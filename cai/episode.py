"""An episode of a policy: what it may remember, and how a rollout asks it step by step.

A policy with a memory has a method ``start()``, which returns a fresh function (t, s, a) -> q(a_t)
for one episode, or a batch of episodes side by side. It is called once a step, in order; a is the
action of the step before, and None at first. Whatever that function keeps is the memory. In a
rollout, ``start()`` and the function may draw sample sites of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from pyro import poutine
from torch import Tensor

from cai import checks
from cai.policy import Policy, unrolled
from cai.scores import exact, exact_scores

Episode: TypeAlias = Callable[[Any, Tensor, Tensor | None], Any]
"""(t, s_t, a_{t-1}) -> q(a_t | all that was seen), for one run over all steps in order."""


def remembers(policy: Policy) -> bool:
    """Whether a policy has a memory, so that it can only be asked step by step."""
    return hasattr(policy, "start")


def begin(policy: Policy) -> Episode:
    """A fresh episode of any policy."""
    if remembers(policy):
        episode: Episode = policy.start()  # type: ignore[attr-defined]
        return episode
    step = unrolled(policy)
    return lambda t, s, before: step(t, s)


def without_latents(policy: Policy) -> Policy:
    """The policy as it can be scored along a trajectory alone, its latents summed out.

    Raises:
        ValueError: where it has latents and cannot sum them out.
    """
    if hasattr(policy, "marginal"):
        summed: Policy = policy.marginal()
        return summed
    if hasattr(policy, "reverse"):
        checks.refuse(
            "policy",
            "one without latents, or with a method marginal() that sums them out",
            type(policy).__name__,
            "train it with its sites: SVI(model.with_auxiliary(policy), model.rollout(policy), "
            "optim, Trace_ELBO())",
        )
    return policy


def log_probs_along(policy: Policy, states: Tensor, actions: Tensor) -> Tensor:
    """log q(a_t | what the policy has seen by then) along n given trajectories, (n, T), nats.

    Without a memory in one call for all steps, else step by step.

    Args:
        policy: the policy.
        states: (n, T) + event shape, s_0 … s_{T-1}.
        actions: (n, T) + event shape.
    """
    n, T = states.shape[:2]
    policy = without_latents(policy)
    if not remembers(policy):
        scores: Tensor = exact(policy(torch.arange(T).expand(n, T), states)).log_prob(actions)
        return scores
    step, before, parts = begin(policy), None, []
    for t, (s, a) in enumerate(zip(states.unbind(1), actions.unbind(1), strict=True)):
        parts.append(exact(step(t, s, before)).log_prob(a).expand(n))
        before = a
    return torch.stack(parts, 1)


def log_auxiliary(
    policy: Any, latents: dict[str, Tensor], log_q: dict[str, Tensor], trajectory: Any
) -> Tensor:
    """log r(z|τ) - log q(z) of a policy's latents, nats, in the batch shape of the trajectories.

    Args:
        policy: with a method ``reverse``, see ``TrajectoryModel.with_auxiliary``.
        latents: the values of the latent sites by name; others do not matter.
        log_q: their scores where they were drawn.
        trajectory: what ``reverse`` is called with: states, actions, alive.
    """
    program = poutine.condition(policy.reverse, data=latents)
    with exact_scores():
        trace = poutine.trace(program).get_trace(*trajectory)
    total = torch.zeros((), dtype=torch.float64)
    for name, site in trace.nodes.items():
        if site["type"] == "sample":
            total = total + site["fn"].log_prob(site["value"]) - log_q[name]
    return total
