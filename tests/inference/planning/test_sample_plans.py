"""Plans by NUTS: against closed forms where all is Gaussian, and against quadrature elsewhere."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.stats import effective_sample_size
from torch.distributions import transforms

import cai
from cai import inference, models
from cai.distributions.degenerate_normal import Root
from cai.inference.planning import sample_plans
from cai.inference.planning._plan_density import PlanDensity
from cai.inference.planning.noise import from_noise, roll


def within(samples, x, mean, sd, bar=4.5):
    """Mean and standard deviation of x, (n, ...), within so many standard errors, by n_eff."""
    chains = torch.as_tensor(x).double().unflatten(0, (samples.chains, -1))
    x = chains.flatten(0, 1)
    n = effective_sample_size(chains).clamp(max=len(x))
    squares = effective_sample_size((chains - mean) ** 2)
    assert (((x.mean(0) - mean).abs() * n.sqrt() / sd) < bar).all()
    spread = ((x - mean) ** 2).std(0) / squares.clamp(max=len(x)).sqrt()
    assert (((x - mean) ** 2).mean(0) - sd**2).abs().lt(bar * spread + 1e-9).all()


def regulator(**changes):
    """Two numbers a state, noise of one, cross terms and drift."""
    arguments = {
        "horizon": 2,
        "drift": [0.3, -0.2],
        "noise": [[0.5, 0.0], [0.0, 0.0]],
        "Q": [[1.0, 0.3], [0.3, 0.5]],
        "N": [[0.2], [0.0]],
        "R": [[0.6]],
        "q": [0.5, -1.0],
        "Q_final": [[2.0, 0.0], [0.0, 1.0]],
        "initial_mean": [1.0, 0.0],
        "initial_covariance": [[0.4, 0.0], [0.0, 0.2]],
        "action_prior": dist.MultivariateNormal(torch.ones(1), torch.eye(1)),
        "temperature": 0.8,
    }
    return models.linear_gaussian([[0.9, 0.4], [-0.2, 0.8]], [[0.5], [1.0]], **arguments | changes)


@pytest.mark.parametrize("flat", [False, True])
def test_plans_in_the_true_dynamics_are_those_of_the_closed_form(flat):
    """Pairs of noises make a quadratic return exact, however few they are."""
    model = regulator(action_prior=None) if flat else regulator()
    found = inference.sample_plans(model, 150, 150, 2, noises=2, seed=1)
    best = inference.gaussian_plan(model).policy
    root = best.scale_tril.detach()
    # Whitened, the plans are two independent standard normal numbers.
    z = torch.linalg.solve_triangular(root, (found.plans.flatten(1) - best.mean).T, upper=False).T
    within(found, z, 0.0, torch.ones(2).double())
    within(found, z[:, 0] * z[:, 1], 0.0, torch.ones(()).double())
    assert found.r_hat.max() < 1.1
    assert found.plans.shape == (300, 2, 1)
    assert found.states.shape == (300, 3, 2)
    # The first state is as it is in the model, whatever the plan.
    within(found, found.states[:, 0, 0], 1.0, torch.tensor(0.4).double().sqrt())


def test_at_optimism_one_plans_and_states_are_the_posterior():
    model = regulator()
    found = inference.sample_plans(model, 60, 30, 2, optimism=1.0)
    exact = inference.posterior(model)
    known = exact.state_actions
    sd = known.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    x = torch.cat([found.states[:, :-1], found.plans], -1)
    within(found, x, known.mean, sd)
    last = exact.states
    within(found, found.states[:, -1], last.mean[-1], last.covariance[-1].diagonal().sqrt())


def test_half_of_the_optimism_takes_two_copies_of_the_noise():
    """Against (E exp(ηR/α))^{1/η}, integrated in closed form by quadrature of one noise."""
    model = cai.TrajectoryModel(
        initial=dist.Delta(torch.zeros(()).double()),
        dynamics=lambda s, a: dist.Normal(s + a, 1.0),
        reward=0.0,
        final_reward=lambda s: -((s - 2) ** 2),
        action_prior=dist.Normal(torch.zeros(()).double(), 1.0),
        horizon=1,
        temperature=0.5,
    )
    found = inference.sample_plans(model, 200, 40, 1, optimism=0.5)
    # E exp(-η (u + ε - 2)²/α) ∝ exp(-η (u - 2)²/(α + 2η)), and its power of 1/η.
    precision = 1 + 2 / (0.5 + 2 * 0.5)
    mean = (2 / (0.5 + 2 * 0.5)) * 2 / precision
    within(found, found.plans, mean, torch.tensor(precision**-0.5).double())


def bumpy(noise, discount):
    """A box of actions, rewards that are not quadratic, an arrival and a final one, and death."""

    def dynamics(s, a):
        drift = pyro.sample("drift", dist.Uniform(-0.5, 0.5)) if noise else 0.2
        return dist.Delta(s + a + drift)

    return cai.TrajectoryModel(
        initial=dist.Delta(torch.tensor(0.3).double()),
        dynamics=dynamics,
        reward=lambda s, a: torch.sin(2 * s) - a**2 / 2,
        arrival_reward=lambda s, a, s_next: torch.cos(s_next - s),
        final_reward=lambda s: 1.5 * torch.tanh(s),
        action_prior=dist.Uniform(torch.tensor(-1.0).double(), 1.5),
        horizon=2,
        temperature=0.5,
        discount=discount,
    )


def by_quadrature(noise, discount, eta):
    """Mean and deviation of the two actions, and P(alive at the end), on a grid."""
    u = -1 + 2.5 * (np.arange(80) + 0.5) / 80
    e = -0.5 + (np.arange(24) + 0.5) / 24 if noise else np.array([0.2])
    a0, a1, d0, d1 = np.meshgrid(u, u, e, e, indexing="ij")
    s0 = 0.3
    s1 = s0 + a0 + d0
    s2 = s1 + a1 + d1
    alpha = 0.5
    first = (np.sin(2 * s0) - a0**2 / 2 + np.cos(s1 - s0)) / alpha
    second = first + (np.sin(2 * s1) - a1**2 / 2 + np.cos(s2 - s1)) / alpha
    end = second + 1.5 * np.tanh(s2) / alpha
    g = discount
    ends = [(1 - g, first), (g * (1 - g), second), (g**2, end)]
    if eta == 0:
        worth = sum(p * x for p, x in ends).mean((2, 3))
        survives = np.full(worth.shape, g**2)
    else:
        moments = [p * np.exp(eta * x).mean((2, 3)) for p, x in ends]
        worth = np.log(sum(moments)) / eta
        survives = moments[2] / sum(moments)
    q = np.exp(worth - worth.max())
    q /= q.sum()
    plan = np.stack([a0[..., 0, 0], a1[..., 0, 0]])
    mean = (q * plan).sum((1, 2))
    sd = np.sqrt((q * (plan - mean[:, None, None]) ** 2).sum((1, 2)))
    return torch.as_tensor(mean), torch.as_tensor(sd), (q * survives).sum()


@pytest.mark.parametrize(
    ("noise", "discount", "eta"), [(False, 0.8, 0.0), (True, 1.0, 1.0), (True, 0.8, 0.5)]
)
def test_against_quadrature(noise, discount, eta):
    found = inference.sample_plans(bumpy(noise, discount), 100, 30, 1, optimism=eta)
    mean, sd, survives = by_quadrature(noise, discount, eta)
    within(found, found.plans, mean, sd)
    lives = found.trajectories.alive[:, -1].double()
    spread = max(survives * (1 - survives), 1e-12) ** 0.5
    assert abs(lives.mean() - survives) < 4.5 * spread / (len(lives) / 3) ** 0.5
    assert (found.plans > -1).all()
    assert (found.plans < 1.5).all()
    assert (found.trajectories.final_rewards[lives == 0] == 0).all()


def forked():
    """Two equally good ways, left and right, and noise of a deviation of √0.02 on either."""
    return cai.TrajectoryModel(
        initial=dist.Normal(torch.zeros(()).double(), 0.1),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1),
        reward=0.0,
        final_reward=lambda s: -((s**2 - 4) ** 2) / 8,
        action_prior=dist.Normal(torch.zeros(()).double(), 2.0),
        horizon=1,
    )


def test_both_of_two_modes_are_seen():
    """Left and right as often, and as far out as quadrature says."""
    found = inference.sample_plans(forked(), 120, 40, 2, optimism=1.0, seed=2)
    u, e = np.meshgrid(np.linspace(-6, 6, 601), np.linspace(-0.8, 0.8, 81), indexing="ij")
    q = np.exp(-((u / 2) ** 2) / 2 - e**2 / 0.04 - ((u + e) ** 2 - 4) ** 2 / 8).sum(1)
    q, u = q / q.sum(), np.abs(u[:, 0])
    assert q[u < 0.1].max() < 0.3 * q.max()
    side = (found.plans > 0).double()
    n = effective_sample_size(side.view(2, -1))
    assert abs(side.mean() - 0.5) < 4.5 * 0.5 / n.sqrt()
    assert n > 10
    mean = (q * u).sum()
    sd = torch.tensor((q * (u - mean) ** 2).sum()).sqrt()
    within(found, found.plans.abs(), mean, sd)


def test_density_is_what_was_sampled():
    """log_density against its formula, a box's Jacobian included, up to one constant."""
    model = bumpy(False, 1.0)
    found = inference.sample_plans(model, 20, 10, 1)
    x = transforms.AffineTransform(-1.0, 2.5).inv(found.plans)
    known = found.trajectories.returns / 0.5 + (x.log() + (1 - x).log()).sum(1)
    away = found.log_density - known
    assert (away - away[0]).abs().max() < 1e-6


def test_seeded_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    one, two, three = (
        inference.sample_plans(forked(), 6, 5, 2, seed=seed, max_tree_depth=4) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.plans, two.plans)
    assert torch.equal(one.states, two.states)
    assert not torch.equal(one.plans, three.plans)
    assert not torch.equal(one.plans[:6], one.plans[6:])  # the chains are two
    assert "12 plans of 2 chains" in repr(one)


@pytest.mark.parametrize(("after", "left"), [(3, None), (7, 7), (14, 10)])
def test_an_interrupt_returns_what_is_complete(monkeypatch, after, left):
    """The first chain as far as it came, or the chains that are complete."""
    keep, count = sample_plans._Chain.keep, 0

    def interrupted(self, kernel, params, stage, i):
        nonlocal count
        keep(self, kernel, params, stage, i)
        count += stage == "Sample"
        if count == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(sample_plans._Chain, "keep", interrupted)
    if left is None:
        with pytest.raises(KeyboardInterrupt):
            inference.sample_plans(forked(), 10, 2, 2, max_tree_depth=3)
        return
    found = inference.sample_plans(forked(), 10, 2, 2, max_tree_depth=3)
    assert len(found.plans) == left
    assert found.chains == 1
    assert found.n_eff.shape == (1,)


def test_actions_in_float32():
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s + a, 0.5),
        reward=lambda s, a: -(s**2),
        action_prior=dist.Uniform(-1.0, 1.0),
        horizon=2,
    )
    found = inference.sample_plans(model, 5, 5, 1, optimism=1.0)
    assert found.plans.dtype == found.states.dtype == torch.float64


# What a draw is made of


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Normal(1.0, 2.0),
        dist.Uniform(-1.0, 3.0),
        dist.Laplace(0.5, 1.0),
        dist.Exponential(0.7),
        dist.LogNormal(0.1, 0.5),
        dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1),
        dist.MultivariateNormal(torch.ones(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
        dist.Normal(0.0, 1.0).expand([3]).to_event(1),
        dist.TransformedDistribution(dist.Normal(0.0, 0.3), [transforms.TanhTransform()]),
        Root.of(torch.tensor([[1.0, 1.0], [1.0, 1.0]]).double()).around(torch.zeros(2).double()),
    ],
    ids=lambda d: type(d).__name__,
)
def test_noise_becomes_the_distribution(distribution):
    """Moments of 4000 draws from noise against as many of the distribution's own."""
    torch.manual_seed(0)
    z = torch.randn(4000, *distribution.event_shape, dtype=torch.float64)
    ours, theirs = from_noise(distribution, z), distribution.sample((4000,))
    for power in (1, 2):
        x, y = ours.double() ** power, theirs.double() ** power
        error = ((x.var(0) + y.var(0)) / 4000).sqrt()
        assert ((x.mean(0) - y.mean(0)).abs() < 4.5 * error).all()


def test_pairs_of_a_pendulum_roll_as_the_program_does():
    """States of given noise against the model's own simulation, by their first moments."""
    model = models.pendulum(horizon=5)
    plans = torch.zeros(4000, 5, 1, dtype=torch.float64)
    states, size = roll(model, plans, None)
    again, _ = roll(model, plans[:7], torch.randn(7, size, dtype=torch.float64))
    assert again.shape == (7, 6, *model.initial.event_shape)
    other = model.simulate(lambda t, s: dist.Delta(0 * s[..., :1], event_dim=1), 4000, 0).states
    error = ((states.var(0) + other.var(0)) / 4000).sqrt()
    assert ((states.mean(0) - other.mean(0)).abs() < 4.5 * error + 1e-6).all()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (models.ledge(), {}, "action_prior: expected a density.*Categorical, which is discrete"),
        (
            cai.TrajectoryModel(
                initial=dist.Normal(0.0, 1.0),
                dynamics=lambda s, a: dist.Poisson(torch.ones_like(s)),
                reward=0.0,
                action_prior=dist.Normal(0.0, 1.0),
                horizon=2,
            ),
            {},
            r"site s_1: expected a reparameterised .* got Poisson; .* take inference\.smc",
        ),
        (
            cai.TrajectoryModel(
                initial=dist.Categorical(torch.ones(3)),
                dynamics=lambda s, a: dist.Delta(s),
                reward=0.0,
                action_prior=dist.Normal(0.0, 1.0),
                horizon=2,
            ),
            {},
            "site s_0: expected a reparameterised .* got Categorical",
        ),
        (
            cai.TrajectoryModel(
                initial=dist.Normal(0.0, 1.0),
                dynamics=lambda s, a: dist.Normal(s, 1.0),
                reward=0.0,
                action_prior=lambda s: dist.Normal(s, 1.0),
                horizon=2,
            ),
            {},
            "action_prior: expected one density for all states",
        ),
        (forked(), {"optimism": 0.7}, "optimism: expected 0, or 1/k for a whole number k, got 0.7"),
        (forked(), {"optimism": -1.0}, "optimism: expected 0, or 1/k"),
        (forked(), {"noises": 3}, "noises: expected an even number, got 3"),
        (forked(), {"samples": 3}, "samples: expected at least 4"),
        (forked(), {"chains": 0}, "chains: expected a whole number of at least 1"),
    ],
)
def test_refusals(model, options, message):
    with pytest.raises(ValueError, match=message):
        inference.sample_plans(model, **options)


def test_what_is_impossible_says_so():
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s, 1.0),
        reward=lambda s, a: torch.full(s.shape, -math.inf),
        action_prior=dist.Normal(0.0, 1.0),
        horizon=2,
    )
    with pytest.raises(
        ValueError, match="evidence: expected a plan from the prior that is possible"
    ):
        inference.sample_plans(model)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_coin_of_death_is_summed_out(eta):
    """Death on arrival at 1, at 2, or never: each with its probability, at the dial's mean."""
    target = PlanDensity(bumpy(True, 0.7), 2, eta, 2)
    earned = torch.tensor([[1.0, -3.0, 2.0], [0.0, 4.0, -1.0]]).double()
    chances = [0.3, 0.7 * 0.3, 0.7 * 0.7]
    known = 0.0
    for row in earned.tolist():
        ends = list(zip(chances, row, strict=True))
        if eta == 0:
            known += sum(p * x for p, x in ends) / 2
        else:
            known += math.log(sum(p * math.exp(eta * x) for p, x in ends)) / eta / 2
    assert target.utility(earned).item() == pytest.approx(known, abs=1e-12)
