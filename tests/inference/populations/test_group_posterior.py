"""The population of demonstrators and the weights of each: against grids, NUTS and closed forms."""

import dataclasses
import json
import types

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS
from towns import NAMES, simulated, town, trips_of

import cai
from cai import inference, models
from cai.inference.populations import _population
from cai.inference.populations._population import Population, Quadratics, packed

PAYS = torch.tensor([0.0, 1.0, -0.5], dtype=torch.float64)


def lotteries(weights, n, seed=0, labels=None):
    """n choices among three tickets by each of D agents, whose one weight is that of a feature."""
    rng = np.random.default_rng(seed)
    table = cai.tabulate(models.tabular(np.ones((1, 3, 1)), np.zeros((1, 3)), horizon=1))
    actions, who = [], []
    for d, weight in enumerate(weights):
        p = (weight * PAYS).softmax(-1).numpy()
        actions += rng.choice(3, size=(n, 1), p=p).tolist()
        who += [d if labels is None else labels[d]] * n
    seen = cai.Demonstrations.from_paths(np.zeros((len(actions), 2), int), actions, groups=who)
    return table, seen, cai.LinearReward({"pays": PAYS.unsqueeze(0)})


def counts_of(seen, D):
    found = torch.zeros(D, 3, dtype=torch.float64)
    found.index_put_((seen.group_index, seen.actions[:, 0]), torch.ones(len(seen)).double(), True)
    return found


def agents(D=14, mean=0.6, spread=0.8, seed=1):
    return mean + spread * torch.from_numpy(np.random.default_rng(seed).normal(size=D))


AXIS = torch.linspace(-7, 7, 1401, dtype=torch.float64)


def of_each(seen, D):
    """(D, 1401): the log-likelihood of each agent on a grid of weights."""
    return counts_of(seen, D) @ (AXIS.unsqueeze(1) * PAYS).log_softmax(-1).T


def test_the_population_is_that_of_a_fine_grid():
    """The marginal likelihood by sums over a grid of weights, not by Laplace."""
    D = 14
    table, seen, reward = lotteries(agents(D), 60)
    found = inference.reward_posterior(table, seen, reward, groups=True, progress=False)
    assert found.converged
    each = of_each(seen, D)

    def marginal(mean, spread):
        prior = torch.distributions.Normal(mean, spread).log_prob(AXIS)
        total = (each + prior).logsumexp(-1).sum() + spread.log()  # |Σ|^½, the other part is flat
        return float(total)

    mu, sigma = found.weights["pays"], found.spreads["pays"]
    grid = [
        (marginal(torch.tensor(m).double(), torch.tensor(s).double()), m, s)
        for m in np.linspace(mu - 0.3, mu + 0.3, 31)
        for s in np.linspace(0.6 * sigma, 1.4 * sigma, 41)
    ]
    _, best_mean, best_spread = max(grid)
    assert abs(best_mean - mu) < 0.1 * found.std_errors["pays"]
    assert abs(best_spread / sigma - 1) < 0.05
    # the curvature of the same grid is the error of μ, its spread profiled out
    profile = {m: max(x for x, other, _ in grid if other == m) for _, m, _ in grid}
    axis = sorted(profile)
    fitted = np.polyfit(axis, [profile[m] for m in axis], 2)
    assert abs((-2 * fitted[0]) ** -0.5 / found.std_errors["pays"] - 1) < 0.1
    # and the weights of each agent under that population
    share = (each + torch.distributions.Normal(mu, sigma).log_prob(AXIS)).softmax(-1)
    own = share @ AXIS
    sd = (share @ AXIS.square() - own.square()).sqrt()
    assert ((found.group_weights[:, 0] - own).abs() < 0.2 * sd).all()
    wider = found.group_covariances[:, 0, 0].sqrt() / sd
    assert (wider > 0.9).all()
    assert (wider < 1.2).all()


def test_the_weights_are_those_of_nuts_on_a_program_written_by_hand():
    D = 14
    table, seen, reward = lotteries(agents(D), 60)
    found = inference.reward_posterior(table, seen, reward, groups=True, progress=False)
    counts = counts_of(seen, D)
    zero, one = torch.zeros(2, dtype=torch.float64)

    def program():
        mean = pyro.sample("mean", dist.Normal(zero, one + 10))
        log_spread = pyro.sample("log_spread", dist.Normal(zero, one + 3))
        pyro.factor("width", 2 * log_spread)  # |Σ|^½, and the density of σ² rather than log σ
        with pyro.plate("agents", D):
            z = pyro.sample("z", dist.Normal(zero, one + 1))
            weights = pyro.deterministic("weights", mean + log_spread.exp() * z)
            log_p = (weights.unsqueeze(-1) * PAYS).log_softmax(-1)
            pyro.factor("choices", (counts * log_p).sum(-1))

    torch.manual_seed(0)
    kernel = NUTS(program, max_tree_depth=5)
    chain = MCMC(kernel, num_samples=80, warmup_steps=50, disable_progbar=True)
    chain.run()
    draws = chain.get_samples()
    weights = draws["mean"].unsqueeze(1) + draws["log_spread"].exp().unsqueeze(1) * draws["z"]
    sd = weights.std(0)
    assert ((found.group_weights[:, 0] - weights.mean(0)).abs() < 0.5 * sd).all()
    assert (found.group_covariances[:, 0, 0].sqrt() / sd).log().abs().mean() < 0.15
    assert abs(found.weights["pays"] - float(draws["mean"].mean())) < 0.5 * float(
        draws["mean"].std()
    )


def test_em_ends_where_the_marginal_likelihood_of_quadratic_functions_is_highest():
    """In closed form, ψ̂_d ~ N(μ, Σ + I_d⁻¹): its gradient is zero there, with any prior of μ."""
    rng = torch.Generator().manual_seed(0)
    D, k = 9, 2
    roots = torch.randn(D, k, k, generator=rng, dtype=torch.float64)
    known = roots @ roots.mT + 0.5 * torch.eye(k, dtype=torch.float64)
    modes = torch.randn(D, k, generator=rng, dtype=torch.float64) + 1.0
    zeros = torch.zeros(D, k, dtype=torch.float64)
    found = Quadratics(modes, zeros[:, 0], zeros, known)
    single = torch.eye(k, dtype=torch.float64)
    whole = types.SimpleNamespace(scale=torch.ones(k, dtype=torch.float64))
    groups = types.SimpleNamespace(tasks=(), whole=whole)
    for prior in (None, dist.Normal(torch.zeros(k, dtype=torch.float64), 0.3).to_event(1)):
        run = Population(groups, prior, torch.zeros(k, dtype=torch.float64), single, 10)
        mean, covariance = run._em(found)
        theta = packed(mean, covariance).requires_grad_()

        def closed(theta):
            at, root = _population.unpacked(theta, k)
            wide = root @ root.T
            each = torch.distributions.MultivariateNormal(at, wide + torch.linalg.inv(known))
            total = each.log_prob(modes).sum() + 0.5 * torch.logdet(wide) - wide.trace() / 200
            return total if prior is None else total + prior.log_prob(at)  # noqa: B023

        (slope,) = torch.autograd.grad(closed(theta), theta)
        assert slope.abs().max() < 1e-6
        # the same function but for a constant
        other = theta.detach() + 0.1
        by = run.log_probability(theta, found) - run.log_probability(other, found)
        assert torch.allclose(by, closed(theta) - closed(other))


@pytest.fixture(scope="module")
def driven():
    """A small town with six drivers, one more who stays at home, and what was found of them."""
    streets = town()
    rng = np.random.default_rng(0)
    mean = torch.tensor([-4.0, -0.7, -2.0], dtype=torch.float64)
    truth = mean + 0.5 * torch.from_numpy(rng.normal(size=(6, 3)))
    paths, who = [], []
    for d, weights in enumerate(truth):
        paths += simulated(streets, weights, 25, seed=d)
        who += [f"driver {d}"] * 25
    trips = trips_of(streets, paths, groups=who)
    labels = [f"driver {d}" for d in range(7)]
    found = inference.reward_posterior(streets, trips, NAMES, groups=labels, progress=False)
    return streets, trips, labels, found


def test_each_step_makes_the_demonstrations_more_probable(driven):
    _, _, _, found = driven
    assert found.converged
    assert found.steps == len(found.history) > 2
    assert (found.history.diff() > -1e-4).all()
    assert found.history[-1] - found.history[0] > 0.1
    assert found.reason == "a further step would change next to nothing"


def test_drivers_are_the_modes_under_the_population(driven):
    """As a fit to the trips of one driver finds them, with N(μ, Σ) as its prior."""
    streets, trips, labels, found = driven
    population = torch.distributions.MultivariateNormal(found.mean, found.covariance)
    for label in labels[:6:2]:
        own = trips[[x == label for x in trips.groups]]
        fitted = inference.fit_reward(streets, own, NAMES, prior=population)
        expected = torch.tensor([*fitted.weights.values()], dtype=torch.float64)
        got = torch.tensor([*found[label].weights.values()], dtype=torch.float64)
        sd = torch.tensor([*fitted.std_errors.values()], dtype=torch.float64)
        assert ((got - expected).abs() < 1e-3 * sd).all()
        # wider than given the population, by the errors of μ and Σ
        wider = torch.tensor([*found[label].std_devs.values()], dtype=torch.float64) / sd
        assert (wider > 1).all()
        assert (wider < 2).all()
        assert found[label].demonstrations == len(own)


def test_a_driver_without_trips_gets_the_population_and_is_told_so(driven):
    _, _, labels, found = driven
    none = found["driver 6"]
    assert none.weights == found.weights
    assert none.demonstrations == 0
    assert torch.allclose(none.covariance, found.covariance + found.mean_covariance)
    assert "Without demonstrations, so with the population's weights: driver 6." in str(
        found.by_group
    )
    assert "1 of them without demonstrations" in str(found)
    assert found.labels == tuple(labels)
    assert found.counts.tolist() == [25] * 6 + [0]


def test_the_tables_and_what_they_export(driven, monkeypatch):
    _, trips, labels, found = driven
    lines = str(found).splitlines()
    assert lines[0].startswith("Population of 7 demonstrators: 150 trips")
    assert [line.split()[0] for line in lines[3:6]] == NAMES
    rows = str(found.by_group).splitlines()[3:10]
    assert [row[:8] for row in rows] == labels
    kept = json.loads(found.to_json())
    assert kept["population"]["left"]["mean"] == found.weights["left"]
    assert kept["population"]["left"]["spread"] == found.spreads["left"]
    one = kept["groups"]["driver 2"]["weights"]["left"]
    assert one["weight"] == found["driver 2"].weights["left"]
    assert tuple(one["interval"]) == found["driver 2"].intervals()["left"]
    assert kept["actions"] == int(trips.lengths.sum()) == found.actions
    assert (found.dropped, found.optimism, found.rule, found.likelihood) == (
        *(0, 0.0, "soft", "actions"),
    )
    assert found.by_group.to_markdown().count("\n") == 9
    low, high = found.intervals(0.5)["left"]
    assert abs((high - low) / 2 / found.std_errors["left"] - 0.6745) < 1e-4
    assert found.reward.weights == found.weights
    with pytest.raises(ValueError, match="expected the label of a group"):
        found["driver 7"]
    pytest.importorskip("pandas")
    frame = found.to_dataframe()
    assert len(frame) == 21
    assert [*frame.loc[0, ["group", "feature"]]] == ["driver 0", "minutes"]
    assert frame.loc[0, "weight"] == found["driver 0"].weights["minutes"]


def test_an_interrupted_em_goes_on_from_its_file(driven, tmp_path, monkeypatch):
    streets, trips, labels, found = driven
    given = {"groups": labels, "checkpoint": tmp_path / "drivers.pt", "progress": False}
    own = Population.step

    def twice(self):
        if self.done == 2:
            raise KeyboardInterrupt
        own(self)

    with monkeypatch.context() as patched:
        patched.setattr(Population, "step", twice)
        part = inference.reward_posterior(streets, trips, NAMES, **given)
    assert part.steps == 2
    assert not part.converged
    assert "Not converged: it was interrupted" in str(part)
    assert part.group_weights.isfinite().all()
    again = inference.reward_posterior(streets, trips, NAMES, **given)
    assert torch.equal(again.group_weights, found.group_weights)
    assert torch.equal(again.history, found.history)
    with pytest.raises(ValueError, match="expected a run with"):
        inference.reward_posterior(streets, trips[:100], NAMES, **given)


def test_a_weight_that_no_one_determines_is_refused():
    table, seen, reward = lotteries(agents(5), 20)
    both = dataclasses.replace(reward, features={**reward.features, "same": torch.ones(1, 3)})
    with pytest.raises(ValueError, match="same, which the data do not determine"):
        inference.reward_posterior(table, seen, both, groups=True)
    normal = torch.distributions.Normal(0.0, 3.0)  # of the mean, not of how far they are apart
    with pytest.raises(ValueError, match=r"demonstrations: .* got none on same"):
        inference.reward_posterior(table, seen, both, normal, groups=True)
    prior = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 2.0)
    found = inference.reward_posterior(table, seen, reward, prior, groups=True, progress=False)
    flat = inference.reward_posterior(table, seen, reward, groups=True, progress=False)
    assert 0 < found.weights["pays"] < flat.weights["pays"]
    half = torch.distributions.HalfNormal(1.0)
    with pytest.raises(ValueError, match="prior: expected a density on all real numbers"):
        inference.reward_posterior(table, seen, reward, half, groups=True)
    with pytest.raises(ValueError, match="groups: expected at least two demonstrators"):
        inference.reward_posterior(table, seen[:20], reward, groups=True)
