"""A Gymnasium environment as a model that can only be sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import gymnasium
import pyro.distributions as dist
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution

from cai import checks
from cai.distributions.empirical_states import EmpiricalStates
from cai.distributions.exact_scores import exact
from cai.distributions.support import check_support
from cai.models.environments.making import check_options
from cai.numerics.exclusive import cached_property, seeded
from cai.program.episode import begin, policy_at
from cai.program.handlers import draw
from cai.program.trajectories import Trajectories
from cai.stepping.vector_source import VectorSource, check_space


def environment(
    name: Any,
    *,
    num_envs: int = 8,
    temperature: float = 1.0,
    discount: float = 1.0,
    horizon: int | Literal["time limit"] | None = "time limit",
    action_prior: TorchDistribution | Callable[[Tensor], TorchDistribution] | None = None,
    **options: Any,
) -> Environment:
    """A Gymnasium environment whose steps can be drawn, but neither scored nor enumerated.

    ``NeuralPolicy``, its heads and ``RecurrentPolicy`` take it as a model, and learners from
    transitions train them on it. If an environment publishes its table, ``models.gym`` makes a
    model with exact answers from that. Observations are numbers 0 … S-1 or arrays; arrays of
    booleans or whole numbers, such as images, come as float32, and networks see arrays flattened.

    The action prior is uniform, over the actions or on their box, so that units of actions do not
    matter: instead of an entropy, a policy has its divergence from that prior, in nats.

    Args:
        name: what ``gymnasium.make`` takes, for instance "Pendulum-v1".
        num_envs: how many copies are stepped side by side.
        temperature: α, reward units per nat.
        discount: γ, which stays with the learner.
        horizon: the maximum number of steps of ``simulate``; the environment's own time limit if
            not given. Episodes are truncated there, since it is not a horizon of the problem.
        action_prior: p(a|s), a distribution or a function of s; uniform if not given.
        **options: the environment's own, for instance ``map_name="8x8"``.

    Returns:
        The environment as a model.

    Raises:
        ValueError: for an unknown environment or option, unsupported spaces, an
            unbounded box of actions without a prior, or a number out of range.

    >>> from cai import models
    >>> pendulum = models.environment("Pendulum-v1", num_envs=2, temperature=0.1)
    >>> pendulum.horizon, pendulum.action_prior.event_shape
    (200, torch.Size([1]))
    >>> pendulum.simulate(lambda t, s: pendulum.prior(s), samples=2, seed=0).rewards.shape
    torch.Size([2, 200])
    """
    checks.check_count("num_envs", num_envs)
    temperature = checks.check_positive("temperature", temperature)
    checks.check_discount(discount)
    check_options(name, options)
    try:
        one = gymnasium.make(name, **options)
        one.close()
    except Exception as error:  # whatever the environment's own code makes of its options
        words = " ".join(f"{type(error).__name__}: {error}".split())
        came = f"{name!r} with options {options}: {words}"
        checks.refuse("name", "an environment that Gymnasium can make", came, '"Pendulum-v1"')
    check_space("observations", one.observation_space)
    check_space("actions", one.action_space)
    if horizon == "time limit":
        horizon = None if one.spec is None else one.spec.max_episode_steps
    elif horizon is not None:
        checks.check_count("horizon", horizon)
    prior = _uniform(one.action_space) if action_prior is None else action_prior
    return Environment(name, options, num_envs, temperature, discount, horizon, prior)


_AT_ONCE = 100  # episodes that are simulated side by side


class Environment:
    """A Gymnasium environment for policies and learners; see ``environment``.

    Attributes:
        name: the name for ``gymnasium.make``.
        num_envs: how many copies are stepped side by side.
        horizon: after how many steps an episode is truncated; None for never.
        temperature: α, reward units per nat.
        discount: γ.
        action_prior: p(a|s), a distribution or a function of s.
        layout: None; environments have no places.
        overridden: names of overridden methods: none.
        may_change: names of methods that may depend on the step: none.

    >>> from cai import models
    >>> lake = models.environment("FrozenLake-v1", num_envs=2)
    >>> isinstance(lake, models.Environment), lake.discount
    (True, 1.0)
    """

    layout = None
    overridden: frozenset[str] = frozenset()
    may_change: frozenset[str] = frozenset()

    def __init__(
        self,
        name: Any,
        options: dict[str, Any],
        num_envs: int,
        temperature: float,
        discount: float,
        horizon: int | None,
        action_prior: TorchDistribution | Callable[[Tensor], TorchDistribution],
    ) -> None:
        self.name, self.num_envs, self.horizon = name, num_envs, horizon
        self.temperature, self.discount, self.action_prior = temperature, discount, action_prior
        self._options = options

    def __repr__(self) -> str:
        made = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"{getattr(self.name, 'id', self.name)}({made})"

    def make(self, num_envs: int | None = None) -> VectorEnv[Any, Any, Any]:
        """The copies, as a vector environment that is reset on request."""
        return gymnasium.make_vec(
            self.name,
            num_envs=self.num_envs if num_envs is None else num_envs,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
            **self._options,
        )

    @cached_property
    def initial(self) -> TorchDistribution:
        """A stand-in for p(s_0): uniform over states 0 … S-1, or over a few observed starts.

        Policies only use it for the space of states.
        """
        envs = self.make()
        seen, space = VectorSource(envs, 0).s, envs.single_observation_space
        envs.close()
        if isinstance(space, spaces.Discrete):
            return dist.Categorical(torch.ones(int(space.n)))
        return EmpiricalStates(seen)

    def prior(self, s: Tensor, t: Any = 0) -> TorchDistribution:
        """p(a|s) for states of any batch shape."""
        given = self.action_prior
        return given if isinstance(given, Distribution) else given(s)

    def simulate(
        self, policy: Any, samples: int, seed: int | None = None, *, scored: bool = False
    ) -> Trajectories:
        """Independent episodes of a policy, as with ``TrajectoryModel.simulate``.

        Args:
            policy: (t, s) -> q(a_t|s_t), or one with a memory, which is called step by step.
            samples: n, how many.
            seed: makes the draw reproducible and leaves torch's generator unchanged; None draws
                from the generator.
            scored: whether to keep ``log_policy``.

        Returns:
            Episodes, ``alive`` until they terminate, are truncated, or the discount ends them with
            probability 1 - γ after each step; ``episode_returns`` has what they pay without it.

        Raises:
            ValueError: if there is no limit to the steps of an episode, or the policy does not
                return distributions on the support of the action prior.
        """
        checks.check_count("samples", samples)
        checks.finite_horizon(self, "simulating")
        with seeded(seed), torch.no_grad():
            parts = [
                self._episodes(policy, min(_AT_ONCE, samples - done), scored)
                for done in range(0, samples, _AT_ONCE)
            ]
        joined: Any = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name, x in vars(parts[0]).items()
            if x is not None
        }
        return Trajectories(**joined)

    def _episodes(self, policy: Any, n: int, scored: bool) -> Trajectories:
        """n episodes side by side."""
        source = VectorSource(self.make(n), int(torch.randint(2**31, ())))
        episode, before = begin(policy), None
        states, actions, rewards, scores = [source.s], [], [], []
        going = torch.ones(n, dtype=torch.bool)
        alive, total = [going], torch.zeros(n, dtype=torch.float64)
        for t in range(self.horizon or 0):
            action = policy_at(episode, t, source.s, before)
            if t == 0:
                check_support(action, self.prior(source.s, 0))
            shape = torch.Size() if action.batch_shape else going.shape
            before = draw(action, shape, f"a_{t}")
            if scored:
                scores.append(exact(action).log_prob(before).expand(n))
            taken = source.step(before)
            states.append(taken.s_next)
            actions.append(before)
            rewards.append(torch.where(alive[-1], taken.reward, 0.0))
            total += torch.where(going, taken.reward, 0.0)
            going = going & ~taken.over
            survives = torch.rand(n, dtype=torch.float64) < self.discount
            alive.append(alive[-1] & going & survives)
        source.envs.close()
        return Trajectories(
            states=torch.stack(states, 1),
            actions=torch.stack(actions, 1),
            rewards=torch.stack(rewards, 1),
            final_rewards=torch.zeros(n, dtype=torch.float64),
            alive=torch.stack(alive, 1),
            log_policy=torch.stack(scores, 1) if scored else None,
            episode_returns=total,
        )


def _uniform(space: Any) -> TorchDistribution:
    """The uniform distribution over actions 0 … A-1, or on a box.

    Raises:
        ValueError: if the box is not bounded.
    """
    if isinstance(space, spaces.Discrete):
        return dist.Categorical(torch.ones(int(space.n)))
    low, high = (torch.as_tensor(x, dtype=torch.float64) for x in (space.low, space.high))
    if not (low.isfinite() & high.isfinite()).all():
        checks.refuse(
            "action_prior",
            "a bounded box of actions, on which it can be uniform, or a distribution",
            str(space),
            "for instance action_prior=dist.Normal(torch.zeros(2), 1.0).to_event(1)",
        )
    return dist.Uniform(low, high).to_event(low.dim())
