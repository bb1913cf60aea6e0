"""The natural gradient of any policy: the Fisher information against a dense matrix and a table."""

import functools
import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import cai
from cai import inference, models
from cai.inference.gradients.exact_gradient import exact_gradient
from cai.inference.gradients.mirror import mirror_gradient
from cai.inference.gradients.score_function import leave_one_out, scored


class Small(nn.Module):
    """Five parameters, of which one is never used; ``scale`` changes their units alone."""

    def __init__(self, scale=(1.0, 1.0)):
        super().__init__()
        self.scale = torch.tensor(scale, dtype=torch.float64)
        start = torch.tensor([[0.3, -0.4], [0.1, 0.2]], dtype=torch.float64)
        self.weights = nn.Parameter(start / self.scale)
        self.idle = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, t, s):
        features = torch.stack([s.double() - 1, torch.cos(3.0 * s)], -1)
        return dist.Categorical(logits=features @ (self.weights * self.scale).T)


def step(policy, model, seed=0, samples=40, **how):
    """What a call adds to the gradients, flat, with its sign changed."""
    torch.manual_seed(seed)
    policy.zero_grad()
    inference.natural_gradient(model, policy, samples, **how)()
    return -torch.cat([p.grad.flatten() for p in policy.parameters()])


def dense(policy, model, seed=0, samples=40):
    """F and ∇ELBO of the same trajectories, one row of scores after the other."""
    torch.manual_seed(seed)
    drawn = scored(model, policy, samples)
    parameters = list(policy.parameters())
    rows = [
        torch.cat(
            [
                torch.zeros_like(p).flatten() if g is None else g.flatten()
                for g, p in zip(
                    torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True),
                    parameters,
                    strict=True,
                )
            ]
        )
        for x in drawn.log_q.flatten()
    ]
    J, alive = torch.stack(rows), drawn.alive.flatten().double()
    advantage = (drawn.to_go - leave_one_out(drawn.to_go)).flatten() * alive
    return J.T @ (alive[:, None] * J) / samples, J.T @ advantage / samples


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("damping", [1e-3, 0.5])
def test_it_solves_the_system_that_a_dense_matrix_gives(discount, damping):
    model, policy = models.ledge(discount=discount), Small()
    F, g = dense(policy, model)
    shift = damping * (g @ F @ g) / (g @ g)
    expected = torch.linalg.solve(F + shift * torch.eye(len(g)), g)
    found = step(policy, model, damping=damping, radius=None)
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert found[-1] == 0  # of the parameter that is not used


def test_with_many_samples_it_is_the_step_of_mirror_descent():
    """F⁻¹∇ELBO of a full table, up to a constant in each row, which no policy sees."""
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    exact = -gradient_of(mirror_gradient(cai.tabulate(model), policy), policy)
    plain = -gradient_of(exact_gradient(cai.tabulate(model), policy), policy)
    found = [
        step(policy, model, seed, samples=20_000, damping=1e-9, radius=None).view_as(exact)
        for seed in range(3)
    ]
    # How much better the one action is than the other, where the outcomes are not the same:
    differences = [x[0, 0, 1] - x[0, 0, 0] for x in (*found, exact, plain)]
    *several, natural, usual = differences
    assert sum(several) / 3 == pytest.approx(natural.item(), abs=0.1)
    assert abs(usual - natural) > 0.4
    later = [x[1, 1, 1] - x[1, 1, 0] for x in (*found, exact)]
    assert all(x == pytest.approx(later[-1].item(), abs=0.1) for x in later[:-1])


def gradient_of(estimate, policy):
    policy.zero_grad()
    estimate()
    return policy.logits.grad.clone()


@pytest.mark.parametrize("scale", [(10.0, 10.0), (10.0, 0.1)])
def test_units_of_parameters_do_not_matter(scale):
    """What a step changes in log q; a common unit does not even matter to the damping."""
    model, s = models.ledge(), torch.arange(4)
    damping = 1e-3 if len(set(scale)) == 1 else 1e-12
    moved = []
    for one in (Small(), Small(scale)):
        x = step(one, model, damping=damping, iterations=200)
        with torch.no_grad():
            one.weights += 0.1 * x[:-1].view_as(one.weights)
            moved.append(one(0, s).logits)
    assert torch.allclose(*moved, rtol=0, atol=1e-6)
    with torch.no_grad():
        assert (moved[0] - Small()(0, s).logits).abs().max() > 0.01


@pytest.mark.parametrize("radius", [1e-3, 0.01, 1e3])
def test_no_step_is_longer_than_the_radius(radius):
    model, policy = models.ledge(), Small()
    F, _ = dense(policy, model)
    free = step(policy, model, radius=None)
    found = step(policy, model, radius=radius)
    length = 0.5 * (found @ F @ found).item()
    assert length == pytest.approx(min(radius, 0.5 * (free @ F @ free).item()), rel=1e-9)
    assert torch.allclose(found / found.norm(), free / free.norm(), rtol=1e-9)


def test_it_trains_a_network_on_continuous_actions_and_a_memory():
    noise = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    model = cai.TrajectoryModel(
        initial=dist.Normal(torch.zeros(1), 1.0).to_event(1),
        dynamics=lambda s, a: dist.Normal(0.5 * s + a, 0.1).to_event(1),
        reward=lambda s, a: -(s[..., 0] ** 2) - a[..., 0] ** 2,
        action_prior=noise,
        horizon=3,
    )
    torch.manual_seed(0)
    for policy in (cai.NeuralPolicy(model, (8,)), cai.RecurrentPolicy(model)):
        before = cai.evaluate(model, policy, seed=1).elbo
        fitted = inference.fit(model, policy, estimator="natural", steps=40, progress=False)
        assert fitted.estimator == "natural"
        assert fitted.elbo > before + 0.3


def test_there_is_nothing_to_move_where_all_returns_are_the_same():
    model = models.tabular([[[1.0], [1.0]]], [[1.0, 1.0]], horizon=1)
    assert step(cai.TabularPolicy(model), model).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"samples": 1}, "samples: expected"),
        ({"damping": 0.0}, "damping: expected"),
        ({"iterations": 0}, "iterations: expected"),
        ({"radius": -1.0}, "radius: expected"),
        ({"model": cai.tabulate(models.ledge())}, "natural: expected a model whose program"),
        ({"model": models.ledge(horizon=None, discount=0.9)}, "horizon: "),
    ],
)
def test_wrong_input(wrong, message):
    arguments = {"model": models.ledge(), "samples": 10} | wrong
    model, samples = arguments.pop("model"), arguments.pop("samples")
    with pytest.raises(ValueError, match=message):
        inference.natural_gradient(model, Small(), samples, **arguments)


def test_other_settings_are_given_by_a_partial():
    model = models.ledge()
    made = functools.partial(inference.natural_gradient, radius=1e-12)
    by = functools.partial(torch.optim.SGD, lr=1.0)
    policy = cai.TabularPolicy(model)
    fitted = inference.fit(
        model, policy, estimator=made, optimizer=by, steps=5, samples=20, progress=False
    )
    assert fitted.estimator == "natural_gradient"
    assert (fitted.policy.logits - policy.logits).abs().max() < 1e-5
    assert math.isfinite(fitted.elbo)
