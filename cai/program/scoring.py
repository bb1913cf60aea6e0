"""Log-probabilities of a policy along trajectories, and of the latents that it draws."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact, exact_scores
from cai.program import sites
from cai.program.episode import (
    Run,
    acting,
    begin,
    has_latents,
    policy_at,
    remembers,
    run,
    sums_out_latents,
)
from cai.program.handlers import Draw, Draws, values
from cai.program.interfaces import HasLatents, Policy, Program


def without_latents(policy: Policy) -> Policy:
    """A policy without latents, which can be scored from a trajectory alone; they are summed out.

    Raises:
        ValueError: if it has latents and cannot sum them out.
    """
    if sums_out_latents(policy):
        return policy.marginal()
    if has_latents(policy):
        checks.refuse(
            "policy",
            "one without latents, or with a method marginal() that sums them out",
            type(policy).__name__,
            "train it with its sites: SVI(model.with_auxiliary(policy), model.rollout(policy), "
            "optim, Trace_ELBO())",
        )
    return policy


def log_probs_along(policy: Policy, states: Tensor, actions: Tensor) -> Tensor:
    """log q(a_t | all that the policy observed before) along n given trajectories, (n, T), nats.

    In one call for all steps, or step by step if the policy has a memory.

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
    policy: HasLatents, latents: dict[str, Tensor], log_q: dict[str, Tensor], trajectory: Any
) -> Tensor:
    """log r(z|τ) - log q(z) of a policy's latents, nats, in the batch shape of the trajectories.

    Args:
        policy: one with a method ``reverse``, see ``TrajectoryModel.with_auxiliary``.
        latents: name -> value of all latent sites, those of the model included.
        log_q: their scores under q.
        trajectory: the arguments of ``reverse``: states, actions, alive.

    Raises:
        ValueError: if ``reverse`` leaves out a latent, which would then have no cost.
    """
    program = poutine.condition(policy.reverse, data=latents)
    with exact_scores():
        trace = poutine.trace(program).get_trace(*trajectory)
    forgotten = {x for x in latents if not sites.of_the_program(x)} - trace.nodes.keys()
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
            if name not in log_q:
                checks.refuse(
                    "policy.reverse",
                    "a program that draws the latents of the policy alone, r(z|τ)",
                    f"one with the site {name}",
                    "draw there only the sites that start() draws",
                )
            total = total + site["fn"].log_prob(site["value"]) - log_q[name]
    return total


def roll_out(
    program: Program,
    policy: Any,
    n: int,
    draw: Draw = values,
    *,
    scored: bool,
    terminates: bool = True,
) -> tuple[Run, dict[str, Tensor]]:
    """n trajectories of a policy side by side, and their scores in nats.

    Args:
        program: the program whose dynamics they follow.
        policy: any policy.
        n: how many.
        draw: draws all sites, see :class:`~cai.program.handlers.Draws`.
        scored: whether to keep ``log_policy`` even if there are no latents.
        terminates: whether to draw ``alive_t`` if there is a discount.

    Returns:
        The run, and ``log_policy`` and, for latents, ``log_auxiliary`` as in ``Trajectories``.
    """
    T: Any = program.horizon
    latents = has_latents(policy)
    with Draws(n, draw, sites.of_the_policy if scored or latents else None) as draws:
        act = acting(program, policy, draws.sample)
        path = run(program, act, range(T), sample=draws.sample, terminates=terminates)
    if not draws.scores:
        return path, {}
    log_q = draws.scores
    scores = {"log_policy": torch.stack([log_q[f"a_{t}"] for t in range(T)], 1)}
    if latents:
        drawn = {name: draws.values[name] for name in log_q}
        scores["log_auxiliary"] = log_auxiliary(policy, drawn, log_q, path).expand(n)
    return path, scores
