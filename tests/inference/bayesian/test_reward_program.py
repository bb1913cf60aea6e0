"""Demonstrations as a Pyro program: its density, its gradient, and where it is zero."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from demonstrated import every_path, of_all_ends, random_case
from pyro import poutine
from pyro.infer import MCMC, NUTS
from towns import NAMES, town, trips_of, walks

import cai
from cai import inference

CASES = [("actions", 0.0, "soft"), ("actions", 1.0, "soft"), ("actions", -0.4, "boltzmann")]
CASES += [("actions", 0.0, "planned"), ("paths", 1.0, "soft"), ("paths", 0.6, "soft")]
WEIGHTS = torch.tensor([-3.0, -0.4, -1.5], dtype=torch.float64)


def standard(k):
    return dist.Normal(torch.zeros(k, dtype=torch.float64), 2.0)


def log_density(program, **values):
    """The log-density of the program at some values of its sites, with their gradient's tape."""
    conditioned = poutine.condition(program, data=values)
    return poutine.trace(conditioned).get_trace().log_prob_sum()


def slope(program, weights):
    at = weights.clone().requires_grad_()
    return torch.autograd.grad(log_density(program, weights=at), at)[0]


def differences(program, weights, step=1e-5):
    rows = torch.eye(len(weights), dtype=torch.float64) * step
    return torch.stack(
        [
            (log_density(program, weights=weights + d) - log_density(program, weights=weights - d))
            / (2 * step)
            for d in rows
        ]
    )


@pytest.mark.parametrize(("likelihood", "optimism", "rule"), CASES)
@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_the_density_is_the_prior_times_the_likelihood(likelihood, optimism, rule, discount):
    _, table, reward, weights = random_case(3, discount=discount)
    seen = of_all_ends(table)[::7]
    how = {"likelihood": likelihood, "optimism": optimism, "rule": rule}
    prior = standard(len(weights))
    program = inference.reward_program(table, seen, reward, prior, **how)
    # a fit that takes no step, by the sensitivities to each weight
    fitted = inference.fit_reward(table, seen, reward, **how, start=weights, steps=1)
    there = torch.tensor([*fitted.weights.values()], dtype=torch.float64)
    expected = fitted.log_likelihood + prior.log_prob(there).sum()
    assert torch.allclose(log_density(program, weights=there), expected, rtol=1e-10)
    found = slope(program, there)
    assert torch.allclose(found, fitted.scores.sum(0) - there / 4, atol=1e-8)
    if rule != "planned":  # whose likelihood has kinks
        assert torch.allclose(found, differences(program, there), atol=1e-5)


def test_trips_on_a_network():
    streets = town()
    trips = walks(streets, 20)
    program = inference.reward_program(streets, trips, NAMES, standard(3))
    routes = inference.Routes(streets, tuple(NAMES), WEIGHTS, trips.goals.unique())
    expected = routes.log_probability(trips).sum() + standard(3).log_prob(WEIGHTS).sum()
    assert torch.allclose(log_density(program, weights=WEIGHTS), expected, rtol=1e-9)
    assert torch.allclose(slope(program, WEIGHTS), differences(program, WEIGHTS), atol=1e-4)


def test_weights_without_values_have_density_zero_and_no_exception():
    """Where minutes are paid for, going round and round has no end."""
    streets = town()
    trips = walks(streets, 20)
    program = inference.reward_program(streets, trips, NAMES, standard(3))
    nowhere = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64)
    assert log_density(program, weights=nowhere) == -torch.inf
    factor = poutine.condition(program, data={"weights": nowhere.requires_grad_()})
    sites = poutine.trace(factor).get_trace().nodes
    (found,) = torch.autograd.grad(sites["demonstrations"]["fn"].log_factor, nowhere)
    assert torch.equal(found, torch.zeros(3, dtype=torch.float64))


def test_nuts_walks_along_the_edge_of_what_has_values():
    """A few short trips, and a wide prior: the edge is near."""
    streets = town()
    trips = walks(streets, 3, most=4)
    program = inference.reward_program(streets, trips, ["minutes"], standard(1))
    torch.manual_seed(0)
    chain = MCMC(NUTS(program), num_samples=40, warmup_steps=20, disable_progbar=True)
    chain.run()
    draws = chain.get_samples()["weights"]
    assert draws.std() > 0.1
    values = [log_density(program, weights=draw) for draw in draws]
    assert torch.stack(values).isfinite().all()


def test_a_prior_on_half_the_line_is_transformed_by_pyro():
    _, table, reward, _ = random_case(3, T=1)
    seen = every_path(table, 1)
    program = inference.reward_program(table, seen, reward, torch.distributions.HalfNormal(2.0))
    torch.manual_seed(1)
    chain = MCMC(NUTS(program), num_samples=15, warmup_steps=15, disable_progbar=True)
    chain.run()
    draws = chain.get_samples()["weights"]
    assert (draws > 0).all()
    assert draws.std(0).min() > 0.1


@pytest.mark.parametrize("one_weight", [False, True])
def test_groups_are_drawn_from_a_population(one_weight):
    _, table, reward, weights = random_case(3)
    if one_weight:
        name = next(iter(reward.features))
        reward, weights = cai.LinearReward({name: reward.features[name]}), weights[:1]
    k = len(weights)
    paths = of_all_ends(table)[::20]
    who = ["b", "a"] * len(paths)
    seen = cai.Demonstrations(
        paths.states, paths.actions, paths.lengths, paths.ends, tuple(who[: len(paths)])
    )
    program = inference.reward_program(table, seen, reward, standard(k), groups=["a", "b", "c"])
    assert program.labels == ("a", "b", "c")
    each = torch.stack([weights, -weights, 2 * weights])
    mean, spread = 0.3 * weights, torch.linspace(0.5, 1.5, k, dtype=torch.float64)
    values = {"mean": mean, "spread": spread, "weights": each}
    root = torch.eye(k, dtype=torch.float64)
    expected = standard(k).log_prob(mean).sum() + dist.HalfNormal(2.0).log_prob(spread).sum()
    if k > 1:
        corners = 0.4 * torch.ones(k, k, dtype=torch.float64) + 0.6 * root
        values["correlation"] = root = torch.linalg.cholesky(corners)
        expected = expected + dist.LKJCholesky(k, torch.tensor(2.0).double()).log_prob(root)
    population = dist.MultivariateNormal(mean, scale_tril=spread.unsqueeze(1) * root)
    expected = expected + population.log_prob(each).sum()
    for label, own in zip("ab", each, strict=False):
        some = seen[[x == label for x in seen.groups]]
        paid = reward.on(table).rewards(table, own)
        alone = inference.fit_reward(table, some, reward, start=own, steps=1)
        assert alone.demonstrations == len(some)
        one = inference.reward_program(table, some, reward, standard(k))
        expected = expected + log_density(one, weights=own) - standard(k).log_prob(own).sum()
        assert paid.reward.isfinite().all()
    assert torch.allclose(log_density(program, **values), expected, rtol=1e-10)


def test_particles_side_by_side_are_those_one_after_the_other():
    _, table, reward, weights = random_case(3)
    program = inference.reward_program(table, of_all_ends(table)[::20], reward, standard(3))
    with pyro.plate("particles", 4, dim=-1):
        trace = poutine.trace(program).get_trace()
    draws = trace.nodes["weights"]["value"]
    factor = trace.nodes["demonstrations"]["fn"].log_factor
    alone = [
        poutine.trace(poutine.condition(program, data={"weights": draw}))
        .get_trace()
        .nodes["demonstrations"]["fn"]
        .log_factor
        for draw in draws
    ]
    assert factor.shape == (4,)
    assert torch.allclose(factor, torch.stack(alone))
    assert program.names == tuple(reward.names)
    assert len(weights) == draws.shape[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": None}, "prior: expected a proper distribution, got none"),
        ({"prior": 3.0}, "prior: expected a distribution of weights"),
        ({"prior": dist.Normal(torch.zeros(2), 1.0)}, r"prior: expected a distribution of 3"),
        ({"prior": cai.FlatPrior(3)}, "prior: expected a proper distribution, got an improper"),
        ({"likelihood": "matching"}, 'likelihood: expected "actions" or "paths"'),
        ({"groups": True}, "groups: expected demonstrations with groups, got none"),
        ({"spread": dist.HalfNormal(1.0)}, "spread: expected None without groups"),
        ({"optimism": torch.inf}, "optimism: expected a finite number"),
    ],
)
def test_what_it_does_not_take(options, words):
    _, table, reward, _ = random_case(3)
    seen = of_all_ends(table)[::40]
    given = {"prior": standard(3)} | options
    with pytest.raises(ValueError, match=words):
        inference.reward_program(table, seen, reward, **given)


def test_groups_that_are_not_listed_are_named():
    streets = town()
    trips = trips_of(streets, [[0, int(streets.turns[0, 1])]] * 2, groups=["a", "b"])
    with pytest.raises(ValueError, match="groups: expected all groups of the demonstrations"):
        inference.reward_program(streets, trips, ["minutes"], standard(1), groups=["a"])
    wild = dist.Cauchy(torch.zeros(1, dtype=torch.float64), 1.0)
    with pytest.raises(ValueError, match="spread: expected a standard deviation"):
        inference.reward_program(streets, trips, ["minutes"], wild, groups=True)
    for spread in (dist.Normal(0.0, 1.0), dist.Uniform(-0.5, 1.0)):
        with pytest.raises(ValueError, match="spread: expected a distribution of standard dev"):
            inference.reward_program(
                streets, trips, ["minutes"], standard(1), groups=True, spread=spread
            )
    half = dist.Uniform(0.0, 1.0)
    given = {"groups": True, "spread": half}
    assert inference.reward_program(streets, trips, ["minutes"], standard(1), **given).spread


def test_the_reward_of_a_fit_on_the_network_stands_for_its_names():
    streets = town()
    trips = walks(streets, 20)
    fitted = inference.fit_reward(streets, trips, NAMES)
    again = inference.fit_reward(streets, trips, fitted.reward)
    assert again.weights == fitted.weights
    with pytest.raises(ValueError, match="reward: expected a list of names"):
        inference.fit_reward(town(1), walks(town(1), 5), fitted.reward)
