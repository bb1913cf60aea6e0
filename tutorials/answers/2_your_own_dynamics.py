"""Answers to the exercises of notebook 2, on its night with a sourdough."""

import dataclasses

import pyro
import pyro.distributions as dist
import torch

import cai
from cai import inference

TOP, BREAD, FLAT = 6, 7, 8
WAIT, FOLD, BAKE = range(3)
COLLAPSES = torch.tensor([0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0, 0])
LOAF = torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0])
WARMTH = torch.tensor([0.3, 0.5, 0.2])


def rising(s, a, warmth):
    """The level after an hour of a given warmth, as in the notebook."""
    risk = COLLAPSES[s] * torch.where(a == FOLD, 0.25, 1.0)
    collapse = pyro.sample("collapse", dist.Bernoulli(risk)).bool()
    draught = pyro.sample("draught", dist.Bernoulli(0.1)).long()
    rise = torch.where(a == FOLD, (warmth - 1).clamp(min=0), warmth)
    level = torch.where(collapse, FLAT, (s + rise - draught).clamp(0, TOP))
    level = torch.where(a == BAKE, BREAD, level)
    return torch.where(s > TOP, s, level)


def dynamics(s, a):
    return dist.Delta(rising(s, a, pyro.sample("warmth", dist.Categorical(WARMTH))))


def reward(s, a, loaf=LOAF):
    return torch.where(a == BAKE, loaf[s], 0.0) - 0.2 * (a == FOLD)


def arrival_reward(s, a, s_next):
    return torch.where((s != FLAT) & (s_next == FLAT), -3.0, 0.0)


def final_reward(s):
    return torch.where(s <= TOP, -2.0, 0.0)


def action_prior(s):
    unfinished = s <= TOP
    allowed = torch.stack([torch.ones_like(unfinished), unfinished, unfinished & (s >= 2)], -1)
    return dist.Categorical(allowed.double())


NIGHT = cai.TrajectoryModel(
    initial=dist.Categorical(torch.nn.functional.one_hot(torch.tensor(1), 9).double()),
    dynamics=dynamics,
    reward=reward,
    arrival_reward=arrival_reward,
    final_reward=final_reward,
    action_prior=action_prior,
    horizon=8,
    temperature=0.5,
)


def answer_1():
    """The imagined return rises by 15, the real one by less than 4.

    The posterior was already nearly certain to bake a perfect loaf, so that its dream is paid 15
    more each night. What its policy really gets rises by a quarter of that. The best policy gets
    more, and still only a third of what was imagined.
    """
    better = LOAF.clone()
    better[TOP] = 20.0
    rich = dataclasses.replace(NIGHT, reward=lambda s, a: reward(s, a, better))
    found = {}
    for name, model in (("loaf of 5", NIGHT), ("loaf of 20", rich)):
        table = cai.tabulate(model)
        posterior, best = inference.posterior(table), inference.soft_values(table)
        gets = cai.evaluate(table, posterior.policy).expected_return
        found[name] = posterior.imagined_return, gets, best.imagined_return
        print(
            f"{name:10} imagined {found[name][0]:.2f}, gets {gets:.2f}, best {found[name][2]:.2f}"
        )
    before, after = found.values()
    assert 13 < after[0] - before[0] < 16
    assert before[2] < after[1] <= after[2] < after[0] - 5


def answer_2():
    """A fifth of a nat; to the exact posterior, which chooses the warmth anyway, nothing.

    The state is 3 * level + warmth of the hour that begins, and the warmth of the next hour is
    drawn in the dynamics. The first hour's warmth is drawn by ``initial``: level 1 with each
    warmth. What the best policy gains is the difference of the two ELBOs.
    """

    def seen_dynamics(x, a):
        after = rising(x // 3, a, x % 3)
        upcoming = pyro.sample("warmth", dist.Categorical(WARMTH))
        return dist.Delta(3 * after + upcoming)

    begin = torch.zeros(27, dtype=torch.float64)
    begin[3:6] = WARMTH
    seen = cai.TrajectoryModel(
        initial=dist.Categorical(begin),
        dynamics=seen_dynamics,
        reward=lambda x, a: reward(x // 3, a),
        arrival_reward=lambda x, a, y: arrival_reward(x // 3, a, y // 3),
        final_reward=lambda x: final_reward(x // 3),
        action_prior=lambda x: action_prior(x // 3),
        horizon=8,
        temperature=0.5,
    )
    without, with_it = (inference.soft_values(model).elbo for model in (NIGHT, seen))
    print(f"ELBO {without:.4f} without, {with_it:.4f} with: worth {with_it - without:.4f} nats")
    print(f"log p(O) {inference.posterior(NIGHT).bound:.4f}, {inference.posterior(seen).bound:.4f}")
    assert with_it > without
    assert abs(inference.posterior(NIGHT).bound - inference.posterior(seen).bound) < 1e-5


def answer_3():
    """The best policy gains: the colder, the less it pays for noise in its actions.

    The posterior's policy is surer of its luck the colder it is, and collects collapsed doughs.
    """
    rows = []
    for alpha in (0.05, 0.2, 0.5, 2.0, 5.0):
        table = cai.tabulate(dataclasses.replace(NIGHT, temperature=alpha))
        rows.append(
            [
                cai.evaluate(table, solve(table).policy).expected_return
                for solve in (inference.posterior, inference.soft_values)
            ]
        )
        print(f"α = {alpha:4}: posterior's policy {rows[-1][0]:6.3f}, best {rows[-1][1]:6.3f}")
    posterior, best = torch.tensor(rows).T
    assert (best.diff() < 0).all()
    assert posterior[0] < best[0] - 0.5
    assert posterior.argmax() > 0


SHOP, DOOR = torch.tensor([-2.0, 1.0]), torch.tensor([2.0, 0.0])


def answer_4():
    """It pushes north on the bridge, against the wind, where without a cross wind it does not.

    So it holds the middle of the bridge in both cases, within a few hundredths.
    """

    def over_water(s):
        return s[..., 0].abs() < 1.0

    def delivery(mean):
        def ride(s, a):
            spread = torch.where(over_water(s), 0.2, 0.05)
            wind = pyro.sample("wind", dist.Normal(torch.where(over_water(s), mean, 0.0), spread))
            return dist.Normal(s + a + torch.stack([0 * wind, wind], -1), 0.05).to_event(1)

        def splash(s, a, s_next):
            return torch.where(over_water(s_next) & (s_next[..., 1].abs() > 0.6), -2.0, 0.0)

        return cai.TrajectoryModel(
            initial=dist.Normal(SHOP, 0.1).to_event(1),
            dynamics=ride,
            reward=0.0,
            arrival_reward=splash,
            final_reward=lambda s: -2.0 * ((s - DOOR) ** 2).sum(-1),
            action_prior=dist.Normal(torch.zeros(2), 0.5).to_event(1),
            horizon=8,
            temperature=0.1,
        )

    aims, places = {}, {}
    for mean in (0.0, -0.2):
        model = delivery(mean)
        torch.manual_seed(0)
        fitted = inference.fit(
            model,
            cai.NeuralPolicy(model, hidden=(32,)),
            steps=250,
            samples=100,
            learning_rate=0.05,
            progress=False,
        )
        rides = model.simulate(fitted.policy, samples=500, seed=0)
        crossing = over_water(rides.states[:, :-1])
        aims[mean] = rides.actions[crossing][:, 1].mean().item()
        wet = (rides.rewards < 0).any(1).double().mean()
        places[mean] = rides.states[:, :-1][crossing][:, 1].mean().item()
        print(f"mean wind {mean:4}: pushes {aims[mean]:+.2f} north on the bridge,", end=" ")
        print(f"where y is {places[mean]:+.2f} on average; {wet:.0%} get wet")
    assert aims[0.0] + 0.08 < aims[-0.2]
    assert max(map(abs, places.values())) < 0.1
