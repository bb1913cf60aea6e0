"""Draws of the weights of a reward against fine grids, and what is said of their quality."""

import dataclasses
import json

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from demonstrated import every_path, of_all_ends, random_case
from towns import NAMES, town, walks

import cai
from cai import inference, models
from cai.inference.bayesian import _chains, _guided_draws, _laplace
from cai.inference.inverse.tasks import task_of
from cai.inference.particles.draw_summaries import weighted_quantiles
from cai.tables.state_rewards import state_rewards

SIZES = {"importance": 800, "nuts": 120, "svi": 400}


def normal(scale=1.5):
    return torch.distributions.Normal(torch.zeros((), dtype=torch.float64), scale)


def choices(k=1, n=40, rises=None, seed=0):
    """One choice among three tickets, n times, and a reward with k features of them."""
    rng = np.random.default_rng(seed)
    f = torch.from_numpy(rng.normal(size=(k, 1, 3)))
    model = models.tabular(np.ones((1, 3, 1)), np.zeros((1, 3)), horizon=1)
    actions = rng.choice(3, size=(n, 1), p=[0.2, 0.5, 0.3]) if rises is None else rises
    seen = cai.Demonstrations.from_paths(np.zeros((len(actions), 2), int), actions)
    reward = cai.LinearReward({f"f{i}": f[i] for i in range(k)})

    def log_likelihood(weights):  # (..., k)
        log_p = torch.einsum("...k,ka->...a", weights, f[:, 0]).log_softmax(-1)
        return sum(log_p[..., a] for a in np.asarray(actions).ravel().tolist())

    return cai.tabulate(model), seen, reward, log_likelihood


def on_grid(log_density, k, low=-6.0, high=6.0, points=601):
    """Means, standard deviations and quantile functions of each weight, by a fine grid."""
    axis = torch.linspace(low, high, points, dtype=torch.float64)
    places = torch.cartesian_prod(*[axis] * k).reshape(-1, k)
    share = log_density(places).softmax(0)
    mean = share @ places
    return mean, (share @ (places - mean).square()).sqrt(), places, share


@pytest.mark.parametrize(
    ("method", "k"), [("importance", 1), ("importance", 2), ("nuts", 2), ("svi", 1)]
)
def test_draws_are_those_of_a_fine_grid(method, k):
    table, seen, reward, log_likelihood = choices(k)
    prior = normal()

    def log_density(weights):
        return log_likelihood(weights) + prior.log_prob(weights).sum(-1)

    mean, sd, places, share = on_grid(log_density, k, points=601 if k == 1 else 241)
    n = SIZES[method]
    found = inference.reward_posterior(
        table, seen, reward, prior, method=method, samples=n, warmup=40, progress=False
    )
    size = found.effective_sample_size
    assert size > (0.85 * n if method != "nuts" else 30)
    got = torch.tensor([*found.weights.values()], dtype=torch.float64)
    assert ((got - mean).abs() < 4 * sd / size**0.5).all()
    spread = torch.tensor([*found.std_devs.values()], dtype=torch.float64)
    assert ((spread / sd).log().abs() < 4 / (2 * size) ** 0.5).all()
    for i, ends in enumerate(found.intervals(0.8).values()):
        for end, p in zip(ends, (0.1, 0.9), strict=True):
            below = float(share[places[:, i] < end].sum())
            assert abs(below - p) < 4 * (p * (1 - p) / size) ** 0.5
    assert found.reliable
    assert torch.allclose(found.covariance.diagonal().sqrt(), spread)


def test_the_mode_is_that_of_a_fit_with_the_prior():
    table, seen, reward, _ = choices(2)
    fitted = inference.fit_reward(table, seen, reward, prior=normal())
    found = inference.reward_posterior(table, seen, reward, normal(), samples=25)
    assert torch.allclose(found.mode, torch.tensor([*fitted.weights.values()]).double(), atol=1e-5)


def test_a_prior_on_half_the_line():
    table, seen, reward, log_likelihood = choices(1)
    prior = torch.distributions.HalfNormal(torch.tensor(0.7, dtype=torch.float64))

    def log_density(weights):
        return log_likelihood(weights) + prior.log_prob(weights).sum(-1)

    mean, sd, _, _ = on_grid(log_density, 1, low=1e-6)
    found = inference.reward_posterior(table, seen, reward, prior, samples=800, progress=False)
    assert (found.draws > 0).all()
    room = 4 * float(sd) / found.effective_sample_size**0.5
    assert abs(found.weights["f0"] - float(mean)) < room


@pytest.mark.parametrize("ends", [(0.0, 0.5), (0.2, 1.0), (-2.0, 0.0)])
def test_a_prior_on_an_interval_with_zero_at_its_edge_or_outside(ends):
    """Where a search from weights of zero cannot begin."""
    table, seen, reward, log_likelihood = choices(1)
    low, high = torch.tensor(ends, dtype=torch.float64)
    prior = torch.distributions.Uniform(low, high)
    grid = torch.linspace(*ends, 4001, dtype=torch.float64)[1:-1]
    p = log_likelihood(grid.unsqueeze(1)).softmax(0)
    mean = float(p @ grid)
    sd = float(p @ (grid - mean) ** 2) ** 0.5
    found = inference.reward_posterior(table, seen, reward, prior, samples=800, progress=False)
    assert ((found.draws >= low) & (found.draws <= high)).all()
    assert abs(found.weights["f0"] - mean) < 4 * sd / found.effective_sample_size**0.5


@pytest.mark.parametrize("toward", [-1, 1])
@pytest.mark.parametrize(
    ("prior", "ends"),
    [
        (torch.distributions.HalfNormal(torch.tensor(0.7).double()), (0.0, 4.0)),
        (torch.distributions.HalfNormal(torch.tensor(0.02).double()), (0.0, 0.2)),
        (torch.distributions.Uniform(*torch.tensor([4.0, 8.0]).double()), (4.0, 8.0)),
    ],
    ids=["half", "narrow", "interval"],
)
def test_a_prior_that_the_data_press_against(prior, ends, toward):
    """300 choices of one ticket, but for two; the density may fall like that of an exponential.

    Of importance draws, in coordinates in which that is not steep, more than half count; fewer
    where the prior is the one that cuts off.
    """
    table, seen, reward, log_likelihood = choices(1, rises=[[0]] * 298 + [[1], [2]])
    up = log_likelihood(torch.tensor([[1.0], [-1.0]]).double()).argmax() == 0
    sign = toward if up else -toward
    reward = cai.LinearReward({"f0": sign * reward.features["f0"]})
    grid = torch.linspace(*ends, 20_001, dtype=torch.float64)[1:-1]
    p = (log_likelihood(sign * grid.unsqueeze(1)) + prior.log_prob(grid)).softmax(0)
    mean = float(p @ grid)
    sd = float(p @ (grid - mean) ** 2) ** 0.5
    found = inference.reward_posterior(table, seen, reward, prior, samples=800, progress=False)
    assert abs(found.weights["f0"] - mean) < 4 * sd / found.effective_sample_size**0.5
    assert found.std_devs["f0"] == pytest.approx(sd, rel=0.2)
    assert found.effective_sample_size > (140 if ends == (0.0, 0.2) else 400)


def test_trips_on_a_network():
    """Two weights, by a grid around the mode, with the likelihood of Routes."""
    streets, names = town(), NAMES[:2]
    trips, prior = walks(streets, 25), normal(3.0)
    found = inference.reward_posterior(streets, trips, names, prior, progress=False)
    sd = torch.tensor([*found.std_devs.values()], dtype=torch.float64)
    steps = torch.linspace(-5, 5, 17, dtype=torch.float64)
    places = found.mode + torch.cartesian_prod(steps, steps) * sd
    density, goals = [], trips.goals.unique()
    for x in places:
        try:
            values = inference.Routes(streets, tuple(names), x, goals).log_probability(trips)
            density.append(float(values.sum() + prior.log_prob(x).sum()))
        except ValueError:  # going round and round gains
            density.append(-torch.inf)
    share = torch.tensor(density, dtype=torch.float64).softmax(0)
    mean = share @ places
    got = torch.tensor([*found.weights.values()], dtype=torch.float64)
    assert ((got - mean).abs() < 4 * sd / found.effective_sample_size**0.5).all()
    assert ((share @ (places - mean).square()).sqrt() / sd).log().abs().max() < 0.2
    assert found.demonstrations == 25
    assert "Posterior of utilities" in str(found)
    with pytest.raises(ValueError, match="model: expected one with states and actions"):
        found.reward_map()


def test_many_weights_at_once_are_scored_as_one_by_one():
    for by_step in (False, True):
        for discount in (1.0, 0.9):
            _, table, reward, weights = random_case(5, discount=discount, by_step=by_step)
            seen = of_all_ends(table)[::9]
            many = torch.stack([weights, -weights, 0 * weights])
            for how in (("actions", 0.0, "soft"), ("actions", 0.7, "boltzmann")):
                task = task_of(table, seen, reward, how[1], how[2], how[0], "error", None)
                alone = torch.stack([task.total(x) for x in many])
                assert torch.allclose(task.totals(many), alone, rtol=1e-10)
                assert torch.allclose(alone, torch.stack([task.gradient(x)[0] for x in many]))
            assert task_of(table, seen, reward, 1.0, "soft", "paths", "error", None).totals(
                many
            ).shape == (3,)


def test_a_separated_weight_with_a_wide_prior_is_said_to_be_unreliable():
    """The best ticket, ten times: weights up to the width of the prior are all as good."""
    best = int(choices(1)[2].features["f0"].argmax())
    table, seen, reward, _ = choices(1, rises=np.full((10, 1), best))
    wide = inference.reward_posterior(table, seen, reward, normal(100.0), progress=False)
    assert wide.pareto_k > inference.pareto_threshold(400)
    assert not wide.reliable
    assert "Not reliable: k̂ is above 0.62" in str(wide)
    assert 'method="nuts"' in str(wide)
    narrow = inference.reward_posterior(table, seen, reward, normal(1.0), progress=False)
    assert narrow.reliable
    assert "Not reliable" not in str(narrow)


def test_without_a_proper_prior_what_is_open_is_refused_by_name():
    table, seen, reward, log_likelihood = choices(1)
    twice = cai.LinearReward({**reward.features, "again": 2 * reward.features["f0"]})
    for prior in (None, cai.FlatPrior(2)):
        with pytest.raises(ValueError, match=r"prior: .*f0.* which the data do not determine"):
            inference.reward_posterior(table, seen, twice, prior)
    best = int(reward.features["f0"].argmax())
    alike = cai.Demonstrations.from_paths(np.zeros((10, 2), int), np.full((10, 1), best))
    with pytest.raises(ValueError, match=r"prior: .*f0, whose likelihood grows for ever"):
        inference.reward_posterior(table, alike, reward)
    # where the data determine all, a flat prior is as good as any
    found = inference.reward_posterior(table, seen, reward, samples=800, progress=False)
    mean, sd, _, _ = on_grid(log_likelihood, 1)
    assert abs(found.weights["f0"] - float(mean)) < 4 * float(sd) / 750**0.5


def test_the_same_seed_gives_the_same_draws_and_leaves_the_generator_alone():
    table, seen, reward, _ = choices(1)
    before = torch.get_rng_state()
    for method, samples in (("importance", 40), ("nuts", 8)):
        given = {"method": method, "samples": samples, "warmup": 3, "progress": False}
        one, same, other = (
            inference.reward_posterior(table, seen, reward, normal(), seed=seed, **given)
            for seed in (1, 1, 2)
        )
        assert torch.equal(one.draws, same.draws)
        assert not torch.equal(one.draws, other.draws)
    assert torch.equal(before, torch.get_rng_state())


class Stop:
    """Raises KeyboardInterrupt at a call."""

    def __init__(self, function, after):
        self.function, self.left = function, after

    def __call__(self, *given):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.function(*given)


def test_an_interrupt_gives_the_draws_so_far(monkeypatch):
    table, seen, reward, _ = choices(1)
    own = _laplace.Laplace.log_densities
    stop = Stop(own, 3)
    monkeypatch.setattr(_laplace.Laplace, "log_densities", lambda self, z: stop(self, z))
    found = inference.reward_posterior(table, seen, reward, normal(), progress=False)
    assert len(found.draws) == 150
    assert "interrupted after 150 of 400 draws" in str(found)


def test_chains_go_on_from_a_file_as_if_nothing_had_happened(monkeypatch, tmp_path):
    table, seen, reward, _ = choices(1)
    given = {"method": "nuts", "samples": 20, "warmup": 6, "progress": False}
    whole = inference.reward_posterior(table, seen, reward, normal(), **given)
    own = _chains.Chains.step
    for at in (4, 12, 20, 26):  # in the warm-ups and in the draws of both chains
        file = tmp_path / f"{at}.pt"
        stop = Stop(own, at)
        with monkeypatch.context() as patched:
            patched.setattr(_chains.Chains, "step", lambda self, stop=stop: stop(self))
            try:
                part = inference.reward_posterior(
                    table, seen, reward, normal(), **given, checkpoint=file
                )
                assert len(part.draws) in (6, 10)
                assert "It was interrupted" in str(part)
            except KeyboardInterrupt:
                assert at < 10
        again = inference.reward_posterior(table, seen, reward, normal(), **given, checkpoint=file)
        assert torch.equal(again.draws, whole.draws)
        assert again.divergences == whole.divergences
    with pytest.raises(ValueError, match=r"checkpoint .*expected a run with samples"):
        inference.reward_posterior(
            table, seen, reward, normal(), **(given | {"samples": 40}), checkpoint=file
        )


def test_a_guide_goes_on_from_a_file_as_if_nothing_had_happened(monkeypatch, tmp_path):
    table, seen, reward, _ = choices(2)
    given = {"method": "svi", "samples": 120, "progress": False}
    whole = inference.reward_posterior(table, seen, reward, normal(), **given)
    own = _guided_draws.GuidedDraws.step
    for at in (120, 151):  # in the training of the guide, and in the draws around it
        file = tmp_path / f"{at}.pt"
        stop = Stop(own, at)
        with monkeypatch.context() as patched:
            patched.setattr(_guided_draws.GuidedDraws, "step", lambda self, stop=stop: stop(self))
            if at < 150:
                with pytest.raises(KeyboardInterrupt):
                    inference.reward_posterior(
                        table, seen, reward, normal(), **given, checkpoint=file
                    )
            else:
                part = inference.reward_posterior(
                    table, seen, reward, normal(), **given, checkpoint=file
                )
                assert 0 < len(part.draws) < 120
                assert "It was interrupted" in str(part)
        again = inference.reward_posterior(table, seen, reward, normal(), **given, checkpoint=file)
        assert torch.equal(again.draws, whole.draws)
        assert torch.equal(again.log_weights, whole.log_weights)


def test_chains_that_disagree_are_said_to():
    table, seen, reward, _ = choices(1)
    given = {"method": "nuts", "samples": 8, "warmup": 2, "progress": False}
    found = inference.reward_posterior(table, seen, reward, normal(), **given)
    assert (found.chains, found.pareto_k) == (2, None)
    assert len(found.draws) == len(found.log_weights) == 8
    apart = torch.arange(8).double().unsqueeze(1)
    apart[:4] -= 100
    split = dataclasses.replace(found, draws=apart)
    assert split.r_hat > 1.05
    assert not split.reliable
    assert "Not reliable: chains do not agree" in str(split)
    stuck = dataclasses.replace(found, draws=torch.zeros(8, 1).double())
    assert stuck.r_hat == torch.inf
    assert stuck.effective_sample_size == 2


def test_what_each_state_pays_is_that_of_the_draws():
    _, table, reward, _ = random_case(3)
    seen = every_path(table, 3)[::5]
    found = inference.reward_posterior(table, seen, reward, normal(), samples=50, progress=False)
    features, share = reward.on(table), found.log_weights.softmax(0)
    each = [features.rewards(table, draw) for draw in found.draws]
    pays = torch.stack([state_rewards(x) for x in each])
    mean = share @ pays
    maps = found.reward_map()
    assert torch.allclose(maps["posterior mean"], mean)
    spread = (share @ (pays - mean).square()).sqrt()
    assert torch.allclose(maps["standard deviation"], spread)
    for paid, x in zip(found.rewards(), each, strict=True):
        on_arrival = (table.log_dynamics.exp() * x.arrival_reward).sum(-1)
        assert torch.allclose(paid, x.reward + on_arrival)
    held = found.reward.on(table).rewards(table, torch.tensor([*found.weights.values()]).double())
    assert torch.allclose(found.model.reward, held.reward)


def test_weighted_quantiles_are_those_of_repeated_draws():
    rng = np.random.default_rng(0)
    draws = torch.from_numpy(rng.normal(size=(7, 2)))
    times = torch.tensor([1, 3, 2, 1, 1, 4, 2])
    whole = draws.repeat_interleave(times, 0).sort(0).values
    middles = weighted_quantiles(draws, torch.full((7,), 1 / 7).double(), 0.5)
    assert torch.allclose(middles, draws.median(0).values)
    for p in (0.1, 0.37, 0.8):
        x = weighted_quantiles(draws, times / times.sum(), p)
        below = (whole <= x + 1e-12).double().mean(0)
        over = (whole >= x - 1e-12).double().mean(0)
        most = times.max() / times.sum()
        assert (below >= p - most).all()
        assert (over >= 1 - p - most).all()


def test_the_table_and_what_it_exports():
    _, table, reward, _ = random_case(3)
    seen = of_all_ends(table)[::5]
    found = inference.reward_posterior(table, seen, reward, normal(), progress=False)
    lines = str(found).splitlines()
    assert lines[0].startswith("Posterior of the reward by likelihood of actions, optimism 0:")
    assert [line.split()[0] for line in lines[3:6]] == list(found.weights)
    kept = json.loads(found.to_json())
    assert kept["weights"]["f0"]["mean"] == found.weights["f0"]
    assert kept["weights"]["f0"]["mode"] == float(found.mode[0])
    assert kept["demonstrations"] == len(seen) == found.demonstrations
    assert kept["actions"] == int(seen.lengths.sum()) == found.actions
    assert (found.chains, found.divergences, found.r_hat, found.dropped) == (0, 0, None, 0)
    assert (found.method, found.optimism, found.rule) == ("importance", 0.0, "soft")
    assert found.likelihood == "actions"
    assert found.remarks == ()
    assert "<table>" in found._repr_html_()
    pytest.importorskip("pandas")
    frame = found.to_dataframe()
    assert list(frame.index) == list(found.weights)
    assert [*frame["mean"]] == [*found.weights.values()]
    assert [*frame["std_dev"]] == [*found.std_devs.values()]
    assert list(zip(frame["low"], frame["high"], strict=True)) == [*found.intervals().values()]


def test_impossible_demonstrations_are_dropped_or_refused():
    _, table, reward, _ = random_case(3)
    forbidden = table.holding(
        log_prior=torch.where(torch.arange(2) == 0, 0.0, -torch.inf)
        .expand(table.num_states, 2)
        .double(),
        program=None,
    )
    seen = every_path(table, 3)[::5]
    with pytest.raises(ValueError, match="demonstration"):
        inference.reward_posterior(forbidden, seen, reward, normal())
    found = inference.reward_posterior(
        forbidden, seen, reward, normal(), samples=25, on_impossible="drop"
    )
    assert found.dropped == len(seen) - found.demonstrations > 0
    assert "impossible demonstrations were left out" in str(found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "gibbs"}, 'method: expected "importance", "nuts" or "svi"'),
        ({"samples": 10}, "samples: expected at least 25"),
        ({"samples": 4, "method": "nuts"}, "samples: expected at least 8"),
        ({"samples": 101, "method": "nuts"}, "samples: expected as many for each chain"),
        ({"likelihood": "matching"}, 'likelihood: expected "actions" or "paths"'),
        ({"seed": 0.5}, "seed: expected a whole number"),
        ({"groups": True}, "groups: expected demonstrations with groups"),
        ({"groups": True, "method": "nuts"}, 'method: expected "importance" with groups'),
        ({"groups": [["a"], "b"]}, r"groups: expected labels such as texts.*\['a'\]"),
        ({"prior": torch.distributions.Dirichlet(torch.ones(1))}, "prior: expected a density"),
        ({"prior": dist.Delta(torch.tensor(1.0))}, r"prior: expected .*, got none at \[0.0\]"),
    ],
)
def test_what_it_does_not_take(options, words):
    table, seen, reward, _ = choices(1)
    if isinstance(options.get("groups"), list):
        seen = dataclasses.replace(seen, groups=("a", "b") * 20)
    with pytest.raises(ValueError, match=words):
        inference.reward_posterior(table, seen, reward, **({"prior": normal()} | options))
