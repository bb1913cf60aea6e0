"""Adversarial learning from transitions: what is paid, which lengths come out, and messages."""

import dataclasses
import itertools
import math
import pickle

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import cai
from cai import inference, models
from cai.inference.adversarial._adversary import Adversary
from cai.inference.adversarial._generators import Repaid, SoftQGenerator
from cai.inference.adversarial._networks import StateNetwork, TransitionDiscriminator
from cai.inference.adversarial._shown import share_over, shown, stay
from cai.inference.learning.stepped import stepped
from cai.stepping.source import Transition


def walk(horizon=None, discount=0.95):
    options = {"step_reward": -0.5, "horizon": horizon, "discount": discount, "slip": 0.0}
    return models.gridworld(["S..", "...", "..G"], **options)


def arrivals(n, seed, model=None, goal=8):
    """Walks to the goal of the soft policy without a horizon, as demonstrations."""
    model = model or walk()
    policy = inference.soft_values(model).policy
    long = dataclasses.replace(model, horizon=60, discount=1.0)
    paths = long.simulate(policy, n, seed=seed)
    states, actions = [], []
    for s, a in zip(paths.states.tolist(), paths.actions.tolist(), strict=True):
        if goal in s:
            L = s.index(goal)
            states.append(s[: L + 1])
            actions.append(a[:L])
    return cai.Demonstrations.from_paths(states, actions, ends="absorbed")


QUICK = {
    "steps": 12_000,
    "num_envs": 32,
    "hidden": (32,),
    "warm_up": 1_000,
    "learning_rate": 5e-3,
    "discriminator_rate": 2e-3,
    "lag": 0.05,
}


def learn(problem, demonstrations, *args, training=None, **options):
    settings = inference.AdversarialTraining(**QUICK | (training or {}))
    options = {"training": settings, "progress": False} | options
    return inference.adversarial_reward(problem, demonstrations, *args, **options)


# What is seen, and what is paid


def test_transitions_are_those_of_the_demonstrations_and_end_where_they_ended():
    seen = cai.Demonstrations.from_paths([[0, 1, 2], [3, 4]], [[1, 0], [1]], ["absorbed", "cut"])
    found = shown(seen, None, 10, 0.9)
    columns = (found.s, found.t, found.a, found.s_next, found.ended)
    assert [x.tolist() for x in columns] == [
        [0, 1, 3],
        [0, 1, 0],
        [1, 0, 1],
        [1, 2, 4],
        [False, True, False],
    ]
    # Of ten steps, the first one is over after two, and stays there for eight.
    assert found.over == pytest.approx(8 / 11)
    assert shown(seen, None, None, 0.9).over == pytest.approx(9 / 12)  # Σ_{k≥1} .9^k = 9
    paths = models.cartpole(horizon=30).simulate(lambda t, s: CART.prior(s), 20, seed=0)
    found = shown(paths, None, 30, 0.9)
    lengths = paths.alive[:, :-1].sum(1)
    assert len(found.t) == lengths.sum()
    assert found.ended.sum() == (~paths.alive.all(1)).sum()
    over = (30 - lengths[lengths < 30]).sum()
    assert found.over == pytest.approx(float(over / (over + lengths.sum())))
    assert torch.equal(found.s_next[0], paths.states[0, 1])


CART, POINT = models.cartpole(horizon=30), models.double_integrator(horizon=3)


def test_episodes_of_all_lengths_have_equally_many_steps():
    t = torch.tensor([4, 9])
    assert (stay(t, 10, 0.9) + t + 1).tolist() == [10, 10]
    assert share_over(t, torch.tensor([True, True]), 10, 0.9) == 5 / 7


def judge_of(problem, form, horizon, seed=0):
    torch.manual_seed(seed)
    reward = None
    if form == "airl":
        reward = cai.NeuralReward(StateNetwork(problem, (5,)))
    found = TransitionDiscriminator(problem, reward, (5,), horizon, None, True)
    with torch.no_grad():
        for p in found.parameters():
            p.copy_(torch.randn_like(p))
    return found


@pytest.mark.parametrize("form", ["airl", "gail"])
@pytest.mark.parametrize(("horizon", "discount"), [(None, 0.8), (12, 1.0), (12, 0.8)])
def test_what_the_absorbing_state_pays_is_the_sum_over_all_its_steps(form, horizon, discount):
    judge = judge_of(walk(horizon, discount), form, horizon)
    for t in (0, 4, 10):
        last = 400 if horizon is None else horizon
        steps = torch.arange(t + 1, last)
        each = discount ** (steps - t).double() * judge.staying(steps).detach()
        assert judge.to_come(torch.tensor(t)).item() == pytest.approx(each.sum().item(), abs=1e-9)


@pytest.mark.parametrize("end", [3, 7, None])
@pytest.mark.parametrize(("horizon", "discount"), [(None, 0.8), (12, 1.0), (12, 0.8)])
def test_all_that_an_episode_is_paid_is_its_reward_less_the_potential_at_its_start(
    horizon, discount, end
):
    """Whatever Φ is, and wherever the episode ends: at once, later, or at the horizon."""
    problem = walk(horizon, discount)
    judge = judge_of(problem, "airl", horizon)
    if horizon is None and end is None:
        pytest.skip("it has no end")
    L = end or horizon
    rng = torch.Generator().manual_seed(1)
    s = torch.randint(9, (L + 1,), generator=rng)
    t, a = torch.arange(L), torch.zeros(L, dtype=torch.long)
    ended = (t == L - 1) & (horizon != L)
    f = judge(s[:-1], t, a, s[1:], ended).detach()
    f = f + torch.where(ended, judge.to_come(t).detach(), 0.0)
    paid = (discount ** t.double() * f).sum()
    alpha = float(problem.temperature)
    reward = judge.reward(s[:-1], a, s[1:]).detach() / alpha
    own, r = (discount ** t.double() * reward).sum(), judge.absorbed[0].item()
    if horizon is None:
        own = own + discount**L * r / (1 - discount)
    else:
        own = own + sum(discount**k * r for k in range(L, horizon))
    start = judge.phi(torch.tensor(0), s[0]).item()
    assert paid.item() + start == pytest.approx(own.item(), abs=1e-4)


def test_a_memory_pays_anew_whenever_it_is_drawn_from():
    memory = Repaid(100, 2, 1)
    for t in range(5):
        s = torch.tensor([t, t + 10])
        zeros, no = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.bool)
        memory.add(Transition(s, s, s, zeros, s, no, no, ~no))
    assert memory.draw(20)[0].reward.abs().max() == 0
    for k in (1.0, 3.0):
        memory.pay = lambda x, k=k: k * x.s.double()
        drawn = memory.draw(20)[0]
        assert torch.equal(drawn.reward, k * drawn.s.double())
    assert set(memory.recent(50, 4).s.tolist()) == {3, 4, 13, 14}
    assert memory.all_recent(4).s.tolist() == [3, 13, 4, 14]


def test_the_generator_is_paid_what_its_signal_says():
    problem = walk()
    shown_once = shown(arrivals(5, 0), None, None, 0.95)
    for signal, form in itertools.product(("log_odds", "log_d", "minus_log"), ("airl", "gail")):
        torch.manual_seed(0)
        made = stepped(problem, 4)
        settings = inference.AdversarialTraining(**QUICK)
        player = SoftQGenerator(made, settings, None)
        with torch.no_grad():
            for p in player.learner.online.parameters():
                p.add_(0.3 * torch.randn_like(p))
        judge = judge_of(problem, form, None)
        state = Adversary(made, shown_once, judge, player, settings, signal, True, 0.0, None)
        drawn = made.copies.step(torch.tensor([0, 1, 2, 3]))
        drawn = drawn._replace(ended=torch.tensor([True, False, False, True]))
        odds = state.log_odds(drawn, drawn.ended).detach()
        ratio = player.log_ratio(drawn.s, drawn.t, drawn.a)
        own = dist.Categorical(logits=player.learner.log_policy(drawn.s, drawn.t))
        torch.testing.assert_close(ratio, own.log_prob(drawn.a).double() + math.log(4))
        D = odds.sigmoid()
        paid = {"log_odds": D.log() - (1 - D).log(), "log_d": D.log(), "minus_log": -(1 - D).log()}
        stays = judge.staying(torch.tensor(1)).sigmoid().item()
        each = {
            "log_odds": math.log(stays / (1 - stays)),
            "log_d": math.log(stays),
            "minus_log": -math.log(1 - stays),
        }
        after = torch.where(drawn.ended, 19 * each[signal], 0.0)  # Σ_{k≥1} .95^k = 19
        expected = float(problem.temperature) * (paid[signal] + ratio + after)
        torch.testing.assert_close(state.pay(drawn), expected.double(), rtol=0, atol=1e-6)


# What is learnt


def test_learners_keep_the_demonstrators_length_unless_ends_are_ignored():
    """A goal that is two steps away; the demonstrator takes 4 on average."""
    corridor = models.gridworld(["S.G"], step_reward=-0.3, horizon=None, discount=0.9, slip=0.0)
    quick = {"learning_rate": 1e-2, "discriminator_rate": 3e-3, "hidden": (16,), "lag": 0.1}
    quick |= {"warm_up": 500, "steps": 8_000}
    away = []
    for seed in range(3):
        seen = arrivals(200, seed, corridor, 2)
        found = learn(corridor, seen, generator="soft_q", training=quick | {"seed": seed})
        assert found.lengths[0] == pytest.approx(seen.lengths.double().mean().item())
        away.append(found.lengths[1] - found.lengths[0])
    # The standard error of the mean of 200 lengths is .17, on either side.
    assert max(map(abs, away)) < 0.9
    assert abs(sum(away) / 3) < 0.5
    options = {"generator": "soft_q", "ends": "ignored", "training": quick | {"steps": 4_000}}
    short = learn(corridor, seen, signal="log_d", **options)
    long = learn(corridor, seen, signal="minus_log", **options)
    assert short.lengths[1] < 2.3
    assert long.lengths[1] > long.lengths[0] + 3


def test_a_pole_is_held_up_for_longer_after_a_while():
    """CartPole, which can only be stepped; the demonstrator leans against the fall."""

    def expert(t, s):
        x = 8 * s[..., 2] + 2 * s[..., 3] + 0.3 * s[..., 0]
        return dist.Categorical(logits=torch.stack([-x, x], -1))

    seen = models.environment("CartPole-v1").simulate(expert, 5, seed=0)
    problem = models.environment("CartPole-v1", discount=0.97)
    training = {"steps": 6_000, "num_envs": 16, "learning_rate": 3e-3}
    found = learn(problem, seen, training=training)
    assert found.lengths[0] > 300
    returns = found.history["returns"]
    assert returns[-20:].nanmean() > 1.3 * returns[:10].nanmean()
    out = problem.simulate(found.policy, 4, seed=1)
    assert found.reward(out.states[:, 0], out.actions[:, 0]).shape == (4,)
    zero = torch.zeros(4, dtype=torch.long)
    at = zero, out.states[:, 0], out.actions[:, 0], out.states[:, 1]
    assert found.log_odds(*at).isfinite().all()
    assert found.potential(0, out.states[:, 0]).shape == (4,)
    assert found.model is problem


def test_continuous_actions_are_learnt_by_sac():
    """A point that is pushed back to the origin, from one unit away."""
    model = models.linear_gaussian(
        [[1.0]],
        [[1.0]],
        horizon=8,
        noise=[[0.05]],
        Q=[[1.0]],
        R=[[0.5]],
        initial_mean=[2.0],
        initial_covariance=[[0.1]],
        action_prior=dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
    )
    seen = model.simulate(inference.soft_values(model).policy, 200, seed=0)
    many = {"steps": 16_000, "num_envs": 64, "batch": 128}
    many |= {"updates": 2, "discriminator_updates": 2}
    found = learn(model, seen, training=many)
    out = model.simulate(found.policy, 300, seed=1)
    prior = model.simulate(lambda t, s: model.prior(s), 300, seed=1)
    apart, before = (
        (x.states.double().mean(0) - seen.states.double().mean(0)).abs().mean()
        + (x.states.double().std(0) - seen.states.double().std(0)).abs().mean()
        for x in (out, prior)
    )
    assert apart < 0.6 * before
    assert found.lengths == (8, 8)
    assert found.model is model


def test_weights_of_features_are_learnt_as_well():
    """A step costs .5 and being at home nothing, which the absorbing state tells."""
    reward = cai.LinearReward({"walking": lambda s, a: (s < 8).double()})
    found = learn(walk(), arrivals(300, 0), reward, generator="soft_q", training={"steps": 2_000})
    assert found.weights.keys() == {"walking"}
    assert isinstance(found.reward, cai.LinearReward)
    free = cai.TabularReward("state")
    other = learn(walk(), arrivals(300, 0), free, generator="soft_q", training={"steps": 2_000})
    assert other.reward.values.shape == (9,)
    assert other.reward.values.abs().max() > 0

    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.zeros(()))

        def forward(self, s, a):
            return self.value.expand(torch.broadcast_shapes(s.shape, a.shape))

    module = Bias()
    last = learn(walk(), arrivals(300, 0), module, generator="soft_q", training={"steps": 2_000})
    assert last.reward.module.value != 0
    assert module.value == 0  # a copy was trained


# Files and messages


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    seen = arrivals(50, 0)
    small = {"steps": 1_600, "num_envs": 16, "warm_up": 300}
    whole = learn(walk(), seen, generator="soft_q", training=small)
    once, calls = Adversary.once, itertools.count()

    def interrupted(self, history):
        if next(calls) == 60:
            raise KeyboardInterrupt
        once(self, history)

    path = tmp_path / "run.pt"
    with monkeypatch.context() as patched:
        patched.setattr(Adversary, "once", interrupted)
        part = learn(walk(), seen, generator="soft_q", training=small, checkpoint=path)
    assert part.steps == 60 * 16
    assert "interrupted" in str(part)
    rest = learn(walk(), seen, generator="soft_q", training=small, checkpoint=path)
    assert rest.steps == whole.steps
    assert rest.history["loss"].tolist() == whole.history["loss"].tolist()
    s = torch.arange(9)
    assert torch.equal(rest.reward(s, s * 0), whole.reward(s, s * 0))
    assert torch.equal(rest.policy(0, s).logits, whole.policy(0, s).logits)
    with pytest.raises(ValueError, match="training"):
        learn(walk(), seen, generator="soft_q", training=small | {"batch": 100}, checkpoint=path)


def test_the_same_seed_learns_the_same_and_the_result_can_be_pickled():
    small = {"steps": 800, "num_envs": 16, "warm_up": 300}
    seen, s = arrivals(50, 0), torch.arange(9)
    one, two, other = (
        learn(walk(), seen, generator="soft_q", training=small | {"seed": seed})
        for seed in (0, 0, 1)
    )
    assert torch.equal(one.reward(s, s * 0), two.reward(s, s * 0))
    assert not torch.equal(one.reward(s, s * 0), other.reward(s, s * 0))
    copy = pickle.loads(pickle.dumps((one.log_odds, one.potential, one.policy)))
    at = torch.zeros(9, dtype=torch.long), s, s % 4, s.roll(1)
    assert torch.equal(copy[0](*at), one.log_odds(*at))
    assert torch.equal(copy[1](0, s), one.potential(0, s))


def test_what_goes_wrong_is_said():
    """A generator that learns nothing is told apart, and one that is sure of itself collapsed."""
    P = np.zeros((40, 2, 40))
    for s in range(40):
        P[s, 0, s], P[s, 1, (s + 1) % 40] = 1.0, 1.0
    line = models.tabular(P, np.zeros((40, 2)), horizon=None, discount=0.9)
    seen = cai.Demonstrations.from_paths([list(range(20, 40))] * 5, [[1] * 19] * 5, ends="cut")
    idle = {"steps": 4_000, "learning_rate": 1e-9, "discriminator_rate": 2e-2, "warm_up": 100}
    apart = learn(line, seen, form="gail", generator="soft_q", penalty=0.0, training=idle)
    assert apart.on_demonstrations > 0.98
    assert "tells everything apart" in str(apart)

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.pay = nn.Parameter(torch.tensor(300.0))

        def forward(self, s, a):
            return self.pay * (a == 0)

    stuck = {"steps": 3_000, "discriminator_rate": 1e-9, "learning_rate": 3e-2}
    collapsed = learn(line, seen, Sure(), generator="soft_q", training=stuck)
    assert "collapsed" in str(collapsed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": models.environment("CartPole-v1")}, "discount: expected one below 1"),
        ({"demonstrations": 3}, "demonstrations: expected cai.Demonstrations, or Trajectories"),
        ({"problem": CART, "generator": "soft_q"}, "states of shape"),
        ({"problem": CART, "generator": "exact", "training": None}, "finitely many states and"),
        ({"problem": 3}, "problem|source: expected a model"),
        (
            {"problem": POINT, "demonstrations": POINT.simulate(lambda t, s: POINT.prior(s), 2, 0)},
            "finitely many actions",
        ),
    ],
)
def test_messages(change, message):
    given = {"problem": walk(), "demonstrations": arrivals(5, 0), "generator": "soft_q"} | change
    with pytest.raises(ValueError, match=message):
        learn(**given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"hidden": 3}, "hidden: expected a tuple"),
        ({"lag": 1.5}, "lag: expected between 0 and 1"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"discriminator_rate": -1.0}, "discriminator_rate"),
        ({"exploration": 2.0}, "exploration"),
        ({"warm_up": 60_000}, "warm_up: expected fewer transitions"),
    ],
)
def test_messages_about_settings(options, message):
    with pytest.raises(ValueError, match=message):
        inference.AdversarialTraining(**options)
