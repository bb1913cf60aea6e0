"""Estimators of the gradient: each unbiased, and mirror descent as dynamic programming."""

import itertools
import math

import numpy as np
import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import continuous, regulator, scramble, tiny
from hypothesis import given
from hypothesis import strategies as st
from paths import every_trajectory, gradient, trajectories

import cai
from cai import inference, models
from cai.inference.gradients.enumerated import enumerated_program_gradient
from cai.inference.gradients.estimators import closed_form_gradient
from cai.inference.gradients.exact_gradient import exact_gradient
from cai.inference.gradients.mirror import mirror_gradient, mirror_sweep
from cai.inference.gradients.pathwise import pathwise_gradient
from cai.inference.gradients.renyi_gradient import renyi_gradient
from cai.inference.gradients.score_function import score_gradient


def check_unbiased(estimate, policy, exact, repeats, most):
    """The mean of many gradients, a few standard errors from the exact one, which are small."""
    draws = torch.stack([gradient(estimate, policy) for _ in range(repeats)])
    error = draws.std(0) / math.sqrt(repeats)
    off = (draws.mean(0) - exact).abs()
    assert (off <= 4.5 * error + 1e-9).all()
    along = draws @ exact / (exact @ exact)
    stderr = along.std().item() / math.sqrt(repeats)
    assert stderr < most
    assert abs(along.mean().item() - 1) < 4 * stderr + 1e-9


# Actions summed over, and the score function


@pytest.mark.parametrize("discount", [1.0, 0.7])
@pytest.mark.parametrize("kind", ["enumerated", "score"])
def test_the_expectation_over_all_pairs_of_trajectories_is_the_exact_gradient(
    kind, discount, monkeypatch
):
    """Two samples, each the other's baseline: with nothing left to chance, to the last digit."""
    model = tiny(discount)
    policy = scramble(cai.TabularPolicy(model))
    exact = gradient(exact_gradient(cai.tabulate(model), policy), policy)
    if kind == "enumerated":
        estimate = enumerated_program_gradient(model, policy, 2, 2)
    else:
        estimate = score_gradient(model, policy, 2)
    total, mean, pair = 0.0, torch.zeros_like(exact), None
    monkeypatch.setattr(cai.TrajectoryModel, "simulate", lambda *_: trajectories(model, pair))
    paths = list(every_trajectory(model, policy))
    assert len(paths) == (9 if discount == 1 else 27)
    for pair in itertools.product(paths, paths):
        weight = pair[0][0] * pair[1][0]
        total, mean = total + weight, mean + weight * gradient(estimate, policy)
    assert total == pytest.approx(1, abs=1e-12)
    assert torch.allclose(mean, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_enumerated_actions_are_unbiased(discount):
    model = oracles.random_problem(5, T=3, discount=discount).model()
    policy = scramble(cai.TabularPolicy(model))
    exact = gradient(exact_gradient(cai.tabulate(model), policy), policy)
    estimate = enumerated_program_gradient(model, policy, policy.logits.shape[-1], 20)
    check_unbiased(estimate, policy, exact, 300, 0.03)


def test_enumerated_actions_in_states_that_are_not():
    """Left or right on a line, by a network."""
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 0.3),
        dynamics=lambda s, a: dist.Normal(s + 0.5 * (2 * a - 1), 0.1),
        reward=lambda s, a: -((s - 1) ** 2),
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=8,
        temperature=0.5,
    )
    before = cai.evaluate(model, cai.NeuralPolicy(model), samples=500)
    fitted = inference.fit(model, cai.NeuralPolicy(model), steps=60, learning_rate=0.05)
    assert fitted.estimator == "enumerated"
    assert fitted.elbo > before.elbo + 5
    walk = continuous()
    with pytest.raises(ValueError, match='"enumerated": expected finitely many actions'):
        inference.fit(walk, cai.NeuralPolicy(walk), estimator="enumerated")


# The Rényi bound


@pytest.mark.parametrize(("eta", "discount"), [(1.0, 0.7), (0.5, 1.0), (-1.0, 0.7)])
def test_the_renyi_gradient_over_all_pairs_of_trajectories(eta, discount, monkeypatch):
    """E (1/η) log ½ (w_1^η + w_2^η), differentiated as it stands."""
    model = tiny(discount)
    policy = scramble(cai.TabularPolicy(model))
    paths = list(every_trajectory(model, policy))
    together = trajectories(model, paths)
    alive, t = together.alive[:, :-1], torch.arange(2)
    s, a = together.states[:, :-1], together.actions
    log_q = torch.where(alive, policy.log_probs[t, s, a], 0.0).sum(-1)
    log_p = torch.where(alive, cai.tabulate(model).log_prior[s, a], 0.0).sum(-1)
    log_w = together.returns / model.temperature + log_p - log_q
    chances = torch.tensor([path[0] for path in paths], dtype=torch.float64)
    q = chances * (log_q - log_q.detach()).exp()
    both = torch.logaddexp(eta * log_w.unsqueeze(0), eta * log_w.unsqueeze(1)) - math.log(2)
    bound = (q.unsqueeze(0) * q.unsqueeze(1) * both).sum() / eta
    (exact,) = torch.autograd.grad(-bound, policy.logits)
    estimate = renyi_gradient(model, policy, 2, optimism=eta)
    mean, pair = torch.zeros(exact.numel()).double(), None
    monkeypatch.setattr(cai.TrajectoryModel, "simulate", lambda *_: trajectories(model, pair))
    for pair in itertools.product(paths, paths):
        mean = mean + pair[0][0] * pair[1][0] * gradient(estimate, policy)
    assert torch.allclose(mean, exact.flatten(), rtol=0, atol=1e-12)


def test_importance_weights_bring_the_optimism_back_and_a_warning_says_so():
    model = models.ledge()
    options = {"estimator": "renyi", "steps": 300, "learning_rate": 0.05}
    with pytest.warns(UserWarning, match="Rényi bound at optimism 1 counts on luck"):
        lucky = inference.fit(model, cai.TabularPolicy(model), optimism=1, samples=6, **options)
    sober = inference.soft_values(model)
    assert lucky.elbo < sober.elbo - 0.1
    assert lucky.losses[-50:].mean() < -sober.elbo  # it imagines more than there is to have
    with pytest.warns(UserWarning, match="optimism -1 fears"):
        inference.fit(model, cai.TabularPolicy(model), **(options | {"optimism": -1, "steps": 1}))
    for eta in (0.0, 2.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"optimism: expected a (finite|real) number"):
            inference.fit(model, cai.TabularPolicy(model), estimator="renyi", optimism=eta)
    with pytest.raises(ValueError, match=r"optimism: expected 0, got 0\.5"):
        inference.fit(model, cai.TabularPolicy(model), optimism=0.5)


# Mirror descent

problems = given(seed=st.integers(0, 10**6), discount=st.sampled_from([1.0, 0.7]))


def solved(seed, discount, T=4):
    """A random problem's table, its best policy and a policy to start from."""
    model = oracles.random_problem(seed, T=T, discount=discount).model()
    policy = scramble(cai.TabularPolicy(model))
    return cai.tabulate(model), inference.soft_values(model, optimism=0).policy.log_probs, policy


@problems
def test_k_simultaneous_sweeps_make_the_last_k_steps_optimal(seed, discount):
    table, best, policy = solved(seed, discount)
    log_q = policy.log_probs.detach()
    for k in range(1, table.steps + 1):
        log_q = mirror_sweep(table, log_q)
        assert torch.allclose(log_q[-k:].exp(), best[-k:].exp(), rtol=0, atol=1e-12)


@problems
def test_one_sweep_backward_is_dynamic_programming(seed, discount):
    table, best, policy = solved(seed, discount)
    log_q = mirror_sweep(table, policy.log_probs.detach(), backward=True)
    assert torch.allclose(log_q.exp(), best.exp(), rtol=0, atol=1e-12)
    again = mirror_sweep(table, log_q)
    assert torch.allclose(again.exp(), log_q.exp(), rtol=0, atol=1e-12)


def centred(log_q, best):
    """log q - log q*, but for what normalisation does, where both are finite."""
    off = torch.where(best > -torch.inf, log_q - best, torch.nan)
    return torch.where(best > -torch.inf, off - off.nanmean(-1, keepdim=True), 0.0)


@problems
def test_half_steps_halve_the_error(seed, discount):
    """Exactly at the last step, where nothing comes after it, and before it in the long run."""
    table, best, policy = solved(seed, discount)
    log_q, errors = policy.log_probs.detach(), []
    for _ in range(40):
        errors.append(centred(log_q, best))
        log_q = mirror_sweep(table, log_q, step=0.5)
    for before, after in itertools.pairwise(errors[:9]):
        assert torch.allclose(after[-1], before[-1] / 2, rtol=0, atol=1e-12)
    sizes = [error.abs().max().item() for error in errors]
    assert sizes[-1] <= 0.6 * sizes[-2] < 1e-6  # zero where there is nothing to choose


@problems
def test_the_natural_gradient_by_the_fisher_information(seed, discount):
    """F⁻¹ ∇ELBO, with F = occupancy (diag q - q q') of each row, from the exact gradient."""
    table, _, policy = solved(seed, discount, T=3)
    slope = gradient(exact_gradient(table, policy), policy).view_as(policy.logits)
    natural = gradient(mirror_gradient(table, policy), policy).view_as(policy.logits)
    q, occupancy = policy.log_probs.exp().detach(), cai.evaluate(table, policy).states[:-1]
    fisher = torch.diag_embed(q) - q.unsqueeze(-1) * q.unsqueeze(-2)
    fisher = occupancy[..., None, None] * fisher
    lived = occupancy > 1e-6
    assert lived.any()
    through = torch.einsum("...ab,...b->...a", fisher, natural)
    assert torch.allclose(through, slope, rtol=0, atol=1e-12)
    assert product_mean(q, natural)[lived].abs().max() < 1e-12


@problems
def test_the_natural_gradient_of_a_stationary_table(seed, discount):
    """The same with one table for all steps: the information of all of them together."""
    model = oracles.random_problem(seed, T=4, discount=discount).model()
    table, policy = cai.tabulate(model), scramble(cai.TabularPolicy(model, stationary=True))
    slope = gradient(exact_gradient(table, policy), policy).view_as(policy.logits)
    natural = gradient(mirror_gradient(table, policy), policy).view_as(policy.logits)
    q, visits = policy.log_probs.exp().detach(), cai.evaluate(table, policy).states[:-1].sum(0)
    fisher = torch.diag_embed(q) - q.unsqueeze(-1) * q.unsqueeze(-2)
    through = torch.einsum("sab,sb->sa", visits[:, None, None] * fisher, natural)
    assert torch.allclose(through, slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_mirror_descent_of_a_stationary_table(discount):
    model = models.gym("FrozenLake-v1", horizon=20, temperature=0.1, discount=discount)
    policy = cai.TabularPolicy(model, stationary=True)
    fitted = inference.fit(model, policy, estimator="mirror")
    assert fitted.converged
    slope = gradient(exact_gradient(cai.tabulate(model), fitted.policy), fitted.policy)
    assert slope.abs().max() < 1e-9
    adam = inference.fit(model, policy, estimator="exact")
    assert adam.elbo == pytest.approx(fitted.elbo, abs=1e-4)


@pytest.mark.parametrize("base", [0.0, -40.0])
def test_a_whole_step_that_goes_too_far_is_halved(base):
    """Stay, then go: who always goes should stay, but not always, wherever zero is.

    From A to B and back in two steps, of which only to end in B is worth 20 nats more. A stationary
    policy that goes with probability p has it with (1-p) p. From p = 0.9 a whole step leads to p
    below 1e-5.
    """
    model = models.tabular(
        [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]],
        np.zeros((2, 2)),
        horizon=2,
        final_reward=[base, base + 20.0],
    )
    policy = cai.TabularPolicy(model, stationary=True)
    with torch.no_grad():
        policy.logits[0] = torch.tensor([0.1, 0.9], dtype=torch.float64).log()
    first = cai.evaluate(model, policy).elbo
    fitted = inference.fit(model, policy, estimator="mirror", steps=12, progress=False)
    elbos = [first, *(-fitted.losses).tolist()]
    assert all(after >= before - 1e-10 for before, after in itertools.pairwise(elbos))
    p = np.linspace(0, 1, 100_001)[1:-1]
    go, stay = np.log(2 * p), np.log(2 * (1 - p))
    in_a = -(p * go + (1 - p) * stay)  # less what choosing costs
    best = (base + 20 * (1 - p) * p + in_a + (1 - p) * in_a).max()
    assert best - 1e-3 <= fitted.elbo <= best + 1e-9


def product_mean(q, x):
    return (q * x).sum(-1)


@pytest.mark.parametrize(
    "model",
    [
        models.ledge(),
        models.ledge(horizon=50, discount=0.9),
        models.lottery(),
        models.gym("FrozenLake-v1", horizon=60, temperature=0.01),
    ],
    ids=["ledge", "long ledge", "lottery", "FrozenLake, cold"],
)
def test_mirror_descent_ends_at_the_optimum_in_as_many_steps_as_the_horizon(model):
    fitted = inference.fit(model, cai.TabularPolicy(model), estimator="mirror")
    assert fitted.estimator == "mirror"
    assert 2 <= len(fitted.losses) <= model.horizon + 1  # the last one finds nothing to gain
    assert fitted.elbo == pytest.approx(inference.soft_values(model).elbo, abs=1e-9)
    assert (fitted.losses.diff() < 1e-9).all()
    slow = inference.fit(
        model, cai.TabularPolicy(model), estimator="mirror", learning_rate=0.5, steps=10
    )
    assert len(slow.losses) == 10


def test_mirror_descent_avoids_what_is_fatal():
    P = torch.zeros(3, 2, 3)
    P[0, 0, 1] = P[0, 1, 2] = P[1, :, 1] = P[2, :, 2] = 1
    r = torch.tensor([[0.0, 0.0], [0.0, 1.0], [-math.inf, -math.inf]])
    model = models.tabular(P, r, horizon=3, action_prior=[0.3, 0.7])
    fitted = inference.fit(model, cai.TabularPolicy(model), estimator="mirror")
    assert fitted.elbo == pytest.approx(inference.soft_values(model).elbo, abs=1e-12)
    assert fitted.policy.logits.isfinite().all()


# Pathwise


@pytest.mark.parametrize("discount", [1.0, 0.7])
def test_pathwise_gradients_are_unbiased(discount):
    model = regulator(discount=discount)
    policy = scramble(cai.LinearGaussianPolicy(model))
    exact = gradient(closed_form_gradient(model, policy), policy)
    check_unbiased(pathwise_gradient(model, policy, 200), policy, exact, 150, 0.01)


def scrambled_network(model, **options):
    torch.manual_seed(3)
    network = cai.NeuralPolicy(model, hidden=(8,), **options).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    return network


SMOOTH = {
    "a particle with a latent push": lambda: continuous(
        final_reward=lambda s: -s[..., 0].cosh(), arrival_reward=lambda s, a, n: (n - s)[..., 0]
    ),
    "pendulum": lambda: models.pendulum(horizon=8, noise=0.01, discount=0.9),
    "double integrator": lambda: models.double_integrator(horizon=6),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_pathwise_gradients_by_differences(name):
    """With the noise held still, the estimate is a function of the parameters."""
    torch.set_default_dtype(torch.float64)
    model = SMOOTH[name]()
    policy = scrambled_network(model)
    estimate = pathwise_gradient(model, policy, 7)

    def held():
        torch.manual_seed(11)
        return estimate()

    slope = gradient(held, policy)
    start = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(5)).double()
    values = []
    for h in (1e-4, -1e-4):
        torch.nn.utils.vector_to_parameters(start + h * direction, policy.parameters())
        values.append(held())
    expected = (slope @ direction).item()
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(expected, rel=1e-6)
    assert expected != 0


def test_pathwise_comes_to_the_optimum_of_a_regulator():
    model = regulator(horizon=6)
    fitted = inference.fit(
        model, cai.LinearGaussianPolicy(model), estimator="pathwise", steps=400, learning_rate=0.05
    )
    assert fitted.estimator == "pathwise"
    best = inference.soft_values(model).elbo
    assert best - 0.01 < fitted.elbo <= best + 1e-9


def test_noise_that_the_policy_does_not_touch_may_be_discrete():
    """A coin that sometimes turns the push around has no rsample, and needs none."""

    def model(probability):
        def dynamics(s, a):
            coin = pyro.sample("coin", dist.Bernoulli(probability(s)))
            return dist.Normal(s + a * (1 - 2 * coin), 0.1)

        return cai.TrajectoryModel(
            initial=dist.Normal(torch.tensor(0.5).double(), 0.2),
            dynamics=dynamics,
            reward=lambda s, a: -(s**2),
            action_prior=dist.Normal(torch.tensor(0.0).double(), 1.0),
            horizon=3,
        )

    fair = model(lambda s: torch.full_like(s, 0.25))
    assert gradient(pathwise_gradient(fair, network := scrambled_network(fair), 4), network).any()
    moved = model(lambda s: torch.sigmoid(s))
    network = scrambled_network(moved)
    with pytest.raises(ValueError, match=r'"pathwise", site t1/coin: expected .* take "score"'):
        gradient(pathwise_gradient(moved, network, 4), network)


def test_what_has_no_pathwise_gradient():
    ledge, walk = models.ledge(), continuous()
    with pytest.raises(ValueError, match=r'"pathwise", site s_0: .* torch.int64'):
        inference.fit(ledge, cai.NeuralPolicy(ledge), estimator="pathwise")
    mixture = cai.NeuralPolicy(walk, head=cai.MixtureHead(2))
    with pytest.raises(ValueError, match=r"site a_0: expected a distribution with rsample"):
        inference.fit(walk, mixture, estimator="pathwise")
    with pytest.raises(ValueError, match='estimator "pathwise": expected a model whose program'):
        inference.fit(cai.tabulate(ledge), cai.TabularPolicy(ledge), estimator="pathwise")
    with pytest.raises(ValueError, match=r'"mirror": .* TabularPolicy without observe='):
        inference.fit(ledge, cai.NeuralPolicy(ledge), estimator="mirror")


def test_auto_says_what_it_chose():
    ledge, walk, lg = models.ledge(), continuous(), regulator()
    for model, policy, name in [
        (ledge, cai.TabularPolicy(ledge), "exact"),
        (cai.tabulate(ledge), cai.NeuralPolicy(ledge), "exact"),
        (lg, cai.LinearGaussianPolicy(lg), "exact"),
        (lg, cai.NeuralPolicy(lg), "score"),
        (walk, cai.NeuralPolicy(walk), "score"),
    ]:
        assert inference.fit(model, policy, steps=1).estimator == name
