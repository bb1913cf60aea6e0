"""Free tables and networks as rewards: the same maximum by another method, ends, and messages."""

import dataclasses
import json

import numpy as np
import oracles
import pytest
import torch
from demonstrated import KINDS, features_of
from torch import nn

import cai
from cai import inference, models
from cai.inference.searches.early_stopping import EarlyStopping
from cai.inference.searches.lbfgs import LBFGS
from cai.inference.searches.sought import Sought

NORMAL = torch.distributions.Normal(0.0, 1.0)


def case(n=60, seed=2, T=4):
    """A model, demonstrations of its best policy under another reward, and that reward."""
    model = oracles.random_problem(seed, S=3, A=2, T=T, zeros=0.0, forbidden=0.0).model()
    reward = features_of(seed, 3, 2)
    expert = reward.weighted([0.5, -1.0, 0.7]).given_to(model)
    paths = model.simulate(inference.soft_values(expert).policy, n, seed=1)
    return model, cai.Demonstrations.from_trajectories(paths), reward


class Weights(nn.Module):
    """A linear reward as a module, or what it pays on arrival."""

    def __init__(self, features, start=0.0):
        super().__init__()
        self.features = torch.stack([f.double() for f in features])
        self.psi = nn.Parameter(torch.full((len(features),), start, dtype=torch.float64))

    def forward(self, *at):
        at = torch.broadcast_tensors(*at)
        return torch.einsum("k,k...->...", self.psi, self.features[(slice(None), *at)])


class Net(nn.Module):
    """One hidden layer of states in one-hot form; its last layer may begin with zeros."""

    def __init__(self, S, A, zeros=False, width=8):
        super().__init__()
        self.first, self.last = nn.Embedding(S, width), nn.Linear(width, A)
        if zeros:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, s, a):
        s, a = torch.broadcast_tensors(s, a)
        found = self.last(torch.tanh(self.first(s)))
        return found.gather(-1, a.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize(("likelihood", "eta"), KINDS)
def test_a_linear_module_has_the_weights_that_scoring_finds(likelihood, eta):
    model, seen, reward = case()
    options = {"likelihood": likelihood, "optimism": eta}
    known = inference.fit_reward(model, seen, reward, start=[0.0, 0.0, 0.0], **options)
    module = Weights(reward.features.values())
    other = cai.NeuralReward(module, Weights(reward.arrival.values()), reward.offset)
    found = inference.fit_reward(model, seen, other, method="lbfgs", progress=False, **options)
    assert found.converged
    near = 1e-3 if likelihood == "matching" else 1e-6  # it maximises something else
    assert found.log_likelihood == pytest.approx(known.log_likelihood, abs=near)
    assert found.log_likelihood_without == pytest.approx(known.log_likelihood_without)
    psi = torch.cat([found.reward.module.psi, found.reward.arrival.psi]).tolist()
    assert psi == pytest.approx(list(known.weights.values()), abs=1e-4)
    assert module.psi.abs().max() == 0  # a copy was trained


@pytest.mark.parametrize("of", ["action", "state", "arrival"])
def test_a_table_with_a_prior_is_the_linear_reward_with_a_feature_for_each_number(of):
    model, seen, _ = case()
    S, A = 3, 2
    if of == "state":
        one = torch.eye(S, dtype=torch.float64).unsqueeze(-1)
        free = {f"s{i}": f for i, f in enumerate(one)}, {}
    elif of == "action":
        one = torch.eye(S * A, dtype=torch.float64).view(-1, S, A)
        free = {f"q{i}": f for i, f in enumerate(one)}, {}
    else:
        one = torch.eye(S * A * S, dtype=torch.float64).view(-1, S, A, S)
        free = {}, {f"n{i}": f for i, f in enumerate(one)}
    options = {"likelihood": "paths", "optimism": 1.0, "prior": NORMAL}
    known = inference.fit_reward(model, seen, cai.LinearReward(free[0], arrival=free[1]), **options)
    found = inference.fit_reward(model, seen, cai.TabularReward(of), progress=False, **options)
    assert found.converged
    expected = torch.tensor(list(known.weights.values()), dtype=torch.float64)
    torch.testing.assert_close(found.reward.values.flatten(), expected, rtol=0, atol=1e-4)
    assert found.log_likelihood == pytest.approx(known.log_likelihood, abs=1e-4)
    assert found.parameters == len(known.weights)
    V = inference.soft_values(found.model, 1.0).V
    torch.testing.assert_close(V, inference.soft_values(known.model, 1.0).V, rtol=0, atol=1e-3)


def corridor():
    """Five places and an exit; demonstrators who wander now and then, until they are out."""
    after = torch.tensor([[max(s - 1, 0), min(s + 1, 5)] for s in range(5)] + [[5, 5]])
    P = 0.8 * torch.eye(6)[after] + 0.2 * torch.eye(6)[after.flip(1)]
    model = models.tabular(P, torch.zeros(6, 2), horizon=None, initial=[0.5, 0.5, 0, 0, 0, 0])
    rng = np.random.default_rng(0)
    states, actions = [], []
    for _ in range(60):
        s, a = [int(rng.integers(2))], []
        while s[-1] != 5:
            a.append(int(rng.random() < 0.8))
            s.append(int(after[s[-1], a[-1] if rng.random() < 0.8 else 1 - a[-1]]))
        states.append(s)
        actions.append(a)
    return model, cai.Demonstrations.from_paths(states, actions, ends="absorbed")


@pytest.mark.parametrize(("likelihood", "eta"), [("actions", 0.0), ("paths", 1.0)])
@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_a_network_learns_from_episodes_of_varying_length(likelihood, eta, method):
    """Its last layer is zero at first: the reward must not stay there."""
    model, seen = corridor()
    assert len(set(seen.lengths.tolist())) > 5
    torch.manual_seed(0)
    options = {"likelihood": likelihood, "optimism": eta, "method": method, "progress": False}
    steps = 60 if method == "adam" else 5
    found = inference.fit_reward(model, seen, Net(6, 2, zeros=True), steps=steps, **options)
    assert found.log_likelihood > found.log_likelihood_without + 20
    assert found.means[-1] > found.means[0]
    table = cai.tabulate(found.model)
    assert table.reward[:5].abs().min() > 1e-3
    assert table.reward[5].abs().max() == 0  # where they stay for ever
    short = seen.with_ends("cut").prefix(0.5)  # of varying length as well
    other = inference.fit_reward(model, short, Net(6, 2, zeros=True), steps=steps, **options)
    assert other.log_likelihood > other.log_likelihood_without + 5


def test_horizons_of_their_own():
    model, seen, _ = case(T=6)
    short = torch.arange(len(seen)) % 6 + 1
    cut = cai.Demonstrations.from_paths(
        [s[: n + 1] for s, n in zip(seen.states.tolist(), short.tolist(), strict=True)],
        [a[:n] for a, n in zip(seen.actions.tolist(), short.tolist(), strict=True)],
        ends="own",
    )
    torch.manual_seed(0)
    found = inference.fit_reward(model, cut, Net(3, 2), steps=80, progress=False)
    assert found.log_likelihood > found.log_likelihood_without


def test_training_stops_when_those_held_out_no_longer_gain_and_returns_the_best():
    model, seen, _ = case(n=12)
    training = inference.RewardTraining(rate=0.1, held_out=0.5, patience=15, seed=3)
    torch.manual_seed(0)
    found = inference.fit_reward(model, seen, Net(3, 2), training=training, progress=False)
    assert found.converged
    assert "held-out" in found.reason
    best = int(found.held_out_means.argmax())
    assert best == pytest.approx(found.steps - 15, abs=14)
    assert found.means[-1] > found.means[best]  # it went on learning what does not last
    own = inference.log_likelihood(cai.tabulate(found.model), (seen.states[:, :-1], seen.actions))
    assert found.log_likelihood == pytest.approx(own.sum().item())
    assert found.held_out == 6
    mean = (found.means[best] + found.held_out_means[best]) / 2
    assert own.mean().item() == pytest.approx(mean.item())


def test_groups_are_held_out_together_and_batches_are_drawn_by_the_seed():
    model, seen, _ = case(n=20)
    by = [i // 5 for i in range(20)]
    seen = cai.Demonstrations.from_paths(seen.states.tolist(), seen.actions.tolist(), groups=by)
    reward = cai.TabularReward()

    def fit(**changes):
        training = inference.RewardTraining(batch=3, held_out=0.25, **changes)
        options = {"method": "adam", "training": training, "steps": 20, "progress": False}
        return inference.fit_reward(model, seen, reward, **options)

    one, again, other = fit(seed=1), fit(seed=1), fit(seed=2)
    assert one.held_out == 5
    assert torch.equal(one.reward.values, again.reward.values)
    assert not torch.equal(one.reward.values, other.reward.values)
    # Of one group at the start, where the mean is that of all its members.
    free = inference.log_likelihood(
        cai.TabularReward(values=torch.zeros(3, 2))
        .on(cai.tabulate(model))
        .rewards(cai.tabulate(model)),
        (seen.states[:, :-1], seen.actions),
    )
    of_groups = free.detach().view(4, 5).mean(1)
    assert (of_groups - one.held_out_means[0]).abs().min() < 1e-9
    whole = inference.RewardTraining(held_out=0.0)
    found = inference.fit_reward(
        model, seen[:5], reward, method="adam", training=whole, steps=5, progress=False
    )
    assert found.held_out == 0
    assert found.held_out_means.isnan().all()
    with pytest.raises(ValueError, match=r"training\.held_out: .* got one group; .*held_out=0"):
        inference.fit_reward(model, seen[:5], reward, method="adam", progress=False)


class Interrupting(Weights):
    """Interrupts a training when it is asked for the n-th time."""

    asked, last = 0, 7

    def forward(self, *at):
        Interrupting.asked += 1
        if Interrupting.asked == self.last:
            raise KeyboardInterrupt
        return super().forward(*at)


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_an_interrupt_returns_the_best_so_far(method):
    model, seen, reward = case()
    Interrupting.asked = 0
    module = Interrupting(reward.features.values())
    found = inference.fit_reward(model, seen, module, method=method, progress=False)
    assert not found.converged
    assert "interrupted" in found.reason
    assert found.log_likelihood > found.log_likelihood_without
    assert found.means.max() == found.means[-1] or method == "adam"


class One(nn.Module):
    """A number."""

    def __init__(self, x):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([x], dtype=torch.float64))


@pytest.mark.parametrize("start", [1e-3, 5.0, 0.999])
def test_lbfgs_backs_off_from_where_there_are_no_values(start):
    """log(x) + log(1 - x) beyond 0 < x < 1 for x = 1 - 1e-3 …: each first step leads outside."""
    one = One(start)

    def values():
        x = one.x
        if not 0 < float(x.detach()) < 10:
            raise ValueError("no values there")
        return 1e3 * (x.log() + (10 - x).log())

    search = LBFGS(Sought(one, values, None, torch.ones(1, dtype=torch.bool)), 100)
    while not search.over():
        search.step()
    search.restore()
    assert search.converged
    assert one.x.item() == pytest.approx(5.0, abs=1e-5)


def test_lbfgs_reaches_the_minimum_of_a_curved_valley():
    """Rosenbrock's, in 8 dimensions, from the usual start."""
    module = nn.Module()
    module.x = nn.Parameter(torch.tensor([-1.2, 1.0] * 4, dtype=torch.float64))

    def values():
        x = module.x
        return -(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    search = LBFGS(Sought(module, values, None, torch.ones(7, dtype=torch.bool)), 300)
    while not search.over():
        search.step()
    assert search.converged
    assert search.evaluations < 200
    torch.testing.assert_close(module.x.data, torch.ones(8).double(), rtol=0, atol=1e-4)


def test_adam_begins_anew_where_a_step_leads_outside():
    """Each of its first steps has the size of the rate, which is halved each time it goes back."""
    one, seen = One(0.0), []

    def values():
        seen.append(one.x.item())
        if seen[-1] > 1:
            raise ValueError("no values there")
        return one.x * (4 - one.x)

    inside = torch.ones(1, dtype=torch.bool)
    search = EarlyStopping(Sought(one, values, None, inside), 8, 0.8, None, 100)
    while not search.over():
        search.step()
    search.restore()
    assert seen[:2] == pytest.approx([0.0, 0.8])
    assert seen[2] > 1
    assert seen[3:7] == pytest.approx([0.8, 1.2, 0.8, 1.0])
    assert one.x.item() == pytest.approx(1.0)


def test_adam_ends_where_every_step_leads_outside():
    one = One(0.0)

    def values():
        if one.x.item():
            raise ValueError("no values there")
        return one.x

    search = EarlyStopping(Sought(one, values, None, torch.ones(1).bool()), 500, 0.8, None, 100)
    while not search.over():
        search.step()
    search.restore()
    assert not search.converged
    assert "every step" in search.why
    assert one.x.item() == 0


def test_adam_goes_back_where_a_step_leads_to_a_reward_without_values():
    """At optimism 1 rewards that repay a circle have no values: a large rate leads there."""
    model, seen = corridor()
    training = inference.RewardTraining(rate=8.0, held_out=0.0)
    options = {"likelihood": "paths", "optimism": 1.0, "training": training, "method": "adam"}
    found = inference.fit_reward(
        model, seen, cai.TabularReward("state"), steps=100, progress=False, **options
    )
    assert found.evaluations > found.steps  # some led nowhere
    assert found.log_likelihood > found.log_likelihood_without


def test_it_prints_exports_and_is_compared():
    model, seen, _ = case(n=20)
    found = inference.fit_reward(model, seen, Net(3, 2), steps=3, progress=False)
    text = found.to_text("ascii")
    assert "20 demonstrations, 4 of them held out, 80 actions" in text
    assert "NeuralReward with 42 parameters, by Adam: not converged after 3 steps" in text
    assert "no errors" in text
    told = json.loads(found.to_json())
    assert told["means"] == found.means.tolist()
    assert told["reason"] == "3 steps were not enough"
    table = inference.fit_reward(cai.tabulate(model), seen, cai.TabularReward(), progress=False)
    both = {"network": found, "table": table, "best": inference.soft_values(model)}
    report = cai.compare(model, both)
    own = cai.evaluate(model, table.policy).elbo
    assert report["table"].evaluation.elbo == pytest.approx(own)
    assert own < inference.soft_values(model).elbo


@pytest.mark.parametrize(
    ("reward", "options", "message"),
    [
        (cai.TabularReward(), {"cluster": "group"}, "cluster: expected a linear reward"),
        (cai.TabularReward(), {"start": [0.0]}, "start: .* parameters start where they are"),
        (cai.TabularReward(), {"l1": 1.0}, "l1: expected a linear reward"),
        (cai.TabularReward(), {"method": "scoring"}, '"lbfgs" or "adam" for a TabularReward'),
        (Net(3, 2), {"method": "newton"}, "method: expected"),
        (Net(3, 2), {"training": 3}, "training: expected"),
        (Net(4, 3), {"steps": 0}, "steps: expected"),
        (nn.Linear(3, 2), {}, "module: called with tensors .* raised"),
        (nn.Identity(), {}, "module: expected parameters that require grad"),
        (lambda s, a: s, {}, "reward: expected a LinearReward"),
    ],
)
def test_what_does_not_fit_is_said(reward, options, message):
    model, seen, _ = case(n=5)
    with pytest.raises(ValueError, match=message):
        inference.fit_reward(model, seen, reward, progress=False, **options)


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_a_start_that_is_impossible_is_said(method):
    model, seen, _ = case(n=5)
    table = cai.tabulate(model)
    final = torch.full((3,), -torch.inf, dtype=torch.float64)
    final[(seen.states[0, -1] + 1) % 3] = 0.0  # which the first one does not reach
    table = dataclasses.replace(table, final_reward=final)
    with pytest.raises(ValueError, match="reward: expected parameters to begin with"):
        inference.fit_reward(
            table, seen, cai.TabularReward(), method=method, likelihood="matching", progress=False
        )


def test_impossible_demonstrations_are_left_out():
    after = torch.eye(3, dtype=torch.float64)[torch.tensor([[1, 2], [2, 0], [0, 1]])]
    model = models.tabular(after, torch.zeros(3, 2), horizon=2)
    seen = cai.Demonstrations.from_paths([[0, 1, 2], [0, 1, 1]], [[0, 0], [0, 0]])
    options = {"progress": False, "steps": 5}
    found = inference.fit_reward(model, seen, cai.TabularReward(), on_impossible="drop", **options)
    assert (found.demonstrations, found.actions, found.dropped) == (1, 2, 1)
    assert "1 impossible demonstrations were left out" in str(found)
    with pytest.raises(ValueError, match="demonstration 1, step 1"):
        inference.fit_reward(model, seen, cai.TabularReward(), **options)


def test_settings_out_of_range_are_said():
    for name, value in (("rate", 0.0), ("batch", 0), ("held_out", 1.0), ("patience", 0)):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            inference.RewardTraining(**{name: value})
    model, seen, reward = case(n=5)
    with pytest.raises(ValueError, match="training: expected None, but for method"):
        inference.fit_reward(model, seen, reward, training=inference.RewardTraining())
    town = models.city(4, 4)
    with pytest.raises(ValueError, match="reward: expected the names of features"):
        inference.fit_reward(town, seen, cai.TabularReward())
