"""Penalties that set weights to zero, slow ascent, files to go on from, and a data frame."""

import sys

import numpy as np
import oracles
import pytest
import torch
from demonstrated import features_of
from scipy.optimize import minimize
from test_trained_rewards import Net, Weights
from torch import nn
from towns import NAMES, simulated, town, trips_of

import cai
from cai import inference, models
from cai.inference.inverse._objective import Objective
from cai.inference.inverse._scores import Likelihoods
from cai.inference.scoring.soft_thresholding import thresholded_step, violation


def case(seed=2, n=80, k=5, S=4):
    """A problem with k features, of which two are rewarded, as demonstrations show."""
    model = oracles.random_problem(seed, S=S, A=3, T=4, zeros=0.0, forbidden=0.0).model()
    reward = features_of(seed, S, 3, k)
    weights = torch.zeros(k, dtype=torch.float64)
    weights[:2] = torch.tensor([0.8, -0.6])
    expert = reward.weighted(weights).given_to(model)
    paths = model.simulate(inference.soft_values(expert).policy, n, seed=1)
    return model, cai.Demonstrations.from_trajectories(paths), reward


def off_by(fitted):
    """How far a fit is from |gradient| ≤ penalty, = where the weight is not zero."""
    gradient = fitted.scores.sum(0)
    weights = torch.tensor(list(fitted.weights.values()), dtype=torch.float64)
    penalty = torch.tensor(list(fitted.penalties.values()), dtype=torch.float64)
    slack = torch.where(weights == 0, (gradient.abs() - penalty).clamp(min=0), 0.0)
    tight = torch.where(weights != 0, (gradient - penalty * weights.sign()).abs(), 0.0)
    return float((slack + tight).max()), int((weights == 0).sum())


@pytest.mark.parametrize(
    ("likelihood", "eta"), [("actions", 0.0), ("actions", 1.0), ("paths", 1.0), ("matching", 0.0)]
)
@pytest.mark.parametrize("seed", [2, 3])
def test_the_gradient_is_what_the_penalty_allows(likelihood, eta, seed):
    model, seen, reward = case(seed)
    zeros, options = [], {"likelihood": likelihood, "optimism": eta, "start": [0.0] * 5}
    for l1 in (0.5, 10.0, 1e4):
        found = inference.fit_reward(model, seen, reward, l1=l1, **options)
        assert found.converged, found.reason
        off, zero = off_by(found)
        assert off < 1e-7 * max(found.penalties.values())
        zeros.append(zero)
    assert zeros[0] < zeros[-1]
    assert zeros[-1] == 5


def test_the_same_maximum_by_a_quadratic_programme_and_in_any_unit():
    """With weights split into positive parts the penalty is linear: SciPy finds the same."""
    model, seen, reward = case()
    found = inference.fit_reward(model, seen, reward, l1=5.0, likelihood="matching")
    penalty = np.array(list(found.penalties.values()))
    table = cai.tabulate(model)
    from_scores = inference.fit_reward(
        model, seen, reward, likelihood="matching", start=list(found.weights.values()), steps=1
    )
    assert from_scores.evaluations <= 3

    def loss(parts):
        up, down = np.split(parts, 2)
        psi = torch.from_numpy(up - down).requires_grad_()
        objective = matched(table, reward, seen, psi)
        (slope,) = torch.autograd.grad(objective, psi)
        slope = slope.numpy()
        value = -objective.item() + penalty @ (up + down)
        return value, np.concatenate([penalty - slope, penalty + slope])

    bounds = [(0, None)] * 10
    other = minimize(loss, np.full(10, 0.1), jac=True, bounds=bounds, options={"gtol": 1e-8})
    up, down = np.split(other.x, 2)
    assert list(found.weights.values()) == pytest.approx((up - down).tolist(), abs=1e-4)
    # Minutes or seconds: the same weights are zero.
    scaled = {name: 60 * f for name, f in reward.features.items()}
    minutes = cai.LinearReward(scaled, arrival=reward.arrival, offset=reward.offset)
    again = inference.fit_reward(model, seen, minutes, l1=5.0, likelihood="matching")
    for name in reward.features:
        assert 60 * again.weights[name] == pytest.approx(found.weights[name], abs=1e-6)


def matched(table, reward, seen, psi):
    """Ziebart's dual, differentiable."""
    paid = reward.on(table).rewards(table, psi)
    V = inference.differentiable_values(paid)
    s, a, after = seen.states[:, :-1], seen.actions, seen.states[:, 1:]
    R = (paid.reward[s, a] + paid.arrival_reward[s, a, after]).sum() / table.temperature
    return R - V[0][seen.states[:, 0]].sum() / table.temperature


def test_a_penalty_leaves_no_errors_and_says_so():
    model, seen, reward = case()
    found = inference.fit_reward(model, seen, reward, l1=15.0)
    assert found.errors == "none"
    assert found.covariance.isnan().all()
    assert "no errors, since a penalty pulls weights to zero" in str(found)
    assert set(found.penalties) == set(reward.names)
    left = sum(x != 0 for x in found.weights.values())
    assert found.aic == pytest.approx(2 * (left - found.log_likelihood))
    assert inference.fit_reward(model, seen, reward).penalties == {}
    # A prior adds to it.
    prior = torch.distributions.Normal(*torch.tensor([0.0, 0.1], dtype=torch.float64))
    both = inference.fit_reward(model, seen, reward, l1=1.0, prior=prior)
    assert both.converged
    weights = torch.tensor(list(both.weights.values()), dtype=torch.float64)
    penalty = torch.tensor(list(both.penalties.values()), dtype=torch.float64)
    assert violation(both.scores.sum(0) - weights / 0.01, weights, penalty) < 1e-7


def never_walking():
    """Demonstrations in which one action never occurs, so that its weight has no maximum."""
    stay_or_go = torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)
    model = models.tabular(stay_or_go, torch.zeros(2, 2), horizon=4)
    stays = cai.Demonstrations.from_paths([[0] * 5] * 20, [[0] * 4] * 20)
    return model, stays, cai.LinearReward({"walks": lambda s, a: a == 1})


def test_a_penalty_keeps_weights_finite():
    found = inference.fit_reward(*never_walking(), l1=1.0)
    assert found.converged
    assert not found.separated
    assert -10 < found.weights["walks"] < 0


def test_routes_with_a_penalty():
    streets, weights = town(0), torch.tensor([-1.5, -0.3, -1.0], dtype=torch.float64)
    trips = trips_of(streets, simulated(streets, weights, 40, 0))
    found = inference.fit_reward(streets, trips, NAMES, l1=4.0)
    assert found.converged
    assert off_by(found)[0] < 1e-7 * max(found.penalties.values())


def test_routes_slowly_and_from_a_file(tmp_path):
    streets, weights = town(0), torch.tensor([-1.5, -0.3, -1.0], dtype=torch.float64)
    trips = trips_of(streets, simulated(streets, weights, 40, 0))
    best = inference.fit_reward(streets, trips, NAMES)
    slow = inference.fit_reward(streets, trips, NAMES, method="exponentiated", steps=100)
    assert best.log_likelihood - 0.5 < slow.log_likelihood <= best.log_likelihood + 1e-9
    path = tmp_path / "trips.pt"
    inference.fit_reward(streets, trips, NAMES, steps=1, checkpoint=path)
    found = inference.fit_reward(streets, trips, NAMES, checkpoint=path)
    assert found.evaluations < best.evaluations
    assert found.log_likelihood == pytest.approx(best.log_likelihood, abs=1e-9)
    with pytest.raises(ValueError, match="with features = "):
        inference.fit_reward(streets, trips, NAMES[:2], checkpoint=path)
    with pytest.raises(ValueError, match="method: expected another one on a road network"):
        inference.fit_reward(streets, trips, NAMES, method="lbfgs")


@pytest.mark.parametrize("seed", range(4))
def test_a_step_maximises_the_quadratic_less_the_penalty(seed):
    rng = np.random.default_rng(seed)
    root = torch.from_numpy(rng.normal(size=(6, 6)))
    H, g = root @ root.T, torch.from_numpy(rng.normal(size=6))
    w = torch.from_numpy(rng.normal(size=6)) * (torch.arange(6) % 2)
    p = torch.from_numpy(rng.uniform(0.2, 1.5, size=6))
    d = thresholded_step(H, g, w, p)
    assert violation(g - H @ d, w + d, p) < 1e-9
    flat = thresholded_step(torch.zeros(6, 6).double(), torch.zeros(6).double(), w, p)
    torch.testing.assert_close(w + flat, torch.zeros(6).double())


@pytest.mark.parametrize(("likelihood", "eta"), [("paths", 1.0), ("actions", 0.0)])
def test_exponentiated_gradient_comes_near_the_same_optimum(likelihood, eta):
    model, seen, reward = case(k=3)
    options = {"likelihood": likelihood, "optimism": eta}
    best = inference.fit_reward(model, seen, reward, **options)
    slow = inference.fit_reward(model, seen, reward, method="exponentiated", steps=150, **options)
    assert best.log_likelihood - 0.5 < slow.log_likelihood <= best.log_likelihood + 1e-9
    assert not slow.converged
    assert slow.evaluations > 150
    few = inference.fit_reward(model, seen, reward, method="exponentiated", steps=5, **options)
    assert few.log_likelihood < slow.log_likelihood
    for method in ("exponentiated", "lbfgs"):
        with pytest.raises(ValueError, match=f'l1: expected 0 for method="{method}"'):
            inference.fit_reward(model, seen, reward, method=method, l1=1.0)


@pytest.mark.parametrize(
    ("likelihood", "eta"), [("actions", 0.0), ("paths", 1.0), ("matching", 0.0)]
)
@pytest.mark.parametrize("prior", [None, torch.distributions.Normal(0.0, 0.5)])
def test_weights_by_lbfgs_have_the_same_errors(likelihood, eta, prior):
    model, seen, reward = case()
    more = {**reward.features, "all": torch.ones(4, 3)}
    reward = cai.LinearReward(more, arrival=reward.arrival, offset=reward.offset)
    options = {"likelihood": likelihood, "optimism": eta, "prior": prior}
    best = inference.fit_reward(model, seen, reward, **options)
    found = inference.fit_reward(model, seen, reward, method="lbfgs", progress=False, **options)
    assert found.converged
    assert found.unidentified == best.unidentified
    for name, weight in best.weights.items():
        assert found.weights[name] == pytest.approx(weight, abs=2e-4)
        error = best.std_errors[name]
        assert found.std_errors[name] == pytest.approx(error, rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("method", ["lbfgs", "exponentiated"])
def test_weights_that_were_interrupted_are_the_best_and_go_on(method, tmp_path, monkeypatch):
    model, seen, reward = case(k=3)
    path, left = tmp_path / "weights.pt", [8 if method == "lbfgs" else 60]
    place = Objective if method == "lbfgs" else Likelihoods
    asked = place.__call__

    def interrupted(self, x):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return asked(self, x)

    options = {"method": method, "start": [0.0] * 3, "progress": False, "checkpoint": path}
    with monkeypatch.context() as patched:
        patched.setattr(place, "__call__", interrupted)
        first = inference.fit_reward(model, seen, reward, **options, steps=80)
    assert "interrupted" in first.reason
    assert not first.converged
    assert first.log_likelihood > first.log_likelihood_without
    found = inference.fit_reward(model, seen, reward, **options, steps=60)
    assert found.log_likelihood >= first.log_likelihood
    best = inference.fit_reward(model, seen, reward).log_likelihood
    if method == "lbfgs":
        assert found.log_likelihood == pytest.approx(best, abs=1e-6)


class Killed(Exception):
    """The process ends."""


class Mortal(nn.Module):
    """A reward that ends the process when it is asked for the n-th time."""

    asked, last = 0, None

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *at):
        Mortal.asked += 1
        if Mortal.asked == Mortal.last:
            raise Killed
        return self.inner(*at)


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_training_goes_on_bit_for_bit_after_it_was_killed(method, tmp_path, monkeypatch):
    model, seen, _ = case()
    training = inference.RewardTraining(batch=10, rate=0.05, patience=1000)
    torch.manual_seed(0)
    net = Net(4, 3)
    options = {"method": method, "progress": False, "steps": 45 if method == "adam" else 12}
    if method == "adam":
        options["training"] = training
    # The library restates what a module raises.
    monkeypatch.setattr("cai.rewards.neural_reward.call", lambda where, module, *at: module(*at))
    Mortal.asked, Mortal.last = 0, None
    whole = inference.fit_reward(model, seen, Mortal(net), **options)
    asked, path = Mortal.asked, tmp_path / "reward.pt"
    Mortal.asked, Mortal.last = 0, 34 if method == "adam" else 11
    with pytest.raises(Killed):
        inference.fit_reward(model, seen, Mortal(net), checkpoint=path, **options)
    assert path.exists()
    Mortal.last = None
    before = Mortal.asked
    found = inference.fit_reward(model, seen, Mortal(net), checkpoint=path, **options)
    assert Mortal.asked - before < asked
    assert torch.equal(found.means, whole.means)
    pairs = zip(
        found.reward.module.inner.parameters(), whole.reward.module.inner.parameters(), strict=True
    )
    for mine, its in pairs:
        assert torch.equal(mine, its)
    # Once more: nothing is left to do, unless there may be more steps.
    again = inference.fit_reward(model, seen, Mortal(net), checkpoint=path, **options)
    assert torch.equal(again.means, whole.means)
    assert again.reason == f"{options['steps']} steps were not enough"
    longer = options | {"steps": options["steps"] + 3}
    more = inference.fit_reward(model, seen, Mortal(net), checkpoint=path, **longer)
    assert torch.equal(more.means, inference.fit_reward(model, seen, net, **longer).means)


def test_scoring_goes_on_from_the_best_weights(tmp_path):
    model, seen, reward = case()
    constant = {**reward.features, "all": torch.ones(4, 3)}
    reward = cai.LinearReward(constant, arrival=reward.arrival, offset=reward.offset)
    path = tmp_path / "weights.pt"
    inference.fit_reward(model, seen, reward, steps=2, checkpoint=path)
    whole = inference.fit_reward(model, seen, reward)
    found = inference.fit_reward(model, seen, reward, checkpoint=path)
    assert found.converged
    assert found.evaluations < whole.evaluations
    assert found.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-9)
    assert found.unidentified == whole.unidentified == ({"all": 1.0},)
    again = inference.fit_reward(model, seen, reward, checkpoint=path)
    assert again.steps == 0
    assert again.unidentified == whole.unidentified


def test_what_has_no_maximum_is_still_told_from_what_is_not_identified(tmp_path):
    """Near its end the likelihood is as flat in both; at the beginning it was not."""
    for _ in range(2):
        found = inference.fit_reward(*never_walking(), checkpoint=tmp_path / "far.pt")
        assert found.separated == ({"walks": 1.0},)
        assert found.unidentified == ()


def test_a_file_of_something_else_is_refused(tmp_path):
    model, seen, reward = case()
    path, weights = tmp_path / "table.pt", tmp_path / "weights.pt"
    free = {"progress": False, "steps": 2}
    inference.fit_reward(model, seen, cai.TabularReward(), checkpoint=path, **free)
    inference.fit_reward(model, seen, reward, checkpoint=weights)
    other = oracles.random_problem(7, S=4, A=3, T=4, zeros=0.0, forbidden=0.0).model()
    doubled = cai.LinearReward({n: 2 * f for n, f in reward.features.items()}, reward.arrival)

    def refused(message, *arguments, **options):
        with pytest.raises(ValueError, match=message):
            inference.fit_reward(*arguments, **options)

    table = cai.TabularReward()
    refused("with demonstrations = ", model, seen[:9], table, checkpoint=path, **free)
    refused("with dynamics = ", other, seen, table, checkpoint=path, **free)
    refused("with eta = 1", model, seen, table, optimism=1.0, checkpoint=path, **free)
    refused("with method = adam", model, seen, table, method="adam", checkpoint=path, **free)
    refused("with reward = ", model, seen, cai.TabularReward("state"), checkpoint=path, **free)
    normal = torch.distributions.Normal(0.0, 1.0)
    refused("with prior = ", model, seen, table, prior=normal, checkpoint=path, **free)
    refused("with features = ", model, seen, doubled, checkpoint=weights)
    refused("with penalty = ", model, seen, reward, l1=1.0, checkpoint=weights)
    path.write_bytes(path.read_bytes()[:200])
    refused("a file that fit_reward wrote", model, seen, table, checkpoint=path, **free)
    refused("checkpoint: expected the path", model, seen, table, checkpoint=3, **free)


def test_a_frame_where_pandas_is_there_and_a_message_where_it_is_not(monkeypatch):
    model, seen, reward = case(n=10)
    found = inference.fit_reward(model, seen, reward)
    pytest.importorskip("pandas")
    frame = found.to_dataframe()
    assert list(frame.index) == list(reward.names)
    assert list(frame) == ["weight", "std_error", "z", "low", "high"]
    assert list(frame["weight"]) == list(found.weights.values())
    assert list(frame["high"]) == [high for _, high in found.intervals().values()]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="to_dataframe: expected pandas to be installed"):
        found.to_dataframe()


def test_a_ridge_of_all_parameters():
    """By a normal prior: the gradient of the likelihood is the parameter over the variance."""
    model, seen, reward = case()
    module = cai.NeuralReward(Weights(reward.features.values()), offset=reward.offset)
    prior = torch.distributions.Normal(0.0, 0.2)
    found = inference.fit_reward(model, seen, module, prior=prior, method="lbfgs", progress=False)
    table = cai.tabulate(model)
    paid = cai.tabulate_rewards(found.model, table)
    values = inference.log_likelihood(paid, (seen.states[:, :-1], seen.actions))
    psi = found.reward.module.psi
    (slope,) = torch.autograd.grad(values.sum(), psi)
    torch.testing.assert_close(slope, psi.detach() / 0.04, rtol=0, atol=1e-3)
    training = inference.RewardTraining(held_out=0.0, rate=0.02)
    options = {"prior": prior, "training": training, "steps": 150, "progress": False}
    by_adam = inference.fit_reward(model, seen, module, **options).reward.module.psi
    torch.testing.assert_close(by_adam.detach(), psi.detach(), rtol=0, atol=0.02)
