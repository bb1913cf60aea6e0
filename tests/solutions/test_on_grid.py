"""Continuous deterministic models on a grid: exact at nodes, close between them."""

import dataclasses
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import cai
from cai import inference, models
from cai.solutions._grid_axes import Axes

ONE = torch.eye(1, dtype=torch.float64)
LINE = torch.linspace(-4, 4, 81)


def drift(kind=cai.TrajectoryModel, **changes):
    """A point on a line, pushed by the action: states and actions are numbers."""
    arguments = {
        "initial": dist.Normal(0.0, 1.0),
        "dynamics": lambda s, a: dist.Delta(0.9 * s + 0.5 * a),
        "reward": lambda s, a: -(s**2),
        "action_prior": dist.Normal(0.0, 1.0),
        "horizon": 4,
        "temperature": 0.7,
    }
    return kind(**(arguments | changes))


def on_line(model, n=81):
    return cai.on_grid(model, states=[torch.linspace(-4, 4, n)], actions=[torch.linspace(-4, 4, n)])


# Interpolation


def test_multilinear_functions_are_reproduced():
    rng = np.random.default_rng(0)
    points = [torch.as_tensor(np.sort(rng.normal(size=n))) for n in (4, 2, 5)]
    axes = Axes.closing(points, [False] * 3)
    c = torch.as_tensor(rng.normal(size=(2, 2, 2)))

    def f(x):
        powers = torch.stack([torch.ones_like(x), x], -1)  # (..., 3, 2)
        return torch.einsum("ijk,...i,...j,...k->...", c, *powers.unbind(-2))

    low, high = (torch.stack([x[i] for x in points]) for i in (0, -1))
    x = low + (high - low) * torch.as_tensor(rng.random((6, 7, 3)))
    index, weight = axes.corners(x)
    torch.testing.assert_close(weight.sum(-1), torch.ones(6, 7).double())
    assert (weight >= 0).all()
    torch.testing.assert_close((f(axes.nodes)[index] * weight).sum(-1), f(x))
    beyond = torch.stack([low - 1, high + 3])
    index, weight = axes.corners(beyond)
    torch.testing.assert_close((f(axes.nodes)[index] * weight).sum(-1), f(torch.stack([low, high])))


def test_around_a_circle():
    """The last coordinate is the first again; between the two lies one cell as any other."""
    axes = Axes.closing([torch.linspace(0, 4, 5)], [True])
    assert axes.shape == (4,)
    heights = torch.tensor([0.0, 10.0, 20.0, 30.0]).double()
    for x, height in ((3.5, 15.0), (-0.5, 15.0), (7.25, 22.5), (4.0, 0.0), (-400.0, 0.0)):
        index, weight = axes.corners(torch.tensor([x]).double())
        assert (heights[index] * weight).sum().item() == pytest.approx(height, abs=1e-12)


# Where steps lead from node to node it is a table, and the answer exact.


@pytest.mark.parametrize(("horizon", "discount"), [(5, 1.0), (5, 0.8), (None, 0.8)])
@pytest.mark.parametrize("closed", [False, True])
def test_from_node_to_node_it_is_the_table(horizon, discount, closed):
    rng = np.random.default_rng(3)
    S, A = 6, 3
    r, arrive, last = (torch.as_tensor(rng.normal(size=n)) for n in ((S, A), S, S))
    prior = torch.as_tensor(rng.dirichlet(np.ones(A), S))
    s, a = torch.arange(S).unsqueeze(1), torch.arange(A)
    reached = (s + a - 1) % S if closed else (s + a - 1).clamp(0, S - 1)
    arrival = arrive[torch.arange(S)].expand(S, A, S)
    exact = inference.soft_values(
        models.tabular(
            torch.nn.functional.one_hot(reached, S).double(),
            r,
            horizon=horizon,
            action_prior=prior,
            arrival_reward=arrival,
            final_reward=last if horizon else None,
            temperature=0.7,
            discount=discount,
        )
    )

    def node(x):
        return (x.round().long() % S) if closed else x.round().long().clamp(0, S - 1)

    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Delta(s + a - 1),
        reward=lambda s, a: r[node(s), a],
        arrival_reward=lambda s, a, s_next: arrive[node(s_next)],
        final_reward=(lambda s: last[node(s)]) if horizon else None,
        action_prior=lambda s: dist.Categorical(prior[node(s)]),
        horizon=horizon,
        temperature=0.7,
        discount=discount,
    )
    line = torch.linspace(0, S, S + 1) if closed else torch.arange(S)
    found = cai.on_grid(model, states=[line], periodic=[closed])
    torch.testing.assert_close(found.V, exact.V, rtol=0, atol=1e-9)
    states = torch.arange(S).double()
    torch.testing.assert_close(found.values(states), exact.V.reshape(-1, S)[0], rtol=0, atol=1e-9)
    for t in range(horizon or 1):
        pi = found.policy(t, states).logits.softmax(-1)
        torch.testing.assert_close(pi, exact.policy(t, s[:, 0]).probs, rtol=0, atol=1e-9)
    if horizon:
        steps = torch.arange(horizon).unsqueeze(1)
        torch.testing.assert_close(found.action_values(states, steps), exact.Q, rtol=0, atol=1e-9)


# Between nodes: closed forms, and convergence.


def regulator(horizon=8):
    """A point with inertia on a line: position and velocity, and one force."""
    return models.linear_gaussian(
        A=[[1.0, 0.3], [0.0, 1.0]],
        B=[[0.0], [0.3]],
        noise=torch.zeros(2, 2),
        Q=torch.eye(2),
        R=0.1 * ONE,
        horizon=horizon,
        action_prior=dist.MultivariateNormal(torch.zeros(1).double(), 4 * ONE),
        temperature=0.5,
    )


def test_a_linear_regulator_in_closed_form():
    """Values and mean actions come to those of Riccati's equation, the former as fast as h²."""
    model = regulator()
    exact = inference.soft_values(model)
    s = torch.as_tensor(np.random.default_rng(0).uniform(-1, 1, (50, 2)))
    truth = exact.V(0, s)
    errors = []
    for n in (21, 41, 81):
        line = torch.linspace(-4, 4, n)
        found = cai.on_grid(model, states=[line, line], actions=[torch.linspace(-6, 6, n)])
        errors.append((found.values(s) - truth).abs().max().item())
    assert errors[2] < 0.05
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3
    mean = exact.policy(0, s).mean
    torch.testing.assert_close(found.policy(0, s).mean, mean, rtol=0, atol=0.03)


def test_what_the_policy_is_worth_in_the_model():
    """Its ELBO, simulated in the model itself, is close to what the grid promises."""
    model = drift(initial=dist.Delta(torch.tensor(1.0).double()))
    found = on_line(model, 121)
    worth = cai.evaluate(model, found.policy, samples=4000)
    promised = found.values(torch.tensor(1.0).double()).item() / model.temperature
    assert worth.elbo == pytest.approx(promised, abs=0.01 + 4 * worth.elbo_stderr)
    assert worth.elbo_stderr < 0.01  # the weights of the best policy vary little
    row = cai.compare(model, {"grid": found}, value=None).rows["grid"]
    assert row.elbo == pytest.approx(promised, abs=0.1)


def test_its_density_integrates_to_one():
    found = on_line(drift(), 17)
    x = torch.linspace(-4, 4, 40001).double()[:-1] + 1e-4
    density = found.policy(1, torch.tensor(0.3)).log_prob(x).exp()
    assert (density.sum() * 2e-4).item() == pytest.approx(1, abs=1e-6)
    drawn = found.policy(1, torch.full((1000,), 0.3)).sample()
    assert drawn.shape == (1000,)
    assert drawn.abs().max() <= 4


def test_uneven_actions_count_by_their_cells():
    """Where nothing is at stake the policy is the prior, and the value what is paid anyway."""
    model = drift(action_prior=dist.Uniform(-1.0, 1.0), reward=-1.0)
    found = cai.on_grid(model, states=[LINE], actions=[[-1.0, -0.9, 0.0, 0.3, 1.0]])
    x = torch.linspace(-0.999, 0.999, 50)
    torch.testing.assert_close(
        found.policy(0, torch.tensor(0.5)).log_prob(x), torch.full((50,), 0.5).double().log()
    )
    torch.testing.assert_close(found.values(x), torch.full((50,), -4.0).double())


def swing(n, tried):
    """The pendulum from hanging, α = .1: what the policy of a grid gets in the model itself."""
    model = models.pendulum(temperature=0.1)
    hanging = dist.Delta(torch.tensor([math.pi, 0.0]).double(), event_dim=1)
    found = cai.on_grid(
        model,
        states=[torch.linspace(-math.pi, math.pi, n), torch.linspace(-8, 8, n)],
        actions=[torch.linspace(-2, 2, tried)],
        periodic=[True, False],
    )
    return cai.evaluate(dataclasses.replace(model, initial=hanging), found.policy, samples=50)


def test_the_pendulum_from_hanging():
    """-348 and -318 at these two; -314 at 121×121×21 and -305.5 at 361×301×61."""
    coarse, fine = swing(41, 11), swing(81, 15)
    assert coarse.expected_return == pytest.approx(-348.2, abs=4)
    assert fine.expected_return == pytest.approx(-318.3, abs=2)
    assert fine.elbo > coarse.elbo


def test_two_dimensions_of_action():
    model = models.double_integrator(horizon=2, noise=0.0, obstacles=())
    plane = cai.TrajectoryModel(
        initial=dist.Normal(torch.zeros(2).double(), 1.0).to_event(1),
        dynamics=lambda s, a: dist.Delta(s + a, event_dim=1),
        reward=lambda s, a: -(s**2).sum(-1),
        action_prior=dist.Normal(torch.zeros(2).double(), 0.5).to_event(1),
        horizon=2,
    )
    line, few = torch.linspace(-3, 3, 31), torch.linspace(-1.5, 1.5, 13)
    found = cai.on_grid(plane, states=[line, line], actions=[few, few])
    assert found.V.shape == (3, 31, 31)
    assert found.actions.shape == (169, 2)
    mean = found.policy(0, torch.tensor([1.0, -1.0])).mean
    assert mean[0] < -0.1
    assert mean[1] == pytest.approx(-mean[0].item(), abs=1e-9)
    assert found.policy(torch.arange(2), torch.zeros(5, 2, 2)).batch_shape == (5, 2)
    with pytest.raises(ValueError, match=r"states of up to 3 dimensions, got shape \[4\]"):
        cai.on_grid(model, states=[line] * 4, actions=[few] * 2)


# What is refused


def test_no_other_optimism():
    """The weights would count as luck; no method takes a grid, and none has a table of it."""
    found = on_line(drift())
    for solve in (inference.posterior, inference.soft_values, inference.map_trajectory):
        with pytest.raises(
            ValueError, match=r"model: expected a cai\.TrajectoryModel or its table"
        ):
            solve(found)
    assert not any(isinstance(x, cai.Table) for x in vars(found).values())


def noisy_site(s, a):
    return dist.Delta(s + a * pyro.sample("slip", dist.Bernoulli(0.5)))


class Hurried(cai.TrajectoryModel):
    """Its rewards grow with time."""

    def rewards(self, s, a, t=0):
        return super().rewards(s, a, t) * (1 + torch.as_tensor(t))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: on_line(drift(dynamics=lambda s, a: dist.Normal(s, 1.0))), "a Normal that is not"),
        (lambda: on_line(drift(dynamics=noisy_site)), "dynamics that sample the site 'slip'"),
        (lambda: on_line(models.ledge()), "continuous states, got finitely many; cai.tabulate"),
        (lambda: on_line(drift(horizon=None)), "a finite horizon or a discount below one"),
        (lambda: on_line(drift(kind=Hurried)), "rewards: expected the same at every step"),
        (lambda: cai.on_grid(drift(), states=[LINE]), "actions: expected a grid, since they are"),
        (lambda: cai.on_grid(drift(), states=[LINE] * 2), "states: expected 1 arrays of coord"),
        (lambda: cai.on_grid(drift(), states=[LINE.flip(0)]), "two finite coordinates, ascending"),
        (lambda: cai.on_grid(drift(), states=LINE), "states: expected 1 arrays of coordinates"),
        (
            lambda: cai.on_grid(drift(), states=[LINE], actions=[LINE], periodic=[True] * 2),
            "periodic: expected 1 times True or False",
        ),
        (
            lambda: cai.on_grid(drift(), states=[[0, 1]], actions=[LINE], periodic=[True]),
            "states: expected at least three coordinates around a circle",
        ),
        (
            lambda: cai.on_grid(
                drift(action_prior=dist.Uniform(8.0, 9.0)), states=[LINE], actions=[LINE]
            ),
            "actions: expected an action in the support of action_prior",
        ),
        (
            lambda: cai.on_grid(
                drift(action_prior=dist.Categorical(torch.ones(2))), states=[LINE], actions=[LINE]
            ),
            "actions: expected None, as they are finitely many",
        ),
        (lambda: on_line(drift()).values(torch.tensor(0.0), 5), r"t: expected steps in 0 … 4, got"),
        (lambda: on_line(drift()).values(0.0), "s: expected a tensor, got float"),
    ],
)
def test_what_does_not_fit(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_flat_prior_is_none():
    model = models.linear_gaussian(
        A=ONE, B=ONE, noise=0 * ONE, Q=ONE, R=ONE, horizon=3, action_prior=cai.FlatPrior(1)
    )
    with pytest.raises(ValueError, match="an action prior that is a distribution, got a flat one"):
        on_line(model)
