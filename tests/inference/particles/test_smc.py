"""Sequential Monte Carlo: unbiased with any twist and proposal, and exact with the best ones."""

import dataclasses
import math

import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.inference.particles.smc import _systematic

seeds = st.integers(0, 10**6)


def evidences(model, runs, n, **options):
    """p(O) as several runs estimate it, (runs,)."""
    found = [inference.smc(model, n, seed=seed, **options).log_evidence for seed in range(runs)]
    return torch.tensor(found, dtype=torch.float64).exp()


def setups(model):
    """Twists and proposals: none, at several optimisms, the prior's, and a wrong one."""
    exact, soft = inference.posterior(model), inference.soft_values(model)
    half = inference.soft_values(model, 0.5)
    return {
        "none": {},
        "exact twist": {"twist": exact},
        "exact policy, always resampled": {"proposal": exact.policy, "ess_threshold": 1.0},
        "never resampled": {"twist": soft, "ess_threshold": 0.0},
        "halfway": {"twist": soft, "proposal": half},
        "tilted without a twist": {"proposal": exact, "ess_threshold": 1.0},
        "a wrong twist": {"twist": lambda t, s: torch.sin(3.0 * s + t), "proposal": soft.policy},
    }


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("name", setups(models.ledge()))
def test_evidence_is_unbiased(name, discount):
    """Within 4 standard errors of the sum over all paths: latents, arrival and final rewards."""
    problem = oracles.random_problem(7, discount=discount)
    model = problem.latent_model()
    w = evidences(model, 60, 25, **setups(model)[name])
    truth = float(oracles.posterior(problem)["evidence"])
    assert abs(w.mean() - truth) < 4 * w.std() / len(w) ** 0.5
    assert w.std() < 0.6 * truth


@settings(max_examples=12)
@given(make=st.sampled_from(oracles.KINDS), seed=seeds, discount=st.sampled_from([1.0, 0.7]))
def test_with_the_exact_messages_all_weights_are_the_evidence(make, seed, discount):
    problem = make(seed, discount=discount)
    model = problem.latent_model() if seed % 2 else problem.model()
    exact = inference.posterior(model)
    found = inference.smc(model, 9, exact, exact, seed)
    assert found.log_evidence == pytest.approx(
        math.log(float(oracles.posterior(problem)["evidence"])), abs=1e-9
    )
    assert found.effective_sample_sizes.tolist() == pytest.approx([9] * (problem.T + 1))
    assert found.lineages.tolist() == [9] * (problem.T + 1)
    assert found.resampled.tolist() == [False] * problem.T + [True]


def test_so_they_are_on_lists_of_successors():
    model = models.gym("FrozenLake-v1", horizon=20, temperature=0.1, discount=0.95)
    assert cai.tabulate(model).successors is not None
    exact = inference.posterior(model)
    found = inference.smc(model, 20, exact, exact)
    assert found.log_evidence == pytest.approx(exact.bound, abs=1e-9)


def random_gaussian():
    """Drift, cross terms, two dimensions, noise of one; a prior that depends on the step."""
    g = torch.Generator().manual_seed(3)
    normal = lambda *shape: torch.randn(shape, dtype=torch.float64, generator=g)  # noqa: E731
    return models.linear_gaussian(
        0.6 * normal(2, 2),
        normal(2, 1),
        horizon=4,
        drift=normal(4, 2),
        noise=torch.diag(torch.tensor([0.5, 0.0])),
        Q=torch.eye(2),
        R=[[0.3]],
        q=normal(2),
        Q_final=torch.eye(2),
        initial_mean=normal(2),
        initial_covariance=0.5 * torch.eye(2),
        action_prior=dist.MultivariateNormal(normal(4, 1), torch.eye(1).expand(4, 1, 1)),
        temperature=0.8,
    )


def test_linear_gaussian_with_the_exact_messages():
    """Singular noise has no density, and needs none."""
    model = random_gaussian()
    exact = inference.posterior(model)
    found = inference.smc(model, 7, exact, exact)
    assert found.log_evidence == pytest.approx(exact.bound, abs=1e-9)
    other = dataclasses.replace(model, temperature=1.3)
    found = inference.smc(other, 7, inference.posterior(other), exact)
    assert found.log_evidence != pytest.approx(inference.posterior(other).bound, abs=1e-3)


def test_a_proposal_without_the_coin_of_death_is_refused():
    """It would let everybody live, and give the evidence of a model without a discount."""
    model = random_gaussian()
    mortal = dataclasses.replace(model, discount=0.9)
    exact = inference.posterior(model)
    with pytest.raises(ValueError, match=r"proposal: expected a solution of .* and discount"):
        inference.smc(mortal, 9, exact, exact)
    found = inference.smc(mortal, 9, exact, inference.soft_values(mortal))
    assert not found.trajectories.alive.all()


@pytest.mark.parametrize("name", ["none", "exact twist", "halfway", "tilted without a twist"])
def test_linear_gaussian_evidence_is_unbiased(name):
    model = random_gaussian()
    w = evidences(model, 60, 100, **setups(model)[name])
    truth = math.exp(inference.posterior(model).bound)
    assert abs(w.mean() - truth) < 4 * w.std() / len(w) ** 0.5


def test_marginals():
    """States and actions as the exact posterior has them, by 20 independent runs."""
    problem = oracles.random_problem(5, discount=0.9, T=4)
    model, truth = problem.latent_model(), oracles.posterior(problem)
    exact = inference.posterior(model)
    S, A = problem.sizes
    for options in ({"twist": exact, "proposal": exact}, {"twist": exact}):
        runs = []
        for seed in range(20):
            paths = inference.smc(model, 400, seed=seed, **options).trajectories
            states = torch.nn.functional.one_hot(paths.states, S) * paths.alive.unsqueeze(-1)
            actions = torch.nn.functional.one_hot(paths.actions, A) * paths.alive[:, :-1, None]
            means = states.double().mean(0).flatten(), actions.double().mean(0).flatten()
            runs.append(torch.cat(means))
        found = torch.stack(runs)
        known = torch.cat(
            [
                torch.tensor(truth["states"]).flatten(),
                torch.tensor(truth["state_actions"]).sum(1).flatten(),
            ]
        )
        error = found.std(0) / 20**0.5
        assert ((found.mean(0) - known).abs() < 4.5 * error + 2e-3).all()


def test_linear_gaussian_marginals():
    model = random_gaussian()
    exact = inference.posterior(model)
    paths = inference.smc(model, 4000, exact, exact).trajectories
    found = torch.cat([paths.states[:, :-1], paths.actions], -1).double()
    known = exact.state_actions
    sd = known.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((found.mean(0) - known.mean).abs() < 4.5 * sd / 4000**0.5 + 1e-9).all()
    assert ((found.std(0) / sd - 1).abs() < 4.5 / 8000**0.5).all()


def test_rewards_and_who_pays_them():
    """The trajectories' own rewards are what the model says, and the dead have none."""
    model = oracles.random_problem(2, discount=0.7, T=4).latent_model()
    paths = inference.smc(model, 50, inference.posterior(model)).trajectories
    assert (~paths.alive).any()
    assert paths.alive.any()
    assert (paths.alive[:, 1:] <= paths.alive[:, :-1]).all()
    s, a = paths.states, paths.actions
    each = model.rewards(s[:, :-1], a) + model.arrival_rewards(s[:, :-1], a, s[:, 1:])
    assert torch.equal(paths.rewards, torch.where(paths.alive[:, :-1], each, 0.0))


def test_a_twist_makes_the_estimate_better():
    """On ice to a goal that is 6 steps away: the variance of exp(log_evidence) falls."""
    model = models.gym("FrozenLake-v1", horizon=20, temperature=0.2)
    plain, twisted = (
        evidences(model, 40, 200, twist=twist) for twist in (None, inference.posterior(model))
    )
    truth = math.exp(inference.posterior(model).bound)
    assert abs(twisted.mean() - truth) < 4 * twisted.std() / 40**0.5
    # Variances of 40 runs differ by chance by a factor of at most 2.9 in 999 of 1000 cases.
    assert plain.var() > 2.9 * twisted.var()


CHANCES = torch.tensor([[0.8, 0.2], [0.1, 0.9]])


def test_what_cannot_be_is_never_seen():
    """Rewards of -inf: in half of the states nothing may be done, and a twist of -inf is heeded."""
    inf = math.inf
    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(2)),
        dynamics=lambda s, a: dist.Categorical(CHANCES[a]),
        reward=lambda s, a: torch.where((s == 0) & (a == 1), -inf, 0.0),
        final_reward=lambda s: torch.where(s == 0, 0.0, -inf),
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=3,
    )
    paths = inference.smc(model, 200).trajectories
    assert not ((paths.states[:, :-1] == 0) & (paths.actions == 1)).any()
    assert (paths.states[:, -1] == 0).all()
    twist = lambda t, s: torch.where((s == 1) & (t == 2), -inf, 0.0)  # noqa: E731
    assert (inference.smc(model, 200, twist).trajectories.states[:, 2] == 0).all()
    impossible = dataclasses.replace(model, final_reward=lambda s: torch.full(s.shape, -inf))
    with pytest.raises(ValueError, match="evidence: expected a particle of positive weight at ste"):
        inference.smc(impossible, 200)


def test_a_solution_that_despairs_does_not_bias():
    """At optimism 0 a state that may go wrong is worth -inf, and yet belongs to the posterior."""
    problem = oracles.random_problem(3, zeros=0.0, forbidden=0.0)
    problem.final[0] = -math.inf
    model = problem.model()
    soft = inference.soft_values(model)
    assert (-math.inf == soft.V).any()
    w = evidences(model, 60, 50, twist=soft)
    truth = sum(oracles.mass(problem, path) for path in oracles.paths(problem))
    assert abs(w.mean() - truth) < 4 * w.std() / len(w) ** 0.5


def test_seeded_and_leaves_the_generator_alone():
    model, before = models.ledge(discount=0.9), torch.get_rng_state()
    one, two, three = (inference.smc(model, 50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.trajectories.states, two.trajectories.states)
    assert one.log_evidence == two.log_evidence != three.log_evidence
    assert "50 particles" in repr(one)


def test_inside_another_program():
    """Its sites are its own: a program around it sees none."""
    trace = pyro.poutine.trace(lambda: inference.smc(models.ledge(), 10)).get_trace()
    assert set(trace.nodes) == {"_INPUT", "_RETURN"}


@given(seed=seeds)
def test_systematic_resampling(seed):
    """Offspring are n times the weight, rounded up or down, and what weighs nothing has none."""
    g = torch.Generator().manual_seed(seed)
    log_w = 3 * torch.randn(20, dtype=torch.float64, generator=g)
    log_w[torch.rand(20, generator=g) < 0.3] = -math.inf
    w = log_w.softmax(0)
    offspring = _systematic(w).bincount(minlength=20)
    assert offspring.sum() == 20
    assert ((offspring - 20 * w).abs() < 1).all()
    assert (offspring[w == 0] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"particles": 0}, "particles: expected a whole number of at least 1"),
        ({"ess_threshold": 1.5}, "ess_threshold: expected a number in"),
        ({"twist": 3.0}, "twist: expected a solution or a function"),
        ({"twist": lambda t, s: s * math.nan}, "twist: expected numbers, got NaN at step 0"),
        ({"twist": lambda t, s: s + math.inf}, r"twist at step 0: expected numbers below .* \+inf"),
        (
            {"twist": inference.posterior(models.ledge(), observed={"s_1": 1})},
            "twist: expected a solution without observations",
        ),
        (
            {"twist": inference.soft_values(models.ledge(horizon=3))},
            "twist: expected a solution of 4 steps, got 3",
        ),
        (
            {"proposal": inference.soft_values(models.ledge(), -1.0)},
            "proposal: expected a solution at a finite optimism of at least 0, got one at -1",
        ),
        (
            {"proposal": inference.soft_values(models.ledge(), rule="hard")},
            "proposal: expected a solution by the soft rule",
        ),
        (
            {"proposal": inference.posterior(models.ledge(gives_way=0.3))},
            "proposal: expected a solution of this model's dynamics",
        ),
        (
            {"proposal": cai.HistoryPolicy(models.ledge())},
            "proposal: expected a policy .* HistoryPolicy, which has a memory",
        ),
        ({"proposal": lambda t, s: dist.Normal(0.0 * s, 1.0)}, "policy: expected actions like"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        inference.smc(models.ledge(), **options)


def test_an_endless_model_is_refused():
    with pytest.raises(ValueError, match="horizon: smc needs a finite number of steps"):
        inference.smc(models.ledge(horizon=None, discount=0.9))
