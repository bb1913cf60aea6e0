"""What a source draws is what the model says, step by step."""

import dataclasses

import pyro
import pyro.distributions as dist
import pytest
import torch

import cai
from cai import models
from cai.stepping.model_source import ModelSource

N = 20_000


def slippery(**changes):
    """Three states; the program draws a latent of its own, so that it is no Delta."""

    def dynamics(s, a):
        slip = pyro.sample("slip", dist.Bernoulli(torch.full(s.shape, 0.25)))
        return dist.Delta(torch.where(slip > 0, s, (s + a + 1) % 3))

    arguments = {
        "initial": dist.Categorical(torch.tensor([0.5, 0.5, 0.0])),
        "dynamics": dynamics,
        "reward": lambda s, a: -1.0 - s.double() - 0.5 * a,
        "arrival_reward": lambda s, a, s_next: 0.25 * s_next.double(),
        "final_reward": lambda s: 10.0 * s.double(),
        "action_prior": dist.Categorical(torch.ones(2)),
        "horizon": 3,
    }
    return cai.TrajectoryModel(**(arguments | changes))


def hopping(**changes):
    """The same, as far as steps go, where no table can be had."""

    def dynamics(s, a):
        slip = pyro.sample("slip", dist.Bernoulli(torch.full(s.shape, 0.25)))
        return dist.Delta(torch.where(slip > 0, s, (s + a.double() + 1) % 3))

    start = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return slippery(initial=cai.EmpiricalStates(start), dynamics=dynamics, **changes)


def actions(n, seed=0):
    return torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("make", [slippery, hopping])
def test_a_step_is_drawn_from_the_dynamics_and_pays_what_they_pay(make):
    torch.manual_seed(0)
    source = ModelSource(make(), N)
    assert source.s.double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / N**0.5)
    a, s = actions(N), source.s
    taken = source.step(a)
    assert torch.equal(taken.s, s)
    assert torch.equal(taken.a, a)
    assert not taken.t.any()
    moved = (s + a + 1) % 3
    assert ((taken.s_next == s) | (taken.s_next == moved)).all()
    apart = s != moved
    share = (taken.s_next == s)[apart].double().mean().item()
    assert share == pytest.approx(0.25, abs=5 * 0.25 / apart.sum().item() ** 0.5)
    expected = -1.0 - s.double() - 0.5 * a + 0.25 * taken.s_next.double()
    assert torch.allclose(taken.reward, expected)
    assert torch.equal(source.s, taken.s_next)
    assert (source.t == 1).all()


@pytest.mark.parametrize("make", [slippery, hopping])
def test_a_horizon_terminates_after_the_final_reward_and_the_next_episode_begins(make):
    torch.manual_seed(0)
    source = ModelSource(make(), N)
    for t in range(3):
        taken = source.step(actions(N, t))
        assert (taken.t == t).all()
        assert not taken.cut.any()
        assert (taken.ended == (t == 2)).all()
    paid = -1.0 - taken.s.double() - 0.5 * taken.a + 10.25 * taken.s_next.double()
    assert torch.allclose(taken.reward, paid)
    assert not source.t.any()
    assert (source.s < 2).all()
    assert (taken.s_next == 2).any()  # where it led, not where the next episode begins


def test_a_time_limit_truncates_and_pays_nothing():
    torch.manual_seed(0)
    source = ModelSource(slippery(horizon=None, final_reward=None), 50, time_limit=2)
    first, second = source.step(actions(50)), source.step(actions(50))
    assert not (first.over.any())
    assert not (second.ended.any())
    assert second.cut.all()
    assert not source.t.any()


@pytest.mark.parametrize("make", [slippery, hopping])
def test_a_discount_is_left_to_the_learner_or_drawn(make):
    torch.manual_seed(0)
    model = make(discount=0.7)
    assert not ModelSource(model, N).step(actions(N)).over.any()
    source = ModelSource(model, N, terminates=True)
    taken = source.step(actions(N))
    share = taken.ended.double().mean().item()
    assert share == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / N) ** 0.5)
    source.step(actions(N))
    last = source.step(actions(N))
    whole = last.t == 2
    pays = last.reward + 1 + last.s.double() + 0.5 * last.a - 0.25 * last.s_next.double()
    assert last.ended[whole].all()
    survived = (pays - 10 * last.s_next.double()).abs() < 1e-9
    died = pays.abs() < 1e-9
    assert (survived | died)[whole].all()  # who dies at the horizon gets no final reward
    asked = whole & (last.s_next > 0)
    share = died[asked].double().mean().item()
    assert share == pytest.approx(0.3, abs=5 * (0.21 / asked.sum().item()) ** 0.5)


def test_returns_of_episodes_are_those_of_the_exact_evaluation():
    torch.manual_seed(1)
    model = dataclasses.replace(models.ledge(horizon=6), discount=0.9)
    source, n = ModelSource(model, 5000, terminates=True), 5000
    total, going = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.bool)
    for _ in range(6):
        taken = source.step(torch.randint(2, (n,)))
        total += torch.where(going, taken.reward, 0.0)
        going &= ~taken.ended
    exact = cai.evaluate(model, lambda t, s: model.prior(s)).expected_return
    error = total.std().item() / n**0.5
    assert total.mean().item() == pytest.approx(exact, abs=4.5 * error)


def test_an_infinite_horizon_terminates_where_nothing_is_ever_paid_again():
    torch.manual_seed(0)
    model = models.gym("FrozenLake-v1", horizon=None)
    source, table = ModelSource(model, 500), cai.tabulate(model)
    closed = (table.dense(table.log_dynamics)[torch.arange(16), 0, torch.arange(16)] == 1).nonzero()
    for _ in range(30):
        taken = source.step(torch.randint(4, (500,)))
        assert torch.equal(taken.ended, torch.isin(taken.s_next, closed))


@pytest.mark.parametrize("make", [slippery, hopping])
def test_it_goes_on_from_its_state_to_the_bit(make):
    torch.manual_seed(5)
    source = ModelSource(make(), 30)
    source.step(actions(30))
    state, generator = source.state_dict(), torch.get_rng_state()
    after = [source.step(actions(30, k)) for k in range(6)]
    torch.manual_seed(17)
    other = ModelSource(make(), 30)
    torch.set_rng_state(generator)
    other.load_state_dict(state)
    for k, expected in enumerate(after):
        for mine, its in zip(other.step(actions(30, k)), expected, strict=True):
            assert torch.equal(mine, its)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_envs": 0}, "num_envs: expected"),
        ({"time_limit": 5}, "time_limit: expected none beside a horizon"),
        ({"terminates": "yes"}, "terminates: expected"),
    ],
)
def test_wrong_input(wrong, message):
    arguments = {"num_envs": 3} | wrong
    with pytest.raises(ValueError, match=message):
        ModelSource(models.ledge(), **arguments)
