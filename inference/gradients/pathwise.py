"""The pathwise gradient: trajectories as differentiable functions of the policy and of noise."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import exact
from cai.inference.gradients.gradient import Estimator, checked
from cai.numerics.exclusive import exclusive
from cai.program.calling import policy_at
from cai.program.episode import begin, first_action, has_latents
from cai.program.scoring import log_auxiliary
from cai.program.trajectory import TrajectoryModel


def pathwise_gradient(model: TrajectoryModel, policy: nn.Module, particles: int) -> Estimator:
    """The gradient through dynamics and rewards along reparameterised trajectories.

        ∇ELBO = E_noise[ ∇ Σ_t γ^t ((r + r⁺)/α + log p(a_t|s_t) - log q(a_t|s_t)) + γ^T r_T/α ]

    with a_t and s_{t+1} as functions of noise and of the parameters, and log r(z|τ) - log q(z)
    besides where the policy has latents z (Kingma and Welling 2014; Heess et al. 2015, SVG(∞)).
    The coin of death is independent of all else, so that it is taken in expectation. Unbiased where
    the return is a continuous function of the actions that is smooth almost everywhere: what a jump
    is worth, no path's gradient sees, and nothing here can tell. Where small pushes grow with time,
    as around the top of a pendulum, so does the gradient: over hundreds of steps few paths carry it
    all, and its noise with it.

    Raises:
        ValueError: from the estimator, where a site depends on the policy and has no ``rsample``,
            or a state is an integer; where a policy with latents meets a discount, as r(z|τ)
            depends on when one died.
    """
    if model.discount < 1 and has_latents(policy):
        checks.refuse(
            'estimator "pathwise"',
            "a discount of 1 beside a policy with latents",
            f"{model.discount:g}",
            "take SVI(model.with_auxiliary(policy), model.rollout(policy), optim, Trace_ELBO())",
        )
    T = checks.finite_horizon(model, "fit")
    steps = torch.arange(T).expand(particles, T)
    weights = torch.full((T + 1,), model.discount, dtype=torch.float64).pow(torch.arange(T + 1))

    def estimate() -> float:
        s, a, log_q, latents = _rollout(model, policy, particles, T)
        log_p = exact(model.prior(s[:, :-1], steps)).log_prob(a)
        scores = model.log_factor(s[:, :-1], a, s[:, 1:], steps) + log_p - log_q
        ends = model.final_rewards(s[:, -1]) / model.temperature
        elbo = ((scores * weights[:-1]).sum(-1) + ends * weights[-1] + latents).mean()
        checked(elbo.item())
        (-elbo).backward()
        return -elbo.item()

    return estimate


def _rollout(
    model: TrajectoryModel, policy: nn.Module, particles: int, T: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States (n, T+1, ...), actions (n, T, ...), log q(a_t|s_t), (n, T), log r(z|τ)/q(z), (n,)."""
    with exclusive(), _Reparameterised(particles) as draws:
        at, a = begin(policy), None
        s = draws.draw("s_0", model.initial)
        states, actions, log_q = [s], [], []
        for t in range(T):
            first = t == 0
            q = first_action(policy, at, s, model.prior(s, t)) if first else policy_at(at, t, s, a)
            q = exact(q)
            a = draws.draw(f"a_{t}", q)
            log_q.append(q.log_prob(a).expand(particles))
            draws.scope = f"t{t}/"
            next_state = model.transition(s, a, t)
            draws.scope = ""
            s = draws.draw(f"s_{t + 1}", next_state)
            states.append(s)
            actions.append(a)
    latents = torch.zeros((), dtype=torch.float64)
    if has_latents(policy):
        latents = log_auxiliary(policy, draws.values, draws.scores, (states, actions, []))
    return torch.stack(states, 1), torch.stack(actions, 1), torch.stack(log_q, 1), latents


class _Reparameterised(Messenger):
    """Draws n values at every site, with their gradients in what the site depends on."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.shape = torch.Size((n,))
        self.scope = ""
        self.values: dict[str, Tensor] = {}  # of sites that a program draws by itself
        self.scores: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        msg["stop"] = True  # no handler outside has a part in it
        if not msg["is_observed"]:
            name = self.scope + msg["name"]
            msg["value"] = self.values[name] = self.draw(name, msg["fn"])
            self.scores[name] = exact(msg["fn"]).log_prob(msg["value"])
            msg["done"] = True

    def draw(self, name: str, fn: Any) -> Tensor:
        """n values of a distribution, (n, ...).

        Raises:
            ValueError: where they depend on the policy and their gradient is lost.
        """
        fn = fn if fn.batch_shape == self.shape else fn.expand(self.shape)
        if fn.has_rsample:
            value: Tensor = fn.rsample()
        else:
            value = fn.sample()
            # What does not depend on the policy, the model's own noise, needs no gradient.
            if exact(fn).log_prob(value).requires_grad:
                _refuse(name, f"{type(fn).__name__}, which has none")
        if name.startswith("s_") and not value.is_floating_point():
            _refuse(name, f"states of type {value.dtype}, which carry no gradient")
        return value


def _refuse(name: str, came: str) -> None:
    checks.refuse(
        f'estimator "pathwise", site {name}',
        "a distribution with rsample, for instance Normal or Delta, as everything between an "
        "action and the rewards after it must have",
        came,
        'take "score", which works for any program',
    )
