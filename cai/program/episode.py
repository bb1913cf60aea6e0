"""An episode of a policy: its memory, and how a rollout calls it step by step.

A policy with a memory has a method ``start()``, which returns a fresh function (t, s, a) -> q(a_t)
for one episode, or a batch of episodes side by side. It is called once per step, in order; a is the
previous action, None at first. Whatever that function keeps is the memory. In a rollout,
``start()`` and the function may draw sample sites of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeGuard
from weakref import WeakKeyDictionary

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from cai import checks
from cai.distributions.exact_scores import exact, exact_scores
from cai.distributions.optimality import Optimality
from cai.distributions.support import check_support
from cai.numerics.exclusive import exclusive
from cai.program.calling import SINCE, refuse_parameters, refuse_raised
from cai.program.handlers import NoSites, Scope, sampled
from cai.program.interfaces import Episode, HasLatents, Policy, Program, Remembers, Sums, Unrolls

Act: TypeAlias = Callable[[int, Tensor, Tensor | None, Tensor | None], Tensor]
"""(t, s_t, a_{t-1}, alive_t) -> a_t, drawn."""

Sample: TypeAlias = Callable[[str, Any], Tensor]
"""(name, distribution) -> value of a site, as ``pyro.sample`` draws it."""


class Run(NamedTuple):
    """A run of a program over T steps.

    Attributes:
        states: s_0 … s_T.
        actions: a_0 … a_{T-1}.
        alive: at steps 0 … T; empty where termination is not drawn.
    """

    states: list[Tensor]
    actions: list[Tensor]
    alive: list[Tensor]


def run(
    program: Program,
    act: Act,
    steps: Iterable[int],
    *,
    sample: Sample = sampled,
    factors: bool = False,
    terminates: bool = True,
) -> Run:
    """One run of a program, or of a batch side by side: the loop of every rollout.

    Args:
        program: start, dynamics, rewards and discount.
        act: draws the actions.
        steps: 0 … T-1, perhaps in ``pyro.markov``.
        sample: draws the program's own sites.
        factors: whether to multiply in the optimality factors.
        terminates: whether to draw ``alive_t`` where there is a discount.
    """
    s, a, scope = sample("s_0", program.initial), None, Scope()
    alive = torch.ones((), dtype=torch.float64) if terminates and program.discount < 1 else None
    states, actions, lives = [s], [], [] if alive is None else [alive]
    told = "transition" in program.may_change
    for t in steps:
        a = act(t, s, a, alive)
        with scope.of(t):
            next_state = program.transition(s, a, t) if told else program.dynamics(s, a)
        s_next = sample(f"s_{t + 1}", next_state)
        if factors:
            _observe(program, t, while_alive(alive, program.log_factor(s, a, s_next, t)))
        if alive is not None:
            alive = sample(f"alive_{t + 1}", dist.Bernoulli(program.discount * alive))
            lives.append(alive)
        if factors and t + 1 == program.horizon and program.pays_at_end:
            # Inside the last iteration: after the markov loop enumeration cannot pack it.
            log_factor = program.final_rewards(s_next) / program.temperature
            _observe(program, t + 1, while_alive(alive, log_factor))
        s = s_next
        states.append(s)
        actions.append(a)
    return Run(states, actions, lives)


def _observe(program: Program, t: int, log_factor: Tensor) -> None:
    """Adds the optimality factor exp(log_factor) of step t, the one primitive of the library.

    The observed value is a scalar: a batched one would claim the enumeration dimensions of its
    neighbours, and ``pyro.markov`` would then recycle them while they are in use.
    """
    if program.optimality == "factor":
        zero = torch.zeros(())
        potential = dist.Delta(zero.expand(log_factor.shape), log_density=log_factor)
        pyro.sample(f"o_{t}", potential, obs=zero)
    else:
        checks.check_bernoulli(f"o_{t}", log_factor * program.temperature, program.discount)
        pyro.sample(f"o_{t}", Optimality(log_factor), obs=torch.ones(()))


def acting(program: Program, policy: Policy, sample: Sample = sampled) -> Act:
    """A function that draws the actions of a policy in one run, of the prior once terminated.

    The episode begins with the first action, which is checked to suit this program.
    """
    episode: Episode | None = None

    def act(t: int, s: Tensor, before: Tensor | None, alive: Tensor | None) -> Tensor:
        nonlocal episode
        if episode is None:
            episode = begin(policy)
            action = _first_action(policy, episode, s)
            check_support(action, program.prior(s, t))
        else:
            action = policy_at(episode, t, s, before)
        if alive is not None:
            action = _where_alive(alive, action, program.prior(s, t))
        return sample(f"a_{t}", action)

    return act


def while_alive(alive: Tensor | None, value: Tensor) -> Tensor:
    """Zero once terminated; by ``where``, since 0 · -inf would be NaN."""
    return value if alive is None else torch.where(alive > 0, value, 0.0)


def _where_alive(alive: Tensor, policy: Any, prior: Any) -> Any:
    """The distribution of the policy while alive, the prior once terminated."""
    policy, prior = exact(policy), exact(prior)
    if isinstance(policy, dist.Categorical) and isinstance(prior, dist.Categorical):
        # One Categorical, since Pyro cannot enumerate a MaskedMixture.
        logits = torch.where(alive.unsqueeze(-1) > 0, policy.logits, prior.logits)
        return dist.Categorical(logits=logits)
    return dist.MaskedMixture(alive > 0, prior, policy)


def remembers(policy: Any) -> TypeGuard[Remembers]:
    """Whether a policy has a memory, so that it must be called step by step."""
    return hasattr(policy, "start")


def has_latents(policy: Any) -> TypeGuard[HasLatents]:
    """Whether a policy may draw latents, because it defines how they are scored."""
    return callable(getattr(policy, "reverse", None))


def sums_out_latents(policy: Any) -> TypeGuard[Sums]:
    """Whether a policy can sum out its latents."""
    return hasattr(policy, "marginal")


def _unrolls(policy: Any) -> TypeGuard[Unrolls]:
    return hasattr(policy, "unroll")


def check_policy(policy: Any) -> None:
    """Raises ValueError unless it is a function or has a memory, and its parameters have no NaN."""
    if isinstance(policy, nn.Module):
        for name, x in itertools.chain(policy.named_parameters(), policy.named_buffers()):
            checks.check_no_nan(f"policy.{name}", x, SINCE)
    known = callable(policy) and not isinstance(policy, Distribution | type)
    if known or (hasattr(policy, "start") and not isinstance(policy, type)):
        return
    advice = "for one distribution in all states, give lambda t, s: distribution"
    if hasattr(policy, "policy"):
        advice = "pass its .policy"
    came = type(policy).__name__
    if isinstance(policy, type):
        came, advice = f"the class {policy.__name__}", f"make one: {policy.__name__}(model)"
    checks.refuse("policy", "a function (t, s) -> distribution", came, advice)


def begin(policy: Any) -> Episode:
    """A fresh episode of any policy.

    Raises:
        ValueError: if it is not a policy.
    """
    check_policy(policy)
    if remembers(policy):
        return policy.start()
    step = unrolled(policy)
    return lambda t, s, before: step(t, s)


def _first_action(policy: Any, episode: Episode, s: Tensor) -> Any:
    """q(a_0|s_0), of a policy that must not draw sites that are the model's, or that none scores.

    Raises:
        ValueError: if it draws one.
    """
    with NoSites(latents=has_latents(policy)):
        return policy_at(episode, 0, s, None)


def policy_at(
    step: Callable[..., Any], t: Any, s: Tensor, *before: Any, name: str = "policy"
) -> Any:
    """The distribution that a policy returns for (t, s).

    Raises:
        ValueError: if it raises anything. Its own ValueErrors pass, except those of torch about
            parameters, which say neither where nor what to do.
    """
    try:
        return step(t, s, *before)
    except ValueError as error:
        refuse_parameters(name, f"step {t}", error)
        raise
    except Exception as error:
        refuse_raised(name, t, s, error, "return a distribution over the actions of this model")


def unrolled(policy: Policy) -> Policy:
    """The policy for one run over all steps: ``policy.unroll()`` where it has one."""
    return policy.unroll() if _unrolls(policy) else policy


_serial = itertools.count()
_names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def register(policy: Policy) -> None:
    """Registers the parameters of a policy with Pyro under a unique name.

    Pyro's parameter store is global: two policies under one name would share their parameters.
    """
    if isinstance(policy, nn.Module):
        if policy not in _names:
            _names[policy] = f"policy_{next(_serial)}"
        pyro.module(_names[policy], policy)


@dataclass(frozen=True, eq=False)
class Rollout:
    """The guide of a policy; an objective may ask for that."""

    model: Program
    policy: Policy

    @exclusive()
    def __call__(self) -> None:
        """Runs q(τ)."""
        T = checks.finite_horizon(self.model, "a guide")
        register(self.policy)
        with exact_scores():
            # A memory outlasts the step, and so must the dimensions of Pyro's enumeration.
            steps = range(T) if remembers(self.policy) else pyro.markov(range(T))
            run(self.model, acting(self.model, self.policy), steps)
