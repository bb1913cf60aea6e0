"""An episode of a policy: what it may remember, and how a rollout asks it step by step.

A policy with a memory has a method ``start()``, which returns a fresh function (t, s, a) -> q(a_t)
for one episode, or a batch of episodes side by side. It is called once a step, in order; a is the
action of the step before, and None at first. Whatever that function keeps is the memory. In a
rollout, ``start()`` and the function may draw sample sites of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact, exact_scores
from cai.distributions.support import check_support
from cai.policies.neural import Policy, unrolled
from cai.program.calling import check_policy, policy_at

Episode: TypeAlias = Callable[[Any, Tensor, Tensor | None], Any]
"""(t, s_t, a_{t-1}) -> q(a_t | all that was seen), for one run over all steps in order."""

_OF_THE_MODEL = re.compile(r"(s|a|o|alive)_\d+$|t\d+/")  # the names of a trajectory's sites


def remembers(policy: Policy) -> bool:
    """Whether a policy has a memory, so that it can only be asked step by step."""
    return hasattr(policy, "start")


def begin(policy: Policy) -> Episode:
    """A fresh episode of any policy.

    Raises:
        ValueError: where it is none.
    """
    check_policy(policy)
    if remembers(policy):
        episode: Episode = policy.start()  # type: ignore[attr-defined]
        return episode
    step = unrolled(policy)
    return lambda t, s, before: step(t, s)


def first_action(policy: Policy, episode: Episode, s: Tensor, prior: Any) -> Any:
    """q(a_0|s_0), with a look at whether the policy is one for this model.

    Raises:
        ValueError: where it is no distribution on the support of the prior, or the policy draws
            sites that are the model's, or latents that nothing scores.
    """
    with NoSites(latents=hasattr(policy, "reverse")):
        action = policy_at(episode, 0, s, None)
    check_support(action, prior)
    return action


class DrawsSites(ValueError):
    """A policy drew a site that it must not draw."""


class NoSites(Messenger):
    """Refuses the sites that a policy must not draw: the model's, and latents that none scores.

    Args:
        latents: whether it may draw latents, since it has a ``reverse``.
    """

    def __init__(self, latents: bool = False) -> None:
        super().__init__()
        self.latents = latents

    def _pyro_sample(self, msg: Any) -> None:
        if _OF_THE_MODEL.match(msg["name"]):
            refuse_site(msg["name"])
        if not self.latents:
            raise DrawsSites(
                "policy: expected a distribution of actions without sites of its own, got one that "
                f"draws the site {msg['name']}; a policy with latents draws them in start() and "
                "scores them in reverse(states, actions, alive), see cai.LatentPolicy"
            )


def refuse_site(name: str) -> NoReturn:
    """Raises DrawsSites for a site that a policy draws though it is the model's."""
    raise DrawsSites(
        f"policy, site {name}: expected the model alone to draw it, since a guide keeps the true "
        "dynamics, got another draw; return the distribution of the action and leave the drawing "
        "to model.rollout(policy), give latents other names, and for a guide that bends the "
        "dynamics take cai.FreeDynamics"
    )


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
        at_once = policy_at(policy, torch.arange(T).expand(n, T), states)
        scores: Tensor = exact(at_once).log_prob(actions)
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
        latents: the values of the latent sites by name, among those of the model.
        log_q: their scores where they were drawn.
        trajectory: what ``reverse`` is called with: states, actions, alive.

    Raises:
        ValueError: where ``reverse`` leaves a latent out, which would go unpaid.
    """
    program = poutine.condition(policy.reverse, data=latents)
    with exact_scores():
        trace = poutine.trace(program).get_trace(*trajectory)
    forgotten = {x for x in latents if not _OF_THE_MODEL.match(x)} - trace.nodes.keys()
    if forgotten:
        checks.refuse(
            "policy.reverse",
            "a program that draws all latents of the policy, r(z|τ)",
            f"one without the site {min(forgotten)}",
            "draw each of them there under the same name",
        )
    total = torch.zeros((), dtype=torch.float64)
    for name, site in trace.nodes.items():
        if site["type"] == "sample":
            total = total + site["fn"].log_prob(site["value"]) - log_q[name]
    return total
