"""Policies with latents: π(a|s,z), z drawn once an episode or at each step.

As a guide such a policy draws z as sample sites, and the model must have them too, after the
trajectory: ``model.with_auxiliary(policy)``.
"""

from __future__ import annotations

from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution

from cai import checks, one_line
from cai.distributions.exact_scores import exact, log_probs, support_size
from cai.networks.heads import Head, head_for
from cai.networks.perceptron import perceptron
from cai.policies.observation import Numbers, View
from cai.program.interfaces import Episode, Observe
from cai.program.trajectory import TrajectoryModel


class LatentPolicy(nn.Module):
    """π(a|s,z) as a network of (t, s, z), with z ~ q(z) drawn at site ``z``, or ``z_t``.

    A finite z, a skill or a mode, is drawn from a gating network of (t, s), at the first state of
    the episode or at each; and the model's r(z|τ) is exact, q(z|τ) ∝ q(z) ∏ π(a_t|s_t,z), so that
    the auxiliary bound is tight. A continuous z is drawn from its prior, and r(z|τ) is a Gaussian
    whose moments come from a network's sum over the steps. A z per episode correlates the actions
    of that episode; but no policy with fixed dynamics does better than ``soft_values(model)``.

    Args:
        model: the model, which gives the spaces of states and actions.
        latent: p(z): a Categorical where z is finite, else a Gaussian over vectors.
        per: draw z once an "episode", or at each "step".
        hidden: widths of the hidden layers of each network.
        head: the family of π(a|s,z); the one that suits the action prior if not given.
        observe: s -> what the policy sees of it; everything if not given.

    Raises:
        ValueError: if the latent is neither finite nor a vector, or as
            :class:`cai.NeuralPolicy`.

    >>> import torch, pyro.distributions as dist, cai
    >>> from cai import models
    >>> model = models.multigoal(horizon=5)
    >>> policy = cai.LatentPolicy(model, dist.Categorical(torch.ones(4)))  # four skills
    >>> cai.evaluate(model, policy, samples=10).elbo_stderr > 0
    True
    """

    __repr__ = one_line.of_module

    def __init__(
        self,
        model: TrajectoryModel,
        latent: TorchDistribution,
        per: Literal["episode", "step"] = "episode",
        hidden: tuple[int, ...] = (64,),
        head: Head | None = None,
        observe: Observe | None = None,
    ) -> None:
        super().__init__()
        _check(latent, per)
        checks.check_widths("hidden", hidden)
        self._view, self._latent, self._per = View(model, observe), latent, per
        s = model.initial.sample()
        prior = self._view.prior(s, 0)
        self._head, self._kinds = head_for(prior, head), support_size(latent)
        self._numbers, self._actions = Numbers(latent), Numbers(prior)
        self._state_dims, self._action_dims = len(model.initial.event_shape), len(prior.event_shape)
        seen, size = 1 + self._view.size, self._numbers.size
        self.network = perceptron((seen + size, *hidden, self._head.size(prior)))
        # At zero all z would be the same, and no gradient would tell them apart.
        self.network[-1].reset_parameters()  # type: ignore[operator]
        if self._kinds is not None:
            self.gate = perceptron((seen, *hidden, size))
        else:
            self.backward = perceptron((seen + self._actions.size, *hidden, 2 * size))

    def conditional(self, t: Any, s: Tensor, z: Tensor) -> TorchDistribution:
        """π(a_t|s_t,z), for t, s and z that broadcast."""
        seen, code = self._seen(t, s), self._numbers(z).to(self._dtype)
        shape = torch.broadcast_shapes(seen.shape[:-1], code.shape[:-1])
        x = torch.cat([seen.expand(*shape, -1), code.expand(*shape, -1)], -1)
        return self._head(self.network(x), self._view.prior(s, t))

    def start(self) -> Episode:
        """A fresh episode, which draws its latents as sample sites."""
        z: Any = None

        def step(t: int, s: Tensor, before: Tensor | None) -> TorchDistribution:
            nonlocal z
            if z is None or self._per == "step":
                z = pyro.sample(self._site(t), self._drawn(t, s))
            return self.conditional(t, s, z)

        return step

    def reverse(self, states: list[Tensor], actions: list[Tensor], alive: list[Tensor]) -> None:
        """Draws the latents by r(z|τ), as the model does after the trajectory."""
        total: Any = 0.0
        for t, (s, a) in enumerate(zip(states, actions, strict=False)):
            clue = self._clue(t, s, a)
            if alive:
                clue = torch.where(alive[t].unsqueeze(-1) > 0, clue, 0.0)
            total = total + clue
            if self._per == "step":
                pyro.sample(self._site(t), self._recognised(t, s, clue))
        if self._per == "episode":
            pyro.sample("z", self._recognised(0, states[0], total))

    def marginal(self) -> _Marginal:
        """The same policy with its finite latents summed out: a policy with a memory and no sites.

        Raises:
            ValueError: for a continuous latent.
        """
        if self._kinds is None:
            checks.refuse(
                "latent",
                "a finite one, to sum it out",
                type(self._latent).__name__,
                'train it with its sites: fit(model, policy, estimator="pathwise"), or '
                "SVI(model.with_auxiliary(policy), model.rollout(policy), optim, Trace_ELBO())",
            )
        return _Marginal(self)

    def gate_log_probs(self, t: Any, s: Tensor) -> Tensor:
        """log q(z|t,s) of a finite latent, (..., K)."""
        assert self._kinds is not None
        logits: Tensor = log_probs(self._latent, self._kinds) + self.gate(self._seen(t, s))
        return logits.log_softmax(-1)

    def of_all(self, t: Any, s: Tensor) -> TorchDistribution:
        """π(a|s,z) of every z at once, batch shape (..., K)."""
        assert self._kinds is not None
        t = t.unsqueeze(-1) if isinstance(t, Tensor) else t
        return self.conditional(t, _beside(s, self._state_dims), torch.arange(self._kinds))

    def log_probs_of_all(self, t: Any, s: Tensor, a: Tensor) -> Tensor:
        """log π(a|s,z) of every z, (..., K)."""
        scores: Tensor = exact(self.of_all(t, s)).log_prob(_beside(a, self._action_dims))
        return scores

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def _seen(self, t: Any, s: Tensor) -> Tensor:
        return self._view.timed(t, s, self._dtype)

    def _site(self, t: int) -> str:
        return "z" if self._per == "episode" else f"z_{t}"

    def _drawn(self, t: int, s: Tensor) -> TorchDistribution:
        if self._kinds is None:
            return self._latent.expand(s.shape[: s.dim() - self._state_dims])
        return dist.Categorical(logits=self.gate_log_probs(t, s))

    def _clue(self, t: int, s: Tensor, a: Tensor) -> Tensor:
        """The evidence of a step about z: log π(a|s,z), or outputs of the recognition network."""
        if self._kinds is not None:
            return self.log_probs_of_all(t, s, a)
        seen, did = self._seen(t, s), self._actions(a).to(self._dtype)
        shape = torch.broadcast_shapes(seen.shape[:-1], did.shape[:-1])
        x = torch.cat([seen.expand(*shape, -1), did.expand(*shape, -1)], -1)
        numbers: Tensor = self.backward(x)
        return numbers

    def _recognised(self, t: int, s: Tensor, clue: Tensor) -> TorchDistribution:
        """r(z|τ) from the summed evidence of the steps."""
        if self._kinds is not None:
            return dist.Categorical(logits=self.gate_log_probs(t, s) + clue)
        location, log_scale = clue.chunk(2, -1)
        mean, scale = self._latent.mean, self._latent.stddev
        return dist.Normal(mean + scale * location, scale * log_scale.exp()).to_event(1)


class _Marginal:
    """A latent policy with z summed out: its memory is the posterior of z given its own actions."""

    def __init__(self, policy: LatentPolicy) -> None:
        self._policy = policy

    def start(self) -> Episode:
        policy, weights, last = self._policy, torch.zeros(()), torch.zeros(())

        def step(t: int, s: Tensor, before: Tensor | None) -> TorchDistribution:
            nonlocal weights, last
            if before is None or policy._per == "step":
                weights = policy.gate_log_probs(t, s)
            else:
                weights = weights + policy.log_probs_of_all(t - 1, last, before)
            last = s
            each = policy.of_all(t, s)
            if isinstance(each, dist.Categorical):
                logits = weights.log_softmax(-1).unsqueeze(-1) + each.logits
                return dist.Categorical(logits=logits.logsumexp(-2))
            return dist.MixtureSameFamily(dist.Categorical(logits=weights), each)

        return step


def _beside(x: Tensor, event: int) -> Tensor:
    """x with an axis of length one before the last ``event`` axes, for all z side by side."""
    return x.unsqueeze(x.dim() - event)


def _check(latent: Any, per: Any) -> None:
    if not isinstance(latent, Distribution):
        came, advice = type(latent).__name__, "for instance dist.Categorical(torch.ones(2))"
        checks.refuse("latent", "a Pyro distribution", came, advice)
    finite = support_size(latent) is not None
    if latent.batch_shape or not (finite or len(latent.event_shape) == 1):
        checks.refuse(
            "latent",
            "a Categorical, or a Gaussian over vectors, of batch shape []",
            f"{type(latent).__name__} of event shape {list(latent.event_shape)}",
            "for instance dist.Normal(torch.zeros(2), 1.0).to_event(1)",
        )
    checks.check_one_of("per", per, ("episode", "step"), "an episode keeps one z")
