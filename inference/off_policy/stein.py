"""Stein variational gradient descent, of particles (Liu & Wang 2016) and of a sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from cai import checks
from cai.inference.fitting.descent import temperature_at
from cai.inference.fitting.resumption import copy_of
from cai.inference.gradients.guarded import raising
from cai.numerics.exclusive import seeded

LogDensity: TypeAlias = Callable[[Tensor], Tensor]
"""u -> log p(u) up to a constant, of rows (…, d) to (…); differentiable."""


def stein_direction(particles: Tensor, score: Tensor, at: Tensor | None = None) -> Tensor:
    """The direction in which particles should move to become draws of a density p.

        φ(v) = 1/n Σ_j [κ(u_j, v) ∇log p(u_j) + ∇_{u_j} κ(u_j, v)],   κ(u, v) = exp(-|u - v|²/h)

    The first term pulls towards high density, the second keeps particles apart. Of all directions
    in the unit ball of the kernel's function space this one decreases KL(q ‖ p) fastest, q being
    the distribution of the u_j (Liu & Wang 2016). The bandwidth h is the median of the *squared*
    distances |u_j - v_i|² over log(n + 1), as theirs is, so that the direction does not depend on
    the units of u. (Haarnoja et al. 2017, appendix D.1, take the distances themselves.)

    Args:
        particles: u, (…, n, d).
        score: ∇log p(u_j), (…, n, d).
        at: v, (…, m, d), where the direction is asked for; the particles themselves if not given.

    Returns:
        φ, (…, m, d), without a graph of gradients.

    Raises:
        ValueError: if there is not one score for each particle, or v has another dimension.

    >>> import torch
    >>> from cai import inference
    >>> u = torch.tensor([[0.0], [1.0]])
    >>> inference.stein_direction(u, -u)  # of a standard normal density: mean 0, variance 1
    tensor([[-0.5329],
            [-0.1338]])
    """
    u, v = particles, particles if at is None else at
    for name, x in {"particles": u, "score": score, "at": v}.items():
        checks.check_kind(name, x, Tensor, "a tensor (…, n, d)", "for instance torch.randn(50, 2)")
    if u.dim() < 2 or score.shape != u.shape or v.shape[-1] != u.shape[-1]:
        shapes = ", ".join(str(list(x.shape)) for x in (u, score, v))
        expected = "particles and scores of one shape (…, n, d), and rows of d numbers for at"
        checks.refuse("particles", expected, f"shapes {shapes}", "one row for each particle")
    with torch.no_grad():
        squares = torch.cdist(u, v, compute_mode="donot_use_mm_for_euclid_dist").square()
        n = u.shape[-2]
        h = (_median(squares, at is None) / math.log(n + 1)).clamp(min=torch.finfo(u.dtype).tiny)
        kernel = torch.exp(-squares / h).mT  # (…, m, n)
        repulsion = v * kernel.sum(-1, keepdim=True) - kernel @ u
        return (kernel @ score + 2 / h * repulsion) / n


def _median(squares: Tensor, same: bool) -> Tensor:
    """The median of the squared distances, (…, 1, 1), of each pair of *different* particles."""
    n, m = squares.shape[-2:]
    zeros = n if same and n > 1 else 0  # the smallest, each of a particle from itself
    middle = zeros + (n * m - zeros + 1) // 2
    return squares.flatten(-2).kthvalue(middle).values[..., None, None]


def score_of(log_density: LogDensity, u: Tensor) -> Tensor:
    """∇log p(u), of the shape of u.

    Raises:
        ValueError: if the density is not a tensor of the batch shape of u that has a gradient.
    """
    advice = "for instance lambda u: -0.5 * u.square().sum(-1)"
    u = u.detach().requires_grad_()
    with torch.enable_grad():
        with raising("log_density", f"a function of a tensor of shape {list(u.shape)}", advice):
            found: Any = log_density(u)
        if not isinstance(found, Tensor) or found.shape != u.shape[:-1] or not found.requires_grad:
            expected = f"a differentiable tensor of shape {list(u.shape[:-1])}, log p of each row"
            checks.refuse("log_density", expected, checks.described(found), advice)
        return torch.autograd.grad(found.sum(), u)[0]


def svgd(
    log_density: LogDensity,
    particles: Tensor,
    *,
    steps: int = 500,
    learning_rate: float = 0.1,
) -> Tensor:
    """Particles moved until they are spread like draws of a density.

    Each step of Adam goes along :func:`stein_direction`. Particles keep the variance of a density
    well in one or two dimensions, and lose more and more of it with each further one.

    Args:
        log_density: u -> log p(u) up to a constant, (n, d) -> (n,).
        particles: where they start, (n, d).
        steps: the number of steps.
        learning_rate: that of Adam at the start, in the units of u; it falls to zero.

    Returns:
        (n, d).

    Raises:
        ValueError: if the particles are not rows, or the density is not a tensor of their number.
        FloatingPointError: if a particle is not finite.

    >>> import torch
    >>> from cai import inference
    >>> start = torch.linspace(-1.0, 1.0, 20).unsqueeze(-1)
    >>> found = inference.svgd(lambda u: -0.5 * (u - 5).square().sum(-1), start)
    >>> bool(abs(found.mean() - 5) < 0.05), bool(abs(found.std() - 1) < 0.1)
    (True, True)
    """
    checks.check_kind("particles", particles, Tensor, "a tensor (n, d)", "torch.randn(50, 2)")
    if particles.dim() != 2 or not particles.is_floating_point():
        came = checks.described(particles)
        checks.refuse("particles", "a tensor (n, d) of real numbers", came, "torch.randn(50, 2)")
    checks.check_count("steps", steps)
    rate = checks.check_positive("learning_rate", learning_rate)
    u = particles.detach().clone()
    adam = torch.optim.Adam([u], lr=rate)
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        u.grad = -stein_direction(u, score_of(log_density, u))
        adam.step()
        _check_finite("svgd", u)
    return u


def amortised_svgd(
    log_density: LogDensity,
    sampler: nn.Module,
    *,
    steps: int = 2000,
    particles: tuple[int, int] = (32, 32),
    learning_rate: float = 1e-3,
    temperature: Callable[[int], float] | None = None,
    seed: int = 0,
) -> nn.Module:
    """A sampler trained until its draws are spread like those of a density.

    Each step draws u_1 … u_n and v_1 … v_m, and moves the parameters so that the v follow
    :func:`stein_direction`: the gradient is mean_i ∂v_i/∂parameters · φ(v_i) (Wang & Liu 2016;
    Haarnoja et al. 2017, eq. 14). A sampler that starts wide finds separate modes, one that starts
    narrow near some of them keeps to these. Where modes are narrow, an early shift towards one of
    them feeds itself; a temperature that falls to one prevents it.

    Args:
        log_density: u -> log p(u) up to a constant, (n, d) -> (n,).
        sampler: a torch module, n -> (n, d), draws with a gradient in its parameters.
        steps: the number of steps.
        particles: (n, m).
        learning_rate: that of Adam at the start; it falls to zero.
        temperature: step -> α, for the density p^(1/α) at that step; one if not given.
        seed: seed of the draws.

    Returns:
        A trained copy of the sampler.

    Raises:
        ValueError: if an argument is out of range, or the density or the sampler does not fit.
        FloatingPointError: if a draw is not finite.

    >>> import torch
    >>> from cai import inference
    >>> class Line(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.centre, self.scale = (torch.nn.Parameter(torch.ones(1)) for _ in "ab")
    ...
    ...     def forward(self, n):
    ...         return self.centre + self.scale * torch.randn(n, 1)
    >>> trained = inference.amortised_svgd(
    ...     lambda u: -0.5 * ((u - 2) / 3).square().sum(-1), Line(), steps=1000, learning_rate=0.02
    ... )
    >>> bool(abs(trained.centre - 2) < 0.2), bool(abs(trained.scale - 3) < 0.5)
    (True, True)
    """
    advice = "for instance one that puts torch.randn(n, 2) through a network"
    checks.check_kind("sampler", sampler, nn.Module, "a torch module n -> (n, d)", advice)
    if not any(p.requires_grad for p in sampler.parameters()):
        checks.refuse("sampler", "one with parameters", "none", advice)
    checks.check_count("steps", steps)
    check_particles(particles)
    rate = checks.check_positive("learning_rate", learning_rate)
    checks.check_seed(seed)
    with seeded(seed):
        trained = copy_of(sampler)
        n, m = particles
        adam = torch.optim.Adam(trained.parameters(), lr=rate, fused=True)
        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * (1 - step / steps)
            with torch.enable_grad():
                with raising("sampler", "a torch module n -> (n, d)", advice):
                    draws = trained(n + m)
                if not isinstance(draws, Tensor) or draws.dim() != 2 or len(draws) != n + m:
                    came = checks.described(draws)
                    checks.refuse("sampler", f"a tensor ({n + m}, d)", came, advice)
                _check_finite("amortised_svgd", draws)
                u, v = draws.detach()[:n], draws[n:]
                score = score_of(log_density, u) / temperature_at(temperature, step, 1.0)
                loss = stein_loss(u, score, v)
            adam.zero_grad()
            loss.backward()
            adam.step()
    return trained


def check_particles(particles: Any) -> None:
    """Raises ValueError unless they are two numbers, of particles that pull and that are moved."""
    if not isinstance(particles, tuple | list) or len(particles) != 2:
        checks.refuse("particles", "two numbers (n, m)", repr(particles), "for instance (32, 32)")
    for count in particles:
        checks.check_count("particles", count)


def stein_loss(particles: Tensor, score: Tensor, draws: Tensor) -> Tensor:
    """A scalar whose gradient moves draws against :func:`stein_direction`, to be minimised.

    Args:
        particles: u, (…, n, d).
        score: ∇log p(u_j), (…, n, d).
        draws: v, (…, m, d), with a graph of gradients.
    """
    direction = stein_direction(particles, score, draws)
    return -(direction * draws).sum(-1).mean()


def _check_finite(verb: str, u: Tensor) -> None:
    if not u.isfinite().all():
        raise FloatingPointError(f"{verb}: a particle is not finite; try a smaller learning_rate")
