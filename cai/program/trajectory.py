"""The model: a control problem as a Pyro program p(τ, O) of a trajectory and its optimality."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution

from cai import checks, one_line
from cai.distributions.exact_scores import exact_scores
from cai.distributions.lookup import ToldStep
from cai.numerics import memory
from cai.numerics.exclusive import cached_property, exclusive, seeded
from cai.program import contract, event_dimensions
from cai.program.arguments import check_arguments, check_states
from cai.program.calling import FIELDS, METHODS, prior_at
from cai.program.episode import Rollout, check_policy, has_latents, run
from cai.program.handlers import Draws, sampled, values
from cai.program.interfaces import ArrivalReward, Dynamics, FinalReward, Policy, Reward
from cai.program.layout import Layout
from cai.program.scoring import roll_out
from cai.program.trajectories import Trajectories, until_terminal


@dataclass(frozen=True, eq=False, kw_only=True)
class TrajectoryModel:
    """p(τ, O), the joint distribution of a trajectory and of its optimality (Levine 2018, eq. 4).

        p(s_0) ∏_t p(a_t|s_t) p(s_{t+1}|s_t,a_t) exp((r(s_t,a_t) + r⁺(s_t,a_t,s_{t+1}))/α)
               · exp(r_T(s_T)/α)

    Calling the model runs it as an ordinary Pyro program with the sites ``s_0, a_0, s_1, o_0,
    a_1, …``; latent sites of the dynamics' own are scoped by step, ``t3/slip``. With a discount
    below one there are sites ``alive_1, …``: a step leads with probability 1 - γ into an absorbing
    state of reward zero, where the actions follow the prior.

    Models may be used in several threads: methods that run a program take turns, as must your own
    plain Pyro inference, within ``with cai.numerics.exclusive.exclusive():``.

    In a subclass ``prior``, ``transition``, ``rewards`` and ``arrival_rewards`` may depend on the
    step t, and ``models.tabular`` takes arrays with an axis of steps, for finite horizons alone.

    Dynamics and rewards must broadcast: s and a are tensors of one batch shape, any shape, scalars
    included, and each element must be treated on its own. (Only Pyro's enumeration of a program
    that is not collapsed passes different shapes that broadcast with one another.)

    Args:
        initial: p(s_0). Its support gives the number of states.
        dynamics: (s, a) -> p(s'|s, a), a distribution; may sample latent sites of its own.
        reward: r(s, a) in reward units, or a number.
        action_prior: p(a|s), a distribution or a function of s that returns one; log-probabilities
            of -inf forbid actions. Its support gives the number of actions.
        horizon: T, the number of steps; None for an infinite horizon.
        temperature: α > 0, in reward units per nat.
        arrival_reward: r⁺(s, a, s'), paid on arrival; or a number, or None for none.
        final_reward: r_T(s_T), paid at the end; or None for none.
        discount: γ in (0, 1], the probability of surviving a step.
        terminal: s -> boolean, states that only lead to one another and pay nothing, where
            learners and simulations end an episode; None for none, or for finitely many states.
        optimality: "factor" multiplies in the undirected potential exp(r/α); "bernoulli" observes
            a binary O_t with p(O_t=1|s,a) = exp(r/α), for which every reward must be ≤ 0.
        layout: names and places of the states and actions, for pictures.
        auxiliary: a policy whose latents the program draws, too; see :meth:`with_auxiliary`.

    Raises:
        ValueError: if an argument is out of range, dynamics or rewards do not broadcast or mix
            batch elements, or a reward is NaN, +inf, or positive under ``optimality="bernoulli"``.

    >>> import torch, pyro.distributions as dist, cai
    >>> p, go = dist.Categorical(torch.ones(2)), lambda s, a: dist.Delta((s + a) % 2)
    >>> cai.TrajectoryModel(initial=p, dynamics=go, reward=0, action_prior=p, horizon=3).horizon
    3
    """

    initial: TorchDistribution
    dynamics: Dynamics
    reward: Reward | float
    action_prior: TorchDistribution | Callable[[Tensor], TorchDistribution]
    horizon: int | None
    temperature: float = 1.0
    arrival_reward: ArrivalReward | float | None = None
    final_reward: FinalReward | None = None
    discount: float = 1.0
    terminal: Callable[[Tensor], Tensor] | None = None
    optimality: Literal["factor", "bernoulli"] = "factor"
    layout: Layout | None = None
    auxiliary: Any = None
    __repr__ = one_line.of_fields

    def __post_init__(self) -> None:
        check_arguments(self)
        for name in ("temperature", "discount", "reward", "arrival_reward", "final_reward"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                object.__setattr__(self, name, checks.plain(value))
        try:
            contract.check_program(self)
        except ValueError as error:
            event_dimensions.explain(self, error)
            raise

    def __deepcopy__(self, memo: dict[int, Any]) -> TrajectoryModel:
        return self  # immutable, so that copies of a policy share its model

    def __call__(self) -> None:
        """Runs p(τ, O): samples a trajectory from the prior and scores its optimality."""
        T = checks.finite_horizon(self, "running the program")
        with exclusive(), exact_scores():
            # Auxiliary latents depend on the whole trajectory, which markov would forget.
            steps = pyro.markov(range(T)) if self.auxiliary is None else range(T)
            path = run(self, self._act, steps, factors=True)
            if self.auxiliary is not None:
                self.auxiliary.reverse(*path)

    def _act(self, t: int, s: Tensor, before: Any, alive: Any) -> Tensor:
        return sampled(f"a_{t}", prior_at(self.prior, s, t))

    def rollout(self, policy: Policy) -> Callable[[], None]:
        """The guide q(τ): the policy's actions in the model's own dynamics, without factors.

        An ordinary Pyro guide with the same sites as the model, so that
        ``SVI(model, model.rollout(policy), optim, Trace_ELBO())`` works as it stands. The
        parameters of a policy that is a torch module are registered with Pyro.

        Args:
            policy: (t, s) -> q(a_t|s_t), or one with a memory, such as ``cai.RecurrentPolicy``.
        """
        checks.finite_horizon(self, "a guide")
        check_policy(policy)
        return Rollout(self, policy)

    def with_auxiliary(self, policy: Any) -> Self:
        """The model whose program also draws the latents of a policy, after the trajectory.

        A guide that draws latents z needs a model that has them. With any r(z|τ) the ELBO is that
        of the policy with z summed out, minus E[KL(q(z|τ) ‖ r(z|τ))] (Agakov & Barber 2004):
        ``SVI(model.with_auxiliary(policy), model.rollout(policy), optim, Trace_ELBO())``.

        Args:
            policy: one with a method ``reverse(states, actions, alive)``, a Pyro program that draws
                the policy's latent sites from r(z|τ). It gets s_0 … s_T, a_0 … a_{T-1} and, with
                a discount, whether the trajectory is alive at steps 0 … T, as lists of tensors.
        """
        check_policy(policy)
        if not has_latents(policy):
            expected = "one with latents, which has a method reverse(states, actions, alive)"
            advice = "for instance cai.LatentPolicy; without latents use the model as it is"
            checks.refuse("policy", expected, type(policy).__name__, advice)
        return dataclasses.replace(self, auxiliary=policy)

    def simulate(
        self, policy: Policy, samples: int, seed: int | None = None, *, scored: bool = False
    ) -> Trajectories:
        """Draws independent trajectories of a policy in the true dynamics.

        Args:
            policy: (t, s) -> q(a_t|s_t).
            samples: n, how many trajectories.
            seed: makes the draw reproducible, apart from torch's generator; None draws from that.
            scored: whether to keep ``log_policy``, which saves a policy with a memory a second
                run; that of a policy with latents is always kept.
        """
        checks.check_count("samples", samples)
        checks.check_seed(0 if seed is None else seed)
        T = checks.finite_horizon(self, "simulating")
        size, advice = self.initial.event_shape.numel(), "simulate fewer at a time"
        memory.check_fits("samples", f"{samples} trajectories", samples * (T + 1) * size, advice)
        with seeded(seed), torch.no_grad():
            path, scores = roll_out(self, policy, samples, scored=scored)
            s, a = torch.stack(path.states, 1), torch.stack(path.actions, 1)
            advice = "look for 0/0 or 0·inf in what the policy or the dynamics compute"
            checks.check_no_nan("actions of (trajectory, step)", a, advice)
            checks.check_no_nan("states of (trajectory, step)", s, advice)
            alive = torch.ones(samples, T + 1, dtype=torch.bool)
            if path.alive:
                alive[:, 1:] = torch.stack(path.alive[1:], 1).bool()
            return self.paid(s, a, alive, **scores)

    def draw_step(self, t: Any, s: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the prior and the dynamics from each of n states, independently.

        Args:
            t: the step, an int or a tensor (n,).
            s: (n,) + event shape.

        Returns:
            a ~ p(a|s) and s' ~ p(s'|s,a), each (n,) + event shape.
        """
        check_states(self.initial, s)
        n = torch.Size((len(s),))
        with exclusive(), torch.no_grad(), Draws(len(s)):
            a = values("a", self.prior(s, t), n)
            return a, values("s", self.transition(s, a, t), n)

    @cached_property
    def overridden(self) -> frozenset[str]:
        """Which of prior, transition, rewards, … a subclass overrides."""
        return frozenset(
            x for x in METHODS if getattr(type(self), x) is not getattr(TrajectoryModel, x)
        )

    @cached_property
    def may_change(self) -> frozenset[str]:
        """Which of prior, transition, rewards, … may depend on the step."""
        told_it = {x for x, name in FIELDS.items() if isinstance(getattr(self, name), ToldStep)}
        return self.overridden | told_it

    @cached_property
    def pays_on_arrival(self) -> bool:
        """Whether there is a reward r⁺(s,a,s')."""
        return self.arrival_reward is not None or "arrival_rewards" in self.overridden

    @cached_property
    def pays_at_end(self) -> bool:
        """Whether there is a reward r_T(s)."""
        return self.final_reward is not None or "final_rewards" in self.overridden

    def prior(self, s: Tensor, t: Any = 0) -> TorchDistribution:
        """p(a|s) at step t for states of any batch shape."""
        given: Any = self.action_prior  # Pyro's distributions are callable, too
        return given if isinstance(given, Distribution) else told(given, t, s)

    def transition(self, s: Tensor, a: Tensor, t: Any = 0) -> TorchDistribution:
        """p(s'|s,a) at step t, for states and actions of any batch shape."""
        return told(self.dynamics, t, s, a)

    def log_factor(self, s: Tensor, a: Tensor, s_next: Tensor, t: Any = 0) -> Tensor:
        """(r(s,a) + r⁺(s,a,s'))/α at step t in nats, float64, in the arguments' batch shape."""
        reward = self.rewards(s, a, t)
        if self.pays_on_arrival:
            reward = reward + self.paid_on_arrival(s, a, s_next, t)
        return reward / self.temperature

    def rewards(self, s: Tensor, a: Tensor, t: Any = 0) -> Tensor:
        """r(s,a) at step t in float64."""
        return _evaluate(self.reward, t, s, a)

    def arrival_rewards(self, s: Tensor, a: Tensor, s_next: Tensor, t: Any = 0) -> Tensor:
        """r⁺(s,a,s') at step t in float64; zero where the model has none."""
        return _evaluate(self.arrival_reward or 0.0, t, s, a, s_next)

    def paid_on_arrival(self, s: Tensor, a: Tensor, s_next: Tensor, t: Any) -> Tensor:
        """``arrival_rewards``, told the step t unless a subclass has a version that is not."""
        arguments = (s, a, s_next, t) if self._arrival_is_told else (s, a, s_next)
        return self.arrival_rewards(*arguments)

    @cached_property
    def _arrival_is_told(self) -> bool:
        return "t" in inspect.signature(self.arrival_rewards).parameters

    def final_rewards(self, s: Tensor) -> Tensor:
        """r_T(s) in float64; zero where the model has none."""
        return _evaluate(self.final_reward or 0.0, None, s)

    def paid(
        self, states: Tensor, actions: Tensor, alive: Tensor, **scores: Tensor
    ) -> Trajectories:
        """Trajectories with their rewards, which are zero once terminated.

        Args:
            states: (n, T+1) + event shape.
            actions: (n, T) + event shape.
            alive: (n, T+1), boolean, still without regard to terminal states.
            scores: ``log_policy`` and ``log_auxiliary`` of the result.
        """
        n, T = alive.shape[0], alive.shape[1] - 1
        before = states[:, :-1], actions, states[:, 1:]
        rewards = self.rewards(*before[:2], torch.arange(T))
        if self.pays_on_arrival:
            rewards = rewards + self.paid_on_arrival(*before, torch.arange(T))
        alive = until_terminal(self, states, rewards, alive)
        if self.optimality == "bernoulli":
            checks.check_bernoulli("reward", rewards, self.discount)
        return Trajectories(
            states=states,
            actions=actions,
            rewards=torch.where(alive[:, :-1], rewards.expand(n, T), 0.0),
            final_rewards=torch.where(alive[:, -1], self.final_rewards(states[:, -1]), 0.0),
            alive=alive,
            **scores,
        )


def told(function: Any, t: Any, *arguments: Tensor) -> Any:
    """What a function of states and actions says at step t, whether it is told the step or not."""
    step = (t,) if isinstance(function, ToldStep) else ()
    return function(*arguments, *step)


def _evaluate(function: Any, t: Any, *arguments: Tensor) -> Tensor:
    value = told(function, t, *arguments) if callable(function) else function
    return torch.as_tensor(value, dtype=torch.float64)
