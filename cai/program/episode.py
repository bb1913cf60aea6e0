"""An episode of a policy: what it may remember, and how a rollout asks it step by step.

A policy with a memory has a method ``start()``, which returns a fresh function (t, s, a) -> q(a_t)
for one episode, or a batch of episodes side by side. It is called once a step, in order; a is the
action of the step before, and None at first. Whatever that function keeps is the memory. In a
rollout, ``start()`` and the function may draw sample sites of their own.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import pyro
from torch import Tensor, nn

from cai.distributions.support import check_support
from cai.program.calling import check_policy, policy_at
from cai.program.handlers import NoSites
from cai.program.interfaces import Episode, HasLatents, Policy, Remembers, Sums, Unrolls


def remembers(policy: Any) -> TypeGuard[Remembers]:
    """Whether a policy has a memory, so that it can only be asked step by step."""
    return hasattr(policy, "start")


def has_latents(policy: Any) -> TypeGuard[HasLatents]:
    """Whether a policy may draw latents, since it says how they are scored."""
    return hasattr(policy, "reverse")


def sums_out_latents(policy: Any) -> TypeGuard[Sums]:
    """Whether a policy can be had without its latents."""
    return hasattr(policy, "marginal")


def _unrolls(policy: Any) -> TypeGuard[Unrolls]:
    return hasattr(policy, "unroll")


def begin(policy: Any) -> Episode:
    """A fresh episode of any policy.

    Raises:
        ValueError: where it is none.
    """
    check_policy(policy)
    if remembers(policy):
        return policy.start()
    step = unrolled(policy)
    return lambda t, s, before: step(t, s)


def first_action(policy: Any, episode: Episode, s: Tensor, prior: Any) -> Any:
    """q(a_0|s_0), with a look at whether the policy is one for this model.

    Raises:
        ValueError: where it is no distribution on the support of the prior, or the policy draws
            sites that are the model's, or latents that nothing scores.
    """
    with NoSites(latents=has_latents(policy)):
        action = policy_at(episode, 0, s, None)
    check_support(action, prior)
    return action


def unrolled(policy: Policy) -> Policy:
    """The policy for one run over all steps: ``policy.unroll()`` where it has one."""
    return policy.unroll() if _unrolls(policy) else policy


_serial = itertools.count()
_names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def register(policy: Policy) -> None:
    """Registers the parameters of a policy with Pyro, under a name that no other policy has.

    Pyro's parameter store is global: two policies under one name would share their parameters.
    """
    if isinstance(policy, nn.Module):
        if policy not in _names:
            _names[policy] = f"policy_{next(_serial)}"
        pyro.module(_names[policy], policy)
