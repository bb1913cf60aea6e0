"""Stein's gradient against its definition, and what particles and samplers end at."""

import math

import pytest
import torch
from pyro import distributions as dist
from torch.nn.functional import logsigmoid

from cai import inference
from cai.inference.off_policy.stein import score_of, stein_loss
from cai.networks.noise_head import NoiseHead
from cai.networks.unsquashed import Unsquashed


def defined(u, v, score, h):
    """The direction, term by term, with the kernel's gradient by automatic differentiation."""
    phi = torch.zeros_like(v)
    for i in range(len(v)):
        for j in range(len(u)):
            x = u[j].clone().requires_grad_()
            kernel = torch.exp(-(x - v[i]).square().sum() / h)
            phi[i] += kernel.detach() * score[j] + torch.autograd.grad(kernel, x)[0]
    return phi / len(u)


def pairs(u, v=None):
    """The squared distances of pairs of different particles, in order."""
    if v is None:
        return sorted((x - y).square().sum() for i, x in enumerate(u) for y in u[:i])
    return sorted((x - y).square().sum() for x in u for y in v)


@pytest.mark.parametrize("same", [True, False])
def test_the_direction_is_its_definition(same):
    torch.manual_seed(0)
    u, score, v = (torch.randn(n, 3).double() for n in (7, 7, 4))
    squares = pairs(u) if same else pairs(u, v)
    h = squares[(len(squares) - 1) // 2] / math.log(len(u) + 1)
    found = inference.stein_direction(u, score, None if same else v)
    torch.testing.assert_close(found, defined(u, u if same else v, score, h))


def test_a_batch_is_its_elements():
    torch.manual_seed(0)
    u, score, v = torch.randn(2, 5, 6, 2), torch.randn(2, 5, 6, 2), torch.randn(2, 5, 3, 2)
    found = inference.stein_direction(u, score, v)
    for i in range(2):
        for j in range(5):
            each = inference.stein_direction(u[i, j], score[i, j], v[i, j])
            torch.testing.assert_close(found[i, j], each)


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_direction_does_not_depend_on_the_unit(unit):
    """With the median of the distances instead of their squares it would."""
    torch.manual_seed(0)
    u, score = torch.randn(9, 2).double(), torch.randn(9, 2).double()
    found = inference.stein_direction(unit * u, score / unit)
    torch.testing.assert_close(found, inference.stein_direction(u, score) / unit)


def test_particles_that_coincide_move_along_the_mean_score():
    score = torch.randn(4, 2)
    found = inference.stein_direction(torch.zeros(4, 2), score)
    torch.testing.assert_close(found, score.mean(0).expand(4, 2))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_particles_keep_mean_and_spread_of_a_gaussian(scale):
    torch.manual_seed(1)
    start = scale * torch.randn(40, 1)
    found = inference.svgd(
        lambda u: -0.5 * (u / scale - 3).square().sum(-1), start, learning_rate=0.1 * scale
    )
    assert (found.mean() / scale).item() == pytest.approx(3, abs=0.05)
    assert (found.std() / scale).item() == pytest.approx(1, abs=0.07)


MODES = 0.6 * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


class Sampler(torch.nn.Module):
    """The head of noise for one state: actions on the square, before they are squashed."""

    def __init__(self, numbers=2, narrow=1.0):
        super().__init__()
        self.prior = dist.Uniform(-torch.ones(numbers), torch.ones(numbers)).to_event(1)
        self.head, self.narrow = NoiseHead(1, (64, 64)), narrow
        self.head.size(self.prior)

    def forward(self, n):
        q = self.head(torch.zeros(1), self.prior)
        return self.narrow * Unsquashed(self.prior).draws(q, torch.Size((n,)))


def four_modes(sd):
    """log p(u) of four equal Gaussians on the square."""

    def log_density(u):
        a = u.tanh()
        nearness = -0.5 * ((a.unsqueeze(-2) - MODES) / sd).square().sum(-1)
        return nearness.logsumexp(-1) + (logsigmoid(2 * u) + logsigmoid(-2 * u)).sum(-1)

    return log_density


def shares(sampler):
    with torch.no_grad():
        a = sampler(8000).tanh()
    return (a.unsqueeze(-2) - MODES).square().sum(-1).argmin(-1).bincount(minlength=4) / 8000


def falling(step):
    """From 20 to 1 in 1500 steps."""
    return max(1.0, 20.0 ** (1 - step / 1500))


@pytest.mark.parametrize(("sd", "temperature"), [(0.25, None), (0.15, falling)])
def test_a_sampler_that_starts_at_the_prior_keeps_four_modes(sd, temperature):
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        trained = inference.amortised_svgd(
            four_modes(sd), Sampler(), steps=3000, temperature=temperature, seed=seed
        )
        found.append(shares(trained))
    median = torch.stack(found).sort(0).values[1]
    assert (median - 0.25).abs().max() < 0.05


def test_a_sampler_of_nothing_but_the_prior_stays_uniform():
    """With the kernel or the gradient in the squashed action, E a² would be 0.2."""

    def uniform(u):
        return (logsigmoid(2 * u) + logsigmoid(-2 * u)).sum(-1)

    torch.manual_seed(0)
    start = Sampler(1, narrow=0.3)
    trained = inference.amortised_svgd(uniform, start, steps=1500, particles=(64, 64))
    with torch.no_grad():
        a = trained(8000).tanh()
    assert a.square().mean().item() == pytest.approx(1 / 3, abs=0.03)
    assert a.mean().item() == pytest.approx(0, abs=0.06)


def test_the_loss_moves_draws_along_the_direction():
    torch.manual_seed(0)
    u, score = torch.randn(5, 2).double(), torch.randn(5, 2).double()
    v = torch.randn(3, 2).double().requires_grad_()
    (gradient,) = torch.autograd.grad(stein_loss(u, score, v), v)
    torch.testing.assert_close(-3 * gradient, inference.stein_direction(u, score, v.detach()))


def test_wrong_arguments():
    def density(u):
        return -0.5 * u.square().sum(-1)

    with pytest.raises(ValueError, match=r"log_density: expected a differentiable tensor of shape"):
        score_of(lambda u: u.sum(), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="particles: expected particles and scores of one shape"):
        inference.stein_direction(torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"particles: expected a tensor \(n, d\)"):
        inference.svgd(density, torch.zeros(3))
    with pytest.raises(ValueError, match="log_density: expected a function of a tensor of shape"):
        inference.svgd(3, torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"sampler: expected .* got one that raised TypeError"):
        inference.amortised_svgd(density, torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"particles: expected two numbers .* got \(3,\)"):
        inference.amortised_svgd(density, Sampler(), particles=(3,))
    with pytest.raises(ValueError, match="score: expected a tensor"):
        inference.stein_direction(torch.zeros(3, 2), [0.0])
    with pytest.raises(ValueError, match="sampler: expected one with parameters, got none"):
        inference.amortised_svgd(density, torch.nn.Identity())
    flat = torch.nn.Sequential(Sampler(), torch.nn.Flatten(0))
    with pytest.raises(ValueError, match=r"sampler: expected a tensor \(64, d\)"):
        inference.amortised_svgd(density, flat)
    with pytest.raises(FloatingPointError, match="svgd: a particle is not finite"):
        inference.svgd(lambda u: u.sum(-1) / 0.0, torch.zeros(3, 2))
    head = NoiseHead()
    head.size(dist.Uniform(-torch.ones(2), torch.ones(2)).to_event(1))
    with pytest.raises(ValueError, match="head: expected one for actions of 1 numbers"):
        head.size(dist.Uniform(-torch.ones(1), torch.ones(1)).to_event(1))
